"""From a folder or table to a checked split, and images through a network, both within a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.data.check import CheckReport, check, usable
from regraft.data.dataset import Dataset, Split
from regraft.data.manifest import is_manifest
from regraft.data.tables import column_names
from regraft.errors import DataError, RunError, UsageError
from regraft.experiment.config import DataConfig, MethodConfig
from regraft.files import read_json
from regraft.report.tables import Duration
from regraft.results.run import RECORD

if TYPE_CHECKING:
    from regraft.features.extractor import FeatureExtractor

_FEW = 16  # images that are looked at to see how long all of them take
_PIECE = 5.0  # seconds after which it is asked how much time is left


@dataclass(frozen=True)
class PreparedData:
    """A split whose images were all decoded once, and what was found.

    Attributes:
        split: The parts.
        report: What the check found.
        images: All images that can be used, not split.
        stamps: Size and time of each file when it was checked.
    """

    split: Split
    report: CheckReport
    images: Dataset = field(repr=False)
    stamps: dict[Path, tuple[int, int]] = field(repr=False)

    def refuse_changed_files(self) -> None:
        """Make sure that no image was changed since it was checked.

        Raises:
            DataError: Files are gone or have another size or time (code ``DATA-CHANGED``).
        """
        changed = [path for path, stamp in self.stamps.items() if _stamp(path) != stamp]
        if changed:
            what = f"{len(changed)} images changed while the run was at work"
            hint = "let nothing write there, and run again"
            raise DataError(what, path=changed[0], hint=hint, code="DATA-CHANGED")


class Clock:
    """A number of seconds, and a clock that runs.

    Args:
        seconds: How many there are; None for as many as it takes.
        begun: When it began to run, by ``time.perf_counter``; now if it is not said.

    Example:
        >>> Clock().left
        inf
    """

    def __init__(self, seconds: float | None = None, begun: float | None = None) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._begun = time.perf_counter() if begun is None else begun

    @property
    def spent(self) -> float:
        """Seconds since the clock began to run."""
        return time.perf_counter() - self._begun

    @property
    def left(self) -> float:
        """Seconds that are left; below zero when it was not enough."""
        return self.seconds - self.spent

    def too_short(self, needed: float, least: str) -> UsageError:
        """Return what to raise where a budget is too short for the least that can be done.

        Args:
            needed: How many seconds this takes from now on.
            least: What it is.
        """
        whole = self.spent + needed
        return UsageError(
            "the budget is too short",
            why=f"the least that can be done, {least}, takes about {Duration(whole)};"
            f" the budget is {Duration(self.seconds)}",
            hint=f"give it --budget {30 * math.ceil(1.2 * whole / 30)}s or more",
            code="BUDGET",
        )


@dataclass(frozen=True)
class Passed:
    """How far images have come through a network.

    Attributes:
        embedded: How many have passed it now; others were cached.
        each: Seconds for one of them, decoding included; 0 where all were cached.
        left: Seconds that the rest will take.
    """

    embedded: int
    each: float
    left: float


def embed_in_pieces(extractor: FeatureExtractor, images: Dataset) -> Iterator[Passed]:
    """Pass images that are not cached through a network, and yield after each piece.

    The first piece is a few images of all classes; then a piece takes some seconds. What has passed
    stays cached.

    Raises:
        BackboneError: The network cannot be built.
        ImageError: An image cannot be used.
    """
    first = extractor.stream(images.paths[:1])  # builds the engine, which counts for no image
    waiting = np.flatnonzero(~first.rows.known(images.hashes()))
    few = waiting[:: -(-len(waiting) // _FEW) or 1]
    waiting = np.concatenate([few, np.setdiff1d(waiting, few)])
    embedded, done, seconds, size = first.stats.embedded, 0, 0.0, len(few)
    while done < len(waiting):
        piece = waiting[done : done + size]
        stats = extractor.stream([images.paths[place] for place in piece]).stats
        embedded, done = embedded + stats.embedded, done + len(piece)
        seconds += stats.seconds
        each = seconds / done
        yield Passed(embedded, each, each * (len(waiting) - done))
        size = max(_FEW, int(_PIECE / max(each, 1e-9)))
    if not len(waiting):
        yield Passed(embedded, 0.0, 0.0)


def check_seconds(images: Dataset) -> float:
    """Return how long it will take to decode all images, judged by a few of them."""
    few = images.take(range(0, len(images), max(1, len(images) // _FEW)))
    begun = time.perf_counter()
    check(few)
    return (time.perf_counter() - begun) / len(few) * len(images)


def read_images(data: DataConfig) -> Dataset:
    """Return the data set as it lies there with its groups: nothing decoded, nothing split.

    Raises:
        DataError: The folder or table cannot be used, or there are no such groups.
    """
    return _listed(data).grouped(data.group_by)


def checked_images(
    data: DataConfig, images: Dataset | None = None, *, verbose: bool = False
) -> tuple[Dataset, CheckReport]:
    """Return the images that can be used, and what a check found; nothing is split.

    Args:
        data: Which images, and whether bad ones may be left out.
        images: Those that are checked instead of all that ``data`` names.
        verbose: Whether to show progress on standard error.

    Raises:
        DataError: The folder cannot be used.
        BadImagesError: Images cannot be used and ``skip_bad`` is off or they are too many.
    """
    images = read_images(data) if images is None else images
    report = check(images, verbose=verbose)
    good = usable(images, report, skip_bad=data.skip_bad, max_bad=data.max_bad)
    return report.hashed(good), report


def prepare(
    data: DataConfig, *, shared: PreparedData | None = None, verbose: bool = False
) -> PreparedData:
    """Read, check and split images.

    Args:
        data: Which images, and how they are split.
        shared: What was prepared before of the same images; then nothing is decoded again, and they
            are only split.
        verbose: Whether to show progress on standard error.

    Raises:
        DataError: The folder cannot be used or split as asked.
        BadImagesError: Images cannot be used and ``skip_bad`` is off or they are too many.
    """
    if shared is None:
        images = read_images(data)
        stamps = {path: _stamp(path) for path in images.paths}
        images, report = checked_images(data, images, verbose=verbose)
    else:
        images, report, stamps = shared.images, shared.report, shared.stamps
    split = split_as_asked(images, data, alike=report.near_duplicates)
    return PreparedData(split, report.across(split), images, stamps)


def split_as_asked(
    images: Dataset, data: DataConfig, *, alike: Sequence[Sequence[str]] = ()
) -> Split:
    """Return images split as a configuration says; ``alike`` are groups that look alike.

    Raises:
        DataError: They cannot be split like that.
    """
    as_written = _is_written_split(data) and not data.regroup  # also where it lacks a part
    shares = {"val": 0.0, "test": 0.0} if as_written else {"val": data.val, "test": data.test}
    same = ["seed", "group_by", "regroup", "keep_parts", "folds", "fold", "small_classes"]
    chosen: dict[str, Any] = {**shares, **{name: getattr(data, name) for name in same}}
    return images.split(**chosen, alike=alike)


def write_split(data: DataConfig, folder: Path, *, verbose: bool = False) -> PreparedData:
    """Split images, and write the manifest into a folder where no other split stands.

    Raises:
        RunError: A finished run stands there (``RUN-EXISTS``).
        DataError: Another split stands there (``SPLIT-EXISTS``), or the images cannot be used.
    """
    if (folder / RECORD).exists():
        what = "a finished run stands here; its manifest says what it has learned"
        raise RunError(what, path=folder, hint="choose another --out", code="RUN-EXISTS")
    prepared = prepare(data, verbose=verbose)
    facts = folder / "split.json"
    if facts.exists() and read_json(facts).get("hash") != prepared.split.hash:
        what = "another split stands here; what was measured on it would be mixed up"
        raise DataError(what, path=folder, hint="choose another --out", code="SPLIT-EXISTS")
    prepared.split.write(folder)
    return prepared


def take_amount(images: Dataset, method: MethodConfig) -> Dataset:
    """Return as many of the images as a method learns from; other seeds, other images."""
    if method.per_class is method.size is method.fraction is None:
        return images
    amounts = {name: getattr(method, name) for name in ("per_class", "size", "fraction", "at_most")}
    return images.subset(**amounts, seed=method.seed)


def _listed(data: DataConfig) -> Dataset:
    source = data.source
    if data.root is not None and source.is_dir():
        what, hint = "root (--root) does nothing for a folder of images", "leave it out"
        raise UsageError(what, path=source, why="paths in a table begin there", hint=hint)
    if data.label_from_name is not None:
        return Dataset.from_names(source, pattern=data.label_from_name)
    if _is_written_split(data):
        return Split.read(source, root=data.root or source.parent).joined()
    if source.suffix.lower() in {".csv", ".tsv"} and source.is_file():
        known = set(column_names(source)) | ({"group"} if data.group_by == "column" else set())
        columns = {name: name for name in ("part", "group") if name in known}
        return Dataset.from_csv(source, root=data.root, **columns)
    return Dataset.from_folder(
        source, allow_empty=data.allow_empty_class, follow_outside=data.follow_links
    )


def _is_written_split(data: DataConfig) -> bool:
    return data.source.suffix == ".csv" and data.source.is_file() and is_manifest(data.source)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return (0, 0)
    return (facts.st_size, facts.st_mtime_ns)
