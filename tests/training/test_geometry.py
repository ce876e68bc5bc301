"""The affine map against scipy's, built the way Keras builds it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from regraft.training.augment import FILLS, affine, moved, warp


def photograph(height, width, seed=0):
    """Return a picture with smooth parts, edges and noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    smooth[height // 3 : height // 2] = 255 - smooth[height // 3 : height // 2]
    noise = random.integers(0, 30, smooth.shape, dtype=np.uint8)
    return np.minimum(smooth, 225) + noise


def keras_matrix(height, width, *, theta, tx, ty, shear, zx, zy):
    """Return the matrix of Keras' apply_affine_transform; rows are its x."""
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    matrix = np.array(
        [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    )
    matrix = matrix @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    matrix = matrix @ np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    matrix = matrix @ np.array([[zx, 0, 0], [0, zy, 0], [0, 0, 1]])
    offset_x, offset_y = height / 2 - 0.5, width / 2 - 0.5
    there = np.array([[1, 0, offset_x], [0, 1, offset_y], [0, 0, 1]])
    back = np.array([[1, 0, -offset_x], [0, 1, -offset_y], [0, 0, 1]])
    return there @ matrix @ back


def keras_affine(picture, *, fill, fill_value, **keras):
    """Return what Keras' apply_affine_transform gives, in floats."""
    matrix = keras_matrix(*picture.shape[:2], **keras)
    channels = [
        ndimage.affine_transform(
            picture[..., channel].astype(np.float32),
            matrix[:2, :2],
            matrix[:2, 2],
            order=1,
            mode=fill,
            cval=fill_value,
        )
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1)


def clear_of_edges(matrix, height, width):
    """Return where it does not depend on the last digit whether a place is outside."""
    places = np.stack([*np.indices((height, width)), np.ones((height, width))])
    row, column, _ = np.tensordot(matrix, places, axes=1)
    edges = [row, row - height + 1, column, column - width + 1]
    return np.all([np.abs(distance) > 1e-4 for distance in edges], axis=0)


@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    rotation=st.floats(-180, 180),
    shift=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
    shear=st.floats(-40, 40),
    zoom=st.tuples(st.floats(0.5, 2.5), st.floats(0.5, 2.5)),
    fill=st.sampled_from(FILLS),
    fill_value=st.integers(0, 255),
)
@settings(max_examples=150)
def test_the_picture_is_the_one_that_keras_gives(
    size, rotation, shift, shear, zoom, fill, fill_value
):
    picture = photograph(*size)
    pixels = (shift[0] * size[0], shift[1] * size[1])

    found = warp(
        picture,
        affine(*size, rotation=rotation, shift=pixels, shear=shear, zoom=zoom),
        fill=fill,
        fill_value=fill_value,
    )

    keras = {
        "theta": rotation,
        "tx": pixels[0],
        "ty": pixels[1],
        "shear": shear,
        "zx": zoom[0],
        "zy": zoom[1],
    }
    expected = keras_affine(picture, fill=fill, fill_value=fill_value, **keras)
    clear = clear_of_edges(keras_matrix(*size, **keras), *size)
    assert found.shape == picture.shape
    assert found.dtype == np.uint8
    assert (np.abs(found - expected)[clear] <= 1).mean() > 0.999


@pytest.mark.parametrize("fill", FILLS)
def test_a_whole_view_of_224_pixels_is_within_one_grey_level(fill):
    picture = photograph(224, 224)
    keras = {"theta": 33, "tx": 20, "ty": -31, "shear": 12, "zx": 1.3, "zy": 0.8}
    matrix = affine(224, 224, rotation=33, shift=(20, -31), shear=12, zoom=(1.3, 0.8))

    found = warp(picture, matrix, fill=fill)

    expected = keras_affine(picture, **keras, fill=fill, fill_value=0)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("fill", FILLS)
def test_no_change_leaves_every_pixel_as_it_was(fill):
    picture = photograph(37, 52)

    assert np.array_equal(warp(picture, affine(37, 52), fill=fill, fill_value=99), picture)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (2, 2)])
def test_pictures_of_a_few_pixels_keep_their_size(fill, height, width):
    picture = photograph(9, 9)[:height, :width]

    assert warp(picture, affine(height, width, rotation=30), fill=fill).shape == picture.shape


def test_a_quarter_turn_is_exact():
    picture = photograph(40, 40)

    assert np.array_equal(warp(picture, affine(40, 40, rotation=90)), np.rot90(picture, -1))


def test_mirrored_edges_are_repeated_as_scipy_reflects():
    row = np.repeat(np.array([[10, 20, 30, 40]], np.uint8)[..., None], 3, axis=2)

    assert warp(row, moved(0, -2), fill="reflect")[0, :, 0].tolist() == [20, 10, 10, 20]
    assert warp(row, moved(0, -2), fill="nearest")[0, :, 0].tolist() == [10, 10, 10, 20]
    assert warp(row, moved(0, -2), fill="constant", fill_value=7)[0, :, 0].tolist() == [
        7,
        7,
        10,
        20,
    ]


def test_a_picture_that_cannot_be_written_to_is_read_without_a_warning():
    picture = photograph(20, 20)
    before = picture.copy()
    picture.flags.writeable = False

    warp(picture, affine(20, 20, rotation=10))

    assert np.array_equal(picture, before)
