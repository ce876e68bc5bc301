"""What every named classifier promises, and every one that can be saved."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from regraft.backbones.spec import Compute
from regraft.backbones.views import views_of
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier, load_model
from regraft.classifiers.shallow import NAMED
from regraft.training.phases import from_scratch, frozen
from samples import COLOURS, SMALL, coloured, refused
from samples import learner as network_learner

# One of each way to be saved; tests/classifiers/test_shallow_files.py has many more.
OBJECTS = [
    SGDClassifier(loss="log_loss"),
    KNeighborsClassifier(3, metric="manhattan"),
    make_pipeline(StandardScaler(), LogisticRegression()),
]


def gradient():
    """Return an image that is another at each corner and in a mirror."""
    return (
        np.add.outer(np.arange(40) * 2, np.arange(30) * 5)[..., None].repeat(3, 2).astype(np.uint8)
    )


LABELS = list(COLOURS) * 6
TRAIN, ASKED = coloured(LABELS, side=20), coloured(list(COLOURS) * 2, side=20, seed=1)
COMPUTE = Compute(engine="torch", device="cpu")


@pytest.fixture(params=[*NAMED, *OBJECTS, "frozen", "trained"], ids=str)
def learner(request):
    if request.param == "xgboost":
        pytest.importorskip("xgboost")
    phases = {"frozen": frozen(20), "trained": from_scratch(8)}
    if isinstance(request.param, str) and request.param in phases:
        return network_learner(phases=phases[request.param], batch_size=6)
    return FeatureClassifier(SMALL, classifier=request.param, compute=COMPUTE)


def test_it_keeps_every_promise(learner, tmp_path):
    """It clones, repeats itself, answers with names, and is the same after saving and loading."""
    learner.fit(TRAIN, LABELS)
    again = clone(learner).fit(TRAIN, LABELS)
    probabilities = learner.predict_proba(ASKED)

    assert learner.classes_.tolist() == list(COLOURS)
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
        lambda: FeatureClassifier(SMALL, grid=None, compute=COMPUTE),
        lambda: network_learner(phases=frozen(2)),
        lambda: network_learner(phases=from_scratch(1)),
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
    assert "no 5 views" in str(refused(learner.predict_proba, files, views=5))
