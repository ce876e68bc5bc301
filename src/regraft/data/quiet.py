"""Keep image libraries quiet while pictures are decoded: Pillow's warnings, libtiff's lines."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator

_FROM_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)
_lock = threading.Lock()
_inside = 0


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


def _filters() -> list[object]:
    return warnings.filters  # type: ignore[return-value]  # a list, declared as a read-only sequence


@contextlib.contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send what C libraries print on standard error to nowhere; ``sys.stderr`` still arrives.

    libtiff writes a line for every odd tag of a file. This acts on the whole process, so it belongs
    around a check of a data set and nowhere else. It does nothing where there is no standard error.

    Example:
        >>> with native_stderr_silenced():
        ...     pass
    """
    try:
        terminal = os.dup(2)
    except OSError:  # started without standard error
        yield
        return
    python_stderr = sys.stderr
    try:
        if python_stderr is not None and _descriptor(python_stderr) == 2:
            python_stderr.flush()
            sys.stderr = open(  # noqa: SIM115, PTH123 - closed below; a descriptor has no path
                os.dup(terminal),
                "w",
                buffering=1,
                encoding=python_stderr.encoding,
                errors=python_stderr.errors,
            )
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        if sys.stderr is not python_stderr:
            sys.stderr.close()
            sys.stderr = python_stderr


def _descriptor(stream: object) -> int:
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # a stream in memory has none
        return -1
