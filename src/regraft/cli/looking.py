"""Commands that show runs: `report` and `compare-runs`. They start without any network library."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.output import JsonOption, say, say_json, talk
from regraft.errors import UsageError

RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUNS…", help="Folders of runs, or folders that hold runs.")
]


class TableFormat(StrEnum):
    """How a table is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("report")(write_report)
    app.command("compare-runs")(compare_runs)


def write_report(
    runs: RunsArgument,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FOLDER", help="Where the pictures are now, if they have moved."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the page of each run again, from its folder alone."""
    from regraft.report.page import write_page
    from regraft.results.store import open_runs

    if data is not None and not data.exists():
        raise UsageError("no such folder of pictures", path=data, hint="check --data")
    pages = [write_page(run, data_root=data) for run in open_runs(runs)]
    if as_json:
        say_json({"pages": [str(page) for page in pages]})
    else:
        for page in pages:
            say(str(page))


def compare_runs(
    runs: RunsArgument,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write the comparison as one HTML page."),
    ] = None,
    form: Annotated[
        TableFormat, typer.Option("--format", help="How to write the table.")
    ] = TableFormat.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Put several runs in one table: description, data, epochs, accuracies and time."""
    from regraft.report.page import write_comparison
    from regraft.report.tables import comparison
    from regraft.results.store import open_runs

    found = open_runs(runs)
    table = comparison(found)
    if out is not None:
        talk(f"page: {write_comparison(found, out)}")
    if as_json:
        say(table.to_json())
    else:
        writers = {
            TableFormat.TEXT: table.to_text,
            TableFormat.MARKDOWN: table.to_markdown,
            TableFormat.CSV: table.to_csv,
        }
        say(writers[form]())
