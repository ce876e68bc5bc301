"""Files that are never seen half-written, and hashes of what is in them."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from regraft.errors import RegraftError

_NAME_BYTES = 100  # of a file's own name in that of its unfinished part; systems allow 255
_DAY_SECONDS = 86_400


def home() -> Path:
    """Return the folder for imported weights and caches: ``$REGRAFT_HOME`` or the user's own.

    Example:
        >>> home().name
        'regraft'
    """
    own = platformdirs.user_cache_dir("regraft", appauthor=False)
    return Path(os.environ.get("REGRAFT_HOME") or own)


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits.

    Example:
        >>> sha256_bytes(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as stream:  # noqa: PTH123 - os.PathLike is all that is promised
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of ``value`` written as canonical JSON (sorted keys, no blanks).

    Example:
        >>> sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256_bytes(text.encode())


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success flush it to disk and rename it into place.

    A reader sees the old file or the new one, never a part; on an error nothing is left behind.

    Args:
        path: Where the file shall stand; missing parent folders are made.

    Yields:
        A path that does not exist yet; the caller writes a file there.

    Raises:
        RegraftError: The disk is full or the folder cannot be written (code ``FILE-WRITE``).
    """
    target = Path(path)
    part = _part_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode  # some writers make files that nobody else may read
        part.unlink()
        yield part
        part.chmod(mode)
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename not in {None, str(part)}:
            raise  # a file the caller wanted to read, not ours
        raise _cannot_write(target, error) from error
    finally:
        with contextlib.suppress(OSError):  # must not hide what went wrong before
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success rename it into place, whole.

    A reader sees the old folder or the new one, never a mix; on an error nothing is left behind.

    Args:
        path: Where the folder shall stand; missing parent folders are made.
        replace: Whether a folder that is there already gives way.

    Yields:
        An empty folder; the caller writes files there, each flushed to disk.

    Raises:
        RegraftError: A folder is there already (code ``FILE-EXISTS``), or it cannot be written
            (``FILE-WRITE``).

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "model"
        >>> with atomic_folder(target) as part:
        ...     write_text(part / "a.txt", "data")
        >>> [file.name for file in target.iterdir()]
        ['a.txt']
    """
    target = Path(path)
    part = _part_beside(target)
    try:
        part.mkdir(parents=True)
        yield part
        _sync_folder(part)
        _move_folder(part, target, replace=replace)
        _sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def locked(
    path: str | os.PathLike[str], *, busy: RegraftError, seconds: float = 0.0
) -> Iterator[None]:
    """Hold a lock between processes while the block lasts; a process that dies lets go of it.

    Args:
        path: The file that stands for the lock; missing parent folders are made.
        busy: What to raise if another process holds it all that time.
        seconds: How long to wait for another process.

    Raises:
        RegraftError: ``busy``; or the file cannot be made (code ``FILE-WRITE``).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with locked(Path(folder) / ".lock", busy=RegraftError("in use")):
        ...         Path(folder, ".lock").exists()
        True
    """
    target = Path(path)
    lock = filelock.FileLock(target, timeout=seconds)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise busy from error
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield
    finally:
        lock.release()


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, as far as they are missing.

    Raises:
        RegraftError: It cannot be made there (code ``FILE-WRITE``).
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(Path(path), error) from error


def _part_beside(target: Path) -> Path:
    return target.with_name(f".{short_name(target.name)}.{unfinished_mark()}.part")


def short_name(name: str) -> str:
    """Return the beginning of a file's name, so that something can be added to it.

    Example:
        >>> len(short_name("花" * 80))
        33
    """
    return os.fsencode(name)[:_NAME_BYTES].decode("utf-8", "ignore")


def unfinished_mark(process: int | None = None) -> str:
    """Return what tells in the name of an unfinished file who writes it; no two are the same.

    Args:
        process: The number of the process on this machine; None: this one.

    Example:
        >>> unfinished_mark(7).split("-")[1]
        '7'
    """
    return f"{_machine()}-{process or os.getpid()}-{secrets.token_hex(4)}"


def _is_abandoned(path: Path, mark: str) -> bool:
    """Tell whether nobody works on an unfinished file or folder any more.

    A process of this machine can be looked for. Its number says nothing where the writer sits on
    another machine that shares the folder, so what is not of this one must be a day old.
    """
    machine, _, rest = mark.partition("-")
    process = rest.partition("-")[0]
    try:
        if machine != _machine() or not process.isdigit() or os.name == "nt":  # signal 0 is Ctrl-C
            return time.time() - path.stat().st_mtime > _DAY_SECONDS
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # the file is gone, or the process is somebody else's
    return False


def _machine() -> str:
    return sha256_bytes(platform.node().encode())[:8]


def _cannot_write(target: Path, error: OSError) -> RegraftError:
    why = error.strerror or str(error)
    hint = "free some space there, or choose a folder that is writable"
    return RegraftError("cannot write", path=target, why=why, hint=hint, code="FILE-WRITE")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` atomically."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` atomically as UTF-8; undecodable file names survive the way back."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` atomically as indented JSON; NaN and infinity are refused.

    Raises:
        ValueError: ``value`` holds NaN or infinity.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], *, limit: int = 64 << 20) -> Any:
    """Read a JSON file of at most ``limit`` bytes.

    Raises:
        RegraftError: Code ``FILE-MISSING``, or ``FILE-JSON`` for too large, too deep or not JSON.
    """
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - os.PathLike is all that is promised
            return json.loads(stream.read(limit))  # what is larger ends in the middle
    except FileNotFoundError as error:
        raise RegraftError("file not found", path=path, code="FILE-MISSING") from error
    except (OSError, ValueError, RecursionError) as error:
        what, why = "cannot read as JSON", str(error)[:200]
        raise RegraftError(what, path=path, why=why, code="FILE-JSON") from error


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Return how many bytes are free where a file or folder stands, or will stand.

    Example:
        >>> free_bytes("no such folder/no such file") > 0
        True
    """
    folder = Path(os.path.abspath(path))  # noqa: PTH100 - links are left as they are
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def remove_leftovers(folder: str | os.PathLike[str], name: str = "") -> None:
    """Delete what killed writers left in ``folder``: ``.part`` files that are abandoned.

    Args:
        folder: Where they wrote.
        name: The name of the file or folder that they wrote; "" for all.
    """
    for part in Path(folder).glob(f".{glob.escape(short_name(name)) or '*'}.*.part"):
        if not _is_abandoned(part, part.name.split(".")[-2]):
            continue
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def temporary_folder() -> Path:
    """Return a new empty folder among the temporary ones of the system.

    Whoever asks for it deletes it; those of this machine's killed processes are deleted here.

    Example:
        >>> folder = temporary_folder()
        >>> folder.rmdir()
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"regraft-{_machine()}-*-*"):
        if _is_abandoned(left, left.name.removeprefix("regraft-")):
            shutil.rmtree(left, ignore_errors=True)
    folder = place / f"regraft-{unfinished_mark()}"
    folder.mkdir(mode=0o700)
    return folder


def _move_folder(part: Path, target: Path, *, replace: bool) -> None:
    # Not named `.part`: after a kill between the renames this is all there is.
    old = part.with_suffix(".old")
    if replace and target.exists():
        target.rename(old)
    try:
        part.rename(target)
    except OSError as error:
        if old.exists():
            old.rename(target)
        if target.exists():
            raise RegraftError("there already", path=target, code="FILE-EXISTS") from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # only POSIX can flush a folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
