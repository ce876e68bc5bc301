"""From an upright RGB picture to the 8-bit square that enters a network, pixel-equal to Pillow."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from regraft.backbones.spec import Preprocessing

_MODES = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "nearest": InterpolationMode.NEAREST_EXACT,  # the variant that picks Pillow's pixels
}


def prepare(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return a picture resized and cropped, as 8-bit RGB of shape (size, size, 3).

    The work runs without Python's lock, so that threads add up.

    Args:
        image: An upright picture of mode RGB.
        preprocessing: Its geometry is used; the normalisation happens inside the network.

    Raises:
        ImageError: The picture is so long and thin that resizing it would fill the memory.

    Example:
        >>> prepare(Image.new("RGB", (500, 375)), Preprocessing.torch()).shape
        (224, 224, 3)
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    height, width = _resized(image, preprocessing)
    if (height, width) != tuple(pixels.shape[1:]):
        pixels = functional.resize(
            pixels, [height, width], _MODES[preprocessing.interpolation], antialias=True
        )
    size = preprocessing.size
    top, left = round((height - size) / 2), round((width - size) / 2)
    square = pixels[:, top : top + size, left : left + size].permute(1, 2, 0)
    return np.ascontiguousarray(square.numpy())


def _resized(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the height and width after the resize, in pixels."""
    from regraft.data.images import Limits, refuse_huge_resize

    if preprocessing.mode == "squash":
        return preprocessing.size, preprocessing.size
    width, height = image.size
    side = preprocessing.resize
    name = getattr(image, "filename", "") or "picture"
    refuse_huge_resize(width, height, side, name=name, limits=Limits())
    # As torchvision and timm compute it: the long side is cut off, not rounded.
    if width <= height:
        return int(side * height / width), side
    return side, int(side * width / height)
