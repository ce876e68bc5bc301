"""Options that several commands share: a name, its meaning and its reading are written once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regraft.cli.output import talk
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.backbones.spec import BackboneSpec

DEFAULT_BACKBONE = "regraft_mini"

DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A folder with a folder per class (or train/val/test above them), or a CSV table.",
    ),
]
BackboneOption = Annotated[
    str,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="The network to transfer: see `regraft backbones list`.",
        show_default=False,
    ),
]
OptionalBackboneOption = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help=f"The network to transfer; without it the packaged {DEFAULT_BACKBONE}.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="A file with the backbone's weights, instead of a download.",
    ),
]
ArgumentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--arg", metavar="KEY=VALUE", help="An argument of the network, for example pad_type=same."
    ),
]
PoolingOption = Annotated[
    str, typer.Option(help="What becomes a row of features: avg, flatten or stage:NAME.")
]
EngineOption = Annotated[
    Literal["auto", "torch", "openvino"], typer.Option(help="What runs the frozen trunk.")
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16"], typer.Option(help="Arithmetic of the frozen trunk.")
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Keep pictures of one group together, read from the path: 'person([0-9]+)';"
        " or 'column' for the table's group column.",
    ),
]
RegroupOption = Annotated[
    bool, typer.Option("--regroup", help="Cut anew where the folder's own parts share a group.")
]
AllowEmptyOption = Annotated[
    bool, typer.Option("--allow-empty-class", help="Take class folders without pictures, too.")
]
SmallClassesOption = Annotated[
    Literal["refuse", "train"],
    typer.Option(help="What to do with classes too small for every part: all into train?"),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option("--follow-links", help="Take pictures that links outside the folder lead to."),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="FOLDER", help="Where the paths in a CSV table begin."),
]
NamesOption = Annotated[
    str | None,
    typer.Option(
        "--label-from-name",
        metavar="REGEX",
        help="Read the class from the file name: '(?P<label>[a-z]+)[.]'.",
    ),
]
ValOption = Annotated[
    float, typer.Option(help="Share of the pictures for validation.", min=0, max=1)
]
TestOption = Annotated[
    float, typer.Option(help="Share of the pictures for the test.", min=0, max=1)
]
SeedOption = Annotated[
    int, typer.Option(help="Seed of the split and of the classifier.", min=0, max=2**32 - 1)
]
SkipBadOption = Annotated[
    bool,
    typer.Option("--skip-bad", help="Go on without pictures that cannot be used, and list them."),
]
MaxBadOption = Annotated[
    float,
    typer.Option(
        help="With --skip-bad, the largest share of pictures that may be left out.", min=0, max=1
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Where the run shall stand.")
]


def chosen_backbone(named: str | None) -> str:
    """Return the backbone that was named, or the packaged one and say so."""
    if named is not None:
        return named
    talk(
        f"no --backbone named: {DEFAULT_BACKBONE}, the small one inside the package, is used;"
        " larger ones are usually better, see `regraft backbones list`"
    )
    return DEFAULT_BACKBONE


def read_arguments(pairs: list[str] | None) -> tuple[tuple[str, Any], ...]:
    """Return ``KEY=VALUE`` texts as pairs; a JSON number or boolean becomes one.

    Raises:
        UsageError: A text has no ``=``.

    Example:
        >>> read_arguments(["pad_type=same", "channel_multiplier=0.5"])
        (('pad_type', 'same'), ('channel_multiplier', 0.5))
    """
    arguments = []
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(
                "not an argument of a network", path=pair, hint="write --arg KEY=VALUE"
            )
        arguments.append((key, _read_value(text)))
    return tuple(arguments)


def _read_value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def read_spec(
    backbone: str,
    weights: Path | None,
    arguments: list[str] | None,
    *,
    pooling: str = "avg",
) -> BackboneSpec:
    """Return the backbone that the options name.

    Raises:
        UsageError: The file of weights does not exist.
    """
    from regraft.backbones.spec import BackboneSpec

    if weights is not None and not weights.is_file():
        raise UsageError("no such file of weights", path=weights, hint="check --weights")
    return BackboneSpec(
        backbone,
        weights="default" if weights is None else str(weights),
        arguments=read_arguments(arguments),
        pooling=pooling,
    )
