"""The named classifiers, fitting on plain features, and one temperature for scores."""

import sys

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from regraft.classifiers.shallow import (
    NAMED,
    check_settings,
    find_shallow,
    fit_shallow,
    fit_temperature,
    log_shares,
    margin_probabilities,
    tempered,
)
from samples import refused


def drawn(count=60, width=5, classes=3, *, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(9).normal(size=(classes, width)) * 2
    return (centres[labels] + random.normal(size=(count, width))).astype(np.float32), labels


@pytest.mark.parametrize("width", [5, 200])
@pytest.mark.parametrize("name", NAMED)
def test_every_named_classifier_learns_and_repeats_itself_to_the_bit(name, width):
    if name == "xgboost":
        pytest.importorskip("xgboost")
    asked, truth = drawn(width=width, seed=1)
    classifier, scale, grid = find_shallow(name, seed=7)

    answers = []
    for _ in range(2):
        features, labels = drawn(width=width)
        answers.append(fit_shallow(features, labels, classifier=name, seed=4).predict_proba(asked))

    assert (answers[0].argmax(axis=1) == truth).mean() > 0.8
    assert answers[0].sum(axis=1) == pytest.approx(1.0)
    assert np.array_equal(*answers)
    assert classifier is not find_shallow(name, seed=7)[0]
    assert classifier.get_params().get("random_state", 7) in {7, None}
    assert set(grid) <= set(classifier.get_params())
    check_settings(name, "default", scale)


def test_the_history_tells_grid_best_size_and_seconds():
    features, labels = drawn()

    history = fit_shallow(features, labels, grid={"C": [1e-6, 1.0]}).history

    assert (history["n"], history["d"], history["folds"]) == (60, 5, 3)
    assert [point["parameters"] for point in history["grid"]] == [{"C": 1e-6}, {"C": 1.0}]
    assert all(0 <= point["mean"] <= 1 and point["sd"] >= 0 for point in history["grid"])
    assert history["best"] in [{"C": 1e-6}, {"C": 1.0}]
    assert set(history["seconds"]) == {"scale", "grid", "fit", "convert"}
    assert history["classifier"]["type"] == "LogisticRegression"
    assert history["classifier"]["parameters"]["C"] == history["best"]["C"]


def test_of_equally_good_points_the_first_wins():
    features, labels = drawn()
    features += 100 * labels[:, None]

    fitted = fit_shallow(features, labels, grid={"C": [3.0, 1.0, 2.0]})

    assert fitted.history["best"] == {"C": 3.0}


def test_a_fit_that_did_not_converge_is_recorded_and_warns_nobody():
    features, labels = drawn(count=90, width=30)

    fitted = fit_shallow(features, labels, classifier=LogisticRegression(max_iter=1))
    plain = fit_shallow(features, labels, classifier=LogisticRegression(C=0.123))

    assert (plain.history["grid"], plain.estimator.C, plain.warnings) == ([], 0.123, ())
    assert fitted.history["converged"] is False
    assert "1 fits stopped before they had converged" in fitted.warnings[0]


def test_a_class_with_one_image_leaves_the_grid_unsearched_and_says_so():
    features, labels = drawn(count=10)
    labels = np.where(np.arange(10) == 0, 0, 1 + np.arange(10) % 2)

    fitted = fit_shallow(features, labels, classifier="linear_svm")

    assert fitted.history["grid"] == []
    assert "single image" in fitted.warnings[0]
    assert fitted.history["temperature"] == 1.0


def test_more_neighbours_than_images_become_as_many_as_there_are():
    fitted = fit_shallow(*drawn(count=4, classes=2), classifier=KNeighborsClassifier(9))

    assert fitted.estimator.n_neighbors == 4
    assert "4 neighbours" in fitted.warnings[0]


@pytest.mark.parametrize("classifier", [LinearSVC(), Perceptron(), SVC(kernel="rbf")], ids=repr)
@pytest.mark.parametrize("classes", [2, 4])
def test_scores_become_probabilities_without_another_best_class(classifier, classes):
    features, labels = drawn(classes=classes)
    asked, _ = drawn(classes=classes, seed=1)

    fitted = fit_shallow(features, labels, classifier=classifier, scale="none")
    probabilities = fitted.predict_proba(asked)

    assert (fitted.model is None) == isinstance(classifier, SVC)  # it predicts all the same
    scores = fitted.estimator.decision_function(asked)
    best = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
    assert fitted.history["temperature"] > 0
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert np.array_equal(probabilities.argmax(axis=1), best)


def test_a_temperature_makes_scores_of_a_machine_honest():
    features, labels = drawn(count=300, classes=3)
    features += np.random.default_rng(2).normal(size=features.shape) * 3
    asked, truth = drawn(count=3000, classes=3, seed=1)
    asked += np.random.default_rng(3).normal(size=asked.shape).astype(np.float32) * 3

    probabilities = fit_shallow(features, labels, classifier="linear_svm").predict_proba(asked)

    accuracy = (probabilities.argmax(axis=1) == truth).mean()
    assert probabilities.max(axis=1).mean() == pytest.approx(accuracy, abs=0.05)


class Pairs(LinearSVC):
    """Scores pairs of classes and does not say so."""

    def decision_function(self, rows):
        """Return six scores for four classes."""
        scores = super().decision_function(rows)
        return np.concatenate([scores, scores[:, :2]], axis=1)


OVO = SVC(decision_function_shape="ovo")


@pytest.mark.parametrize(
    ("classifier", "grid", "count", "classes"),
    [
        *((OVO, None, 60, classes) for classes in (3, 4)),
        (make_pipeline(StandardScaler(), OVO), None, 60, 3),
        (SVC(), {"decision_function_shape": ["ovo"]}, 60, 3),
        *((Pairs(), None, count, 4) for count in (5, 60)),  # one image of a class, or folds
    ],
    ids=str,
)
def test_scores_of_pairs_are_never_taken_for_scores_of_classes(classifier, grid, count, classes):
    features, labels = drawn(count=count, classes=classes)

    error = refused(fit_shallow, features, labels, classifier=classifier, grid=grid)

    assert error.code == "USAGE-CLASSIFIER"
    assert "nor a score per class" in str(error)
    assert 'decision_function_shape="ovr"' in error.hint


@pytest.mark.parametrize("grid", ["best", {"c": [1]}, {"C": 1}, {"C": []}, [1]])
def test_an_impossible_grid_is_refused_with_an_example(grid):
    features, labels = drawn()

    assert refused(fit_shallow, features, labels, grid=grid).code == "USAGE-GRID"
    assert "two classes" in str(refused(fit_shallow, features, np.zeros(60, dtype=int)))


def test_an_object_is_cloned_and_gets_the_seed_only_where_it_has_none():
    given = LinearSVC()

    seeded, *_ = find_shallow(given, seed=3)
    kept, *_ = find_shallow(RandomForestClassifier(random_state=5), seed=3)
    inside, *_ = find_shallow(make_pipeline(StandardScaler(), LinearSVC()), seed=3)

    assert given.random_state is None
    assert seeded.random_state == 3
    assert kept.random_state == 5
    assert inside[-1].random_state == 3


def test_an_unknown_name_is_refused_with_the_nearest_and_the_list():
    hint = refused(find_shallow, "linear-svm").hint

    assert "did you mean 'linear_svm'?" in hint
    assert all(name in hint for name in NAMED)
    for thing in (LinearRegression(), LinearSVC, 3, None):
        assert "unknown classifier" in str(refused(find_shallow, thing))


def test_a_missing_xgboost_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)

    assert 'pip install "regraft[boost]"' in str(refused(find_shallow, "xgboost"))


# --- probabilities from scores


@pytest.mark.parametrize("true", [0.2, 1.0, 30.0])
def test_the_temperature_that_made_the_labels_is_found_again(true):
    random = np.random.default_rng(0)
    scores = random.normal(size=(20_000, 4)) * 2
    chances = softmax(scores, axis=1)
    labels = np.array([random.choice(4, p=row) for row in chances])

    assert fit_temperature(scores * true, labels) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("right", [True, False])
def test_perfect_and_hopeless_scores_give_a_finite_temperature(right):
    scores = np.eye(3)[np.arange(30) % 3]
    labels = (np.arange(30) + (0 if right else 1)) % 3

    probabilities = margin_probabilities(scores, fit_temperature(scores, labels))

    low, high = (1 / 3, 0.99) if right else (1 / 3 - 0.01, 1 / 3 + 0.01)
    assert low < probabilities.max() < high


def test_the_temperature_is_that_of_scikit_learn():
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, X):
            return X

        def predict(self, X):
            return X.argmax(axis=1)

    draw = np.random.default_rng(0)
    scores = 2 * draw.normal(size=(3000, 4))
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    labels = np.array([draw.choice(4, p=row) for row in shares])
    overconfident = 3 * scores
    given = FrozenEstimator(Given().fit(overconfident, labels))

    theirs = CalibratedClassifierCV(given, method="temperature").fit(overconfident, labels)
    found = fit_temperature(log_shares(softmax(overconfident, axis=1)), labels)

    expected = theirs.predict_proba(overconfident)
    assert tempered(softmax(overconfident, axis=1), found) == pytest.approx(expected, abs=0.005)
    assert found == pytest.approx(3, rel=0.1)


def test_a_temperature_changes_no_class_and_one_changes_nothing():
    shares = np.random.default_rng(0).dirichlet(np.ones(5), size=200)

    assert np.array_equal(tempered(shares, 1.0), shares)
    for temperature in (0.2, 5.0):
        calm = tempered(shares, temperature)
        assert np.array_equal(calm.argmax(axis=1), shares.argmax(axis=1))
        assert calm.sum(axis=1) == pytest.approx(np.ones(200))
    assert tempered(np.array([[1.0, 0.0]]), 3.0)[0, 1] > 0
