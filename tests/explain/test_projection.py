"""Places on a plane: within a square, groups apart, repeatable, and none where nothing is told."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from regraft.explain import projection
from regraft.explain.projection import project


def groups(seed=0):
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(0, 9, (3, 20)), 15, axis=0)
    return (centres + random.normal(size=(45, 20))).astype(np.float32)


def test_groups_stand_apart_on_every_map():
    for places in project(groups()).values():
        centres = places.reshape(3, 15, 2).mean(axis=1)
        spread = places.reshape(3, 15, 2).std(axis=1).max()
        gaps = [np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (1, 2), (0, 2))]

        assert min(gaps) > 3 * spread
        assert places.min() >= -1e-6
        assert places.max() <= 1 + 1e-6


def test_the_same_features_and_seed_give_the_same_map():
    first, again = project(groups(), seed=3), project(groups(), seed=3)

    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("rows", [np.eye(3), np.ones((9, 5)), np.ones((9, 1))])
def test_too_little_makes_no_map(rows):
    assert project(rows.astype(np.float32)) == {}


def test_umap_is_a_third_map_where_it_is_installed(monkeypatch):
    class UMAP:
        def __init__(self, **_settings):
            pass

        def fit_transform(self, rows):
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP, __spec__=None))
    monkeypatch.setattr(projection, "find_spec", lambda name: name == "umap")

    assert list(project(groups())) == ["PCA", "t-SNE", "UMAP"]
