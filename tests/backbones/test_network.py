"""A network taken apart: stages, taps, layers, tensors that fit."""

import threading

import pytest
import torch
from torch import nn

from regraft.backbones.backbone import build
from regraft.backbones.network import (
    Network,
    Size,
    average,
    channels_first,
    child_groups,
    find_stages,
    layer_table,
    misfit,
    record_calls,
    tap,
    total,
)
from regraft.backbones.spec import BackboneSpec
from samples import refused


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 8, 4, 4), "NCHW"),
        ((2, 4, 4, 8), "NHWC"),
        ((2, 16, 8), "NCHW"),
        ((2, 4, 4, 8), "NCHW"),  # an early block of TinyViT, whose last map is NCHW
        ((2, 8, 8, 8), "NHWC"),
    ],
)
def test_every_layout_is_averaged_over_its_positions(shape, layout):
    features = torch.rand(shape)

    assert channels_first(features, layout).shape[1] == 8
    assert average(features, layout).shape == (2, 8)


def test_a_tap_sees_what_goes_in_and_what_comes_out():
    net = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    batch = -torch.ones(1, 1, 2, 2)

    assert tap(net, "1", "input")(batch).shape == (1, 1, 2, 2)
    assert tap(net, "0")(batch).abs().sum() == 0
    assert net(batch).shape == (1, 2)  # nothing stays behind


def test_a_tap_does_not_stop_another_thread():
    started, finish, seen = threading.Event(), threading.Event(), []

    class Slow(nn.Module):
        def forward(self, batch):
            if batch.sum() > 0:
                started.set()
                finish.wait(5)
            return batch

    net = nn.Sequential(Slow(), nn.Linear(4, 2))
    reach = tap(net, "1", "input")
    other = threading.Thread(target=lambda: seen.append(reach(torch.ones(1, 4))))
    other.start()
    started.wait(5)
    whole = net(torch.zeros(1, 4))
    finish.set()
    other.join()

    assert whole.shape == (1, 2)
    assert seen[0].shape == (1, 4)


def test_a_part_that_never_runs_is_an_error():
    net = nn.Sequential(nn.ReLU())
    net.unused = nn.Linear(1, 1)
    net.forward = lambda batch: batch

    assert "never runs" in str(refused(tap(net, "unused"), torch.zeros(1)))


def test_stages_hold_every_parameter_once_and_plain_layers_follow_their_convolution():
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.MaxPool2d(2)
    )
    net = nn.Sequential(trunk, nn.Flatten(), nn.Linear(32, 2))
    network = Network(
        module=net,
        last_map=trunk,
        pooled=average,
        groups=child_groups(net, (nn.Sequential,)),
        size=4,
    )
    calls = record_calls(net, lambda: trunk(torch.zeros(1, 3, 4, 4)))

    first, second = find_stages(network, ("2",), calls)

    assert (first.name, first.modules, first.output) == ("0.0", ("0.0", "0.1", "0.2"), "0.2")
    assert (second.name, second.modules, second.output) == ("0.3", ("0.3", "0.4"), "0.4")
    assert second.parameters == ("0.3.weight", "0.3.bias")


def test_a_last_norm_that_stands_with_the_head_joins_the_last_stage():
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "norm": nn.LayerNorm(2), "head": nn.Linear(2, 1)})
    groups = (
        ("body.weight", "body.bias"),
        ("norm.weight", "norm.bias", "head.weight", "head.bias"),
    )
    network = Network(module=net, last_map=net["body"], pooled=average, groups=groups, size=1)

    (stage,) = find_stages(network, ("head",), ["body", "norm"])

    assert stage.modules == ("body", "norm")


def test_parameters_outside_all_blocks_go_with_the_next_block():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1))
            self.first = nn.Linear(1, 1)

    assert child_groups(Net(), ()) == (("token", "first.weight", "first.bias"),)


@pytest.fixture(scope="module")
def vgg16():
    # The wide layers of its former head are no part of the trunk; narrow ones build faster.
    narrow = {"mlp_ratio": 0.01}
    return build(BackboneSpec("vgg16", weights=None, pooling="flatten", arguments=narrow))


def test_vgg16_without_its_top_has_the_published_parameters_per_layer(vgg16):
    rows = [row for row in vgg16.layer_table() if row.parameters]

    assert [row.parameters for row in rows] == [
        1792, 36928, 73856, 147584, 295168, 590080, 590080, 1180160, *[2359808] * 5
    ]  # fmt: skip
    assert sum(row.parameters for row in rows) == vgg16.parameters == 14_714_688
    assert vgg16.feature_dim == 25_088  # flattened, at 224 pixels
    assert total(vgg16.layer_table(blocks=True)).parameters == 14_714_688
    whole = total(vgg16.layer_table(top=True))
    assert whole.parameters == total(vgg16.layer_table(top=True, blocks=True)).parameters
    assert whole == Size(41, 16, parameters=whole.parameters, trainable=whole.parameters)


def test_vgg16_at_200_pixels_has_the_published_shapes(vgg16):
    batch = torch.zeros(1, 3, 200, 200)

    rows = layer_table(vgg16.module, lambda: vgg16.module.forward_features(batch))

    pools = [row.output_shape for row in rows if row.type == "MaxPool2d"]
    assert pools == [(64, 100, 100), (128, 50, 50), (256, 25, 25), (512, 12, 12), (512, 6, 6)]


def test_missing_unexpected_and_misshapen_tensors_are_named():
    own = {"a": torch.zeros(2), "b": torch.zeros(2, 3), "c": torch.zeros(())}

    found = misfit(own, {"b": torch.zeros(3, 3), "c": torch.zeros(1), "d": torch.zeros(1)})

    assert found == (
        "1 missing (a); 1 unexpected (d); "
        "2 of another shape (b is 3×3, expected 2×3, c is 1, expected one number)"
    )
    assert misfit({str(i): torch.zeros(1) for i in range(9)}, {}) == "9 missing (0, 1, 2, …)"
