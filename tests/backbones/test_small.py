"""The two small networks have the sizes that are promised."""

import torch

from regraft.backbones.backbone import build
from regraft.backbones.small import SmallCNN
from regraft.backbones.spec import BackboneSpec


def test_the_plain_baseline_with_its_published_head_has_9_934_085_parameters():
    trunk = build(BackboneSpec("simple_cnn", weights=None, pooling="flatten"))
    head = [(trunk.feature_dim, 512), (512, 512), (512, 5)]

    assert [row.parameters for row in trunk.layer_table() if row.parameters] == [
        448, 9280, 73856, 147584
    ]  # fmt: skip
    assert trunk.feature_dim == 18_432
    assert trunk.parameters + sum((n + 1) * k for n, k in head) == 9_934_085


def test_the_compact_network_takes_64_to_128_pixels():
    for size in (64, 96, 128):
        backbone = build(BackboneSpec("small_cnn", weights=None, arguments={"size": size}))

        assert backbone.feature_dim == 128


def test_the_compact_network_learns():
    torch.manual_seed(0)
    net = SmallCNN(2)
    batch = torch.rand(16, 3, 64, 64)
    labels = torch.arange(16) % 2
    batch[labels == 1, 0] += 1
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(net(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.3 * losses[0]
