"""What every named classifier promises, and every one that can be saved."""

import json

import numpy as np
import pytest
from PIL import Image
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

from regraft.backbones.backbone import views_of
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier, load_model
from regraft.classifiers.shallow import NAMED
from regraft.errors import UsageError
from regraft.training.phases import from_scratch, frozen

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


def gradient():
    """Return an image that is another at each corner and in a mirror."""
    return (
        np.add.outer(np.arange(40) * 2, np.arange(30) * 5)[..., None].repeat(3, 2).astype(np.uint8)
    )


TRAIN = [image(shade, seed) for seed in range(6) for shade in (0, 90, 200)]
LABELS = ["night", "dusk", "day"] * 6
ASKED = [image(shade, seed) for seed in (50, 51) for shade in (20, 110, 190)]


SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
COMPUTE = Compute(engine="torch", device="cpu")


@pytest.fixture(params=[*NAMED, *OBJECTS, "frozen", "trained"], ids=str)
def learner(request):
    if request.param == "xgboost":
        pytest.importorskip("xgboost")
    phases = {"frozen": frozen(20), "trained": from_scratch(8)}
    if isinstance(request.param, str) and request.param in phases:
        chosen = phases[request.param]
        return NetworkClassifier(SPEC, phases=chosen, batch_size=6, compute=COMPUTE)
    return FeatureClassifier(SPEC, classifier=request.param, compute=COMPUTE)


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


@pytest.mark.parametrize("views", [2, 10])
@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureClassifier(SPEC, grid=None, compute=COMPUTE),
        lambda: NetworkClassifier(SPEC, phases=frozen(2), batch_size=6, compute=COMPUTE),
        lambda: NetworkClassifier(SPEC, phases=from_scratch(1), batch_size=6, compute=COMPUTE),
    ],
    ids=["features", "frozen", "trained"],
)
def test_views_of_an_image_are_predicted_by_their_mean_and_pass_a_frozen_trunk_once(
    make, views, tmp_path
):
    learner = make().fit(TRAIN, LABELS)
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file, pixels in zip(files, (ASKED[0], gradient()), strict=True):
        Image.fromarray(pixels).save(file)

    mean = learner.predict_proba(files, views=views)

    prepared = learner.backbone_.preprocessing
    for file, found in zip(files, mean, strict=True):
        every = views_of(Image.open(file), prepared, views)
        assert len(every) == views
        assert found == pytest.approx(learner.predict_proba(every).mean(axis=0), abs=1e-6)
    assert np.abs(mean[1] - learner.predict_proba(files[1:])).max() > 0
    assert learner.predict_proba([], views=views).shape == (0, 3)
    learner.predict_proba(files, views=views)
    trained = isinstance(learner, NetworkClassifier) and learner.phases == from_scratch(1)
    assert learner.embedding_stats_.embedded == (2 * views if trained else 0)
    with pytest.raises(UsageError, match="no 5 views"):
        learner.predict_proba(files, views=5)
