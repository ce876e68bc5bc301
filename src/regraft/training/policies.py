"""Augmentation policies: TrivialAugmentWide and RandAugment, with numbers from a given generator.

The operations and their strengths are those of torchvision, whose own classes draw from a global
state and so cannot be repeated across threads. Geometric operations sample bilinearly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from regraft.training.geometry import Fill, Matrix, Pixels, around, moved, warp

BINS = 31
"""Strengths that an operation has, from 0 (none) to 30 (the most)."""

_PLAIN = ("Identity", "AutoContrast", "Equalize")
_UNSIGNED = ("Posterize", "Solarize")
# From strength 0 to strength 30: slopes, pixels, degrees, changes of a factor of 1, bits, a level.
_TRIVIAL: Mapping[str, tuple[float, float]] = {
    "ShearX": (0.0, 0.99),
    "ShearY": (0.0, 0.99),
    "TranslateX": (0.0, 32.0),
    "TranslateY": (0.0, 32.0),
    "Rotate": (0.0, 135.0),
    "Brightness": (0.0, 0.99),
    "Color": (0.0, 0.99),
    "Contrast": (0.0, 0.99),
    "Sharpness": (0.0, 0.99),
    "Posterize": (8.0, 2.0),
    "Solarize": (255.0, 0.0),
}
_RAND: Mapping[str, tuple[float, float]] = {
    "ShearX": (0.0, 0.3),
    "ShearY": (0.0, 0.3),
    "TranslateX": (0.0, 150 / 331),  # shares of the width and height
    "TranslateY": (0.0, 150 / 331),
    "Rotate": (0.0, 30.0),
    "Brightness": (0.0, 0.9),
    "Color": (0.0, 0.9),
    "Contrast": (0.0, 0.9),
    "Sharpness": (0.0, 0.9),
    "Posterize": (8.0, 4.0),
    "Solarize": (255.0, 0.0),
}
OPERATIONS = ("Identity", *_TRIVIAL, "AutoContrast", "Equalize")
_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def trivial_augment(
    picture: Pixels, random: np.random.Generator, *, fill: Fill, fill_value: float
) -> Pixels:
    """Apply one operation of random strength: TrivialAugmentWide.

    Source: Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation,
    ICCV 2021. As published, it translates by up to 32 pixels whatever the size of the picture.

    Args:
        picture: (height, width, 3) in 8 bits.
        random: Where the operation, its strength and its sign are drawn from.
        fill: What lies outside; see `regraft.training.geometry.warp`.
        fill_value: The colour of ``"constant"``, 0 to 255.

    Example:
        >>> grey = np.full((8, 8, 3), 128, np.uint8)
        >>> trivial_augment(
        ...     grey, np.random.default_rng(0), fill="constant", fill_value=0
        ... ).shape
        (8, 8, 3)
    """
    name = OPERATIONS[random.integers(len(OPERATIONS))]
    amount = _amount(_TRIVIAL, name, int(random.integers(BINS)), random)
    return operate(picture, name, amount, fill=fill, fill_value=fill_value)


def rand_augment(
    picture: Pixels,
    random: np.random.Generator,
    *,
    num_ops: int,
    magnitude: int,
    fill: Fill,
    fill_value: float,
) -> Pixels:
    """Apply several operations of one strength, one after the other: RandAugment.

    Source: Cubuk, Zoph, Shlens and Le, RandAugment: Practical Automated Data Augmentation with a
    Reduced Search Space, CVPR workshops 2020.

    Args:
        picture: (height, width, 3) in 8 bits.
        random: Where the operations and their signs are drawn from.
        num_ops: How many operations.
        magnitude: Their strength, 0 to 30.
        fill: What lies outside; see `regraft.training.geometry.warp`.
        fill_value: The colour of ``"constant"``, 0 to 255.
    """
    height, width = picture.shape[:2]
    sides = {"TranslateX": width, "TranslateY": height}
    for _ in range(num_ops):
        name = OPERATIONS[random.integers(len(OPERATIONS))]
        amount = _amount(_RAND, name, magnitude, random) * sides.get(name, 1)
        picture = operate(picture, name, amount, fill=fill, fill_value=fill_value)
    return picture


def operate(
    picture: Pixels, name: str, amount: float, *, fill: Fill = "constant", fill_value: float = 0.0
) -> Pixels:
    """Apply one operation.

    Args:
        picture: (height, width, 3) in 8 bits.
        name: One of ``OPERATIONS``.
        amount: A slope (shear), whole pixels (translate), degrees against the clock (rotate), what
            is added to a factor of 1 (brightness, color, contrast, sharpness), bits that are kept
            (posterize) or the level from which colours are inverted (solarize).
        fill: What lies outside; see `regraft.training.geometry.warp`.
        fill_value: The colour of ``"constant"``, 0 to 255.

    Example:
        >>> grey = np.full((1, 1, 3), 100, np.uint8)
        >>> operate(grey, "Brightness", 0.5).tolist()
        [[[150, 150, 150]]]
    """
    if name == "Identity":
        return picture
    if name in _GEOMETRIC:
        matrix = _matrix(name, amount, *picture.shape[:2])
        return warp(picture, matrix, fill=fill, fill_value=fill_value)
    return np.array(_COLOUR[name](Image.fromarray(picture), amount))


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


def _amount(
    space: Mapping[str, tuple[float, float]], name: str, strength: int, random: np.random.Generator
) -> float:
    negative = bool(random.integers(2))  # drawn for every operation, used by some
    if name in _PLAIN:
        return 0.0
    low, high = space[name]
    amount = low + (high - low) * strength / (BINS - 1)
    if name == "Posterize":
        return round(amount)
    return -amount if negative and name not in _UNSIGNED else amount


def _matrix(name: str, amount: float, height: int, width: int) -> Matrix:
    if name.startswith("Shear"):  # from the upper left corner, as in the papers' code
        down, across = (amount, 0.0) if name == "ShearY" else (0.0, amount)
        slanted = np.array([[1.0, down, 0.0], [across, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return around(-0.5, -0.5, slanted)
    if name.startswith("Translate"):
        whole = float(int(amount))
        return moved(0.0, -whole) if name == "TranslateX" else moved(-whole, 0.0)
    cos, sin = math.cos(math.radians(amount)), math.sin(math.radians(amount))
    turned = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return around((height - 1) / 2, (width - 1) / 2, turned)
