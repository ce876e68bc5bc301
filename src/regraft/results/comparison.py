"""Methods side by side, each measured by one run or by several repeats; and folders of runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from regraft.errors import RunError, list_names
from regraft.notebook import ShownInNotebook
from regraft.results import paired
from regraft.results.intervals import Estimate, Right, accuracy_json, over_seeds, over_splits
from regraft.results.learning_curve import LearningCurve, fit_curve
from regraft.results.paired import Difference, Verdict
from regraft.results.run import PART_TITLES, RECORD, Run
from regraft.settings import to_json

Method = tuple[str, Sequence[Run]]
T = TypeVar("T")
K = TypeVar("K")

# What rows of one method may differ in: how much is learned from, and what follows from that.
_AMOUNTS = (
    *("per_class", "size", "fraction", "at_most", "seed", "id", "description", "published"),
    *("time_budget", "explain"),
)
_AMOUNT = re.compile(r",? (?:(?:at most )?\d+ per class|(?:per_class|size|fraction) [\d.]+)$")
_PARTS = {title: part for part, title in PART_TITLES.items()}


@dataclass(frozen=True)
class Repeated:
    """The accuracy of one method over its repeats.

    Args:
        estimate: The mean accuracy with its 95 % interval; ``n`` counts different images.
        sd: Standard deviation of the accuracy over the repeats; None for one run.
        repeats: The number of runs.
    """

    estimate: Estimate
    sd: float | None
    repeats: int


@dataclass(frozen=True, eq=False)
class Row:
    """One method.

    Args:
        description: One line that tells it from the others.
        runs: Its runs, at least one: other seeds on one split, or other splits.
        published: What its source printed: ``train``, ``validation`` and ``test`` as shares from 0
            to 1, ``seconds``, and a ``note``; nothing where there is no source.
    """

    description: str
    runs: tuple[Run, ...]
    published: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> Mapping[str, Any]:
        """The settings of network and learner of the first run, JSON values."""
        return self.runs[0].record.method

    @property
    def seeds(self) -> int:
        """How many runs there are."""
        return len(self.runs)

    @cached_property
    def epochs(self) -> int | None:
        """Epochs of one run with those of the runs it continues, the mean; None without any."""
        known = [
            sum(each.record.epochs or 0 for each in (run, *run.continued))
            for run in self.runs
            if run.record.epochs is not None
        ]
        return round(sum(known) / len(known)) if known else None

    @property
    def cut_short(self) -> str:
        """What a time budget has ended: ``cut short, 2 of 20``; nothing where all was trained."""
        found = [run.cut_short for run in self.runs if run.cut_short]
        return "cut short, {} of {}".format(*found[0]) if found else ""

    @property
    def can_be_judged(self) -> bool:
        """Whether it was trained to its end and measured on a test part."""
        return self.test is not None and not self.cut_short

    @cached_property
    def seconds(self) -> float:
        """Seconds of one run with those of the runs it continues, the mean over the runs."""
        each = [sum(one.seconds for one in (run, *run.continued)) for run in self.runs]
        return sum(each) / len(each)

    @property
    def last_epoch(self) -> float | None:
        """The training accuracy while the last epoch ran, the mean; None without training."""
        known = [share for run in self.runs if (share := run.last_epoch) is not None]
        return sum(known) / len(known) if known else None

    @cached_property
    def train(self) -> Repeated | None:
        """The accuracy on the images that were learned from."""
        return self._part("train")

    @cached_property
    def validation(self) -> Repeated | None:
        """The accuracy on the images that settings were chosen with."""
        return self._part("validation")

    @cached_property
    def test(self) -> Repeated | None:
        """The accuracy on images that were never used before."""
        return self._part("test")

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object; parts that were not measured are null."""
        method, first = self.method, self.runs[0].record
        return {
            "description": self.description,
            "backbone": first.backbone.name,
            "strategy": method.get("strategy", "features"),
            "augment": _text(method.get("augment")),
            "regularize": _text(method.get("regularize")),
            "per_class": method.get("per_class"),
            "seeds": self.seeds,
            "epochs": self.epochs,
            "cut_short": bool(self.cut_short),
            "train_last_epoch": self.last_epoch,
            **{title: _measured(getattr(self, title)) for title in _PARTS},
            "seconds": round(self.seconds, 3),
            "images_embedded": sum(run.record.images_embedded for run in self.runs),
            "published": dict(self.published) or None,
            "runs": [str(run.folder) for run in self.runs],
        }

    def _part(self, title: str) -> Repeated | None:
        measured = all(title in run.metrics for run in self.runs)
        return summarize(self.runs, _PARTS[title]) if measured else None


@dataclass(frozen=True, eq=False)
class Comparison(ShownInNotebook):
    """Rows with what may be said about them.

    Args:
        title: What is compared.
        rows: The methods, in the order of the table.
        verdicts: Which are better than which; empty where that cannot be judged.
        curves: Accuracy against images per class, one curve per method with several sizes.
        left_out: What was not run, and why, a sentence each.
        failures: What could not be finished, and why, a sentence each.
        warnings: What the reader should know before trusting a number.
        faithful: Whether the runs are what was published, not a small size of it.
        command: How to repeat it.
    """

    title: str
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...] = ()
    curves: tuple[LearningCurve, ...] = ()
    left_out: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    faithful: bool = True
    command: str = ""

    @classmethod
    def of(cls, rows: Sequence[Row], *, title: str, **more: Any) -> Comparison:
        """Return the comparison of rows: verdicts between those on the same splits, and curves.

        Args:
            rows: The methods; those without a test part, or cut short by a time budget, are not
                judged.
            title: What is compared.
            more: ``left_out``, ``failures``, ``warnings``, ``faithful`` and ``command``.

        Raises:
            DataError: The predictions of a run are lost or damaged.
        """
        judged = [row for row in rows if row.can_be_judged]
        groups = _grouped(judged, lambda row: frozenset(run.split_hash for run in row.runs))
        verdicts = [
            verdict
            for group in groups.values()
            for verdict in compare_methods([(row.description, row.runs) for row in group])
        ]
        more["warnings"] = (*more.get("warnings", ()), *_unjudged(list(groups.values())))
        if cut := [row.description for row in rows if row.cut_short]:
            said = f"cut short by the time budget, and judged against nobody: {'; '.join(cut)}"
            more["warnings"] = (said, *more["warnings"])
        # A small size says nothing of how many images its method takes.
        ended = [row for row in rows if not row.cut_short]
        curves = learning_curves(ended) if more.get("faithful", True) else []
        return cls(title, tuple(rows), tuple(verdicts), tuple(curves), **more)

    def to_json(self, page: str | None = None) -> dict[str, Any]:
        """Return the comparison as one JSON object.

        Args:
            page: Where its page stands.
        """
        assembled = {
            "rows": [row.to_json() for row in self.rows],
            "curves": [curve.to_json() for curve in self.curves],
            "page": page,
        }
        plain = ("verdicts", "left_out", "failures", "warnings")
        return assembled | {name: to_json(getattr(self, name)) for name in plain}


@dataclass(frozen=True)
class RunStore:
    """A folder whose folders are runs.

    Args:
        folder: Need not exist yet.

    Example:
        >>> RunStore(Path("nowhere")).runs()
        ()
    """

    folder: Path

    def runs(self) -> tuple[Run, ...]:
        """Open all finished runs, oldest first; other folders are passed over.

        Raises:
            RunError: A run's record is damaged.
        """
        opened = [Run.open(file.parent) for file in self.folder.glob(f"*/{RECORD}")]
        return tuple(sorted(opened, key=lambda run: (run.record.created, run.name)))

    def free_folder(self, description: str) -> Path:
        """Return a folder that does not exist yet, named after ``description``.

        Example:
            >>> RunStore(Path("runs")).free_folder("VGG16, linear SVM").as_posix()
            'runs/vgg16-linear-svm'
        """
        base = re.sub(r"[^a-z0-9]+", "-", description.lower()).strip("-")[:60].rstrip("-") or "run"
        path, number = self.folder / base, 2
        while path.exists():
            path, number = self.folder / f"{base}-{number}", number + 1
        return path


def open_runs(places: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Open runs given as run folders, as folders of runs, or as what a plan has written.

    Raises:
        RunError: A folder is none of these.
    """
    runs: list[Run] = []
    for place in map(Path, places):
        inside = () if (place / RECORD).is_file() else RunStore(place).runs()
        runs += inside or RunStore(place / "runs").runs() or [Run.open(place)]
    return runs


def compare_methods(methods: Sequence[Method]) -> list[Verdict]:
    """Judge methods, each measured by one run or by repeats, on the same test images.

    The method with the highest validation accuracy is judged against every other. The validation
    part chooses it, since choosing by the test part favours luck: the best of many test accuracies
    is higher than it would be on new images. Only where a method has no validation
    part the test part chooses; the verdicts then favour the chosen one a little.

    On one split the comparison is image by image (:func:`~.paired.paired_difference`), over several
    splits or folds split by split (:func:`~.paired.resampled_difference`).

    Args:
        methods: Descriptions with runs; the repeats of all methods must have used the same splits.

    Returns:
        One verdict per pair: ``a`` the other method, ``b`` the chosen one. Empty for fewer than
        two methods with a test part.

    Raises:
        RunError: ``RUN-SPLITS``: two methods used different splits.

    Example:
        >>> compare_methods([])
        []
    """
    judged = [method for method in methods if all("test" in run.metrics for run in method[1])]
    if len(judged) < 2:
        return []
    name, runs = judged.pop(best_validated(judged))
    count = len(judged)
    return paired.judge(
        [(other, name, _difference(others, runs, comparisons=count)) for other, others in judged]
    )


def best_validated(methods: Sequence[Method]) -> int:
    """Return the place of the method with the highest validation accuracy, the first on a tie.

    Where a method has no validation part, the test part decides.
    """
    validated = all("validation" in run.metrics for _, runs in methods for run in runs)
    title = "validation" if validated else "test"

    def accuracy(place: int) -> float:
        runs = methods[place][1]
        return sum(run.metrics[title]["accuracy"].value for run in runs) / len(runs)

    return max(range(len(methods)), key=accuracy)


def summarize(runs: Sequence[Run], part: str = "test") -> Repeated:
    """Return the accuracy of one method over its runs.

    * One run: the share of images predicted correctly, with its Wilson interval.
    * Seeds on one split: the mean accuracy; the interval carries the choice of the images and that
      of the seeds (:func:`~regraft.results.intervals.over_seeds`).
    * Several splits or folds: the mean accuracy with the corrected resampled t interval
      (:func:`~regraft.results.intervals.over_splits`). Seeds on one split are averaged before.
      Seeds that learned from different images of one split count as splits in the training part.

    Args:
        runs: At least one finished run.
        part: ``train``, ``val`` or ``test``.

    Raises:
        RunError: ``RUN-SPLITS``: runs on one split predicted different images of ``val`` or
            ``test``.
    """

    def drawn(run: Run) -> tuple[str, frozenset[str]]:
        images = run.predictions.part(part).paths if part == "train" else ()
        return run.split_hash, frozenset(images)

    groups = _grouped(runs, drawn)
    answers = [found for group in groups.values() if (found := _answers(group, part))[0]]
    if not answers:
        return Repeated(Estimate.unknown(), None, len(runs))
    accuracies = np.concatenate([right.mean(axis=1) for _, right in answers])
    sd = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    if len(answers) == 1:
        return Repeated(over_seeds(answers[0][1]), sd, len(runs))
    n = len({path for paths, _ in answers for path in paths})
    means = [float(right.mean()) for _, right in answers]
    estimate = over_splits(means, test_to_train=_part_to_train(runs, part), n=n)
    return Repeated(estimate, sd, len(runs))


def learning_curves(rows: Sequence[Row]) -> list[LearningCurve]:
    """Return accuracy against images per class of every method measured with several sizes.

    Rows belong to one method when nothing but the number of images and the seed tells their plans
    apart: the same images are split in the same way, and trained on for as many epochs.
    """
    known, curves = [row for row in rows if row.can_be_judged], []
    for members in rows_by_method(known):
        sizes = _grouped(members, _images_per_class)
        if len(sizes) > 1:
            repeated = len(sizes) < len(members)  # then each row's description names one repeat
            name = (members[0].runs[0] if repeated else members[0]).description
            points = [
                (size, summarize([run for row in same for run in row.runs]).estimate)
                for size, same in sorted(sizes.items())
            ]
            curves.append(fit_curve(without_amount(name), points))
    return curves


def without_amount(description: str) -> str:
    """Return a description without how many images were learned from.

    Example:
        >>> without_amount("vgg16 + knn, 100 per class")
        'vgg16 + knn'
    """
    return _AMOUNT.sub("", description)


def rows_by_method(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each method, which differ in the number of images and the seed alone."""

    def method(row: Row) -> str:
        telling = {key: value for key, value in row.method.items() if key not in _AMOUNTS}
        data = row.runs[0].record.config.get("data")
        return json.dumps([data, telling], sort_keys=True, default=str)

    return list(_grouped([row for row in rows if row.method], method).values())


def _difference(first: Sequence[Run], second: Sequence[Run], *, comparisons: int) -> Difference:
    """Return the difference of two methods on the test part, each measured by one run or more."""
    ones, twos = (_grouped(runs, lambda run: run.split_hash) for runs in (first, second))
    if set(ones) != set(twos):
        apart = next(run for run in (*first, *second) if run.split_hash in {*ones} ^ {*twos})
        raise _other_splits(apart, (second if apart in first else first)[0])
    pairs = []
    for split, runs in ones.items():
        paths, right = _answers([*runs, *twos[split]], "test")
        pairs.append((paths, right[: len(runs)], right[len(runs) :]))
    if len(pairs) == 1:
        _, one, two = pairs[0]
        return paired.paired_difference(one, two, comparisons=comparisons)
    return paired.resampled_difference(
        [one.mean(axis=0) for _, one, _ in pairs],
        [two.mean(axis=0) for _, _, two in pairs],
        test_to_train=_part_to_train(first, "test"),
        n=len({path for paths, _, _ in pairs for path in paths}),
        comparisons=comparisons,
    )


def _answers(runs: Sequence[Run], part: str) -> tuple[tuple[str, ...], Right]:
    """Return the sorted paths of a part, and whether each run (row) was right on each (0 or 1)."""
    found = []
    for run in runs:
        if run.split_hash != runs[0].split_hash:
            raise _other_splits(runs[0], run)
        predicted = run.predictions.part(part)
        found.append(dict(zip(predicted.paths, predicted.correct.tolist(), strict=True)))
        if found[-1].keys() != found[0].keys():
            why = f"{runs[0].name}: {len(found[0])}, {run.name}: {len(found[-1])} images"
            raise RunError("these runs predicted different images", why=why, code="RUN-SPLITS")
    paths = tuple(sorted(found[0]))
    return paths, np.array([[right[path] for path in paths] for right in found], dtype=np.float64)


def _other_splits(first: Run, second: Run) -> RunError:
    why = f"{first.name}: {first.split_hash[:12]}, {second.name}: {second.split_hash[:12]}"
    what, hint = "these runs used different splits", "fit both on one split manifest"
    return RunError(what, why=why, hint=hint, code="RUN-SPLITS")


def _grouped(items: Sequence[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _part_to_train(runs: Sequence[Run], part: str) -> float:
    """Return the images of a part divided by those of the training part, mean over runs.

    Of the whole training part, even where fewer were learned from: what counts is how much the test
    parts of two splits have in common.
    """

    def images(run: Run, title: str) -> int:
        return sum(run.record.data.counts.get(title, {}).values())

    ratios = [images(run, PART_TITLES[part]) / max(1, images(run, "train")) for run in runs]
    return sum(ratios) / len(ratios)


def _measured(found: Repeated | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return accuracy_json(found.estimate) | {"sd": found.sd, "repeats": found.repeats}


def _unjudged(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Return a sentence on rows that nothing was judged against, if there are such."""
    alone = [group[0].description for group in groups if len(group) == 1]
    if not alone or len(groups) == 1:
        return []
    said = f"no verdict on {list_names(alone, most=3)}: measured on other splits than the rest, or"
    said += " on fewer of them; only rows on the same splits can be judged against each other"
    return [said]


def _images_per_class(row: Row) -> float:
    """Return how many images of each class were learned from, on average."""
    first = row.runs[0]
    return first.metrics["train"]["accuracy"].n / max(1, len(first.record.data.classes))


def _text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items() if item is not None)
    return None if value is None else str(value)
