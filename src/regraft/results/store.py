"""A folder of runs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft.errors import RunError
from regraft.results.run import RECORD, Run, unfinished


@dataclass(frozen=True)
class RunStore:
    """A folder whose folders are runs.

    Args:
        folder: Need not exist yet.

    Example:
        >>> RunStore(Path("nowhere")).list()
        ()
    """

    folder: Path

    def list(self) -> tuple[str, ...]:
        """Return the names of the finished runs, oldest first."""
        return tuple(run.name for run in self.runs())

    def unfinished(self) -> tuple[str, ...]:
        """Return the names of the runs that were begun and not finished."""
        return tuple(place.name for place in self._folders() if unfinished(place))

    def runs(self) -> tuple[Run, ...]:
        """Open all finished runs, oldest first; other folders are passed over.

        Raises:
            RunError: A run's record is damaged or newer than this Regraft.
        """
        opened = [Run.open(place) for place in self._folders() if (place / RECORD).is_file()]
        return tuple(sorted(opened, key=lambda run: (run.record.created, run.name)))

    def open(self, name: str) -> Run:
        """Open the run ``name``.

        Raises:
            RunError: There is no such run; the message lists those that are there.
        """
        if name not in {place.name for place in self._folders()}:
            raise RunError(
                f"no run {name!r}",
                path=self.folder,
                why=f"there are {', '.join(self.list()) or 'none'}",
                code="RUN-FOREIGN",
            )
        return Run.open(self.folder / name)

    def free_folder(self, description: str) -> Path:
        """Return a folder that does not exist yet, named after ``description``.

        Example:
            >>> RunStore(Path("runs")).free_folder("VGG16, linear SVM").as_posix()
            'runs/vgg16-linear-svm'
        """
        base = re.sub(r"[^a-z0-9]+", "-", description.lower()).strip("-")[:60].rstrip("-") or "run"
        path, number = self.folder / base, 2
        while path.exists():
            path, number = self.folder / f"{base}-{number}", number + 1
        return path

    def _folders(self) -> tuple[Path, ...]:
        if not self.folder.is_dir():
            return ()
        return tuple(sorted(place for place in self.folder.iterdir() if place.is_dir()))


def open_runs(places: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Open runs given as run folders, or as folders of runs.

    Raises:
        RunError: A folder is neither.
    """
    runs: list[Run] = []
    for place in map(Path, places):
        inside = [] if (place / RECORD).is_file() else RunStore(place).runs()
        runs += inside or [Run.open(place)]
    return runs
