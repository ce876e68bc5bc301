"""Networks of torchvision: the one module that knows that library."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torchvision.models as zoo
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import Encoder, VisionTransformer

from regraft.backbones.catalog import Entry
from regraft.backbones.network import Apply, Network, average, child_groups, tap
from regraft.backbones.spec import Preprocessing
from regraft.errors import BackboneError

RESERVED = frozenset({"weights", "progress", "weights_backbone", "aux_logits", "transform_input"})
# The weights of these two expect another input range, which the networks make for themselves.
_INCEPTION = {"transform_input": True, "aux_logits": False, "init_weights": True}
_OWN = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}
_CONTAINERS = (nn.Sequential, nn.ModuleList, Encoder)
# Old files of DenseNets: module names may not hold dots any more.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
# Where the last feature map is: what goes into the first of these that a network has, or what comes
# out of the first of those. The order matters: some networks have several.
_LAST_INPUTS = ("avgpool", "classifier.0", "heads")
_LAST_OUTPUTS = {"MobileNetV2": "features", "SqueezeNet": "features", "MNASNet": "layers"}
_LAST_OUTPUTS |= {"ShuffleNetV2": "conv5", "DenseNet": "features", "SwinTransformer": "norm"}


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all classifiers of torchvision."""
    return tuple(zoo.list_models(module=zoo))


def entry(identifier: str, *, name: str) -> Entry | None:
    """Return the entry of a network of torchvision, or None if torchvision does not have it.

    Example:
        >>> entry("resnet18", name="mine").weights[-4:]
        '.pth'
    """
    if identifier not in names():
        return None
    return Entry(
        name=name,
        source="torchvision",
        identifier=identifier,
        title=identifier,
        licence="bsd-3-clause",
        weights=_default_weights(identifier).url,
    )


def preprocessing(identifier: str) -> Preprocessing:
    """Return the preprocessing that belongs to the weights.

    Example:
        >>> preprocessing("alexnet") == Preprocessing.torch(224)
        True
    """
    transforms = _default_weights(identifier).transforms()
    size = transforms.crop_size[0]
    return Preprocessing(
        size=size,
        resize=max(size, transforms.resize_size[0]),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def build(identifier: str, arguments: Mapping[str, Any]) -> Network:
    """Return a network with random weights and without auxiliary heads.

    Example:
        >>> build("squeezenet1_1", {}).size
        224
    """
    module = zoo.get_model(identifier, weights=None, **_OWN.get(identifier, {}), **arguments)
    transformer = isinstance(module, VisionTransformer)
    return Network(
        module=module,
        last_map=_last_map(module),
        pooled=_pooled(module),
        groups=child_groups(module, _CONTAINERS),
        size=_default_weights(identifier).transforms().crop_size[0],
        fixed_size=transformer,
        layout="NHWC" if isinstance(module, SwinTransformer) else "NCHW",
    )


def rename_keys(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Return tensors under today's names where a file has old ones.

    Example:
        >>> list(rename_keys({"features.denselayer1.norm.1.bias": Tensor()}, []))
        ['features.denselayer1.norm1.bias']
    """
    del own
    return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items()}


def _default_weights(identifier: str) -> Any:
    return zoo.get_model_weights(identifier).DEFAULT


def _last_map(module: nn.Module) -> Apply:
    kind = type(module).__name__
    if kind == "DenseNet":
        features = tap(module, "features")
        return lambda batch: nn.functional.relu(features(batch))
    if kind in _LAST_OUTPUTS:
        return tap(module, _LAST_OUTPUTS[kind])
    present = {name for name, _ in module.named_modules()}
    found = next((name for name in _LAST_INPUTS if name in present), None)
    if found is None:
        hint = "use timm's variant if there is one"
        raise BackboneError(f"no last feature map is known for {kind}", hint=hint)
    return tap(module, found, "input")


def _pooled(module: nn.Module) -> Apply:
    if isinstance(module, VisionTransformer):
        return lambda token: token  # what goes into the head is the class token already
    if isinstance(module, SwinTransformer):
        return functools.partial(average, layout="NHWC")
    return average
