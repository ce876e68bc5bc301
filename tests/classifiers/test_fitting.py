"""Fitting on plain features."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC

from regraft.classifiers.fitting import check_settings, fit_shallow
from regraft.classifiers.shallow import NAMED
from regraft.errors import DataError, UsageError


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

    answers = []
    for _ in range(2):
        features, labels = drawn(width=width)
        answers.append(fit_shallow(features, labels, classifier=name, seed=4).predict_proba(asked))

    assert (answers[0].argmax(axis=1) == truth).mean() > 0.8
    assert answers[0].sum(axis=1) == pytest.approx(1.0)
    assert np.array_equal(*answers)


def test_the_history_tells_grid_best_size_and_seconds():
    features, labels = drawn()

    history = fit_shallow(features, labels, grid={"C": [1e-6, 1.0]}).history

    assert (history["n"], history["d"], history["folds"]) == (60, 5, 3)
    assert [point["parameters"] for point in history["grid"]] == [{"C": 1e-6}, {"C": 1.0}]
    assert all(0 <= point["mean"] <= 1 and point["sd"] >= 0 for point in history["grid"])
    assert history["best"] in [{"C": 1e-6}, {"C": 1.0}]
    assert set(history["seconds"]) == {"scale", "grid", "fit"}
    assert history["classifier"]["type"] == "LogisticRegression"
    assert history["classifier"]["parameters"]["C"] == history["best"]["C"]


def test_of_equally_good_points_the_first_wins():
    features, labels = drawn()
    features += 100 * labels[:, None]

    fitted = fit_shallow(features, labels, grid={"C": [3.0, 1.0, 2.0]})

    assert fitted.history["best"] == {"C": 3.0}


def test_no_grid_means_the_classifier_as_it_is():
    features, labels = drawn()

    fitted = fit_shallow(features, labels, classifier=LogisticRegression(C=0.123))

    assert fitted.history["grid"] == []
    assert fitted.estimator.C == 0.123
    assert fitted.warnings == ()


def test_a_fit_that_did_not_converge_is_recorded_and_warns_nobody():
    features, labels = drawn(count=90, width=30)

    fitted = fit_shallow(features, labels, classifier=LogisticRegression(max_iter=1))

    assert fitted.history["converged"] is False
    assert "1 fits stopped before they had converged" in fitted.warnings[0]


def test_a_class_with_one_picture_leaves_the_grid_unsearched_and_says_so():
    features, labels = drawn(count=10)
    labels = np.where(np.arange(10) == 0, 0, 1 + np.arange(10) % 2)

    fitted = fit_shallow(features, labels, classifier="linear_svm")

    assert fitted.history["grid"] == []
    assert "single picture" in fitted.warnings[0]
    assert fitted.history["temperature"] == 1.0


def test_two_pictures_per_class_are_two_folds():
    features, labels = drawn(count=6)

    fitted = fit_shallow(features, labels, classifier="knn")

    assert fitted.history["folds"] == 2
    assert {point["parameters"]["n_neighbors"] for point in fitted.history["grid"]} == {1, 3}


def test_more_neighbours_than_pictures_become_as_many_as_there_are():
    features, labels = drawn(count=4, classes=2)

    fitted = fit_shallow(features, labels, classifier=KNeighborsClassifier(9))

    assert fitted.estimator.n_neighbors == 4
    assert "4 neighbours" in fitted.warnings[0]


@pytest.mark.parametrize("classifier", [LinearSVC(), Perceptron(), SVC(kernel="rbf")], ids=repr)
@pytest.mark.parametrize("classes", [2, 4])
def test_scores_become_probabilities_without_another_best_class(classifier, classes):
    features, labels = drawn(classes=classes)
    asked, _ = drawn(classes=classes, seed=1)

    fitted = fit_shallow(features, labels, classifier=classifier, scale="none")
    probabilities = fitted.predict_proba(asked)

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


def test_a_classifier_that_cannot_be_saved_still_predicts():
    features, labels = drawn()

    fitted = fit_shallow(features, labels, classifier=NuSVC())

    assert fitted.arrays is None
    assert fitted.predict_proba(features).shape == (60, 3)


PAIRWISE = {"decision_function_shape": ["ovr", "ovo"]}


@pytest.mark.parametrize(
    ("classifier", "grid"),
    [
        (SVC(decision_function_shape="ovo"), None),
        (NuSVC(decision_function_shape="ovo"), None),
        (make_pipeline(StandardScaler(), SVC(decision_function_shape="ovo")), None),
        (CalibratedClassifierCV(SVC(decision_function_shape="ovo")), None),
        (SVC(), PAIRWISE),
        (make_pipeline(SVC()), {"svc__decision_function_shape": ["ovo"]}),
    ],
    ids=["SVC", "NuSVC", "pipeline", "calibrated", "grid", "grid of a pipeline"],
)
@pytest.mark.parametrize("classes", [3, 4])
def test_scores_of_pairs_are_never_taken_for_scores_of_classes(classifier, grid, classes):
    features, labels = drawn(classes=classes)

    for refusal in (
        lambda: fit_shallow(features, labels, classifier=classifier, grid=grid),
        lambda: check_settings(classifier, grid, "auto"),
    ):
        with pytest.raises(UsageError, match="pairs of classes") as refused:
            refusal()
        assert refused.value.code == "USAGE-CLASSIFIER"
        assert refused.value.hint == 'pass decision_function_shape="ovr"'


def test_a_classifier_of_pairs_with_probabilities_is_taken():
    features, labels = drawn(count=90)
    asked, truth = drawn(count=90, seed=1)
    pairs = SVC(decision_function_shape="ovo", probability=True)

    fitted = fit_shallow(features, labels, classifier=pairs, grid=None)

    assert (fitted.predict_proba(asked).argmax(axis=1) == truth).mean() > 0.8


class Pairs(LinearSVC):
    """Scores pairs of classes and does not say so."""

    def decision_function(self, rows):
        """Return six scores for four classes."""
        scores = super().decision_function(rows)
        return np.concatenate([scores, scores[:, :2]], axis=1)


@pytest.mark.parametrize("count", [5, 60], ids=["a single picture", "folds"])
def test_scores_that_are_not_one_per_class_are_refused(count):
    features, labels = drawn(count=count, classes=4)

    with pytest.raises(UsageError, match="no score per class") as refused:
        fit_shallow(features, labels, classifier=Pairs(), grid=None)

    assert refused.value.why == "6 scores for 4 classes"


def test_one_class_is_refused():
    features, _ = drawn()

    with pytest.raises(DataError, match="two classes"):
        fit_shallow(features, np.zeros(60, dtype=int))


@pytest.mark.parametrize("grid", ["best", {"c": [1]}, {"C": 1}, {"C": []}, [1]])
def test_an_impossible_grid_is_refused_with_an_example(grid):
    features, labels = drawn()

    with pytest.raises(UsageError) as refused:
        fit_shallow(features, labels, grid=grid)

    assert refused.value.code == "USAGE-GRID"
