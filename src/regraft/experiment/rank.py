"""Ranking networks on somebody's own images, by what simple classifiers make of their features.

Of the scores that were proposed for choosing a network, cross-validated nearest neighbours and
linear probes on the features themselves hold up best over many data sets (arXiv:2204.01403,
arXiv:2503.18528); so nothing else is computed here. The test part is not looked at.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.backbones.catalog import GROUPS, Entry, list_backbones
from regraft.backbones.published import in_group
from regraft.backbones.sources import find, locate
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.data.dataset import Dataset
from regraft.errors import BackboneError, ImageError, ModelError, RegraftError, WeightsError
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import prepare
from regraft.experiment.probes import (
    NEIGHBOURS,
    PROBE,
    Bench,
    Budget,
    Outcome,
    make_folds,
    mistakes_for,
    with_preprocessing,
)
from regraft.report.tables import Table
from regraft.results.intervals import Estimate, accuracy_json, points
from regraft.results.paired import LEVEL, Difference, holm, paired_difference

NOT_HERE = "the weights are not on this machine; `regraft weights fetch NAME` brings them"
NO_WEIGHTS = "there are no trained weights to fetch"
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Here:
    """A network whose weights are on this machine.

    Attributes:
        spec: What is built.
        bytes: The size of its file of weights; None for random weights and networks of your own.
    """

    spec: BackboneSpec
    bytes: int | None


@dataclass(frozen=True)
class LeftOut:
    """What was not measured, and why.

    Attributes:
        backbone: The name of the network.
        why: The reason, without a full stop.
        preprocessing: Which wrong preprocessing it would have had; None where it is the network
            itself that was left out.
    """

    backbone: str
    why: str
    preprocessing: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return what stands here; the preprocessing only where there is one."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Ranked:
    """One network and what it was worth.

    Attributes:
        here: The network.
        outcome: What was measured.
        difference: From the linear probe of the first row to this one; None for the first.
        p: McNemar's exact test of the two, multiplied by the number of pairs of rows (Bonferroni);
            None for the first.
    """

    here: Here
    outcome: Outcome
    difference: Difference | None = None
    p: float | None = None

    @property
    def backbone(self) -> str:
        """Its name."""
        return self.here.spec.name

    @property
    def tie(self) -> bool:
        """Whether it cannot be told from the first row; the first itself cannot."""
        return self.p is None or self.p >= LEVEL

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        outcome, change = self.outcome, self.difference
        return {
            "backbone": self.backbone,
            "linear_probe": accuracy_json(outcome.accuracy(PROBE)),
            "knn": accuracy_json(outcome.accuracy(NEIGHBOURS)),
            "parameters": outcome.parameters,
            "bytes": self.here.bytes,
            "input_size": outcome.preprocessing.size,
            "milliseconds": outcome.milliseconds,
            "licence": outcome.licence,
            "images_embedded": outcome.embedded,
            "difference": None if change is None else change.value,
            "interval": None if change is None else change.interval,
            "p": self.p,
            "tie": self.tie,
        }


@dataclass(frozen=True)
class Mistake:
    """One network with one wrong preprocessing.

    Attributes:
        backbone: The name of the network.
        preprocessing: What was wrong, in words.
        linear_probe: The accuracy with it.
        difference: From the accuracy with the network's own preprocessing to this one.
        p: McNemar's exact test of the two, adjusted by Holm for all that were measured.
        embedded: How many images passed through the network for this.
    """

    backbone: str
    preprocessing: str
    linear_probe: Estimate
    difference: Difference
    p: float
    embedded: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return {
            "backbone": self.backbone,
            "preprocessing": self.preprocessing,
            "linear_probe": accuracy_json(self.linear_probe),
            "difference": self.difference.value,
            "interval": self.difference.interval,
            "p": self.p,
            "images_embedded": self.embedded,
        }


@dataclass(frozen=True)
class Ranking:
    """Networks in the order of their linear probes.

    Attributes:
        rows: The highest accuracy first; of equals the quicker one.
        mistakes: What wrong preprocessings gave, if that was asked for; never part of ``rows``.
        left_out: What was not measured, and why.
        folds: Of the cross-validation.
        images: How many images of the training and validation parts were used.
        split_hash: Of the split whose test part was not looked at.
        seconds: The whole call, checking the images included.
        bad: The error of each image that could not be used and was left out.
    """

    rows: tuple[Ranked, ...]
    mistakes: tuple[Mistake, ...]
    left_out: tuple[LeftOut, ...]
    folds: int
    images: int
    split_hash: str
    seconds: float
    bad: tuple[ImageError, ...] = ()

    @property
    def ties(self) -> tuple[Ranked, ...]:
        """The first row and all that cannot be told from it."""
        return tuple(row for row in self.rows if row.tie)

    @property
    def ablated(self) -> bool:
        """Whether wrong preprocessings were asked for, measured or not."""
        return bool(self.mistakes or any(one.preprocessing for one in self.left_out))

    def table(self) -> Table:
        """Return the ranking; a row is marked as best only if it can be told from all others."""
        columns = (
            *("backbone", "linear probe", "k-NN", "parameters", "MB", "input", "ms", "licence"),
            "against the highest",
        )
        rows = tuple(
            (
                row.backbone,
                row.outcome.accuracy(PROBE),
                row.outcome.accuracy(NEIGHBOURS),
                row.outcome.parameters,
                None if row.here.bytes is None else round(row.here.bytes / _MEGABYTE, 1),
                row.outcome.preprocessing.size,
                None if (ms := row.outcome.milliseconds) is None else round(ms, 1),
                row.outcome.licence,
                self._verdict(row),
            )
            for row in self.rows
        )
        best = 0 if len(self.rows) > 1 and len(self.ties) == 1 else None
        measured_on = (
            f"{self.folds}-fold cross-validation on {self.images:,} images of the training and"
            " validation parts; the test part was not looked at. MB: file of weights; input: side"
            " in pixels; ms: per image that was not cached, with decoding. Intervals are of 95 %,"
            " each by itself."
        )
        notes = [measured_on, *([self._judgement()] if len(self.rows) > 1 else [])]
        return Table(columns, rows, notes=(*notes, *self._missing(ablated=False)), best=best)

    def ablation_table(self) -> Table:
        """Return what wrong preprocessings gave; a loss is a negative difference."""
        rows = tuple(
            (
                mistake.backbone,
                mistake.preprocessing,
                mistake.linear_probe,
                in_points(mistake.difference)
                + ("" if mistake.p < LEVEL else ", no difference to be seen"),
            )
            for mistake in self.mistakes
        )
        note = (
            "Each network was fed with other pixels than its weights have learned with, on"
            " purpose and for this table only: every model keeps the preprocessing of its weights."
        )
        columns = ("backbone", "pixels", "linear probe", "change")
        return Table(columns, rows, notes=(note, *self._missing(ablated=True)))

    def to_json(self) -> dict[str, Any]:
        """Return ``rows``, ``ablation``, ``left_out``, ``seconds`` and what was measured on."""
        return {
            "rows": [{**row.to_json(), "verdict": self._verdict(row)} for row in self.rows],
            "ablation": [mistake.to_json() for mistake in self.mistakes],
            "left_out": [one.to_json() for one in self.left_out],
            "bad_files": [error.to_json() for error in self.bad],
            "folds": self.folds,
            "images": self.images,
            "split": self.split_hash,
            "seconds": round(self.seconds, 3),
        }

    def _verdict(self, row: Ranked) -> str:
        if row.difference is None:
            return "highest, but tied" if len(self.ties) > 1 else "highest"
        change = in_points(row.difference)
        return f"tie: {change}" if row.tie else change

    def _judgement(self) -> str:
        first = self.rows[0].backbone
        test = "McNemar's exact test on the linear probes, corrected for all pairs, 5 %"
        if len(self.ties) == 1:
            return f"* {first} is better than every other one here ({test})."
        others = [(row, row.difference) for row in self.ties if row.difference is not None]
        seen = max(difference.detectable for _, difference in others)
        names = ", ".join(row.backbone for row, _ in others)
        sentence = (
            f"tie: {names} cannot be told from {first} on these images ({test}); a difference"
            f" under {points(seen).removeprefix('+')} cannot be seen here."
        )
        if any(row.outcome.milliseconds is None for row in self.ties):
            return sentence
        quickest = min(self.ties, key=lambda row: row.outcome.milliseconds or 0.0)
        return f"{sentence} Of these the quickest is {quickest.backbone}."

    def _missing(self, *, ablated: bool) -> list[str]:
        names: defaultdict[str, list[str]] = defaultdict(list)
        for one in self.left_out:
            if (one.preprocessing is not None) == ablated:
                wrong = f" ({one.preprocessing})" if ablated else ""
                names[one.why].append(f"{one.backbone}{wrong}")
        return [f"Left out: {', '.join(several)}: {why}." for why, several in names.items()]


def rank_backbones(
    data: DataConfig,
    backbones: Sequence[str | BackboneSpec] | None = None,
    *,
    folds: int = 5,
    budget: float | None = None,
    per_class: int | None = None,
    ablate: bool = False,
    compute: Compute = Compute(),
    verbose: bool = False,
) -> Ranking:
    """Rank networks by cross-validated probes of their features on images.

    Every image of the training and validation parts passes each trunk once and comes from the cache
    afterwards. Nothing is downloaded: networks whose weights are not here are left out.

    The intervals are Wilson's over the pooled predictions of all folds. They speak of the images,
    not of the luck of the folds, which for a fixed classifier is the smaller part.

    Args:
        data: Which images; its seed makes the folds.
        backbones: Names, groups of the catalogue or specs; None for all whose weights are on this
            machine.
        folds: Of the cross-validation, at least 2.
        budget: Seconds for everything. The quickest networks come first, and at least one is
            measured; those whose trunk would not be done in time are left out. None for no limit.
        per_class: How many images of each class of training and validation together are used.
        ablate: Whether to measure each network with the usual wrong preprocessings as well.
        compute: What runs the trunks, and where features are kept.
        verbose: Whether to show progress on standard error.

    Raises:
        WeightsError: None of the networks can be used without a download (``WEIGHTS-MISSING``).
        BackboneError: A named network is unknown or cannot be built.
        ModelError: The weights of a named network are damaged.
        DataError: The images cannot be used, split or put into folds as asked.
        UsageError: There are fewer than two folds.

    Example:
        >>> import tempfile
        >>> from regraft.data.synthetic import make_flowers
        >>> spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = make_flowers(folder, species=2, per_class=8, size=32)
        ...     ranking = rank_backbones(DataConfig(folder), [spec], folds=2)
        >>> ranking.rows[0].backbone, ranking.images
        ('simple_cnn', 12)
    """
    clock = Budget(budget)
    here, left_out = find_here(backbones)
    if not here:
        raise _nothing_to_rank(left_out)
    prepared = prepare(data, verbose=verbose)
    images = _learnable(prepared.split.train, prepared.split.val)
    if per_class is not None:
        images = images.subset(per_class=per_class, seed=data.seed)
    alike = prepared.report.near_duplicates
    places = make_folds(
        images, folds=folds, seed=data.seed, small_classes=data.small_classes, alike=alike
    )
    bench = Bench(images, places, seed=data.seed, compute=compute, verbose=verbose)
    measured: list[tuple[Here, Outcome]] = []
    for seconds, one in _by_cost(here, bench, clock, left_out, skip_broken=backbones is None):
        if measured and (why := bench.too_long(seconds, clock)):
            left_out.append(LeftOut(one.spec.name, why))
        else:
            measured.append((one, bench.measure(one.spec, (PROBE, NEIGHBOURS))))
    rows = ranked(measured)
    mistakes = _measure_mistakes(rows, bench, clock, left_out) if ablate else ()
    prepared.refuse_changed_files()
    return Ranking(
        rows=rows,
        mistakes=mistakes,
        left_out=tuple(left_out),
        folds=folds,
        images=int((places >= 0).sum()),
        split_hash=prepared.split.hash,
        seconds=clock.spent,
        bad=prepared.report.bad,
    )


def find_here(
    named: Sequence[str | BackboneSpec] | None = None,
) -> tuple[list[Here], list[LeftOut]]:
    """Return the networks that can be used without a download, smallest file first, and the others.

    Weights in the cache of the Hugging Face hub or of torch hub are on this machine, too; they are
    taken into the store. Nothing is fetched.

    Raises:
        BackboneError: A name is unknown.
        ModelError: The weights of a named network are damaged.
    """
    given = [entry.name for entry in list_backbones()] if named is None else named
    specs = [spec for one in given for spec in _named(one)]
    here: list[Here] = []
    others: list[LeftOut] = []
    for spec in dict.fromkeys(specs):
        try:
            found = _look_for(spec)
        except RegraftError as error:
            if named is not None:
                raise
            found = LeftOut(spec.name, str(error))  # damaged: the others can be compared
        if isinstance(found, Here):
            here.append(found)
        else:
            others.append(found)
    return sorted(here, key=lambda one: one.bytes or 0), others


def ranked(measured: Sequence[tuple[Here, Outcome]]) -> tuple[Ranked, ...]:
    """Return networks by their linear probes, of equals the quicker first, compared with the first.

    Which network is the first depends on the images that it is compared on: any two could have
    become the pair that is looked at. So the comparisons are corrected for all k(k - 1) / 2 pairs
    of k networks, not for the k - 1 that are shown; else one of many equally good networks would
    be called worse far more often than in 5 % of the rankings.
    """

    def turn(one: tuple[Here, Outcome]) -> tuple[float, float]:
        return -one[1].accuracy(PROBE).value, one[1].milliseconds or 0.0

    first, *others = sorted(measured, key=turn)
    pairs = math.comb(len(measured), 2)
    rows = [Ranked(*first)]
    for here, outcome in others:
        change = paired_difference(first[1].right[PROBE], outcome.right[PROBE], comparisons=pairs)
        rows.append(Ranked(here, outcome, change, min(1.0, pairs * change.p_value)))
    return tuple(rows)


def in_points(difference: Difference) -> str:
    """Return a difference with its interval as text.

    Example:
        >>> in_points(Difference(-0.031, -0.05, -0.01, 0.001, 500, 1, 0.02))
        '−3.1 points [−5.0, −1.0]'
    """
    low, high = (
        points(end).removesuffix(" points").removeprefix("+") for end in difference.interval
    )
    return f"{points(difference.value)} [{low}, {high}]"


def _measure_mistakes(
    rows: Sequence[Ranked], bench: Bench, clock: Budget, left_out: list[LeftOut]
) -> tuple[Mistake, ...]:
    """Measure networks with each wrong preprocessing, as far as there is time."""
    found: list[tuple[str, str, Outcome, Difference]] = []
    for row in rows:
        for name, wrong in mistakes_for(row.outcome.preprocessing).items():
            changed = with_preprocessing(row.here.spec, wrong)
            why = bench.too_long(bench.seconds_as_of(row.here.spec), clock)
            if not why and bench.preprocessing(changed) != wrong:
                why = "this network takes no other preprocessing"
            if why:
                left_out.append(LeftOut(row.backbone, why, name))
                continue
            outcome = bench.measure(changed, (PROBE,))
            change = paired_difference(row.outcome.right[PROBE], outcome.right[PROBE])
            found.append((row.backbone, name, outcome, change))
    adjusted = holm([change.p_value for *_, change in found])
    return tuple(
        Mistake(backbone, name, outcome.accuracy(PROBE), change, p, outcome.embedded)
        for (backbone, name, outcome, change), p in zip(found, adjusted, strict=True)
    )


def _named(one: str | BackboneSpec) -> list[BackboneSpec]:
    if isinstance(one, BackboneSpec):
        return [one]
    names = [entry.name for entry in in_group(one)] if one in GROUPS else [one]
    return [BackboneSpec(name) for name in names]


def _look_for(spec: BackboneSpec) -> Here | LeftOut:
    entry = find(spec.name)
    if entry.trained or spec.weights is None:
        return Here(spec, None)
    if spec.weights != "default":
        file = Path(spec.weights)
        return Here(spec, file.stat().st_size if file.is_file() else None)
    path = _stored(entry)
    if path is None:
        return LeftOut(spec.name, NOT_HERE if entry.weights else NO_WEIGHTS)
    return Here(spec, path.stat().st_size)


def _stored(entry: Entry) -> Path | None:
    try:
        return locate(entry, download=False, verbose=False).path
    except RegraftError as error:
        if error.code == "WEIGHTS-MISSING":
            return None
        raise


def _nothing_to_rank(left_out: Sequence[LeftOut]) -> WeightsError:
    names = ", ".join(one.backbone for one in left_out[:5])
    return WeightsError(
        "there is no network to rank",
        why=f"{left_out[0].why} ({names})" if left_out else "none was named",
        hint="`regraft weights fetch` and `regraft weights import` bring weights here",
        code="WEIGHTS-MISSING",
    )


def _learnable(train: Dataset, val: Dataset) -> Dataset:
    groups = train.groups if train.groups is None else (*train.groups, *(val.groups or ()))
    paths, labels = (*train.paths, *val.paths), (*train.labels, *val.labels)
    return dataclasses.replace(train, paths=paths, labels=labels, groups=groups)


def _by_cost(
    here: Sequence[Here], bench: Bench, clock: Budget, left_out: list[LeftOut], *, skip_broken: bool
) -> list[tuple[float, Here]]:
    """Return the seconds that the trunk of each will need, the quickest first."""
    costs: list[tuple[float, Here]] = []
    for one in here:
        if costs and clock.left <= 0:
            why = "no time was left in the budget to look at it"
            left_out.append(LeftOut(one.spec.name, why))
            continue
        try:
            costs.append((bench.expect(one.spec), one))
        except (BackboneError, ModelError) as error:
            if not skip_broken:
                raise
            left_out.append(LeftOut(one.spec.name, str(error)))
    return sorted(costs, key=lambda cost: cost[0])
