"""The learner with a frozen backbone."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from regraft import Backbone, Compute, Decoding, load_model
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.errors import UsageError
from samples import SMALL, refused


@pytest.fixture
def learner():
    return FeatureClassifier(SMALL, compute=Compute(engine="torch"))


@pytest.fixture
def passed(monkeypatch):
    """Count the images that are prepared for the network."""
    counted = []
    prepare = Backbone.prepare
    monkeypatch.setattr(
        Backbone, "prepare", lambda self, image: counted.append(1) or prepare(self, image)
    )
    return counted


def test_names_go_in_and_names_come_out(learner, images, tmp_path):
    (paths, labels), (asked, truth) = images

    learner.fit(paths, labels)

    assert learner.can_be_saved_
    for whole in (True, False):
        learner.save(tmp_path / "model", with_backbone=whole)
        assert (tmp_path / "model" / "backbone.safetensors").exists() == whole
    assert learner.classes_.tolist() == ["blue", "green", "red"]
    assert set(learner.predict(asked)) <= set(labels)
    assert learner.score(asked, truth) > 0.8
    assert learner.embedding_stats_.images == 9


def test_equal_probabilities_go_to_the_first_class(learner, images, monkeypatch):
    (paths, labels), (asked, _) = images
    learner.fit(paths, labels)

    monkeypatch.setattr(learner, "predict_proba", lambda asked: np.full((len(asked), 3), 1 / 3))

    assert set(learner.predict(asked)) == {"blue"}


def test_paths_images_and_arrays_are_the_same_to_it(learner, images):
    (paths, labels), (asked, _) = images
    learner.fit(paths, labels)
    opened = [Image.open(path).convert("RGB") for path in asked]

    from_paths = learner.predict_proba(asked)
    from_images = learner.predict_proba(opened)
    from_arrays = learner.predict_proba([np.asarray(one) for one in opened])

    assert np.allclose(from_images, from_paths, atol=1e-6)
    assert np.allclose(from_arrays, from_paths, atol=1e-6)


def test_views_of_more_images_than_are_cut_at_once_are_the_same(learner, images, monkeypatch):
    (paths, labels), (asked, _) = images
    whole = learner.fit(paths, labels).predict_proba(asked, views=2)

    monkeypatch.setattr("regraft.classifiers.feature_classifier._AT_ONCE", 4)

    assert np.allclose(learner.predict_proba(asked, views=2), whole, atol=1e-6)


def test_a_search_over_grid_and_classifier_touches_each_image_once(learner, images, passed):
    (paths, labels), _ = images
    grid = [
        {"classifier": ["knn"], "grid": [None], "seed": [0, 1]},
        {"classifier": [LogisticRegression()], "classifier__C": [0.5, 5.0]},
    ]

    search = GridSearchCV(learner, grid, cv=3).fit(paths, labels)

    assert search.best_score_ > 0.6
    assert len(passed) == len(paths)


def test_cross_validation_and_a_pipeline_take_it(learner, images):
    (paths, labels), (asked, truth) = images

    scores = cross_val_score(learner, paths, labels, cv=2)
    piped = make_pipeline(clone(learner)).fit(paths, labels)
    elsewhere = pickle.loads(pickle.dumps(piped))

    assert np.array_equal(elsewhere.predict_proba(asked), piped.predict_proba(asked))
    assert scores.shape == (2,)
    assert piped.score(asked, truth) > 0.8


CHANGES = {
    "backbone": {"backbone": replace(SMALL, seed=7)},
    "backbone, pooling": {"pooling": "flatten"},
    "decoding": {"compute": Compute(decoding=Decoding(background=(9, 9, 9)))},
    "precision": {"compute": Compute(precision="bf16")},
}


@pytest.mark.parametrize("loaded", [False, True], ids=["fitted", "loaded"])
def test_features_other_than_it_was_fitted_on_are_refused(learner, images, tmp_path, loaded):
    (paths, labels), (asked, _) = images
    learner.fit(paths, labels)
    before = learner.predict_proba(asked)
    if loaded:
        learner.save(tmp_path / "model")
        learner = load_model(tmp_path / "model")
    own = learner.get_params(deep=False)

    for named, change in CHANGES.items():
        learner.set_params(**change)
        for use in (lambda: learner.predict(asked), lambda: learner.save(tmp_path / "other")):
            error = refused(use)
            assert "fitted with other parameters" in str(error)
            assert set(named.split(", ")) <= set(error.why.split(": ")[1].split(", "))
        learner.set_params(**{name: own[name] for name in change})

    assert not (tmp_path / "other").exists()
    learner.set_params(compute=Compute(engine="torch", decoding=Decoding(), cache=None))
    assert np.array_equal(learner.predict_proba(asked), before)


@pytest.mark.parametrize("label", [0, None, b"red", ""])
def test_a_label_that_is_no_name_or_missing_is_refused(learner, images, label):
    (paths, labels), _ = images

    assert "labels are names" in str(refused(learner.fit, paths, [label, *labels[1:]]))
    assert "24 images, 23 labels" in str(refused(learner.fit, paths, labels[1:]))


@pytest.mark.parametrize(
    "wrong", [{"classifier": "svm"}, {"grid": {"gamma": [1]}}, {"scale": "rows"}]
)
def test_impossible_parameters_are_found_before_any_image_is_embedded(
    learner, images, passed, wrong
):
    (paths, labels), _ = images

    with pytest.raises(UsageError):
        learner.set_params(**wrong).fit(paths, labels)

    assert passed == []
