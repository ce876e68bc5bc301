"""Drawn flowers: small data sets made from nothing, for demonstrations, documentation and tests.

There are two families of species, ``meadow`` and ``garden``, with no species in common, so that
what a network learns from one can be carried over to the other. Species differ in the number, form
and arrangement of petals and in their centre; they share most of their colours, so that colour
alone does not tell them apart. Nothing else is fixed: pose, size, colour, light, focus, noise,
number of flowers, what hides them and what is behind them.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import os
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from regraft.data import scenery
from regraft.data.dataset import Dataset, absolute
from regraft.data.painting import FloatArray, Species, View, paint_flower
from regraft.data.species import FAMILIES, HUES
from regraft.errors import UsageError
from regraft.files import write_bytes

Family = Literal["meadow", "garden"]

SPECIES: dict[str, tuple[str, ...]] = {
    family: tuple(each.name for each in species) for family, species in FAMILIES.items()
}
"""The names of the species of each family, in the order of their classes."""


def make_flowers(
    folder: str | os.PathLike[str],
    *,
    family: Family = "meadow",
    species: int | None = None,
    per_class: int = 60,
    size: int = 96,
    seed: int = 0,
) -> Dataset:
    """Draw flowers into ``folder/<species>/`` as JPEG files and return them as a data set.

    The pictures depend on family, species, size, seed and their number only; a larger ``per_class``
    adds pictures and leaves the first ones as they are.

    Args:
        folder: Where to; made if missing.
        family: ``"meadow"`` (six species) or ``"garden"`` (ten others).
        species: How many species of the family, at least two; default: all.
        per_class: Pictures of each species.
        size: Side of the square pictures in pixels, at least 16.
        seed: Another seed, other pictures.

    Raises:
        UsageError: An argument is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_flowers(folder, species=2, per_class=1, size=32).counts()
        {'daisy': 1, 'poppy': 1}
    """
    chosen = _chosen_species(family, species)
    if per_class < 1 or size < 16:
        raise UsageError("too few or too small pictures", why=f"per_class={per_class}, size={size}")
    root = absolute(folder)
    paths, labels = [], []
    for each in chosen:
        for number in range(per_class):
            picture = draw_flower(family, each.name, number=number, size=size, seed=seed)
            data = io.BytesIO()
            picture.save(data, format="JPEG", quality=90)
            paths.append(root / each.name / f"{each.name}_{number:04d}.jpg")
            labels.append(each.name)
            write_bytes(paths[-1], data.getvalue())
    names = tuple(each.name for each in chosen)
    return Dataset(tuple(paths), tuple(labels), names, root=root)


def draw_flower(
    family: Family, species: str, *, number: int = 0, size: int = 96, seed: int = 0
) -> Image.Image:
    """Return one picture of a species.

    Example:
        >>> draw_flower("garden", "rose", size=48).size
        (48, 48)
    """
    kind = next(each for each in FAMILIES[family] if each.name == species)
    digest = hashlib.sha256(f"{seed}\0{family}\0{species}\0{number}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16]))
    flowers = _arrange(size, generator)
    picture = scenery.paint_background(size, generator)
    _paint_stems(picture, flowers, generator)
    canvas: FloatArray = np.asarray(picture, np.float32) / 255
    light = float(generator.uniform(0, 2 * np.pi))
    main = _petal_colour(kind, generator)
    for view in flowers:
        tone = np.clip(main * generator.normal(1, 0.05, 3), 0, 1).astype(np.float32)
        paint_flower(canvas, kind, view, tone, light, generator)
    if generator.random() < 0.4:
        canvas = _hide_partly(canvas, generator)
    return scenery.photograph(canvas, generator)


def _chosen_species(family: str, count: int | None) -> tuple[Species, ...]:
    if family not in FAMILIES:
        raise UsageError("unknown family", why=family, hint=f"choose from {', '.join(FAMILIES)}")
    known = FAMILIES[family]
    if count is not None and not 2 <= count <= len(known):
        raise UsageError("species out of range", why=f"{count}, {family} has {len(known)}")
    return tuple(sorted(known[:count], key=lambda each: each.name))


def _arrange(size: int, generator: np.random.Generator) -> list[View]:
    """Return where the flowers stand, those farther away first."""
    count = int(generator.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.13, 0.07]))
    views = []
    for place in range(count):
        radius = generator.uniform(0.2, 0.44) * size / (1 + 0.25 * (count - 1))
        spread = 0.1 if count == 1 else 0.24
        x, y = size / 2 + generator.normal(0, spread, 2) * size
        views.append(
            View(
                x=float(np.clip(x, 0.15 * size, 0.85 * size)),
                y=float(np.clip(y, 0.15 * size, 0.8 * size)),
                radius=float(radius * (1 if place == count - 1 else 0.85)),
                tilt=float(np.abs(generator.normal(0, 0.55)).clip(0, 1.1)),
                towards=float(generator.uniform(0, 2 * np.pi)),
                turn=float(generator.uniform(0, 2 * np.pi)),
            )
        )
    return sorted(views, key=lambda view: view.radius)


def _paint_stems(picture: Image.Image, flowers: list[View], generator: np.random.Generator) -> None:
    size = picture.width
    plants = Image.new("RGBA", (2 * size, 2 * size))
    draw = ImageDraw.Draw(plants)
    for view in flowers:
        width = view.radius * generator.uniform(0.12, 0.25)
        scenery.draw_stem(draw, (2 * view.x, 2 * view.y), 2 * size, width, generator)
    plants = plants.resize((size, size), Image.Resampling.BOX)
    plants = plants.filter(ImageFilter.GaussianBlur(generator.uniform(0.2, 1.2) * size / 96))
    picture.paste(plants, mask=plants.getchannel("A"))


def _hide_partly(canvas: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Return the scene behind blades of grass that are too near to be sharp."""
    size = canvas.shape[0]
    picture = Image.fromarray((np.clip(canvas, 0, 1) * 255).astype(np.uint8))
    blades = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(blades)
    for _ in range(int(generator.integers(1, 4))):
        scenery.draw_blade(draw, size, generator, width=size * generator.uniform(0.03, 0.09))
    blades = blades.filter(ImageFilter.GaussianBlur(generator.uniform(0.5, 2) * size / 96))
    picture.paste(blades, mask=blades.getchannel("A"))
    return np.asarray(picture, np.float32) / 255


def _petal_colour(kind: Species, generator: np.random.Generator) -> FloatArray:
    hue, saturation, value = HUES[kind.hues[generator.integers(len(kind.hues))]]
    hue = (hue + generator.normal(0, 0.018)) % 1
    saturation = float(np.clip(saturation * generator.normal(1, 0.15), 0.02, 1))
    value = float(np.clip(value * generator.normal(1, 0.06), 0.3, 1))
    return np.asarray(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
