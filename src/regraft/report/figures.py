"""Figures as SVG text that takes its colours and its font from the page it stands on.

No figure is registered anywhere (no pyplot), and the same data give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from regraft.errors import printable
from regraft.results.comparison import Row
from regraft.results.intervals import percent
from regraft.results.learning_curve import LearningCurve
from regraft.results.metrics import MACRO, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins for the page's colours: matplotlib draws in them, and the page's own take their place.
INK, MUTED, RULE, ACCENT, WARM = "#010101", "#020202", "#030303", "#040404", "#050505"
_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted, #666)",
    RULE: "var(--rule, #ddd)",
    ACCENT: "var(--accent, #1f6f8b)",
    WARM: "var(--warm, #b4532a)",
}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "regraft",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "grid.linewidth": 0.8,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    **dict.fromkeys(("text.color", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), RULE),
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "xtick.labelcolor"), MUTED),
    **dict.fromkeys(("xtick.color", "ytick.color"), MUTED),
}
_DASHED = (0, (3, 3))
_HEAT = (31, 111, 139)
_MOST_LABELS = 150
_FEW_EPOCHS = 20  # up to so many each has a dot of its own
_WIDE = 9.2  # inches
_LETTERS = 46  # of a name beside the bars
_MOST_CURVES = 8
_UNITS = (0.001, 0.01, 0.1, 1, 60, 3600, 86400)
_TIMES = sorted({round(unit * n, 3) for unit in _UNITS for n in (1, 2, 3, 5, 10, 20, 30)})
_MOST_TICKS = 7
_SIDES = ((1, 0), (-1, 0), (0, 1.2), (0, -1.2), (1, 1), (-1, 1), (1, -1), (-1, -1))
_LARGEST = 900  # square points of the circle of the largest network


def heat_map(counts: npt.NDArray[np.int64], classes: Sequence[str], *, alt: str) -> str:
    """Draw a confusion matrix, true classes down and predicted ones across, as shares of each row.

    Args:
        counts: Shape (k, k), true by predicted.
        classes: The names of the rows and columns.
        alt: The alternative text.

    Returns:
        An ``<svg>`` element to stand in a page, as all functions here that draw.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _HEAT
    # The square root lets a single error be seen beside a full diagonal.
    pixels[..., 3] = np.round(255 * np.sqrt(shares)).astype(np.uint8)
    side = float(np.clip(len(classes) * 0.105, 4.5, 11.0))

    def draw(axes: Axes) -> None:
        axes.imshow(pixels, interpolation="none", aspect="equal")
        names = [_short(name, 24) for name in classes if len(classes) <= _MOST_LABELS]
        size = float(np.clip(side * 50 / max(len(classes), 1), 3.0, 9.0))
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.tick_params(axis="x", labelcolor=INK)
        axes.set(xlabel="predicted", ylabel="true")
        axes.spines[:].set_visible(True)

    return element(draw, (side + 1.6, side + 1.4), alt=alt, key="heat")


def curves(
    history: Sequence[Mapping[str, float]],
    *,
    alt: str,
    borders: Sequence[float] = (),
    rings: Sequence[int] = (),
) -> str:
    """Draw what was recorded in each epoch: accuracies in one panel, losses in the other.

    Args:
        history: One mapping per epoch; keys with ``accuracy`` or ``loss`` in them are drawn.
        alt: The alternative text.
        borders: Where dashed lines stand, between one phase of a training and the next.
        rings: The epochs, counted from 1, at which validation curves have a ring.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = list(range(1, len(history) + 1))
    line = ".-" if len(epochs) <= _FEW_EPOCHS else "-"

    def panel(axes: Axes, word: str) -> None:
        names = [name for name in history[0] if word in name]
        for name, colour in zip(names, (ACCENT, WARM, MUTED, INK), strict=False):
            values = [float(epoch.get(name, np.nan)) for epoch in history]
            label = name.replace("val_", "validation ").replace("train_", "training ")
            axes.plot(epochs, values, line, color=colour, lw=1.8, label=label.replace("_", " "))
            if name.startswith("val") and rings:
                marked = [values[epoch - 1] for epoch in rings]
                axes.plot(rings, marked, "o", color=colour, fillstyle="none", markersize=9)
        for border in borders:
            axes.axvline(border, color=MUTED, lw=1, linestyle=_DASHED)
        axes.set(xlim=(0.5, len(epochs) + 0.5), xlabel="epoch", title=word)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, axis="y")
        if word == "accuracy":
            percent_axis(axes.yaxis)
        if names:
            axes.legend()

    def draw(left: Axes, right: Axes) -> None:
        panel(left, "accuracy")
        panel(right, "loss")

    return element(draw, (9.0, 3.2), alt=alt, key="curves", panels=2)


def lr_figure(rates: Sequence[float], losses: Sequence[float], suggestion: float | None) -> str:
    """Draw the loss at each learning rate, and where it falls most steeply.

    Args:
        rates: Rising, above 0; drawn on a logarithmic axis.
        losses: The smoothed training loss at each.
        suggestion: Marked with a dashed line; None where no rate is good.

    Example:
        >>> lr_figure([1e-3, 1e-2, 1e-1], [2.0, 1.0, 3.0], 1e-2)[:4]
        '<svg'
    """

    def draw(axes: Axes) -> None:
        axes.plot(rates, losses, color=ACCENT, lw=1.8)
        axes.set(xscale="log", xlim=(rates[0], rates[-1]), xlabel="learning rate")
        axes.set(title="training loss, smoothed")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True)
        axes.minorticks_off()
        axes.tick_params(axis="x", pad=7)
        axes.xaxis.set_major_formatter(lambda rate, _place: f"{rate:g}")
        if suggestion is not None:
            point = suggestion, losses[list(rates).index(suggestion)]
            axes.axvline(suggestion, color=WARM, lw=1.2, linestyle=_DASHED)
            axes.plot(*point, "o", color=WARM, markersize=6)
            text = f"steepest at {suggestion:.2g}"
            axes.annotate(text, point, (8, 4), textcoords="offset points", color=WARM)

    said = "no rate lowers it" if suggestion is None else f"suggested {suggestion:.2g}"
    alt = f"Training loss while the learning rate rises step by step; {said}."
    return element(draw, (7.2, 3.6), alt=alt, key="rates")


def bars(rows: Sequence[Row]) -> str:
    """Draw the accuracies of each method: the test part with its interval, the others beside it.

    Args:
        rows: From top to bottom, numbered from 1; at least one.
    """
    published = [row.published.get("test") for row in rows]
    marks: list[tuple[str, str, str, str, Sequence[Any]]] = [
        ("test, 95 % interval", "o", ACCENT, "full", _values(rows, "test")),
        ("validation", "o", MUTED, "none", _values(rows, "validation")),
        ("train", "|", MUTED, "none", _values(rows, "train")),
        ("published test", "x", WARM, "none", published),
    ]

    def draw(axes: Axes) -> None:
        for at, row in enumerate(rows):
            if row.test is not None:
                axes.plot(row.test.estimate.interval, [at] * 2, color=ACCENT, lw=7, alpha=0.35)
        for name, mark, colour, fill, values in marks:
            places = [(value, at) for at, value in enumerate(values) if value is not None]
            if places:
                style: Any = {"marker": mark, "color": colour, "fillstyle": fill, "mew": 1.6}
                axes.plot(*zip(*places, strict=True), ls="none", ms=7, label=name, **style)
        names = [f"{_short(row.description)} · {at}" for at, row in enumerate(rows, 1)]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(right=1.004)
        percent_axis(axes.xaxis)
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0))

    tested = [(row.description, row.test.estimate) for row in rows if row.test is not None]
    alt = "Test accuracy. " + "; ".join(f"{name}: {percent(share)}" for name, share in tested)
    return element(draw, (_WIDE, 0.9 + 0.32 * len(rows)), alt=alt, key="bars")


def learning_curves(found: Sequence[LearningCurve]) -> str:
    """Draw accuracy against images per class, with the power law where one could be fitted.

    Args:
        found: At least one; of many those that end highest are drawn.
    """
    shown = sorted(found, key=lambda curve: -curve.points[-1][1].value)[:_MOST_CURVES]
    sizes = sorted({size for curve in shown for size, _ in curve.points})
    colours = (ACCENT, WARM, INK, MUTED)

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        for at, curve in enumerate(shown):
            line = "-" if at < len(colours) else (0, (4, 2))
            _draw_curve(axes, curve, colours[at % len(colours)], line)
        axes.minorticks_off()
        axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        percent_axis(axes.yaxis)
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.004))
        axes.grid(visible=True)
        axes.set(xlabel="training images per class", ylabel="test accuracy")
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(-0.01, 1.0))

    spoken = "; ".join(f"{curve.name}: {curve.note}" for curve in shown)
    alt = f"Test accuracy against training images per class. {spoken}"
    return element(draw, (_WIDE, 4.2 + 0.22 * ((len(shown) + 1) // 2)), alt=alt, key="sizes")


def _draw_curve(axes: Axes, curve: LearningCurve, colour: str, line: Any) -> None:
    sizes, shares = zip(*curve.points, strict=True)
    for size, share in curve.points:
        axes.plot([size] * 2, share.interval, color=colour, lw=1.4, alpha=0.5)
    if curve.fit is not None:
        along = np.geomspace(sizes[0], sizes[-1], 60)
        axes.fill_between(along, *curve.fit.band(along), color=colour, alpha=0.12, lw=0)
        axes.plot(along, curve.fit.accuracy(along), color=colour, lw=1.6, linestyle=line)
    joined: Any = (0, (1, 2)) if curve.fit is None else "none"
    style: Any = {"marker": "o", "markersize": 6, "color": colour, "linestyle": joined, "lw": 1}
    axes.plot(sizes, [share.value for share in shares], label=_short(curve.name), **style)


def cost(rows: Sequence[Row]) -> str:
    """Draw test accuracy against the time of one run, and the front of what is worth its time.

    On the front stands every method that no other beats in less time; the legend names these.

    Args:
        rows: In the order of the table; those without a test part are left out.
    """
    points = [
        (number, row, max(row.seconds, 1e-3), row.test.estimate)
        for number, row in enumerate(rows, 1)
        if row.test is not None
    ]
    front = [points[at] for at in pareto_front([(time, s.value) for *_, time, s in points])]
    times = [time for *_, time, _ in points]
    left, right = min(times) / 1.5, max(times) * 1.5
    low, high = min(s.low for *_, s in points), max(s.high for *_, s in points)
    room = max(0.02, 0.06 * (high - low))
    height = 4.6 + 0.22 * ((len(front) + 1) // 2)

    def draw(axes: Axes) -> None:
        axes.set(xscale="log", xlim=(left, right))
        axes.set_ylim(max(0.0, low - room), min(1.0, high + room) + 0.004)
        edge = [*(share.value for *_, share in front), front[-1][-1].value]
        steps = [*(time for *_, time, _ in front), right]
        axes.step(steps, edge, where="post", color=WARM, lw=1.2, linestyle=_DASHED)
        for point in points:
            number, row, time, share = point
            colour = ACCENT if point in front else MUTED
            label = f"{number} · {_short(row.description)}" if point in front else None
            axes.plot([time] * 2, share.interval, color=colour, lw=1.4, alpha=0.5)
            axes.plot(time, share.value, "o", color=colour, markersize=6, label=label)
        _label_points(axes, [(str(n), time, share.value) for n, _, time, share in points])
        ticks = [time for time in _TIMES if left <= time <= right]
        ticks = ticks[:: 1 + len(ticks) // _MOST_TICKS]
        axes.minorticks_off()
        axes.set_xticks(ticks, [_spoken(tick) for tick in ticks])
        percent_axis(axes.yaxis)
        axes.grid(visible=True)
        axes.set(xlabel="time of one run", ylabel="test accuracy")
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(-0.01, 1.0))

    spoken = "; ".join(row.description for _, row, *_ in front)
    alt = f"Test accuracy against time. No other method is as good in less time than: {spoken}."
    return element(draw, (_WIDE, height), alt=alt, key="cost")


def rankings(found: Sequence[Ranking]) -> str:
    """Draw the ROC curves of classes in one panel, recall and precision in the other.

    Args:
        found: At least one, up to twelve of them; the macro average is drawn bold.
    """
    colours, dashes = (ACCENT, WARM, INK, MUTED), ("-", (0, (4, 2)), (0, (1, 1.5)))

    def draw(left: Axes, right: Axes) -> None:
        left.plot([0, 1], [0, 1], color=MUTED, lw=1, linestyle=_DASHED)
        for at, each in enumerate(found):
            style: Any = {"color": colours[at % 4], "ls": dashes[at // 4], "lw": 1.3}
            if each.name == MACRO:
                style = {"color": INK, "ls": "-", "lw": 2.6}
            left.plot([0, *each.false], [0, *each.recall], **style)
            style |= {"label": _short(each.name, 24), "where": "pre"}
            right.step([0, *each.found], [each.precision[0], *each.precision], **style)
        left.set(title="ROC", xlabel="share of the others taken for it", ylabel="recall")
        right.set(title="precision and recall", xlabel="recall", ylabel="precision")
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for axes in (left, right):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
            axes.grid(visible=True)
            percent_axis(axes.xaxis)
            percent_axis(axes.yaxis)

    spoken = [
        f"{each.name}: area under the ROC curve {percent(each.areas[0])}, average precision "
        f"{percent(each.areas[1])}"
        for each in found
    ]
    alt = f"ROC and precision-recall curves. {'; '.join(spoken)}."
    return element(draw, (9.6, 3.4), alt=alt, key="roc", panels=2)


def zoo(networks: Sequence[tuple[str, float, float, float]], *, accuracy: str) -> str:
    """Draw networks: accuracy against multiply-adds, with the parameters as area.

    Args:
        networks: Name, multiply-adds, accuracy from 0 to 1 and parameters of each; at least one.
        accuracy: What the accuracy is, as the title of its axis.

    Example:
        >>> zoo([("vgg16", 15.5e9, 0.716, 138e6)], accuracy="published top-1 accuracy")[:4]
        '<svg'
    """
    most = max(parameters for *_, parameters in networks)

    def draw(axes: Axes) -> None:
        for _, cost, share, parameters in networks:
            area = max(12, _LARGEST * parameters / most)
            axes.scatter(cost / 1e9, share, area, color=ACCENT, alpha=0.4, lw=0)
        axes.set(xscale="log", xlabel="thousand million multiply-adds for an image")
        axes.set(ylabel=accuracy)
        axes.margins(0.14, 0.12)
        axes.xaxis.set_major_formatter(lambda cost, _place: f"{cost:g}")
        axes.minorticks_off()
        percent_axis(axes.yaxis)
        axes.grid(visible=True)
        _label_points(axes, [(name, cost / 1e9, share) for name, cost, share, _ in networks])

    spoken = "; ".join(f"{name}: {percent(share)}" for name, _, share, _ in networks)
    alt = f"Accuracy against multiply-adds; the area shows the parameters. {spoken}."
    return element(draw, (_WIDE, 5.6), alt=alt, key="zoo")


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


def element(draw: Any, size: tuple[float, float], *, alt: str, key: str, panels: int = 1) -> str:
    """Run ``draw`` on fresh axes and return the figure as an SVG element for a page.

    Args:
        draw: Called with the axes of each panel.
        size: Width and height in inches.
        alt: The alternative text.
        key: Tells its identifiers from those of other figures on a page.
        panels: How many axes stand side by side.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # The browser writes the text, with fonts that matplotlib need not have.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure: Figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for one in axes:
            one.set_facecolor("none")
        draw(*axes)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _embeddable(stream.getvalue(), alt=alt, key=key)


def standalone(svg: str) -> str:
    """Return an element as a document of its own: on white, with colours and a font of its own.

    Example:
        >>> standalone('<svg style="color: red"><path style="fill: var(--ink, #123)"/></svg>')
        '<svg xmlns="http://www.w3.org/2000/svg" style="background: #fff; color: #222; \
font-family: sans-serif; color: red"><path style="fill: #123"/></svg>'
    """
    svg = re.sub(r"var\(--\w+, (#\w+)\)", r"\1", svg).replace("currentColor", "#222")
    own = "background: #fff; color: #222; font-family: sans-serif; "
    svg = svg.replace('style="', f'style="{own}', 1)
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _embeddable(svg: str, *, alt: str, key: str) -> str:
    """Return an SVG document as an element: no name spaces, ids of its own, the page's colours."""
    root = ET.fromstring(svg)  # noqa: S314 - written by matplotlib a moment ago
    for node in root.iter():
        node.tag = _local(node.tag)
        for name, value in list(node.attrib.items()):
            del node.attrib[name]
            node.set(_local(name), _adapted(_local(name), value, key))
    wide = float(root.attrib["viewBox"].split()[2])
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("style", f"max-width: {wide * 4 / 3:.0f}px")
    root.set("role", "img")
    root.set("aria-label", printable(alt))
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _adapted(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "href" and value.startswith("#"):
        return f"#{key}-{value[1:]}"
    value = re.sub(r"url\(#", f"url(#{key}-", value)
    if name == "style":
        value = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", value)
        value = value.replace("font-family: 'sans-serif'", "")
        for stand_in, colour in _COLOURS.items():
            value = value.replace(stand_in, colour)
    return value


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def percent_axis(axis: Any) -> None:
    """Let an axis over shares from 0 to 1 show percentages."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))


def _short(name: str, most: int = _LETTERS) -> str:
    """Return a name for a figure: what cannot be printed escaped, cut after ``most`` letters."""
    shown = printable(name)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _values(rows: Sequence[Row], part: str) -> list[float | None]:
    found = [getattr(row, part) for row in rows]
    return [None if repeated is None else repeated.estimate.value for repeated in found]


def _label_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write a label beside each point, where the fewest points and labels stand already."""
    figure: Any = axes.figure
    figure.draw_without_rendering()  # so that the axes know their place
    places = [72 / figure.dpi * axes.transData.transform((x, y)) for _, x, y in points]
    taken = [(left - 4, low - 4, left + 4, low + 4) for left, low in places]
    style: Any = {"textcoords": "offset points", "ha": "center", "va": "center", "size": 9}
    for (text, x, y), (left, low) in zip(points, places, strict=True):
        half = 2.8 * len(text)
        boxes = {}
        for across, up in _SIDES:
            offset = across * (half + 7), up * 9
            middle = left + offset[0], low + offset[1]
            boxes[offset] = middle[0] - half, middle[1] - 6, middle[0] + half, middle[1] + 6
        hit = {
            at: sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken)
            for at, a in boxes.items()
        }
        best = min(hit, key=lambda at: hit[at])
        taken.append(boxes[best])
        axes.annotate(text, (x, y), best, **style)


def _spoken(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
