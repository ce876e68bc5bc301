"""How far cached features tell classes apart: shallow classifiers, cross-validated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from regraft.classifiers.shallow import fit_shallow
from regraft.data.dataset import Dataset
from regraft.errors import UsageError

Indices = NDArray[np.intp]


def make_folds(
    data: Dataset,
    *,
    folds: int = 5,
    seed: int = 0,
    small_classes: str = "refuse",
    alike: Sequence[Sequence[str]] = (),
) -> Indices:
    """Put every picture into a fold, so that each fold holds the classes in their proportions.

    Pictures of one group, copies of one file and pictures that look alike share a fold, so that
    none is predicted by a classifier that has learned from its double.

    Args:
        data: The pictures; their groups are used if they have any.
        folds: How many, at least 2.
        seed: Another seed, other folds.
        small_classes: What to do with a class that has less to share out than there are folds:
            ``"refuse"`` it, or ``"train"``, which lets all classifiers learn from it and tests none
            on it.
        alike: Groups of relative paths whose pictures look alike, as a check finds them.

    Returns:
        The number of the fold of each picture, from 0, shape (n,); −1 for what is in none.

    Raises:
        UsageError: There are fewer than two folds.
        DataError: A class is too small for so many folds (``SPLIT-TOO-FEW``).

    Example:
        >>> import tempfile
        >>> from regraft.data.synthetic import make_flowers
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     places = make_folds(make_flowers(folder, species=2, per_class=4, size=16), folds=2)
        >>> np.bincount(places).tolist()
        [4, 4]
    """
    if folds < 2:
        raise UsageError("cross-validation needs at least two folds", why=f"found {folds}")
    row = {path: place for place, path in enumerate(data.paths)}
    numbers = np.full(len(data), -1, dtype=np.intp)
    for number in range(folds):
        held = data.split(
            val=0.0,
            folds=folds,
            fold=number,
            seed=seed,
            small_classes=small_classes,
            alike=alike,
        ).test
        numbers[[row[path] for path in held.paths]] = number
    return numbers


def predict_out_of_fold(
    features: NDArray[np.float32],
    labels: Indices,
    folds: Indices,
    *,
    classifier: str = "logistic",
    seed: int = 0,
) -> Indices:
    """Predict every row with a classifier that was fitted on the other folds.

    The classifier keeps the settings of its name; with no search inside, the same amount of work
    falls on every network, and none is favoured by the range of a grid.

    Args:
        features: Shape (n, d); left as they are.
        labels: The class of each row, 0 to k − 1, shape (n,).
        folds: The fold of each row, shape (n,); every class stands in the rest of each fold. Rows
            in none (−1) are learned from and not predicted.
        classifier: A name of :data:`regraft.classifiers.shallow.NAMED`.
        seed: For classifiers that draw numbers.

    Returns:
        The predicted class of each row, shape (n,); −1 for rows in no fold.

    Example:
        >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]], dtype=np.float32)
        >>> places = np.array([0, 1, 0, 1])
        >>> predict_out_of_fold(rows, np.array([0, 0, 1, 1]), places).tolist()
        [0, 0, 1, 1]
    """
    predicted = np.full(len(labels), -1, dtype=np.intp)
    for fold in np.unique(folds[folds >= 0]):
        held = folds == fold
        fitted = fit_shallow(
            features[~held], labels[~held], classifier=classifier, grid=None, seed=seed
        )
        predicted[held] = fitted.predict_proba(features[held]).argmax(axis=1)
    return predicted
