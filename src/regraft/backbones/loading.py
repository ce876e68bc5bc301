"""Putting weights into a network: strictly, with errors that say what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbones.catalog import Entry, list_backbones
from regraft.backbones.network import Network, classifier_modules, within
from regraft.errors import BackboneError, WeightsError
from regraft.files import sha256_bytes, sha256_json

AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that only helped the original training
_SHOWN = 3


def build_network(
    entry: Entry, arguments: Mapping[str, Any], *, seed: int = 0, empty: bool = False
) -> Network:
    """Return the network of a catalogue entry with random weights, in eval mode.

    The caller's random numbers are left as they were.

    Args:
        entry: What to build; registered networks are built by their own function instead.
        arguments: For the network's constructor.
        seed: The same seed gives the same weights.
        empty: Whether the weights are about to be replaced, so that drawing them can be saved.

    Raises:
        BackboneError: An argument is not taken.

    Example:
        >>> from regraft.backbones.catalog import find
        >>> build_network(find("simple_cnn"), {}).size
        224
    """
    network = _build_empty(entry, arguments) if empty else None
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _build(entry, arguments)
    network.module.eval()
    return network


def load_state(
    network: Network, state: Mapping[str, Tensor], *, path: Path, entry: Entry
) -> tuple[str, ...]:
    """Put a file's tensors into a network; none may be left over or of another shape.

    None may be missing either, unless all that are missing are the whole classifier: then it is
    filled with zeros.

    Args:
        network: The network.
        state: Tensors by name.
        path: Where they come from, for messages.
        entry: The network's entry, for messages.

    Returns:
        The names of the classifier's tensors that the file does not have.

    Raises:
        WeightsError: They do not fit (``WEIGHTS-MISFIT``); the hint names a network they do fit.
    """
    own = network.module.state_dict()
    if entry.source == "timm":
        from regraft.backbones import from_timm

        state = from_timm.rename_keys(state, own)
    given = _comparable(own, state)
    if not misfit(own, given):
        network.module.load_state_dict(given, strict=True)
        return ()
    absent = _absent_classifier(network, given)
    if not absent:
        raise WeightsError(
            f"the weights do not fit {entry.name}",
            path=path,
            why=misfit(own, given),
            hint=_advice(state),
            code="WEIGHTS-MISFIT",
        )
    zeros = {name: torch.zeros_like(own[name]) for name in absent}
    network.module.load_state_dict({**given, **zeros}, strict=True)
    return absent


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return what does not fit between a network and a file, or "" if all does.

    Example:
        >>> misfit({"a": torch.zeros(2)}, {"b": torch.zeros(2)})
        '1 missing (a); 1 unexpected (b)'
    """
    shapes = [
        f"{name} is {_shape(given[name])}, expected {_shape(own[name])}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    parts = [
        _some("missing", [name for name in own if name not in given]),
        _some("unexpected", [name for name in given if name not in own]),
        _some("of another shape", shapes),
    ]
    return "; ".join(part for part in parts if part)


def state_sha256(module: nn.Module) -> str:
    """Return the SHA-256 over all tensors of a network in the order of their names.

    Example:
        >>> state_sha256(nn.Linear(2, 1)) == state_sha256(nn.Linear(2, 1))
        False
    """
    rows = []
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        data = plain.flatten().view(torch.uint8).numpy().data
        rows.append([name, str(plain.dtype), list(plain.shape), sha256_bytes(data)])
    return sha256_json(rows)


def _build_empty(entry: Entry, arguments: Mapping[str, Any]) -> Network | None:
    """Return the network without drawing its weights, which takes seconds for the large ones.

    None where the network computes buffers that no file of weights holds.
    """
    with torch.device("meta"):
        network = _build(entry, arguments)
    stored = set(network.module.state_dict())
    computed = [name for name, _ in network.module.named_buffers() if name not in stored]
    if computed:
        return None
    network.module.to_empty(device="cpu")
    return network


def _build(entry: Entry, arguments: Mapping[str, Any]) -> Network:
    if entry.source == "timm":
        from regraft.backbones import from_timm

        return from_timm.build(entry.identifier, arguments)
    if entry.source == "torchvision":
        from regraft.backbones import from_torchvision

        return from_torchvision.build(entry.identifier, arguments)
    unknown = sorted(set(arguments) - {"num_classes"})
    if unknown:
        raise BackboneError(
            f"{entry.identifier} takes no such argument",
            why=", ".join(unknown),
            hint="it takes size and num_classes",
            code="BACKBONE-ARGUMENT",
        )
    from regraft.backbones import selu_cnn, small

    builders = {
        "simple_cnn": small.build_simple_cnn,
        "selu_cnn": selu_cnn.build_selu_cnn,
    }
    return builders[entry.identifier](arguments)


def _comparable(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors without auxiliary heads, with the counters that old files lack."""
    given = {name: tensor for name, tensor in state.items() if not within(name, AUXILIARY)}
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):  # nothing reads them
            given.setdefault(name, torch.zeros_like(tensor, device="cpu"))
    return given


def _absent_classifier(network: Network, given: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the tensors of the classifier if they, and only they, are what a file lacks."""
    own = network.module.state_dict()
    missing = [name for name in own if name not in given]
    if misfit({name: own[name] for name in own if name in given}, given) or not missing:
        return ()
    blank = torch.zeros(1, 3, network.size, network.size, device=own[missing[0]].device)
    with torch.inference_mode():
        head = classifier_modules(network, blank)[1]
    classifier = [name for name in own if within(name, head)]
    return tuple(missing) if missing == classifier else ()


def _advice(state: Mapping[str, Tensor]) -> str:
    """Return which network of the catalogue a file fits; building on "meta" costs no memory."""
    for entry in list_backbones():
        if entry.source == "registered" or entry.path is not None:
            continue
        for candidate in _variants(entry):
            with torch.device("meta"):
                network = _build(candidate, {})
            network.module.eval()
            own = network.module.state_dict()
            given = _comparable(own, state)
            if not misfit(own, given) or _absent_classifier(network, given):
                return f"the file fits {candidate.name}"
    return "no network of the catalogue has these tensors"


def _variants(entry: Entry) -> list[Entry]:
    """Return the entry and torchvision's network of that name, whose tensors differ in name."""
    from regraft.backbones import from_torchvision

    other = entry.source == "timm" and from_torchvision.entry(
        entry.name, name=f"torchvision:{entry.name}"
    )
    return [entry, other] if other else [entry]


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = ", …" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"


def _shape(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape) or "one number"
