"""Handwritten digits: the second small data set for demonstrations, which nobody here drew."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image

from regraft.data.dataset import Dataset, absolute
from regraft.files import write_bytes

_LEVELS = 16  # the largest value of a pixel in scikit-learn's table


def write_digits(folder: str | os.PathLike[str], *, per_class: int | None = None) -> Dataset:
    """Write scikit-learn's digits into ``folder/<digit>/`` as PNG files and return them.

    They are 1,797 scans of 8 × 8 pixels, 174 to 183 of each digit, and come with scikit-learn:
    nothing is downloaded. Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten
    Digits, UCI Machine Learning Repository, 1998. Who wrote which is not known, so after a split
    the same people may stand in both parts.

    Args:
        folder: Where to; made if missing.
        per_class: How many of each digit, the first ones; None for all.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_digits(folder, per_class=2).counts()["7"]
        2
    """
    from sklearn.datasets import load_digits

    table = load_digits()
    root = absolute(folder)
    paths, labels = [], []
    for digit in map(int, table.target_names):
        scans = table.images[table.target == digit][:per_class]
        for number, scan in enumerate(scans):
            grey = np.round(scan * (255 / _LEVELS)).astype(np.uint8)
            data = io.BytesIO()
            Image.fromarray(grey).save(data, format="PNG")
            paths.append(root / str(digit) / f"{digit}_{number:04d}.png")
            labels.append(str(digit))
            write_bytes(paths[-1], data.getvalue())
    return Dataset(tuple(paths), tuple(labels), tuple(sorted(set(labels))), root=root)
