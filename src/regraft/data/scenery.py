"""Painting what is around drawn flowers: blurred plants, leaves, stems, light, the camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from regraft.data.painting import FloatArray

_BACKGROUNDS: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((38, 66, 24), (78, 112, 42), (22, 40, 18), (120, 146, 70)),  # grass
    ((24, 44, 30), (52, 84, 52), (14, 26, 18), (92, 118, 84)),  # shady bushes
    ((92, 74, 52), (60, 46, 34), (124, 104, 78), (52, 66, 34)),  # soil
    ((150, 158, 120), (104, 124, 76), (190, 184, 150), (80, 96, 60)),  # dry meadow
    ((158, 182, 204), (120, 150, 168), (98, 124, 84), (196, 208, 214)),  # sky and trees
    ((120, 112, 104), (88, 84, 80), (150, 140, 128), (70, 84, 56)),  # stones
    ((110, 84, 100), (70, 88, 60), (150, 110, 120), (48, 60, 44)),  # other flowers, far off
)


def paint_background(size: int, generator: np.random.Generator) -> Image.Image:
    """Return a background, ``size`` × ``size``: clouds of natural colours, blobs and blades."""
    natural = np.asarray(_BACKGROUNDS[generator.integers(len(_BACKGROUNDS))], np.float32)
    palette = natural * generator.uniform(0.7, 1.25) + generator.normal(0, 7, natural.shape)
    weight = cloud(size, 4, generator), cloud(size, 9, generator), cloud(size, 24, generator)
    first, second, third = (layer[..., None] for layer in weight)
    ground = palette[0] + first * (palette[1] - palette[0])
    ground = ground + np.clip(second - 0.4, 0, 1) * 1.3 * (palette[2] - ground)
    ground = ground + np.clip(third - 0.5, 0, 1) * 0.9 * (palette[3] - ground)
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(generator.integers(4, 26))):
        _blob(draw, size, palette, generator)
    for _ in range(int(generator.integers(0, 16))):
        draw_blade(draw, size, generator, width=size / 40)
    return picture.filter(ImageFilter.GaussianBlur(generator.uniform(0.4, 4.5) * size / 96))


def cloud(size: int, grain: int, generator: np.random.Generator) -> FloatArray:
    """Return smooth noise in [0, 1] of ``size`` × ``size`` with about ``grain`` bumps a side."""
    small = Image.fromarray(generator.random((grain, grain), dtype=np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


def draw_blade(
    draw: ImageDraw.ImageDraw, size: int, generator: np.random.Generator, *, width: float
) -> None:
    """Draw a blade of grass that grows from below."""
    foot = generator.uniform(-0.1, 1.1) * size
    height = generator.uniform(0.3, 1.1) * size
    lean = generator.normal(0, 0.25) * size
    t = np.linspace(0, 1, 7)
    x = foot + lean * t**2
    y = size - height * t + 2
    half = width * (1 - t) / 2 + 0.3
    outline = np.concatenate([np.stack([x - half, y], 1), np.stack([x + half, y], 1)[::-1]])
    draw.polygon([tuple(point) for point in outline.tolist()], fill=leaf_green(generator))


def draw_leaf(
    draw: ImageDraw.ImageDraw,
    foot: tuple[float, float],
    length: float,
    angle: float,
    breadth: float,
    generator: np.random.Generator,
) -> None:
    """Draw a leaf with a darker half and a midrib."""
    t = np.linspace(0, 1, 9)
    half = breadth * length * np.sqrt(t) * (1 - t) ** 0.7 * 1.3
    bend = 0.15 * length * np.sin(np.pi * t) * generator.normal(0, 1)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    middle = np.asarray(foot) + t[:, None] * length * along + bend[:, None] * across
    green = leaf_green(generator)
    dark = tuple(int(0.78 * value) for value in green)
    for sign, fill in ((1, green), (-1, dark)):
        edge = middle + sign * half[:, None] * across
        outline = np.concatenate([middle, edge[::-1]])
        draw.polygon([tuple(point) for point in outline.tolist()], fill=fill)
    rib = tuple(min(255, int(1.25 * value + 8)) for value in green)
    draw.line([tuple(point) for point in middle.tolist()], fill=rib, width=max(1, int(length / 40)))


def draw_stem(
    draw: ImageDraw.ImageDraw,
    top: tuple[float, float],
    size: int,
    width: float,
    generator: np.random.Generator,
) -> None:
    """Draw a bent stem from the lower edge to ``top``, with leaves."""
    foot = top[0] + generator.normal(0, 0.22) * size
    t = np.linspace(0, 1, 9)
    x = foot + (top[0] - foot) * t + generator.normal(0, 0.05) * size * np.sin(np.pi * t)
    y = size + 4 + (top[1] - size - 4) * t
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    draw.line(points, fill=leaf_green(generator), width=max(1, round(width)), joint="curve")
    for _ in range(int(generator.integers(0, 4))):
        place = points[int(generator.integers(0, 7))]
        angle = generator.choice([-1, 1]) * generator.uniform(0.3, 1.3) - np.pi / 2
        length = generator.uniform(0.15, 0.4) * size
        draw_leaf(draw, place, length, angle, generator.uniform(0.12, 0.32), generator)


def leaf_green(generator: np.random.Generator) -> tuple[int, int, int]:
    """Return a green as of leaves, from yellowish to bluish."""
    light = generator.uniform(45, 150)
    warm = generator.normal(0, 0.13)
    values = (light * (0.66 + warm), light, light * (0.42 - 0.6 * warm))
    red, green, blue = (int(np.clip(value, 5, 235)) for value in values)
    return red, green, blue


def photograph(canvas: FloatArray, generator: np.random.Generator) -> Image.Image:
    """Return the scene as a camera would take it: light, colour cast, focus and noise."""
    size = canvas.shape[0]
    picture = canvas * (1 + 0.5 * generator.random() * (cloud(size, 4, generator) - 0.5))[..., None]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope_x, slope_y = generator.normal(0, 0.12, 2).astype(np.float32)
    vignette = generator.uniform(0, 0.25)
    light = 1 + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    light = light - vignette * (ramp[None, :] ** 2 + ramp[:, None] ** 2) / 2
    cast = generator.normal(1, 0.07, 3).astype(np.float32)
    picture = picture * light[..., None] * cast * np.float32(generator.uniform(0.65, 1.3))
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + (picture - grey) * np.float32(generator.uniform(0.65, 1.15))
    picture = picture + np.float32(generator.uniform(0, 0.06))  # haze
    picture = 1.22 * picture / (1 + 0.3 * picture)  # film bends before it clips
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    blur = abs(generator.normal(0, 0.6)) * size / 96
    if blur > 0.3:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    grain = generator.normal(0, generator.uniform(1, 8), (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def _blob(
    draw: ImageDraw.ImageDraw, size: int, palette: FloatArray, generator: np.random.Generator
) -> None:
    x, y = generator.uniform(-0.1, 1.1, 2) * size
    wide, high = generator.uniform(0.02, 0.16, 2) * size
    shade = palette[generator.integers(len(palette))] * generator.uniform(0.7, 1.5)
    red, green, blue = (int(np.clip(value, 0, 255)) for value in shade)
    draw.ellipse((x - wide, y - high, x + wide, y + high), fill=(red, green, blue))
