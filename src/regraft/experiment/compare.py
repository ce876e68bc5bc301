"""All methods of transferring a network on one folder of images, as far as a time budget allows."""

from __future__ import annotations

import math
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import RunError, UsageError
from regraft.experiment.batch import Outcome, PlanRunner, Say
from regraft.experiment.config import Count, DataConfig, MethodConfig, RunConfig
from regraft.experiment.plan import Plan, PlannedRow, repeated
from regraft.experiment.warnings import comparison_warnings
from regraft.features.extractor import FeatureExtractor
from regraft.files import make_folder, read_json, write_json
from regraft.report.tables import Duration
from regraft.results.comparison import Comparison, Row
from regraft.settings import from_json, settings_class, to_json
from regraft.training.phases import Phase

STATE = "compare.json"
CLASSIFIERS = ("logistic", "linear_svm", "knn")
VIEWS = 4  # augmented views per image for a frozen trunk: they are cached, as images are
_STRATEGIES: tuple[dict[str, Any], ...] = (
    {"strategy": "frozen", "epochs": 30},
    {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 10, "lr": 3e-4},
    {"strategy": "two_stage", "unfreeze": 0.5, "epochs": 10, "head_epochs": 10, "lr": 3e-4},
    {"strategy": "fine_tune", "unfreeze": 1.0, "epochs": 10, "lr": 3e-4},
    {"strategy": "from_scratch", "epochs": 20},
)
_VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"regularize": "standard"},
    {"regularize": "standard", "augment": "standard"},
)
_SHORTER = (1.0, 0.5, 0.25)  # of the epochs: what is tried before a method is left out
_CHEAP = 0.05  # of the budget: what a method may take to come before the baseline from scratch
_SPARE = 0.9  # of the budget; estimates err
_BASELINE = 0.3  # of the budget is kept for the baseline from scratch
_GUARD = 1.25  # times its estimate a run may be trained before it is stopped
_SHORTEST = 10  # seconds of such a limit
_FEW = 16  # images that are embedded, and trained on, to see how long one takes
_OVERHEAD = 3.0  # seconds of a run for the page, the files and what is built
_SHALLOW = 4e-4  # seconds per image and class to fit a shallow classifier with its grid
_HEAD = 2e-4  # seconds per image and epoch to train a head on kept rows
_FORWARD = 0.35  # of a training step: the forward pass alone, for validation
_LEAST, _MOST = 0.5, 4.0  # how far one surprise may change the estimates


@settings_class(kw_only=True)
class CompareConfig:
    """What shall be compared.

    Args:
        data: The images and their split.
        backbones: Each network, with what its methods share, such as ``device``.
        seeds: Run every method with so many seeds, on the same split.
        splits: Run every method on so many different splits.
        folds: Cut the images into so many folds; each is the test once.
        per_class: Learn from so many images of each class, too.
        at_most: With per_class, take all images of a class that has fewer.
        budget: Seconds for everything; None for as many as it takes.

    Raises:
        UsageError: A field is out of range, or both splits and folds are given.

    Example:
        >>> config = CompareConfig(data=DataConfig("flowers"), backbones=[MethodConfig()], seeds=3)
        >>> config.title, config.repeats
        ('Methods compared on flowers', 3)
    """

    data: DataConfig
    backbones: Annotated[tuple[MethodConfig, ...], Field(min_length=1)]
    seeds: Count = 1
    splits: Count = 1
    folds: Annotated[int, Field(ge=2)] | None = None
    per_class: tuple[Count, ...] = ()
    at_most: bool = False
    budget: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.splits > 1 and self.folds:
            hint = "give one of them"
            raise UsageError("splits and folds are two ways to repeat", hint=hint)

    @property
    def title(self) -> str:
        """What the table is called."""
        return f"Methods compared on {self.data.source.name}"

    @property
    def repeats(self) -> int:
        """How many runs each method has."""
        return self.seeds * self.splits * (self.folds or 1)

    @property
    def seconds(self) -> float:
        """The budget, however large."""
        return math.inf if self.budget is None else self.budget

    def plan(self, choices: Sequence[Choice]) -> Plan:
        """Return what was chosen as a plan."""
        first, data = self.data.seed, replace(self.data, folds=self.folds)
        splits, folds = range(first, first + self.splits), range(self.folds or 1)
        rows: list[PlannedRow] = [
            repeated(data, choice.method, splits=splits, folds=folds, seeds=range(choice.seeds))
            for choice in choices
        ]
        return Plan(self.title, tuple(rows))


@dataclass(frozen=True)
class Candidate:
    """One method that may be run.

    Args:
        method: Its settings.
        essential: Whether it is run whatever the budget.
        estimate: Seconds that one run of it is expected to take.
    """

    method: MethodConfig
    essential: bool = False
    estimate: float = 0.0

    @property
    def description(self) -> str:
        """The line that tells it from the others."""
        return self.method.title

    @property
    def is_baseline(self) -> bool:
        """Whether it is the training from scratch that all others are measured by."""
        return self.essential and self.method.strategy == "from_scratch"


@settings_class(kw_only=True)
class Choice:
    """What is run of a candidate.

    Args:
        method: Its settings, perhaps with fewer epochs.
        seeds: How many seeds.
        note: What is not done as it should be, or nothing.
    """

    method: MethodConfig
    seeds: Count = 1
    note: str = ""


@dataclass
class Costs:
    """Seconds of runs.

    Args:
        images: How many there are in all.
        learned: How many of them are learned from.
        classes: How many classes they have.
        embed: Seconds per image and backbone through the trunk; cached images are not counted
            twice.
        step: Seconds per image and backbone of a training step through the whole network.

    Example:
        >>> costs = Costs(images=100, learned=60, classes=5, embed={"vgg16": 0.1}, step={})
        >>> round(costs.seconds(MethodConfig(backbone="vgg16")))
        13
    """

    images: int
    learned: int
    classes: int
    embed: Mapping[str, float]
    step: Mapping[str, float]
    embedded: set[str] = field(default_factory=set)
    surprise: float = 1.0

    def seconds(self, method: MethodConfig) -> float:
        """Return how long one run of a method takes."""
        name = method.backbone
        embed, step = self.embed.get(name, 0.0), self.step.get(name, 0.0)
        learned = min(self.learned, self.classes * (method.per_class or self.learned))
        first = 0.0 if name in self.embedded else embed * self.images
        if method.strategy == "features":
            return self.surprise * (_OVERHEAD + first + _SHALLOW * self.classes * learned)
        epochs, augmented = method.epochs or 0, method.augment is not None
        head = _HEAD * learned * (epochs + (method.head_epochs or 0))
        if method.strategy == "frozen":
            kept = embed * learned * (method.views or 0) if augmented else 0.0
            return self.surprise * (_OVERHEAD + first + kept + head)
        share = method.unfreeze if isinstance(method.unfreeze, float) else 1.0
        live = augmented or share == 1
        each = share * step + (embed if live else 0.0) * (1 - share) + 0.004 * augmented
        held = self.images - self.learned
        trained = epochs * (each * learned + _FORWARD * share * step * held / 2)
        once = (0.0 if live else embed) * (1 - share) * self.images
        predicted = _FORWARD * step * self.images
        return self.surprise * (_OVERHEAD + once + head + trained + predicted)

    def learn(self, method: MethodConfig, taken: float) -> None:
        """Take into account how many seconds a run really took."""
        expected = self.seconds(method)
        if taken > 2 * _OVERHEAD:  # what is mostly overhead tells little
            ratio = float(np.clip(taken / max(expected, 1e-9), _LEAST, _MOST))
            self.surprise *= ratio**0.5
        self.embedded.add(method.backbone)


def measure_costs(
    config: CompareConfig, paths: Sequence[Path], *, images: int, classes: int
) -> Costs:
    """Return what runs cost here, from a few images through each network.

    Raises:
        BackboneError: A network cannot be built.
        WeightsError: Its weights are not to be had.
    """
    specs = {method.backbone: method.spec for method in config.backbones}
    embed = {name: _embedding_seconds(spec, paths) for name, spec in specs.items()}
    step = {name: _step_seconds(spec) for name, spec in specs.items()}
    return Costs(images, len(paths), classes, embed, step)


def _embedding_seconds(spec: BackboneSpec, paths: Sequence[Path]) -> float:
    places = np.linspace(0, len(paths) - 1, min(_FEW + 1, len(paths))).round().astype(int)
    few = [paths[place] for place in places]
    # Nothing is kept, so that the figure is the same when all images are cached.
    extractor = FeatureExtractor(spec, compute=Compute(cache=None))
    extractor.stream(few[:1])  # builds the engine
    stats = extractor.stream(few[1:] or few).stats
    return stats.seconds / max(stats.images, 1)


def _step_seconds(spec: BackboneSpec) -> float:
    """Return what an image costs in an epoch in which the whole network is trained."""
    random = np.random.default_rng(0)
    drawn = list(random.integers(0, 256, (_FEW, 64, 64, 3), dtype=np.uint8))
    learner = NetworkClassifier(
        replace(spec, weights=None),
        phases=[Phase(unfreeze=1.0, epochs=3)],
        batch_size=_FEW,
        compute=Compute(cache=None),
    ).fit(drawn, ["a", "b"] * (_FEW // 2))
    # The first epoch pays for what is loaded and allocated.
    return float(min(epoch["seconds"] for epoch in learner.history_["epochs"][1:])) / _FEW


def candidates(config: CompareConfig) -> list[Candidate]:
    """Return what may be run, the methods that cost least first.

    The shallow classifiers of every backbone, and of the first one the frozen trunk with a new head
    and the training from scratch, are essential: without them nothing can be compared.

    Example:
        >>> config = CompareConfig(data=DataConfig("x"), backbones=[MethodConfig(backbone="vgg16")])
        >>> [one.description for one in candidates(config)][2:5]
        ['vgg16 + knn', 'vgg16 + frozen (linear)', 'vgg16 + from_scratch (linear)']
    """
    bases, (frozen, _, two_stage, _, scratch) = config.backbones, _STRATEGIES
    found = [
        Candidate(_method(base, {"classifier": name}), essential=True)
        for base in bases
        for name in CLASSIFIERS
    ]
    found += [Candidate(_method(bases[0], one), essential=True) for one in (frozen, scratch)]
    found += [
        Candidate(_method(base, {**one, "per_class": amount, "at_most": config.at_most}))
        for amount in config.per_class
        for base in bases
        for one in ({"classifier": CLASSIFIERS[0]}, frozen, two_stage)
    ]
    for strategy in _STRATEGIES:
        for variant in _VARIANTS:
            kept = strategy is frozen and "augment" in variant
            more = {**strategy, **variant, **({"views": VIEWS} if kept else {})}
            found += [Candidate(_method(base, more)) for base in bases]
    unique: dict[str, Candidate] = {}
    for one in found:
        unique.setdefault(one.description, one)
    return list(unique.values())


def _method(base: MethodConfig, changes: dict[str, Any]) -> MethodConfig:
    strategy = changes.get("strategy", "features")
    if strategy == "features":
        changes = {**changes, "device": "auto"}  # classifiers on features have no device
    if strategy == "from_scratch":
        changes = {**changes, "weights": "default"}  # it has no weights to begin with
    return replace(base, **changes)


def ordered(found: Sequence[Candidate], costs: Costs, *, cheap: float = 0.0) -> list[Candidate]:
    """Return candidates with their estimates, in the order in which they are run.

    First the essential ones but the baseline, then what is cheap, then the baseline from scratch,
    which takes a good part of a budget, and then the others by their cost.
    """
    known = [replace(one, estimate=costs.seconds(one.method)) for one in found]

    def turn(one: Candidate) -> tuple[int, float]:
        if one.essential:
            return (2, 0.0) if one.is_baseline else (0, 0.0)
        return (1 if one.estimate <= cheap else 3, one.estimate)

    return sorted(known, key=turn)


def with_second_chances(
    found: Sequence[Candidate], left_out: Container[str]
) -> Iterator[Candidate]:
    """Yield candidates in their order; after the baseline, what was left out before it.

    A share of the budget is kept for the baseline until then, and it may take less.
    """
    after = next((i for i, one in enumerate(found, start=1) if one.is_baseline), len(found))
    yield from found[:after]
    yield from [one for one in found[:after] if one.description in left_out]
    yield from found[after:]


def choose(
    one: Candidate, costs: Costs, config: CompareConfig, *, left: float
) -> tuple[Choice | None, float]:
    """Decide what of a candidate the rest of a budget allows.

    A method that is too long for what is left is tried with half and a quarter of its epochs, if it
    has any, and is left out then. Essential ones are shortened further, to one epoch and one seed,
    and never left out.

    Returns:
        What is run, None to leave it out, and how many seconds it takes or would have taken.
    """
    method, allowed = one.method, _SPARE * left
    if method.strategy == "features":
        needed = costs.seconds(method) * config.repeats
        fits = one.essential or needed <= allowed
        return (_choice(one, method, costs, config, config.seeds) if fits else None), needed
    if one.is_baseline:
        allowed = min(allowed, _BASELINE * config.seconds)
    whole = method.epochs or 1
    tried = [(config.seeds, max(1, round(share * whole))) for share in _SHORTER]
    if one.essential:
        tried = [(seeds, n) for seeds in (config.seeds, 1) for n in range(whole, 0, -1)]
    needed = 0.0
    for seeds, epochs in tried:
        shorter = replace(method, epochs=epochs)
        needed = costs.seconds(shorter) * config.repeats * seeds / config.seeds
        if needed <= max(allowed, 0.0) or (one.essential and (seeds, epochs) == tried[-1]):
            return _choice(one, shorter, costs, config, seeds), needed
    return None, needed


def _choice(
    one: Candidate, method: MethodConfig, costs: Costs, config: CompareConfig, seeds: int
) -> Choice:
    note = []
    if method.strategy != "features":
        limit = max(_SHORTEST, 5 * math.ceil(_GUARD * costs.seconds(method) / 5))
        method = replace(method, time_budget=limit / 60)
    if method.epochs != one.method.epochs:
        note.append(f"{method.epochs} of {one.method.epochs} epochs")
    if seeds < config.seeds:
        note.append(f"{seeds} of {config.seeds} seeds")
    return Choice(method=method, seeds=seeds, note=", ".join(note))


@settings_class(RunError, kw_only=True)
class State:
    """What was decided so far; on disk after each decision.

    Args:
        config: What shall be compared.
        choices: What is run.
        left_out: Why something is not, by its description.
        complete: Whether everything was run.
        spent: Seconds of the budget that are gone.
    """

    config: CompareConfig
    choices: tuple[Choice, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    spent: float = 0.0
    format: Literal["regraft-compare"] = "regraft-compare"


def read_state(folder: Path, config: CompareConfig) -> State:
    """Return what was decided in a folder before, as far as it holds for this comparison.

    Raises:
        RunError: Another comparison stands there (``RUN-EXISTS``), or something else.
    """
    file = folder / STATE
    if not file.is_file():
        return State(config=config)
    before = from_json(State, read_json(file), path=file)
    if replace(before.config, budget=None) != replace(config, budget=None):
        then, now = to_json(before.config), to_json(config)
        differing = [key for key in now if now[key] != then[key] and key != "budget"]
        raise RunError(
            "another comparison stands here",
            path=folder,
            why=f"it was asked for with another {', '.join(differing)}",
            hint="choose another folder with out (--out)",
            code="RUN-EXISTS",
        )
    # After a kill, and with another budget, what was left out gets another chance.
    if before.config == config:
        return before if before.complete else replace(before, left_out={})
    choices = before.choices
    if config.seconds > before.config.seconds:  # what was shortened, too
        choices = tuple(choice for choice in choices if not choice.note)
    return State(config=config, choices=choices)


def compare(
    config: CompareConfig,
    folder: Path,
    *,
    command: str = "",
    verbose: bool = False,
    say: Say = lambda _line: None,
) -> Comparison:
    """Run as many methods as the budget allows, and return what came out.

    The same call again does nothing but read; after a kill it resumes; with a larger budget it goes
    on from where it was, and what was shortened for the smaller one is run anew.

    Args:
        config: What shall be compared.
        folder: Where runs and decisions stand.
        command: How to repeat it.
        verbose: Whether the runs show their progress on standard error.
        say: Gets a line before each run, and the estimate before all of them.

    Raises:
        DataError: The images cannot be used.
        RunError: Another comparison stands in the folder (``RUN-EXISTS``), or the images are not
            those of its runs any more (``RUN-DATA-CHANGED``).
        RegraftError: A network cannot be had.
    """
    config = replace(
        config,
        data=config.data.absolute(),
        backbones=tuple(method.absolute() for method in config.backbones),
    )
    state = read_state(folder, config)
    runner = PlanRunner(folder, command=command, verbose=verbose)
    if state.complete:
        say("everything was run before")
        outcome = runner.run(config.plan(state.choices))
    else:
        make_folder(folder)
        comparing = _Comparing(state, runner, say)
        outcome = comparing.run()
        state = comparing.state
    places = {one.description: i for i, one in enumerate(candidates(config))}
    rows = sorted(outcome.rows, key=lambda row: places.get(row.description, len(places)))
    shortened = [
        f"{choice.method.title}: {choice.note} - the budget allows no more"
        for choice in state.choices
        if choice.note
    ]
    return Comparison.of(
        rows,
        title=config.title,
        left_out=(*shortened, *state.left_out.values()),
        failures=outcome.failures,
        warnings=tuple(comparison_warnings([(row.description, row.runs) for row in rows])),
        command=command,
    )


class _Comparing:
    """One comparison while it runs."""

    def __init__(self, state: State, runner: PlanRunner, say: Say) -> None:
        self.state, self.config = state, state.config
        self._runner, self._say = runner, say
        self._begun = time.perf_counter() - state.spent
        self._left_out = dict(state.left_out)

    def run(self) -> Outcome:
        costs = self._costs()
        found = candidates(self.config)
        found = ordered(found, costs, cheap=_CHEAP * self.config.seconds / self.config.repeats)
        limit = "" if self.config.budget is None else f" of {Duration(self.config.budget)}"
        whole = sum(one.estimate for one in found) * self.config.repeats
        methods = f"{len(found)} methods, {self.config.repeats} runs each"
        self._say(f"estimate: {methods}, about {Duration(min(whole, self.config.seconds))}{limit}")
        rows: list[Row] = []
        failures: list[str] = []
        fitted, has_baseline = 0, False
        known = {choice.method.title: choice for choice in self.state.choices}
        for one in with_second_chances(found, self._left_out):
            choice = known.get(one.description) or self._decide(one, costs, has_baseline)
            has_baseline |= one.is_baseline
            if choice is None:
                continue
            self._say(f"method {found.index(one) + 1} of {len(found)}: {self._told(one)}")
            outcome = self._runner.run(self.config.plan([choice]))
            rows += outcome.rows
            failures += outcome.failures
            fitted += outcome.fitted
            for failure in outcome.failures:
                self._say(f"failed: {failure}")
            for row in outcome.rows[: outcome.fitted]:
                costs.learn(choice.method, row.seconds)
        self._write(complete=not failures)
        return Outcome(tuple(rows), tuple(failures), fitted)

    @property
    def _spent(self) -> float:
        """Seconds of the budget that are gone, those before a kill among them."""
        return time.perf_counter() - self._begun

    def _write(self, **changes: Any) -> None:
        changes |= {"spent": round(self._spent, 1), "left_out": dict(self._left_out)}
        self.state = replace(self.state, **changes)
        write_json(self._runner.folder / STATE, to_json(self.state))

    def _decide(self, one: Candidate, costs: Costs, has_baseline: bool) -> Choice | None:
        """Return what the budget allows; a share of it is kept for the baseline."""
        left = self.config.seconds - self._spent
        if self.config.budget is not None and not has_baseline and not one.essential:
            left -= _BASELINE * self.config.budget
        choice, needed = choose(one, costs, self.config, left=left)
        if choice is None:
            shortened = " even with a quarter of its epochs" if one.method.epochs else ""
            why = f"{one.description}: about {Duration(needed)}{shortened}"
            self._left_out[one.description] = why
            self._write()
        else:
            self._left_out.pop(one.description, None)
            self._write(choices=(*self.state.choices, choice))
        return choice

    def _told(self, one: Candidate) -> str:
        if self.config.budget is None:
            return one.description
        left = Duration(max(0.0, self.config.budget - self._spent))
        return f"{one.description}; {left} of the budget left"

    def _costs(self) -> Costs:
        prepared = self._runner.prepared(RunConfig(self.config.data, self.config.backbones[0]))
        split = prepared.split
        self._say("a few images through each network, to see how long they take")
        return measure_costs(
            self.config,
            split.train.paths,
            images=sum(len(part) for part in split.parts().values()),
            classes=len(split.classes),
        )
