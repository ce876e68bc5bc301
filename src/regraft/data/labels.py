"""Names of classes and groups: one written form, one order, and no twins among classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from regraft.errors import DataError, printable


def class_name(text: str) -> str:
    r"""Return ``text`` in Unicode's composed form (NFC), in which classes are compared.

    Example:
        >>> class_name("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", text)


def group_name(text: str) -> str:
    """Return the name of a group as it is compared: composed (NFC), without blanks around it.

    Example:
        >>> group_name("P1 "), group_name(" ")
        ('P1', '')
    """
    return class_name(text).strip()


def ordered_classes(raw_names: Iterable[str], *, wanted: Sequence[str] | None = None) -> list[str]:
    """Return the classes found in their fixed order: as ``wanted``, else by Unicode code point.

    Args:
        raw_names: The names as they stand on disk or in a table, repeated or not.
        wanted: The classes to use, in this order; the other ones are left out.

    Raises:
        DataError: ``DATA-CLASS-TWINS``: two names differ only by case, outer blanks or Unicode
            form, and ``wanted`` does not name both. ``DATA-CLASSES``: ``wanted`` repeats a name.

    Example:
        >>> ordered_classes(["rose", "Lily", "rose"])
        ['Lily', 'rose']
    """
    found = set(raw_names)
    if wanted is not None:
        asked = [class_name(name) for name in wanted]
        if len(set(asked)) < len(asked):
            raise DataError("a class is named twice", why=list_names(asked), code="DATA-CLASSES")
        chosen = set(asked)
        found = {name for name in found if class_name(name) in chosen}
    refuse_twins(found, allowed=() if wanted is None else asked)
    return asked if wanted is not None else sorted({class_name(name) for name in found})


def refuse_twins(raw_names: Iterable[str], *, allowed: Sequence[str] = ()) -> None:
    """Raise an error when two names would be one class for another file system or a hasty reader.

    Args:
        raw_names: The names as they stand on disk or in a table.
        allowed: Names that are known to be classes of their own.

    Raises:
        DataError: Code ``DATA-CLASS-TWINS``, naming both.
    """
    known = set(allowed)
    first: dict[str, str] = {}
    for raw in sorted(set(raw_names)):
        name = class_name(raw)
        key = name if name in known else name.strip().casefold()
        other = first.setdefault(key, raw)
        if other != raw:
            raise DataError(
                "two classes differ only by case, outer blanks or Unicode form",
                why=f"{other!a} and {raw!a}",
                hint="rename or join them, or name both in classes= if they are two classes",
                code="DATA-CLASS-TWINS",
            )


def list_names(names: Iterable[str], *, most: int = 10) -> str:
    """Return up to ``most`` names for a message, then how many more there are.

    Example:
        >>> list_names(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    every = [printable(name) for name in names]
    shown = ", ".join(every[:most]) or "none"
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown
