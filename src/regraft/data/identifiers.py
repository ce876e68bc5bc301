"""What file names say about who or what was photographed: a patient, a plant, a film."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from regraft.data.listings import compile_pattern

_NUMBER = re.compile("[0-9]+")
_MOST_KINDS = 4  # ways of naming in one data set
_FEWEST_EACH = 3  # identifiers of a class, so that the names of classes are taken for none
_SHARED = 0.2  # of the pictures must share their identifier with another one of their class
_SHARED_OF_KIND = 0.05
_LARGEST = 0.1  # share of the pictures that one identifier may stand for


@dataclass(frozen=True)
class Proposal:
    """An expression that may tell which pictures belong together, to be judged by a person.

    Args:
        expression: A regular expression on the path.
        groups: What it finds in each picture's name; empty where it finds nothing.
    """

    expression: str
    groups: tuple[str, ...]


def matches(names: Sequence[str], expression: str) -> list[str | None]:
    """Return what an expression finds in each name.

    Args:
        names: Relative paths.
        expression: A regular expression that is looked for; its group named ``group``, else its
            first group, else the whole match is what is found.

    Raises:
        UsageError: It is no regular expression (``USAGE-PATTERN``).

    Example:
        >>> matches(["a/ann_1.jpg", "b/bea_1.jpg", "b/2.jpg"], "([a-z]+)_")
        ['ann', 'bea', None]
    """
    pattern = compile_pattern(expression)
    which: str | int = "group" if "group" in pattern.groupindex else min(1, pattern.groups)
    found = (pattern.search(name) for name in names)
    return [match[which] if match else None for match in found]


def propose(names: Sequence[str], labels: Sequence[str]) -> Proposal | None:
    """Look for identifiers such as ``person12`` of which several pictures of a class bear one.

    A name is taken apart into what stands before its first number that varies, this number, and the
    rest. The first two are an identifier if there is a rest in most names, if there are several
    of them in each class, and if enough pictures share one.

    Args:
        names: Relative paths.
        labels: The class of each.

    Returns:
        An expression with what it finds, or None where names look like mere numbering.

    Example:
        >>> names = [f"x/person{i // 4}_view_{i}.jpg" for i in range(40)]
        >>> propose(names, ["x"] * 40).expression
        'person[0-9]+'
        >>> propose([f"x/image_{i}.jpg" for i in range(40)], ["x"] * 40) is None
        True
    """
    stems = [PurePosixPath(name).stem for name in names]
    ids: list[str | None] = [None] * len(stems)
    prefixes = []
    for prefix, found in _kinds(stems, labels):
        shared = _shared(found, labels)
        if shared >= max(1, _SHARED_OF_KIND * len(found)):
            prefixes.append(prefix)
            for place, identifier in found.items():
                ids[place] = identifier
    known = {place: identifier for place, identifier in enumerate(ids) if identifier}
    largest = max(Counter(known.values()).values(), default=0)
    if (
        not 1 <= len(prefixes) <= _MOST_KINDS
        or _shared(known, labels) < _SHARED * len(names)
        or largest > max(1, _LARGEST * len(names))
    ):
        return None
    expression = _expression(sorted(prefixes), names, ids)
    return Proposal(expression, tuple(found or "" for found in matches(names, expression)))


def _kinds(stems: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield ways of naming: a literal beginning, and the identifiers that go on with a number."""
    waiting = [("", list(range(len(stems))))]
    while waiting:
        start, places = waiting.pop()
        numbers: defaultdict[str, dict[int, re.Match[str]]] = defaultdict(dict)
        for place in places:
            if match := _NUMBER.search(stems[place], len(start)):
                numbers[stems[place][: match.start()]][place] = match
        for prefix, found in numbers.items():
            ids = {place: prefix + match[0] for place, match in found.items()}
            several = Counter(labels[place] for place in _first_of_each(ids, labels))
            if min(several.values()) >= _FEWEST_EACH:
                rest = (stems[place][match.end() :] for place, match in found.items())
                if 2 * sum(any(map(str.isalnum, text)) for text in rest) >= len(found):
                    yield prefix, ids
            else:  # a number that hardly varies belongs to the name: NORMAL2-IM-0123-0001
                by_id: defaultdict[str, list[int]] = defaultdict(list)
                for place, identifier in ids.items():
                    by_id[identifier].append(place)
                waiting += [item for item in by_id.items() if len(item[1]) >= _FEWEST_EACH]


def _first_of_each(ids: dict[int, str], labels: Sequence[str]) -> list[int]:
    """Return one place for each identifier of each class."""
    return list({(identifier, labels[place]): place for place, identifier in ids.items()}.values())


def _shared(ids: dict[int, str], labels: Sequence[str]) -> int:
    """Return how many pictures bear the identifier of another picture of their class."""
    count = Counter((identifier, labels[place]) for place, identifier in ids.items())
    return sum(number for number in count.values() if number > 1)


def _expression(prefixes: list[str], names: Sequence[str], ids: list[str | None]) -> str:
    """Return the plainest expression that finds these identifiers and nothing else."""
    literal = [re.escape(prefix).replace(r"\-", "-") for prefix in prefixes]
    plain = "|".join(f"{prefix}[0-9]+" for prefix in literal)
    if all(prefixes) and matches(names, plain) == ids:
        return plain
    either = f"(?:{'|'.join(literal)})" if any(prefixes) else ""
    return f"(?:^|/)({either}[0-9]+)[^/]*$"
