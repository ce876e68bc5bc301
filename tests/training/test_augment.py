"""Augmentations as values, and what they do to an image: against Keras' map and torchvision."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torchvision.transforms import InterpolationMode, v2

from regraft.backbones.spec import Preprocessing
from regraft.settings import to_json
from regraft.training import augment as module
from regraft.training.augment import (
    BINS,
    OPERATIONS,
    STRENGTHS,
    Augmentation,
    Fill,
    affine,
    find_augmentation,
    moved,
    operate,
    warp,
)
from samples import photograph, refused

FILLS = get_args(Fill)
GEOMETRIC = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}


def image(height=48, width=None):
    return np.array(photograph(size=(width or height, height)))


def view(augmentation, seed=0, shown=None):
    return augmentation(image() if shown is None else shown, np.random.default_rng(seed))


share = st.floats(0, 1)
augmentations = st.builds(
    Augmentation,
    rotation=st.floats(0, 180),
    shift_x=share,
    shift_y=share,
    shear=st.floats(0, 80),
    zoom=st.floats(0, 0.9),
    flip=st.booleans(),
    vertical_flip=st.booleans(),
    fill=st.sampled_from(FILLS),
    brightness=share,
    policy=st.sampled_from([None, "trivial"]),
)


@given(augmentation=augmentations, seed=st.integers(0, 2**32), side=st.sampled_from([1, 5, 24]))
@example(augmentation=Augmentation(vertical_flip=True, policy="trivial"), seed=1, side=1)
@settings(max_examples=100)
def test_every_view_has_the_size_of_the_image_and_is_repeatable(augmentation, seed, side):
    shown = image(side)
    before = shown.copy()

    once, again = view(augmentation, seed, shown), view(augmentation, seed, shown)

    assert once.shape == shown.shape
    assert once.dtype == np.uint8
    assert once.flags.c_contiguous
    assert np.array_equal(once, again)
    assert np.array_equal(shown, before)


@given(augmentation=augmentations)
def test_an_augmentation_survives_json_and_text(augmentation):
    text = ",".join(f"{key}={value}" for key, value in to_json(augmentation).items())

    assert Augmentation(**json.loads(json.dumps(to_json(augmentation)))) == augmentation
    assert find_augmentation(text) == augmentation


@pytest.mark.parametrize(("setting", "axis"), [("flip", 1), ("vertical_flip", 0)])
def test_a_flip_exchanges_the_sides_half_of_the_time(setting, axis):
    shown = image()
    views = [view(Augmentation(**{setting: True}), seed) for seed in range(200)]
    flipped = sum(np.array_equal(one, np.flip(shown, axis)) for one in views)

    assert 70 < flipped < 130
    assert sum(np.array_equal(one, shown) for one in views) == 200 - flipped


@pytest.fixture
def drawn(monkeypatch):
    """Return the list of what the geometry is asked for from now on."""
    seen = []

    def record(height, width, **arguments):
        seen.append(arguments)
        return affine(height, width, **arguments)

    monkeypatch.setattr(module, "affine", record)
    return seen


def test_the_geometry_is_drawn_evenly_from_its_ranges_and_each_number_apart(drawn):
    augmentation = Augmentation(rotation=30, shift_x=0.25, shift_y=0.5, shear=8, zoom=0.4)
    for seed in range(400):
        view(augmentation, seed, image(8))

    columns = {
        "rotation": ([d["rotation"] for d in drawn], -30, 30),
        "down": ([d["shift"][0] for d in drawn], -4, 4),
        "right": ([d["shift"][1] for d in drawn], -2, 2),
        "shear": ([d["shear"] for d in drawn], -8, 8),
        "rows": ([d["zoom"][0] for d in drawn], 0.6, 1.4),
        "columns": ([d["zoom"][1] for d in drawn], 0.6, 1.4),
    }
    for values, low, high in columns.values():
        quarters, _ = np.histogram(values, bins=4, range=(low, high))
        assert quarters.sum() == 400
        assert quarters.min() > 60
    between = np.corrcoef([values for values, _, _ in columns.values()]) - np.eye(6)
    assert np.abs(between).max() < 0.25


def test_brightness_varies_around_the_image_as_it_is():
    shown = image()
    means = [view(Augmentation(brightness=0.4), seed).mean() for seed in range(60)]

    assert min(means) < 0.7 * shown.mean()
    assert max(means) > 1.2 * shown.mean()


def test_a_crop_is_a_square_at_a_random_place_before_everything_else():
    shown = image(12)
    crop = Augmentation(crop=12)
    views = [crop(shown, np.random.default_rng(seed), 9) for seed in range(200)]

    inside = np.lib.stride_tricks.sliding_window_view(shown, (9, 9, 3))[:, :, 0]
    places = {window.tobytes() for row in inside for window in row}
    assert {one.tobytes() for one in views} == places  # all 4 x 4 of them
    flipped = Augmentation(crop=12, flip=True)(shown, np.random.default_rng(3), 9)
    assert flipped.tobytes() in places | {w[:, ::-1].tobytes() for r in inside for w in r}


@pytest.mark.parametrize(("resize", "expected"), [(224, 256), (300, 300)])
def test_images_to_crop_from_are_prepared_larger(resize, expected):
    network = Preprocessing.torch(224, resize=resize)

    before = Augmentation(crop=256).before(network)

    assert (before.size, before.resize) == (256, expected)
    assert Augmentation(flip=True).before(network) == network
    error = refused(Augmentation(crop=200).before, network)
    assert "crop cannot be 200 - the network takes 224 pixels" in str(error)


def test_what_lies_outside_is_filled_as_asked_for_the_policy_too():
    white = np.full((32, 32, 3), 255, np.uint8)
    turned = Augmentation(rotation=45, fill="constant")
    views = [view(Augmentation(policy="trivial", fill="nearest"), s, white) for s in range(60)]
    black = [view(Augmentation(policy="trivial", fill="constant"), s, white) for s in range(60)]

    assert (view(turned, 1, white) == 0).any()
    different = [not np.array_equal(a, b) for a, b in zip(views, black, strict=True)]
    assert 10 < sum(different) < 40  # 5 of 14 operations are geometric


@pytest.mark.parametrize(
    "setting",
    ["crop=0", "rotation=181", "rotation=-5", "shear=90", "zoom=1", "shift_x=20", "policy=auto"],
)
def test_a_value_out_of_range_is_refused_by_its_name(setting):
    error = refused(find_augmentation, setting)

    assert f"{setting.partition('=')[0]} cannot be" in str(error)


def keras_matrix(size, rotation, shift, shear, zoom):
    """Return the matrix of Keras' apply_affine_transform; rows are its x."""
    turn, slant = np.deg2rad(rotation), np.deg2rad(shear)
    turned = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    moved = [[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]]
    sheared = [[1, -np.sin(slant), 0], [0, np.cos(slant), 0], [0, 0, 1]]
    x, y = size[0] / 2 - 0.5, size[1] / 2 - 0.5
    there, back = ([[1, 0, s * x], [0, 1, s * y], [0, 0, 1]] for s in (1, -1))
    return np.linalg.multi_dot([there, turned, moved, sheared, np.diag([*zoom, 1]), back])


def keras_affine(shown, matrix, fill):
    """Return what Keras' apply_affine_transform gives, in floats."""
    channels = [
        ndimage.affine_transform(one, matrix[:2, :2], matrix[:2, 2], order=1, mode=fill)
        for one in shown.astype(np.float32).transpose(2, 0, 1)
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
)
@settings(max_examples=150)
def test_the_image_is_the_one_that_keras_gives(size, rotation, shift, shear, zoom, fill):
    shown = image(*size)
    pixels = (shift[0] * size[0], shift[1] * size[1])
    own = affine(*size, rotation=rotation, shift=pixels, shear=shear, zoom=zoom)

    found = warp(shown, own, fill=fill)

    matrix = keras_matrix(size, rotation, pixels, shear, zoom)
    expected = keras_affine(shown, matrix, fill)
    clear = clear_of_edges(matrix, *size)
    assert found.shape == shown.shape
    assert found.dtype == np.uint8
    assert (np.abs(found - expected)[clear] <= 1).mean() > 0.999


def test_mirrored_edges_are_repeated_as_scipy_reflects():
    row = np.repeat(np.array([[10, 20, 30, 40]], np.uint8)[..., None], 3, axis=2)

    shifted = {fill: warp(row, moved(0, -2), fill=fill)[0, :, 0].tolist() for fill in FILLS}

    assert shifted["reflect"] == [20, 10, 10, 20]
    assert shifted["nearest"] == [10, 10, 10, 20]
    assert shifted["constant"] == [0, 0, 10, 20]


def reference(shown, name, amount):
    """Return torchvision's operation on a Pillow image, with bilinear sampling."""
    published = v2.TrivialAugmentWide()
    image = published._apply_image_or_video_transform(
        Image.fromarray(shown), name, amount, InterpolationMode.BILINEAR, {Image.Image: None}
    )
    return np.asarray(image).astype(int)


AMOUNTS = {
    **dict.fromkeys(("ShearX", "ShearY"), (0.3, -0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (7.0, -32.0)),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (0.6, -0.9)),
    "Rotate": (40.0, -135.0),
    "Posterize": (2.0, 5.0),
    "Solarize": (100.0, 0.0, 255.0),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_torchvision_does(name):
    shown = image(80, 96)
    for amount in AMOUNTS.get(name, (0.0,)):
        theirs = reference(shown, name, amount / 255 if name == "Solarize" else amount)
        difference = np.abs(operate(shown, name, amount) - theirs)

        # Where black fills begin, a row of pixels is rounded to either side.
        assert (difference <= 1).mean() > (0.97 if name in GEOMETRIC else 0.9999)


def test_the_strengths_are_the_published_ones():
    theirs = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    assert set(theirs) == set(OPERATIONS)
    for name, strengths in STRENGTHS.items():
        levels, signed = theirs[name]
        scale = 255.0 if name == "Solarize" else 1.0
        expected = levels(BINS, 1, 1).double() * scale
        ours = torch.linspace(*strengths, BINS, dtype=torch.float64)

        assert torch.allclose(ours.round() if name == "Posterize" else ours, expected, atol=1e-4)
        assert signed == (name not in {"Posterize", "Solarize"})


def test_trivial_augment_draws_every_operation_equally_often_and_both_signs(monkeypatch):
    operated, random, shown = [], np.random.default_rng(0), image(80, 96)

    def record(shown, name, amount, **_border):
        operated.append((name, amount))
        return shown

    monkeypatch.setattr(module, "operate", record)
    for _ in range(2800):
        Augmentation(policy="trivial")(shown, random)

    names = [name for name, _ in operated]
    turns = np.array([amount for name, amount in operated if name == "Rotate"])
    assert all(140 < names.count(name) < 260 for name in OPERATIONS)
    assert 0.35 < (turns < 0).mean() < 0.65
    assert np.abs(turns).max() <= 135
    assert len(set(np.abs(turns).round(6))) > 25  # of 31 strengths
