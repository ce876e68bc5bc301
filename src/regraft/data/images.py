"""The one decoder: every image becomes upright 8-bit RGB, or an error that names it.

The errors are all `ImageError`, with these codes:

=================  ==========================================================================
IMG-UNREADABLE     not there, no permission, or not a regular file
IMG-EMPTY          zero bytes, or an array without pixels
IMG-NOT-AN-IMAGE   something else, such as a web page or a text
IMG-FORMAT         an image or document of a kind that is not read (EPS, PDF, SVG, HEIC, …)
IMG-TRUNCATED      the end of the file is missing
IMG-CORRUPT        damaged in another way
IMG-TOO-LARGE      more bytes, pixels or frames than the limits allow
IMG-ASPECT         so long and thin that resizing it would need too much memory
IMG-RANGE          floating-point values, or integers outside 0 to 65535: what is white is unknown
IMG-ARRAY          an array or object that is no H×W×3 uint8 image
=================  ==========================================================================

Decided once for training, prediction and export: EXIF orientation is applied; of several frames
the first one is used; transparent pixels lie over a stated background; of 12- and 16-bit values the
upper 8 bits are used, never clipped; colour profiles are ignored.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from regraft.data.image_errors import FORMATS, MOST_PIXELS, explain, pillow_warnings_ignored
from regraft.errors import ImageError
from regraft.files import sha256_bytes
from regraft.settings import settings_class

DECODER_VERSION = 2
"""Part of every cache key; raised whenever the same file decodes to other pixels."""

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]
"""What can be used as an image: a path, a Pillow image, or H×W×3 uint8 values (RGB)."""

# What one image may cost; one beyond a limit is refused with its size and the limit.
_MOST_BYTES = 200 << 20  # of the file
_MOST_RESIZED = 16_000_000  # width × height after the short side is resized
_MOST_FRAMES = 1000  # or pages, of which the first one is used
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
_SHORT_SIDE = 256  # what the usual preprocessing resizes the short side to
_COARSE, _FINE = 8, 16  # cells on a side of the two grids
_STEP = 2  # levels of 255 that noise and compression change easily
_STEPS_NEEDED = 16  # of 64 for an image with something in it
_TINY = 32  # pixels; an image with a shorter side is noted

Channel = Annotated[int, Field(ge=0, le=255)]


@settings_class()
class Decoding:
    """How pixels become RGB where a file leaves it open; part of every cache key.

    Args:
        background: RGB colour, 0 to 255, under transparent pixels.

    Example:
        >>> Decoding(background=(0, 0, 0)).background
        (0, 0, 0)
    """

    background: tuple[Channel, Channel, Channel] = (255, 255, 255)


@dataclass(frozen=True)
class Content:
    """What was read of one image, once: name, hash and the bytes or pixels themselves.

    Attributes:
        name: The path, or words for an image that came without one.
        sha256: SHA-256 of the file's bytes; for pixels of mode, size and values.
        data: The bytes of the file, or the Pillow image.
    """

    name: str
    sha256: str
    data: bytes | Image.Image = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known about one image file after it was decoded in full.

    Attributes:
        sha256: SHA-256 of its bytes.
        hashes: Difference hashes of 64 and 256 bits, None for an image with too little in it.
        notes: Codes of what is unusual: NOTE-TINY, NOTE-FRAMES, NOTE-GREY, NOTE-16BIT, NOTE-ALPHA,
            NOTE-CMYK, NOTE-FLAT.
    """

    sha256: str
    hashes: tuple[int, int] | None
    notes: tuple[str, ...]


def read_image(image: ImageLike) -> Content:
    """Read one image without decoding it, and hash what was read.

    Only regular files are opened, so that a pipe or a device never blocks.

    Raises:
        ImageError: IMG-UNREADABLE, IMG-EMPTY, IMG-TOO-LARGE or IMG-ARRAY.

    Example:
        >>> read_image(np.zeros((4, 6, 3), np.uint8)).name
        'an array'
    """
    if isinstance(image, np.ndarray):
        return _content_of_pixels(_from_array(image), "an array")
    if isinstance(image, Image.Image):
        return _content_of_pixels(image, getattr(image, "filename", "") or "a Pillow image")
    if not isinstance(image, str | os.PathLike):
        hint = "pass a path, a Pillow image or an H×W×3 uint8 array"
        why = f"got {type(image).__name__}"
        raise ImageError("not an image", why=why, hint=hint, code="IMG-ARRAY")
    name = os.fspath(image)
    data = _read_regular_file(name)
    return Content(name, sha256_bytes(data), data)


def open_image(image: ImageLike, decoding: Decoding = Decoding()) -> Image.Image:
    """Read one image and decode it into an upright one of mode RGB.

    Raises:
        ImageError: The image cannot be used; the codes stand in the module's text.

    Example:
        >>> open_image(Image.new("RGB", (6, 4))).size
        (6, 4)
    """
    return decode(read_image(image), decoding)


def decode(content: Content, decoding: Decoding = Decoding()) -> Image.Image:
    """Decode what `read_image` read into an upright image of mode RGB.

    Raises:
        ImageError: The image cannot be used; it names the image, and nothing else is raised.

    Example:
        >>> decode(read_image(Image.new("L", (6, 4)))).mode
        'RGB'
    """
    return _decode(content, decoding)[0]


def inspect(path: str | os.PathLike[str], decoding: Decoding = Decoding()) -> ImageFacts:
    """Decode one file in full and return what is known about it.

    Raises:
        ImageError: The file cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (40, 50)).save(f"{folder}/grey.png")
        ...     inspect(f"{folder}/grey.png").notes
        ('NOTE-GREY', 'NOTE-FLAT')
    """
    content = read_image(path)
    image, stored = _decode(content, decoding)
    hashes = difference_hashes(image)
    mode = stored.mode
    noted = {
        "NOTE-TINY": min(image.size) < _TINY,
        "NOTE-FRAMES": _frames(stored) > 1,
        "NOTE-GREY": mode in {"1", "L", "LA", "I"} or mode.startswith("I;16"),
        "NOTE-16BIT": mode[0] == "I",
        "NOTE-ALPHA": stored.has_transparency_data,
        "NOTE-CMYK": mode == "CMYK",
        "NOTE-FLAT": hashes is None,
    }
    notes = tuple(code for code, holds in noted.items() if holds)
    return ImageFacts(content.sha256, hashes, notes)


def difference_hashes(image: Image.Image) -> tuple[int, int] | None:
    """Return a coarse and a fine difference hash of an image; None where they would say nothing.

    Each bit says whether brightness falls from one cell to the next of a grid: 64 bits from 9×8
    cells and 256 bits from 17×16 cells. Images that show the same scene in another size or
    compression differ in few bits of both. Images of one kind, such as chest radiographs, often
    agree in the coarse hash alone. Flat images would all look the same, and so would those with
    fewer pixels than the fine grid has cells, such as handwritten digits of 8×8 pixels.

    Example:
        >>> difference_hashes(Image.new("RGB", (64, 64))) is None
        True
    """
    if image.width <= _FINE or image.height < _FINE:
        return None
    grey = image.convert("L")
    coarse = _steps(grey, _COARSE)
    if np.count_nonzero(np.abs(coarse) > _STEP) < _STEPS_NEEDED:
        return None
    return _bits(coarse), _bits(_steps(grey, _FINE))


def refuse_huge_resize(width: int, height: int, short_side: int, *, name: str) -> None:
    """Refuse an image that would become enormous when its short side is resized.

    Raises:
        ImageError: IMG-ASPECT; it bears ``name``.

    Example:
        >>> refuse_huge_resize(640, 480, 256, name="a.png")
    """
    resized = round(short_side * short_side * max(width, height) / min(width, height))
    if resized > _MOST_RESIZED:
        why = f"{width}×{height} pixels become {resized:,} when the short side is resized to"
        why += f" {short_side}, the limit is {_MOST_RESIZED:,}"
        hint = "crop it, or remove it"
        raise ImageError("too long and thin", path=name, why=why, hint=hint, code="IMG-ASPECT")


def thumbnail(image: ImageLike, side: int = 160) -> bytes:
    r"""Return a small JPEG of an image, no side longer than ``side``, without any metadata.

    Example:
        >>> thumbnail(Image.new("RGB", (6, 4)))[:2]
        b'\xff\xd8'
    """
    small = open_image(image).copy()  # it may be the image that was given
    small.thumbnail((side, side))
    clean = Image.frombytes("RGB", small.size, small.tobytes())
    stream = io.BytesIO()
    clean.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        why = f"shape {array.shape} of {array.dtype}, expected height × width × 3 of uint8"
        hint = "give RGB values from 0 to 255 that nothing has normalised, channels last"
        raise ImageError("array is not an image", why=why, hint=hint, code="IMG-ARRAY")
    if array.size == 0:
        raise ImageError("no pixels", why=f"array of shape {array.shape}", code="IMG-EMPTY")
    return Image.fromarray(np.ascontiguousarray(array))


def _content_of_pixels(image: Image.Image, name: str) -> Content:
    try:
        with pillow_warnings_ignored():
            image.load()
            # What decides about the result besides mode, size and values.
            clear, turned = image.info.get("transparency"), _orientation(image)
            palette = image.palette.getdata() if image.palette else None
            grey = _grey_scale(image)
            described = repr((image.mode, image.size, clear, turned, palette, grey))
            digest = hashlib.sha256(described.encode())
            digest.update(image.tobytes())
    except Exception as error:  # Pillow decodes lazily, and decoders raise what they like
        raise explain(error, name, b"") from error
    return Content(name, digest.hexdigest(), image)


def _read_regular_file(name: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # noqa: PTH116 - before anything is opened
            hint = "give an image file"
            raise ImageError("not a regular file", path=name, hint=hint, code="IMG-UNREADABLE")
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(name, flags), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(_MOST_BYTES + 1) if size <= _MOST_BYTES else b""
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = getattr(error, "strerror", None) or str(error)
        what, hint = "cannot read the file", "check that it exists and may be read"
        raise ImageError(what, path=name, why=why, hint=hint, code="IMG-UNREADABLE") from error
    if (size := max(size, len(data))) > _MOST_BYTES:
        why, hint = f"{size:,} bytes, the limit is {_MOST_BYTES:,}", "make it smaller"
        raise ImageError("file too large", path=name, why=why, hint=hint, code="IMG-TOO-LARGE")
    if not data:
        hint = "fetch it again"
        raise ImageError("file is empty", path=name, why="0 bytes", hint=hint, code="IMG-EMPTY")
    return data


def _decode(content: Content, decoding: Decoding) -> tuple[Image.Image, Image.Image]:
    """Return the decoded image, and the image as it is stored."""
    try:
        with pillow_warnings_ignored():
            stored = _load(content)
            image = _to_rgb(stored, decoding.background, content.name)
            method = _TRANSPOSE.get(_orientation(stored))
            return image if method is None else image.transpose(method), stored
    except ImageError:
        raise
    except Exception as error:  # decoders raise what they like: SyntaxError, struct.error, …
        raise explain(error, content.name, content.data) from error


def _load(content: Content) -> Image.Image:
    image, name = content.data, content.name
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image), formats=FORMATS)
    _refuse_large(image, name)
    if (frames := _frames(image)) > _MOST_FRAMES:
        why, hint = f"{frames} frames, the limit is {_MOST_FRAMES}", "save one frame"
        raise ImageError("too many frames", path=name, why=why, hint=hint, code="IMG-TOO-LARGE")
    if image.format == "PNG" and isinstance(content.data, bytes):
        image.verify()  # the checksums, which Pillow ignores when it decodes
        image = Image.open(io.BytesIO(content.data), formats=FORMATS)
    image.load()
    _refuse_large(image, name)
    return image


def _frames(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1


def _refuse_large(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError("no pixels", path=name, why=f"{width}×{height}", code="IMG-EMPTY")
    if width * height > MOST_PIXELS:
        why = f"{width}×{height} = {width * height:,}, the limit is {MOST_PIXELS:,}"
        hint = "make it smaller"
        raise ImageError("too many pixels", path=name, why=why, hint=hint, code="IMG-TOO-LARGE")
    refuse_huge_resize(width, height, _SHORT_SIDE, name=name)


def _to_rgb(image: Image.Image, background: tuple[int, int, int], name: str) -> Image.Image:
    """Return a loaded image, of any mode that the readable formats produce, as mode RGB."""
    if image.mode.startswith("I;16"):
        return _sixteen_bit(image, background)
    if image.mode in {"I", "F"}:
        return _wide(image, name)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*background, 255))
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    if image.mode == "RGB":
        return image
    if image.mode not in _CONVERTIBLE:
        what, why = "colour mode cannot be read", f"it is {image.mode}"
        raise ImageError(what, path=name, why=why, hint="save it as RGB", code="IMG-FORMAT")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is broken."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block raises anything, and refuses no image
        return 1
    return value if isinstance(value, int) else 1


def _grey_scale(image: Image.Image) -> tuple[int, bool]:
    """Return what the values of an image of mode ``I;16`` mean: how many bits, is zero white.

    Pillow turns and widens 8-bit values by itself, but leaves deeper ones as the file has them.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, 16)
    return int(bits[0] if isinstance(bits, tuple) else bits), tags.get(_WHITE_TAG) == 0


def _steps(grey: Image.Image, side: int) -> NDArray[np.int16]:
    cells = np.asarray(grey.resize((side + 1, side), Image.Resampling.BOX), np.int16)
    return cells[:, :-1] - cells[:, 1:]


def _bits(steps: NDArray[np.int16]) -> int:
    return int.from_bytes(np.packbits(steps > 0).tobytes(), "big")


def _sixteen_bit(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    values = np.asarray(image)
    bits, white_is_zero = _grey_scale(image)
    scaled = values >> (bits - 8)
    rgb = _grey(255 - scaled if white_is_zero else scaled)
    clear = image.info.get("transparency")  # the one value that a 16-bit PNG may leave transparent
    if isinstance(clear, int):
        rgb.paste(background, mask=Image.fromarray(values == clear))
    return rgb


def _wide(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        what = "numbers of unknown range instead of colours"
        why = f"the values lie between {values.min():g} and {values.max():g}"
        hint = "scale them to black and white and save the image with 8 or 16 bits"
        raise ImageError(what, path=name, why=why, hint=hint, code="IMG-RANGE")
    return _grey(values >> 8)


def _grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
