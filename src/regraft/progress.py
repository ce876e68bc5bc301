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
        from rich import progress
        from rich.console import Console

        name, left = progress.TextColumn("{task.description}"), progress.TimeRemainingColumn()
        columns = (name, progress.BarColumn(), progress.MofNCompleteColumn(), unit, left)
        with progress.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(description, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _lines(description, total, unit)


def _lines(description: str, total: int, unit: str) -> Callable[[int], None]:
    start = shown = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        now = time.monotonic()
        if done and now - shown >= _LINE_EVERY_SECONDS:
            shown = now
            rate = done / (now - start)
            speed = f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s"
            left = f"{(total - done) / rate:.0f} s left"
            print(f"{description}: {done} of {total} {unit}, {speed}, {left}", file=sys.stderr)

    return advance
