"""The one decoder: every picture becomes an upright 8-bit RGB image, or an error that names it.

The errors are all `ImageError`, with these codes:

=================  ==========================================================================
IMG-UNREADABLE     not there, no permission, or not a regular file
IMG-EMPTY          zero bytes, or an array without pixels
IMG-NOT-AN-IMAGE   something else, such as a web page or a text
IMG-FORMAT         a picture or document of a kind that is not read (EPS, PDF, SVG, HEIC, AVIF, …)
IMG-TRUNCATED      the end of the file is missing
IMG-CORRUPT        damaged in another way
IMG-TOO-LARGE      more bytes, pixels or frames than the limits allow
IMG-ASPECT         so long and thin that resizing it would need too much memory
IMG-FLOAT          floating-point values without a stated range, or not all finite
IMG-RANGE          32-bit integers outside 0 to 65535 without a stated range
IMG-ARRAY          an array or object that is no H×W×3 uint8 picture
=================  ==========================================================================

Decided once for training, prediction and export: EXIF orientation is applied; of several frames
the first one is used; transparent pixels lie over a stated background; of 12- and 16-bit values the
upper 8 bits are used, never clipped; colour profiles are ignored.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from regraft.data.pixels import difference_hashes, orientation_of, to_rgb, upright
from regraft.data.quiet import pillow_allows, pillow_warnings_ignored
from regraft.data.reading import Content, Decoding, Limits, Picture, read_picture
from regraft.data.refusals import explain, refuse_wrong_checksum
from regraft.data.scan import IMAGE_SUFFIXES
from regraft.errors import ImageError

__all__ = [
    "DECODER_VERSION",
    "IMAGE_SUFFIXES",
    "Content",
    "Decoding",
    "ImageFacts",
    "Limits",
    "Picture",
    "decode",
    "inspect",
    "open_image",
    "read_picture",
    "refuse_huge_resize",
    "thumbnail",
]

DECODER_VERSION = 2
"""Part of every cache key; raised whenever the same file decodes to other pixels."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png", ".apng"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
}
_SHORT_SIDE = 256  # what the usual preprocessing resizes the short side to
_TINY = 32  # pixels; a picture with a shorter side is noted


@dataclass(frozen=True)
class ImageFacts:
    """What is known about one picture file after it was decoded in full.

    Args:
        path: The file.
        sha256: SHA-256 of its bytes.
        width: Pixels from left to right, upright.
        height: Pixels from top to bottom, upright.
        mode: Pillow's word for the pixels stored, for example ``"RGB"`` or ``"I;16"``.
        format: Pillow's word for the kind of file, for example ``"JPEG"``.
        frames: Frames or pages in the file.
        dhash: 64-bit difference hash of the picture, None for one with too little in it.
        fine_hash: 256-bit difference hash, None for the same pictures.
        notes: Codes of what is unusual: NOTE-TINY, NOTE-EXTENSION, NOTE-FRAMES, NOTE-GREY,
            NOTE-16BIT, NOTE-ALPHA, NOTE-CMYK, NOTE-FLAT.
    """

    path: Path
    sha256: str
    width: int
    height: int
    mode: str
    format: str
    frames: int
    dhash: int | None
    fine_hash: int | None
    notes: tuple[str, ...]


def open_image(picture: Picture, decoding: Decoding = Decoding()) -> Image.Image:
    """Read and decode one picture.

    Args:
        picture: A path, a Pillow image or an H×W×3 uint8 array.
        decoding: How pixels become RGB where the file leaves it open.

    Returns:
        An upright image of mode RGB.

    Raises:
        ImageError: The picture cannot be used; the codes stand in the module's text.

    Example:
        >>> open_image(Image.new("RGB", (6, 4))).size
        (6, 4)
    """
    return decode(read_picture(picture, limits=decoding.limits), decoding)


def decode(content: Content, decoding: Decoding = Decoding()) -> Image.Image:
    """Decode what `read_picture` read into an upright image of mode RGB.

    Raises:
        ImageError: The picture cannot be used; it names the picture, and nothing else is raised.

    Example:
        >>> decode(read_picture(Image.new("L", (6, 4)))).mode
        'RGB'
    """
    return _decode_with_facts(content, decoding)[0]


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
    content = read_picture(path, limits=decoding.limits)
    image, stored = _decode_with_facts(content, decoding)
    hashes = difference_hashes(image)
    noted = {
        "NOTE-TINY": min(image.size) < _TINY,
        "NOTE-EXTENSION": Path(path).suffix.lower() not in _SUFFIXES.get(stored.format, set()),
        "NOTE-FRAMES": stored.frames > 1,
        "NOTE-GREY": stored.mode in {"1", "L", "LA", "I", "F"} or stored.mode.startswith("I;16"),
        "NOTE-16BIT": stored.mode[0] in "IF",
        "NOTE-ALPHA": stored.transparent,
        "NOTE-CMYK": stored.mode == "CMYK",
        "NOTE-FLAT": hashes is None,
    }
    return ImageFacts(
        path=Path(path),
        sha256=content.sha256,
        width=image.width,
        height=image.height,
        mode=stored.mode,
        format=stored.format,
        frames=stored.frames,
        dhash=hashes and hashes[0],
        fine_hash=hashes and hashes[1],
        notes=tuple(code for code, holds in noted.items() if holds),
    )


def refuse_huge_resize(
    width: int,
    height: int,
    short_side: int,
    *,
    name: str,
    limits: Limits = Limits(),
) -> None:
    """Refuse a picture that would become enormous when its short side is resized.

    Args:
        width: Pixels from left to right.
        height: Pixels from top to bottom.
        short_side: What the short side is resized to, in pixels.
        name: The picture's name in the error.
        limits: How many pixels the resized picture may have.

    Raises:
        ImageError: IMG-ASPECT.

    Example:
        >>> refuse_huge_resize(640, 480, 256, name="a.png")
        >>> try:
        ...     refuse_huge_resize(1, 30000, 256, name="line.png")
        ... except ImageError as error:
        ...     print(error.code)
        IMG-ASPECT
    """
    resized = round(short_side * short_side * max(width, height) / min(width, height))
    if resized > limits.resized_pixels:
        raise ImageError(
            "too long and thin",
            path=name,
            why=f"{width}×{height} pixels become {resized:,} when the short side is resized to "
            f"{short_side}, the limit is {limits.resized_pixels:,}",
            hint="crop it, or remove it",
            code="IMG-ASPECT",
        )


def thumbnail(picture: Picture, side: int = 160) -> bytes:
    r"""Return a small JPEG of a picture, encoded anew and without any metadata.

    Args:
        picture: A path, a Pillow image or an H×W×3 uint8 array.
        side: The longest side of the thumbnail in pixels.

    Raises:
        ImageError: The picture cannot be used.

    Example:
        >>> thumbnail(Image.new("RGB", (6, 4)))[:2]
        b'\xff\xd8'
    """
    small = open_image(picture)
    if small is picture:
        small = small.copy()
    small.thumbnail((side, side))
    clean = Image.frombytes("RGB", small.size, small.tobytes())
    stream = io.BytesIO()
    clean.save(stream, "JPEG", quality=85)
    return stream.getvalue()


@dataclass(frozen=True)
class _Stored:
    mode: str
    format: str
    frames: int
    transparent: bool


def _decode_with_facts(content: Content, decoding: Decoding) -> tuple[Image.Image, _Stored]:
    try:
        with pillow_warnings_ignored(), pillow_allows(decoding.limits.pixels):
            return _decoded(content, decoding)
    except ImageError:
        raise
    except (
        Exception
    ) as error:  # decoders raise what they like: SyntaxError, struct.error, TypeError, …
        raise explain(error, content.name, content.data, decoding.limits.pixels) from error


def _decoded(content: Content, decoding: Decoding) -> tuple[Image.Image, _Stored]:
    limits, name = decoding.limits, content.name
    if isinstance(content.data, bytes):
        image: Image.Image = Image.open(io.BytesIO(content.data), formats=_FORMATS)
    else:
        image = content.data
    _refuse_large(image, limits, name)
    frames: int = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
    if frames > limits.frames:
        why = f"{frames} frames, the limit is {limits.frames}"
        raise ImageError(
            "too many frames", path=name, why=why, hint="save one frame", code="IMG-TOO-LARGE"
        )
    if image.format == "PNG" and isinstance(content.data, bytes):
        refuse_wrong_checksum(name, content.data)
    image.load()
    _refuse_large(image, limits, name)
    stored = _Stored(image.mode, image.format or "", frames, image.has_transparency_data)
    rgb = to_rgb(image, background=decoding.background, float_range=decoding.float_range, name=name)
    return upright(rgb, orientation_of(image)), stored


def _refuse_large(image: Image.Image, limits: Limits, name: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError("no pixels", path=name, why=f"{width}×{height}", code="IMG-EMPTY")
    if width * height > limits.pixels:
        raise ImageError(
            "too many pixels",
            path=name,
            why=f"{width}×{height} = {width * height:,}, the limit is {limits.pixels:,}",
            hint="make it smaller, or raise Limits(pixels=...)",
            code="IMG-TOO-LARGE",
        )
    refuse_huge_resize(width, height, _SHORT_SIDE, name=name, limits=limits)
