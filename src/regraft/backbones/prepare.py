"""From an upright RGB picture to the 8-bit square that enters a network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regraft.backbones.spec import Preprocessing
from regraft.data.images import refuse_huge_resize

# Torch's 8-bit resize is faster, but its rounded filter weights move some pixels by a level and,
# where a small picture is enlarged, many by several. Pillow is what the weights were trained with.
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def prepare(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return a picture resized and cropped, as 8-bit RGB of shape (size, size, 3).

    The resize runs without Python's lock, so that threads add up.

    Args:
        image: An upright picture of mode RGB.
        preprocessing: Its geometry is used; the normalisation happens inside the network.

    Raises:
        ImageError: The picture is so long and thin that resizing it would fill the memory.

    Example:
        >>> prepare(Image.new("RGB", (500, 375)), Preprocessing.torch()).shape
        (224, 224, 3)
    """
    scaled = image.resize(_resized(image, preprocessing), _FILTERS[preprocessing.interpolation])
    size = preprocessing.size
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return np.array(scaled.crop((left, top, left + size, top + size)))


def _resized(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height after the resize, in pixels."""
    if preprocessing.mode == "squash":
        return preprocessing.size, preprocessing.size
    side = preprocessing.resize
    if preprocessing.mode == "squash_crop":
        return side, side
    width, height = image.size
    refuse_huge_resize(width, height, side, name=getattr(image, "filename", "") or "picture")
    # As torchvision and timm compute it: the long side is cut off, not rounded.
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side
