"""From what was asked for to what is built: arguments, preprocessing, weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.backbones.catalog import Entry
from regraft.backbones.loading import load_state, state_sha256
from regraft.backbones.network import Network
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.errors import BackboneError, WeightsError


@dataclass(frozen=True, kw_only=True)
class WeightsFacts:
    """Where the numbers of a network come from.

    Args:
        sha256: Hash over all tensors in the order of their names.
        licence: ``"unknown"`` where none is stated, ``"none"`` for random weights.
        source: A repository, an address, the name of a file, or ``"random, seed 0"``.
        classifier: Whether the classifier is among them.

    Example:
        >>> WeightsFacts(sha256="ab", licence="unknown", source="net.safetensors").licence
        'unknown'
    """

    sha256: str
    licence: str
    source: str
    classifier: bool = True


def resolve_arguments(spec: BackboneSpec, entry: Entry) -> dict[str, Any]:
    """Return the constructor's arguments; imported weights keep theirs, only ``size`` may change.

    Raises:
        BackboneError: An argument contradicts the imported weights (``BACKBONE-ARGUMENT``).

    Example:
        >>> from regraft.backbones.catalog import find
        >>> resolve_arguments(BackboneSpec("vgg16", arguments=(("size", 200),)), find("vgg16"))
        {'size': 200}
    """
    own, asked = dict(entry.arguments), dict(spec.arguments)
    if entry.path is not None:
        changed = sorted(
            name for name, value in asked.items() if name != "size" and own.get(name) != value
        )
        if changed:
            raise BackboneError(
                f"the imported weights {entry.name} have arguments of their own",
                why=f"{', '.join(changed)} would change them",
                hint="leave the arguments out, or import the file again under another name",
                code="BACKBONE-ARGUMENT",
            )
    return {**own, **asked}


def resolve_preprocessing(
    spec: BackboneSpec, entry: Entry, network: Network, size: Any
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the preprocessing to use, and a note where it was assumed or is not the weights' own.

    Args:
        spec: What was asked for.
        entry: The network's entry.
        network: The network that was built.
        size: The input size asked for, in pixels, or None.

    Raises:
        BackboneError: Another preprocessing than that of imported weights, or another size than
            that of the preprocessing, was asked for (``BACKBONE-PREPROCESSING``).
    """
    own = _own_preprocessing(entry)
    given = spec.preprocessing
    if given is None:
        wanted = size if size is not None else network.size if network.fixed_size else own.size
        chosen = own if wanted == own.size else own.at_size(wanted)
        return chosen, _assumed(spec, entry, chosen)
    if entry.path is not None and given != own:
        raise BackboneError(
            f"another preprocessing than that of the imported weights {entry.name}",
            why=f"asked for {given}; the weights' own is {own}",
            hint="leave the preprocessing out, or import the file again under another name",
            code="BACKBONE-PREPROCESSING",
        )
    if size is not None and size != given.size:
        raise BackboneError(
            "the argument size and the preprocessing contradict each other",
            why=f"{size!r} and {given.size}",
            hint="give one of them",
            code="BACKBONE-PREPROCESSING",
        )
    return given, _foreign(spec, entry, given, own)


def resolve_weights(spec: BackboneSpec, entry: Entry, network: Network) -> WeightsFacts:
    """Put the weights that were asked for into the network, and say where they come from.

    Raises:
        WeightsError: They are missing or do not fit.
        ModelError: The file is damaged or holds more than data.
    """
    from regraft.backbones import weights

    absent: tuple[str, ...] = ()
    if spec.weights is None:
        licence, source = "none", f"random, seed {spec.seed}"
    elif spec.weights != "default":
        path = Path(spec.weights)
        licence, source = "unknown", path.name
        absent = load_state(network, weights.read_state(path), path=path, entry=entry)
    else:
        _refuse_untrained(entry)
        found = weights.find_weights(entry.name) if entry.path else None
        found = found or weights.locate(entry)
        licence, source = found.licence, found.source
        # Of PyTorch's own files only those with a hash in the catalogue come here.
        state = weights.read_state(found.path, sha256=found.sha256, importing=True)
        absent = load_state(network, state, path=found.path, entry=entry)
    return WeightsFacts(
        sha256=state_sha256(network.module), licence=licence, source=source, classifier=not absent
    )


def _own_preprocessing(entry: Entry) -> Preprocessing:
    if entry.preprocessing is not None:
        return entry.preprocessing
    if entry.source == "timm":
        from regraft.backbones import from_timm

        return from_timm.preprocessing(entry.identifier)
    from regraft.backbones import from_torchvision

    return from_torchvision.preprocessing(entry.identifier)


def _assumed(spec: BackboneSpec, entry: Entry, chosen: Preprocessing) -> tuple[str, ...]:
    if spec.weights in {None, "default"} or entry.path is not None:
        return ()
    file = Path(str(spec.weights)).name
    found = f"{file} does not say how its pictures are to be prepared"
    return (f"{found}; the way of {entry.name} is assumed: {chosen}.",)


def _foreign(
    spec: BackboneSpec, entry: Entry, given: Preprocessing, own: Preprocessing
) -> tuple[str, ...]:
    if spec.weights != "default" or given == own.at_size(given.size):
        return ()
    note = (
        f"pictures are prepared otherwise than those that the weights of {entry.name} were trained "
        f"on, so its features are worse: {given} instead of {own}; leave preprocessing out unless "
        "this is meant"
    )
    return (note,)


def _refuse_untrained(entry: Entry) -> None:
    if not entry.weights and entry.path is None:
        raise WeightsError(
            f"{entry.name} has no trained weights to fetch",
            hint="give a file of weights (--weights FILE); weights=None gives random ones",
            code="WEIGHTS-NONE",
        )
