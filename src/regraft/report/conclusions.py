"""What may be concluded from a comparison, in plain English, and only as far as it carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regraft.report.tables import Duration
from regraft.report.wording import count
from regraft.results.comparison import Comparison, Row, best_validated
from regraft.results.intervals import percent
from regraft.results.paired import Verdict
from regraft.results.run import Run

_MOST_NAMES = 4
_QUICKER = 0.7  # of the time of the chosen way: what counts as less
_CHOSEN_BY_TEST = (
    "There is no validation part to choose by, and the best of several test accuracies is too good "
    "to be true by the luck of the choice."
)


@dataclass(frozen=True)
class Conclusion:
    """What a comparison comes to.

    Args:
        best: The row that is better than every other, if that can be told.
        sentences: The winner first, or why there is none.
    """

    best: int | None
    sentences: tuple[str, ...]


def conclude(comparison: Comparison) -> Conclusion:
    """Return what may be concluded: which way is best, or which cannot be told apart.

    The way with the highest validation accuracy stands against all others, as in the verdicts.

    Example:
        >>> conclude(Comparison("nothing", ()))
        Conclusion(best=None, sentences=())
    """
    tested = [row for row in comparison.rows if row.test is not None]
    best: int | None = None
    said: list[str] = []
    if splits := _several_splits(tested):
        said = [splits, *(f"{verdict.verdict}." for verdict in comparison.verdicts[:_MOST_NAMES])]
    elif comparison.verdicts:
        chosen = tested[best_validated([(row.description, row.runs) for row in tested])]
        winner, said = _against_others(chosen, tested, comparison.verdicts)
        best = None if winner is None else comparison.rows.index(winner)
    if comparison.faithful and (agreement := _published(tested)):
        said.append(agreement)
    return Conclusion(best, tuple(said))


def looks(runs: Sequence[Run]) -> str:
    """Return how often the test part was looked at, a sentence; nothing where there is none."""
    tested = [run for run in runs if "test" in run.metrics]
    if not tested:
        return ""
    more = sum(run.test_looks for run in tested) - len(tested)
    once = f"The test part was opened once per run, {count(len(tested), 'time')} in all"
    if more > 0:
        return f"{once}, and {count(more, 'more time')} when runs were evaluated again."
    return f"{once}."


def _against_others(
    chosen: Row, tested: Sequence[Row], verdicts: Sequence[Verdict]
) -> tuple[Row | None, list[str]]:
    name = chosen.description
    own = {(v.b if v.a == name else v.a): v for v in verdicts if name in (v.a, v.b)}
    winners = {other: {"a": v.a, "b": v.b}.get(v.better or "") for other, v in own.items()}
    others = [row for row in tested if row is not chosen]
    beaten = [row for row in others if winners[row.description] == name]
    equals = [row for row in others if winners[row.description] is None]
    better = [row for row in others if winners[row.description] == row.description]
    validated = all(row.validation is not None for row in tested)
    by = "highest validation accuracy" if validated else "highest test accuracy"
    right = f"{percent(_accuracy(chosen))} of the test pictures right"
    near = max(better or equals or beaten, key=_accuracy)
    sentence = f"{own[near.description].verdict}."
    winner = chosen if len(beaten) == len(others) else None
    if len(others) == 1 and not equals:
        winner = chosen if beaten else better[0]
        said = [f"★ {sentence}"]
    elif winner:
        every = f"each of the other {len(others)}"
        first = f"★ {name} is the best: it has the {by} and, with {right}, is better than {every}"
        said = [f"{first} by more than chance explains.", f"Of these, the nearest: {sentence}"]
    elif better:
        said = [f"{name} has the {by}, but is not the best: {sentence}"]
    else:
        losers = beaten[0].description if len(beaten) == 1 else f"{len(beaten)} of the others"
        also = f"is better than {losers}, but" if beaten else ""
        names = _listed([row.description for row in sorted(equals, key=_accuracy, reverse=True)])
        first = f"{name} has the {by} and, with {right}, {also} cannot be told from {names}."
        said = [" ".join(first.split()), sentence, *_cheapest(chosen, equals)]
    if not validated:
        said.append(_CHOSEN_BY_TEST)
    return winner, said


def _cheapest(chosen: Row, equals: Sequence[Row]) -> list[str]:
    """Say which of the ways that cannot be told apart takes the least time, if it is much less."""
    quick = min((chosen, *equals), key=lambda row: row.seconds)
    if quick.seconds > _QUICKER * chosen.seconds:
        return []
    most, least = Duration(chosen.seconds), Duration(quick.seconds)
    of = f"Of these {len(equals) + 1}, {quick.description} takes the least time"
    return [f"{of}: {least}, where {chosen.description} takes {most}."]


def _accuracy(row: Row) -> float:
    return row.test.estimate.value if row.test is not None else 0.0


def _several_splits(rows: Sequence[Row]) -> str:
    of_rows = {frozenset(run.split_hash for run in row.runs) for row in rows}
    if len(of_rows) < 2:
        return ""
    splits = frozenset.union(*of_rows)
    return (
        f"These runs used {len(splits)} different splits, so their accuracies were measured on "
        "different pictures. They stand side by side here, but runs on different splits cannot be "
        "called better or worse: fit them on one split to compare them."
    )


def _published(rows: Sequence[Row]) -> str:
    """Return how many published accuracies lie where they were measured again."""
    found = [
        (float(row.published["test"]), row.test.estimate)
        for row in rows
        if row.test is not None and row.published.get("test") is not None
    ]
    if not found:
        return ""
    above = sum(share > measured.high for share, measured in found)
    below = sum(share < measured.low for share, measured in found)
    return (
        f"{count(len(found), 'published test figure')}: {len(found) - above - below} within the "
        f"95 % interval of what was measured here, {above} above and {below} below."
    )


def _listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence.

    Example:
        >>> _listed(["a", "b", "c"]), _listed(["a", "b", "c", "d", "e"])
        ('a, b and c', 'a, b, c and 2 more')
    """
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
