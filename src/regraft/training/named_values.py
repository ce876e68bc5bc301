"""Frozen values that have a name or are written as ``KEY=VALUE,…``, and the ranges of their fields.

What `Augmentation` and `Regularization` have in common.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

from regraft.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold.

    Args:
        low: The smallest of them.
        high: The largest of them.
        unit: What is counted, such as ``"degrees"``.
        below: Whether ``high`` itself is too much.
        above: Whether ``low`` itself is too little.
        whole: Whether the number must be whole.

    Example:
        >>> print(Range(0, 1, "a share", below=True))
        a share, 0 to below 1
        >>> 1 in Range(0, 1), 1 in Range(0, 1, below=True)
        (True, False)
    """

    low: float
    high: float
    unit: str = ""
    below: bool = False
    above: bool = False
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        number = float(value)
        inside = self.low <= number <= self.high  # false for what is no number, too
        excluded = (self.below and number == self.high) or (self.above and number == self.low)
        return inside and not excluded and not (self.whole and number % 1)

    def __str__(self) -> str:
        high = "" if self.high == math.inf else f" to {'below ' * self.below}{self.high:g}"
        low = f"{'above ' * self.above}{self.low:g}"
        return f"{self.unit}, {low}{high or ' or more'}".removeprefix(", ")


def settle_fields(value: Any, what: str, allowed: Mapping[str, Range | tuple[Any, ...]]) -> None:
    """Check the fields of a frozen dataclass, and make plain Python numbers of its numbers.

    Args:
        value: The dataclass, inside its ``__post_init__``.
        what: How it is called in an error.
        allowed: For each field its range, or the values it may have. None is allowed as well
            where it is the default.

    Raises:
        UsageError: A field is out of range.
    """
    for field in dataclasses.fields(value):
        given, rule = getattr(value, field.name), allowed[field.name]
        if given is None and field.default is None:
            continue
        if isinstance(rule, Range):
            right = given in rule
        else:
            right = any(type(given) is type(one) and given == one for one in rule)
        if not right:
            choice = str(rule) if isinstance(rule, Range) else f"one of {_words(rule)}"
            raise UsageError(f"{what}: {field.name} is out of range", why=repr(given), hint=choice)
        if isinstance(rule, Range):  # 30 and 30.0 are one setting and must be written as one
            object.__setattr__(value, field.name, int(given) if rule.whole else float(given))


def find_settings(value: str | T | None, kind: type[T], known: Mapping[str, T]) -> T | None:
    """Return settings from their name, from ``KEY=VALUE,…`` or from the settings themselves.

    A list may begin with a name, whose values it then changes: ``"standard,rotation=30"``.

    Args:
        value: What was given; None and ``"none"`` stand for nothing.
        kind: The dataclass of the settings.
        known: The settings that have a name.

    Raises:
        UsageError: The name or a key is unknown, or a value is out of range.
    """
    what = kind.__name__.lower()
    if value is None or value == "none":
        return None
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise UsageError(
            f"not a value for {what}", why=f"{value!r:.100}", hint=f"a name or {kind.__name__}(…)"
        )
    first, *rest = (part.strip() for part in value.split(","))
    if "=" in first:
        start, pairs = kind(), [first, *rest]
    elif first in known:
        start, pairs = known[first], rest
    else:
        raise UsageError(
            f"unknown {what} {first!r}",
            why=f"known: {', '.join(known)}",
            hint=_nearest(first, known) or "or write KEY=VALUE,KEY=VALUE",
        )
    return _changed(start, pairs, what)


def to_json(settings: Any) -> dict[str, Any]:
    """Return the fields of settings by name, as JSON values."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def _changed(start: T, pairs: Iterable[str], what: str) -> T:
    keys = [field.name for field in dataclasses.fields(start)]  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals:
            raise UsageError(f"{what}: not a setting", why=repr(pair), hint="write KEY=VALUE")
        if key in changes:
            raise UsageError(f"{what}: {key} is given twice")
        if key not in keys:
            raise UsageError(
                f"{what}: there is no setting {key!r}",
                why=f"known: {', '.join(keys)}",
                hint=_nearest(key, keys),
            )
        changes[key] = _read(text)
    return dataclasses.replace(start, **changes)  # type: ignore[type-var]


def _read(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return json.loads(text.lower())
    except ValueError:
        return text


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _words(values: Iterable[Any]) -> str:
    return ", ".join(v if isinstance(v, str) else str(v).lower() for v in values)
