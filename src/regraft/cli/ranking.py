"""`backbones rank`: which network suits the pictures, before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from regraft.cli.looking import FormatOption, TableFormat, written
from regraft.cli.options import (
    AllowEmptyOption,
    DataArgument,
    EngineOption,
    FollowLinksOption,
    GroupByOption,
    KeepPartsOption,
    MaxBadOption,
    NamesOption,
    RegroupOption,
    RootOption,
    SeedOption,
    SkipBadOption,
    SmallClassesOption,
    TestOption,
    ValOption,
)
from regraft.cli.output import EXIT_REFUSED, JsonOption, say, say_json, talk_of_refused


def add_to(backbones: typer.Typer) -> None:
    """Add the command of this module to the group ``backbones``."""
    backbones.command("rank")(rank)


def rank(
    source: DataArgument,
    *,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="A network to rank, as often as wanted; without it, all whose weights are here.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Leave out what would take longer than so many minutes in all; also 90s or 2h.",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.", min=2)] = 5,
    per_class: Annotated[
        int | None, typer.Option(help="Use so many pictures of each class.", min=2)
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate-preprocessing",
            help="Also show what each network would lose with a wrong preprocessing.",
        ),
    ] = False,
    engine: EngineOption = "auto",
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
    form: FormatOption = TableFormat.TEXT,
    as_json: JsonOption = False,
) -> int:
    """Rank networks by what simple classifiers make of their features, cross-validated.

    Nothing is trained or downloaded, and the test part of the split that `fit` would make is not
    looked at. Features are cached: a second call, and `fit`, compute none of them again.
    """
    given = dict(locals())
    from regraft.experiment.preparation import DataPlan
    from regraft.experiment.ranking import rank_backbones
    from regraft.experiment.strategies import read_minutes

    plan = DataPlan.of({**given, "folds": None})  # these folds are those of the probes
    ranking = rank_backbones(
        plan,
        names,
        folds=folds,
        budget=None if budget is None else 60 * read_minutes(budget, option="--budget"),
        ablate=ablate,
        engine=engine,
        verbose=not as_json,
    )
    if as_json or form is TableFormat.JSON:
        say_json(ranking.to_json())
    else:
        tables = [ranking.table(), *([ranking.ablation_table()] if ranking.ablated else [])]
        say("\n\n".join(written(table, form) for table in tables))
        talk_of_refused(ranking.bad)
    return EXIT_REFUSED if ranking.bad else 0
