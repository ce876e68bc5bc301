"""How an image becomes the square that enters a network: resized and cropped, as 8-bit RGB."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regraft.backbones.spec import Preprocessing
from regraft.data.images import refuse_huge_resize
from regraft.errors import UsageError

# Torch's 8-bit resize is faster, but its rounded filter weights move some pixels by a level and,
# where a small image is enlarged, many by several. Pillow is what the weights were trained with.
_FILTERS = {name: Image.Resampling[name.upper()] for name in ("bicubic", "bilinear", "nearest")}


def prepare(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return an image resized and cropped, as 8-bit RGB of shape (size, size, 3).

    The resize runs without Python's lock, so that threads add up.

    Args:
        image: An upright image of mode RGB.
        preprocessing: Its geometry is used; the normalisation happens inside the network.

    Raises:
        ImageError: The image is so long and thin that resizing it would fill the memory.

    Example:
        >>> prepare(Image.new("RGB", (500, 375)), Preprocessing.torch()).shape
        (224, 224, 3)
    """
    scaled = image.resize(_resized(image, preprocessing), _FILTERS[preprocessing.interpolation])
    size = preprocessing.size
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return np.array(scaled.crop((left, top, left + size, top + size)))


def views_of(
    image: Image.Image, preprocessing: Preprocessing, count: int
) -> list[NDArray[np.uint8]]:
    """Return views of an image, each of which enters the network as it is.

    Args:
        image: An upright image of mode RGB.
        preprocessing: Its geometry is used. Where it cuts nothing away, corners are cut from the
            image enlarged by 8/7, as from 256 to 224 pixels.
        count: 2 for the centre and its mirror image; 10 for the four corners, too.

    Returns:
        Images of 8 bits that :func:`prepare` only cuts out, the centre first.

    Raises:
        ImageError: The image is so long and thin that resizing it would fill the memory.
        UsageError: ``count`` is another.

    Example:
        >>> image = Image.new("RGB", (500, 375))
        >>> [view.shape for view in views_of(image, Preprocessing.torch(), 2)]
        [(256, 256, 3), (256, 256, 3)]
    """
    if count not in {2, 10}:
        raise UsageError(f"there are no {count} views of an image", hint="take 1, 2 or 10")
    size, squash = preprocessing.size, preprocessing.mode == "squash"
    cuts = [prepare(image, preprocessing)]
    if count == 10:
        whole = squash or preprocessing.resize == size
        side = round(size / 0.875) if whole else preprocessing.resize
        mode = "squash_crop" if squash else preprocessing.mode
        wide = replace(preprocessing, resize=side, mode=mode)
        scaled = image.resize(_resized(image, wide), _FILTERS[wide.interpolation])
        right, bottom = scaled.width - size, scaled.height - size
        for left, top in ((0, 0), (right, 0), (0, bottom), (right, bottom)):
            cuts += [np.array(scaled.crop((left, top, left + size, top + size)))]
    return [framed(cut[:, ::step], preprocessing) for cut in cuts for step in (1, -1)]


def framed(view: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return a view with black around it, so that :func:`prepare` only cuts it out again.

    Args:
        view: As it enters the network, (size, size, 3).
        preprocessing: By which it was prepared.

    Example:
        >>> from PIL import Image
        >>> torch = Preprocessing.torch()
        >>> view = prepare(Image.new("RGB", (500, 375), "red"), torch)
        >>> np.array_equal(prepare(Image.fromarray(framed(view, torch)), torch), view)
        True
    """
    size = preprocessing.size
    side = size if preprocessing.mode == "squash" else preprocessing.resize
    before = round((side - size) / 2)
    frame = np.zeros((side, side, 3), np.uint8)
    frame[before : before + size, before : before + size] = view
    return frame


def _resized(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height after the resize, in pixels."""
    if preprocessing.mode == "squash":
        return preprocessing.size, preprocessing.size
    side = preprocessing.resize
    if preprocessing.mode == "squash_crop":
        return side, side
    width, height = image.size
    refuse_huge_resize(width, height, side, name=getattr(image, "filename", "") or "image")
    # As torchvision and timm compute it: the long side is cut off, not rounded.
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side
