"""Commands that look before anything is learned: `data check | split`, `backbones list | show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import (
    AllowEmptyOption,
    ArgumentOption,
    DataArgument,
    FoldOption,
    FoldsOption,
    FollowLinksOption,
    GroupByOption,
    KeepPartsOption,
    MaxBadOption,
    NamesOption,
    PoolingOption,
    RegroupOption,
    RootOption,
    SeedOption,
    SkipBadOption,
    SmallClassesOption,
    TestOption,
    ValOption,
    WeightsOption,
    read_spec,
)
from regraft.cli.output import EXIT_REFUSED, JsonOption, say, say_json, talk, talk_of_refused
from regraft.errors import DataError, RunError

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone

data = typer.Typer(help="Look at pictures before learning from them.", no_args_is_help=True)
backbones = typer.Typer(help="The networks that can be transferred.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.add_typer(data, name="data")
    app.add_typer(backbones, name="backbones")


@data.command("check")
def check_data(
    source: DataArgument,
    *,
    group_by: GroupByOption = None,
    label_from_name: NamesOption = None,
    root: RootOption = None,
    follow_links: FollowLinksOption = False,
    allow_empty_class: AllowEmptyOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Also write check.json and bad_files.csv here."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Decode every picture and list what is wrong: bad files, duplicates, groups in two parts."""
    given = dict(locals())
    from regraft.data.checks import check
    from regraft.experiment.preparation import DataPlan

    plan = DataPlan.of(given)
    report = check(plan.read(), verbose=not as_json)
    if out is not None:
        report.write(out)
    if as_json:
        say_json(report.to_json())
    else:
        say(report.to_text())
    return 1 if report.has_errors else 0


@data.command("split")
def split_data(
    source: DataArgument,
    *,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Where split.csv and split.json shall stand."),
    ],
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
    label_from_name: NamesOption = None,
    root: RootOption = None,
    follow_links: FollowLinksOption = False,
    skip_bad: SkipBadOption = False,
    max_bad: MaxBadOption = 0.01,
    as_json: JsonOption = False,
) -> int:
    """Cut the pictures into train, validation and test, and write the manifest with its hash."""
    given = dict(locals())
    from regraft.experiment.preparation import DataPlan

    _refuse_run(out)
    plan = DataPlan.of(given)
    prepared = plan.prepare(verbose=not as_json)
    split, bad = prepared.split, prepared.report.bad
    _refuse_other_split(out, split.hash)
    split.write(out)
    sizes = {name: len(part) for name, part in split.parts().items()}
    if as_json:
        refused = [error.to_json() for error in bad]
        head = {"hash": split.hash, "manifest": str(out / "split.csv"), "images": sizes}
        say_json({**head, "bad_files": refused})
    else:
        say("  ".join(f"{name} {size}" for name, size in sizes.items()))
        talk(f"written to {out / 'split.csv'}; hash {split.hash[:16]}")
        talk_of_refused(bad)
    return EXIT_REFUSED if bad else 0


def _refuse_run(folder: Path) -> None:
    from regraft.results.reservation import RECORD

    if (folder / RECORD).exists():
        raise RunError(
            "a finished run stands here",
            path=folder,
            why="its manifest says what it has learned",
            hint="choose another folder with --out",
            code="RUN-EXISTS",
        )


def _refuse_other_split(folder: Path, digest: str) -> None:
    from regraft.files import read_json

    file = folder / "split.json"
    if not file.exists():
        return
    written = read_json(file)
    if not isinstance(written, dict) or written.get("hash") != digest:
        raise DataError(
            "another split stands here",
            path=folder,
            why="what was measured on it could not be told from what is measured on this one",
            hint="choose another folder with --out, or delete that split",
            code="SPLIT-EXISTS",
        )


@backbones.command("list")
def list_backbones_command(*, as_json: JsonOption = False) -> None:
    """List the networks with a name here; every other timm or torchvision name works, too."""
    from regraft.backbones.catalog import list_backbones
    from regraft.report.tables import Table

    rows = tuple(
        (entry.name, "imported" if entry.path else entry.source, entry.licence, entry.title)
        for entry in list_backbones()
    )
    table = Table(("name", "source", "licence", "network"), rows)
    say(table.to_json() if as_json else table.to_text())


@backbones.command("show")
def show_backbone(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    weights: WeightsOption = None,
    arguments: ArgumentOption = None,
    pooling: PoolingOption = "avg",
    top: Annotated[
        bool, typer.Option("--top", help="Include the network's own classifier.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a network's layers, parameters, stages and preprocessing."""
    from dataclasses import asdict, replace

    from regraft.backbones.backbone import build
    from regraft.report.tables import Table

    spec = read_spec(name, weights, arguments, pooling=pooling)
    backbone = build(spec if weights is not None else replace(spec, weights=None))
    layers = backbone.layer_table(top=top)
    if as_json:
        say_json({**_facts(backbone), "layers": [asdict(layer) for layer in layers]})
        return
    rows = tuple(
        (
            str(layer.index),
            layer.name,
            layer.type,
            " × ".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}",
            "yes" if layer.trainable else "no",
        )
        for layer in layers
    )
    say(Table(("", "layer", "type", "output", "parameters", "trainable"), rows).to_text())
    for key, value in _facts(backbone).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        say(f"{key.replace('_', ' ')}: {shown}")


def _facts(backbone: Backbone) -> dict[str, object]:
    return {
        "name": backbone.spec.name,
        "parameters": backbone.parameters,
        "feature_dim": backbone.feature_dim,
        "stages": [stage.name for stage in backbone.stages],
        "preprocessing": backbone.preprocessing.to_json(),
    }
