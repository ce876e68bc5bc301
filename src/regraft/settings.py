"""Settings as plain values: checked when they are made, written as JSON, read back the same.

A settings class is a frozen dataclass that pydantic checks strictly: no text becomes a number, and
30 and 30.0 are one setting where a field is a float. Its docstring is the only place that explains
a field; the command line takes its help from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args

import pydantic
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ErrorDetails, to_jsonable_python

from regraft.errors import RegraftError, UsageError
from regraft.files import sha256_json

T = TypeVar("T")
AnyPath = Annotated[Path, pydantic.Strict(False)]  # a text is a path, too
PathText = Annotated[  # and a path is a text
    str,
    pydantic.BeforeValidator(lambda value: str(value) if isinstance(value, os.PathLike) else value),
]
_CHECKS = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
# Bytes of file names that are not UTF-8; JSON cannot carry them as Python does.
_UNDECODABLE, _PRIVATE = re.compile("[\udc80-\udcff]"), 0x100000
_UNKNOWN = {"unexpected_keyword_argument", "extra_forbidden"}


@dataclass_transform(
    frozen_default=True, kw_only_default=False, field_specifiers=(dataclasses.field,)
)
def settings_class(
    error: type[RegraftError] = UsageError, *, code: str | None = None, kw_only: bool = False
) -> Callable[[type[T]], type[T]]:
    """Make a class of settings: a frozen dataclass whose fields are checked strictly.

    Lists become tuples and numpy's scalars Python's, so that settings are hashable and plain.

    Args:
        error: What is raised where a field is unknown, missing or out of range.
        code: Its code, where it is not the one of the class.
        kw_only: Whether fields can be given by name only.

    Example:
        >>> from pydantic import Field
        >>> Share = Annotated[float, Field(ge=0, lt=1)]
        >>> Zoom = settings_class()(type("Zoom", (), {"__annotations__": {"share": Share}}))
        >>> Zoom(share=0)
        Zoom(share=0.0)
        >>> Zoom(share=2)
        Traceback (most recent call last):
        regraft.errors.UsageError: share cannot be 2 - it should be less than 1
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = checked_dataclass(frozen=True, kw_only=kw_only, config=_CHECKS)(cls)
        check = made.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            given = [_plain(value) for value in args]
            named = {name: _plain(value) for name, value in kwargs.items()}
            try:
                check(self, *given, **named)
            except pydantic.ValidationError as failure:
                raise _translated(failure, made, error, code=code) from None

        made.__init__ = init
        made.__regraft_error__ = (error, code)
        return made  # type: ignore[no-any-return]

    return decorate


def to_json(value: Any) -> Any:
    """Return any settings, or what holds some, as JSON values; NaN, which JSON lacks, is null.

    Example:
        >>> to_json({"folder": Path("runs"), "sizes": (1, 2)})
        {'folder': 'runs', 'sizes': [1, 2]}
    """
    return to_jsonable_python(value, fallback=_plain_or_text, inf_nan_mode="null")


def from_json(kind: type[T], values: Any, *, path: str | os.PathLike[str] | None = None) -> T:
    """Return the settings that JSON or TOML values describe.

    Args:
        kind: The class of the settings, or any type that pydantic knows.
        values: What :func:`to_json` returned, or what a file holds.
        path: The file that the values come from, for the error.

    Raises:
        UsageError: Naming the first field that is unknown, missing or out of range; or the error
            that the class declares.
    """
    error, code = getattr(kind, "__regraft_error__", (UsageError, None))
    try:
        text = json.dumps(values, default=_plain_or_text, ensure_ascii=False)
        carried = _UNDECODABLE.sub(lambda byte: chr(ord(byte[0]) + _PRIVATE), text)
        found = pydantic.TypeAdapter(kind).validate_json(carried, strict=True)
        return found if carried == text else _with_undecodable(found)
    except pydantic.ValidationError as failure:
        raise _translated(failure, kind, error, code=code, path=path) from None


def changed_fields(value: Any) -> dict[str, Any]:
    """Return the fields of settings that differ from their defaults, as JSON values."""
    defaults = {
        f.name: f.default_factory() if callable(f.default_factory) else f.default
        for f in dataclasses.fields(value)
    }
    fields = {name: getattr(value, name) for name in defaults}
    return {name: to_json(field) for name, field in fields.items() if field != defaults[name]}


def hash_key(value: Any, *, without: Collection[str] = ()) -> str:
    """Return the SHA-256 of settings, 64 hexadecimal digits.

    Args:
        value: The settings.
        without: Names of fields that do not count.

    Example:
        >>> hash_key({"seed": 1, "verbose": True}, without=("verbose",)) == hash_key({"seed": 1})
        True
    """
    return sha256_json({name: item for name, item in to_json(value).items() if name not in without})


def field_help(kind: type) -> dict[str, str]:
    """Return what a docstring's ``Args`` say of each field, by name, each on one line.

    Example:
        >>> field_help(settings_class)["kw_only"]
        'Whether fields can be given by name only.'
    """
    docs = inspect.getdoc(kind) or ""
    block = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", docs, re.MULTILINE)
    entries = re.split(r"^ {4}(?=\w+:)", block[1] if block else "", flags=re.MULTILINE)
    pairs = (entry.partition(":") for entry in entries if ":" in entry)
    return {name.strip(): " ".join(text.split()) for name, _, text in pairs}


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        UsageError: There is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("cannot read the file", path=path, why=error.strerror or "") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise UsageError("the file is not TOML", path=path, why=str(error)) from error


def parse_settings(
    value: str | T | None, kind: type[T], presets: Mapping[str, T] | None = None
) -> T | None:
    """Return settings from the name of a preset, from ``KEY=VALUE,…``, or from themselves.

    A list may begin with a preset, whose values it then changes: ``"standard,rotation=30"``.

    Args:
        value: What was given; None and ``"none"`` stand for nothing.
        kind: The class of the settings.
        presets: The settings that have a name.

    Raises:
        UsageError: The preset or a key is unknown, or a value is out of range.
    """
    what, known = kind.__name__.lower(), presets or {}
    if value is None or value == "none":
        return None
    if isinstance(value, kind):
        return value
    first, *rest = (part.strip() for part in str(value).split(","))
    if first in known:
        return dataclasses.replace(known[first], **_pairs(rest, what))  # type: ignore[type-var]
    if "=" in first:
        return kind(**_pairs([first, *rest], what))
    hint = did_you_mean(first, known) or "or write KEY=VALUE,KEY=VALUE"
    raise UsageError(f"unknown {what} {first!r:.100}", why=f"known: {', '.join(known)}", hint=hint)


def parse_value(text: str) -> Any:
    """Return a text as the JSON number, truth value, list or table that it is, else as a text.

    Example:
        >>> parse_value("0.5"), parse_value("true"), parse_value("same"), parse_value("none")
        (0.5, True, 'same', None)
    """
    lowered = text.strip().lower()
    if lowered == "none":
        return None
    try:
        return json.loads(lowered if lowered in {"true", "false", "null"} else text)
    except ValueError:
        return text


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return a hint with the known words nearest to an unknown one; empty if none is near.

    Example:
        >>> did_you_mean("backbon", ["backbone", "head"])
        "did you mean 'backbone'?"
    """
    near = difflib.get_close_matches(word, list(known), n=most, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def _pairs(texts: Iterable[str], what: str) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key in pairs:
            hint = "write KEY=VALUE, each key once"
            raise UsageError(f"{what}: not a setting", why=repr(text), hint=hint)
        pairs[key] = parse_value(value)
    return pairs


def _with_undecodable(value: Any) -> Any:
    """Return a value with the undecodable bytes that were replaced for JSON."""
    if isinstance(value, str):
        private = f"[{chr(_PRIVATE + 0xDC80)}-{chr(_PRIVATE + 0xDCFF)}]"
        return re.sub(private, lambda letter: chr(ord(letter[0]) - _PRIVATE), value)
    if isinstance(value, tuple | list):
        return type(value)(_with_undecodable(item) for item in value)
    if isinstance(value, dict):
        return {_with_undecodable(k): _with_undecodable(item) for k, item in value.items()}
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            found = _with_undecodable(getattr(value, field.name))
            object.__setattr__(value, field.name, found)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _plain_or_text(value: Any) -> Any:
    if type(value).__module__ == "numpy":
        return value.tolist()
    return to_json(value) if dataclasses.is_dataclass(value) else str(value)


def _translated(
    failure: pydantic.ValidationError,
    kind: Any,
    error: type[RegraftError],
    *,
    code: str | None,
    path: str | os.PathLike[str] | None = None,
) -> RegraftError:
    """Return the first fault that pydantic found, in our words."""
    faults = failure.errors(include_url=False)
    first = faults[0]
    names = [part for part in first["loc"] if isinstance(part, str)]
    known = _fields_within(kind)
    if first["type"] in _UNKNOWN:
        hint = did_you_mean(names[-1], known) or f"known: {', '.join(known)}"
        return error(f"unknown key {names[-1]!r}", path=path, hint=hint, code=code)
    if first["type"] in {"missing", "missing_argument"}:
        return error(f"{names[-1]} is missing", path=path, code=code)
    name = next((name for name in reversed(names) if name in known), kind.__name__)
    same = [one for one in faults if one["loc"][:1] == first["loc"][:1]]
    why = " or ".join(dict.fromkeys(_said(one) for one in same))
    return error(f"{name} cannot be {first['input']!r:.100}", path=path, why=why, code=code)


def _fields_within(annotation: Any) -> list[str]:
    """Return the names of the fields of settings, then those of the settings in these fields."""
    fields = getattr(annotation, "__pydantic_fields__", {})
    inner = [field.annotation for field in fields.values()] or get_args(annotation)
    return list(dict.fromkeys([*fields, *(n for one in inner for n in _fields_within(one))]))


def _said(fault: ErrorDetails) -> str:
    text = fault["msg"].replace("Input should be", "it should be")
    return text[:1].lower() + text[1:]
