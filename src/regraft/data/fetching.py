"""Bringing a named data set into a folder: downloaded or taken from what is there already."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regraft.data.archives import unpack
from regraft.data.arranging import Arranged, arrange
from regraft.data.dataset import absolute
from regraft.data.layouts import files_below, is_picture
from regraft.data.named import NamedData, RemoteFile, find_data
from regraft.data.provenance import Source, SourceFile, read_source
from regraft.data.scan import is_below
from regraft.download import download, network_refused
from regraft.errors import DataError, DownloadError, RegraftError, UsageError
from regraft.files import atomic_folder, file_sums, free_bytes, home, locked, remove_leftovers

DAY = 24 * 3600.0
_PLAIN = (".mat",)


@dataclass(frozen=True)
class FetchedData:
    """A data set in its folder.

    Args:
        folder: One folder for each class, below those of train, val and test where it is cut.
        source: Where the pictures came from.
        already: Whether it was there before, and nothing was done.
        resumed: How many bytes an earlier, interrupted download had brought.
    """

    folder: Path
    source: Source
    already: bool = False
    resumed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        return {
            "folder": str(self.folder),
            "already": self.already,
            "resumed": self.resumed,
            "pictures": self.source.pictures,
            **self.source.to_json(),
        }


@dataclass(frozen=True)
class _Local:
    """A file of the data set on this machine."""

    path: Path
    record: SourceFile
    note: str = ""
    resumed: int = 0


def fetch_data(
    name: str,
    to: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    seconds: float = DAY,
    verbose: bool = True,
) -> FetchedData:
    """Bring a named data set into a folder, whole or not at all.

    A folder that holds it already is left as it is. An interrupted download is gone on with.

    Args:
        name: One of `regraft.data.named.NAMED`.
        to: The folder; by default the data set's name, in the current folder.
        source: An archive, or a folder with the archives or the unpacked files, to take instead of
            a download; nothing is changed there.
        seconds: How long a download may take.
        verbose: Whether to show progress.

    Raises:
        UsageError: The name is unknown, or ``to`` and ``source`` lie in each other.
        DataError: ``DATA-DOWNLOAD``: it could not be downloaded (without a network in less than
            2 s, saying where it was looked for). ``DATA-CHECKSUM``: a file is not what was
            published. ``DATA-BY-HAND``: its publisher asks for a login. ``DATA-LAYOUT``: the files
            are not laid out as published. ``DATA-CHANGED``: the folder holds it no longer whole.
            ``DATA-SOURCE``: the record in the folder cannot be read. ``DATA-NOT-FOUND``: nothing is
            there to take it from, or not all of it. ``DATA-BUSY``: another process is fetching it.
            ``ARCHIVE-…``: see `regraft.data.archives.unpack`.
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
    given = None if source is None else absolute(source)
    if given is not None:
        _refuse_overlap(folder, given)
        locals_, tree = _given(data, given)
        return _assemble(data, folder, locals_, tree, verbose=verbose)
    _refuse_by_hand(data)
    with _downloads(data, seconds) as store:
        if (there := _already(data, folder)) is not None:  # another process was faster
            return there
        locals_ = _download(data, store, seconds=seconds, verbose=verbose)
        fetched = _assemble(data, folder, locals_, None, verbose=verbose)
        for local in locals_:
            local.path.unlink(missing_ok=True)
    return fetched


def _already(data: NamedData, folder: Path) -> FetchedData | None:
    """Return what stands in the folder if it is the data set; refuse whatever else is there."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return None
    source = read_source(folder) if folder.is_dir() else None
    if source is None or source.name != data.name:
        raise RegraftError(
            "something else is there already",
            path=folder,
            why="no data set that was fetched" if source is None else f"it holds {source.name}",
            hint="name another folder with --to",
            code="FILE-EXISTS",
        )
    count = sum(map(is_picture, files_below(folder)))
    if count != source.pictures:
        raise DataError(
            f"the folder does not hold {data.name} as it was fetched",
            path=folder,
            why=f"{count:,} pictures are there, {source.pictures:,} were fetched",
            hint="delete or rename it and fetch again",
            code="DATA-CHANGED",
        )
    return FetchedData(folder, source, already=True)


def _refuse_overlap(folder: Path, given: Path) -> None:
    if is_below(str(given), str(folder)) or is_below(str(folder), str(given)):
        raise UsageError(
            "the new folder and what it is made from lie in each other",
            path=folder,
            hint="name another folder with --to",
        )


def _refuse_by_hand(data: NamedData) -> None:
    if not data.files:
        raise DataError(
            f"{data.name} cannot be downloaded",
            why="its publisher hands it out only to people with an account",
            hint=f"get it from {data.page} and then `regraft data fetch {data.name} --from"
            " FILE_OR_FOLDER`",
            code="DATA-BY-HAND",
        )


@contextlib.contextmanager
def _downloads(data: NamedData, seconds: float) -> Iterator[Path]:
    """Give the folder of a data set's downloads to one process at a time."""
    store = home() / "downloads" / data.name
    busy = DataError(f"another process is fetching {data.name}", code="DATA-BUSY")
    with locked(store / ".lock", busy=busy, seconds=seconds):
        yield store


def _download(data: NamedData, store: Path, *, seconds: float, verbose: bool) -> list[_Local]:
    missing = [file for file in data.files if not _is_here(file, store / file.name)]
    if missing and (refused := network_refused(missing[0].url)):
        raise _not_downloaded(data, f"looked in {store}: not there; the network: {refused}")
    needed = sum(file.checksums.size for file in missing)
    if needed > (free := free_bytes(store)):
        raise RegraftError(
            "the disk is too small for the download",
            path=store,
            why=f"{needed:,} bytes are to come, {free:,} are free",
            hint="make room, or set REGRAFT_HOME to a folder on another disk",
            code="FILE-WRITE",
        )
    locals_ = []
    for file in data.files:
        path, resumed = store / file.name, 0
        if file in missing:
            try:
                came = download(
                    file.url,
                    path,
                    checksums=file.checksums,
                    resume=True,
                    seconds=seconds,
                    verbose=verbose,
                )
            except DownloadError as error:
                if error.code == "DOWNLOAD-CHECKSUM":
                    raise _wrong_checksum(file.name, None, error.why) from error
                raise _not_downloaded(data, f"{file.name}: {error.why}") from error
            resumed = came.resumed
        locals_.append(_checked(file, path, resumed=resumed))
    return locals_


def _is_here(file: RemoteFile, path: Path) -> bool:
    """Tell whether an earlier call has downloaded a file; what is damaged is deleted."""
    if not path.is_file():
        return False
    problem = file.checksums.problem(path.stat().st_size, *file_sums(path))
    if problem:
        path.unlink()
    return not problem


def _checked(file: RemoteFile, path: Path, *, resumed: int = 0, mine: bool = False) -> _Local:
    """Compare a file here with what is published under its name.

    Args:
        file: What is published.
        path: The file here.
        resumed: How much of it an earlier download brought.
        mine: Whether somebody gave it: one of another size is then another edition, and used.
    """
    known = file.checksums
    size = path.stat().st_size
    sha256, md5 = file_sums(path)
    problem = known.problem(size, sha256, md5)
    if problem and not (mine and known.size and size != known.size):
        raise _wrong_checksum(path.name, path, problem)
    checked = "SHA-256" if known.sha256 else "MD5" if known.md5 else "size" if known.size else ""
    note = f"{path.name} is another edition than the published one: {problem}" if problem else ""
    record = SourceFile(
        name=path.name,
        url="" if problem else file.url,
        size=size,
        sha256=sha256,
        checked="nothing" if problem or not checked else checked,
    )
    return _Local(path, record, note, resumed)


def _given(data: NamedData, given: Path) -> tuple[list[_Local], Path | None]:
    """Return the files of a data set in what somebody gave, or the folder of unpacked files."""
    if not given.exists():
        raise DataError("nothing is there", path=given, code="DATA-NOT-FOUND")
    beside = given if given.is_dir() else given.parent
    published = {file.name: file for file in data.files}
    here = {name: beside / name for name in published if (beside / name).is_file()}
    if given.is_dir():
        if published and len(here) == len(published):
            return [_checked(published[n], path, mine=True) for n, path in here.items()], None
        return [], given
    if len(published) > 1:
        here[data.files[0].name] = given
        if absent := [name for name in published if name not in here]:
            raise DataError(
                f"{data.name} has more files than the one that was given",
                path=beside,
                why=f"not there: {', '.join(absent)}",
                hint="put them beside it; they are at "
                + " and ".join(published[name].url for name in absent),
                code="DATA-NOT-FOUND",
            )
        return [_checked(published[n], path, mine=True) for n, path in here.items()], None
    if given.name in published:
        return [_checked(published[given.name], given, mine=True)], None
    return [_checked(RemoteFile("", name=given.name), given, mine=True)], None


def _assemble(
    data: NamedData, folder: Path, locals_: Sequence[_Local], tree: Path | None, *, verbose: bool
) -> FetchedData:
    """Unpack, arrange and write the record; the folder appears whole or not at all."""
    if folder.is_dir():
        folder.rmdir()  # it is empty, and the whole one takes its place
    remove_leftovers(folder.parent, folder.name)
    with atomic_folder(folder) as part:
        work = part / ".unpacked"
        junk = 0 if tree else _unpack_all(data, locals_, work, verbose=verbose)
        arranged = arrange(data.layout, tree or work, part, move=tree is None)
        shutil.rmtree(work, ignore_errors=tree is not None)
        source = _record(data, locals_, arranged, junk)
        source.write(part)
        if hasattr(os, "sync"):
            os.sync()
    return FetchedData(folder, source, resumed=sum(local.resumed for local in locals_))


def _unpack_all(data: NamedData, locals_: Sequence[_Local], work: Path, *, verbose: bool) -> int:
    """Unpack the archives and those within them; return how many files were junk."""
    packed = [local.path for local in locals_ if local.path.suffix not in _PLAIN]
    junk = sum(
        unpack(path, work / path.name if len(packed) > 1 else work, verbose=verbose).junk
        for path in packed
    )
    for local in locals_:
        if local.path not in packed:
            shutil.copyfile(local.path, work / local.path.name)
    for inner in [file for file in files_below(work) if file.name in data.inner]:
        junk += unpack(inner, inner.with_name(f"{inner.name} unpacked"), verbose=verbose).junk
        inner.unlink()
    return junk


def _record(data: NamedData, locals_: Sequence[_Local], arranged: Arranged, junk: int) -> Source:
    removed = dict(arranged.removed)
    if junk:
        removed["files that a system left behind (__MACOSX, Thumbs.db, …)"] = junk
    notes = [local.note for local in locals_ if local.note]
    count, classes = sum(arranged.classes.values()), len(arranged.classes)
    if (count + len(arranged.broken), classes) != (data.pictures, data.classes):
        notes.append(
            f"it has {count + len(arranged.broken):,} pictures of {classes} classes, published are"
            f" {data.pictures:,} of {data.classes}"
        )
    return Source(
        name=data.name,
        title=data.title,
        licence=data.licence,
        citation=data.citation,
        page=data.page,
        fetched=datetime.now(UTC).date().isoformat(),
        files=tuple(local.record for local in locals_),
        classes=arranged.classes,
        parts=arranged.parts,
        removed=removed,
        broken=arranged.broken,
        notes=(*notes, *data.known),
    )


def _not_downloaded(data: NamedData, why: str) -> DataError:
    urls = " and ".join(file.url for file in data.files)
    return DataError(
        f"cannot download {data.name}",
        why=why,
        hint="run the same command again, which goes on where it was; or get"
        f" {urls} elsewhere and `regraft data fetch {data.name} --from FILE_OR_FOLDER`",
        code="DATA-DOWNLOAD",
    )


def _wrong_checksum(name: str, path: Path | None, why: str) -> DataError:
    return DataError(
        f"{name!r:.200} is not the file that was published",
        path=path,
        why=why,
        hint="it is not used; get it again",
        code="DATA-CHECKSUM",
    )
