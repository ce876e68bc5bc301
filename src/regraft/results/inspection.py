"""What a run keeps of why it decided so: maps, the nearest training images, and where images lie.

It is computed once, while the fitted network is in memory; the page is written from it alone.
"""

from __future__ import annotations

import os
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from regraft.errors import RunError
from regraft.files import read_json, write_json
from regraft.settings import from_json, settings_class, to_json

FOLDER = "explain"
_FILE = "inspection.json"
_ADDRESS = r"^(data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+)?$"
ImageAddress = Annotated[str, Field(pattern=_ADDRESS)]  # it becomes part of a page as it is


@settings_class(RunError, code="RUN-INVALID")
class Near:
    """A training image that is like another image.

    Args:
        path: Where it lies in the data set.
        label: Its class.
        distance: 1 minus the cosine of the angle between the features of the two, 0 to 2.
    """

    path: str
    label: str
    distance: float


@settings_class(RunError, code="RUN-INVALID", kw_only=True)
class InspectedImage:
    """One image that the page shows.

    Args:
        nearest: The training images nearest to it, the nearest first.
        view: What of it the network saw, a ``data:`` address; empty where there are no maps.
        maps: What to lay over the view for a class: dark where the image does not speak for it.
    """

    nearest: tuple[Near, ...] = ()
    view: ImageAddress = ""
    maps: dict[str, ImageAddress] = field(default_factory=dict)


@settings_class(RunError, code="RUN-INVALID", kw_only=True)
class Inspection:
    """What is known of the images of a run beside their probabilities.

    Args:
        images: The images that the page shows, by path.
        sheet: Small squares of many images in one, ``columns`` in a row, as a ``data:`` address.
        sheet_paths: The images that stand there, row by row.
        columns: How many stand in a row of the sheet.
        points: The images that the maps of the data show.
        projections: The place of each of these from 0 to 1, right and up, by the name of the map.
        notes: What is missing, and why.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     Inspection(points=("a.jpg",), projections={"PCA": ((0.5, 1.0),)}).write(run)
        ...     Inspection.read(run).projections
        {'PCA': ((0.5, 1.0),)}
    """

    images: dict[str, InspectedImage] = field(default_factory=dict)
    sheet: ImageAddress = ""
    sheet_paths: tuple[str, ...] = ()
    columns: int = 32
    points: tuple[str, ...] = ()
    projections: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: Literal["regraft-inspection"] = "regraft-inspection"
    version: Literal[1] = 1

    @property
    def rows(self) -> int:
        """How many rows the sheet has."""
        return -(-len(self.sheet_paths) // self.columns)

    def place(self, path: str) -> tuple[int, int] | None:
        """Return column and row of an image in the sheet, counted from 0; None if it has it not."""
        place = self._places.get(path)
        return None if place is None else (place % self.columns, place // self.columns)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {path: place for place, path in enumerate(self.sheet_paths)}

    def write(self, run: str | os.PathLike[str]) -> None:
        """Write it into the folder of a run."""
        # Undecodable bytes of a name, as it is a key here, are kept by no other way.
        images = {path: to_json(image) for path, image in self.images.items()}
        write_json(Path(run) / FOLDER / _FILE, to_json(self) | {"images": images})

    @classmethod
    def read(cls, run: str | os.PathLike[str]) -> Inspection | None:
        """Return what the folder of a run holds; None where nothing was explained.

        Raises:
            RunError: It is damaged (``RUN-INVALID``).
        """
        file = Path(run) / FOLDER / _FILE
        return from_json(cls, read_json(file), path=file) if file.is_file() else None
