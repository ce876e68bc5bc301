"""Heads of the published teaching material have their parameter counts; heads are plain values."""

import json

import pytest
import torch
from torch import nn

from regraft.backbones.network import average
from regraft.settings import from_json
from regraft.training.heads import (
    HEADS,
    AnyHead,
    LinearHead,
    MLPHead,
    after_entrance,
    entrance,
    find_head,
    head_to_json,
)
from samples import refused


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "parameters"),
    [
        ("mlp_512_512", (512, 7, 7), 5, 13_110_789),
        ("mlp_512_512", (512, 7, 7), 1, 13_108_737),
        ("mlp_256", (512, 7, 7), 17, 6_427_153),
        ("pooled_mlp_128", (512, 6, 6), 5, 590_597),
        ("mlp_512_256", (512, 7, 7), 22, 12_982_550),
        ("conv_1x1", (512, 7, 7), 1, 513),
        ("mlp_264_128_64_32", (32, 2, 3), 22, 95_934),
    ],
)
def test_a_published_head_has_the_published_number_of_parameters(name, shape, outputs, parameters):
    with torch.device("meta"):
        assert count(find_head(name).build(shape, outputs, pool=average)) == parameters


@pytest.mark.parametrize(
    "head", [*HEADS.values(), MLPHead(widths=(), dropout=()), LinearHead(pooling="flatten")]
)
def test_a_head_survives_json(head):
    written = head_to_json(head)

    assert json.loads(json.dumps(written)) == written
    assert from_json(AnyHead, written) == head


def test_a_linear_head_uses_the_networks_own_pooling_or_the_whole_map():
    def largest(maps):
        return maps.amax((2, 3))

    pooled = LinearHead().build((8, 4, 4), 3, pool=largest)
    whole = LinearHead(pooling="flatten").build((8, 4, 4), 3, pool=largest)

    maps = torch.rand(2, 8, 4, 4)
    assert torch.equal(pooled(maps), pooled[-1](largest(maps)))
    assert whole[-1].in_features == 8 * 4 * 4


def test_hidden_layers_are_norm_then_activation_then_dropout():
    head = MLPHead(widths=(6, 4), activation="gelu", dropout=(0.2, 0.0), batch_norm=True)

    layers = head.build((8, 2, 2), 3, pool=average)

    assert [type(layer) for layer in layers] == [
        *(nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Dropout),
        *(nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear),
    ]
    assert layers[4].p == 0.2


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((MLPHead, "widths", value) for value in ((0,), (10**6 + 1,), (4,) * 101)),
        *((kind, "dropout", value) for kind in (LinearHead, MLPHead) for value in (-1, 1)),
        (MLPHead, "activation", "swish"),
        (LinearHead, "pooling", "max"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(kind, name, value):
    assert f"{name} cannot be" in str(refused(kind, **{name: value}))
    assert "2 dropouts for 1 layers" in str(refused(MLPHead, widths=(6,), dropout=(0.1, 0.2)))
    assert "did you mean 'mlp_256'" in str(refused(find_head, "mlp_265"))


class Own:
    """A head that somebody brings along."""

    def build(self, shape, outputs, *, pool):
        """Return one linear layer on the whole map."""
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], outputs))


def test_a_head_of_ones_own_is_used_but_cannot_be_written():
    head = Own()

    assert find_head(head) is head
    assert "Own" in str(refused(head_to_json, head))


@pytest.mark.parametrize(
    ("name", "shape", "side"),
    [
        ("conv_1x1", (192, 101), 1),
        ("pooled_mlp_128", (192, 101), 2),
        ("pooled_mlp_128", (512, 1, 1), 2),
    ],
)
def test_a_head_for_maps_is_refused_where_there_is_none_or_it_is_too_small(name, shape, side):
    error = refused(HEADS[name].build, shape, 3, pool=average)

    assert "does not fit" in str(error)
    smallest = HEADS[name].build((8, side, side), 3, pool=average).eval()
    assert smallest(torch.zeros(2, 8, side, side)).shape == (2, 3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "head",
    [
        LinearHead(dropout=0.5),
        MLPHead(widths=(), pooling="avg"),
        MLPHead(widths=(6, 5), pooling="avg", dropout=0.5, batch_norm=True),
    ],
)
def test_a_head_on_pooled_rows_gives_the_logits_of_the_head_on_maps_bit_for_bit(head, training):
    module = head.build((8, 4, 4), 3, pool=average).train(training)
    maps = torch.rand(6, 8, 4, 4)

    torch.manual_seed(0)
    whole = module(maps)
    torch.manual_seed(0)
    split = after_entrance(module, average(maps))

    assert entrance(module) == "pooled"
    assert torch.equal(split, whole)


@pytest.mark.parametrize(
    "module",
    [
        *(HEADS[name].build((8, 4, 4), 3, pool=average) for name in HEADS if name != "linear"),
        LinearHead(pooling="flatten").build((8, 4, 4), 3, pool=average),
        Own().build((8, 4, 4), 3, pool=average),
        nn.Linear(8, 3),
        nn.Sequential(),
    ],
)
def test_every_other_head_needs_the_map(module):
    assert entrance(module) == "map"
