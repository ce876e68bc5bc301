"""Features on disk, keyed by the content of each image and by all that shaped the numbers.

A folder per key holds ``about.json`` (what the key is made of, for people to read) and shards.
Shards appear by rename under random names and never change, so that any number of processes may
read and add at the same time. A shard ends with a checksum over itself and its key: one that is
damaged, or was moved here from another key, counts as not there, and its rows are computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

import regraft.files as disk
from regraft.errors import RegraftError

Matrix = npt.NDArray[np.float32]
_DIGEST_BYTES = 32
_NUMBER_BYTES = 4
_FLUSH_BYTES = 16 << 20
_FLUSH_SECONDS = 10.0


class FeatureCache:
    """A folder of features that processes may share.

    Args:
        folder: Where the rows stand; by default ``features`` in ``REGRAFT_HOME``.

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
        self.folder = disk.home() / "features" if folder is None else Path(folder)

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
        cache = cls(disk.temporary_folder())
        weakref.finalize(cache, shutil.rmtree, cache.folder, ignore_errors=True)
        return cache

    @classmethod
    def chosen(cls, cache: str | os.PathLike[str] | None) -> Self:
        """Return the cache that ``Compute.cache`` stands for."""
        if cache is None:
            return cls.temporary()
        return cls(None if cache == "default" else cache)

    def rows(self, about: Mapping[str, Any], width: int) -> FeatureRows:
        """Return the rows that were computed with exactly these settings; see `FeatureRows`."""
        return FeatureRows(self, about, width)


class FeatureRows:
    """The rows of one key: which images are known, reading them, adding to them.

    Threads may share an object, and processes a folder.

    Args:
        cache: The cache that they are part of.
        about: All that shapes the numbers, as JSON values; a changed value is a new key.
        width: Numbers per row.

    Attributes:
        key: SHA-256 of all settings; its first 16 digits name the folder.
        folder: Where the shards stand.
        width: Numbers per row.
    """

    def __init__(self, cache: FeatureCache, about: Mapping[str, Any], width: int) -> None:
        self.about = {**about, "width": width}
        self.key = disk.sha256_json(self.about)
        self.folder = cache.folder / self.key[:16]
        self.width = width
        self._cache = cache  # a temporary one lives as long as its rows
        self._shards: list[_Shard] = []
        self._places: dict[bytes, tuple[_Shard, int]] = {}
        self._seen: set[Path] = set()
        self._changed = -1
        self._lock = threading.Lock()

    def known(self, sha256s: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return for each image whether its row is there and undamaged."""
        with self._lock:
            self._find_shards()
            found = [self._is_sound(bytes.fromhex(digest)) for digest in sha256s]
        return np.array(found, dtype=bool)

    def read(self, sha256s: Sequence[str]) -> Matrix:
        """Return the rows of known images in the order asked for, float32 (n, width).

        Raises:
            RegraftError: A row is not there, or vanished since (code ``CACHE-MISSING``).
        """
        result = np.empty((len(sha256s), self.width), dtype="<f4")
        wanted: dict[_Shard, list[tuple[int, int]]] = defaultdict(list)
        try:
            with self._lock:
                for position, digest in enumerate(sha256s):
                    key = bytes.fromhex(digest)
                    shard, row = self._places[key if self._is_sound(key) else b""]
                    wanted[shard].append((row, position))
            for shard, pairs in wanted.items():
                shard.copy(sorted(pairs), result)
        except (KeyError, OSError, EOFError) as error:
            what, why = "cached features are gone", "they were removed or cut before they were read"
            hint, code = "run again: what is missing is computed again", "CACHE-MISSING"
            raise RegraftError(what, path=self.folder, why=why, hint=hint, code=code) from error
        return result

    def prepare(self) -> None:
        """Make the folder ready for new rows: one that cannot be written is found before any work.

        Raises:
            RegraftError: The folder cannot be made or written (code ``CACHE-WRITE``).
        """
        about = self.folder / "about.json"
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "permission denied")
            if not about.is_file():
                disk.write_json(about, self.about)
            disk.remove_leftovers(self.folder)

    def append(self, sha256s: Sequence[str], features: Matrix) -> None:
        """Add rows as one new shard; images that are known already do no harm.

        Raises:
            ValueError: The number of rows or the width is another.
            RegraftError: The disk is full or the folder cannot be written (code ``CACHE-WRITE``);
                the message has the free bytes on that volume.
        """
        expected = (len(sha256s), self.width)
        if features.shape != expected:
            raise ValueError(f"features have shape {features.shape}, expected {expected}")
        if not self.folder.is_dir():
            self.prepare()
        digests = [bytes.fromhex(digest) for digest in sha256s]
        shard = _Shard(self.folder / f"{secrets.token_hex(8)}.rows", digests, sound=True)
        with self._explained():
            shard.write(bytes.fromhex(self.key), np.ascontiguousarray(features, dtype="<f4"))
        with self._lock:
            self._seen.add(shard.path)
            self._shards.append(shard)
            self._places.update({digest: (shard, row) for row, digest in enumerate(digests)})

    @contextlib.contextmanager
    def writer(self) -> Iterator[Callable[[Sequence[str], Matrix], None]]:
        """Give a function that takes batches of rows, as `append` does, and gathers them.

        A shard is written when enough has gathered or ten seconds went by, and at the end; also
        where the end is an error.
        """
        capacity = max(1, _FLUSH_BYTES // (self.width * _NUMBER_BYTES))
        digests: list[str] = []
        parts: list[Matrix] = []
        since = time.monotonic()

        def flush() -> None:
            nonlocal since
            if digests:
                self.append(digests, np.concatenate(parts))
            digests.clear()
            parts.clear()
            since = time.monotonic()

        def add(sha256s: Sequence[str], features: Matrix) -> None:
            digests.extend(sha256s)
            parts.append(features)
            if len(digests) >= capacity or time.monotonic() - since > _FLUSH_SECONDS:
                flush()

        try:
            yield add
        except BaseException:
            with contextlib.suppress(RegraftError):  # the first error is the one to hear about
                flush()
            raise
        flush()

    def _is_sound(self, digest: bytes) -> bool:
        while digest in self._places:
            shard, _ = self._places[digest]
            if shard.is_sound(bytes.fromhex(self.key)):
                return True
            self._shards.remove(shard)
            self._places = {d: (s, row) for s in self._shards for row, d in enumerate(s.digests)}
        return False

    def _find_shards(self) -> None:
        try:
            changed = self.folder.stat().st_mtime_ns
        except OSError:
            return
        if changed == self._changed:
            return
        self._changed = changed
        for path in {*self.folder.glob("*.rows")} - self._seen:
            self._seen.add(path)
            with contextlib.suppress(OSError):  # cut or foreign: its rows are computed again
                shard = _open(path, self.width * _NUMBER_BYTES)
                self._shards.append(shard)
                for row, digest in enumerate(shard.digests):
                    self._places.setdefault(digest, (shard, row))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RegraftError) as error:
            reason = error.why if isinstance(error, RegraftError) else error.strerror or str(error)
            why = f"{reason}; {disk.free_bytes(self.folder):,} bytes are free on that volume"
            hint = "free some space, or set REGRAFT_HOME or TMPDIR to another folder"
            what, code = "cannot store features", "CACHE-WRITE"
            raise RegraftError(what, path=self.folder, why=why, hint=hint, code=code) from error


@dataclass(eq=False)
class _Shard:
    """Rows in a file: the matrix, the SHA-256 of each row's image, the checksum.

    Rows are read and not mapped: mapped pages would count as memory of the process.
    """

    path: Path
    digests: list[bytes]
    sound: bool | None = None

    def is_sound(self, key: bytes) -> bool:
        """Return whether the file is as it was written for this key; looked at once."""
        if self.sound is None:
            try:
                content = memoryview(self.path.read_bytes())
                sums = hashlib.sha256(key)
                sums.update(content[:-_DIGEST_BYTES])
                self.sound = content[-_DIGEST_BYTES:] == sums.digest()
            except OSError:
                self.sound = False
        return self.sound

    def write(self, key: bytes, matrix: Matrix) -> None:
        """Write the file."""
        sums = hashlib.sha256(key)
        with disk.atomic_path(self.path) as part, part.open("wb") as stream:
            for block in (matrix.reshape(-1).view(np.uint8).data, b"".join(self.digests)):
                sums.update(block)
                stream.write(block)
            stream.write(sums.digest())

    def copy(self, pairs: Sequence[tuple[int, int]], result: Matrix) -> None:
        """Copy rows into ``result``; ``pairs`` are (row here, row there)."""
        with self.path.open("rb", buffering=0) as stream:
            for row, position in pairs:
                stream.seek(row * result[position].nbytes)
                if stream.readinto(result[position].data) != result[position].nbytes:
                    raise EOFError(f"{self.path} was cut")


def _open(path: Path, row_bytes: int) -> _Shard:
    """Return a shard; its rows are not read. A file of other rows is an OSError."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size - _DIGEST_BYTES
        count, rest = divmod(size, row_bytes + _DIGEST_BYTES)
        if size < 0 or rest:
            raise OSError(f"it has {size} bytes")
        stream.seek(count * row_bytes)
        listed = stream.read(count * _DIGEST_BYTES)
    starts = range(0, len(listed), _DIGEST_BYTES)
    return _Shard(path, [listed[start : start + _DIGEST_BYTES] for start in starts])
