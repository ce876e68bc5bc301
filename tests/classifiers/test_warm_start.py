"""Going on from an earlier run takes its trunk, its head where that means the same, or refuses."""

import shutil

import numpy as np
import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import ModelError, UsageError
from regraft.training.phases import Phase

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
OTHER_SEED = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=5)
RANDOM = np.random.default_rng(0)
PICTURES = list(RANDOM.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
LABELS = ["cat", "dog", "owl"] * 4
TRAINED = [Phase(unfreeze=1.0, epochs=2, lr=0.01)]


def learner(**changes):
    chosen = {"phases": [], "device": "cpu", "engine": "torch", "batch_size": 4, **changes}
    how = {name: chosen.pop(name) for name in Compute.__dataclass_fields__ if name in chosen}
    return NetworkClassifier(chosen.pop("backbone", SMALL), compute=Compute(**how), **chosen)


@pytest.fixture(scope="module")
def source():
    """Return a network that was trained on the source task."""
    return learner(phases=TRAINED, head="mlp_256").fit(PICTURES, LABELS)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "first run" / "model"
    source.save(place)
    return place


def same_trunk(one, other):
    a, b = (learner.network_.trunk.state_dict() for learner in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


def same_head(one, other):
    a, b = (learner.network_.head.state_dict() for learner in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("inside", [True, False])
def test_the_same_task_goes_on_with_trunk_and_head(source, folder, inside):
    start = folder if inside else folder.parent  # a model, or the run that it is part of

    going_on = learner(head="mlp_256", start=start, backbone=OTHER_SEED).fit(PICTURES, LABELS)

    assert same_trunk(going_on, source)
    assert same_head(going_on, source)
    assert np.allclose(going_on.predict_proba(PICTURES), source.predict_proba(PICTURES), atol=1e-6)
    assert going_on.warnings_ == (f"started from trunk and head of {start.name}",)


def test_training_goes_on_from_there(source, folder):
    going_on = learner(head="mlp_256", start=folder, phases=TRAINED).fit(PICTURES, LABELS)
    anew = learner(head="mlp_256", phases=TRAINED).fit(PICTURES, LABELS)

    first, again = (one.history_["epochs"][0]["train_loss"] for one in (going_on, anew))
    assert first < again
    assert not same_trunk(going_on, source)


@pytest.mark.parametrize(
    ("labels", "head", "output"),
    [
        (["cat", "dog", "elk"] * 4, "mlp_256", "softmax"),  # as many classes, another meaning
        (["cat", "dog"] * 6, "mlp_256", "softmax"),
        (LABELS, "linear", "softmax"),
        (["cat", "dog"] * 6, "mlp_256", "sigmoid"),
    ],
)
def test_another_task_or_head_takes_the_trunk_and_a_new_head(source, folder, labels, head, output):
    target = learner(head=head, start=folder, output=output).fit(PICTURES, labels)
    fresh = learner(head=head, output=output).fit(PICTURES, labels)

    assert same_trunk(target, source)
    assert not same_trunk(target, fresh)
    assert same_head(target, fresh)
    assert target.classes_.tolist() == sorted(set(labels))
    (said,) = target.warnings_
    assert "the head is new" in said


def test_a_head_with_one_output_is_not_taken_for_two_classes(tmp_path):
    labels = ["cat", "dog"] * 6
    learner(output="sigmoid", phases=TRAINED).fit(PICTURES, labels).save(tmp_path / "m")

    going_on = learner(output="sigmoid", start=tmp_path / "m").fit(PICTURES, labels)
    changed = learner(start=tmp_path / "m").fit(PICTURES, labels)

    assert "trunk and head" in going_on.warnings_[0]
    assert "the head is new" in changed.warnings_[0]


def test_the_source_task_helps_the_target_task_through_the_trunk_alone(source, folder):
    """A frozen trunk gives the features that the source task has shaped."""
    labels = ["x", "y"] * 6
    target = learner(start=folder, phases=[Phase(epochs=2)]).fit(PICTURES, labels)

    assert same_trunk(target, source)
    assert target.backbone_.weights.sha256 == source.backbone_.weights.sha256
    assert target.backbone_.weights.sha256 != build(SMALL).weights.sha256
    assert np.allclose(
        target.backbone_.embed(PICTURES), source.backbone_.embed(PICTURES), atol=1e-5
    )


def test_activations_of_the_weights_before_are_not_taken_for_those_of_the_start(folder, tmp_path):
    cache = tmp_path / "cache"
    phases = [Phase(epochs=1)]
    learner(phases=phases, cache=cache).fit(PICTURES, LABELS)

    going_on = learner(phases=phases, cache=cache, start=folder).fit(PICTURES, LABELS)

    assert going_on.embedding_stats_.embedded == len(PICTURES)


def test_a_classifier_on_features_gives_its_trunk(tmp_path):
    features = FeatureClassifier(
        SMALL, classifier="knn", compute=Compute(engine="torch", cache=None)
    )
    features.fit(PICTURES, LABELS).save(tmp_path / "features")

    started = learner(backbone=OTHER_SEED, start=tmp_path / "features").fit(PICTURES, LABELS)

    assert same_trunk(started, learner().fit(PICTURES, LABELS))
    assert started.warnings_ == ("started from the trunk of features; the head is new",)


def test_a_started_model_is_saved_with_what_it_has_learned(folder, tmp_path):
    going_on = learner(head="mlp_256", start=folder, phases=TRAINED).fit(PICTURES, LABELS)
    going_on.save(tmp_path / "second")

    third = learner(head="mlp_256", start=tmp_path / "second").fit(PICTURES, LABELS)

    assert same_trunk(third, going_on)
    assert same_head(third, going_on)


def test_the_model_that_was_started_from_stays_as_it_is(source, folder):
    before = source.predict_proba(PICTURES)

    learner(head="mlp_256", start=folder, phases=TRAINED).fit(PICTURES, LABELS)

    assert np.array_equal(source.predict_proba(PICTURES), before)


@pytest.mark.parametrize(
    "backbone",
    [
        BackboneSpec("selu_cnn", weights=None, arguments=(("size", 64),)),
        BackboneSpec("mobilenet_v2", weights=None, arguments=(("size", 48),)),
    ],
    ids=str,
)
def test_another_network_is_refused(folder, backbone):
    with pytest.raises(UsageError, match="another network") as caught:
        learner(backbone=backbone, start=folder).fit(PICTURES, LABELS)

    assert "simple_cnn" in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)),
        BackboneSpec("simple_cnn", weights=None, preprocessing=Preprocessing.caffe(32)),
    ],
    ids=["size", "channels"],
)
def test_another_preprocessing_is_refused(folder, spec):
    with pytest.raises(UsageError, match="another preprocessing") as caught:
        learner(backbone=spec, start=folder).fit(PICTURES, LABELS)

    assert "32" in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match="nothing here"):
        learner(start=tmp_path / "nothing here").fit(PICTURES, LABELS)


def test_a_damaged_model_is_refused(folder, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    weights = max(damaged.rglob("*.safetensors"), key=lambda file: file.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))

    with pytest.raises(ModelError):
        learner(start=damaged).fit(PICTURES, LABELS)
