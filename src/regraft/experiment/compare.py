"""All methods of transferring a network on one folder of images, as far as a time budget allows.

The methods stand on a ladder, what costs least and tells most first. Before one is begun, a small
piece of it is timed; what would not be done in time is left out. A training that takes longer than
it seemed stops itself, stands in the table as cut short, and is judged against nobody.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from regraft.data.dataset import Dataset
from regraft.errors import ImageError, RegraftError, RunError, UsageError
from regraft.experiment.batch import PlanRunner, Say, caught
from regraft.experiment.config import Count, DataConfig, MethodConfig, RunConfig, Strategy
from regraft.experiment.prepare import Clock, Passed, check_seconds, embed_in_pieces, read_images
from regraft.experiment.run import build
from regraft.experiment.warnings import comparison_warnings
from regraft.features.extractor import FeatureExtractor
from regraft.files import make_folder, read_json, write_json
from regraft.report.tables import Duration
from regraft.results.comparison import Comparison, Row
from regraft.settings import from_json, settings_class, to_json
from regraft.training.phases import Phase

STATE = "compare.json"
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
Step = dict[str, Any]
_SHALLOW: list[Step] = [{"classifier": name} for name in ("logistic", "linear_svm", "knn")]
_FROZEN: Step = {"strategy": "frozen", "epochs": 30}
_HALF: Step = {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 10, "lr": 3e-4}
_TWO_STAGE: Step = {**_HALF, "strategy": "two_stage", "head_epochs": 10}
_WHOLE: Step = {**_HALF, "unfreeze": 1.0}
# What transfer is measured by: a network that can be trained to its end in minutes.
_BASELINE: Step = {
    "strategy": "from_scratch",
    "backbone": "simple_cnn",
    "arguments": {"size": 96},
    "preprocessing": None,
    "head": "mlp_512_512",
    "epochs": 30,
}
_SCRATCH: Step = {"strategy": "from_scratch", "epochs": 20}
_VIEWS = 4  # augmented views per image for a frozen trunk: they are cached, as images are
_FEW = 8  # images that are trained on to see how long one takes
_MANY = 512  # images from which on it is tried how long a shallow classifier takes
_SPARE = 1.1  # times its estimate must be left for a method to be begun


@settings_class(kw_only=True)
class CompareConfig:
    """What shall be compared.

    Args:
        data: The images and their split.
        backbones: Each network, with what its methods share, such as ``device``.
        methods: Which strategies stand in the table.
        regularize: Whether regularized variants of what is trained do, too.
        augment: Whether augmented variants do.
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
        >>> len(config.runs(MethodConfig()))
        3
    """

    data: DataConfig
    backbones: Annotated[tuple[MethodConfig, ...], Field(min_length=1)]
    methods: Annotated[tuple[Strategy, ...], Field(min_length=1)] = STRATEGIES
    regularize: bool = True
    augment: bool = True
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

    def runs(self, method: MethodConfig) -> tuple[RunConfig, ...]:
        """Return the runs of a method, one for each seed and split or fold."""
        data, first = replace(self.data, folds=self.folds), self.data.seed
        return tuple(
            RunConfig(replace(data, seed=split, fold=fold), replace(method, seed=seed))
            for split in range(first, first + self.splits)
            for fold in range(self.folds or 1)
            for seed in range(self.seeds)
        )


def candidates(config: CompareConfig) -> list[MethodConfig]:
    """Return the methods of a comparison in the order in which they are run.

    Example:
        >>> config = CompareConfig(data=DataConfig("x"), backbones=[MethodConfig(backbone="vgg16")])
        >>> [method.title for method in candidates(config)][2:5]  # doctest: +NORMALIZE_WHITESPACE
        ['vgg16 + knn', 'vgg16 + frozen (linear)', 'vgg16 + fine_tune (linear), unfreeze 0.5']
    """
    variants: list[Step] = [{"regularize": "standard"}] if config.regularize else []
    if config.augment:
        variants.append({**(variants[0] if variants else {}), "augment": "standard"})

    def sizes(step: Step) -> list[Step]:
        at_most = config.at_most
        return [{**step, "per_class": count, "at_most": at_most} for count in config.per_class]

    def varied(variant: Step) -> list[Step]:
        views = {"views": _VIEWS} if "augment" in variant else {}
        others = (_HALF, _BASELINE, _TWO_STAGE, _WHOLE)
        return [{**_FROZEN, **variant, **views}, *({**step, **variant} for step in others)]

    steps = [
        *(*_SHALLOW, *sizes(_SHALLOW[0]), _FROZEN, *sizes(_FROZEN)),
        *(_HALF, _BASELINE, *sizes(_HALF), _TWO_STAGE, _WHOLE),
        *(step for variant in variants for step in varied(variant)),
        _SCRATCH,
    ]
    # Classifiers on features have no device, and what begins at random has no weights.
    without: dict[str, Step] = {
        "features": {"device": "auto"},
        "from_scratch": {"weights": "default"},
    }
    found: dict[str, MethodConfig] = {}
    for step in steps:
        strategy = step.get("strategy", "features")
        for base in config.backbones if strategy in config.methods else ():
            method = replace(base, **{**step, **without.get(strategy, {})})
            found.setdefault(method.title, method)
    return list(found.values())


@settings_class(RunError, kw_only=True)
class State:
    """What a comparison was asked for and left out; it stands in its folder.

    Args:
        config: What shall be compared.
        left_out: Why something is not, a sentence each.
        failures: What could not be finished.
        complete: Whether the last call came to its end.
    """

    config: CompareConfig
    left_out: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    complete: bool = False
    format: Literal["regraft-compare"] = "regraft-compare"


def compare(
    config: CompareConfig,
    folder: Path,
    *,
    clock: Clock | None = None,
    command: str = "",
    verbose: bool = False,
    say: Say = lambda _line: None,
) -> Comparison:
    """Run as many methods as the budget allows, and return what came out.

    The same call again does nothing but read. After a kill, and with a larger budget, it goes on:
    what is finished stays, what was left out gets another chance, and what was cut short is run
    anew.

    Args:
        config: What shall be compared.
        folder: Where runs and decisions stand.
        clock: Runs with the budget; it begins now if none is given.
        command: How to repeat it.
        verbose: Whether the runs show their progress on standard error.
        say: Gets a line before each method.

    Raises:
        DataError: The images cannot be used.
        RunError: Another comparison stands in the folder (``RUN-EXISTS``), or the images are not
            those of its runs any more (``RUN-CHANGED``).
        UsageError: The budget is too short for any method (``BUDGET``).
        RegraftError: A network cannot be had.
    """
    config = replace(
        config,
        data=config.data.absolute(),
        backbones=tuple(method.absolute() for method in config.backbones),
    )
    state = _read_state(folder, config)
    runner = PlanRunner(folder, command=command, verbose=verbose)
    longer = (config.budget or math.inf) > (state.config.budget or math.inf)
    if state.complete and not longer:
        say("everything was run before")
    else:
        make_folder(folder)
        write_json(folder / STATE, to_json(State(config=config)))
        ladder = _Ladder(config, runner, clock or Clock(config.budget), say, anew=longer)
        ladder.climb()
        left_out, failures = tuple(ladder.left_out.values()), tuple(ladder.failures)
        state = State(config=config, left_out=left_out, failures=failures, complete=not failures)
        write_json(folder / STATE, to_json(state))
    rows = []
    for method in candidates(config):
        runs = tuple(run for one in config.runs(method) if (run := runner.finished(one)))
        rows += [Row(method.title, runs)] if runs else []
    return Comparison.of(
        rows,
        title=f"Methods compared on {config.data.source.name}",
        left_out=state.left_out,
        failures=state.failures,
        warnings=tuple(comparison_warnings([(row.description, row.runs) for row in rows])),
        command=command,
    )


def _read_state(folder: Path, config: CompareConfig) -> State:
    """Return what stands in a folder, of the same comparison or of none; refuse anything else."""
    file = folder / STATE
    if not file.is_file():
        return State(config=config)
    state = from_json(State, read_json(file), path=file)
    then, now = to_json(state.config), to_json(config)
    for method in (*then["backbones"], *now["backbones"]):
        del method["explain"]
    differing = [key for key in now if now[key] != then[key] and key != "budget"]
    if differing:
        what, why = "another comparison stands here", f"with another {', '.join(differing)}"
        hint = "choose another folder with out (--out)"
        raise RunError(what, path=folder, why=why, hint=hint, code="RUN-EXISTS")
    return state


class Cost(NamedTuple):
    """What training costs, as a few images have shown."""

    once: float  # seconds for what is built
    each: float  # seconds of an epoch per image, validation included
    live: bool  # whether every step runs the whole network


@dataclass
class _Ladder:
    """One comparison while it runs; ``anew`` says that what was cut short is run again."""

    config: CompareConfig
    runner: PlanRunner
    clock: Clock
    say: Say
    anew: bool
    left_out: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _overhead: float = 3.0  # seconds of a run beside its fit, at first a guess
    _taken: dict[str, float] = field(default_factory=dict)  # seconds of a run, by its title
    _passed: dict[str, Passed] = field(default_factory=dict)  # by the name of the network
    _costs: dict[str, Cost] = field(default_factory=dict)
    _least: float = math.inf
    _images: Dataset = field(init=False)
    _train: Dataset = field(init=False)

    def climb(self) -> None:
        """Run every method for which there is time; where there is time for none, say so."""
        found = candidates(self.config)
        first = self.config.runs(found[0])[0]
        if self.config.budget is not None:
            self._refuse_too_short(first)
        data = self.runner.prepared(first)
        self._images, self._train = data.images, data.split.train
        for number, method in enumerate(found, start=1):
            left = f"; {Duration(max(self._left, 0.0))} left" if self.config.budget else ""
            self.say(f"method {number} of {len(found)}: {method.title}{left}")
            if isinstance(error := caught(self._run_all, method), RegraftError):
                self.failures.append(f"{method.title}: {error}")
                self.say(f"failed: {self.failures[-1]}")
        if self.config.budget is not None and len(self.left_out) == len(found):
            raise self.clock.too_short(self._least, "the quickest method")

    @property
    def _left(self) -> float:
        """Seconds that runs may take from now on; the page of them all comes after."""
        return self.clock.left - self._overhead

    def _refuse_too_short(self, first: RunConfig) -> None:
        """Say at once where not even the first method can be done, as a few images show."""
        images, method = read_images(first.data), first.method
        needed = check_seconds(images) + len(self.config.runs(method)) * self._overhead
        if method.strategy == "features":
            extractor = FeatureExtractor(method.spec, compute=method.compute)
            with contextlib.suppress(ImageError):  # the check says more of it
                passed = next(embed_in_pieces(extractor, images))
                needed += passed.left
        if needed > self._left:
            raise self.clock.too_short(needed + self._overhead, method.title)

    def _run_all(self, method: MethodConfig) -> None:
        """Run a method with all its repeats, or say why not."""
        configs = self.config.runs(method)
        for done, config in enumerate(configs):
            run = self.runner.finished(config)
            if run is not None and run.cut_short and self.anew:
                shutil.rmtree(run.folder)
            elif run is not None:
                continue
            waiting = len(configs) - done
            needed = self._seconds(method) * waiting
            # The network itself from random weights is run where half of its epochs fit.
            least = needed / 2 if method.epochs == _SCRATCH["epochs"] else needed
            if _SPARE * least > self._left:
                self._least = min(self._least, needed + self._overhead)
                which = f" for {waiting} of {len(configs)} runs" if len(configs) > 1 else ""
                takes = f"about {Duration(needed)}" if needed < math.inf else "no time was left"
                self.left_out[method.title] = f"{method.title}: {takes}{which}"
                return
            self._fit(config, waiting)

    def _fit(self, config: RunConfig, waiting: int) -> None:
        """Fit a run, which stops itself when its share of the time is over."""
        method, begun, limit = config.method, self.clock.spent, None
        if method.strategy != "features" and self.config.budget is not None:
            after = self._overhead + self._prediction(method)
            limit = max(self._left / waiting - after, 1.0) / 60
        run = self.runner.fit(config, time_budget=limit)
        self._taken[method.title] = self.clock.spent - begun
        steps = run.record.seconds
        self._overhead = self._taken[method.title] - steps["fit"] - steps["predict"]

    # ---- what runs cost

    def _seconds(self, method: MethodConfig) -> float:
        """Return how long a run takes, by an earlier one of it or by a small piece of it."""
        if self.config.budget is None:
            return 0.0
        if method.title in self._taken:
            return self._taken[method.title]
        learned = self._learned(method)
        if method.strategy in {"features", "frozen"}:
            passed = self._embedded(method)
            if passed.left:
                return passed.left
        if method.strategy == "features":
            return 2 * self._overhead + self._shallow(method, learned)
        seconds = self._overhead + self._prediction(method)
        for phase in method.all_phases():
            cost = self._cost(method, phase)
            seconds += cost.once + phase.epochs * cost.each * learned
        return seconds

    def _learned(self, method: MethodConfig) -> int:
        count = method.per_class
        return len(
            self._train if count is None else self._train.subset(per_class=count, at_most=True)
        )

    def _embedded(self, method: MethodConfig) -> Passed:
        """Pass all images through a network, as far as there is time."""
        if method.backbone not in self._passed:
            extractor = FeatureExtractor(method.spec, compute=method.compute)
            for passed in embed_in_pieces(extractor, self._images):
                self._passed[method.backbone] = passed
                if passed.left + 2 * self._overhead > self._left:
                    break
        return self._passed[method.backbone]

    def _shallow(self, method: MethodConfig, learned: int) -> float:
        """Return how long a classifier learns from features; where they are few, it is nothing."""
        if learned <= _MANY:
            return 0.0
        some, begun = _few(self._train, _MANY // 2), self.clock.spent
        build(method).fit(some.paths, some.labels)
        return (self.clock.spent - begun) / len(some) * learned

    def _prediction(self, method: MethodConfig) -> float:
        """Return how long all images take to come to what is trained, and to be predicted."""
        cost, images = self._cost(method, method.all_phases()[-1]), len(self._images)
        if cost.live:
            return cost.each * images
        if method.strategy == "frozen" and method.augment is None:
            return 0.0
        passed = self._passed.get(method.backbone)
        each = passed.each if passed and passed.each else cost.each
        return each * (images + len(self._train) * (method.views or 0))

    def _cost(self, method: MethodConfig, phase: Phase) -> Cost:
        """Return what a phase costs, as two epochs on a few images show."""
        of_network = (method.backbone, method.arguments, phase.unfreeze, method.views)
        key = f"{of_network} {method.augment is not None}"
        if key not in self._costs:
            if self._left < 3 * self._overhead:
                return Cost(math.inf, math.inf, live=True)
            few, begun = _few(self._train, _FEW), self.clock.spent
            learner: Any = build(replace(method, time_budget=self._left / 4 / 60))
            learner.phases = [replace(phase, epochs=2)]
            learner.fit(few.paths, few.labels, validation=few)
            history, spent = learner.history_, self.clock.spent - begun
            seconds = [epoch["seconds"] for epoch in history["epochs"]]
            if not seconds:  # not even one epoch fits in a quarter of the time that is left
                return Cost(math.inf, math.inf, live=True)
            live = history["phases"][0]["mode"] == "live"
            self._costs[key] = Cost(spent - sum(seconds), min(seconds) / len(few), live)
        return self._costs[key]


def _few(images: Dataset, count: int) -> Dataset:
    """Return so many images, spread over all classes."""
    by_class = np.argsort(np.array(images.labels, dtype=object), kind="stable")
    return images.take(by_class[:: -(-len(images) // count)].tolist())
