"""The command that finds a learning rate: `find-lr`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from regraft.cli.options import (
    AllowEmptyOption,
    ArgumentOption,
    AugmentOption,
    BatchSizeOption,
    ClassWeightOption,
    DataArgument,
    DeviceOption,
    EngineOption,
    FollowLinksOption,
    FromOption,
    GroupByOption,
    HeadOption,
    KeepPartsOption,
    MaxBadOption,
    NamesOption,
    OptimizerOption,
    OptionalBackboneOption,
    OutputOption,
    PrecisionOption,
    RegroupOption,
    RegularizeOption,
    RootOption,
    SeedOption,
    SkipBadOption,
    SmallClassesOption,
    TestOption,
    UnfreezeOption,
    ValOption,
    ViewsOption,
    WeightsOption,
    chosen_backbone,
    read_spec,
)
from regraft.cli.output import EXIT_REFUSED, JsonOption, say, say_json, talk, talk_of_refused
from regraft.errors import UsageError
from regraft.experiment.strategies import LearnerOptions, build_learner


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("find-lr")(find_rate)


def find_rate(
    source: DataArgument,
    *,
    backbone: OptionalBackboneOption = None,
    weights: WeightsOption = None,
    arguments: ArgumentOption = None,
    strategy: Annotated[
        Literal["frozen", "fine_tune", "from_scratch"],
        typer.Option(help="What is trained of the network, as for `fit`."),
    ] = "frozen",
    unfreeze: UnfreezeOption = None,
    head: HeadOption = None,
    optimizer: OptimizerOption = None,
    augment: AugmentOption = None,
    regularize: RegularizeOption = None,
    views: ViewsOption = None,
    batch_size: BatchSizeOption = None,
    class_weight: ClassWeightOption = None,
    output: OutputOption = None,
    start: FromOption = None,
    device: DeviceOption = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    lowest: Annotated[float, typer.Option(help="The rate of the first step.", min=0)] = 1e-6,
    highest: Annotated[float, typer.Option(help="The rate of the last step.", min=0)] = 1.0,
    steps: Annotated[int, typer.Option(help="How many steps.", min=10)] = 100,
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
        Path | None, typer.Option("--out", metavar="FILE", help="Draw the curve here, an SVG.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Train for a few steps with a rising learning rate, and suggest one for `fit`.

    Only pictures that `fit` with the same options would learn from are looked at.
    """
    if out is not None and out.suffix.lower() != ".svg":
        raise UsageError("the curve is an SVG file", path=out, hint="end its name in .svg")
    given = dict(locals())
    options = LearnerOptions.of(given, verbose=not as_json)
    from regraft.experiment.preparation import DataPlan
    from regraft.files import write_text
    from regraft.report.figures import standalone
    from regraft.report.rates import rates_figure, shown
    from regraft.settings import to_json
    from regraft.training.lr_finder import search_rate

    learner = build_learner(read_spec(chosen_backbone(backbone), weights, arguments), options)
    plan = DataPlan.of(given)
    prepared = plan.prepare(verbose=not as_json)
    train, bad = prepared.train, prepared.report.bad
    found = search_rate(
        learner, train.paths, train.labels, lowest=lowest, highest=highest, steps=steps
    )
    if out is not None:
        figure = rates_figure(found.rates, found.losses, found.suggestion)
        write_text(out, standalone(figure) + "\n")
    if as_json:
        drawn = None if out is None else str(out)
        refused = [error.to_json() for error in bad]
        say_json({**to_json(found), "figure": drawn, "bad_files": refused})
    elif found.suggestion is None:
        talk("no rate lowers the loss: try more --steps, another range, or another --batch-size")
    else:
        say(shown(found.suggestion))
        talk(f"next:   regraft fit with the same options and --lr {shown(found.suggestion)}")
    if not as_json:
        if out is not None:
            talk(f"curve:  {out}")
        talk_of_refused(bad)
    return EXIT_REFUSED if bad else 0
