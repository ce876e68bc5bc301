"""Every image becomes upright RGB or one error that names it; nothing else ever happens."""

import contextlib
import io
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.data.image_errors import FORMATS
from regraft.data.images import (
    Content,
    Decoding,
    Limits,
    decode,
    difference_hashes,
    inspect,
    open_image,
    read_image,
    refuse_huge_resize,
    thumbnail,
)
from regraft.errors import DataError, ImageError, UsageError
from regraft.files import sha256_bytes

PLAIN = Decoding()
FEW = settings(max_examples=60, derandomize=True, database=None)


def photograph(width=60, height=44, seed=0):
    """Return an image with coarse and fine structure, different in every corner."""
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


KINDS = list(FORMATS)
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
    image = tmp_path / "x.jpg"
    image.write_bytes(encoded(photograph(), "EPS"))

    with pytest.raises(ImageError) as caught:
        open_image(image)

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


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_jpeg_without_its_last_bytes_is_truncated(missing):
    assert refusal(ENCODED["JPEG"][:-missing]).code == "IMG-TRUNCATED"


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_give_an_image_or_an_image_error_and_no_warning(kind):
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


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 2), (1, 65_000)])
def test_long_thin_images_are_refused(size):
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

    assert "NOTE-FRAMES" in facts.notes
    assert red > 200
    assert blue < 50


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

    image = decoded(encoded(stored, kind, exif=exif, **lossless.get(kind, {})))

    difference = np.asarray(image, int) - np.asarray(upright, int)
    assert image.size == upright.size
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"]
)
def test_a_broken_exif_block_does_not_refuse_an_image(kind, block):
    data = encoded(photograph(), kind, exif=b"Exif\0\0" + block)

    assert decoded(data).size == (60, 44)


def test_a_huge_text_chunk_is_refused_with_bounded_memory():
    text = (b"zTXt", b"note\0\0" + zlib.compress(b" " * (64 << 20)))

    assert refusal(png(2, 1, 8, 0, b"\0ab", text)).code == "IMG-CORRUPT"


def test_a_colour_mode_without_conversion_is_refused():
    assert refusal(encoded(Image.new("LAB", (40, 40)), "TIFF")).code == "IMG-FORMAT"


def test_arrays_and_pillow_images_take_the_same_way():
    array = np.asarray(photograph())

    from_array, from_image = read_image(array), read_image(Image.fromarray(array))

    assert from_array.sha256 == from_image.sha256
    assert np.array_equal(np.asarray(decode(from_array)), array)
    assert np.array_equal(np.asarray(open_image(from_image.data)), array)


def test_a_pillow_image_is_turned_upright_and_named_by_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.jpg"
    photograph().save(file, exif=exif)

    with Image.open(file) as image:
        content = read_image(image)

    assert content.name == str(file)
    assert decode(content).size == (44, 60)


def test_a_damaged_pillow_image_is_an_image_error():
    data = ENCODED["JPEG"]

    with pytest.raises(ImageError) as caught, Image.open(io.BytesIO(data[:900])) as image:
        open_image(image)

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


def test_a_thumbnail_leaves_the_image_given_as_it_is():
    image = photograph(400, 300)

    thumbnail(image, side=20)

    assert image.size == (400, 300)


def test_facts_say_what_is_unusual(tmp_path):
    file = tmp_path / "x.jpg"
    Image.new("LA", (20, 40)).save(file, "PNG")

    facts = inspect(file)

    assert facts.hashes is None
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
    assert facts.hashes is not None


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


RAMP = np.arange(65_536, dtype=np.uint16).reshape(256, 256)


def redecoded(image, kind="PNG", decoding=PLAIN, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return np.asarray(decode(Content("x", "0" * 64, stream.getvalue()), decoding))


def code_of(image, kind, decoding=PLAIN):
    with pytest.raises(ImageError) as caught:
        redecoded(image, kind, decoding)
    return caught.value.code


def noise(width=64, height=48, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_divided_by_256(kind):
    values = redecoded(Image.fromarray(RAMP), kind)

    assert np.array_equal(values[..., 0], RAMP >> 8)


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_integers_within_sixteen_bits_are_divided_by_256(kind):
    values = redecoded(Image.fromarray(RAMP.astype(np.int32)), kind)

    assert np.array_equal(values[..., 0], RAMP >> 8)


def test_big_endian_sixteen_bit_tiffs_are_read_alike():
    data = RAMP[:4, :4].astype(">u2").tobytes()
    image = Image.frombytes("I;16B", (4, 4), data)

    assert np.array_equal(redecoded(image, "TIFF")[..., 0], RAMP[:4, :4] >> 8)


def tiff(bits, photometric, data, width):
    """Return a TIFF file of one row of grey values."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    ("bits", "photometric", "expected"),
    [(12, 1, [0, 16, 128, 255]), (16, 1, [0, 16, 128, 255]), (16, 0, [255, 239, 127, 0])],
)
def test_what_a_tiff_says_of_bits_and_white_decides(bits, photometric, expected):
    if bits == 12:  # 0, 256, 2048 and 4095, two values in three bytes
        data = bytes.fromhex("000100 800fff")
    else:
        data = struct.pack("<4H", 0, 4096, 32_768, 65_535)

    content = Content("x", "0" * 64, tiff(bits, photometric, data, 4))
    opened = Image.open(io.BytesIO(content.data))

    assert np.asarray(decode(content))[0, :, 0].tolist() == expected
    assert np.asarray(decode(read_image(opened)))[0, :, 0].tolist() == expected


def test_pixels_that_mean_something_else_have_another_hash():
    data = struct.pack("<4H", 0, 4096, 32_768, 65_535)
    opened = [Image.open(io.BytesIO(tiff(16, photometric, data, 4))) for photometric in (1, 0)]

    assert len({read_image(image).sha256 for image in opened}) == 2
    assert len({read_image(image).sha256 for image in (opened[1], opened[1].copy())}) == 2


def test_larger_integers_need_a_stated_range():
    image = Image.fromarray(RAMP.astype(np.int32) * 1000 - 5)

    stated = redecoded(image, "TIFF", Decoding(float_range=(-5, 65_535_000 - 5)))

    assert code_of(image, "TIFF") == "IMG-RANGE"
    assert len(np.unique(stated)) == 256


def test_floats_need_a_stated_range():
    image = Image.fromarray(RAMP.astype(np.float32) / 65_535)

    values = redecoded(image, "TIFF", Decoding(float_range=(0, 1)))

    assert code_of(image, "TIFF") == "IMG-FLOAT"
    assert len(np.unique(values)) == 256
    assert (values.min(), values.max()) == (0, 255)


def test_floats_beyond_the_stated_range_are_black_or_white():
    image = Image.fromarray(np.array([[-9.0, 0.5, 9.0]], np.float32))

    assert redecoded(image, "TIFF", Decoding(float_range=(0, 1)))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_even_with_a_range(value):
    image = Image.fromarray(np.array([[0.0, value]], np.float32))

    assert code_of(image, "TIFF", Decoding(float_range=(0, 1))) == "IMG-FLOAT"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_pixels_mix_with_the_stated_background(mode):
    colour = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)

    values = redecoded(Image.new(mode, (2, 2), colour), decoding=Decoding(background=(0, 100, 200)))

    assert np.abs(values[0, 0].astype(int) - (0, 50, 100)).max() <= 1


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_transparent_palette_entries_become_background(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)

    values = redecoded(image, transparency=transparency)

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

    image = decode(Content("x", "0" * 64, data))

    assert np.asarray(image)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "CMYK", "P"])
def test_other_modes_are_converted(mode):
    image = noise()
    kind = "TIFF" if mode in {"YCbCr", "CMYK"} else "PNG"

    values = redecoded(image.convert(mode), kind)

    expected = np.asarray(image.convert(mode).convert("RGB"), int)
    assert np.abs(values - expected).max() <= 2


def bits(first, second):
    return [(a ^ b).bit_count() for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_another_size_or_compression_changes_few_bits(seed):
    image = noise(320, 240, seed)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=30)
    original = difference_hashes(image)

    for changed in (Image.open(stream), image.resize((160, 120))):
        coarse, fine = bits(original, difference_hashes(changed.convert("RGB")))
        assert coarse <= 4
        assert fine <= 12


def test_different_images_differ_in_many_bits():
    coarse, fine = bits(difference_hashes(noise(seed=1)), difference_hashes(noise(seed=2)))

    assert coarse > 10
    assert fine > 40


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_images_have_no_hash(level):
    rng = np.random.default_rng(0)
    grain = np.clip(level + rng.integers(-2, 3, (60, 60, 3)), 0, 255).astype(np.uint8)

    assert difference_hashes(Image.fromarray(grain)) is None


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (40, 15)])
def test_images_with_fewer_pixels_than_the_fine_grid_has_cells_have_no_hash(size):
    assert difference_hashes(noise(*size)) is None
    assert difference_hashes(noise(17, 16)) is not None


def unread(image, **options):
    with pytest.raises(ImageError) as caught:
        read_image(image, **options)
    assert caught.value.hint or caught.value.why
    return caught.value


def test_the_hash_is_that_of_the_file(tmp_path):
    file = tmp_path / "ü ö\n.jpg"
    file.write_bytes(b"content")

    content = read_image(file)

    assert (content.name, content.sha256) == (str(file), sha256_bytes(b"content"))


def test_an_empty_file_is_named(tmp_path):
    file = tmp_path / "empty.jpg"
    file.touch()

    error = unread(file)

    assert (error.code, error.path) == ("IMG-EMPTY", str(file))


@pytest.mark.timeout(10)
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")

    assert unread(tmp_path / "pipe.jpg").code == "IMG-UNREADABLE"


def test_what_is_no_readable_file_is_unreadable(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    odd = ["dangling.jpg", "loop.jpg", "absent.jpg", "", "zero\0byte.jpg", "x" * 300]

    assert {unread(str(tmp_path / name)).code for name in odd} == {"IMG-UNREADABLE"}


def test_a_file_over_the_limit_is_refused_with_both_numbers(tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(bytes(2000))

    error = unread(file, limits=Limits(file_bytes=1999))

    assert error.code == "IMG-TOO-LARGE"
    assert "2,000" in error.why
    assert "1,999" in error.why


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_of_another_kind_are_a_data_error_with_the_shape(array):
    with pytest.raises(DataError) as caught:
        read_image(array)

    assert str(array.shape) in caught.value.why


@pytest.mark.parametrize("thing", [b"bytes", 7, None, ["a.jpg"]])
def test_other_objects_are_refused_with_advice(thing):
    error = unread(thing)

    assert error.code == "IMG-ARRAY"
    assert "path" in error.hint


def test_the_hash_of_pixels_knows_palette_and_transparency():
    first = Image.new("P", (4, 4))
    second, third = first.copy(), first.copy()
    second.putpalette([255, 0, 0])
    third.info["transparency"] = 0

    hashes = {read_image(image).sha256 for image in (first, second, third)}

    assert len(hashes) == 3


def test_a_view_of_an_array_is_read_as_it_looks():
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    content = read_image(array[::-1, :, ::-1])

    assert np.array_equal(np.asarray(content.data), array[::-1, :, ::-1])


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (1.0, 0.0), (0.0, float("nan"))])
def test_a_range_without_width_is_refused(bounds):
    with pytest.raises(UsageError):
        Decoding(float_range=bounds)
