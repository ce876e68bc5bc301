"""Draw pictures that nobody photographed: fractals, textures and shapes, without a label.

They have edges, colours and repetitions that photographs of things seldom show; the teachers say
what they see in them. Fractals are drawn by random iterated function systems, after Kataoka et al.,
"Pre-training without natural images", ACCV 2020.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw

POINTS, TURNS = 2000, 40  # of the chaos game: points followed at once, and steps of each


def colours(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return values (h, w) of 0 to 1 as colours (h, w, 3) of a random palette, 0 to 255."""
    count = int(generator.integers(2, 6))
    palette = generator.uniform(0, 255, (count, 3))
    places = np.linspace(0, 1, count)
    channels = [np.interp(values, places, palette[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def stretched(values: np.ndarray) -> np.ndarray:
    """Return values moved to 0 to 1."""
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, 1e-9)


def fractal(side: int, generator: np.random.Generator) -> np.ndarray:
    """Return the attractor of two to six random contracting affine maps, (side, side, 3)."""
    count = int(generator.integers(2, 7))
    turns = generator.uniform(-1, 1, (count, 2, 2))
    largest = np.linalg.norm(turns, ord=2, axis=(1, 2))
    turns *= (generator.uniform(0.4, 0.9, count) / largest)[:, None, None]
    moves = generator.uniform(-1, 1, (count, 2))
    points = generator.uniform(-1, 1, (POINTS, 2))
    visited = []
    for turn in range(TURNS):
        chosen = generator.integers(0, count, POINTS)
        points = np.einsum("nij,nj->ni", turns[chosen], points) + moves[chosen]
        if turn >= 10:  # before, they may not have come near the attractor
            visited.append(points)
    places = np.concatenate(visited)
    density = np.histogram2d(places[:, 0], places[:, 1], bins=side)[0]
    return colours(stretched(np.log1p(density)), generator)


def texture(side: int, generator: np.random.Generator) -> np.ndarray:
    """Return noise of a random spectrum and direction, (side, side, 3)."""
    down, across = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    angle, stretch = generator.uniform(0, np.pi), generator.uniform(1, 6)
    along = down * np.cos(angle) + across * np.sin(angle)
    beside = across * np.cos(angle) - down * np.sin(angle)
    frequency = np.hypot(along, beside * stretch) * side
    centre = generator.uniform(0, side / 8) * generator.integers(2)  # waves, or clouds
    spectrum = 1 / (1 + np.abs(frequency - centre)) ** generator.uniform(1, 2.5)
    noise = np.fft.fft2(generator.normal(size=(side, side)))
    values = stretched(np.fft.ifft2(noise * spectrum).real)
    if generator.random() < 0.3:
        values = np.floor(values * 5) / 4  # patches with hard borders
    return colours(values.clip(0, 1), generator)


def shapes(side: int, generator: np.random.Generator) -> np.ndarray:
    """Return three to twelve filled shapes on a texture, (side, side, 3)."""
    picture = Image.fromarray(texture(side, generator))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(generator.integers(3, 13))):
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        x, y = generator.uniform(0, side, 2)
        radius = generator.uniform(0.05, 0.35) * side
        kind, corners = int(generator.integers(3)), int(generator.integers(3, 9))
        if kind == 0:
            flat = radius * generator.uniform(0.4, 1)
            draw.ellipse((x - radius, y - flat, x + radius, y + flat), fill=colour)
            continue
        angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
        lengths = radius * (1 if kind == 1 else generator.uniform(0.3, 1, corners))
        outline = np.stack([x + lengths * np.cos(angles), y + lengths * np.sin(angles)], axis=1)
        draw.polygon([tuple(point) for point in outline], fill=colour)
    return np.asarray(picture)


KINDS: tuple[Callable[[int, np.random.Generator], np.ndarray], ...] = (fractal, texture, shapes)


def generated(count: int, side: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield pictures (side, side, 3) of all kinds in turn."""
    for number in range(count):
        yield KINDS[number % len(KINDS)](side, generator)
