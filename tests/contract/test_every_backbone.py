"""What every network of the catalogue promises, with random weights at a small input size."""

import functools

import numpy as np
import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.catalog import list_backbones
from regraft.backbones.network import total
from regraft.backbones.spec import BackboneSpec
from regraft.explain.maps import class_maps
from regraft.settings import from_json, to_json

# The smallest comfortable inputs; None is the native size of a network that takes no other.
SIZES = {
    "alexnet": 64,
    "alexnet_lrn": 96,
    "vgg16": 32,
    "vgg19": 32,
    "inception_v3": 96,
    "inception_resnet_v2": 96,
}
SIZES |= {"xception": 96, "nasnet": 96, "fastvit_sa12": 128, "tiny_vit_5m": 224}
SIZES |= dict.fromkeys(("vit_tiny_patch16_224", "swin_v2_tiny", "eva02_small", "siglip2_base"))
SIZES |= dict.fromkeys(("dinov2_small", "dinov2_base", "dinov3_small", "dinov3_base"))
SLOW = {"vgg19", "nasnet", "inception_resnet_v2", "efficientnet_lite1", "efficientnet_lite2"}
SLOW |= {"mobilenet_v4_medium", "edgenext_small", "fastvit_sa12", "tiny_vit_5m", "densenet121"}
# Their own pooling ends with a normalisation.
NORMED = {"tiny_vit_5m", "edgenext_small", "convnext_tiny", "convnext_v2_tiny", "caformer_s18"}
NORMED |= {"dinov3_convnext_tiny"}
EVERY = [
    pytest.param(
        entry.name,
        marks=[pytest.mark.slow] if entry.name in SLOW or entry.group == "strong" else [],
    )
    for entry in list_backbones()
]


@functools.cache
def spec_of(name, pooling="avg"):
    size = SIZES.get(name, 64)
    arguments = {} if size is None else {"size": size}
    return BackboneSpec(name, weights=None, arguments=arguments, pooling=pooling)


@functools.lru_cache(maxsize=1)
def built(name):
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    backbone = build(spec_of(name))
    assert torch.equal(torch.rand(2), expected), "the caller's random numbers moved"
    return backbone


def draw(backbone, count):
    size = backbone.preprocessing.size
    shape = (count, size, size, 3)
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", EVERY)
def test_every_backbone_keeps_its_promises(name):
    backbone = built(name)
    check_stages(backbone)
    check_layers(backbone)
    check_rows(backbone)
    check_facts(backbone)
    check_poolings(backbone, name)
    check_maps(backbone)


def check_stages(backbone):
    """Every parameter of the trunk stands in exactly one stage, and stages follow the depth."""
    staged = [name for stage in backbone.stages for name in stage.parameters]
    sizes = {name: value.numel() for name, value in backbone.module.named_parameters()}

    assert len(staged) == len(set(staged))
    assert sum(sizes[name] for name in staged) == backbone.parameters > 0
    assert len({stage.name for stage in backbone.stages}) == len(backbone.stages) >= 4
    for stage in backbone.stages:
        held = {
            f"{module}.{inner}"
            for module in stage.modules
            for inner, _ in backbone.module.get_submodule(module).named_parameters()
        }
        assert held <= set(stage.parameters)
        assert stage.output in stage.modules
    order = [row.name for row in backbone.layer_table() if row.output_shape]  # what is called
    first_runs = [
        min(i for i, row in enumerate(order) if row == m or row.startswith(m + "."))
        for m in (stage.modules[0] for stage in backbone.stages)
    ]
    assert first_runs == sorted(first_runs)


def check_layers(backbone):
    """The layer table accounts for every parameter, with and without the top."""
    whole = sum(value.numel() for value in backbone.module.parameters())

    for blocks in (False, True):
        assert total(backbone.layer_table(blocks=blocks)).parameters == backbone.parameters
        assert total(backbone.layer_table(top=True, blocks=blocks)).parameters == whole


def check_rows(backbone):
    """Rows are finite, of the measured width, and the same whatever the batch."""
    pictures = draw(backbone, 3)
    engine = backbone.engine("torch")

    rows = engine(pictures)

    assert rows.shape == (3, backbone.feature_dim)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert np.abs(engine(pictures[1:2])[0] - rows[1]).max() <= 1e-5 * np.abs(rows).max()
    assert not any(module.training for module in backbone.module.modules())


def check_facts(backbone):
    """What a run records is there and plain."""
    assert len(backbone.fingerprint) == len(backbone.weights.sha256) == 64
    assert backbone.weights.licence == "none"
    assert from_json(BackboneSpec, to_json(backbone.spec)) == backbone.spec
    assert backbone.preprocessing.size <= backbone.preprocessing.resize


def check_poolings(backbone, name):
    """The average is the average of the flattened map; an early stage can be tapped."""
    batch = torch.from_numpy(draw(backbone, 1))
    network = backbone.network
    with torch.inference_mode():
        last = network.last_map(backbone.embedder.normalise(batch))
        rows = backbone.embedder(batch)
    last = last.permute(0, 3, 1, 2) if network.layout == "NHWC" else last
    if last.ndim == 4 and name not in NORMED:
        assert torch.allclose(last.flatten(2).mean(-1), rows, rtol=1e-3, atol=1e-5)
    if name in {"simple_cnn", "squeezenet", "mobilenet_v2", "vit_tiny_patch16_224"}:
        early = build(spec_of(name, f"stage:{backbone.stages[1].name}"))
        assert early.feature_dim < 400


def check_maps(backbone):
    """The last feature map explains the network, which is left without a trace of that."""
    classes = ["n01440764", "n01443537", "n01484850", "n01491361"]
    maps = class_maps(backbone, list(draw(backbone, 1)) * len(classes), classes)

    assert maps.shape[1] == maps.shape[2]
    assert maps.min() == 0 or maps.shape[1] == 1
    assert set(maps.max((1, 2))) <= {0.0, 1.0}
    assert maps.max() == 1  # of four classes the image speaks for one
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.module.modules())


@pytest.mark.parametrize(
    ("name", "whole", "trunk"),
    [
        ("alexnet", 61_100_840, 2_469_696),
        ("alexnet_lrn", 62_378_344, 3_747_200),
        ("googlenet", 6_624_904, 5_599_904),
        ("resnet50", 25_557_032, 23_508_032),
        ("inception_v3", 23_834_568, 21_785_568),
        ("xception", 22_855_952, 20_806_952),
        ("mobilenet_v1", 4_231_976, 3_206_976),
        ("mobilenet_v2", 3_504_872, 2_223_872),
        ("densenet121", 7_978_856, 6_953_856),
        ("efficientnet_b0", 5_288_548, 4_007_548),
        pytest.param("vgg19", 143_667_240, 20_024_384, marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", 55_843_464, 54_306_464, marks=pytest.mark.slow),
        pytest.param("nasnet", 88_753_150, 84_720_150, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_those_of_the_published_implementations(name, whole, trunk):
    backbone = build(spec_of(name))

    assert sum(value.numel() for value in backbone.module.parameters()) == whole
    assert backbone.parameters == trunk
