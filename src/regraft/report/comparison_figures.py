"""What a comparison shows at a glance: accuracies with intervals, curves over sizes, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report.figures import ACCENT, INK, MUTED, WARM, element, percent_axis, shortened
from regraft.report.placing import Placed, Spot, place
from regraft.results.comparison import Row
from regraft.results.intervals import Estimate, percent
from regraft.results.learning_curve import LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE, _HIGH = 9.2, 5.4  # inches
_LETTERS = 46  # of a name beside the bars
_MOST_CURVES = 8
_COLOURS = (ACCENT, WARM, INK, MUTED)
_LINES = ("-", (0, (4, 2)))
_COARSE = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0, 360000.0)
_UNITS = (0.001, 0.01, 0.1, 1, 60, 3600, 86400)
_FINE = tuple(sorted({round(unit * n, 3) for unit in _UNITS for n in (1, 2, 3, 5, 10, 20, 30)}))


def bars(rows: Sequence[Row]) -> str:
    """Draw the accuracies of each way: the test part with its interval, the other parts beside it.

    Args:
        rows: From top to bottom, numbered from 1; at least one.

    Returns:
        An ``<svg>`` element to stand in a page.
    """
    measured = [(at, row) for at, row in enumerate(rows) if row.test or row.validation]

    def draw(axes: Axes) -> None:
        for at, row in measured:
            if row.test is not None:
                share = row.test.estimate
                axes.plot([share.low, share.high], [at, at], color=ACCENT, linewidth=7, alpha=0.35)
        _marks(axes, measured)
        names = [f"{shortened(row.description, _LETTERS)}  {at + 1}" for at, row in enumerate(rows)]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(right=1.004)
        percent_axis(axes.xaxis)
        axes.grid(visible=True, axis="x")
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.legend(
            frameon=False, fontsize=9, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0)
        )

    spoken = "; ".join(
        f"{row.description}: {percent(row.test.estimate)}" for row in rows if row.test is not None
    )
    size = (_WIDE, 0.9 + 0.32 * len(rows))
    return element(draw, size, alt=f"Test accuracy. {spoken}", key="bars")


def _marks(axes: Axes, measured: Sequence[tuple[int, Row]]) -> None:
    """Draw one series of marks per part, so that the legend has an entry for each that is there."""
    parts: list[tuple[str, dict[str, Any], list[tuple[float, int]]]] = [
        (
            "test, 95 % interval",
            {"marker": "o", "color": ACCENT, "markersize": 7},
            [(row.test.estimate.value, at) for at, row in measured if row.test],
        ),
        (
            "validation",
            {"marker": "o", "color": MUTED, "markersize": 7, "fillstyle": "none"},
            [(row.validation.estimate.value, at) for at, row in measured if row.validation],
        ),
        (
            "train",
            {"marker": "|", "color": MUTED, "markersize": 9, "markeredgewidth": 1.6},
            [(row.train.estimate.value, at) for at, row in measured if row.train],
        ),
        (
            "published test",
            {"marker": "x", "color": WARM, "markersize": 7, "markeredgewidth": 1.8},
            [
                (float(row.published["test"]), at)
                for at, row in measured
                if row.published.get("test") is not None
            ],
        ),
    ]
    for name, style, places in parts:
        if places:
            values, rows = zip(*places, strict=True)
            axes.plot(values, rows, linestyle="none", label=name, **style)


def size_curves(curves: Sequence[LearningCurve]) -> str:
    """Draw accuracy against pictures per class, with the power law where one could be fitted.

    Args:
        curves: At least one; of many those that end highest are drawn.

    Returns:
        An ``<svg>`` element to stand in a page.
    """
    shown = sorted(curves, key=lambda curve: -curve.points[-1][1].value)[:_MOST_CURVES]
    sizes = sorted({size for curve in shown for size, _ in curve.points})

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        for at, curve in enumerate(shown):
            _curve(axes, curve, _COLOURS[at % len(_COLOURS)], _LINES[at // len(_COLOURS)])
        axes.minorticks_off()
        axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        percent_axis(axes.yaxis)
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.004))
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.set_xlabel("training pictures per class")
        axes.set_ylabel("test accuracy")
        axes.legend(
            frameon=False, fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(-0.01, 1.0)
        )

    spoken = "; ".join(f"{curve.name}: {curve.note}" for curve in shown)
    height = 4.2 + 0.22 * ((len(shown) + 1) // 2)
    alt = f"Test accuracy against training pictures per class. {spoken}"
    return element(draw, (_WIDE, height), alt=alt, key="sizes")


def _curve(axes: Axes, curve: LearningCurve, colour: str, line: Any) -> None:
    sizes = [size for size, _ in curve.points]
    shares = [share for _, share in curve.points]
    for size, share in curve.points:
        axes.plot([size] * 2, [share.low, share.high], color=colour, linewidth=1.4, alpha=0.5)
    values = [share.value for share in shares]
    style: dict[str, Any] = {"marker": "o", "markersize": 6, "color": colour}
    name = shortened(curve.name, _LETTERS)
    if curve.fit is None:
        axes.plot(sizes, values, linewidth=1, linestyle=(0, (1, 2)), label=name, **style)
        return
    along = np.geomspace(sizes[0], sizes[-1], 60)
    axes.fill_between(along, *curve.fit.band(along), color=colour, alpha=0.12, linewidth=0)
    axes.plot(along, curve.fit.accuracy(along), color=colour, linewidth=1.6, linestyle=line)
    axes.plot(sizes, values, linestyle="none", label=name, **style)


@dataclass(frozen=True)
class _Point:
    number: int
    name: str
    seconds: float
    share: Estimate


def cost(rows: Sequence[Row]) -> str:
    """Draw test accuracy against the time of one run, and the front of what is worth its time.

    On the front stands every way that no other beats in less time. Its ways have their names where
    there is room, all others the number of their row.

    Args:
        rows: In the order of the table; those without a test part are left out.

    Returns:
        An ``<svg>`` element to stand in a page.
    """
    points = [
        _Point(number, row.description, max(row.seconds, 1e-3), row.test.estimate)
        for number, row in enumerate(rows, 1)
        if row.test is not None
    ]
    front = [points[at] for at in pareto_front([(p.seconds, p.share.value) for p in points])]
    times = [point.seconds for point in points]
    left, right = min(times) / 1.5, max(times) * 1.5
    low, high = _limits([point.share for point in points])

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        reached = [*(point.share.value for point in front), front[-1].share.value]
        dashed: dict[str, Any] = {"color": WARM, "linewidth": 1.2, "linestyle": (0, (3, 3))}
        axes.step([*(point.seconds for point in front), right], reached, where="post", **dashed)
        for point in points:
            colour, ends = ACCENT if point in front else MUTED, point.share.interval
            axes.plot([point.seconds] * 2, ends, color=colour, linewidth=1.4, alpha=0.5)
            axes.plot([point.seconds], [point.share.value], "o", color=colour, markersize=6)
        _name_points(axes, points, front)
        _time_axis(axes, left, right)
        percent_axis(axes.yaxis)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.set_xlabel("time of one run")
        axes.set_title("test accuracy", fontsize=10, loc="left", color=MUTED)

    spoken = "; ".join(point.name for point in front)
    alt = f"Test accuracy against time. No other way is as good in less time than: {spoken}."
    return element(draw, (_WIDE, _HIGH), alt=alt, key="cost")


def _name_points(axes: Axes, points: Sequence[_Point], front: Sequence[_Point]) -> None:
    frame = _WIDE * 72 - 60.0, _HIGH * 72 - 62.0  # without the words on the axes
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()

    def up(share: float) -> float:
        return (share - low) / (high - low) * frame[1]

    def across(seconds: float) -> float:
        return float(np.log(seconds / left) / np.log(right / left)) * frame[0]

    spots = [
        Spot(
            across(p.seconds),
            up(p.share.value),
            up(p.share.low),
            up(p.share.high),
            (f"{p.number} {shortened(p.name, 34)}", str(p.number))
            if p in front
            else (str(p.number),),
        )
        for p in points
    ]
    ends = [*(across(point.seconds) for point in front[1:]), frame[0]]
    steps = [
        (across(point.seconds), up(point.share.value) - 1, end, up(point.share.value) + 1)
        for point, end in zip(front, ends, strict=True)
    ]
    for point, placed in zip(points, place(spots, frame, steps), strict=True):
        axes.annotate(
            placed.text,
            (point.seconds, point.share.value),
            xytext=(placed.across, placed.up),
            textcoords="offset points",
            fontsize=9,
            ha={0.0: "left", 1.0: "right"}.get(placed.nearest, "center"),
            va="center",
            arrowprops=_leader(placed) if placed.far else None,
        )


def _leader(placed: Placed) -> dict[str, Any]:
    """Return how to draw the line from a label to its point: from where the two are nearest."""
    return {
        "arrowstyle": "-",
        "color": MUTED,
        "linewidth": 0.6,
        "shrinkB": 3,
        "relpos": (placed.nearest, 0.5),
    }


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other beats: none is both as cheap and better, or as good and cheaper.

    Args:
        points: Cost and value of each.

    Returns:
        Their places, cheapest first.

    Example:
        >>> pareto_front([(1.0, 0.8), (9.0, 0.9), (5.0, 0.7)])
        [0, 1]
    """
    front: list[int] = []
    for at in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if not front or points[at][1] > points[front[-1]][1]:
            front.append(at)
    return front


def _limits(shares: Sequence[Estimate]) -> tuple[float, float]:
    low, high = min(share.low for share in shares), max(share.high for share in shares)
    room = max(0.02, 0.06 * (high - low))
    return max(0.0, low - room), min(1.0, high + room) + 0.004


def _time_axis(axes: Axes, left: float, right: float) -> None:
    coarse = [tick for tick in _COARSE if left <= tick <= right]
    ticks = coarse if len(coarse) > 2 else [tick for tick in _FINE if left <= tick <= right]
    axes.minorticks_off()
    axes.set_xticks(ticks, [_spoken(tick) for tick in ticks])


def _spoken(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
