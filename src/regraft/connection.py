"""Whether and how a server may be asked: offline switches, safe addresses, quick refusals."""

from __future__ import annotations

import http
import http.client
import os
import socket
import threading
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

from regraft.errors import DownloadError

PROBE_SECONDS = 1.0
READ_SECONDS = 10.0
OFFLINE_SWITCHES = ("REGRAFT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class PassingError(Exception):
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


def offline() -> str:
    """Return the name of the environment variable that forbids the network, or "".

    Example:
        >>> os.environ["REGRAFT_OFFLINE"] = "1"
        >>> offline()
        'REGRAFT_OFFLINE'
        >>> del os.environ["REGRAFT_OFFLINE"]
    """
    truths = {"1", "on", "yes", "true"}
    return next((s for s in OFFLINE_SWITCHES if os.environ.get(s, "").lower() in truths), "")


def network_refused(url: str) -> str:
    """Say why the network cannot be used for an address, or ""; takes less than two seconds.

    Example:
        >>> os.environ["REGRAFT_OFFLINE"] = "1"
        >>> network_refused("https://example.org")
        'not asked: REGRAFT_OFFLINE is set'
        >>> del os.environ["REGRAFT_OFFLINE"]
    """
    if switch := offline():
        return f"not asked: {switch} is set"
    return unreachable(url)


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


def open_address(url: str, *, begin: int = 0) -> Any:
    """Ask for a file, from one of its bytes on.

    Args:
        url: An address that `check_address` lets pass.
        begin: The first byte that is wanted.

    Returns:
        The server's answer, to be closed; None if it has nothing from that byte on.

    Raises:
        PassingError: A second attempt may help.
        DownloadError: It would not.
    """
    opener = urllib.request.build_opener(_Redirects)
    headers = {"User-Agent": "regraft"} | ({"Range": f"bytes={begin}-"} if begin else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - checked
    name = urlsplit(url).path.rpartition("/")[2]
    try:
        return opener.open(request, timeout=READ_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if begin and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        loop = "; it redirects in a loop" if 300 <= error.code < 400 else ""
        reason = f"the server answered {error.code}{loop}"
        if error.code in _PASSING_STATUS:
            raise PassingError(reason) from error
        raise failed(name, reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise PassingError("the server does not answer") from error
