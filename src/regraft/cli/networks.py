"""Commands about networks and their weights: `backbones` and `weights`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import regraft.cli.options as cli
from regraft.cli.options import Fields, FormatOption, JsonOption, arg, opt
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.experiment.config import DataConfig, MethodConfig, Strategy

PageOption = Annotated[Path | None, cli.out("Also write a page: accuracy against cost.", "FILE")]
_COST = "Up and left is better; the area of a circle shows how many parameters a network has."


def list_networks(
    *,
    available: Annotated[bool, opt("Only networks whose weights are here.")] = False,
    out: PageOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the networks with a name here; every other timm or torchvision name works, too."""
    from regraft.backbones.catalog import list_backbones
    from regraft.backbones.published import is_here
    from regraft.report.tables import network_table

    found = [(entry, is_here(entry)) for entry in list_backbones()]
    found = [(entry, here) for entry, here in found if here or not available]
    table = network_table(found)
    told = [{**entry.summary, "here": here} for entry, here in found]
    cli.echo_either({"networks": told}, table, as_json=as_json)
    if out is not None:
        points = [
            (entry.name, facts.multiply_adds, entry.top1, facts.parameters)
            for entry, _ in found
            if (facts := entry.facts) is not None and entry.top1 is not None
        ]
        sections = [("Networks", table, "")]
        _write_page(out, "Networks to transfer", points, "published top-1 accuracy", sections)


def _write_page(
    out: Path, title: str, points: list[Any], accuracy: str, sections: list[Any]
) -> None:
    """Write a page with tables, and with accuracy against cost where both are known."""
    from regraft.report.figures import zoo
    from regraft.report.text import write_tables

    if points:
        sections = [("Accuracy against cost", zoo(points, accuracy=accuracy), _COST), *sections]
    cli.echo_err(f"page:   {write_tables(out, title, sections)}")


def show(
    backbone: Annotated[  # noqa: ARG001 - it is a field of the method
        str, arg("As `regraft backbones list` has it.", "NAME")
    ],
    method: Annotated[MethodConfig, Fields("weights arguments pooling", own="backbone")],
    *,
    top: Annotated[bool, opt("Include the network's own classifier.")] = False,
    layers: Annotated[bool, opt("List every layer, not a block of them as one.")] = False,
    classes: Annotated[int | None, opt("Show it with a new head for so many.", min=2)] = None,
    head: Annotated[str, opt("The new head, as in `fit`.", "NAME")] = "linear",
    unfreeze: Annotated[str | None, opt("What is trained of the trunk, as in `fit`.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a network's layers, parameters, stages and preprocessing."""
    from dataclasses import replace

    from regraft.backbones.backbone import build
    from regraft.backbones.network import total
    from regraft.report.tables import Table
    from regraft.settings import to_json
    from regraft.training.heads import find_head
    from regraft.training.network import phase_layers

    spec = method.spec
    built = build(replace(spec, weights=None if spec.weights == "default" else spec.weights))
    if classes is None:
        if head != "linear" or unfreeze is not None:
            raise UsageError("how large is the new head?", hint="give --classes NUMBER, too")
        every, listed = (built.layer_table(top=top, blocks=one) for one in (False, not layers))
    else:
        strategy: Strategy = "frozen" if unfreeze is None else "fine_tune"
        method = replace(method, strategy=strategy, head=head, unfreeze=unfreeze)
        phases, new = method.all_phases()[-1:], find_head(method.head)
        every, listed = (
            next(phase_layers(built, new, phases, outputs=classes, blocks=one))
            for one in (False, not layers)
        )
    size = total(every)
    stages = [stage.name for stage in built.stages]
    if as_json:
        facts = {"name": built.spec.name, "feature_dim": built.feature_dim, "stages": stages}
        facts |= {"preprocessing": to_json(built.preprocessing), "total": to_json(size)}
        cli.echo_json({**facts, "layers": to_json(listed)})
        return
    rows = tuple(
        (at, one.name, one.type, _shape(one.output_shape), one.parameters, one.trainable)
        for at, one in enumerate(listed)
    )
    cli.echo_table(Table(("", "layer", "type", "output", "parameters", "trainable"), rows))
    cli.echo(f"total: {size}\nfeatures: {built.feature_dim}\nstages: {', '.join(stages)}")
    cli.echo(f"preprocessing: {built.preprocessing}")


def _shape(shape: tuple[int, ...]) -> str:
    """Return a shape as papers print it: the channels of a map last."""
    channels, *sides = shape or ("",)
    return " × ".join(map(str, (*sides, channels)))


def rank(
    data: Annotated[DataConfig, Fields(without="folds fold")],
    method: Annotated[MethodConfig, Fields("engine")],
    *,
    names: Annotated[
        list[str] | None, opt("A network or group; by default all here.", "NAME", "--backbone")
    ] = None,
    budget: Annotated[str | None, opt("Leave out what takes longer: 90s, 2h.", "TIME")] = None,
    folds: Annotated[int, opt("Folds of the cross-validation.", min=2)] = 5,
    per_class: Annotated[int | None, opt("Use so many images of each class.", min=2)] = None,
    out: PageOption = None,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> int:
    """Rank networks by what simple classifiers make of their features, cross-validated.

    Nothing is trained or downloaded, and the test part of the split that `fit` would make is not
    looked at. Features are cached: a second call, and `fit`, compute none of them again.
    """
    from regraft.backbones.sources import find
    from regraft.experiment.config import read_minutes
    from regraft.experiment.prepare import Clock
    from regraft.experiment.rank import rank_backbones

    ranking = rank_backbones(
        data,
        names,
        folds=folds,
        clock=Clock(
            None if budget is None else 60 * read_minutes(budget, option="--budget"),
            begun=cli.STARTED.get("at"),
        ),
        per_class=per_class,
        compute=method.compute,
        verbose=not as_json,
    )
    table = ranking.table()
    told = {**cli.table_json(table), "bad_files": [error.to_json() for error in ranking.bad]}
    cli.echo_either(told, table, as_json=as_json, form=form)
    if out is not None:
        points = [
            (row.backbone, known.multiply_adds, row.accuracy.value, known.parameters)
            for row in ranking.rows
            if (known := find(row.backbone).facts) is not None
        ]
        title, sections = f"Networks for {data.source.stem}", [("Ranking", table, "")]
        _write_page(out, title, points, "accuracy of the linear probe", sections)
    return cli.echo_refused(ranking.bad, as_json=as_json)


def list_stored(*, as_json: JsonOption = False) -> None:
    """List the weights in the store."""
    from regraft.backbones.weights import list_weights, store
    from regraft.report.tables import Table
    from regraft.settings import to_json

    found = list_weights()
    rows = tuple((w.name, w.backbone, w.licence, w.source, w.sha256[:16]) for w in found)
    table = Table(("name", "backbone", "licence", "source", "SHA-256"), rows)
    told = {"store": str(store()), "weights": to_json(found)}
    cli.echo_either(told, table, as_json=as_json)
    cli.echo_err(f"in {store()}")


def path() -> None:
    """Print the folder of the store: copy it to carry weights to a machine without a network."""
    from regraft.backbones.weights import store

    cli.echo(str(store()))


def fetch(
    names: Annotated[list[str], arg("As `regraft backbones list` has them.", "NAMES…")],
) -> None:
    """Download weights from their public home into the store."""
    from regraft.backbones.sources import fetch_weights

    for name in names:
        w = fetch_weights(name)
        cli.echo(f"{w.name}\t{w.licence}\t{w.source}\t{w.sha256}")


def import_file(
    file: Annotated[Path, arg("A .safetensors, .pth or Keras' .h5 file.", "FILE")],
    method: Annotated[MethodConfig, Fields("arguments")],
    *,
    name: Annotated[str, opt("The name under which they are used from now on.")],
    backbone: Annotated[str, opt("The network they belong to.", "NAME")],
    preprocessing: Annotated[
        list[str] | None, opt("How images were prepared: size=224, mean=0.5,0.5,0.5.", "KEY=VALUE")
    ] = None,
    licence: Annotated[str, opt("The licence they come under.")] = "unknown",
    overwrite: Annotated[bool, opt("Replace weights of the same name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a file of weights with its preprocessing into the store, under your own name."""
    from regraft.backbones.sources import import_weights
    from regraft.settings import to_json

    stored = import_weights(
        file,
        name=name,
        backbone=backbone,
        arguments=method.arguments,
        preprocessing=cli.read_pairs(preprocessing or ()),
        licence=licence,
        overwrite=overwrite,
    )
    line = f"{stored.name}\t{stored.backbone}\t{stored.licence}\t{stored.sha256}"
    cli.echo_either(to_json(stored), line, as_json=as_json)
    for note in (f"preprocessing: {stored.preprocessing}", *stored.notes):
        cli.echo_err(note)
    cli.echo_err(f"use it with --backbone {stored.name}")


def verify(
    names: Annotated[list[str] | None, arg("All, unless named.", "[NAMES…]")] = None,
) -> int:
    """Compare stored weights with the SHA-256 that was written down when they came in."""
    from regraft.backbones.weights import verify_weights

    problems = verify_weights(names)
    if not problems:
        cli.echo_err("no weights are stored")
    for name, why in problems.items():
        cli.echo(f"{name}\t{why or 'ok'}")
    return cli.EXIT_FAILED if any(problems.values()) else 0


BACKBONES: dict[str, Any] = {"list": list_networks, "show": show, "rank": rank}
WEIGHTS: dict[str, Any] = {"list": list_stored, "path": path, "fetch": fetch}
WEIGHTS |= {"import": import_file, "verify": verify}
