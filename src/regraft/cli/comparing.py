"""The command that tries every way of transferring on one folder: `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.fitting import command_line
from regraft.cli.looking import FormatOption, TableFormat
from regraft.cli.options import (
    AllowEmptyOption,
    ArgumentOption,
    DataArgument,
    DeviceOption,
    EngineOption,
    FollowLinksOption,
    GroupByOption,
    KeepPartsOption,
    MaxBadOption,
    NamesOption,
    PrecisionOption,
    RegroupOption,
    RootOption,
    SeedOption,
    SkipBadOption,
    SmallClassesOption,
    TestOption,
    ValOption,
    WeightsOption,
    chosen_backbone,
    read_arguments,
)
from regraft.cli.output import JsonOption, talk
from regraft.cli.running import PAGE, show
from regraft.errors import UsageError
from regraft.experiment.strategies import read_minutes


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("compare")(compare)


def compare(
    source: DataArgument,
    *,
    backbone: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A network to transfer; may be given several times."),
    ] = None,
    weights: WeightsOption = None,
    arguments: ArgumentOption = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Run every way with so many seeds, on the same split.")
    ] = 1,
    splits: Annotated[
        int, typer.Option(min=1, help="Run every way on so many different splits.")
    ] = 1,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cut the pictures into so many folds; each is the test once."),
    ] = None,
    per_class: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Learn from N pictures of each class, too; may be given several times.",
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="How long it may take: 90s, 20m, 2h, or none.")
    ] = "20m",
    device: DeviceOption = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    val: ValOption = 0.15,
    test: TestOption = 0.25,
    seed: SeedOption = 0,
    group_by: GroupByOption = None,
    regroup: RegroupOption = False,
    keep_parts: KeepPartsOption = False,
    small_classes: SmallClassesOption = "refuse",
    allow_empty_class: AllowEmptyOption = False,
    label_from_name: NamesOption = None,
    root: RootOption = None,
    follow_links: FollowLinksOption = False,
    skip_bad: SkipBadOption = False,
    max_bad: MaxBadOption = 0.01,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where runs, table and page shall stand."),
    ] = None,
    form: FormatOption = TableFormat.TEXT,
    as_json: JsonOption = False,
) -> int:
    """Try the ways of transferring a network, cheapest first, and put them in one table."""
    given = dict(locals())
    if splits > 1 and folds:
        raise UsageError("--splits and --folds are two ways to repeat", hint="give one of them")
    minutes = None if budget == "none" else read_minutes(budget, option="--budget")
    named = list(dict.fromkeys(backbone or [chosen_backbone(None)]))
    from regraft.experiment.comparing import Asked
    from regraft.experiment.comparing import compare as compare_ways
    from regraft.experiment.recipe import Recipe
    from regraft.report.comparison import write_comparison

    network = {"weights": weights, "arguments": dict(read_arguments(arguments))}
    if len(named) > 1 and any(network.values()):
        raise UsageError("--weights and --arg go with one --backbone")
    recipe = Recipe.of({**given, **network, "source": source.absolute(), "backbone": named[0]})
    shared = ("device", "engine", "precision")
    folder = out or Path("runs") / f"compare-{source.absolute().stem}"
    asked = Asked(
        recipe.plan["data"],
        [{**_network(recipe.plan["rows"][0]), "backbone": name} for name in named],
        seeds=seeds,
        splits=splits,
        folds=folds,
        per_class=per_class or (),
        budget=None if minutes is None else 60 * minutes,
        options={key: recipe.row[key] for key in shared if key in recipe.row},
    )
    comparison = compare_ways(asked, folder, command=command_line(), verbose=not as_json, say=talk)
    page = write_comparison(comparison, folder / PAGE) if comparison.rows else None
    return show(comparison, page, form=form, as_json=as_json)


def _network(row: dict[str, object]) -> dict[str, object]:
    return {key: row[key] for key in ("weights", "arguments") if key in row}
