"""What is wrong with a data set, found by decoding every image before anything is learned.

A check has few findings, one of a kind, each with numbers, examples and advice.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from regraft.data.dataset import Dataset, Split
from regraft.data.duplicates import Groups, copies, inspect_all, near_copies, propose_groups
from regraft.data.images import Decoding, ImageFacts
from regraft.data.sources import PARTS
from regraft.data.tables import write_table
from regraft.errors import BadImagesError, ImageError, list_names, printable
from regraft.files import write_json

Severity = Literal["error", "warning", "note"]
_SEVERITIES = ("error", "warning", "note")
_COLUMNS = ("path", "class", "part", "code", "reason", "advice")
_EXAMPLES = 3
_IMBALANCE = 3  # times
_BAR = 40  # letters of the bar of the largest class
_NOTES = {
    "NOTE-FLAT": ("next to nothing to see", "they are left out of the search for like images"),
    "NOTE-TINY": ("a side shorter than 32 pixels", "they will be enlarged and look blurred"),
    "NOTE-FRAMES": ("several frames or pages", "only the first one is used"),
    "NOTE-16BIT": ("more than 8 bits per channel", "16-bit values are divided by 256"),
    "NOTE-ALPHA": ("transparent pixels or an alpha channel", "a background is laid under"),
    "NOTE-CMYK": ("print colours (CMYK)", "they are converted without a colour profile"),
}
# What is said of groups that span several classes, several parts, or neither.
_Kinds = dict[str, tuple[Severity, str, str]]
_COPIES: _Kinds = {
    "DATA-CONFLICT": ("error", "in several classes", "decide for one and remove the other copies"),
    "DATA-LEAK": ("error", "in several parts", "remove the copies, or move them into train"),
    "DATA-DUPLICATES": (
        "note",
        "within a class",
        "a split keeps copies on one side; remove them if they shall not count twice",
    ),
}
_LOOK_ALIKES: _Kinds = {
    "DATA-NEAR-CONFLICT": ("warning", "in several classes", "look at them; a label may be wrong"),
    "DATA-NEAR-LEAK": ("warning", "in several parts", "look at them; they are not a fair test"),
    "DATA-NEAR-DUPLICATES": (
        "warning",
        "within a class",
        "fit and data split keep them on one side; remove all but one to count them once",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that a reader should know about a data set.

    Attributes:
        code: A stable code such as ``DATA-LEAK``.
        severity: ``"error"``: results would be wrong; ``"warning"``: they may mislead; ``"note"``.
        message: What was found, with numbers and a few examples.
        advice: What the reader can do about it.
        names: All groups that are meant, where the message names the first few.
    """

    code: str
    severity: Severity
    message: str
    advice: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        findings: What a reader should know, errors first, one finding of a kind.
        images: How many images were checked.
        bad_files: Path, class, part, code, reason and advice of each image that cannot be used.
        counts: Usable images for each part (``all`` if the set is not cut) and class.
        duplicates: Images with the same content, group by group, relative to the data folder.
        near_duplicates: Images that look alike but differ in content, group by group.
        notes: How many images are unusual in which way.

    Example:
        >>> report = check(Dataset(("no-such.jpg",), ("x",), ("x",)))
        >>> report.bad[0].code
        'IMG-UNREADABLE'
    """

    findings: tuple[Finding, ...]
    images: int
    bad_files: tuple[tuple[str, ...], ...]
    counts: dict[str, dict[str, int]]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, ...], ...]
    notes: dict[str, int]
    _evidence: _Evidence = field(repr=False, compare=False)

    @property
    def bad(self) -> tuple[ImageError, ...]:
        """The error of each image that cannot be used."""
        return tuple(self._evidence.bad.values())

    @property
    def has_errors(self) -> bool:
        """Whether something makes results wrong if nothing is done about it."""
        return any(finding.severity == "error" for finding in self.findings)

    def across(self, split: Split) -> CheckReport:
        """Return the same check with the parts of a split: what stands in two of them is found.

        Nothing is decoded again. Bad images may be missing in the split; its groups count, too.
        """
        known, cut = self._evidence, split.joined()
        parts = dict(zip(cut.paths, cut.parts or (), strict=True))
        groups = dict(zip(cut.paths, cut.groups or (), strict=False))
        part_of = tuple(parts.get(path, "") for path in known.data.paths)
        group_of = cut.groups and tuple(groups.get(path, "") for path in known.data.paths)
        return _report(dataclasses.replace(known, parts=part_of, groups=group_of, settled=True))

    def leaked(self, part: str = "test") -> tuple[str, ...]:
        """Return the images of a part that something in an earlier part gives away.

        That is a copy, an image that looks alike, or one of the same group.

        Args:
            part: ``"test"``, or ``"val"``, whose partners are looked for in train alone.
        """
        found = self._evidence
        earlier = set(PARTS[: PARTS.index(part)])
        places = set()
        groups = found.torn(found.groups).values()
        for members in [*found.duplicates, *found.near_duplicates, *groups]:
            if earlier & {found.part(place) for place in members}:
                places |= {place for place in members if found.part(place) == part}
        return tuple(found.names[place] for place in sorted(places))

    def hashed(self, dataset: Dataset) -> Dataset:
        """Return a checked data set that knows the SHA-256 of its files from this check."""
        known = zip(self._evidence.data.paths, self._evidence.facts, strict=True)
        return dataset.knowing({path: facts.sha256 for path, facts in known if facts})

    def to_json(self) -> dict[str, Any]:
        """Return numbers, findings and all lists, as values that JSON can hold."""
        return {
            "images": self.images,
            "usable": self.images - len(self.bad_files),
            "bad": dict(Counter(error.code for error in self.bad)),
            "counts": self.counts,
            "notes": self.notes,
            "findings": [asdict(finding) for finding in self.findings],
            "bad_files": [dict(zip(_COLUMNS, row, strict=True)) for row in self.bad_files],
            "duplicates": self.duplicates,
            "near_duplicates": self.near_duplicates,
        }

    def to_text(self) -> str:
        """Return the findings, and every image that cannot be used, as lines to read.

        Example:
            >>> check(Dataset((), (), ())).to_text()
            '0 images, nothing to report'
        """
        if not self.findings:
            return f"{self.images} images, nothing to report"
        lines = [f"{self.images} images, {len(self.bad_files)} of them cannot be used"]
        for finding in self.findings:
            lines.append(f"{finding.severity}: {finding.message} [{finding.code}]")
            lines.append(f"    {finding.advice}")
        for row in self.bad_files:
            name, label, part, code, reason, advice = map(printable, row)
            place = f"{label}, {part}" if part else label
            lines.append(f"{name} ({place}): {reason} - {advice} [{code}]")
        return "\n".join(lines)

    def balance(self) -> str:
        """Return the usable images of each class as bars, and which are few beside the largest.

        Example:
            >>> report = check(Dataset((), (), ()))
            >>> counts = {"all": {"rose": 30, "iris": 9}}
            >>> print(dataclasses.replace(report, counts=counts).balance())
            rose      30  ########################################
            iris       9  ############  few: a third of the largest class or less
        """
        total: Counter[str] = Counter()
        for part in self.counts.values():
            total.update(part)
        most, wide = max([1, *total.values()]), max([0, *(len(printable(name)) for name in total)])
        few = "  few: a third of the largest class or less"
        return "\n".join(
            f"{printable(name):{wide}}  {count:6,}  {'#' * round(_BAR * count / most)}"
            f"{few if _IMBALANCE * count <= most else ''}"
            for name, count in total.items()
        )

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``check.json``, all that was found, and ``bad_files.csv`` into ``folder``."""
        write_json(Path(folder) / "check.json", self.to_json())
        write_table(Path(folder) / "bad_files.csv", _COLUMNS, self.bad_files)


def check(
    data: Dataset | Split, *, decoding: Decoding = Decoding(), verbose: bool = False
) -> CheckReport:
    """Decode every image in full and report everything that is wrong, all at once.

    Nothing is changed, and nothing is written into the data folder.

    Parts and groups are looked at where they are known.

    Example:
        >>> [finding.code for finding in check(Dataset(("no.jpg",), ("x",), ("x",))).findings]
        ['DATA-BAD-IMAGES', 'DATA-FEW']
    """
    settled = isinstance(data, Split)
    whole = data.joined() if isinstance(data, Split) else data
    facts, bad = inspect_all(whole.paths, decoding, verbose=verbose)
    found = facts, bad, copies(facts), near_copies(facts)
    names = whole.relative_paths()
    return _report(_Evidence(whole, names, whole.parts, whole.groups, settled, *found))


def usable(
    dataset: Dataset, report: CheckReport, *, skip_bad: bool = False, max_bad: float = 0.01
) -> Dataset:
    """Return the data set if all its images can be used, or on request without the bad ones.

    Args:
        dataset: What was checked, or a part of it.
        report: What the check found.
        skip_bad: Whether to leave bad images out; the report lists them.
        max_bad: The largest share of bad images, 0 to 1, that may be left out.

    Raises:
        BadImagesError: There are bad images and they are not to be skipped, are more than
            ``max_bad`` allows, or are all that a class has.

    Example:
        >>> data = Dataset(("no-such.jpg",), ("x",), ("x",))
        >>> usable(data, check(data))
        Traceback (most recent call last):
        regraft.errors.BadImagesError: 1 image cannot be used - no-such.jpg - ...
    """
    errors = {error.path: error for error in report.bad}
    bad = [place for place, path in enumerate(dataset.paths) if os.fspath(path) in errors]
    if not bad:
        return dataset
    found = [errors[os.fspath(dataset.paths[place])] for place in bad]
    if not skip_bad:
        hint = "`regraft data check` lists them all; repair or remove them, or go on without them"
        raise BadImagesError(found, hint=f"{hint} with skip_bad=True (--skip-bad)")
    if len(bad) > max_bad * len(dataset):
        hint = f"{len(bad)} of {len(dataset)} are more than max_bad={max_bad} allows;"
        raise BadImagesError(found, hint=f"{hint} repair them, or raise it (--max-bad)")
    left_out = set(bad)
    kept = dataset.take(place for place in range(len(dataset)) if place not in left_out)
    if lost := set(dataset.labels) - set(kept.labels):
        hint = f"no image would be left of: {list_names(sorted(lost))}"
        raise BadImagesError(found, hint=hint)
    return kept


@dataclass(frozen=True)
class _Evidence:
    """Everything that findings are drawn from, whether it is cut or not."""

    data: Dataset
    names: tuple[str, ...]  # paths relative to the data folder, for messages
    parts: tuple[str, ...] | None  # of each image, "" for one left out; None: not cut
    groups: tuple[str, ...] | None  # of each image, "" for one of its own; None: not known
    settled: bool  # whether the parts are final, so that nothing more is cut from train
    facts: list[ImageFacts | None]  # of each image; None: it cannot be used
    bad: dict[int, ImageError]  # of each image that cannot be used, by its place
    duplicates: Groups  # of the same content
    near_duplicates: Groups  # that look alike

    def part(self, place: int) -> str | None:
        return None if self.parts is None else self.parts[place]

    def torn(self, groups: Sequence[str] | None) -> dict[str, list[int]]:
        """Return the groups that stand in several parts, by name, with the places of members."""
        members: dict[str, list[int]] = {}
        for place, name in enumerate(groups or ()):
            if name and self.part(place):
                members.setdefault(name, []).append(place)
        torn = _across([members[name] for name in sorted(members)], self.parts)
        return {groups[places[0]]: places for places in torn} if groups else {}

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the usable images of each part (``all`` if not cut) and each class."""
        usable = [place for place, facts in enumerate(self.facts) if facts]
        counted = Counter((self.part(place) or "all", self.data.labels[place]) for place in usable)
        parts = [part for part in PARTS if part in set(self.parts or ())] or ["all"]
        return {part: {name: counted[part, name] for name in self.data.classes} for part in parts}

    def examples(self, places: Sequence[int]) -> str:
        return list_names((self.names[place] for place in places), most=_EXAMPLES)


def _report(known: _Evidence) -> CheckReport:
    found = [
        *_bad(known),
        *_classes(known),
        *_about_copies("the same content", known.duplicates, known, _COPIES),
        *_about_copies("nearly the same image", known.near_duplicates, known, _LOOK_ALIKES),
        *_torn_groups(known),
        *_likely_groups(known),
        *_odd_images(known),
        *(
            Finding("DATA-SOURCE", "note", text, "nothing needs to be done")
            for text in known.data.notes
        ),
    ]
    notes = Counter(note for facts in known.facts if facts for note in facts.notes)
    return CheckReport(
        findings=tuple(sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))),
        images=len(known.data),
        bad_files=tuple(_row(known, place, error) for place, error in known.bad.items()),
        counts=known.counts(),
        duplicates=_named(known.duplicates, known),
        near_duplicates=_named(known.near_duplicates, known),
        notes=dict(sorted(notes.items())),
        _evidence=known,
    )


def _named(groups: Groups, known: _Evidence) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(known.names[place] for place in group) for group in groups)


def _row(known: _Evidence, place: int, error: ImageError) -> tuple[str, ...]:
    reason = ": ".join(part for part in (error.what, error.why) if part)
    image = known.names[place], known.data.labels[place], known.part(place) or ""
    return *image, error.code, reason, error.hint


def _bad(known: _Evidence) -> Iterator[Finding]:
    if not known.bad:
        return
    codes = Counter(error.code for error in known.bad.values()).most_common()
    kinds = ", ".join(f"{count} {code}" for code, count in codes)
    advice = "repair or remove them; skip_bad leaves them out and lists them"
    if known.settled and {known.part(place) for place in known.bad} == {""}:  # cut without them
        advice = "they were left out; repair them to have them used"
    message = f"{_plural(len(known.bad), 'image')} of {len(known.data)} cannot be used ({kinds}): "
    yield Finding("DATA-BAD-IMAGES", "error", message + known.examples(list(known.bad)), advice)


def _classes(known: _Evidence) -> Iterator[Finding]:
    counts = known.counts()
    # Every part that is still to be cut from these images takes at least one of each class.
    needed = 1 if known.settled else 3 - len(counts.keys() & {"val", "test"})
    whole = counts.get("all", counts.get("train", {}))
    if few := [f"{name} ({count})" for name, count in whole.items() if count < needed]:
        have = _plural(len(few), "class has", "classes have")
        message = f"{have} too few usable images: {list_names(few, most=5)}; "
        message += f"least number needed: {needed}"
        advice = "add images, leave these classes out, or cut fewer parts"
        yield Finding("DATA-FEW", "error", message, advice)
    for part in ("val", "test"):
        if lacking := [name for name, count in counts.get(part, {}).items() if not count]:
            message = f"{part} has no usable image of {_plural(len(lacking), 'class', 'classes')}: "
            message += list_names(lacking, most=5)
            advice = "nothing can be said about these classes there; cut the set anew"
            yield Finding("DATA-CLASS-MISSING", "warning", message, advice)
    total: Counter[str] = Counter()
    for in_part in counts.values():
        total.update(in_part)
    present = [(count, name) for name, count in total.items() if count] or [(1, "")]
    (most, largest), (least, smallest) = max(present), min(present)
    if most >= _IMBALANCE * least:
        message = f"the largest class ({largest}, {most}) has {most / least:.1f} times as many"
        message += f" images as the smallest ({smallest}, {least}); always answering {largest}"
        message += f" would be right for {most} of {total.total()}"
        advice = "look at the figures of each class, not at the accuracy alone"
        yield Finding("DATA-IMBALANCE", "warning", message, advice)


def _about_copies(what: str, groups: Groups, known: _Evidence, kinds: _Kinds) -> Iterator[Finding]:
    conflicts, leaks = _across(groups, known.data.labels), _across(groups, known.parts)
    first = {group[0] for group in conflicts + leaks}
    plain = [group for group in groups if group[0] not in first]
    for found, (code, (severity, where, advice)) in zip(
        (conflicts, leaks, plain), kinds.items(), strict=True
    ):
        if found:
            between = _between(found, known) if found is leaks else ""
            shown = (" = ".join(known.names[place] for place in group[:3]) for group in found)
            of = f"{_plural(len(found), 'group')} of {sum(map(len, found))} images"
            message = f"{what} {where}{between}: {of}: {list_names(shown, most=_EXAMPLES)}"
            settled = code == "DATA-NEAR-DUPLICATES" and known.parts
            yield Finding(code, "note" if settled else severity, message, advice)


def _torn_groups(known: _Evidence) -> Iterator[Finding]:
    if torn := known.torn(known.groups):
        advice = "cut the set anew with the groups kept together (--regroup)"
        yield Finding("DATA-GROUP-LEAK", "error", _torn(torn, known), advice, tuple(torn))


def _likely_groups(known: _Evidence) -> Iterator[Finding]:
    """Say which groups the names of files seem to speak of, where nobody has named any."""
    found = propose_groups(known.names, known.data.labels) if known.groups is None else None
    torn = known.torn(found.groups) if found else {}
    if found is None or (known.settled and not torn):
        return
    named = [name for name in found.groups if name]
    message = f"file names seem to say what belongs together: {found.expression} finds"
    message += f" {len(set(named))} groups of {_plural(len(named), 'image')}"
    message += f"; {_torn(torn, known)}" if torn else ""
    advice = "if these are patients, plants or films, keep each in one part"
    advice += f" (--group-by '{found.expression}')"
    yield Finding("DATA-LIKELY-GROUPS", "warning", message, advice, tuple(torn))


def _torn(torn: dict[str, list[int]], known: _Evidence) -> str:
    """Return which groups stand in which parts, the first few by name."""
    stand = _plural(len(torn), "group stands", "groups stand")
    where = _between(list(torn.values()), known)
    return f"{stand} in several parts{where}: {list_names(torn, most=_EXAMPLES)}"


def _odd_images(known: _Evidence) -> Iterator[Finding]:
    noted: dict[str, list[int]] = {}
    for place, facts in enumerate(known.facts):
        for note in facts.notes if facts else ():
            noted.setdefault(note, []).append(place)
    usable_ones, sayings = len(known.facts) - len(known.bad), dict(_NOTES)
    if len(noted.get("NOTE-GREY", ())) < usable_ones:
        sayings["NOTE-GREY"] = ("grey images among coloured ones", "grey is read as colour")
    for code, (what, advice) in sayings.items():
        if places := noted.get(code):
            of = f"{len(places)} of {usable_ones} images"
            yield Finding(code, "note", f"{what}: {of}: {known.examples(places)}", advice)


def _across(groups: Groups, column: Sequence[str] | None) -> Groups:
    """Return the groups whose members differ in a column."""
    if column is None:
        return []
    return [group for group in groups if len({column[place] for place in group}) > 1]


def _between(groups: Groups, known: _Evidence) -> str:
    """Return between which parts groups lie, for example `` (2 in train and test)``."""
    kinds: Counter[str] = Counter()
    for group in groups:
        parts = {known.part(place) for place in group}
        kinds[" and ".join(part for part in PARTS if part in parts)] += 1
    return " (" + ", ".join(f"{count} in {kind}" for kind, count in kinds.most_common()) + ")"


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
