"""What every network of the catalogue promises, with random weights at a small input size.

A network is built once, looked at, trained by every strategy and cut. One of each kind is quick;
the whole catalogue is slow, and two of timm's smallest stand for transformers and ConvNeXt.
"""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regraft import BackboneSpec, LinearHead, Phase, fine_tune, frozen, list_backbones, two_stage
from regraft.backbones.backbone import build
from regraft.backbones.catalog import known
from regraft.backbones.network import total
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.deploy.export import TOLERANCE, network_onnx
from regraft.explain.maps import class_maps
from regraft.settings import from_json, to_json
from regraft.training.network import TransferNetwork
from regraft.training.optim import build_optimizer
from regraft.training.split_point import EXACT, distance, find_split_point, gradients

# The smallest comfortable inputs; None is the native size of a network that takes no other.
SIZES = {"vgg16": 32, "vgg19": 32, "fastvit_sa12": 128, "tiny_vit_5m": 224}
SIZES |= dict.fromkeys(("inception_v3", "inception_resnet_v2", "xception", "nasnet"), 96)
SIZES |= dict.fromkeys(("vit_tiny_patch16_224", "swin_v2_tiny", "eva02_small", "siglip2_base"))
SIZES |= dict.fromkeys(("dinov2_small", "dinov2_base", "dinov3_small", "dinov3_base"))
SIZES["alexnet_lrn"] = 96
SMALLEST = ("timm:test_vit", "timm:test_convnext")
SIZES["timm:test_vit"] = None
QUICK = {"simple_cnn", "selu_cnn", "squeezenet", "googlenet", "mobilenet_v2", "mobilenet_v3"}
QUICK |= {"mobilenet_v4_small", "efficientnet_lite0", *SMALLEST}
EVERY = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in (*SMALLEST, *(entry.name for entry in list_backbones()))
]
# Their own pooling ends with a normalisation.
NORMED = {"tiny_vit_5m", "edgenext_small", "convnext_tiny", "convnext_v2_tiny", "caformer_s18"}
NORMED |= {"dinov3_convnext_tiny", "timm:test_convnext"}
UNCUT = {"nasnet"}  # its cells read the two before them, and parts of them are borrowed
STRATEGIES = [frozen(), fine_tune(unfreeze=0.5), fine_tune(), two_stage()]
STRATEGIES += [[Phase(batchnorm="batch_statistics")]]
STEPS, IMAGES, CLASSES = 2, 4, 3
# The whole network and its trunk.
PUBLISHED = {
    "alexnet": (61_100_840, 2_469_696),
    "alexnet_lrn": (62_378_344, 3_747_200),
    "vgg16": (138_357_544, 14_714_688),
    "vgg19": (143_667_240, 20_024_384),
    "googlenet": (6_624_904, 5_599_904),
    "resnet50": (25_557_032, 23_508_032),
    "inception_v3": (23_834_568, 21_785_568),
    "inception_resnet_v2": (55_843_464, 54_306_464),
    "xception": (22_855_952, 20_806_952),
    "nasnet": (88_753_150, 84_720_150),
    "mobilenet_v1": (4_231_976, 3_206_976),
    "mobilenet_v2": (3_504_872, 2_223_872),
    "densenet121": (7_978_856, 6_953_856),
    "efficientnet_b0": (5_288_548, 4_007_548),
}


def test_the_catalogue_states_the_published_numbers_of_parameters():
    stated = {name: known(name).facts.parameters for name in PUBLISHED}

    assert stated == {name: whole for name, (whole, _) in PUBLISHED.items()}


@pytest.mark.parametrize("name", EVERY)
def test_every_network_keeps_its_promises(name):
    backbone = built(name)
    check_stages(backbone)
    check_layers(backbone)
    check_rows(backbone)
    check_facts(backbone)
    check_poolings(backbone, name)
    check_maps(backbone)

    network = TransferNetwork(backbone, LinearHead(), outputs=CLASSES)
    start = {n: t.clone() for n, t in network.state_dict().items()}
    for phases in STRATEGIES:
        network.load_state_dict(start)
        check_training(network, backbone, phases)
    for share in (0.25, 0.5, 0.75):
        network.load_state_dict(start)
        check_cut(network, share, name)
    network.load_state_dict(start)
    check_export(network, backbone)


def built(name, **options):
    """Return a network with random weights; nobody else's random numbers move."""
    size = SIZES.get(name, 64)
    arguments = {} if size is None else {"size": size}
    if name.startswith("vgg"):
        arguments["mlp_ratio"] = 0.01  # the former head is no part of the trunk
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    backbone = build(BackboneSpec(name, weights=None, arguments=arguments, **options))
    assert torch.equal(torch.rand(2), expected)
    with torch.no_grad():
        for branch, parameter in backbone.module.named_parameters():
            if "gamma" in branch and parameter.abs().max() < 1e-4:
                parameter.fill_(0.5)  # branches that begin as next to nothing have no gradient
    return backbone


def draw(backbone, count):
    size = backbone.preprocessing.size
    shape = (count, size, size, 3)
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


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
    images = draw(backbone, 3)
    engine = backbone.engine("torch")

    rows = engine(images)

    assert rows.shape == (3, backbone.feature_dim)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert np.abs(engine(images[1:2])[0] - rows[1]).max() <= 1e-5 * np.abs(rows).max()
    assert not any(module.training for module in backbone.module.modules())


def check_facts(backbone):
    """What a run records is there and plain, and the trunk has as many parameters as published."""
    assert len(backbone.fingerprint) == len(backbone.weights.sha256) == 64
    assert backbone.weights.licence == "none"
    assert from_json(BackboneSpec, to_json(backbone.spec)) == backbone.spec
    assert backbone.preprocessing.size <= backbone.preprocessing.resize
    _, trunk = PUBLISHED.get(backbone.spec.name, (None, backbone.parameters))
    assert backbone.parameters == trunk


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
        early = built(name, pooling=f"stage:{backbone.stages[1].name}")
        assert early.feature_dim < 400


def check_maps(backbone):
    """The last feature map explains the network, which is left without a trace of that."""
    classes = ["n01440764", "n01443537", "n01484850", "n01491361", "n01494475"]
    maps = class_maps(backbone, list(draw(backbone, 1)) * len(classes), classes)

    assert maps.shape[1] == maps.shape[2]
    assert maps.min() >= 0
    assert set(maps.max((1, 2))) <= {0.0, 1.0}
    assert maps.max() == 1  # of five classes the image speaks for one
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.module.modules())


def check_export(network, backbone):
    """Written as ONNX it gives the same probabilities, whatever the batch."""
    shades = np.linspace(0.2, 1, IMAGES)[:, None, None, None]
    images = (draw(backbone, IMAGES) * shades).astype(np.uint8)
    let_images_differ(network, torch.from_numpy(images))
    learner = NetworkClassifier(backbone.spec)
    learner.network_, learner.backbone_ = network, backbone

    content = network_onnx(learner).SerializeToString()

    with torch.no_grad():
        expected = network(torch.from_numpy(images)).softmax(1).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options)
    for part in (slice(0, IMAGES), slice(1, 2)):
        (found,) = session.run(["probabilities"], {"views": images[part]})
        assert np.abs(found - expected[part]).max() <= TOLERANCE


def let_images_differ(network, images):
    """Give batch norm the averages of some images, and the head an opinion on each of them."""
    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    for layer in norms:
        layer.momentum = 1
        layer.train()
    head = network.head[-1]
    with torch.no_grad():
        network(images)
        rows = network.eval()(images)
        # Logits that rise and fall together would say nothing, so only the first one moves; more
        # of it would magnify what any two engines differ by.
        scale = 0.5 / rows[:, 0].std() * torch.tensor([1.0, 0.0, 0.0])
        head.bias.copy_((head.bias - rows.mean(0)) * scale)
        head.weight.mul_(scale[:, None])


def check_training(network, backbone, phases):
    """A phase moves what it trains, and nothing that is frozen."""
    torch.manual_seed(1)
    images = torch.from_numpy(draw(backbone, IMAGES))
    for phase in phases:
        trained = network.freeze(phase)
        check_shares(backbone, phase, trained)
        before = {n: t.clone() for n, t in network.state_dict().items()}
        checksum = network.frozen_checksum()

        given = train(network, phase, images)

        moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
        wanted = {f"trunk.{n}" for n in trained.parameters} | {"head.1.weight", "head.1.bias"}
        assert given == wanted
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


def train(network, phase, images):
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


def check_cut(network, share, name):
    """A network is cut where the gradient is the same as that of the whole, or not at all."""
    let_every_branch_pass_something_on(network)
    trained = network.freeze(Phase(unfreeze=share))
    network.eval()  # as the trainer does
    random = torch.Generator().manual_seed(1)
    shape = (2, network.side, network.side, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=random)

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
