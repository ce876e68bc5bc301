"""Labels beside the points of a figure, so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regraft.report.tables import width_of

_LETTER, _LINE = 5.4, 11.0  # size of a letter at 9 points, generously: the browser has its own font
_MARK = 4.5  # half the side of a point
_DISTANCES = (7.0, 15.0, 26.0, 40.0, 58.0)
_DIRECTIONS = tuple(math.radians(angle) for angle in (0, 180, 90, 270, 45, 315, 135, 225))

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Spot:
    """A point that wants a label. All sizes are in points of 1/72 inch from the lower left.

    Args:
        across: Its place along the horizontal axis.
        up: Its place along the vertical axis.
        low: Where its interval begins on the vertical axis.
        high: Where it ends.
        texts: What to write, the best first; those after it are tried where there is no room.
    """

    across: float
    up: float
    low: float
    high: float
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """A label.

    Args:
        text: What is written.
        across: From the point to the end of the text that is nearer to it, in points.
        up: From the point to the middle of the text, in points.
        far: Whether a line must lead to the point.
        nearest: Which end that is: 0 the left one, 1 the right one, 0.5 the middle.
    """

    text: str
    across: float
    up: float
    far: bool
    nearest: float


def place(
    spots: Sequence[Spot], frame: tuple[float, float], lines: Sequence[Box] = ()
) -> list[Placed]:
    """Find a place for the label of every point; the ones with a choice of texts come first.

    Args:
        spots: The points.
        frame: Width and height of what can be written on.
        lines: Left, lower, right and upper ends of what is drawn there, too.

    Returns:
        One label per point, in their order. Where the points stand too close, a label may cover
        an interval or a line, and in the last resort another label.

    Example:
        >>> place([Spot(50, 50, 40, 60, ("1 name", "1"))], (200, 100))[0].text
        '1 name'
    """
    marks = [(s.across - _MARK, s.up - _MARK, s.across + _MARK, s.up + _MARK) for s in spots]
    intervals = [*lines, *((s.across - 1, s.low, s.across + 1, s.high) for s in spots)]
    labels: list[Box] = []
    found: dict[int, Placed] = {}
    for at in sorted(range(len(spots)), key=lambda at: -len(spots[at].texts)):
        placed, box = _first(spots[at], frame, [[*marks, *labels, *intervals], [*marks, *labels]])
        labels.append(box)
        found[at] = placed
    return [found[at] for at in range(len(spots))]


def _first(
    spot: Spot, frame: tuple[float, float], obstacles: Sequence[Sequence[Box]]
) -> tuple[Placed, Box]:
    for taken in obstacles:
        for text in spot.texts:
            for distance in _DISTANCES:
                for direction in _DIRECTIONS:
                    placed, box = _candidate(spot, text, distance, direction)
                    if _inside(box, frame) and not any(_overlap(box, other) for other in taken):
                        return placed, box
    return _candidate(spot, spot.texts[-1], _DISTANCES[0], 0.0)


def _candidate(spot: Spot, text: str, distance: float, direction: float) -> tuple[Placed, Box]:
    wide = _LETTER * width_of(text)
    across, up = distance * math.cos(direction), distance * math.sin(direction)
    nearest = 0.5 if abs(across) < 1 else float(across < 0)
    left = across - wide * nearest
    up += math.copysign(_LINE / 4, up) if abs(up) > 1 else 0.0
    box = (
        spot.across + left,
        spot.up + up - _LINE / 2,
        spot.across + left + wide,
        spot.up + up + _LINE / 2,
    )
    return Placed(text, across, up, distance > _DISTANCES[0], nearest), box


def _inside(box: Box, frame: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= frame[0] and box[3] <= frame[1]


def _overlap(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
