"""Which unlabelled images to label next: uncertain ones that differ from each other.

Zhdanov, Diverse mini-batch active learning, 2019 (arXiv:1901.05954): of ten times as many images as
are wanted, those whose two most probable classes lie closest together, k-means weighted by that
uncertainty makes as many clusters as are wanted, and the image nearest to each centre is chosen.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.classifiers.shallow import fit_shallow
from regraft.data.dataset import Dataset
from regraft.errors import DataError, ImageError, UsageError
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import checked_images
from regraft.explain.neighbours import unit_rows
from regraft.features.extractor import FeatureExtractor
from regraft.settings import to_json

_TIMES = 10  # as many images as are wanted are uncertain enough


@dataclass(frozen=True)
class Wanted:
    """An image that is to be labelled.

    Attributes:
        path: As it was named.
        predicted: Its most probable class.
        uncertainty: 1 where two classes are equally probable, 0 where one is certain.
    """

    path: str
    predicted: str
    uncertainty: float


@dataclass(frozen=True)
class NextLabels:
    """Which images to label next.

    Attributes:
        wanted: The images, the most uncertain first.
        labelled: How many labelled images were learned from.
        unlabelled: How many images there were to choose from.
        known: How many more were left out, as copies of labelled ones or of each other.
        bad: The error of each image that could not be used and was left out.
    """

    wanted: tuple[Wanted, ...]
    labelled: int
    unlabelled: int
    known: int
    bad: tuple[ImageError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON object; the images are its ``next``."""
        counts = {name: getattr(self, name) for name in ("labelled", "unlabelled", "known")}
        bad = [error.to_json() for error in self.bad]
        return {"next": to_json(self.wanted), **counts, "bad_files": bad}


def rank_next(
    data: DataConfig,
    unlabelled: Sequence[str],
    extractor: FeatureExtractor,
    *,
    count: int = 20,
    verbose: bool = False,
) -> NextLabels:
    """Choose the unlabelled images whose labels would teach a classifier most.

    The classifier is a logistic regression on cached features of the labelled images; those of a
    test part are not looked at.

    Args:
        data: The labelled images; its seed is that of the clusters.
        unlabelled: Paths of the others.
        extractor: What turns images into features.
        count: How many are chosen at most, 1 or more.
        verbose: Whether to show progress on standard error.

    Raises:
        DataError: Images cannot be used, or none is left to choose from (``DATA-NOTHING-LEFT``).
    """
    every, report = checked_images(data, verbose=verbose)
    parts = every.parts or [""] * len(every)
    labelled = every.take(place for place, part in enumerate(parts) if part != "test")
    places = tuple(dict.fromkeys(map(Path, unlabelled)))
    unnamed = Dataset(places, ("?",) * len(places), ("?",))
    others, found = checked_images(data, unnamed, verbose=verbose)
    known = set(every.hashes())
    first = {digest: place for place, digest in reversed(list(enumerate(others.hashes())))}
    new = others.take(sorted(place for digest, place in first.items() if digest not in known))
    if not len(new):
        what, why = "there is no image to label", f"all {len(others):,} are labelled already"
        raise DataError(what, why=why, hint="name other images", code="DATA-NOTHING-LEFT")
    names, labels = np.unique(np.array(labelled.labels, dtype=object), return_inverse=True)
    fitted = fit_shallow(extractor.transform(labelled.paths), labels, grid=None, seed=data.seed)
    features = extractor.transform(new.paths)
    probabilities = fitted.predict_proba(features)
    uncertain = uncertainty(probabilities)
    return NextLabels(
        wanted=tuple(
            Wanted(
                str(new.paths[place]),
                str(names[probabilities[place].argmax()]),
                float(uncertain[place]),
            )
            for place in choose_next(unit_rows(features), uncertain, count=count, seed=data.seed)
        ),
        labelled=len(labelled),
        unlabelled=len(new),
        known=len(others) - len(new),
        bad=(*report.bad, *found.bad),
    )


def uncertainty(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 minus the margin between the two most probable classes of each row, (n,).

    Example:
        >>> uncertainty(np.array([[0.5, 0.5], [0.9, 0.1]])).round(1).tolist()
        [1.0, 0.2]
    """
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    return np.asarray(1 - (first - second))


def choose_next(
    features: NDArray[np.float32], uncertain: NDArray[np.float64], *, count: int, seed: int = 0
) -> list[int]:
    """Return the places of uncertain rows that differ from each other, the most uncertain first.

    Args:
        features: Rows of length 1, (n, d).
        uncertain: How uncertain the class of each is, 0 to 1, (n,).
        count: How many to choose; all where there are no more.
        seed: Of the first centres of the clusters.

    Example:
        >>> rows = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
        >>> choose_next(rows, np.array([1.0, 0.9, 0.8, 0.1]), count=2)
        [0, 2]
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if count < 1:
        raise UsageError("count must be at least 1", why=f"found {count}")
    order = np.argsort(-uncertain, kind="stable")
    if count >= len(order):
        return [int(place) for place in order]
    candidates = order[: _TIMES * count]
    rows, weights = features[candidates], uncertain[candidates] + 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal rows make fewer clusters
        clusters = KMeans(count, n_init=1, random_state=seed).fit(rows, sample_weight=weights)
    chosen: list[int] = []
    for distances in clusters.transform(rows).T:
        nearest = (int(i) for i in np.argsort(distances, kind="stable") if int(i) not in chosen)
        chosen.append(next(nearest))
    return [int(candidates[place]) for place in sorted(chosen)]
