"""A cut network has the gradients of the whole one, and is whole again afterwards."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regraft import BackboneSpec, ConvHead, LinearHead, MLPHead, Phase, Preprocessing
from regraft.backbones.backbone import Backbone, build
from regraft.backbones.network import Network, average
from regraft.training.network import TransferNetwork
from regraft.training.optim import build_optimizer
from regraft.training.split_point import (
    EXACT,
    behind_trunk,
    distance,
    find_split_point,
    gradients,
    named_split_point,
)
from samples import refused

HEAD = MLPHead(widths=(8,), pooling="avg", dropout=0.5, batch_norm=True)
IMAGES, CLASSES = 4, 3


def loss(logits):
    return nn.functional.cross_entropy(logits, torch.eye(CLASSES)[torch.arange(len(logits)) % 3])


def draw(network, count=IMAGES, seed=0):
    random = torch.Generator().manual_seed(seed)
    shape = (count, network.side, network.side, 3)
    return torch.randint(256, shape, dtype=torch.uint8, generator=random)


def graft(name, head=HEAD):
    """Return a network with random weights, whose every branch passes something on."""
    backbone = build(BackboneSpec(name, weights=None, arguments={"size": 48}))
    network = TransferNetwork(backbone, head, outputs=3)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.trunk.modules():
            if isinstance(layer, _BatchNorm):  # timm begins residual branches with weight zero
                layer.weight.copy_(torch.rand(layer.weight.shape, generator=random) + 0.5)
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=random) / 10)
                layer.running_mean.copy_(torch.randn(layer.bias.shape, generator=random) / 10)
                layer.running_var.copy_(torch.rand(layer.bias.shape, generator=random) + 0.5)
    return network.to(memory_format=torch.channels_last)


@pytest.fixture
def small():
    return graft("test_resnet")


def cut(network, trained):
    """Return the split point just in front of what is trained."""
    if trained.first == len(network.stages):
        return behind_trunk(network)
    return named_split_point(network, network.stages[trained.first - 1].name)


def rows_of(network, split_point, images):
    with torch.no_grad():
        return split_point.before(network.eval())(network.normalise(images))


def step(network, phase, run, inputs):
    """Take one step in training mode; return loss, gradients and all tensors after it."""
    network.freeze(phase)
    optimizer = build_optimizer(phase, network.trained_parameters())
    network.set_mode()
    torch.manual_seed(7)
    found = loss(run(inputs))
    found.backward()
    given = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    optimizer.step()
    after = {n: t.clone() for n, t in network.state_dict().items()}
    return found.detach(), given, after


# What every network of the catalogue holds at its cut stands in tests/contract.
@pytest.mark.parametrize("name", ["mobilenet_v2", "test_resnet"])
@pytest.mark.parametrize("part", [0.0, 0.25, 0.5])
def test_a_step_from_activations_is_the_step_of_the_whole_network(name, part):
    network = graft(name)
    start = copy.deepcopy(network.state_dict())
    phase = Phase(lr=0.01, unfreeze=part)
    images = draw(network)
    split_point = cut(network, network.freeze(phase))
    rows = rows_of(network, split_point, images)

    whole_loss, whole, whole_after = step(network, phase, network, images)
    network.load_state_dict(start)
    kept_loss, kept, kept_after = step(network, phase, split_point.behind(network), rows)

    assert any(isinstance(m, nn.Dropout) and m.p for m in network.modules())
    assert torch.equal(whole_loss, kept_loss)
    assert set(whole) == set(kept) == {n for n, p in network.named_parameters() if p.requires_grad}
    assert all(torch.equal(whole[n], kept[n]) for n in whole)
    assert all(torch.equal(whole_after[n], kept_after[n]) for n in whole_after)
    assert any(not torch.equal(start[n], kept_after[n]) for n in start)


@pytest.mark.parametrize(
    ("head", "name", "shape"),
    [
        (LinearHead(), "pooled", (128,)),
        (LinearHead(pooling="flatten"), "map", (128, 1, 1)),
        (ConvHead(), "map", (128, 1, 1)),
        (MLPHead(widths=(4,)), "map", (128, 1, 1)),
    ],
)
def test_behind_the_whole_trunk_stands_what_the_head_begins_with(head, name, shape):
    network = graft("simple_cnn", head)
    images = draw(network)

    split_point = behind_trunk(network)

    assert (split_point.name, split_point.shape) == (name, shape)
    rows = rows_of(network, split_point, images)
    assert torch.equal(split_point.behind(network)(rows), network(images))


def test_a_cut_through_a_dense_block_moves_back_to_its_beginning():
    network = graft("densenet121")
    trained = network.freeze(Phase(unfreeze=0.5))
    images = draw(network, 2)
    names = [stage.name for stage in network.stages]

    split_point = find_split_point(network, trained.first, images, loss)

    assert names.index(split_point.name) < trained.first - 1  # layers there read all before them
    rows = rows_of(network, split_point, images)
    whole = gradients(network, images, loss)
    assert distance(whole, gradients(split_point.behind(network), rows, loss)) <= EXACT


class Forked(nn.Module):
    """Both halves of the network see the image itself."""

    def __init__(self, twice=False):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(7, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)
        self._twice = twice

    def maps(self, batch):
        """Return the last feature map."""
        found = self.first(batch)
        if self._twice:
            found = found + self.first(batch.flip(3))
        return self.second(torch.cat([found, batch], 1))

    def forward(self, batch):
        """Return two logits."""
        return self.head(self.maps(batch).mean((2, 3)))


def forked(**options):
    torch.manual_seed(0)
    net = Forked(**options)
    groups = tuple((f"{part}.weight", f"{part}.bias") for part in ("first", "second", "head"))
    network = Network(module=net, last_map=net.maps, pooled=average, groups=groups, size=8)
    spec, facts = BackboneSpec("forked", weights=None), {"weights": None, "identifier": "own"}
    backbone = Backbone(spec, network, preprocessing=Preprocessing.tf(8), **facts)
    return TransferNetwork(backbone, LinearHead(), outputs=3)


@pytest.mark.parametrize("twice", [False, True])
def test_a_network_whose_parts_see_the_image_itself_cannot_be_cut(twice):
    network = forked(twice=twice)
    trained = network.freeze(Phase(unfreeze=0.5))
    assert [stage.name for stage in network.stages] == ["first", "second"]

    assert trained.first == 1
    assert find_split_point(network, 1, draw(network), loss) is None
    if twice:
        error = refused(named_split_point(network, "first").behind, network)
        assert "more than once" in str(error)
    assert_whole(network)


def assert_whole(network):
    """No module has a borrowed forward, and no hook is left."""
    assert not [name for name, part in network.named_modules() if "forward" in vars(part)]
    assert not [name for name, part in network.named_modules() if part._forward_hooks]
    assert not [name for name, part in network.named_modules() if part._forward_pre_hooks]


def test_the_network_is_whole_again_after_an_error(small, monkeypatch):
    images = draw(small)
    before = small.eval()(images)
    split_point = named_split_point(small, small.stages[1].name)
    suffix = split_point.behind(small)
    rows = rows_of(small, split_point, images)

    def fail(_features):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(small.head, "forward", fail)
        with pytest.raises(MemoryError):
            suffix(rows)

    assert_whole(small)
    assert torch.equal(small(images), before)
    suffix.train()
    assert all(part.training for part in small.modules())  # one mode and the same weights
    suffix.eval()
    with torch.no_grad():
        small.head[-1].bias += 1
    assert torch.allclose(suffix(rows), before + 1, atol=1e-5)


def test_the_distance_of_gradients_is_relative_and_never_hides_a_wrong_zero():
    zero, one = [torch.zeros(2)], [torch.ones(2)]

    assert distance(one, one) == 0
    assert distance(zero, zero) == 0
    assert distance(zero, one) == float("inf")
    assert distance(one, zero) == 1
