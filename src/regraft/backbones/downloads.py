"""Downloading one file over HTTP so that only the whole and right file ever gets its name."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from regraft.errors import ModelError, WeightsError
from regraft.files import atomic_path, remove_leftovers, sha256_file
from regraft.progress import progress_bar

PROBE_SECONDS = 1.0
READ_SECONDS = 10.0
TOTAL_SECONDS = 3600.0
PAUSE_SECONDS = 1.0
_ATTEMPTS = 2
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_BLOCK = 1 << 20
# torch hub's convention: the first digits of a file's SHA-256 stand at the end of its name
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[A-Za-z0-9]+$")


class _PassingError(Exception):
    """A failure that a second attempt may mend; its text is one reason for the reader."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a few redirects and never from an encrypted address to an open one."""

    max_redirections = 5
    max_repeats = 2

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_address(newurl, before=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def hash_in_name(name: str) -> str:
    """Return the digits of the SHA-256 that a file's name carries, or "".

    Example:
        >>> hash_in_name("vgg16-397923af.pth")
        '397923af'
    """
    match = _HASH_IN_NAME.search(name)
    return match.group(1) if match else ""


def check_address(url: str, *, before: str = "") -> None:
    """Refuse addresses that are not encrypted; this machine itself is excepted.

    Args:
        url: The address.
        before: The address that redirected to it.

    Raises:
        WeightsError: ``WEIGHTS-DOWNLOAD``.

    Example:
        >>> check_address("https://example.org/net.pth")
    """
    parts = urlsplit(url)
    local = parts.hostname in _LOOPBACK and urlsplit(before).scheme != "https"
    if parts.scheme == "https" or (parts.scheme == "http" and local):
        return
    begin = "the server redirects to" if before else "this is"
    raise failed(parts.path.rpartition("/")[2], f"{begin} an unencrypted {parts.scheme} address")


def failed(name: str, why: str) -> WeightsError:
    """Return the error of a download that did not succeed, to be raised.

    Example:
        >>> failed("net.pth", "the server answered 404").code
        'WEIGHTS-DOWNLOAD'
    """
    return WeightsError(
        f"cannot download {name!r:.200}",
        why=why,
        hint="try again later, or get the file another way and `regraft weights import FILE`",
        code="WEIGHTS-DOWNLOAD",
    )


def unreachable(url: str, *, seconds: float = PROBE_SECONDS) -> str:
    """Say within ``seconds`` why the host of ``url`` cannot be reached, or "" if it answers.

    Name resolution counts too. Where a proxy is set for the address, the proxy is what must answer.

    Args:
        url: An ``http`` or ``https`` address.
        seconds: How long to wait in all.

    Example:
        >>> unreachable("http://127.0.0.1:1")
        '127.0.0.1 does not answer'
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
        host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    answers = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            answers.set()
        except OSError:
            pass  # said by the event that stays unset

    # Name resolution cannot be interrupted; a thread of its own can be left behind.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return "" if answers.is_set() else f"{host} does not answer"


def download(url: str, path: Path, *, seconds: float = TOTAL_SECONDS, verbose: bool = True) -> Path:
    """Download a file; it gets its name when it is whole and right, or not at all.

    Args:
        url: An ``https`` address. If its file name carries the start of a SHA-256, that is checked.
        path: Where the file shall stand.
        seconds: How long the download may take in all, a second attempt included.
        verbose: Whether to show progress.

    Returns:
        ``path``.

    Raises:
        WeightsError: ``WEIGHTS-DOWNLOAD``: no answer, an error, a cut file, a web page, no time.
        ModelError: ``MODEL-CHECKSUM``: the file is not the one that was published.
        RegraftError: ``FILE-WRITE``: the file cannot be written.
    """
    check_address(url)
    deadline = time.monotonic() + seconds
    if path.parent.is_dir():
        remove_leftovers(path.parent)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _attempt(url, path, deadline, verbose=verbose)
        except _PassingError as error:
            if attempt == _ATTEMPTS:
                raise failed(path.name, str(error)) from error
        time.sleep(PAUSE_SECONDS)
    raise AssertionError  # the loop returns or raises


def _attempt(url: str, path: Path, deadline: float, *, verbose: bool) -> Path:
    with _opened(url) as answer, atomic_path(path) as part:
        length = answer.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else 0
        digest = hashlib.sha256()
        done = 0
        with (
            part.open("wb") as stream,
            progress_bar(
                f"Downloading {path.name}", total, unit="bytes", visible=verbose
            ) as advance,
        ):
            for block in _blocks(answer, path.name, deadline):
                stream.write(block)
                digest.update(block)
                advance(len(block))
                done += len(block)
        if done == 0 or (total and done != total):
            raise _PassingError(f"the server sent {done} of {total} bytes")
        _check_published(path.name, digest.hexdigest())
    return path


def _opened(url: str) -> Any:
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(url, headers={"User-Agent": "regraft"})  # noqa: S310 - checked
    name = urlsplit(url).path.rpartition("/")[2]
    try:
        return opener.open(request, timeout=READ_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        loop = "; it redirects in a loop" if 300 <= error.code < 400 else ""
        reason = f"the server answered {error.code}{loop}"
        if error.code in _PASSING_STATUS:
            raise _PassingError(reason) from error
        raise failed(name, reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError("the server does not answer") from error


def _blocks(answer: Any, name: str, deadline: float) -> Iterator[bytes]:
    first = True
    while True:
        if time.monotonic() > deadline:
            raise failed(name, "it took longer than allowed")
        try:
            block = answer.read1(_BLOCK)  # what is there; read() would wait for a slow server
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError("the connection broke") from error
        if not block:
            return
        if first and block.lstrip()[:1] == b"<":
            raise failed(name, "the server sent a web page; does this network ask to sign in?")
        first = False
        yield block


def _check_published(name: str, found: str) -> None:
    expected = hash_in_name(name)
    if not found.startswith(expected):
        raise ModelError(
            f"what was downloaded is not {name!r:.200}",
            why=f"SHA-256 begins with {found[:8]}, its name says {expected}",
            hint="the file was not kept; try again later",
            code="MODEL-CHECKSUM",
        )


def is_published(path: Path) -> bool:
    """Return whether a file has the SHA-256 that its name carries; True if it carries none.

    Raises:
        OSError: The file cannot be read.
    """
    expected = hash_in_name(path.name)
    return not expected or sha256_file(path).startswith(expected)
