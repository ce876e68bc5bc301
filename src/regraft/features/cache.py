"""Embedded pictures on disk, keyed by their content and by everything that shaped the numbers.

A folder per key holds ``about.json`` (the ingredients of the key, for people to read) and shards.
Shards appear by rename under names of their own and never change, so any number of processes may
read and add at the same time; a damaged row counts as not there and is computed again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from regraft.errors import RegraftError
from regraft.features.row_writer import RowWriter
from regraft.features.shards import (
    STORED_AS,
    Matrix,
    Precision,
    Shard,
    Stored,
    decode,
    encode,
    open_shard,
    write_shard,
)
from regraft.files import (
    free_bytes,
    home,
    read_json,
    remove_leftovers,
    sha256_json,
    temporary_folder,
    write_json,
)

FORMAT = 1
_KEY_FOLDER = re.compile(r"[0-9a-f]{16}")
_note = logging.getLogger(__name__)


class FeatureCache:
    """A folder of embedded pictures that processes may share.

    Args:
        folder: Where the rows stand; by default ``features`` in `regraft.files.home`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> rows = FeatureCache(folder.name).rows({"weights": "a"}, width=2)
        >>> rows.append(["ab" * 32], np.ones((1, 2), np.float32))
        >>> rows.known(["ab" * 32, "cd" * 32]).tolist()
        [True, False]
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = home() / "features" if folder is None else Path(folder)
        self.remedy = "set REGRAFT_HOME to a folder that can be written"
        if folder is not None:
            self.remedy = "give another cache folder"

    @classmethod
    def temporary(cls) -> Self:
        """Return a cache in a folder that is removed when nothing refers to it any more.

        Example:
            >>> cache = FeatureCache.temporary()
            >>> folder = cache.folder
            >>> del cache
            >>> folder.exists()
            False
        """
        cache = cls(temporary_folder())
        cache.remedy = "set TMPDIR to a folder that can be written"
        weakref.finalize(cache, shutil.rmtree, cache.folder, ignore_errors=True)
        return cache

    def rows(
        self, about: Mapping[str, Any], width: int, precision: Precision = "float32"
    ) -> FeatureRows:
        """Return the rows that were computed with exactly these ingredients.

        Args:
            about: All that shapes the numbers, as JSON holds it; a changed value is a new key.
            width: Numbers per row.
            precision: How a number is stored.

        Example:
            >>> FeatureCache("cache").rows({"weights": "a"}, width=2).folder.parent.name
            'cache'
        """
        return FeatureRows(self, about, width, precision)

    def size(self) -> int:
        """Return how many bytes the cached features take.

        Example:
            >>> FeatureCache("no such folder").size()
            0
        """
        return sum(file.stat().st_size for file in self._files())

    def clear(self) -> None:
        """Delete all cached features; files that are not the cache's own stay."""
        for file in self._files():
            file.unlink(missing_ok=True)
        for folder in self._key_folders():
            with contextlib.suppress(
                OSError
            ):  # something foreign is in it, or a process adds to it
                folder.rmdir()

    def _key_folders(self) -> list[Path]:
        return [f for f in self.folder.glob("*") if _KEY_FOLDER.fullmatch(f.name) and f.is_dir()]

    def _files(self) -> list[Path]:
        names = ("about.json", "*.npy", ".*.part")
        return [file for folder in self._key_folders() for n in names for file in folder.glob(n)]


class FeatureRows:
    """The rows of one key: which pictures are known, reading them, adding to them.

    Threads may share an object, and processes a folder.

    Args:
        cache: The cache that they are part of.
        about: Everything that shapes the numbers.
        width: Numbers per row.
        precision: How a number is stored.

    Attributes:
        key: SHA-256 of all ingredients; its first 16 digits name the folder.
        folder: Where the shards stand.
        width: Numbers per row.
    """

    def __init__(
        self,
        cache: FeatureCache,
        about: Mapping[str, Any],
        width: int,
        precision: Precision = "float32",
    ) -> None:
        self.about: dict[str, Any] = {**about, "width": width, "format": FORMAT}
        if precision != "float32":
            self.about["stored"] = precision
        self.precision: Precision = precision
        self.key = sha256_json(self.about)
        self.folder = cache.folder / self.key[:16]
        self.width = width
        self._cache = cache  # a temporary one lives as long as its rows
        self._places: dict[bytes, tuple[Shard | _Held, int]] = {}
        self._intact: set[bytes] = set()
        self._seen: set[str] = set()
        self._changed = -1
        self._lock = threading.Lock()

    def known(self, sha256s: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return for each picture whether its row is there and undamaged.

        Args:
            sha256s: Digests of pictures, 64 hexadecimal digits each.
        """
        with self._lock:
            self._look_for_shards()
            found = [self._is_intact(bytes.fromhex(digest)) for digest in sha256s]
        return np.array(found, dtype=bool)

    def read(self, sha256s: Sequence[str]) -> Matrix:
        """Return the rows of known pictures in the order asked for, float32 (n, width).

        Raises:
            RegraftError: A row is not there, or vanished since (code ``CACHE-MISSING``).
        """
        return decode(self.read_stored(sha256s), self.precision)

    def read_stored(self, sha256s: Sequence[str]) -> Stored:
        """Return the rows as they are stored, (n, width); see ``shards.decode``.

        Raises:
            RegraftError: A row is not there, or vanished since (code ``CACHE-MISSING``).
        """
        result = np.empty((len(sha256s), self.width), dtype=STORED_AS[self.precision])
        wanted: dict[Shard | _Held, list[tuple[int, int]]] = defaultdict(list)
        try:
            with self._lock:
                for position, digest in enumerate(sha256s):
                    source, row = self._places[bytes.fromhex(digest)]
                    wanted[source].append((row, position))
            for source, pairs in wanted.items():
                source.copy(sorted(pairs), result)
        except (KeyError, OSError, EOFError) as error:
            raise RegraftError(
                "cached features are gone",
                path=self.folder,
                why="they were removed or cut before they were read",
                hint="run again: what is missing is computed again",
                code="CACHE-MISSING",
            ) from error
        return result

    def blocks(self, sha256s: Sequence[str], size: int = 1000) -> Iterator[Matrix]:
        """Yield the rows of known pictures in order, (at most ``size``, width) at a time."""
        for start in range(0, len(sha256s), size):
            yield self.read(sha256s[start : start + size])

    def prepare(self) -> None:
        """Make the folder ready for new rows, so that a useless one is found out before any work.

        Raises:
            RegraftError: The folder cannot be made or written (code ``CACHE-WRITE``).
        """
        about = self.folder / "about.json"
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "permission denied")
            if not about.is_file() or _read_about(about) != self.about:
                write_json(about, self.about)
            remove_leftovers(self.folder)

    def append(self, sha256s: Sequence[str], features: Matrix) -> None:
        """Add rows as one new shard; pictures that are known already do no harm.

        Args:
            sha256s: Digest of each row's picture.
            features: (n, width); rounded if they are stored in fewer bits.

        Raises:
            ValueError: The number of rows or the width is another.
            RegraftError: The disk is full or the folder cannot be written (code ``CACHE-WRITE``);
                the message has the free bytes on that volume.
        """
        self._check_shape(sha256s, features)
        if not len(sha256s):
            return
        digests = [bytes.fromhex(digest) for digest in sha256s]
        if not self.folder.is_dir():
            self.prepare()
        path = self.folder / f"{secrets.token_hex(8)}.npy"
        with self._explained():
            stored = encode(features, self.precision)
            shard = write_shard(path, bytes.fromhex(self.key), digests, stored)
        with self._lock:
            self._seen.add(path.name)
            self._add_intact(shard, digests)

    def hold(self, sha256s: Sequence[str], features: Matrix) -> None:
        """Keep rows in memory, for this object only: the way out where they cannot be written."""
        self._check_shape(sha256s, features)
        with self._lock:
            held = _Held(encode(features, self.precision))
            self._add_intact(held, [bytes.fromhex(digest) for digest in sha256s])

    def writer(self, images: int) -> RowWriter:
        """Return a writer that gathers batches into shards.

        Args:
            images: Pictures in the whole result; decides what happens when the disk is full.
        """
        return RowWriter(self, images)

    def _check_shape(self, sha256s: Sequence[str], features: Matrix) -> None:
        expected = (len(sha256s), self.width)
        if features.shape != expected:
            raise ValueError(f"features have shape {features.shape}, expected {expected}")

    def _add_intact(self, source: Shard | _Held, digests: Sequence[bytes]) -> None:
        for row, digest in enumerate(digests):
            self._places[digest] = (source, row)
        self._intact.update(digests)

    def _is_intact(self, digest: bytes) -> bool:
        if digest in self._intact:
            return True
        source, row = self._places.get(digest, (None, 0))
        if not isinstance(source, Shard):
            return False
        if source.is_intact(row, digest):
            self._intact.add(digest)
            return True
        _note.info("row %d of %s is damaged and counts as not there", row, source.path)
        del self._places[digest]
        return False

    def _look_for_shards(self) -> None:
        try:
            changed = self.folder.stat().st_mtime_ns
        except OSError:
            return
        if changed == self._changed:
            return
        self._changed = changed
        for path in self.folder.glob("*.npy"):
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._open(path)

    def _open(self, path: Path) -> None:
        try:
            shard, digests = open_shard(
                path, bytes.fromhex(self.key), self.width, STORED_AS[self.precision]
            )
        except (OSError, ValueError) as error:
            _note.info("ignoring %s: %s", path, error)
            return
        for row, digest in enumerate(digests):
            if digest not in self._places or not self._is_intact(digest):
                self._places[digest] = (shard, row)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RegraftError) as error:
            reason = error.why if isinstance(error, RegraftError) else error.strerror or str(error)
            raise RegraftError(
                "cannot store features",
                path=self.folder,
                why=f"{reason}; {free_bytes(self.folder):,} bytes are free on that volume",
                hint=f"free some space, or {self._cache.remedy}",
                code="CACHE-WRITE",
            ) from error


class _Held:
    """Rows in memory that stand in for a shard."""

    def __init__(self, matrix: Stored) -> None:
        self._matrix = matrix

    def copy(self, pairs: Sequence[tuple[int, int]], result: Stored) -> None:
        for row, position in pairs:
            result[position] = self._matrix[row]


def _read_about(path: Path) -> Any:
    try:
        return read_json(path)
    except RegraftError:
        return None  # damaged: it is written again
