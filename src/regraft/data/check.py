"""What is wrong with a data set, found by decoding every image before anything is learned.

A check has few findings, one of a kind, each with numbers, examples and advice.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
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
_NOTES = {
    "NOTE-FLAT": ("next to nothing to see", "they are left out of the search for like images"),
    "NOTE-TINY": ("a side shorter than 32 pixels", "they will be enlarged and look blurred"),
    "NOTE-EXTENSION": ("another kind of file than the name says", "nothing needs to be done"),
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
        path: The first image concerned, relative to the data folder.
        label: The class concerned, if it is one.
        part: The part concerned, if it is one.
        advice: What the reader can do about it.
        names: All groups that are meant, where the message names the first few.
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
class BadFile:
    """One image that cannot be used: relative path, class, part if there is one, and why."""

    name: str
    label: str
    part: str | None
    error: ImageError


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        findings: What a reader should know, errors first, one finding of a kind.
        images: How many images were checked.
        bad_files: All images that cannot be used.
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
    bad_files: tuple[BadFile, ...]
    counts: dict[str, dict[str, int]]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, ...], ...]
    notes: dict[str, int]
    _evidence: _Evidence = field(repr=False, compare=False)

    @property
    def bad(self) -> tuple[ImageError, ...]:
        """The error of each image that cannot be used."""
        return tuple(file.error for file in self.bad_files)

    @property
    def has_errors(self) -> bool:
        """Whether something makes results wrong if nothing is done about it."""
        return any(finding.severity == "error" for finding in self.findings)

    def across(self, split: Split) -> CheckReport:
        """Return the same check with the parts of a split: what stands in two of them is found.

        Nothing is decoded again.

        Args:
            split: A cut of the images that were checked; bad ones may be missing. Groups that its
                parts know are looked at, too.
        """
        checked, cut = self._evidence.images, _Images.of(split)
        parts = dict(zip(cut.paths, cut.parts or (), strict=True))
        groups = None if cut.groups is None else dict(zip(cut.paths, cut.groups, strict=True))
        images = dataclasses.replace(
            checked,
            parts=tuple(parts.get(path, "") for path in checked.paths),
            groups=tuple(groups.get(path, "") for path in checked.paths)
            if groups is not None
            else None,
            settled=True,
        )
        return _report(dataclasses.replace(self._evidence, images=images))

    def leaked(self, part: str = "test") -> tuple[str, ...]:
        """Return the images of a part that something in an earlier part gives away.

        That is a copy, an image that looks alike, or one of the same group.

        Args:
            part: ``"test"``, whose partners are looked for in train and val, or ``"val"``, whose
                partners are looked for in train.

        Returns:
            Their paths relative to the data folder, in order.
        """
        found, images = self._evidence, self._evidence.images
        earlier = set(PARTS[: PARTS.index(part)])
        groups = images.torn(images.groups).values()
        places = set()
        for members in [*found.duplicates, *found.near_duplicates, *groups]:
            if earlier & {images.part(place) for place in members}:
                places |= {place for place in members if images.part(place) == part}
        return tuple(images.names[place] for place in sorted(places))

    def hashed(self, dataset: Dataset) -> Dataset:
        """Return a checked data set that knows the SHA-256 of its files from this check."""
        known = zip(self._evidence.images.paths, self._evidence.facts, strict=True)
        return dataset.knowing({path: facts.sha256 for path, facts in known if facts})

    def summary(self) -> dict[str, Any]:
        """Return numbers and findings, without the full lists, as values that JSON can hold."""
        return {
            "images": self.images,
            "usable": self.images - len(self.bad_files),
            "bad": dict(Counter(error.code for error in self.bad)),
            "counts": self.counts,
            "duplicate_groups": len(self.duplicates),
            "near_duplicate_groups": len(self.near_duplicates),
            "notes": self.notes,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summary and all lists, as values that JSON can hold."""
        return self.summary() | {
            "bad_files": [dict(zip(_COLUMNS, _row(file), strict=True)) for file in self.bad_files],
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
        for file in self.bad_files:
            name, label, part, code, reason, advice = map(printable, _row(file))
            place = f"{label}, {part}" if part else label
            lines.append(f"{name} ({place}): {reason} - {advice} [{code}]")
        return "\n".join(lines)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``check.json`` (summary and all lists) and ``bad_files.csv`` into ``folder``."""
        write_json(Path(folder) / "check.json", self.to_json())
        write_table(Path(folder) / "bad_files.csv", _COLUMNS, map(_row, self.bad_files))


def check(
    data: Dataset | Split,
    *,
    decoding: Decoding = Decoding(),
    near_distance: int = 4,
    verbose: bool = False,
) -> CheckReport:
    """Decode every image in full and report everything that is wrong, all at once.

    Nothing is changed, and nothing is written into the data folder.

    Args:
        data: Images with their classes; parts and groups are looked at where they are known.
        decoding: How pixels become RGB where a file leaves it open.
        near_distance: In how many of 64 bits the hashes of like images may differ.
        verbose: Whether to show the progress.

    Raises:
        UsageError: ``near_distance`` is not between 0 and 63.

    Example:
        >>> [finding.code for finding in check(Dataset(("no.jpg",), ("x",), ("x",))).findings]
        ['DATA-BAD-IMAGES', 'DATA-FEW']
    """
    images = _Images.of(data)
    facts, bad = inspect_all(images.paths, decoding, verbose=verbose)
    duplicates, near_duplicates = copies(facts), near_copies(facts, near_distance)
    return _report(_Evidence(images, facts, bad, duplicates, near_duplicates))


def usable(
    dataset: Dataset, report: CheckReport, *, skip_bad: bool = False, max_bad: float = 0.01
) -> Dataset:
    """Return the data set if all its images can be used, or on request without the bad ones.

    Args:
        dataset: What was checked, or a part of it.
        report: What the check found.
        skip_bad: Whether to leave bad images out; they are listed in the notes of the result.
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
    names = dataset.relative_paths()
    listed = list_names((names[place] for place in bad), most=len(bad))
    note = f"{len(bad)} of {len(dataset)} images cannot be used and were left out: {listed}"
    return dataclasses.replace(kept, notes=(*dataset.notes, note))


@dataclass(frozen=True)
class _Images:
    """All images to check, whether they are cut into parts or not, column by column.

    Attributes:
        paths: The files.
        names: Their paths relative to the data folder, for messages.
        labels: The class of each.
        parts: ``train``, ``val`` or ``test`` of each; None: not cut.
        groups: The group of each, empty for a group of its own; None: no groups are known.
        classes: All classes in their order.
        settled: Whether the parts are final, so that nothing more is cut from train.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    classes: tuple[str, ...]
    settled: bool = False

    @classmethod
    def of(cls, data: Dataset | Split) -> _Images:
        whole = data if isinstance(data, Dataset) else data.joined()
        columns = (whole.paths, whole.relative_paths(), whole.labels, whole.parts, whole.groups)
        return cls(*columns, whole.classes, settled=isinstance(data, Split))

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

    def counts(self, places: Sequence[int]) -> dict[str, dict[str, int]]:
        """Count the images at ``places`` for each part (``all`` if not cut) and each class."""
        counted = Counter((self.part(place) or "all", self.labels[place]) for place in places)
        given = set(self.parts or ())
        parts = [part for part in PARTS if part in given] or ["all"]
        return {part: {name: counted[part, name] for name in self.classes} for part in parts}


@dataclass(frozen=True)
class _Evidence:
    """Everything that findings are drawn from: what is known of each image, or its error."""

    images: _Images
    facts: list[ImageFacts | None]
    bad: dict[int, ImageError]
    duplicates: Groups
    near_duplicates: Groups

    def usable(self) -> list[int]:
        return [place for place, facts in enumerate(self.facts) if facts]


def _report(evidence: _Evidence) -> CheckReport:
    images = evidence.images
    found = [
        *_bad(evidence),
        *_classes(evidence),
        *_about_copies("the same content", evidence.duplicates, images, _COPIES),
        *_about_copies("nearly the same image", evidence.near_duplicates, images, _LOOK_ALIKES),
        *_torn_groups(images),
        *_likely_groups(images),
        *_odd_images(evidence),
    ]
    notes = Counter(note for facts in evidence.facts if facts for note in facts.notes)
    return CheckReport(
        findings=tuple(sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))),
        images=len(images.paths),
        bad_files=tuple(
            BadFile(images.names[place], images.labels[place], images.part(place), error)
            for place, error in evidence.bad.items()
        ),
        counts=images.counts(evidence.usable()),
        duplicates=_named(evidence.duplicates, images),
        near_duplicates=_named(evidence.near_duplicates, images),
        notes=dict(sorted(notes.items())),
        _evidence=evidence,
    )


def _named(groups: Groups, images: _Images) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(images.names[place] for place in group) for group in groups)


def _row(file: BadFile) -> tuple[str, ...]:
    error = file.error
    reason = ": ".join(part for part in (error.what, error.why) if part)
    return file.name, file.label, file.part or "", error.code, reason, error.hint


def _bad(evidence: _Evidence) -> Iterator[Finding]:
    images, bad = evidence.images, evidence.bad
    if not bad:
        return
    codes = Counter(error.code for error in bad.values()).most_common()
    kinds = ", ".join(f"{count} {code}" for code, count in codes)
    parts = {images.part(place) for place in bad}
    advice = "repair or remove them; skip_bad leaves them out and lists them"
    if images.settled and parts == {""}:  # the split was cut without them
        advice = "they were left out; repair them to have them used"
    message = f"{_plural(len(bad), 'image')} of {len(images.paths)} cannot be used ({kinds}): "
    yield Finding(
        "DATA-BAD-IMAGES",
        "error",
        message + _examples(images, list(bad)),
        path=images.names[min(bad)],
        label=_only({images.labels[place] for place in bad}),
        part=_only(parts),
        advice=advice,
    )


def _classes(evidence: _Evidence) -> Iterator[Finding]:
    counts = evidence.images.counts(evidence.usable())
    # Every part that is still to be cut from these images takes at least one of each class.
    cut = "all" not in counts
    needed = 1 if evidence.images.settled else 3 - len(counts.keys() & {"val", "test"})
    whole, part = counts.get("train" if cut else "all", {}), "train" if cut else None
    if few := {name: count for name, count in whole.items() if count < needed}:
        listed = list_names((f"{name} ({count})" for name, count in few.items()), most=5)
        have = _plural(len(few), "class has", "classes have")
        message = f"{have} too few usable images: {listed}; least number needed: {needed}"
        advice = "add images, leave these classes out, or cut fewer parts"
        label = _only(few)
        yield Finding("DATA-FEW", "error", message, label=label, part=part, advice=advice)
    for part in ("val", "test"):
        if lacking := [name for name, count in counts.get(part, {}).items() if not count]:
            message = f"{part} has no usable image of {_plural(len(lacking), 'class', 'classes')}: "
            message += list_names(lacking, most=5)
            advice = "nothing can be said about these classes there; cut the set anew"
            code, label = "DATA-CLASS-MISSING", _only(lacking)
            yield Finding(code, "warning", message, label=label, part=part, advice=advice)
    total: Counter[str] = Counter()
    for in_part in counts.values():
        total.update(in_part)
    present = [(count, name) for name, count in total.items() if count]
    (most, largest), (least, smallest) = (
        max(present, default=(0, "")),
        min(present, default=(1, "")),
    )
    if most >= _IMBALANCE * least:
        message = f"the largest class ({largest}, {most}) has {most / least:.1f} times as many"
        message += f" images as the smallest ({smallest}, {least}); always answering {largest}"
        message += f" would be right for {most} of {total.total()}"
        advice = "look at the figures of each class, not at the accuracy alone"
        yield Finding("DATA-IMBALANCE", "warning", message, label=largest, advice=advice)


def _about_copies(what: str, groups: Groups, images: _Images, kinds: _Kinds) -> Iterator[Finding]:
    conflicts, leaks = _across(groups, images.labels), _across(groups, images.parts)
    known = {group[0] for group in conflicts + leaks}
    plain = [group for group in groups if group[0] not in known]
    for found, (code, (severity, where, advice)) in zip(
        (conflicts, leaks, plain), kinds.items(), strict=True
    ):
        if not found:
            continue
        between = _between(found, images) if found is leaks else ""
        shown = (" = ".join(images.names[place] for place in group[:3]) for group in found)
        of = f"{_plural(len(found), 'group')} of {sum(map(len, found))} images"
        settled = code == "DATA-NEAR-DUPLICATES" and images.parts
        message = f"{what} {where}{between}: {of}: {list_names(shown, most=_EXAMPLES)}"
        path = images.names[found[0][0]]
        yield Finding(code, "note" if settled else severity, message, path=path, advice=advice)


def _torn_groups(images: _Images) -> Iterator[Finding]:
    if torn := images.torn(images.groups):
        message, path = _torn(torn, images), images.names[next(iter(torn.values()))[0]]
        advice, names = "cut the set anew with the groups kept together (--regroup)", tuple(torn)
        code = "DATA-GROUP-LEAK"
        yield Finding(code, "error", message, path=path, advice=advice, names=names)


def _likely_groups(images: _Images) -> Iterator[Finding]:
    """Say which groups the names of files seem to speak of, where nobody has named any."""
    found = propose_groups(images.names, images.labels) if images.groups is None else None
    torn = images.torn(found.groups) if found else {}
    if found is None or (images.settled and not torn):
        return
    named = [place for place, name in enumerate(found.groups) if name]
    count = len({found.groups[place] for place in named})
    message = f"file names seem to say what belongs together: {found.expression} finds {count}"
    message += f" groups of {_plural(len(named), 'image')}"
    message += f"; {_torn(torn, images)}" if torn else ""
    advice = "if these are patients, plants or films, keep each in one part"
    advice += f" (--group-by '{found.expression}')"
    code, path, names = "DATA-LIKELY-GROUPS", images.names[named[0]], tuple(torn)
    yield Finding(code, "warning", message, path=path, advice=advice, names=names)


def _torn(torn: dict[str, list[int]], images: _Images) -> str:
    """Return which groups stand in which parts, the first few by name."""
    groups = list(torn.values())
    kinds = {frozenset(images.part(place) for place in places) for places in groups}
    parts = [part for part in PARTS if part in set().union(*kinds)]
    where = "several parts" + _between(groups, images)
    if len(kinds) == 1 and len(parts) == 2:
        where = f"both {parts[0]} and {parts[1]}"
    stand = _plural(len(torn), "group stands", "groups stand")
    return f"{stand} in {where}: {list_names(torn, most=_EXAMPLES)}"


def _odd_images(evidence: _Evidence) -> Iterator[Finding]:
    images, usable_ones = evidence.images, len(evidence.usable())
    noted: dict[str, list[int]] = {}
    for place, facts in enumerate(evidence.facts):
        for note in facts.notes if facts else ():
            noted.setdefault(note, []).append(place)
    sayings = dict(_NOTES)
    if len(noted.get("NOTE-GREY", ())) < usable_ones:
        sayings["NOTE-GREY"] = ("grey images among coloured ones", "grey is read as colour")
    for code, (what, advice) in sayings.items():
        if places := noted.get(code):
            message = f"{what}: {len(places)} of {usable_ones} images: {_examples(images, places)}"
            yield Finding(code, "note", message, path=images.names[places[0]], advice=advice)


def _only(values: Collection[str | None]) -> str | None:
    """Return the only one of some values, None if there are several."""
    return next(iter(values)) if len(values) == 1 else None


def _across(groups: Groups, column: Sequence[str] | None) -> Groups:
    """Return the groups whose members differ in a column."""
    if column is None:
        return []
    return [group for group in groups if len({column[place] for place in group}) > 1]


def _between(groups: Groups, images: _Images) -> str:
    """Return between which parts groups lie, for example `` (2 in train and test)``."""
    kinds: Counter[str] = Counter()
    for group in groups:
        parts = {images.part(place) for place in group}
        kinds[" and ".join(part for part in PARTS if part in parts)] += 1
    return " (" + ", ".join(f"{count} in {kind}" for kind, count in kinds.most_common()) + ")"


def _examples(images: _Images, places: list[int]) -> str:
    return list_names((images.names[place] for place in places), most=_EXAMPLES)


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
