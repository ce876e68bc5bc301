"""The small baseline has the size that is promised."""

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec


def test_the_plain_baseline_with_its_published_head_has_9_934_085_parameters():
    trunk = build(BackboneSpec("simple_cnn", weights=None, pooling="flatten"))
    head = [(trunk.feature_dim, 512), (512, 512), (512, 5)]

    assert [row.parameters for row in trunk.layer_table() if row.parameters] == [
        448, 9280, 73856, 147584
    ]  # fmt: skip
    assert trunk.feature_dim == 18_432
    assert trunk.parameters + sum((n + 1) * k for n, k in head) == 9_934_085
