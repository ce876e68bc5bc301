"""Commands that compute features and learn: `fit extract compare run find-lr`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import regraft.cli.options as cli
from regraft.cli.options import Fields, FormatOption, JsonOption, arg, opt
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.experiment.config import DataConfig, MethodConfig
    from regraft.experiment.export import Exported
    from regraft.results.run import Run

_PAGE = "comparison.html"

DryRunOption = Annotated[bool, opt("Only say what would be run, and how long.", panel="Output")]
ResumeOption = Annotated[bool, opt("Resume what was stopped in --out.", panel="Output")]
RunOutOption = Annotated[Path | None, cli.out("Where the run is written.")]
TableOutOption = Annotated[Path | None, cli.out("Where runs, table and page are written.")]


def fit(
    data: DataConfig,
    method: MethodConfig,
    *,
    out: RunOutOption = None,
    resume: ResumeOption = False,
    tensorboard: Annotated[Path | None, cli.out("Also write events for TensorBoard here.")] = None,
    export: Annotated[
        bool, opt("Also write the model as `regraft export` does.", panel="Output")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Transfer a network to your images and measure it on some of them kept apart."""
    if resume and out is None:
        raise UsageError("--resume needs the folder of the run", hint="name it with --out FOLDER")
    from regraft.experiment.config import RunConfig
    from regraft.results.comparison import RunStore
    from regraft.results.run import CHECKPOINTS

    config = RunConfig(data, method)
    if data.holds_features:
        from regraft.experiment.features_file import fit_features

        if resume or tensorboard or export or dry_run:
            what = "--resume, --tensorboard, --export and --dry-run do nothing with such a file"
            raise UsageError(what, path=data.source)
        place = out or RunStore(Path("runs")).free_folder(f"{data.source.stem} {method.label}")
        run = fit_features(config, out=place, command=cli.command_line())
        return _echo_fitted(run, as_json=as_json)
    from regraft.experiment import batch
    from regraft.experiment.plan import Plan, PlannedRow
    from regraft.experiment.run import fit_run
    from regraft.training.callbacks import TensorBoard

    if dry_run:
        rows = (PlannedRow(config.description, (config,)),)
        table = batch.dry_run(Plan("", rows))
        cli.echo_either(cli.table_json(table), table, as_json=as_json)
        return 0
    name = f"{data.source.stem} {method.backbone} {method.label}"
    place = out or RunStore(Path("runs")).free_folder(name)
    try:
        run = fit_run(
            config,
            out=place,
            command=cli.command_line(),
            resume=resume,
            callbacks=() if tensorboard is None else [TensorBoard(tensorboard)],
            verbose=not as_json,
        )
    except BaseException as error:
        if not isinstance(error, Exception) and (place / CHECKPOINTS).is_dir():
            folder = shlex.quote(str(place))
            cli.echo_err(f"what was trained is kept: resume it with --out {folder} --resume")
        raise
    return _echo_fitted(run, export=export, as_json=as_json)


def _echo_fitted(run: Run, *, export: bool = False, as_json: bool) -> int:
    from regraft.report.tables import parts_table
    from regraft.results.run import MODEL, REPORT

    if not as_json:
        cli.echo_table(parts_table(run.metrics))
    deployed = _exported(run.folder) if export else None
    if as_json:
        told = {"deployed": deployed.to_json()} if deployed else {}
        cli.echo_json(run.result() | told)
        return cli.refused_code(run)
    if deployed:
        cli.echo(str(deployed))
    found = run.record
    trained = "" if found.epochs is None else f"{found.epochs} epochs of training; "
    cached = ", the others came from the cache" if found.images_embedded < found.images else ""
    if found.images:
        cli.echo_err(f"{trained}{found.images_embedded} of {found.images} images embedded{cached}")
    for warning in found.warnings:
        cli.echo_err(f"warning: {warning}")
    cli.echo_err(f"page:   {run.folder / REPORT}")
    if (run.folder / MODEL).is_dir():
        cli.echo_err(f"next:   regraft predict {shlex.quote(str(run.folder))} IMAGES")
    return cli.refused_code(run)


def _exported(folder: Path) -> Exported:
    from regraft.experiment.export import export_run

    return export_run(folder)


def extract(
    data: Annotated[
        DataConfig, Fields("source group_by allow_empty_class label_from_name root follow_links")
    ],
    method: Annotated[
        MethodConfig, Fields("backbone weights arguments pooling device engine precision cache")
    ],
    *,
    out: Annotated[Path, opt("The HDF5 file to write; never overwritten.", "FILE", "--out", "-o")],
    pixels: Annotated[bool, opt("Write the images as the network gets them, with means.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the features of all images to HDF5: features, labels and label_names."""
    from regraft.backbones.backbone import build
    from regraft.experiment.run import extract_features, extract_pixels
    from regraft.features.extractor import FeatureExtractor

    if pixels:  # trained weights are not needed
        images, means = extract_pixels(data, build(replace(method.spec, weights=None)), out)
        told = {"file": str(out), "images": images, "means": means}
        cli.echo_either(told, str(out), as_json=as_json)
        shown = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        cli.echo_err(f"{images} images; means: {shown}, also in {out.with_suffix('.json')}")
        return
    extractor = FeatureExtractor(
        method.spec, pooling=method.pooling, compute=method.compute, verbose=not as_json
    )
    stats, columns = extract_features(data, extractor, out)
    facts = {"file": str(out), "images": stats.images, "columns": columns}
    facts |= {"embedded": stats.embedded, "seconds": round(stats.seconds, 3)}
    cli.echo_either(facts, str(out), as_json=as_json)
    cli.echo_err(f"{stats.images} rows of {columns} numbers; {stats.embedded} images embedded")


def compare(
    data: Annotated[DataConfig, Fields(without="folds fold")],
    method: Annotated[MethodConfig, Fields("weights arguments device engine precision explain")],
    *,
    backbone: Annotated[list[str] | None, opt("A network, or several times one.", "NAME")] = None,
    seeds: Annotated[int, opt("Run every method with so many seeds on one split.", min=1)] = 1,
    splits: Annotated[int, opt("Run every method on so many different splits.", min=1)] = 1,
    folds: Annotated[int | None, opt("Cut so many folds; each is the test once.", min=2)] = None,
    methods: Annotated[
        str, opt("Which strategies stand in the table, with commas between them.", "NAMES")
    ] = "features,frozen,fine_tune,two_stage,from_scratch",
    augment: Annotated[bool, opt("Whether augmented variants of what is trained do, too.")] = True,
    regularize: Annotated[bool, opt("Whether regularized variants do, too.")] = True,
    per_class: Annotated[
        list[int] | None, opt("Learn from N images of each class, too; or several N.", "N", min=1)
    ] = None,
    at_most: Annotated[bool, opt("With --per-class, take all of a class with fewer.")] = False,
    budget: Annotated[str, opt("How long it may take: 90s, 20m, 2h, or none.", "TIME")] = "20m",
    out: TableOutOption = None,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> int:
    """Try the methods of transferring a network, cheapest first, and put them in one table."""
    from regraft.backbones.catalog import DEFAULT_BACKBONE
    from regraft.experiment.compare import CompareConfig
    from regraft.experiment.compare import compare as compare_methods
    from regraft.experiment.config import read_minutes
    from regraft.experiment.prepare import Clock
    from regraft.report.comparison_page import write_comparison

    minutes = None if budget == "none" else read_minutes(budget, option="--budget")
    if backbone is None:
        cli.echo_default(DEFAULT_BACKBONE)
    named = list(dict.fromkeys(backbone or [DEFAULT_BACKBONE]))
    if len(named) > 1 and (method.weights != "default" or method.arguments):
        raise UsageError("--weights and --arg go with one --backbone")
    folder = out or Path("runs") / f"compare-{data.source.absolute().stem}"
    config = CompareConfig(
        data=data,
        backbones=tuple(replace(method, backbone=name) for name in named),
        methods=tuple(methods.split(",")),  # type: ignore[arg-type]  # a wrong name is refused
        augment=augment,
        regularize=regularize,
        seeds=seeds,
        splits=splits,
        folds=folds,
        per_class=tuple(per_class or ()),
        at_most=at_most,
        budget=None if minutes is None else 60 * minutes,
    )
    comparison = compare_methods(
        config,
        folder,
        clock=Clock(config.budget, begun=cli.STARTED.get("at")),
        command=cli.command_line(),
        verbose=not as_json,
        say=cli.echo_err,
    )
    page = write_comparison(comparison, folder / _PAGE) if comparison.rows else None
    return cli.echo_comparison(comparison, page, form=form, as_json=as_json)


def run(
    plan: Annotated[Path, arg("A TOML file, or the run.json of a finished run.", "PLAN")],
    *,
    data: Annotated[
        list[str] | None, opt("The images, if elsewhere; or NAME=FOLDER for each.", "FOLDER")
    ] = None,
    only: Annotated[list[str] | None, opt("Run this row alone, or several.", "ROW")] = None,
    small: Annotated[bool, opt("Run the small size that the plan describes.")] = False,
    jobs: Annotated[int, opt("How many runs at the same time; they share the cores.", min=1)] = 1,
    explain: Annotated[
        bool, opt("Explain the images on the pages of runs.", panel="Output")
    ] = True,
    out: TableOutOption = None,
    dry_run: DryRunOption = False,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> int:
    """Run a plan: finished runs are skipped, and a killed one resumes where it was."""
    from regraft.experiment import batch
    from regraft.experiment.plan import read_plan

    planned = read_plan(plan, small=small, data=data or ())
    planned = planned.only(only) if only else planned
    if dry_run:
        table = batch.dry_run(planned)
        cli.echo_either(cli.table_json(table), table, as_json=as_json, form=form)
        return 0
    folder = out or Path("runs") / f"{plan.stem}{'-small' if small else ''}"
    runner = batch.PlanRunner(
        folder,
        command=cli.command_line(),
        verbose=not as_json,
        say=cli.echo_err,
        explain=explain,
    )
    comparison, page = batch.compare_rows(
        runner.run(planned, jobs=jobs),
        folder / _PAGE,
        title=planned.title or plan.stem,
        faithful=not small,
        warnings=(planned.note,) if planned.note else (),
        command=runner.command,
    )
    return cli.echo_comparison(comparison, page, form=form, as_json=as_json)


def find_lr(
    data: Annotated[DataConfig, Fields(without="folds fold")],
    method: Annotated[
        MethodConfig,
        Fields(
            "backbone weights arguments unfreeze head optimizer augment regularize views batch_size"
            " class_weight focal sampling output start device engine precision",
            own="strategy",
        ),
    ],
    *,
    strategy: Annotated[  # noqa: ARG001 - it is a field of the method
        Literal["frozen", "fine_tune", "from_scratch"],
        opt("What is trained of the network, as for `fit`.", panel="Method"),
    ] = "frozen",
    steps: Annotated[int, opt("How many steps.", min=10)] = 100,
    out: Annotated[Path | None, cli.out("Draw the curve here, an SVG.", "FILE")] = None,
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
    trainer = build(method, verbose=not as_json).trainer(train.paths, train.labels)
    found = search_rate(trainer, steps=steps)
    if out is not None:
        figure = lr_figure(found.rates, found.losses, found.suggestion)
        write_text(out, standalone(figure) + "\n")
        cli.echo_err(f"curve:  {out}")
    if as_json:
        cli.echo_json({**to_json(found), "bad_files": [error.to_json() for error in bad]})
    elif found.suggestion is None:
        cli.echo_err("no rate lowers the loss: try more --steps or another --batch-size")
    else:
        cli.echo(f"{found.suggestion:.2g}")
        cli.echo_err(f"next:   regraft fit with the same options and --lr {found.suggestion:.2g}")
    return cli.echo_refused(bad, as_json=as_json)


COMMANDS: dict[str, Any] = {"fit": fit, "extract": extract, "compare": compare}
COMMANDS |= {"run": run, "find-lr": find_lr}
