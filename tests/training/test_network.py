"""Frozen means frozen: no gradient, eval mode, and not one bit of a tensor or buffer changed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft import BackboneSpec, Phase, two_stage
from regraft.backbones.backbone import build
from regraft.backbones.network import Stage
from regraft.training.heads import LinearHead, MLPHead
from regraft.training.network import TransferNetwork, choose_trained
from regraft.training.optim import build_optimizer
from samples import refused

# One of each kind; what every network of the catalogue holds stands in tests/contract.
NETWORKS = {
    "mobilenetv3_small_050": (("size", 48),),
    "test_resnet": (("size", 48),),
    "test_convnext": (("size", 48), ("drop_path_rate", 0.5)),
    "test_vit": (("drop_path_rate", 0.5), ("proj_drop_rate", 0.5)),
}
STRATEGIES = {
    "frozen": [Phase()],
    "half": [Phase(unfreeze=0.5)],
    "all": [Phase(unfreeze=1.0)],
    "two_stage": two_stage(),
    "norms": [Phase(unfreeze_matching=r"norm|bn\d|features\.[34]\.")],
}


def graft(name="test_resnet", head=None, arguments=None, **options):
    chosen = NETWORKS[name] if arguments is None else arguments
    backbone = build(BackboneSpec(name, weights=None, arguments=chosen))
    return backbone, TransferNetwork(backbone, head or LinearHead(), **{"outputs": 3, **options})


def batch(network_backbone, samples=3):
    size = network_backbone.preprocessing.size
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (samples, size, size, 3), generator=random, dtype=torch.uint8)


def maps(network, images):
    return network.map(network.normalise(images))


def step(network, phase, images):
    """Train one step; return what the phase trains and the optimizer."""
    trained = network.freeze(phase)
    optimizer = build_optimizer(phase, network.trained_parameters())
    network.set_mode()
    targets = torch.arange(len(images)) % 3
    nn.functional.cross_entropy(network(images), targets).backward()
    return trained, optimizer


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module, before):
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_frozen_tensor_or_buffer_never_changes(name, strategy):
    backbone, network = graft(name)
    images = batch(backbone)

    for phase in STRATEGIES[strategy]:
        trunk, head = snapshot(network.trunk), snapshot(network.head)
        network.freeze(phase)
        checksum = network.frozen_checksum()
        trained, optimizer = step(network, phase, images)
        frozen = {k: p for k, p in network.trunk.named_parameters() if k not in trained.parameters}
        assert all(p.grad is None and not p.requires_grad for p in frozen.values())

        optimizer.step()

        moved = changed(network.trunk, trunk)
        assert network.frozen_checksum() == checksum
        assert {f"trunk.{name}" for name in moved} <= set(network.trained_tensors())
        assert not moved & set(frozen)
        buffers = moved - {name for name, _ in network.trunk.named_parameters()}
        beside = {f"{name.rpartition('.')[0]}.weight" for name in buffers}
        assert beside <= trained.parameters
        assert bool(moved) == bool(trained.parameters)
        assert changed(network.head, head)


@pytest.mark.parametrize("name", NETWORKS)
def test_modules_train_with_their_stage_and_stay_still_with_a_frozen_one(name):
    _, network = graft(name, MLPHead(widths=(4,), pooling="avg", dropout=0.5))
    trained = network.freeze(Phase(unfreeze=0.5))

    network.set_mode()

    assert all(module.training for module in network.head.modules())
    for index, stage in enumerate(network.stages):
        for outer in stage.modules:
            modes = {module.training for module in network.trunk.get_submodule(outer).modules()}
            assert modes == {index >= trained.first}


class OwnHead:
    """A head that somebody brings along, with a part that stays as it was made."""

    def build(self, shape, outputs, *, pool):
        """Return a frozen and a trained layer."""
        first = nn.Linear(shape[0], 4).requires_grad_(False)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), first, nn.Linear(4, outputs))


def test_what_an_own_head_keeps_frozen_stays_frozen():
    backbone, network = graft(head=OwnHead())
    before = snapshot(network)

    step(network, Phase(), batch(backbone))[1].step()

    assert changed(network, before) == {"head.3.weight", "head.3.bias"}


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_resnet"])
@pytest.mark.parametrize("unfreeze", [0.0, 0.5])
def test_batch_statistics_leave_every_frozen_buffer_as_it_is(name, unfreeze):
    backbone, network = graft(name)
    phase, images = Phase(unfreeze=unfreeze, batchnorm="batch_statistics"), batch(backbone)
    network.freeze(phase)
    checksum, before = network.frozen_checksum(), snapshot(network)
    moving = network.trained_tensors()
    normed = [k for k in before if k.endswith("num_batches_tracked") and k not in moving]

    for _ in range(2):
        step(network, phase, images)[1].step()

    assert network.frozen_checksum() == checksum
    assert changed(network, before) <= network.trained_tensors().keys()
    network.get_buffer(normed[0]).add_(1)
    assert network.frozen_checksum() != checksum  # a frozen buffer that moves is seen


def test_batch_statistics_normalise_each_training_batch_and_averages_each_prediction():
    backbone, network = graft()
    images = batch(backbone)
    network.eval()
    averaged = maps(network, images)
    network.trunk.train()  # what batch norm does on its own, averages that move included
    own = maps(network, images)
    network.trunk.load_state_dict(graft()[1].trunk.state_dict())

    network.freeze(Phase(batchnorm="batch_statistics"))
    network.set_mode()
    training = maps(network, images)
    network.eval()

    assert torch.equal(training, own)
    assert not torch.allclose(training, averaged)
    assert torch.equal(maps(network, images), averaged)


def test_a_map_with_its_channels_last_is_pooled_as_the_network_does_it():
    arguments = (("embed_dim", 16), ("depths", (1, 1)), ("num_heads", (2, 2)))
    backbone, network = graft("swin_tiny_patch4_window7_224", arguments=arguments)
    images = batch(backbone, samples=1)
    network.eval()

    with torch.no_grad():
        found = maps(network, images)
        rows = network.head[:-1](found)

    assert backbone.network.layout == "NHWC"
    assert found.shape[1] == 32
    assert torch.allclose(rows, backbone.embedder(images), atol=1e-5)


def test_an_optimizer_gets_each_trained_parameter_once_from_the_head_downwards():
    _, network = graft()
    network.freeze(Phase(unfreeze_last=3))

    found = network.trained_parameters()

    names = {id(p): n for n, p in network.named_parameters()}
    parts = list(dict.fromkeys(".".join(names[id(p)].split(".")[:2]) for p in found))
    assert parts == ["head.1", "trunk.layer4", "trunk.layer3", "trunk.layer2"]
    assert len(found) == len({id(p) for p in found})
    assert {id(p) for p in found} == {id(p) for p in network.parameters() if p.requires_grad}


STAGES = [
    Stage(name=name, modules=(name,), parameters=(f"{name}.weight", f"{name}.bias"))
    for name in ("stem", "low", "middle", "high")
]


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase(), []),
        (Phase(unfreeze=0.01), ["high"]),
        (Phase(unfreeze=0.5), ["middle", "high"]),
        (Phase(unfreeze_from="low"), ["low", "middle", "high"]),
        (Phase(unfreeze_last=0), []),
        (Phase(unfreeze_last=1), ["high"]),
        (Phase(unfreeze_last=4), ["stem", "low", "middle", "high"]),
        (Phase(unfreeze_matching=r"^(stem|middle)\."), ["stem", "middle"]),
    ],
)
def test_the_stages_that_a_phase_names_are_trained(phase, expected):
    trained = choose_trained(phase, STAGES)

    found = [stage.name for stage in STAGES if trained.parameters >= set(stage.parameters)]
    assert found == expected
    assert trained.stages == len(expected) / 4
    names = [stage.name for stage in STAGES]
    assert trained.first == (names.index(expected[0]) if expected else 4)


@given(st.floats(0, 1), st.integers(1, 40))
def test_a_share_is_rounded_to_the_nearest_stage_and_a_half_upwards(share, count):
    stages = [Stage(name=f"{i}", modules=(), parameters=(f"{i}.weight",)) for i in range(count)]

    trained = len(choose_trained(Phase(unfreeze=share), stages).parameters)

    nearest = share * count - 0.5 <= trained <= share * count + 0.5
    assert trained == (0 if share == 0 else 1) or nearest
    assert len(choose_trained(Phase(unfreeze=0.5), stages).parameters) == (count + 1) // 2


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (Phase(unfreeze_from="top"), ("there is no stage 'top'", "stem, low")),
        (Phase(unfreeze_last=5), ("there are 4",)),
        (Phase(unfreeze_matching="gamma"), ("no parameter of the trunk matches", "stem.weight")),
    ],
)
def test_what_is_not_there_cannot_be_trained(phase, said):
    error = refused(choose_trained, phase, STAGES)

    assert all(words in str(error) for words in said)
