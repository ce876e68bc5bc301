"""Every classifier that is kept as data answers as the library that fitted it, or is refused."""

import dataclasses
import pickle
import warnings

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
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
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from regraft.classifiers import shallow_files as module
from regraft.classifiers.rotation import Scaling
from regraft.classifiers.shallow import FittedShallow
from regraft.classifiers.shallow_files import ShallowModel, ShallowRecord, to_model
from samples import refused

try:
    import xgboost
except ImportError:
    xgboost = None

LINEAR = [
    *(LogisticRegression(), LinearDiscriminantAnalysis(), LinearSVC()),
    *(RidgeClassifier(), RidgeClassifierCV(), Perceptron()),
    *(SGDClassifier(random_state=0), SGDClassifier(loss="log_loss", random_state=0)),
]
NEIGHBOURS = [
    KNeighborsClassifier(),
    KNeighborsClassifier(3, metric="cosine", weights="distance"),
    KNeighborsClassifier(7, weights="distance"),
]
ONNX = [
    KNeighborsClassifier(metric="manhattan"),
    GaussianNB(),
    MLPClassifier((5,), max_iter=50, random_state=0),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(20, class_weight="balanced", max_depth=4, random_state=0),
    ExtraTreesClassifier(20, random_state=0),
    GradientBoostingClassifier(n_estimators=10, random_state=0),
    AdaBoostClassifier(n_estimators=10, random_state=0),
    make_pipeline(StandardScaler(), LogisticRegression()),
]
XGBOOST = [] if xgboost is None else [xgboost.XGBClassifier(n_estimators=10, n_jobs=1)]
KINDS = [("linear", LINEAR), ("neighbours", NEIGHBOURS), ("onnx", ONNX), ("xgboost", XGBOOST)]
CLASSIFIERS = [(kind, classifier) for kind, all_of_it in KINDS for classifier in all_of_it]
CASES = [(*one, classes) for one in CLASSIFIERS for classes in (2, 4)]
CASES.append(("linear", LogisticRegression(solver="liblinear"), 2))


def drawn(classes=3, *, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(90) % classes
    centres = random.normal(size=(classes, 6))
    return (centres[labels] + random.normal(size=(90, 6))).astype(np.float32), labels


def fitted(classifier, features, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return classifier.fit(features, labels)


def model_of(classifier, classes=3):
    features, labels = drawn(classes)
    return to_model(fitted(classifier, features, labels), features)


@pytest.mark.parametrize(("kind", "classifier", "classes"), CASES, ids=repr)
def test_data_answers_as_scikit_learn(kind, classifier, classes):
    features, labels = drawn(classes)
    asked, _ = drawn(classes, seed=1)
    fitted(classifier, features, labels)

    model = to_model(classifier, features, temperature=2.5)
    probabilities = model.predict_proba(asked)

    assert model.record.kind == kind
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    if hasattr(classifier, "predict_proba"):
        assert probabilities == pytest.approx(classifier.predict_proba(asked), abs=1e-5)
    else:
        assert np.array_equal(probabilities.argmax(axis=1), classifier.predict(asked))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_leaf_of_a_forest_lists_the_classes_that_it_has(classes):
    features, labels = drawn(classes)
    classifier = RandomForestClassifier(20, random_state=0).fit(features, labels)
    leaves = sum(member.get_n_leaves() for member in classifier.estimators_)

    content = to_model(classifier, features).content

    assert len(content) < 110 * leaves
    asked = np.random.default_rng(1).normal(size=(2000, 6), scale=3).astype(np.float32)
    found = ShallowModel(ShallowRecord("onnx"), content=content).predict_proba(asked)
    assert found == pytest.approx(classifier.predict_proba(asked), abs=1e-6)


@pytest.mark.parametrize("classifier", [LINEAR[0], *NEIGHBOURS, *ONNX], ids=repr)
def test_an_answer_depends_neither_on_the_batch_nor_on_the_process(classifier, monkeypatch):
    asked, _ = drawn(seed=1)
    model = model_of(classifier)
    whole = model.predict_proba(asked)

    monkeypatch.setattr(module, "_CELLS", 6 * 7)
    parts = model.predict_proba(asked)
    copy = pickle.loads(pickle.dumps(model)).predict_proba(asked)

    assert parts == pytest.approx(whole, abs=1e-6)
    assert np.array_equal(copy, parts)
    assert model.predict_proba(asked[:0]).shape == (0, 3)


class Renamed(LogisticRegression):
    """A subclass, which may predict in any way."""

    def predict_proba(self, rows):
        """Return other probabilities than its parent."""
        return super().predict_proba(rows)[:, ::-1]


@pytest.mark.parametrize(
    ("classifier", "why"),
    [
        (SVC(), "SVC gives no probabilities"),
        (NearestCentroid(), "NearestCentroid"),
        (Renamed(), "Renamed"),
        (SGDClassifier(loss="modified_huber"), "SGDClassifier would answer differently"),
        (VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())]), "VotingClassifier"),
    ],
    ids=repr,
)
def test_what_cannot_be_kept_is_refused_with_the_reason(classifier, why):
    error = refused(model_of, classifier)

    assert error.code == "MODEL-UNSAVEABLE"
    assert why in error.why
    assert "linear classifiers" in error.hint


@pytest.mark.parametrize("difference", [2e-5, 5e-6])
def test_a_probability_may_differ_by_a_hundred_thousandth(monkeypatch, difference):
    features, labels = drawn()
    classifier = RandomForestClassifier(5, random_state=0).fit(features, labels)
    exact = classifier.predict_proba(features)
    exact[0] += [difference, -difference, 0.0]
    monkeypatch.setattr(classifier, "predict_proba", lambda _rows: exact)

    if difference < 1e-5:
        assert to_model(classifier, features).content
    else:
        assert "answer differently" in str(refused(to_model, classifier, features))


def unread(record, arrays=None, content=b""):
    """Return the error, of whatever library, with which a model of data is refused."""
    model = ShallowModel(record, arrays or {}, content)
    with pytest.raises(Exception) as caught:
        FittedShallow(None, Scaling(), model, {}, ()).check(6, 3)
    return caught.value


@pytest.mark.parametrize("classifier", [LINEAR[0], NEIGHBOURS[0], ONNX[4]], ids=repr)
def test_another_number_of_classes_or_features_is_found(classifier):
    fitted_one = FittedShallow(None, Scaling(), model_of(classifier), {}, ())

    fitted_one.check(6, 3)
    for width, classes in ((5, 3), (6, 2)):
        with pytest.raises(Exception):  # noqa: B017 - of the library that reads it
            fitted_one.check(width, classes)


@pytest.mark.parametrize("classifier", [LINEAR[0], NEIGHBOURS[0]], ids=repr)
def test_missing_and_other_arrays_are_found(classifier):
    model = model_of(classifier)

    for name, array in model.arrays.items():
        unread(model.record, {k: a for k, a in model.arrays.items() if k != name})
        unread(model.record, {**model.arrays, name: array[:0]})
    if model.record.kind == "neighbours":
        unread(dataclasses.replace(model.record, neighbours=91), model.arrays)
        assert "neighbours" in str(refused(dataclasses.replace, model.record, neighbours=0))


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(3)])
@pytest.mark.parametrize("kind", ["onnx", "xgboost"])
def test_a_file_that_is_none_or_names_another_file_is_found(kind, content):
    if kind == "xgboost":
        pytest.importorskip("xgboost")

    unread(ShallowRecord(kind), content=content)
    outside = model_of(ONNX[1]).content + b"\x00location"
    assert "another file" in str(unread(ShallowRecord("onnx"), content=outside))


def test_the_probabilities_of_one_against_the_rest_never_vanish_altogether():
    arrays = {"coefficients": np.ones((3, 1)), "intercepts": np.zeros(3)}
    model = ShallowModel(ShallowRecord("linear", link="one_vs_rest"), arrays)

    assert model.predict_proba(np.array([[-1e4]])).tolist() == [[1 / 3, 1 / 3, 1 / 3]]
