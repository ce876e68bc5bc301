"""Read a picture once, hash what was read, and keep within limits; nothing is decoded here."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from regraft.data.pixels import grey_scale_of, orientation_of
from regraft.data.quiet import pillow_warnings_ignored
from regraft.data.refusals import explain
from regraft.errors import ImageError, UsageError
from regraft.files import sha256_bytes

Picture = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]
"""What can be used as a picture: a path, a Pillow image, or H×W×3 uint8 values (RGB)."""


@dataclass(frozen=True)
class Limits:
    """What one picture may cost; a picture beyond a limit is refused with its size and the limit.

    Args:
        file_bytes: Bytes of the file.
        pixels: Width × height of the picture; it holds whatever Pillow's own limit is.
        resized_pixels: Width × height after its short side is resized to 256.
        frames: Frames or pages, of which the first is used.

    Example:
        >>> Limits().pixels
        64000000
    """

    file_bytes: int = 200 << 20
    pixels: int = 64_000_000
    resized_pixels: int = 16_000_000
    frames: int = 1000


@dataclass(frozen=True)
class Decoding:
    """How pixels become RGB where a file leaves it open; part of every cache key.

    Args:
        background: RGB colour, 0 to 255, under transparent pixels.
        float_range: The values that become black and white in pictures of floats or 32-bit
            integers; values beyond are clipped. Without it floats are refused.
        limits: What one picture may cost.

    Raises:
        UsageError: ``float_range`` is not two finite numbers, the smaller one first.

    Example:
        >>> Decoding.from_json(Decoding(float_range=(0.0, 1.0)).to_json()).float_range
        (0.0, 1.0)
    """

    background: tuple[int, int, int] = (255, 255, 255)
    float_range: tuple[float, float] | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.float_range is not None:
            low, high = self.float_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError("float_range must be (black, white)", why=str(self.float_range))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold."""
        return {
            "background": list(self.background),
            "float_range": None if self.float_range is None else list(self.float_range),
            "limits": asdict(self.limits),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decoding:
        """Return the settings that `to_json` wrote."""
        red, green, blue = data["background"]
        bounds = data["float_range"]
        return cls(
            background=(red, green, blue),
            float_range=None if bounds is None else (float(bounds[0]), float(bounds[1])),
            limits=Limits(**data["limits"]),
        )


@dataclass(frozen=True)
class Content:
    """What was read of one picture, once: name, hash and the bytes or pixels themselves.

    Args:
        name: The path, or words for a picture that came without one.
        sha256: SHA-256 of the file's bytes; for pixels of mode, size and values.
        data: The bytes of the file, or the Pillow image.
    """

    name: str
    sha256: str
    data: bytes | Image.Image = field(repr=False)


def read_picture(picture: Picture, *, limits: Limits = Limits()) -> Content:
    """Read one picture without decoding it, and hash what was read.

    Only regular files are opened, so that a pipe or a device never blocks.

    Args:
        picture: A path, a Pillow image or an H×W×3 uint8 array.
        limits: How many bytes a file may have.

    Raises:
        ImageError: IMG-UNREADABLE, IMG-EMPTY, IMG-TOO-LARGE or IMG-ARRAY.

    Example:
        >>> read_picture(np.zeros((4, 6, 3), np.uint8)).name
        'an array'
    """
    if isinstance(picture, np.ndarray):
        return _content_of_pixels(_from_array(picture), "an array")
    if isinstance(picture, Image.Image):
        return _content_of_pixels(picture, getattr(picture, "filename", "") or "a Pillow image")
    if not isinstance(picture, str | os.PathLike):
        raise ImageError(
            "not a picture",
            why=f"got {type(picture).__name__}",
            hint="pass a path, a Pillow image or an H×W×3 uint8 array",
            code="IMG-ARRAY",
        )
    name = os.fspath(picture)
    data = _read_regular_file(name, limits.file_bytes)
    return Content(name, sha256_bytes(data), data)


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(
            "array is not a picture",
            why=f"shape {array.shape} of {array.dtype}, expected height × width × 3 of uint8",
            hint="give RGB values from 0 to 255 that nothing has normalised, channels last",
            code="IMG-ARRAY",
        )
    if array.size == 0:
        raise ImageError("no pixels", why=f"array of shape {array.shape}", code="IMG-EMPTY")
    return Image.fromarray(np.ascontiguousarray(array))


def _content_of_pixels(image: Image.Image, name: str) -> Content:
    try:
        with pillow_warnings_ignored():
            image.load()
            # What decides about the result besides mode, size and values.
            clear, turned = image.info.get("transparency"), orientation_of(image)
            palette = image.palette.getdata() if image.palette else None
            grey = grey_scale_of(image)
            described = repr((image.mode, image.size, clear, turned, palette, grey))
            digest = hashlib.sha256(described.encode())
            digest.update(image.tobytes())
    except Exception as error:  # Pillow decodes lazily, and decoders raise what they like
        raise explain(error, name, b"", Limits().pixels) from error
    return Content(name, digest.hexdigest(), image)


def _read_regular_file(name: str, limit: int) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # noqa: PTH116 - before anything is opened
            raise ImageError(
                "not a regular file", path=name, hint="give a picture file", code="IMG-UNREADABLE"
            )
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(name, flags), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(limit + 1) if size <= limit else b""
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = getattr(error, "strerror", None) or str(error)
        raise ImageError(
            "cannot read the file",
            path=name,
            why=why,
            hint="check that it exists and may be read",
            code="IMG-UNREADABLE",
        ) from error
    if max(size, len(data)) > limit:
        raise ImageError(
            "file too large",
            path=name,
            why=f"{max(size, len(data)):,} bytes, the limit is {limit:,}",
            hint="make it smaller, or raise Limits(file_bytes=...)",
            code="IMG-TOO-LARGE",
        )
    if not data:
        raise ImageError(
            "file is empty", path=name, why="0 bytes", hint="fetch it again", code="IMG-EMPTY"
        )
    return data
