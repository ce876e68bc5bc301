"""The command that runs a plan: `run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.fitting import command_line, refused_code
from regraft.cli.looking import FormatOption, TableFormat, written
from regraft.cli.output import EXIT_FAILED, JsonOption, say, say_json, talk

if TYPE_CHECKING:
    from regraft.results.comparison import Comparison

PAGE = "comparison.html"


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("run")(run)


def run(
    plan: Annotated[
        Path,
        typer.Argument(metavar="PLAN", help="A TOML file, or the run.json of a finished run."),
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The pictures, if not those that the plan names."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Run this row alone; may be given several times."),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Run the small size that the plan describes.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="How many runs at the same time; they share the cores.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where runs, table and page shall stand."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a plan that was begun in --out.")
    ] = False,
    form: FormatOption = TableFormat.TEXT,
    as_json: JsonOption = False,
) -> int:
    """Run a plan: finished runs are skipped, and a killed one goes on where it was."""
    from regraft.errors import RunError
    from regraft.experiment.campaign import RUNS, Campaign
    from regraft.experiment.cautions import cautions_of_comparison
    from regraft.experiment.plan import read_plan
    from regraft.report.comparison import write_comparison
    from regraft.results.comparison import Comparison

    planned = read_plan(plan, small=small, data="" if data is None else str(data))
    if only:
        planned = planned.only(only)
    folder = out or Path("runs") / f"{plan.stem}{'-small' if small else ''}"
    if resume and not (folder / RUNS).is_dir():
        raise RunError(
            "there is nothing to go on from",
            path=folder,
            hint="leave resume (--resume) out to begin anew",
            code="RUN-RESUME",
        )
    campaign = Campaign(folder, command=command_line(), verbose=not as_json, say=talk)
    outcome = campaign.run(planned, jobs=jobs)
    comparison = Comparison.of(
        outcome.rows,
        title=planned.title or plan.stem,
        failures=outcome.failures,
        faithful=not small,
        warnings=(
            *((planned.note,) if planned.note else ()),
            *cautions_of_comparison([(row.description, row.runs) for row in outcome.rows]),
        ),
        command=command_line(),
    )
    page = write_comparison(comparison, folder / PAGE) if outcome.rows else None
    return show(comparison, page, form=form, as_json=as_json)


def show(comparison: Comparison, page: Path | None, *, form: TableFormat, as_json: bool) -> int:
    """Print a comparison: the table as data, where its page is as talk; return the exit code."""
    from regraft.report.comparison import comparison_table

    if as_json:
        say_json(comparison.to_json(None if page is None else str(page)))
    elif comparison.rows:
        say(written(comparison_table(comparison), form))
    if page is not None and not as_json:
        talk(f"page:   {page}")
    if comparison.failures:
        return EXIT_FAILED
    return refused_code(*(run for row in comparison.rows for run in row.runs))
