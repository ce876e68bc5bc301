"""One file of embedded pictures: a plain ``.npy`` matrix with a list behind it.

Rows are float32; float16 and bfloat16 halve large ones. NumPy knows no bfloat16, so its rows stand
as the 16-bit integers that have the same bits.

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
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regraft.files import atomic_path

Matrix = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]
Precision = Literal["float32", "float16", "bfloat16"]
STORED_AS: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
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
        dtype: How a number is stored.
    """

    path: Path
    key: bytes
    count: int
    width: int
    dtype: np.dtype[Any] = STORED_AS["float32"]

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return self.width * self.dtype.itemsize

    def copy(self, pairs: Sequence[tuple[int, int]], result: Stored) -> None:
        """Copy rows into ``result``; ``pairs`` are (row here, row there).

        Raises:
            OSError: The file is gone.
            EOFError: The file was cut.
        """
        with self.path.open("rb", buffering=0) as stream:
            for row, position in pairs:
                stream.seek(_HEADER_BYTES + row * self.row_bytes)
                if stream.readinto(result[position].data) != self.row_bytes:
                    raise EOFError(f"{self.path} was cut")

    def is_intact(self, row: int, digest: bytes) -> bool:
        """Return whether a row can be read and is what was written for this picture and key."""
        try:
            with self.path.open("rb", buffering=0) as stream:
                stream.seek(_HEADER_BYTES + row * self.row_bytes)
                data = stream.read(self.row_bytes)
                stream.seek(_HEADER_BYTES + self.count * self.row_bytes + row * _ENTRY_BYTES)
                return stream.read(_ENTRY_BYTES) == digest + _check(self.key, digest, data)
        except OSError:
            return False


def encode(features: npt.NDArray[Any], precision: Precision) -> Stored:
    """Return numbers as they are stored; float32 is rounded to the nearest where bits are saved.

    Raises:
        OverflowError: A number is beyond the range of float16, 65504, and would become infinite.

    Example:
        >>> encode(np.array([[1.0, 2.5]], np.float32), "bfloat16").dtype
        dtype('uint16')
    """
    if precision != "bfloat16":
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(features, dtype=STORED_AS[precision])
        if precision == "float16" and np.isinf(stored).sum() > np.isinf(features).sum():
            raise OverflowError("a number is beyond the range of float16")
        return stored
    bits = np.ascontiguousarray(features, dtype="<f4").view("<u4")
    rounded: Stored = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded


def decode(stored: Stored, precision: Precision) -> Matrix:
    """Return stored numbers as float32.

    Example:
        >>> decode(encode(np.array([[1.0, 2.5]], np.float32), "bfloat16"), "bfloat16").tolist()
        [[1.0, 2.5]]
    """
    if precision != "bfloat16":
        return stored.astype(np.float32, copy=False)
    widened: Matrix = (stored.astype("<u4") << 16).view("<f4")
    return widened


def write_shard(path: Path, key: bytes, digests: Sequence[bytes], features: Stored) -> Shard:
    """Write rows atomically.

    Args:
        path: The new file.
        key: SHA-256 of all that shaped the numbers, 32 bytes.
        digests: SHA-256 of each row's picture, 32 bytes each.
        features: (n, width), as they are stored.

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
    matrix = np.ascontiguousarray(features)
    entries = b"".join(
        digest + _check(key, digest, row.tobytes())
        for digest, row in zip(digests, matrix, strict=True)
    )
    with atomic_path(path) as part, part.open("wb") as stream:
        stream.write(_header(len(matrix), matrix.shape[1], matrix.dtype))
        stream.write(matrix.data)
        stream.write(entries)
    return Shard(path, key, len(matrix), matrix.shape[1], matrix.dtype)


def open_shard(
    path: Path, key: bytes, width: int, dtype: np.dtype[Any] = STORED_AS["float32"]
) -> tuple[Shard, list[bytes]]:
    """Return a shard and the digest of each row's picture; the rows themselves are not read.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a complete shard of this width.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        row_bytes = width * dtype.itemsize
        count = (size - _HEADER_BYTES) // (row_bytes + _ENTRY_BYTES)
        if stream.read(_HEADER_BYTES) != _header(count, width, dtype):
            raise ValueError(f"no complete shard of width {width}")
        stream.seek(_HEADER_BYTES + count * row_bytes)
        entries = stream.read()
    if len(entries) != count * _ENTRY_BYTES:
        raise ValueError(f"no complete list of {count} entries")
    digests = [entries[i : i + 32] for i in range(0, len(entries), _ENTRY_BYTES)]
    return Shard(path, key, count, width, dtype), digests


def _header(count: int, width: int, dtype: np.dtype[Any]) -> bytes:
    # Written out here, because reading needs no parser when the bytes are known beforehand.
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({count}, {width}), }}"
    start = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return start + text.ljust(_HEADER_BYTES - 11).encode() + b"\n"


def _check(key: bytes, digest: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(row, digest_size=8, key=key + digest).digest()
