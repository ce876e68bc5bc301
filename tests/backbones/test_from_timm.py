"""Networks of timm: their preprocessing is the one in the tag of the weights."""

import pytest
import timm
import torch

from regraft.backbones import from_timm


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "dm_nfnet_f0.dm_in1k",
        "resnet50.tv_in1k",
        "vit_base_patch32_clip_384.openai_ft_in12k_in1k",
    ],
)
def test_the_preprocessing_is_that_of_timms_own_transform(name):
    from PIL import Image

    from regraft.backbones.engines import Normalise
    from regraft.backbones.views import prepare

    config = timm.get_pretrained_cfg(name).to_dict()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(config))
    image = Image.effect_noise((500, 375), 80).convert("RGB")
    own = from_timm.preprocessing(name)

    ours = Normalise(own)(torch.from_numpy(prepare(image, own))[None])[0]

    assert torch.allclose(ours, transform(image), atol=1e-6)
