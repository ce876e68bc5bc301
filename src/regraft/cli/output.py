"""Data on standard output, everything else on standard error, JSON where a machine reads."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from regraft.errors import ImageError
    from regraft.report.tables import Table
    from regraft.results.comparison import Comparison
    from regraft.results.run import Run

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143

STARTED: dict[str, float] = {}
"""When the process began, by ``time.perf_counter``, under ``at``; nothing where a test calls."""

TableFormat = Literal["text", "markdown", "latex", "csv", "json"]


class ReaderLeft(BaseException):
    """Nobody reads the data any more; a BaseException so that no handler for errors swallows it."""


class _OptionalOutput(io.FileIO):
    """An output that is lost where nobody takes it, without harm to the work that writes it."""

    def write(self, data: Any) -> int:
        """Write what can be written, and say that all of it was."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def prepare_streams() -> None:
    """Let names of any bytes come in and go out, and a closed terminal end no training."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # a stream that the shell has closed is None
            with contextlib.suppress(io.UnsupportedOperation):  # somebody has read from it before
                stream.reconfigure(errors=errors)
    if sys.stderr is None:
        return
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_OptionalOutput(sys.stderr.fileno(), "w", closefd=False)),
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def echo_err(text: str = "") -> None:
    """Print a line for the person at the terminal (standard error)."""
    print(text, file=sys.stderr, flush=True)


def echo_refused(errors: Collection[ImageError], *, as_json: bool) -> int:
    """Name the images that were left out, with the reasons; return the exit code.

    Args:
        errors: Their errors.
        as_json: Whether JSON that was printed names them already.
    """
    for error in () if as_json else errors:
        echo_err(f"refused: {error}")
    return EXIT_REFUSED if errors else 0


def echo(text: str) -> None:
    """Print data (standard output).

    Raises:
        ReaderLeft: Whoever read it has left.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise ReaderLeft from error


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Print one JSON value on standard output; names that are not UTF-8 survive as escapes.

    Args:
        value: JSON values.
        indent: None for one line (JSON Lines).
    """
    echo(json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False))


def echo_table(*tables: Table, form: TableFormat = "text") -> None:
    """Print tables in the form that was asked for."""
    echo("\n\n".join(getattr(table, f"to_{form}")() for table in tables))


def echo_comparison(
    comparison: Comparison, page: Path | None, *, form: TableFormat, as_json: bool
) -> int:
    """Print a comparison, and where its page is; return the exit code."""
    from regraft.report.comparison_page import comparison_table

    if as_json:
        echo_json(comparison.to_json(None if page is None else str(page)))
    elif comparison.rows:
        echo_table(comparison_table(comparison), form=form)
    if page is not None and not as_json:
        echo_err(f"page:   {page}")
    if comparison.failures:
        return EXIT_FAILED
    return refused_code(*(run for row in comparison.rows for run in row.runs))


def refused_code(*runs: Run) -> int:
    """Return the exit code of runs that are finished: 3 where images were left out of some."""
    return EXIT_REFUSED if any((run.check or {}).get("bad") for run in runs) else 0


def command_line() -> str:
    """Return the command as it was typed, quoted for a shell."""
    return shlex.join(["regraft", *sys.argv[1:]])
