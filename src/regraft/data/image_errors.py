"""What image libraries say of a file that cannot be decoded: one kind of error, and no noise.

They raise anything, warn, log, print on standard error, and have a limit of pixels of their own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError, features

from regraft.errors import ImageError

FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"),
    *(["AVIF"] if features.check("avif") else []),
)
"""The formats that are read, in Pillow's words."""
MOST_PIXELS = 64_000_000  # width × height of an image; Pillow's own limit is higher

_CONVERT = "convert it to JPEG or PNG"
_EXPORT = "export it as PNG; pages and drawings are never run through an interpreter"
_AGAIN = "fetch it again, or open it elsewhere and save it as JPEG or PNG"
_REMOVE = "remove it, or fetch the image again"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TEXT_CONTROLS = b"\t\n\r\f\x1b"
_CUT_WORDS = re.compile(r"truncat|end of file|unexpected end|not enough|EOF", re.IGNORECASE)
_HEAD = 512


class Kind(NamedTuple):
    """What a file looks like.

    Attributes:
        name: The kind in words, for example ``"HTML"``.
        hint: What the reader can do about it.
        image: Whether it is an image or a document, but of a kind that Regraft does not read.
        readable: Whether it is one of the formats Regraft reads.
    """

    name: str
    hint: str = _REMOVE
    image: bool = False
    readable: bool = False


# What Pillow does not identify by itself, or what deserves better advice than to convert it.
_SIGNATURES = (
    (b"%!PS", Kind("PostScript (EPS)", _EXPORT, image=True)),
    (b"\xc5\xd0\xd3\xc6", Kind("PostScript (EPS)", _EXPORT, image=True)),
    (b"%PDF", Kind("PDF", _EXPORT, image=True)),
    (b"\xff\x0a", Kind("JPEG XL", _CONVERT, image=True)),
    (b"\0\0\0\x0cJXL ", Kind("JPEG XL", _CONVERT, image=True)),
    (b"PK\x03\x04", Kind("a ZIP archive", "unpack it first")),
    (b"version https://git-lfs", Kind("a Git LFS pointer", "get the images with: git lfs pull")),
)


def looks_like(head: bytes) -> Kind:
    """Return the kind of file that starts with ``head`` (a few hundred bytes are enough).

    Example:
        >>> looks_like(b"<!DOCTYPE html><title>404</title>").name
        'HTML'
    """
    Image.init()  # else Pillow knows the common formats only
    start = head.ljust(16, b"\0")  # as many as Pillow's tests expect
    identified = [name for name, (_, accept) in Image.OPEN.items() if accept and accept(start)]
    readable = [name for name in identified if name in FORMATS]
    if readable and head[4:8] != b"ftyp":
        return Kind(readable[0], readable=True)
    for magic, kind in _SIGNATURES:
        if head.startswith(magic):
            return kind
    if found := _container(head) or _markup(head):
        return found
    if identified:
        return Kind(identified[0], _CONVERT, image=True)
    text = all(byte >= 32 or byte in _TEXT_CONTROLS for byte in head)
    return Kind("text" if text else "no known kind of image")


def explain(error: Exception, name: str, data: object) -> ImageError:
    """Return what a decoder raised as the one kind of error that Regraft raises for images.

    Example:
        >>> explain(OSError("image file is truncated"), "a.jpg", b"").code
        'IMG-TRUNCATED'
    """
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return _too_large(error, name)
    content = data if isinstance(data, bytes) else b""
    kind = looks_like(content[:_HEAD]) if content else Kind("", readable=True)
    if not kind.readable:
        code = "IMG-FORMAT" if kind.image else "IMG-NOT-AN-IMAGE"
        what = "kind of file that is not read" if kind.image else "not an image"
        why = f"it looks like {kind.name}"
        return ImageError(what, path=name, why=why, hint=kind.hint, code=code)
    words = str(error)[:200] or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        words = "its structure is not understood"
    why = f"{kind.name}: {words}" if kind.name else words
    cut = isinstance(error, EOFError) or _CUT_WORDS.search(str(error))
    if cut or _is_cut(kind.name, content):
        hint = "fetch or copy it again; the end of the file is missing"
        return ImageError("image is cut off", path=name, why=why, hint=hint, code="IMG-TRUNCATED")
    return ImageError("image is damaged", path=name, why=why, hint=_AGAIN, code="IMG-CORRUPT")


_lock = threading.Lock()
_inside = 0
_FROM_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)
# Without a handler of any kind, what Pillow logs would be printed.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextlib.contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Ignore Pillow's warnings in any thread: the first that asks for it to the last that ends.

    Example:
        >>> with pillow_warnings_ignored():
        ...     warnings.warn_explicit("odd tag", UserWarning, "file.py", 1, module="PIL.Image")
    """
    global _inside  # noqa: PLW0603 - filters are those of the whole process
    filters: list[object] = warnings.filters  # type: ignore[assignment] # declared as a sequence
    with _lock:
        if _inside == 0:
            # warnings.filterwarnings would make every module forget which warnings it showed.
            filters.insert(0, _FROM_PILLOW)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                # Somebody else may have put the old list back.
                with contextlib.suppress(ValueError):
                    warnings.filters.remove(_FROM_PILLOW)  # type: ignore[attr-defined]


_silencing = threading.Lock()


@contextlib.contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send what C libraries print on standard error to nowhere; ``sys.stderr`` still arrives.

    libtiff writes a line for every odd tag of a file. This acts on the whole process, so it belongs
    around a pass over many images and nowhere else. It does nothing where there is no standard
    error, nor inside itself or beside itself in another thread.

    Example:
        >>> with native_stderr_silenced():
        ...     pass
    """
    if not _silencing.acquire(blocking=False):
        yield
        return
    with contextlib.ExitStack() as undo:
        undo.callback(_silencing.release)
        with contextlib.suppress(OSError):  # started without standard error
            terminal = os.dup(2)
            undo.callback(os.close, terminal)
            # A stream in memory has no number, and nothing that it could lose.
            with contextlib.suppress(AttributeError, ValueError):
                if sys.stderr.fileno() == 2:
                    sys.stderr.flush()
                    own = os.fdopen(os.dup(terminal), "w", 1, sys.stderr.encoding)
                    undo.callback(own.close)
                    undo.enter_context(contextlib.redirect_stderr(own))
            undo.callback(os.dup2, terminal, 2)
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
                os.dup2(nowhere.fileno(), 2)
        yield


def _container(head: bytes) -> Kind | None:
    if head[:4] == b"RIFF" and len(head) < 12:
        return Kind("WEBP", readable=True)
    if head[128:132] == b"DICM":
        return Kind("DICOM", "export it as PNG with the window you want", image=True)
    if head[4:8] != b"ftyp":  # of AVIF, HEIC and videos alike
        return None
    brands = head[8:12] + head[16:64]
    if b"avif" in brands or b"avis" in brands:
        return Kind("AVIF", _CONVERT, image=True, readable="AVIF" in FORMATS)
    if any(brand in brands for brand in _HEIC_BRANDS):
        hint = f"{_CONVERT} (pip install pillow-heif lets Pillow read it)"
        return Kind("HEIC", hint, image=True)
    return Kind("a video")


def _markup(head: bytes) -> Kind | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return Kind("SVG", _EXPORT, image=True)
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return Kind("HTML", "it is a web page, often an error page; fetch the image again")
    return None


def _too_large(error: Exception, name: str) -> ImageError:
    why, counted = "there is not enough memory to decode it", re.search(r"\d+", str(error))
    if counted:  # by Pillow
        why = f"{int(counted.group()):,} pixels, the limit is {MOST_PIXELS:,}"
    what, code = "too many pixels", "IMG-TOO-LARGE"
    return ImageError(what, path=name, why=why, hint="make it smaller", code=code)


def _is_cut(kind: str, data: bytes) -> bool:
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    endings = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
    return kind in endings and endings[kind] not in data[-_HEAD:]
