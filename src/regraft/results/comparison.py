"""Ways of learning side by side: each measured by one run, or by several repeats of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from regraft.data.labels import list_names
from regraft.results.curves import SizeCurve, fit_curve
from regraft.results.repeats import Repeated, summarise
from regraft.results.run import PART_TITLES, Run
from regraft.results.verdicts import Verdict, judge_ways

# What rows of one way may differ in: how much is learned from, and what follows from that.
_AMOUNTS = (
    *("per_class", "size", "fraction", "seed", "id", "description", "published"),
    *("epochs", "time_budget"),
)
_AMOUNT = re.compile(r",? (?:\d+ per class|(?:per_class|size|fraction) [\d.]+)$")
_PARTS = {title: part for part, title in PART_TITLES.items()}


@dataclass(frozen=True, eq=False)
class Row:
    """One way of learning.

    Args:
        description: One line that tells it from the others.
        runs: Its runs, at least one: other seeds on one split, or other splits.
        published: What its source printed: ``train``, ``validation`` and ``test`` as shares from 0
            to 1, ``seconds``, and a ``note``; nothing where there is no source.

    Example:
        >>> Row("vgg16 + logistic", ()).seeds
        0
    """

    description: str
    runs: tuple[Run, ...]
    published: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Mapping[str, Any]:
        """The row of a plan that describes the first run; empty for runs of an older Regraft."""
        rows = self._whole_plan.get("rows")
        return rows[0] if isinstance(rows, list) and rows else {}

    @property
    def data(self) -> Mapping[str, Any]:
        """The data of that plan: which pictures, and how they were split."""
        found = self._whole_plan.get("data")
        return found if isinstance(found, Mapping) else {}

    @property
    def _whole_plan(self) -> Mapping[str, Any]:
        plan = self.runs[0].data.get("plan") if self.runs else None
        return plan if isinstance(plan, Mapping) else {}

    @property
    def backbone(self) -> str:
        """The name of the network."""
        return str(self.runs[0].data["backbone"].get("name", ""))

    @property
    def strategy(self) -> str:
        """``"features"``, or what was trained of the network."""
        if self.runs[0].data["learner"] == "FeatureClassifier":
            return "features"
        return str(self.plan.get("strategy", "phases"))

    @property
    def augment(self) -> str | None:
        """The augmentation, by its name or settings; None for none."""
        return _text(self.runs[0].data["parameters"].get("augment"))

    @property
    def regularize(self) -> str | None:
        """The regularization, by its name or settings; None for none."""
        return _text(self.runs[0].data["parameters"].get("regularize"))

    @property
    def per_class(self) -> int | None:
        """How many pictures of each class were learned from; None for all."""
        found = self.plan.get("per_class")
        return int(found) if found is not None else None

    @property
    def seeds(self) -> int:
        """How many runs there are."""
        return len(self.runs)

    @property
    def epochs(self) -> int | None:
        """Epochs of training of all runs together divided by the runs; None without training."""
        found = [run.data.get("epochs") for run in self.runs]
        known = [int(epochs) for epochs in found if epochs is not None]
        return round(sum(known) / len(known)) if known else None

    @property
    def seconds(self) -> float:
        """Seconds of one run, the mean over the runs."""
        return sum(run.seconds for run in self.runs) / len(self.runs)

    @property
    def images_embedded(self) -> int:
        """How many pictures passed through the trunk, all runs together."""
        return sum(run.images_embedded for run in self.runs)

    @cached_property
    def train(self) -> Repeated | None:
        """The accuracy on the pictures that were learned from."""
        return self._part("train")

    @cached_property
    def validation(self) -> Repeated | None:
        """The accuracy on the pictures that settings were chosen with."""
        return self._part("validation")

    @cached_property
    def test(self) -> Repeated | None:
        """The accuracy on pictures that were never used before."""
        return self._part("test")

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values; parts that were not measured are None."""
        return {
            "description": self.description,
            "backbone": self.backbone,
            "strategy": self.strategy,
            "augment": self.augment,
            "regularize": self.regularize,
            "per_class": self.per_class,
            "seeds": self.seeds,
            "epochs": self.epochs,
            **{
                title: None if found is None else found.to_json()
                for title, found in zip(
                    _PARTS, (self.train, self.validation, self.test), strict=True
                )
            },
            "seconds": round(self.seconds, 3),
            "images_embedded": self.images_embedded,
            "published": dict(self.published) or None,
            "runs": [str(run.folder) for run in self.runs],
        }

    def _part(self, title: str) -> Repeated | None:
        measured = bool(self.runs) and all(title in run.metrics for run in self.runs)
        return summarise(self.runs, _PARTS[title]) if measured else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rows with what may be said about them.

    Args:
        title: What is compared.
        rows: The ways of learning, in the order of the table.
        verdicts: Which are better than which; empty where that cannot be judged.
        curves: Accuracy against pictures per class, one curve per way with several sizes.
        left_out: What was not run, and why, a sentence each.
        failures: What could not be finished, and why, a sentence each.
        warnings: What the reader should know before trusting a number.
        faithful: Whether the runs are what was published, not a small size of it.
        command: How to repeat it.
    """

    title: str
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...] = ()
    curves: tuple[SizeCurve, ...] = ()
    left_out: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    faithful: bool = True
    command: str = ""

    @classmethod
    def of(cls, rows: Sequence[Row], *, title: str, **more: Any) -> Comparison:
        """Return the comparison of rows: verdicts between those on the same splits, and curves.

        Args:
            rows: The ways of learning; those without a test part are judged by nobody.
            title: What is compared.
            more: ``left_out``, ``failures``, ``warnings``, ``faithful`` and ``command``.

        Raises:
            DataError: The predictions of a run are lost or damaged.
        """
        judged: dict[frozenset[str], list[Row]] = {}
        for row in rows:
            if row.test is not None:
                judged.setdefault(frozenset(run.split_hash for run in row.runs), []).append(row)
        verdicts = [
            verdict
            for group in judged.values()
            if len(group) > 1
            for verdict in judge_ways([(row.description, row.runs) for row in group])
        ]
        said = (*more.pop("warnings", ()), *_unjudged(list(judged.values())))
        curves = tuple(size_curves(rows))
        return cls(title, tuple(rows), tuple(verdicts), curves, warnings=said, **more)

    def to_json(self, page: str | None = None) -> dict[str, Any]:
        """Return the comparison as one object of plain values.

        Args:
            page: Where its page stands.
        """
        return {
            "rows": [row.to_json() for row in self.rows],
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "curves": [curve.to_json() for curve in self.curves],
            "left_out": list(self.left_out),
            "failures": list(self.failures),
            "warnings": list(self.warnings),
            "page": page,
        }


def size_curves(rows: Sequence[Row]) -> list[SizeCurve]:
    """Return accuracy against pictures per class of every way that was measured with several sizes.

    Rows belong to one way when nothing but the number of pictures, and the epochs that a budget
    allowed, tells their plans apart: the same pictures are split in the same way. Rows with as many
    pictures are two ways if their epochs differ, and else repeats with other seeds.
    """
    ways: dict[str, list[Row]] = {}
    for row in rows:
        if row.test is not None and row.plan:
            ways.setdefault(_way(row), []).append(row)
    curves = []
    for members in (one for several in ways.values() for one in _told_apart(several)):
        sizes: dict[float, list[Run]] = {}
        for row in members:
            sizes.setdefault(_pictures(row), []).extend(row.runs)
        if len(sizes) > 1:
            repeated = len(sizes) < len(members)  # then each row's description names one repeat
            name = (members[0].runs[0] if repeated else members[0]).description
            points = [(size, summarise(runs).estimate) for size, runs in sorted(sizes.items())]
            curves.append(fit_curve(_AMOUNT.sub("", name), points))
    return curves


def _unjudged(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Return a sentence on rows that nothing was judged against, if there are such."""
    alone = [group[0].description for group in groups if len(group) == 1]
    if not alone or len(groups) == 1:
        return []
    verb = "has" if len(alone) == 1 else "have"
    said = (
        f"{list_names(alone, most=3)} {verb} no verdict: measured on other splits than the rest, "
        "or on fewer of them; only rows on the same splits can be judged against each other"
    )
    return [said]


def _way(row: Row) -> str:
    """Return what tells a way from the others, whatever the number of pictures."""
    telling = {key: value for key, value in row.plan.items() if key not in _AMOUNTS}
    return json.dumps([dict(row.data), telling], sort_keys=True, default=str)


def _told_apart(members: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of a way, by epochs where these and not the pictures tell two of them apart.

    A budget shortens some sizes of one way; a plan may ask for each size with several epochs.
    """
    epochs = {(_pictures(row), str(row.plan.get("epochs"))) for row in members}
    if len({pictures for pictures, _ in epochs}) == len(epochs):
        return [list(members)]
    by_epochs: dict[str, list[Row]] = {}
    for row in members:
        by_epochs.setdefault(str(row.plan.get("epochs")), []).append(row)
    return list(by_epochs.values())


def _pictures(row: Row) -> float:
    """Return how many pictures of each class were learned from, on average."""
    train = row.runs[0].data["metrics"]["train"]["n"]
    return float(train) / max(1, len(row.runs[0].data["data"]["classes"]))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items() if item is not None)
    return str(value)
