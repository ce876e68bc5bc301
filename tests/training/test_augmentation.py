"""Augmentations as values, and what they do to a picture."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.errors import UsageError
from regraft.training import augmentation as module
from regraft.training.augment import (
    AUGMENTATIONS,
    FILLS,
    Augmentation,
    affine,
    find_augmentation,
    warp,
)
from regraft.training.batches import AugmentedPictures, Pictures


def picture(size=48, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def view(augmentation, seed=0, shown=None):
    return augmentation(picture() if shown is None else shown, np.random.default_rng(seed))


EVERYTHING = Augmentation(
    rotation=40,
    shift_x=0.2,
    shift_y=0.1,
    shear=10,
    zoom=0.3,
    flip=True,
    vertical_flip=True,
    fill="constant",
    fill_value=40,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    policy="randaugment",
    erasing=1.0,
)

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
    fill_value=st.floats(0, 255),
    brightness=share,
    contrast=share,
    saturation=share,
    policy=st.sampled_from([None, "trivial", "randaugment"]),
    num_ops=st.integers(1, 3),
    magnitude=st.integers(0, 30),
    erasing=share,
)


@given(augmentation=augmentations, seed=st.integers(0, 2**32), side=st.sampled_from([1, 5, 24]))
@settings(max_examples=100)
def test_every_view_has_the_size_of_the_picture_and_is_repeatable(augmentation, seed, side):
    shown = picture(side)
    before = shown.copy()

    once, again = view(augmentation, seed, shown), view(augmentation, seed, shown)

    assert once.shape == shown.shape
    assert once.dtype == np.uint8
    assert once.flags.c_contiguous
    assert np.array_equal(once, again)
    assert np.array_equal(shown, before)


@given(augmentation=augmentations)
def test_an_augmentation_survives_json_and_text(augmentation):
    text = ",".join(f"{key}={value}" for key, value in augmentation.to_json().items())

    assert Augmentation(**json.loads(json.dumps(augmentation.to_json()))) == augmentation
    assert find_augmentation(text) == augmentation


def test_no_setting_leaves_the_picture_as_it_is():
    assert np.array_equal(view(Augmentation()), picture())


@pytest.mark.parametrize("augmentation", [EVERYTHING, *AUGMENTATIONS.values()])
def test_different_numbers_give_different_views(augmentation):
    views = {view(augmentation, seed).tobytes() for seed in range(12)}

    assert len(views) > 6


@pytest.mark.parametrize("augmentation", [EVERYTHING, AUGMENTATIONS["trivial"]])
def test_views_are_the_same_in_threads_and_after_other_random_numbers(augmentation):
    alone = [view(augmentation, seed) for seed in range(40)]
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: view(augmentation, seed), range(40)))

    assert all(map(np.array_equal, alone, together))


def test_a_flip_exchanges_left_and_right_half_of_the_time():
    shown = picture()
    views = [view(Augmentation(flip=True), seed) for seed in range(200)]
    flipped = sum(np.array_equal(one, shown[:, ::-1]) for one in views)

    assert 70 < flipped < 130
    assert sum(np.array_equal(one, shown) for one in views) == 200 - flipped


def test_a_vertical_flip_exchanges_top_and_bottom():
    shown = picture()
    views = {view(Augmentation(vertical_flip=True), seed).tobytes() for seed in range(30)}

    assert views == {shown.tobytes(), shown[::-1].tobytes()}


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
        view(augmentation, seed, picture(8))

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


def test_one_affine_map_does_all_the_geometry(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "warp", lambda *a, **k: calls.append(1) or warp(*a, **k))

    view(AUGMENTATIONS["rotation50_shift20_zoom30"])

    assert calls == [1]


def test_changing_one_setting_leaves_the_others_as_they_were(drawn):
    view(Augmentation(rotation=30, zoom=0.2))
    view(Augmentation(rotation=30, zoom=0.2, shift_x=0.1, flip=True, policy="trivial"))

    assert drawn[0]["rotation"] == drawn[1]["rotation"]
    assert drawn[0]["zoom"] == drawn[1]["zoom"]


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colours_vary_around_the_picture_as_it_is(name):
    shown = picture().astype(float)
    grey = shown.mean(2, keepdims=True)
    strength = {
        "brightness": lambda p: p.mean(),
        "contrast": lambda p: p.std(),
        "saturation": lambda p: np.abs(p - p.mean(2, keepdims=True)).mean(),
    }[name]
    views = [strength(view(Augmentation(**{name: 0.4}), seed).astype(float)) for seed in range(60)]
    plain = strength(shown)

    assert np.abs(shown - grey).mean() > 10  # else the saturation would be nothing to measure
    assert min(views) < 0.8 * plain
    assert max(views) > 1.1 * plain


def test_erasing_makes_noise_of_one_rectangle_with_its_probability():
    black = np.zeros((60, 60, 3), np.uint8)
    erased = [view(Augmentation(erasing=0.3), seed, black).any(2) for seed in range(400)]
    hit = [mask for mask in erased if mask.any()]

    assert 80 < len(hit) < 160
    for mask in hit:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        rectangle = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert rectangle.all()
        assert 0.01 < mask.mean() < 0.43


def test_what_lies_outside_is_filled_as_asked_for_the_policy_too():
    white = np.full((32, 32, 3), 255, np.uint8)
    turned = Augmentation(rotation=45, fill="constant", fill_value=9)
    views = [view(Augmentation(policy="trivial", fill="nearest"), s, white) for s in range(60)]
    black = [view(Augmentation(policy="trivial", fill="constant"), s, white) for s in range(60)]

    assert (view(turned, 1, white) == 9).any()
    different = [not np.array_equal(a, b) for a, b in zip(views, black, strict=True)]
    assert 10 < sum(different) < 40  # 5 of 14 operations are geometric


def test_the_names_hold_what_the_teaching_material_used():
    published = {
        "rotation30_zoom30_reflect": "rotation=30,zoom=0.3,flip=true,fill=reflect",
        "zoom30": "zoom=0.3,flip=true",
        "rotation50_shift20_zoom30": "rotation=50,shift_x=.2,shift_y=.2,shear=.2,zoom=.3,flip=true",
        "rotation30_shift10_zoom20": "rotation=30,shift_x=.1,shift_y=.1,shear=.2,zoom=.2,flip=true",
        "rotation30_shift20_zoom20": "rotation=30,shift_x=.2,shift_y=.2,shear=.2,zoom=.2,flip=true",
        "rotation20_shift7": "rotation=20,shift_x=.07,shift_y=.07,flip=true",
    }
    for name, text in published.items():
        assert AUGMENTATIONS[name] == find_augmentation(text.replace("=.", "=0."))
    assert {"standard", "trivial", "randaugment"} | set(published) == set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rotation": 181}, "0 to 180"),
        ({"rotation": -5}, "0 to 180"),
        ({"shear": 90}, "below 90"),
        ({"zoom": 1.0}, "below 1"),
        ({"shift_x": 20}, "a share, 0 to 1"),
        ({"flip": 0.5}, "false, true"),
        ({"fill": "wrap"}, "nearest, reflect, constant"),
        ({"fill_value": 256}, "0 to 255"),
        ({"policy": "autoaugment"}, "trivial, randaugment"),
        ({"num_ops": 0}, "1 to 14"),
        ({"magnitude": 31}, "0 to 30"),
        ({"erasing": float("nan")}, "a probability"),
        ({"brightness": "much"}, "a share"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(settings, said):
    with pytest.raises(UsageError, match=next(iter(settings))) as refused:
        Augmentation(**settings)

    assert said in str(refused.value)


def test_an_augmentation_fits_into_the_batches():
    pictures = Pictures([picture(16, seed) for seed in range(3)], np.asarray, size=16)
    augmented = AugmentedPictures(pictures, AUGMENTATIONS["standard"], seed=0, views=2)
    samples = np.arange(3)

    first, second, third = (augmented.take(samples, epoch) for epoch in range(3))

    assert first.shape == (3, 16, 16, 3)
    assert not first.equal(second)
    assert first.equal(third)
