"""What every named classifier promises, and every one that can be saved."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import AdaBoostClassifier, ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import load_model
from regraft.classifiers.shallow import NAMED

OBJECTS = [
    LinearDiscriminantAnalysis(),
    RidgeClassifier(),
    SGDClassifier(),
    SGDClassifier(loss="log_loss"),
    Perceptron(),
    KNeighborsClassifier(3, metric="manhattan"),
    GaussianNB(),
    DecisionTreeClassifier(),
    ExtraTreesClassifier(20),
    AdaBoostClassifier(n_estimators=10),
    MLPClassifier((8,), max_iter=300),
    make_pipeline(StandardScaler(), LogisticRegression()),
]


def image(shade, seed):
    noise = np.random.default_rng(seed).integers(0, 40, size=(20, 20, 3))
    return (noise + shade).astype(np.uint8)


TRAIN = [image(shade, seed) for seed in range(6) for shade in (0, 90, 200)]
LABELS = ["night", "dusk", "day"] * 6
ASKED = [image(shade, seed) for seed in (50, 51) for shade in (20, 110, 190)]


@pytest.fixture(params=[*NAMED, *OBJECTS], ids=str)
def learner(request):
    if request.param == "xgboost":
        pytest.importorskip("xgboost")
    spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
    return FeatureClassifier(spec, classifier=request.param, compute=Compute(engine="torch"))


def test_it_keeps_every_promise(learner, tmp_path):
    """It clones, repeats itself, answers with names, and is the same after saving and loading."""
    learner.fit(TRAIN, LABELS)
    again = clone(learner).fit(TRAIN, LABELS)
    probabilities = learner.predict_proba(ASKED)

    assert learner.classes_.tolist() == ["day", "dusk", "night"]
    assert probabilities.shape == (6, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert np.array_equal(learner.predict(ASKED), learner.classes_[probabilities.argmax(axis=1)])
    assert learner.score(TRAIN, LABELS) > 0.6
    assert np.array_equal(again.predict_proba(ASKED), probabilities)

    assert json.loads(json.dumps(learner.history_, allow_nan=False)) == learner.history_

    learner.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")

    assert np.array_equal(loaded.predict_proba(ASKED), probabilities)
    assert np.array_equal(loaded.predict(ASKED), learner.predict(ASKED))
    assert loaded.history_ == learner.history_
    assert loaded.warnings_ == learner.warnings_
