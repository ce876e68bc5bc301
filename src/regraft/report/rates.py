"""The curve of a search for a learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regraft.report.figures import ACCENT, WARM, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rates_figure(rates: Sequence[float], losses: Sequence[float], suggestion: float | None) -> str:
    """Draw the loss at each learning rate, and where it falls most steeply.

    Args:
        rates: Rising, above 0; drawn on a logarithmic axis.
        losses: The smoothed training loss at each.
        suggestion: Marked with a broken line; None where no rate is good.

    Returns:
        An ``<svg>`` element to stand in a page; see ``figures.standalone`` for a file.

    Example:
        >>> rates_figure([1e-3, 1e-2, 1e-1], [2.0, 1.0, 3.0], 1e-2)[:4]
        '<svg'
    """
    said = "no rate lowers it" if suggestion is None else f"suggested {shown(suggestion)}"

    def draw(axes: Axes) -> None:
        axes.plot(rates, losses, color=ACCENT, linewidth=1.8)
        axes.set_xscale("log")
        axes.set_xlim(rates[0], rates[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("learning rate")
        axes.set_title("training loss, smoothed", fontsize=10, loc="left")
        axes.grid(visible=True)
        axes.minorticks_off()
        axes.tick_params(axis="x", pad=7)
        axes.xaxis.set_major_formatter(lambda rate, _place: f"{rate:g}")
        if suggestion is not None:
            place = list(rates).index(suggestion)
            axes.axvline(suggestion, color=WARM, linewidth=1.2, linestyle=(0, (3, 3)))
            axes.plot([suggestion], [losses[place]], "o", color=WARM, markersize=6)
            axes.annotate(
                f"steepest at {shown(suggestion)}",
                (suggestion, losses[place]),
                xytext=(8, 4),
                textcoords="offset points",
                color=WARM,
            )

    alt = f"Training loss while the learning rate rises step by step; {said}."
    return element(draw, (7.2, 3.6), alt=alt, key="rates")


def shown(rate: float) -> str:
    """Return a rate with two digits, as it is written on the command line.

    Example:
        >>> shown(0.0018738), shown(3.1e-05)
        ('0.0019', '3.1e-05')
    """
    return f"{rate:.2g}"
