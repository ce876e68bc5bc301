"""The command `demo`: the whole way on pictures that are drawn on the spot."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from regraft.cli.output import JsonOption, say, say_json, talk


def add_to(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command("demo")(demo)


def demo(
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where everything shall stand."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole way on drawn flowers: draw, check, split, fit, compare. No download."""
    from regraft.results.store import RunStore

    start = time.monotonic()
    folder = out or RunStore(Path()).free_folder("regraft demo")
    talk("Drawing flowers, and training a small network on ten garden species …")
    from regraft.experiment.demo import run_demo
    from regraft.report.comparison import compare_runs, comparison_table

    result = run_demo(folder, verbose=not as_json)
    table = comparison_table(compare_runs([result.transfer, result.baseline]))
    if as_json:
        say_json(
            {
                "page": str(result.page),
                "transfer": result.transfer.result(),
                "no_transfer": result.baseline.result(),
            }
        )
        return
    say(table.to_text())
    talk(f"\nDone in {time.monotonic() - start:.0f} s. Open the page in a browser:")
    talk(f"  {result.page}")
    talk("Try next:")
    talk(f"  regraft data check {result.pictures}")
    talk(f"  regraft fit {quote(str(result.pictures))} {result.backbone_options()}")
    talk(f"  regraft predict {result.transfer.folder} {result.pictures}")
    talk("  regraft fit YOUR_FOLDER --backbone mobilenet_v3      (downloads its weights once)")
