"""Commands that show runs: `report` and `compare-runs`. They start without any network library."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.output import JsonOption, say, say_json, talk
from regraft.errors import UsageError
from regraft.settings import to_json

if TYPE_CHECKING:
    from regraft.report.tables import Table

RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUNS…", help="Folders of runs, or folders that hold runs.")
]


class TableFormat(StrEnum):
    """How a table is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[TableFormat, typer.Option("--format", help="How to write the table.")]


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
    form: FormatOption = TableFormat.TEXT,
    as_json: JsonOption = False,
) -> None:
    """Put several runs in one table: description, data, epochs, accuracies and time."""
    from regraft.report.comparison import compare_runs as compare
    from regraft.report.comparison import comparison_table, write_comparison
    from regraft.results.store import open_runs

    comparison = compare(open_runs(runs))
    page = None if out is None else write_comparison(comparison, out)
    if page is not None:
        talk(f"page: {page}")
    table = comparison_table(comparison)
    if as_json:
        verdicts = to_json(comparison.verdicts)
        more = {"verdicts": verdicts, "page": None if page is None else str(page)}
        say_json(json.loads(table.to_json()) | more)
    else:
        say(written(table, form))


def written(table: Table, form: TableFormat) -> str:
    """Return a table in the form that was asked for."""
    writers = {
        TableFormat.TEXT: table.to_text,
        TableFormat.MARKDOWN: table.to_markdown,
        TableFormat.LATEX: table.to_latex,
        TableFormat.CSV: table.to_csv,
        TableFormat.JSON: table.to_json,
    }
    return writers[form]()
