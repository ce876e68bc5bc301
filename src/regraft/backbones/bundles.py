"""A bundle: stored weights in one folder with a manifest, for a machine without a network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft.backbones.records import RECORD, TENSORS, StoredWeights, check_name, read_record
from regraft.backbones.state import read_state
from regraft.backbones.stored import (
    find_weights,
    list_weights,
    locked,
    new_folder,
    place_of,
    store,
)
from regraft.errors import ModelError, RegraftError, WeightsError
from regraft.files import atomic_folder, read_json, sha256_file, write_json
from regraft.version import __version__

MANIFEST = "manifest.json"
_FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCK_SECONDS = 60.0


def bundle(folder: str | os.PathLike[str], names: Sequence[str] | None = None) -> Path:
    """Write stored weights into one new folder.

    Args:
        folder: The folder to make.
        names: Names of stored weights; None for all.

    Returns:
        The folder: one folder for each name, and ``manifest.json`` with the SHA-256 of every file.

    Raises:
        WeightsError: ``WEIGHTS-MISSING``: nothing is stored under a name, or nothing at all.
        ModelError: ``MODEL-CHECKSUM``: a stored file is damaged.
        RegraftError: ``FILE-EXISTS`` or ``FILE-WRITE``.
    """
    wanted = tuple(stored.name for stored in list_weights()) if names is None else tuple(names)
    absent = [name for name in wanted if find_weights(name) is None]
    if absent or not wanted:
        raise WeightsError(
            f"no stored weights named {', '.join(absent)}" if absent else "no weights are stored",
            path=store(),
            hint="regraft weights list",
            code="WEIGHTS-MISSING",
        )
    target = Path(folder)
    with atomic_folder(target) as part:
        hashes: dict[str, str] = {}
        for name in dict.fromkeys(wanted):
            hashes |= _copy(place_of(name), part / name)
        manifest = {"format": _FORMAT, "regraft": __version__, "files": hashes}
        write_json(part / MANIFEST, manifest)
    return target


def import_bundle(
    folder: str | os.PathLike[str], *, overwrite: bool = False
) -> tuple[StoredWeights, ...]:
    """Take the weights of a bundle into the store, after everything in it was verified.

    Args:
        folder: A folder made by `bundle`.
        overwrite: Whether stored weights of the same names give way.

    Returns:
        What was stored.

    Raises:
        ModelError: A file is missing, changed or damaged (``MODEL-CHECKSUM``, ``MODEL-CORRUPT``);
            nothing was stored.
        WeightsError: ``WEIGHTS-EXISTS``.
    """
    source = Path(folder)
    hashes = _read_manifest(source / MANIFEST)
    names = sorted({name.partition("/")[0] for name in hashes})
    for name in names:
        stored = _verified(source / name, hashes)
        read_state(stored.path)
        if (store() / name).exists() and not overwrite:
            raise WeightsError(
                f"there are weights named {name!r} already",
                path=store() / name,
                hint="remove them, or overwrite them",
                code="WEIGHTS-EXISTS",
            )
    kept = []
    for name in names:
        with locked(name, seconds=_LOCK_SECONDS), new_folder(name, overwrite=overwrite) as part:
            for file in (TENSORS, RECORD):
                _copy_file(source / name / file, part / file)
            _verified(part, hashes, name=name)  # the copy, whatever happened to the source since
        kept.append(read_record(store() / name))
    return tuple(kept)


def _copy(source: Path, target: Path) -> dict[str, str]:
    target.mkdir()
    record = read_record(source)
    for file in (TENSORS, RECORD):
        _copy_file(source / file, target / file)
    hashes = {f"{target.name}/{file}": sha256_file(target / file) for file in (TENSORS, RECORD)}
    if hashes[f"{target.name}/{TENSORS}"] != record.sha256:
        raise _changed(source / TENSORS)
    return hashes


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb+") as stream:
        os.fsync(stream.fileno())


def _verified(folder: Path, hashes: dict[str, str], *, name: str | None = None) -> StoredWeights:
    name = name or folder.name
    for file in (TENSORS, RECORD):
        path = folder / file
        if not path.is_file():
            raise ModelError("a file of the bundle is missing", path=path, code="MODEL-CORRUPT")
        if sha256_file(path) != hashes[f"{name}/{file}"]:
            raise _changed(path)
    stored = read_record(folder, name=name)
    if stored.sha256 != hashes[f"{name}/{TENSORS}"]:
        raise _changed(folder / TENSORS)
    return stored


def _read_manifest(file: Path) -> dict[str, str]:
    try:
        manifest = read_json(file, limit=8 << 20)
    except RegraftError as error:
        raise ModelError(
            "not a bundle of weights",
            path=file,
            why=f"{error.what}: {error.why}" if error.why else error.what,
            hint="make one with `regraft weights bundle FOLDER`",
            code="MODEL-CORRUPT",
        ) from error
    if problem := _manifest_problem(manifest):
        raise ModelError(
            "the manifest of the bundle is damaged", path=file, why=problem, code="MODEL-CORRUPT"
        )
    files: dict[str, str] = manifest["files"]
    return files


def _manifest_problem(manifest: Any) -> str:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return "it lists no files"
    if manifest.get("format") != _FORMAT:
        return f"format {manifest.get('format')!r:.20}; this Regraft reads {_FORMAT}"
    files = manifest["files"]
    if not all(isinstance(value, str) and _SHA256.fullmatch(value) for value in files.values()):
        return "not every file has a SHA-256"
    names = {key.partition("/")[0] for key in files}
    try:
        expected = {f"{check_name(name)}/{file}" for name in names for file in (TENSORS, RECORD)}
    except WeightsError as error:
        return str(error)
    return "" if set(files) == expected else "it does not list two files for each name"


def _changed(path: Path) -> ModelError:
    return ModelError(
        "the file was changed after it was stored",
        path=path,
        why="its SHA-256 is another",
        hint="make the bundle again from sound weights",
        code="MODEL-CHECKSUM",
    )
