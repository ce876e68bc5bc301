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
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
}
_HEAT = (31, 111, 139)
_MOST_LABELS = 150
_FEW_EPOCHS = 20  # up to so many each has a dot of its own


def heat_map(counts: npt.NDArray[np.int64], classes: Sequence[str], *, alt: str) -> str:
    """Draw a confusion matrix, true classes down and predicted ones across, as shares of each row.

    Args:
        counts: Shape (k, k), true by predicted.
        classes: The names of the rows and columns.
        alt: What a reader who cannot see the figure is told.

    Returns:
        An ``<svg>`` element to stand in a page.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = np.zeros((*shares.shape, 4), dtype=np.uint8)
    picture[..., :3] = _HEAT
    # The square root lets a single error be seen beside a full diagonal.
    picture[..., 3] = np.round(255 * np.sqrt(shares)).astype(np.uint8)
    side = float(np.clip(len(classes) * 0.105, 4.5, 11.0))

    def draw(axes: Axes) -> None:
        axes.imshow(picture, interpolation="none", aspect="equal")
        size = float(np.clip(side * 50 / max(len(classes), 1), 3.0, 9.0))
        if len(classes) <= _MOST_LABELS:
            names = [shortened(name, 24) for name in classes]
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
            axes.set_yticks(range(len(names)), names, fontsize=size)
            axes.tick_params(axis="x", labelcolor=INK)
        else:
            axes.set_xticks([])
            axes.set_yticks([])
        axes.set_xlabel("named")
        axes.set_ylabel("true")
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
        alt: What a reader who cannot see the figure is told.
        borders: Where broken lines stand, between one phase of a training and the next.
        rings: The epochs, counted from 1, at which validation curves have a ring.

    Returns:
        An ``<svg>`` element to stand in a page.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = list(range(1, len(history) + 1))

    def panel(axes: Axes, word: str) -> None:
        names = [name for name in history[0] if word in name]
        dots = "." if len(epochs) <= _FEW_EPOCHS else ""
        for name, colour in zip(names, (ACCENT, WARM, MUTED, INK), strict=False):
            values = [float(epoch.get(name, np.nan)) for epoch in history]
            label = name.replace("val_", "validation ").replace("train_", "training ")
            axes.plot(
                epochs,
                values,
                dots + "-",
                color=colour,
                linewidth=1.8,
                label=label.replace("_", " "),
            )
            if name.startswith("val") and rings:
                marked = [values[epoch - 1] for epoch in rings]
                axes.plot(rings, marked, "o", color=colour, fillstyle="none", markersize=9)
        for border in borders:
            axes.axvline(border, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_title(word, fontsize=10, loc="left", color=MUTED)
        axes.grid(visible=True, axis="y")
        if word == "accuracy":
            percent_axis(axes.yaxis)
        if names:
            axes.legend(frameon=False, fontsize=9)

    def draw(left: Axes, right: Axes) -> None:
        panel(left, "accuracy")
        panel(right, "loss")

    return element(draw, (9.0, 3.2), alt=alt, key="curves", panels=2)


def element(draw: Any, size: tuple[float, float], *, alt: str, key: str, panels: int = 1) -> str:
    """Run ``draw`` on fresh axes and return the figure as an SVG element for a page.

    Args:
        draw: Called with the axes of each panel.
        size: Width and height in inches.
        alt: What a reader who cannot see the figure is told.
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
    for element in root.iter():
        element.tag = _local(element.tag)
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            element.set(_local(name), _adapted(_local(name), value, key))
    root.attrib.pop("width", None)
    wide = float(root.attrib["viewBox"].split()[2])
    root.set("style", f"max-width: {wide * 4 / 3:.0f}px")
    root.attrib.pop("height", None)
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


def shortened(name: str, most: int) -> str:
    """Return a name for a figure: what cannot be printed escaped, cut after ``most`` letters.

    Example:
        >>> shortened("a long name", 7)
        'a long…'
    """
    shown = printable(name)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
