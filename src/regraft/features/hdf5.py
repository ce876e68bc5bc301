"""Features in HDF5 files with the keys ``features``, ``labels`` and ``label_names``, out and in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from regraft.errors import DataError
from regraft.features.cache import Matrix
from regraft.features.embed import Embedded
from regraft.files import atomic_path

_KEYS = ("features", "labels", "label_names")


class LabelledFeatures(NamedTuple):
    """What a file holds.

    Attributes:
        features: float32, (n, d).
        labels: The class name of each row.
        classes: All class names in the order of their codes.
    """

    features: Matrix
    labels: tuple[str, ...]
    classes: tuple[str, ...]


def write_features(
    file: str | os.PathLike[str],
    features: Embedded | npt.NDArray[Any],
    labels: Sequence[str],
    *,
    classes: Sequence[str],
    block: int = 1000,
) -> None:
    """Write features and labels to a new HDF5 file, a block at a time, so that memory stays flat.

    The datasets are ``features`` (n, d) float32, ``labels`` (n,) codes and ``label_names`` text;
    embedded images also leave ``paths`` and what made them as attributes of the file.

    Args:
        file: The new file; an existing one is never replaced.
        features: Embedded images, or an array (n, d).
        labels: The class name of each row.
        classes: All class names; a label's code is its place here.
        block: Rows in memory at a time.

    Raises:
        DataError: The file exists (``DATA-EXISTS``), or features, labels and classes do not fit.
        RegraftError: The file cannot be written (``FILE-WRITE``).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "features.h5"
        ...     write_features(file, np.ones((2, 3)), ["rose", "lily"], classes=["lily", "rose"])
        ...     read_features(file).labels
        ('rose', 'lily')
    """
    codes = _codes(labels, classes, features.shape)
    path = Path(file)
    refuse_existing(path)
    with atomic_path(path) as part:
        try:
            with h5py.File(part, "w") as target:
                rows = target.create_dataset("features", features.shape, np.float32)
                if isinstance(features, np.ndarray):
                    rows[:] = features
                else:
                    for i, values in enumerate(features.blocks(block)):
                        rows[i * block : i * block + len(values)] = values
                    _write_texts(target, "paths", features.names)
                    target.attrs.update(features.about)
                target["labels"] = codes
                _write_texts(target, "label_names", classes)
        except RuntimeError as error:  # how h5py reports that closing a file failed
            raise OSError(str(error)) from error
        refuse_existing(path)


def read_features(file: str | os.PathLike[str]) -> LabelledFeatures:
    """Read a file of `write_features`, or a foreign one with the same three keys.

    Args:
        file: An HDF5 file; features of any real type are read as float32, text as UTF-8.

    Raises:
        DataError: No such file, no HDF5, other keys (the message lists those found), or contents
            that do not fit together (code ``DATA-HDF5``).
    """
    if not Path(file).is_file():
        raise DataError("file not found", path=file, code="DATA-MISSING")
    try:
        with h5py.File(file, "r") as source:
            found = sorted(source)
            features, labels, names = (_own_dataset(source, key) for key in _KEYS)
            if features is None or labels is None or names is None:
                raise _unusable(file, f"found {found}", f"expected the keys {list(_KEYS)}")
            if problem := _problem(features, labels, names):
                raise _unusable(file, problem)
            classes = tuple(_text(name) for name in names[:])
            codes = labels[:].astype(np.int64)
            matrix = np.empty(features.shape, np.float32)
            features.read_direct(matrix)
    except (OSError, RuntimeError, MemoryError, UnicodeDecodeError) as error:
        raise _unusable(file, str(error)[:200]) from error
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(classes):
        why = f"codes from {codes.min()} to {codes.max()} for {len(classes)} label names"
        raise _unusable(file, why)
    return LabelledFeatures(matrix, tuple(classes[code] for code in codes), classes)


def refuse_existing(file: str | os.PathLike[str]) -> None:
    """Refuse a file that is there already; to be asked before long work, not after it.

    Raises:
        DataError: The file exists (``DATA-EXISTS``).
    """
    if Path(file).exists():
        hint = "choose another name or remove it first"
        raise DataError("the file exists already", path=file, hint=hint, code="DATA-EXISTS")


def _codes(
    labels: Sequence[str], classes: Sequence[str], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    places = {name: code for code, name in enumerate(classes)}
    unknown = sorted(set(labels) - set(places))
    problems = {
        f"features of shape {shape} are no matrix": len(shape) != 2,
        f"a class is named twice in {list(classes)[:20]}": len(places) != len(classes),
        f"{len(labels)} labels for {shape[0]} rows": len(labels) != shape[0],
        f"labels {unknown[:20]} without a class; known: {list(classes)[:20]}": bool(unknown),
    }
    for problem, holds in problems.items():
        if holds:
            raise DataError("features and labels do not fit", why=problem)
    return np.array([places[label] for label in labels], dtype=np.int64)


def _write_texts(target: h5py.File, name: str, texts: Sequence[str]) -> None:
    # File names may hold bytes that are no UTF-8; they come back the same way they went.
    values = [text.encode("utf-8", "surrogateescape") for text in texts]
    target.create_dataset(name, data=np.array(values, object), dtype=h5py.string_dtype())


def _own_dataset(source: h5py.File, key: str) -> Any:
    """Return a dataset that lies in this very file: links and external storage reach others."""
    if not isinstance(source.get(key, getlink=True), h5py.HardLink):
        return None
    dataset = source[key]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        return None
    return dataset


def _problem(features: Any, labels: Any, names: Any) -> str:
    """Return the first thing that is wrong with three datasets, or nothing."""
    problems = {
        f"features of shape {features.shape}": features.ndim != 2,
        f"features of type {features.dtype}": features.dtype.kind not in "fiu",
        f"{labels.shape} labels for {features.shape} features": labels.shape != features.shape[:1],
        f"labels of type {labels.dtype}": labels.dtype.kind not in "iu",
        f"label_names of shape {names.shape}": names.ndim != 1,
        f"label_names of type {names.dtype}": names.dtype.kind not in "SO",
    }
    return next((problem for problem, holds in problems.items() if holds), "")


def _unusable(file: str | os.PathLike[str], why: str, hint: str = "") -> DataError:
    return DataError("cannot read features", path=file, why=why, hint=hint, code="DATA-HDF5")


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
