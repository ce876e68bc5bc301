"""Networks of timm: their preprocessing is the one in the tag of the weights."""

import pytest
import timm
import torch

from regraft.backbones import from_timm
from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec
from regraft.settings import from_json, to_json


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "dm_nfnet_f0.dm_in1k",
        "vit_base_patch32_clip_384.openai_ft_in12k_in1k",
    ],
)
def test_the_preprocessing_is_that_of_timms_own_transform(name):
    from PIL import Image

    from regraft.backbones.backbone import prepare
    from regraft.backbones.engines import Normalise

    config = timm.get_pretrained_cfg(name).to_dict()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(config))
    image = Image.effect_noise((500, 375), 80).convert("RGB")
    own = from_timm.preprocessing(name)

    ours = Normalise(own)(torch.from_numpy(prepare(image, own))[None])[0]

    assert torch.allclose(ours, transform(image), atol=1e-6)


def test_mobilenet_at_half_width_has_the_published_number_of_parameters():
    """The 829,536 that Keras counts hold the running averages, here buffers and no parameters."""
    spec = BackboneSpec(
        "mobilenet_v1", weights=None, arguments={"channel_multiplier": 0.5, "size": 64}
    )
    backbone = build(spec)
    trunk = {name for stage in backbone.stages for name in stage.parameters}
    counts = {name: value.numel() for name, value in backbone.module.named_parameters()}
    averages = sum(
        buffer.numel()
        for name, buffer in backbone.module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    )

    assert sum(counts[name] for name in trunk) == backbone.parameters == 818_592
    assert backbone.parameters + averages == 829_536
    assert backbone.feature_dim == 512
    assert from_json(BackboneSpec, to_json(spec)) == spec
