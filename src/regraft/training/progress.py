"""What is told while a network is trained: bar or lines, history.jsonl, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from regraft.errors import RegraftError, UsageError
from regraft.files import free_bytes, remove_leftovers, write_text
from regraft.progress import progress_bar


class Callback(Protocol):
    """Who hears of each epoch of a training."""

    def on_epoch(self, record: Mapping[str, Any], number: int) -> None:
        """Take what was measured in an epoch; they are counted from 1 over all phases."""

    def close(self) -> None:
        """Let go of files: the training has ended."""


class TensorBoard:
    """Write what is measured as TensorBoard's events; a callback of ``fit``.

    Args:
        folder: Where they stand.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._board = _summary_writer(folder)

    def on_epoch(self, record: Mapping[str, Any], number: int) -> None:
        """Write one value for each thing that was measured."""
        for name, value in record.items():
            if name not in {"phase", "epoch"}:
                self._board.add_scalar(name, value, number)
        self._board.flush()

    def close(self) -> None:
        """Write the last events."""
        self._board.close()


class Listeners:
    """Everybody who hears of each epoch.

    Args:
        file: ``history.jsonl``, one line per epoch, written as it goes; None for no file.
        callbacks: Who else hears of them.
        verbose: Whether to show progress on standard error.

    Attributes:
        notes: What a reader should know: that the file could not be written.
    """

    def __init__(
        self,
        *,
        file: Path | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
    ) -> None:
        self._file = file
        self._callbacks = tuple(callbacks)
        self.verbose = verbose
        self.notes: list[str] = []
        self._records: list[dict[str, Any]] = []
        self._whole = True  # whether the file holds all of them

    def begin(self, epochs: Sequence[dict[str, Any]]) -> None:
        """Start with the epochs that an interrupted training had finished."""
        self._records = list(epochs)
        if self._file is not None:
            remove_leftovers(self._file.parent)
        self._write_all()

    def say(self, text: str) -> None:
        """Show one line on standard error."""
        if self.verbose:
            print(text, file=sys.stderr)

    @contextlib.contextmanager
    def phase(self, title: str, steps: int) -> Iterator[Callable[[], None]]:
        """Give a function to call after each step, while the phase lasts."""
        bar = self.verbose and sys.stderr.isatty()  # elsewhere there is a line per epoch
        with progress_bar(title, steps, unit="steps", visible=bar) as advance:
            yield lambda: advance(1)

    def epoch(self, record: dict[str, Any], *, of: int) -> None:
        """Tell about a finished epoch.

        Args:
            record: ``phase``, ``epoch`` and what was measured.
            of: How many epochs the phase has.
        """
        self._records.append(record)
        if self._file is not None and self._whole:
            try:
                with self._file.open("a", encoding="utf-8") as stream:
                    stream.write(f"{json.dumps(record)}\n")
            except OSError as error:
                self._missed(self._file, error.strerror or str(error))
        else:
            self._write_all()
        for callback in self._callbacks:
            callback.on_epoch(record, len(self._records))
        if self.verbose and not sys.stderr.isatty():
            print(line(record, of=of), file=sys.stderr)

    def _write_all(self) -> None:
        if self._file is None:
            return
        try:
            write_text(self._file, "".join(f"{json.dumps(record)}\n" for record in self._records))
            self._whole, self.notes = True, []
        except RegraftError as error:
            self._missed(self._file, error.why)

    def _missed(self, file: Path, why: str) -> None:
        """Go on without the file: it is written again, whole, as soon as that is possible."""
        if not self.notes:
            free = free_bytes(file)
            self.notes = [f"{file} could not be written: {why}; {free:,} bytes are free there"]
            self.say(f"warning: {self.notes[0]}")
        self._whole = False

    def close(self) -> None:
        """Let go of files."""
        if not self._whole:
            self._write_all()
        for callback in self._callbacks:
            callback.close()


def line(record: dict[str, Any], *, of: int) -> str:
    """Return an epoch as one line.

    Example:
        >>> measured = {"train_loss": 0.5, "train_accuracy": 0.8, "lr": 0.001, "seconds": 2.0}
        >>> line({"phase": 1, "epoch": 2, **measured}, of=4)
        'phase 1, epoch 2 of 4: loss 0.5000, accuracy 80.0 %, rate 0.001, 2.0 s, 4 s left'
    """
    parts = [f"loss {record['train_loss']:.4f}", f"accuracy {100 * record['train_accuracy']:.1f} %"]
    if "val_loss" in record:
        parts.append(f"validation {record['val_loss']:.4f}, {100 * record['val_accuracy']:.1f} %")
    left = (of - record["epoch"]) * record["seconds"]
    parts += [f"rate {record['lr']:.3g}", f"{record['seconds']:.1f} s", f"{left:.0f} s left"]
    return f"phase {record['phase']}, epoch {record['epoch']} of {of}: {', '.join(parts)}"


def _summary_writer(folder: str | os.PathLike[str]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard is not installed", why=str(error), hint="pip install regraft[track]"
        ) from error
    return SummaryWriter(os.fspath(folder))
