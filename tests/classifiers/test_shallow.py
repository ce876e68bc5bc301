"""The named classifiers."""

import sys

import pytest
from sklearn.base import is_classifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from regraft.classifiers.conversion import obstacle
from regraft.classifiers.scaling import SCALES
from regraft.classifiers.shallow import NAMED, find_shallow
from regraft.errors import UsageError


@pytest.mark.parametrize("name", NAMED)
def test_every_name_gives_a_fresh_classifier_that_can_be_saved(name):
    if name == "xgboost":
        pytest.importorskip("xgboost")

    first, entry = find_shallow(name, seed=7)
    second, _ = find_shallow(name, seed=7)

    assert is_classifier(first)
    assert first is not second
    assert first.get_params().get("random_state", 7) in {7, None}
    assert entry.scale in SCALES
    assert set(entry.grid) <= set(first.get_params())
    assert obstacle(first) == ""


def test_an_object_is_cloned_and_gets_the_seed_only_where_it_has_none():
    given = LinearSVC()

    seeded, _ = find_shallow(given, seed=3)
    kept, _ = find_shallow(RandomForestClassifier(random_state=5), seed=3)
    inside, _ = find_shallow(make_pipeline(StandardScaler(), LinearSVC()), seed=3)

    assert given.random_state is None
    assert seeded.random_state == 3
    assert kept.random_state == 5
    assert inside[-1].random_state == 3


def test_an_unknown_name_is_refused_with_the_nearest_and_the_list():
    with pytest.raises(UsageError) as refused:
        find_shallow("linear-svm")

    assert "did you mean 'linear_svm'?" in refused.value.hint
    assert all(name in refused.value.hint for name in NAMED)


@pytest.mark.parametrize("thing", [LinearRegression(), LinearSVC, 3, None])
def test_what_is_no_classifier_is_refused(thing):
    with pytest.raises(UsageError, match="no classifier"):
        find_shallow(thing)


def test_a_missing_xgboost_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)

    with pytest.raises(UsageError, match=r'pip install "regraft\[boost\]"'):
        find_shallow("xgboost")
