"""Random changes of training pictures that leave their class as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from regraft.training.geometry import FILLS, Fill, Pixels, affine, warp
from regraft.training.named_values import Range, find_settings, settle_fields, to_json
from regraft.training.policies import BINS, rand_augment, trivial_augment

Policy = Literal["trivial", "randaugment"]

_SHARE = Range(0, 1, "a share")
_ALLOWED: Mapping[str, Range | tuple[Any, ...]] = {
    "rotation": Range(0, 180, "degrees"),
    "shift_x": _SHARE,
    "shift_y": _SHARE,
    "shear": Range(0, 90, "degrees", below=True),
    "zoom": Range(0, 1, "a share", below=True),
    "flip": (False, True),
    "vertical_flip": (False, True),
    "fill": FILLS,
    "fill_value": Range(0, 255, "a level of grey"),
    "brightness": _SHARE,
    "contrast": _SHARE,
    "saturation": _SHARE,
    "policy": (None, "trivial", "randaugment"),
    "num_ops": Range(1, 14, "operations", whole=True),
    "magnitude": Range(0, BINS - 1, whole=True),
    "erasing": Range(0, 1, "a probability"),
}
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a picture: called with one and a generator, it returns it changed.

    The order is geometry, flips, colours, policy, erasing. Rotation, shift, shear and zoom are one
    affine map with bilinear sampling, the same as in Keras' ``ImageDataGenerator`` (see
    `regraft.training.geometry.affine`); each number is uniform in its range. The numbers of the
    geometry and the colours are drawn first and always, so that changing one setting leaves what
    the others do to a picture as it is.

    Args:
        rotation: Largest angle in degrees, either way, 0 to 180.
        shift_x: Largest shift to the side, as a share of the width, 0 to 1.
        shift_y: Largest shift up or down, as a share of the height, 0 to 1.
        shear: Largest shear angle in degrees, as in Keras: 0.2 is a fifth of a degree, not 20 %.
        zoom: Factors from 1 - zoom to 1 + zoom, drawn for rows and columns apart; above 1 the
            picture gets smaller. 0 to below 1.
        flip: Whether left and right are exchanged with probability 0.5.
        vertical_flip: Whether top and bottom are exchanged with probability 0.5.
        fill: What appears at the edges: the ``"nearest"`` pixel, the picture mirrored
            (``"reflect"``), or one grey (``"constant"``); for the policy, too.
        fill_value: That grey, 0 to 255.
        brightness: Factors from 1 - brightness to 1 + brightness, 0 to 1.
        contrast: The same for the distance from the picture's mean grey.
        saturation: The same for the distance from the picture without colours.
        policy: ``"trivial"`` for TrivialAugmentWide (Müller and Hutter, 2021), ``"randaugment"``
            for RandAugment (Cubuk et al., 2020).
        num_ops: Operations of RandAugment, 1 to 14.
        magnitude: Their strength, 0 to 30.
        erasing: Probability that a rectangle becomes noise (random erasing: Zhong et al., 2020),
            0 to 1.

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        >>> mirror = Augmentation(flip=True)
        >>> views = [mirror(picture, np.random.default_rng(seed))[0, 0, 0] for seed in range(6)]
        >>> sorted(set(map(int, views)))
        [0, 9]
    """

    rotation: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    vertical_flip: bool = False
    fill: Fill = "nearest"
    fill_value: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    policy: Policy | None = None
    num_ops: int = 2
    magnitude: int = 9
    erasing: float = 0.0

    def __post_init__(self) -> None:
        settle_fields(self, "augmentation", _ALLOWED)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``Augmentation(**values)`` is the augmentation again.

        Example:
            >>> Augmentation(**Augmentation(zoom=0.2).to_json()) == Augmentation(zoom=0.2)
            True
        """
        return to_json(self)

    def __call__(self, picture: Pixels, random: np.random.Generator) -> Pixels:
        """Return one view of a picture, (height, width, 3) in 8 bits, of the same size.

        Everything random comes from ``random``; the picture itself is left as it is.
        """
        drawn = random.uniform(-1, 1, 11)
        picture = self._moved(picture, drawn[:6])
        if self.flip and drawn[6] < 0:
            picture = picture[:, ::-1]
        if self.vertical_flip and drawn[7] < 0:
            picture = picture[::-1]
        picture = self._coloured(picture, drawn[8:])
        picture = self._by_policy(picture, random)
        if self.erasing and random.random() < self.erasing:
            picture = _erased(picture, random)
        return np.ascontiguousarray(picture)

    def _moved(self, picture: Pixels, drawn: NDArray[np.float64]) -> Pixels:
        if not any((self.rotation, self.shift_x, self.shift_y, self.shear, self.zoom)):
            return picture
        height, width = picture.shape[:2]
        matrix = affine(
            height,
            width,
            rotation=self.rotation * drawn[0],
            shift=(self.shift_y * height * drawn[1], self.shift_x * width * drawn[2]),
            shear=self.shear * drawn[3],
            zoom=(1 + self.zoom * drawn[4], 1 + self.zoom * drawn[5]),
        )
        return warp(picture, matrix, fill=self.fill, fill_value=self.fill_value)

    def _coloured(self, picture: Pixels, drawn: NDArray[np.float64]) -> Pixels:
        most = (self.brightness, self.contrast, self.saturation)
        if not any(most):
            return picture
        image = Image.fromarray(picture)
        for enhancer, share, one in zip(_ENHANCERS, most, drawn, strict=True):
            if share:
                image = enhancer(image).enhance(1 + share * one)
        return np.array(image)

    def _by_policy(self, picture: Pixels, random: np.random.Generator) -> Pixels:
        if self.policy == "trivial":
            return trivial_augment(picture, random, fill=self.fill, fill_value=self.fill_value)
        if self.policy == "randaugment":
            return rand_augment(
                picture,
                random,
                num_ops=self.num_ops,
                magnitude=self.magnitude,
                fill=self.fill,
                fill_value=self.fill_value,
            )
        return picture


def _erased(picture: Pixels, random: np.random.Generator) -> Pixels:
    """Fill a rectangle with noise, its share of the area and its proportions as published."""
    height, width = picture.shape[:2]
    for _ in range(100):
        area = random.uniform(0.02, 0.4) * height * width
        ratio = random.uniform(0.3, 1 / 0.3)
        rows, columns = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < rows < height and 0 < columns < width:
            top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
            noise = random.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
            picture = picture.copy()
            picture[top : top + rows, left : left + columns] = noise
            return picture
    return picture  # too small for any rectangle


# After "randaugment" come the sets of the published teaching material, named by what they do.
AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "standard": Augmentation(
            rotation=15, shift_x=0.1, shift_y=0.1, zoom=0.2, flip=True, fill="reflect"
        ),
        "trivial": Augmentation(policy="trivial", flip=True, fill="constant"),
        "randaugment": Augmentation(policy="randaugment", flip=True, fill="constant"),
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
)


def find_augmentation(augment: str | Augmentation | None) -> Augmentation | None:
    """Return an augmentation by its name, by its settings, or the augmentation itself.

    Args:
        augment: A name of ``AUGMENTATIONS``; settings such as ``"rotation=30,flip=true"``, which
            may begin with a name; an augmentation; None or ``"none"`` for none.

    Raises:
        UsageError: The name or a setting is unknown, or a value is out of range.

    Example:
        >>> find_augmentation("rotation=30,zoom=0.2,flip=true,fill=reflect").zoom
        0.2
        >>> find_augmentation("standard,rotation=90").rotation
        90.0
    """
    return find_settings(augment, Augmentation, AUGMENTATIONS)
