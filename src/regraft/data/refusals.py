"""Why a picture is refused: what the file is instead, and what a decoder's exception means."""

from __future__ import annotations

import codecs
import re
import zlib
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from regraft.errors import ImageError

_CONVERT = "convert it to JPEG or PNG"
_RASTERISE = "export it as PNG; pages and drawings are never run through an interpreter"
_AGAIN = "fetch it again, or open it elsewhere and save it as JPEG or PNG"
_REMOVE = "remove it, or fetch the picture again"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TEXT_CONTROLS = b"\t\n\r\f\x1b"
_CUT_WORDS = re.compile(r"truncat|end of file|unexpected end|not enough|EOF", re.IGNORECASE)
_HEAD = 512


@dataclass(frozen=True)
class Kind:
    """What a file looks like.

    Args:
        name: The kind in words, for example ``"HTML"``.
        hint: What the reader can do about it.
        picture: Whether it is a picture or a document, but of a kind that Regraft does not read.
        readable: Whether it is one of the formats Regraft reads.
    """

    name: str
    hint: str = _REMOVE
    picture: bool = False
    readable: bool = False


_READABLE = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_PICTURES = (
    (b"%!PS", "PostScript (EPS)", _RASTERISE),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)", _RASTERISE),
    (b"%PDF", "PDF", _RASTERISE),
    (b"SIMPLE  =", "FITS", _CONVERT),
    (b"\xff\x0a", "JPEG XL", "convert it to JPEG or PNG (djxl of libjxl does it)"),
    (b"\0\0\0\x0cJXL ", "JPEG XL", "convert it to JPEG or PNG (djxl of libjxl does it)"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000", _CONVERT),
    (b"\xff\x4f\xff\x51", "JPEG 2000", _CONVERT),
    (b"8BPS", "Photoshop", _CONVERT),
    (b"\0\0\1\0", "an icon (ICO)", _CONVERT),
    (b"v/1\x01", "OpenEXR", _CONVERT),
    (b"qoif", "QOI", _CONVERT),
    (b"DDS ", "DDS", _CONVERT),
)
_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive", "unpack it first"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x93NUMPY", "a NumPy array", "save it as PNG: Image.fromarray(array).save(...)"),
    (b"\x89HDF", "HDF5", "save its pictures as PNG"),
    (b"\0\5\x16\7", "a macOS resource file", "remove it; the picture is the file without ._"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the pictures with: git lfs pull"),
    (b"\x7fELF", "a program", _REMOVE),
)


def looks_like(head: bytes) -> Kind:
    """Return the kind of file that starts with ``head`` (a few hundred bytes are enough).

    Example:
        >>> looks_like(b"<!DOCTYPE html><title>404</title>").name
        'HTML'
    """
    for magic, name in _READABLE:
        if head.startswith(magic):
            return Kind(name, readable=True)
    for magic, name, hint in _PICTURES:
        if head.startswith(magic):
            return Kind(name, hint, picture=True)
    for magic, name, hint in _OTHERS:
        if head.startswith(magic):
            return Kind(name, hint)
    return _container(head) or _text(head)


def _container(head: bytes) -> Kind | None:
    if head[:4] == b"RIFF":
        return _riff(head)
    if head[128:132] == b"DICM":
        return Kind("DICOM", "export it as PNG with the window you want", picture=True)
    if head[4:8] != b"ftyp":
        return None
    brands = head[8:12] + head[16:64]
    if b"avif" in brands or b"avis" in brands:
        return Kind(
            "AVIF", "convert it: Image.open(file).convert('RGB').save('x.png')", picture=True
        )
    if any(brand in brands for brand in _HEIC_BRANDS):
        hint = "convert it to JPEG or PNG (pip install pillow-heif lets Pillow read it)"
        return Kind("HEIC", hint, picture=True)
    return Kind("a video")


def _riff(head: bytes) -> Kind:
    webp = head[8:12] == b"WEBP" or len(head) < 12
    return Kind("WebP", readable=True) if webp else Kind("audio or video")


def _text(head: bytes) -> Kind:
    if not head.strip(b"\0"):
        return Kind("nothing but zero bytes")
    if head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3].isspace():
        return Kind("PPM", readable=True)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<svg",)) or (start.startswith(b"<?xml") and b"<svg" in start):
        return Kind("SVG", _RASTERISE, picture=True)
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return Kind("HTML", "it is a web page, often an error page; fetch the picture again")
    if start.startswith((b"<?xml", b"<")):
        return Kind("XML")
    if start.startswith((b"{", b"[")):
        return Kind("JSON")
    return Kind("text") if _is_text(head) else Kind("no known kind of picture")


def _is_text(head: bytes) -> bool:
    if any(byte < 32 and byte not in _TEXT_CONTROLS for byte in head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return head[0] < 0x80 or len(head) > 3


def explain(error: Exception, name: str, data: bytes | object, pixel_limit: int) -> ImageError:
    """Return what a decoder raised as the one kind of error that Regraft raises for pictures.

    Args:
        error: Anything that Pillow or a library under it raised.
        name: The picture's name.
        data: The bytes that were decoded; other objects are not looked at.
        pixel_limit: The limit to state for a picture that is too large.

    Example:
        >>> explain(OSError("image file is truncated"), "a.jpg", b"", 100).code
        'IMG-TRUNCATED'
    """
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return _too_large(error, name, pixel_limit)
    content = data if isinstance(data, bytes) else b""
    kind = looks_like(content[:_HEAD]) if content else None
    if kind is not None and not kind.readable:
        code = "IMG-FORMAT" if kind.picture else "IMG-NOT-AN-IMAGE"
        what = "kind of file that is not read" if kind.picture else "not a picture"
        return ImageError(
            what, path=name, why=f"it looks like {kind.name}", hint=kind.hint, code=code
        )
    found = f"{kind.name}: " if kind else ""
    why = found + _words(error)
    if (
        isinstance(error, EOFError)
        or _CUT_WORDS.search(str(error))
        or (kind and _is_cut(kind.name, content))
    ):
        hint = "fetch or copy it again; the end of the file is missing"
        return ImageError("picture is cut off", path=name, why=why, hint=hint, code="IMG-TRUNCATED")
    return ImageError("picture is damaged", path=name, why=why, hint=_AGAIN, code="IMG-CORRUPT")


def _words(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        return "its structure is not understood"
    return str(error)[:200] or type(error).__name__


def refuse_wrong_checksum(name: str, data: bytes) -> None:
    """Refuse a PNG file with damaged pixels: Pillow does not look at their checksums.

    Raises:
        ImageError: IMG-CORRUPT; a file without its end is left to the decoder.

    Example:
        >>> refuse_wrong_checksum("a.png", b"")
    """
    view, place = memoryview(data), 8
    while place + 12 <= len(data):
        length = int.from_bytes(view[place : place + 4], "big")
        kind, end = bytes(view[place + 4 : place + 8]), place + 8 + length
        critical = kind[:1].isupper()  # text and the like may be damaged
        if critical and end + 4 <= len(data):
            stored = int.from_bytes(view[end : end + 4], "big")
            if zlib.crc32(view[place + 4 : end]) != stored:
                why = f"PNG: the checksum of its {kind.decode('latin-1')} chunk is wrong"
                raise ImageError(
                    "picture is damaged", path=name, why=why, hint=_AGAIN, code="IMG-CORRUPT"
                )
        if kind == b"IEND":
            return
        place = end + 4


def _too_large(error: Exception, name: str, pixel_limit: int) -> ImageError:
    hint = "make it smaller"
    if isinstance(error, MemoryError):
        why = "there is not enough memory to decode it"
    else:
        counted = re.search(r"\d+", str(error))
        size = f"{int(counted.group()):,} pixels" if counted else str(error)
        why = f"{size}, the limit is {pixel_limit:,}"
        hint += ", or raise Limits(pixels=...)"
    return ImageError("too many pixels", path=name, why=why, hint=hint, code="IMG-TOO-LARGE")


def _is_cut(kind: str, data: bytes) -> bool:
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if kind == "TIFF":  # the directory, often at the end of the file, must lie within it
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 6 > len(data)
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    endings = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
    return kind in endings and endings[kind] not in data[-_HEAD:]
