"""Networks of torchvision: their last feature map is found in every family."""

import pytest
import torch

from regraft.backbones import from_torchvision
from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec


@pytest.mark.parametrize(
    ("name", "width", "first", "last"),
    [
        ("alexnet", 256, "features.0", "features.10"),
        ("googlenet", 1024, "conv1", "inception5b"),
        ("squeezenet1_1", 512, "features.0", "features.12"),
        ("shufflenet_v2_x0_5", 1024, "conv1", "conv5"),
        ("mnasnet0_5", 1280, "layers.0", "layers.14"),
        ("regnet_y_400mf", 440, "stem", "trunk_output.block4"),
        ("mobilenet_v3_small", 576, "features.0", "features.12"),
    ],
)
def test_width_and_depth_order_are_right(name, width, first, last):
    spec = BackboneSpec(f"torchvision:{name}", weights=None, arguments={"size": 96})

    backbone = build(spec)

    assert backbone.feature_dim == width
    assert (backbone.stages[0].name, backbone.stages[-1].name) == (first, last)


def test_channels_last_feature_maps_are_averaged_over_positions():
    flat = build(BackboneSpec("torchvision:swin_t", weights=None, pooling="stage:features.0"))

    assert flat.feature_dim == 96


def test_a_vision_transformer_gives_its_class_token():
    network = from_torchvision.build("vit_b_32", {"num_classes": 3})
    network.module.eval()
    batch = torch.rand(2, 3, 224, 224)

    with torch.inference_mode():
        token = network.pooled(network.last_map(batch))

        assert torch.allclose(network.module.heads(token), network.module(batch))
