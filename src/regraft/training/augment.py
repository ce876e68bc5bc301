"""Random changes of training images that leave their class as it is. Plain values.

An affine map is a 3 × 3 matrix from a place (row, column) in the new image to the place in the old
one where its colour comes from; the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field

from regraft.backbones.spec import Preprocessing
from regraft.errors import UsageError
from regraft.settings import parse_settings, settings_class

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Fill = Literal["nearest", "reflect", "constant"]
Share = Annotated[float, Field(ge=0, le=1)]

BINS = 31
"""Strengths that an operation of the policy has, from 0 (none) to 30 (the most)."""


@settings_class(kw_only=True)
class Augmentation:
    """What may happen to an image: called with one and a generator, it returns it changed.

    The order is crop, geometry, flips, brightness, policy. Rotation, shift, shear and zoom
    are one affine map with bilinear sampling, the same as in Keras' ``ImageDataGenerator``; each
    number is uniform in its range. The numbers of geometry and brightness are drawn first and
    always, so that changing one setting leaves what the others do to an image as it is.

    Args:
        crop: Side in pixels that images are resized to, at least the side that the network takes:
            a square at a random place enters it in place of the centre, as 227 of 256 pixels in
            AlexNet's training (Krizhevsky et al., 2012).
        rotation: Largest angle in degrees, either way, 0 to 180.
        shift_x: Largest shift to the side, as a share of the width, 0 to 1.
        shift_y: Largest shift up or down, as a share of the height, 0 to 1.
        shear: Largest shear angle in degrees, as in Keras: 0.2 is a fifth of a degree, not 20 %.
        zoom: Factors from 1 - zoom to 1 + zoom, drawn for rows and columns apart; above 1 the
            image gets smaller. 0 to below 1.
        flip: Whether left and right are exchanged with probability 0.5.
        vertical_flip: Whether top and bottom are exchanged with probability 0.5.
        fill: What appears at the edges: the ``"nearest"`` pixel, the image mirrored
            (``"reflect"``), or black (``"constant"``); for the policy, too.
        brightness: Factors from 1 - brightness to 1 + brightness, 0 to 1.
        policy: ``"trivial"`` for TrivialAugmentWide (Müller and Hutter, 2021): one operation of
            random strength.

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        >>> mirror = Augmentation(flip=True)
        >>> views = [mirror(image, np.random.default_rng(seed))[0, 0, 0] for seed in range(6)]
        >>> sorted(set(map(int, views)))
        [0, 9]
    """

    crop: Annotated[int, Field(ge=1)] | None = None
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift_x: Share = 0.0
    shift_y: Share = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    flip: bool = False
    vertical_flip: bool = False
    fill: Fill = "nearest"
    brightness: Share = 0.0
    policy: Literal["trivial"] | None = None

    def __call__(
        self, image: Pixels, random: np.random.Generator, size: int | None = None
    ) -> Pixels:
        """Return one view of an image, (height, width, 3) in 8 bits.

        Everything random comes from ``random``; the image itself is left as it is.

        Args:
            image: Of ``crop`` pixels where that is set.
            random: Where everything random comes from.
            size: The side that is cut out of it; by default all of the image.
        """
        drawn = random.uniform(-1, 1, 9)
        if self.crop is not None and size is not None:
            top, left = random.integers(np.array(image.shape[:2]) - size + 1)
            image = image[top : top + size, left : left + size]
        image = self._moved(image, drawn[:6])
        if self.flip and drawn[6] < 0:
            image = image[:, ::-1].copy()  # torch reads no negative strides
        if self.vertical_flip and drawn[7] < 0:
            image = image[::-1].copy()
        if self.brightness:
            changed = ImageEnhance.Brightness(Image.fromarray(np.ascontiguousarray(image)))
            image = np.array(changed.enhance(1 + self.brightness * drawn[8]))
        if self.policy is not None:
            name = OPERATIONS[random.integers(len(OPERATIONS))]
            strength = int(random.integers(BINS))
            image = operate(image, name, _amount(name, strength, random), fill=self.fill)
        return np.ascontiguousarray(image)

    def before(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return how images become the squares that are augmented.

        Raises:
            UsageError: ``crop`` is smaller than what the network takes.
        """
        if self.crop is None:
            return preprocessing
        if self.crop < preprocessing.size:
            why = f"the network takes {preprocessing.size} pixels"
            hint = "give the side of the larger squares that these are cut from"
            raise UsageError(f"crop cannot be {self.crop}", why=why, hint=hint)
        resize = max(self.crop, preprocessing.resize)
        return dataclasses.replace(preprocessing, size=self.crop, resize=resize)

    def _moved(self, image: Pixels, drawn: NDArray[np.float64]) -> Pixels:
        if not any((self.rotation, self.shift_x, self.shift_y, self.shear, self.zoom)):
            return image
        height, width = image.shape[:2]
        matrix = affine(
            height,
            width,
            rotation=self.rotation * drawn[0],
            shift=(self.shift_y * height * drawn[1], self.shift_x * width * drawn[2]),
            shear=self.shear * drawn[3],
            zoom=(1 + self.zoom * drawn[4], 1 + self.zoom * drawn[5]),
        )
        return warp(image, matrix, fill=self.fill)


# After "trivial" come the sets of the published teaching material, named by what they do.
AUGMENTATIONS: Mapping[str, Augmentation] = {
    "standard": Augmentation(
        rotation=15, shift_x=0.1, shift_y=0.1, zoom=0.2, flip=True, fill="reflect"
    ),
    "trivial": Augmentation(policy="trivial", flip=True, fill="constant"),
    "rotation30_zoom30_reflect": Augmentation(rotation=30, zoom=0.3, flip=True, fill="reflect"),
    "zoom30": Augmentation(zoom=0.3, flip=True),
    "rotation50_shift20_zoom30": Augmentation(
        rotation=50, shift_x=0.2, shift_y=0.2, shear=0.2, zoom=0.3, flip=True
    ),
    "rotation30_shift10_zoom20": Augmentation(
        rotation=30, shift_x=0.1, shift_y=0.1, shear=0.2, zoom=0.2, flip=True
    ),
    "rotation30_shift20_zoom20": Augmentation(
        rotation=30, shift_x=0.2, shift_y=0.2, shear=0.2, zoom=0.2, flip=True
    ),
    "rotation20_shift7": Augmentation(rotation=20, shift_x=0.07, shift_y=0.07, flip=True),
}


def find_augmentation(augment: str | Augmentation | None) -> Augmentation | None:
    """Return an augmentation by its name, by its settings, or the augmentation itself.

    Settings such as ``"rotation=30,flip=true"`` may begin with a name of ``AUGMENTATIONS``; None
    and ``"none"`` stand for none.

    Raises:
        UsageError: The name or a setting is unknown, or a value is out of range.

    Example:
        >>> find_augmentation("standard,rotation=90").rotation
        90.0
    """
    return parse_settings(augment, Augmentation, AUGMENTATIONS)


def affine(
    height: int,
    width: int,
    *,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    shear: float = 0.0,
    zoom: tuple[float, float] = (1.0, 1.0),
) -> Matrix:
    """Return the matrix of Keras' ``ImageDataGenerator``: rotation · shift · shear · zoom.

    They turn around the centre of the image; up to keras-preprocessing 1.1 Keras turned around a
    point one pixel further down and to the right. Angles are degrees, a positive one turns
    clockwise; the shift is in pixels down and to the right from which colours are taken; a zoom
    above 1 makes the image smaller.

    Example:
        >>> affine(5, 5, zoom=(2.0, 2.0)) @ (2, 2, 1)  # the centre stays
        array([2., 2., 1.])
    """
    turn, slant = np.deg2rad(rotation), np.deg2rad(shear)
    rotated = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    sheared = [[1, -np.sin(slant), 0], [0, np.cos(slant), 0], [0, 0, 1]]
    zoomed = np.diag([*zoom, 1.0])
    whole = np.array(rotated) @ moved(*shift) @ np.array(sheared) @ zoomed
    return around((height - 1) / 2, (width - 1) / 2, whole)


def moved(rows: float, columns: float) -> Matrix:
    """Return the matrix that takes colours from so many pixels below and to the right."""
    return np.array([[1.0, 0.0, rows], [0.0, 1.0, columns], [0.0, 0.0, 1.0]])


def around(row: float, column: float, matrix: Matrix) -> Matrix:
    """Return the matrix with this place instead of (0, 0) as its centre."""
    whole: Matrix = moved(row, column) @ matrix @ moved(-row, -column)
    return whole


def warp(image: Pixels, matrix: Matrix, *, fill: Fill = "nearest") -> Pixels:
    """Return an image (height, width, 3) in 8 bits seen through an affine map.

    What lies outside is as `Augmentation` says; ``"reflect"`` is d c b a | a b c d | d c b a.

    Example:
        >>> image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        >>> warp(image, moved(0, 1), fill="constant")[0].tolist()
        [[3, 4, 5], [0, 0, 0]]
    """
    import torch

    height, width = image.shape[:2]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    row = matrix[0, 0] * rows + (matrix[0, 1] * columns + matrix[0, 2])
    column = matrix[1, 0] * rows + (matrix[1, 1] * columns + matrix[1, 2])
    grid = np.empty((1, height, width, 2), np.float32)
    # grid_sample counts in halves of the image from its middle, edges at -1 and 1.
    np.subtract((column + 0.5) * (2 / width), 1, out=grid[0, ..., 0], casting="same_kind")
    np.subtract((row + 0.5) * (2 / height), 1, out=grid[0, ..., 1], casting="same_kind")
    source = np.require(image, requirements=["C", "W"])  # torch warns of arrays it cannot write
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(source).permute(2, 0, 1)[None].float(),
        torch.from_numpy(grid),
        mode="bilinear",
        padding_mode="reflection" if fill == "reflect" else "border",
        align_corners=False,
    )
    rounded = sampled[0].round_().to(torch.uint8).permute(1, 2, 0).contiguous()
    result: Pixels = rounded.numpy()
    if fill == "constant":
        slack = 1e-6  # places on the edge itself are inside, whatever the arithmetic rounds
        outside = (row < -slack) | (row > height - 1 + slack)
        outside |= (column < -slack) | (column > width - 1 + slack)
        result[outside] = 0
    return result


# The operations and strengths of torchvision, whose own classes draw from a global state and so
# cannot be repeated across threads. From strength 0 to strength 30: slopes, pixels whatever the
# image's size (as published), degrees, changes of a factor of 1, bits, grey.
STRENGTHS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("ShearX", "ShearY"), (0.0, 0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (0.0, 32.0)),
    "Rotate": (0.0, 135.0),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (0.0, 0.99)),
    "Posterize": (8.0, 2.0),
    "Solarize": (255.0, 0.0),
}
OPERATIONS = ("Identity", *STRENGTHS, "AutoContrast", "Equalize")
_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_COLOUR: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "Brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(1 + amount),
    "Color": lambda image, amount: ImageEnhance.Color(image).enhance(1 + amount),
    "Contrast": lambda image, amount: ImageEnhance.Contrast(image).enhance(1 + amount),
    "Sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(1 + amount),
    "Posterize": lambda image, amount: ImageOps.posterize(image, int(amount)),
    "Solarize": lambda image, amount: ImageOps.solarize(image, math.ceil(amount)),
    "AutoContrast": lambda image, _amount: ImageOps.autocontrast(image),
    "Equalize": lambda image, _amount: ImageOps.equalize(image),
}


def operate(image: Pixels, name: str, amount: float, *, fill: Fill = "constant") -> Pixels:
    """Apply one of ``OPERATIONS`` to an image.

    The amount is a slope (shear), whole pixels (translate), degrees against the clock (rotate),
    what is added to a factor of 1 (brightness, color, contrast, sharpness), bits that are kept
    (posterize) or the level from which colours are inverted (solarize).

    Example:
        >>> grey = np.full((1, 1, 3), 100, np.uint8)
        >>> operate(grey, "Brightness", 0.5).tolist()
        [[[150, 150, 150]]]
    """
    if name == "Identity":
        return image
    if name in _GEOMETRIC:
        return warp(image, _matrix(name, amount, *image.shape[:2]), fill=fill)
    return np.array(_COLOUR[name](Image.fromarray(image), amount))


def _amount(name: str, strength: int, random: np.random.Generator) -> float:
    negative = bool(random.integers(2))  # drawn for every operation, used by some
    if name not in STRENGTHS:
        return 0.0
    low, high = STRENGTHS[name]
    amount = low + (high - low) * strength / (BINS - 1)
    if name == "Posterize":
        return round(amount)
    return -amount if negative and name != "Solarize" else amount


def _matrix(name: str, amount: float, height: int, width: int) -> Matrix:
    if name.startswith("Shear"):  # from the upper left corner, as in the papers' code
        down, across = (amount, 0.0) if name == "ShearY" else (0.0, amount)
        slanted = np.array([[1.0, down, 0.0], [across, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return around(-0.5, -0.5, slanted)
    if name.startswith("Translate"):
        whole = float(int(amount))
        return moved(0.0, -whole) if name == "TranslateX" else moved(-whole, 0.0)
    return affine(height, width, rotation=-amount)
