"""The pictures to look at: wrong ones by pair of classes, the surest and least sure right ones."""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.data.images import thumbnail
from regraft.errors import RegraftError
from regraft.files import sha256_bytes, sha256_file, write_bytes
from regraft.results.metrics import Confused, most_confused
from regraft.results.predictions import Predictions

MOST_THUMBNAILS = 200
MOST_IN_A_PAIR = 24
_IN_A_ROW = 8
_SIDE = 160


@dataclass(frozen=True)
class Shown:
    """A picture in the gallery.

    Args:
        path: Where it lies in the data set.
        true: Its class.
        predicted: What it was named.
        confidence: The probability of the named class, 0 to 1.
        true_probability: The probability of its own class, 0 to 1.
        image: A ``data:`` address of its thumbnail, or ``None`` where the file is missing.
    """

    path: str
    true: str
    predicted: str
    confidence: float
    true_probability: float
    image: str | None


@dataclass(frozen=True)
class Pair:
    """The wrong pictures of one pair of classes, the surest mistake first.

    Args:
        confused: The pair.
        pictures: Those that are shown.
        hidden: How many are not.
    """

    confused: Confused
    pictures: tuple[Shown, ...]
    hidden: int


@dataclass(frozen=True)
class Gallery:
    """What the page shows in pictures.

    Args:
        pairs: The wrong pictures by pair of classes, the most frequent pair first.
        hidden_pairs: How many pairs are not shown at all.
        hidden: How many wrong pictures are not shown.
        missing: How many of the pictures to be shown were not there, or other ones in their place.
        surest: Right ones with the highest confidence.
        least_sure: Right ones with the lowest confidence.
    """

    pairs: tuple[Pair, ...]
    hidden_pairs: int
    hidden: int
    missing: int
    surest: tuple[Shown, ...]
    least_sure: tuple[Shown, ...]


class Thumbnails:
    """Small pictures for a page, kept in the run's folder so that the page can be written again.

    Args:
        folder: Where they are kept.
        data_root: The folder that the paths are relative to; ``None``: only what is kept is shown.
        hashes: The SHA-256 of the pictures that were judged, by path: another file of the same name
            is not shown in their place.
    """

    def __init__(
        self,
        folder: Path,
        data_root: str | os.PathLike[str] | None,
        hashes: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._root = None if data_root is None else Path(data_root)
        self._hashes = hashes

    def address(self, path: str) -> str | None:
        """Return the ``data:`` address of a picture's thumbnail; ``None`` if it cannot be read."""
        kept = self._folder / f"{sha256_bytes(path.encode('utf-8', 'surrogateescape'))[:24]}.jpg"
        data = self._fresh(path)
        if data is not None:
            write_bytes(kept, data)
        elif kept.is_file():
            data = kept.read_bytes()
        else:
            return None
        return "data:image/jpeg;base64," + base64.b64encode(data).decode()

    def _fresh(self, path: str) -> bytes | None:
        if self._root is None or not _stays_inside(self._root, path):
            return None
        try:
            if sha256_file(self._root / path) != self._hashes.get(path):
                return None
            return thumbnail(self._root / path, side=_SIDE)
        except (RegraftError, OSError):
            return None  # moved, deleted or damaged since: the page shows a placeholder


def gallery(p: Predictions, thumbnails: Thumbnails) -> Gallery:
    """Choose the pictures to show, at most ``MOST_THUMBNAILS`` wrong ones.

    Args:
        p: The predictions of one part.
        thumbnails: Where the small pictures come from.

    Example:
        >>> p = Predictions(("a.jpg",), ("x",), ("x", "y"), np.array([[0.1, 0.9]]), ("test",))
        >>> gallery(p, Thumbnails(Path("none"), None, {})).pairs[0].pictures[0].image is None
        True
    """
    confused = most_confused(p, limit=None)
    wrong = _wrong_by_pair(p)
    pairs = []
    left = MOST_THUMBNAILS
    for pair in confused:
        chosen = wrong[pair.true, pair.predicted][: min(left, MOST_IN_A_PAIR)]
        if not chosen:
            break
        left -= len(chosen)
        pictures = tuple(_shown(p, index, thumbnails) for index in chosen)
        pairs.append(Pair(pair, pictures, pair.count - len(chosen)))
    surest, least_sure = _right_rows(p)
    rows = [
        tuple(_shown(p, index, thumbnails) for index in indices) for indices in (surest, least_sure)
    ]
    shown = [picture for pair in pairs for picture in pair.pictures]
    return Gallery(
        pairs=tuple(pairs),
        hidden_pairs=len(confused) - len(pairs),
        hidden=int((~p.correct).sum()) - len(shown),
        missing=sum(picture.image is None for picture in (*shown, *rows[0], *rows[1])),
        surest=rows[0],
        least_sure=rows[1],
    )


def _wrong_by_pair(p: Predictions) -> dict[tuple[str, str], list[int]]:
    """Return where the wrong pictures of each pair stand, the surest mistake first."""
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    wrong = np.flatnonzero(~p.correct)
    for index in wrong[np.argsort(-p.confidence[wrong], kind="stable")].tolist():
        found[p.truth[index], p.predicted[index]].append(index)
    return found


def _right_rows(p: Predictions) -> tuple[list[int], list[int]]:
    """Return where the surest and the least sure right pictures stand; no picture is in both."""
    right = np.flatnonzero(p.correct)
    order = right[np.argsort(-p.confidence[right], kind="stable")].tolist()
    count = min(_IN_A_ROW, len(order) // 2)
    least_sure = order[::-1][:count]
    rest = order[: len(order) - count]
    return _one_per_class_first(p, rest)[:count], least_sure


def _one_per_class_first(p: Predictions, order: list[int]) -> list[int]:
    """Return ``order`` with the first picture of each class in front, for a varied row."""
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(p.truth[index], index)
    front = set(first.values())
    return [*first.values(), *(index for index in order if index not in front)]


def _shown(p: Predictions, index: int, thumbnails: Thumbnails) -> Shown:
    return Shown(
        path=p.paths[index],
        true=p.truth[index],
        predicted=p.predicted[index],
        confidence=float(p.confidence[index]),
        true_probability=float(p.probabilities[index, p.truth_index[index]]),
        image=thumbnails.address(p.paths[index]),
    )


def _stays_inside(root: Path, path: str) -> bool:
    """Return whether ``path`` stays in ``root``, so that a foreign run cannot show other files."""
    whole = os.path.normpath(root / path)
    return Path(whole).is_relative_to(os.path.normpath(root))
