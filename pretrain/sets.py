"""The five sets of photographs that measure the backbone, each with its one split.

flowers5, flowers17 and animals are cut 75 / 25, stratified, seed 0; hymenoptera and chest_xray come
with theirs. The pre-training and the probes read the split here, so that neither sees another.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

SETS = ("flowers5", "flowers17", "animals", "hymenoptera", "chest_xray")


@dataclass(frozen=True)
class Photographs:
    """Files and class numbers of one set, with the rows of its training and test part."""

    name: str
    paths: list[Path]
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray


def read_set(assets: Path, name: str) -> Photographs:
    """Return one set with its fixed split."""
    folder = assets / "data" / name
    given = {"hymenoptera": ("train", "val"), "chest_xray": ("train", "test")}.get(name)
    pattern = "*/*/*" if given else "*/*"
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    classes = sorted({path.parent.name for path in paths})
    labels = np.array([classes.index(path.parent.name) for path in paths])
    if given:
        part = np.array([path.parent.parent.name for path in paths])
        train, test = np.flatnonzero(part == given[0]), np.flatnonzero(part == given[1])
    else:
        rows = np.arange(len(paths))
        train, test = train_test_split(rows, test_size=0.25, stratify=labels, random_state=0)
    return Photographs(name, paths, labels, np.sort(train), np.sort(test))
