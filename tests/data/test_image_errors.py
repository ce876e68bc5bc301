"""Image libraries stay quiet, and everybody else is still heard."""

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from regraft.data.image_errors import pillow_warnings_ignored
from regraft.data.images import Content, decode
from samples import refused


def warn_as(module):
    warnings.warn_explicit("odd", UserWarning, "file.py", 1, module=module)


def test_only_warnings_from_pillow_are_ignored():
    with pillow_warnings_ignored():
        warn_as("PIL.TiffImagePlugin")
        with pytest.raises(UserWarning, match="odd"):
            warn_as("numpy")

    with pytest.raises(UserWarning, match="odd"):
        warn_as("PIL.TiffImagePlugin")


def test_the_filters_are_as_before_after_many_threads():
    before = list(warnings.filters)

    def work(_):
        with pillow_warnings_ignored():
            warn_as("PIL.Image")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))

    assert list(warnings.filters) == before


PROGRAM = """
import os, sys
from regraft.data.image_errors import native_stderr_silenced
with native_stderr_silenced():
    os.write(2, b"from-c\\n")
    print("from-python", file=sys.stderr)
    with native_stderr_silenced():
        os.write(2, b"from-c\\n")
    os.write(2, b"from-c\\n")
os.write(2, b"after\\n")
print("python-after", file=sys.stderr)
try:
    with native_stderr_silenced():
        raise ValueError
except ValueError:
    os.write(2, b"after-an-exception\\n")
"""


def test_lines_from_c_are_silenced_and_those_from_python_are_not():
    command = [sys.executable, "-c", PROGRAM]
    heard = subprocess.run(command, capture_output=True, text=True, check=True).stderr.split()

    assert heard == ["from-python", "after", "python-after", "after-an-exception"]


NOT_READ = [
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript", "PNG"),
    (b"%PDF-1.7\n", "PDF", "PNG"),
    (b"SIMPLE  =                    T", "FITS", "convert"),
    (b"<?xml version='1.0'?>\n<svg xmlns=''/>", "SVG", "PNG"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "pillow-heif"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC", "pillow-heif"),
    (b"\xff\x0a\0\0", "JPEG XL", "convert"),
    (b"\0" * 128 + b"DICM", "DICOM", "PNG"),
]
NO_PICTURE = [
    (b"<!DOCTYPE html><title>404</title>", "HTML", "again"),
    (b"\n\n <HTML>", "HTML", "again"),
    (b'{"error": "not found"}', "text", "again"),
    (b"not found\n", "text", "again"),
    ("nicht gefunden: größer".encode(), "text", "again"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
    (b"PK\x03\x04", "ZIP", "unpack"),
    (b"\0" * 5000, "no known kind", "again"),
    (b"\x01\x02\x03\x04", "no known kind", "again"),
]


@pytest.mark.parametrize(
    ("data", "looks", "advice", "code"),
    [(*case, "IMG-FORMAT") for case in NOT_READ]
    + [(*case, "IMG-NOT-AN-IMAGE") for case in NO_PICTURE],
)
def test_other_files_are_named_and_answered_with_advice(data, looks, advice, code):
    error = refused(decode, Content("x.jpg", "0" * 64, data))

    assert (error.code, error.path) == (code, "x.jpg")
    assert looks in error.why
    assert advice in error.hint
