"""From options to a learner: what each strategy takes, and how options are read.

The command line and plans use the same names; where the command line has text, a plan may have
tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.backbones.spec import BackboneSpec
    from regraft.classifiers.feature_classifier import FeatureClassifier
    from regraft.classifiers.network_classifier import NetworkClassifier
    from regraft.training.phases import Phase

Strategy = Literal["features", "frozen", "fine_tune", "two_stage", "from_scratch"]
DEFAULT_CLASSIFIER, DEFAULT_HEAD = "logistic", "linear"

# Which options only some strategies have; None: all but "features".
_ONLY: dict[str, tuple[Strategy, ...] | None] = {
    **dict.fromkeys(("classifier", "grid", "scale", "pooling"), ("features",)),
    "unfreeze": ("fine_tune", "two_stage"),
    "head_epochs": ("two_stage",),
    "start": ("frozen", "fine_tune", "two_stage"),
    **dict.fromkeys(
        ("head", "epochs", "optimizer", "lr", "augment", "regularize", "views", "batch_size")
    ),
    **dict.fromkeys(("class_weight", "output", "time_budget", "device", "resume", "tensorboard")),
    **dict.fromkeys(("phases", "sampling", "boundary")),
}
# What a list of phases says already.
_IN_PHASES = ("unfreeze", "epochs", "head_epochs", "optimizer", "lr")
_SPELLED = {"start": "--from"}
_HANDED_ON = (*("views", "batch_size", "class_weight", "sampling", "output", "start"),)
_UNITS = {"s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0, "": 1.0}


@dataclass(frozen=True, kw_only=True)
class LearnerOptions:
    """The options of `fit` that say how to learn; None where an option was not given.

    Args:
        strategy: What is trained of the network.
        classifier: The shallow classifier of ``"features"``.
        grid: The values that are tried for it: ``"default"``, ``"none"`` or a table of lists.
        scale: How the features are scaled for it.
        pooling: What becomes a row of features.
        unfreeze: What is trained of the trunk; see :func:`read_unfreeze`.
        phases: What is trained, phase by phase, in place of the strategy's own: tables with the
            fields of ``Phase``.
        head: The name of the new head, or a table as ``head_to_json`` writes it.
        epochs: Passes over the training pictures; of two stages, in the second.
        head_epochs: Of two stages, passes in the first.
        optimizer: The name of the optimizer.
        lr: The learning rate; of two stages, that of the second.
        augment: The name of an augmentation, ``KEY=VALUE,…``, or a table of its fields.
        regularize: The name of a regularization, ``KEY=VALUE,…``, or a table of its fields.
        views: How many augmented views of a picture there are.
        batch_size: Pictures per step.
        class_weight: ``"balanced"`` to weigh small classes up.
        sampling: ``"balanced"`` to draw all classes equally often.
        output: ``"softmax"`` or ``"sigmoid"``.
        start: The folder of a run to start from.
        time_budget: The longest time to train; see :func:`read_minutes`.
        boundary: How the activations of what is frozen are kept.
        device: Where to compute.
        tensorboard: A folder for TensorBoard's events.
        resume: Whether to go on with a run that was stopped.
        engine: What runs a frozen trunk.
        precision: Arithmetic of the network.
        cache: Whether features are kept for the next time.
        seed: What everything random is drawn from.
        verbose: Whether to show progress.

    Example:
        >>> LearnerOptions(strategy="two_stage", head="mlp_256").label
        'two_stage mlp_256'
    """

    strategy: Strategy = "features"
    classifier: str | None = None
    grid: str | Mapping[str, Sequence[Any]] | None = None
    scale: str | None = None
    pooling: str | None = None
    unfreeze: str | float | None = None
    phases: Sequence[Mapping[str, Any]] | None = None
    head: str | Mapping[str, Any] | None = None
    epochs: int | None = None
    head_epochs: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    augment: str | Mapping[str, Any] | None = None
    regularize: str | Mapping[str, Any] | None = None
    views: int | None = None
    batch_size: int | None = None
    class_weight: str | None = None
    sampling: str | None = None
    output: str | None = None
    start: Path | None = None
    time_budget: str | None = None
    boundary: str | None = None
    device: str | None = None
    tensorboard: Path | None = None
    resume: bool = False
    engine: str = "auto"
    precision: str = "fp32"
    cache: bool = True
    seed: int = 0
    verbose: bool = False

    @property
    def label(self) -> str:
        """What is learned, for the name of a folder."""
        if self.strategy == "features":
            return self.classifier or DEFAULT_CLASSIFIER
        head = self.head if isinstance(self.head, str) else (self.head or {}).get("kind")
        return f"{self.strategy} {head or DEFAULT_HEAD}"

    @classmethod
    def of(cls, given: dict[str, Any], **more: Any) -> LearnerOptions:
        """Return the options among those of a command, and more of them."""
        named = {field.name: given[field.name] for field in fields(cls) if field.name in given}
        return cls(**{**named, **more})


def build_learner(
    spec: BackboneSpec, options: LearnerOptions
) -> FeatureClassifier | NetworkClassifier:
    """Return the learner that the options describe.

    Args:
        spec: The network.
        options: What was given on the command line.

    Raises:
        UsageError: An option makes no sense with the strategy, or its value cannot be read.

    Example:
        >>> from regraft.backbones.spec import BackboneSpec
        >>> chosen = LearnerOptions(strategy="from_scratch", epochs=60)
        >>> net = build_learner(BackboneSpec("simple_cnn"), chosen)
        >>> net.backbone.weights, net.phases[0].epochs
        (None, 60)
    """
    from regraft.backbones.spec import Compute

    refuse_idle_options(options)
    shared: dict[str, Any] = {
        "compute": Compute(
            engine=_as_given(options.engine),
            precision=_as_given(options.precision),
            cache="default" if options.cache else None,
            device=options.device or "auto",
            boundary=_as_given(options.boundary or "auto"),
        ),
        "seed": options.seed,
        "verbose": options.verbose,
    }
    if options.strategy == "features":
        from regraft.classifiers.feature_classifier import FeatureClassifier

        grid = None if options.grid == "none" else options.grid or "default"
        return FeatureClassifier(
            spec,
            classifier=options.classifier or DEFAULT_CLASSIFIER,
            grid=grid,
            scale=options.scale or "auto",
            pooling=options.pooling or "avg",
            **shared,
        )
    return _network(spec, options, shared)


def refuse_idle_options(options: LearnerOptions) -> None:
    """Refuse options that would change nothing under the chosen strategy.

    Raises:
        UsageError: Naming the first such option and the strategies that have it.

    Example:
        >>> refuse_idle_options(LearnerOptions(strategy="frozen", classifier="knn"))
        Traceback (most recent call last):
        regraft.errors.UsageError: classifier (--classifier) does nothing with the strategy frozen \
- it goes with features
    """
    for name, strategies in _ONLY.items():
        given = getattr(options, name)
        if given is None or given is False:
            continue
        allowed = strategies or ("frozen", "fine_tune", "two_stage", "from_scratch")
        if options.strategy not in allowed:
            spelled = _SPELLED.get(name, "--" + name.replace("_", "-"))
            raise UsageError(
                f"{name} ({spelled}) does nothing with the strategy {options.strategy}",
                hint=f"it goes with {_or(allowed)}",
            )
    idle = [name for name in _IN_PHASES if getattr(options, name) is not None]
    if options.phases is not None and idle:
        raise UsageError(
            f"{idle[0]} does nothing beside phases", hint=f"give each phase its own {idle[0]}"
        )


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
    if text.startswith("last:"):
        if not text[5:].isdecimal():
            raise _unreadable(text)
        return {"unfreeze_last": int(text[5:])}
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return {"unfreeze_matching": text[1:-1]}
    try:
        share = float(text)
    except ValueError:
        if not text:
            raise _unreadable(text) from None
        return {"unfreeze_from": text}
    if not 0 <= share <= 1:
        raise _unreadable(text)
    return {"unfreeze": share}


def read_minutes(text: str, *, option: str = "--time-budget") -> float:
    """Return a time in minutes.

    Args:
        text: A number of minutes, or with a unit: ``90s``, ``10m``, ``1.5h``.
        option: Where it was given.

    Raises:
        UsageError: It is no time.

    Example:
        >>> read_minutes("10"), read_minutes("1.5h"), read_minutes("90s")
        (10.0, 90.0, 1.5)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip())
    minutes = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if minutes <= 0:
        raise UsageError("not a time", path=text, hint=f"write {option} 10m, 2h or 90s")
    return minutes


def _network(
    spec: BackboneSpec, options: LearnerOptions, shared: dict[str, Any]
) -> NetworkClassifier:
    from regraft.classifiers.network_classifier import NetworkClassifier
    from regraft.training.augment import Augmentation, find_augmentation
    from regraft.training.heads import find_head, head_from_json
    from regraft.training.regularize import Regularization, find_regularization

    if options.strategy == "from_scratch":
        if spec.weights != "default":
            raise UsageError(
                "--weights does nothing with --strategy from_scratch",
                hint="it begins with random weights; --strategy fine_tune begins with trained ones",
            )
        spec = replace(spec, weights=None, seed=options.seed)
    given: dict[str, Any] = {name: getattr(options, name) for name in _HANDED_ON}
    given["head"] = _built(options.head, lambda **fields: head_from_json(fields), "head")
    given["augment"] = _built(options.augment, Augmentation, "augment")
    given["regularize"] = _built(options.regularize, Regularization, "regularize")
    given["time_budget"] = options.time_budget and read_minutes(options.time_budget)
    given = {name: value for name, value in given.items() if value is not None}
    # A name that nobody knows is said now, not after all pictures were read.
    find_head(given.get("head", DEFAULT_HEAD))
    find_augmentation(given.get("augment"))
    find_regularization(given.get("regularize"))
    return NetworkClassifier(spec, phases=_phases(options), **given, **shared)


def _built(value: str | Mapping[str, Any] | None, make: Callable[..., Any], what: str) -> Any:
    """Return what a table describes; a name or nothing as it is."""
    if not isinstance(value, Mapping):
        return value
    try:
        return make(**value)
    except TypeError as error:  # an unknown field
        raise UsageError(f"{what} cannot be read", why=str(error)) from error


def _phases(options: LearnerOptions) -> list[Phase]:
    from regraft.training import phases

    if options.phases is not None:
        return [_built(phase, phases.Phase, "phases") for phase in options.phases]
    make: dict[str, Any] = {
        "frozen": phases.frozen,
        "fine_tune": phases.fine_tune,
        "two_stage": phases.two_stage,
        "from_scratch": phases.from_scratch,
    }
    given = {name: getattr(options, name) for name in ("epochs", "head_epochs", "optimizer", "lr")}
    given = {name: value for name, value in given.items() if value is not None}
    made: list[Phase] = make[options.strategy](**given)
    if options.unfreeze is not None:
        made[-1] = replace(made[-1], **{"unfreeze": 0.0, **read_unfreeze(options.unfreeze)})
    return made


def _unreadable(text: str) -> UsageError:
    return UsageError(
        "not a part of a network",
        path=text,
        hint="write --unfreeze 0.5 for a share of the stages, last:3, /regex/ or a stage's name",
    )


def _as_given(text: str) -> Any:
    return text  # Compute says which names there are


def _or(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
