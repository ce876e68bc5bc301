"""Taking weights into the store: they must fit their network exactly under a name that is free."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.backbones.keras_files import KERAS_SUFFIXES, read_keras
from regraft.backbones.records import StoredWeights, check_name, read_record
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.backbones.state import read_checkpoint
from regraft.backbones.stored import keep, locked
from regraft.errors import BackboneError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regraft.backbones.backbone import Backbone
    from regraft.backbones.catalog import Entry

_LOCK_SECONDS = 60.0
_ASSUMED = "that of the network's own weights is assumed"


def import_weights(
    file: str | os.PathLike[str],
    *,
    name: str,
    backbone: str,
    arguments: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    licence: str = "unknown",
    overwrite: bool = False,
) -> StoredWeights:
    """Take a file of weights into the store; from then on ``name`` is a backbone like any other.

    Args:
        file: ``.safetensors``, or ``.pth``, ``.pt``, ``.bin`` and Keras' ``.h5``, which are
            converted.
        name: The name to use them under.
        backbone: The network that they belong to; every tensor must fit, and only the whole
            classifier may be missing.
        arguments: For the network's constructor, such as ``{"pad_type": "same"}``.
        preprocessing: How pictures must be prepared for them. None assumes the network's usual one,
            and notes that it was assumed.
        labels: The names of the classes of the head.
        licence: The licence they come under.
        overwrite: Whether weights of the same name give way.

    Returns:
        What was stored; ``notes`` says what was assumed or changed.

    Raises:
        WeightsError: The name is taken or impossible, or the tensors do not fit the network.
        ModelError: The file is damaged, unsafe or holds NaN.
        BackboneError: The network is unknown or does not take the arguments.
    """
    from regraft.backbones.catalog import find

    path = Path(file)
    check_name(name)
    arguments = tuple(dict(arguments).items())
    if path.suffix.lower() in KERAS_SUFFIXES:
        keras = read_keras(path, find(backbone))
        state, notes = keras.state, keras.notes
        arguments = tuple({**dict(keras.arguments), **dict(arguments)}.items())
        preprocessing = preprocessing or keras.preprocessing
    else:
        state, notes = read_checkpoint(path)
    if preprocessing is None:
        notes += (f"the file does not say how its pictures were prepared; {_ASSUMED}",)
    with locked(name, seconds=_LOCK_SECONDS):
        return keep_fitting(
            state,
            path,
            overwrite=overwrite,
            name=name,
            backbone=backbone,
            arguments=arguments,
            preprocessing=preprocessing,
            preprocessing_from="assumed" if preprocessing is None else "given",
            labels=None if labels is None else tuple(labels),
            licence=licence,
            source=path.name,
            notes=notes,
        )


def save_module(
    module: nn.Module,
    *,
    name: str,
    backbone: str,
    preprocessing: Preprocessing,
    arguments: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    labels: Sequence[str] | None = None,
    licence: str = "unknown",
    source: str = "trained with Regraft",
    overwrite: bool = False,
) -> StoredWeights:
    """Put a network that was trained here into the store, as a backbone for the next task.

    Args:
        module: The whole network, head included.
        name: The name to use it under.
        backbone: The network of the catalogue that it is.
        preprocessing: How its pictures were prepared.
        arguments: What its constructor was given, such as ``{"num_classes": 6}``.
        labels: The names of the classes of its head.
        licence: The licence of the weights.
        source: What they were trained on, in a few words.
        overwrite: Whether weights of the same name give way.

    Raises:
        RegraftError: As `import_weights`.
    """
    with locked(check_name(name), seconds=_LOCK_SECONDS):
        return keep_fitting(
            module.state_dict(),
            Path(name),
            overwrite=overwrite,
            name=name,
            backbone=backbone,
            arguments=tuple(dict(arguments).items()),
            preprocessing=preprocessing,
            labels=None if labels is None else tuple(labels),
            licence=licence,
            source=source,
        )


def keep_fitting(
    state: Mapping[str, Tensor],
    path: Path,
    *,
    overwrite: bool,
    backbone: str,
    preprocessing: Preprocessing | None,
    arguments: tuple[tuple[str, Any], ...] = (),
    **facts: Any,
) -> StoredWeights:
    """Store tensors that fit their network exactly; the caller holds the lock.

    What is kept is the state of the network they were put into, complete and in its own names.

    Args:
        state: The tensors by name.
        path: Where they come from, for messages.
        overwrite: Whether weights of the same name give way.
        backbone: The network that they belong to.
        preprocessing: How pictures must be prepared; None for the network's usual way.
        arguments: For the network's constructor.
        **facts: The other fields of `StoredWeights`.

    Raises:
        WeightsError: They do not fit, or the name is taken.
        BackboneError: The network is unknown or does not take the arguments.
    """
    from regraft.backbones.catalog import find
    from regraft.backbones.loading import load_state

    entry = find(backbone)
    if entry.path is not None:  # weights for the network of other imported weights
        arguments = tuple({**dict(entry.arguments), **dict(arguments)}.items())
        preprocessing = preprocessing or entry.preprocessing
        entry = find(read_record(entry.path.parent).backbone)
    spec = BackboneSpec(
        _lasting_name(entry), weights=None, arguments=arguments, preprocessing=preprocessing
    )
    network = spec.build()
    absent = load_state(network.network, state, path=path, entry=entry)
    if absent:
        facts["notes"] = (*facts.get("notes", ()), "the file has no classifier")
    weights = StoredWeights(
        backbone=spec.name,
        arguments=spec.arguments,
        preprocessing=network.preprocessing,
        num_classes=None if absent else _head_width(network),
        **facts,
    )
    _check_not_taken(weights, entry)
    kept = {
        name: tensor for name, tensor in network.module.state_dict().items() if name not in absent
    }
    return keep(weights, kept, overwrite=overwrite)


def _lasting_name(entry: Entry) -> str:
    """Return a name that means this network whatever weights are imported later."""
    from regraft.backbones.catalog import list_backbones

    if entry.source in {"timm", "torchvision"} and entry not in list_backbones():
        return f"{entry.source}:{entry.identifier}"
    return entry.name


def _head_width(network: Backbone) -> int | None:
    import torch

    size = network.preprocessing.size
    if dict(network.spec.arguments).get("num_classes") == 0:
        return None
    with torch.inference_mode():
        return int(network.module(torch.zeros(1, 3, size, size)).shape[-1])


def _check_not_taken(weights: StoredWeights, entry: Entry) -> None:
    """Refuse a name that means another network, or the same one prepared in another way."""
    from regraft.backbones.catalog import find

    try:
        known = find(weights.name)
    except BackboneError:
        return
    if known.path is not None:
        return
    same = (known.source, known.identifier) == (entry.source, entry.identifier)
    if same and not weights.arguments and _usually_prepared(weights, known):
        return
    raise WeightsError(
        f"{weights.name!r} is the name of a network",
        why="its weights must be of that network, with its usual arguments and preprocessing",
        hint="choose another name",
        code="WEIGHTS-NAME",
    )


def _usually_prepared(weights: StoredWeights, entry: Entry) -> bool:
    usual = weights.preprocessing_from != "given"
    spec = BackboneSpec(entry.name, weights=None)
    return usual or weights.preprocessing == spec.build().preprocessing
