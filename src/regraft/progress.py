"""One progress bar for all that takes long: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_SECONDS = 15.0


@contextmanager
def progress_bar(
    description: str, total: int, *, unit: str = "images", visible: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show how far a piece of work is, on standard error.

    Args:
        description: What is being done, for example ``"Embedding"``.
        total: How many units there are in all.
        unit: What is counted, in the plural.
        visible: Whether to show anything at all.

    Yields:
        A function to call with the number of units done since the last call.

    Example:
        >>> with progress_bar("Embedding", 2, visible=False) as advance:
        ...     advance(2)
    """
    if not visible or total == 0:
        yield lambda _count: None
    elif sys.stderr.isatty():
        with _terminal_bar(description, total, unit) as advance:
            yield advance
    else:
        with _plain_lines(description, total, unit) as advance:
            yield advance


@contextmanager
def _terminal_bar(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text("" if task.speed is None else f"{_shown(task.speed)} {unit}/s")

    done, left = progress.MofNCompleteColumn(), progress.TimeRemainingColumn()
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), done, Rate(), left)
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _plain_lines(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    start = shown = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        now = time.monotonic()
        if now - shown >= _LINE_EVERY_SECONDS:
            shown = now
            rate = done / (now - start)
            left = (total - done) / rate if rate else 0.0
            speed = f"{_shown(rate)} {unit}/s, {left:.0f} s left"
            print(f"{description}: {done} of {total} {unit}, {speed}", file=sys.stderr)

    yield advance


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
