"""One run as plain values: which images, which network, and how it learns.

``RunConfig`` is the only way from the command line, a plan, ``run.json`` and Python to a learner: a
field has one name, one meaning, one default and one check, all of which stand here.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from regraft.backbones import spec as networks
from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.data.split import PartSize, refuse_broken_numbers
from regraft.errors import UsageError
from regraft.files import sha256_json
from regraft.settings import AnyPath, PathText, changed_fields, from_json, hash_key, settings_class
from regraft.training import phases as library
from regraft.training.augment import AUGMENTATIONS, Augmentation, find_augmentation
from regraft.training.heads import HEADS, AnyHead, ConvHead, LinearHead, MLPHead, find_head
from regraft.training.phases import OptimizerName, Phase, Watched
from regraft.training.regularize import REGULARIZATIONS, Regularization, find_regularization

Strategy = Literal["features", "frozen", "fine_tune", "two_stage", "from_scratch"]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Report = dict[str, tuple[Share, Share, Share, Annotated[int, Field(ge=0)]]]
Plain = bool | int | float | str | tuple[bool | int | float | str, ...] | None
_UNITS = {"s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0, "": 1.0}
# Fields that only some strategies have.
_ONLY = {
    "features": "classifier grid scale pooling",
    "fine_tune two_stage": "unfreeze",
    "two_stage": "head_epochs",
    "frozen fine_tune two_stage": "start",
    "frozen fine_tune two_stage from_scratch": "head phases epochs optimizer lr augment regularize"
    " views batch_size class_weight focal sampling output time_budget boundary patience watch",
}
_IN_PHASES = "unfreeze epochs head_epochs optimizer lr patience watch"  # phases say it already
AMOUNTS = ("per_class", "size", "fraction")  # of the images to learn from
_NOT_COMPUTED = ("id", "description", "published", "cache", "explain")  # what changes no result
# What says how images are split, not which they are, and what only lets pass what is refused else.
_CUT = ("val", "test", "seed", "folds", "fold", "regroup", "keep_parts", "small_classes")
_ALLOW = ("skip_bad", "max_bad", "allow_empty_class", "follow_links")

# The fields that are options of the command line, as `--help` groups them.
_GROUPED = {
    "Data": "val test seed group_by regroup keep_parts folds fold small_classes allow_empty_class"
    " per_class size fraction at_most label_from_name root follow_links skip_bad max_bad",
    "Network": "backbone weights arguments",
    "Method": "strategy classifier scale pooling unfreeze head augment regularize views output"
    " start test_views",
    "Training": "epochs head_epochs optimizer lr batch_size class_weight focal sampling patience"
    " watch time_budget boundary device engine precision cache",
    "Output": "description explain",
}
PANELS = {panel: tuple(names.split()) for panel, names in _GROUPED.items()}


def read_minutes(text: str | float, *, option: str = "--time-budget") -> float:
    """Return a time in minutes, of a number of them or with a unit; ``option`` is for the error.

    Raises:
        UsageError: It is no time.

    Example:
        >>> read_minutes("10"), read_minutes("1.5h"), read_minutes("90s")
        (10.0, 90.0, 1.5)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", str(text).strip())
    minutes = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if minutes <= 0:
        raise UsageError("not a time", path=str(text), hint=f"write {option} 10m, 2h or 90s")
    return minutes


def read_unfreeze(value: str | float) -> dict[str, Any]:
    """Return what to train of a trunk, as fields of a ``Phase``.

    Args:
        value: A share of the stages counted from the head (``0.5``), ``last:3`` stages, ``/regex/``
            on the names of parameters, or the name of the first stage that is trained.

    Raises:
        UsageError: A number that is no share or no count.

    Example:
        >>> read_unfreeze("0.5"), read_unfreeze("last:3"), read_unfreeze("/norm/")
        ({'unfreeze': 0.5}, {'unfreeze_last': 3}, {'unfreeze_matching': 'norm'})
        >>> read_unfreeze("features.24")
        {'unfreeze_from': 'features.24'}
    """
    text = str(value)
    if text.startswith("last:") and text[5:].isdecimal():
        return {"unfreeze_last": int(text[5:])}
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return {"unfreeze_matching": text[1:-1]}
    try:
        share = float(text)
    except ValueError:
        if text and not text.startswith("last:"):
            return {"unfreeze_from": text}
        share = -1.0
    if not 0 <= share <= 1:
        hint = "write unfreeze 0.5 for a share of the stages, last:3, /regex/ or a stage's name"
        raise UsageError("not a part of a network", path=text, hint=hint)
    return {"unfreeze": share}


def _unfreeze(value: Any) -> Any:
    """Return a share as a number, however it was written."""
    readable = isinstance(value, str | int | float) and not isinstance(value, bool)
    return read_unfreeze(value).get("unfreeze", value) if readable else value


def _head(value: Any) -> Any:
    if isinstance(value, str):
        find_head(value)  # an unknown name is refused now, not after all images were read
    return from_json(AnyHead, value) if isinstance(value, Mapping) else value  # type: ignore[arg-type]


def _named(kind: type, presets: Iterable[str], find: Callable[[Any], Any]) -> BeforeValidator:
    """Return what reads a value with presets: their names stay, all else becomes the value."""

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in presets:
            return value
        return from_json(kind, value) if isinstance(value, Mapping) else find(value)

    return BeforeValidator(read)


def _preprocessing(value: Any) -> Any:
    """Return preprocessing from a table; an empty one stands for that of the weights."""
    if isinstance(value, Mapping):
        return from_json(Preprocessing, value) if value else None
    return value


HeadValue = Annotated[str | LinearHead | MLPHead | ConvHead, BeforeValidator(_head)]
AugmentValue = Annotated[
    str | Augmentation | None, _named(Augmentation, AUGMENTATIONS, find_augmentation)
]
RegularizeValue = Annotated[
    str | Regularization | None, _named(Regularization, REGULARIZATIONS, find_regularization)
]
Minutes = Annotated[
    Annotated[float, Field(gt=0)] | None,
    BeforeValidator(lambda value: read_minutes(value) if isinstance(value, str) else value),
]


@settings_class()
class DataConfig:
    """Which images there are, and how they are split.

    Args:
        source: A folder with a folder per class (or train/val/test above them), or a CSV table with
            the columns path and label (and part: train, val or test; and group), or the split.csv
            of a written split, which is then repeated exactly; for fit also an HDF5 file of
            features.
        val: Images for validation: below 1 a share, from 1 on so many of each class.
        test: Images for the test, in the same way.
        seed: Seed of the split.
        group_by: Keep images of one group together, read from the path: 'person[0-9]+'; or 'column'
            for the table's group column.
        regroup: Cut anew where the folder's own parts share a group.
        keep_parts: Keep the folder's own parts even where they share a group or copies; the test is
            then measured without these, too.
        folds: Cut into so many folds, of which one is the test part.
        fold: Which of the folds is the test part, counted from 0.
        small_classes: What to do with classes too small for every part: refuse them, or put them
            into train.
        allow_empty_class: Take class folders without images, too.
        follow_links: Take images that links outside the folder lead to.
        root: Where the paths in a CSV table begin; by default in its own folder.
        label_from_name: Read the class from the file name: '(?P<label>[a-z]+)[.]'.
        skip_bad: Go on without images that cannot be used, and list them.
        max_bad: With skip_bad, the largest share of images that may be left out.

    Raises:
        UsageError: A field is unknown or out of range.

    Example:
        >>> DataConfig("flowers17").test
        0.25
    """

    source: AnyPath
    val: PartSize = 0.15
    test: PartSize = 0.25
    seed: Seed = 0
    group_by: str | None = None
    regroup: bool = False
    keep_parts: bool = False
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    small_classes: Literal["refuse", "train"] = "refuse"
    allow_empty_class: bool = False
    follow_links: bool = False
    root: AnyPath | None = None
    label_from_name: str | None = None
    skip_bad: bool = False
    max_bad: Share = 0.01

    def __post_init__(self) -> None:
        refuse_broken_numbers(self.val, self.test)

    @property
    def holds_features(self) -> bool:
        """Whether it is a file of features, judged by its name."""
        return self.source.suffix.lower() in {".h5", ".hdf5"}

    @property
    def images_key(self) -> str:
        """Equal for the same images, however they are split."""
        return hash_key(self, without=_CUT)

    @property
    def split_key(self) -> str:
        """Equal for the same images that are split in the same way."""
        return hash_key(self, without=_ALLOW)

    def absolute(self, base: Path = Path()) -> Self:
        """Return the same with paths that do not depend on the current folder.

        Args:
            base: The folder that relative paths begin in.
        """
        root = None if self.root is None else _absolute(base, self.root)
        return dataclasses.replace(self, source=_absolute(base, self.source), root=root)


@settings_class(kw_only=True)
class MethodConfig:
    """Which network is transferred, and how it learns: one row of a plan.

    What a strategy has by itself (epochs, the optimizer, rates) is None until it is given.

    Args:
        id: What other rows of a plan call it.
        description: What the run is called in tables.
        published: What the source of the run printed: train, validation and test as shares,
            seconds, a note, and a report: precision, recall, F1 and images of each class.
        per_class: Learn from this many images of each class; the test part stays the same.
        size: Learn from this many images in all.
        fraction: Learn from this share of the training images.
        at_most: With per_class, take all images of a class that has fewer.
        backbone: The network to transfer: see `regraft backbones list`.
        weights: A file with the backbone's weights, or random; by default its trained ones.
        arguments: An argument of the network, for example pad_type=same.
        preprocessing: How an image becomes numbers, instead of what the weights want.
        strategy: features: a classifier on features of the frozen network; frozen: a new head on
            it; fine_tune: head and trunk together; two_stage: the head first, then both;
            from_scratch: everything from random weights.
        classifier: logistic, linear_svm, knn, random_forest, gradient_boosting or xgboost; with
            features only.
        grid: The values that are tried for the classifier: default, none, or lists by parameter.
        scale: How the features are scaled for the classifier: auto, unit, columns, principal or
            none.
        pooling: What becomes a row of features: avg, flatten or stage:NAME; with features only.
        unfreeze: What fine_tune and two_stage train of the trunk: a share of its stages counted
            from the head (0.5), last:3 stages, from one stage on (its name, see `regraft backbones
            show`), or /REGEX/ on the names of parameters. By default all, of two_stage half.
        phases: What is trained, phase by phase, in place of the strategy's own.
        head: The new head: linear, mlp_512_512, mlp_256, pooled_mlp_128, mlp_512_256, conv_1x1 or
            mlp_264_128_64_32.
        epochs: Passes over the training images: 30; of two_stage, in the second stage: 20.
        head_epochs: Passes of two_stage's first stage, the head alone: 10.
        optimizer: How weights are changed: adamw unless named.
        lr: Learning rate at the head; of two_stage, in the second stage. By default 0.001, where a
            trained trunk is trained 0.0001.
        augment: How training images are changed at random: a name such as standard, or settings:
            rotation=30,flip=true.
        regularize: What keeps the network from learning by heart: a name or settings:
            label_smoothing=0.1.
        views: How many augmented views each image has; so few that they can be cached. By default a
            new one in every epoch.
        batch_size: Images per step.
        class_weight: balanced: each class counts the same, however many images it has.
        focal: Focal loss with this gamma, such as 2: what is learned already counts less.
        sampling: balanced: all classes are drawn equally often.
        patience: Stop a phase after so many epochs in which what is watched did not get better.
        watch: What tells how good an epoch is, of which the best one stays: val_accuracy unless
            named.
        output: softmax, or sigmoid: one output for two classes.
        start: Start from the network that an earlier run has trained.
        test_views: Predict each test image by the mean of so many views: 2, with its mirror image,
            or 10, centre and corners with theirs.
        time_budget: Stop training after so many minutes; also 90s, 10m or 2h.
        boundary: How the activations of what is frozen are kept: in so many bits, or off.
        device: Where the network is trained.
        engine: What runs the frozen trunk.
        precision: Arithmetic of the network.
        cache: Keep the features for the next time.
        explain: Show class-activation maps, the nearest training images and maps of the data.
        seed: What everything random is drawn from, but the split.

    Raises:
        UsageError: A field is unknown, out of range, or does nothing with the strategy.

    Example:
        >>> MethodConfig(backbone="vgg16", strategy="two_stage", head="mlp_256").label
        'two_stage (mlp_256)'
        >>> MethodConfig(strategy="frozen", classifier="knn")
        Traceback (most recent call last):
        regraft.errors.UsageError: classifier does nothing with the strategy frozen - it goes with \
features
    """

    id: str | None = None
    description: str = ""
    published: dict[str, float | str | Report] | None = None
    per_class: Count | None = None
    size: Count | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    at_most: bool = False
    backbone: str = DEFAULT_BACKBONE
    weights: PathText = "default"
    arguments: dict[str, Plain] = dataclasses.field(default_factory=dict)
    preprocessing: Annotated[Preprocessing | None, BeforeValidator(_preprocessing)] = None
    strategy: Strategy = "features"
    classifier: str = "logistic"
    grid: Literal["default", "none"] | dict[str, tuple[Plain, ...]] = "default"
    scale: str = "auto"
    pooling: str = "avg"
    unfreeze: Annotated[float | str | None, BeforeValidator(_unfreeze)] = None
    phases: tuple[Phase, ...] | None = None
    head: HeadValue = "linear"
    epochs: Annotated[int, Field(ge=0)] | None = None
    head_epochs: Annotated[int, Field(ge=0)] | None = None
    optimizer: OptimizerName | None = None
    lr: Annotated[float, Field(gt=0)] | None = None
    augment: AugmentValue = None
    regularize: RegularizeValue = None
    views: Count | None = None
    batch_size: Annotated[int, Field(ge=2)] = 32
    class_weight: Literal["balanced"] | None = None
    focal: Annotated[float, Field(ge=0)] | None = None
    sampling: Literal["balanced"] | None = None
    patience: Count | None = None
    watch: Watched | None = None
    output: Literal["softmax", "sigmoid"] = "softmax"
    start: AnyPath | None = None
    test_views: Literal[1, 2, 10] = 1
    time_budget: Minutes = None
    boundary: networks.BoundaryChoice = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    engine: networks.EngineName = "auto"
    precision: networks.PrecisionName = "fp32"
    cache: bool = True
    explain: bool = True
    seed: Seed = 0

    def __post_init__(self) -> None:
        given = changed_fields(self)
        for strategies, names in _ONLY.items():
            idle = [name for name in names.split() if name in given]
            if idle and self.strategy not in strategies.split():
                what = f"{idle[0]} does nothing with the strategy {self.strategy}"
                raise UsageError(what, hint=f"it goes with {', '.join(strategies.split())}")
        idle = [name for name in _IN_PHASES.split() if name in given]
        if self.phases is not None and idle:
            hint = f"give each phase its own {idle[0]}"
            raise UsageError(f"{idle[0]} does nothing beside phases", hint=hint)
        trained = [phase for phase in self.phases or () if phase.epochs]
        if trained and (self.strategy == "frozen") == any(phase.opens_trunk for phase in trained):
            does = "trains the head alone" if self.strategy == "frozen" else "trains the trunk, too"
            what = f"the strategy {self.strategy} {does}, and its phases do not"
            hint = "unfreeze = 1.0 in a phase trains everything, without it the trunk is frozen"
            raise UsageError(what, hint=hint)
        if self.strategy == "from_scratch" and self.weights != "default":
            hint = "it begins with random weights; fine_tune begins with trained ones"
            raise UsageError("weights does nothing with the strategy from_scratch", hint=hint)
        if len(given.keys() & set(AMOUNTS)) > 1:
            raise UsageError("give one of per_class, size and fraction")
        if self.at_most and self.per_class is None:
            raise UsageError("at_most does nothing without per_class")

    @property
    def label(self) -> str:
        """What is learned, in a few words."""
        if self.strategy == "features":
            return self.classifier
        return f"{self.strategy} ({told(self.head)})"

    @property
    def title(self) -> str:
        """The description, or a line that tells the run from others in a table.

        Example:
            >>> MethodConfig(backbone="vgg16", classifier="knn", per_class=100).title
            'vgg16 + knn, 100 per class'
            >>> MethodConfig(backbone="vgg16", strategy="fine_tune", augment="standard").title
            'vgg16 + fine_tune (linear), augment standard'
        """
        views = "" if self.test_views == 1 else f", {self.test_views} test views"
        if self.description:
            return self.description + views
        text = f"{self.backbone} + {self.label}{views}"
        text += "" if self.unfreeze is None else f", unfreeze {self.unfreeze}"
        for name, value in (("regularize", self.regularize), ("augment", self.augment)):
            text += "" if value is None else f", {name} {told(value)}"
        most = "at most " if self.at_most else ""
        text += "" if self.per_class is None else f", {most}{self.per_class} per class"
        amounts = (("size", self.size), ("fraction", self.fraction))
        return text + "".join(f", {name} {told(n)}" for name, n in amounts if n is not None)

    @property
    def spec(self) -> BackboneSpec:
        """The network.

        Raises:
            BackboneError: An argument or the preprocessing is impossible.
        """
        random = self.strategy == "from_scratch" or self.weights == "random"
        return BackboneSpec(
            self.backbone,
            weights=None if random else self.weights,
            arguments=tuple(self.arguments.items()),
            preprocessing=self.preprocessing,
            seed=self.seed if random else 0,
        )

    @property
    def compute(self) -> Compute:
        """How numbers are computed and kept."""
        return Compute(
            device=self.device,
            engine=self.engine,
            precision=self.precision,
            cache="default" if self.cache else None,
            boundary=self.boundary,
        )

    def all_phases(self) -> tuple[Phase, ...]:
        """Return what is trained, phase by phase: those that are given, or the strategy's own."""
        if self.phases is not None or self.strategy == "features":
            return self.phases or ()

        def given(*names: str) -> dict[str, Any]:
            values = {name: getattr(self, name) for name in names}
            return {name: value for name, value in values.items() if value is not None}

        options = given("epochs", "head_epochs", "optimizer", "lr")
        made = getattr(library, self.strategy)(**options)
        stops = given("patience", "watch")
        *first, last = (dataclasses.replace(phase, **stops) for phase in made)
        if self.unfreeze is not None:
            last = dataclasses.replace(last, **{"unfreeze": 0.0, **read_unfreeze(self.unfreeze)})
        return (*first, last)

    def absolute(self, base: Path = Path()) -> Self:
        """Return the same with paths that do not depend on the current folder.

        Args:
            base: The folder that relative paths begin in; what is no file or run there, such as the
                id of a row to start from, stays as it is.
        """
        weights, start = self.weights, self.start
        if (base / Path(weights).expanduser()).is_file():
            weights = str(_absolute(base, Path(weights)))
        if start is not None and (base / start.expanduser()).is_dir():
            start = _absolute(base, start)
        return dataclasses.replace(self, weights=weights, start=start)


@settings_class()
class RunConfig:
    """One run: its images and its method.

    Args:
        data: Which images there are, and how they are split.
        method: Which network is transferred, and how it learns.

    Example:
        >>> run = RunConfig(DataConfig("flowers"), MethodConfig(backbone="vgg16", seed=3))
        >>> run.description, len(run.key)
        ('vgg16 + logistic', 8)
    """

    data: DataConfig
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)

    @property
    def description(self) -> str:
        """The line that tells it from others in a table."""
        return self.method.title

    @property
    def key(self) -> str:
        """Tells it from every run that computes something else, 8 hexadecimal digits."""
        method = hash_key(self.method, without=_NOT_COMPUTED)
        return sha256_json([hash_key(self.data), method])[:8]

    @property
    def link(self) -> str:
        """What stands for its run as the ``start`` of another, whatever it is called."""
        return f"run-{self.key}"

    @property
    def folder(self) -> str:
        """The name of its folder among the runs of a plan."""
        name = f"{self.method.id or ''} {self.description}".lower()
        plain = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:60].rstrip("-")
        return f"{plain or 'run'}-{self.key}"

    def absolute(self, base: Path = Path()) -> Self:
        """Return the same with paths that do not depend on the current folder."""
        return type(self)(self.data.absolute(base), self.method.absolute(base))


def told(value: Any) -> str:
    """Return a value as a few words, of settings those that differ from the defaults.

    Example:
        >>> told(Augmentation(rotation=30, flip=True)), told(MLPHead(widths=(64,), dropout=0.5))
        ('rotation=30,flip=true', 'mlp 64 dropout=0.5')
    """
    if hasattr(value, "kind"):  # a head
        name = next((name for name, known in HEADS.items() if known == value), None)
        rest = {k: item for k, item in changed_fields(value).items() if k != "widths"}
        return name or " ".join(
            filter(None, (value.kind, told(getattr(value, "widths", ())), told(rest)))
        )
    if dataclasses.is_dataclass(value):
        value = changed_fields(value)
    if isinstance(value, Mapping):
        return ",".join(f"{name}={told(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "-".join(map(told, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _absolute(base: Path, path: Path) -> Path:
    return Path(os.path.normpath((base / path.expanduser()).absolute()))
