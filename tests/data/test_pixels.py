"""Deep pixels are scaled and never clipped; transparent ones lie over the stated background."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from regraft.data.pixels import difference_hashes
from regraft.data.reading import read_picture

from regraft.data.images import Content, Decoding, decode
from regraft.errors import ImageError

PLAIN = Decoding()
RAMP = np.arange(65_536, dtype=np.uint16).reshape(256, 256)


def decoded(image, kind="PNG", decoding=PLAIN, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return np.asarray(decode(Content("x", "0" * 64, stream.getvalue()), decoding))


def code_of(image, kind, decoding=PLAIN):
    with pytest.raises(ImageError) as caught:
        decoded(image, kind, decoding)
    return caught.value.code


def noise(width=64, height=48, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_divided_by_256(kind):
    values = decoded(Image.fromarray(RAMP), kind)

    assert np.array_equal(values[..., 0], RAMP >> 8)


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_integers_within_sixteen_bits_are_divided_by_256(kind):
    values = decoded(Image.fromarray(RAMP.astype(np.int32)), kind)

    assert np.array_equal(values[..., 0], RAMP >> 8)


def test_big_endian_sixteen_bit_tiffs_are_read_alike():
    data = RAMP[:4, :4].astype(">u2").tobytes()
    image = Image.frombytes("I;16B", (4, 4), data)

    assert np.array_equal(decoded(image, "TIFF")[..., 0], RAMP[:4, :4] >> 8)


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
    assert np.asarray(decode(read_picture(opened)))[0, :, 0].tolist() == expected


def test_pixels_that_mean_something_else_have_another_hash():
    data = struct.pack("<4H", 0, 4096, 32_768, 65_535)
    opened = [Image.open(io.BytesIO(tiff(16, photometric, data, 4))) for photometric in (1, 0)]

    assert len({read_picture(image).sha256 for image in opened}) == 2
    assert len({read_picture(image).sha256 for image in (opened[1], opened[1].copy())}) == 2


def test_larger_integers_need_a_stated_range():
    image = Image.fromarray(RAMP.astype(np.int32) * 1000 - 5)

    stated = decoded(image, "TIFF", Decoding(float_range=(-5, 65_535_000 - 5)))

    assert code_of(image, "TIFF") == "IMG-RANGE"
    assert len(np.unique(stated)) == 256


def test_floats_need_a_stated_range():
    image = Image.fromarray(RAMP.astype(np.float32) / 65_535)

    values = decoded(image, "TIFF", Decoding(float_range=(0, 1)))

    assert code_of(image, "TIFF") == "IMG-FLOAT"
    assert len(np.unique(values)) == 256
    assert (values.min(), values.max()) == (0, 255)


def test_floats_beyond_the_stated_range_are_black_or_white():
    image = Image.fromarray(np.array([[-9.0, 0.5, 9.0]], np.float32))

    assert decoded(image, "TIFF", Decoding(float_range=(0, 1)))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_even_with_a_range(value):
    image = Image.fromarray(np.array([[0.0, value]], np.float32))

    assert code_of(image, "TIFF", Decoding(float_range=(0, 1))) == "IMG-FLOAT"


def test_hidden_colours_do_not_appear_through_alpha():
    values = decoded(Image.new("RGBA", (4, 4), (200, 10, 10, 0)))

    assert (values == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_pixels_mix_with_the_stated_background(mode):
    colour = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)

    values = decoded(Image.new(mode, (2, 2), colour), decoding=Decoding(background=(0, 100, 200)))

    assert np.abs(values[0, 0].astype(int) - (0, 50, 100)).max() <= 1


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_transparent_palette_entries_become_background(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)

    values = decoded(image, transparency=transparency)

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
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"tRNS", clear)
    body += chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b"")

    image = decode(Content("x", "0" * 64, b"\x89PNG\r\n\x1a\n" + body))

    assert np.asarray(image)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "CMYK", "P"])
def test_other_modes_are_converted(mode):
    picture = noise()
    kind = "TIFF" if mode in {"YCbCr", "CMYK"} else "PNG"

    values = decoded(picture.convert(mode), kind)

    expected = np.asarray(picture.convert(mode).convert("RGB"), int)
    assert np.abs(values - expected).max() <= 2


def bits(first, second):
    return [(a ^ b).bit_count() for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_another_size_or_compression_changes_few_bits(seed):
    picture = noise(320, 240, seed)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=30)
    original = difference_hashes(picture)

    for changed in (Image.open(stream), picture.resize((160, 120))):
        coarse, fine = bits(original, difference_hashes(changed.convert("RGB")))
        assert coarse <= 4
        assert fine <= 12


def test_different_pictures_differ_in_many_bits():
    coarse, fine = bits(difference_hashes(noise(seed=1)), difference_hashes(noise(seed=2)))

    assert coarse > 10
    assert fine > 40


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_pictures_have_no_hash(level):
    rng = np.random.default_rng(0)
    grain = np.clip(level + rng.integers(-2, 3, (60, 60, 3)), 0, 255).astype(np.uint8)

    assert difference_hashes(Image.fromarray(grain)) is None


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (40, 15)])
def test_pictures_with_fewer_pixels_than_the_fine_grid_has_cells_have_no_hash(size):
    assert difference_hashes(noise(*size)) is None
    assert difference_hashes(noise(17, 16)) is not None
