"""A run's folder while it is filled: one writer, nothing overwritten, unfinished ones known."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from regraft.errors import RunError
from regraft.files import locked, remove_leftovers

RECORD = "run.json"
PREDICTIONS = "predictions.csv"
CHECK = "check.json"
MODEL = "model"
REPORT = "report.html"
THUMBNAILS = "thumbnails"
CHECKPOINTS = "checkpoints"
EPOCHS = "history.jsonl"
SPLIT = ("split.csv", "split.json")
_LOCK = ".lock"
_WRITER = ".writer"
_SPLIT_LOCK = ".split.lock"
_OWN = {
    RECORD,
    PREDICTIONS,
    CHECK,
    MODEL,
    REPORT,
    THUMBNAILS,
    CHECKPOINTS,
    EPOCHS,
    "bad_files.csv",
    _LOCK,
    _WRITER,
    _SPLIT_LOCK,
    *SPLIT,
}


@contextlib.contextmanager
def reserve(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Claim a folder for one run, for as long as the ``with`` block lasts.

    Begin the work inside, so that a second run into the same folder is refused before it starts.
    The operating system drops the claim when the process dies; what a killed run left is then
    overwritten.

    Args:
        folder: Where the run shall stand; it is made if need be. It must be empty or hold an
            unfinished run.

    Yields:
        The folder.

    Raises:
        RunError: ``RUN-EXISTS``: the folder holds a finished run or anything else; ``RUN-LOCKED``:
            another process is writing there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, reserve(Path(folder) / "run") as place:
        ...     place.is_dir()
        True
    """
    place = Path(folder)
    _refuse_foreign(place)
    _make_folder(place)
    busy = RunError(
        "another process is writing here",
        path=place,
        why=_writer(place),
        hint="wait for it or choose another folder",
        code="RUN-LOCKED",
    )
    held = False
    try:
        with locked(place / _LOCK, busy=busy):
            held = True
            _refuse_foreign(place)  # once more: somebody may have finished here in between
            (place / _WRITER).write_text(str(os.getpid()))
            remove_leftovers(place)
            try:
                yield place
            finally:
                (place / _WRITER).unlink(missing_ok=True)
    finally:
        if held:
            _leave(place)


def unfinished(folder: Path) -> bool:
    """Return whether a folder holds a run that was begun and not finished."""
    return (folder / _LOCK).exists() and not (folder / RECORD).exists()


def no_run(place: Path) -> RunError:
    """Return the error that says why there is no finished run, and where one may be."""
    if unfinished(place):
        return RunError(
            "this run was never finished",
            path=place,
            hint="repeat it into the same folder, or delete the folder",
            code="RUN-INCOMPLETE",
        )
    why, hint = "there is no such folder", ""
    if place.is_dir():
        inside = any((place / "runs").glob(f"*/{RECORD}"))
        why = f"there is no {RECORD}"
        hint = f"name {place / 'runs'}" if inside else f"name the folder that holds {RECORD}"
    elif place.exists():
        why, hint = "this is a file", f"name the folder that holds {RECORD}"
    return RunError("no run here", path=place, why=why, hint=hint, code="RUN-FOREIGN")


def _refuse_foreign(place: Path) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise RunError("this is a file, not a folder", path=place, code="RUN-EXISTS")
    names = sorted(entry.name for entry in place.iterdir())
    if RECORD in names:
        raise RunError(
            "a finished run stands here",
            path=place,
            hint="choose another folder or delete this one",
            code="RUN-EXISTS",
        )
    foreign = [name for name in names if name not in _OWN and not name.endswith(".part")]
    if not unfinished(place):
        foreign = names  # without our mark even a file that is named like ours is somebody else's
    if foreign:
        raise RunError(
            "the folder is not empty",
            path=place,
            why=f"it holds {', '.join(foreign[:5])}" + (" and more" if len(foreign) > 5 else ""),
            hint="choose a new or an empty folder",
            code="RUN-EXISTS",
        )


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            "cannot make the folder of the run",
            path=place,
            why=error.strerror or str(error),
            hint="choose another folder with out (--out)",
            code="RUN-FOLDER",
        ) from error


def _writer(place: Path) -> str:
    try:
        return f"process {int((place / _WRITER).read_text())}"
    except (OSError, ValueError):
        return ""


def _leave(place: Path) -> None:
    """Tidy up; the lock file stays beside what an unfinished run left, as its mark."""
    left = {entry.name for entry in place.iterdir()} - {_LOCK}
    if RECORD in left or not left:
        (place / _LOCK).unlink(missing_ok=True)
    elif not (place / _LOCK).exists():
        (place / _LOCK).touch()  # some systems delete the file when it is unlocked
    if not left:
        with contextlib.suppress(OSError):
            place.rmdir()
