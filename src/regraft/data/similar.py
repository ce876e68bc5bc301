"""Find pictures that look alike among very many, by their difference hashes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from regraft.errors import UsageError

FINE_PER_COARSE = 3
"""How many of the 256 fine bits may differ for each of the 64 coarse bits that may.

Measured at distance 4, so 12 fine bits: of 17 million pairs of chest radiographs 364,000 agree in
the coarse hash and none in both, while about 19 of 20 photographs saved again at quality 30 or at
half their size still agree with their originals in both.
"""

_BLOCK = 1 << 20  # comparisons at a time, which bounds the memory
_WAITING = 1 << 16  # pairs that are joined in one go
_BITS = 64


def alike(
    hashes: NDArray[np.uint64], fine_hashes: NDArray[np.uint64], *, distance: int
) -> NDArray[np.int64]:
    """Number the pictures so that those that look alike, or are linked by such, share it.

    Two pictures look alike if their coarse hashes differ in at most ``distance`` bits and their
    fine ones in at most three times as many. The search is exact: hashes within ``distance`` bits
    agree in one of ``distance + 1`` bands, so only pictures that share a band are compared.

    Args:
        hashes: Coarse hashes, shape (n,).
        fine_hashes: Fine hashes as four words each, shape (n, 4).
        distance: The largest number of bits of the coarse hash that may differ, 0 to 63.

    Returns:
        Numbers of groups, shape (n,), from 0 without gaps.

    Raises:
        UsageError: ``distance`` is out of range.

    Example:
        >>> fine = np.zeros((3, 4), np.uint64)
        >>> alike(np.array([0b1, 0b11, 0xFFFF], np.uint64), fine, distance=4).tolist()
        [0, 0, 1]
    """
    if not 0 <= distance < _BITS:
        raise UsageError("distance must lie between 0 and 63", why=str(distance))
    rows = np.column_stack((hashes, fine_hashes))
    codes, place = np.unique(rows, axis=0, return_inverse=True)
    groups = np.arange(len(codes))
    waiting: list[NDArray[np.int64]] = []
    count = 0
    for bucket in _buckets(codes[:, 0], distance):
        for pairs in _pairs_within(bucket, codes, distance, groups):
            waiting.append(pairs)
            count += pairs.shape[1]
            if count > _WAITING:
                _join(waiting, groups)
                waiting, count = [], 0
    _join(waiting, groups)
    return np.unique(groups[place.reshape(-1)], return_inverse=True)[1]


def _buckets(coarse: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    """Yield the places of codes that agree in one of the bands, band by band."""
    edges = np.linspace(0, _BITS, distance + 2).round().astype(np.uint64)
    for low, high in itertools.pairwise(edges):
        band = (coarse >> low) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        ends = np.flatnonzero(np.diff(band[order])) + 1
        yield from (bucket for bucket in np.split(order, ends) if len(bucket) > 1)


def _pairs_within(
    bucket: NDArray[np.int64],
    codes: NDArray[np.uint64],
    distance: int,
    groups: NDArray[np.int64],
) -> Iterator[NDArray[np.int64]]:
    """Compare all codes of a bucket with each other; yield pairs that look alike, shape (2, k)."""
    coarse = codes[bucket, 0]
    step = max(1, _BLOCK // len(bucket))
    for start in range(0, len(bucket), step):
        block = coarse[start : start + step, None] ^ coarse[None, start:]
        first, second = np.nonzero(np.bitwise_count(block) <= distance)
        left, right = bucket[start + first], bucket[start + second]
        apart = groups[left] != groups[right]  # most pairs of a crowd are joined already
        left, right = left[apart], right[apart]
        unlike = np.bitwise_count(codes[left, 1:] ^ codes[right, 1:]).sum(axis=1, dtype=np.int64)
        close = unlike <= FINE_PER_COARSE * distance
        if close.any():
            yield np.stack((left[close], right[close]))


def _join(waiting: list[NDArray[np.int64]], groups: NDArray[np.int64]) -> None:
    """Merge the groups of pairs that look alike, in place."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if waiting:
        ends = groups[np.concatenate(waiting, axis=1)]
        graph = coo_array((np.ones(ends.shape[1], np.int8), tuple(ends)), shape=(len(groups),) * 2)
        groups[:] = connected_components(graph, directed=False)[1][groups]
