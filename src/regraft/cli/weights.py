"""Commands for the store of weights: `weights list | fetch | import | verify | path`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import ArgumentOption, read_arguments
from regraft.cli.output import JsonOption, say, say_json, talk
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.backbones.spec import Preprocessing

weights = typer.Typer(
    help="The weights of networks: what is here, and how more come in.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.add_typer(weights, name="weights")


@weights.command("list")
def list_stored(*, as_json: JsonOption = False) -> None:
    """List the weights in the store."""
    from regraft.backbones.weights import list_weights, store
    from regraft.report.tables import Table

    found = list_weights()
    if as_json:
        say_json({"weights": [stored.to_json() for stored in found]})
        return
    rows = tuple((w.name, w.backbone, w.licence, w.source, w.sha256[:16]) for w in found)
    table = Table(("name", "backbone", "licence", "source", "SHA-256"), rows)
    say(table.to_text())
    if not found:
        talk(f"nothing in {store()} yet; see `regraft weights fetch` and `regraft weights import`")


@weights.command("fetch")
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAMES…")], *, as_json: JsonOption = False
) -> None:
    """Download weights from their public home into the store."""
    from regraft.backbones.weights import fetch_weights

    stored = [fetch_weights(name, verbose=not as_json) for name in names]
    if as_json:
        say_json({"weights": [w.to_json() for w in stored]})
        return
    for w in stored:
        say(f"{w.name}\t{w.backbone}\t{w.licence}\t{w.sha256}")


@weights.command("import")
def import_file(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A .safetensors file, or .pth as PyTorch saves it."),
    ],
    *,
    name: Annotated[
        str, typer.Option("--name", help="The name under which they are used from now on.")
    ] = "",
    backbone: Annotated[
        str, typer.Option("--backbone", metavar="NAME", help="The network they belong to.")
    ] = "",
    arguments: ArgumentOption = None,
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
    interpolation: Annotated[str | None, typer.Option(help="bicubic, bilinear or nearest.")] = None,
    licence: Annotated[str, typer.Option(help="The licence they come under.")] = "unknown",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace weights of the same name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a file of weights with its preprocessing into the store, under your own name."""
    from regraft.backbones.weights import import_weights

    if not name or not backbone:
        raise UsageError(
            "weights need a name and a network",
            hint="--name my_mobilenet --backbone mobilenetv2_100 (see `regraft backbones list`)",
        )
    changes = {
        "mean": _channels(mean),
        "std": _channels(std),
        "scale": scale,
        "channels": channels,
        "size": size,
        "resize": resize,
        "interpolation": interpolation,
    }
    stored = import_weights(
        file,
        name=name,
        backbone=backbone,
        arguments=read_arguments(arguments),
        preprocessing=_preprocessing(backbone, read_arguments(arguments), changes),
        licence=licence,
        overwrite=overwrite,
    )
    if as_json:
        say_json(stored.to_json())
        return
    say(f"{stored.name}\t{stored.backbone}\t{stored.licence}\t{stored.sha256}")
    talk(f"preprocessing: {stored.preprocessing}")
    for note in stored.notes:
        talk(f"note: {note}")
    talk(f"use it with --backbone {stored.name}")


@weights.command("verify")
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAMES…]", help="All, unless named.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> int:
    """Compare stored weights with the SHA-256 that was written down when they came in."""
    from regraft.backbones.weights import verify_weights

    outcomes = verify_weights(names)
    if as_json:
        verified = [
            {"name": name, "ok": not problem, "problem": problem}
            for name, problem in outcomes.items()
        ]
        say_json({"verified": verified})
    else:
        for name, problem in outcomes.items():
            say(f"{name}\t{problem or 'ok'}")
    return 1 if any(outcomes.values()) else 0


@weights.command("path")
def show_path() -> None:
    """Print the folder of the store; copied whole, it brings all weights to another machine."""
    from regraft.backbones.weights import store

    say(str(store()))


def _channels(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            "not a number per channel", path=text, hint="write 0.5 or 0.485,0.456,0.406"
        ) from error
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UsageError(
            "three channels need three numbers", path=text, hint="write 0.5 or 0.485,0.456,0.406"
        )
    return values[0], values[1], values[2]


def _preprocessing(
    backbone: str, arguments: tuple[tuple[str, Any], ...], changes: dict[str, Any]
) -> Preprocessing | None:
    """Return the network's usual preprocessing with the options' changes, None without any."""
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        return None
    from dataclasses import replace

    from regraft.backbones.spec import BackboneSpec

    usual = BackboneSpec(backbone, weights=None, arguments=arguments).build().preprocessing
    if "size" in changes:
        usual = usual.at_size(changes["size"])
    return replace(usual, **changes)
