"""Every picture becomes upright RGB or one error that names it; nothing else ever happens."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import textwrap
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.data.images import (
    IMAGE_SUFFIXES,
    Content,
    Decoding,
    Limits,
    decode,
    inspect,
    open_image,
    read_picture,
    refuse_huge_resize,
    thumbnail,
)
from regraft.errors import ImageError

PLAIN = Decoding()
FEW = settings(max_examples=60, derandomize=True, database=None)


def photograph(width=60, height=44, seed=0):
    """Return a picture with coarse and fine structure, different in every corner."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data, decoding=PLAIN, name="x.jpg"):
    return decode(Content(name, "0" * 64, data), decoding)


def refusal(data, decoding=PLAIN):
    with pytest.raises(ImageError) as caught:
        decoded(data, decoding)
    assert caught.value.path == "x.jpg"
    assert caught.value.hint
    return caught.value


def png(width, height, depth, colour, pixels, *extra):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


KINDS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]
ENCODED = {kind: encoded(photograph(), kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_readable_format_becomes_rgb(kind):
    image = decoded(ENCODED[kind])

    assert (image.mode, image.size) == ("RGB", (60, 44))


def test_eps_named_jpg_never_starts_ghostscript(tmp_path, monkeypatch):
    witness = tmp_path / "started"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {witness}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    picture = tmp_path / "x.jpg"
    picture.write_bytes(encoded(photograph(), "EPS"))

    with pytest.raises(ImageError) as caught:
        open_image(picture)

    assert caught.value.code == "IMG-FORMAT"
    assert "PostScript" in str(caught.value)
    assert not witness.exists()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_anywhere_is_used_or_refused(kind):
    data = ENCODED[kind]
    codes = set()

    @FEW
    @given(st.integers(1, len(data) - 1))
    def cut(length):
        try:
            decoded(data[:length])
            codes.add("used")
        except ImageError as error:
            codes.add(error.code)

    cut()

    assert "IMG-TRUNCATED" in codes
    assert codes <= {"used", "IMG-TRUNCATED", "IMG-NOT-AN-IMAGE"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_jpeg_png_or_webp_cut_in_half_is_truncated(kind):
    data = ENCODED[kind]

    assert refusal(data[: len(data) // 2]).code == "IMG-TRUNCATED"


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_jpeg_without_its_last_bytes_is_truncated(missing):
    assert refusal(ENCODED["JPEG"][:-missing]).code == "IMG-TRUNCATED"


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_give_a_picture_or_an_image_error_and_no_warning(kind):
    data = ENCODED[kind]
    outcomes = set()

    @FEW
    @given(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(1, 255)), max_size=8))
    def flip(changes):
        damaged = bytearray(data)
        for place, mask in changes:
            damaged[place] ^= mask
        try:
            outcomes.add(decoded(bytes(damaged)).mode)
        except ImageError as error:
            outcomes.add(error.path)

    flip()

    assert outcomes <= {"RGB", "x.jpg"}


@FEW
@given(st.binary(min_size=1, max_size=300))
def test_random_bytes_are_refused(data):
    assert refusal(data).code.startswith("IMG-")


@pytest.mark.parametrize(
    "error",
    [SyntaxError, ValueError, RuntimeError, struct.error, TypeError, OverflowError, zlib.error],
)
def test_whatever_a_decoder_raises_becomes_an_image_error(error, monkeypatch):
    def broken(*arguments, **options):
        raise error("inside")

    monkeypatch.setattr(Image, "open", broken)

    assert refusal(ENCODED["PNG"]).code == "IMG-CORRUPT"


def test_a_lack_of_memory_is_told_as_such(monkeypatch):
    def broken(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", broken)

    assert refusal(ENCODED["PNG"]).code == "IMG-TOO-LARGE"


def test_a_png_with_a_wrong_checksum_is_corrupt():
    data = png(2, 1, 8, 0, b"\0ab")
    place = data.index(b"IDAT") - 4 + 8 + len(zlib.compress(b"\0ab"))

    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    assert refusal(damaged).code == "IMG-CORRUPT"


def test_a_header_that_claims_enormous_size_is_refused_with_size_and_limit():
    error = refusal(png(50_000, 50_000, 8, 2, b""))

    assert error.code == "IMG-TOO-LARGE"
    assert "2,500,000,000" in error.why
    assert "64,000,000" in error.why


def test_the_limit_is_the_one_that_was_asked_for_whatever_pillow_allows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # of which Pillow refuses twice as many

    image = decoded(ENCODED["PNG"], Decoding(limits=Limits(pixels=60 * 44)))
    for limit in (60 * 44 - 1, 150):
        error = refusal(ENCODED["PNG"], Decoding(limits=Limits(pixels=limit)))
        assert error.code == "IMG-TOO-LARGE"
        assert f"the limit is {limit:,}" in error.why
        assert "Limits(pixels=...)" in error.hint

    assert image.size == (60, 44)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_bomb_that_pillow_only_warns_of_is_refused_before_decoding():
    error = refusal(png(11_000, 10_000, 1, 0, b""))

    assert error.code == "IMG-TOO-LARGE"
    assert "11000×10000" in error.why


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 2), (1, 65_000)])
def test_long_thin_pictures_are_refused(size):
    error = refusal(encoded(Image.new("L", size), "PNG"))

    assert error.code == "IMG-ASPECT"
    assert f"{size[0]}×{size[1]}" in error.why


@FEW
@given(st.integers(1, 70_000), st.integers(1, 70_000))
def test_what_would_have_too_many_pixels_once_resized_is_refused_and_nothing_else(width, height):
    resized = 256 * 256 * max(width, height) / min(width, height)
    refused = contextlib.nullcontext()
    if round(resized) > 16_000_000:
        refused = pytest.raises(ImageError, match="16,000,000")

    with refused:
        refuse_huge_resize(width, height, 256, name="x")


def test_memory_stays_bounded_for_pictures_that_cost_others_gigabytes(tmp_path):
    for name, size in {"a.png": (1, 30_000), "b.jpg": (1, 65_000), "c.png": (30_000, 2)}.items():
        Image.new("L", size).save(tmp_path / name)
    program = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        from regraft.data.images import open_image
        from regraft.errors import ImageError
        for path in sys.argv[1:]:
            try:
                open_image(path).resize((256, 256))
            except ImageError as error:
                print(error.code)
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.split() == ["IMG-ASPECT"] * 3


def test_more_frames_than_allowed_are_refused():
    frames = [photograph(seed=seed).convert("P") for seed in range(4)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    assert refusal(data, Decoding(limits=Limits(frames=3))).code == "IMG-TOO-LARGE"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_used_and_said(kind, tmp_path):
    first, second = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    file = tmp_path / f"x.{kind.lower()}"
    file.write_bytes(encoded(first, kind, save_all=True, append_images=[second]))

    facts = inspect(file)
    red, _, blue = open_image(file).getpixel((20, 20))

    assert facts.frames == 2
    assert "NOTE-FRAMES" in facts.notes
    assert red > 200
    assert blue < 50


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_give_the_same_upright_picture(kind, orientation):
    upright = photograph()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation in undo:
        stored = upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}

    image = decoded(encoded(stored, kind, exif=exif, **lossless.get(kind, {})))

    difference = np.asarray(image, int) - np.asarray(upright, int)
    assert image.size == upright.size
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"]
)
def test_a_broken_exif_block_does_not_refuse_a_picture(kind, block):
    data = encoded(photograph(), kind, exif=b"Exif\0\0" + block)

    assert decoded(data).size == (60, 44)


def test_a_huge_text_chunk_is_refused_with_bounded_memory():
    text = (b"zTXt", b"note\0\0" + zlib.compress(b" " * (64 << 20)))

    assert refusal(png(2, 1, 8, 0, b"\0ab", text)).code == "IMG-CORRUPT"


def test_cmyk_jpegs_look_like_their_rgb_originals():
    original = photograph()

    image = decoded(encoded(original.convert("CMYK"), "JPEG", quality=95))

    difference = np.asarray(image, int) - np.asarray(original, int)
    assert np.abs(difference).mean() < 5


def test_a_colour_mode_without_conversion_is_refused():
    assert refusal(encoded(Image.new("LAB", (40, 40)), "TIFF")).code == "IMG-FORMAT"


def test_arrays_and_pillow_images_take_the_same_way():
    array = np.asarray(photograph())

    from_array, from_image = read_picture(array), read_picture(Image.fromarray(array))

    assert from_array.sha256 == from_image.sha256
    assert np.array_equal(np.asarray(decode(from_array)), array)
    assert np.array_equal(np.asarray(open_image(from_image.data)), array)


def test_a_pillow_image_is_turned_upright_and_named_by_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.jpg"
    photograph().save(file, exif=exif)

    with Image.open(file) as picture:
        content = read_picture(picture)

    assert content.name == str(file)
    assert decode(content).size == (44, 60)


def test_a_damaged_pillow_image_is_an_image_error():
    data = ENCODED["JPEG"]

    with pytest.raises(ImageError) as caught, Image.open(io.BytesIO(data[:900])) as picture:
        open_image(picture)

    assert caught.value.code == "IMG-TRUNCATED"


def test_a_thumbnail_is_small_and_carries_no_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "the maker"
    file = tmp_path / "x.jpg"
    photograph(600, 400).save(file, exif=exif, comment=b"secret")

    small = thumbnail(file, side=50)

    image = Image.open(io.BytesIO(small))
    assert max(image.size) == 50
    assert not image.getexif()
    assert b"secret" not in small


def test_a_thumbnail_leaves_the_picture_given_as_it_is():
    picture = photograph(400, 300)

    thumbnail(picture, side=20)

    assert picture.size == (400, 300)


def test_facts_say_what_is_unusual(tmp_path):
    file = tmp_path / "x.jpg"
    Image.new("LA", (20, 40)).save(file, "PNG")

    facts = inspect(file)

    assert (facts.mode, facts.format, facts.dhash) == ("LA", "PNG", None)
    assert set(facts.notes) == {
        "NOTE-TINY",
        "NOTE-EXTENSION",
        "NOTE-GREY",
        "NOTE-ALPHA",
        "NOTE-FLAT",
    }


def test_an_ordinary_photograph_has_no_notes(tmp_path):
    file = tmp_path / "x.JPG"
    photograph(200, 150).save(file, "JPEG")

    facts = inspect(file)

    assert facts.notes == ()
    assert facts.dhash is not None


def test_a_single_pixel_is_used():
    assert decoded(png(1, 1, 8, 0, b"\0\7")).getpixel((0, 0)) == (7, 7, 7)


def test_decoding_in_many_threads_gives_the_same_pixels_and_no_warning():
    palette = photograph().convert("P")
    data = [encoded(palette, "PNG", transparency=bytes(range(200))), ENCODED["JPEG"][:-40]] * 50
    barrier = threading.Barrier(4)

    def work(which):
        barrier.wait(timeout=10)
        results = set()
        for item in data[which::4]:
            try:
                results.add(decoded(item).tobytes())
            except ImageError as error:
                results.add(error.code)
        return results

    with ThreadPoolExecutor(4) as pool:
        results = set().union(*pool.map(work, range(4)))

    assert len(results) == 2
    assert "IMG-TRUNCATED" in results


def test_suffixes_are_lower_case_and_start_with_a_dot():
    assert {".jpg", ".png", ".webp", ".tif"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
