"""Painting one flower: rings of petals around a centre, seen from some side, with light and shade.

A flower is described in its own plane, with a radius of one. Each pixel is carried back into that
plane, where its petal, and its place on the petal, follow from its angle and distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
Range = tuple[float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Ring:
    """One ring of petals.

    Attributes:
        petals: Least and greatest number of petals.
        length: Length of a petal; 1 is the radius of the flower.
        width: Width of a petal; from 1 on neighbours touch.
        base: How slowly a petal widens from the centre.
        tip: How pointed its tip is: 0.2 is blunt, 1 is pointed.
        notch: Depth of the cut in the middle of the tip; negative for a point in the middle.
        teeth: Depth of teeth along the tip.
        ruffle: How wavy the outline is.
        cup: How far the petals rise towards the viewer (negative: bend back).
        height: How far above the outermost ring the ring lies.
        tint: What the colour of the petals is multiplied with, for red, green and blue.
    """

    petals: tuple[int, int]
    length: float = 1.0
    width: float = 1.0
    base: float = 0.7
    tip: float = 0.4
    notch: float = 0.0
    teeth: float = 0.0
    ruffle: float = 0.0
    cup: float = 0.25
    height: float = 0.0
    tint: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Centre:
    """What stands in the middle of a flower.

    Attributes:
        radius: Radius of the disc; 1 is the radius of the flower.
        colours: The colours it may have.
        grain: How strongly its florets show.
        stamens: Number of stamens around it.
        reach: How far out the stamens reach.
        stamen_colour: The colour of their tips.
    """

    radius: Range
    colours: tuple[Colour, ...]
    grain: float = 0.5
    stamens: int = 0
    reach: float = 0.3
    stamen_colour: Colour = (0.85, 0.7, 0.2)


@dataclass(frozen=True)
class Species:
    """What the flowers of one species have in common.

    Attributes:
        name: Its name.
        rings: Rings of petals, the outermost first.
        centre: The middle.
        hues: The colours its petals may have, the more frequent ones more than once.
        throat: The colour near the middle, and how far out it reaches; None: as the petals.
        veins: How strongly veins show on the petals.
        blotch: How dark the patch at the foot of the petals is.
        uneven: How much larger the petals on one side are.
    """

    name: str
    rings: tuple[Ring, ...]
    centre: Centre
    hues: tuple[str, ...]
    throat: tuple[Colour, float] | None = None
    veins: float = 0.15
    blotch: float = 0.0
    uneven: float = 0.0


@dataclass(frozen=True)
class View:
    """Where a flower stands in the picture and from which side it is seen.

    Attributes:
        x: Place of the middle in pixels.
        y: Place of the middle in pixels.
        radius: Radius in pixels.
        tilt: Angle between the axis of the flower and the line of sight, in radians.
        towards: Direction in the picture in which it leans, in radians.
        turn: Turn of the flower about its axis, in radians.
    """

    x: float
    y: float
    radius: float
    tilt: float
    towards: float
    turn: float


def paint_flower(
    canvas: FloatArray,
    species: Species,
    view: View,
    colour: FloatArray,
    light: float,
    generator: np.random.Generator,
) -> None:
    """Paint a flower onto the canvas.

    Args:
        canvas: Picture (height, width, 3) with values in [0, 1]; changed in place.
        species: What to paint.
        view: Where and from which side.
        colour: Colour of the petals, three values in [0, 1].
        light: Direction from which the light falls, in radians in the picture.
        generator: Where chance comes from.
    """
    rise = max(abs(ring.height) + abs(ring.cup) for ring in species.rings)
    reach = (1.3 + rise * np.sin(view.tilt)) * view.radius + 2
    height, width = canvas.shape[:2]
    top, bottom = int(max(0, view.y - reach)), int(min(height, view.y + reach + 1))
    left, right = int(max(0, view.x - reach)), int(min(width, view.x + reach + 1))
    if top >= bottom or left >= right:
        return
    patch = canvas[top:bottom, left:right]
    plane = _Plane(view, np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5, light)
    shadow = plane.soft_disc(0.9, 0.3, shift=0.12)
    patch *= 1 - 0.35 * shadow[..., None]
    for number, ring in enumerate(species.rings):
        _paint_ring(patch, plane, species, ring, number, colour, generator)
    _paint_centre(patch, plane, species, generator)


class _Plane:
    """The pixels around a flower, carried back into the plane of the flower."""

    def __init__(self, view: View, columns: FloatArray, rows: FloatArray, light: float) -> None:
        self.view = view
        self.pixel = 1.0 / view.radius
        x = ((columns - view.x) / view.radius).astype(np.float32)[None, :]
        y = ((rows - view.y) / view.radius).astype(np.float32)[:, None]
        cosine, sine = np.float32(np.cos(view.towards)), np.float32(np.sin(view.towards))
        self.along = x * cosine + y * sine
        self.across = y * cosine - x * sine
        self.light = light - view.towards

    def carried_back(self, height: float, cup: float) -> tuple[FloatArray, FloatArray]:
        """Return the coordinates in the plane of a ring whose petals rise by ``cup``."""
        flat = np.float32(1 / np.cos(self.view.tilt))
        lean = np.float32(np.sin(self.view.tilt))
        along = (self.along - height * lean) * flat
        rise = cup * np.minimum(along * along + self.across * self.across, 1.4)
        return (self.along - (height + rise) * lean) * flat, self.across

    def soft_disc(self, radius: float, softness: float, shift: float = 0.0) -> FloatArray:
        """Return the coverage of a disc with a soft edge, shifted away from the light."""
        along = self.along + shift * np.float32(np.cos(self.light))
        across = self.across + shift * np.float32(np.sin(self.light))
        distance = np.hypot(along / np.cos(self.view.tilt), across)
        coverage: FloatArray = np.clip((radius - distance) / softness + 0.5, 0, 1)
        return coverage


def _paint_ring(
    patch: FloatArray,
    plane: _Plane,
    species: Species,
    ring: Ring,
    number: int,
    colour: FloatArray,
    generator: np.random.Generator,
) -> None:
    count = int(generator.integers(ring.petals[0], ring.petals[1] + 1))
    along, across = plane.carried_back(ring.height, ring.cup)
    distance = np.sqrt(along * along + across * across)
    angle = np.arctan2(across, along)
    spacing = 2 * np.pi / count
    turned = (angle + plane.view.turn + 0.5 * spacing * (number % 2)) / spacing
    lower = np.floor(turned)
    colour = colour * np.asarray(ring.tint, np.float32)
    variation = _PetalVariation(count, species.uneven, generator)
    frequency, phase = generator.uniform(5, 9), generator.uniform(0, 6.3)
    wave = 1 + ring.ruffle * np.sin(frequency * turned * 2 + phase)
    for step in (0, 1):  # each petal lies over the one before it
        index = (lower + step).astype(np.int64) % count
        offset = (turned - lower - step) * spacing + variation.turn[index]
        length = ring.length * variation.length[index] * wave
        x, y = distance * np.cos(offset), distance * np.sin(offset)
        coverage, t, u = _petal(x, y, length, ring, spacing, plane.pixel)
        shade = _petal_shade(t, u, angle - offset - plane.light, species.veins)
        shade *= variation.brightness[index]
        tint = _petal_colour(colour, t, u, species, shade)
        patch += coverage[..., None] * (tint - patch)


class _PetalVariation:
    """How the single petals of a ring differ from each other."""

    def __init__(self, count: int, uneven: float, generator: np.random.Generator) -> None:
        angles = 2 * np.pi * np.arange(count) / count
        self.turn = generator.normal(0, 0.25 / count, count).astype(np.float32)
        spread = generator.normal(1, 0.05, count) + uneven * np.cos(angles)
        self.length = np.clip(spread, 0.5, 1.25).astype(np.float32)
        self.brightness = generator.normal(1, 0.06, count).astype(np.float32)


def _petal(
    x: FloatArray, y: FloatArray, length: FloatArray, ring: Ring, spacing: float, pixel: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return coverage, place along (0 foot, 1 tip) and place across (-1 to 1) of a petal."""
    widest = ring.base / (ring.base + ring.tip)
    peak = widest**ring.base * (1 - widest) ** ring.tip
    half = ring.width * ring.length * np.sin(min(spacing, 1.6) / 2)
    side = np.clip(y / half, -1, 1)
    outline = length * (1 - ring.notch * (1 - np.abs(side)) ** 2)
    if ring.teeth:
        outline = outline * (1 - ring.teeth * (0.5 - 0.5 * np.cos(3 * np.pi * side)))
    t = np.clip(x / outline, 1e-3, 0.999)
    breadth = half / peak * t**ring.base * (1 - t) ** ring.tip
    inside = np.minimum(breadth - np.abs(y), outline - x)
    coverage = np.clip(inside / pixel + 0.5, 0, 1) * (x > 0)
    return coverage, t, np.clip(y / (breadth + 1e-3), -1, 1)


def _petal_shade(
    t: FloatArray,
    u: FloatArray,
    to_light: FloatArray,
    strength: float,
) -> FloatArray:
    """Return the brightness of a petal's pixels: its form, its veins and the fall of light."""
    facing, across = np.cos(to_light), np.sin(to_light)  # of the petal as a whole
    form = 0.8 + 0.28 * np.sqrt(t) - 0.16 * u * u
    lit = 0.13 * facing * (0.4 + t) - 0.12 * across * u
    veins = strength * (np.cos(u * 14) * 0.5 - 0.3) * t * (1 - 0.5 * t)
    return form + lit + veins


def _petal_colour(
    colour: FloatArray, t: FloatArray, u: FloatArray, species: Species, shade: FloatArray
) -> FloatArray:
    tint = np.broadcast_to(colour, (*t.shape, 3))
    if species.throat is not None:
        throat, reach = species.throat
        amount = np.clip((reach - t) / (0.6 * reach) + 0.3, 0, 1)[..., None]
        tint = tint + amount * (np.asarray(throat, np.float32) - tint)
    if species.blotch:
        patch = np.clip(1.4 - 3.2 * np.abs(t - 0.22 - 0.12 * np.cos(3 * u)), 0, 1)
        tint = tint * (1 - species.blotch * patch[..., None])
    return np.clip(tint * shade[..., None], 0, 1)


def _paint_centre(
    patch: FloatArray, plane: _Plane, species: Species, generator: np.random.Generator
) -> None:
    centre = species.centre
    height = max(ring.height for ring in species.rings) + 0.05
    along, across = plane.carried_back(height, 0.0)
    distance = np.sqrt(along * along + across * across)
    angle = np.arctan2(across, along)
    if centre.stamens:
        _paint_stamens(patch, plane, centre, distance, angle, generator)
    radius = generator.uniform(*centre.radius)
    if radius <= 0:
        return
    coverage = np.clip((radius - distance) / plane.pixel + 0.5, 0, 1)
    base = np.asarray(centre.colours[generator.integers(len(centre.colours))], np.float32)
    ripple = np.sin(distance * 34 / max(radius, 0.15) * 0.3 + 3 * angle) * np.cos(
        9 * angle - 20 * distance
    )
    bulge = 1.1 - 0.45 * (distance / radius) ** 2
    lit = 0.2 * np.cos(angle - plane.light) * distance / radius
    shade = np.clip(bulge + lit + centre.grain * 0.3 * ripple, 0.1, 1.4)
    tint = np.clip(base * shade[..., None], 0, 1)
    patch += coverage[..., None] * (tint - patch)


def _paint_stamens(
    patch: FloatArray,
    plane: _Plane,
    centre: Centre,
    distance: FloatArray,
    angle: FloatArray,
    generator: np.random.Generator,
) -> None:
    """Paint thin threads with a small ball at the end of each."""
    spacing = 2 * np.pi / centre.stamens
    turned = angle / spacing + generator.uniform(0, 1)
    index = np.floor(turned).astype(np.int64) % centre.stamens
    reach = (centre.reach * generator.uniform(0.75, 1.15, centre.stamens)).astype(np.float32)[index]
    aside = (turned - np.floor(turned) - 0.5) * spacing * distance
    thread = np.clip(0.6 - np.abs(aside) / (0.012 + plane.pixel), 0, 1) * (distance < reach)
    ball = np.clip((0.045 - np.hypot(aside, distance - reach)) / plane.pixel + 0.5, 0, 1)
    tip = np.asarray(centre.stamen_colour, np.float32)
    patch += (0.7 * thread)[..., None] * (0.5 * tip + 0.3 - patch)
    patch += ball[..., None] * (tip - patch)
