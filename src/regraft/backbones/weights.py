"""Weights of networks: imported, downloaded or trained here, kept with hash and preprocessing.

Wherever weights come from, they end in the store, one folder for each name with safetensors and a
record, from where they are used like those of any other network.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.backbones import fetching
from regraft.backbones.fetching import Fetched
from regraft.backbones.importing import import_weights, keep_fitting, save_module
from regraft.backbones.records import StoredWeights, check_name, read_record
from regraft.backbones.state import read_checkpoint, read_state
from regraft.backbones.stored import (
    find_weights,
    list_weights,
    locked,
    problem_of,
    store,
    stored_names,
)
from regraft.download import TOTAL_SECONDS
from regraft.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from regraft.backbones.catalog import Entry

__all__ = [
    "StoredWeights",
    "fetch_weights",
    "find_weights",
    "import_weights",
    "list_weights",
    "locate",
    "read_state",
    "save_module",
    "store",
    "verify_weights",
]

# Old files of torchvision's DenseNets: module names may not hold dots any more.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def verify_weights(names: Sequence[str] | None = None) -> dict[str, str]:
    """Compare every stored file with the SHA-256 that was written down when it came in.

    Args:
        names: Names of stored weights; None for all.

    Returns:
        For each name what is wrong with it, "" if nothing is.

    Raises:
        WeightsError: ``WEIGHTS-MISSING``: nothing is stored under one of the names.

    Example:
        >>> verify_weights()
        {}
    """
    found = stored_names()
    absent = [name for name in names or () if name not in found]
    if absent:
        raise WeightsError(
            f"no stored weights named {', '.join(map(repr, absent))}",
            path=store(),
            why=f"there are {', '.join(found) or 'none'}",
            code="WEIGHTS-MISSING",
        )
    return {name: problem_of(name) for name in (found if names is None else names)}


def fetch_weights(
    name: str, *, seconds: float = TOTAL_SECONDS, verbose: bool = True
) -> StoredWeights:
    """Bring the published weights of a network into the store, unless they are there.

    The caches of the Hugging Face hub and of torch hub are searched first, then the network.
    Published weights whose file in the store is damaged are replaced.

    Args:
        name: Any name of the catalogue.
        seconds: How long it may take in all.
        verbose: Whether to show progress.

    Returns:
        What is stored, with its licence.

    Raises:
        BackboneError: The name is unknown.
        WeightsError: The weights are nowhere (``WEIGHTS-MISSING``, lists every place searched; in
            less than 2 s without a network) or the download failed (``WEIGHTS-DOWNLOAD``).
        ModelError: What came is damaged or not what was published.
    """
    from regraft.backbones.catalog import find

    entry = find(name)
    stored = find_weights(_name_of(entry))
    if stored is None and entry.installed:
        return _installed(entry)
    if stored is not None:
        problem = problem_of(stored.name)
        if not problem:
            return stored
        if stored.preprocessing_from != "published":
            raise ModelError(
                f"the stored weights {stored.name} are damaged and were not published",
                path=stored.path,
                why=problem,
                hint="remove their folder and import the file again",
                code="MODEL-CHECKSUM",
            )
        entry = dataclasses.replace(find(stored.backbone), name=entry.name)
    return _provide(entry, download=True, seconds=seconds, verbose=verbose)


def locate(
    wanted: str | Entry,
    *,
    download: bool = True,
    seconds: float = TOTAL_SECONDS,
    verbose: bool = True,
) -> StoredWeights:
    """Return the weights of a network: stored, cached by another library, or at last downloaded.

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
    from regraft.backbones.catalog import find

    entry = find(wanted) if isinstance(wanted, str) else wanted
    stored = find_weights(_name_of(entry))
    if stored is not None:
        return stored
    if entry.installed:
        return _installed(entry)
    return _provide(entry, download=download, seconds=seconds, verbose=verbose)


def stored_hash(name: str) -> str | None:
    """Return the SHA-256 of the stored weights of a network; None if there are none yet.

    Raises:
        BackboneError: The name is unknown.
        ModelError: The record is damaged (``MODEL-CORRUPT``).

    Example:
        >>> len(stored_hash("efficientnet_lite0"))
        64
    """
    from regraft.backbones.catalog import find

    entry = find(name)
    stored = None if entry.source == "registered" else find_weights(_name_of(entry))
    if stored is not None:
        return stored.sha256
    return entry.installed.sha256 if entry.installed else None


def _installed(entry: Entry) -> StoredWeights:
    """Return the weights that an installed package holds; they are used where they lie."""
    file, preprocessing = entry.installed, entry.preprocessing
    assert file is not None
    assert preprocessing is not None
    found = fetching.installed(file)
    return StoredWeights(
        name=_name_of(entry),
        backbone=entry.name,
        preprocessing=preprocessing,
        preprocessing_from="published",
        licence=entry.licence,
        source=found.source,
        sha256=file.sha256,
        path=found.path,
    )


def _name_of(entry: Entry) -> str:
    """Return the name in the store: that of the entry, where ``timm:NAME`` has no colon."""
    return check_name(entry.name.replace(":", "-"))


def _provide(entry: Entry, *, download: bool, seconds: float, verbose: bool) -> StoredWeights:
    name, address = _name_of(entry), entry.weights
    searched = ["--weights: not given", f"the store {store() / name}: {_in_store(name)}"]
    fetched = _cached(address, searched) if address else None
    if fetched is None:
        refused = _network_refused(address, download=download)
        searched.append(f"the network: {refused}")
        if refused:
            raise _missing(entry, searched)
    with locked(name, seconds=seconds):
        there = (store() / name).is_dir()
        if there and not problem_of(name):  # another process was faster
            return read_record(store() / name)
        if fetched is None:
            fetched = fetching.fetch(address, seconds=seconds, verbose=verbose)
        try:
            return _keep_published(entry, name, fetched, overwrite=there)
        except WeightsError as error:
            # Another process was faster, on a file system that does not honour locks.
            if error.code != "WEIGHTS-EXISTS" or problem_of(name):
                raise
            return read_record(store() / name)


def _in_store(name: str) -> str:
    return problem_of(name) if (store() / name).is_dir() else "not there"


def _cached(address: str, searched: list[str]) -> Fetched | None:
    try:
        fetched = fetching.cached(address)
    except ModelError as error:
        searched.append(f"{fetching.place(address)}: {error.why}")
        return None
    searched.append(f"{fetching.place(address)}: not there")
    return fetched


def _network_refused(address: str, *, download: bool) -> str:
    if not address:
        return "no published weights are known"
    return fetching.network_refused(address) if download else "not asked: downloads are not allowed"


def _missing(entry: Entry, searched: Sequence[str]) -> WeightsError:
    return WeightsError(
        f"there are no weights for {entry.name}",
        why="searched " + "; ".join(searched),
        hint=(
            "give them with --weights FILE, or store them with `regraft weights import FILE --name"
            f" NAME --backbone {entry.name}`, or copy the folder that `regraft weights path` prints"
            " on a machine that has them (HF_HUB_OFFLINE=1 then keeps the network out)"
        ),
        code="WEIGHTS-MISSING",
    )


def _keep_published(entry: Entry, name: str, fetched: Fetched, *, overwrite: bool) -> StoredWeights:
    state, notes = read_checkpoint(fetched.path)
    if entry.source == "torchvision":
        state = {_OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in state.items()}
    return keep_fitting(
        state,
        fetched.path,
        overwrite=overwrite,
        name=name,
        backbone=entry.name,
        preprocessing=None,
        preprocessing_from="published",
        licence=entry.licence,
        source=fetched.source,
        notes=notes,
    )
