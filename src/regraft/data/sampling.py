"""Choosing pictures by chance, so that the choice depends on names and a seed and on nothing else.

Pictures are put in the order of the SHA-256 of (seed, purpose, name). Such an order is the same on
every machine and with every version of every library, does not depend on the order in which the
pictures were found, and stays as it is for the others when one picture comes or goes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from regraft.data.labels import list_names
from regraft.errors import DataError, UsageError


def chance_key(name: str, *, seed: int, purpose: str) -> bytes:
    """Return the 32 bytes by which ``name`` takes its place in a random order.

    Example:
        >>> chance_key("a.jpg", seed=0, purpose="subset").hex()[:8]
        'a1073e8e'
    """
    text = f"{seed}\0{purpose}\0{name}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def exact(share: float) -> Fraction:
    """Return the fraction that was written: 0.15 is 3/20, not the nearest binary number.

    Example:
        >>> exact(0.15)
        Fraction(3, 20)
    """
    return Fraction(repr(float(share)))


def largest_remainder(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Cut ``total`` into whole numbers as close to the shares as can be; earlier shares win ties.

    Args:
        total: How many pictures there are.
        shares: Shares that add up to one.

    Example:
        >>> largest_remainder(10, [exact(0.6), exact(0.15), exact(0.25)])
        [6, 2, 2]
    """
    counts = [math.floor(total * share) for share in shares]
    remainders = [total * share - count for share, count in zip(shares, counts, strict=True)]
    order = sorted(range(len(shares)), key=lambda i: (-remainders[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def quotas(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Cut ``total`` by largest remainder, but give every share above zero at least one.

    Needs a ``total`` of at least the number of shares above zero.

    Example:
        >>> quotas(3, [exact(0.6), exact(0.15), exact(0.25)])
        [1, 1, 1]
    """
    counts = largest_remainder(total, shares)
    for i, share in enumerate(shares):
        if share > 0 and counts[i] == 0:
            counts[counts.index(max(counts))] -= 1
            counts[i] = 1
    return counts


def stratified_order(class_sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return one order of all pictures whose every prefix holds the classes in fair proportion.

    First comes one picture of each class, then always the class that is furthest behind its share
    (Sainte-Laguë's method). A longer prefix never takes a picture away from a class.

    Args:
        class_sizes: Number of pictures of each class.

    Returns:
        Pairs (class number, place within the class).

    Example:
        >>> stratified_order([4, 2])
        [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]
    """
    # Division rounds correctly, so equal fractions are equal floats and ties are ties everywhere.
    keyed = [
        ((2 * place + 1) / size if place else 0.0, number, place)
        for number, size in enumerate(class_sizes)
        for place in range(size)
    ]
    return [(number, place) for _, number, place in sorted(keyed)]


def first_of_each(queues: Mapping[str, Sequence[int]], per_class: int) -> list[int]:
    """Return the first pictures of each class, the same number of each.

    Args:
        queues: The places of each class's pictures, in the order in which they are wanted.
        per_class: How many of each, 1 or more.

    Raises:
        DataError: A class has fewer (``DATA-SUBSET``).
        UsageError: ``per_class`` is out of range.

    Example:
        >>> first_of_each({"x": [3, 0, 2], "y": [1, 4]}, 2)
        [3, 0, 1, 4]
    """
    if per_class < 1:
        raise UsageError("per_class must be at least 1", why=str(per_class))
    short = {name: len(queue) for name, queue in queues.items() if len(queue) < per_class}
    if short:
        raise DataError(
            f"not every class has {per_class} pictures",
            why=list_names(f"{name} has {count}" for name, count in short.items()),
            hint=f"at most per_class={min(short.values())} is possible",
            code="DATA-SUBSET",
        )
    return [index for queue in queues.values() for index in queue[:per_class]]


def in_proportion(queues: Mapping[str, Sequence[int]], size: int) -> list[int]:
    """Return as many pictures as asked for, the classes in proportion and none left out.

    Args:
        queues: The places of each class's pictures, in the order in which they are wanted.
        size: How many in all.

    Raises:
        DataError: There are fewer, or not enough for one of each class (``DATA-SUBSET``).

    Example:
        >>> in_proportion({"x": [3, 0, 2, 5], "y": [1, 4]}, 3)
        [3, 1, 0]
    """
    total = sum(map(len, queues.values()))
    least = sum(bool(queue) for queue in queues.values())
    if not least <= size <= total or size == 0:
        raise DataError(
            f"a subset of {size} pictures is not possible",
            why=f"there are {total}, and {least} classes need one each",
            hint=f"choose a size from {least} to {total}",
            code="DATA-SUBSET",
        )
    lists = list(queues.values())
    order = stratified_order([len(queue) for queue in lists])
    return [lists[number][place] for number, place in order[:size]]
