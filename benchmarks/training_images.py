"""Photograph-like JPEGs for timing: coloured 1/f noise with the shape of their class on it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "cross", "rectangle", "stripes", "triangle")
WIDTH, HEIGHT = 500, 375


def draw_images(folder: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` JPEGs of 500×375, quality 90, as ``folder/<class>/<number>.jpg``."""
    random = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        image = Image.fromarray(_noise(random))
        _draw_shape(ImageDraw.Draw(image), name, random)
        image.save(folder / name / f"{number:05}.jpg", quality=90)


def _noise(random: np.random.Generator) -> np.ndarray:
    """Return noise whose amplitude falls as 1/f, like that of photographs, (height, width, 3)."""
    spectrum = np.fft.rfft2(random.standard_normal((3, HEIGHT, WIDTH)))
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    waves = np.fft.irfft2(spectrum / np.hypot(rows, columns).clip(1 / WIDTH), s=(HEIGHT, WIDTH))
    waves = 128 + 50 * waves / waves.std((1, 2), keepdims=True)
    return waves.transpose(1, 2, 0).clip(0, 255).astype(np.uint8)


def _draw_shape(draw: ImageDraw.ImageDraw, name: str, random: np.random.Generator) -> None:
    x, y = random.uniform(0.3, 0.7, 2) * (WIDTH, HEIGHT)
    r = random.uniform(40, 110)
    colour = tuple(int(part) for part in random.integers(0, 256, 3))
    if name == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif name == "cross":
        draw.line((x - r, y - r, x + r, y + r), fill=colour, width=24)
        draw.line((x - r, y + r, x + r, y - r), fill=colour, width=24)
    elif name == "rectangle":
        draw.rectangle((x - r, y - r / 2, x + r, y + r / 2), fill=colour)
    elif name == "stripes":
        for step in range(-2, 3):
            draw.line((x - r, y + step * r / 3, x + r, y + step * r / 3), fill=colour, width=9)
    else:
        turns = random.uniform(0, math.tau) + np.arange(3) * math.tau / 3
        corners = [(x + r * math.cos(turn), y + r * math.sin(turn)) for turn in turns]
        draw.polygon(corners, fill=colour)
