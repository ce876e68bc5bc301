"""Images to look at: wrong ones by pair of classes, right ones, and augmented views."""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regraft.data.images import thumbnail
from regraft.errors import RegraftError, UsageError, printable
from regraft.files import sha256_bytes, sha256_file, write_bytes, write_text
from regraft.report.tables import error_table
from regraft.report.text import render
from regraft.results.metrics import Confused, most_confused
from regraft.results.predictions import Predictions
from regraft.system import __version__

Pixels = NDArray[np.uint8]

MOST_THUMBNAILS = 200
MOST_IN_A_PAIR = 24
MOST_SUSPECTS = 100
_IN_A_ROW = 8
_SIDE = 160
_PAPER, _GAP = (255, 255, 255), 13  # of a sheet


@dataclass(frozen=True)
class Shown:
    """An image in the gallery.

    Args:
        path: Where it lies in the data set.
        true: Its class.
        predicted: The predicted class.
        confidence: The probability of the predicted class, 0 to 1.
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
    """The wrong images of one pair of classes, the most confident mistake first.

    Args:
        confused: The pair.
        images: Those that are shown.
        hidden: How many are not.
    """

    confused: Confused
    images: tuple[Shown, ...]
    hidden: int


@dataclass(frozen=True)
class Gallery:
    """What the page shows in images.

    Args:
        pairs: The wrong images by pair of classes, the most frequent pair first.
        hidden_pairs: How many pairs are not shown at all.
        hidden: How many wrong images are not shown.
        missing: How many of the images to be shown were not there, or other ones in their place.
        most_confident: Right ones with the highest confidence.
        least_confident: Right ones with the lowest confidence.
    """

    pairs: tuple[Pair, ...]
    hidden_pairs: int
    hidden: int
    missing: int
    most_confident: tuple[Shown, ...]
    least_confident: tuple[Shown, ...]


@dataclass(frozen=True)
class Thumbnails:
    """Small images for a page, kept in the run's folder so that the page can be written again.

    Args:
        folder: Where they are kept.
        data_root: The folder that the paths are relative to; ``None``: only what is kept is shown.
        hashes: The SHA-256 of the images that were predicted, by path: another file of the same
            name is not shown in their place.
    """

    folder: Path
    data_root: Path | None
    hashes: Mapping[str, str]

    def address(self, path: str) -> str | None:
        """Return the ``data:`` address of an image's thumbnail; ``None`` if it cannot be read."""
        kept = self.folder / f"{sha256_bytes(path.encode('utf-8', 'surrogateescape'))[:24]}.jpg"
        data = self._fresh(path)
        if data is not None:
            write_bytes(kept, data)
        elif kept.is_file():
            data = kept.read_bytes()
        else:
            return None
        return data_address(data)

    def _fresh(self, path: str) -> bytes | None:
        root = self.data_root
        # A foreign run cannot show other files than those of the data.
        if root is None or not _inside(root, path):
            return None
        try:
            if sha256_file(root / path) != self.hashes.get(path):
                return None
            return thumbnail(root / path, side=_SIDE)
        except (RegraftError, OSError):
            return None  # moved, deleted or damaged since: the page shows a placeholder


def gallery(p: Predictions, thumbnails: Thumbnails) -> Gallery:
    """Choose the images to show, at most ``MOST_THUMBNAILS`` wrong ones.

    Args:
        p: The predictions of one part.
        thumbnails: Where the small images come from.

    Example:
        >>> p = Predictions(("a.jpg",), ("x",), ("x", "y"), np.array([[0.1, 0.9]]), ("test",))
        >>> gallery(p, Thumbnails(Path("none"), None, {})).pairs[0].images[0].image is None
        True
    """

    def shown(indices: Sequence[int]) -> tuple[Shown, ...]:
        found = []
        for i in indices:
            confidence, own = float(p.confidence[i]), float(p.probabilities[i, p.truth_index[i]])
            facts = (p.paths[i], p.truth[i], p.predicted[i], confidence, own)
            found.append(Shown(*facts, thumbnails.address(p.paths[i])))
        return tuple(found)

    confused = most_confused(p)
    wrong: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index in _most_confident_first(p, ~p.correct):
        wrong[p.truth[index], p.predicted[index]].append(index)
    pairs: list[Pair] = []
    left = MOST_THUMBNAILS
    for pair in confused:
        chosen = wrong[pair.true, pair.predicted][: min(left, MOST_IN_A_PAIR)]
        if not chosen:
            break
        left -= len(chosen)
        pairs.append(Pair(pair, shown(chosen), pair.count - len(chosen)))
    most, least = map(shown, _right_rows(p))
    every = [one for images in (*(pair.images for pair in pairs), most, least) for one in images]
    return Gallery(
        pairs=tuple(pairs),
        hidden_pairs=len(confused) - len(pairs),
        hidden=int((~p.correct).sum()) - MOST_THUMBNAILS + left,
        missing=sum(one.image is None for one in every),
        most_confident=most,
        least_confident=least,
    )


def write_seen(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], *, top: int = 5
) -> Path:
    """Write a page of images with what each network sees in them, side by side.

    Args:
        rows: What ``experiment.evaluate.classify_images`` yields of images that can be used.
        path: The HTML file to write.
        top: How many classes are shown of each.
    """
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        image = seen.setdefault(row["file"], {"truth": row["truth"], "seen": {}})
        image["seen"][row["backbone"]] = row["top"][:top]
    shown = list(seen.items())[:MOST_THUMBNAILS]
    images = [
        {"file": printable(file), "address": data_address(thumbnail(file, side=2 * _SIDE)), **image}
        for file, image in shown
    ]
    html = render(
        "seen.html.j2",
        version=__version__,
        images=images,
        hidden=len(seen) - len(images),
        networks=list(dict.fromkeys(row["backbone"] for row in rows)),
        errors=error_table(rows),
    )
    write_text(path, html)
    return Path(path)


def write_suspects(
    suspects: Sequence[Mapping[str, Any]],
    conflicts: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    root: Path,
    told: str = "",
) -> Path:
    """Write a page of images with doubtful labels, each beside neighbours with other labels.

    Args:
        suspects: One for each image: ``path``, ``given``, ``suggested``, ``score``, ``agreeing``
            and ``neighbours`` (entries with ``path``, ``label`` and ``similarity``).
        conflicts: Copies with different labels: ``exact``, and ``images`` with ``path`` and
            ``label``.
        path: The HTML file to write.
        root: The folder that the images' paths are relative to.
        told: What was looked at, for the head of the page.
    """

    @cache
    def address(name: str) -> str | None:
        try:
            return data_address(thumbnail(root / name, side=_SIDE))
        except RegraftError:  # gone since it was looked at
            return None

    html = render(
        "suspects.html.j2",
        version=__version__,
        title=root.name,
        told=told,
        suspects=suspects[:MOST_SUSPECTS],
        conflicts=conflicts[:MOST_IN_A_PAIR],
        address=address,
        hidden=max(0, len(suspects) - MOST_SUSPECTS),
        hidden_conflicts=max(0, len(conflicts) - MOST_IN_A_PAIR),
    )
    write_text(path, html)
    return Path(path)


def preview_sheet(
    images: Sequence[Pixels],
    augment: Callable[[Pixels, np.random.Generator], Pixels],
    *,
    views: int = 7,
    seed: int = 0,
) -> Image.Image:
    """Draw a sheet: a row for each image, first as it is, then augmented.

    Args:
        images: The pixels (size, size, 3) of each image, all of one size.
        augment: From an image and a random generator to a view of the same size.
        views: How many views of each image, 1 or more.
        seed: Another seed, other views.

    Raises:
        UsageError: There is no image or no view to show.

    Example:
        >>> grey = np.full((128, 128, 3), 128, np.uint8)
        >>> preview_sheet([grey], lambda image, random: image, views=2).width > 3 * 128
        True
    """
    if not images or views < 1:
        raise UsageError("a sheet shows at least one view of one image")
    step = images[0].shape[1] + _GAP
    size = (_GAP + (1 + views) * step, _GAP + len(images) * step)
    sheet = Image.new("RGB", size, _PAPER)
    for row, pixels in enumerate(images):
        drawn = [augment(pixels, np.random.default_rng([seed, row, at])) for at in range(views)]
        for at, view in enumerate([pixels, *drawn]):
            sheet.paste(Image.fromarray(view), (_GAP + at * step, _GAP + row * step))
    return sheet


def _most_confident_first(p: Predictions, chosen: NDArray[np.bool_]) -> list[int]:
    places = np.flatnonzero(chosen)
    found: list[int] = places[np.argsort(-p.confidence[places], kind="stable")].tolist()
    return found


def _right_rows(p: Predictions) -> tuple[list[int], list[int]]:
    """Return where the most and the least confident right images stand; no image is in both.

    Of the most confident ones the first of each class comes first, for a varied row.
    """
    order = _most_confident_first(p, p.correct)
    count = min(_IN_A_ROW, len(order) // 2)
    least, rest = order[::-1][:count], order[: len(order) - count]
    first: dict[str, int] = {}
    for index in rest:
        first.setdefault(p.truth[index], index)
    return list(dict.fromkeys([*first.values(), *rest]))[:count], least


def data_address(data: bytes) -> str:
    """Return a JPEG as an address that holds it."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _inside(root: Path, path: str) -> bool:
    whole = os.path.normpath(root / path)
    return Path(whole).is_relative_to(os.path.normpath(root))
