"""Every image becomes upright RGB or one error that names it; nothing else ever happens."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.data import images as images_module
from regraft.data.image_errors import FORMATS
from regraft.data.images import (
    Content,
    Decoding,
    decode,
    difference_hashes,
    inspect,
    open_image,
    read_image,
    refuse_huge_resize,
    thumbnail,
)
from regraft.errors import ImageError
from regraft.files import sha256_bytes
from samples import photograph, refused, saved

FEW = settings(max_examples=60, derandomize=True, database=None)


def decoded(data, decoding=Decoding()):
    return decode(Content("x.jpg", "0" * 64, data), decoding)


def greys(data):
    return np.asarray(decoded(data))[..., 0]


def refusal(data):
    """Return the error of bytes, a path or an object that cannot be used."""
    error = refused(decoded if isinstance(data, bytes) else open_image, data)
    assert isinstance(error, ImageError)
    assert error.hint or error.why
    return error


def png(width, height, depth, colour, pixels, *extra):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


ENCODED = {kind: saved(photograph(), kind) for kind in FORMATS}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_anywhere_is_used_or_refused(kind):
    data = ENCODED[kind]
    codes = {refusal(data[:-20]).code}

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


@pytest.mark.parametrize("kind", ENCODED)
def test_every_format_becomes_rgb_and_with_flipped_bytes_that_or_an_image_error(kind):
    data = ENCODED[kind]
    whole, outcomes = decoded(data), set()

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

    assert (whole.mode, whole.size) == ("RGB", (60, 44))
    assert outcomes <= {"RGB", "x.jpg"}


@pytest.mark.parametrize(
    ("error", "code"),
    [(kind, "IMG-CORRUPT") for kind in (SyntaxError, struct.error, TypeError, zlib.error)]
    + [(MemoryError, "IMG-TOO-LARGE")],
)
def test_whatever_a_decoder_raises_becomes_an_image_error(error, code, monkeypatch):
    def broken(*arguments, **options):
        raise error("inside")

    monkeypatch.setattr(Image, "open", broken)

    assert refusal(ENCODED["PNG"]).code == code


def test_avif_is_read(tmp_path):
    photograph().save(tmp_path / "x.avif", quality=100, subsampling="4:4:4")

    found = open_image(tmp_path / "x.avif")

    expected = np.asarray(photograph().convert("RGB")).astype(int)
    assert np.abs(np.asarray(found).astype(int) - expected).mean() < 5


def test_what_a_library_says_of_a_damaged_file_does_not_reach_the_terminal(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.tif")
    data = bytearray((tmp_path / "x.tif").read_bytes())
    (first,) = struct.unpack("<I", data[4:8])
    for entry in range(first + 2, first + 2 + 12 * data[first], 12):
        if struct.unpack("<H", data[entry : entry + 2]) == (277,):  # samples per pixel
            data[entry + 8 : entry + 10] = struct.pack("<H", 99)
    (tmp_path / "x.tif").write_bytes(data)
    code = f"""
from regraft.data.images import open_image
from regraft.errors import ImageError
try:
    open_image({str(tmp_path / "x.tif")!r})
except ImageError as error:
    print(error.code)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("IMG-CORRUPT\n", "")


def test_a_png_with_a_wrong_checksum_is_corrupt():
    data = png(2, 1, 8, 0, b"\0ab")
    place = data.index(b"IDAT") - 4 + 8 + len(zlib.compress(b"\0ab"))

    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    assert refusal(damaged).code == "IMG-CORRUPT"


@pytest.mark.parametrize(("side", "counted"), [(8001, "64,016,001"), (50_000, "2,500,000,000")])
def test_a_header_that_claims_enormous_size_is_refused_with_size_and_limit(side, counted):
    error = refusal(png(side, side, 8, 2, b""))

    assert error.code == "IMG-TOO-LARGE"
    assert counted in error.why
    assert "64,000,000" in error.why


@FEW
@given(st.integers(1, 70_000), st.integers(1, 70_000))
def test_what_would_have_too_many_pixels_once_resized_is_refused_and_nothing_else(width, height):
    resized = 256 * 256 * max(width, height) / min(width, height)

    if round(resized) > 16_000_000:
        error = refused(refuse_huge_resize, width, height, 256, name="x")
        assert "16,000,000" in str(error)
    else:
        refuse_huge_resize(width, height, 256, name="x")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_used_and_said_and_too_many_are_refused(
    kind, tmp_path, monkeypatch
):
    first, *others = (Image.new("RGB", (40, 40), name) for name in ("red", "blue", "green"))
    file = tmp_path / f"x.{kind.lower()}"
    file.write_bytes(saved(first, kind, save_all=True, append_images=others))

    facts = inspect(file)
    red, _, blue = open_image(file).getpixel((20, 20))
    monkeypatch.setattr(images_module, "_MOST_FRAMES", 2)

    assert "NOTE-FRAMES" in facts.notes
    assert red > 200
    assert blue < 50
    assert refusal(file).code == "IMG-TOO-LARGE"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_give_the_same_upright_image(kind, orientation):
    upright = photograph()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation in undo:
        stored = upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}

    image = decoded(saved(stored, kind, exif=exif, **lossless.get(kind, {})))

    difference = np.asarray(image, int) - np.asarray(upright, int)
    assert image.size == upright.size
    assert np.abs(difference).mean() < 2


def test_a_thumbnail_is_small_carries_no_metadata_and_leaves_the_image_as_it_is():
    exif = Image.Exif()
    exif[0x010F] = "the maker"
    image = Image.open(
        io.BytesIO(saved(photograph(size=(600, 400)), "JPEG", exif=exif, comment=b"me"))
    )

    small = thumbnail(image, side=50)

    found = Image.open(io.BytesIO(small))
    assert max(found.size) == 50
    assert (dict(found.getexif()), found.info.get("comment")) == ({}, None)
    assert image.size == (600, 400)


def test_facts_say_what_is_unusual_and_an_ordinary_photograph_has_no_notes(tmp_path):
    odd, ordinary = tmp_path / "odd.png", tmp_path / "ordinary.jpg"
    Image.new("LA", (31, 40)).save(odd)
    photograph(size=(200, 32)).save(ordinary)

    facts = inspect(odd)

    assert facts.hashes is None
    assert set(facts.notes) == {"NOTE-TINY", "NOTE-GREY", "NOTE-ALPHA", "NOTE-FLAT"}
    assert inspect(ordinary).notes == ()
    assert inspect(ordinary).hashes is not None


# ---- colours


RAMP = np.arange(65_536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(RAMP), "PNG"),
        (Image.fromarray(RAMP), "TIFF"),
        (Image.frombytes("I;16B", (256, 256), RAMP.astype(">u2").tobytes()), "TIFF"),
        (Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        (Image.fromarray(RAMP.astype(np.int32)), "PPM"),
    ],
)
def test_sixteen_bits_are_divided_by_256(image, kind):
    assert np.array_equal(greys(saved(image, kind)), RAMP >> 8)


@pytest.mark.parametrize("values", [[-1, 0], [0, 65_536], [0.0, 1.0], [0.0, np.nan]], ids=str)
def test_numbers_of_which_nobody_says_what_is_white_are_refused(values):
    kind = np.float32 if isinstance(values[0], float) else np.int32

    error = refusal(saved(Image.fromarray(np.array([values], kind)), "TIFF"))

    assert error.code == "IMG-RANGE"
    assert f"{values[0]:g} and {values[1]:g}" in error.why or "nan" in error.why


def tiff(bits, photometric, data, width):
    """Return a TIFF file of one row of grey values."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


WORDS = struct.pack("<4H", 0, 4096, 32_768, 65_535)


@pytest.mark.parametrize(
    ("bits", "photometric", "data", "expected"),
    [
        # 0, 256, 2048 and 4095, two values in three bytes
        (12, 1, bytes.fromhex("000100 800fff"), [0, 16, 128, 255]),
        (16, 1, WORDS, [0, 16, 128, 255]),
        (16, 0, WORDS, [255, 239, 127, 0]),
    ],
)
def test_what_a_tiff_says_of_bits_and_white_decides(bits, photometric, data, expected):
    file = tiff(bits, photometric, data, 4)

    opened = read_image(Image.open(io.BytesIO(file)))

    assert greys(file)[0].tolist() == expected
    assert np.asarray(decode(opened))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_pixels_mix_with_the_stated_background(mode):
    colour = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)

    image = decoded(saved(Image.new(mode, (2, 2), colour), "PNG"), Decoding((0, 100, 200)))

    assert np.abs(np.asarray(image, int)[0, 0] - (0, 50, 100)).max() <= 1


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_transparent_palette_entries_become_background(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)

    values = np.asarray(decoded(saved(image, "PNG", transparency=transparency)))

    assert values[0].tolist() == [[255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize(
    ("depth", "colour", "pixels", "clear", "expected"),
    [
        (16, 0, struct.pack(">2H", 1000, 40_000), struct.pack(">H", 1000), [255, 156]),
        (8, 0, b"\x07\x09", struct.pack(">H", 7), [255, 9]),
        (8, 2, bytes([7] * 3 + [9] * 3), struct.pack(">3H", 7, 7, 7), [255, 9]),
    ],
)
def test_a_colour_declared_transparent_becomes_background(depth, colour, pixels, clear, expected):
    data = png(2, 1, depth, colour, b"\0" + pixels, (b"tRNS", clear))

    assert greys(data)[0].tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "CMYK", "P"])
def test_other_modes_are_converted_and_unknown_ones_refused(mode):
    image = photograph().convert(mode)
    kind = "TIFF" if mode in {"YCbCr", "CMYK"} else "PNG"

    values = np.asarray(decoded(saved(image, kind)), int)

    assert np.abs(values - np.asarray(image.convert("RGB"), int)).max() <= 2
    assert refusal(saved(Image.new("LAB", (40, 40)), "TIFF")).code == "IMG-FORMAT"


# ---- hashes of what is to be seen


def bits(first, second):
    return [(a ^ b).bit_count() for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_another_size_or_compression_changes_few_bits_and_another_image_many(seed):
    image = photograph(seed, (320, 240))
    again = Image.open(io.BytesIO(saved(image, "JPEG", quality=30)))
    original = difference_hashes(image)

    for changed in (again, image.resize((160, 120))):
        coarse, fine = bits(original, difference_hashes(changed.convert("RGB")))
        assert coarse <= 4
        assert fine <= 12
    coarse, fine = bits(original, difference_hashes(photograph(seed + 1, (320, 240))))
    assert coarse > 10
    assert fine > 40


def test_flat_images_and_those_smaller_than_the_fine_grid_have_no_hash():
    rng = np.random.default_rng(0)
    grains = [np.clip(level + rng.integers(-2, 3, (60, 60, 3)), 0, 255) for level in (0, 128, 255)]
    flat = [Image.fromarray(grain.astype(np.uint8)) for grain in grains]
    small = [photograph(size=size) for size in ((8, 8), (16, 40), (40, 15))]

    assert {difference_hashes(image) for image in (*flat, *small)} == {None}
    assert difference_hashes(photograph(size=(17, 16))) is not None


# ---- what may be given


def test_arrays_and_pillow_images_take_the_same_way_and_views_are_read_as_they_look():
    array = np.asarray(photograph())
    turned = array[::-1, :, ::-1]

    from_array, from_image = read_image(array), read_image(Image.fromarray(array))

    assert from_array.sha256 == from_image.sha256
    assert np.array_equal(np.asarray(decode(from_array)), array)
    assert np.array_equal(np.asarray(open_image(turned)), turned)


def test_a_pillow_image_is_turned_upright_and_named_by_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.jpg"
    photograph().save(file, exif=exif)

    with Image.open(file) as image:
        content = read_image(image)

    assert content.name == str(file)
    assert decode(content).size == (44, 60)


def test_the_hash_is_that_of_the_file(tmp_path):
    file = tmp_path / "ü ö\n.jpg"
    file.write_bytes(b"content")

    content = read_image(file)

    assert (content.name, content.sha256) == (str(file), sha256_bytes(b"content"))


def test_the_hash_of_pixels_knows_palette_transparency_and_what_is_white():
    first = Image.new("P", (4, 4))
    second, third = first.copy(), first.copy()
    second.putpalette([255, 0, 0])
    third.info["transparency"] = 0
    fourth, fifth = (Image.open(io.BytesIO(tiff(16, zero, WORDS, 4))) for zero in (1, 0))

    hashes = [read_image(image).sha256 for image in (first, second, third, fourth, fifth)]

    assert len(set(hashes)) == 5


@pytest.mark.timeout(10)
def test_what_is_no_readable_file_is_unreadable_and_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    odd = ["pipe.jpg", "dangling.jpg", "loop.jpg", "absent.jpg", "", "zero\0byte.jpg", "x" * 300]

    assert {refusal(str(tmp_path / name)).code for name in odd} == {"IMG-UNREADABLE"}


def test_an_empty_file_and_one_over_the_limit_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "_MOST_BYTES", 1999)
    for name, size in (("empty", 0), ("within", 1999), ("over", 2000)):
        (tmp_path / name).write_bytes(bytes(size))

    empty, over = refusal(tmp_path / "empty"), refusal(tmp_path / "over")

    assert (empty.code, empty.path) == ("IMG-EMPTY", str(tmp_path / "empty"))
    assert (over.code, over.why) == ("IMG-TOO-LARGE", "2,000 bytes, the limit is 1,999")
    assert len(read_image(tmp_path / "within").data) == 1999


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        *((np.zeros(shape, np.uint8), f"{shape}") for shape in ((4, 4), (3, 4, 4), (2, 4, 4, 3))),
        (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3)"),
        (Image.new("RGB", (0, 4)), "0×4"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        *((thing, type(thing).__name__) for thing in (7, None, ["a.jpg"])),
    ],
)
def test_arrays_and_objects_of_another_kind_are_refused(thing, told):
    error = refusal(thing)

    assert error.code in {"IMG-ARRAY", "IMG-EMPTY"}
    assert told in error.why


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_called_that(size):
    with pytest.raises(ImageError, match=f"no pixels.*{size[0]}×{size[1]}") as refused:
        open_image(Image.new("RGB", size))

    assert refused.value.code == "IMG-EMPTY"
