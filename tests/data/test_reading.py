"""Reading a picture never blocks, never reads too much and says what is wrong."""

import os

import numpy as np
import pytest
from PIL import Image
from regraft.data.reading import Decoding, Limits, read_picture

from regraft.errors import DataError, ImageError, UsageError
from regraft.files import sha256_bytes


def refusal(picture, **options):
    with pytest.raises(ImageError) as caught:
        read_picture(picture, **options)
    assert caught.value.hint or caught.value.why
    return caught.value


def test_the_hash_is_that_of_the_file(tmp_path):
    file = tmp_path / "ü ö\n.jpg"
    file.write_bytes(b"content")

    content = read_picture(file)

    assert (content.name, content.sha256) == (str(file), sha256_bytes(b"content"))


def test_an_empty_file_is_named(tmp_path):
    file = tmp_path / "empty.jpg"
    file.touch()

    error = refusal(file)

    assert (error.code, error.path) == ("IMG-EMPTY", str(file))


@pytest.mark.timeout(10)
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")

    assert refusal(tmp_path / "pipe.jpg").code == "IMG-UNREADABLE"


@pytest.mark.timeout(10)
@pytest.mark.skipif(os.name != "posix", reason="devices are files on POSIX only")
def test_a_device_is_not_opened():
    assert refusal("/dev/zero").code == "IMG-UNREADABLE"


def test_what_is_no_readable_file_is_unreadable(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    odd = ["dangling.jpg", "loop.jpg", "absent.jpg", "", "zero\0byte.jpg", "x" * 300]

    assert {refusal(str(tmp_path / name)).code for name in odd} == {"IMG-UNREADABLE"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_unreadable(tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(b"x")
    file.chmod(0)

    assert refusal(file).code == "IMG-UNREADABLE"


def test_a_file_over_the_limit_is_refused_with_both_numbers(tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(bytes(2000))

    error = refusal(file, limits=Limits(file_bytes=1999))

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
        read_picture(array)

    assert str(array.shape) in caught.value.why


@pytest.mark.parametrize("thing", [b"bytes", 7, None, ["a.jpg"]])
def test_other_objects_are_refused_with_advice(thing):
    error = refusal(thing)

    assert error.code == "IMG-ARRAY"
    assert "path" in error.hint


def test_the_hash_of_pixels_knows_palette_and_transparency():
    first = Image.new("P", (4, 4))
    second, third = first.copy(), first.copy()
    second.putpalette([255, 0, 0])
    third.info["transparency"] = 0

    hashes = {read_picture(image).sha256 for image in (first, second, third)}

    assert len(hashes) == 3


def test_a_view_of_an_array_is_read_as_it_looks():
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    content = read_picture(array[::-1, :, ::-1])

    assert np.array_equal(np.asarray(content.data), array[::-1, :, ::-1])


@pytest.mark.parametrize(
    "decoding", [Decoding(), Decoding((1, 2, 3), (-1.5, 2.0), Limits(pixels=5))]
)
def test_settings_survive_json(decoding):
    assert Decoding.from_json(decoding.to_json()) == decoding


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (1.0, 0.0), (0.0, float("nan"))])
def test_a_range_without_width_is_refused(bounds):
    with pytest.raises(UsageError):
        Decoding(float_range=bounds)
