"""From a name to a network and to its weights, wherever either comes from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from regraft.backbones import from_timm, from_torchvision, own
from regraft.backbones.catalog import Entry, known, list_backbones, spellings
from regraft.backbones.checkpoint_files import KERAS_SUFFIXES, read_checkpoint
from regraft.backbones.keras_files import read_keras
from regraft.backbones.network import Network, classifier_modules, misfit, within
from regraft.backbones.published import (
    cached,
    fetch,
    installed_file,
    network_refused,
    place,
)
from regraft.backbones.spec import Arguments, Preprocessing, read_arguments
from regraft.backbones.weights import (
    StoredWeights,
    WeightsFile,
    check_name,
    find_weights,
    keep,
    locked,
    problem_of,
    read_record,
    store,
)
from regraft.download import TOTAL_SECONDS
from regraft.errors import BackboneError, ModelError, WeightsError
from regraft.settings import did_you_mean

AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that only helped the original training
_ASSUMED = "that of the network's own weights is assumed"


class BackboneSource(Protocol):
    """What knows networks by name, and builds them."""

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
    source = SOURCES[entry.source]
    network = None
    if empty and not entry.trained:
        with torch.device("meta"):
            network = source.build(entry.identifier, arguments)
        stored = set(network.module.state_dict())
        if all(name in stored for name, _ in network.module.named_buffers()):
            network.module.to_empty(device="cpu")
        else:  # it computes buffers that no file of weights holds
            network = None
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = source.build(entry.identifier, arguments)
    network.module.eval()
    return network


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
        WeightsError: They do not fit (``WEIGHTS-MISFIT``); the hint names a network they do fit.
    """
    own = network.module.state_dict()
    given = _comparable(entry, own, state)
    if not misfit(own, given):
        network.module.load_state_dict(given, strict=True)
        return ()
    absent = _absent_classifier(network, given)
    if not absent:
        what, why = f"the weights do not fit {entry.name}", misfit(own, given)
        raise WeightsError(what, path=path, why=why, hint=_advice(state), code="WEIGHTS-MISFIT")
    zeros = {name: torch.zeros_like(own[name]) for name in absent}
    network.module.load_state_dict({**given, **zeros}, strict=True)
    return absent


def locate(
    wanted: str | Entry,
    *,
    download: bool = True,
    seconds: float = TOTAL_SECONDS,
    verbose: bool = True,
) -> WeightsFile:
    """Return the weights of a network: stored, installed, in another library's cache, or fetched.

    What is found in a cache or downloaded goes into the store first. Give path and hash of the
    result to `read_state`, which compares them.

    Args:
        wanted: A name or an entry of the catalogue.
        download: Whether the network may be asked.
        seconds: How long a download may take in all.
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
    if stored := find_weights(_store_name(entry)):
        return stored.file
    if entry.installed:
        return installed_file(entry, entry.installed)
    return _provide(entry, download=download, seconds=seconds, verbose=verbose).file


def fetch_weights(
    name: str, *, seconds: float = TOTAL_SECONDS, verbose: bool = True
) -> WeightsFile:
    """Bring the published weights of a network into the store, unless they are on this machine.

    The caches of the Hugging Face hub and of torch hub are searched first, then the network.
    Published weights whose file in the store is damaged are replaced.

    Args:
        name: Any name of the catalogue.
        seconds: How long it may take in all.
        verbose: Whether to show progress.

    Raises:
        BackboneError: The name is unknown.
        WeightsError: The weights are nowhere (``WEIGHTS-MISSING``, lists every place searched; in
            less than 2 s without a network) or the download failed (``WEIGHTS-DOWNLOAD``).
        ModelError: What came is damaged or not what was published.
    """
    entry = find(name)
    stored = find_weights(_store_name(entry))
    problem = problem_of(stored.name) if stored else ""
    if stored is None or not problem:
        return locate(entry, seconds=seconds, verbose=verbose)
    if stored.preprocessing_from != "published":
        what = f"the stored weights {stored.name} are damaged and were not published"
        hint = "remove their folder and import the file again"
        raise ModelError(what, path=stored.path, why=problem, hint=hint, code="MODEL-CHECKSUM")
    entry = dataclasses.replace(find(stored.backbone), name=entry.name)
    return _provide(entry, download=True, seconds=seconds, verbose=verbose).file


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
    if stored := find_weights(_store_name(entry)):
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
    path = Path(file)
    check_name(name)
    given, usual = read_arguments(arguments), None
    if path.suffix.lower() in KERAS_SUFFIXES:
        keras = read_keras(path, find(backbone))
        state, notes, usual = keras.state, keras.notes, keras.preprocessing
        given = read_arguments({**dict(keras.arguments), **dict(given)})
    else:
        state, notes = read_checkpoint(path)
    assumed = not preprocessing and usual is None
    if assumed:
        notes += (f"the file does not say how its images were prepared; {_ASSUMED}",)
    facts = {
        "name": name,
        "preprocessing_from": "assumed" if assumed else "given",
        "licence": licence,
        "source": path.name,
        "notes": notes,
    }
    with locked(name):
        return _keep_fitting(
            state, path, backbone, given, preprocessing, usual, facts=facts, overwrite=overwrite
        )


def _keep_fitting(
    state: Mapping[str, Tensor],
    path: Path,
    backbone: str,
    arguments: Arguments = (),
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    usual: Preprocessing | None = None,
    *,
    facts: dict[str, Any],
    overwrite: bool,
) -> StoredWeights:
    """Store tensors that fit their network exactly; the caller holds the lock.

    What is kept is the state of the network they were put into, complete and in its own names.
    """
    entry = find(backbone)
    if entry.stored:  # weights for the network of other imported weights
        arguments = read_arguments({**dict(entry.arguments), **dict(arguments)})
        usual = usual or entry.preprocessing
        entry = find(read_record(entry.name).backbone)
    given = {**dict(entry.arguments), **dict(arguments)}
    size = given.pop("size", None)
    network = build_network(entry, given, empty=True)
    if not isinstance(preprocessing, Preprocessing):
        usual = usual or usual_preprocessing(entry, network)
        changes = {"size": size or usual.size, **(preprocessing or {})}
        preprocessing = dataclasses.replace(usual.at_size(changes["size"]), **changes)
    check_size(network, preprocessing.size, name=entry.name)
    absent = load_state(network, state, path=path, entry=entry)
    if absent:
        facts["notes"] += ("the file has no classifier",)
    weights = StoredWeights(
        backbone=entry.name if entry in list_backbones() else f"{entry.source}:{entry.identifier}",
        arguments=arguments,
        preprocessing=preprocessing,
        **facts,
    )
    _check_not_taken(weights, entry, network)
    complete = network.module.state_dict().items()
    kept = {name: tensor for name, tensor in complete if name not in absent}
    return keep(weights, kept, overwrite=overwrite)


def _check_not_taken(weights: StoredWeights, entry: Entry, network: Network) -> None:
    """Refuse a name that means another network, or the same one prepared in another way."""
    try:
        taken = find(weights.name)
    except BackboneError:
        return
    same = (taken.source, taken.identifier) == (entry.source, entry.identifier)
    usual = weights.preprocessing == usual_preprocessing(taken, network)
    usual = (usual or weights.preprocessing_from != "given") and not weights.arguments
    if not taken.stored and not (same and usual):
        what, hint = f"{weights.name!r} is the name of a network", "choose another name"
        why = "its weights must be of that network, with its usual arguments and preprocessing"
        raise WeightsError(what, why=why, hint=hint, code="WEIGHTS-NAME")


def _store_name(entry: Entry) -> str:
    """Return the name in the store: that of the entry, where ``timm:NAME`` has no colon."""
    return check_name(entry.name.replace(":", "-"))


def _provide(entry: Entry, *, download: bool, seconds: float, verbose: bool) -> StoredWeights:
    name, address = _store_name(entry), entry.weights
    there = problem_of(name) if (store() / name).is_dir() else "not there"
    searched = ["--weights: not given", f"the store {store() / name}: {there}"]
    fetched = None
    if address:
        try:
            fetched, found = cached(address), "not there"
        except ModelError as error:
            found = error.why
        searched.append(f"{place(address)}: {found}")
    if fetched is None:
        refused = "not asked: downloads are not allowed"
        if not address:
            refused = "no published weights are known"
        elif download:
            refused = network_refused(address)
        searched.append(f"the network: {refused}")
        if refused:
            hint = (
                "give them with --weights FILE, or store them with `regraft weights import FILE"
                f" --name NAME --backbone {entry.name}`, or copy the folder that `regraft weights"
                " path` prints on a machine that has them (HF_HUB_OFFLINE=1 keeps the network out)"
            )
            what, why = f"there are no weights for {entry.name}", "searched " + "; ".join(searched)
            raise WeightsError(what, why=why, hint=hint, code="WEIGHTS-MISSING")
    with locked(name, seconds=seconds):
        there = problem_of(name) if (store() / name).is_dir() else "not there"
        if not there:  # another process was faster
            return read_record(name)
        fetched = fetched or fetch(address, seconds=seconds, verbose=verbose)
        state, notes = read_checkpoint(fetched.path)
        facts = {
            "name": name,
            "preprocessing_from": "published",
            "licence": entry.licence,
            "source": fetched.source,
            "notes": notes,
        }
        try:
            damaged = there != "not there"
            return _keep_fitting(state, fetched.path, entry.name, facts=facts, overwrite=damaged)
        except WeightsError as error:
            # Another process was faster, on a file system that does not honour locks.
            if error.code != "WEIGHTS-EXISTS" or problem_of(name):
                raise
            return read_record(name)


def _comparable(
    entry: Entry, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a file's tensors in the network's names, with the counters that old files lack."""
    given = {name: tensor for name, tensor in state.items() if not within(name, AUXILIARY)}
    given = SOURCES[entry.source].rename_keys(given, own)
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
    for entry in _of_similar_size(sum(tensor.numel() for tensor in state.values())):
        with torch.device("meta"):
            network = SOURCES[entry.source].build(entry.identifier, {})
        network.module.eval()
        given = _comparable(entry, network.module.state_dict(), state)
        fits = not misfit(network.module.state_dict(), given)
        if fits or _absent_classifier(network, given):
            return f"the file fits {entry.name}"
    return "no network of the catalogue has these tensors"


def _of_similar_size(numbers: int) -> Iterator[Entry]:
    """Yield the catalogue's networks that a file of so many numbers may be of.

    Without its classifier VGG16 has a tenth of its numbers; averages of batch normalisation and
    auxiliary heads come on top of the parameters.
    """
    for entry in list_backbones():
        if entry.stored or entry.facts is None:
            continue
        if not numbers / 2 < entry.facts.parameters < 12 * numbers:
            continue
        yield entry
        other = f"torchvision:{entry.name}"  # the same network, its tensors under other names
        if twin := from_torchvision.entry(entry.name, name=other):
            yield twin
