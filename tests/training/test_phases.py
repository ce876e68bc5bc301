"""Phases refuse what makes no sense, name what is trained, and say how the rate runs."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.backbones.network import Stage
from regraft.backbones.spec import BackboneSpec
from regraft.errors import UsageError
from regraft.training.phases import (
    Phase,
    choose_trained,
    fine_tune,
    from_scratch,
    frozen,
    rate_factor,
    two_stage,
)

STAGES = [
    Stage(name=name, modules=(name,), parameters=(f"{name}.weight", f"{name}.bias"))
    for name in ("stem", "low", "middle", "high")
]


def trained_stages(phase):
    trained = choose_trained(phase, STAGES)
    return [stage.name for stage in STAGES if trained.parameters >= set(stage.parameters)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("unfreeze", value) for value in (-0.1, 1.1, math.nan)),
        *(("unfreeze_last", value) for value in (-1, 1.5)),
        ("unfreeze_matching", "("),
        ("head", "first"),
        ("batchnorm", "train"),
        *(("epochs", value) for value in (-1, 2.5, True)),
        *(("steps", value) for value in (0, 1.5)),
        ("optimizer", "adamx"),
        *(("momentum", value) for value in (-0.1, 1.0)),
        *(("betas", value) for value in ((0.9,), (0.9, 1.0), (-0.1, 0.9))),
        *(("lr", value) for value in (0.0, -1.0, math.inf, math.nan)),
        *(("layer_decay", value) for value in (0.0, 1.1)),
        ("schedule", "linear"),
        *(("warmup", value) for value in (-0.1, 1.0)),
        *(("weight_decay", value) for value in (-0.1, math.inf, math.nan)),
        *(("patience", value) for value in (0, 1.5)),
        ("keep", "first"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(UsageError, match=f"phase: {name} is out of range"):
        Phase(**{name: value})


@pytest.mark.parametrize(
    "ways",
    [
        {"unfreeze": 0.5, "unfreeze_last": 0},
        {"unfreeze": 1.0, "unfreeze_from": "low"},
        {"unfreeze_from": "low", "unfreeze_matching": "bias"},
        {"unfreeze_last": 1, "unfreeze_matching": "bias"},
    ],
)
def test_what_to_train_is_named_once(ways):
    with pytest.raises(UsageError, match="named twice"):
        Phase(**ways)


@pytest.mark.parametrize(
    "phase",
    [
        Phase(),
        Phase(unfreeze_last=2, betas=(0.8, 0.99), patience=3),
        Phase(head="last", batchnorm="batch_statistics", keep="last"),
        *two_stage(),
    ],
)
def test_a_phase_survives_json(phase):
    written = phase.to_json()

    assert json.loads(json.dumps(written)) == written
    assert Phase(**written) == phase


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase(), []),
        (Phase(unfreeze=0.01), ["high"]),
        (Phase(unfreeze=0.5), ["middle", "high"]),
        (Phase(unfreeze=1), ["stem", "low", "middle", "high"]),
        (Phase(unfreeze_from="low"), ["low", "middle", "high"]),
        (Phase(unfreeze_last=0), []),
        (Phase(unfreeze_last=1), ["high"]),
        (Phase(unfreeze_last=4), ["stem", "low", "middle", "high"]),
        (Phase(unfreeze_matching=r"^(stem|middle)\."), ["stem", "middle"]),
    ],
)
def test_the_stages_that_a_phase_names_are_trained(phase, expected):
    trained = choose_trained(phase, STAGES)

    assert trained_stages(phase) == expected
    assert trained.stages == len(expected) / 4
    names = [stage.name for stage in STAGES]
    assert trained.first == (names.index(expected[0]) if expected else 4)


@given(st.floats(0, 1), st.integers(1, 40))
def test_a_share_is_rounded_to_the_nearest_stage_and_a_half_upwards(share, count):
    stages = [Stage(name=f"{i}", modules=(), parameters=(f"{i}.weight",)) for i in range(count)]

    trained = len(choose_trained(Phase(unfreeze=share), stages).parameters)

    nearest = share * count - 0.5 <= trained <= share * count + 0.5
    assert trained == (0 if share == 0 else 1) or nearest
    assert len(choose_trained(Phase(unfreeze=0.5), stages).parameters) == (count + 1) // 2


def test_a_pattern_may_name_single_parameters():
    trained = choose_trained(Phase(unfreeze_matching=r"bias$"), STAGES[1:])

    assert trained.parameters == {"low.bias", "middle.bias", "high.bias"}
    assert (trained.first, trained.stages) == (0, 1.0)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase(unfreeze_from="top"), "there is no stage 'top'.*stem, low"),
        (Phase(unfreeze_last=5), "there are 4"),
        (Phase(unfreeze_matching="gamma"), "no parameter of the trunk matches.*stem.weight"),
    ],
)
def test_what_is_not_there_cannot_be_trained(phase, message):
    with pytest.raises(UsageError, match=message):
        choose_trained(phase, STAGES)


def test_a_trunk_without_stages_trains_nothing():
    assert choose_trained(Phase(unfreeze=1.0), []) == choose_trained(Phase(), [])


def test_stages_of_a_real_network_are_chosen():
    backbone = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)).build()
    trunk = {n for n, _ in backbone.module.named_parameters() if not n.startswith("head.")}

    half = choose_trained(Phase(unfreeze=0.5), backbone.stages)
    upper = choose_trained(Phase(unfreeze_from="features.2"), backbone.stages)
    norms = choose_trained(Phase(unfreeze_matching=r"\.bn\d\."), backbone.stages)

    assert half == upper
    assert half.parameters == {n for n in trunk if n.startswith(("features.2.", "features.3."))}
    assert norms.parameters == {n for n in trunk if ".bn" in n}
    assert (norms.first, norms.stages) == (1, 0.75)
    assert choose_trained(Phase(unfreeze=1.0), backbone.stages).parameters == trunk


def test_strategies_are_lists_of_phases():
    assert [p.unfreeze for p in frozen(3)] == [0.0]
    assert [p.unfreeze for p in fine_tune(3)] == [1.0]
    assert [(p.unfreeze, p.lr) for p in two_stage(lr=1e-5)] == [(0.0, 1e-3), (0.5, 1e-5)]
    assert [(p.unfreeze, p.epochs) for p in from_scratch(60)] == [(1.0, 60)]


schedules = st.sampled_from(["constant", "cosine", "one_cycle", "plateau"])
warmups = st.floats(0, 1, exclude_max=True)


@given(schedules, warmups, st.integers(1, 5000), st.data())
def test_the_rate_is_multiplied_with_something_between_0_and_1(schedule, warmup, total, data):
    step = data.draw(st.integers(0, total - 1))

    assert 0 <= rate_factor(Phase(schedule=schedule, warmup=warmup), step, total) <= 1


@given(st.floats(0, 0.5), st.integers(100, 5000))
def test_a_cosine_ends_near_zero_and_only_falls_after_the_warmup(warmup, total):
    phase = Phase(schedule="cosine", warmup=warmup)
    factors = [rate_factor(phase, step, total) for step in range(total)]
    peak = factors.index(max(factors))

    assert factors[-1] < 0.01
    assert warmup * total - 1 <= peak <= warmup * total + 1
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@given(st.floats(0.05, 0.9), st.integers(100, 5000))
def test_the_rate_rises_from_near_zero_in_the_warmup(warmup, total):
    phase = Phase(schedule="cosine", warmup=warmup)
    rise = [rate_factor(phase, step, total) for step in range(int(warmup * total))]

    assert 0 < rise[0] < 1 / len(rise)
    assert all(before < after for before, after in pairwise(rise))


def test_one_cycle_rises_from_a_25th_and_falls_to_nothing():
    factors = [rate_factor(Phase(schedule="one_cycle"), step, 1000) for step in range(1000)]

    assert factors[0] == pytest.approx(0.04, abs=0.01)
    assert factors.index(max(factors)) == 300
    assert factors[-1] < 1e-4
