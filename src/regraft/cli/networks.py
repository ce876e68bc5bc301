"""Commands about networks and their weights: `backbones` and `weights`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import Fields, read_pairs
from regraft.cli.output import (
    EXIT_FAILED,
    EXIT_REFUSED,
    FormatOption,
    JsonOption,
    echo,
    echo_err,
    echo_json,
    echo_refused,
    echo_table,
)
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.backbones.catalog import Entry
    from regraft.experiment.config import DataConfig, MethodConfig

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAMES…]", help="All, unless named.")
]
ArgOption = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="KEY=VALUE", help="An argument of the network."),
]


def list_networks(
    *,
    available: Annotated[
        bool, typer.Option("--available", help="Only networks whose weights are on this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the networks with a name here; every other timm or torchvision name works, too."""
    from regraft.backbones.catalog import GROUPS, list_backbones
    from regraft.backbones.published import is_here
    from regraft.report.tables import Table
    from regraft.settings import to_json

    here = {entry.name: is_here(entry) for entry in list_backbones()}
    entries = [entry for entry in list_backbones() if here[entry.name] or not available]
    if as_json:
        echo_json(
            {
                "networks": [
                    {
                        **{key: getattr(entry, key) for key in _SHOWN},
                        "permissive": entry.permissive,
                        "here": here[entry.name],
                        **(to_json(entry.facts) if entry.facts else {}),
                    }
                    for entry in entries
                ]
            }
        )
        return
    counted = ("M parameters", "G multiply-adds", "input", "features")
    columns = ("name", "network", "year", *counted, "licence", "here")
    for group, title in GROUPS.items():
        rows = tuple(
            _network_row(entry, here=here[entry.name]) for entry in entries if entry.group == group
        )
        if rows:
            echo(f"{title} ({group})")
            echo_table(Table(columns, rows))
    echo("* the licence of the weights does not allow every use")


_SHOWN = ("name", "title", "group", "year", "licence", "note", "source", "identifier")


def _network_row(entry: Entry, *, here: bool) -> tuple[str, ...]:
    facts = entry.facts
    numbers = [""] * 4
    if facts is not None:
        sizes = [facts.parameters / 1e6, facts.multiply_adds / 1e9]
        numbers = [*(f"{size:.2f}" for size in sizes), str(facts.size), str(facts.width)]
    licence = entry.licence if entry.permissive else f"{entry.licence} *"
    year = str(entry.year or "")
    return (entry.name, entry.title, year, *numbers, licence, "yes" if here else "")


def show(
    backbone: Annotated[  # noqa: ARG001 - it is a field of the method
        str, typer.Argument(metavar="NAME", help="As `regraft backbones list` has it.")
    ],
    method: Annotated[MethodConfig, Fields("weights arguments pooling", own="backbone")],
    *,
    top: Annotated[
        bool, typer.Option("--top", help="Include the network's own classifier.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a network's layers, parameters, stages and preprocessing."""
    from dataclasses import replace

    from regraft.backbones.backbone import build
    from regraft.report.tables import Table
    from regraft.settings import to_json

    spec = method.spec
    built = build(replace(spec, weights=None if spec.weights == "default" else spec.weights))
    layers = built.layer_table(top=top)
    facts = {
        "name": built.spec.name,
        "parameters": built.parameters,
        "feature_dim": built.feature_dim,
        "stages": [stage.name for stage in built.stages],
        "preprocessing": to_json(built.preprocessing),
    }
    if as_json:
        echo_json({**facts, "layers": to_json(layers)})
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
    echo_table(Table(("", "layer", "type", "output", "parameters", "trainable"), rows))
    for key, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        echo(f"{key.replace('_', ' ')}: {shown}")


def rank(
    data: Annotated[DataConfig, Fields(without="folds fold")],
    method: Annotated[MethodConfig, Fields("engine")],
    *,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="A network or a group of `regraft backbones list`, as often as wanted; without it,"
            " all whose weights are here.",
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
        int | None, typer.Option(help="Use so many images of each class.", min=2)
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate-preprocessing",
            help="Also show what each network would lose with a wrong preprocessing.",
        ),
    ] = False,
    form: FormatOption = "text",
    as_json: JsonOption = False,
) -> int:
    """Rank networks by what simple classifiers make of their features, cross-validated.

    Nothing is trained or downloaded, and the test part of the split that `fit` would make is not
    looked at. Features are cached: a second call, and `fit`, compute none of them again.
    """
    from regraft.experiment.config import read_minutes
    from regraft.experiment.rank import rank_backbones

    ranking = rank_backbones(
        data,
        names,
        folds=folds,
        budget=None if budget is None else 60 * read_minutes(budget, option="--budget"),
        per_class=per_class,
        ablate=ablate,
        compute=method.compute,
        verbose=not as_json,
    )
    if as_json or form == "json":
        echo_json(ranking.to_json())
    else:
        more = [ranking.ablation_table()] if ranking.ablated else []
        echo_table(ranking.table(), *more, form=form)
        echo_refused(ranking.bad)
    return EXIT_REFUSED if ranking.bad else 0


def list_stored(*, as_json: JsonOption = False) -> None:
    """List the weights in the store."""
    from regraft.backbones.weights import list_weights, store
    from regraft.report.tables import Table
    from regraft.settings import to_json

    found = list_weights()
    if as_json:
        echo_json({"weights": to_json(found)})
        return
    rows = tuple((w.name, w.backbone, w.licence, w.source, w.sha256[:16]) for w in found)
    echo_table(Table(("name", "backbone", "licence", "source", "SHA-256"), rows))
    if not found:
        echo_err(
            f"nothing in {store()} yet; see `regraft weights fetch` and `regraft weights import`"
        )


def path() -> None:
    """Print the folder of the store: copy it to carry weights to a machine without a network."""
    from regraft.backbones.weights import store

    echo(str(store()))


def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAMES…")], *, as_json: JsonOption = False
) -> None:
    """Download weights from their public home into the store."""
    from regraft.backbones.sources import fetch_weights
    from regraft.settings import to_json

    stored = [fetch_weights(name, verbose=not as_json) for name in names]
    if as_json:
        echo_json({"weights": to_json(stored)})
        return
    for w in stored:
        echo(f"{w.name}\t{w.licence}\t{w.source}\t{w.sha256}")


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .safetensors file, .pth as PyTorch saves it, or .h5 of Keras."
        ),
    ],
    *,
    name: Annotated[str, typer.Option(help="The name under which they are used from now on.")],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="The network they belong to.")],
    arguments: ArgOption = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Mean per channel of their preprocessing: 0.5 or 0.485,0.456,0.406."),
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Standard deviation per channel, written the same way.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="What pixels are divided by first: 255, or 1 for raw.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="Order of the channels: RGB or BGR.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the network's input in pixels.")] = None,
    resize: Annotated[
        int | None, typer.Option(help="Short side before the centre crop, in pixels.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="crop keeps the shape and cuts the rest away; squash does not."),
    ] = None,
    interpolation: Annotated[str | None, typer.Option(help="bicubic, bilinear or nearest.")] = None,
    licence: Annotated[str, typer.Option(help="The licence they come under.")] = "unknown",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace weights of the same name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a file of weights with its preprocessing into the store, under your own name."""
    from regraft.backbones.sources import import_weights
    from regraft.settings import to_json

    changes = {
        "mean": _channels(mean),
        "std": _channels(std),
        "scale": scale,
        "channels": channels,
        "size": size,
        "resize": resize,
        "mode": mode,
        "interpolation": interpolation,
    }
    stored = import_weights(
        file,
        name=name,
        backbone=backbone,
        arguments=read_pairs(arguments or ()),
        preprocessing={name: value for name, value in changes.items() if value is not None},
        licence=licence,
        overwrite=overwrite,
    )
    if as_json:
        echo_json(to_json(stored))
        return
    echo(f"{stored.name}\t{stored.backbone}\t{stored.licence}\t{stored.sha256}")
    echo_err(f"preprocessing: {stored.preprocessing}")
    for note in stored.notes:
        echo_err(f"note: {note}")
    echo_err(f"use it with --backbone {stored.name}")


def verify(names: NamesArgument = None, *, as_json: JsonOption = False) -> int:
    """Compare stored weights with the SHA-256 that was written down when they came in."""
    from regraft.backbones.weights import verify_weights

    problems = verify_weights(names)
    if as_json:
        verified = [{"name": n, "ok": not why, "problem": why} for n, why in problems.items()]
        echo_json({"verified": verified})
    else:
        for name, why in problems.items():
            echo(f"{name}\t{why or 'ok'}")
    return EXIT_FAILED if any(problems.values()) else 0


def _channels(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in {1, 3}:
        raise UsageError(
            "not a number per channel", path=text, hint="write 0.5 or 0.485,0.456,0.406"
        )
    return values * 3 if len(values) == 1 else values


BACKBONES: dict[str, Any] = {"list": list_networks, "show": show, "rank": rank}
WEIGHTS: dict[str, Any] = {
    "list": list_stored,
    "path": path,
    "fetch": fetch,
    "import": import_file,
    "verify": verify,
}
