"""Regularizations as values, and what they make of heads, phases and batches."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft.backbones.network import average
from regraft.settings import to_json
from regraft.training.heads import HEADS
from regraft.training.phases import Phase, two_stage
from regraft.training.regularize import Regularization, cut_mix, find_regularization, mix_up
from samples import refused


@given(
    regularization=st.builds(
        Regularization,
        dropout=st.none() | st.floats(0, 1, exclude_max=True),
        weight_decay=st.none() | st.floats(0, 10),
        label_smoothing=st.floats(0, 1, exclude_max=True),
        mixing=st.sampled_from([None, "mixup", "cutmix"]),
        clip=st.none() | st.floats(0, 100, exclude_min=True),
    )
)
def test_a_regularization_survives_json_and_text(regularization):
    text = ",".join(f"{key}={value}" for key, value in to_json(regularization).items())

    assert Regularization(**json.loads(json.dumps(to_json(regularization)))) == regularization
    assert find_regularization(text) == regularization


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gets_the_dropout(name):
    head = Regularization(dropout=0.35).head(HEADS[name])
    module = head.build((8, 4, 4), 3, pool=average)
    shares = {layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)}

    assert shares == {0.35}


def test_what_is_not_named_stays_as_head_and_phases_have_it():
    nothing = Regularization()
    phases = [Phase(weight_decay=0.02)]

    assert nothing.head(HEADS["mlp_256"]) is HEADS["mlp_256"]
    assert nothing.phases(phases) == phases
    assert nothing.mix() is None
    assert [find_regularization(f"mixing={name}").mix() for name in ("mixup", "cutmix")] == [
        mix_up,
        cut_mix,
    ]


def test_a_head_without_a_dropout_is_refused_and_left_alone_where_none_is_asked_for():
    class Own:
        def build(self, shape, outputs, *, pool):
            return nn.Flatten()

    own = Own()

    assert Regularization(label_smoothing=0.1).head(own) is own
    assert "no dropout" in str(refused(Regularization(dropout=0.3).head, own))


def test_the_weight_decay_of_every_phase_is_replaced_and_nothing_else():
    phases = two_stage()

    changed = Regularization(weight_decay=0.05).phases(phases)

    assert [phase.weight_decay for phase in changed] == [0.05, 0.05]
    assert Regularization(weight_decay=0).phases(changed) == phases


@pytest.mark.parametrize("setting", ["dropout=1", "weight_decay=-1", "mixing=cutout", "clip=0"])
def test_a_value_out_of_range_is_refused_by_its_name(setting):
    error = refused(find_regularization, setting)

    assert f"{setting.partition('=')[0]} cannot be" in str(error)


N, SIZE, CLASSES = 6, 10, 6


def batch(dtype=torch.uint8):
    """Return images of one level each, and the classes that these levels stand for."""
    levels = torch.arange(N, dtype=dtype) * 40
    images = levels.view(N, 1, 1, 1).expand(N, SIZE, SIZE, 3)
    return images, torch.eye(CLASSES)


@given(
    mix=st.sampled_from([mix_up, cut_mix]),
    alpha=st.floats(0.05, 5),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
)
def test_targets_hold_the_shares_of_what_is_seen_and_sum_to_one(mix, alpha, seed, dtype):
    images, targets = batch(dtype)
    before = images.clone()

    mixed, soft = mix(images, targets, np.random.default_rng(seed), alpha=alpha)

    assert mixed.shape == images.shape
    assert torch.allclose(soft.sum(1), torch.ones(N), atol=1e-6)
    assert (soft >= 0).all()
    levels = torch.arange(CLASSES) * 40.0
    assert torch.allclose(mixed.float().mean((1, 2, 3)), soft @ levels, atol=1e-3)
    assert torch.equal(images, before)


def test_cutmix_pastes_one_rectangle_and_keeps_8_bits():
    images, targets = batch()

    mixed, _ = cut_mix(images, targets, np.random.default_rng(0), alpha=1.0)

    assert mixed.dtype == torch.uint8
    foreign = (mixed != images).any(3)
    shapes = [mask.nonzero() for mask in foreign if mask.any()]
    assert shapes
    for places in shapes:
        (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
        assert len(places) == (bottom - top + 1) * (right - left + 1)
