"""The files of a saved model: verified before they are read, and never able to run code."""

import dataclasses
import os
import pickle

import numpy as np
import pytest

from regraft.backbones.backbone import build
from regraft.backbones.spec import Compute
from regraft.classifiers.model_files import (
    ARRAYS,
    BACKBONE,
    CONTENTS,
    FORMAT,
    MANIFEST,
    RECORD,
    ModelRecord,
    ShallowPart,
    backbone_record,
    open_backbone,
    read_model,
    write_model,
)
from regraft.classifiers.shallow_files import ShallowRecord
from regraft.errors import ModelError
from regraft.files import read_json, sha256_file, write_json
from samples import SMALL, refused

NUMBERS = {
    "a": np.linspace(0, 1, 7),
    "b": np.arange(6, dtype=np.int32).reshape(2, 3),
    "c": np.float32([[0.1, 0.2]]),
}
NETWORK = build(SMALL)
OWN = ShallowPart(name="mine", scaling="none", model=ShallowRecord("linear"))
RECORDED = ModelRecord(
    classes=("a", "b"),
    backbone=backbone_record(NETWORK),
    compute=Compute(),
    history={"n": 3},
    warnings=("look out",),
    shallow=OWN,
)


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "model", RECORDED, NUMBERS, backbone=NETWORK)
    return tmp_path / "model"


def sign(model):
    """Write the manifest anew, as somebody would who wants a changed file to be read."""
    names = [file.name for file in model.iterdir() if file.name != MANIFEST]
    hashes = {name: sha256_file(model / name) for name in names}
    write_json(model / MANIFEST, {"format": FORMAT, "files": hashes})


def test_what_is_written_comes_back_to_the_bit(model):
    files = read_model(model)

    assert files.record == RECORDED
    assert files.backbone == model / BACKBONE
    assert set(files.arrays) == set(NUMBERS)
    for name, array in NUMBERS.items():
        assert files.arrays[name].dtype == array.dtype
        assert np.array_equal(files.arrays[name], array)


def test_a_file_of_another_library_is_kept_as_it_is(tmp_path):
    part = dataclasses.replace(OWN, model=ShallowRecord("onnx"))
    write_model(
        tmp_path / "model", dataclasses.replace(RECORDED, shallow=part), {}, content=b"of ONNX"
    )

    files = read_model(tmp_path / "model")

    assert (files.content, files.arrays, files.backbone) == (b"of ONNX", {}, None)
    (tmp_path / "model" / CONTENTS["onnx"]).unlink()
    sign(tmp_path / "model")
    assert refused(read_model, tmp_path / "model").code == "MODEL-CORRUPT"


@pytest.mark.parametrize("classes", [("a", "a"), ("a", ""), ("a",)])
def test_a_record_that_contradicts_itself_is_none(classes):
    for changes in ({"classes": classes}, {"shallow": None}, {"history": []}):
        assert isinstance(refused(dataclasses.replace, RECORDED, **changes), ModelError)


def test_the_network_is_built_with_the_weights_beside_it_or_given_or_named(model, tmp_path):
    opened = open_backbone(read_model(model), build)
    weights = model.rename(tmp_path / "moved") / BACKBONE
    write_model(tmp_path / "named", RECORDED, {})
    named = open_backbone(read_model(tmp_path / "named"), build)
    lost = dataclasses.replace(RECORDED.backbone.spec, weights="given")
    there = dataclasses.replace(RECORDED.backbone, spec=lost)
    write_model(tmp_path / "lost", dataclasses.replace(RECORDED, backbone=there), {})
    given = open_backbone(read_model(tmp_path / "lost"), build, weights=weights)

    for found in (opened, named, given):
        assert found.weights == NETWORK.weights
        assert found.fingerprint == NETWORK.fingerprint
    error = refused(open_backbone, read_model(tmp_path / "lost"), build)
    assert error.code == "MODEL-WEIGHTS"
    assert "weights=FILE" in str(error)


def test_a_newer_model_replaces_an_older_one_and_takes_an_empty_folder_but_no_other(model):
    write_model(model, dataclasses.replace(RECORDED, warnings=()), NUMBERS)
    (model.parent / "empty").mkdir()
    write_model(model.parent / "empty", RECORDED, NUMBERS)
    (model.parent / "full").mkdir()
    (model.parent / "full" / "photo.jpg").write_bytes(b"precious")
    error = refused(write_model, model.parent / "full", RECORDED, NUMBERS)

    assert error.code == "FILE-EXISTS"
    assert (model.parent / "full" / "photo.jpg").read_bytes() == b"precious"
    assert sorted(file.name for file in model.iterdir()) == sorted([RECORD, ARRAYS, MANIFEST])
    assert read_model(model).record.warnings == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_neither_written_nor_read(model, value):
    from safetensors.numpy import save_file

    bad = {**NUMBERS, "a": np.array([value])}
    error = refused(write_model, model, RECORDED, bad)
    save_file(bad, model / ARRAYS)
    sign(model)

    assert error.code == "MODEL-NAN"
    assert refused(read_model, model).code == "MODEL-NAN"


@pytest.mark.parametrize("name", [RECORD, ARRAYS, BACKBONE])
def test_one_changed_bit_is_found(model, name):
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)

    error = refused(read_model, model)

    assert error.code == "MODEL-CHECKSUM"
    assert name in str(error)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


BOMB = pickle.dumps(Bomb())


@pytest.mark.parametrize("name", [RECORD, ARRAYS, MANIFEST, "more.pkl"])
@pytest.mark.parametrize("content", [BOMB, b"PK\x03\x04zip", b"\x93NUMPY\x01\x00", b"\x89HDF\r\n"])
def test_what_could_hold_code_is_never_read(model, name, content, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (model / name).write_bytes(content)
    if name != MANIFEST:
        sign(model)

    error = refused(read_model, model)

    assert error.code == "MODEL-UNSAFE"
    assert name in str(error)
    assert not (tmp_path / "exploded").exists()
    file = tmp_path / "model.joblib"  # in place of the folder
    file.write_bytes(content)
    assert refused(read_model, file).code == "MODEL-UNSAFE"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x00" * 4, b"\xff" * 8 + b"{}", b"\x80\x02\x00\x00\x00\x00\x00\x00{", b"text"),
        pytest.param(None, marks=pytest.mark.skipif(os.name != "posix", reason="no pipes")),
    ],
)
@pytest.mark.parametrize("name", [ARRAYS, RECORD])
def test_a_file_that_is_no_data_is_damaged_and_a_pipe_does_not_block(model, name, content):
    (model / name).write_bytes(content or b"")
    sign(model)
    if content is None:
        (model / name).unlink()
        os.mkfifo(model / name)

    error = refused(read_model, model)

    assert error.code == "MODEL-CORRUPT"
    assert name in str(error)


@pytest.mark.parametrize("name", [RECORD, MANIFEST])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[]", "3", '{"format": "1", "files": {}}', '{"format": 2, "files": {}}', "{"],
)
def test_json_of_another_shape_is_damaged(model, name, text):
    (model / name).write_text(text)
    if name == RECORD:
        sign(model)

    assert refused(read_model, model).code == "MODEL-CORRUPT"


@pytest.mark.parametrize(
    "files",
    [
        *([], {}, {ARRAYS: "ab"}, {RECORD: 1}, None),
        {RECORD: "ab", ARRAYS: "ab", "../etc/passwd": "ab"},
    ],
)
def test_a_manifest_that_lists_other_things_is_refused(model, files):
    manifest = read_json(model / MANIFEST)
    if files is None:  # weights that it does not know
        files = {name: sha256 for name, sha256 in manifest["files"].items() if name != BACKBONE}
    write_json(model / MANIFEST, {"format": FORMAT, "files": files})

    assert refused(read_model, model).code == "MODEL-CORRUPT"
    (model / MANIFEST).unlink()
    missing = refused(read_model, model)
    assert missing.code == "MODEL-MISSING"
    assert "manifest.json" in str(missing)
