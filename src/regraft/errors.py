"""Every error that Regraft raises on purpose, each with a stable code.

* RegraftError
  + DataError             a folder, table or split that cannot be used        DATA-…, SPLIT-…
    - ImageError          one image that cannot be used                       IMG-…
    - BadImagesError      all the images of a data set that cannot be used    DATA-BAD-IMAGES
  + BackboneError         a network that is unknown or cannot be built        BACKBONE-…
    - WeightsError        weights that are missing, damaged or do not fit     WEIGHTS-…
  + DownloadError         a file that did not come over the network           DOWNLOAD
  + HubError              a repository of a hub that cannot be used           HUB-…
  + ModelError            a saved model that cannot be trusted or used        MODEL-…
  + RunError              a run folder that is incomplete or foreign          RUN-…
  + RequestError          a request that the server cannot answer             REQUEST-…, SERVER-…
  + UsageError            arguments that contradict each other                USAGE-…

A message reads ``what - which file - why - what to do``; the parts that do not apply are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence


class RegraftError(Exception):
    """The root of all errors that Regraft raises on purpose.

    Args:
        what: What went wrong, one short sentence without a full stop.
        path: The file or folder concerned.
        why: What was found and what was expected.
        hint: What the reader can do about it.
        code: A stable code such as ``IMG-TRUNCATED``; the class has a default.

    Example:
        >>> print(RegraftError("cannot read the table", path="a.csv", hint="save it as UTF-8"))
        cannot read the table - a.csv - save it as UTF-8
    """

    code = "ERROR"
    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        path: str | os.PathLike[str] | None = None,
        why: str = "",
        hint: str = "",
        code: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.path = None if path is None else os.fspath(path)
        self.why = why
        self.hint = hint
        self.code = code or type(self).code

    def __str__(self) -> str:
        parts = (self.what, self.path, self.why, self.hint)
        return " - ".join(printable(part) for part in parts if part)


def printable(text: str) -> str:
    r"""Return ``text`` with what a terminal cannot carry written as escapes.

    Args:
        text: A message or a file name; file names may hold newlines and undecodable bytes.

    Example:
        >>> printable("two\nlines")
        'two\\nlines'
    """
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def list_names(names: Iterable[str], *, most: int = 10) -> str:
    """Return up to ``most`` names for a message, then how many more there are.

    Example:
        >>> list_names(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    every = [printable(name) for name in names]
    shown = ", ".join(every[:most]) or "none"
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown


class DataError(RegraftError):
    """A folder, table or split that cannot be used as it is."""

    code = "DATA-INVALID"


class ImageError(DataError):
    """One image that cannot be used; ``path`` names it and ``code`` says why."""

    code = "IMG-CORRUPT"

    def to_json(self) -> dict[str, str | None]:
        """Return ``file``, ``error`` and ``message`` as JSON has them.

        Example:
            >>> ImageError("file is empty", path="a.jpg", code="IMG-EMPTY").to_json()["error"]
            'IMG-EMPTY'
        """
        return {"file": self.path, "error": self.code, "message": str(self)}


class BadImagesError(DataError):
    """Images of a data set that cannot be used, all of them at once.

    Args:
        errors: One error per image.
        hint: What the reader can do about it.
    """

    code = "DATA-BAD-IMAGES"

    def __init__(self, errors: Sequence[ImageError], *, hint: str = "") -> None:
        first = errors[0]
        images = "1 image" if len(errors) == 1 else f"{len(errors)} images"
        why = f"{first.code}: {first.what}" + (" (the first of them)" if len(errors) > 1 else "")
        super().__init__(f"{images} cannot be used", path=first.path, why=why, hint=hint)
        self.errors = tuple(errors)
        self.args = (self.errors,)  # what unpickling calls the class with


class BackboneError(RegraftError):
    """A network that is unknown or cannot be built."""

    code = "BACKBONE-INVALID"


class WeightsError(BackboneError):
    """Weights that are missing, damaged or do not fit the network."""

    code = "WEIGHTS-INVALID"


class DownloadError(RegraftError):
    """A file that did not come over the network, or not as it was published."""

    code = "DOWNLOAD"


class HubError(RegraftError):
    """A repository of a hub that cannot be reached, read or written."""

    code = "HUB"


class ModelError(RegraftError):
    """A saved model that cannot be trusted, read or used."""

    code = "MODEL-INVALID"


class RunError(RegraftError):
    """A run folder that is incomplete, foreign or in use."""

    code = "RUN-INVALID"


class RequestError(RegraftError):
    """A request that the server refuses, or cannot answer now."""

    code = "REQUEST-INVALID"


class UsageError(RegraftError):
    """Arguments that are unknown or contradict each other."""

    code = "USAGE"
    exit_code = 2
