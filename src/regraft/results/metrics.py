"""What the predictions are worth: pure functions from predictions to numbers with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from regraft.results.statistics import Estimate, Indices, bootstrap_all, f1_estimate, wilson

if TYPE_CHECKING:
    from regraft.results.predictions import Predictions

_SCORES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class.

    Args:
        name: The class.
        precision: Share of the pictures named so that are so; unknown where none was named so.
        recall: Share of its pictures that were named so; unknown where it has no picture.
        f1: Harmonic mean of the two; unknown where it has no picture.
        support: The number of its pictures.
    """

    name: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


@dataclass(frozen=True)
class Averages:
    """Scores averaged over the classes that have pictures.

    Args:
        precision: A class that was never named counts as 0 here.
        recall: See :class:`ClassScores`.
        f1: See :class:`ClassScores`.
        support: The number of pictures.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


@dataclass(frozen=True)
class Confused:
    """A pair of classes that was mixed up.

    Args:
        true: The class of the pictures.
        predicted: What they were named.
        count: How many pictures.
        share: Their share among the pictures of the true class.
    """

    true: str
    predicted: str
    count: int
    share: Estimate


def accuracy(p: Predictions) -> Estimate:
    """Return the share of pictures named correctly, with its Wilson interval.

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> accuracy(p).value
        0.5
    """
    return wilson(int(p.correct.sum()), len(p))


def top_k_accuracy(p: Predictions, k: int = 5) -> Estimate:
    """Return the share of pictures whose true class is among the ``k`` most probable ones.

    Of classes with the same probability the earlier column comes first, as in
    :attr:`Predictions.predicted`.
    """
    rows = np.arange(len(p))
    own = p.probabilities[rows, p.truth_index][:, None]
    earlier = np.arange(len(p.classes)) < p.truth_index[:, None]
    before = (p.probabilities > own) | ((p.probabilities == own) & earlier)
    return wilson(int((before.sum(axis=1) < k).sum()), len(p))


def confusion(p: Predictions) -> npt.NDArray[np.int64]:
    """Return how often each class (row) was named as each class (column), shape (k, k).

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> confusion(p).tolist()
        [[1, 0], [1, 0]]
    """
    k = len(p.classes)
    counts = np.bincount(p.truth_index * k + p.predicted_index, minlength=k * k)
    return np.asarray(counts.reshape(k, k), dtype=np.int64)


def per_class(p: Predictions) -> list[ClassScores]:
    """Return the scores of every class in the order of ``p.classes``.

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> [(scores.name, scores.recall.value) for scores in per_class(p)]
        [('a', 1.0), ('b', 0.0)]
    """
    hits, support, named = _tally(p.truth_index, p.predicted_index, len(p.classes))
    return [
        ClassScores(
            name,
            precision=wilson(int(hits[i]), int(named[i])),
            recall=wilson(int(hits[i]), int(support[i])),
            f1=_f1(int(hits[i]), int(support[i]), int(named[i])),
            support=int(support[i]),
        )
        for i, name in enumerate(p.classes)
    ]


def averages(p: Predictions, *, seed: int = 0) -> dict[str, Averages]:
    """Return the averages ``macro`` (classes count the same) and ``weighted`` (pictures do).

    Intervals are stratified-bootstrap ones. In simulations with 10 to 170 pictures per class those
    of macro recall and macro F1 held the true value in 92 to 98 % of samples, in 95 % on average.
    For a sample without an error the interval is that of the accuracy.
    """
    k = len(p.classes)

    def both(truth: Indices, predicted: Indices) -> npt.NDArray[np.float64]:
        return _averaged(*_tally(truth, predicted, k))

    if len(p) == 0 or p.correct.all():
        estimates = [accuracy(p)] * (2 * len(_SCORES))
    else:
        estimates = bootstrap_all(both, p.truth_index, p.predicted_index, seed=seed)
    macro, weighted = estimates[: len(_SCORES)], estimates[len(_SCORES) :]
    return {
        "macro": Averages(macro[0], macro[1], macro[2], len(p)),
        "weighted": Averages(weighted[0], weighted[1], weighted[2], len(p)),
    }


def most_confused(p: Predictions, limit: int | None = 10) -> list[Confused]:
    """Return the pairs of classes that were mixed up, most pictures first.

    Args:
        p: The predictions.
        limit: At most so many pairs; ``None`` for all.

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> [(pair.true, pair.predicted, pair.count) for pair in most_confused(p)]
        [('b', 'a', 1)]
    """
    k = len(p.classes)
    wrong = ~p.correct
    # Counted pair by pair: with thousands of classes the whole matrix would not fit into memory.
    cells, counts = np.unique(
        p.truth_index[wrong] * k + p.predicted_index[wrong], return_counts=True
    )
    support = np.bincount(p.truth_index, minlength=k)
    pairs = [
        Confused(p.classes[i], p.classes[j], count, wilson(count, int(support[i])))
        for (i, j), count in zip(
            (divmod(cell, k) for cell in cells.tolist()), counts.tolist(), strict=True
        )
    ]
    # Equal counts: the larger share first, then the order of the classes.
    pairs.sort(key=lambda pair: (-pair.count, -pair.share.value))
    return pairs[:limit]


def majority_baseline(p: Predictions) -> Estimate:
    """Return the accuracy of always answering with the most frequent true class.

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> majority_baseline(p).value
        0.5
    """
    return wilson(max(Counter(p.truth).values(), default=0), len(p))


def summary(p: Predictions) -> dict[str, Any]:
    """Return ``{"accuracy", "n", "interval"}`` for JSON; null where there is no picture.

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> summary(p)["n"]
        2
    """
    share = accuracy(p)
    if not share.known:
        return {"accuracy": None, "n": 0, "interval": None}
    return {"accuracy": share.value, "n": share.n, "interval": share.interval}


def without(p: Predictions, paths: Collection[str]) -> dict[str, Any]:
    """Return :func:`summary` of all but some pictures, the macro recall and how many are left out.

    Where the classes are mixed otherwise in what is left, its accuracy cannot be compared with that
    of all pictures; the macro recall can, for there the classes count the same.

    Args:
        p: The predictions.
        paths: What is left out, for example test pictures that have a copy in train.

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> kept = without(p, {"2"})
        >>> kept["accuracy"], kept["left_out"]
        (1.0, 1)
    """
    out = set(paths)
    kept = p.take([place for place, path in enumerate(p.paths) if path not in out])
    macro = averages(kept)["macro"]
    more = {"macro_recall": macro.recall.to_json(), "left_out": len(p) - len(kept)}
    return summary(kept) | more


def details(p: Predictions) -> dict[str, Any]:
    """Return :func:`summary` and errors, top 5, macro averages and the majority baseline.

    Example:
        >>> from regraft.results.predictions import Predictions
        >>> shares = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> p = Predictions(("1", "2"), ("a", "b"), ("a", "b"), shares, ("test", "test"))
        >>> details(p)["errors"]
        1
    """
    macro = averages(p)["macro"]
    more = {
        "errors": int((~p.correct).sum()),
        "majority_baseline": majority_baseline(p).to_json(),
        "macro_precision": macro.precision.to_json(),
        "macro_recall": macro.recall.to_json(),
        "macro_f1": macro.f1.to_json(),
    }
    if len(p.classes) > 5:
        more["top5"] = top_k_accuracy(p, 5).to_json()
    return summary(p) | more


def classification_report(p: Predictions, *, digits: int = 2) -> str:
    """Return the scores of every class as text, laid out as by scikit-learn.

    A dash stands where there is no sample to speak from; scikit-learn writes 0 there. The averages
    run over the classes that have pictures.

    Args:
        p: The predictions.
        digits: Digits after the point.
    """
    heads = ("precision", "recall", "f1-score", "support")
    width = max(*(len(name) for name in (*p.classes, "weighted avg")), digits)
    lines = [" " * width + " " + "".join(f" {head:>9}" for head in heads), ""]
    lines += [_line(scores.name, scores, width, digits) for scores in per_class(p)]
    right = accuracy(p)
    lines += ["", f"{'accuracy':>{width}} {'':>10}{'':>10} {_cell(right, digits)} {len(p):>9}"]
    lines += [_line(f"{name} avg", mean, width, digits) for name, mean in averages(p).items()]
    if any("  -" in line for line in lines):
        lines += ["", "- no samples"]
    return "\n".join(lines) + "\n"


def _line(name: str, scores: ClassScores | Averages, width: int, digits: int) -> str:
    cells = (_cell(share, digits) for share in (scores.precision, scores.recall, scores.f1))
    return f"{name:>{width}} " + "".join(f" {cell}" for cell in cells) + f" {scores.support:>9}"


def _cell(share: Estimate, digits: int) -> str:
    return f"{share.value:>9.{digits}f}" if share.known else f"{'-':>9}"


def _f1(hits: int, support: int, named: int) -> Estimate:
    if support == 0:
        return Estimate.unknown()
    return f1_estimate(hits, missed=support - hits, false=named - hits)


def _tally(truth: Indices, predicted: Indices, k: int) -> tuple[Indices, Indices, Indices]:
    """Return per class how many were named rightly, how many there are and how many were named."""
    hits = np.bincount(truth[truth == predicted], minlength=k)
    return hits, np.bincount(truth, minlength=k), np.bincount(predicted, minlength=k)


def _averaged(hits: Indices, support: Indices, named: Indices) -> npt.NDArray[np.float64]:
    """Return macro precision, recall and F1, then the weighted ones, shape (6,)."""
    scores = np.stack(
        [
            hits / np.maximum(named, 1),
            hits / np.maximum(support, 1),
            2 * hits / np.maximum(support + named, 1),
        ]
    )
    macro = scores @ (support > 0) / max(1, int((support > 0).sum()))
    weighted = scores @ support / max(1, int(support.sum()))
    return np.concatenate([macro, weighted])
