"""Unpacking archives that strangers made: whole or not at all, and nothing but plain files.

Rules:

* The kind is read from the content (zip, or tar as it is or packed by gzip, bzip2 or xz), never
  from the name.
* One member that leads out of the folder, is a link, a device or sparse, is encrypted, or has the
  name of another one on some system (``A.jpg`` and ``a.jpg``) refuses the whole archive.
* What comes out is counted while it comes, for headers may lie.
* Owners, modes and times are not taken over; what operating systems leave behind is counted and
  left out.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from regraft.data.scan import is_junk
from regraft.errors import DataError
from regraft.files import atomic_folder, free_bytes
from regraft.progress import progress_bar

_BLOCK = 1 << 20
_TAR_BLOCK = 512
_PACKERS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_DRIVE = re.compile(r"^[A-Za-z]:")
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    RecursionError,
)


@dataclass(frozen=True)
class UnpackLimits:
    """What an archive may become; pictures hardly shrink, so what unpacks a lot is no picture.

    Args:
        members: How many files and folders.
        size: Bytes of all files together.
        ratio: Bytes of all files for each byte of the archive, beyond the first 16 MiB.

    Example:
        >>> UnpackLimits().allowed(1000) == 16 << 20
        True
    """

    members: int = 300_000
    size: int = 64 << 30
    ratio: int = 100

    def allowed(self, packed: int) -> int:
        """Return how many bytes may come out of an archive of ``packed`` bytes."""
        return min(self.size, max(16 << 20, packed * self.ratio))


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    Args:
        files: How many files.
        size: Their bytes.
        junk: How many files that a system left behind were not taken.
    """

    files: int
    size: int
    junk: int


class _Member(NamedTuple):
    """One file of an archive: its name, its size as announced, and what opens it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path, folder: Path, *, limits: UnpackLimits = UnpackLimits(), verbose: bool = False
) -> Unpacked:
    """Unpack an archive into a new folder, which appears whole or not at all.

    Args:
        archive: A zip or tar file.
        folder: Where the files shall stand; it must not exist.
        limits: What the archive may become.
        verbose: Whether to show progress.

    Raises:
        DataError: ``ARCHIVE-DAMAGED``: cut off, changed or of no known kind. ``ARCHIVE-ENCRYPTED``:
            it asks for a password. ``ARCHIVE-UNSAFE``: a member that must not be written, which is
            named. ``ARCHIVE-TOO-LARGE``: beyond the limits or the disk.
        RegraftError: The folder is there already (``FILE-EXISTS``) or cannot be written.
    """
    try:
        with archive.open("rb") as stream, atomic_folder(folder) as part:
            unpacked = _unpack(archive, stream, part, limits, verbose=verbose)
            if hasattr(os, "sync"):  # one flush for all; flushing file by file takes minutes
                os.sync()
            return unpacked
    except FileNotFoundError as error:
        raise DataError("archive not found", path=archive, code="DATA-NOT-FOUND") from error
    except OSError as error:
        raise DataError(
            "cannot read the archive",
            path=archive,
            why=error.strerror or "",
            code="DATA-UNREADABLE",
        ) from error
    except NotImplementedError as error:
        raise _damaged(archive, f"it is packed in a way that is not understood: {error}") from error
    except _DAMAGE as error:
        raise _damaged(archive, str(error)[:200] or type(error).__name__) from error


def _unpack(
    archive: Path, stream: IO[bytes], part: Path, limits: UnpackLimits, *, verbose: bool
) -> Unpacked:
    packed = archive.stat().st_size
    free, allowed = free_bytes(part), limits.allowed(packed)
    if free < packed:
        raise _too_large(archive, f"only {free:,} bytes are free on that disk")
    start = stream.read(_TAR_BLOCK)
    stream.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members = _zip_members(archive, stream, packed, min(allowed, free))
    else:
        members = _tar_members(archive, stream, start, allowed, limits)
    names = _Names(archive)
    files = size = junk = 0
    with progress_bar(
        f"Unpacking {archive.name}", packed, unit="bytes", visible=verbose
    ) as advance:
        shown = 0
        for count, member in enumerate(members):
            if count >= limits.members:
                raise _too_large(archive, f"it has more than {limits.members:,} members")
            place = names.place(member.name)
            if any(is_junk(name) for name in place):
                junk += 1
                continue
            size += _write(archive, member, part.joinpath(*place), allowed - size)
            files += 1
            advance(max(0, stream.tell() - shown))
            shown = max(shown, stream.tell())
    return Unpacked(files, size, junk)


def _write(archive: Path, member: _Member, target: Path, allowed: int) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with member.open() as source, target.open("xb") as file:
        while block := _read(archive, source, _BLOCK):
            done += len(block)
            if done > allowed:
                raise _too_large(archive, "its files together are far larger than itself")
            file.write(block)
    if done != member.size:
        raise _damaged(archive, f"{member.name!a:.200} ends after {done} of {member.size} bytes")
    return done


def _read(archive: Path, source: IO[bytes], size: int) -> bytes:
    """Read, and tell what cannot be read from what cannot be written."""
    try:
        return source.read(size)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(archive, str(error)[:200]) from error


class _Names:
    """The names given so far, refused where two would be one file on some system."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._written: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._files: set[tuple[str, ...]] = set()
        self._folders: set[tuple[str, ...]] = set()

    def place(self, name: str) -> tuple[str, ...]:
        """Return a member's folders and file name, once it is known to stay inside."""
        if "\\" in name or "\0" in name or name.startswith("/"):
            raise _unsafe(self._archive, name, "its name leads out of the folder")
        place = tuple(part for part in name.split("/") if part not in {"", "."})
        if not place or ".." in place or any(map(_DRIVE.match, place)):
            raise _unsafe(self._archive, name, "its name leads out of the folder")
        for length in range(1, len(place) + 1):
            written = place[:length]
            key = tuple(map(_same_everywhere, written))
            if self._written.setdefault(key, written) != written:
                raise _unsafe(
                    self._archive, name, "another name differs only by case or Unicode form"
                )
            if key in self._files or (length == len(place) and key in self._folders):
                raise _unsafe(self._archive, name, "its name stands there twice")
            (self._files if length == len(place) else self._folders).add(key)
        return place


def _same_everywhere(name: str) -> str:
    """Return what two names have in common if some file system takes them for one."""
    return unicodedata.normalize("NFC", name).casefold().rstrip(" .")


def _zip_members(archive: Path, stream: IO[bytes], packed: int, allowed: int) -> Iterator[_Member]:
    with zipfile.ZipFile(stream) as file:
        members = file.infolist()
        if sum(info.compress_size for info in members) > packed:
            raise _damaged(archive, "its members overlap")
        announced = sum(info.file_size for info in members)
        if announced > allowed:
            why = f"{announced:,} bytes would come out of {packed:,}, allowed here are {allowed:,}"
            raise _too_large(archive, why)
        for info in members:
            if info.flag_bits & 1:
                raise _encrypted(archive)
            if "\0" in info.orig_filename:  # zipfile shows the part before it only
                raise _unsafe(archive, info.orig_filename, "its name is none")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _unsafe(archive, info.filename, "it is a link or a device")
            if not info.is_dir():
                yield _Member(info.filename, info.file_size, _opener(file, info))


def _opener(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: file.open(info)


def _tar_members(
    archive: Path, stream: IO[bytes], start: bytes, allowed: int, limits: UnpackLimits
) -> Iterator[_Member]:
    opened = next((opener for magic, opener in _PACKERS if start.startswith(magic)), None)
    # A header block and its padding come with each member, and two empty blocks at the end.
    most = allowed + 4 * _TAR_BLOCK * (limits.members + 1)
    bounded = _Bounded(archive, stream if opened is None else opened(stream), most)
    with tarfile.open(fileobj=bounded, mode="r:") as file:
        while (info := file.next()) is not None:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise _unsafe(archive, info.name, "it is a link, a device or no plain file")
            yield _Member(info.name, info.size, _tar_opener(file, info))
        bounded.seek(file.offset)
        end = bounded.read(_TAR_BLOCK)
        if len(end) < _TAR_BLOCK or end.strip(b"\0"):  # tarfile takes damage for the end
            raise _damaged(archive, "it ends without a tar's end mark")
        while bounded.read(_BLOCK):  # to the end, where the packers keep their checksums
            pass


def _tar_opener(file: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opener() -> IO[bytes]:
        opened = file.extractfile(info)
        assert opened is not None
        return opened

    return opener


class _Bounded(io.RawIOBase):
    """A stream that ends with an error where an archive would become too large.

    It also bounds how much is read at once: tar keeps long names in blocks that may claim any size.
    """

    def __init__(self, archive: Path, stream: IO[bytes], most: int) -> None:
        self._archive = archive
        self._stream = stream
        self._most = most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 16 * _BLOCK:
            raise _too_large(self._archive, "one of its headers claims to be larger than 16 MiB")
        block = _read(self._archive, self._stream, size)
        if self._stream.tell() > self._most:
            raise _too_large(self._archive, "its files together are far larger than itself")
        return block

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if position > self._most:
            raise _too_large(self._archive, "its files together are far larger than itself")
        try:
            return self._stream.seek(position, whence)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise _damaged(self._archive, str(error)[:200]) from error

    def tell(self) -> int:
        return self._stream.tell()


def _damaged(archive: Path, why: str) -> DataError:
    return DataError(
        "not a whole zip or tar archive",
        path=archive,
        why=why,
        hint="get it again",
        code="ARCHIVE-DAMAGED",
    )


def _encrypted(archive: Path) -> DataError:
    return DataError(
        "the archive asks for a password",
        path=archive,
        hint="unpack it yourself and give the folder",
        code="ARCHIVE-ENCRYPTED",
    )


def _unsafe(archive: Path, name: str, why: str) -> DataError:
    return DataError(
        f"the archive holds {name!a:.200}, which is not written",
        path=archive,
        why=why,
        hint="nothing was unpacked; get the archive from its publisher",
        code="ARCHIVE-UNSAFE",
    )


def _too_large(archive: Path, why: str) -> DataError:
    return DataError(
        "the archive is too large to unpack",
        path=archive,
        why=why,
        hint="nothing was unpacked; make room, or unpack it yourself and give the folder",
        code="ARCHIVE-TOO-LARGE",
    )
