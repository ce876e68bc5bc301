"""Networks in order, with what can and what cannot be told apart, as tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regraft.errors import ImageError
from regraft.experiment.ablation import Mistake
from regraft.experiment.bench import NEIGHBOURS, PROBE, Outcome
from regraft.experiment.candidates import Candidate, LeftOut, by_reason
from regraft.report.tables import Table
from regraft.results.intervals import Estimate, accuracy_json, points
from regraft.results.paired import LEVEL, Difference, paired_difference

Measured = tuple[Candidate, Outcome]
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Ranked:
    """One network and what it was worth.

    Attributes:
        backbone: Its name.
        linear_probe: Accuracy of logistic regression on its features over all pictures, each
            predicted by a classifier that had not learned from it.
        knn: The same for the five nearest neighbours.
        parameters: Of the trunk.
        bytes: The size of its file of weights, where there is one.
        input_size: Height and width of what enters it, in pixels.
        milliseconds: Per picture, decoding included; None where that was never taken.
        licence: Of its weights.
        embedded: How many pictures passed through it for this; the others were cached.
        difference: From the linear probe of the first row to this one; None for the first.
        p: McNemar's exact test of the two, multiplied by the number of pairs of rows (Bonferroni);
            None for the first.
    """

    backbone: str
    linear_probe: Estimate
    knn: Estimate
    parameters: int
    bytes: int | None
    input_size: int
    milliseconds: float | None
    licence: str
    embedded: int
    difference: Difference | None = None
    p: float | None = None

    @property
    def tie(self) -> bool:
        """Whether it cannot be told from the first row; the first itself cannot."""
        return self.p is None or self.p >= LEVEL


@dataclass(frozen=True)
class Ranking:
    """Networks in the order of their linear probes.

    Attributes:
        rows: The highest accuracy first; of equals the quicker one.
        mistakes: What wrong preprocessings gave, if that was asked for; never part of ``rows``.
        left_out: What was not measured, and why.
        folds: Of the cross-validation.
        images: How many pictures of the training and validation parts were used.
        split_hash: Of the split whose test part was not looked at.
        seconds: The whole call, checking the pictures included.
        bad: The error of each picture that could not be used and was left out.
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

    def table(self) -> Table:
        """Return the ranking; a row is marked as best only if it can be told from all others."""
        columns = (
            *("backbone", "linear probe", "k-NN", "parameters", "MB", "input", "ms", "licence"),
            "against the highest",
        )
        rows = tuple(
            (
                row.backbone,
                row.linear_probe,
                row.knn,
                row.parameters,
                None if row.bytes is None else round(row.bytes / _MEGABYTE, 1),
                row.input_size,
                None if row.milliseconds is None else round(row.milliseconds, 1),
                row.licence,
                self._verdict(row),
            )
            for row in self.rows
        )
        best = 0 if len(self.rows) > 1 and len(self.ties) == 1 else None
        return Table(columns, rows, notes=self._notes(), best=best)

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
            "Each network was fed with pixels in another way than its weights have learned with, on"
            " purpose and for this table only: every model keeps the preprocessing of its weights."
        )
        columns = ("backbone", "pixels", "linear probe", "change")
        return Table(columns, rows, notes=(note, *_left_out_notes(self._left_out_mistakes)))

    @property
    def ablated(self) -> bool:
        """Whether wrong preprocessings were asked for, measured or not."""
        return bool(self.mistakes or self._left_out_mistakes)

    @property
    def _left_out_mistakes(self) -> list[LeftOut]:
        return [one for one in self.left_out if one.preprocessing is not None]

    def to_json(self) -> dict[str, Any]:
        """Return ``rows``, ``ablation``, ``left_out``, ``seconds`` and what was measured on."""
        return {
            "rows": [{**_row_json(row), "verdict": self._verdict(row)} for row in self.rows],
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

    def _notes(self) -> tuple[str, ...]:
        measured_on = (
            f"{self.folds}-fold cross-validation on {self.images:,} pictures of the training and"
            " validation parts; the test part was not looked at. MB: file of weights; input: side"
            " in pixels; ms: per picture, with decoding. Intervals are of 95 %, each by itself."
        )
        notes = [measured_on]
        if len(self.rows) > 1:
            notes.append(self._judgement())
        networks = [one for one in self.left_out if one.preprocessing is None]
        return (*notes, *_left_out_notes(networks))

    def _judgement(self) -> str:
        first = self.rows[0].backbone
        test = "McNemar's exact test on the linear probes, corrected for all pairs, 5 %"
        if len(self.ties) == 1:
            return f"* {first} is better than every other one here ({test})."
        others = [row for row in self.ties if row.difference is not None]
        seen = max(row.difference.detectable for row in others if row.difference is not None)
        names = ", ".join(row.backbone for row in others)
        sentence = (
            f"tie: {names} cannot be told from {first} on these pictures ({test}); a difference"
            f" under {points(seen).removeprefix('+')} cannot be seen here."
        )
        return sentence + self._quickest()

    def _quickest(self) -> str:
        known = [row for row in self.ties if row.milliseconds is not None]
        if len(known) < len(self.ties):
            return ""
        quickest = min(known, key=lambda row: row.milliseconds or 0.0)
        return f" Of these the quickest is {quickest.backbone}."


def in_order(measured: Sequence[Measured]) -> list[Measured]:
    """Return networks by the accuracy of their linear probes, of equals the quicker one first."""
    return sorted(
        measured, key=lambda one: (-one[1].accuracy(PROBE).value, one[1].milliseconds or 0.0)
    )


def compared(ordered: Sequence[Measured]) -> tuple[Ranked, ...]:
    """Return a row for each network, compared with the first.

    Which network is the first depends on the pictures that it is compared on: any two could have
    become the pair that is looked at. So the comparisons are corrected for all k(k - 1) / 2 pairs
    of k networks, not for the k - 1 that are shown; else one of many equally good networks would
    be called worse far more often than in 5 % of the rankings.

    Args:
        ordered: What `in_order` gave, at least one network, all on the same pictures and folds.
    """
    first = ordered[0][1].right[PROBE]
    pairs = math.comb(len(ordered), 2)
    differences = [
        paired_difference(first, outcome.right[PROBE], comparisons=pairs)
        for _, outcome in ordered[1:]
    ]
    adjusted = [min(1.0, pairs * difference.p_value) for difference in differences]
    judged = [(None, None), *zip(differences, adjusted, strict=True)]
    return tuple(
        _ranked(candidate, outcome, difference, p)
        for (candidate, outcome), (difference, p) in zip(ordered, judged, strict=True)
    )


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


def _ranked(
    candidate: Candidate, outcome: Outcome, difference: Difference | None, p: float | None
) -> Ranked:
    return Ranked(
        backbone=candidate.name,
        linear_probe=outcome.accuracy(PROBE),
        knn=outcome.accuracy(NEIGHBOURS),
        parameters=outcome.parameters,
        bytes=candidate.bytes,
        input_size=outcome.preprocessing.size,
        milliseconds=outcome.milliseconds,
        licence=outcome.licence,
        embedded=outcome.embedded,
        difference=difference,
        p=p,
    )


def _left_out_notes(left_out: Sequence[LeftOut]) -> list[str]:
    return [f"Left out: {', '.join(names)}: {why}." for why, names in by_reason(left_out).items()]


def _row_json(row: Ranked) -> dict[str, Any]:
    change = row.difference
    return {
        "backbone": row.backbone,
        "linear_probe": accuracy_json(row.linear_probe),
        "knn": accuracy_json(row.knn),
        "parameters": row.parameters,
        "bytes": row.bytes,
        "input_size": row.input_size,
        "milliseconds": row.milliseconds,
        "licence": row.licence,
        "images_embedded": row.embedded,
        "difference": None if change is None else change.value,
        "interval": None if change is None else change.interval,
        "p": row.p,
        "tie": row.tie,
    }
