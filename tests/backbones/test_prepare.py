"""A prepared picture has exactly Pillow's pixels."""

import numpy as np
import pytest
from PIL import Image

from regraft.backbones.backbone import prepare
from regraft.backbones.spec import Preprocessing
from regraft.errors import ImageError

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def noise(width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (60, 90), (256, 256), (1023, 77)])
def test_a_cropped_picture_equals_pillows_to_the_last_level(interpolation, size):
    image = noise(*size)
    preprocessing = Preprocessing(size=224, resize=256, interpolation=interpolation)
    width, height = size
    scaled = (
        (256, int(256 * height / width)) if width <= height else (int(256 * width / height), 256)
    )
    left, top = round((scaled[0] - 224) / 2), round((scaled[1] - 224) / 2)
    expected = image.resize(scaled, FILTERS[interpolation]).crop((left, top, left + 224, top + 224))

    assert np.array_equal(prepare(image, preprocessing), np.array(expected))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(500, 375), (20, 300)])
def test_a_squashed_picture_equals_pillows_to_the_last_level(interpolation, size):
    image = noise(*size)
    preprocessing = Preprocessing(size=96, resize=96, mode="squash", interpolation=interpolation)

    expected = image.resize((96, 96), FILTERS[interpolation])

    assert np.array_equal(prepare(image, preprocessing), np.array(expected))


def test_a_squashed_picture_may_be_cropped():
    image = noise(500, 375)
    preprocessing = Preprocessing(size=96, resize=107, mode="squash_crop")

    expected = image.resize((107, 107), Image.Resampling.BICUBIC).crop((6, 6, 102, 102))

    assert np.array_equal(prepare(image, preprocessing), np.array(expected))
    assert "squash to 107, centre crop" in str(preprocessing)


def test_a_picture_of_the_right_size_is_not_touched():
    image = noise(64, 64)

    assert np.array_equal(prepare(image, Preprocessing(size=64, resize=64)), np.array(image))


def test_the_networks_own_resize_decides_whether_a_picture_is_too_thin():
    image = Image.new("RGB", (100, 12_000))
    prepare(image, Preprocessing(size=224, resize=256))

    with pytest.raises(ImageError) as caught:
        prepare(image, Preprocessing(size=600, resize=600))

    assert caught.value.code == "IMG-ASPECT"
