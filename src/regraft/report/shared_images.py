"""The same test images under several methods: which are difficult, and what each method adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from regraft.errors import list_names
from regraft.report.gallery import Thumbnails
from regraft.results.comparison import Row, rows_by_method, without_amount
from regraft.results.predictions import Predictions
from regraft.results.run import THUMBNAILS

_MOST_SHOWN = 16  # images of a group
_MOST_GROUPS = 6  # of one kind
_MOST_NAMES = 4  # predicted classes that are told of an image


@dataclass(frozen=True)
class SharedImage:
    """A test image of several methods.

    Args:
        path: Where it lies in the data set.
        true: Its class.
        said: What it was taken for, and by how many methods.
        image: A ``data:`` address of its thumbnail; None where no run has kept one.
    """

    path: str
    true: str
    said: str
    image: str | None


@dataclass(frozen=True)
class Group:
    """Images that fared alike.

    Args:
        title: What they have in common.
        total: How many there are.
        images: Those that are shown.
    """

    title: str
    total: int
    images: tuple[SharedImage, ...]


def shared_images(rows: Sequence[Row]) -> list[Group]:
    """Return groups of test images by the methods that were wrong, where some share a test part.

    They are wrong for every method, wrong for most, right with one method alone, and by the
    number of images learned from. Of repeats the first run counts.

    Args:
        rows: The methods; only those of the split that most of them were measured on are looked at.

    Example:
        >>> shared_images([])
        []
    """
    by_split: dict[str, list[Row]] = {}
    for row in rows:
        if "test" in row.runs[0].metrics:
            by_split.setdefault(row.runs[0].split_hash, []).append(row)
    judged = max(by_split.values(), key=len, default=[])
    if len(judged) < 2:
        return []
    table = _Table(tuple(judged))
    return [*table.by_methods(), *table.by_sizes()]


@dataclass(frozen=True, eq=False)
class _Table:
    """Methods by test images: the predictions of each, and whether they are right."""

    rows: tuple[Row, ...]

    @cached_property
    def predictions(self) -> list[Predictions]:
        found = [row.runs[0].predictions.part("test") for row in self.rows]
        # One split has one test part; the order of its images is that of its paths.
        orders = [sorted(range(len(p)), key=p.paths.__getitem__) for p in found]
        return [p.take(order) for p, order in zip(found, orders, strict=True)]

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        return np.array([p.correct for p in self.predictions])

    def by_methods(self) -> Iterator[Group]:
        count = self.right.sum(axis=0)
        most = len(self.rows)
        yield from self._group(f"Wrong for all of the {most} methods", count == 0)
        if most > 2:
            doubtful = (count > 0) & (2 * count < most)
            yield from self._group("Wrong for most methods", doubtful)
        alone = [self.right[place] & (count == 1) for place in range(most)]
        ranked = sorted(range(most), key=lambda place: -int(alone[place].sum()))
        for place in ranked[:_MOST_GROUPS]:
            yield from self._group(f"Right only with {self.rows[place].description}", alone[place])

    def by_sizes(self) -> Iterator[Group]:
        for members in rows_by_method(self.rows):
            sizes = {row.runs[0].metrics["train"]["accuracy"].n: row for row in members}
            if len(sizes) < 2:
                continue
            ordered = sorted(sizes)
            right = self.right[[self.rows.index(sizes[size]) for size in ordered]]
            told = [tuple(each) for each in right.T.tolist()]
            patterns = Counter(told)
            del patterns[(True,) * len(ordered)]
            for pattern, _ in patterns.most_common(_MOST_GROUPS):
                name = without_amount(sizes[ordered[-1]].description)
                yield from self._group(
                    f"{name}: {_told(pattern, ordered)}",
                    np.array([each == pattern for each in told]),
                )

    def _group(self, title: str, chosen: npt.NDArray[np.bool_]) -> Iterator[Group]:
        places = np.flatnonzero(chosen)
        if len(places):
            order = np.argsort(self.right[:, places].sum(axis=0), kind="stable")[:_MOST_SHOWN]
            shown = tuple(self._image(int(place)) for place in places[order])
            yield Group(title, len(places), shown)

    def _image(self, place: int) -> SharedImage:
        first = self.predictions[0]
        wrong = Counter(p.predicted[place] for p in self.predictions if not p.correct[place])
        told = [f"{name} ×{n}" if n > 1 else name for name, n in wrong.most_common()]
        folders = [row.runs[0].folder / THUMBNAILS for row in self.rows]
        addresses = (Thumbnails(each, None, {}).address(first.paths[place]) for each in folders)
        image = next(filter(None, addresses), None)
        said = list_names(told, most=_MOST_NAMES)
        return SharedImage(first.paths[place], first.truth[place], said, image)


def _told(pattern: Sequence[bool], sizes: Sequence[int]) -> str:
    """Return with how many images a method was wrong, and with how many right.

    Example:
        >>> _told((False, False, True), (300, 600, 1200))
        'wrong with 300 and 600 images, right with 1,200'
    """
    wrong, right = (
        [f"{size:,}" for size, own in zip(sizes, pattern, strict=True) if own == kind]
        for kind in (False, True)
    )
    with_right = f", right with {_and(right)}" if right else ""
    return f"wrong with {_and(wrong)} images{with_right}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
