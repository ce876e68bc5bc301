"""The second learner: names in and out, same seed same bits, and honest about its weights."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from regraft.backbones.backbone import build
from regraft.backbones.network import state_sha256
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.data.dataset import Dataset
from regraft.data.images import open_image
from regraft.training.heads import MLPHead
from regraft.training.phases import Phase, from_scratch, frozen, two_stage
from samples import COLOURS, SMALL, refused
from samples import learner as any_learner

QUICK = from_scratch(2)


def learner(**changes):
    return any_learner(**{"phases": QUICK, **changes})


@pytest.fixture(scope="module")
def train(images):
    return images[0]


@pytest.fixture(scope="module")
def held(images):
    return images[1]


@pytest.fixture(scope="module")
def validation(held):
    paths, labels = held
    return Dataset(tuple(paths), tuple(labels), COLOURS)


@pytest.fixture(scope="module")
def trained(train, validation):
    """Return a network that has learned three colours, in two stages."""
    phases = two_stage(14, head_epochs=2, unfreeze=1.0, lr=3e-3)
    return learner(phases=phases).fit(*train, validation=validation)


def test_names_go_in_and_names_come_out(trained, held):
    probabilities = trained.predict_proba(held[0])
    named = trained.predict(held[0])

    assert named.tolist() == held[1]  # colours are easy to tell apart
    assert trained.classes_.tolist() == ["blue", "green", "red"]
    assert probabilities.shape == (9, 3)
    assert np.allclose(probabilities.sum(1), 1.0, atol=1e-12)
    assert (trained.classes_[probabilities.argmax(1)] == named).all()


def test_the_same_seed_predicts_the_same_bits_and_another_seed_others(train, held):
    head = MLPHead(widths=(8,), pooling="avg", dropout=0.5)
    first, second, other = (learner(head=head, seed=s).fit(*train) for s in (1, 1, 2))

    probabilities = first.predict_proba(held[0])
    assert np.array_equal(probabilities, second.predict_proba(held[0]))
    assert not np.array_equal(probabilities, other.predict_proba(held[0]))
    assert np.array_equal(probabilities, first.fit(*train).predict_proba(held[0]))


class Column:
    """A shuffled column of a table: iterated over by position, looked up by label."""

    def __init__(self, values, labels):
        self._values = dict(zip(labels, values, strict=True))

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return iter(self._values.values())

    def __getitem__(self, label):
        return self._values[label]


@pytest.mark.parametrize("phases", [frozen(1), QUICK], ids=["kept", "live"])
def test_columns_of_a_shuffled_table_are_the_same_as_lists(phases, train, held, tmp_path):
    order = np.random.default_rng(0).permutation(len(train[0])).tolist()
    paths, labels = [[part[i] for i in order] for part in train]
    reversed_places = list(range(len(held[0])))[::-1]
    asked, truth = (Column(part, reversed_places) for part in held)
    plain, tabular = (learner(phases=phases, engine="torch", cache=tmp_path) for _ in range(2))

    plain.fit(paths, labels, validation=SimpleNamespace(paths=held[0], labels=held[1]))
    assert plain.embedding_stats_.images == len(paths) + len(held[0])
    tabular.fit(
        Column(paths, order),
        Column(labels, order),
        validation=SimpleNamespace(paths=asked, labels=truth),
    )

    assert state_sha256(tabular.network_) == state_sha256(plain.network_)
    assert np.array_equal(tabular.predict_proba(asked), plain.predict_proba(held[0]))
    assert "not a list of images" in str(refused(plain.predict, held[0][0]))


def test_it_is_cloned_and_crossvalidated_as_any_learner(train):
    original = learner(phases=two_stage(1, head_epochs=1), seed=3, head="mlp_256")

    copy = clone(original)

    assert copy.get_params() == original.get_params()
    assert copy.set_params(seed=4).seed == 4
    assert original.seed == 3
    scores = cross_val_score(learner(), np.array([str(p) for p in train[0]]), train[1], cv=2)
    assert scores.shape == (2,)


def test_a_fit_that_fails_leaves_nothing_that_predicts(train):
    broken = learner(phases=[Phase(epochs=1, optimizer="sgd", lr=1e30, unfreeze=1.0)])

    assert refused(broken.fit, *train).code == "TRAIN-NAN"
    with pytest.raises(NotFittedError):
        broken.predict(train[0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", 2], "found 2 of type int"),
        (np.array([0, 1]), "names"),
        (["a"], "2 images, 1 labels"),
        (["a", "a"], "found ['a']"),
    ],
)
def test_labels_are_names_of_two_classes_or_more(labels, message):
    assert message in str(refused(learner().fit, [np.zeros((8, 8, 3), np.uint8)] * 2, labels))


def test_an_unknown_class_in_validation_is_an_error_that_names_all(train, held):
    other = Dataset(paths=tuple(held[0][:1]), labels=("mauve",), classes=("mauve",))

    error = refused(learner().fit, *train, validation=other)

    assert "unknown mauve; known blue, green, red" in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "mlp"}, "unknown head"),
        ({"batch_size": 1}, "batch_size cannot be 1"),
        ({"device": "gpu"}, "unknown device"),
        ({"views": 1.5, "augment": "standard"}, "views cannot be 1.5"),
        ({"phases": [Phase(unfreeze_from="top")]}, "no stage 'top'"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(train, changes, message):
    assert message in str(refused(learner(**changes).fit, *train))


def test_history_is_plain_json_with_one_record_per_phase_and_epoch(trained):
    history = trained.history_

    assert json.loads(json.dumps(history)) == history
    first, second = history["phases"]
    assert [Phase(**phase["trained"]) for phase in (first, second)] == trained.phases
    assert [r["epoch"] for r in history["epochs"]] == [1, 2, *range(1, 15)]
    assert [r["phase"] for r in history["epochs"]] == [1] * 2 + [2] * 14
    assert second["last_epoch"] == 14
    assert 1 <= second["best_epoch"] <= 14
    head = 128 * 3 + 3
    whole = trained.backbone_.parameters + head
    assert (first["share_of_stages"], second["share_of_stages"]) == (0.0, 1.0)
    assert (first["parameters"], second["parameters"]) == (head, whole)
    assert (first["share_of_parameters"], second["share_of_parameters"]) == (head / whole, 1.0)


def test_a_frozen_trunk_keeps_its_weights_and_without_epochs_the_head_does_too(train):
    fitted = learner(phases=frozen(1)).fit(*train)

    untouched = build(SMALL)
    assert fitted.backbone_.weights.sha256 == untouched.weights.sha256
    assert fitted.backbone_.fingerprint == untouched.fingerprint
    none, zero = (learner(phases=phases).fit(*train) for phases in ([], frozen(0)))
    assert none.history_ == {"phases": [], "epochs": []}
    assert np.allclose(none.predict_proba(train[0]), zero.predict_proba(train[0]), atol=1e-5)


def test_features_of_trained_weights_are_never_those_of_the_weights_before(train, held):
    untrained = build(SMALL)
    before = untrained.embed(held[0])  # keeps a compiled network under its fingerprint

    fitted = learner().fit(*train)
    after = fitted.backbone_.embed(held[0])

    assert fitted.backbone_.fingerprint != untrained.fingerprint
    pixels = np.stack([untrained.prepare(open_image(path)) for path in held[0]])
    with torch.inference_mode():
        exact = fitted.backbone_.embedder(torch.from_numpy(pixels)).numpy()
    assert np.allclose(after, exact, atol=1e-4)
    assert not np.allclose(after, before, atol=1e-4)


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_is_used_where_the_processor_has_it_and_else_is_said(
    train, held, monkeypatch, supported
):
    monkeypatch.setattr("regraft.training.activations.has_bf16", lambda _device: supported)
    exact = learner().fit(*train).predict_proba(held[0])
    fitted = learner(precision="bf16").fit(*train)

    found = fitted.predict_proba(held[0])

    assert np.isfinite(found).all()
    assert np.array_equal(found, exact) == (not supported)
    said = "this cpu has no bf16 arithmetic; training uses fp32"
    assert (said in fitted.warnings_) == (not supported)


# --- starting from a saved model


OTHER_SEED = dataclasses.replace(SMALL, seed=5)
IMAGES = list(np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
LABELS = ["cat", "dog", "owl"] * 4
TRAINED = [Phase(unfreeze=1.0, epochs=2, lr=0.01)]


def started(**changes):
    return any_learner(**{"phases": [], "batch_size": 4, **changes})


@pytest.fixture(scope="module")
def source():
    """Return a network that was trained on the source task."""
    return started(phases=TRAINED, head="mlp_256").fit(IMAGES, LABELS)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "first run" / "model"
    source.save(place)
    return place


def same_trunk(one, other):
    return state_sha256(one.network_.trunk) == state_sha256(other.network_.trunk)


def same_head(one, other):
    return state_sha256(one.network_.head) == state_sha256(other.network_.head)


@pytest.mark.parametrize("inside", [True, False])
def test_the_same_task_goes_on_with_trunk_and_head(source, folder, inside):
    start = folder if inside else folder.parent  # a model, or the run that it is part of

    going_on = started(head="mlp_256", start=start, backbone=OTHER_SEED).fit(IMAGES, LABELS)

    assert same_trunk(going_on, source)
    assert same_head(going_on, source)
    assert np.allclose(going_on.predict_proba(IMAGES), source.predict_proba(IMAGES), atol=1e-6)
    assert going_on.warnings_ == (f"started from trunk and head of {start.name}",)


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
    target = started(head=head, start=folder, output=output).fit(IMAGES, labels)
    fresh = started(head=head, output=output).fit(IMAGES, labels)

    assert same_trunk(target, source)
    assert not same_trunk(target, fresh)
    assert same_head(target, fresh)
    assert target.classes_.tolist() == sorted(set(labels))
    (said,) = target.warnings_
    assert "the head is new" in said


def test_activations_of_the_weights_before_are_not_taken_for_those_of_the_start(
    source, folder, tmp_path
):
    cache = tmp_path / "cache"
    phases = [Phase(epochs=1)]
    started(phases=phases, cache=cache).fit(IMAGES, LABELS)

    going_on = started(phases=phases, cache=cache, start=folder).fit(IMAGES, LABELS)

    assert going_on.embedding_stats_.embedded == len(IMAGES)
    assert going_on.backbone_.weights.sha256 == source.backbone_.weights.sha256
    assert same_trunk(going_on, source)


def test_a_classifier_on_features_gives_its_trunk(tmp_path):
    features = FeatureClassifier(
        SMALL, classifier="knn", compute=Compute(engine="torch", cache=None)
    )
    features.fit(IMAGES, LABELS).save(tmp_path / "features")

    from_features = started(backbone=OTHER_SEED, start=tmp_path / "features").fit(IMAGES, LABELS)

    assert same_trunk(from_features, started().fit(IMAGES, LABELS))
    assert from_features.warnings_ == ("started from the trunk of features; the head is new",)


@pytest.mark.parametrize(
    "backbone",
    [
        BackboneSpec("selu_cnn", weights=None, arguments=(("size", 64),)),
        BackboneSpec("mobilenet_v2", weights=None, arguments=(("size", 48),)),
    ],
    ids=str,
)
def test_another_network_is_refused(folder, backbone):
    error = refused(started(backbone=backbone, start=folder).fit, IMAGES, LABELS)

    for said in ("another network", "simple_cnn", str(folder)):
        assert said in str(error)


@pytest.mark.parametrize(
    "spec",
    [
        BackboneSpec("simple_cnn", weights=None, arguments=(("size", 64),)),
        BackboneSpec("simple_cnn", weights=None, preprocessing=Preprocessing.caffe(48)),
    ],
    ids=["size", "channels"],
)
def test_another_preprocessing_is_refused(folder, spec):
    error = refused(started(backbone=spec, start=folder).fit, IMAGES, LABELS)

    assert "another preprocessing" in str(error)
    assert "48 px" in str(error)
