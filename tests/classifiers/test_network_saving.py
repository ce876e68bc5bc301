"""A saved network answers the same anywhere, whatever its head, or says why it cannot."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from regraft.classifiers.model_folder import ARRAYS, BACKBONE, FORMAT, MANIFEST, RECORD
from sklearn.exceptions import NotFittedError

from regraft.backbones import catalog
from regraft.backbones.backbone import build
from regraft.backbones.catalog import register_backbone
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.classifiers.saving import load_model, refuse_unsaveable
from regraft.data.images import Decoding
from regraft.errors import ModelError, RegraftError, UsageError
from regraft.files import read_json, sha256_file, write_json
from regraft.training.heads import ConvHead, LinearHead, MLPHead
from regraft.training.phases import Phase, fine_tune, frozen

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
DARK, GREY, LIGHT = (np.full((32, 32, 3), shade, np.uint8) for shade in (20, 120, 220))
TWO = [DARK, LIGHT] * 3, ["night", "day"] * 3
THREE = [DARK, GREY, LIGHT] * 2, ["night", "dusk", "day"] * 2


def learner(**changes):
    chosen = {"phases": fine_tune(1, lr=1e-2), "device": "cpu", "engine": "torch", **changes}
    how = {name: chosen.pop(name) for name in Compute.__dataclass_fields__ if name in chosen}
    chosen["compute"] = Compute(**how)
    return NetworkClassifier(chosen.pop("backbone", SMALL), batch_size=4, **chosen)


@pytest.fixture(scope="module")
def trained():
    return learner(head=MLPHead(widths=(7,), pooling="avg", batch_norm=True)).fit(*THREE)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    trained.save(folder)
    return folder


@pytest.fixture
def model(trained, tmp_path):
    trained.save(tmp_path / "model")
    return tmp_path / "model"


def change(model, edit):
    """Edit the record and write a manifest that agrees with it."""
    record = read_json(model / RECORD)
    edit(record)
    (model / RECORD).write_text(json.dumps(record))
    names = [name for name in (RECORD, ARRAYS, BACKBONE) if (model / name).exists()]
    write_json(
        model / MANIFEST,
        {"format": FORMAT, "files": {name: sha256_file(model / name) for name in names}},
    )


def refused(model, **arguments):
    with pytest.raises(ModelError) as error:
        load_model(model, **arguments)
    return error.value


def test_a_loaded_network_answers_to_the_bit(trained, saved):
    loaded = load_model(saved)

    assert isinstance(loaded, NetworkClassifier)
    assert np.array_equal(loaded.predict_proba(THREE[0]), trained.predict_proba(THREE[0]))
    assert loaded.predict(THREE[0]).tolist() == trained.predict(THREE[0]).tolist()
    assert loaded.classes_.tolist() == ["day", "dusk", "night"]
    assert loaded.history_ == trained.history_
    assert loaded.warnings_ == trained.warnings_
    assert loaded.phases == trained.phases
    assert loaded.head == trained.head


def test_the_trained_trunk_comes_back_exactly_with_its_fingerprint_and_licence(trained, saved):
    loaded = load_model(saved)

    own, back = trained.backbone_.module.state_dict(), loaded.backbone_.module.state_dict()
    assert all(torch.equal(own[name], back[name]) for name in own)
    assert loaded.backbone_.fingerprint == trained.backbone_.fingerprint
    assert loaded.backbone_.weights == trained.backbone_.weights
    assert not any(part.training for part in loaded.network_.modules())


def test_numbers_of_numpy_are_numbers_in_checkpoints_and_models(tmp_path):
    numbers = NetworkClassifier(
        SMALL,
        phases=[Phase(epochs=np.int64(1), unfreeze=0.5, lr=np.float32(0.01))],
        augment="standard",
        views=np.int64(2),
        batch_size=np.int64(4),
        seed=np.int32(3),
        class_weight={"day": np.float32(2.0)},
        compute=Compute(device="cpu", engine="torch"),
    )

    numbers.fit(*TWO, checkpoints=tmp_path / "checkpoints").save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")
    assert np.array_equal(loaded.predict_proba(TWO[0]), numbers.predict_proba(TWO[0]))
    assert (loaded.batch_size, loaded.seed) == (4, 3)
    assert loaded.history_ == numbers.history_


def test_a_loaded_network_can_be_saved_again(saved, tmp_path):
    first = load_model(saved)

    first.save(tmp_path / "again")

    again = load_model(tmp_path / "again")
    assert np.array_equal(again.predict_proba(THREE[0]), first.predict_proba(THREE[0]))
    with pytest.raises(UsageError, match="trained"):
        again.save(tmp_path / "without", with_backbone=False)


WIDTHS = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
SHARES = st.floats(0, 0.9, allow_nan=False)
HEADS = st.one_of(
    st.builds(LinearHead, pooling=st.sampled_from(["avg", "flatten"]), dropout=SHARES),
    st.builds(ConvHead, dropout=SHARES),
    WIDTHS.flatmap(
        lambda widths: st.builds(
            MLPHead,
            widths=st.just(widths),
            pooling=st.sampled_from(["avg", "flatten", "average_2x2"]),
            activation=st.sampled_from(["relu", "gelu", "selu", "tanh"]),
            dropout=SHARES | st.tuples(*[SHARES] * len(widths)),
            batch_norm=st.booleans(),
        )
    ),
)


@given(head=HEADS, output=st.sampled_from(["softmax", "sigmoid"]), trunk=st.booleans())
@settings(
    max_examples=10,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_own_head_comes_back_to_the_bit(tmp_path, head, output, trunk):
    phases = fine_tune(1) if trunk else frozen(1)
    fitted = learner(head=head, output=output, phases=phases).fit(*TWO)

    fitted.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")

    assert loaded.head == head
    assert np.array_equal(loaded.predict_proba(TWO[0]), fitted.predict_proba(TWO[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": fine_tune(1, unfreeze=0.4), "boundary": "float16"},
        {"phases": frozen(1), "precision": "bf16"},
        {"phases": frozen(1), "engine": "auto"},
        {"phases": fine_tune(1), "augment": "flip=true", "regularize": "dropout=0.3,clip=1"},
        {"phases": fine_tune(1), "class_weight": {"day": 2.0, "night": 1.0}, "output": "sigmoid"},
    ],
    ids=", ".join,
)
def test_every_way_of_training_comes_back_to_the_bit(tmp_path, changes):
    fitted = learner(**changes).fit(*TWO)

    fitted.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")

    asked = [*TWO[0], GREY]
    assert np.array_equal(loaded.predict_proba(asked), fitted.predict_proba(asked))
    assert loaded.history_["phases"] == json.loads(json.dumps(fitted.history_["phases"]))


def test_a_network_that_went_on_from_a_run_keeps_the_weights_it_started_with(saved, tmp_path):
    fitted = learner(phases=frozen(1), start=saved).fit(*TWO)

    with pytest.raises(UsageError, match="exist nowhere else"):
        fitted.save(tmp_path / "model", with_backbone=False)
    fitted.save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")
    assert np.array_equal(loaded.predict_proba(TWO[0]), fitted.predict_proba(TWO[0]))


def test_preprocessing_decoding_and_settings_come_back(tmp_path):
    spec = dataclasses.replace(SMALL, preprocessing=Preprocessing.caffe(32))
    decoding = Decoding(background=(1, 2, 3), float_range=(0.0, 2.0))
    fitted = learner(backbone=spec, decoding=decoding, seed=3, phases=None).fit(*TWO)

    fitted.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")

    assert loaded.backbone_.preprocessing == Preprocessing.caffe(32)
    assert (loaded.compute.decoding, loaded.seed, loaded.phases) == (decoding, 3, None)


def test_another_preprocessing_is_refused_and_the_own_one_is_not(trained, saved):
    own = trained.backbone_.preprocessing

    assert refused(saved, preprocessing=Preprocessing.torch(32)).code == "MODEL-PREPROCESSING"
    assert load_model(saved, preprocessing=own).backbone_.preprocessing == own


def test_a_trained_trunk_is_never_left_out(trained, tmp_path):
    with pytest.raises(UsageError, match="exist nowhere else"):
        trained.save(tmp_path / "model", with_backbone=False)

    assert not (tmp_path / "model").exists()


def test_a_frozen_trunk_may_be_left_out_and_is_asked_for_by_its_hash(tmp_path):
    file, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    for path, seed in ((file, 5), (other, 6)):
        built = build(dataclasses.replace(SMALL, seed=seed))
        write_state(path, built.module.state_dict())
    spec = dataclasses.replace(SMALL, weights=str(file))
    fitted = learner(backbone=spec, phases=frozen(1)).fit(*TWO)
    model = tmp_path / "model"

    fitted.save(model, with_backbone=False)

    assert not (model / BACKBONE).exists()
    assert str(tmp_path) not in (model / RECORD).read_text()
    assert refused(model).code == "MODEL-WEIGHTS"
    assert refused(model, weights=other).code == "MODEL-WEIGHTS"
    loaded = load_model(model, weights=file)
    assert np.array_equal(loaded.predict_proba(TWO[0]), fitted.predict_proba(TWO[0]))


def test_a_trained_network_of_your_own_travels_too(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_registered", {})
    register_backbone("my_net", lambda spec: build(dataclasses.replace(SMALL, seed=spec.seed)))
    fitted = learner(backbone="my_net").fit(*TWO)
    fitted.save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    assert np.array_equal(loaded.predict_proba(TWO[0]), fitted.predict_proba(TWO[0]))
    assert loaded.backbone_.fingerprint == fitted.backbone_.fingerprint


class OwnHead:
    """A head that Regraft does not know."""

    def build(self, shape, outputs, *, pool):
        """Return the head."""
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(outputs))


def test_a_head_of_your_own_is_refused_before_training_and_when_saved(trained, tmp_path):
    stranger = copy.copy(trained)
    stranger.head = OwnHead()

    with pytest.raises(ModelError, match="OwnHead") as before:
        refuse_unsaveable(learner(head=OwnHead()))
    with pytest.raises(ModelError, match="OwnHead") as after:
        stranger.save(tmp_path / "model")

    assert before.value.code == after.value.code == "MODEL-UNSAVEABLE"
    assert "MLPHead" in before.value.hint
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head", "linear"),
        ("phases", [Phase(epochs=3)]),
        ("output", "sigmoid"),
        ("start", "elsewhere"),
        ("regularize", "dropout=0.5"),
        ("compute", Compute(decoding=Decoding(background=(1, 2, 3)))),
    ],
)
def test_a_network_whose_parameters_were_changed_since_the_fit_is_not_saved(
    trained, tmp_path, name, value
):
    changed = copy.copy(trained).set_params(**{name: value})

    named = "decoding" if name == "compute" else name
    with pytest.raises(UsageError, match=named) as caught:
        changed.save(tmp_path / "model")

    assert caught.value.code == "USAGE-REFIT"
    assert not (tmp_path / "model").exists()


def test_what_only_says_where_it_runs_may_change_before_it_is_saved(trained, tmp_path):
    copy.copy(trained).set_params(compute=Compute(), verbose=True).save(tmp_path / "model")

    assert (tmp_path / "model").exists()


def test_an_unfitted_network_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        learner().save(tmp_path / "model")


def put(path, value):
    """Return an edit that puts a value at a path of keys."""

    def edit(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (["learner"], "Trojan", "MODEL-UNKNOWN"),
        (["learner"], "FeatureClassifier", "MODEL-CORRUPT"),
        (["classes"], ["a", "b"], "MODEL-CORRUPT"),
        (["classes"], ["a", "a", "b"], "MODEL-CORRUPT"),
        (["extra"], 1, "MODEL-CORRUPT"),
        (["head", "kind"], "trojan", "MODEL-CORRUPT"),
        (["head", "kind"], "linear", "MODEL-CORRUPT"),
        (["head", "widths"], [8], "MODEL-CORRUPT"),
        (["head", "widths"], [10**12], "MODEL-CORRUPT"),
        (["head", "widths"], [900_000], "MODEL-CORRUPT"),
        (["head", "widths"], [1] * 1000, "MODEL-CORRUPT"),
        (["head", "widths"], 7, "MODEL-CORRUPT"),
        (["head", "widths"], ["seven"], "MODEL-CORRUPT"),
        (["head", "pooling"], "flatten", "MODEL-CORRUPT"),
        (["head", "activation"], "trojan", "MODEL-CORRUPT"),
        (["head", "dropout"], "half", "MODEL-CORRUPT"),
        (["head", "batch_norm"], False, "MODEL-CORRUPT"),
        (["output"], "sigmoid", "MODEL-CORRUPT"),
        (["output"], "trojan", "MODEL-CORRUPT"),
        (["phases"], [{"epochs": -1}], "MODEL-CORRUPT"),
        (["phases"], [{"trojan": 1}], "MODEL-CORRUPT"),
        (["history"], {}, "MODEL-CORRUPT"),
        (["history", "phases"], [{"mode": "trojan", "boundary": None}], "MODEL-CORRUPT"),
        (["history", "phases"], [{"mode": "cached", "boundary": None}], "MODEL-CORRUPT"),
        (
            ["history", "phases"],
            [{"mode": "cached", "boundary": {"stage": "no such stage", "dtype": "float32"}}],
            "MODEL-CORRUPT",
        ),
        (["batch_size"], 0, "MODEL-CORRUPT"),
        (["seed"], -1, "MODEL-CORRUPT"),
        (["backbone", "feature_dim"], 64, "MODEL-WEIGHTS"),
        (["backbone", "preprocessing", "size"], 10**9, "MODEL-CORRUPT"),
        (["backbone", "weights", "sha256"], "0" * 64, "MODEL-WEIGHTS"),
        (["backbone", "spec", "name"], "../../etc/passwd", "MODEL-WEIGHTS"),
        (["backbone", "spec", "name"], "simple_cnn", "MODEL-WEIGHTS"),
        (["backbone", "spec", "weights"], "/etc/passwd", "MODEL-CORRUPT"),
        (["backbone", "spec", "arguments"], {"num_classes": 10**12}, "MODEL-CORRUPT"),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(model, path, value, code):
    change(model, put(path, value))

    assert refused(model).code == code


def test_tensors_that_are_no_part_of_the_head_are_refused(model):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(model / ARRAYS)
    save_file({**arrays, "classifier.coef": np.zeros(2)}, model / ARRAYS)
    change(model, lambda _record: None)

    assert "classifier.coef" in refused(model).why


def test_a_changed_trunk_fails_its_checksum(model):
    content = bytearray((model / BACKBONE).read_bytes())
    content[-1] ^= 1
    (model / BACKBONE).write_bytes(content)

    assert refused(model).code == "MODEL-CHECKSUM"


def test_a_head_that_is_not_finite_is_refused(model):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(model / ARRAYS)
    next(array for array in arrays.values() if array.dtype == np.float32).flat[0] = np.nan
    save_file(arrays, model / ARRAYS)
    change(model, lambda _record: None)

    assert refused(model).code == "MODEL-NAN"


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
@settings(
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
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


def test_a_network_without_phases_is_a_new_head_on_its_trunk(tmp_path):
    fitted = learner(phases=[Phase(epochs=0)]).fit(*TWO)
    fitted.save(tmp_path / "model", with_backbone=False)

    loaded = load_model(tmp_path / "model")

    assert np.array_equal(loaded.predict_proba(TWO[0]), fitted.predict_proba(TWO[0]))
