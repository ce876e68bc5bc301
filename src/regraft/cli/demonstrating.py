"""The command `demo`: the whole way on pictures that are made on the spot."""

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
    """Learn drawn flowers and handwritten digits in three ways, and compare. No download."""
    from regraft.results.store import RunStore

    begun = time.monotonic()
    folder = out or RunStore(Path()).free_folder("regraft demo")
    talk("From scratch, or with what a network knows from photographs? Two sets of small pictures.")
    from regraft.experiment.demo import run_demo
    from regraft.report.comparison import comparison_table

    # Two processes of one thread each do not wait for each other where other programs are at work.
    shown = run_demo(folder, jobs=2, verbose=not as_json, say=talk)
    if as_json:
        say_json(
            {
                each.name: {**each.comparison.to_json(str(each.page)), "lesson": each.lesson}
                for each in shown
            }
        )
        return
    for each in shown:
        say(f"\n{each.comparison.title}\n")
        say(comparison_table(each.comparison).to_text())
        say(f"\n{each.lesson}")
    talk(f"\nDone in {time.monotonic() - begun:.0f} s. Open the pages in a browser:")
    for each in shown:
        talk(f"  {each.page}")
    flowers = shown[0]
    run = flowers.comparison.rows[-1].runs[0].folder
    talk("Try next:")
    talk(f"  regraft data check {quote(str(flowers.pictures))}")
    talk(f"  regraft run {quote(str(flowers.plan))}      (after changing what you like in it)")
    talk(f"  regraft predict {quote(str(run))} {quote(str(flowers.pictures / 'daisy'))}")
    talk("  regraft compare YOUR_FOLDER --backbone mobilenet_v3      (downloads its weights once)")
