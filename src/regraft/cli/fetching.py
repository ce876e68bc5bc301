"""The command that brings a named data set: `data fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.output import JsonOption, say, say_json, talk
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.data.fetching import FetchedData

_MOST_CLASSES = 20


def add_to(data: typer.Typer) -> None:
    """Add the command to `data`."""
    data.command("fetch")(fetch)


def fetch(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Without a name: list what there is.")
    ] = None,
    *,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FOLDER", help="Where it shall stand; by default ./NAME, here."
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE_OR_FOLDER",
            help="Take it from an archive or folder that you have, instead of a download.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a named data set into a folder for each class, checked and without known junk."""
    if name is None:
        if to is not None or source is not None:
            raise UsageError("which data set?", hint="`regraft data fetch` lists the names")
        _list(as_json=as_json)
        return
    from regraft.data.fetching import fetch_data

    try:
        fetched = fetch_data(name, to, source=source, verbose=not as_json)
    except KeyboardInterrupt:
        talk("what has come so far is kept; the same command goes on there")
        raise
    if as_json:
        say_json(fetched.to_json())
    else:
        _show(fetched, to or Path(name))


def _list(*, as_json: bool) -> None:
    from regraft.data.named import NAMED
    from regraft.report.tables import Table

    if as_json:
        listed = [
            {
                "name": data.name,
                "title": data.title,
                "classes": data.classes,
                "pictures": data.pictures,
                "bytes": data.size or None,
                "licence": data.licence,
                "page": data.page,
                "files": [file.url for file in data.files],
            }
            for data in NAMED
        ]
        say_json({"data_sets": listed})
        return
    rows = tuple(
        (
            data.name,
            data.classes,
            f"{data.pictures:,}",
            _size(data.size) if data.files else "by hand",
            data.title,
            data.licence,
        )
        for data in NAMED
    )
    say(Table(("name", "classes", "pictures", "download", "what", "licence"), rows).to_text())
    talk("by hand: get it from its publisher, then `regraft data fetch NAME --from FILE_OR_FOLDER`")


def _show(fetched: FetchedData, folder: Path) -> None:
    source = fetched.source
    if fetched.already:
        say(f"{source.name} is there already, nothing was done")
    say(f"{source.pictures:,} pictures of {len(source.classes)} classes in {folder}")
    counts = [f"{label} {count:,}" for label, count in source.classes.items()]
    more = len(counts) - _MOST_CLASSES
    say("classes: " + ", ".join(counts[:_MOST_CLASSES]) + (f" and {more} more" if more > 0 else ""))
    if source.parts:
        parts = ", ".join(f"{part} {count:,}" for part, count in source.parts.items())
        say(f"parts, as published: {parts}")
    say(f"licence: {source.licence}")
    say(f"cite: {source.citation}")
    if fetched.resumed:
        say(f"went on with a download of which {_size(fetched.resumed)} were here")
    for file in source.files:
        compared = {"nothing": "nothing published to compare with"}.get(
            file.checked, f"{file.checked} as published"
        )
        say(f"file: {file.name}, {file.size:,} bytes, SHA-256 {file.sha256} ({compared})")
    for what, count in source.removed.items():
        say(f"left out: {count:,} {what}")
    if source.broken:
        shown = ", ".join(source.broken[:5]) + (", …" if len(source.broken) > 5 else "")
        say(f"left out, no pictures inside ({len(source.broken):,}): {shown}")
    for note in source.notes:
        say(f"note: {note}")
    if not fetched.already:
        talk(f"written down in {folder / 'SOURCE.json'}; next: regraft data check {folder}")


def _size(count: int) -> str:
    """Return a number of bytes as people say it."""
    if not count:
        return "size unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
