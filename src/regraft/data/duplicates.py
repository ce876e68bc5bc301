"""Images that belong together: look-alikes, by their pixels, and series, by the names of files."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft.data.image_errors import native_stderr_silenced
from regraft.data.images import Decoding, ImageFacts, inspect
from regraft.data.sources import find_groups
from regraft.errors import ImageError
from regraft.system import progress_bar, threads

# How many of the 64 coarse bits may differ, and how many of the 256 fine ones for each of them. So
# none of 17 million pairs of chest radiographs agree in both (364,000 in the coarse hash), while 19
# of 20 photographs saved again at quality 30 or at half their size do with their originals.
_NEAR = 4
_FINE_PER_COARSE = 3
_BLOCK = 1 << 20  # comparisons at a time, which bounds the memory
_AT_ONCE = 512  # images handed to the threads at a time
_WAITING = 1 << 16  # pairs that are joined in one go

_NUMBER = re.compile("[0-9]+")
_MOST_KINDS = 4  # ways of naming in one data set
_MOST_NUMBERS = 3  # of a name that are looked at
_FEWEST_EACH = 3  # identifiers of a class, so that the names of classes are taken for none
_SHARED = 0.2  # of the images must share their identifier with another one of their class
_SHARED_OF_KIND = 0.05
_LARGEST = 0.1  # share of the images that one identifier may stand for


Groups = list[list[int]]  # of places of images


class Proposal(NamedTuple):
    """A regular expression that may tell which images belong together, and what it finds in each.

    The group is empty where it finds nothing. A person is to judge it.
    """

    expression: str
    groups: tuple[str, ...]


def alike(
    hashes: NDArray[np.uint64], fine_hashes: NDArray[np.uint64], *, distance: int
) -> NDArray[np.int64]:
    """Number the images so that those that look alike, or are linked by such, share it.

    Two images look alike if their coarse hashes differ in at most ``distance`` bits and their
    fine ones in at most three times as many.

    Args:
        hashes: Coarse hashes, shape (n,).
        fine_hashes: Fine hashes as four words each, shape (n, 4).
        distance: The largest number of the 64 bits of the coarse hash that may differ.

    Returns:
        Numbers of groups, shape (n,), from 0 without gaps.

    Example:
        >>> fine = np.zeros((3, 4), np.uint64)
        >>> alike(np.array([0b1, 0b11, 0xFFFF], np.uint64), fine, distance=4).tolist()
        [0, 0, 1]
    """
    rows = np.column_stack((hashes, fine_hashes))
    codes, place = np.unique(rows, axis=0, return_inverse=True)
    groups = np.arange(len(codes))
    waiting: list[NDArray[np.int64]] = []
    count = 0
    for pairs in _pairs(codes, groups, distance):
        waiting.append(pairs)
        count += pairs.shape[1]
        if count > _WAITING:
            _join(waiting, groups)
            waiting, count = [], 0
    _join(waiting, groups)
    return np.unique(groups[place.reshape(-1)], return_inverse=True)[1]


def inspect_all(
    paths: Sequence[Path], decoding: Decoding, *, verbose: bool
) -> tuple[list[ImageFacts | None], dict[int, ImageError]]:
    """Decode all images in full, in threads, and keep no pixels."""

    def one(path: Path) -> ImageFacts | ImageError:
        try:
            return inspect(path, decoding)
        except ImageError as error:
            # What hangs on an exception would keep the pixels in memory.
            error.__cause__ = error.__context__ = error.__traceback__ = None
            return error

    facts: list[ImageFacts | None] = []
    bad: dict[int, ImageError] = {}
    with (
        native_stderr_silenced(),
        progress_bar("Checking", len(paths), visible=verbose) as advance,
        ThreadPoolExecutor(threads()) as pool,
    ):
        for start in range(0, len(paths), _AT_ONCE):
            block = paths[start : start + _AT_ONCE]
            for place, found in enumerate(pool.map(one, block), start):
                if isinstance(found, ImageError):
                    bad[place] = found
                facts.append(None if isinstance(found, ImageError) else found)
            advance(len(block))
    return facts, bad


def copies(all_facts: Sequence[ImageFacts | None]) -> Groups:
    """Return the places of images with the same content, group by group."""
    groups: dict[str, list[int]] = {}
    for place, facts in enumerate(all_facts):
        if facts:
            groups.setdefault(facts.sha256, []).append(place)
    return [places for places in groups.values() if len(places) > 1]


def near_copies(all_facts: Sequence[ImageFacts | None]) -> Groups:
    """Return the places of images that look alike but differ in content, group by group."""
    hashed = [(p, facts.sha256, facts.hashes) for p, facts in enumerate(all_facts) if facts]
    known = [(place, sha256, hashes) for place, sha256, hashes in hashed if hashes]
    coarse = np.array([hashes[0] for _, _, hashes in known], np.uint64)
    words = b"".join(hashes[1].to_bytes(32, "big") for _, _, hashes in known)
    numbers = alike(coarse, np.frombuffer(words, ">u8").reshape(-1, 4), distance=_NEAR)
    groups: dict[int, list[tuple[int, str]]] = {}
    for number, (place, sha256, _) in zip(numbers.tolist(), known, strict=True):
        groups.setdefault(number, []).append((place, sha256))
    several = [group for group in groups.values() if len({sha256 for _, sha256 in group}) > 1]
    return sorted([place for place, _ in group] for group in several)


def propose_groups(names: Sequence[str], labels: Sequence[str]) -> Proposal | None:
    """Look for identifiers such as ``person12`` of which several images of a class bear one.

    An identifier is a name up to a number and this number. It must have a rest in most names, there
    must be several of them in each class, and enough images must share one. None is returned where
    the names look like mere numbering.

    Example:
        >>> names = [f"x/person{i // 4}_view_{i}.jpg" for i in range(40)]
        >>> propose_groups(names, ["x"] * 40).expression
        'person[0-9]+'
        >>> propose_groups([f"x/image_{i}.jpg" for i in range(40)], ["x"] * 40) is None
        True
    """
    ids: list[str | None] = [None] * len(names)
    shapes = []
    for shape, found in _kinds([PurePosixPath(name).stem for name in names], labels):
        if _shared(found, labels) >= max(1, _SHARED_OF_KIND * len(found)):
            shapes.append(shape)
            for place, identifier in found.items():
                ids[place] = identifier
    known = {place: identifier for place, identifier in enumerate(ids) if identifier}
    largest = max(Counter(known.values()).values(), default=0)
    if (
        not 1 <= len(shapes) <= _MOST_KINDS
        or _shared(known, labels) < _SHARED * len(names)
        or largest > max(1, _LARGEST * len(names))
    ):
        return None
    patterns = ("[0-9]+".join(map(re.escape, shape.split("\0"))) for shape in sorted(shapes))
    expression = "|".join(patterns).replace(r"\-", "-")
    if find_groups(names, expression) != ids:  # numbers of folders, or within other names
        expression = f"(?:^|/)({expression})[^/]*$"
    return Proposal(expression, tuple(found or "" for found in find_groups(names, expression)))


def _pairs(
    codes: NDArray[np.uint64], groups: NDArray[np.int64], distance: int
) -> Iterator[NDArray[np.int64]]:
    """Compare all codes with each other; yield the pairs that look alike, shape (2, k)."""
    coarse = codes[:, 0]
    step = max(1, _BLOCK // max(1, len(codes)))
    for start in range(0, len(codes), step):
        block = coarse[start : start + step, None] ^ coarse[None, start:]
        left, right = np.stack(np.nonzero(np.bitwise_count(block) <= distance)) + start
        apart = groups[left] != groups[right]  # most pairs of a crowd are joined already
        left, right = left[apart], right[apart]
        unlike = np.bitwise_count(codes[left, 1:] ^ codes[right, 1:]).sum(axis=1, dtype=np.int64)
        close = unlike <= _FINE_PER_COARSE * distance
        yield np.stack((left[close], right[close]))


def _join(waiting: list[NDArray[np.int64]], groups: NDArray[np.int64]) -> None:
    """Merge the groups of pairs that look alike, in place."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if waiting:
        ends = groups[np.concatenate(waiting, axis=1)]
        graph = coo_array((np.ones(ends.shape[1], np.int8), tuple(ends)), shape=(len(groups),) * 2)
        groups[:] = connected_components(graph, directed=False)[1][groups]


def _kinds(stems: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield ways of naming, with NUL for each number, and the identifiers of each."""
    waiting: Iterable[int] = range(len(stems))
    for depth in range(_MOST_NUMBERS):
        kinds: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for place in waiting:
            if number := next(itertools.islice(_NUMBER.finditer(stems[place]), depth, None), None):
                identifier = stems[place][: number.end()]
                kinds[_NUMBER.sub("\0", identifier)][place] = identifier
        waiting = []
        for shape, ids in kinds.items():
            apart = {(identifier, labels[place]) for place, identifier in ids.items()}
            if min(Counter(label for _, label in apart).values()) < _FEWEST_EACH:
                waiting += ids  # it hardly varies, so the next number may tell: NORMAL2-IM-0123
                continue
            rest = (stems[place][len(identifier) :] for place, identifier in ids.items())
            if 2 * sum(any(map(str.isalnum, text)) for text in rest) >= len(ids):
                yield shape, ids


def _shared(ids: dict[int, str], labels: Sequence[str]) -> int:
    """Return how many images bear the identifier of another image of their class."""
    count = Counter((identifier, labels[place]) for place, identifier in ids.items())
    return sum(number for number in count.values() if number > 1)
