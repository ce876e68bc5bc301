"""Maps of the data: each image is a mark on a plane, images with like features close together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

from regraft.results.inspection import Inspection
from regraft.results.intervals import percent
from regraft.results.predictions import Predictions

_SIDE, _EDGE = 400, 12  # of a map and its margin, in units of the drawing
_COLOURS = 8  # of the style sheet: .k0 to .k7
# Shapes tell classes apart where colours cannot be seen.
_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.5-3.5h7v7h-7z",
    "M0-4.8 4.6 3.4h-9.2z",
    "M0-5 5 0 0 5-5 0z",
    "M0 4.8 4.6-3.4h-9.2z",
    "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "M-4.2-2.1-2.1-4.2 0-2.1 2.1-4.2 4.2-2.1 2.1 0 4.2 2.1 2.1 4.2 0 2.1-2.1 4.2-4.2 2.1-2.1 0z",
    "M0-5.4 1.6-1.8 5.4-1.5 2.5 1.1 3.4 4.9 0 2.8-3.4 4.9-2.5 1.1-5.4-1.5-1.6-1.8z",
)
_RING = "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z"
MOST_MARKS = _COLOURS * len(_SHAPES)


@dataclass(frozen=True)
class Point:
    """What is said of an image when its mark is pointed at.

    Args:
        path: Where it lies in the data set.
        said: Its class, and the predicted one where it is wrong.
        pair: True and predicted class, as places, of a wrong image.
    """

    path: str
    said: str
    pair: tuple[int, int] | None


@dataclass(frozen=True)
class DataMap:
    """The maps of a run's images.

    Args:
        drawings: The name and the ``<svg>`` element of each.
        legend: The name of each class and the ``<svg>`` element of its mark.
        points: The images, in the order of the marks.
    """

    drawings: tuple[tuple[str, str], ...]
    legend: tuple[tuple[str, str], ...]
    points: tuple[Point, ...]


def data_map(p: Predictions, inspection: Inspection | None) -> DataMap | None:
    """Return the maps that a run has kept; None where it has none."""
    if inspection is None or not inspection.projections:
        return None
    place_of = {path: place for place, path in enumerate(p.paths)}
    chosen = p.take([place_of[path] for path in inspection.points])
    points = []
    for i, path in enumerate(chosen.paths):
        sure = percent(float(chosen.confidence[i]), digits=0)
        if chosen.correct[i]:
            points.append(Point(path, f"{chosen.truth[i]} ({sure})", None))
        else:
            pair = int(chosen.truth_index[i]), int(chosen.predicted_index[i])
            said = f"{chosen.truth[i]}, predicted as {chosen.predicted[i]} ({sure})"
            points.append(Point(path, said, pair))
    classes = chosen.truth_index.tolist()
    wrong = (~chosen.correct).tolist()
    return DataMap(
        tuple(
            (name, _draw(places, classes, wrong, name))
            for name, places in inspection.projections.items()
        ),
        tuple((name, _legend(k)) for k, name in enumerate(p.classes[:MOST_MARKS])),
        tuple(points),
    )


def shapes() -> str:
    """Return the shapes of all marks, to stand once on a page."""
    paths = [f'<path id="mark-{k}" d="{shape}"/>' for k, shape in enumerate(_SHAPES)]
    ring = f'<path id="mark-ring" d="{_RING}"/>'
    return f'<svg class="defs" aria-hidden="true"><defs>{"".join(paths)}{ring}</defs></svg>'


def _draw(
    places: Sequence[tuple[float, float]], classes: Sequence[int], wrong: Sequence[bool], name: str
) -> str:
    """Return a map; the wrong images are drawn last, each with a ring."""
    inner = _SIDE - 2 * _EDGE
    marks, rings = [], []
    for number in sorted(range(len(places)), key=lambda i: wrong[i]):
        x, y = (round(_EDGE + inner * at, 1) for at in (places[number][0], 1 - places[number][1]))
        marks.append(_mark(classes[number], f'x="{x}" y="{y}" data-i="{number}"'))
        if wrong[number]:
            rings.append(f'<use href="#mark-ring" x="{x}" y="{y}"/>')
    told = f"{escape(name)} of {len(places)} images, {sum(wrong)} of them wrong and ringed"
    return (
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="{told}">'
        f'{"".join(marks)}<g class="rings">{"".join(rings)}</g></svg>'
    )


def _legend(k: int) -> str:
    return f'<svg viewBox="-7 -7 14 14" aria-hidden="true">{_mark(k, "")}</svg>'


def _mark(k: int, more: str) -> str:
    """Return the mark of a class; eight shapes in eight colours, then they come again."""
    shape = (k + k // _COLOURS) % len(_SHAPES)
    return f'<use href="#mark-{shape}" class="k{k % _COLOURS}" {more}/>'
