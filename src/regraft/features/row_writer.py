"""Rows on their way into the cache: gathered into shards, kept in memory where the disk is full."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from regraft.errors import RegraftError
from regraft.features.shards import STORED_AS, Matrix

if TYPE_CHECKING:
    from regraft.features.cache import FeatureRows

_FLUSH_ROWS = 1000
_FLUSH_BYTES = 16 << 20
_FLUSH_SECONDS = 10.0
_HELD_BYTES = 256 << 20


class RowWriter:
    """Gathers batches into shards; on leaving, also by an error, what is there is written.

    When the disk is full and the whole result is small (up to 256 MiB), rows stay in memory with a
    warning.

    Args:
        rows: Where the rows go.
        images: Pictures in the whole result.
    """

    def __init__(self, rows: FeatureRows, images: int) -> None:
        self._rows = rows
        self._fits = images * rows.width * STORED_AS[rows.precision].itemsize <= _HELD_BYTES
        # One buffer for all shards: its size is the same whatever the batches and their number.
        capacity = max(1, min(_FLUSH_ROWS, _FLUSH_BYTES // (rows.width * 4)))
        self._buffer = np.empty((capacity, rows.width), dtype=np.float32)
        self._digests: list[str] = []
        self._since = time.monotonic()
        self._holding = False

    def add(self, sha256s: Sequence[str], features: Matrix) -> None:
        """Take rows, (n, width); a shard is written when enough gathered or ten seconds went by."""
        done = 0
        while done < len(sha256s):
            start = len(self._digests)
            taken = min(len(self._buffer) - start, len(sha256s) - done)
            self._buffer[start : start + taken] = features[done : done + taken]
            self._digests.extend(sha256s[done : done + taken])
            done += taken
            late = time.monotonic() - self._since > _FLUSH_SECONDS
            if late or len(self._digests) == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        """Write what has gathered.

        Raises:
            RegraftError: It cannot be written and is too large for memory (code ``CACHE-WRITE``).
        """
        digests = self._digests
        self._digests, self._since = [], time.monotonic()
        features = self._buffer[: len(digests)]
        if not self._holding:
            try:
                self._rows.append(digests, features)
                return
            except RegraftError as error:
                if not self._fits:
                    raise
                self._holding = True
                warnings.warn(f"{error} - this run keeps its features in memory", stacklevel=2)
        self._rows.hold(digests, features.copy())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.flush()
            return
        with contextlib.suppress(RegraftError):  # the first error is the one to hear about
            self.flush()
