"""The networks of this package have the shapes and counts that were published."""

import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.network import average, total
from regraft.backbones.own import AlexNet
from regraft.backbones.spec import BackboneSpec
from regraft.training.heads import HEADS

HEAD = HEADS["mlp_264_128_64_32"]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def backbone():
    return build(BackboneSpec("selu_cnn", weights=None))


def test_pictures_of_77_by_96_pixels_give_192_columns_and_607_646_parameters(backbone):
    trunk = backbone.module.features.eval()
    with torch.no_grad():
        maps = trunk(torch.zeros(1, 3, 77, 96))
    head = HEAD.build(tuple(maps.shape[1:]), 22, pool=average)

    assert maps.shape == (1, 32, 2, 3)
    assert head[1].in_features == 192
    assert [row.parameters for row in backbone.layer_table() if row.parameters] == [
        9_728, 409_728, 73_792, 18_464
    ]  # fmt: skip
    assert backbone.parameters == 511_712
    assert count(head) == 95_934
    assert count(trunk) + count(head) == 607_646


def test_a_signal_neither_dies_nor_explodes_on_its_way_through_the_trunk(backbone):
    torch.manual_seed(0)
    batch = torch.randn(4, 3, 96, 96)
    trunk = backbone.module.features.eval()

    with torch.no_grad():
        spread = [(batch := block(batch)).std().item() for block in trunk]

    assert all(0.5 < value < 2 for value in spread)


def test_alexnet_has_the_published_layers_parameters_and_shapes():
    rows = build(BackboneSpec("alexnet_lrn", weights=None)).layer_table(top=True)

    assert [row.parameters for row in rows if row.parameters] == [
        34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000
    ]  # fmt: skip
    assert total(rows).parameters == 62_378_344
    assert [row.output_shape for row in rows if row.type in {"Conv2d", "MaxPool2d"}] == [
        (96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13),
        (384, 13, 13), (384, 13, 13), (256, 13, 13), (256, 6, 6),
    ]  # fmt: skip


def test_alexnet_normalises_responses_as_its_paper_writes():
    layer = AlexNet().features[2]
    responses = torch.zeros(1, 96, 1, 1)
    responses[0, 10:15] = 100.0

    found = layer(responses)[0, 12].item()

    assert found == pytest.approx(100 / (2 + 1e-4 * 5 * 100**2) ** 0.75)
