"""Features and images in HDF5 files, with ``labels`` and ``label_names``: out and in."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from regraft.data.dataset import Dataset
from regraft.errors import DataError
from regraft.features.cache import Matrix
from regraft.files import atomic_path, write_json

if TYPE_CHECKING:
    from regraft.features.embed import Embedded

_KEYS = ("features", "labels", "label_names")
_BESIDE = ("paths", "sha256", "groups")


class LabelledFeatures(NamedTuple):
    """What a file holds.

    Attributes:
        features: float32, (n, d).
        labels: The class name of each row.
        classes: All class names in the order of their codes.
        names: The path of the image of each row; empty where the file has none.
        sha256s: The SHA-256 of the image of each row; empty where the file has none.
        groups: What must not be torn apart by a split, for each row; empty where the file has none.
        about: What made the features: the network, its fingerprint, the pooling and so on.
    """

    features: Matrix
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    sha256s: tuple[str, ...]
    groups: tuple[str, ...]
    about: Mapping[str, str]

    def dataset(self, file: Path) -> Dataset:
        """Return what the rows stand for, with hashes, so that it is split without any image.

        Rows without a path are called by their number, those without a hash have that of their
        numbers.

        Args:
            file: Where the features were read from.
        """
        names = self.names or [f"row-{row}" for row in range(len(self.labels))]
        paths = tuple(map(Path, names))
        folders = [str(path.parent) for path in paths if path.is_absolute()]
        root = Path(os.path.commonpath(folders)) if folders else None
        hashes = self.sha256s or [
            hashlib.sha256(row.tobytes()).hexdigest() for row in self.features
        ]
        return Dataset(
            paths,
            self.labels,
            self.classes,
            root=root if len(folders) == len(paths) else None,
            groups=self.groups or None,
            notes=(f"read from {file.name}",),
            known_hashes=dict(zip(paths, hashes, strict=True)),
        )


def write_features(
    file: str | os.PathLike[str], features: Embedded, images: Dataset, *, block: int = 1000
) -> None:
    """Write features and labels to a new HDF5 file, a block at a time, so that memory stays flat.

    The datasets are ``features`` (n, d) float32, ``labels`` (n,) codes, the places of the classes
    in ``label_names``, ``paths``, ``sha256`` and, where there are any, ``groups``; what made the
    features stands as attributes of the file.

    Args:
        file: The new file; an existing one is never replaced.
        features: Embedded images.
        images: Their labels, classes and groups.
        block: Rows in memory at a time.

    Raises:
        DataError: The file exists (``DATA-EXISTS``), or there are other images than features.
        RegraftError: The file cannot be written (``FILE-WRITE``).

    Example:
        >>> import tempfile
        >>> from regraft.backbones.spec import BackboneSpec
        >>> from regraft.features.extractor import FeatureExtractor
        >>> images = [np.zeros((40, 50, 3), np.uint8)] * 2
        >>> features = FeatureExtractor(BackboneSpec("simple_cnn", weights=None)).stream(images)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "features.h5"
        ...     labels = Dataset(("a.jpg", "b.jpg"), ("rose", "lily"), ("lily", "rose"))
        ...     write_features(file, features, labels)
        ...     read_features(file).labels
        ('rose', 'lily')
    """
    if len(images) != features.shape[0]:
        why = f"{len(images)} images for {features.shape[0]} rows"
        raise DataError("features and labels do not fit", why=why)
    with _new_file(file, images) as target:
        rows = target.create_dataset("features", features.shape, np.float32)
        for i, values in enumerate(features.blocks(block)):
            rows[i * block : i * block + len(values)] = values
        _write_texts(target, "sha256", features.sha256s)
        target.attrs.update(features.about)


def write_pixels(
    file: str | os.PathLike[str],
    batches: Iterable[npt.NDArray[np.uint8]],
    images: Dataset,
    *,
    side: int,
) -> dict[str, float]:
    """Write prepared images to a new HDF5 file, and their means beside it.

    The datasets are ``images`` (n, side, side, 3) in 8 bits, and labels and paths as
    `write_features` has them. The mean of each channel over all images stands as ``R``, ``G`` and
    ``B`` in a JSON file of the same name and among the file's attributes.

    Args:
        file: The new file; an existing one is never replaced.
        batches: The images, a part at a time: (m, side, side, 3) in 8 bits, RGB.
        images: Their paths, labels, classes and groups.
        side: Height and width in pixels.

    Returns:
        The means by channel, between 0 and 255.

    Raises:
        DataError: One of the two files exists (``DATA-EXISTS``).
        ImageError: An image cannot be used.
        RegraftError: The files cannot be written (``FILE-WRITE``).
    """
    beside = Path(file).with_suffix(".json")
    refuse_existing(beside)
    sums, end = np.zeros(3), 0
    with _new_file(file, images) as target:
        pixels = target.create_dataset("images", (len(images), side, side, 3), np.uint8)
        for batch in batches:
            start, end = end, end + len(batch)
            pixels[start:end] = batch
            sums += batch.sum(axis=(0, 1, 2), dtype=np.float64)
        means = dict(zip("RGB", (sums / (max(end, 1) * side**2)).tolist(), strict=True))
        target.attrs.update(means)
    write_json(beside, means)
    return means


def read_features(file: str | os.PathLike[str]) -> LabelledFeatures:
    """Read a file of `write_features`, or a foreign one with the same first three keys.

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
            features, coded, names = (_own_dataset(source, key) for key in _KEYS)
            if features is None or coded is None or names is None:
                raise _unusable(file, f"found {sorted(source)}", f"expected the keys {list(_KEYS)}")
            if not _fit(features, coded, names):
                shapes = [f"{one.dtype} of shape {one.shape}" for one in (features, coded, names)]
                hint = "expected numbers of shape (n, d), whole numbers of shape (n,), and texts"
                raise _unusable(file, f"found {', '.join(shapes)}", hint)
            classes, codes = _texts(names), coded[:].astype(np.int64)
            matrix = features.astype(np.float32)[:]
            paths, sha256s, groups = (_texts(_own_dataset(source, key)) for key in _BESIDE)
            about = {key: value for key, value in source.attrs.items() if isinstance(value, str)}
    except (OSError, RuntimeError, MemoryError, TypeError, UnicodeDecodeError) as error:
        raise _unusable(file, str(error)[:200]) from error
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(classes):
        why = f"codes from {codes.min()} to {codes.max()} for {len(classes)} label names"
        raise _unusable(file, why)
    if any(len(texts) not in {0, len(codes)} for texts in (paths, sha256s, groups)):
        raise _unusable(file, "paths, sha256 or groups are not one for each row")
    labels = tuple(classes[code] for code in codes)
    return LabelledFeatures(matrix, labels, classes, paths, sha256s, groups, about)


def refuse_existing(file: str | os.PathLike[str]) -> None:
    """Refuse a file that is there already; to be asked before long work, not after it.

    Raises:
        DataError: The file exists (``DATA-EXISTS``).
    """
    if Path(file).exists():
        hint = "choose another name or remove it first"
        raise DataError("the file exists already", path=file, hint=hint, code="DATA-EXISTS")


@contextlib.contextmanager
def _new_file(file: str | os.PathLike[str], images: Dataset) -> Iterator[h5py.File]:
    """Give a new file that holds names and labels, and appears whole or not at all."""
    refuse_existing(file)
    codes = {name: code for code, name in enumerate(images.classes)}
    with atomic_path(Path(file)) as part:
        try:
            with h5py.File(part, "w") as target:
                target["labels"] = np.array([codes[label] for label in images.labels], np.int64)
                _write_texts(target, "label_names", images.classes)
                _write_texts(target, "paths", [str(path) for path in images.paths])
                if images.groups is not None:
                    _write_texts(target, "groups", images.groups)
                yield target
        except RuntimeError as error:  # how h5py reports that closing a file failed
            raise OSError(str(error)) from error


def _write_texts(target: h5py.File, name: str, texts: Sequence[str]) -> None:
    # File names may hold bytes that are no UTF-8; they come back the same way they went.
    values = [text.encode("utf-8", "surrogateescape") for text in texts]
    target.create_dataset(name, data=np.array(values, object), dtype=h5py.string_dtype())


def _own_dataset(source: h5py.File, key: str) -> Any:
    """Return a dataset that lies in this very file: links and external storage reach others."""
    own = source[key] if isinstance(source.get(key, getlink=True), h5py.HardLink) else None
    return own if isinstance(own, h5py.Dataset) and not (own.external or own.is_virtual) else None


def _fit(features: Any, labels: Any, names: Any) -> bool:
    kinds = [dataset.dtype.kind for dataset in (features, labels, names)]
    shapes = (features.ndim, names.ndim) == (2, 1) and labels.shape == features.shape[:1]
    return shapes and kinds[0] in "fiu" and kinds[1] in "iu" and kinds[2] in "SO"


def _texts(dataset: Any) -> tuple[str, ...]:
    """Return the texts of a dataset; none where there is no such dataset."""
    if dataset is None or dataset.ndim != 1 or dataset.dtype.kind not in "SO":
        return ()
    return tuple(dataset.asstr("utf-8", "surrogateescape")[:].tolist())


def _unusable(file: str | os.PathLike[str], why: str, hint: str = "") -> DataError:
    return DataError("cannot read features", path=file, why=why, hint=hint, code="DATA-HDF5")
