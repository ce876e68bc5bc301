"""Downloading one file over HTTP so that only the whole and right file ever gets its name.

A download that was asked to can go on where it was interrupted: what came so far is kept beside the
file, under a name that says which file on the server it is a part of.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import http
import http.client
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.connection import PassingError, check_address, failed, open_address
from regraft.errors import DownloadError
from regraft.files import (
    atomic_path,
    is_abandoned,
    remove_leftovers,
    sha256_bytes,
    short_name,
    unfinished_mark,
)
from regraft.progress import progress_bar

TOTAL_SECONDS = 3600.0
PAUSE_SECONDS = 1.0
_ATTEMPTS = 2
_BLOCK = 1 << 20
_NOT_RESUMABLE = "none"
_NOBODY = "free"


class _Sums:
    """The checksums of what has come so far."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def add(self, block: bytes) -> None:
        self.sha256.update(block)
        self.md5.update(block)


@dataclass(frozen=True)
class Checksums:
    """What is known beforehand of a file; "" and 0 where nothing is.

    Args:
        sha256: The SHA-256 in hexadecimal digits, or its beginning.
        md5: The MD5; it tells a damaged file from a whole one, not a forged one.
        size: Bytes.

    Example:
        >>> Checksums(sha256="397923af").problem(0, sha256_bytes(b"")[:8], "")
        'its SHA-256 is e3b0c442, published is 397923af'
    """

    sha256: str = ""
    md5: str = ""
    size: int = 0

    def problem(self, size: int, sha256: str, md5: str) -> str:
        """Say which of them is another one for a file, with both, or ""."""
        if self.size and size != self.size:
            return f"it has {size} bytes, published are {self.size}"
        if not sha256.startswith(self.sha256):
            return f"its SHA-256 is {sha256}, published is {self.sha256}"
        if self.md5 and md5 != self.md5:
            return f"its MD5 is {md5}, published is {self.md5}"
        return ""


@dataclass(frozen=True)
class Downloaded:
    """A file that came whole.

    Args:
        path: The file.
        sha256: SHA-256 of its content.
        resumed: How many of its bytes were here from an earlier, interrupted download.
    """

    path: Path
    sha256: str
    resumed: int = 0


def download(
    url: str,
    path: Path,
    *,
    checksums: Checksums = Checksums(),
    resume: bool = False,
    seconds: float = TOTAL_SECONDS,
    verbose: bool = True,
) -> Downloaded:
    """Download a file; it gets its name when it is whole and right, or not at all.

    Args:
        url: An ``https`` address.
        path: Where the file shall stand.
        checksums: What is known of the file; what came is compared with it.
        resume: Whether what came stays beside ``path`` when the download is interrupted, and is
            gone on with the next time, if the server still has the same file.
        seconds: How long the download may take in all, a second attempt included.
        verbose: Whether to show progress.

    Raises:
        DownloadError: ``DOWNLOAD``: no answer, an error, a cut file, a web page, no time.
            ``DOWNLOAD-CHECKSUM``: the file is not the one that was published; it was not kept.
        RegraftError: ``FILE-WRITE``: the file cannot be written.
    """
    check_address(url)
    deadline = time.monotonic() + seconds
    if path.parent.is_dir():
        remove_leftovers(path.parent)
        if not resume:
            _remove_partials(path)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _attempt(url, path, checksums, deadline, resume=resume, verbose=verbose)
        except PassingError as error:
            if attempt == _ATTEMPTS:
                raise failed(path.name, str(error)) from error
        time.sleep(PAUSE_SECONDS)
    raise AssertionError  # the loop returns or raises


def _attempt(
    url: str, path: Path, checksums: Checksums, deadline: float, *, resume: bool, verbose: bool
) -> Downloaded:
    with atomic_path(path) as whole:  # also says so if nothing can be written there
        begun = _take_partial(path) if resume else None
        try:
            answer, part = _ask(url, path, begun, checked=bool(checksums.sha256 or checksums.md5))
        except BaseException:
            if begun is not None:  # nobody answered; it serves the next attempt
                with contextlib.suppress(OSError):
                    _release(begun)
            raise
        resumable = resume and _identity_in(part) != _NOT_RESUMABLE
        try:
            with answer:
                resumed, sums = _receive(answer, part, path.name, deadline, verbose=verbose)
            done = part.stat().st_size
            announced = resumed + _length(answer) if _length(answer) else checksums.size
            if done == 0 or (announced and done != announced):
                raise PassingError(f"the server sent {done} of {announced} bytes")
            resumable = False  # what is whole and wrong must not be gone on with
            _check(path.name, done, sums, checksums)
            part.replace(whole)
        finally:
            with contextlib.suppress(OSError):  # must not hide what went wrong before
                _release(part) if resumable else part.unlink(missing_ok=True)
    _remove_partials(path)
    return Downloaded(path, sums.sha256.hexdigest(), resumed)


def _receive(
    answer: Any, part: Path, name: str, deadline: float, *, verbose: bool
) -> tuple[int, _Sums]:
    """Append what comes to what is there; return how much was there, and the sums of all."""
    sums = _Sums()
    with part.open("rb") as begun:
        while block := begun.read(_BLOCK):
            sums.add(block)
    with part.open("ab") as stream:
        resumed = stream.tell()
        length = _length(answer)
        with progress_bar(
            f"Downloading {name}", resumed + length if length else 0, unit="bytes", visible=verbose
        ) as advance:
            advance(resumed)
            for block in _blocks(answer, name, deadline, at_start=not resumed):
                stream.write(block)
                sums.add(block)
                advance(len(block))
    return resumed, sums


def _ask(url: str, path: Path, begun: Path | None, *, checked: bool) -> tuple[Any, Path]:
    """Ask for the rest of what has begun if it is of the same file, else for all of it.

    Args:
        url: The address.
        path: Where the file shall stand.
        begun: What came of it in an earlier download, if anything did.
        checked: Whether the whole file will be compared with a published checksum.

    Returns:
        The server's answer, and the file that its body belongs to the end of.
    """
    answer = None
    if begun is not None:
        size = begun.stat().st_size
        answer = open_address(url, begin=size)
        if answer is not None and _is_rest(answer, size):
            if _identity(url, answer, checked=checked) == _identity_in(begun):
                return answer, begun
            answer.close()
            answer = None
        begun.unlink()
    if answer is None:
        answer = open_address(url)
    part = _partial_name(path, _identity(url, answer, checked=checked))
    part.touch()
    return answer, part


def _blocks(answer: Any, name: str, deadline: float, *, at_start: bool) -> Iterator[bytes]:
    while True:
        if time.monotonic() > deadline:
            raise failed(name, "it took longer than allowed")
        try:
            block = answer.read1(_BLOCK)  # what is there; read() would wait for a slow server
        except (OSError, http.client.HTTPException) as error:
            raise PassingError("the connection broke") from error
        if not block:
            return
        if at_start and block.lstrip()[:1] == b"<":
            raise failed(name, "the server sent a web page; does this network ask to sign in?")
        at_start = False
        yield block


def _check(name: str, size: int, sums: _Sums, checksums: Checksums) -> None:
    problem = checksums.problem(size, sums.sha256.hexdigest(), sums.md5.hexdigest())
    if problem:
        raise DownloadError(
            f"what was downloaded is not {name!r:.200}",
            why=problem,
            hint="the file was not kept; try again later",
            code="DOWNLOAD-CHECKSUM",
        )


def _length(answer: Any) -> int:
    length = answer.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else 0


def _is_rest(answer: Any, begin: int) -> bool:
    place: str = answer.headers.get("Content-Range", "")
    return answer.status == http.HTTPStatus.PARTIAL_CONTENT and place.startswith(f"bytes {begin}-")


def _identity(url: str, answer: Any, *, checked: bool) -> str:
    """Return digits that are the same as long as the server has the same file at the address."""
    tag = answer.headers.get("ETag") or ""
    # A weak tag may stand for other bytes of the same meaning.
    validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified") or ""
    if not validator and not checked:
        return _NOT_RESUMABLE
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2] or str(_length(answer))
    return sha256_bytes(f"{url} {validator} {whole}".encode())[:16]


def _partial_name(path: Path, identity: str) -> Path:
    """Return a name that nobody else uses: as long as this process runs, the file is its own."""
    return path.with_name(f".{short_name(path.name)}.{identity}.{unfinished_mark()}.partial")


def _identity_in(partial: Path) -> str:
    return partial.name.split(".")[-3]


def _partials(path: Path) -> list[Path]:
    """Return what other downloads of a file have left and nobody is working on."""
    found = []
    for partial in path.parent.glob(f".{glob.escape(short_name(path.name))}.*.*.partial"):
        owner = partial.name.split(".")[-2]
        if owner.startswith(f"{_NOBODY}-") or is_abandoned(partial, owner):
            found.append(partial)
    return found


def _take_partial(path: Path) -> Path | None:
    """Take over the largest partial file; a renaming succeeds for one process only."""
    sizes = {}
    for partial in _partials(path):
        with contextlib.suppress(FileNotFoundError):
            sizes[partial] = partial.stat().st_size
    for partial in sorted(sizes, key=sizes.__getitem__, reverse=True):
        mine = _partial_name(path, _identity_in(partial))
        with contextlib.suppress(FileNotFoundError):
            return partial.rename(mine) if sizes[partial] else None
    return None


def _release(partial: Path) -> None:
    """Leave a partial file to whoever goes on with it."""
    start = partial.name.rsplit(".", 2)[0]
    partial.replace(partial.with_name(f"{start}.{_NOBODY}-{secrets.token_hex(4)}.partial"))


def _remove_partials(path: Path) -> None:
    for partial in _partials(path):
        partial.unlink(missing_ok=True)
