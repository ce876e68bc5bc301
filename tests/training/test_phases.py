"""Phases refuse what makes no sense; strategies are lists of them."""

import json
import math
import re
from itertools import combinations

import pytest

from regraft.settings import to_json
from regraft.training.phases import Phase, fine_tune, from_scratch, frozen, two_stage
from samples import refused

OUT_OF_RANGE = {
    "unfreeze": (-0.1, 1.1, math.nan),
    "unfreeze_last": (-1, 1.5),
    "unfreeze_matching": ("(",),
    "batchnorm": ("train",),
    "epochs": (-1, 2.5, True),
    "steps": (0, 1.5),
    "optimizer": ("adamx",),
    "momentum": (-0.1, 1.0),
    "betas": ((0.9,), (0.9, 1.0), (-0.1, 0.9)),
    "lr": (0.0, -1.0, math.inf, math.nan),
    "schedule": ("linear",),
    "warmup": (-0.1, 1.0),
    "weight_decay": (-0.1, math.inf, math.nan),
    "patience": (0, 1.5),
    "watch": ("loss",),
    "keep": ("first",),
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, many in OUT_OF_RANGE.items() for v in many]
)
def test_a_value_out_of_range_is_refused_by_its_name(name, value):
    assert re.search(f"{name} (cannot be|is missing)", str(refused(Phase, **{name: value})))


WAYS = {"unfreeze": 0.5, "unfreeze_last": 0, "unfreeze_from": "low", "unfreeze_matching": "bias"}


@pytest.mark.parametrize("ways", list(combinations(WAYS, 2)), ids="-".join)
def test_what_to_train_is_named_once(ways):
    assert "named twice" in str(refused(Phase, **{way: WAYS[way] for way in ways}))


@pytest.mark.parametrize(
    "phase",
    [
        Phase(),
        Phase(unfreeze_last=2, betas=(0.8, 0.99), patience=3),
        Phase(watch="val_loss", batchnorm="batch_statistics", keep="last"),
        *two_stage(),
    ],
)
def test_a_phase_survives_json(phase):
    written = to_json(phase)

    assert json.loads(json.dumps(written)) == written
    assert Phase(**written) == phase


def test_strategies_are_lists_of_phases():
    assert [p.unfreeze for p in frozen(3)] == [0.0]
    assert [p.unfreeze for p in fine_tune(3)] == [1.0]
    assert [(p.unfreeze, p.lr) for p in two_stage(lr=1e-5)] == [(0.0, 1e-3), (0.5, 1e-5)]
    assert [(p.unfreeze, p.epochs) for p in from_scratch(60)] == [(1.0, 60)]
