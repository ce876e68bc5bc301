"""Keras Applications' files of weights, read without TensorFlow.

Where timm has the very same network, its tensors are those of Keras under other names and with
their axes in another order. `docs/keras-weights.md` has the proof for each network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft.backbones.checkpoint_files import check_finite, corrupt
from regraft.backbones.spec import Preprocessing
from regraft.errors import RegraftError, WeightsError

if TYPE_CHECKING:
    import h5py
    from torch import Tensor

    from regraft.backbones.catalog import Entry

Arrays = list[NDArray[np.float32]]


class KerasFile(NamedTuple):
    """What a Keras file holds, in timm's terms: all that importing it needs."""

    state: dict[str, Tensor]
    arguments: tuple[tuple[str, Any], ...]
    preprocessing: Preprocessing
    note: str


class _Same(NamedTuple):
    """A network that Keras and timm build alike; its layers' names are Keras' and timm's."""

    title: str
    backbone: str
    marker: str
    prepare: Callable[..., Preprocessing]
    layers: Mapping[str, str]
    arguments: tuple[tuple[str, Any], ...] = ()


def read_keras(path: Path, entry: Entry) -> KerasFile:
    """Read a file that `save_weights` or `save` wrote, or that Keras Applications downloaded.

    Args:
        path: A ``.h5`` file; which network it holds is told by its layers' names.
        entry: The network that the weights are meant for.

    Raises:
        ModelError: The file is damaged (``MODEL-CORRUPT``) or holds NaN.
        WeightsError: It holds another network, or one that timm does not have (``WEIGHTS-MISFIT``).
    """
    layers = _read_layers(path)
    network = next((one for one in _NETWORKS if one.marker in layers), None)
    unknown = [name for name in layers if network is None or name not in network.layers]
    if network is None or unknown:
        title = network.title if network else "no network of Keras Applications that can be read"
        hint = "save the network alone, base.save_weights(FILE), one of " + ", ".join(
            sorted(one.title for one in _NETWORKS)
        )
        why = f"unknown layers: {', '.join(unknown[:3])}"
        raise _misfit(path, f"the file holds more than {title}" if network else title, why, hint)
    meant = f"{entry.source}:{entry.identifier}".partition(".")[0]
    if meant != f"timm:{network.backbone}":
        what = f"these weights belong to another network than {entry.name}"
        why = f"the file holds Keras' {network.title}"
        raise _misfit(path, what, why, f"import it with --backbone timm:{network.backbone}")
    # load_img and image_dataset_from_directory squash, and so does what is built on them.
    preprocessing = network.prepare(224, resize=224, mode="squash", interpolation="bilinear")
    state: dict[str, NDArray[np.float32]] = {}
    for layer, arrays in layers.items():
        state |= _tensors(network.layers[layer], arrays, path)
    import torch

    arguments = network.arguments
    classes = [len(state[name]) for name in ("head.fc.bias", "classifier.bias") if name in state]
    if classes and classes[0] != 1000:
        arguments = (*arguments, ("num_classes", classes[0]))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in state.items()}
    check_finite(tensors, path=path)
    note = f"read from a file of Keras' {network.title}"
    return KerasFile(tensors, arguments, preprocessing, note)


def _read_layers(path: Path) -> dict[str, Arrays]:
    """Return the arrays of each layer in Keras' order, whichever of its three layouts is used."""
    import h5py

    if not path.is_file():
        raise WeightsError("no such file of weights", path=path, code="WEIGHTS-MISSING")
    try:
        with h5py.File(path, "r") as file:
            file.visititems_links(_refuse_foreign)
            root = file.get("model_weights", file)
            found = _new_layers(root) if "layers" in root else _legacy_layers(root)
            return {
                name: [_array(dataset, path) for dataset in datasets]
                for name, datasets in found
                if datasets
            }
    except (RegraftError, MemoryError):
        raise
    except Exception as error:  # h5py raises whatever comes to hand on damaged bytes
        raise corrupt(path, f"{type(error).__name__}: {str(error)[:160]}") from error


def _refuse_foreign(_name: str, link: Any) -> None:
    import h5py

    if isinstance(link, h5py.ExternalLink):
        raise OSError("it points to another file")


def _new_layers(root: h5py.Group) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """Yield the layers of a file of Keras 3: numbered variables, the layer's name beside them."""
    for group in root["layers"].values():
        if "vars" in group and len(group["vars"]):
            variables = [group["vars"][str(index)] for index in range(len(group["vars"]))]
            yield _text(group["vars"].attrs["name"]), variables  # early versions kept no name


def _legacy_layers(root: h5py.Group) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """Yield the layers of the older layout: a list of weights' names at each layer."""
    lists = [key for key in root.attrs if re.fullmatch(r"layer_names\d*", key)]
    for name in (_text(item) for key in lists for item in root.attrs[key]):
        weights = root[name].attrs.get("weight_names", ())
        # Older versions wrote "conv1/conv" for what is "conv1_conv" today.
        yield name.replace("/", "_"), [root[name][_text(weight)] for weight in weights]


def _array(dataset: h5py.Dataset, path: Path) -> NDArray[np.float32]:
    if dataset.is_virtual or dataset.external:
        raise ValueError("it points to another file")
    if dataset.nbytes > path.stat().st_size:  # what unpacks to more was made to do harm
        raise ValueError(f"{dataset.name} is larger than the whole file")
    return np.asarray(dataset[()], np.float32)


def _tensors(module: str, arrays: Arrays, path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of one layer by the names that PyTorch gives them."""
    first, *rest = arrays
    if first.ndim == 1 and len(arrays) in {3, 4}:
        names = ("weight", "bias", "running_mean", "running_var")
        scaled = arrays if len(arrays) == 4 else [np.ones_like(first), *arrays]
        return {f"{module}.{name}": value for name, value in zip(names, scaled, strict=True)}
    if "pre_logits" in module and first.ndim == 2:  # a convolution in timm's VGG
        side = 7 if module.endswith("fc1") else 1
        if len(first) % side**2:
            why = "its first dense layer does not follow a map of 7×7, as it does at 224 pixels"
            raise _misfit(path, "this classifier cannot be read", why, "save it without its top")
        first = first.reshape(side, side, -1, first.shape[1])  # Keras flattens height, width, depth
    if first.ndim not in {2, 4} or len(rest) > 1:
        raise corrupt(path, f"unexpected arrays for {module}")
    axes = (2, 3, 0, 1) if module.endswith("conv_dw") else (3, 2, 0, 1)
    weight = first.T if first.ndim == 2 else first.transpose(axes)
    if module == "classifier":  # a convolution in MobileNet v1
        weight = weight.reshape(weight.shape[:2])
    bias = {f"{module}.bias": rest[0]} if rest else {}
    return {f"{module}.weight": weight, **bias}


def _vgg(convolutions: tuple[int, ...]) -> dict[str, str]:
    names = {"fc1": "pre_logits.fc1", "fc2": "pre_logits.fc2", "predictions": "head.fc"}
    index = 0
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            names[f"block{block}_conv{number}"] = f"features.{index}"
            index += 2  # an activation follows
        index += 1  # a pooling follows
    return names


def _blocks(counts: tuple[int, ...]) -> list[str]:
    return [f"blocks.{stage}.{i}" for stage, count in enumerate(counts) for i in range(count)]


def _mobilenet() -> dict[str, str]:
    names = {"conv1": "conv_stem", "conv1_bn": "bn1", "conv_preds": "classifier"}
    for number, place in enumerate(_blocks((1, 2, 2, 6, 2)), start=1):
        for norm, kind in enumerate(("dw", "pw"), start=1):
            names[f"conv_{kind}_{number}"] = f"{place}.conv_{kind}"
            names[f"conv_{kind}_{number}_bn"] = f"{place}.bn{norm}"
    return names


def _mobilenet_v2() -> dict[str, str]:
    names = {"Conv1": "conv_stem", "bn_Conv1": "bn1", "Conv_1": "conv_head", "Conv_1_bn": "bn2"}
    for number, place in enumerate(_blocks((1, 2, 3, 4, 3, 3, 1))):
        prefix = f"block_{number}" if number else "expanded_conv"
        parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if not number:  # the first block widens nothing
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for norm, (part, own) in enumerate(parts.items(), start=1):
            names[f"{prefix}_{part}"] = f"{place}.{own}"
            names[f"{prefix}_{part}_BN"] = f"{place}.bn{norm}"
    return {**names, "predictions": "classifier"}


_SAME = (("pad_type", "same"), ("bn_eps", 1e-3))  # TensorFlow's padding and Keras' usual epsilon
_CAFFE, _TF = Preprocessing.caffe, Preprocessing.tf
# Keras' name, timm's, a layer that tells it from the others, its preprocessing, the layers,
# arguments for timm. The largest of a family first: their markers are missing in the rest.
_NETWORKS = (
    _Same("VGG19", "vgg19", "block5_conv4", _CAFFE, _vgg((2, 2, 4, 4, 4))),
    _Same("VGG16", "vgg16", "block5_conv3", _CAFFE, _vgg((2, 2, 3, 3, 3))),
    _Same("MobileNet", "mobilenetv1_100", "conv_pw_13", _TF, _mobilenet(), _SAME),
    _Same("MobileNetV2", "mobilenetv2_100", "block_16_project", _TF, _mobilenet_v2(), _SAME),
)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _misfit(path: Path, what: str, why: str, hint: str) -> WeightsError:
    return WeightsError(what, path=path, why=why, hint=hint, code="WEIGHTS-MISFIT")
