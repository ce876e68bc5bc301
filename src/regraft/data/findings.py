"""What a check has to say: few findings, one of a kind, each with numbers, examples and advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from regraft.data.dataset import PARTS
from regraft.data.identifiers import propose
from regraft.data.inspection import Inspection, Pictures
from regraft.data.labels import list_names

Severity = Literal["error", "warning", "note"]
_SEVERITIES = ("error", "warning", "note")
_EXAMPLES = 3
_IMBALANCE = 3  # times
_NOTES = {
    "NOTE-FLAT": ("next to nothing to see", "they are left out of the search for like pictures"),
    "NOTE-TINY": ("a side shorter than 32 pixels", "they will be enlarged and look blurred"),
    "NOTE-EXTENSION": ("another kind of file than the name says", "nothing needs to be done"),
    "NOTE-FRAMES": ("several frames or pages", "only the first one is used"),
    "NOTE-16BIT": ("more than 8 bits per channel", "16-bit values are divided by 256"),
    "NOTE-ALPHA": ("transparent pixels or an alpha channel", "a background is laid under"),
    "NOTE-CMYK": ("print colours (CMYK)", "they are converted without a colour profile"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that a reader should know about a data set.

    Args:
        code: A stable code such as ``DATA-LEAK``.
        severity: ``"error"``: results would be wrong; ``"warning"``: they may mislead; ``"note"``.
        message: What was found, with numbers and a few examples.
        path: The first picture concerned, relative to the data folder.
        label: The class concerned, if it is one.
        part: The part concerned, if it is one.
        advice: What the reader can do about it.
        names: All groups that are meant, where the message names the first few.

    Example:
        >>> Finding("DATA-LEAK", "error", "2 pictures stand in several parts").severity
        'error'
    """

    code: str
    severity: Severity
    message: str
    path: str | None = None
    label: str | None = None
    part: str | None = None
    advice: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything that findings are drawn from.

    Args:
        pictures: What was checked.
        inspection: What decoding brought to light.
        duplicates: Places of pictures with the same content, group by group.
        near_duplicates: Places of pictures that look alike, group by group.
    """

    pictures: Pictures
    inspection: Inspection
    duplicates: list[list[int]]
    near_duplicates: list[list[int]]


def findings_of(evidence: Evidence) -> tuple[Finding, ...]:
    """Return all findings, errors first."""
    found = [
        *_bad(evidence),
        *_classes(evidence),
        *_exact_copies(evidence),
        *_near_copies(evidence),
        *_torn_groups(evidence),
        *_likely_groups(evidence),
        *_odd_pictures(evidence),
    ]
    return tuple(sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity)))


def _bad(evidence: Evidence) -> Iterator[Finding]:
    pictures, bad = evidence.pictures, evidence.inspection.bad
    if bad:
        codes = Counter(error.code for error in bad.values()).most_common()
        kinds = ", ".join(f"{count} {code}" for code, count in codes)
        labels = {pictures.labels[place] for place in bad}
        parts = {pictures.part(place) for place in bad}
        left_out = pictures.settled and parts == {""}  # the split was cut without them
        yield Finding(
            "DATA-BAD-IMAGES",
            "error",
            f"{_count(len(bad))} of {len(pictures.paths)} cannot be used ({kinds}): "
            + _examples(pictures, list(bad)),
            path=pictures.names[min(bad)],
            label=labels.pop() if len(labels) == 1 else None,
            part=parts.pop() if len(parts) == 1 else None,
            advice="they were left out; repair them to have them used"
            if left_out
            else "repair or remove them; skip_bad leaves them out and lists them",
        )


def _classes(evidence: Evidence) -> Iterator[Finding]:
    counts = evidence.pictures.counts(evidence.inspection.usable())
    yield from _few(counts, settled=evidence.pictures.settled)
    yield from _missing(counts)
    yield from _imbalance(counts)


def _few(counts: dict[str, dict[str, int]], *, settled: bool) -> Iterator[Finding]:
    # Every part that is still to be cut from these pictures takes at least one of each class.
    cut = "all" not in counts
    needed = 1 if settled else 3 - len(counts.keys() & {"val", "test"})
    few = {
        name: count
        for name, count in counts.get("train" if cut else "all", {}).items()
        if count < needed
    }
    if few:
        yield Finding(
            "DATA-FEW",
            "error",
            f"{_plural(len(few), 'class has', 'classes have')} too few usable pictures: "
            + list_names((f"{name} ({count})" for name, count in few.items()), most=5)
            + f"; least number needed: {needed}",
            label=next(iter(few)) if len(few) == 1 else None,
            part="train" if cut else None,
            advice="add pictures, leave these classes out, or cut fewer parts",
        )


def _missing(counts: dict[str, dict[str, int]]) -> Iterator[Finding]:
    for part in ("val", "test"):
        lacking = [name for name, count in counts.get(part, {}).items() if not count]
        if lacking:
            yield Finding(
                "DATA-CLASS-MISSING",
                "warning",
                f"{part} has no usable picture of {_plural(len(lacking), 'class', 'classes')}: "
                + list_names(lacking, most=5),
                label=lacking[0] if len(lacking) == 1 else None,
                part=part,
                advice="nothing can be said about these classes there; cut the set anew",
            )


def _imbalance(counts: dict[str, dict[str, int]]) -> Iterator[Finding]:
    total: Counter[str] = Counter()
    for part in counts.values():
        total.update(part)
    present = [(count, name) for name, count in total.items() if count]
    if not present:
        return
    (most, largest), (least, smallest) = max(present), min(present)
    if most >= _IMBALANCE * least:
        yield Finding(
            "DATA-IMBALANCE",
            "warning",
            f"the largest class ({largest}, {most}) has {most / least:.1f} times as many pictures "
            f"as the smallest ({smallest}, {least}); always answering {largest} would be right for "
            f"{most} of {total.total()}",
            label=largest,
            advice="look at the figures of each class, not at the accuracy alone",
        )


def _exact_copies(evidence: Evidence) -> Iterator[Finding]:
    pictures = evidence.pictures
    conflicts, leaks, plain = _told_apart(evidence.duplicates, pictures)
    if conflicts:
        yield _about_groups(
            "DATA-CONFLICT",
            "error",
            (conflicts, "the same content in several classes"),
            pictures,
            "decide for one class and remove the other copies",
        )
    if leaks:
        yield _about_groups(
            "DATA-LEAK",
            "error",
            (leaks, f"the same content in several parts{_between(leaks, pictures)}"),
            pictures,
            "remove the copies from one of the parts, or move them into train",
        )
    if plain:
        yield _about_groups(
            "DATA-DUPLICATES",
            "note",
            (plain, "the same content within a class"),
            pictures,
            "a split keeps copies on one side; remove them if they shall not count twice",
        )


def _near_copies(evidence: Evidence) -> Iterator[Finding]:
    pictures = evidence.pictures
    conflicts, leaks, plain = _told_apart(evidence.near_duplicates, pictures)
    if conflicts:
        yield _about_groups(
            "DATA-NEAR-CONFLICT",
            "warning",
            (conflicts, "nearly the same picture in several classes"),
            pictures,
            "look at them; one of the labels may be wrong",
        )
    if leaks:
        yield _about_groups(
            "DATA-NEAR-LEAK",
            "warning",
            (leaks, f"nearly the same picture in several parts{_between(leaks, pictures)}"),
            pictures,
            "look at them; what stands in train too is not a fair test",
        )
    if plain:
        yield _about_groups(
            "DATA-NEAR-DUPLICATES",
            "note" if pictures.parts else "warning",
            (plain, "nearly the same picture within a class"),
            pictures,
            "fit and data split keep them on one side; remove all but one to count them once",
        )


def _told_apart(
    groups: list[list[int]], pictures: Pictures
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Return the groups that span several classes, those that span several parts, and the rest."""
    conflicts = _across(groups, pictures.labels)
    leaks = _across(groups, pictures.parts)
    known = {group[0] for group in conflicts + leaks}
    return conflicts, leaks, [group for group in groups if group[0] not in known]


def _torn_groups(evidence: Evidence) -> Iterator[Finding]:
    pictures = evidence.pictures
    torn = pictures.torn(pictures.groups)
    if torn:
        yield Finding(
            "DATA-GROUP-LEAK",
            "error",
            _torn(torn, pictures),
            path=pictures.names[next(iter(torn.values()))[0]],
            advice="cut the set anew with the groups kept together (--regroup)",
            names=tuple(torn),
        )


def _likely_groups(evidence: Evidence) -> Iterator[Finding]:
    """Say which groups the names of files seem to speak of, where nobody has named any."""
    pictures = evidence.pictures
    found = propose(pictures.names, pictures.labels) if pictures.groups is None else None
    if found is None:
        return
    torn = pictures.torn(found.groups)
    if pictures.settled and not torn:
        return
    named = [name for name in found.groups if name]
    counted = f"{len(set(named))} groups of {_count(len(named))}"
    yield Finding(
        "DATA-LIKELY-GROUPS",
        "warning",
        f"file names seem to say what belongs together: {found.expression} finds {counted}"
        + (f"; {_torn(torn, pictures)}" if torn else ""),
        path=next(name for name, group in zip(pictures.names, found.groups, strict=True) if group),
        advice="if these are patients, plants or films, keep each in one part "
        f"(--group-by '{found.expression}')",
        names=tuple(torn),
    )


def _torn(torn: dict[str, list[int]], pictures: Pictures) -> str:
    """Return which groups stand in which parts, the first few by name."""
    groups = list(torn.values())
    kinds = {frozenset(pictures.part(place) for place in places) for places in groups}
    parts = [part for part in PARTS if part in set().union(*kinds)]
    where = "several parts" + _between(groups, pictures)
    if len(kinds) == 1 and len(parts) == 2:
        where = f"both {parts[0]} and {parts[1]}"
    stand = _plural(len(torn), "group stands", "groups stand")
    return f"{stand} in {where}: {list_names(torn, most=_EXAMPLES)}"


def _odd_pictures(evidence: Evidence) -> Iterator[Finding]:
    pictures, notes = evidence.pictures, evidence.inspection.notes
    usable = len(pictures.paths) - len(evidence.inspection.bad)
    sayings = dict(_NOTES)
    if notes["NOTE-GREY"] < usable:
        sayings["NOTE-GREY"] = ("grey pictures among coloured ones", "grey is read as colour")
    for code, (what, advice) in sayings.items():
        if notes[code]:
            examples = evidence.inspection.examples[code]
            yield Finding(
                code,
                "note",
                f"{what}: {notes[code]} of {usable} pictures: "
                + _examples(pictures, examples, of=notes[code]),
                path=pictures.names[examples[0]],
                advice=advice,
            )


def _across(groups: list[list[int]], column: Sequence[str] | None) -> list[list[int]]:
    """Return the groups whose members differ in a column."""
    if column is None:
        return []
    return [group for group in groups if len({column[place] for place in group}) > 1]


def _between(groups: list[list[int]], pictures: Pictures) -> str:
    """Return between which parts groups lie, for example `` (2 in train and test)``."""
    kinds: Counter[str] = Counter()
    for group in groups:
        parts = {pictures.part(place) for place in group}
        kinds[" and ".join(part for part in PARTS if part in parts)] += 1
    return " (" + ", ".join(f"{count} in {kind}" for kind, count in kinds.most_common()) + ")"


def _about_groups(
    code: str,
    severity: Severity,
    found: tuple[list[list[int]], str],
    pictures: Pictures,
    advice: str,
) -> Finding:
    groups, what = found
    shown = (" = ".join(pictures.names[place] for place in group[:3]) for group in groups)
    message = (
        f"{what}: {_plural(len(groups), 'group', 'groups')} of {sum(map(len, groups))} pictures"
    )
    return Finding(
        code,
        severity,
        f"{message}: {list_names(shown, most=_EXAMPLES)}",
        path=pictures.names[groups[0][0]],
        advice=advice,
    )


def _examples(pictures: Pictures, places: list[int], *, of: int | None = None) -> str:
    shown = [pictures.names[place] for place in places]
    text = list_names(shown[:_EXAMPLES], most=_EXAMPLES)
    more = (of or len(places)) - min(len(shown), _EXAMPLES)
    return f"{text} and {more} more" if more else text


def _count(pictures: int) -> str:
    return _plural(pictures, "picture", "pictures")


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
