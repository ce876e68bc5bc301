"""What is written in a plan: keys that nobody reads, and values that a key cannot have."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from regraft.errors import UsageError

_SAID: dict[Any, str] = {
    str: "a text",
    Path: "a path",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Mapping: "a table",
    Sequence: "a list",
    type(None): "",
}


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keys that nobody reads.

    Raises:
        UsageError: Naming the first such key and the known one that is nearest to it.
    """
    keys = list(known)
    for key in given:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"keys: {', '.join(keys)}"
            raise UsageError(f"unknown key {key!r}", hint=hint)


def refuse_wrong_kinds(given: Mapping[str, Any], *kinds: type) -> None:
    """Refuse values that their keys cannot have, such as a text for a number.

    Args:
        given: Values by key; those of keys that no kind has are passed over.
        kinds: Classes whose annotations say what is possible.

    Raises:
        UsageError: Naming the first such key.

    Example:
        >>> from regraft.experiment.preparation import DataPlan
        >>> refuse_wrong_kinds({"val": "a lot"}, DataPlan)
        Traceback (most recent call last):
        regraft.errors.UsageError: val cannot be 'a lot' - it is a number
    """
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    for key, value in given.items():
        possible = _alternatives(hints.get(key, Any))
        if not any(_fits(value, one) for one in possible):
            said = dict.fromkeys(_SAID.get(one, str(one)) for one in possible)
            said.pop("", None)
            raise UsageError(f"{key} cannot be {value!r:.100}", why=f"it is {' or '.join(said)}")


def _alternatives(hint: Any) -> list[Any]:
    """Return the classes that an annotation allows."""
    if get_origin(hint) is Literal:
        return [str]
    if isinstance(hint, UnionType):
        return [kind for one in get_args(hint) for kind in _alternatives(one)]
    return [get_origin(hint) or hint]


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any or kind is bool:
        return kind is Any or isinstance(value, bool)
    if isinstance(value, bool):
        return False
    more = {float: (int, float), Path: (str, os.PathLike), Sequence: (list, tuple)}
    return isinstance(value, more.get(kind, kind))
