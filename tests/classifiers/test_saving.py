"""A saved learner answers the same anywhere, or says why it cannot."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from regraft.classifiers.model_folder import ARRAYS, BACKBONE, FORMAT, MANIFEST, RECORD
from sklearn.exceptions import NotFittedError
from sklearn.svm import SVC

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.saving import can_save, load_model
from regraft.data.images import Decoding
from regraft.errors import ModelError, RegraftError, UsageError
from regraft.files import read_json, sha256_file, write_json


@pytest.fixture(scope="module")
def learner(spec, pictures):
    (paths, labels), _ = pictures
    return FeatureClassifier(spec, compute=Compute(engine="torch")).fit(paths, labels)


@pytest.fixture
def model(learner, tmp_path):
    learner.save(tmp_path / "model")
    return tmp_path / "model"


def change(model, edit):
    """Edit the record and write a manifest that agrees with it."""
    record = read_json(model / RECORD)
    edit(record)
    (model / RECORD).write_text(json.dumps(record))
    names = [name for name in (RECORD, ARRAYS, BACKBONE) if (model / name).exists()]
    hashes = {name: sha256_file(model / name) for name in names}
    write_json(model / MANIFEST, {"format": FORMAT, "files": hashes})


def refused(model, **arguments):
    with pytest.raises(ModelError) as error:
        load_model(model, **arguments)
    return error.value


def test_a_loaded_learner_answers_to_the_bit_and_shares_the_cache(learner, model, pictures):
    _, (asked, _) = pictures
    expected = learner.predict_proba(asked)

    loaded = load_model(model)

    assert np.array_equal(loaded.predict_proba(asked), expected)
    assert loaded.embedding_stats_.embedded == 0
    assert loaded.classes_.tolist() == learner.classes_.tolist()
    assert loaded.history_ == learner.history_
    assert loaded.classifier_ is None


def test_a_loaded_learner_can_be_saved_again(model, pictures, tmp_path):
    _, (asked, _) = pictures
    first = load_model(model)

    first.save(tmp_path / "again")

    assert np.array_equal(
        load_model(tmp_path / "again").predict_proba(asked), first.predict_proba(asked)
    )


@pytest.mark.parametrize("scale", ["none", "unit", "columns", "principal"])
def test_the_scaling_is_saved_too(spec, pictures, tmp_path, scale):
    (paths, labels), (asked, _) = pictures
    learner = FeatureClassifier(
        spec, classifier="linear_svm", scale=scale, compute=Compute(engine="torch")
    )
    learner.fit(paths, labels).save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    assert np.array_equal(loaded.predict_proba(asked), learner.predict_proba(asked))


def test_preprocessing_and_decoding_come_back(spec, pictures, tmp_path):
    (paths, labels), _ = pictures
    own = dataclasses.replace(spec, preprocessing=Preprocessing.caffe(64))
    decoding = Decoding(background=(1, 2, 3), float_range=(0.0, 2.0))
    learner = FeatureClassifier(
        own, classifier="knn", compute=Compute(engine="torch", decoding=decoding)
    )
    learner.fit(paths, labels).save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    assert loaded.backbone_.preprocessing == Preprocessing.caffe(64)
    assert loaded.decoding == decoding


def test_another_preprocessing_is_refused_and_the_own_one_is_not(learner, model):
    own = learner.backbone_.preprocessing

    error = refused(model, preprocessing=Preprocessing.torch(96))

    assert error.code == "MODEL-PREPROCESSING"
    assert load_model(model, preprocessing=own).backbone_.preprocessing == own


def test_a_mean_changed_in_the_file_fails_the_checksum(model):
    record = (model / RECORD).read_text()
    (model / RECORD).write_text(record.replace("0.5", "0.4"))

    assert refused(model).code == "MODEL-CHECKSUM"


def test_a_classifier_that_cannot_be_saved_is_refused_with_the_list(spec, pictures, tmp_path):
    (paths, labels), _ = pictures
    learner = FeatureClassifier(spec, classifier=SVC(), compute=Compute(engine="torch")).fit(
        paths, labels
    )

    with pytest.raises(ModelError) as error:
        learner.save(tmp_path / "model")

    assert not can_save(SVC())
    assert error.value.code == "MODEL-UNSAVEABLE"
    assert "LogisticRegression" in error.value.hint
    assert not (tmp_path / "model").exists()


def test_an_unfitted_learner_is_not_saved(spec, tmp_path):
    with pytest.raises(NotFittedError):
        FeatureClassifier(spec).save(tmp_path / "model")


def test_a_model_does_not_name_paths_of_this_machine(pictures, tmp_path):
    (paths, labels), (asked, _) = pictures
    file = tmp_path / "secret" / "net.safetensors"
    write_state(
        file,
        build(
            BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=5)
        ).module.state_dict(),
    )
    learner = FeatureClassifier(
        BackboneSpec("simple_cnn", weights=str(file)),
        classifier="knn",
        compute=Compute(engine="torch"),
    )
    expected = learner.fit(paths, labels).predict_proba(asked)
    learner.save(tmp_path / "model")
    file.unlink()

    loaded = load_model(tmp_path / "model")

    assert "secret" not in (tmp_path / "model" / RECORD).read_text()
    assert np.array_equal(loaded.predict_proba(asked), expected)


def test_without_its_backbone_a_model_asks_for_the_very_same_weights(pictures, tmp_path):
    (paths, labels), (asked, _) = pictures
    file, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    for path, seed in ((file, 5), (other, 6)):
        state = build(
            BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=seed)
        ).module.state_dict()
        write_state(path, state)
    learner = FeatureClassifier(
        BackboneSpec("simple_cnn", weights=str(file)),
        classifier="knn",
        compute=Compute(engine="torch"),
    )
    expected = learner.fit(paths, labels).predict_proba(asked)
    model = tmp_path / "model"
    learner.save(model, with_backbone=False)

    assert not (model / BACKBONE).exists()
    assert refused(model).code == "MODEL-WEIGHTS"
    assert refused(model, weights=other).code == "MODEL-WEIGHTS"
    assert np.array_equal(load_model(model, weights=file).predict_proba(asked), expected)


def test_imported_weights_travel_under_a_name_that_every_machine_knows(
    pictures, tmp_path, monkeypatch
):
    (paths, labels), (asked, _) = pictures
    file = tmp_path / "net.safetensors"
    write_state(
        file,
        build(
            BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=5)
        ).module.state_dict(),
    )
    import_weights(
        file, name="my_own", backbone="simple_cnn", preprocessing=Preprocessing.torch(64)
    )
    learner = FeatureClassifier("my_own", classifier="knn", compute=Compute(engine="torch")).fit(
        paths, labels
    )
    expected = learner.predict_proba(asked)
    learner.save(tmp_path / "model")

    monkeypatch.setenv("REGRAFT_HOME", str(tmp_path / "elsewhere"))
    loaded = load_model(tmp_path / "model")

    assert loaded.backbone.name == "simple_cnn"
    assert np.array_equal(loaded.predict_proba(asked), expected)


def test_a_learner_whose_classifier_was_an_object_says_that_it_cannot_be_fitted_again(
    spec, pictures, tmp_path
):
    from sklearn.naive_bayes import GaussianNB

    (paths, labels), _ = pictures
    FeatureClassifier(spec, classifier=GaussianNB(), compute=Compute(engine="torch")).fit(
        paths, labels
    ).save(tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    with pytest.raises(UsageError, match="GaussianNB"):
        loaded.fit(paths, labels)


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
        (["classifier", "kind"], "Trojan", "MODEL-UNKNOWN"),
        (["classes"], ["a", "b"], "MODEL-CORRUPT"),
        (["classes"], ["a", "a", "b"], "MODEL-CORRUPT"),
        (["classes"], ["a", "", "b"], "MODEL-CORRUPT"),
        (["classes"], [1, 2, 3], "MODEL-CORRUPT"),
        (["extra"], 1, "MODEL-CORRUPT"),
        (["background"], [1, 2, 999], "MODEL-CORRUPT"),
        (["float_range"], [1.0, float("nan")], "MODEL-CORRUPT"),
        (["classifier", "scaling"], "none", "MODEL-CORRUPT"),
        (["classifier", "settings"], {"x": 1}, "MODEL-CORRUPT"),
        (["backbone", "feature_dim"], 64, "MODEL-CORRUPT"),
        (["backbone", "feature_dim"], 10**15, "MODEL-CORRUPT"),
        (["backbone", "preprocessing", "size"], 10**9, "MODEL-CORRUPT"),
        (["backbone", "preprocessing", "std"], [0, 0, 0], "MODEL-CORRUPT"),
        (["backbone", "weights", "sha256"], "0" * 64, "MODEL-WEIGHTS"),
        (["backbone", "spec", "name"], "../../etc/passwd", "MODEL-WEIGHTS"),
        (["backbone", "spec", "name"], "simple_cnn", "MODEL-WEIGHTS"),
        (["backbone", "spec", "weights"], "/etc/passwd", "MODEL-CORRUPT"),
        (["backbone", "spec", "arguments"], {"num_classes": 10**12}, "MODEL-CORRUPT"),
        (["backbone", "spec", "arguments"], {"checkpoint_path": "x"}, "MODEL-WEIGHTS"),
        (["backbone", "spec", "pooling"], "flatten", "MODEL-WEIGHTS"),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(model, path, value, code):
    change(model, put(path, value))

    assert refused(model).code == code


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
    max_examples=80,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_mutated_record_never_ends_in_another_error_than_ours(model, pictures, data):
    original = read_json(model / RECORD)
    where = data.draw(st.sampled_from([p for p in places(original) if p[0] != "history"]))

    def mutate(record):
        for key in where[:-1]:
            record = record[key]
        if data.draw(st.booleans()) or isinstance(record, list):
            record[where[-1]] = data.draw(VALUES)
        else:
            del record[where[-1]]

    change(model, mutate)
    try:
        load_model(model).predict(pictures[1][0][:1])
    except RegraftError:
        pass
    finally:
        change(model, lambda record: (record.clear(), record.update(copy.deepcopy(original))))


def test_can_save_knows_names_and_objects():
    assert can_save("logistic")
    with pytest.raises(UsageError):
        can_save("logit")


def test_the_folder_is_small_without_its_backbone(learner, tmp_path):
    learner.save(tmp_path / "model", with_backbone=False)

    assert sum(file.stat().st_size for file in Path(tmp_path / "model").iterdir()) < 20_000
