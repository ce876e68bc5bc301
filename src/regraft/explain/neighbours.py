"""The training images nearest to others, by the features that a run has kept of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from regraft.errors import RunError
from regraft.files import write_bytes
from regraft.results.inspection import FOLDER, Near
from regraft.results.run import Run

_FILE = "train_features.npy"


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
        alike = np.clip(unit_rows(features) @ self.rows.astype(np.float32).T, -1, 1)
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


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length 1, so that their products are cosines; rows of zeros stay.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1))
