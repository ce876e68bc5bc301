"""The ladder of ways to transfer a network, cheapest first, and how much of it a budget allows."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regraft.experiment.costs import Costs
from regraft.experiment.recipe import described

CLASSIFIERS = ("logistic", "linear_svm", "knn")
VIEWS = 4  # augmented views per picture for a frozen trunk: they are cached, as pictures are
_STRATEGIES: tuple[dict[str, Any], ...] = (
    {"strategy": "frozen", "epochs": 30},
    {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 10, "lr": 3e-4},
    {"strategy": "two_stage", "unfreeze": 0.5, "epochs": 10, "head_epochs": 10, "lr": 3e-4},
    {"strategy": "fine_tune", "unfreeze": 1.0, "epochs": 10, "lr": 3e-4},
    {"strategy": "from_scratch", "epochs": 20},
)
_SIZED = (_STRATEGIES[0], _STRATEGIES[2])  # what is run with fewer pictures, besides features
_VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"regularize": "standard"},
    {"regularize": "standard", "augment": "standard"},
)
_SHORTER = (1.0, 0.5, 0.25)  # of the epochs: what is tried before a way is left out
_SPARE = 0.9  # of the budget; estimates err
BASELINE = 0.3  # of the budget is kept for the baseline from scratch
_GUARD = 1.25  # times its estimate a run may be trained before it is stopped
_SHORTEST = 10  # seconds of such a limit


@dataclass(frozen=True)
class Rung:
    """One way of the ladder.

    Args:
        row: Its row in a plan, without seeds.
        essential: Whether it is run whatever the budget.
        estimate: Seconds that one seed of it is expected to take.

    Example:
        >>> Rung({"backbone": "vgg16", "strategy": "frozen"}).description
        'vgg16 + frozen (linear)'
    """

    row: Mapping[str, Any]
    essential: bool = False
    estimate: float = 0.0

    @property
    def description(self) -> str:
        """The line that tells it from the others."""
        return described(self.row)

    @property
    def is_baseline(self) -> bool:
        """Whether it is the training from scratch that all others are measured by."""
        return self.essential and self.row.get("strategy") == "from_scratch"


def rungs(
    backbones: Sequence[Mapping[str, Any]], *, per_class: Sequence[int] = ()
) -> Iterator[Rung]:
    """Yield the ladder, lowest rung first.

    The shallow classifiers of every backbone, and of the first one the frozen trunk with a new head
    and the training from scratch, are essential: without them nothing can be compared.

    Args:
        backbones: The keys of a plan's row that name each network.
        per_class: Numbers of pictures per class to learn from, besides all of them.

    Example:
        >>> [rung.description for rung in rungs([{"backbone": "vgg16"}])][:4]
        ['vgg16 + logistic', 'vgg16 + linear_svm', 'vgg16 + knn', 'vgg16 + frozen (linear)']
    """
    for backbone in backbones:
        for name in CLASSIFIERS:
            yield Rung({**backbone, "strategy": "features", "classifier": name}, essential=True)
    first = backbones[0]
    yield Rung({**first, **_STRATEGIES[0]}, essential=True)
    yield Rung(_row(first, _STRATEGIES[-1]), essential=True)
    for amount in per_class:
        for backbone in backbones:
            for way in ({"strategy": "features", "classifier": "logistic"}, *_SIZED):
                yield Rung({**backbone, **way, "per_class": amount})
    for strategy in _STRATEGIES:
        for variant in _VARIANTS:
            for backbone in backbones:
                done = backbone is first and not variant
                if done and strategy in (_STRATEGIES[0], _STRATEGIES[-1]):
                    continue
                frozen = strategy["strategy"] == "frozen" and "augment" in variant
                views = {"views": VIEWS} if frozen else {}
                yield Rung(_row(backbone, {**strategy, **variant, **views}))


def _row(backbone: Mapping[str, Any], way: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row; what is trained from scratch has no weights to begin with."""
    random = way["strategy"] == "from_scratch"
    named = {key: value for key, value in backbone.items() if not (random and key == "weights")}
    return {**named, **way}


@dataclass(frozen=True)
class Choice:
    """What is done about a rung.

    Args:
        row: The row to run, its seeds among it; None to leave the rung out.
        estimate: Seconds of all its seeds.
        note: What is not done as it should be, a sentence, or nothing.
    """

    row: Mapping[str, Any] | None
    estimate: float = 0.0
    note: str = ""


def ordered(ladder: Sequence[Rung], costs: Costs, *, cheap: float = 0.0) -> list[Rung]:
    """Return the rungs with their estimates, in the order in which they are run.

    First the essential ones but the baseline, then what is cheap, then the baseline from scratch,
    which takes a good part of a budget, and then the others by their cost.

    Args:
        ladder: The rungs.
        costs: What runs cost here.
        cheap: Seconds up to which a run is cheap.
    """
    known = [replace(rung, estimate=costs.seconds(rung.row)) for rung in ladder]

    def turn(rung: Rung) -> tuple[int, float]:
        if rung.essential:
            return (2, 0.0) if rung.is_baseline else (0, 0.0)
        return (1 if rung.estimate <= cheap else 3, rung.estimate)

    return sorted(known, key=turn)


def with_second_chances(ladder: Sequence[Rung], left_out: Container[str]) -> Iterator[Rung]:
    """Yield the rungs in their order; when the baseline is through, what was left out before it.

    A share of the budget is kept for the baseline until then, and it may take less.

    Args:
        ladder: The rungs in the order in which they are run.
        left_out: The descriptions of those left out; looked at when the baseline is through.

    Example:
        >>> ways = [Rung({"backbone": "b", "classifier": name}) for name in ("knn", "logistic")]
        >>> base = Rung({"backbone": "b", "strategy": "from_scratch"}, essential=True)
        >>> tried = with_second_chances([ways[0], base, ways[1]], {"b + knn"})
        >>> [rung.description for rung in tried][2:]
        ['b + knn', 'b + logistic']
    """
    after = next((i for i, rung in enumerate(ladder, start=1) if rung.is_baseline), len(ladder))
    yield from ladder[:after]
    yield from [rung for rung in ladder[:after] if rung.description in left_out]
    yield from ladder[after:]


def choose(
    rung: Rung, costs: Costs, *, seeds: Sequence[int], repeats: int, left: float, budget: float
) -> Choice:
    """Decide what of a rung the rest of a budget allows.

    A way that is too long for what is left is tried with half and a quarter of its epochs, if it
    has any, and is left out then. Essential ways are shortened further, to one epoch and one seed,
    and never left out.

    Args:
        rung: The way.
        costs: What runs cost here.
        seeds: The seeds to run it with.
        repeats: How many splits or folds each seed is run on.
        left: Seconds that are left of the budget.
        budget: Seconds of the whole budget.

    Example:
        >>> from regraft.experiment.costs import Costs
        >>> rung = Rung({"backbone": "vgg16", "classifier": "knn"}, essential=True)
        >>> free = Costs(pictures=10, learned=6, classes=2, embed={}, step={})
        >>> choose(rung, free, seeds=[0], repeats=1, left=0, budget=60).row["seed"]
        [0]
    """
    row = dict(rung.row)
    times = len(seeds) * repeats
    allowed = _SPARE * left
    if row.get("strategy", "features") == "features":
        needed = costs.seconds(row) * times
        fits = rung.essential or needed <= allowed
        return Choice({**row, "seed": list(seeds)} if fits else None, needed)
    if rung.is_baseline:
        allowed = min(allowed, BASELINE * budget)
    if rung.essential:
        return _shortened(row, costs, seeds=seeds, repeats=repeats, allowed=max(allowed, 0.0))
    for share in _SHORTER:
        shorter = {**row, "epochs": max(1, round(share * row["epochs"]))}
        needed = costs.seconds(shorter) * times
        if needed <= allowed:
            return _chosen(row, shorter, costs, seeds=seeds, repeats=repeats)
    return Choice(None, needed)


def _shortened(
    row: Mapping[str, Any], costs: Costs, *, seeds: Sequence[int], repeats: int, allowed: float
) -> Choice:
    """Return as many epochs of an essential way, and as many seeds, as fit; at least one."""
    options = [
        ({**row, "epochs": epochs}, some)
        for some in (seeds, seeds[:1])
        for epochs in range(int(row["epochs"]), 0, -1)
    ]
    fitting = (
        (shorter, some)
        for shorter, some in options
        if costs.seconds(shorter) * len(some) * repeats <= allowed
    )
    shorter, some = next(fitting, options[-1])
    chosen = _chosen(row, shorter, costs, seeds=some, repeats=repeats)
    fewer = f"{len(some)} of {len(seeds)} seeds" if len(some) < len(seeds) else ""
    return replace(chosen, note=", ".join(filter(None, (chosen.note, fewer))))


def _chosen(
    row: Mapping[str, Any],
    shorter: Mapping[str, Any],
    costs: Costs,
    *,
    seeds: Sequence[int],
    repeats: int,
) -> Choice:
    estimate = costs.seconds(shorter)
    limit = max(_SHORTEST, 5 * math.ceil(_GUARD * estimate / 5))
    note = ""
    if shorter["epochs"] < row["epochs"]:
        note = f"{shorter['epochs']} of {row['epochs']} epochs"
    guarded = {**shorter, "time_budget": f"{limit}s", "seed": list(seeds)}
    return Choice(guarded, estimate * len(seeds) * repeats, note)
