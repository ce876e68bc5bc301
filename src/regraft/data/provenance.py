"""Where the pictures in a folder came from: the record that a fetched data set carries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.data.scan import SOURCE_PREFIX
from regraft.errors import DataError, RegraftError
from regraft.files import read_json, write_json

RECORD = f"{SOURCE_PREFIX}json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that pictures came out of.

    Args:
        name: Its name.
        url: Its published address; "" for a file that somebody had.
        size: Bytes.
        sha256: SHA-256 of its content.
        checked: What was compared with what is published: ``"SHA-256"``, ``"MD5"``, ``"size"`` or
            ``"nothing"``.
    """

    name: str
    url: str
    size: int
    sha256: str
    checked: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the pictures in a folder came from.

    Args:
        name: Name of the data set.
        title: What it shows.
        licence: What is known of its licence.
        citation: Whom to cite.
        page: Where its publisher describes it.
        fetched: The day, as 2026-11-21.
        files: What the pictures came out of; () for a folder that somebody had.
        classes: How many pictures each class has.
        parts: How many pictures each part has, where the source is cut.
        removed: What was left out, and how many of each.
        broken: Files that are meant to be pictures and are none; they were left out, too.
        notes: What a reader of results should know, one sentence each.
    """

    name: str
    title: str
    licence: str
    citation: str
    page: str
    fetched: str
    files: tuple[SourceFile, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return sum(self.classes.values())

    def to_json(self) -> dict[str, Any]:
        """Return the record as values that JSON can hold."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """Return the record that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        values = dict(data)
        if values.pop("format") != _FORMAT:
            raise ValueError("written by another version")
        for name in ("broken", "notes"):
            values[name] = tuple(values[name])
        values["files"] = tuple(SourceFile(**file) for file in values["files"])
        return cls(**values)

    def write(self, folder: Path) -> None:
        """Write the record beside the class folders."""
        write_json(folder / RECORD, self.to_json())


def read_source(folder: Path) -> Source | None:
    """Return the record of a folder that was fetched, None for any other folder.

    Raises:
        DataError: ``DATA-SOURCE``: there is one, but it cannot be read.

    Example:
        >>> read_source(Path("no/such/folder")) is None
        True
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        return Source.from_json(read_json(file))
    except (RegraftError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "cannot read where the pictures came from",
            path=file,
            why=str(error)[:200],
            hint="delete the folder and fetch it again",
            code="DATA-SOURCE",
        ) from error
