"""The catalogue finds every network the field names, and says what is near when it does not."""

import pytest

from regraft.backbones import catalog
from regraft.backbones.backbone import build
from regraft.backbones.catalog import find, list_backbones, register_backbone
from regraft.backbones.spec import BackboneSpec
from regraft.errors import BackboneError


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("alexnet", "alexnet"),
        ("vgg16", "vgg16.tv_in1k"),
        ("vgg19", "vgg19.tv_in1k"),
        ("googlenet", "googlenet"),
        ("resnet50", "resnet50.tv_in1k"),
        ("inception_v3", "inception_v3.tv_in1k"),
        ("inception_resnet_v2", "inception_resnet_v2.tf_in1k"),
        ("xception", "legacy_xception.tf_in1k"),
        ("mobilenet_v1", "mobilenetv1_100.ra4_e3600_r224_in1k"),
        ("mobilenet_v2", "mobilenetv2_100.ra_in1k"),
        ("mobilenetv2_100", "mobilenetv2_100.ra_in1k"),
        ("mobilenet_v3", "mobilenetv3_large_100.ra_in1k"),
        ("densenet121", "densenet121.ra_in1k"),
        ("nasnet", "nasnetalarge.tf_in1k"),
        ("nasnetalarge", "nasnetalarge.tf_in1k"),
        ("efficientnet_lite0", "tf_efficientnet_lite0.in1k"),
        ("tf_efficientnet_lite2", "tf_efficientnet_lite2.in1k"),
        ("efficientnet_b0", "efficientnet_b0.ra_in1k"),
        ("squeezenet", "squeezenet1_1"),
        ("squeezenet1_1", "squeezenet1_1"),
    ],
)
def test_the_fields_names_and_the_libraries_spellings_are_known(name, identifier):
    assert find(name).identifier == identifier


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("convnext_tiny", "timm"),
        ("timm:resnet50", "timm"),
        ("resnet50.a1_in1k", "timm"),
        ("torchvision:resnet50", "torchvision"),
        ("shufflenet_v2_x1_0", "torchvision"),
    ],
)
def test_any_name_of_timm_and_torchvision_is_known(name, source):
    entry = find(name)

    assert (entry.name, entry.source) == (name, source)
    assert entry.weights


def test_the_catalogue_states_what_the_libraries_state():
    from regraft.backbones import from_timm, from_torchvision

    adapters = {"timm": from_timm.entry, "torchvision": from_torchvision.entry}
    for entry in list_backbones():
        if entry.source in adapters:
            theirs = adapters[entry.source](entry.identifier, name=entry.name)

            assert entry.licence == theirs.licence, entry.name
            assert entry.weights == theirs.weights or entry.installed, entry.name


@pytest.mark.parametrize(
    "name", ["vgg61", "resnet50.no_such_tag", "torchvision:vgg16_x", "", "x:y"]
)
def test_an_unknown_name_is_an_error(name):
    with pytest.raises(BackboneError) as caught:
        find(name)

    assert caught.value.code == "BACKBONE-UNKNOWN"


def test_the_error_for_an_unknown_name_gives_the_nearest():
    with pytest.raises(BackboneError, match=r"nearest: .*mobilenet_v2"):
        find("mobilnet_v2")


def test_names_are_unique():
    names = [entry.name for entry in list_backbones()]

    assert len(names) == len(set(names))


def test_a_network_of_ones_own_can_be_registered_once(monkeypatch):
    monkeypatch.setattr(catalog, "_registered", {})
    register_backbone(
        "mine",
        lambda _spec: build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))),
    )

    assert build("mine").feature_dim == 128
    assert "mine" in [entry.name for entry in list_backbones()]
    for taken in ("mine", "vgg16", "mobilenetv2_100"):
        with pytest.raises(BackboneError, match="already"):
            register_backbone(taken, build)
