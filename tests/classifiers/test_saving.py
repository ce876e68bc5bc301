"""A saved learner answers the same anywhere, whatever it learned, or says why it cannot."""

import copy
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from regraft.backbones import catalog
from regraft.backbones.backbone import build
from regraft.backbones.catalog import register_backbone
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.own import SimpleCNN
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.model_files import ARRAYS, BACKBONE, FORMAT, MANIFEST, RECORD
from regraft.classifiers.network_classifier import load_model, save_model
from regraft.data.images import Decoding
from regraft.errors import RegraftError
from regraft.files import read_json, sha256_file, write_json
from regraft.training.heads import ConvHead, LinearHead, MLPHead, find_head
from regraft.training.phases import Phase, fine_tune, frozen
from samples import learner as network_learner
from samples import refused

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 80),))
DARK, GREY, LIGHT = (np.full((32, 32, 3), shade, np.uint8) for shade in (20, 120, 220))
TWO = [DARK, LIGHT] * 3, ["night", "day"] * 3
THREE = [DARK, GREY, LIGHT] * 2, ["night", "dusk", "day"] * 2


def features(spec=SMALL, *, decoding=Decoding(), **changes):
    return FeatureClassifier(
        spec,
        compute=Compute(engine="torch", decoding=decoding),
        **({"classifier": "knn"} | changes),
    )


def network(spec=SMALL, **changes):
    return network_learner(spec, **{"phases": fine_tune(1, lr=1e-2), "batch_size": 4, **changes})


@pytest.fixture(scope="module")
def fitted():
    """Return a fitted learner of both kinds."""
    head = MLPHead(widths=(7,), pooling="avg", batch_norm=True)
    return {
        "features": features(classifier="logistic").fit(*THREE),
        "network": network(head=head).fit(*THREE),
    }


@pytest.fixture(params=["features", "network"])
def learner(fitted, request):
    return fitted[request.param]


@pytest.fixture
def model(learner, tmp_path):
    learner.save(tmp_path / "model")
    return tmp_path / "model"


def change(model, edit):
    """Edit the record and write a manifest that agrees with it."""
    record = read_json(model / RECORD)
    edit(record)
    (model / RECORD).write_text(json.dumps(record))
    names = [file.name for file in model.iterdir() if file.name != MANIFEST]
    hashes = {name: sha256_file(model / name) for name in names}
    write_json(model / MANIFEST, {"format": FORMAT, "files": hashes})


def store(path, seed):
    write_state(path, build(dataclasses.replace(SMALL, seed=seed)).module.state_dict())
    return path


def answers_alike(model, learner, asked=THREE[0], **arguments):
    loaded = load_model(model, **arguments)
    assert np.array_equal(loaded.predict_proba(asked), learner.predict_proba(asked))
    return loaded


# --- both learners


def test_a_loaded_learner_answers_to_the_bit_and_can_be_saved_again(learner, model, tmp_path):
    loaded = answers_alike(model, learner)

    assert type(loaded) is type(learner)
    assert loaded.predict(THREE[0]).tolist() == learner.predict(THREE[0]).tolist()
    assert loaded.classes_.tolist() == ["day", "dusk", "night"]
    assert loaded.history_ == learner.history_
    assert loaded.warnings_ == learner.warnings_
    assert loaded.backbone_.fingerprint == learner.backbone_.fingerprint
    assert loaded.backbone_.weights.sha256 == learner.backbone_.weights.sha256
    save_model(loaded, tmp_path / "again")
    answers_alike(tmp_path / "again", learner)


@pytest.mark.parametrize("make", [features, network])
def test_preprocessing_decoding_and_settings_come_back(make, tmp_path):
    spec = dataclasses.replace(SMALL, preprocessing=Preprocessing.caffe(48), arguments=())
    decoding = Decoding(background=(1, 2, 3))
    make(spec, decoding=decoding, seed=3).fit(*TWO).save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    assert loaded.backbone_.preprocessing == Preprocessing.caffe(48)
    assert loaded.compute.decoding == decoding


def test_another_preprocessing_is_refused_and_the_own_one_is_not(learner, model):
    own = learner.backbone_.preprocessing

    other = refused(load_model, model, preprocessing=Preprocessing.torch(96))
    assert other.code == "MODEL-PREPROCESSING"
    assert load_model(model, preprocessing=own).backbone_.preprocessing == own


@pytest.mark.parametrize("make", [features, lambda spec: network(spec, phases=frozen(1))])
def test_without_its_backbone_a_model_asks_for_the_very_same_weights(make, tmp_path):
    file, other = store(tmp_path / "secret.st", 5), store(tmp_path / "other.safetensors", 6)
    file = file.rename(tmp_path / "secret.safetensors")
    learner = make(dataclasses.replace(SMALL, weights=str(file))).fit(*THREE)
    model = tmp_path / "model"
    learner.save(model, with_backbone=False)

    assert not (model / BACKBONE).exists()
    assert str(tmp_path) not in (model / RECORD).read_text()
    missing = refused(load_model, model)
    assert missing.code == "MODEL-WEIGHTS"
    assert "load_model(folder, weights=FILE)" in str(missing)
    assert refused(load_model, model, weights=other).code == "MODEL-WEIGHTS"
    answers_alike(model, learner, weights=file)


@pytest.mark.parametrize("make", [features, network])
def test_weights_of_this_machine_travel(make, tmp_path, monkeypatch):
    file = store(tmp_path / "net.safetensors", 5)
    import_weights(file, name="mine", backbone="simple_cnn", preprocessing=Preprocessing.torch(80))
    for spec in (dataclasses.replace(SMALL, weights=str(file)), BackboneSpec("mine")):
        learner = make(spec).fit(*THREE)
        expected = learner.predict_proba(THREE[0])
        learner.save(tmp_path / "model")

        with monkeypatch.context() as patch:
            patch.setenv("REGRAFT_HOME", str(tmp_path / "elsewhere"))
            loaded = load_model(tmp_path / "model")
            assert np.array_equal(loaded.predict_proba(THREE[0]), expected)

        assert loaded.backbone_.spec.name.removeprefix("regraft:") == "simple_cnn"
        assert str(tmp_path) not in (tmp_path / "model" / RECORD).read_text()


def test_arrays_of_no_part_are_refused(model):
    from safetensors.numpy import load_file, save_file

    save_file({**load_file(model / ARRAYS), "more.coef": np.zeros(2)}, model / ARRAYS)
    change(model, lambda _record: None)

    assert "more.coef" in refused(load_model, model).why


# --- a classifier on features


@pytest.mark.parametrize("scale", ["none", "unit", "columns", "principal"])
def test_the_scaling_is_saved_too(tmp_path, scale):
    learner = features(classifier="linear_svm", scale=scale).fit(*THREE)
    learner.save(tmp_path / "model")

    answers_alike(tmp_path / "model", learner)


def test_a_loaded_classifier_shares_the_cache_and_has_no_estimator(fitted, tmp_path):
    fitted["features"].predict(THREE[0])  # every test has a cache of its own
    fitted["features"].save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    loaded.predict(THREE[0])

    assert loaded.embedding_stats_.embedded == 0
    assert loaded.classifier_ is None


def test_a_classifier_that_cannot_be_saved_is_refused_with_the_reason(tmp_path):
    learner = features(classifier=SVC()).fit(*THREE)

    error = refused(learner.save, tmp_path / "model")

    assert not learner.can_be_saved_
    assert learner.warnings_ == ("the model cannot be saved: SVC gives no probabilities",)
    assert error.code == "MODEL-UNSAVEABLE"
    assert not (tmp_path / "model").exists()


# --- a network


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": fine_tune(1, unfreeze=0.4)},
        {"phases": frozen(1), "precision": "bf16"},
        {"phases": frozen(1), "engine": "auto"},
        {"phases": [Phase(epochs=0)], "head": ConvHead(dropout=0.5)},
        {"phases": None, "augment": "flip=true", "views": 1, "regularize": "dropout=0.3,clip=1"},
        {"phases": fine_tune(1), "class_weight": {"day": 2.0, "night": 1.0}, "output": "sigmoid"},
        {"phases": frozen(1), "head": MLPHead(widths=(4, 3), activation="selu", dropout=(0, 0.5))},
        {"phases": fine_tune(1), "head": LinearHead(pooling="flatten"), "output": "sigmoid"},
        {
            "phases": [Phase(epochs=np.int64(1), unfreeze=0.5, lr=np.float32(0.01))],
            "class_weight": {"day": np.float32(2.0)},
            "seed": np.int32(3),
        },
    ],
    ids=str,
)
def test_every_head_and_execution_mode_comes_back_to_the_bit(tmp_path, changes):
    learner = network(**changes).fit(*TWO, checkpoints=tmp_path / "checkpoints")
    learner.save(tmp_path / "model")

    loaded = answers_alike(tmp_path / "model", learner, [*TWO[0], GREY])

    assert loaded.head == find_head(changes.get("head", "linear")) or "regularize" in changes
    assert (loaded.batch_size, loaded.seed) == (4, changes.get("seed", 0))
    assert loaded.history_["phases"] == json.loads(json.dumps(learner.history_["phases"]))
    assert not any(part.training for part in loaded.network_.modules())


def test_a_trained_trunk_is_never_left_out(fitted, tmp_path):
    fitted["network"].save(tmp_path / "first")
    started = network(phases=frozen(1), start=tmp_path / "first").fit(*TWO)

    for learner in (fitted["network"], load_model(tmp_path / "first"), started):
        error = refused(learner.save, tmp_path / "model", with_backbone=False)
        assert "exists nowhere else" in str(error)

    assert not (tmp_path / "model").exists()
    started.save(tmp_path / "model")
    answers_alike(tmp_path / "model", started)


def test_a_trained_network_of_your_own_travels_too(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "registered", {})
    own = Preprocessing.torch(48)
    register_backbone("my_net", SimpleCNN, preprocessing=own, features="features")
    for learner in (network("my_net"), features("my_net")):
        learner.fit(*TWO).save(tmp_path / "model")

        loaded = answers_alike(tmp_path / "model", learner, TWO[0])

        assert loaded.backbone_.fingerprint == learner.backbone_.fingerprint


class OwnHead:
    """A head that Regraft does not know."""

    def build(self, shape, outputs, *, pool):
        """Return the head."""
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(outputs))


def test_a_head_of_your_own_is_not_saved(fitted, tmp_path):
    stranger = copy.copy(fitted["network"])
    stranger.head = OwnHead()

    error = refused(stranger.save, tmp_path / "model")

    assert error.code == "MODEL-UNSAVEABLE"
    assert "MLPHead" in error.hint
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head", "linear"),
        ("phases", [Phase(epochs=3)]),
        ("output", "sigmoid"),
        ("start", "elsewhere"),
        ("regularize", "dropout=0.5"),
        ("batch_size", 7),
        ("seed", 7),
        ("compute", Compute(decoding=Decoding(background=(1, 2, 3)))),
        ("compute", Compute(precision="bf16")),
    ],
)
def test_a_network_whose_parameters_were_changed_since_the_fit_is_not_saved(
    fitted, tmp_path, name, value
):
    changed = copy.copy(fitted["network"]).set_params(**{name: value})

    error = refused(changed.save, tmp_path / "model")

    assert error.code == "USAGE-REFIT"
    assert re.search("decoding|precision" if name == "compute" else name, str(error))
    assert not (tmp_path / "model").exists()


# --- records that were tampered with


def put(path, value):
    """Return an edit that puts a value at a path of keys."""

    def edit(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return edit


EITHER = {
    "classes": (["a", "b"], ["a", "a", "b"], [1, 2, 3]),
    "extra": (1,),
    "compute.engine": ("trojan",),
    "backbone.feature_dim": (64, 10**15),
    "backbone.preprocessing.size": (10**9,),
    "backbone.weights.sha256": ("0" * 64,),
    "backbone.spec.name": ("../../etc/passwd", "selu_cnn"),
    "backbone.spec.arguments": ([["num_classes", 10**12]], [["checkpoint_path", "x"]]),
}
TAMPERED = {
    "features": EITHER
    | {
        "shallow": (None,),
        "shallow.model.kind": ("trojan", "neighbours", "onnx"),
        "backbone.spec.pooling": ("flatten",),
    },
    "network": EITHER
    | {
        "network": (None,),
        "network.head.kind": ("trojan", "linear"),
        "network.head.widths": ([8], [10**12], [900_000], [1] * 1000),
        "network.head.batch_norm": (False,),
        "network.output": ("sigmoid",),
        "network.phases": ([{"epochs": -1}], [{"trojan": 1}]),
        "network.batch_size": (0,),
        "history": ({},),
        "history.phases": (
            [{"mode": "cached", "boundary": None}],
            [{"mode": "cached", "boundary": {"stage": "no such stage"}}],
        ),
    },
}
OF_WEIGHTS = ("backbone.weights", "backbone.spec")  # what names another network


@pytest.mark.parametrize(
    ("kind", "path"), [(kind, path) for kind, paths in TAMPERED.items() for path in paths]
)
def test_a_record_that_was_tampered_with_is_refused(fitted, tmp_path, kind, path):
    for value in TAMPERED[kind][path]:
        fitted[kind].save(tmp_path / "model")
        change(tmp_path / "model", put(path.split("."), value))

        expected = {"MODEL-CORRUPT", "MODEL-WEIGHTS" if path.startswith("backbone") else ""}
        code = refused(load_model, tmp_path / "model").code
        assert code in expected, value
        if path.startswith(OF_WEIGHTS) and "num_classes" not in str(value):
            assert code == "MODEL-WEIGHTS", value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value, path=()):
    """Return the path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items:
        found.append((*path, key))
        if isinstance(inner, dict | list):
            found += places(inner, (*path, key))
    return found


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_record_never_ends_in_another_error_than_ours(model, data):
    original = read_json(model / RECORD)
    where = data.draw(st.sampled_from(places(original)))

    def mutate(record):
        for key in where[:-1]:
            record = record[key]
        if data.draw(st.booleans()) or isinstance(record, list):
            record[where[-1]] = data.draw(VALUES)
        else:
            del record[where[-1]]

    change(model, mutate)
    try:
        load_model(model).predict(THREE[0][:1])
    except RegraftError:
        pass
    finally:
        change(model, lambda record: (record.clear(), record.update(copy.deepcopy(original))))
