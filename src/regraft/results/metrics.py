"""What predictions are worth: numbers with intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.results.intervals import Estimate, Indices, bootstrap, f1_estimate, wilson
from regraft.results.predictions import Predictions, average_scores, tally

# The measures that a page shows beside the accuracy, with their titles. A new one needs its entry
# here and its value in `measures`.
MEASURES = {"top5": "top-5 accuracy", "macro_recall": "macro recall", "macro_f1": "macro F1"}
_AVERAGED = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Scores:
    """The scores of one class, or their average over the classes that have images.

    Args:
        name: The class, or ``macro`` (classes count the same) or ``weighted`` (images do).
        precision: Share of the images predicted as the class that belong to it; unknown where none
            was predicted so, which averages count as 0.
        recall: Share of its images that were predicted so; unknown where it has no image.
        f1: Harmonic mean of the two; unknown where it has no image.
        support: The number of its images.
    """

    name: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


@dataclass(frozen=True)
class Confused:
    """A pair of classes that was confused.

    Args:
        true: The class of the images.
        predicted: The class they were predicted as.
        count: How many images.
        share: Their share among the images of the true class.
    """

    true: str
    predicted: str
    count: int
    share: Estimate


def accuracy(p: Predictions) -> Estimate:
    """Return the share of images predicted correctly, with its Wilson interval.

    Example:
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> accuracy(p).value
        0.5
    """
    return wilson(int(p.correct.sum()), len(p))


def top_k_accuracy(p: Predictions, k: int = 5) -> Estimate:
    """Return the share of images whose true class is among the ``k`` most probable ones.

    Of classes with the same probability the earlier column comes first, as in
    :attr:`Predictions.predicted`.
    """
    rows = np.arange(len(p))
    own = p.probabilities[rows, p.truth_index][:, None]
    earlier = np.arange(len(p.classes)) < p.truth_index[:, None]
    before = (p.probabilities > own) | ((p.probabilities == own) & earlier)
    return wilson(int((before.sum(axis=1) < k).sum()), len(p))


def majority_baseline(p: Predictions) -> Estimate:
    """Return the accuracy of always predicting the most frequent true class."""
    return wilson(max(Counter(p.truth).values(), default=0), len(p))


def confusion(p: Predictions) -> npt.NDArray[np.int64]:
    """Return how often each class (row) was predicted as each class (column), shape (k, k)."""
    k = len(p.classes)
    counts = np.bincount(p.truth_index * k + p.predicted_index, minlength=k * k)
    return np.asarray(counts.reshape(k, k), dtype=np.int64)


def per_class(p: Predictions) -> list[Scores]:
    """Return the scores of every class in the order of ``p.classes``."""
    counts = tally(p.truth_index, p.predicted_index, len(p.classes))
    rows = zip(p.classes, *(column.tolist() for column in counts), strict=True)
    return [
        Scores(
            name,
            precision=wilson(hits, predicted),
            recall=wilson(hits, support),
            f1=f1_estimate(hits, missed=support - hits, false=predicted - hits)
            if support
            else Estimate.unknown(),
            support=support,
        )
        for name, hits, support, predicted in rows
    ]


def averages(p: Predictions) -> tuple[Scores, Scores]:
    """Return the averages ``macro`` (classes count the same) and ``weighted`` (images do).

    Intervals are stratified-bootstrap ones. In simulations with 10 to 170 images per class those
    of macro recall and macro F1 held the true value in 92 to 98 % of samples, in 95 % on average.
    For a sample without an error the interval is that of the accuracy.
    """
    k = len(p.classes)

    def both(truth: Indices, predicted: Indices) -> npt.NDArray[np.float64]:
        return average_scores(*tally(truth, predicted, k))

    if len(p) == 0 or p.correct.all():
        found = [accuracy(p)] * (2 * len(_AVERAGED))
    else:
        found = bootstrap(both, p.truth_index, p.predicted_index)
    macro, weighted = (
        Scores(name, precision, recall, f1, len(p))
        for name, (precision, recall, f1) in (("macro", found[:3]), ("weighted", found[3:]))
    )
    return macro, weighted


def most_confused(p: Predictions) -> list[Confused]:
    """Return the pairs of classes that were confused, most images first."""
    k, wrong = len(p.classes), ~p.correct
    # Counted pair by pair: with thousands of classes the whole matrix would not fit into memory.
    pairs_of = p.truth_index[wrong] * k + p.predicted_index[wrong]
    cells, counts = np.unique(pairs_of, return_counts=True)
    support = np.bincount(p.truth_index, minlength=k).tolist()
    pairs = []
    for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
        i, j = divmod(cell, k)
        pairs.append(Confused(p.classes[i], p.classes[j], count, wilson(count, support[i])))
    # Equal counts: the larger share first, then the order of the classes.
    pairs.sort(key=lambda pair: (-pair.count, -pair.share.value))
    return pairs


def measures(p: Predictions) -> dict[str, Estimate]:
    """Return all that is measured of a part; top 5 where there are more than 5 classes.

    Example:
        >>> p = Predictions(("1",), ("a",), ("a", "b"), np.array([[0.9, 0.1]]), ("test",))
        >>> list(measures(p))
        ['accuracy', 'majority_baseline', 'macro_precision', 'macro_recall', 'macro_f1']
    """
    macro = averages(p)[0]
    found = {"accuracy": accuracy(p), "majority_baseline": majority_baseline(p)}
    found |= {f"macro_{name}": getattr(macro, name) for name in _AVERAGED}
    return found | ({"top5": top_k_accuracy(p, 5)} if len(p.classes) > 5 else {})
