"""Layer tables give the published shapes and parameter counts."""

import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.network import layer_table
from regraft.backbones.spec import BackboneSpec


@pytest.fixture(scope="module")
def vgg16():
    return build(BackboneSpec("vgg16", weights=None, pooling="flatten"))


def test_vgg16_without_its_top_has_the_published_parameters_per_layer(vgg16):
    rows = [row for row in vgg16.layer_table() if row.parameters]

    assert [row.parameters for row in rows] == [
        1792, 36928, 73856, 147584, 295168, 590080, 590080, 1180160, *[2359808] * 5
    ]  # fmt: skip
    assert sum(row.parameters for row in rows) == vgg16.parameters == 14_714_688


def test_vgg16_flattened_at_224_pixels_has_the_published_width(vgg16):
    assert vgg16.feature_dim == 25_088


def test_vgg16_at_200_pixels_has_the_published_shapes(vgg16):
    batch = torch.zeros(1, 3, 200, 200)

    rows = layer_table(vgg16.module, lambda: vgg16.module.forward_features(batch))

    pools = [row.output_shape for row in rows if row.type == "MaxPool2d"]
    assert pools == [(64, 100, 100), (128, 50, 50), (256, 25, 25), (512, 12, 12), (512, 6, 6)]


def test_the_whole_vgg16_has_the_published_parameters(vgg16):
    rows = vgg16.layer_table(top=True)

    assert sum(row.parameters for row in rows) == 138_357_544
    assert {102_764_544, 16_781_312, 4_097_000} <= {row.parameters for row in rows}


def test_frozen_parameters_are_not_counted_as_trainable():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    net[0].requires_grad_(requires_grad=False)

    rows = layer_table(net, lambda: net(torch.zeros(1, 2)))

    assert [(row.parameters, row.trainable) for row in rows] == [(6, 0), (3, 3)]
    assert [row.index for row in rows] == [0, 1]


def test_parameters_that_no_call_shows_are_listed_all_the_same():
    backbone = build(BackboneSpec("timm:test_vit", weights=None))

    rows = backbone.layer_table()

    assert sum(row.parameters for row in rows) == backbone.parameters
    assert rows[0].name == ""  # the class token and the positions belong to the network itself
