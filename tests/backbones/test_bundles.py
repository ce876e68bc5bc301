"""Bundles: what leaves one machine arrives whole and unchanged on another, or is refused."""

import json

import pytest

from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.backbones.weights import (
    bundle,
    find_weights,
    import_bundle,
    list_weights,
    save_module,
    store,
    verify_weights,
)
from regraft.errors import ModelError, RegraftError, WeightsError
from regraft.experiment.strategies import DEFAULT_BACKBONE


@pytest.fixture(autouse=True)
def two_stored():
    for seed, name in enumerate(("first", "second")):
        spec = BackboneSpec("small_cnn", weights=None, arguments={"num_classes": 2}, seed=seed)
        save_module(
            spec.build().module,
            name=name,
            backbone="small_cnn",
            arguments={"num_classes": 2},
            preprocessing=Preprocessing.tf(64),
            licence="mit",
        )


@pytest.fixture
def another_machine(monkeypatch, tmp_path):
    """Return a function after whose call the store is an empty one."""
    return lambda: monkeypatch.setenv("REGRAFT_HOME", str(tmp_path / "elsewhere"))


def test_a_bundle_carries_weights_to_a_machine_without_a_network(tmp_path, another_machine):
    before = [stored.to_json() for stored in list_weights()]
    folder = bundle(tmp_path / "bundle")
    another_machine()
    assert list_weights() == ()

    imported = import_bundle(folder)

    assert [stored.to_json() for stored in imported] == before
    assert list_weights() == imported
    assert verify_weights() == {"first": "", "second": ""}


def test_only_what_is_named_is_bundled(tmp_path):
    folder = bundle(tmp_path / "bundle", ["second"])

    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "second"]


def test_the_packaged_weights_can_be_bundled_like_stored_ones(tmp_path, another_machine):
    folder = bundle(tmp_path / "bundle", [DEFAULT_BACKBONE])
    another_machine()

    (imported,) = import_bundle(folder)

    assert imported.sha256 == find_weights(DEFAULT_BACKBONE).sha256
    assert verify_weights() == {DEFAULT_BACKBONE: ""}


def test_what_is_not_stored_cannot_be_bundled(tmp_path, another_machine):
    with pytest.raises(WeightsError, match="absent"):
        bundle(tmp_path / "bundle", ["first", "absent", "../first"])
    another_machine()
    with pytest.raises(WeightsError, match="no weights are stored"):
        bundle(tmp_path / "bundle")

    assert not (tmp_path / "bundle").exists()


def test_damaged_weights_are_not_bundled(tmp_path):
    file = store() / "first" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")

    with pytest.raises(ModelError) as refusal:
        bundle(tmp_path / "bundle")

    assert refusal.value.code == "MODEL-CHECKSUM"
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")

    with pytest.raises(RegraftError) as refusal:
        bundle(tmp_path / "bundle")

    assert refusal.value.code == "FILE-EXISTS"
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "harm", ["flipped", "cut", "record", "gone", "no manifest", "manifest", "path", "extra", "hash"]
)
def test_a_changed_bundle_is_refused_whole(harm, tmp_path, another_machine):
    folder = bundle(tmp_path / "bundle")
    tensors, manifest = folder / "second" / "weights.safetensors", folder / "manifest.json"
    listed = json.loads(manifest.read_text())
    if harm == "flipped":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"!")
    elif harm == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-9])
    elif harm == "record":
        record = folder / "second" / "weights.json"
        record.write_text(record.read_text().replace("mit", "bsd"))
    elif harm == "gone":
        tensors.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "manifest":
        manifest.write_text("[]")
    elif harm == "path":
        listed["files"]["../../evil/weights.safetensors"] = "0" * 64
    elif harm == "extra":
        listed["files"]["second/run.sh"] = "0" * 64
    else:
        listed["files"]["second/weights.json"] = 3
    if harm in {"path", "extra", "hash"}:
        manifest.write_text(json.dumps(listed))
    another_machine()

    with pytest.raises(ModelError) as refusal:
        import_bundle(folder)

    assert refusal.value.code in {"MODEL-CHECKSUM", "MODEL-CORRUPT"}
    assert list_weights() == ()


def test_weights_of_the_same_name_stay_unless_they_shall_be_replaced(tmp_path):
    folder = bundle(tmp_path / "bundle", ["first"])

    with pytest.raises(WeightsError) as refusal:
        import_bundle(folder)
    assert refusal.value.code == "WEIGHTS-EXISTS"

    before = find_weights("first")
    assert import_bundle(folder, overwrite=True) == (before,)
