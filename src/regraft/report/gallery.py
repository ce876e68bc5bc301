"""Images to look at: wrong ones by pair of classes, right ones, and augmented views."""

from __future__ import annotations

import base64
import io
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regraft.data.images import thumbnail
from regraft.data.tables import table_line
from regraft.errors import RegraftError, UsageError, printable
from regraft.files import sha256_bytes, sha256_file, write_bytes, write_text
from regraft.report.tables import error_table
from regraft.report.text import render
from regraft.results.inspection import InspectedImage, Inspection
from regraft.results.metrics import Confused, most_confused
from regraft.results.predictions import Predictions
from regraft.system import __version__

Pixels = NDArray[np.uint8]

MOST_THUMBNAILS = 200
MOST_IN_A_PAIR = 24
MOST_SUSPECTS = 100
_MOST_MAPS = 60  # wrong images with class-activation maps, those of all pairs in turn
_MOST_CLASSES = 20  # of which an image's probabilities are shown
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
        inspected: Its maps and its nearest training images, where they were computed.
        probabilities: The most probable classes with their probabilities, the most probable first.
    """

    path: str
    true: str
    predicted: str
    confidence: float
    true_probability: float
    image: str | None
    inspected: InspectedImage = field(default_factory=InspectedImage)
    probabilities: tuple[tuple[str, float], ...] = ()

    @property
    def review(self) -> str | None:
        """The first cells of its row in a table of labels to change; None if a page changes them.

        A line of the table ``data apply-review`` reads: path, given and suggested class, and the
        decided one, which the page appends.
        """
        cells = table_line((self.path, self.true, self.predicted))
        return cells if printable(cells) == cells else None


@dataclass(frozen=True)
class Pair:
    """The wrong images of one pair of classes, the most confident mistake first.

    Args:
        confused: The pair.
        cell: Row and column of its cell in the confusion matrix.
        images: Those that are shown.
        hidden: How many are not.
    """

    confused: Confused
    cell: tuple[int, int]
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
        right: Path and confidence of right images that the sheet of small ones has, by class, the
            most confident first.
    """

    pairs: tuple[Pair, ...]
    hidden_pairs: int
    hidden: int
    missing: int
    most_confident: tuple[Shown, ...]
    least_confident: tuple[Shown, ...]
    right: Mapping[str, Sequence[tuple[str, float]]]


@dataclass(frozen=True)
class Choice:
    """Which images a page shows: places among the predictions.

    Args:
        pairs: The wrong ones of each pair of classes, the most frequent pair first.
        most_confident: Right ones.
        least_confident: Right ones.
    """

    pairs: tuple[tuple[Confused, list[int]], ...]
    most_confident: list[int]
    least_confident: list[int]

    @property
    def all(self) -> list[int]:
        """Every image that is shown, each once."""
        wrong = [place for _, places in self.pairs for place in places]
        return [*wrong, *self.most_confident, *self.least_confident]

    @property
    def with_maps(self) -> list[int]:
        """Those with class-activation maps: the worst mistakes of all pairs, and doubtful hits."""
        ranked = sorted((rank, place) for _, p in self.pairs for rank, place in enumerate(p))
        return [*(place for _, place in ranked[:_MOST_MAPS]), *self.least_confident]


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


def choose(p: Predictions) -> Choice:
    """Choose the images to show, at most ``MOST_THUMBNAILS`` wrong ones."""
    wrong: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index in _most_confident_first(p, ~p.correct):
        wrong[p.truth[index], p.predicted[index]].append(index)
    pairs, left = [], MOST_THUMBNAILS
    for pair in most_confused(p):
        chosen = wrong[pair.true, pair.predicted][: min(left, MOST_IN_A_PAIR)]
        if not chosen:
            break
        left -= len(chosen)
        pairs.append((pair, chosen))
    return Choice(tuple(pairs), *_right_rows(p))


def gallery(
    p: Predictions, thumbnails: Thumbnails, inspection: Inspection | None = None
) -> Gallery:
    """Return the images to show, with what is known of them.

    Args:
        p: The predictions of one part.
        thumbnails: Where the small images come from.
        inspection: What the run has kept of them.

    Example:
        >>> p = Predictions(("a.jpg",), ("x",), ("x", "y"), np.array([[0.1, 0.9]]), ("test",))
        >>> gallery(p, Thumbnails(Path("none"), None, {})).pairs[0].images[0].image is None
        True
    """
    choice, known = choose(p), inspection or Inspection()

    def shown(indices: Sequence[int]) -> tuple[Shown, ...]:
        return tuple(
            Shown(
                path=p.paths[i],
                true=p.truth[i],
                predicted=p.predicted[i],
                confidence=float(p.confidence[i]),
                true_probability=float(p.probabilities[i, p.truth_index[i]]),
                image=thumbnails.address(p.paths[i]),
                inspected=known.images.get(p.paths[i], InspectedImage()),
                probabilities=_most_probable(p, i),
            )
            for i in indices
        )

    pairs = tuple(
        Pair(
            confused,
            (p.classes.index(confused.true), p.classes.index(confused.predicted)),
            shown(places),
            confused.count - len(places),
        )
        for confused, places in choice.pairs
    )
    most, least = shown(choice.most_confident), shown(choice.least_confident)
    every = [one for images in (*(pair.images for pair in pairs), most, least) for one in images]
    return Gallery(
        pairs=pairs,
        hidden_pairs=len(most_confused(p)) - len(pairs),
        hidden=int((~p.correct).sum()) - sum(len(pair.images) for pair in pairs),
        missing=sum(one.image is None for one in every),
        most_confident=most,
        least_confident=least,
        right=_right_of_each_class(p, set(known.sheet_paths)),
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


def _right_of_each_class(
    p: Predictions, there: Collection[str]
) -> dict[str, list[tuple[str, float]]]:
    """Return the right ones of some images, by class."""
    found: dict[str, list[tuple[str, float]]] = {name: [] for name in p.classes}
    for index in _most_confident_first(p, p.correct):
        if p.paths[index] in there:
            found[p.truth[index]].append((p.paths[index], float(p.confidence[index])))
    return {name: images for name, images in found.items() if images}


def _most_probable(p: Predictions, index: int) -> tuple[tuple[str, float], ...]:
    row = p.probabilities[index]
    best = np.argsort(-row, kind="stable")[:_MOST_CLASSES]
    return tuple((p.classes[k], float(row[k])) for k in best)


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


def data_address(data: bytes, kind: str = "jpeg") -> str:
    """Return the bytes of an image file as an address that holds them."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def image_address(image: Image.Image, kind: str, **options: Any) -> str:
    """Return an image as the address of a ``"jpeg"`` or ``"png"`` file, saved with options."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return data_address(stream.getvalue(), kind)


def _inside(root: Path, path: str) -> bool:
    whole = os.path.normpath(root / path)
    return Path(whole).is_relative_to(os.path.normpath(root))
