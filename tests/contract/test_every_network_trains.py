"""What every network of the catalogue promises when it is trained: what is frozen does not move."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regraft.backbones.backbone import build
from regraft.backbones.catalog import list_backbones
from regraft.backbones.spec import BackboneSpec
from regraft.training.heads import LinearHead
from regraft.training.network import TransferNetwork
from regraft.training.optim import build_optimizer
from regraft.training.phases import Phase, fine_tune, frozen, two_stage
from regraft.training.split_point import EXACT, distance, find_split_point, gradients

# The smallest comfortable inputs; None is the native size of a network that takes no other.
SIZES = {"vgg16": 32, "vgg19": 32, "inception_v3": 96, "inception_resnet_v2": 96}
SIZES |= {"xception": 96, "nasnet": 96, "alexnet_lrn": 96}
FIXED = {"swin_v2_tiny", "eva02_small", "dinov2_small", "dinov2_base", "siglip2_base"}
FIXED |= {"dinov3_small", "dinov3_base", "vit_tiny_patch16_224"}
SIZES |= dict.fromkeys(FIXED)
SLOW = {"vgg19", "nasnet", "inception_resnet_v2"} | FIXED - {"vit_tiny_patch16_224"}
STRATEGIES = {
    "frozen": frozen(),
    "half": fine_tune(unfreeze=0.5),
    "all": fine_tune(),
    "two_stage": two_stage(),
    "batch_statistics": [Phase(batchnorm="batch_statistics")],
}
STEPS, IMAGES, CLASSES = 2, 4, 3
# Every strategy on networks of each kind; of the others half of the trunk, and the rest slowly.
KINDS = {"simple_cnn", "mobilenet_v2", "densenet121", "vit_tiny_patch16_224"}
EVERY = [
    pytest.param(entry.name, strategy, marks=[pytest.mark.slow] if slow else [])
    for entry in list_backbones()
    for strategy in STRATEGIES
    for slow in [entry.name in SLOW or (entry.name not in KINDS and strategy != "half")]
]


@functools.lru_cache(maxsize=1)
def grafted(name):
    """Return a network with random weights, and these weights."""
    size = SIZES.get(name, 64)
    arguments = {} if size is None else {"size": size}
    if name.startswith("vgg"):
        arguments["mlp_ratio"] = 0.01  # the former head is no part of the trunk
    backbone = build(BackboneSpec(name, weights=None, arguments=arguments))
    network = TransferNetwork(backbone, LinearHead(), outputs=CLASSES)
    with torch.no_grad():
        for branch, parameter in network.trunk.named_parameters():
            if "gamma" in branch and parameter.abs().max() < 1e-4:
                parameter.fill_(0.5)  # branches that begin as next to nothing have no gradient
    return backbone, network, {n: t.clone() for n, t in network.state_dict().items()}


@pytest.mark.parametrize(("name", "strategy"), EVERY)
def test_every_network_moves_what_a_phase_trains_and_nothing_else(name, strategy):
    backbone, network, start = grafted(name)
    network.load_state_dict(start)
    torch.manual_seed(1)
    size = backbone.preprocessing.size
    images = torch.randint(256, (IMAGES, size, size, 3), dtype=torch.uint8)

    for phase in STRATEGIES[strategy]:
        trained = network.freeze(phase)
        check_shares(backbone, phase, trained)
        before = {n: t.clone() for n, t in network.state_dict().items()}
        checksum = network.frozen_checksum()

        gradients = train(network, phase, trained, images)

        moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
        wanted = {f"trunk.{n}" for n in trained.parameters} | {"head.1.weight", "head.1.bias"}
        assert gradients == wanted
        assert moved == wanted | averages(network, trained)
        assert network.frozen_checksum() == checksum
        assert moved <= network.trained_tensors().keys()


def check_shares(backbone, phase, trained):
    """A share of the stages is that share, and never none or all of the parameters by mistake."""
    stages = len(backbone.stages)
    names = {name for stage in backbone.stages for name in stage.parameters}

    assert abs(trained.stages - phase.unfreeze) <= 0.5 / stages + 1e-9
    assert trained.first == stages - round(trained.stages * stages)
    assert trained.parameters <= names
    assert (trained.parameters == names) == (phase.unfreeze == 1)
    assert bool(trained.parameters) == bool(phase.unfreeze)


def train(network, phase, trained, images):
    """Take a few steps; return the names of the parameters with a gradient other than zero."""
    optimizer = build_optimizer(phase, network.trained_parameters())
    targets = torch.arange(IMAGES) % CLASSES
    seen = set()
    for _ in range(STEPS):
        network.set_mode()
        loss = nn.functional.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        given = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        seen |= {n for n, gradient in given.items() if gradient.any()}
        assert all(gradient.isfinite().all() for gradient in given.values())
    return seen


def averages(network, trained):
    """Return the names of the buffers of all batch norm whose parameters are trained."""
    return {
        f"trunk.{name}.{buffer}"
        for name, layer in network.trunk.named_modules()
        if isinstance(layer, _BatchNorm) and f"{name}.weight" in trained.parameters
        for buffer, _ in layer.named_buffers()
    }


UNCUT = {"nasnet"}  # its cells read the two before them, and parts of them are borrowed
# Seconds each; of three of them tests/training/test_split_point.py looks at the gradients, too.
LARGE = {"vgg16", "resnet50", "densenet121", "xception", "inception_v3"}
LARGE |= {"dinov3_convnext_tiny", "convnext_v2_tiny", "tiny_vit_5m", "repvit_m1_1"}
CUTS = [
    pytest.param(entry.name, share, marks=slow)
    for entry in list_backbones()
    for share in (0.25, 0.5, 0.75)
    for slow in [[pytest.mark.slow] if share != 0.5 or entry.name in SLOW | LARGE else []]
]


@pytest.mark.parametrize(("name", "share"), CUTS)
def test_every_network_is_cut_where_the_gradient_is_the_same_or_not_at_all(name, share):
    backbone, network, start = grafted(name)
    network.load_state_dict(start)
    let_every_branch_pass_something_on(network)
    trained = network.freeze(Phase(unfreeze=share))
    network.eval()  # as the trainer does: the network comes from the test before
    size = backbone.preprocessing.size
    random = torch.Generator().manual_seed(1)
    images = torch.randint(256, (2, size, size, 3), dtype=torch.uint8, generator=random)

    def loss(logits):
        return nn.functional.cross_entropy(logits, torch.tensor([0, 1]))

    split_point = find_split_point(network, trained.first, images, loss)

    assert (split_point is None) == (name in UNCUT)
    assert not [n for n, part in network.named_modules() if "forward" in vars(part)]
    if split_point is None:
        return
    names = [stage.name for stage in network.stages]
    place = names.index(split_point.name) + 1
    assert place == trained.first or (name == "densenet121" and place < trained.first)
    with torch.no_grad():
        rows = split_point.before(network)(network.normalise(images))
    whole = gradients(network, images, loss)
    assert any(bool(gradient.any()) for gradient in whole)
    assert distance(whole, gradients(split_point.behind(network), rows, loss)) <= EXACT


def let_every_branch_pass_something_on(network):
    """Give batch norm other weights: many residual branches begin with the weight zero."""
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in network.trunk.modules():
            if isinstance(layer, _BatchNorm):
                layer.weight.copy_(torch.rand(layer.weight.shape, generator=random) + 0.5)
                layer.running_var.copy_(torch.rand(layer.weight.shape, generator=random) + 0.5)
