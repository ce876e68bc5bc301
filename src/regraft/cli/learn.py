"""Commands that compute features and learn: `fit extract compare run find-lr`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regraft.cli.options import Fields, echo_default
from regraft.cli.output import (
    EXIT_FAILED,
    EXIT_REFUSED,
    FormatOption,
    JsonOption,
    TableFormat,
    echo,
    echo_err,
    echo_json,
    echo_refused,
    echo_table,
)
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.experiment.config import DataConfig, MethodConfig
    from regraft.results.comparison import Comparison
    from regraft.results.run import Run

_PAGE = "comparison.html"

OutOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where the run is written.", rich_help_panel="Output"),
]
TableOutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where runs, table and page are written.", rich_help_panel="Output"
    ),
]


def fit(
    data: DataConfig,
    method: MethodConfig,
    *,
    out: OutOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume the training that was stopped in the folder --out.",
            rich_help_panel="Output",
        ),
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write events for TensorBoard here.",
            rich_help_panel="Output",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Transfer a network to your images and measure it on some of them kept apart."""
    if resume and out is None:
        raise UsageError("--resume needs the folder of the run", hint="name it with --out FOLDER")
    from regraft.experiment.config import RunConfig
    from regraft.experiment.run import fit_run
    from regraft.report.tables import parts_table
    from regraft.results.store import RunStore
    from regraft.training.callbacks import TensorBoard

    name = f"{data.source.stem} {method.backbone} {method.label}"
    place = out or RunStore(Path("runs")).free_folder(name)
    with _said_what_is_kept(place):
        run = fit_run(
            RunConfig(data, method),
            out=place,
            command=_command_line(),
            resume=resume,
            callbacks=() if tensorboard is None else [TensorBoard(tensorboard)],
            verbose=not as_json,
        )
    if as_json:
        echo_json(run.result())
        return _refused_code(run)
    echo_table(parts_table(run.metrics))
    echo_err(_cost(run))
    for warning in run.record.warnings:
        echo_err(f"warning: {warning}")
    echo_err(f"page:   {run.folder / 'report.html'}")
    echo_err(f"next:   regraft predict {shlex.quote(str(run.folder))} IMAGES")
    return _refused_code(run)


def extract(
    data: Annotated[
        DataConfig, Fields("source allow_empty_class label_from_name root follow_links")
    ],
    method: Annotated[
        MethodConfig, Fields("backbone weights arguments pooling device engine precision cache")
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The HDF5 file to write; never overwritten."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Write the features of all images to HDF5: features, labels and label_names."""
    from regraft.experiment.run import extract_features
    from regraft.features.extractor import FeatureExtractor

    extractor = FeatureExtractor(
        method.spec,
        pooling=method.pooling,
        compute=method.compute,
        verbose=not as_json,
    )
    stats, columns = extract_features(data, extractor, out)
    if as_json:
        facts = {"file": str(out), "images": stats.images, "columns": columns}
        echo_json({**facts, "embedded": stats.embedded, "seconds": round(stats.seconds, 3)})
        return
    echo(str(out))
    echo_err(f"{stats.images} rows of {columns} numbers; {stats.embedded} images embedded")


def compare(
    data: Annotated[DataConfig, Fields(without="folds fold")],
    method: Annotated[MethodConfig, Fields("weights arguments device engine precision")],
    *,
    backbone: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A network to transfer; may be given several times."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Run every method with so many seeds, on the same split.")
    ] = 1,
    splits: Annotated[
        int, typer.Option(min=1, help="Run every method on so many different splits.")
    ] = 1,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cut the images into so many folds; each is the test once."),
    ] = None,
    per_class: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Learn from N images of each class, too; may be given several times.",
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="How long it may take: 90s, 20m, 2h, or none.")
    ] = "20m",
    out: TableOutOption = None,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> int:
    """Try the methods of transferring a network, cheapest first, and put them in one table."""
    from regraft.backbones.catalog import DEFAULT_BACKBONE
    from regraft.experiment.compare import CompareConfig
    from regraft.experiment.compare import compare as compare_methods
    from regraft.experiment.config import read_minutes
    from regraft.report.comparison_page import write_comparison

    minutes = None if budget == "none" else read_minutes(budget, option="--budget")
    if backbone is None:
        echo_default(DEFAULT_BACKBONE)
    named = list(dict.fromkeys(backbone or [DEFAULT_BACKBONE]))
    if len(named) > 1 and (method.weights != "default" or method.arguments):
        raise UsageError("--weights and --arg go with one --backbone")
    folder = out or Path("runs") / f"compare-{data.source.absolute().stem}"
    config = CompareConfig(
        data=data,
        backbones=tuple(replace(method, backbone=name) for name in named),
        seeds=seeds,
        splits=splits,
        folds=folds,
        per_class=tuple(per_class or ()),
        budget=None if minutes is None else 60 * minutes,
    )
    comparison = compare_methods(
        config, folder, command=_command_line(), verbose=not as_json, say=echo_err
    )
    page = write_comparison(comparison, folder / _PAGE) if comparison.rows else None
    return _show(comparison, page, form=form, as_json=as_json)


def run(
    plan: Annotated[
        Path,
        typer.Argument(metavar="PLAN", help="A TOML file, or the run.json of a finished run."),
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The images, if not those that the plan names."),
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
    out: TableOutOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume a plan that was begun in --out.", rich_help_panel="Output"
        ),
    ] = False,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> int:
    """Run a plan: finished runs are skipped, and a killed one resumes where it was."""
    from regraft.errors import RunError
    from regraft.experiment.batch import RUNS, PlanRunner
    from regraft.experiment.plan import read_plan
    from regraft.experiment.warnings import comparison_warnings
    from regraft.report.comparison_page import write_comparison
    from regraft.results.comparison import Comparison

    planned = read_plan(plan, small=small, data="" if data is None else str(data))
    if only:
        planned = planned.only(only)
    folder = out or Path("runs") / f"{plan.stem}{'-small' if small else ''}"
    if resume and not (folder / RUNS).is_dir():
        raise RunError(
            "there is nothing to resume",
            path=folder,
            hint="leave resume (--resume) out to begin anew",
            code="RUN-RESUME",
        )
    runner = PlanRunner(folder, command=_command_line(), verbose=not as_json, say=echo_err)
    outcome = runner.run(planned, jobs=jobs)
    comparison = Comparison.of(
        outcome.rows,
        title=planned.title or plan.stem,
        failures=outcome.failures,
        faithful=not small,
        warnings=(
            *((planned.note,) if planned.note else ()),
            *comparison_warnings([(row.description, row.runs) for row in outcome.rows]),
        ),
        command=_command_line(),
    )
    page = write_comparison(comparison, folder / _PAGE) if outcome.rows else None
    return _show(comparison, page, form=form, as_json=as_json)


def find_lr(
    data: Annotated[DataConfig, Fields(without="folds fold")],
    method: Annotated[
        MethodConfig,
        Fields(
            "backbone weights arguments unfreeze head optimizer augment regularize views batch_size"
            " class_weight sampling output start device engine precision",
            own="strategy",
        ),
    ],
    *,
    strategy: Annotated[  # noqa: ARG001 - it is a field of the method
        Literal["frozen", "fine_tune", "from_scratch"],
        typer.Option(
            help="What is trained of the network, as for `fit`.", rich_help_panel="Method"
        ),
    ] = "frozen",
    lowest: Annotated[float, typer.Option(help="The rate of the first step.", min=0)] = 1e-6,
    highest: Annotated[float, typer.Option(help="The rate of the last step.", min=0)] = 1.0,
    steps: Annotated[int, typer.Option(help="How many steps.", min=10)] = 100,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the curve here, an SVG.", rich_help_panel="Output"),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Train for a few steps with a rising learning rate, and suggest one for `fit`.

    Only images that `fit` with the same options would learn from are looked at.
    """
    if out is not None and out.suffix.lower() != ".svg":
        raise UsageError("the curve is an SVG file", path=out, hint="end its name in .svg")
    from regraft.experiment.prepare import prepare, take_amount
    from regraft.experiment.run import build
    from regraft.files import write_text
    from regraft.report.figures import lr_figure, standalone
    from regraft.settings import to_json
    from regraft.training.lr_finder import search_rate

    prepared = prepare(data, verbose=not as_json)
    train, bad = take_amount(prepared.split.train, method), prepared.report.bad
    learner = build(method, verbose=not as_json)
    found = search_rate(
        learner, train.paths, train.labels, lowest=lowest, highest=highest, steps=steps
    )
    if out is not None:
        figure = lr_figure(found.rates, found.losses, found.suggestion)
        write_text(out, standalone(figure) + "\n")
    if as_json:
        drawn = None if out is None else str(out)
        refused = [error.to_json() for error in bad]
        echo_json({**to_json(found), "figure": drawn, "bad_files": refused})
        return EXIT_REFUSED if bad else 0
    if found.suggestion is None:
        echo_err("no rate lowers the loss: try more --steps, another range or --batch-size")
    else:
        echo(f"{found.suggestion:.2g}")
        echo_err(f"next:   regraft fit with the same options and --lr {found.suggestion:.2g}")
    if out is not None:
        echo_err(f"curve:  {out}")
    echo_refused(bad)
    return EXIT_REFUSED if bad else 0


@contextmanager
def _said_what_is_kept(place: Path) -> Iterator[None]:
    """Say, when a training is stopped from outside, how to resume it."""
    from regraft.results.run import CHECKPOINTS

    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and (place / CHECKPOINTS).is_dir():
            again = f"--out {shlex.quote(str(place))} --resume"
            echo_err(f"what was trained is kept: resume it with {again}")
        raise


def _show(comparison: Comparison, page: Path | None, *, form: TableFormat, as_json: bool) -> int:
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
    return _refused_code(*(run for row in comparison.rows for run in row.runs))


def _cost(run: Run) -> str:
    """Return what a run took: epochs of training, and images that passed through the trunk."""
    epochs = run.record.epochs
    trained = "" if epochs is None else f"{epochs} epochs of training; "
    cached = (
        ", the others came from the cache" if run.record.images_embedded < run.record.images else ""
    )
    return f"{trained}{run.record.images_embedded} of {run.record.images} images embedded{cached}"


def _refused_code(*runs: Run) -> int:
    """Return the exit code of runs that are finished: 3 where images were left out of some."""
    return EXIT_REFUSED if any((run.check or {}).get("bad") for run in runs) else 0


def _command_line() -> str:
    """Return the command as it was typed, quoted for a shell."""
    return shlex.join(["regraft", *sys.argv[1:]])


COMMANDS: dict[str, Any] = {
    "fit": fit,
    "extract": extract,
    "compare": compare,
    "run": run,
    "find-lr": find_lr,
}
