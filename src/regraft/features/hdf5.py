"""Features in HDF5 files with the keys ``features``, ``labels`` and ``label_names``, out and in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import h5py
import numpy as np
import numpy.typing as npt

from regraft.errors import DataError, RegraftError
from regraft.files import atomic_path

Matrix = npt.NDArray[np.float32]
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


@runtime_checkable
class FeatureBlocks(Protocol):
    """Features that come piece by piece, such as `regraft.features.extractor.Embedded`."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""

    @property
    def names(self) -> Sequence[str]:
        """The path of each picture."""

    @property
    def about(self) -> Mapping[str, str]:
        """What shaped the numbers: becomes the file's attributes."""

    def blocks(self, size: int) -> Iterator[Matrix]:
        """Yield the rows in order, at most ``size`` at a time."""


def write_features(
    file: str | os.PathLike[str],
    features: FeatureBlocks | npt.NDArray[Any],
    labels: Sequence[str],
    *,
    classes: Sequence[str],
    block: int = 1000,
) -> None:
    """Write features and labels to a new HDF5 file, a block at a time, so that memory stays flat.

    The datasets are ``features`` (n, d) float32, ``labels`` (n,) codes and ``label_names`` text;
    embedded pictures also leave ``paths`` and what made them as attributes of the file.

    Args:
        file: The new file; an existing one is never replaced.
        features: Embedded pictures, or an array (n, d).
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
    count, width = _shape(features)
    codes = _codes(labels, classes, count)
    path = Path(file)
    refuse_existing(path)
    with atomic_path(path) as part:
        try:
            with h5py.File(part, "w") as target:
                rows = target.create_dataset("features", (count, width), np.float32)
                for start, values in _pieces(features, block):
                    rows[start : start + len(values)] = values
                target["labels"] = codes
                _write_texts(target, "label_names", classes)
                if isinstance(features, FeatureBlocks):
                    _write_texts(target, "paths", features.names)
                    target.attrs.update(features.about)
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
            _check_datasets(file, features, labels, names)
            classes = tuple(_text(name) for name in names[:])
            codes = labels[:].astype(np.int64)
            matrix = np.empty(features.shape, np.float32)
            features.read_direct(matrix)
    except (OSError, RuntimeError, MemoryError, UnicodeDecodeError) as error:
        raise _unusable(file, str(error)[:200]) from error
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(classes):
        found_codes = f"codes from {codes.min()} to {codes.max()} for {len(classes)} label names"
        raise _unusable(file, found_codes)
    return LabelledFeatures(matrix, tuple(classes[code] for code in codes), classes)


def refuse_existing(file: str | os.PathLike[str]) -> None:
    """Refuse a file that is there already; to be asked before long work, not after it.

    Raises:
        DataError: The file exists (``DATA-EXISTS``).

    Example:
        >>> refuse_existing("no such file.h5")
    """
    if Path(file).exists():
        raise DataError(
            "the file exists already",
            path=file,
            hint="choose another name or remove it first",
            code="DATA-EXISTS",
        )


def _shape(features: FeatureBlocks | npt.NDArray[Any]) -> tuple[int, int]:
    if len(features.shape) != 2:
        raise DataError("features are no matrix", why=f"found the shape {features.shape}")
    count, width = features.shape
    return count, width


def _codes(labels: Sequence[str], classes: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    places = {name: code for code, name in enumerate(classes)}
    if len(places) != len(classes):
        raise DataError("a class is named twice", why=f"classes: {list(classes)[:20]}")
    if len(labels) != count:
        raise DataError("labels do not fit", why=f"{len(labels)} labels for {count} rows")
    unknown = sorted(set(labels) - set(places))
    if unknown:
        raise DataError(
            "labels without a class",
            why=f"found {unknown[:20]}, known classes: {list(classes)[:20]}",
        )
    return np.array([places[label] for label in labels], dtype=np.int64)


def _pieces(
    features: FeatureBlocks | npt.NDArray[Any], block: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    start = 0
    if isinstance(features, FeatureBlocks):
        for values in features.blocks(block):
            yield start, values
            start += len(values)
    else:
        for start in range(0, len(features), block):
            yield start, features[start : start + block]


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


def _check_datasets(file: str | os.PathLike[str], features: Any, labels: Any, names: Any) -> None:
    problems = {
        f"features of shape {features.shape}": features.ndim != 2,
        f"features of type {features.dtype}": features.dtype.kind not in "fiu",
        f"{labels.shape} labels for {features.shape} features": labels.shape != features.shape[:1],
        f"labels of type {labels.dtype}": labels.dtype.kind not in "iu",
        f"label_names of shape {names.shape}": names.ndim != 1,
        f"label_names of type {names.dtype}": names.dtype.kind not in "SO",
    }
    for problem, holds in problems.items():
        if holds:
            raise _unusable(file, problem)


def _unusable(file: str | os.PathLike[str], why: str, hint: str = "") -> RegraftError:
    return DataError("cannot read features", path=file, why=why, hint=hint, code="DATA-HDF5")


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
