"""What predictions are worth: numbers with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.results.intervals import Estimate, Indices, bootstrap, f1_estimate, wilson
from regraft.results.predictions import Predictions, average_scores, tally

# The measures that a page shows beside the accuracy, with their titles. A new one needs its entry
# here and its value in `measures`.
MEASURES = {"top5": "top-5 accuracy", "macro_recall": "macro recall", "macro_f1": "macro F1"}
_AVERAGED = ("precision", "recall", "f1")
MACRO = "macro average"
_BLOCKS, _IN_BLOCK = 8, 50  # of resamples
_GRID = np.linspace(0, 1, 201)  # where curves are averaged
Numbers = npt.NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
class Ranking:
    """How well the probability of one class tells its images from all others.

    Args:
        name: The class, or ``macro average``.
        false: The share of the images of other classes that are taken for it at each threshold, the
            highest first.
        recall: The share of its own images that are found there.
        found: The recalls at which the precision is known.
        precision: The share of the images taken for it that belong to it.
        areas: The area under the ROC curve, and the average precision.
    """

    name: str
    false: Numbers
    recall: Numbers
    found: Numbers
    precision: Numbers
    areas: tuple[Estimate, Estimate]


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

    Intervals are stratified-bootstrap ones; for a sample without an error that of the accuracy.
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


def rankings(p: Predictions) -> list[Ranking]:
    """Return the curves of each class against all others, and of several their macro average.

    Classes without an image, or without one of another class, have none. The intervals come from a
    bootstrap within classes. Where every image of a class comes before all others it would call
    that certain: the interval is then that of as many right answers as the smaller side has images.

    Example:
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])
        >>> p = Predictions(tuple("123"), tuple("aba"), ("a", "b"), shares, ("test",) * 3)
        >>> [ranking.areas[0].value for ranking in rankings(p)]
        [1.0, 1.0]
    """
    truth, n = p.truth_index, len(p)
    support = np.bincount(truth, minlength=len(p.classes))
    known = [k for k in range(len(p.classes)) if 0 < support[k] < n]
    if not known:
        return []
    ranked = [_ranked(p.probabilities[:, k], truth == k) for k in known]
    curves = [_curve(each, np.ones(n)) for each in ranked]
    shown = [(p.classes[k], f, r, r, q) for k, (f, r, q) in zip(known, curves, strict=True)]
    drawn = [_areas(_curve(each, counts)) for counts in _drawn(truth, support) for each in ranked]
    samples = np.concatenate(np.array(drawn).reshape(_BLOCKS, len(known), 2, -1), axis=-1)
    values = np.array([_areas(curve) for curve in curves]).reshape(len(known), 2)
    least = [int(min(support[k], n - support[k])) for k in known]
    if len(known) > 2:
        recall = np.mean([np.interp(_GRID, [0, *f], [0, *r]) for f, r, _ in curves], axis=0)
        precision = np.mean([np.interp(_GRID, r, q) for _, r, q in curves], axis=0)
        shown.append((MACRO, _GRID, recall, _GRID, precision))
        least.append(min(least))
        samples, values = (np.concatenate([x, x.mean(axis=0)[None]]) for x in (samples, values))
    low, high = np.quantile(samples, [0.025, 0.975], axis=-1)
    low = np.where(values < 1 - 1e-9, low, [[wilson(cases, cases).low] for cases in least])
    ends: Any = np.stack([values, np.minimum(low, values), np.maximum(high, values)], axis=-1)
    areas = [[Estimate(value, low, high, n) for value, low, high in each] for each in ends.tolist()]
    return [Ranking(*curve, (auc, ap)) for curve, (auc, ap) in zip(shown, areas, strict=True)]


def _ranked(scores: Any, own: Any) -> tuple[Any, Any, Any]:
    """Return the order of the scores, highest first, what is true there, and where ties end."""
    order = np.argsort(-scores, kind="stable")
    return order, own[order], np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)


def _curve(ranked: tuple[Any, Any, Any], counts: Any) -> tuple[Numbers, Numbers, Numbers]:
    """Return share of false alarms, recall and precision at each threshold, highest first.

    Args:
        ranked: What :func:`_ranked` returned.
        counts: How often each image counts, (n,), or (resamples, n).
    """
    order, own, ends = ranked
    drawn = counts[..., order]
    true, false = (np.cumsum(drawn * side, axis=-1)[..., ends] for side in (own, ~own))
    return false / false[..., -1:], true / true[..., -1:], true / np.maximum(true + false, 1)


def _areas(curve: tuple[Numbers, Numbers, Numbers]) -> tuple[Numbers, Numbers]:
    """Return the area under the ROC curve, and the average precision."""
    false, recall, precision = curve
    rise = np.diff(recall, prepend=0, axis=-1)
    under = np.diff(false, prepend=0, axis=-1) * (recall - rise / 2)
    return under.sum(axis=-1), (rise * precision).sum(axis=-1)


def _drawn(truth: Indices, support: Indices) -> Iterator[Indices]:
    """Yield how often each image is drawn, within its class, into a block of resamples."""
    n, by_class = len(truth), np.argsort(truth, kind="stable")
    sizes, first = support[truth[by_class]], (np.cumsum(support) - support)[truth[by_class]]
    generator, rows = np.random.default_rng(0), np.arange(_IN_BLOCK)[:, None]
    for _ in range(_BLOCKS):
        within = (generator.random((_IN_BLOCK, n)) * sizes).astype(np.int64)
        cells = by_class[first + within] + n * rows
        yield np.bincount(cells.ravel(), minlength=n * _IN_BLOCK).reshape(_IN_BLOCK, n)


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
