"""What stands in front of a server: who may ask, how much may be sent, and how long it may take.

Other machines and web pages are kept out by address, origin and token before a byte of a body is
read. A body is read whole, within limits of bytes and time, before anybody looks into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regraft.errors import RegraftError, RequestError, UsageError
from regraft.settings import settings_class
from regraft.system import threads

STATUS = {
    "REQUEST-INVALID": 400,
    "REQUEST-TOKEN": 401,
    "REQUEST-HOST": 403,
    "REQUEST-ORIGIN": 403,
    "REQUEST-PATH": 404,
    "REQUEST-METHOD": 405,
    "REQUEST-SLOW": 408,
    "REQUEST-TOO-LARGE": 413,
    "REQUEST-TYPE": 415,
    "REQUEST-VALUE": 422,
    "SERVER-BUSY": 503,
    "SERVER-MODEL": 503,
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # what is answered without a token
_SHORTEST = 16  # characters of a token
_AT_ONCE = 8  # bodies of the largest size that are held at the same time
_LINGER = 1.0  # seconds in which the rest of a refused body is thrown away
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@settings_class(kw_only=True)
class ServeSettings:
    """How a model is served.

    Args:
        host: The address it listens at; others than this machine's own need a token.
        port: The port it listens at; 0 for any that is free.
        token: What clients must bear; None for none.
        allow_host: Further names under which clients reach it.
        max_bytes: How many bytes a request may have.
        max_images: How many images a request may have.
        max_seconds: How long sending a request may take.
        batch: How many images are answered by one call of the model.
        workers: How many calls there are at a time; by default two for each processor.
        room: How many images may wait.

    Raises:
        UsageError: Other machines could reach it, and there is no token, or one that can be guessed
            or not be sent (``USAGE-TOKEN``).

    Example:
        >>> ServeSettings(host="0.0.0.0")
        Traceback (most recent call last):
        regraft.errors.UsageError: without a token only this machine is served - 0.0.0.0 is \
reached by others - put a token into REGRAFT_TOKEN or a --token-file
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    token: str | None = field(default=None, repr=False)
    allow_host: tuple[str, ...] = ()
    max_bytes: Annotated[int, Field(gt=0)] = 32 << 20
    max_images: Annotated[int, Field(gt=0)] = 64
    max_seconds: Annotated[float, Field(gt=0)] = 30.0
    batch: Annotated[int, Field(gt=0)] = 2
    workers: Annotated[int, Field(gt=0)] = field(default_factory=lambda: 2 * threads())
    room: Annotated[int, Field(gt=0)] = 128

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and not (len(token) >= _SHORTEST and re.fullmatch("[!-~]+", token)):
            what = "the token cannot be used"
            why = f"it is {_SHORTEST} characters of ASCII or more, and no blank is among them"
            hint = "draw one: openssl rand -hex 32"
            raise UsageError(what, why=why, hint=hint, code="USAGE-TOKEN")
        if not is_loopback(self.host) and self.token is None:
            what, why = "without a token only this machine is served", "is reached by others"
            hint = "put a token into REGRAFT_TOKEN or a --token-file"
            raise UsageError(what, why=f"{self.host} {why}", hint=hint, code="USAGE-TOKEN")

    @property
    def hosts(self) -> frozenset[str]:
        """The names under which clients may reach it."""
        return frozenset(map(str.lower, (*LOOPBACK, self.host, *self.allow_host)))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.2"), is_loopback("::"), is_loopback("example.org")
        (True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def problem_of(error: RegraftError, path: str) -> tuple[int, dict[str, str]]:
    """Return the status of a refusal and what is told; the inference protocol has its own key."""
    told = {"code": error.code, "message": str(error)}
    return STATUS.get(error.code, 422), told | (
        {"error": str(error)} if path.startswith("/v2") else {}
    )


def headers_of(status: int) -> dict[str, str]:
    """Return the headers that belong to the status of a refusal."""
    more = {401: ("WWW-Authenticate", "Bearer"), 503: ("Retry-After", "1")}
    return dict([more[status]]) if status in more else {}


class Guard:
    """Lets only those requests through to ``app`` that are whole, small and from whom they may be.

    Args:
        app: What answers.
        settings: What is let through.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self._held = 0  # bytes of bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = _Sent(receive)
        try:
            headers = Headers(scope=scope)
            self._refuse_strangers(scope["path"], headers)
            await self._read(headers, sent)
            await _Replayed(bytes(sent.body), receive, send).run(self.app, scope)
        except RequestError as error:
            await sent.drain()
            await _refuse(send, error, scope["path"])
        except _LeftError:
            pass
        finally:
            self._held -= len(sent.body)

    def _refuse_strangers(self, path: str, headers: Headers) -> None:
        own, origin = headers.get("host", ""), headers.get("origin")
        if _name(own) not in self.settings.hosts:
            what, hint = "this server does not go by that name", "start it with --allow-host NAME"
            raise RequestError(what, hint=hint, code="REQUEST-HOST")
        foreign = origin is not None and urlsplit(origin).netloc != own
        if foreign or headers.get("sec-fetch-site") == "cross-site":
            raise RequestError("no other page may ask this server", code="REQUEST-ORIGIN")
        token = self.settings.token
        if token is not None and path not in OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.encode(), token.encode())
            if not same or scheme.lower() != "bearer":
                hint = "send it as Authorization: Bearer TOKEN"
                raise RequestError("the token is missing or wrong", hint=hint, code="REQUEST-TOKEN")

    async def _read(self, headers: Headers, sent: _Sent) -> None:
        """Read the whole body, within the limits."""
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise RequestError("Content-Length is no number of bytes")
        self._refuse_large(int(declared[:20]))
        try:
            async with asyncio.timeout(self.settings.max_seconds):
                while not sent.ended:
                    chunk = await sent.next()
                    self._refuse_large(len(sent.body) + len(chunk))
                    if self._held + len(chunk) > _AT_ONCE * self.settings.max_bytes:
                        what, why = "the server is busy", "other requests fill the memory"
                        raise RequestError(what, why=why, code="SERVER-BUSY")
                    self._held += len(chunk)
                    sent.body += chunk
        except TimeoutError:
            why = f"it took longer than {self.settings.max_seconds:g} s to arrive"
            raise RequestError("the request is too slow", why=why, code="REQUEST-SLOW") from None

    def _refuse_large(self, size: int) -> None:
        most = self.settings.max_bytes
        if size > most:
            why, hint = f"it has more than {most:,} bytes", "send fewer or smaller images"
            what, code = "the request is too large", "REQUEST-TOO-LARGE"
            raise RequestError(what, why=why, hint=hint, code=code)


class _Sent:
    """What a client has sent so far."""

    def __init__(self, receive: Receive) -> None:
        self.body = bytearray()
        self.ended = False
        self._receive = receive

    async def next(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            self.ended = True
            raise _LeftError
        self.ended = not message.get("more_body", False)
        return message.get("body", b"")  # type: ignore[no-any-return]

    async def drain(self) -> None:
        """Throw away what still comes: a client that is cut off while it sends reads no answer."""
        with contextlib.suppress(TimeoutError, _LeftError):
            async with asyncio.timeout(_LINGER):
                while not self.ended:
                    await self.next()


class _LeftError(Exception):
    """The client has left."""


class _Replayed:
    """A request whose body is here; what works on it is stopped when the client leaves."""

    def __init__(self, body: bytes, receive: Receive, send: Send) -> None:
        self._body: bytes | None = body
        self._receive, self._send = receive, send
        self._answered = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        work = asyncio.ensure_future(app(scope, self.receive, self.send))
        gone = asyncio.ensure_future(self._disconnected())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not self._answered.is_set():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            work.cancel()
            gone.cancel()

    async def receive(self) -> Message:
        if self._body is None:
            await self._answered.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._answered.set()
            message["headers"] = [*message["headers"], *_encoded(_HEADERS, message["headers"])]
        await self._send(message)

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _name(host: str) -> str:
    """Return the name in a Host header without its port, "" where it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _encoded(values: Mapping[str, str], present: Any = ()) -> list[tuple[bytes, bytes]]:
    names = {name.lower() for name, _ in present}
    pairs = ((name.lower().encode(), value.encode()) for name, value in values.items())
    return [pair for pair in pairs if pair[0] not in names]


async def _refuse(send: Send, error: RequestError, path: str) -> None:
    status, told = problem_of(error, path)
    data = json.dumps(told).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
    headers |= {"Connection": "close", **headers_of(status), **_HEADERS}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": data})
