"""Arrays that do not fit are found before they are used."""

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from regraft.classifiers import kinds
from regraft.classifiers.conversion import to_arrays
from regraft.classifiers.kinds import KINDS, ArrayClassifier

FEATURES = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
LABELS = np.arange(30) % 3


def arrays_of(classifier):
    return to_arrays(classifier.fit(FEATURES, LABELS))


FITTED = {
    "linear": arrays_of(LogisticRegression()),
    "gaussian": arrays_of(GaussianNB()),
    "neighbours": arrays_of(KNeighborsClassifier(3)),
    "forest": arrays_of(RandomForestClassifier(3, random_state=0)),
    "boosting": arrays_of(GradientBoostingClassifier(n_estimators=2)),
}
CASES = [(kind, array) for kind, one in FITTED.items() for array in one.arrays]


def changed(one, **arrays):
    return ArrayClassifier(one.kind, {**one.arrays, **arrays}, one.settings)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_missing_array_is_found(kind, name):
    one = FITTED[kind]
    rest = {key: array for key, array in one.arrays.items() if key != name}

    assert ArrayClassifier(kind, rest, one.settings).problem(4, 3)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_array_of_another_shape_or_type_is_found(kind, name):
    one = FITTED[kind]
    array = one.arrays[name]

    assert one.problem(4, 3) == ""
    assert changed(one, **{name: array[:0]}).problem(4, 3)
    assert changed(one, **{name: array[None]}).problem(4, 3)
    assert changed(one, **{name: array.astype(bool)}).problem(4, 3)


@pytest.mark.parametrize("kind", FITTED)
def test_another_number_of_classes_or_features_is_found(kind):
    assert FITTED[kind].problem(4, 2)
    assert FITTED[kind].problem(2, 3)


@pytest.mark.parametrize("kind", FITTED)
def test_unknown_settings_are_found(kind):
    one = FITTED[kind]

    assert ArrayClassifier(kind, one.arrays, {**one.settings, "more": 1}).problem(4, 3)


@pytest.mark.parametrize(
    ("name", "value"), [("metric", "x"), ("weights", "x"), ("neighbours", 0), ("classes", 9)]
)
def test_impossible_settings_of_neighbours_are_found(name, value):
    one = FITTED["neighbours"]

    settings = {**one.settings, name: value}

    assert ArrayClassifier("neighbours", one.arrays, settings).problem(4, 3)


def test_values_that_are_no_variances_shares_or_classes_are_found():
    gaussian, forest, near = FITTED["gaussian"], FITTED["forest"], FITTED["neighbours"]

    assert changed(gaussian, variances=-gaussian.arrays["variances"]).problem(4, 3)
    assert changed(forest, values=-forest.arrays["values"]).problem(4, 3)
    assert changed(near, classes=near.arrays["classes"] + 3).problem(4, 3)


@pytest.mark.parametrize("kind", FITTED)
def test_the_size_of_the_batch_changes_no_answer(kind, monkeypatch):
    whole = FITTED[kind].predict_proba(FEATURES)

    monkeypatch.setattr(kinds, "_CELLS", 4 * 7)
    parts = FITTED[kind].predict_proba(FEATURES)

    assert parts == pytest.approx(whole, abs=1e-6)
    assert np.array_equal(parts.argmax(axis=1), whole.argmax(axis=1))


def test_the_probabilities_of_one_against_the_rest_never_vanish_altogether():
    arrays = {"coefficients": np.ones((3, 1)), "intercepts": np.zeros(3)}

    probabilities = ArrayClassifier("one_vs_rest", arrays).predict_proba(np.array([[-1e4]]))

    assert probabilities.tolist() == [[1 / 3, 1 / 3, 1 / 3]]


def test_every_kind_is_tried_here():
    assert set(FITTED) | {"one_vs_rest"} == set(KINDS)
