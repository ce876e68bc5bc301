"""Commands that compute features and learn from them: `extract` and `fit`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import (
    AllowEmptyOption,
    ArgumentOption,
    AugmentOption,
    BatchSizeOption,
    ClassifierOption,
    ClassWeightOption,
    DataArgument,
    DeviceOption,
    EngineOption,
    EpochsOption,
    FeaturePoolingOption,
    FoldOption,
    FoldsOption,
    FollowLinksOption,
    FromOption,
    GroupByOption,
    HeadEpochsOption,
    HeadOption,
    KeepPartsOption,
    MaxBadOption,
    NamesOption,
    OptimizerOption,
    OptionalBackboneOption,
    OutOption,
    OutputOption,
    PoolingOption,
    PrecisionOption,
    RateOption,
    RegroupOption,
    RegularizeOption,
    ResumeOption,
    RootOption,
    SeedOption,
    SkipBadOption,
    SmallClassesOption,
    StrategyOption,
    TensorboardOption,
    TestOption,
    TimeBudgetOption,
    UnfreezeOption,
    ValOption,
    ViewsOption,
    WeightsOption,
    chosen_backbone,
    read_arguments,
    read_spec,
)
from regraft.cli.output import EXIT_REFUSED, JsonOption, say, say_json, talk
from regraft.errors import UsageError
from regraft.experiment.strategies import LearnerOptions, build_learner

if TYPE_CHECKING:
    from regraft.results.run import Run

NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Do not keep the features for the next time.")
]
PerClassOption = Annotated[
    int | None,
    typer.Option(
        help="Learn from this many pictures of each class; the test part stays the same.", min=1
    ),
]
SizeOption = Annotated[
    int | None, typer.Option(help="Learn from this many pictures in all.", min=1)
]
FractionOption = Annotated[
    float | None, typer.Option(help="Learn from this share of the training pictures.", min=0, max=1)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("fit")(fit)
    app.command("extract")(extract)


def fit(
    source: DataArgument,
    *,
    backbone: OptionalBackboneOption = None,
    weights: WeightsOption = None,
    arguments: ArgumentOption = None,
    strategy: StrategyOption = "features",
    classifier: ClassifierOption = None,
    pooling: FeaturePoolingOption = None,
    unfreeze: UnfreezeOption = None,
    head: HeadOption = None,
    epochs: EpochsOption = None,
    head_epochs: HeadEpochsOption = None,
    optimizer: OptimizerOption = None,
    lr: RateOption = None,
    augment: AugmentOption = None,
    regularize: RegularizeOption = None,
    views: ViewsOption = None,
    batch_size: BatchSizeOption = None,
    class_weight: ClassWeightOption = None,
    output: OutputOption = None,
    start: FromOption = None,
    time_budget: TimeBudgetOption = None,
    device: DeviceOption = None,
    tensorboard: TensorboardOption = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    val: ValOption = 0.15,
    test: TestOption = 0.25,
    seed: SeedOption = 0,
    group_by: GroupByOption = None,
    regroup: RegroupOption = False,
    keep_parts: KeepPartsOption = False,
    folds: FoldsOption = None,
    fold: FoldOption = 0,
    small_classes: SmallClassesOption = "refuse",
    allow_empty_class: AllowEmptyOption = False,
    per_class: PerClassOption = None,
    size: SizeOption = None,
    fraction: FractionOption = None,
    label_from_name: NamesOption = None,
    root: RootOption = None,
    follow_links: FollowLinksOption = False,
    skip_bad: SkipBadOption = False,
    max_bad: MaxBadOption = 0.01,
    no_cache: NoCacheOption = False,
    description: Annotated[str, typer.Option(help="What the run is called in tables.")] = "",
    out: OutOption = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> int:
    """Transfer a network to your pictures and measure it on some of them kept apart."""
    given = {**locals(), "cache": not no_cache, "arguments": dict(read_arguments(arguments))}
    options = LearnerOptions.of(given, verbose=not as_json)
    if resume and out is None:
        raise UsageError("--resume needs the folder of the run", hint="name it with --out FOLDER")
    from regraft.experiment.recipe import Recipe
    from regraft.experiment.runner import fit_run
    from regraft.results.store import RunStore
    from regraft.training.progress import TensorBoard

    backbone = chosen_backbone(backbone)
    learner = build_learner(read_spec(backbone, weights, arguments), options)
    place = out or RunStore(Path("runs")).free_folder(f"{source.stem} {backbone} {options.label}")
    recipe = Recipe.of({**given, "backbone": backbone})
    with _told_what_is_kept(place):
        run = fit_run(
            recipe.data_plan,
            learner,
            out=place,
            description=description,
            command=command_line(),
            recipe=recipe.plan,
            resume=resume,
            callbacks=() if tensorboard is None else [TensorBoard(tensorboard)],
            verbose=not as_json,
        )
    if as_json:
        say_json(run.result())
    else:
        _show(run)
    return refused_code(run)


def _show(run: Run) -> None:
    from regraft.report.tables import parts_table

    say(parts_table(run.metrics).to_text())
    talk(cost_line(run))
    for warning in run.warnings:
        talk(f"warning: {warning}")
    talk(f"page:   {run.folder / 'report.html'}")
    talk(f"next:   regraft predict {shlex.quote(str(run.folder))} PICTURES")


@contextmanager
def _told_what_is_kept(place: Path) -> Iterator[None]:
    """Say, when a training is stopped from outside, how to go on with it."""
    from regraft.results.reservation import CHECKPOINTS

    try:
        yield
    except BaseException as error:
        stopped = not isinstance(error, Exception) and (place / CHECKPOINTS).is_dir()
        if stopped:
            talk(f"what was trained is kept: go on with --out {shlex.quote(str(place))} --resume")
        raise


def extract(
    source: DataArgument,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The HDF5 file to write; never overwritten."
        ),
    ],
    backbone: OptionalBackboneOption = None,
    weights: WeightsOption = None,
    arguments: ArgumentOption = None,
    pooling: PoolingOption = "avg",
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    allow_empty_class: AllowEmptyOption = False,
    label_from_name: NamesOption = None,
    root: RootOption = None,
    follow_links: FollowLinksOption = False,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the features of all pictures to HDF5: features, labels and label_names."""
    given = dict(locals())
    from regraft.backbones.spec import Compute
    from regraft.experiment.extraction import extract_to_file
    from regraft.experiment.preparation import DataPlan
    from regraft.features.extractor import FeatureExtractor

    extractor = FeatureExtractor(
        read_spec(chosen_backbone(backbone), weights, arguments),
        pooling=pooling,
        compute=Compute(engine=engine, precision=precision, cache=None if no_cache else "default"),
        verbose=not as_json,
    )
    written = extract_to_file(
        DataPlan.of(given),
        extractor,
        out,
    )
    if as_json:
        say_json(written.to_json())
        return
    say(str(out))
    talk(f"{written.images} rows of {written.columns} numbers; {written.embedded} images embedded")


def refused_code(*runs: Run) -> int:
    """Return the exit code of runs that are finished: 3 where pictures were left out of some."""
    return EXIT_REFUSED if any((run.check or {}).get("bad") for run in runs) else 0


def cost_line(run: Run) -> str:
    """Return what a run took: epochs of training, and images that passed through the trunk."""
    epochs = run.data.get("epochs")
    trained = "" if epochs is None else f"{epochs} epochs of training; "
    cached = ", the others came from the cache" if run.images_embedded < run.images else ""
    return f"{trained}{run.images_embedded} of {run.images} images embedded{cached}"


def command_line() -> str:
    """Return the command as it was typed, quoted for a shell."""
    return shlex.join(["regraft", *sys.argv[1:]])
