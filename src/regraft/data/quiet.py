"""What image libraries do to the whole process, held back while pictures are decoded.

Pillow's warnings and its own limit of pixels, and the lines that libtiff prints.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

from PIL import Image

_FROM_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)
_lock = threading.Lock()
_inside = 0
_allowing = 0
_pixels_before: int | None = None
_silencing = threading.Lock()


@contextlib.contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Ignore warnings raised inside Pillow, also when many threads decode at the same time.

    ``warnings.catch_warnings`` swaps the filters of the whole process, so two threads that overlap
    undo each other; here the first thread adds one filter and the last one takes it away.

    Example:
        >>> with pillow_warnings_ignored():
        ...     pass
    """
    global _inside  # noqa: PLW0603 - the filters are one list for the whole process, so is the count
    with _lock:
        if _inside == 0:
            # warnings.filterwarnings would make every module forget which warnings it showed.
            _filters().insert(0, _FROM_PILLOW)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                with contextlib.suppress(
                    ValueError
                ):  # somebody else may have put the old list back
                    _filters().remove(_FROM_PILLOW)


@contextlib.contextmanager
def pillow_allows(pixels: int) -> Iterator[None]:
    """Let Pillow open pictures of up to ``pixels``, also when many threads decode at the same time.

    Pillow refuses what it takes for an attack by a limit of the whole process. It is raised by the
    threads that need more and put back by the last of them; whoever uses this looks at the size.

    Example:
        >>> with pillow_allows(400_000_000):
        ...     Image.MAX_IMAGE_PIXELS
        400000000
    """
    global _allowing, _pixels_before  # noqa: PLW0603 - Pillow's limit is one for the whole process
    with _lock:
        if _allowing == 0:
            _pixels_before = Image.MAX_IMAGE_PIXELS
        _allowing += 1
        if Image.MAX_IMAGE_PIXELS is not None:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)
    try:
        yield
    finally:
        with _lock:
            _allowing -= 1
            if _allowing == 0:
                Image.MAX_IMAGE_PIXELS = _pixels_before


def _filters() -> list[object]:
    return warnings.filters  # type: ignore[return-value]  # a list, declared as a read-only sequence


@contextlib.contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send what C libraries print on standard error to nowhere; ``sys.stderr`` still arrives.

    libtiff writes a line for every odd tag of a file. This acts on the whole process, so it belongs
    around a check of a data set and nowhere else. It does nothing where there is no standard error,
    nor inside itself or beside itself in another thread.

    Example:
        >>> with native_stderr_silenced():
        ...     pass
    """
    if not _silencing.acquire(blocking=False):
        yield
        return
    try:
        with contextlib.ExitStack() as undo:
            with contextlib.suppress(OSError):  # started without standard error
                _redirect(undo)
            yield
    finally:
        _silencing.release()


def _redirect(undo: contextlib.ExitStack) -> None:
    terminal = os.dup(2)
    undo.callback(os.close, terminal)
    python_stderr = sys.stderr
    if python_stderr is not None and _descriptor(python_stderr) == 2:
        python_stderr.flush()
        own = open(  # noqa: SIM115, PTH123 - closed by undo; a descriptor has no path
            os.dup(terminal),
            "w",
            buffering=1,
            encoding=python_stderr.encoding,
            errors=python_stderr.errors,
        )
        undo.callback(own.close)
        sys.stderr = own
        undo.callback(_put_back, python_stderr, own)
    undo.callback(os.dup2, terminal, 2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
        os.dup2(nowhere.fileno(), 2)


def _put_back(python_stderr: TextIO, own: TextIO) -> None:
    if sys.stderr is own:  # nobody else has changed it in between
        sys.stderr = python_stderr


def _descriptor(stream: object) -> int:
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # a stream in memory has none
        return -1
