"""The policies against torchvision's operations, and their randomness."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from regraft.training import policies
from regraft.training.augment import OPERATIONS, operate, rand_augment, trivial_augment

SIZE = (80, 96)


def picture(seed=0, size=SIZE):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def reference(shown, name, amount):
    """Return torchvision's operation on a Pillow picture, with bilinear sampling."""
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
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_torchvision_does(name):
    shown = picture()
    for amount in AMOUNTS.get(name, (0.0,)):
        difference = np.abs(operate(shown, name, amount) - reference(shown, name, amount))

        # Where black fills begin, a row of pixels is rounded to either side.
        assert (difference <= 1).mean() > (0.97 if name in policies._GEOMETRIC else 0.9999)


@pytest.mark.parametrize("level", [255.0, 100.0, 0.0, 153.5])
def test_solarize_inverts_from_its_level_on(level):
    shown = picture()

    found = operate(shown, "Solarize", level)

    assert np.array_equal(found, np.where(shown >= level, 255 - shown, shown))


@pytest.mark.parametrize(
    ("space", "published"),
    [(policies._TRIVIAL, v2.TrivialAugmentWide), (policies._RAND, v2.RandAugment)],
)
def test_the_strengths_are_the_published_ones(space, published):
    theirs = published._AUGMENTATION_SPACE
    assert set(theirs) == set(OPERATIONS)
    for name, (low, high) in space.items():
        levels, signed = theirs[name]
        scale = 255.0 if name == "Solarize" else 1.0
        expected = levels(policies.BINS, 1, 1).double() * scale
        ours = torch.linspace(low, high, policies.BINS, dtype=torch.float64)

        assert torch.allclose(ours.round() if name == "Posterize" else ours, expected, atol=1e-4)
        assert signed == (name not in policies._UNSIGNED)


@pytest.fixture
def operated(monkeypatch):
    """Return the list of operations and amounts that a policy asks for from now on."""
    seen = []

    def record(shown, name, amount, **_border):
        seen.append((name, amount))
        return shown

    monkeypatch.setattr(policies, "operate", record)
    return seen


def test_trivial_augment_draws_every_operation_equally_often_and_both_signs(operated):
    random = np.random.default_rng(0)
    for _ in range(2800):
        trivial_augment(picture(), random, fill="nearest", fill_value=0)

    names = [name for name, _ in operated]
    turns = np.array([amount for name, amount in operated if name == "Rotate"])
    assert all(140 < names.count(name) < 260 for name in OPERATIONS)
    assert 0.35 < (turns < 0).mean() < 0.65
    assert np.abs(turns).max() <= 135
    assert len(set(np.abs(turns).round(6))) > 25  # of 31 strengths


def test_rand_augment_applies_so_many_operations_of_one_strength(operated):
    random = np.random.default_rng(0)
    for _ in range(300):
        rand_augment(picture(), random, num_ops=3, magnitude=15, fill="nearest", fill_value=0)

    strengths = {name: abs(amount) for name, amount in operated}
    assert len(operated) == 900
    assert set(strengths) == set(OPERATIONS)
    assert strengths["Rotate"] == 15
    assert strengths["TranslateX"] == pytest.approx(75 / 331 * SIZE[1])
    assert strengths["TranslateY"] == pytest.approx(75 / 331 * SIZE[0])


def test_threads_do_not_change_what_a_generator_draws():
    def view(seed):
        return trivial_augment(
            picture(seed), np.random.default_rng(seed), fill="reflect", fill_value=0
        )

    alone = [view(seed) for seed in range(60)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(view, range(60)))

    assert all(map(np.array_equal, alone, together))


def test_the_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(3)
    before = torch.get_rng_state()

    for seed in range(30):
        trivial_augment(picture(), np.random.default_rng(seed), fill="nearest", fill_value=0)

    assert torch.equal(torch.get_rng_state(), before)
