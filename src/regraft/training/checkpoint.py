"""Checkpoints of a training: safetensors and JSON, whole or not at all, the last two of them kept.

checkpoints/000012/state.json              where the training stood, with the hash of both files
checkpoints/000012/tensors.safetensors     what it has changed, moments included
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import regraft.files as disk
from regraft.backbones.checkpoint_files import read_state, write_state
from regraft.errors import RegraftError
from regraft.system import environment
from regraft.training.loop import State

_STATE, _TENSORS = "state.json", "tensors.safetensors"
_TENSOR = "tensor:"  # no name of a parameter has a colon
_KEPT = 2


@dataclass(eq=False)
class Progress:
    """How far a training has come.

    Attributes:
        phase: The index of the phase that is being run.
        finished: The records of the phases before it.
        epochs: The records of their epochs.
        state: Where this phase stands.
        tensors: What training has changed so far, by its name in the network.
        optimizer: The ``state_dict`` of the phase's optimizer, or None before its first step.
        mode: How the phase gets from images to logits, as JSON values; None before it has begun.
    """

    phase: int = 0
    finished: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    state: State = field(default_factory=State)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    mode: dict[str, Any] | None = None


class Checkpoints:
    """A folder of checkpoints of one piece of work.

    Args:
        folder: Where they stand.
        work: What the training is, as JSON values: its settings, data, classes, weights. Training
            resumes from a checkpoint of the same work only.
        every: Seconds between two checkpoints in the middle of a phase.

    Attributes:
        warnings: What a reader should know of them, one sentence each.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(tempfile.mkdtemp(), {"seed": 0})
        >>> checkpoints.write(Progress(phase=1, tensors={"head.weight": torch.ones(2)}))
        >>> checkpoints.read().phase
        1
    """

    def __init__(
        self, folder: str | os.PathLike[str], work: Mapping[str, Any], *, every: float = 30.0
    ) -> None:
        self.folder = Path(folder)
        self.work = dict(work)
        self.warnings: list[str] = []
        self._every = every
        self._pause = every
        self._last = time.monotonic()
        self._damaged: list[Path] = []

    def due(self) -> bool:
        """Return whether it is time for the next one."""
        return time.monotonic() - self._last >= self._pause

    def write(self, progress: Progress) -> None:
        """Write a checkpoint, and delete older ones but the last; on an error all stay.

        Raises:
            RegraftError: The disk is full or the folder cannot be written (code ``FILE-WRITE``).
        """
        start = time.monotonic()
        try:
            self._write(progress)
        finally:
            self._last = time.monotonic()
            # Large networks, slow disks: at most a tenth of the time goes into checkpoints.
            self._pause = max(self._every, 9 * (self._last - start)) if self._every else 0.0

    def last(self) -> Path | None:
        """Return the folder of the last checkpoint, or None."""
        places = self._places()
        return places[-1] if places else None

    def read(self) -> Progress | None:
        """Return the last progress that can be read, or None where there is none.

        What had to be said about it stands in ``warnings`` afterwards.

        Raises:
            RegraftError: The checkpoints are of other work (``TRAIN-RESUME``), or all are damaged
                (``TRAIN-CHECKPOINT``).
        """
        if self.folder.is_dir():
            disk.remove_leftovers(self.folder)
        problems, self._damaged = [], []
        for place in reversed(self._places()):
            try:
                content, tensors = _verified(place)
            except RegraftError as error:
                problems.append(f"the checkpoint {place.name} is damaged ({error})")
                self._damaged.append(place)
                continue
            if content["work"] != self.work:
                raise self._other_work(content["work"])
            self.warnings += [f"{problem}: the one before it is used" for problem in problems]
            self.warnings += _changes(content["environment"])
            return _progress(_with_tensors(content["progress"], tensors))
        if problems:
            what, why = "no checkpoint can be read", "; ".join(problems)
            hint = "delete the folder to begin again"
            raise RegraftError(what, path=self.folder, why=why, hint=hint, code="TRAIN-CHECKPOINT")
        return None

    def _write(self, progress: Progress) -> None:
        older = self._places()
        number = int(older[-1].name) + 1 if older else 1
        tensors: dict[str, Tensor] = {}
        state = {**vars(progress.state), "sums": progress.state.sums.tolist()}
        values = _without_tensors({**vars(progress), "state": state}, "progress", tensors)
        with disk.atomic_folder(self.folder / f"{number:06d}") as part:
            if tensors:
                write_state(part / _TENSORS, tensors)
            content = {
                "work": self.work,
                "environment": _versions(),
                "progress": values,
                "sha256": disk.sha256_file(part / _TENSORS) if tensors else None,
            }
            disk.write_json(part / _STATE, {**content, "checksum": disk.sha256_json(content)})
        sound = [place for place in self._places() if place not in self._damaged]
        for place in [*self._damaged, *sound[:-_KEPT]]:
            shutil.rmtree(place, ignore_errors=True)
        self._damaged = []

    def _places(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("[0-9]*") if p.name.isdigit() and p.is_dir())

    def _other_work(self, found: dict[str, Any]) -> RegraftError:
        names = sorted(k for k in {*found, *self.work} if found.get(k) != self.work.get(k))
        what, why = "the checkpoints here are of another training", f"different: {', '.join(names)}"
        hint = "repeat it with the same settings and images, or choose another folder"
        return RegraftError(what, path=self.folder, why=why, hint=hint, code="TRAIN-RESUME")


def restore_optimizer(
    optimizer: torch.optim.Optimizer, progress: Progress, network: nn.Module
) -> None:
    """Give a new optimizer its moments, and kept tensors the order in memory of their parameter.

    With another order the sums of a step would round otherwise.
    """
    assert progress.optimizer is not None
    optimizer.load_state_dict(progress.optimizer)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = _laid_out_like(parameter, value)
    own = network.state_dict()
    kept = progress.state.best_weights
    kept.update({name: _laid_out_like(own[name], t) for name, t in kept.items()})


def _laid_out_like(like: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(like, dtype=value.dtype).copy_(value)


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON has it, where a tensor stands by its name; collect the tensors."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {str(k): _without_tensors(v, f"{name}/{k}", tensors) for k, v in value.items()}
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `_without_tensors`."""
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    return {key: _with_tensors(item, tensors) for key, item in value.items()}


def _progress(values: dict[str, Any]) -> Progress:
    state, optimizer = values["state"], values["optimizer"]
    state["sums"] = np.array(state["sums"], dtype=np.float64)
    state["best"] = state["best"] and tuple(state["best"])
    if optimizer is not None:  # JSON has no numbers as keys
        optimizer["state"] = {int(index): kept for index, kept in optimizer["state"].items()}
    return Progress(**{**values, "state": State(**state)})


def _verified(place: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = disk.read_json(place / _STATE)
    if not isinstance(content, dict) or content.pop("checksum", None) != disk.sha256_json(content):
        raise RegraftError("it has changed", path=place / _STATE, code="TRAIN-CHECKPOINT")
    if content["sha256"] is None:
        return content, {}
    return content, read_state(place / _TENSORS, sha256=content["sha256"])


def _versions() -> dict[str, Any]:
    return {"versions": environment()["packages"], "threads": torch.get_num_threads()}


def _changes(before: Mapping[str, Any]) -> list[str]:
    now = _versions()
    changed = [key for key in now if before.get(key) != now[key]]
    if not changed:
        return []
    which = " and ".join(changed)
    return [f"{which} differ from before: the result is as good, its last bits may not be the same"]
