"""One file of embedded pictures: a plain ``.npy`` matrix of float32 with a list behind it.

An entry of the list holds the SHA-256 of the row's picture and a checksum over key, digest and
row, so that a damaged row, and a shard moved here from another key, are found out row by row. Rows
are read and not mapped: mapped pages would count as memory of the process and grow with the data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.files import atomic_path

Matrix = npt.NDArray[np.float32]
_ENTRY_BYTES = 32 + 8
_HEADER_BYTES = 128


@dataclass(frozen=True)
class Shard:
    """A file of ``count`` rows of ``width`` numbers.

    Attributes:
        path: The file.
        key: SHA-256 of all that shaped the numbers, 32 bytes.
        count: Rows.
        width: Numbers per row.
    """

    path: Path
    key: bytes
    count: int
    width: int

    def copy(self, pairs: Sequence[tuple[int, int]], result: Matrix) -> None:
        """Copy rows into ``result``; ``pairs`` are (row here, row there).

        Raises:
            OSError: The file is gone.
            EOFError: The file was cut.
        """
        with self.path.open("rb", buffering=0) as stream:
            for row, position in pairs:
                stream.seek(_HEADER_BYTES + row * self.width * 4)
                if stream.readinto(result[position].data) != self.width * 4:
                    raise EOFError(f"{self.path} was cut")

    def is_intact(self, row: int, digest: bytes) -> bool:
        """Return whether a row can be read and is what was written for this picture and key."""
        try:
            with self.path.open("rb", buffering=0) as stream:
                stream.seek(_HEADER_BYTES + row * self.width * 4)
                data = stream.read(self.width * 4)
                stream.seek(_HEADER_BYTES + self.count * self.width * 4 + row * _ENTRY_BYTES)
                return stream.read(_ENTRY_BYTES) == digest + _check(self.key, digest, data)
        except OSError:
            return False


def write_shard(path: Path, key: bytes, digests: Sequence[bytes], features: Matrix) -> Shard:
    """Write rows atomically.

    Args:
        path: The new file.
        key: SHA-256 of all that shaped the numbers, 32 bytes.
        digests: SHA-256 of each row's picture, 32 bytes each.
        features: (n, width).

    Raises:
        RegraftError: The disk is full or the folder cannot be written (code ``FILE-WRITE``).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.npy"
        ...     shard = write_shard(file, bytes(32), [b"d" * 32], np.ones((1, 2), np.float32))
        ...     shard.is_intact(0, b"d" * 32), np.load(file).tolist()
        (True, [[1.0, 1.0]])
    """
    matrix = np.ascontiguousarray(features, dtype="<f4")
    entries = b"".join(
        digest + _check(key, digest, row.tobytes())
        for digest, row in zip(digests, matrix, strict=True)
    )
    with atomic_path(path) as part, part.open("wb") as stream:
        stream.write(_header(*matrix.shape))
        stream.write(matrix.data)
        stream.write(entries)
    return Shard(path, key, *matrix.shape)


def open_shard(path: Path, key: bytes, width: int) -> tuple[Shard, list[bytes]]:
    """Return a shard and the digest of each row's picture; the rows themselves are not read.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a complete shard of this width.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        count = (size - _HEADER_BYTES) // (width * 4 + _ENTRY_BYTES)
        if stream.read(_HEADER_BYTES) != _header(count, width):
            raise ValueError(f"no complete shard of width {width}")
        stream.seek(_HEADER_BYTES + count * width * 4)
        entries = stream.read()
    if len(entries) != count * _ENTRY_BYTES:
        raise ValueError(f"no complete list of {count} entries")
    digests = [entries[i : i + 32] for i in range(0, len(entries), _ENTRY_BYTES)]
    return Shard(path, key, count, width), digests


def _header(count: int, width: int) -> bytes:
    # Written out here, because reading needs no parser when the bytes are known beforehand.
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {width}), }}"
    start = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return start + text.ljust(_HEADER_BYTES - 11).encode() + b"\n"


def _check(key: bytes, digest: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(row, digest_size=8, key=key + digest).digest()
