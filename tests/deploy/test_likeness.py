"""What is kept of training images tells what is unlike them, and damage is found."""

import numpy as np
import pytest

from regraft.deploy.likeness import TRAINING, Likeness, likeness_of, read_training, write_training
from regraft.errors import ModelError, UsageError
from regraft.explain.neighbours import TrainingFeatures, unit_rows

CLASSES = ("a", "b")


@pytest.fixture
def training():
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    return TrainingFeatures(
        unit_rows(rows).astype(np.float16), tuple(map(str, range(20))), ("a", "b") * 10
    )


def likeness(training, held):
    return likeness_of(training, CLASSES, held=held, tested=None, seen=False)


def test_of_known_images_the_promised_share_is_beyond_the_limit(training):
    held = np.random.default_rng(1).normal(size=(99, 8)).astype(np.float32)
    kept = likeness(training, held)

    assert sum(distance > kept.limit(0.1) for distance in kept.held) == 9


def test_too_few_validation_images_cannot_tell_unlike_ones(training):
    held = np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32)

    with pytest.raises(UsageError, match="it takes 19 validation images, there are 9"):
        likeness(training, held).limit(0.05)
    with pytest.raises(UsageError, match="between 0 and 1"):
        likeness(training, held).limit(0)
    with pytest.raises(UsageError, match="there are 0"):
        likeness(training, None).limit(0.5)


def test_features_are_read_as_they_were_written_and_are_called_by_number(training, tmp_path):
    write_training(training, tmp_path)

    found = read_training(tmp_path, likeness(training, None), CLASSES)

    assert np.array_equal(found.rows, training.rows)
    assert (found.paths[3], found.labels[:2]) == ("3", ("a", "b"))


@pytest.mark.parametrize("damage", [b"", b"nonsense", "other"])
def test_damaged_features_are_no_model(damage, training, tmp_path):
    write_training(training, tmp_path)
    kept = likeness(training, None)
    if damage == "other":
        kept = Likeness(labels=(0, 1))
    else:
        (tmp_path / TRAINING).write_bytes(damage)

    with pytest.raises(ModelError, match="features of the training images") as error:
        read_training(tmp_path, kept, CLASSES)
    assert error.value.code == "MODEL-CORRUPT"
