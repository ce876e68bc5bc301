"""Weights of networks: imported, downloaded or trained here, kept with hash and preprocessing.

Wherever weights come from, they end in the store, one folder for each name with safetensors and a
record, from where they are used like those of any other network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbones import fetching
from regraft.backbones.bundles import bundle, import_bundle
from regraft.backbones.downloads import TOTAL_SECONDS
from regraft.backbones.fetching import Fetched
from regraft.backbones.importing import import_weights, keep_fitting, save_module
from regraft.backbones.records import StoredWeights, check_name, read_record
from regraft.backbones.spec import BackboneSpec
from regraft.backbones.state import read_checkpoint, read_state
from regraft.backbones.stored import (
    find_weights,
    list_weights,
    locked,
    problem_of,
    store,
    stored_names,
)
from regraft.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from regraft.backbones.catalog import Entry

__all__ = [
    "StoredWeights",
    "bundle",
    "fetch_weights",
    "find_weights",
    "import_bundle",
    "import_weights",
    "list_weights",
    "locate",
    "read_state",
    "save_module",
    "store",
    "verify_weights",
]

_AGAIN = "remove its folder and import or fetch the weights again"
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
    Weights whose file in the store is damaged are replaced.

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

    return _provide(find(name), download=True, seconds=seconds, verbose=verbose)


def locate(
    wanted: str | Entry | BackboneSpec,
    *,
    download: bool = True,
    seconds: float = TOTAL_SECONDS,
    verbose: bool = True,
) -> Path:
    """Return the file of weights for a network: given, stored, cached, or at last downloaded.

    What is found in a cache or downloaded goes into the store first. A stored file is compared with
    its SHA-256.

    Args:
        wanted: A name, an entry of the catalogue or a spec.
        download: Whether the network may be asked.
        seconds: How long a download may take in all.
        verbose: Whether to show progress.

    Raises:
        WeightsError: ``WEIGHTS-MISSING``, with every place searched and what to do.
        ModelError: ``MODEL-CHECKSUM``: the stored file was changed.

    Example:
        >>> locate(BackboneSpec("vgg16", weights="vgg16.safetensors"))
        Traceback (most recent call last):
        regraft.errors.WeightsError: no such file of weights - vgg16.safetensors
    """
    from regraft.backbones.catalog import find

    if isinstance(wanted, BackboneSpec):
        if wanted.weights not in {None, "default"}:
            return _given(Path(str(wanted.weights)))
        wanted = wanted.name
    entry = find(wanted) if isinstance(wanted, str) else wanted
    if entry.path is None:
        return _provide(entry, download=download, seconds=seconds, verbose=verbose).path
    if problem := problem_of(entry.name):
        raise ModelError(problem, path=entry.path, hint=_AGAIN, code="MODEL-CHECKSUM")
    return entry.path


def _given(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError("no such file of weights", path=path, code="WEIGHTS-MISSING")
    return path


def _provide(entry: Entry, *, download: bool, seconds: float, verbose: bool) -> StoredWeights:
    name, address = check_name(entry.name.replace(":", "-")), entry.weights
    if (stored := _sound(name)) is not None:
        return stored
    searched = ["--weights: not given", f"the store {store() / name}: {_in_store(name)}"]
    fetched = _cached(address, searched) if address else None
    if fetched is None:
        refused = _network_refused(address, download=download)
        searched.append(f"the network: {refused}")
        if refused:
            raise _missing(entry, searched)
    with locked(name, seconds=seconds):
        if (stored := _sound(name)) is not None:  # another process was faster
            return stored
        if fetched is None:
            fetched = fetching.fetch(address, seconds=seconds, verbose=verbose)
        try:
            return _keep_published(entry, name, fetched)
        except WeightsError as error:
            # Only where the file system does not honour locks.
            if error.code != "WEIGHTS-EXISTS" or (stored := _sound(name)) is None:
                raise
            return stored


def _sound(name: str) -> StoredWeights | None:
    there = (store() / name).is_dir() and not problem_of(name)
    return read_record(store() / name) if there else None


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
            f" NAME --backbone {entry.name}`, or copy the Hugging Face or torch hub cache of"
            " another machine here (HF_HUB_OFFLINE=1 then keeps the network out)"
        ),
        code="WEIGHTS-MISSING",
    )


def _keep_published(entry: Entry, name: str, fetched: Fetched) -> StoredWeights:
    state, notes = read_checkpoint(fetched.path)
    if entry.source == "torchvision":
        state = {_OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in state.items()}
    return keep_fitting(
        state,
        fetched.path,
        overwrite=(store() / name).exists(),
        name=name,
        backbone=entry.name,
        preprocessing=None,
        preprocessing_from="published",
        licence=entry.licence,
        source=fetched.source,
        notes=notes,
    )
