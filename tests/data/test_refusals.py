"""What is refused is told by what it looks like, with advice."""

import io

import pytest
from PIL import Image
from regraft.data.refusals import looks_like

from regraft.data.images import Content, decode
from regraft.errors import ImageError


def avif():
    stream = io.BytesIO()
    Image.new("RGB", (20, 20)).save(stream, "AVIF")
    return stream.getvalue()


NOT_READ = [
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript", "PNG"),
    (b"%PDF-1.7\n", "PDF", "PNG"),
    (b"SIMPLE  =                    T", "FITS", "convert"),
    (b"<?xml version='1.0'?>\n<svg xmlns=''/>", "SVG", "PNG"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "pillow-heif"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC", "pillow-heif"),
    (avif(), "AVIF", "convert"),
    (b"\xff\x0a\0\0", "JPEG XL", "convert"),
    (b"\0" * 128 + b"DICM", "DICOM", "PNG"),
]
NO_PICTURE = [
    (b"<!DOCTYPE html><title>404</title>", "HTML", "again"),
    (b"\n\n <HTML>", "HTML", "again"),
    (b'{"error": "not found"}', "JSON", "again"),
    (b"not found\n", "text", "again"),
    ("nicht gefunden: größer".encode(), "text", "again"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
    (b"PK\x03\x04", "ZIP", "unpack"),
    (b"\0" * 5000, "zero bytes", "again"),
    (b"\x01\x02\x03\x04", "no known kind", "again"),
    (b"RIFF\0\0\0\0WAVEfmt ", "audio or video", "again"),
]


@pytest.mark.parametrize(
    ("data", "looks", "advice", "code"),
    [(*case, "IMG-FORMAT") for case in NOT_READ]
    + [(*case, "IMG-NOT-AN-IMAGE") for case in NO_PICTURE],
)
def test_other_files_are_named_and_answered_with_advice(data, looks, advice, code):
    with pytest.raises(ImageError) as caught:
        decode(Content("x.jpg", "0" * 64, data))

    assert caught.value.code == code
    assert looks in caught.value.why
    assert advice in caught.value.hint
    assert caught.value.path == "x.jpg"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_readable_formats_are_recognised_by_their_first_bytes(kind):
    stream = io.BytesIO()
    Image.new("RGB", (20, 20)).save(stream, kind)

    assert looks_like(stream.getvalue()[:64]).readable


def test_messages_name_no_object_in_memory():
    with pytest.raises(ImageError) as caught:
        decode(Content("x.jpg", "0" * 64, b"GIF89a damaged"))

    assert "0x" not in str(caught.value)
