"""The store of weights on disk: one folder for each name, with the tensors and their record."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbones.records import RECORD, TENSORS, StoredWeights, check_name, read_record
from regraft.backbones.state import write_state
from regraft.errors import RegraftError, WeightsError
from regraft.files import atomic_folder, home, remove_leftovers, sha256_file, write_json
from regraft.files import locked as hold

if TYPE_CHECKING:
    from torch import Tensor


def store() -> Path:
    """Return the folder of the store; it need not exist yet.

    Example:
        >>> store().name
        'weights'
    """
    return home() / "weights"


def list_weights() -> tuple[StoredWeights, ...]:
    """Return the stored weights by name; `verify_weights` also names those that cannot be read.

    Example:
        >>> list_weights()
        ()
    """
    found = []
    for name in stored_names():
        try:
            found.append(read_record(store() / name))
        except RegraftError:  # one damaged record must not hide the others; verify_weights tells
            continue
    return tuple(found)


def find_weights(name: str) -> StoredWeights | None:
    """Return the stored weights of a name, or None if there are none.

    Args:
        name: Any text; names that the store does not take are simply not there.

    Raises:
        ModelError: ``MODEL-CORRUPT``: the record is damaged.

    Example:
        >>> find_weights("../secret") is None
        True
    """
    try:
        place = store() / check_name(name)
    except WeightsError:
        return None
    return read_record(place) if place.is_dir() else None


def stored_names() -> list[str]:
    """Return all names in the store in alphabetical order, readable or not.

    Example:
        >>> stored_names()
        []
    """
    folders = store().glob("*/") if store().is_dir() else ()
    return sorted(folder.name for folder in folders if _is_name(folder.name))


def problem_of(name: str) -> str:
    """Say what is wrong with the stored weights of a name, or "" if nothing is.

    Example:
        >>> problem_of("nothing_here")[:13]
        'MODEL-CORRUPT'
    """
    try:
        stored = read_record(store() / name)
        changed = sha256_file(stored.path) != stored.sha256
    except RegraftError as error:
        return f"{error.code}: {error.what}, {error.why}"
    except OSError as error:
        return f"MODEL-CORRUPT: {TENSORS} cannot be read, {error.strerror}"
    return f"MODEL-CHECKSUM: {TENSORS} was changed after it was stored" if changed else ""


@contextlib.contextmanager
def locked(name: str, *, seconds: float) -> Iterator[None]:
    """Hold the lock of one name, so that two processes do not do the same work twice.

    What is written stays sound without the lock too: folders appear whole or not at all.

    Args:
        name: A name of stored weights.
        seconds: How long to wait for another process.

    Raises:
        WeightsError: ``WEIGHTS-BUSY``: another process holds it all that time.
        RegraftError: ``FILE-WRITE``: the store cannot be written.
    """
    busy = WeightsError(
        f"another process is working on the weights {name!r}",
        why=f"for over {seconds:.0f} s",
        hint="wait for it or end it",
        code="WEIGHTS-BUSY",
    )
    with hold(store() / f".{name}.lock", busy=busy, seconds=seconds):
        remove_leftovers(store())
        yield


def keep(
    weights: StoredWeights, state: Mapping[str, Tensor], *, overwrite: bool = False
) -> StoredWeights:
    """Write weights into the store, whole or not at all; the caller holds the lock.

    Args:
        weights: What is known of them; hash and path are filled in.
        state: The tensors by name.
        overwrite: Whether weights of the same name give way.

    Raises:
        WeightsError: ``WEIGHTS-EXISTS``.
        ModelError: ``MODEL-NAN``.
        RegraftError: ``FILE-WRITE``.
    """
    with new_folder(weights.name, overwrite=overwrite) as part:
        write_state(part / TENSORS, state)
        kept = dataclasses.replace(
            weights, sha256=sha256_file(part / TENSORS), path=store() / weights.name / TENSORS
        )
        write_json(part / RECORD, kept.to_json())
    return kept


@contextlib.contextmanager
def new_folder(name: str, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder that becomes the one of ``name`` in the store.

    Raises:
        WeightsError: ``WEIGHTS-EXISTS``.
    """
    folder = store() / check_name(name)
    exists = WeightsError(
        f"there are weights named {name!r} already",
        path=folder,
        hint="choose another name, or overwrite them",
        code="WEIGHTS-EXISTS",
    )
    if folder.exists() and not overwrite:
        raise exists
    try:
        with atomic_folder(folder, replace=overwrite) as part:
            yield part
    except RegraftError as error:
        if error.code == "FILE-EXISTS":  # another process was faster
            raise exists from error
        raise


def _is_name(text: str) -> bool:
    try:
        return bool(check_name(text))
    except WeightsError:
        return False
