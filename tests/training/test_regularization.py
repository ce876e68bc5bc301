"""Regularizations as values, and what they make of heads, phases and batches."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft.backbones.network import average
from regraft.errors import UsageError
from regraft.training.heads import HEADS
from regraft.training.phases import Phase, two_stage
from regraft.training.regularize import (
    REGULARIZATIONS,
    CutMix,
    MixUp,
    Regularization,
    find_regularization,
)

between = st.floats(0, 1, exclude_min=True, exclude_max=True)


@given(
    regularization=st.builds(
        Regularization,
        dropout=st.none() | st.floats(0, 1, exclude_max=True),
        weight_decay=st.none() | st.floats(0, 10),
        label_smoothing=st.floats(0, 1, exclude_max=True),
        mixing=st.sampled_from([None, "mixup", "cutmix"]),
        mixing_alpha=st.none() | between,
        average=st.none() | between,
        clip=st.none() | st.floats(0, 100, exclude_min=True),
    )
)
def test_a_regularization_survives_json_and_text(regularization):
    text = ",".join(f"{key}={value}" for key, value in regularization.to_json().items())

    assert Regularization(**json.loads(json.dumps(regularization.to_json()))) == regularization
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


def test_a_dropout_of_0_takes_it_away():
    assert Regularization(dropout=0).head(HEADS["mlp_256"]).dropout == 0


def test_a_head_without_a_dropout_is_refused_and_left_alone_where_none_is_asked_for():
    class Own:
        def build(self, shape, outputs, *, pool):
            return nn.Flatten()

    own = Own()

    assert Regularization(label_smoothing=0.1).head(own) is own
    with pytest.raises(UsageError, match="no dropout"):
        Regularization(dropout=0.3).head(own)


def test_the_weight_decay_of_every_phase_is_replaced_and_nothing_else():
    phases = two_stage()

    changed = Regularization(weight_decay=0.05).phases(phases)

    assert [phase.weight_decay for phase in changed] == [0.05, 0.05]
    assert Regularization(weight_decay=0).phases(changed) == phases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mixing=mixup", MixUp(0.2)),
        ("mixing=cutmix", CutMix(1.0)),
        ("mixing=mixup,mixing_alpha=0.7", MixUp(0.7)),
        ("mixing=cutmix,mixing_alpha=0.7", CutMix(0.7)),
    ],
)
def test_mixing_has_the_alpha_of_its_paper_unless_one_is_given(text, expected):
    assert find_regularization(text).mix() == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dropout": 1.0}, "below 1"),
        ({"weight_decay": -1e-4}, "0 or more"),
        ({"weight_decay": float("inf")}, "0 or more"),
        ({"label_smoothing": 1}, "below 1"),
        ({"label_smoothing": None}, "below 1"),
        ({"mixing": "cutout"}, "none, mixup, cutmix"),
        ({"mixing_alpha": 0}, "above 0"),
        ({"average": 1}, "above 0 to below 1"),
        ({"average": 0}, "above 0 to below 1"),
        ({"clip": 0}, "above 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(settings, said):
    with pytest.raises(UsageError, match=next(iter(settings))) as refused:
        Regularization(**settings)

    assert said in str(refused.value)


def test_the_names_are_those_of_the_teaching_material_and_a_standard():
    assert REGULARIZATIONS["dropout"] == Regularization(dropout=0.3)
    assert find_regularization("standard,dropout=0.5").label_smoothing == 0.1
    with pytest.raises(UsageError, match="did you mean 'standard'"):
        find_regularization("standart")
