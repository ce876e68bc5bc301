"""A model that went to a hub and came back predicts the same; what is nobody's stays at home."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from huggingface_hub import ModelCard

from regraft.classifiers.network_classifier import load_model
from regraft.data.synthetic import make_flowers
from regraft.deploy.export import write_folder
from regraft.deploy.hub import Hub
from regraft.deploy.predictor import load, record_json
from regraft.deploy.sharing import files_to_share, pull_model, push_run
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.export import export_run
from regraft.experiment.run import fit_run
from regraft.report.model_card import model_card
from regraft.results.run import Run
from samples import refused

METHOD = MethodConfig(
    backbone="simple_cnn", weights="random", arguments={"size": 48}, engine="torch", explain=False
)
MODEL = {
    "README.md",
    "run.json",
    *(f"model/{name}" for name in ("model.json", "manifest.json", "arrays.safetensors")),
    "model/backbone.safetensors",
}
DEPLOYED = {f"model/deploy/{name}" for name in ("network.onnx", "deploy.json", "training.npy")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a run with its deployed form, which holds small copies of the training images."""
    folder = tmp_path_factory.mktemp("shared")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    run = fit_run(RunConfig(DataConfig(folder / "flowers"), METHOD), out=folder / "run")
    export_run(run.folder, with_images=True)
    return run


@pytest.fixture
def plain(exported, tmp_path):
    """Return the same run without its deployed form."""
    shutil.copytree(exported.folder, tmp_path / "plain")
    shutil.rmtree(tmp_path / "plain" / "model" / "deploy")
    return Run.open(tmp_path / "plain")


def adding():
    """Return an ONNX network that does something else than classify views."""
    numbers = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "abc"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "b"], ["c"])], "adding", numbers[:2], numbers[2:]
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    made = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    return made.SerializeToString()


def images_of(run):
    """Return the paths of the images of a run."""
    root = run.record.config["data"]["source"]
    return [f"{root}/{path}" for path in run.predictions.paths]


def pushed(run, **options):
    """Upload a run; return the repository and what was said before."""
    said = []
    there = Hub("ada/flowers")
    push_run(run.folder, there, say=said.append, **options)
    return there, "\n".join(said)


def test_a_model_that_came_back_predicts_the_same_with_and_without_its_deployed_form(
    hub, exported, tmp_path
):
    there, _ = pushed(exported)

    back = pull_model(there, tmp_path / "back")

    images = images_of(exported)
    for loaded in (load, lambda folder: load_model(folder / "model")):
        before, after = (loaded(place).predict_proba(images) for place in (exported.folder, back))
        assert np.array_equal(before, after)
    found = {str(file.relative_to(back)) for file in back.rglob("*") if file.is_file()}
    assert found <= MODEL | DEPLOYED
    assert found >= DEPLOYED
    assert Run.open(back).metrics == exported.metrics


def test_a_model_without_a_deployed_form_goes_and_comes_back_as_well(hub, plain, tmp_path):
    there, said = pushed(plain)

    back = pull_model(there, tmp_path / "back")

    images = images_of(plain)
    before, after = (load_model(each / "model").predict(images) for each in (plain.folder, back))
    assert before.tolist() == after.tolist()
    assert "deploy" not in said
    assert refused(load, back).code == "MODEL-MISSING"


def test_neither_images_nor_their_names_nor_paths_leave(hub, exported):
    pushed(exported)

    _, files = hub.files("ada/flowers")
    whole = b"".join(files.values())
    assert set(files) <= MODEL | DEPLOYED
    names = exported.predictions.paths
    assert [name for name in names if name.rpartition("/")[2].encode() in whole] == []
    assert str(exported.folder.parent).encode() not in whole
    assert b"data:image" not in whole
    assert load(exported.folder).record.likeness.images  # the own ones stay as they were


def test_what_goes_where_is_said_before_it_goes(hub, exported):
    said = []

    def say(text):
        said.append((text, len(hub.log)))

    push_run(exported.folder, Hub("ada/flowers"), private=True, say=say)

    texts, asked = zip(*said, strict=True)
    assert texts[0] == f"to {hub.url}/ada/flowers (private):"
    assert {text.split()[0] for text in texts[1:]} == set(hub.files("ada/flowers")[1])
    assert any("features of the training images" in text for text in texts)
    assert set(asked) == {0}
    assert hub.repositories["ada/flowers"]["private"]


def test_the_card_is_the_repositorys_front_page_and_an_edited_one_goes_as_it_is(hub, plain):
    pushed(plain)
    first = hub.files("ada/flowers")[1]["README.md"].decode()
    (plain.folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    pushed(plain)

    assert first == model_card(plain)
    assert ModelCard(first).data.library_name == "regraft"
    assert hub.files("ada/flowers")[1]["README.md"].decode().endswith("# Mine\n")
    (plain.folder / "README.md").unlink()
    assert files_to_share(plain)["README.md"].decode() == model_card(plain)


def test_a_second_push_leaves_nothing_of_the_first_model(hub, exported, plain, tmp_path):
    pushed(exported)
    hub.add("ada/flowers", {**hub.files("ada/flowers")[1], "logo.png": b"png"})

    there, _ = pushed(plain)

    assert set(hub.files("ada/flowers")[1]) & DEPLOYED == set()
    assert "logo.png" in hub.files("ada/flowers")[1]
    assert not (pull_model(there, tmp_path / "back") / "model" / "deploy").exists()


def test_an_older_commit_can_be_pulled_by_its_name(hub, exported, plain, tmp_path):
    pushed(exported)
    first = hub.files("ada/flowers")[0]
    there, _ = pushed(plain)

    back = pull_model(there, tmp_path / "back", revision=first)

    assert (back / "model" / "deploy").is_dir()


@pytest.mark.parametrize("name", sorted({*MODEL, *DEPLOYED} - {"README.md"}))
def test_a_byte_changed_on_the_way_is_refused_and_nothing_is_left(hub, exported, tmp_path, name):
    there, _ = pushed(exported)
    data = hub.files("ada/flowers")[1][name]
    hub.sent[name] = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]

    error = refused(pull_model, there, tmp_path / "back")

    assert error.code == "HUB-CHECKSUM"
    assert name in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("model/arrays.safetensors", "MODEL-CHECKSUM"),
        ("model/model.json", "MODEL-CHECKSUM"),
        ("model/deploy/network.onnx", "MODEL-CHECKSUM"),
        ("model/deploy/deploy.json", "MODEL-CHECKSUM"),
        ("model/deploy/training.npy", "MODEL-CORRUPT"),
        ("run.json", "FILE-JSON"),
    ],
)
def test_a_byte_changed_on_the_hub_is_refused_and_nothing_is_left(
    hub, exported, tmp_path, name, code
):
    there, _ = pushed(exported)
    files = hub.files("ada/flowers")[1]
    data = files[name]
    place = data.rindex(b"0") if code == "MODEL-CHECKSUM" else 0
    hub.add("ada/flowers", {**files, name: data[:place] + b"1" + data[place + 1 :]})

    error = refused(pull_model, there, tmp_path / "back")

    assert error.code == code
    assert name in str(error)
    assert "not kept" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_on_the_way_is_refused(hub, exported, tmp_path):
    there, _ = pushed(exported)
    name = "model/backbone.safetensors"
    hub.sent[name] = hub.files("ada/flowers")[1][name][:-10]

    refused(pull_model, there, tmp_path / "back")

    assert list(tmp_path.iterdir()) == []


def test_what_could_run_code_is_not_taken(hub, exported, tmp_path):
    there, _ = pushed(exported)
    files = hub.files("ada/flowers")[1]
    more = {"model/head.pkl": b"\x80\x04cos\n", "setup.py": b"print()", "model/x.json": b"{}"}
    hub.add("ada/flowers", {**files, **more})
    said = []

    back = pull_model(there, tmp_path / "back", say=said.append)

    assert [name for name in more if (back / name).exists()] == []
    assert "3 others are not of a model and stay there" in said[0]


@pytest.mark.parametrize(
    "name", ["model/arrays.safetensors", "model/deploy/network.onnx", "README.md"]
)
def test_a_pickle_under_the_name_of_a_file_that_is_taken_is_refused(hub, exported, tmp_path, name):
    there, _ = pushed(exported)
    files = hub.files("ada/flowers")[1]
    hub.add("ada/flowers", {**files, name: b"\x80\x04cos\nsystem\n."})

    error = refused(pull_model, there, tmp_path / "back")

    assert error.code == "MODEL-UNSAFE"
    assert list(tmp_path.iterdir()) == []


def test_the_deployed_form_of_another_model_is_refused(hub, exported, tmp_path):
    there, _ = pushed(exported)
    files = hub.files("ada/flowers")[1]
    record = load(exported.folder).record
    other = record_json(replace(record, classes=record.classes[::-1]))
    hub.add("ada/flowers", {**files, "model/deploy/deploy.json": json.dumps(other).encode()})

    assert refused(pull_model, there, tmp_path / "back").code == "MODEL-CORRUPT"


def test_a_deployed_form_that_cannot_be_run_neither_goes_nor_comes(hub, exported, plain, tmp_path):
    there, _ = pushed(plain)
    record = load(exported.folder).record
    deployed = plain.folder / "model" / "deploy"
    write_folder(deployed, replace(record, likeness=None), adding())
    wrong = {f"model/deploy/{file.name}": file.read_bytes() for file in deployed.iterdir()}
    hub.add("ada/flowers", {**hub.files("ada/flowers")[1], **wrong})

    for call in (
        lambda: push_run(plain.folder, there),
        lambda: pull_model(there, tmp_path / "back"),
    ):
        error = refused(call)
        assert error.code == "MODEL-CORRUPT"
        assert "cannot be run" in str(error)


def test_a_repository_without_a_model_is_said_to_have_none(hub, tmp_path):
    hub.add("ada/text", {"model.safetensors": b"x", "README.md": b"#"})

    assert refused(pull_model, Hub("ada/text"), tmp_path / "back").code == "HUB-NO-MODEL"


def test_what_stands_in_the_way_is_told_before_anything_is_asked(hub, tmp_path):
    there = Hub("ada/flowers")

    assert refused(pull_model, there, tmp_path).code == "FILE-EXISTS"
    assert hub.log == []


def test_a_damaged_model_or_a_run_without_one_is_not_uploaded(hub, plain):
    file = plain.folder / "model" / "arrays.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert refused(push_run, plain.folder, Hub("ada/flowers")).code == "MODEL-CHECKSUM"
    shutil.rmtree(plain.folder / "model")
    assert refused(push_run, plain.folder, Hub("ada/flowers")).code == "MODEL-MISSING"
    assert hub.log == []


def test_a_model_that_was_pulled_can_be_pushed_on(hub, exported, tmp_path):
    there, _ = pushed(exported)
    before = hub.files("ada/flowers")[1]
    back = pull_model(there, tmp_path / "back")

    push_run(back, Hub("bob/flowers"))

    assert hub.files("bob/flowers")[1] == before
