"""The store of weights on disk: one folder for each name, with the tensors and their record.

Wherever weights come from, they end here and are then used like those of any other network. To
carry weights to another machine, copy the whole folder, whose path `regraft weights list` prints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import Arguments, Preprocessing
from regraft.errors import BackboneError, ModelError, RegraftError, WeightsError
from regraft.files import atomic_folder, home, read_json, remove_leftovers, sha256_file, write_json
from regraft.files import locked as hold
from regraft.settings import from_json, settings_class, to_json

if TYPE_CHECKING:
    from torch import Tensor

TENSORS = "weights.safetensors"
RECORD = "weights.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = r"^([0-9a-f]{64})?$"


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """A file of weights on this machine that can be used.

    Args:
        name: The name of the network.
        path: The file.
        sha256: Its SHA-256.
        licence: The licence the weights come under.
        source: What they were made from, without saying where that lay.
    """

    name: str
    path: Path
    sha256: str
    licence: str
    source: str


@settings_class(BackboneError, code="WEIGHTS-RECORD", kw_only=True)
class StoredWeights:
    """Weights in the store and everything needed to use them.

    Args:
        name: The name they are used under.
        backbone: The network of the catalogue that they belong to.
        arguments: Names and values for its constructor.
        preprocessing: The preprocessing that they were trained with.
        preprocessing_from: ``"given"`` at import, ``"published"`` with the weights, or
            ``"assumed"`` to be that of the catalogue.
        licence: The licence they come under.
        source: What they were made from, without saying where that lay.
        sha256: The SHA-256 of the file of tensors; "" until it is written.
        notes: What the reader should know, one sentence each.

    Example:
        >>> stored = StoredWeights(
        ...     name="mine", backbone="simple_cnn", preprocessing=Preprocessing.tf(96)
        ... )
        >>> stored.licence
        'unknown'
    """

    name: str
    backbone: str
    arguments: Arguments = ()
    preprocessing: Preprocessing
    preprocessing_from: Literal["given", "published", "assumed"] = "given"
    licence: str = "unknown"
    source: str = "unknown"
    sha256: Annotated[str, pydantic.Field(pattern=_SHA256)] = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def path(self) -> Path:
        """The file of tensors."""
        return store() / self.name / TENSORS

    @property
    def file(self) -> WeightsFile:
        """The file of tensors with what a run says of it."""
        return WeightsFile(self.name, self.path, self.sha256, self.licence, self.source)


def store() -> Path:
    """Return the folder of the store; it need not exist yet.

    Example:
        >>> store().name
        'weights'
    """
    return home() / "weights"


def check_name(name: str) -> str:
    """Return ``name`` if it can be the name of stored weights on every system.

    Raises:
        WeightsError: ``WEIGHTS-NAME``.

    Example:
        >>> check_name("my_mobilenet")
        'my_mobilenet'
    """
    if not _is_name(name):
        hint = "use letters, digits, '.', '_' and '-', at most 100, and begin with a letter"
        what = "not a name for weights"
        raise WeightsError(what, why=repr(name)[:200], hint=hint, code="WEIGHTS-NAME")
    return name


def list_weights() -> tuple[StoredWeights, ...]:
    """Return the stored weights by name; `verify_weights` also names those that cannot be read.

    Example:
        >>> list_weights()
        ()
    """
    found = []
    for name in _stored_names():
        with contextlib.suppress(RegraftError):  # one damaged record must not hide the others
            found.append(read_record(name))
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
    return read_record(name) if _is_name(name) and (store() / name).is_dir() else None


def read_record(name: str) -> StoredWeights:
    """Read the record of stored weights; the tensors are not looked at.

    Raises:
        ModelError: ``MODEL-CORRUPT``.
    """
    file = store() / check_name(name) / RECORD
    try:
        stored = from_json(StoredWeights, read_json(file, limit=8 << 20), path=file)
    except RegraftError as error:
        raise _corrupt(file, f"{error.what}: {error.why}" if error.why else error.what) from error
    if stored.name != name or not stored.sha256:
        raise _corrupt(file, f"it is the record of {stored.name!r:.100}")
    return stored


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
    found = _stored_names()
    absent = [name for name in names or () if name not in found]
    if absent:
        what = f"no stored weights named {', '.join(map(repr, absent))}"
        why = f"there are {', '.join(found) or 'none'}"
        raise WeightsError(what, path=store(), why=why, code="WEIGHTS-MISSING")
    return {name: problem_of(name) for name in (found if names is None else names)}


def problem_of(name: str) -> str:
    """Say what is wrong with the stored weights of a name, or "" if nothing is."""
    try:
        stored = read_record(name)
        changed = sha256_file(stored.path) != stored.sha256
    except RegraftError as error:
        return f"{error.code}: {error.what}, {error.why}"
    except OSError as error:
        return f"MODEL-CORRUPT: {TENSORS} cannot be read, {error.strerror}"
    return f"MODEL-CHECKSUM: {TENSORS} was changed after it was stored" if changed else ""


@contextlib.contextmanager
def locked(name: str, *, seconds: float = 60.0) -> Iterator[None]:
    """Hold the lock of one name, so that two processes do not do the same work twice.

    What is written stays sound without the lock too: folders appear whole or not at all.

    Args:
        name: A name of stored weights.
        seconds: How long to wait for another process.

    Raises:
        WeightsError: ``WEIGHTS-BUSY``: another process holds it all that time.
        RegraftError: ``FILE-WRITE``: the store cannot be written.
    """
    what, why = f"another process is working on the weights {name!r}", f"for over {seconds:.0f} s"
    busy = WeightsError(what, why=why, hint="wait for it or end it", code="WEIGHTS-BUSY")
    with hold(store() / f".{check_name(name)}.lock", busy=busy, seconds=seconds):
        remove_leftovers(store())
        yield


def keep(
    weights: StoredWeights, state: Mapping[str, Tensor], *, overwrite: bool = False
) -> StoredWeights:
    """Write weights into the store, whole or not at all; the caller holds the lock.

    Args:
        weights: What is known of them; the hash is filled in.
        state: The tensors by name.
        overwrite: Whether weights of the same name give way.

    Raises:
        WeightsError: ``WEIGHTS-EXISTS``.
        ModelError: ``MODEL-NAN``.
        RegraftError: ``FILE-WRITE``.
    """
    folder = store() / weights.name
    try:
        with atomic_folder(folder, replace=overwrite) as part:
            write_state(part / TENSORS, state)
            kept = dataclasses.replace(weights, sha256=sha256_file(part / TENSORS))
            write_json(part / RECORD, to_json(kept))
    except RegraftError as error:
        if error.code != "FILE-EXISTS":
            raise
        what = f"there are weights named {weights.name!r} already"
        hint = "choose another name, or overwrite them"
        raise WeightsError(what, path=folder, hint=hint, code="WEIGHTS-EXISTS") from error
    return kept


def _stored_names() -> list[str]:
    folders = store().glob("*/") if store().is_dir() else ()
    return sorted(folder.name for folder in folders if _is_name(folder.name))


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and not text.endswith(".")


def _corrupt(file: Path, why: str) -> ModelError:
    hint = "remove the folder and import or fetch the weights again"
    what = "the record of these weights is damaged"
    return ModelError(what, path=file, why=why, hint=hint, code="MODEL-CORRUPT")
