"""The training images nearest to others, by the features that a run has kept of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from regraft.errors import RunError
from regraft.files import write_bytes
from regraft.results.inspection import FOLDER, Near
from regraft.results.intervals import Estimate
from regraft.results.run import Run

_FILE = "train_features.npy"
_NEIGHBOUR = 3  # whose distance says how far an image is
_DRAWS = 500
_FEW = 8  # images


@dataclass(frozen=True, eq=False)
class TrainingFeatures:
    """The features of the images that a run has learned from.

    Args:
        rows: Of length 1 each, in 16 bits, (n, d).
        paths: Where the images lie in the data set.
        labels: Their classes.

    Example:
        >>> rows = np.eye(2, dtype=np.float16)
        >>> kept = TrainingFeatures(rows, ("a.jpg", "b.jpg"), ("rose", "lily"))
        >>> kept.nearest(np.array([[0.0, 2.0]], np.float32), most=1)
        [(Near(path='b.jpg', label='lily', distance=0.0),)]
    """

    rows: NDArray[np.float16]
    paths: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, features: NDArray[np.float32]) -> Self:
        """Return those of a run, from the features of all images that it has predicted, (n, d)."""
        p = run.predictions
        learned = [place for place, part in enumerate(p.parts) if part == "train"]
        train = p.take(learned)
        return cls(unit_rows(features[learned]).astype(np.float16), train.paths, train.truth)

    def write(self, run: Run) -> None:
        """Write the numbers into the folder of the run; it knows paths and labels already."""
        stream = io.BytesIO()
        np.save(stream, self.rows, allow_pickle=False)
        write_bytes(run.folder / FOLDER / _FILE, stream.getvalue())

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read what a run has kept.

        Raises:
            RunError: It has kept none (``RUN-FEATURES``), or they are damaged (``RUN-INVALID``).
        """
        file, train = run.folder / FOLDER / _FILE, run.predictions.part("train")
        if not file.is_file():
            what, hint = "this run has kept no features", "fit it again without --no-explain"
            raise RunError(what, path=run.folder, hint=hint, code="RUN-FEATURES")
        try:
            rows = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            what, why = "cannot read the features", str(error)
            raise RunError(what, path=file, why=why, code="RUN-INVALID") from error
        if rows.dtype != np.float16 or rows.ndim != 2 or len(rows) != len(train):
            why = f"{rows.dtype} of shape {rows.shape} for {len(train)} training images"
            raise RunError("not the features of this run", path=file, why=why, code="RUN-INVALID")
        return cls(rows, train.paths, train.truth)

    def nearest(
        self, features: NDArray[np.float32], *, most: int, names: Sequence[str] = ()
    ) -> list[tuple[Near, ...]]:
        """Return the nearest training images of others, the nearest first.

        Args:
            features: Of the others, as the network gives them, (m, d).
            most: How many of each.
            names: The paths of the others, where they may be training images themselves: no image
                is its own neighbour.
        """
        alike = np.clip(_cosines(unit_rows(features), self._exact), -1, 1)
        place_of = {path: place for place, path in enumerate(self.paths)}
        for row, name in enumerate(names):
            if name in place_of:
                alike[row, place_of[name]] = -np.inf
        order = np.argsort(-alike, axis=1, kind="stable")[:, :most]
        return [
            tuple(
                Near(self.paths[i], self.labels[i], max(0.0, round(1 - float(alike[row, i]), 4)))
                for i in places
                if alike[row, i] > -np.inf
            )
            for row, places in enumerate(order.tolist())
        ]

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how far images are from those learned from, (m,): from the third nearest of these.

        It is 1 minus the cosine, 0 to 2, after what all have in common was taken away, so that it
        tells more than the distance that :meth:`nearest` gives (after Sun et al.,
        Out-of-distribution detection with deep nearest neighbors, 2022).

        Args:
            features: Of the images, as the network gives them, (m, d).

        Example:
            >>> kept = TrainingFeatures(np.eye(4, dtype=np.float16), tuple("1234"), tuple("aabb"))
            >>> near, far = kept.distances(np.array([[1, 1, 1, 0], [-1, -1, -1, -1]], np.float32))
            >>> bool(near < far)
            True
        """
        return _farness(self.alike(features))

    def alike(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine of images and training images without what all have in common, (m, n).

        Args:
            features: Of the images, as the network gives them, (m, d).
        """
        common, own = self._apart
        return _cosines(unit_rows(unit_rows(features) - common), own)

    @cached_property
    def _exact(self) -> NDArray[np.float32]:
        return self.rows.astype(np.float32)

    @cached_property
    def _apart(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What all rows have in common, (d,), and unit rows of the rest, (n, d)."""
        common = self._exact.mean(axis=0)
        return common, unit_rows(self._exact - common)


def tell_strangers(
    training: TrainingFeatures, features: NDArray[np.float32], labels: Sequence[str]
) -> Estimate:
    """Return how well the distance tells images of a class that was not learned from the others.

    Each class is left out of the training images in turn: its images then are the strangers. What
    is returned is the mean area under the ROC curve over the classes, 0 to 1, with the interval of
    a bootstrap over the images.

    Args:
        training: What was learned from.
        features: Of images that were not, such as the test part, (m, d).
        labels: Their classes.

    Example:
        >>> rows = np.eye(3, dtype=np.float16).repeat(4, axis=0)
        >>> names = tuple(name for name in "abc" for _ in range(4))
        >>> found = tell_strangers(TrainingFeatures(rows, names, names), np.eye(3), "abc")
        >>> found.value, found.n
        (1.0, 3)
    """
    own = np.array(list(labels), dtype=object)
    alike, learned = training.alike(features), np.array(training.labels, dtype=object)
    classes = [name for name in dict.fromkeys(labels) if not (learned == name).all()]
    far = [(_farness(alike[:, learned != name]), own == name) for name in classes]
    if len(set(labels)) < 2 or not far:
        return Estimate.unknown()

    def mean_area(places: NDArray[np.int64]) -> float:
        areas = [_area(each[places], strange[places]) for each, strange in far]
        return float(np.mean(areas))

    draws = np.random.default_rng(0).integers(len(own), size=(_DRAWS, len(own)))
    value = mean_area(np.arange(len(own)))
    low, high = np.quantile([value, *map(mean_area, draws)], [0.025, 0.975]).tolist()
    return Estimate(value, min(low, value), max(high, value), len(own))


def _cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the products of unit rows, (m, d) and (n, d), as (m, n)."""
    if len(first) > _FEW:
        return np.asarray(first @ second.T)
    # BLAS would wake all its threads, which then wait for more work longer than these few take.
    return np.asarray(np.einsum("md,nd->mn", first, second))


def _farness(alike: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the distance of the third most alike, or of the last of fewer; (m, n) to (m,)."""
    rank = min(_NEIGHBOUR, alike.shape[1])
    return 1 - np.partition(alike, -rank, axis=1)[:, -rank].astype(np.float64)


def _area(far: NDArray[np.float64], strange: NDArray[np.bool_]) -> float:
    """Return how often a stranger is farther than another image; ties count half."""
    ours, theirs = np.sort(far[~strange]), far[strange]
    if not len(ours) or not len(theirs):
        return 0.5  # of a draw that says nothing
    below = np.searchsorted(ours, theirs, "left") + np.searchsorted(ours, theirs, "right")
    return float(below.mean() / 2 / len(ours))


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length 1, so that their products are cosines; rows of zeros stay.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1))
