"""What a run starts from: what it has learned must not be what is tested on now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from regraft.data.dataset import Dataset
from regraft.errors import RunError
from regraft.results.run import MODEL, RECORD, Run


def refuse_learned_test_pictures(start: str | os.PathLike[str], test: Dataset) -> None:
    """Refuse to start from a run that has learned pictures of the test part.

    The contents of the files are compared, along all the runs that it started from itself, as far
    as their folders are there. Of a model without its run nothing is known.

    Args:
        start: The folder of a run or of its model.
        test: The pictures to test on.

    Raises:
        RunError: Naming the run that has learned some of them (``START-LEAK``), or one whose
            manifest is that of another split (``SPLIT-HASH``).
    """
    tested = test.hashes()
    for run in _chain(Path(start)):
        learned = {row.sha256 for row in run.rows() if row.part != "test"}
        count = sum(sha256 in learned for sha256 in tested)
        if count:
            pictures = "1 test picture was" if count == 1 else f"{count} test pictures were"
            raise RunError(
                f"{pictures} learned by the run to start from",
                path=run.folder,
                why="a test would tell how well they are remembered",
                hint="take the same seed of the split and the same pictures as that run",
                code="START-LEAK",
            )


def _chain(start: Path) -> Iterator[Run]:
    """Yield a run, the one that it started from, and so on."""
    seen: set[Path] = set()
    place: Path | None = start
    while place is not None:
        if place.name == MODEL and not (place / RECORD).is_file():
            place = place.parent
        if place.resolve() in seen or not (place / RECORD).is_file():
            return
        seen.add(place.resolve())
        run = Run.open(place)
        yield run
        earlier = run.record.method.get("start")
        place = Path(earlier).expanduser() if earlier else None  # runs know the home as ~
