"""Decode every picture of a data set once and keep the little that a check needs to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regraft.data.dataset import PARTS, Dataset
from regraft.data.images import Decoding, ImageFacts, inspect
from regraft.data.quiet import native_stderr_silenced
from regraft.data.similar import alike
from regraft.data.split import Split
from regraft.errors import ImageError
from regraft.progress import progress_bar
from regraft.system import threads

_AT_ONCE = 512  # pictures handed to the threads at a time
_EXAMPLES = 3


@dataclass(frozen=True)
class Pictures:
    """All pictures to check, whether they are cut into parts or not, column by column.

    Args:
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
    def of(cls, data: Dataset | Split) -> Pictures:
        """List the pictures of a data set or of all parts of a split.

        Example:
            >>> Pictures.of(Dataset(("a.jpg",), ("x",), ("x",))).names
            ('a.jpg',)
        """
        if isinstance(data, Dataset):
            names = data.relative_paths()
            return cls(data.paths, names, data.labels, data.parts, data.groups, data.classes)
        parts = data.parts()
        grouped = all(part.groups is not None for part in parts.values())
        return cls(
            paths=tuple(path for part in parts.values() for path in part.paths),
            names=tuple(name for part in parts.values() for name in part.relative_paths()),
            labels=tuple(label for part in parts.values() for label in part.labels),
            parts=tuple(name for name, part in parts.items() for _ in part.paths),
            groups=tuple(group for part in parts.values() for group in part.groups or ())
            if grouped
            else None,
            classes=data.classes,
            settled=True,
        )

    def part(self, place: int) -> str | None:
        """Return the part of the picture at ``place``, None if the set is not cut."""
        return None if self.parts is None else self.parts[place]

    def torn(self, groups: Sequence[str] | None) -> dict[str, list[int]]:
        """Return the groups that stand in several parts, by name, with the places of their members.

        Args:
            groups: The group of each picture; empty for a group of its own; None: there are none.
        """
        members: dict[str, list[int]] = {}
        for place, name in enumerate(groups or ()):
            if name and self.part(place):
                members.setdefault(name, []).append(place)
        return {
            name: members[name]
            for name in sorted(members)
            if len({self.part(place) for place in members[name]}) > 1
        }

    def counts(self, places: list[int]) -> dict[str, dict[str, int]]:
        """Count the pictures at ``places`` for each part (``all`` if not cut) and each class."""
        counted = Counter((self.part(place) or "all", self.labels[place]) for place in places)
        given = set(self.parts or ())
        parts = [part for part in PARTS if part in given] or ["all"]
        return {part: {name: counted[part, name] for name in self.classes} for part in parts}


@dataclass
class Inspection:
    """What decoding every picture brought to light; a few dozen bytes for each of them.

    Args:
        sha256: SHA-256 as 32 bytes, empty for a bad picture.
        hashes: Coarse difference hashes, shape (n,).
        fine_hashes: Fine difference hashes as four words each, shape (n, 4).
        hashed: Which pictures have difference hashes, shape (n,).
        bad: The error of each picture that cannot be used, by its place.
        notes: How many pictures have each note.
        examples: The places of the first few pictures with each note.
    """

    sha256: list[bytes]
    hashes: NDArray[np.uint64]
    fine_hashes: NDArray[np.uint64]
    hashed: NDArray[np.bool_]
    bad: dict[int, ImageError] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def empty(cls, count: int) -> Inspection:
        """Return the inspection of ``count`` pictures of which nothing is known yet."""
        return cls(
            sha256=[b""] * count,
            hashes=np.zeros(count, np.uint64),
            fine_hashes=np.zeros((count, 4), np.uint64),
            hashed=np.zeros(count, np.bool_),
        )

    def usable(self) -> list[int]:
        """Return the places of all pictures that can be used."""
        return [place for place, sha256 in enumerate(self.sha256) if sha256]

    def duplicates(self) -> list[list[int]]:
        """Return the places of pictures with the same content, group by group."""
        groups: dict[bytes, list[int]] = {}
        for place, sha256 in enumerate(self.sha256):
            if sha256:
                groups.setdefault(sha256, []).append(place)
        return [places for places in groups.values() if len(places) > 1]

    def near_duplicates(self, distance: int) -> list[list[int]]:
        """Return the places of pictures that look alike but differ in content, group by group."""
        places = np.flatnonzero(self.hashed)
        numbers = alike(self.hashes[places], self.fine_hashes[places], distance=distance)
        order = np.argsort(numbers, kind="stable")
        ends = np.flatnonzero(np.diff(numbers[order])) + 1
        groups = [places[members].tolist() for members in np.split(order, ends) if len(members) > 1]
        several = [group for group in groups if len({self.sha256[place] for place in group}) > 1]
        return sorted(several)

    def add(self, place: int, found: ImageFacts | ImageError) -> None:
        """Keep what is known of the picture at ``place``."""
        if isinstance(found, ImageError):
            self.bad[place] = found
            return
        self.sha256[place] = bytes.fromhex(found.sha256)
        if found.dhash is not None and found.fine_hash is not None:
            self.hashes[place] = found.dhash
            self.fine_hashes[place] = np.frombuffer(found.fine_hash.to_bytes(32, "big"), ">u8")
            self.hashed[place] = True
        for note in found.notes:
            self.notes[note] += 1
            if len(examples := self.examples.setdefault(note, [])) < _EXAMPLES:
                examples.append(place)


def inspect_all(
    paths: tuple[Path, ...],
    decoding: Decoding,
    *,
    verbose: bool = False,
    examine: Callable[[Path, Decoding], ImageFacts] = inspect,
) -> Inspection:
    """Decode all pictures in full, in threads, and keep no pixels.

    Args:
        paths: The files.
        decoding: How pixels become RGB where a file leaves it open.
        verbose: Whether to show the progress.
        examine: What is done with each file.

    Example:
        >>> inspect_all((Path("no-such.jpg"),), Decoding()).bad[0].code
        'IMG-UNREADABLE'
    """

    def one(path: Path) -> ImageFacts | ImageError:
        try:
            return examine(path, decoding)
        except ImageError as error:
            # What hangs on an exception would keep the pixels in memory.
            error.__cause__ = error.__context__ = error.__traceback__ = None
            return error

    inspection = Inspection.empty(len(paths))
    with (
        native_stderr_silenced(),
        progress_bar("Checking", len(paths), visible=verbose) as advance,
        ThreadPoolExecutor(threads()) as pool,
    ):
        for start in range(0, len(paths), _AT_ONCE):
            block = paths[start : start + _AT_ONCE]
            for place, found in enumerate(pool.map(one, block), start):
                inspection.add(place, found)
            advance(len(block))
    return inspection
