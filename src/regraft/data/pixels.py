"""From the pixels a file stores to upright 8-bit RGB, and a hash to find like pictures by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regraft.errors import ImageError

_CONVERTIBLE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_BITS_TAG = 258  # of TIFF
_WHITE_TAG = 262
_STEP = 2  # levels of 255 that noise and compression change easily
_FINE = 16  # cells on a side of the fine grid
_STEPS_NEEDED = 16  # of 64 for a picture with something in it


def to_rgb(
    image: Image.Image,
    *,
    background: tuple[int, int, int],
    float_range: tuple[float, float] | None,
    name: str,
) -> Image.Image:
    """Return a loaded picture as mode RGB.

    Values of 12 and 16 bits are scaled, floats need a range, transparency is laid over a colour.

    Args:
        image: Any mode that the readable formats produce.
        background: RGB colour, 0 to 255, under transparent pixels.
        float_range: The values that become black and white for floats and 32-bit integers.
        name: The picture's name in errors.

    Raises:
        ImageError: IMG-FLOAT, IMG-RANGE or IMG-FORMAT.

    Example:
        >>> clear = Image.new("LA", (1, 1))
        >>> to_rgb(clear, background=(9, 9, 9), float_range=None, name="x").getpixel((0, 0))
        (9, 9, 9)
    """
    if image.mode.startswith("I;16"):
        return _sixteen_bit(image, background)
    if image.mode == "I":
        return _integers(image, float_range, name)
    if image.mode == "F":
        return _floats(image, float_range, name)
    if image.has_transparency_data:
        return _over(image.convert("RGBA"), background)
    if image.mode == "RGB":
        return image
    if image.mode not in _CONVERTIBLE:
        raise ImageError(
            "colour mode cannot be read",
            path=name,
            why=f"it is {image.mode}",
            hint="save it as RGB",
            code="IMG-FORMAT",
        )
    return image.convert("RGB")


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return ``image`` turned as an EXIF orientation, 1 to 8, says; other values change nothing.

    Example:
        >>> upright(Image.new("RGB", (3, 2)), 6).size
        (2, 3)
    """
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is broken.

    Example:
        >>> orientation_of(Image.new("RGB", (3, 2)))
        1
    """
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block raises anything, and never makes a picture unusable
        return 1
    return value if isinstance(value, int) else 1


def grey_scale_of(image: Image.Image) -> tuple[int, bool]:
    """Return what the values of a picture of mode ``I;16`` mean: how many bits, is zero white.

    Pillow turns and widens 8-bit values by itself, but leaves deeper ones as the file has them.

    Example:
        >>> grey_scale_of(Image.new("I;16", (3, 2)))
        (16, False)
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, 16)
    return int(bits[0] if isinstance(bits, tuple) else bits), tags.get(_WHITE_TAG) == 0


def difference_hashes(image: Image.Image) -> tuple[int, int] | None:
    """Return a coarse and a fine difference hash of a picture; None where they would say nothing.

    Each bit says whether brightness falls from one cell to the next of a grid: 64 bits from 9×8
    cells and 256 bits from 17×16 cells. Pictures that show the same scene in another size or
    compression differ in few bits of both. Pictures of one kind, such as chest radiographs, often
    agree in the coarse hash alone. Flat pictures would all look the same, and so would those with
    fewer pixels than the fine grid has cells, such as handwritten digits of 8×8 pixels.

    Args:
        image: A picture of mode RGB.

    Example:
        >>> difference_hashes(Image.new("RGB", (64, 64))) is None
        True
    """
    if image.width <= _FINE or image.height < _FINE:
        return None
    grey = image.convert("L")
    coarse = _steps(grey, 8)
    if np.count_nonzero(np.abs(coarse) > _STEP) < _STEPS_NEEDED:
        return None
    return _bits(coarse), _bits(_steps(grey, _FINE))


def _steps(grey: Image.Image, side: int) -> NDArray[np.int16]:
    cells = np.asarray(grey.resize((side + 1, side), Image.Resampling.BOX), np.int16)
    return cells[:, :-1] - cells[:, 1:]


def _bits(steps: NDArray[np.int16]) -> int:
    return int.from_bytes(np.packbits(steps > 0).tobytes(), "big")


def _sixteen_bit(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    values = np.asarray(image)
    bits, white_is_zero = grey_scale_of(image)
    scaled = values >> (bits - 8)
    rgb = _grey(255 - scaled if white_is_zero else scaled)
    clear = image.info.get(
        "transparency"
    )  # the one value that a 16-bit PNG may declare transparent
    if isinstance(clear, int):
        rgb.paste(background, mask=Image.fromarray(values == clear))
    return rgb


def _integers(image: Image.Image, bounds: tuple[float, float] | None, name: str) -> Image.Image:
    values = np.asarray(image)
    if image.format == "PPM" or bounds is None:
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                "32-bit integers of unknown range",
                path=name,
                why=f"the values lie between {values.min()} and {values.max()}",
                hint="save it with 16 bits, or state float_range=(black, white)",
                code="IMG-RANGE",
            )
        return _grey(values >> 8)
    return _stretched(values, bounds)


def _floats(image: Image.Image, bounds: tuple[float, float] | None, name: str) -> Image.Image:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ImageError(
            "values that are not finite",
            path=name,
            why="NaN or infinity among floating-point pixels",
            hint="replace them and save the picture again",
            code="IMG-FLOAT",
        )
    if bounds is None:
        raise ImageError(
            "floating-point pixels of unknown range",
            path=name,
            why=f"the values lie between {values.min():g} and {values.max():g}",
            hint="state float_range=(black, white)",
            code="IMG-FLOAT",
        )
    return _stretched(values, bounds)


def _stretched(
    values: NDArray[np.float32] | NDArray[np.int32], bounds: tuple[float, float]
) -> Image.Image:
    low, high = bounds
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return _grey(np.rint(scaled.clip(0.0, 255.0)))


def _grey(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _over(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image)
    return canvas.convert("RGB")
