"""The page that explains a network: maps over images, filters, feature maps, what excites it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regraft.files import write_text
from regraft.report.gallery import image_address
from regraft.report.text import render
from regraft.system import __version__

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]

_SIDE = 112  # of an overlay, in pixels; the browser enlarges it
_DARKEST = 190  # opacity, of 255, where nothing speaks for the class
_SMALL = 56  # to this side small images are enlarged by a whole number
_GAP = 4  # between the small images of a sheet


@dataclass(frozen=True)
class Map:
    """Which parts of an image speak for a class.

    Args:
        method: How it was made.
        label: The class.
        values: (h, w), 0 to 1, over the whole view.
    """

    method: str
    label: str
    values: Values

    @property
    def overlay(self) -> str:
        """The ``data:`` address of what is laid over the view; see `overlay`."""
        return overlay(self.values)

    @property
    def empty(self) -> bool:
        """Whether nothing speaks for the class."""
        return not self.values.any()


@dataclass(frozen=True)
class Explained:
    """An image, what is predicted for it and why.

    Args:
        name: Its file.
        view: How it enters the network, (size, size, 3), 8 bits.
        chances: The most probable classes with their probabilities.
        maps: What speaks for a class.
    """

    name: str
    view: Pixels
    chances: tuple[tuple[str, float], ...]
    maps: tuple[Map, ...]

    @property
    def address(self) -> str:
        """The ``data:`` address of the view."""
        return _address(self.view, "jpeg")


@dataclass(frozen=True)
class StageMaps:
    """Some feature maps of one image behind one stage.

    Args:
        stage: The name of the stage.
        channels: Which channels they are.
        maps: (channels, h, w), 0 to 1: each from its own smallest to its largest value.
        total: How many channels there are.
    """

    stage: str
    channels: tuple[int, ...]
    maps: Values
    total: int


@dataclass(frozen=True)
class Inside:
    """What a network has learned; where there are two of something, the second is before training.

    Args:
        filters: The filters of the first layer, (n, h, w, 3), 8 bits.
        stages: The feature maps of the first image, stage by stage.
        channel: The channel of the last feature map that is looked into.
        excited: File, largest value and crop of the images that excite it most.
        made: What was made to excite something: what, and an image.
    """

    filters: Sequence[Pixels]
    stages: Sequence[Sequence[StageMaps]]
    channel: int
    excited: Sequence[tuple[str, float, Pixels]]
    made: Sequence[tuple[str, Pixels]]


def write_explained(
    images: Sequence[Explained],
    inside: Inside,
    path: str | os.PathLike[str],
    *,
    title: str,
    label: str,
    likeness: float,
) -> Path:
    """Write the page.

    Args:
        images: The images with their maps; the feature maps are those of the first.
        inside: What the network has learned.
        path: The HTML file to write.
        title: What the network is called.
        label: The class for which an image was made.
        likeness: The mean rank correlation of the maps with those of shuffled weights, -1 to 1.
    """
    html = render(
        "explain.html.j2",
        version=__version__,
        images=images,
        inside=inside,
        stages=list(zip(*inside.stages, strict=True)),
        title=title,
        label=label,
        likeness=likeness,
        address=_address,
        sheet=sheet,
        grey=lambda maps: np.repeat((maps[..., None] * 255).round().astype(np.uint8), 3, 3),
    )
    write_text(path, html)
    return Path(path)


def overlay(values: Values) -> str:
    """Return a map as the ``data:`` address of an image to be laid over the view, enlarged to it.

    It darkens what does not speak for the class, and a line surrounds what speaks at least half as
    much for it as the place that does most: both can be read without colours.

    Example:
        >>> overlay(np.eye(7, dtype=np.float32))[:22]
        'data:image/png;base64,'
    """
    large = Image.fromarray(values).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    fine = np.asarray(large).clip(0, 1)
    inner = np.pad(fine >= 0.5, 1)
    around = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    line = inner[1:-1, 1:-1] & ~around
    opacity = np.where(line, 255, (1 - fine) * _DARKEST).round()
    return _address(np.stack([line * 255, opacity], axis=2).astype(np.uint8), "png")


def sheet(images: Pixels, columns: int) -> str:
    """Return small images in rows as the ``data:`` address of one image.

    Args:
        images: (n, h, w, 3), 8 bits.
        columns: How many stand in a row.

    Example:
        >>> sheet(np.zeros((5, 3, 3, 3), np.uint8), columns=4)[:22]
        'data:image/png;base64,'
    """
    enlarged = max(1, _SMALL // images.shape[1])
    images = images.repeat(enlarged, 1).repeat(enlarged, 2)
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    drawn = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 4), np.uint8)
    for place, image in enumerate(images):
        top, left = (place // columns) * (height + _GAP), (place % columns) * (width + _GAP)
        drawn[top : top + height, left : left + width, :3] = image
        drawn[top : top + height, left : left + width, 3] = 255
    return _address(drawn, "png")


def _address(pixels: Pixels, kind: str) -> str:
    options = {"quality": 88} if kind == "jpeg" else {}
    return image_address(Image.fromarray(pixels), kind, **options)
