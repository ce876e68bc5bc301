"""Whether probabilities can be believed, and when a model had better say that it does not know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from regraft.errors import ModelError, UsageError
from regraft.results.intervals import Estimate, percent, wilson
from regraft.results.predictions import Predictions
from regraft.settings import settings_class

Numbers = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]

CHECKED_ERRORS = (0.01, 0.02, 0.05, 0.10)
CHECKED_COVERAGES = (0.90, 0.95, 0.99)
_BINS, _IN_BIN = 10, 20  # at most so many bins, at least so many images in each
_DRAWS = 1000
_SURE = 0.95  # of a promised error


# ---- what the probabilities are worth -----------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """How often images are right beside how sure the model was of them.

    Args:
        bins: Groups of images of the same size, from the least confident: the mean confidence of
            each, and the share that is right.
        confidence: The mean confidence of all images, 0 to 1.
        accuracy: The share of all images that is right.
        error: The expected calibration error: the mean distance of the two over the bins, each
            weighted by its images (Guo et al. 2017; bins of equal size as in Nixon et al. 2019).
        by_chance: What a model whose probabilities are exact stays below in 95 of 100 samples of
            this size; a smaller error is no fault that can be seen.
    """

    bins: tuple[tuple[float, Estimate], ...]
    confidence: float
    accuracy: Estimate
    error: float
    by_chance: float


def reliability(p: Predictions) -> Reliability:
    """Return how far the confidence of predictions can be believed.

    Example:
        >>> shares = np.tile([[0.9, 0.1]], (100, 1))
        >>> truth = ("a",) * 70 + ("b",) * 30
        >>> p = Predictions(tuple(map(str, range(100))), truth, ("a", "b"), shares, ("test",) * 100)
        >>> found = reliability(p)
        >>> round(found.error, 2), found.error > found.by_chance
        (0.2, True)
    """
    confidence = np.minimum(p.confidence.astype(np.float64), 1.0)
    order = np.argsort(confidence, kind="stable")
    sure, right = confidence[order], p.correct[order]
    parts = max(1, min(_BINS, len(p) // _IN_BIN))
    cuts = sure[np.arange(1, parts) * len(p) // parts]
    starts = np.unique(np.append(0, np.searchsorted(sure, cuts)))  # ties stay together
    groups = np.split(np.arange(len(p)), starts[1:])
    bins = [(float(sure[g].mean()), wilson(int(right[g].sum()), len(g))) for g in groups if len(g)]
    drawn = np.random.default_rng(0).random((_DRAWS, len(p))) < sure
    errors = _calibration_errors(sure, np.vstack([right, drawn]), starts)
    return Reliability(
        bins=tuple(bins),
        confidence=float(confidence.mean()) if len(p) else math.nan,
        accuracy=wilson(int(right.sum()), len(p)),
        error=float(errors[0]),
        by_chance=float(np.quantile(errors[1:], 0.95)),
    )


def _calibration_errors(
    sure: Numbers, right: npt.NDArray[np.bool_], starts: npt.ArrayLike
) -> Numbers:
    """Return the error of each row of ``right``, (m, n); bins begin at ``starts``."""
    if not len(sure):
        return np.full(len(right), math.nan)
    gaps = np.add.reduceat(sure - right, np.asarray(starts, dtype=np.int64), axis=1)
    return np.asarray(np.abs(gaps).sum(axis=1) / len(sure))


def risk_coverage(p: Predictions) -> tuple[Numbers, Numbers]:
    """Return the shares of images that are answered, and how many of these are wrong, (n,) both.

    The most confident images are answered first; those as confident as each other come together
    (El-Yaniv and Wiener, On the foundations of noise-free selective classification, 2010).

    Example:
        >>> shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
        >>> p = Predictions(tuple("1234"), tuple("aaab"), ("a", "b"), shares, ("test",) * 4)
        >>> [each.tolist() for each in risk_coverage(p)]
        [[0.25, 0.5, 1.0], [0.0, 0.0, 0.25]]
    """
    order = np.argsort(-p.confidence, kind="stable")
    sure, wrong = p.confidence[order], ~p.correct[order]
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True)) if len(p) else np.zeros(0, int)
    answered = last + 1
    return answered / max(1, len(p)), wrong.cumsum()[last] / answered


# ---- promises -----------------------------------------------------------------------------------


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class Calibration:
    """What a model said of images that it has not learned from: what it may promise rests on them.

    Args:
        truth: The true class of each, as its place among the classes.
        own: The probability of the true class, 0 to 1.
        confidence: The probability of the predicted class, 0 to 1.
        right: Whether the predicted class is the true one.
        chose: Whether the same images chose what was kept of the training; what rests on them is
            then a little too good to be exact.

    Example:
        >>> sure = Calibration(truth=(0,) * 99, own=(0.9,) * 99, confidence=(0.9,) * 99,
        ...                    right=(True,) * 99)
        >>> sure.sets(np.array([[0.95, 0.05], [0.5, 0.5]]), 0.95).tolist()
        [[True, False], [False, False]]
    """

    truth: tuple[int, ...]
    own: tuple[Share, ...]
    confidence: tuple[Share, ...]
    right: tuple[bool, ...]
    chose: bool = False

    def __post_init__(self) -> None:
        if len({len(self.truth), len(self.own), len(self.confidence), len(self.right)}) > 1:
            what = "the calibration of this model does not fit together"
            raise ModelError(what, code="MODEL-CORRUPT")

    @classmethod
    def of(cls, p: Predictions, *, chose: bool = False) -> Calibration:
        """Return that of predictions of the validation part."""
        own = p.probabilities[np.arange(len(p)), p.truth_index]
        return cls(
            truth=tuple(p.truth_index.tolist()),
            own=tuple(own.tolist()),
            confidence=tuple(p.confidence.tolist()),
            right=tuple(p.correct.tolist()),
            chose=chose,
        )

    def threshold(self, error: float) -> float:
        """Return the least confidence at which not more than a share of the answers is wrong.

        From the most confident image on, more are answered as long as their true error is at most
        this with a certainty of 95 %: each further step is tried only if all before it held
        (fixed-sequence testing, Angelopoulos et al., Learn then test, 2021; with the binomial
        bound of Geifman and El-Yaniv, Selective classification for deep neural networks, 2017).

        Args:
            error: The share, between 0 and 1.

        Raises:
            UsageError: There are too few images for it, or even the most confident answers are
                wrong too often (``USAGE-CALIBRATION``).
        """
        _check_share(error, "--abstain-error")
        order = np.argsort(-np.array(self.confidence), kind="stable")
        sure, wrong = np.array(self.confidence)[order], ~np.array(self.right, bool)[order]
        fewest = math.ceil(math.log(1 - _SURE) / math.log(1 - error))
        if len(sure) < fewest:
            why = f"with {fewest:,} images it could be shown, there are {len(sure):,}"
            raise _refused(f"an error of {percent(error)} cannot be promised", why)
        errors, found = wrong.cumsum(), None
        for last in range(fewest - 1, len(sure)):
            if last + 1 < len(sure) and sure[last + 1] == sure[last]:
                continue  # as confident as the next: answered together
            if _chance(int(errors[last]), last + 1, error) > 1 - _SURE:
                break
            found = float(sure[last])
        if found is None:
            why = f"{int(errors[fewest - 1])} of the {fewest:,} surest validation images went wrong"
            raise _refused(f"an error of {percent(error)} cannot be promised", why)
        return found

    def limits(self, coverage: float, classes: int, *, each: bool = False) -> Numbers:
        """Return the least probability with which a class belongs to the set of an image, (k,).

        Split conformal prediction with one minus the probability of the true class as score
        (Vovk et al. 2005; Sadinle et al., Least ambiguous set-valued classifiers, 2019).

        Args:
            coverage: How often the set shall hold the true class, between 0 and 1.
            classes: How many classes the model knows.
            each: Whether this shall hold for the images of every class, and not only of all.

        Raises:
            UsageError: There are too few images for it (``USAGE-CALIBRATION``).
        """
        _check_share(coverage, "--coverage")
        own, truth = np.array(self.own, dtype=np.float64), np.array(self.truth, dtype=np.int64)
        groups = [own[truth == k] for k in range(classes)] if each else [own] * classes
        fewest = min(map(len, groups))
        needed = math.ceil(round(coverage / (1 - coverage), 9))
        if fewest < needed:
            of = "of the rarest class" if each else "in all"
            why = f"it takes {needed:,} validation images {of}, there are {fewest:,}"
            raise _refused(f"a coverage of {percent(coverage)} cannot be promised", why)
        return np.array([_conformal_quantile(group, coverage) for group in groups])

    def sets(
        self, probabilities: npt.ArrayLike, coverage: float, *, each: bool = False
    ) -> npt.NDArray[np.bool_]:
        """Return which classes belong to the set of each image, (n, k); see :meth:`limits`.

        A set may be empty: then the image is like none of the classes.
        """
        rows = np.asarray(probabilities, dtype=np.float32)
        limits = self.limits(coverage, rows.shape[1], each=each).astype(np.float32)
        return np.asarray(rows >= limits)


def _conformal_quantile(own: Numbers, coverage: float) -> float:
    """Return the probability that enough of the images have for their true class."""
    above = math.ceil(round((len(own) + 1) * coverage, 9))
    return float(np.sort(own)[::-1][above - 1])


def _chance(most: int, n: int, share: float) -> float:
    """Return how likely ``most`` or fewer of n are wrong where a share of all is, 0 to 1."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + k * math.log(share) + (n - k) * math.log1p(-share)
        for k in range(most + 1)
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))


def _check_share(share: float, option: str) -> None:
    if not 0 < share < 1:
        raise UsageError(f"{option} is a share between 0 and 1", why=f"found {share}")


def _refused(what: str, why: str) -> UsageError:
    hint = "ask for less, or fit with more validation images"
    return UsageError(what, why=why, hint=hint, code="USAGE-CALIBRATION")


# ---- how promises turned out --------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What a promise brought on other images.

    Args:
        wanted: What was promised: an error or a coverage, 0 to 1.
        refused: Why it could not be promised; else empty.
        answered: The share of the images that are answered; of sets the mean number of classes.
        found: The share of the answers that is wrong; of sets how many hold the true class.
    """

    wanted: float
    refused: str = ""
    answered: Estimate | float | None = None
    found: Estimate | None = None


def kept_errors(calibration: Calibration, p: Predictions) -> list[Kept]:
    """Return what promised errors bring on other images, such as the test part."""
    rows = []
    for error in CHECKED_ERRORS:
        try:
            answered = p.confidence >= np.float32(calibration.threshold(error))
        except UsageError as refusal:
            rows.append(Kept(error, refused=refusal.why))
            continue
        count = int(answered.sum())
        wrong = wilson(int((answered & ~p.correct).sum()), count) if count else None
        rows.append(Kept(error, answered=wilson(count, len(p)), found=wrong))
    return rows


def kept_coverages(calibration: Calibration, p: Predictions, *, each: bool) -> list[Kept]:
    """Return what promised coverages bring on other images, such as the test part."""
    rows = []
    for coverage in CHECKED_COVERAGES:
        try:
            sets = calibration.sets(p.probabilities, coverage, each=each)
        except UsageError as refusal:
            rows.append(Kept(coverage, refused=refusal.why))
            continue
        held = int(sets[np.arange(len(p)), p.truth_index].sum())
        size = float(sets.sum(axis=1).mean())
        rows.append(Kept(coverage, answered=size, found=wilson(held, len(p))))
    return rows
