"""Bringing a data set that has a name here into a folder: downloaded, or from what is there."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from regraft.data.dataset import absolute
from regraft.data.layouts import Arranged, Layout, arrange, files_below, unpack
from regraft.data.sources import SOURCE_PREFIX, is_below, is_image_name
from regraft.download import Checksums, download, network_refused
from regraft.errors import DataError, DownloadError, RegraftError, UsageError, list_names
from regraft.files import (
    atomic_folder,
    home,
    locked,
    read_json,
    remove_leftovers,
    sha256_file,
    write_json,
)
from regraft.settings import did_you_mean, from_json, read_toml, settings_class, to_json

_DAY = 24 * 3600.0
RECORD = f"{SOURCE_PREFIX}json"


@settings_class(DataError, kw_only=True)
class NamedData:
    """A data set with a name.

    Args:
        name: The name.
        title: What it shows, in a few words.
        classes: How many classes.
        images: How many images are published.
        licence: What is known of the licence.
        citation: Whom to cite.
        page: Where its publisher describes it.
        url: The address of its archive; "" where only a person with a login gets it.
        archive: The name of the archive; by default the end of the address.
        sha256: SHA-256 of the archive, if that is known.
        size: Bytes of the archive, if they are known.
        layout: How it is published.
        inner: Archives within the archive that hold the images.
        known: What a reader of its results should know, one sentence each.
    """

    name: str
    title: str
    classes: int
    images: int
    licence: str
    citation: str
    page: str
    url: str = ""
    archive: str = ""
    sha256: str = ""
    size: int = 0
    layout: Layout
    inner: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The name of its archive."""
        return self.archive or urlsplit(self.url).path.rpartition("/")[2]

    @property
    def checksums(self) -> Checksums:
        """What is known of its archive."""
        return Checksums(self.sha256, self.size)


@settings_class(DataError, code="DATA-SOURCE", kw_only=True)
class Source:
    """Where the images in a folder came from; what its :class:`NamedData` says comes first.

    Args:
        fetched: The day, as 2026-11-21.
        archive: What the images came out of; "" for a folder that somebody had.
        url: Its published address; "" for one that somebody had.
        size: Its bytes.
        sha256: SHA-256 of its content.
        checked: What of it was compared with what is published: ``"SHA-256"``, ``"size"`` or
            ``"nothing"``.
        classes: How many images each class has.
        parts: How many images each part has, where the source is cut.
        removed: What was left out, and how many of each.
        broken: Files that are meant to be images and are none; they were left out, too.
        notes: What a reader of results should know, one sentence each.
    """

    name: str
    title: str
    licence: str
    citation: str
    page: str
    fetched: str
    archive: str = ""
    url: str = ""
    size: int = 0
    sha256: str = ""
    checked: str = "nothing"
    classes: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """How many images there are."""
        return sum(self.classes.values())


@dataclass(frozen=True)
class FetchedData:
    """A data set in its folder, where it came from, and whether it was there before already."""

    folder: Path
    source: Source
    already: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it, and the record of its source, as values that JSON can hold."""
        own = {"folder": str(self.folder), "already": self.already}
        return {**own, "images": self.source.images, **to_json(self.source)}


@functools.cache
def named_data() -> tuple[NamedData, ...]:
    """Return every data set with a name, those that can be downloaded first."""
    values = read_toml(Path(__file__).with_name("named.toml"))
    return from_json(tuple[NamedData, ...], values["data"])


def find_data(name: str) -> NamedData:
    """Return the data set of a name.

    Raises:
        UsageError: ``DATA-UNKNOWN``: there is none; the nearest names are given.

    Example:
        >>> find_data("flowers17").images
        1360
    """
    by_name = {data.name: data for data in named_data()}
    if name in by_name:
        return by_name[name]
    why = did_you_mean(name, by_name, most=3) or f"there are {list_names(by_name)}"
    hint = "`regraft data fetch` lists them; a folder of your own needs no name"
    raise UsageError(f"no data set is named {name!r:.100}", why=why, hint=hint, code="DATA-UNKNOWN")


def read_source(folder: Path) -> Source | None:
    """Return the record of a folder that was fetched, None for any other folder.

    Raises:
        RegraftError: There is one, but it is no JSON (``FILE-JSON``) or not ours (``DATA-SOURCE``).

    Example:
        >>> read_source(Path("no/such/folder")) is None
        True
    """
    file = folder / RECORD
    return from_json(Source, read_json(file), path=file) if file.is_file() else None


def fetch_data(
    name: str,
    to: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> FetchedData:
    """Bring a named data set into a folder, whole or not at all.

    A folder that holds it already is left as it is. An interrupted download is resumed.

    Args:
        name: The name of a data set, see :func:`named_data`.
        to: The folder; by default the data set's name, in the current folder.
        source: An archive, or a folder with the unpacked files, to take instead of a download;
            nothing is changed there.
        verbose: Whether to show progress.

    Raises:
        UsageError: The name is unknown, or one of ``to`` and ``source`` lies in the other.
        DataError: It cannot be downloaded (``DATA-DOWNLOAD``; without a network in less than 2 s),
            is not what was published (``DATA-CHECKSUM``, ``DATA-LAYOUT``, ``ARCHIVE-…``), is only
            for people with a login (``DATA-BY-HAND``), or the folder lost some (``DATA-CHANGED``).
        RegraftError: The folder holds something else or cannot be written (``FILE-…``).

    Example:
        >>> fetch_data("animals")
        Traceback (most recent call last):
        regraft.errors.DataError: animals cannot be downloaded - its publisher hands it out ...
    """
    data = find_data(name)
    folder = absolute(to or name)
    if (there := _already(data, folder)) is not None:
        return there
    if source is not None:
        given = absolute(source)
        if is_below(str(given), str(folder)) or is_below(str(folder), str(given)):
            what = "the new folder and what it is made from lie one in the other"
            raise UsageError(what, path=folder, hint="name another folder with --to")
        if not given.exists():
            raise DataError("nothing is there", path=given, code="DATA-NOT-FOUND")
        return _assemble(data, folder, given)
    if not data.url:
        why = "its publisher hands it out only to people with an account"
        hint = f"get it from {data.page} and then `regraft data fetch {data.name} --from"
        hint += " FILE_OR_FOLDER`"
        what = f"{data.name} cannot be downloaded"
        raise DataError(what, why=why, hint=hint, code="DATA-BY-HAND")
    store = home() / "downloads" / data.name
    busy = DataError(f"another process is fetching {data.name}", code="DATA-BUSY")
    with locked(store / ".lock", busy=busy, seconds=_DAY):
        if (there := _already(data, folder)) is not None:  # another process was faster
            return there
        archive = store / data.file_name
        _download(data, archive, verbose=verbose)
        fetched = _assemble(data, folder, archive)
        archive.unlink(missing_ok=True)
    return fetched


def _already(data: NamedData, folder: Path) -> FetchedData | None:
    """Return what stands in the folder if it is the data set; refuse whatever else is there."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return None
    source = read_source(folder) if folder.is_dir() else None
    if source is None or source.name != data.name:
        why = "no data set that was fetched" if source is None else f"it holds {source.name}"
        what, hint = "something else is there already", "name another folder with --to"
        raise RegraftError(what, path=folder, why=why, hint=hint, code="FILE-EXISTS")
    count = sum(is_image_name(file.name) for file in files_below(folder))
    if count != source.images:
        what = f"the folder does not hold {data.name} as it was fetched"
        why = f"{count:,} images are there, {source.images:,} were fetched"
        hint = "delete or rename it and fetch again"
        raise DataError(what, path=folder, why=why, hint=hint, code="DATA-CHANGED")
    return FetchedData(folder, source, already=True)


def _download(data: NamedData, archive: Path, *, verbose: bool) -> None:
    """Download the archive, unless an earlier call has."""
    if archive.is_file() and not _problem(data, archive):
        return
    archive.unlink(missing_ok=True)
    code, refused = "DATA-DOWNLOAD", network_refused(data.url)
    why = f"looked in {archive.parent}: not there; the network: {refused}"
    if not refused:
        sums = data.checksums
        try:
            download(data.url, archive, checksums=sums, resume=True, seconds=_DAY, verbose=verbose)
            return
        except DownloadError as error:
            why = f"{archive.name}: {error.why}"
            code = "DATA-CHECKSUM" if error.code == "DOWNLOAD-CHECKSUM" else code
    hint = f"run the same command again, which resumes; or get {data.url} elsewhere and"
    hint += f" `regraft data fetch {data.name} --from FILE_OR_FOLDER`"
    raise DataError(f"cannot download {data.name}", why=why, hint=hint, code=code)


def _problem(data: NamedData, archive: Path) -> str:
    return data.checksums.problem(archive.stat().st_size, sha256_file(archive))


def _assemble(data: NamedData, folder: Path, given: Path) -> FetchedData:
    """Unpack an archive or folder, arrange and record it, all or nothing."""
    if folder.is_dir():
        folder.rmdir()  # it is empty, and the whole one takes its place
    remove_leftovers(folder.parent, folder.name)
    with atomic_folder(folder) as part:
        work, junk = part / ".unpacked", 0
        if given.is_file():
            junk = unpack(given, work)
            for inner in [file for file in files_below(work) if file.name in data.inner]:
                junk += unpack(inner, inner.with_name(f"{inner.name} unpacked"))
                inner.unlink()
        packed = given.is_file()
        arranged = arrange(data.layout, work if packed else given, part, move=packed)
        shutil.rmtree(work, ignore_errors=not packed)
        source = _record(data, given if packed else None, arranged, junk)
        write_json(part / RECORD, to_json(source))
        if hasattr(os, "sync"):
            os.sync()
    return FetchedData(folder, source)


def _record(data: NamedData, archive: Path | None, arranged: Arranged, junk: int) -> Source:
    removed, notes = dict(arranged.removed), list(data.known)
    file: dict[str, Any] = {}
    if junk:
        removed["files that a system left behind (__MACOSX, Thumbs.db, …)"] = junk
    count = sum(arranged.classes.values()) + len(arranged.broken)
    if (count, len(arranged.classes)) != (data.images, data.classes):
        note = f"it has {count:,} images of {len(arranged.classes)} classes, published are"
        notes.insert(0, f"{note} {data.images:,} of {data.classes}")
    if archive is not None:
        problem = _problem(data, archive)  # of one that somebody had
        if problem:
            notes.insert(0, f"{archive.name} is another edition than the published one: {problem}")
        compared = "SHA-256" if data.sha256 else "size" if data.size else "nothing"
        file = {"archive": archive.name, "sha256": sha256_file(archive), "checked": compared}
        file |= {"size": archive.stat().st_size, "url": data.url}
        if problem:
            file |= {"checked": "nothing", "url": ""}
    return Source(
        **{key: getattr(data, key) for key in ("name", "title", "licence", "citation", "page")},
        fetched=datetime.now(UTC).date().isoformat(),
        **file,
        classes=arranged.classes,
        parts=arranged.parts,
        removed=removed,
        broken=arranged.broken,
        notes=tuple(notes),
    )
