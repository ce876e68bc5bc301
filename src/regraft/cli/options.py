"""Options that several commands share: a name, its meaning and its reading are written once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.cli.output import talk
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.backbones.spec import BackboneSpec


DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A folder with a folder per class (or train/val/test above them), or a CSV table with"
        " the columns path and label (and part: train, val or test; and group), or the split.csv of"
        " a written split.",
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
        help=f"The network to transfer; without it {DEFAULT_BACKBONE}.",
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
    Literal["fp32", "bf16"], typer.Option(help="Arithmetic of the network.")
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Keep pictures of one group together, read from the path: 'person[0-9]+';"
        " or 'column' for the table's group column.",
    ),
]
RegroupOption = Annotated[
    bool, typer.Option("--regroup", help="Cut anew where the folder's own parts share a group.")
]
KeepPartsOption = Annotated[
    bool,
    typer.Option(
        "--keep-parts",
        help="Keep the folder's own parts even where they share a group or copies; the test is"
        " then measured without these, too.",
    ),
]
FoldsOption = Annotated[
    int | None,
    typer.Option(help="Cut into so many folds, of which --fold is the test part.", min=2),
]
FoldOption = Annotated[
    int, typer.Option(help="Which of the folds is the test part, counted from 0.", min=0)
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
StrategyOption = Annotated[
    Literal["features", "frozen", "fine_tune", "two_stage", "from_scratch"],
    typer.Option(
        "--strategy",
        help="features: a classifier on features of the frozen network; frozen: a new head on it;"
        " fine_tune: head and trunk together; two_stage: the head first, then both; from_scratch:"
        " everything from random weights.",
    ),
]
ClassifierOption = Annotated[
    str | None,
    typer.Option(
        help="logistic, linear_svm, knn, random_forest, gradient_boosting or xgboost; with"
        " features only, there logistic unless named."
    ),
]
FeaturePoolingOption = Annotated[
    str | None,
    typer.Option(
        help="What becomes a row of features: avg, flatten or stage:NAME; with features only,"
        " there avg unless named."
    ),
]
UnfreezeOption = Annotated[
    str | None,
    typer.Option(
        metavar="PART",
        help="What fine_tune and two_stage train of the trunk: a share of its stages counted from"
        " the head (0.5), last:3 stages, from one stage on (its name, see `regraft backbones"
        " show`), or /REGEX/ on the names of parameters. By default all, of two_stage half.",
    ),
]
HeadOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The new head: linear (unless named), mlp_512_512, mlp_256, pooled_mlp_128,"
        " mlp_512_256, conv_1x1 or mlp_264_128_64_32.",
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="Passes over the training pictures: 30; of two_stage, in the second stage: 20."
    ),
]
HeadEpochsOption = Annotated[
    int | None, typer.Option(min=0, help="Passes of two_stage's first stage, the head alone: 10.")
]
OptimizerOption = Annotated[
    Literal["sgd", "rmsprop", "adam", "adamw", "nadam"] | None,
    typer.Option(help="How weights are changed: adamw unless named."),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--lr",
        min=0,
        help="Learning rate at the head; of two_stage, in the second stage. By default 0.001, where"
        " a trained trunk is trained 0.0001.",
    ),
]
AugmentOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="How training pictures are changed at random: a name such as standard, or settings:"
        " rotation=30,flip=true.",
    ),
]
RegularizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What keeps the network from learning by heart: a name or settings:"
        " label_smoothing=0.1.",
    ),
]
ViewsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How many augmented views each picture has; so few that they can be cached. By default"
        " a new one in every epoch.",
    ),
]
BatchSizeOption = Annotated[int | None, typer.Option(min=2, help="Pictures per step: 32.")]
ClassWeightOption = Annotated[
    Literal["balanced"] | None,
    typer.Option(help="balanced: each class counts the same, however many pictures it has."),
]
OutputOption = Annotated[
    Literal["softmax", "sigmoid"] | None,
    typer.Option(help="softmax (unless named), or sigmoid: one output for two classes."),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="RUN", help="Start from the network that an earlier run has trained."
    ),
]
TimeBudgetOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop training after so many minutes; also 90s, 10m or 2h."),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None, typer.Option(help="Where the network is trained.")
]
TensorboardOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Also write events for TensorBoard here.")
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the training that was stopped in the folder --out."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Where the run shall stand.")
]


def chosen_backbone(named: str | None) -> str:
    """Return the backbone that was named, or the default one and say so."""
    if named is not None:
        return named
    talk(
        f"no --backbone named: {DEFAULT_BACKBONE}, small and fast, is used;"
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
