"""MixUp and CutMix: targets say what the pictures show."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import UsageError
from regraft.training.regularize import CutMix, MixUp

N, SIZE, CLASSES = 6, 10, 6


def batch(dtype=torch.uint8):
    """Return pictures of one level each, and the classes that these levels stand for."""
    levels = torch.arange(N, dtype=dtype) * 40
    pictures = levels.view(N, 1, 1, 1).expand(N, SIZE, SIZE, 3)
    return pictures, torch.eye(CLASSES)


@given(
    mix=st.sampled_from([MixUp, CutMix]),
    alpha=st.floats(0.05, 5),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
)
def test_targets_hold_the_shares_of_what_is_seen_and_sum_to_one(mix, alpha, seed, dtype):
    pictures, targets = batch(dtype)
    before = pictures.clone()

    mixed, soft = mix(alpha)(pictures, targets, np.random.default_rng(seed))

    assert mixed.shape == pictures.shape
    assert torch.allclose(soft.sum(1), torch.ones(N), atol=1e-6)
    assert (soft >= 0).all()
    levels = torch.arange(CLASSES) * 40.0
    assert torch.allclose(mixed.float().mean((1, 2, 3)), soft @ levels, atol=1e-3)
    assert torch.equal(pictures, before)


def test_mixup_blends_in_floats_between_0_and_255():
    pictures, targets = batch()

    mixed, _ = MixUp(1.0)(pictures, targets, np.random.default_rng(4))

    assert mixed.dtype == torch.float32
    assert mixed.min() >= 0
    assert mixed.max() <= 255
    assert (mixed % 1).any()


def test_cutmix_pastes_one_rectangle_and_keeps_8_bits():
    pictures, targets = batch()

    mixed, _ = CutMix()(pictures, targets, np.random.default_rng(0))

    assert mixed.dtype == torch.uint8
    foreign = (mixed != pictures).any(3)
    shapes = [mask.nonzero() for mask in foreign if mask.any()]
    assert shapes
    for places in shapes:
        (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
        assert len(places) == (bottom - top + 1) * (right - left + 1)


@pytest.mark.parametrize("mix", [MixUp(0.4), CutMix(0.4)])
def test_the_share_is_drawn_from_the_beta_distribution_named(mix):
    pictures = torch.zeros(2, 64, 64, 3)
    targets = torch.eye(2)
    shares = []
    for seed in range(600):
        _, soft = mix(pictures, targets, np.random.default_rng(seed))
        shares.append(float(soft[0].max()))

    # The larger share of a Beta(0.4, 0.4), where the partner is another picture (half the time).
    drawn = np.random.default_rng(0).beta(0.4, 0.4, 20_000)
    if isinstance(mix, MixUp):
        expected = (1 + np.maximum(drawn, 1 - drawn).mean()) / 2
        assert np.mean(shares) == pytest.approx(expected, abs=0.02)
    assert 0.4 < np.mean(np.array(shares) == 1) < 0.75


@pytest.mark.parametrize("mix", [MixUp(), CutMix()])
def test_everything_random_comes_from_the_generator(mix):
    pictures, targets = batch()
    torch.manual_seed(0)
    state = torch.get_rng_state()

    first = mix(pictures, targets, np.random.default_rng(5))
    again = mix(pictures, targets, np.random.default_rng(5))
    other = mix(pictures, targets, np.random.default_rng(6))

    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0].float(), other[0].float())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mix", [MixUp, CutMix])
@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf")])
def test_an_alpha_that_no_beta_distribution_has_is_refused(mix, alpha):
    with pytest.raises(UsageError, match="above 0"):
        mix(alpha)
