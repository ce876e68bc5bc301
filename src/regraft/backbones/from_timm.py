"""Networks of timm: the one module that knows that library."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import timm
from timm.data.imagenet_info import ImageNetInfo
from timm.models import efficientnet, group_parameters
from timm.models.metaformer import MetaFormerStage
from torch import Tensor, nn

from regraft.backbones.catalog import Entry
from regraft.backbones.network import Layout, Network, average, channels_first, child_groups
from regraft.backbones.spec import Mode, Preprocessing

RESERVED = frozenset({
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
    "scriptable", "exportable", "no_jit", "features_only", "out_indices", "model_name", "in_chans",
    "global_pool",
})  # fmt: skip
# Names of the package efficientnet_pytorch and timm's: outside of blocks, in those that widen their
# input first, and in those that do not.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_OUTSIDE |= {"_fc": "classifier"}
_EXPANDED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
_EXPANDED |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1"}
_SEPARABLE |= {"_project_conv": "conv_pw", "_bn2": "bn2"}


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all networks of timm, without tags."""
    return tuple(timm.list_models())


def entry(identifier: str, *, name: str) -> Entry | None:
    """Return the entry of a network, with or without the tag of its weights.

    Example:
        >>> entry("convnext_tiny.fb_in1k", name="convnext").licence
        'apache-2.0'
    """
    architecture = identifier.partition(".")[0]
    if architecture not in names():
        return None
    try:
        config: Any = timm.get_pretrained_cfg(identifier)
    except RuntimeError:  # what timm makes of an unknown tag
        return None
    full = f"{architecture}.{config.tag}" if config.tag else architecture
    return Entry(
        name=name,
        source="timm",
        identifier=full,
        title=full,
        licence=config.license or "unknown",
        weights=config.hf_hub_id or config.url or "",
    )


def preprocessing(identifier: str) -> Preprocessing:
    """Return the preprocessing that stands in the tag of the weights.

    Example:
        >>> preprocessing("vit_tiny_patch16_224").resize
        248
    """
    config: Any = timm.get_pretrained_cfg(identifier)
    size = config.input_size[-1]
    resize = max(size, math.floor(size / config.crop_pct))
    squash: Mode = "squash" if resize == size else "squash_crop"
    known = {"bicubic", "bilinear", "nearest"}
    return Preprocessing(
        size=size,
        resize=resize,
        mode=squash if config.crop_mode == "squash" else "crop",
        interpolation=config.interpolation if config.interpolation in known else "bicubic",
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Return the WordNet identifier and the readable name of each of the 1000 ImageNet classes.

    Example:
        >>> imagenet_classes()[0]
        ('n01440764', 'tench')
    """
    info = ImageNetInfo()
    return tuple(
        (info.index_to_label_name(index), info.index_to_description(index).split(",")[0])
        for index in range(1000)
    )


def imagenet_class(name: str) -> str | None:
    """Return the WordNet identifier of a class given by it, by its index or its readable name.

    Example:
        >>> imagenet_class("n01440764"), imagenet_class("000"), imagenet_class("tench")
        ('n01440764', 'n01440764', 'n01440764')
        >>> imagenet_class("rose"), imagenet_class("crane")  # unknown; the name of two classes
        (None, None)
    """
    classes = imagenet_classes()
    if name.isdecimal():
        return classes[int(name)][0] if int(name) < len(classes) else None
    wanted = name.replace("_", " ").lower()
    found = [wnid for wnid, label in classes if wanted in {wnid, label.lower()}]
    return found[0] if len(found) == 1 else None


def build(identifier: str, arguments: Mapping[str, Any]) -> Network:
    """Return a network with random weights.

    The argument ``channel_multiplier`` sets the width of MobileNet v1, for example 0.5.

    Example:
        >>> build("test_resnet", {}).size
        160
    """
    if identifier.startswith("mobilenetv1_100") and "channel_multiplier" in arguments:
        if not 0 < arguments["channel_multiplier"] <= 8:
            raise ValueError("channel_multiplier is a number above 0 to 8")
        # timm names no other width than 1 and 1.25; this is what both of its names call.
        narrow: Any = efficientnet._gen_mobilenet_v1  # noqa: SLF001
        module = narrow("mobilenetv1_100", **arguments)
    else:
        module = timm.create_model(identifier, pretrained=False, **arguments)
    config = module.pretrained_cfg
    layout: Layout = "NHWC" if getattr(module, "output_fmt", "NCHW") == "NHWC" else "NCHW"
    return Network(
        module=module,
        last_map=module.forward_features,
        pooled=functools.partial(_pooled, module, layout),
        groups=_groups(module),
        size=config["input_size"][-1],
        fixed_size=bool(config.get("fixed_input_size")),
        layout=layout,
    )


def rename_keys(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Return tensors of an EfficientNet from the package ``efficientnet_pytorch`` in timm's names.

    Example:
        >>> list(rename_keys({"_fc.bias": Tensor()}, []))
        ['classifier.bias']
    """
    if not any(name.startswith("_") for name in state):
        return dict(state)
    blocks = {tuple(name.split(".")[1:3]) for name in own if name.startswith("blocks.")}
    places = sorted(blocks, key=lambda place: (int(place[0]), int(place[1])))
    expanding = {name.split(".")[1] for name in state if "._expand_conv." in name}
    renamed = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "_blocks":
            number, layer, rest = rest.split(".", 2)
            known = _EXPANDED if number in expanding else _SEPARABLE
            if int(number) < len(places) and layer in known:
                part = ".".join(("blocks", *places[int(number)], known[layer]))
            else:
                part = f"_blocks.{number}.{layer}"
        renamed[f"{_OUTSIDE.get(part, part)}.{rest}"] = tensor
    return renamed


def _pooled(module: Any, layout: Layout, last_map: Tensor) -> Tensor:
    """Return the network's own pooling where it keeps the width of the map, else the average.

    VGG and MobileNet v3 put wide layers between the map and the head; those belong to the head.
    """
    width = channels_first(last_map, layout).shape[1]
    if module.head_hidden_size == width:
        pooled: Tensor = module.forward_head(last_map, pre_logits=True)
        return pooled
    return average(last_map, layout)


def _groups(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    matcher = getattr(module, "group_matcher", None)
    if matcher is None:
        return child_groups(module, (nn.Sequential, MetaFormerStage))  # it has no matcher
    groups = group_parameters(module, matcher(coarse=False))
    return tuple(tuple(groups[depth]) for depth in sorted(groups))
