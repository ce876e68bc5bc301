"""Bringing a data set that has a name here into a folder: downloaded, or from what is there."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
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

DAY = 24 * 3600.0
RECORD = f"{SOURCE_PREFIX}json"
_PLAIN = (".mat",)


@settings_class(DataError, kw_only=True)
class RemoteFile:
    """A file as it is published.

    Args:
        url: Its address.
        name: Its name; by default the end of the address.
        sha256: Its SHA-256, if that is known.
        size: Its bytes, if they are known.
    """

    url: str = ""
    name: str = ""
    sha256: str = ""
    size: int = 0

    @property
    def file_name(self) -> str:
        """Its name."""
        return self.name or urlsplit(self.url).path.rpartition("/")[2]

    @property
    def checksums(self) -> Checksums:
        """What is known of its content."""
        return Checksums(self.sha256, self.size)


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
        files: What has to be downloaded; () where only a person with a login gets it.
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
    files: tuple[RemoteFile, ...] = ()
    layout: Layout
    inner: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to download, as far as they are published; 0: unknown or not to be downloaded."""
        return sum(file.size for file in self.files)


@settings_class(DataError, kw_only=True)
class SourceFile:
    """A file that images came out of.

    Args:
        name: Its name.
        url: Its published address; "" for a file that somebody had.
        size: Bytes.
        sha256: SHA-256 of its content.
        checked: What was compared with what is published: ``"SHA-256"``, ``"size"`` or
            ``"nothing"``.
    """

    name: str
    url: str
    size: int
    sha256: str
    checked: str


@settings_class(DataError, kw_only=True)
class Source:
    """Where the images in a folder came from.

    Args:
        name: Name of the data set.
        title: What it shows.
        licence: What is known of its licence.
        citation: Whom to cite.
        page: Where its publisher describes it.
        fetched: The day, as 2026-11-21.
        files: What the images came out of; () for a folder that somebody had.
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
    files: tuple[SourceFile, ...] = ()
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
    """A data set in its folder.

    Attributes:
        folder: One folder for each class, below those of train, val and test where it is cut.
        source: Where the images came from.
        already: Whether it was there before, and nothing was done.
        resumed: How many bytes an earlier, interrupted download had brought.
    """

    folder: Path
    source: Source
    already: bool = False
    resumed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it, and the record of its source, as values that JSON can hold."""
        own = {"folder": str(self.folder), "already": self.already, "resumed": self.resumed}
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
        DataError: ``DATA-SOURCE``: there is one, but it cannot be read.

    Example:
        >>> read_source(Path("no/such/folder")) is None
        True
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        return from_json(Source, read_json(file))
    except RegraftError as error:
        why = ": ".join(part for part in (error.what, error.why) if part)[:200]
        what, hint = "cannot read where the images came from", "delete the folder and fetch again"
        raise DataError(what, path=file, why=why, hint=hint, code="DATA-SOURCE") from error


def fetch_data(
    name: str,
    to: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    seconds: float = DAY,
    verbose: bool = True,
) -> FetchedData:
    """Bring a named data set into a folder, whole or not at all.

    A folder that holds it already is left as it is. An interrupted download is resumed.

    Args:
        name: The name of a data set, see :func:`named_data`.
        to: The folder; by default the data set's name, in the current folder.
        source: An archive, or a folder with the archives or the unpacked files, to take instead of
            a download; nothing is changed there.
        seconds: How long a download may take.
        verbose: Whether to show progress.

    Raises:
        UsageError: The name is unknown, or one of ``to`` and ``source`` lies in the other.
        DataError: ``DATA-DOWNLOAD``: it could not be downloaded (without a network in less than
            2 s, saying where it was looked for). ``DATA-CHECKSUM``: a file is not what was
            published. ``DATA-BY-HAND``: its publisher asks for a login. ``DATA-LAYOUT``: the files
            are not laid out as published. ``DATA-CHANGED``: the folder holds it no longer whole.
            ``DATA-SOURCE``: the record in the folder cannot be read. ``DATA-NOT-FOUND``: nothing is
            there to take it from, or not all of it. ``DATA-BUSY``: another process is fetching it.
            ``ARCHIVE-…``: see :func:`regraft.data.layouts.unpack`.
        RegraftError: ``FILE-EXISTS``, ``FILE-WRITE``: the folder holds something else, or cannot be
            written.

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
        files, tree = _given(data, given)
        return _assemble(data, folder, files, tree)
    if not data.files:
        why = "its publisher hands it out only to people with an account"
        hint = f"get it from {data.page} and then `regraft data fetch {data.name} --from"
        hint += " FILE_OR_FOLDER`"
        what = f"{data.name} cannot be downloaded"
        raise DataError(what, why=why, hint=hint, code="DATA-BY-HAND")
    with _downloads(data, seconds) as store:
        if (there := _already(data, folder)) is not None:  # another process was faster
            return there
        files = _download(data, store, seconds=seconds, verbose=verbose)
        fetched = _assemble(data, folder, files, None)
        for file in files:
            file.path.unlink(missing_ok=True)
    return fetched


@dataclass(frozen=True)
class _Local:
    """A file of the data set on this machine."""

    path: Path
    record: SourceFile
    note: str = ""
    resumed: int = 0


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


@contextlib.contextmanager
def _downloads(data: NamedData, seconds: float) -> Iterator[Path]:
    """Give the folder of a data set's downloads to one process at a time."""
    store = home() / "downloads" / data.name
    busy = DataError(f"another process is fetching {data.name}", code="DATA-BUSY")
    with locked(store / ".lock", busy=busy, seconds=seconds):
        yield store


def _download(data: NamedData, store: Path, *, seconds: float, verbose: bool) -> list[_Local]:
    missing = [file for file in data.files if not _is_here(file, store / file.file_name)]
    if missing and (refused := network_refused(missing[0].url)):
        raise _not_downloaded(data, f"looked in {store}: not there; the network: {refused}")
    files = []
    for file in data.files:
        path, resumed, sums = store / file.file_name, 0, file.checksums
        if file in missing:
            try:
                resumed = download(
                    file.url, path, checksums=sums, resume=True, seconds=seconds, verbose=verbose
                )
            except DownloadError as error:
                if error.code == "DOWNLOAD-CHECKSUM":
                    raise _wrong_checksum(path.name, None, error.why) from error
                raise _not_downloaded(data, f"{path.name}: {error.why}") from error
        files.append(_checked(file, path, resumed=resumed))
    return files


def _is_here(file: RemoteFile, path: Path) -> bool:
    """Tell whether an earlier call has downloaded a file; what is damaged is deleted."""
    if not path.is_file():
        return False
    problem = file.checksums.problem(path.stat().st_size, sha256_file(path))
    if problem:
        path.unlink()
    return not problem


def _checked(file: RemoteFile, path: Path, *, resumed: int = 0, own: bool = False) -> _Local:
    """Compare a file here with what is published under its name.

    Args:
        file: What is published.
        path: The file here.
        resumed: How much of it an earlier download brought.
        own: Whether somebody gave it: one of another size is then another edition, and used.
    """
    size = path.stat().st_size
    sha256 = sha256_file(path)
    problem = file.checksums.problem(size, sha256)
    if problem and not (own and file.size and size != file.size):
        raise _wrong_checksum(path.name, path, problem)
    checked = "SHA-256" if file.sha256 else "size" if file.size else "nothing"
    note = f"{path.name} is another edition than the published one: {problem}" if problem else ""
    record = SourceFile(
        name=path.name,
        url="" if problem else file.url,
        size=size,
        sha256=sha256,
        checked="nothing" if problem else checked,
    )
    return _Local(path, record, note, resumed)


def _given(data: NamedData, given: Path) -> tuple[list[_Local], Path | None]:
    """Return the files of a data set in what somebody gave, or the folder of unpacked files."""
    if not given.exists():
        raise DataError("nothing is there", path=given, code="DATA-NOT-FOUND")
    beside = given if given.is_dir() else given.parent
    published = {file.file_name: file for file in data.files}
    here = {name: beside / name for name in published if (beside / name).is_file()}
    if given.is_dir() and (not published or len(here) < len(published)):
        return [], given
    if given.is_file() and len(published) > 1:
        here[data.files[0].file_name] = given
        if absent := [name for name in published if name not in here]:
            what = f"{data.name} has more files than the one that was given"
            why = f"not there: {', '.join(absent)}"
            urls = " and ".join(published[name].url for name in absent)
            hint = f"put them beside it; they are at {urls}"
            raise DataError(what, path=beside, why=why, hint=hint, code="DATA-NOT-FOUND")
    elif given.is_file():
        here = {given.name: given}
    unknown = RemoteFile(name=given.name)
    return [_checked(published.get(n, unknown), path, own=True) for n, path in here.items()], None


def _assemble(
    data: NamedData, folder: Path, files: Sequence[_Local], tree: Path | None
) -> FetchedData:
    """Unpack, arrange and write the record; the folder appears whole or not at all."""
    if folder.is_dir():
        folder.rmdir()  # it is empty, and the whole one takes its place
    remove_leftovers(folder.parent, folder.name)
    with atomic_folder(folder) as part:
        work = part / ".unpacked"
        junk = 0 if tree else _unpack_all(data, files, work)
        arranged = arrange(data.layout, tree or work, part, move=tree is None)
        shutil.rmtree(work, ignore_errors=tree is not None)
        source = _record(data, files, arranged, junk)
        write_json(part / RECORD, to_json(source))
        if hasattr(os, "sync"):
            os.sync()
    return FetchedData(folder, source, resumed=sum(file.resumed for file in files))


def _unpack_all(data: NamedData, files: Sequence[_Local], work: Path) -> int:
    """Unpack the archives and those within them; return how many files were junk."""
    packed = [file.path for file in files if file.path.suffix not in _PLAIN]
    junk = sum(unpack(path, work / path.name if len(packed) > 1 else work) for path in packed)
    for file in files:
        if file.path not in packed:
            shutil.copyfile(file.path, work / file.path.name)
    for inner in [file for file in files_below(work) if file.name in data.inner]:
        junk += unpack(inner, inner.with_name(f"{inner.name} unpacked"))
        inner.unlink()
    return junk


def _record(data: NamedData, files: Sequence[_Local], arranged: Arranged, junk: int) -> Source:
    removed = dict(arranged.removed)
    if junk:
        removed["files that a system left behind (__MACOSX, Thumbs.db, …)"] = junk
    notes = [file.note for file in files if file.note]
    count = sum(arranged.classes.values()) + len(arranged.broken)
    if (count, len(arranged.classes)) != (data.images, data.classes):
        notes.append(
            f"it has {count:,} images of {len(arranged.classes)} classes, published are"
            f" {data.images:,} of {data.classes}"
        )
    return Source(
        name=data.name,
        title=data.title,
        licence=data.licence,
        citation=data.citation,
        page=data.page,
        fetched=datetime.now(UTC).date().isoformat(),
        files=tuple(file.record for file in files),
        classes=arranged.classes,
        parts=arranged.parts,
        removed=removed,
        broken=arranged.broken,
        notes=(*notes, *data.known),
    )


def _not_downloaded(data: NamedData, why: str) -> DataError:
    urls = " and ".join(file.url for file in data.files)
    hint = f"run the same command again, which resumes; or get {urls} elsewhere and"
    hint += f" `regraft data fetch {data.name} --from FILE_OR_FOLDER`"
    return DataError(f"cannot download {data.name}", why=why, hint=hint, code="DATA-DOWNLOAD")


def _wrong_checksum(name: str, path: Path | None, why: str) -> DataError:
    what, hint = f"{name!r:.200} is not the file that was published", "it is not used; get it again"
    return DataError(what, path=path, why=why, hint=hint, code="DATA-CHECKSUM")
