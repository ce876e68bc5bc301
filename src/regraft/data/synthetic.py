"""Small data sets made from nothing, for demonstrations, documentation and tests.

Drawn flowers differ by species in number, form and arrangement of petals and in their centre; the
species share their colours, so that colour alone does not tell them apart. Everything else is left
to chance: pose, size, light, focus, noise, number of flowers and what is behind them.
"""

from __future__ import annotations

import colorsys
import hashlib
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from regraft.data.dataset import Dataset, absolute
from regraft.errors import UsageError
from regraft.files import make_folder

_Colour = tuple[int, int, int]


class _Species(NamedTuple):
    """The form of a flower; lengths are parts of its radius."""

    petals: tuple[int, int]
    width: float  # 1: neighbours touch
    base: float  # how slowly a petal widens from the centre
    tip: float  # how slowly it narrows towards its end
    centre: float
    disc: _Colour
    rings: int = 1  # of petals, each shorter than the one below


_HUES = {  # of petals: hue, saturation, value
    "white": (0.12, 0.05, 0.96),
    "yellow": (0.145, 0.85, 0.97),
    "orange": (0.075, 0.9, 0.96),
    "red": (0.99, 0.87, 0.82),
    "pink": (0.93, 0.45, 0.95),
    "lilac": (0.77, 0.35, 0.88),
    "blue": (0.64, 0.62, 0.82),
}
_SPECIES = {
    "daisy": _Species((16, 24), 0.95, 0.35, 0.22, 0.3, (216, 160, 30)),
    "poppy": _Species((3, 4), 1.3, 0.6, 0.16, 0.16, (50, 40, 36), rings=2),
    "buttercup": _Species((5, 5), 1.05, 0.75, 0.2, 0.16, (150, 156, 50)),
    "cornflower": _Species((8, 11), 0.9, 1.5, 0.14, 0.1, (60, 40, 60), rings=2),
    "bellflower": _Species((5, 5), 0.8, 0.35, 0.75, 0.07, (170, 166, 70)),
    "cosmos": _Species((8, 8), 1.0, 0.6, 0.16, 0.2, (200, 140, 34)),
}
_GROUNDS = (  # light and dark colours behind the flowers
    ((78, 112, 42), (22, 40, 18)),  # grass
    ((52, 84, 52), (14, 26, 18)),  # shady bushes
    ((124, 104, 78), (52, 44, 34)),  # soil
    ((190, 184, 150), (90, 104, 70)),  # dry meadow
    ((170, 190, 208), (98, 124, 104)),  # sky and trees
)


def make_flowers(
    folder: str | os.PathLike[str],
    *,
    species: int | None = None,
    per_class: int = 60,
    size: int = 96,
    seed: int = 0,
) -> Dataset:
    """Draw flowers into ``folder/<species>/`` as JPEG files and return them as a data set.

    The images depend on species, size, seed and their number only; a larger ``per_class`` adds
    images and leaves the first ones as they are.

    Args:
        folder: Where to; made if missing.
        species: How many of the six species, at least two; default: all.
        per_class: Images of each species.
        size: Side of the square images in pixels, at least 16.
        seed: Another seed, other images.

    Raises:
        UsageError: An argument is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_flowers(folder, species=2, per_class=1, size=32).counts()
        {'daisy': 1, 'poppy': 1}
    """
    if species is not None and not 2 <= species <= len(_SPECIES):
        raise UsageError("species out of range", why=f"{species}, there are {len(_SPECIES)}")
    if per_class < 1 or size < 16:
        raise UsageError("too few or too small images", why=f"per_class={per_class}, size={size}")
    root, paths, labels = absolute(folder), [], []
    chosen = sorted(list(_SPECIES)[:species])
    for name in chosen:
        make_folder(root / name)
        for number in range(per_class):
            paths.append(root / name / f"{name}_{number:04d}.jpg")
            labels.append(name)
            _draw_flowers(name, number, size, seed).save(paths[-1], "JPEG", quality=90)
    return Dataset(tuple(paths), tuple(labels), tuple(chosen), root=root)


def _draw_flowers(name: str, number: int, size: int, seed: int) -> Image.Image:
    digest = hashlib.sha256(f"{seed}\0{name}\0{number}".encode()).digest()
    chance = np.random.default_rng(int.from_bytes(digest[:16]))
    double = 2 * size  # drawn at twice the size, for smooth edges
    image = _background(double, chance)
    hue = chance.choice(list(_HUES))
    flowers = int(chance.choice([1, 2, 3], p=[0.6, 0.27, 0.13]))
    for _ in range(flowers):
        radius = chance.uniform(0.2, 0.42) * double / (1 + 0.25 * (flowers - 1))
        spread = 0.09 if flowers == 1 else 0.2
        x, y = (0.5 + chance.normal(0, spread, 2)).clip(0.2, 0.8) * double
        foot = (x + chance.normal(0, 0.2) * double, 1.05 * double)
        draw = ImageDraw.Draw(image)
        draw.line([(x, y), foot], fill=_green(chance), width=max(2, int(radius / 6)))
        _draw_flower(draw, _SPECIES[name], _petal_colour(hue, chance), (x, y, radius), chance)
    return _photograph(image.resize((size, size), Image.Resampling.BOX), chance)


def _draw_flower(
    draw: ImageDraw.ImageDraw,
    species: _Species,
    colour: NDArray[Any],
    place: tuple[float, float, float],
    chance: np.random.Generator,
) -> None:
    x, y, radius = place
    turn, towards = chance.uniform(0, 2 * np.pi, 2)
    low, high = species.petals
    petals = int(chance.integers(low, high + 1))
    # Seen from the side a circle is an ellipse, narrow in the direction of the tilt.
    along = np.array([np.cos(towards), np.sin(towards)])
    flatten = np.eye(2) - np.outer(along, along) * min(0.5, chance.normal(0, 0.25) ** 2)

    def polygon(outline: NDArray[Any], colour: NDArray[Any]) -> None:
        points = outline @ flatten * radius + (x, y)
        edge = _as_colour(colour * 0.8)
        draw.polygon([(a, b) for a, b in points.tolist()], fill=_as_colour(colour), outline=edge)

    t = np.linspace(0, 1, 13)
    profile = t**species.base * (1 - t) ** species.tip
    half = species.width * np.sin(np.pi / max(petals, 3)) * profile / profile.max()
    petal = np.stack([np.concatenate([t, t[::-1]]), np.concatenate([half, -half[::-1]])], 1)
    for ring in range(species.rings):
        for angle in turn + 0.4 * ring + 2 * np.pi * np.arange(petals) / petals:
            sine, cosine = np.sin(angle), np.cos(angle)
            length = (1 - 0.3 * ring) * chance.normal(1, 0.04)
            shade = 1 - 0.12 * ring + 0.1 * np.cos(angle - towards) + chance.normal(0, 0.03)
            polygon(length * petal @ np.array([[cosine, sine], [-sine, cosine]]), colour * shade)
    circle = np.linspace(0, 2 * np.pi, 24)
    disc = np.array(species.disc) * chance.uniform(0.8, 1.2)
    polygon(species.centre * np.stack([np.cos(circle), np.sin(circle)], 1), disc)


def _background(size: int, chance: np.random.Generator) -> Image.Image:
    light, dark = np.array(_GROUNDS[chance.integers(len(_GROUNDS))], float)
    cloud = Image.fromarray(chance.random((7, 7), dtype=np.float32))
    weight = np.asarray(cloud.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    ground = (dark + weight * (light - dark)) * chance.uniform(0.7, 1.25)
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(chance.integers(4, 24))):
        x, y = chance.uniform(-0.1, 1.1, 2) * size
        wide, high = chance.uniform(0.02, 0.14, 2) * size
        colour = _as_colour(light * chance.uniform(0.6, 1.5))
        draw.ellipse((x - wide, y - high, x + wide, y + high), fill=colour)
    for foot, lean in chance.uniform(-0.2, 1.2, (int(chance.integers(0, 12)), 2)) * size:
        top = chance.uniform(0, 0.7) * size
        draw.line([(foot, size), (lean, top)], fill=_green(chance), width=max(2, size // 60))
    return image.filter(ImageFilter.GaussianBlur(chance.uniform(0.4, 4) * size / 192))


def _photograph(image: Image.Image, chance: np.random.Generator) -> Image.Image:
    """Return the scene as a camera would take it: light, colour cast, focus and noise."""
    size = image.width
    image = image.filter(ImageFilter.GaussianBlur(abs(chance.normal(0, 0.6)) * size / 96))
    ramp = np.linspace(-1, 1, size)
    slope = chance.normal(0, 0.12, 2)
    light = (1 + slope[0] * ramp[None, :] + slope[1] * ramp[:, None]) * chance.uniform(0.65, 1.2)
    scene = np.asarray(image) * light[..., None] * chance.normal(1, 0.07, 3)
    scene = scene + chance.normal(0, chance.uniform(1, 8), scene.shape)
    return Image.fromarray(scene.clip(0, 255).astype(np.uint8))


def _petal_colour(name: str, chance: np.random.Generator) -> NDArray[Any]:
    hue, saturation, value = _HUES[name] + chance.normal(0, 1, 3) * (0.018, 0.08, 0.05)
    saturation, value = np.clip((saturation, value), 0.02, 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _green(chance: np.random.Generator) -> _Colour:
    return _as_colour(chance.uniform(45, 150) * np.array([0.66 + chance.normal(0, 0.1), 1, 0.42]))


def _as_colour(values: NDArray[Any]) -> _Colour:
    red, green, blue = values.clip(0, 255).astype(int).tolist()
    return red, green, blue
