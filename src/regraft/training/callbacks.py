"""Who hears of a training: progress, history.jsonl, live.json, TensorBoard; and Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from regraft.errors import RegraftError, UsageError
from regraft.files import read_json, remove_leftovers, write_json, write_text
from regraft.system import progress_bar, shows_bars
from regraft.training.batches import LabelledImages
from regraft.training.optim import probabilities

_SAMPLES = 12  # validation images that are shown to whoever looks on
_MOST_EPOCHS = 60  # of which it can be seen what they were taken for
_PAUSE_SECONDS = 1.0  # between two writes of what is only to be looked at


class Callback:
    """Hears of a training as it goes; override what you need.

    One that cannot write its file (RegraftError, OSError) ends no training: it becomes a warning.

    Example:
        >>> class Best(Callback):
        ...     def on_epoch(self, record, *, number, epochs):
        ...         self.accuracy = max(record["val_accuracy"], getattr(self, "accuracy", 0))
    """

    def on_start(self, records: Sequence[dict[str, Any]]) -> None:
        """Training begins, or resumes after the epochs that an interrupted one had finished."""

    def on_phase(self, title: str, steps: int) -> None:
        """A phase of so many steps begins."""

    def on_step(self) -> None:
        """A step was taken."""

    def on_phase_end(self) -> None:
        """The phase is over."""

    def on_validation(self, logits: Tensor) -> None:
        """A batch of the validation images went through the network, in their order.

        Args:
            logits: What came out, (images, classes), or (images, 1) of a sigmoid output.
        """

    def on_epoch(self, record: dict[str, Any], *, number: int, epochs: int) -> None:
        """An epoch is finished.

        Args:
            record: ``phase``, ``epoch`` and what was measured; of the training part while it was
                trained: before each step, with dropout, on images as they were augmented.
            number: Which epoch it is, counted from 1 over all phases.
            epochs: How many epochs its phase has.
        """

    def on_message(self, text: str) -> None:
        """Something should be said that is no number."""

    def close(self) -> None:
        """Let go of files and bars: the training is over, or was interrupted."""


class ProgressDisplay(Callback):
    """Shows a bar per phase on a terminal or in a notebook, and a line per epoch elsewhere."""

    def __init__(self) -> None:
        self._bar = contextlib.ExitStack()
        self._advance: Callable[[int], None] = lambda _steps: None

    def on_phase(self, title: str, steps: int) -> None:
        """Begin a bar."""
        bar = progress_bar(title, steps, unit="steps", visible=shows_bars())
        self._advance = self._bar.enter_context(bar)

    def on_step(self) -> None:
        """Move the bar."""
        self._advance(1)

    def on_epoch(self, record: dict[str, Any], *, number: int, epochs: int) -> None:
        """Write a line where there is no bar."""
        if not shows_bars():
            print(line(record, of=epochs), file=sys.stderr)

    def on_message(self, text: str) -> None:
        """Write it."""
        print(text, file=sys.stderr)

    def on_phase_end(self) -> None:
        """End the bar."""
        self._bar.close()

    close = on_phase_end


class History(Callback):
    """Writes one line of JSON per epoch; the whole file again where an earlier line is missing.

    Args:
        file: ``history.jsonl``.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._records: list[dict[str, Any]] = []
        self._incomplete = False

    def on_start(self, records: Sequence[dict[str, Any]]) -> None:
        """Write the epochs that were finished before."""
        self._records, self._incomplete = list(records), True
        remove_leftovers(self._file.parent)
        self.close()

    def on_epoch(self, record: dict[str, Any], *, number: int, epochs: int) -> None:
        """Add a line."""
        self._records.append(record)
        if not self._incomplete:
            self._incomplete = True
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(f"{json.dumps(record)}\n")
            self._incomplete = False
        self.close()

    def close(self) -> None:
        """Write the whole file where something is missing in it."""
        if self._incomplete:
            write_text(self._file, "".join(f"{json.dumps(r)}\n" for r in self._records))
            self._incomplete = False


class LiveFile(Callback):
    """Keeps what the network takes the validation images for, for whoever looks on.

    Args:
        file: ``live.json``.
        validation: The images; of a few of them the answer in each epoch is kept.
        facts: What else shall stand in the file, JSON values.
    """

    def __init__(self, file: Path, validation: LabelledImages | None, **facts: Any) -> None:
        self._file = file
        self._written = 0.0
        self._answers: list[NDArray[np.float64]] = []
        self._content: dict[str, Any] = {**facts, "epochs": [], "images": [], "counts": []}
        if validation is not None:
            self._truth = validation.codes
            every = np.linspace(0, len(validation) - 1, _SAMPLES)
            self._few = np.unique(every.astype(np.int64))
            shown = [(_path_of(validation.images[at]), validation.labels[at]) for at in self._few]
            self._content |= {"classes": list(validation.classes), "images": shown}

    def on_start(self, records: Sequence[dict[str, Any]]) -> None:
        """Go on from what an interrupted training has left."""
        with contextlib.suppress(RegraftError, LookupError, TypeError):
            left = read_json(self._file)
            known = [epoch for epoch in left["epochs"] if epoch["number"] <= len(records)]
            self._content |= {"epochs": known, "counts": left["counts"] if known else []}
        self.close()

    def on_validation(self, logits: Tensor) -> None:
        """Keep the most probable class of each image, and its probability."""
        best = probabilities(logits).max(1)
        self._answers.append(np.column_stack([best.indices.numpy(), best.values.numpy()]))

    def on_epoch(self, record: dict[str, Any], *, number: int, epochs: int) -> None:
        """Count what was taken for what."""
        if self._answers:
            answers, self._answers = np.concatenate(self._answers), []
            pairs = np.column_stack([self._truth, answers[:, 0].astype(np.int64)])
            cells, counts = np.unique(pairs, axis=0, return_counts=True)
            few = [(int(code), round(share, 4)) for code, share in answers[self._few].tolist()]
            kept = self._content["epochs"][1 - _MOST_EPOCHS :]
            self._content["epochs"] = [*kept, {"number": number, "answers": few}]
            self._content["counts"] = np.column_stack([cells, counts]).tolist()
        if time.monotonic() - self._written >= _PAUSE_SECONDS:
            self.close()

    def close(self) -> None:
        """Write the file."""
        write_json(self._file, self._content)
        self._written = time.monotonic()


class TensorBoard(Callback):
    """Writes what is measured as TensorBoard's events.

    Args:
        folder: Where they stand.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            what, hint = "TensorBoard is not installed", "pip install regraft[track]"
            raise UsageError(what, why=str(error), hint=hint) from error
        self._board = SummaryWriter(os.fspath(folder))

    def on_epoch(self, record: dict[str, Any], *, number: int, epochs: int) -> None:
        """Write one value for each thing that was measured."""
        for name, value in record.items():
            if name not in {"phase", "epoch"}:
                self._board.add_scalar(name, value, number)
        self._board.flush()

    def close(self) -> None:
        """Write the last events."""
        self._board.close()


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


def _path_of(image: Any) -> str | None:
    """Return where an image lies, the home folder as ``~``; None for one that is no file."""
    if not isinstance(image, str | os.PathLike):
        return None
    path, home = Path(image).absolute(), Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


class _Stop(BaseException):
    pass


@contextlib.contextmanager
def stoppable(write: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Give a function to call between two steps; after Ctrl-C or SIGTERM it ends the block.

    Then a checkpoint is written and the program's own handler gets the signal. A second signal
    goes to that handler at once. A signal that the program ignores stays ignored.

    Raises:
        SystemExit: The program's handler let the signal pass; what was stopped is not finished.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread may listen
        return
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Shells let programs in the background ignore Ctrl-C; a handler of C cannot be put back.
    before = {n: handler for n, handler in before.items() if handler not in {signal.SIG_IGN, None}}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)
        restore()

    def check_stop() -> None:
        if arrived:
            raise _Stop

    for number in before:
        signal.signal(number, remember)
    try:
        with contextlib.suppress(_Stop):
            yield check_stop
    finally:
        restore()
    if arrived:
        write()
        signal.raise_signal(arrived[0])
        raise SystemExit(128 + arrived[0])
