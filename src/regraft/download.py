"""Downloads over HTTP: one file at a time, which gets its name whole and right or not at all.

An interrupted download can be resumed: what came is kept beside the file, under a name that tells
which file of the server it is a part of.
"""

from __future__ import annotations

import contextlib
import glob
import http
import http.client
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from regraft.errors import DownloadError
from regraft.files import atomic_path, remove_leftovers, sha256_bytes, sha256_file, short_name
from regraft.system import progress_bar

TOTAL_SECONDS = 3600.0
PAUSE_SECONDS = 1.0
READ_SECONDS = 10.0
_PROBE_SECONDS = 1.0
_BLOCK = 1 << 20
OFFLINE_SWITCHES = ("REGRAFT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TEMPORARY_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Checksums:
    """What is known beforehand of a file; "" and 0 where nothing is.

    Args:
        sha256: The SHA-256 in hexadecimal digits, or its beginning.
        size: Bytes.

    Example:
        >>> Checksums(sha256="397923af").problem(0, sha256_bytes(b"")[:8])
        'its SHA-256 is e3b0c442, published is 397923af'
    """

    sha256: str = ""
    size: int = 0

    def problem(self, size: int, sha256: str) -> str:
        """Say which of them differs for a file, with both values, or ""."""
        if self.size and size != self.size:
            return f"it has {size} bytes, published are {self.size}"
        if not sha256.startswith(self.sha256):
            return f"its SHA-256 is {sha256}, published is {self.sha256}"
        return ""


class _TemporaryError(Exception):
    """A failure that a second attempt may mend; its text is the reason."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a few redirects and never from an encrypted address to an open one."""

    max_redirections = 5

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, url: str
    ) -> Any:
        check_address(url, before=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, url)


def download(
    url: str,
    path: Path,
    *,
    checksums: Checksums = Checksums(),
    resume: bool = False,
    seconds: float = TOTAL_SECONDS,
    verbose: bool = True,
) -> int:
    """Download a file; it gets its name when it is whole and right, or not at all.

    Args:
        url: An ``https`` address.
        path: Where the file shall stand.
        checksums: What is known of the file; what came is compared with it.
        resume: Whether what came stays beside ``path`` when the download is interrupted, and is
            completed the next time, if the server still has the same file. Then only one process
            at a time may download to ``path``: the caller holds a lock.
        seconds: How long the download may take in all, a second attempt included.
        verbose: Whether to show progress.

    Returns:
        How many of its bytes were here from an earlier, interrupted download.

    Raises:
        DownloadError: ``DOWNLOAD``: no answer, an error, a cut file, a web page, no time.
            ``DOWNLOAD-CHECKSUM``: the file is not the one that was published; it was not kept.
        RegraftError: ``FILE-WRITE``: the file cannot be written.
    """
    check_address(url)
    deadline = time.monotonic() + seconds
    if path.parent.is_dir():
        remove_leftovers(path.parent)
    try:
        return _attempt(url, path, checksums, deadline, resume=resume, verbose=verbose)
    except _TemporaryError:
        time.sleep(PAUSE_SECONDS)
    try:
        return _attempt(url, path, checksums, deadline, resume=resume, verbose=verbose)
    except _TemporaryError as error:
        raise failed(path.name, str(error)) from error


def network_refused(url: str) -> str:
    """Say why the network cannot be used for an address, or ""; takes less than two seconds.

    Example:
        >>> os.environ["REGRAFT_OFFLINE"] = "1"
        >>> network_refused("https://example.org")
        'not asked: REGRAFT_OFFLINE is set'
        >>> del os.environ["REGRAFT_OFFLINE"]
    """
    truths = {"1", "on", "yes", "true"}
    switch = next((s for s in OFFLINE_SWITCHES if os.environ.get(s, "").lower() in truths), "")
    return f"not asked: {switch} is set" if switch else unreachable(url)


def hub_address() -> str:
    """Return the address of the Hugging Face hub, or of the one that ``HF_ENDPOINT`` names.

    Example:
        >>> hub_address().startswith("http")
        True
    """
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def unreachable(url: str, *, seconds: float = _PROBE_SECONDS) -> str:
    """Say within ``seconds`` why the host of ``url`` cannot be reached, or "" if it answers.

    Name resolution counts too. Where a proxy is set for the address, the proxy is what must answer.

    Example:
        >>> unreachable("http://127.0.0.1:1")
        '127.0.0.1 does not answer'
    """
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    answers = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError):  # said by the event that stays unset
            socket.create_connection((host, port), timeout=seconds).close()
            answers.set()

    # Name resolution cannot be interrupted; a thread of its own can be left behind.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return "" if answers.is_set() else f"{host} does not answer"


def check_address(url: str, *, before: str = "") -> None:
    """Refuse addresses that are not encrypted; this machine itself is excepted.

    Args:
        url: The address.
        before: The address that redirected to it.

    Raises:
        DownloadError: ``DOWNLOAD``.

    Example:
        >>> check_address("https://example.org/net.pth")
    """
    parts = urlsplit(url)
    local = parts.hostname in _LOOPBACK and urlsplit(before).scheme != "https"
    if parts.scheme == "https" or (parts.scheme == "http" and local):
        return
    begin = "the server redirects to" if before else "this is"
    raise failed(parts.path.rpartition("/")[2], f"{begin} an unencrypted {parts.scheme} address")


def failed(name: str, why: str) -> DownloadError:
    """Return the error of a download that did not succeed, to be raised.

    Example:
        >>> failed("net.pth", "the server answered 404").code
        'DOWNLOAD'
    """
    return DownloadError(f"cannot download {name!r:.200}", why=why, hint="try again later")


def _attempt(
    url: str, path: Path, checksums: Checksums, deadline: float, *, resume: bool, verbose: bool
) -> int:
    with atomic_path(path) as part:  # also says so if nothing can be written there
        begun = next(_partials(path), None) if resume else None
        resumed = begun.stat().st_size if begun else 0
        answer = _open(url, begin=resumed)
        if begun and not (answer and _continues(answer, url, begun, resumed)):
            if answer is not None:
                answer.close()
            begun.unlink()
            resumed, answer = 0, _open(url)
        identity = _identity(url, answer) if resume else ""
        unfinished = _partial(path, identity) if identity else part
        announced = resumed + answer.length if answer.length else checksums.size
        title = f"Downloading {path.name}"
        with answer, progress_bar(title, announced, unit="bytes", visible=verbose) as advance:
            advance(resumed)
            _append(answer, unfinished, path.name, deadline, advance)
        done = unfinished.stat().st_size if unfinished.exists() else 0
        if not done or done != (announced or done):
            raise _TemporaryError(f"the server sent {done} of {announced} bytes")
        sha256 = sha256_file(unfinished)
        unfinished.replace(part)  # what is whole and wrong is not resumed
        if problem := checksums.problem(done, sha256):
            what, hint = f"what was downloaded is not {path.name!r:.200}", "it was not kept"
            raise DownloadError(what, why=problem, hint=hint, code="DOWNLOAD-CHECKSUM")
    for left in _partials(path):
        left.unlink(missing_ok=True)
    return resumed


def _append(
    answer: Any, path: Path, name: str, deadline: float, advance: Callable[[int], None]
) -> None:
    """Add what the server sends to a file; the file is made with the first byte."""
    while True:
        if time.monotonic() > deadline:
            raise failed(name, "it took longer than allowed")
        try:
            block = answer.read1(_BLOCK)  # what is there; read() would wait for a slow server
        except (OSError, http.client.HTTPException) as error:
            raise _TemporaryError("the connection broke") from error
        if not block:
            return
        if not path.exists() and block.lstrip()[:1] == b"<":
            raise failed(name, "the server sent a web page; does this network ask to sign in?")
        with path.open("ab") as stream:
            stream.write(block)
        advance(len(block))


def _open(url: str, *, begin: int = 0) -> Any:
    """Ask for a file from the byte ``begin`` on; None if the server has nothing from there on."""
    opener = urllib.request.build_opener(_Redirects)
    headers = {"User-Agent": "regraft"} | ({"Range": f"bytes={begin}-"} if begin else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - checked
    try:
        return opener.open(request, timeout=READ_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if begin and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        reason = f"the server answered {error.code}"
        if error.code in _TEMPORARY_STATUS:
            raise _TemporaryError(reason) from error
        raise failed(urlsplit(url).path.rpartition("/")[2], reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TemporaryError("the server does not answer") from error


def _continues(answer: Any, url: str, begun: Path, size: int) -> bool:
    """Tell whether an answer is the rest of the file whose first bytes are here."""
    place = answer.headers.get("Content-Range", "")
    same = begun.name.split(".")[-2] == _identity(url, answer)
    return same and place.startswith(f"bytes {size}-")


def _identity(url: str, answer: Any) -> str:
    """Return digits that stay the same as long as the server has the same file; "" if unknown."""
    tag = answer.headers.get("ETag") or ""
    # A weak tag may stand for other bytes of the same meaning.
    validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified")
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.length
    return sha256_bytes(f"{url} {validator} {whole}".encode())[:16] if validator else ""


def _partial(path: Path, identity: str) -> Path:
    return path.with_name(f".{short_name(path.name)}.{identity}.partial")


def _partials(path: Path) -> Iterator[Path]:
    return path.parent.glob(f".{glob.escape(short_name(path.name))}.*.partial")
