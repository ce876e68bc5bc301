"""From a name to a network and to its weights, wherever either comes from."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from regraft.backbones import from_timm, from_torchvision, own, published, weights
from regraft.backbones.catalog import Entry, known, spellings
from regraft.backbones.checkpoint_files import KERAS_SUFFIXES, read_state
from regraft.backbones.keras_files import read_keras
from regraft.backbones.network import Network, classifier_modules, misfit, within
from regraft.backbones.spec import Preprocessing, read_arguments
from regraft.backbones.weights import StoredWeights, WeightsFile
from regraft.download import TOTAL_SECONDS
from regraft.errors import BackboneError, ModelError, WeightsError
from regraft.settings import did_you_mean

AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that only helped the original training
_ASSUMED = (
    "the file does not say how its images were prepared; "
    "that of the network's own weights is assumed"
)


class BackboneSource(Protocol):
    """What knows networks by name, and builds them."""

    RESERVED: frozenset[str]
    """Arguments of its networks that cannot be given."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all its networks."""

    def entry(self, identifier: str, *, name: str) -> Entry | None:
        """Return the entry of a network that is asked for as ``name``, or None if it has none."""

    def preprocessing(self, identifier: str) -> Preprocessing:
        """Return the preprocessing of the network's published weights."""

    def build(self, identifier: str, arguments: Mapping[str, Any]) -> Network:
        """Return the network with random weights."""

    def rename_keys(self, state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
        """Return a file's tensors under the network's ``own`` names, where it knows others."""


SOURCES: Mapping[str, BackboneSource] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "regraft": own,
}


def find(name: str) -> Entry:
    """Return the entry of a name.

    Args:
        name: A name or alias of the catalogue, of a registered network or of imported weights, any
            name of timm or torchvision, or ``timm:NAME`` and ``torchvision:NAME`` to say which.

    Raises:
        BackboneError: Nobody knows the name (``BACKBONE-UNKNOWN``); the nearest names are given.

    Example:
        >>> find("vgg16").weights
        'timm/vgg16.tv_in1k'
    """
    if found := known(name):
        return found
    wanted, _, rest = name.rpartition(":")
    for key, source in SOURCES.items():
        if wanted in {"", key} and (found := source.entry(rest, name=name)):
            return found
    hint = did_you_mean(rest, spellings(), most=3) or did_you_mean(
        rest, (other for source in SOURCES.values() for other in source.names()), most=3
    )
    hint = hint or "regraft backbones list shows all"
    raise BackboneError("unknown backbone", why=repr(name), hint=hint, code="BACKBONE-UNKNOWN")


def build_network(
    entry: Entry, arguments: Mapping[str, Any], *, seed: int = 0, empty: bool = False
) -> Network:
    """Return the network of an entry with random weights, in eval mode.

    The caller's random numbers are left as they were.

    Args:
        entry: What to build.
        arguments: For the network's constructor.
        seed: The same seed gives the same weights.
        empty: Whether the weights are about to be replaced, so that drawing them can be saved.

    Raises:
        BackboneError: An argument is not taken.

    Example:
        >>> build_network(find("simple_cnn"), {}).size
        224
    """
    if empty and not entry.trained:
        with torch.device("meta"):
            network = _build(entry, arguments)
        stored = network.module.state_dict()
        # Some networks compute buffers that no file of weights holds.
        if all(name in stored for name, _ in network.module.named_buffers()):
            network.module.to_empty(device="cpu").eval()
            return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(entry, arguments)
    network.module.eval()
    return network


def _build(entry: Entry, arguments: Mapping[str, Any]) -> Network:
    source = SOURCES[entry.source]
    why = ", ".join(sorted(source.RESERVED & set(arguments)))
    try:
        if not why:
            return source.build(entry.identifier, arguments)
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        why = str(error)[:200]
    what, hint = f"{entry.name} does not take these arguments", f"given: {dict(arguments)}"
    raise BackboneError(what, why=why, hint=hint, code="BACKBONE-ARGUMENT")


def usual_preprocessing(entry: Entry, network: Network, size: int | None = None) -> Preprocessing:
    """Return the preprocessing of a network's own weights.

    Args:
        entry: The network's entry.
        network: The network.
        size: Another input size than its own, in pixels.
    """
    usual = entry.preprocessing or SOURCES[entry.source].preprocessing(entry.identifier)
    wanted = size if size is not None else network.size if network.fixed_size else usual.size
    return usual if wanted == usual.size else usual.at_size(wanted)


def check_size(network: Network, size: int, *, name: str) -> None:
    """Refuse an input size that a network was not made for.

    Raises:
        BackboneError: ``BACKBONE-SIZE``.
    """
    if network.fixed_size and size != network.size:
        what, why = f"{name} takes images of {network.size} pixels only", f"not {size}"
        hint = "leave the size out, or choose a convolutional network"
        raise BackboneError(what, why=why, hint=hint, code="BACKBONE-SIZE")


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
        entry: The network's entry.

    Returns:
        The names of the classifier's tensors that the file does not have.

    Raises:
        WeightsError: They do not fit (``WEIGHTS-MISFIT``).
    """
    own = network.module.state_dict()
    given = _comparable(entry, own, state)
    if not misfit(own, given):
        network.module.load_state_dict(given, strict=True)
        return ()
    absent = _absent_classifier(network, given)
    if not absent:
        what, why = f"the weights do not fit {entry.name}", misfit(own, given)
        hint = "they belong to another network, or to this one with other arguments"
        raise WeightsError(what, path=path, why=why, hint=hint, code="WEIGHTS-MISFIT")
    zeros = {name: torch.zeros_like(own[name]) for name in absent}
    network.module.load_state_dict({**given, **zeros}, strict=True)
    return absent


def locate(wanted: str | Entry, *, download: bool = True, verbose: bool = True) -> WeightsFile:
    """Return the weights of a network: stored, installed, in another library's cache, or fetched.

    What is found in a cache or downloaded goes into the store first. Give path and hash of the
    result to `read_state`, which compares them.

    Args:
        wanted: A name or an entry of the catalogue.
        download: Whether the network may be asked.
        verbose: Whether to show progress.

    Raises:
        WeightsError: ``WEIGHTS-MISSING``, with every place searched and what to do.
        ModelError: The record in the store is damaged, or what came from elsewhere is.

    Example:
        >>> locate("vgg16", download=False)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        regraft.errors.WeightsError: there are no weights for vgg16 - searched ...
    """
    entry = find(wanted) if isinstance(wanted, str) else wanted
    if stored := weights.find_weights(_store_name(entry)):
        return stored.file
    if entry.installed:
        return published.installed_file(entry, entry.installed)
    found = _cached_or_refused(entry, download=download)
    name = _store_name(entry)
    with weights.locked(name, seconds=TOTAL_SECONDS):
        if stored := weights.find_weights(name):  # another process was faster
            return stored.file
        folder = weights.store() / f".{name}.download"
        path, source = found or published.fetch(entry.weights, folder, verbose=verbose)
        state = read_state(path, importing=True)
        facts = {"licence": entry.licence, "source": source, "preprocessing_from": "published"}
        stored = _keep_fitting(state, path, entry, {"name": name, **facts})
        shutil.rmtree(folder, ignore_errors=True)
    return stored.file


def fetch_weights(name: str, *, verbose: bool = True) -> WeightsFile:
    """Bring the published weights of a network into the store, unless they are on this machine.

    The caches of the Hugging Face hub and of torch hub are searched first, then the network.
    Published weights whose file in the store is damaged are replaced.

    Args:
        name: Any name of the catalogue.
        verbose: Whether to show progress.

    Raises:
        BackboneError: The name is unknown.
        WeightsError: The weights are nowhere (``WEIGHTS-MISSING``, lists every place searched; in
            less than 2 s without a network) or the download failed (``WEIGHTS-DOWNLOAD``).
        ModelError: What came is damaged or not what was published.
    """
    stored = weights.find_weights(_store_name(find(name)))
    if stored and (problem := weights.problem_of(stored.name)):
        if stored.preprocessing_from != "published":
            what = f"the stored weights {stored.name} are damaged and were not published"
            hint = "remove their folder and import the file again"
            raise ModelError(what, path=stored.path, why=problem, hint=hint, code="MODEL-CHECKSUM")
        shutil.rmtree(stored.path.parent)
    return locate(name, verbose=verbose)


def stored_hash(name: str) -> str | None:
    """Return the SHA-256 of the weights of a network on this machine; None if there are none yet.

    Raises:
        BackboneError: The name is unknown.
        ModelError: The record is damaged (``MODEL-CORRUPT``).

    Example:
        >>> len(stored_hash("efficientnet_lite0"))
        64
    """
    entry = find(name)
    if stored := weights.find_weights(_store_name(entry)):
        return stored.sha256
    return entry.installed.sha256 if entry.installed else None


def import_weights(
    file: str | os.PathLike[str],
    *,
    name: str,
    backbone: str,
    arguments: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
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
        preprocessing: How images must be prepared for them, or only what differs from the usual,
            such as ``{"size": 160}``. Keras' files have Keras' own; for others None assumes the
            network's usual one, and notes that it was assumed.
        licence: The licence they come under.
        overwrite: Whether weights of the same name give way.

    Returns:
        What was stored; ``notes`` says what was assumed or changed.

    Raises:
        WeightsError: The name is taken or impossible, or the tensors do not fit the network.
        ModelError: The file is damaged, unsafe or holds NaN.
        BackboneError: The network is unknown or does not take the arguments.
    """
    path, entry = Path(file), find(backbone)
    weights.check_name(name)
    facts: dict[str, Any] = {"name": name, "licence": licence, "source": path.name}
    given, usual = dict(read_arguments(arguments)), None
    if path.suffix.lower() in KERAS_SUFFIXES:
        keras = read_keras(path, entry)
        state, usual, facts["notes"] = keras.state, keras.preprocessing, (keras.note,)
        given = {**dict(keras.arguments), **given}
    else:
        state = read_state(path, importing=True)
        if not preprocessing:
            facts |= {"preprocessing_from": "assumed", "notes": (_ASSUMED,)}
    with weights.locked(name):
        how: dict[str, Any] = {"arguments": given, "preprocessing": preprocessing, "usual": usual}
        return _keep_fitting(state, path, entry, facts, overwrite=overwrite, **how)


def _keep_fitting(
    state: Mapping[str, Tensor],
    path: Path,
    entry: Entry,
    facts: Mapping[str, Any],
    *,
    arguments: Any = (),
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    usual: Preprocessing | None = None,
    overwrite: bool = False,
) -> StoredWeights:
    """Store tensors that fit their network exactly; the caller holds the lock.

    What is kept is the state of the network they were put into, complete and in its own names.
    """
    given = {**dict(entry.arguments), **dict(arguments)}
    size = given.get("size")
    network = build_network(entry, {k: v for k, v in given.items() if k != "size"}, empty=True)
    if not isinstance(preprocessing, Preprocessing):
        usual = usual or usual_preprocessing(entry, network)
        changes = {"size": size or usual.size, **(preprocessing or {})}
        preprocessing = dataclasses.replace(usual.at_size(changes["size"]), **changes)
    check_size(network, preprocessing.size, name=entry.name)
    if absent := load_state(network, state, path=path, entry=entry):
        facts = {**facts, "notes": (*facts.get("notes", ()), "the file has no classifier")}
    stored = StoredWeights(
        backbone=f"{entry.source}:{entry.identifier}",
        arguments=tuple(sorted(given.items())),
        preprocessing=preprocessing,
        **facts,
    )
    _check_not_taken(stored, network)
    complete = network.module.state_dict()
    kept = {name: complete[name] for name in complete if name not in absent}
    return weights.keep(stored, kept, overwrite=overwrite)


def _check_not_taken(stored: StoredWeights, network: Network) -> None:
    """Refuse a name that means another network, or the same one prepared in another way."""
    try:
        taken = find(stored.name)
    except BackboneError:
        return
    same = f"{taken.source}:{taken.identifier}" == stored.backbone
    same = same and stored.arguments == taken.arguments
    usual = stored.preprocessing == usual_preprocessing(taken, network)
    if not taken.stored and not (same and (usual or stored.preprocessing_from != "given")):
        what, hint = f"{stored.name!r} is the name of a network", "choose another name"
        why = "its weights must be of that network, with its usual arguments and preprocessing"
        raise WeightsError(what, why=why, hint=hint, code="WEIGHTS-NAME")


def _store_name(entry: Entry) -> str:
    """Return the name in the store: that of the entry, where ``timm:NAME`` has no colon."""
    return weights.check_name(entry.name.replace(":", "-"))


def _cached_or_refused(entry: Entry, *, download: bool) -> tuple[Path, str] | None:
    """Return weights from another library's cache, or None where the network can be asked."""
    if not entry.weights:
        what = f"{entry.name} has no trained weights to fetch"
        hint = "give a file of weights (--weights FILE); weights=None gives random ones"
        raise WeightsError(what, hint=hint, code="WEIGHTS-MISSING")
    if found := published.cached(entry.weights):
        return found
    refused = "not asked: downloads are not allowed"
    if download and not (refused := published.network_refused(entry.weights)):
        return None
    store, cache = weights.store() / _store_name(entry), published.place(entry.weights)
    why = f"searched the store {store}, the {cache}; the network: {refused}"
    hint = (
        "give them with --weights FILE, or store them with `regraft weights import FILE"
        f" --name NAME --backbone {entry.name}`, or copy the folder that `regraft weights"
        " path` prints on a machine that has them (HF_HUB_OFFLINE=1 keeps the network out)"
    )
    what = f"there are no weights for {entry.name}"
    raise WeightsError(what, why=why, hint=hint, code="WEIGHTS-MISSING")


def _comparable(
    entry: Entry, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a file's tensors in the network's names, with the counters that old files lack."""
    given = {name: tensor for name, tensor in state.items() if not within(name, AUXILIARY)}
    counters = [name for name in own if name.endswith("num_batches_tracked")]  # nothing reads them
    none = {name: torch.zeros_like(own[name], device="cpu") for name in counters}
    return none | SOURCES[entry.source].rename_keys(given, own)


def _absent_classifier(network: Network, given: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the tensors of the classifier if they, and only they, are what a file lacks."""
    own = network.module.state_dict()
    missing = [name for name in own if name not in given]
    if misfit({name: own[name] for name in own if name in given}, given) or not missing:
        return ()
    with torch.inference_mode():
        head = classifier_modules(network, torch.zeros(1, 3, network.size, network.size))[1]
    classifier = [name for name in own if within(name, head)]
    return tuple(missing) if missing == classifier else ()
