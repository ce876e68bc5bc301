"""The catalogue finds every network the field names, and says what is near when it does not."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from regraft.backbones import catalog
from regraft.backbones.backbone import build
from regraft.backbones.catalog import (
    DEFAULT_BACKBONE,
    GROUPS,
    known,
    list_backbones,
    register_backbone,
)
from regraft.backbones.own import SimpleCNN
from regraft.backbones.published import hub_cache, in_group, is_here, torch_cache
from regraft.backbones.sources import SOURCES, find
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.backbones.weights import store
from samples import refused

_spec = importlib.util.spec_from_file_location(
    "network_facts", Path(__file__).with_name("network_facts.py")
)
network_facts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(network_facts)
facts_of = network_facts.facts_of


@pytest.mark.parametrize(
    ("name", "source", "identifier"),
    [
        ("xception", "timm", "legacy_xception.tf_in1k"),
        ("mobilenet_v1", "timm", "mobilenetv1_100.ra4_e3600_r224_in1k"),
        ("tf_efficientnet_lite2", "timm", "tf_efficientnet_lite2.in1k"),
        ("squeezenet", "torchvision", "squeezenet1_1"),
        ("squeezenet1_1", "torchvision", "squeezenet1_1"),
        ("convnext_small", "timm", "convnext_small"),
        ("resnet50.a1_in1k", "timm", "resnet50.a1_in1k"),
        ("torchvision:resnet50", "torchvision", "resnet50"),
        ("shufflenet_v2_x1_0", "torchvision", "shufflenet_v2_x1_0"),
    ],
)
def test_the_fields_names_and_the_libraries_spellings_are_known(name, source, identifier):
    entry = find(name)

    assert (entry.source, entry.identifier.split(".")[0]) == (source, identifier.split(".")[0])
    assert entry.weights
    assert ("parameters" in entry.summary) == (entry.facts is not None) == (entry.group != "")


def test_the_catalogue_states_what_the_libraries_state():
    for entry in list_backbones():
        source = SOURCES[entry.source]
        if theirs := source.entry(entry.identifier, name=entry.name):
            assert entry.licence == theirs.licence, entry.name
            assert entry.weights == theirs.weights or entry.installed, entry.name
        own = source.preprocessing(entry.identifier)
        assert entry.preprocessing in {None, own}, entry.name


@pytest.mark.parametrize(
    "name", ["mobilnet_v2", "resnet50.no_such_tag", "torchvision:vgg16_x", "", "x:y"]
)
def test_an_unknown_name_is_an_error_with_the_nearest(name):
    error = refused(find, name)

    assert error.code == "BACKBONE-UNKNOWN"
    assert name != "mobilnet_v2" or "did you mean 'mobilenet_v2'" in error.hint


def test_a_network_of_ones_own_can_be_registered_once(monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "registered", {})
    own = Preprocessing.torch(48)
    register_backbone("mine", SimpleCNN, preprocessing=own, features="features", licence="mit")

    backbone = build(BackboneSpec("mine", arguments={"num_classes": 3}))

    assert (backbone.feature_dim, backbone.preprocessing) == (128, own)
    assert (backbone.weights.licence, backbone.weights.source) == ("mit", "the network's own")
    assert "mine" in [entry.name for entry in list_backbones()]
    for taken in ("mine", "vgg16", "mobilenetv2_100"):
        error = refused(register_backbone, taken, SimpleCNN, preprocessing=own, features="features")
        assert "already" in str(error)


def test_every_group_has_networks_and_the_default_is_here(tmp_path):
    sizes = {group: len(in_group(group)) for group in GROUPS}
    names = [entry.name for entry in list_backbones()]

    assert len(names) == len(set(names))

    assert 30 <= sum(sizes.values()) - sizes["here"] <= 45
    assert all(sizes[group] >= 10 for group in ("classic", "small", "strong"))
    assert DEFAULT_BACKBONE in [entry.name for entry in in_group("here")]
    assert "vgg16" not in [entry.name for entry in in_group("here")]
    assert "strong" in str(refused(in_group, "strng"))


@pytest.mark.parametrize("place", ["the store", "torch hub", "the hub"])
def test_weights_that_lie_here_are_seen_without_being_read(place):
    name = {"torch hub": "alexnet"}.get(place, "vgg16")
    file = {
        "the store": store() / "vgg16" / "weights.safetensors",
        "torch hub": torch_cache() / "alexnet-owt-7be5be79.pth",
        "the hub": hub_cache() / "models--timm--vgg16.tv_in1k/snapshots/abc/model.safetensors",
    }[place]
    assert not is_here(known(name))

    file.parent.mkdir(parents=True)
    file.touch()
    if place == "the hub":
        (file.parents[2] / "refs").mkdir()
        (file.parents[2] / "refs" / "main").write_text("abc")

    assert is_here(known(name))


def test_licences_that_do_not_allow_every_use_are_marked():
    marked = {entry.licence for entry in list_backbones() if not entry.permissive}

    assert marked == {"cc-by-nc-4.0", "dinov3-license", "fastvit-license"}


CHEAP = ("squeezenet", "vit_tiny_patch16_224", "simple_cnn")


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(e, id=e.name, marks=[] if e.name in CHEAP else [pytest.mark.slow])
        for e in list_backbones()
    ],
)
def test_parameters_multiply_adds_and_widths_are_those_of_the_network(entry):
    assert dataclasses.astuple(entry.facts) == tuple(facts_of(entry))
