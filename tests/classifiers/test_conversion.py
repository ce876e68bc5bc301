"""Every classifier that can be kept as arrays answers as the library that fitted it."""

import warnings

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from regraft.classifiers.conversion import SOURCES, obstacle, saveable, to_arrays
from regraft.errors import ModelError

CLASSIFIERS = [
    LogisticRegression(),
    LinearDiscriminantAnalysis(),
    LinearSVC(),
    RidgeClassifier(),
    RidgeClassifierCV(),
    Perceptron(),
    SGDClassifier(random_state=0),
    SGDClassifier(loss="log_loss", random_state=0),
    NearestCentroid(),
    NearestCentroid(shrink_threshold=0.2, priors="empirical"),
    GaussianNB(),
    KNeighborsClassifier(),
    KNeighborsClassifier(3, metric="cosine", weights="distance"),
    KNeighborsClassifier(7, weights="distance"),
    DecisionTreeClassifier(random_state=0),
    ExtraTreeClassifier(random_state=0),
    RandomForestClassifier(20, class_weight="balanced", max_depth=4, random_state=0),
    ExtraTreesClassifier(20, random_state=0),
    GradientBoostingClassifier(n_estimators=10, random_state=0),
    HistGradientBoostingClassifier(max_iter=10),
]


def drawn(classes, *, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(90) % classes
    centres = random.normal(size=(classes, 6))
    return (centres[labels] + random.normal(size=(90, 6))).astype(np.float32), labels


def fitted(classifier, features, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return classifier.fit(features, labels)


def name(classifier):
    return type(classifier).__name__


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=name)
def test_arrays_answer_as_scikit_learn(classifier, classes):
    features, labels = drawn(classes)
    asked, _ = drawn(classes, seed=1)
    fitted(classifier, features, labels)

    arrays = to_arrays(classifier, temperature=2.5)
    probabilities = arrays.predict_proba(asked)

    assert arrays.problem(6, classes) == ""
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    if hasattr(classifier, "predict_proba"):
        # In float64, for its own float32 sums are less exact than ours.
        expected = classifier.predict_proba(asked.astype(np.float64))
        assert probabilities == pytest.approx(expected, abs=1e-6)
    else:
        assert np.array_equal(probabilities.argmax(axis=1), classifier.predict(asked))


@pytest.mark.parametrize("classes", [2, 4])
def test_arrays_answer_as_xgboost(classes):
    xgboost = pytest.importorskip("xgboost")
    features, labels = drawn(classes)
    asked, _ = drawn(classes, seed=1)
    classifier = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(features, labels)

    probabilities = to_arrays(classifier).predict_proba(asked)

    assert probabilities == pytest.approx(classifier.predict_proba(asked), abs=1e-6)


@pytest.mark.parametrize("loss", ["exponential", "log_loss"])
def test_the_losses_of_gradient_boosting_have_their_own_link(loss):
    features, labels = drawn(2)
    classifier = GradientBoostingClassifier(loss=loss, n_estimators=5).fit(features, labels)

    probabilities = to_arrays(classifier).predict_proba(features)

    assert probabilities == pytest.approx(classifier.predict_proba(features), abs=1e-6)


def test_the_solver_of_one_against_the_other_agrees_for_two_classes():
    features, labels = drawn(2)
    classifier = LogisticRegression(solver="liblinear").fit(features, labels)

    probabilities = to_arrays(classifier).predict_proba(features)

    assert probabilities == pytest.approx(classifier.predict_proba(features), abs=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_picture_that_is_in_the_training_set_is_its_own_only_neighbour(metric):
    features, labels = drawn(4)
    classifier = KNeighborsClassifier(9, metric=metric, weights="distance").fit(features, labels)

    probabilities = to_arrays(classifier).predict_proba(features)

    assert np.array_equal(probabilities, np.eye(4)[labels])


def test_every_entry_of_the_table_is_compared_here():
    compared = {name(classifier) for classifier in CLASSIFIERS} | {"XGBClassifier"}

    assert compared == set(saveable())
    assert len(SOURCES) == len(saveable())


class Renamed(LogisticRegression):
    """A subclass, which may predict in any way."""


@pytest.mark.parametrize(
    "classifier",
    [
        SVC(),
        MLPClassifier(),
        Renamed(),
        SGDClassifier(loss="modified_huber"),
        KNeighborsClassifier(metric="manhattan"),
        KNeighborsClassifier(p=1),
        KNeighborsClassifier(weights=np.sqrt),
        NearestCentroid(metric="manhattan"),
        GradientBoostingClassifier(init=GaussianNB()),
    ],
    ids=repr,
)
def test_what_cannot_be_kept_is_refused_with_the_list_of_what_can(classifier):
    assert obstacle(classifier)

    with pytest.raises(ModelError) as refused:
        to_arrays(classifier)

    assert refused.value.code == "MODEL-UNSAVEABLE"
    assert "RandomForestClassifier" in refused.value.hint
