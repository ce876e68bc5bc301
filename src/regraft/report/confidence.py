"""The section of a run's page on how far its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import figures
from regraft.report.tables import Cell, Table
from regraft.results import calibration
from regraft.results.calibration import Calibration, Reliability
from regraft.results.intervals import percent, points
from regraft.results.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEWEST = 20  # images that say something


@dataclass(frozen=True)
class Confidence:
    """What the section shows.

    Args:
        found: What the probabilities are worth, in sentences.
        drawing: Reliability and risk against coverage, an ``<svg>`` element, or "".
        errors: What promised errors bring on these images; None where none can be promised.
        coverages: What promised coverages bring; None where none can be promised.
        refused: Promises that cannot be made, each with the reason.
    """

    found: tuple[str, ...]
    drawing: str
    errors: Table | None = None
    coverages: Table | None = None
    refused: tuple[str, ...] = ()


def confidence(
    p: Predictions, held: Calibration | None, *, temperature: float = 1.0, drawn: bool = True
) -> Confidence | None:
    """Return how far the probabilities of predictions can be believed; None for a few images.

    Args:
        p: The predictions that the page shows, such as those of the test part.
        held: What promises rest on; None where there is no validation part, or p is that part.
        temperature: What the scores were divided by.
        drawn: Whether there is a drawing.
    """
    if len(p) < _FEWEST:
        return None
    found = calibration.reliability(p)
    sentences = [*_sentences(found), _basis(held, temperature)]
    drawing = _draw(found, *calibration.risk_coverage(p)) if drawn else ""
    if held is None:
        return Confidence(tuple(sentences), drawing)
    errors: list[tuple[Cell, ...]] = []
    coverages: list[tuple[Cell, ...]] = []
    refused = []
    for one in calibration.kept_errors(held, p):
        promise = percent(one.wanted, digits=0)
        if one.refused:
            refused.append(f"{promise} wrong: {one.refused}")
        else:
            errors.append((promise, one.answered, one.found))
    for each, whose in ((False, "all images"), (True, "each class")):
        for one in calibration.kept_coverages(held, p, each=each):
            promise = f"{percent(one.wanted, digits=0)} of {whose}"
            if one.refused:
                refused.append(f"{promise}: {one.refused}")
            else:
                coverages.append((promise, one.found, f"{one.answered:.2f}"))
    wrong = Table(("at most wrong", "answered", "wrong of these"), tuple(errors))
    sets = Table(("promised", "true class in the set", "classes in a set"), tuple(coverages))
    return Confidence(
        tuple(sentences),
        drawing,
        errors=wrong if errors else None,
        coverages=sets if coverages else None,
        refused=tuple(refused),
    )


def _sentences(found: Reliability) -> list[str]:
    gap = found.confidence - found.accuracy.value
    low, high = (found.confidence - end for end in reversed(found.accuracy.interval))
    sure = percent(found.confidence)
    told = f"The model is {sure} sure on average, and right for {percent(found.accuracy)}: "
    if low <= 0 <= high:
        told += f"a difference of {points(gap, interval=(low, high))}, which may be chance."
    else:
        told += f"{'over' if gap > 0 else 'under'}confident by {points(abs(gap))}."
    error = f"The expected calibration error is {percent(found.error)}; "
    if found.error <= found.by_chance:
        error += f"a perfect model shows up to {percent(found.by_chance)} on so few images."
    else:
        error += f"a perfect model would stay below {percent(found.by_chance)} on these images."
    return [told, error]


def _basis(held: Calibration | None, temperature: float) -> str:
    if held is None:
        return "Nothing was calibrated: there are no validation images apart from these."
    told = (
        f"Scores were divided by a temperature of {temperature:.2f}, fitted on the "
        f"{len(held.truth):,} validation images; this changes no predicted class."
    )
    if held.chose:
        told += (
            " The same images chose the epoch that was kept, so what is promised below is a little "
            "too good to be exact."
        )
    return told


def _draw(
    found: Reliability, answered: Sequence[float] | np.ndarray, wrong: Sequence[float] | np.ndarray
) -> str:
    sure = [confidence for confidence, _ in found.bins]
    right = [share.value for _, share in found.bins]
    below = [share.value - share.low for _, share in found.bins]
    above = [share.high - share.value for _, share in found.bins]

    def draw(left: Axes, other: Axes) -> None:
        left.plot([0, 1], [0, 1], color=figures.MUTED, lw=1, linestyle=(0, (3, 3)))
        style: Any = {"fmt": "o", "color": figures.ACCENT, "ms": 4, "lw": 1.3}
        left.errorbar(sure, right, yerr=[below, above], **style)
        left.set(title="reliability", xlabel="confidence", ylabel="right")
        left.set(xlim=(0, 1.01), ylim=(0, 1.02))
        other.step(answered, wrong, where="post", color=figures.ACCENT, lw=1.6)
        other.set(title="risk and coverage", xlabel="answered, the surest first", ylabel="wrong")
        other.set(xlim=(0, 1.01), ylim=(0, max(0.05, 1.1 * float(np.max(wrong)))))
        for axes in (left, other):
            axes.grid(visible=True)
            figures.percent_axis(axes.xaxis)
            figures.percent_axis(axes.yaxis)

    spoken = [f"{percent(c)} sure, right {percent(share)}" for c, share in found.bins]
    alt = f"How often the model is right beside how sure it is. {'; '.join(spoken)}."
    return figures.element(draw, (9.6, 3.4), alt=alt, key="sure", panels=2)
