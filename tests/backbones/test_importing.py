"""Files of weights become backbones: they fit exactly, have a free name and a preprocessing."""

import json
import os

import numpy as np
import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.catalog import list_backbones
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.sources import find, import_weights, save_module
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.backbones.weights import find_weights, list_weights, store, verify_weights
from regraft.errors import BackboneError, ModelError, WeightsError
from regraft.settings import to_json

SMALL = "simple_cnn"
GREY = Preprocessing.tf(64, mode="squash", resize=64, mean=(0.4, 0.4, 0.4))


@pytest.fixture
def module():
    return build(BackboneSpec(SMALL, weights=None, seed=5)).module


@pytest.fixture
def file(module, tmp_path):
    write_state(tmp_path / "mine.safetensors", module.state_dict())
    return tmp_path / "mine.safetensors"


def take(file, **changes):
    return import_weights(file, **{"name": "mine", "backbone": SMALL, **changes})


def test_an_imported_file_is_a_backbone_like_any_other(file, module):
    stored = take(file, preprocessing=GREY, licence="mit")

    backbone = build(BackboneSpec("mine"))

    assert backbone.preprocessing == GREY
    assert backbone.weights.licence == "mit"
    assert find("mine").stored
    assert stored.path.is_file()
    assert "mine" in [entry.name for entry in list_backbones()]
    for name, tensor in module.state_dict().items():
        assert torch.equal(backbone.module.state_dict()[name], tensor), name


def test_what_is_stored_says_all_about_it(file):
    stored = take(file, preprocessing=GREY, licence="mit")

    record = json.loads((store() / "mine" / "weights.json").read_text())

    assert record == to_json(stored)
    assert record["preprocessing_from"] == "given"
    assert record["source"] == "mine.safetensors"
    assert record["num_classes"] == stored.num_classes == 5
    assert find_weights("mine") == stored
    assert verify_weights() == {"mine": ""}


def test_preprocessing_that_is_not_given_is_assumed_and_said_to_be(file):
    stored = take(file)

    assert stored.preprocessing == find(SMALL).preprocessing
    assert stored.preprocessing_from == "assumed"
    assert any("assumed" in note for note in stored.notes)


def test_a_pytorch_file_is_converted_and_its_wrapper_noted(module, tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "net.pth")

    stored = take(tmp_path / "net.pth", preprocessing=GREY)

    assert stored.path.suffix == ".safetensors"
    assert len(stored.notes) == 2
    assert torch.equal(
        next(iter(build(BackboneSpec("mine")).module.parameters())),
        next(iter(module.parameters())),
    )


def test_a_file_that_runs_code_is_neither_run_nor_stored(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path}/sentinel'",)

    torch.save({"weight": torch.ones(1), "more": Attack()}, tmp_path / "net.pth")

    with pytest.raises(ModelError) as refusal:
        take(tmp_path / "net.pth")

    assert refusal.value.code == "MODEL-UNSAFE"
    assert not (tmp_path / "sentinel").exists()
    assert list_weights() == ()


@pytest.mark.parametrize("harm", ["missing", "unexpected", "another shape"])
def test_tensors_that_do_not_fit_are_named_and_not_stored(harm, module, tmp_path):
    state = dict(module.state_dict())
    first = next(iter(state))
    if harm == "missing":
        del state[first]
    elif harm == "unexpected":
        state["extra.weight"] = torch.ones(3)
    else:
        state[first] = torch.ones(3)
    write_state(tmp_path / "net.safetensors", state)

    with pytest.raises(WeightsError) as refusal:
        take(tmp_path / "net.safetensors")

    assert refusal.value.code == "WEIGHTS-MISFIT"
    assert harm in str(refusal.value)
    assert ("extra.weight" if harm == "unexpected" else first) in str(refusal.value)
    assert list_weights() == ()


@pytest.mark.parametrize(
    "name",
    ["", "../mine", "a/b", "a\\b", ".hidden", "-x", "C:", "nul", "a" * 101, "naïve", "a\n", "a."],
)
def test_names_with_parts_of_paths_are_refused(name, file):
    with pytest.raises(WeightsError) as refusal:
        take(file, name=name)

    assert refusal.value.code == "WEIGHTS-NAME"
    assert find_weights(name) is None


def test_a_taken_name_is_refused_unless_it_shall_be_overwritten(file):
    take(file, licence="mit")

    with pytest.raises(WeightsError) as refusal:
        take(file, licence="bsd")
    assert refusal.value.code == "WEIGHTS-EXISTS"
    assert find_weights("mine").licence == "mit"

    take(file, licence="bsd", overwrite=True)
    assert find_weights("mine").licence == "bsd"
    assert sorted(path.name for path in store().iterdir()) == [".mine.lock", "mine"]


@pytest.mark.parametrize("changes", [{"name": "vgg16"}, {"name": SMALL, "preprocessing": GREY}])
def test_the_name_of_a_network_cannot_come_to_mean_something_else(changes, file):
    with pytest.raises(WeightsError, match="name of a network") as refusal:
        take(file, **changes)

    assert refusal.value.code == "WEIGHTS-NAME"


def test_a_network_may_be_given_its_own_weights_under_its_own_name(file, monkeypatch):
    stored = take(file, name=SMALL)

    assert find_weights(SMALL) == stored


def test_an_unknown_network_or_argument_is_refused(file):
    with pytest.raises(BackboneError) as unknown:
        take(file, backbone="no_such_network")
    with pytest.raises(BackboneError) as argument:
        take(file, arguments={"surprise": 1})

    assert unknown.value.code == "BACKBONE-UNKNOWN"
    assert argument.value.code == "BACKBONE-ARGUMENT"


def test_weights_for_the_network_of_imported_weights_belong_to_that_network(file):
    take(file, preprocessing=GREY)

    second = take(file, name="second", backbone="mine")

    assert second.backbone == SMALL
    assert second.preprocessing == GREY


def test_a_name_of_timm_is_kept_so_that_it_never_means_imported_weights(tmp_path):
    module = build(BackboneSpec("test_resnet", weights=None)).module
    write_state(tmp_path / "net.safetensors", module.state_dict())

    stored = import_weights(
        tmp_path / "net.safetensors", name="test_resnet", backbone="test_resnet"
    )

    assert stored.backbone == "timm:test_resnet.r160_in1k"
    assert build(BackboneSpec("test_resnet")).feature_dim > 0


def test_a_trained_module_is_a_backbone_for_the_next_task():
    arguments = {"num_classes": 3}
    module = build(BackboneSpec(SMALL, weights=None, arguments=arguments)).module
    labels = ("rose", "daisy", "tulip")

    stored = save_module(
        module,
        name="flowers",
        backbone=SMALL,
        preprocessing=GREY,
        arguments=arguments,
        labels=labels,
        source="drawn flowers",
    )

    assert stored.num_classes == 3
    assert stored.labels == labels
    assert find_weights("flowers") == stored
    assert build(BackboneSpec("flowers")).preprocessing == GREY


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "b")])
def test_labels_that_do_not_fit_the_head_are_refused(labels):
    arguments = {"num_classes": 3}
    module = build(BackboneSpec(SMALL, weights=None, arguments=arguments)).module

    with pytest.raises(BackboneError) as refusal:
        save_module(
            module,
            name="flowers",
            backbone=SMALL,
            preprocessing=GREY,
            arguments=arguments,
            labels=labels,
        )

    assert refusal.value.code == "WEIGHTS-LABELS"
    assert list_weights() == ()


def test_a_module_with_nan_is_not_stored(module):
    with torch.no_grad():
        next(iter(module.parameters())).fill_(float("nan"))

    with pytest.raises(ModelError) as refusal:
        save_module(module, name="bad", backbone=SMALL, preprocessing=GREY)

    assert refusal.value.code == "MODEL-NAN"
    assert list_weights() == ()


def test_real_weights_in_half_precision_are_imported_strictly(assets):
    stored = import_weights(
        assets / "weights" / "mobilenetv2_100.safetensors",
        name="my_mobilenet",
        backbone="mobilenetv2_100",
        arguments={"pad_type": "same"},
        preprocessing=Preprocessing.tf(224),
    )

    backbone = build(BackboneSpec("my_mobilenet"))

    assert stored.num_classes == 1000
    assert dict(stored.arguments) == {"pad_type": "same"}
    assert {tensor.dtype for tensor in backbone.module.parameters()} == {torch.float32}


NARROW_VGG = {"mlp_ratio": 0.01, "size": 64}
TRUNKS = {
    "vgg16": (NARROW_VGG, ("pre_logits.", "head.")),
    "torchvision:squeezenet1_1": ({}, ("classifier.",)),
    "mobilenetv3_small_050": ({}, ("conv_head.", "classifier.")),
    "test_vit": ({}, ("head.",)),
}


@pytest.mark.parametrize("network", TRUNKS)
def test_weights_without_a_classifier_give_the_features_of_those_with_it(network, tmp_path):
    arguments, head = TRUNKS[network]
    whole = build(BackboneSpec(network, weights=None, arguments=arguments))
    state = whole.module.state_dict()
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    write_state(tmp_path / "notop.safetensors", trunk)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    stored = import_weights(
        tmp_path / "notop.safetensors", name="mine", backbone=network, arguments=arguments
    )
    backbone = build(BackboneSpec("mine"))

    assert len(trunk) < len(state)
    assert stored.num_classes is None
    assert any("no classifier" in note for note in stored.notes)
    assert any("no classifier" in note for note in backbone.notes)
    np.testing.assert_array_equal(backbone.embed([image]), whole.embed([image]))
    with pytest.raises(BackboneError, match="have no classifier") as refusal:
        backbone.top_k([image])
    assert refusal.value.code == "BACKBONE-HEAD"
    assert "regraft fit" in refusal.value.hint


def test_a_file_without_a_classifier_may_be_named_where_it_lies(tmp_path):
    whole = build(BackboneSpec("test_resnet", weights=None))
    state = whole.module.state_dict()
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    write_state(tmp_path / "notop.safetensors", trunk)
    image = np.zeros((32, 32, 3), np.uint8)

    backbone = build(BackboneSpec("test_resnet", weights=str(tmp_path / "notop.safetensors")))

    np.testing.assert_array_equal(backbone.embed([image]), whole.embed([image]))
    with pytest.raises(BackboneError, match=r"\(notop.safetensors\) have no classifier"):
        backbone.top_k([image])


@pytest.mark.parametrize("lost", [("fc.weight",), ("fc.weight", "fc.bias", "conv1.0.weight")])
def test_part_of_a_classifier_or_more_than_it_may_not_be_missing(lost, tmp_path):
    state = build(BackboneSpec("test_resnet", weights=None)).module.state_dict()
    assert set(lost) <= set(state)
    write_state(tmp_path / "net.safetensors", {k: v for k, v in state.items() if k not in lost})

    with pytest.raises(WeightsError, match=f"{len(lost)} missing") as refusal:
        import_weights(tmp_path / "net.safetensors", name="mine", backbone="test_resnet")

    assert refusal.value.code == "WEIGHTS-MISFIT"


def test_the_network_that_a_trunk_fits_is_named(tmp_path):
    state = build(BackboneSpec("squeezenet", weights=None)).module.state_dict()
    trunk = {name: tensor for name, tensor in state.items() if "classifier" not in name}
    write_state(tmp_path / "net.safetensors", trunk)

    with pytest.raises(WeightsError) as refusal:
        import_weights(tmp_path / "net.safetensors", name="mine", backbone="test_resnet")

    assert refusal.value.hint == "the file fits squeezenet"
