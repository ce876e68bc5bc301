"""Trees as arrays."""

import dataclasses

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from regraft.classifiers import trees


@pytest.fixture
def forest():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 3)).astype(np.float32)
    fitted = DecisionTreeClassifier(random_state=0).fit(features, np.arange(60) % 3)
    return trees.from_scikit([fitted.tree_, fitted.tree_], shares=True)


def test_every_row_of_the_training_data_ends_in_a_leaf_of_its_own_class(forest):
    features = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)

    leaves = forest.leaves(features)

    assert leaves.shape == (60, 2)
    assert np.array_equal(forest.values[leaves[:, 0]].argmax(axis=1), np.arange(60) % 3)


def test_blocks_give_the_same_leaves_as_one_piece(forest, monkeypatch):
    features = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    whole = forest.leaves(features)

    monkeypatch.setattr(trees, "_CELLS", 40)
    parts = [leaves for _, leaves in forest.blocks(features)]

    assert len(parts) > 1
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("roots", 10_000, "root"),
        ("roots", -1, "root"),
        ("feature", 3, "feature"),
        ("left", 0, "backwards"),
        ("right", 10_000, "outside"),
    ],
)
def test_an_index_that_would_loop_or_leave_the_arrays_is_found(forest, name, value, why):
    changed = getattr(forest, name).copy()
    changed[0] = value

    problem = dataclasses.replace(forest, **{name: changed}).problem(3)

    assert why in problem
    assert forest.problem(3) == ""


def test_a_leaf_that_points_outside_the_values_is_found(forest):
    left = np.where(forest.feature < 0, len(forest.values), forest.left)

    problem = dataclasses.replace(forest, left=left).problem(3)

    assert "leaf" in problem
