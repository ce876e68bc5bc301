"""Labels that are probably wrong, found by confident learning on features of a frozen network.

Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70,
2021 (arXiv:1911.00068): classifiers that have not seen an image say how probable each class is. An
image counts as one of another class where that class is as probable as it is, on average, for the
images that bear its label; as many images of each pair of labels as are counted so are suspects,
those first for which the two probabilities lie furthest apart (prune by noise rate).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.data.check import CheckReport
from regraft.data.dataset import Dataset, Split
from regraft.data.manifest import is_manifest
from regraft.errors import ImageError
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import checked_images
from regraft.experiment.rank import make_folds, predict_out_of_fold
from regraft.explain.neighbours import unit_rows
from regraft.features.extractor import FeatureExtractor
from regraft.report.tables import Table
from regraft.settings import to_json

_NEAREST = 10  # images around a suspect that are looked at
_SHOWN = 3  # of them, those that are shown at most
_ROUNDING = 1e-6  # by which a mean of equal probabilities may differ from them


@dataclass(frozen=True)
class Labelled:
    """An image with its label, and how alike it is to a suspect.

    Attributes:
        path: Where it lies in the data set.
        label: Its class.
        similarity: Cosine of the angle between the features, −1 to 1; None where it is a copy.
    """

    path: str
    label: str
    similarity: float | None = None


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
        path: Where it lies in the data set.
        given: Its label.
        suggested: The most probable class.
        score: How probable it is that it is not of its own class, 0 to 1.
        agreeing: How many of the ten images nearest to it have its label.
        neighbours: Of those ten the nearest with other labels, three at most.
    """

    path: str
    given: str
    suggested: str
    score: float
    agreeing: int
    neighbours: tuple[Labelled, ...]


@dataclass(frozen=True)
class Conflict:
    """Copies of one image that have different labels.

    Attributes:
        exact: Whether the files have the same content; else they look alike.
        images: The copies.
    """

    exact: bool
    images: tuple[Labelled, ...]


@dataclass(frozen=True)
class Suspects:
    """What a search for wrong labels found.

    Attributes:
        suspects: The images, surest first.
        conflicts: Copies with different labels.
        root: The folder that paths are relative to.
        images: How many images were judged.
        unjudged: How many were not, because their class is too small for the folds.
        folds: Of the cross-validation.
        bad: The error of each image that could not be used and was left out.
    """

    suspects: tuple[Suspect, ...]
    conflicts: tuple[Conflict, ...]
    root: Path
    images: int
    unjudged: int
    folds: int
    bad: tuple[ImageError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything but the root as one JSON object."""
        names = ("suspects", "conflicts", "images", "unjudged", "folds")
        bad = [error.to_json() for error in self.bad]
        return {**{name: to_json(getattr(self, name)) for name in names}, "bad_files": bad}

    def table(self) -> Table:
        """Return the suspects with the nearest image of another label; copies stand below."""
        columns = ("image", "given", "suggested", "score", "nearest with another label")
        rows = []
        for s in self.suspects:
            nearest = f"{s.neighbours[0].path} ({s.neighbours[0].label})" if s.neighbours else ""
            rows.append((s.path, s.given, s.suggested, round(s.score, 3), nearest))
        copies = [
            ("the same content: " if conflict.exact else "nearly the same image: ")
            + " = ".join(f"{image.path} ({image.label})" for image in conflict.images)
            for conflict in self.conflicts
        ]
        return Table(columns, tuple(rows), notes=(self.told(), *copies))

    def told(self) -> str:
        """Return in a sentence or two what was looked at, and how."""
        left = f"; {self.unjudged:,} of small classes were not judged" if self.unjudged else ""
        return (
            f"{len(self.suspects):,} of {self.images:,} labels are doubtful, by confident learning"
            f" (Northcutt et al. 2021) with {self.folds} folds{left}. Score: how probable it is"
            " that the image is not of its class."
        )


def find_suspects(
    data: DataConfig, extractor: FeatureExtractor, *, folds: int = 5, verbose: bool = False
) -> Suspects:
    """Find labels that are probably wrong; parts that the images have play no role.

    The probabilities are those of a logistic regression on cached features, fitted on the other
    folds. Groups, copies and images that look alike share a fold. Of a written split the test part
    is looked at, too, which is counted.

    Args:
        data: Which images; its seed makes the folds.
        extractor: What turns them into features.
        folds: Of the cross-validation, at least 2.
        verbose: Whether to show progress on standard error.

    Raises:
        DataError: The images cannot be used, or a class is too small for the folds
            (``SPLIT-TOO-FEW``).
        UsageError: There are fewer than two folds.

    Example:
        >>> import tempfile
        >>> from regraft.backbones.spec import BackboneSpec
        >>> from regraft.data.synthetic import make_flowers
        >>> spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = make_flowers(folder, species=2, per_class=6, size=32)
        ...     found = find_suspects(DataConfig(folder), FeatureExtractor(spec), folds=2)
        >>> found.images
        12
    """
    images, report = checked_images(data, verbose=verbose)
    images = dataclasses.replace(images, parts=None)
    shared: dict[str, Any] = {"small_classes": data.small_classes, "alike": report.near_duplicates}
    places = make_folds(images, folds=folds, seed=data.seed, **shared)
    if data.source.is_file() and is_manifest(data.source):
        Split.count_test_look(data.source.parent)
    features = extractor.transform(images.paths)
    names, labels = np.unique(np.array(images.labels, dtype=object), return_inverse=True)
    found = predict_out_of_fold(features, labels, places, grid="default", seed=data.seed)
    judged = np.flatnonzero(places >= 0)
    wrong = judged[label_issues(found[judged], labels[judged])]
    surest = wrong[np.argsort(found[wrong, labels[wrong]], kind="stable")]
    around = _Around(unit_rows(features), images.relative_paths(), images.labels)
    return Suspects(
        suspects=tuple(
            around.suspect(i, str(names[found[i].argmax()]), float(1 - found[i, labels[i]]))
            for i in surest.tolist()
        ),
        conflicts=_conflicts(images, report),
        root=images.root or Path(),
        images=len(judged),
        unjudged=len(places) - len(judged),
        folds=folds,
        bad=report.bad,
    )


def class_thresholds(probabilities: NDArray[np.float64], labels: NDArray[np.intp]) -> NDArray[Any]:
    """Return the mean probability of each class among the images that bear its label, (k,).

    Example:
        >>> class_thresholds(np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6]]), np.array([0, 0, 1]))
        array([0.8, 0.6])
    """
    own = ((labels == name, name) for name in range(probabilities.shape[1]))
    return np.array([probabilities[of, k].mean() if of.any() else np.inf for of, k in own])


def label_issues(probabilities: NDArray[np.float64], labels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which labels are probably wrong, by confident learning, pruned by noise rate.

    Args:
        probabilities: Of each class, from classifiers that have not seen the image, (n, k).
        labels: The given class of each image, 0 to k − 1, (n,).

    Example:
        >>> rows = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
        >>> label_issues(rows, np.array([0, 0, 0, 1, 1])).tolist()
        [False, False, True, False, False]
    """
    wrong = np.zeros(len(labels), dtype=bool)
    for given, counts in enumerate(_confident_joint(probabilities, labels)):
        places = np.flatnonzero(labels == given)
        rows = probabilities[places]
        for other in np.flatnonzero(counts > 0):
            if other != given:
                order = np.argsort(rows[:, given] - rows[:, other], kind="stable")
                wrong[places[order[: counts[other]]]] = True
    own = probabilities[np.arange(len(labels)), labels]
    return np.asarray(wrong & (own + _ROUNDING < probabilities.max(axis=1, initial=0.0)))


def _confident_joint(
    probabilities: NDArray[np.float64], labels: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return how many images of each label (row) belong to each class (column), (k, k)."""
    classes = probabilities.shape[1]
    sure = probabilities >= class_thresholds(probabilities, labels) - _ROUNDING
    several = sure.sum(axis=1) > 1
    likely = np.where(several, probabilities.argmax(axis=1), sure.argmax(axis=1))
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[sure.any(axis=1)], likely[sure.any(axis=1)]), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    sizes = np.bincount(labels, minlength=classes)
    joint *= (sizes / joint.sum(axis=1))[:, None]  # every image counts, whether it is sure or not
    return np.array([_rounded(row) for row in joint], dtype=np.intp)


def _rounded(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return whole numbers with the same sum: what is rounded furthest gives way."""
    whole = row.round()
    missing = round(float(row.sum() - whole.sum()))
    order = np.argsort(row - whole)[:: -1 if missing > 0 else 1]
    whole[order[: abs(missing)]] += np.sign(missing)
    return whole


@dataclass(frozen=True)
class _Around:
    """Where the neighbours of suspects are looked for: features of length 1, paths, labels."""

    features: NDArray[np.float32]
    paths: tuple[str, ...]
    labels: tuple[str, ...]

    def suspect(self, place: int, suggested: str, score: float) -> Suspect:
        alike = self.features @ self.features[place]
        order = np.argsort(-alike, kind="stable").tolist()
        nearest = [i for i in order[: _NEAREST + 1] if i != place][:_NEAREST]
        given = self.labels[place]
        others = [i for i in nearest if self.labels[i] != given]
        shown = (Labelled(self.paths[i], self.labels[i], float(alike[i])) for i in others[:_SHOWN])
        agreeing = len(nearest) - len(others)
        return Suspect(self.paths[place], given, suggested, score, agreeing, tuple(shown))


def _conflicts(images: Dataset, report: CheckReport) -> tuple[Conflict, ...]:
    label_of = dict(zip(images.relative_paths(), images.labels, strict=True))

    def differing(groups: Sequence[Sequence[str]], *, exact: bool) -> list[Conflict]:
        known = [[Labelled(path, label_of[path]) for path in group] for group in groups]
        found = [group for group in known if len({image.label for image in group}) > 1]
        return [Conflict(exact, tuple(group)) for group in found]

    return (
        *differing(report.duplicates, exact=True),
        *differing(report.near_duplicates, exact=False),
    )
