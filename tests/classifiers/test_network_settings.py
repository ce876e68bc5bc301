"""What a training says about itself afterwards."""

import pytest

from regraft.classifiers.network_settings import complaints

RECORD = {
    "phase": 1,
    "micro_batch": None,
    "stopped": None,
    "last_epoch": 3,
    "frozen": {"before": "ab", "after": "ab"},
    "trained": {"batchnorm": "frozen"},
    "share_of_stages": 0.5,
}
MOVING = {"trained": {"batchnorm": "batch_statistics"}}


def test_a_training_that_went_well_says_nothing():
    assert complaints([RECORD], batchnorm=True) == []


def test_more_steps_than_the_training_part_fills_are_told():
    record = {**RECORD, "trained": {"batchnorm": "frozen", "steps": 100}, "steps_per_epoch": 3}

    (complaint,) = complaints([record], batchnorm=True)

    assert complaint.startswith("phase 1: 100 steps per epoch were asked for")
    assert complaints([{**record, "steps_per_epoch": 100}], batchnorm=True) == []


def test_frozen_batch_norm_that_moves_with_each_batch_is_told_with_what_to_do():
    (complaint,) = complaints([RECORD, {**RECORD, **MOVING, "phase": 2}], batchnorm=True)

    assert complaint.startswith("phase 2: frozen batch norm moved")
    assert "leave batchnorm" in complaint


@pytest.mark.parametrize(("share", "batchnorm"), [(1.0, True), (0.5, False)])
def test_batch_norm_that_is_trained_or_not_there_cannot_move_frozen(share, batchnorm):
    record = {**RECORD, **MOVING, "share_of_stages": share}

    assert complaints([record], batchnorm=batchnorm) == []


def test_changed_checksums_of_frozen_tensors_are_told():
    record = {**RECORD, "frozen": {"before": "ab", "after": "cd"}}

    assert "frozen tensors have changed" in complaints([record], batchnorm=True)[0]
