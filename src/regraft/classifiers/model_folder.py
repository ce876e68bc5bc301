"""The files of a saved model: JSON and safetensors, each with its SHA-256 in a manifest.

    model.json               what the model is
    arrays.safetensors       what the classifier learned
    backbone.safetensors     the network's weights, unless they were left out
    manifest.json            the SHA-256 of each of the others

Nothing else is ever read, and nothing is read that could run code.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import ModelError, RegraftError
from regraft.files import atomic_folder, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
RECORD, ARRAYS, BACKBONE, MANIFEST = (
    "model.json",
    "arrays.safetensors",
    "backbone.safetensors",
    "manifest.json",
)
_LARGEST = {RECORD: 16 << 20, ARRAYS: 8 << 30, BACKBONE: 16 << 30}  # bytes
_CODE_SUFFIXES = frozenset(
    {".pkl", ".pickle", ".cpickle", ".joblib", ".npy", ".npz", ".skops", ".dill"}
    | {".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras"}
)
_CODE_STARTS = (b"PK\x03\x04", b"\x93NUMPY", b"\x89HDF", *(bytes((0x80, n)) for n in range(2, 6)))


@dataclass(frozen=True)
class ModelFiles:
    """What a folder holds, verified but not yet understood.

    Attributes:
        record: The content of ``model.json``.
        arrays: The arrays by name, all finite.
        backbone: The file of the network's weights, if it is there.
    """

    record: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    backbone: Path | None


def write_model(
    folder: str | os.PathLike[str],
    record: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    state: Mapping[str, Tensor] | None,
) -> None:
    """Write a model's folder, whole or not at all; an older model there is replaced.

    Args:
        folder: Where the model shall stand.
        record: The content of ``model.json``.
        arrays: Arrays by name.
        state: The tensors of the network, or None to leave them out.

    Raises:
        ModelError: A value is NaN or infinite (``MODEL-NAN``).
        RegraftError: The folder holds something else (``FILE-EXISTS``) or cannot be written.
    """
    import torch

    from regraft.backbones.state import write_state

    target = Path(folder)
    is_model = (target / RECORD).is_file() and (target / MANIFEST).is_file()
    is_empty = target.is_dir() and not any(target.iterdir())
    tensors = {name: torch.from_numpy(np.array(a, order="C")) for name, a in arrays.items()}
    with atomic_folder(target, replace=is_model or is_empty) as part:
        write_json(part / RECORD, {"format": FORMAT, **record})
        write_state(part / ARRAYS, tensors)
        names = [RECORD, ARRAYS]
        if state is not None:
            write_state(part / BACKBONE, {name: _halved(value) for name, value in state.items()})
            names.append(BACKBONE)
        hashes = {name: sha256_file(part / name) for name in names}
        write_json(part / MANIFEST, {"format": FORMAT, "files": hashes})


def read_model(folder: str | os.PathLike[str]) -> ModelFiles:
    """Read a model's folder after every file has been verified.

    Args:
        folder: Where the model stands.

    Raises:
        ModelError: ``MODEL-MISSING``, ``MODEL-UNSAFE`` (a file could hold code), ``MODEL-CHECKSUM``
            (changed since it was written), ``MODEL-VERSION`` (of a newer Regraft),
            ``MODEL-CORRUPT`` or ``MODEL-NAN``.
    """
    from regraft.backbones.state import read_state

    place = Path(folder)
    _refuse_code(place)
    if not (place / RECORD).exists() or not (place / MANIFEST).exists():
        raise ModelError(
            "no saved model",
            path=place,
            why=f"a model is a folder with {RECORD}, {ARRAYS} and {MANIFEST}",
            code="MODEL-MISSING",
        )
    manifest = _read_object(place / MANIFEST)
    _refuse_newer(manifest, place / MANIFEST)
    files = _listed(manifest, place)
    for name, sha256 in files.items():
        _verify(place / name, sha256, limit=_LARGEST[name])
    record = _read_object(place / RECORD)
    _refuse_newer(record, place / RECORD)
    arrays = {name: tensor.numpy() for name, tensor in read_state(place / ARRAYS).items()}
    return ModelFiles(record, arrays, place / BACKBONE if BACKBONE in files else None)


def corrupt(path: str | os.PathLike[str], why: str) -> ModelError:
    """Return the error for a model whose parts do not fit together."""
    return ModelError(
        "the saved model is damaged",
        path=path,
        why=why[:300],
        hint="copy it again from where it was saved",
        code="MODEL-CORRUPT",
    )


def _halved(tensor: Tensor) -> Tensor:
    """Return a tensor as float16 where that loses nothing; it is widened when it is read."""
    import torch

    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _refuse_code(place: Path) -> None:
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    for file in files:
        if file.suffix.lower() in _CODE_SUFFIXES or _starts_like_code(file):
            raise ModelError(
                "a file that could run code is no model and was not read",
                path=file,
                hint="model files hold data only: JSON and safetensors",
                code="MODEL-UNSAFE",
            )


def _starts_like_code(file: Path) -> bool:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with file.open("rb") as stream:
            start = stream.read(9)
    except OSError:
        return False  # what is not there or not readable is refused later, by name
    # The ninth byte of a safetensors file is the brace that opens its header; the eight before are
    # a length, which may look like anything.
    return start.startswith(_CODE_STARTS) and start[8:] != b"{"


def _read_object(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file, limit=_LARGEST[RECORD])
    except RegraftError as error:
        raise corrupt(file, error.why or error.what) from error
    if not isinstance(found, dict):
        raise corrupt(file, f"it holds a {type(found).__name__}, no object")
    return found


def _refuse_newer(content: Mapping[str, Any], file: Path) -> None:
    version = content.get("format")
    if type(version) is not int or version < 1:
        raise corrupt(file, f"format is {version!r:.40}")
    if version > FORMAT:
        raise ModelError(
            "this model was saved by a newer Regraft",
            path=file,
            why=f"format {version}; this one reads up to {FORMAT}",
            hint="pip install --upgrade regraft",
            code="MODEL-VERSION",
        )


def _listed(manifest: Mapping[str, Any], place: Path) -> dict[str, str]:
    files = manifest.get("files")
    if not isinstance(files, dict) or not {RECORD, ARRAYS} <= set(files) <= set(_LARGEST):
        raise corrupt(place / MANIFEST, f"it lists {files!r:.200}")
    if BACKBONE not in files and (place / BACKBONE).exists():
        raise corrupt(place / MANIFEST, f"{BACKBONE} is there but not listed")
    return files


def _verify(file: Path, sha256: Any, *, limit: int) -> None:
    try:
        facts = file.stat()
        if not stat.S_ISREG(facts.st_mode):  # a FIFO would block for ever
            raise corrupt(file, "not a regular file")
        if facts.st_size > limit:
            raise corrupt(file, f"{facts.st_size} bytes, the limit is {limit}")
        found = sha256_file(file)
    except OSError as error:
        raise corrupt(file, error.strerror or str(error)) from error
    if found != sha256:
        raise ModelError(
            "a file of the model has changed since it was saved",
            path=file,
            why=f"SHA-256 is {found[:12]}…, the manifest says {str(sha256)[:12]}…",
            hint="copy the model again from where it was saved, or fit it again",
            code="MODEL-CHECKSUM",
        )
