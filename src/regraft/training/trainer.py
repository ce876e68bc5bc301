"""Phase after phase: freeze, choose the mode, run the loop, and keep what a resumed run needs."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from regraft.backbones.backbone import Backbone, retrained
from regraft.backbones.network import state_sha256
from regraft.backbones.spec import Compute
from regraft.errors import RegraftError, UsageError
from regraft.settings import settings_class, to_json
from regraft.system import choose_device, exact_float32
from regraft.training.activations import (
    ActivationCache,
    ExecutionMode,
    Predictor,
    Runtime,
    choose_mode,
    recall_mode,
)
from regraft.training.augment import Augmentation
from regraft.training.batches import AugmentedImages, Inputs, LabelledImages, Part, balanced_order
from regraft.training.callbacks import Callback, History, ProgressDisplay, stoppable
from regraft.training.checkpoint import Checkpoints, Progress, restore_optimizer
from regraft.training.heads import head_to_json
from regraft.training.loop import Loop, LoopConfig, State
from regraft.training.network import Trained, TransferNetwork, parameter_groups
from regraft.training.optim import ClassWeight, Output, build_optimizer, class_weights, make_loss
from regraft.training.phases import AboveZero, Phase, frozen
from regraft.training.regularize import Regularization


@settings_class(kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Args:
        phases: What is trained, phase by phase; by default a new head on the frozen trunk.
        augment: How training images are changed by chance; None for not at all.
        views: How many augmented views of each image there are, kept like images; None for a new
            view in every epoch, which then runs the whole network.
        regularize: What keeps the network from learning its images by heart.
        class_weight: What an error counts: ``"balanced"``, a weight per class; None: the same.
        sampling: ``"balanced"`` to draw all classes equally often; None takes each image once.
        output: ``"softmax"``, or for two classes ``"sigmoid"``: one output.
        batch_size: Images per step, 2 or more.
        seed: Everything random is drawn from it, 0 to 4294967295.
        time_budget: Minutes after which training ends with what it has; None for no end.
        compute: Where and how numbers are computed and kept.

    Raises:
        UsageError: A value is out of range, or views are asked for without an augmentation.

    Example:
        >>> TrainingConfig(batch_size=8).phases[0].epochs
        30
    """

    phases: tuple[Phase, ...] = tuple(frozen())
    augment: Augmentation | None = None
    views: Annotated[int, Field(ge=1)] | None = None
    regularize: Regularization = Regularization()
    class_weight: ClassWeight = None
    sampling: Literal["balanced"] | None = None
    output: Output = "softmax"
    batch_size: Annotated[int, Field(ge=2)] = 32
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    time_budget: AboveZero | None = None
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        if self.views is not None and self.augment is None:
            raise UsageError("views of images need an augmentation", hint="give augment, too")

    def check(self, classes: Sequence[str], *, validation: bool) -> None:
        """Refuse data that does not fit, before anything is read or built.

        Raises:
            UsageError: There is one class only, or a setting needs something else.
        """
        choose_device(self.compute.device)  # refuses one that is not here
        if len(classes) < 2:
            raise UsageError("a classifier needs two classes or more", why=f"found {classes}")
        needs = [p for p in self.phases if p.patience is not None or p.schedule == "plateau"]
        if needs and not validation:
            raise UsageError(
                "patience and the schedule plateau need validation images",
                hint="give fit(..., validation=...), or choose another schedule and no patience",
            )
        if self.output == "sigmoid" and len(classes) != 2:
            raise UsageError(
                "a sigmoid output tells two classes apart",
                why=f"there are {len(classes)}",
                hint="take the output softmax",
            )


# What of a configuration changes neither the result nor what a checkpoint holds.
NOT_IN_RESUME_KEY = frozenset({"time_budget", "device", "cache"})


def resume_key(
    config: TrainingConfig,
    network: TransferNetwork,
    train: LabelledImages,
    validation: LabelledImages | None,
) -> dict[str, Any]:
    """Return what a training is, as JSON values: only the same work is resumed.

    All of the configuration counts but what is excluded by name. Arguments of the backbone, such as
    drop rates, shape training and stand in no tensor. The network is as before its first step.
    """
    values = to_json(config)
    values |= values.pop("compute")
    try:
        head = head_to_json(network.head_settings)
    except UsageError:  # of somebody's own only the class is known
        head = {"kind": type(network.head_settings).__qualname__}
    return {
        **{name: value for name, value in values.items() if name not in NOT_IN_RESUME_KEY},
        "head": head,
        "weights": state_sha256(network),
        "arguments": to_json(train.backbone.spec.arguments),
        "preprocessing": to_json(network.preprocessing),
        "classes": list(train.classes),
        "images": [None if p is None else p.fingerprint() for p in (train, validation)],
    }


@dataclass(frozen=True)
class PreparedPhase:
    """A phase that is ready to run; the checksum is over all frozen tensors, before activations."""

    loop: Loop
    trained: Trained
    mode: ExecutionMode
    checksum: str


class Trainer:
    """Trains a network through phases.

    Args:
        network: Trunk and head.
        config: How it is trained.
        train: What is learned from.
        validation: What decides which epoch was best; None: the last one stays.
        checkpoints: A folder for checkpoints, from which training resumes; ``history.jsonl`` is
            written beside it. None for neither.
        checkpoint_every: Seconds between two of them; 0 for one after every step.
        callbacks: Who hears of the training.
        verbose: Whether to show progress on standard error.
        warnings: What a reader should know already, one sentence each.

    Attributes:
        phases: What is trained, regularized.
        runtime: The network on its device, and what it computes with.
        cache: What the last phase computed activations with; None if it ran live.
        embedded: How many images or views passed through the trunk to be kept or were run live.
    """

    def __init__(
        self,
        network: TransferNetwork,
        config: TrainingConfig,
        train: LabelledImages,
        validation: LabelledImages | None,
        *,
        checkpoints: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 30.0,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.phases = config.regularize.phases(config.phases)
        self.train = train
        self.validation = validation if validation is not None and len(validation) else None
        self.network = network
        self.backbone = train.backbone
        self.verbose = verbose
        self.runtime = Runtime.prepare(
            network, train.backbone, config.compute, batch_size=config.batch_size, verbose=verbose
        )
        self.callbacks = [*([ProgressDisplay()] if verbose else []), *callbacks]
        self.checkpoints: Checkpoints | None = None
        if checkpoints is not None:
            work = resume_key(config, network, train, validation)
            self.checkpoints = Checkpoints(checkpoints, work, every=checkpoint_every)
            self.callbacks.append(History(Path(checkpoints).parent / "history.jsonl"))
        self.cache: ActivationCache | None = None
        self.embedded = 0
        self._progress = Progress()
        self._warnings = list(warnings)
        if self.runtime.compute.precision != config.compute.precision:
            device = self.runtime.compute.device
            self._warnings.append(f"this {device} has no bf16 arithmetic; training uses fp32")

    @property
    def records(self) -> list[dict[str, Any]]:
        """One record per finished phase, without its epochs."""
        return [
            {key: value for key, value in record.items() if key != "epochs"}
            for record in self._progress.finished
        ]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """One record per epoch of the finished phases."""
        return [epoch for record in self._progress.finished for epoch in record["epochs"]]

    @property
    def warnings(self) -> list[str]:
        """What a reader should know about how it went."""
        of_checkpoints = [] if self.checkpoints is None else self.checkpoints.warnings
        heard = [text for callback in self.callbacks for text in callback.warnings]
        batchnorm = self.network.has_batchnorm
        of_phases = [text for record in self.records for text in phase_warnings(record, batchnorm)]
        return [*self._warnings, *of_checkpoints, *heard, *of_phases]

    def run(self, phases: int | None = None) -> None:
        """Run all phases, or those that an interrupted run has left; then the network predicts.

        Args:
            phases: Only so many of the first ones.

        Raises:
            RegraftError: The loss is NaN or infinite, the memory is not enough, or the checkpoints
                are of other work.
            ImageError: An image cannot be used.
        """
        found = self.checkpoints.read() if self.checkpoints else None
        if found is not None:
            self._resume(found)
        interrupted = [_numbered(record, self._progress.phase) for record in self._state.records]
        self._tell("on_start", [*self.epochs, *interrupted])
        try:
            with exact_float32(self.runtime.compute.device):
                for index in range(self._progress.phase, len(self.phases[:phases])):
                    self._run_phase(index)
            self.network.eval()
        except RegraftError as error:
            if self.checkpoints is not None and (last := self.checkpoints.last()):
                error.hint += f"{error.hint and '; '}the last good checkpoint is {last}"
            raise
        finally:
            self._tell("close")

    def prepare(self, index: int) -> PreparedPhase:
        """Get a phase ready: freeze, choose the mode, and compute the activations that it keeps.

        Args:
            index: The phase, counted from 0.

        Raises:
            ImageError: An image cannot be used.
        """
        start, phase = time.perf_counter(), self.phases[index]
        trained = self.network.freeze(phase)
        self.network.eval()  # the phase before may have left batch norm in training mode
        checksum = self.network.frozen_checksum()
        mode = self._mode(phase, trained)
        self._say(self._title(index, phase, mode))
        mode, (train, validation, network) = self._entered(index, mode)
        balanced = functools.partial(balanced_order, self.train.codes)
        loop = Loop(
            network,
            self._optimizer(phase, parameter_groups(self.network, phase, trained)),
            phase,
            train,
            validation,
            config=self._loop_config(start),
            number=index,
            set_mode=self.network.set_mode,
            tensors=self.network.trained_tensors,
            order=balanced if self.config.sampling == "balanced" else None,
        )
        return PreparedPhase(loop, trained, mode, checksum)

    def trained_backbone(self) -> Backbone:
        """Return the trunk with the facts of the weights that it has now."""
        moved = any(name.startswith("trunk.") for name in self._progress.tensors)
        return retrained(self.backbone) if moved else self.backbone

    def predictor(self) -> Predictor:
        """Return what predicts the way that the last phase ran, from the same activations."""
        return Predictor(self.runtime, self.cache)

    @property
    def _state(self) -> State:
        return self._progress.state

    def _resume(self, found: Progress) -> None:
        self._progress = found
        own = self.network.state_dict()
        with torch.no_grad():
            for name, value in found.tensors.items():
                own[name].copy_(value)
        if found.phase < len(self.phases):
            reached = f"phase {found.phase + 1}, epoch {found.state.epoch + 1}"
            self._say(f"training resumes from a checkpoint: {reached}")
        elif found.finished:  # only the end is left, and what predicts as the last phase ran
            runtime = replace(self.runtime, backbone=self.trained_backbone())
            self.cache = recall_mode(found.finished[-1], runtime).cache

    def _run_phase(self, index: int) -> None:
        start, earlier = time.perf_counter(), self._state.seconds
        prepared = self.prepare(index)
        self._progress.mode = prepared.mode.facts()
        self._run_loop(prepared.loop, index)
        state, loop, trained = self._state, prepared.loop, prepared.trained
        moved = sum(p.numel() for group in loop.optimizer.param_groups for p in group["params"])
        record = {
            "phase": index + 1,
            "trained": to_json(loop.phase),
            "share_of_stages": trained.stages,
            "share_of_parameters": moved / self.network.size(),
            "parameters": moved,
            **prepared.mode.facts(),
            "best_epoch": None if state.best is None else state.best[1],
            "last_epoch": state.epoch,
            "steps_per_epoch": loop.steps_per_epoch(),
            "stopped": state.stopped,
            "frozen": {"before": prepared.checksum, "after": self.network.frozen_checksum()},
            "micro_batch": state.micro_batch,
            "seconds": time.perf_counter() - start + earlier,
            "epochs": [_numbered(record, index) for record in state.records],
        }
        self.cache = prepared.mode.cache
        finished = [*self._progress.finished, record]
        fresh = State(micro_batch=state.micro_batch)
        self._progress = Progress(index + 1, finished, fresh, self._moved())
        self._write(self._progress)

    def _run_loop(self, loop: Loop, index: int) -> None:
        state, done = self._state, len(self.epochs)
        steps = loop.phase.epochs * loop.steps_per_epoch()
        self._tell("on_phase", f"Phase {index + 1} of {len(self.phases)}", steps)

        def write() -> None:
            moments = loop.optimizer.state_dict()
            self._write(replace(self._progress, tensors=self._moved(), optimizer=moments))

        def write_if_due() -> None:
            if self.checkpoints is not None and self.checkpoints.due():
                write()

        def on_step(_state: State) -> None:
            self._tell("on_step")
            write_if_due()

        def on_epoch(state: State) -> None:
            record, number = _numbered(state.records[-1], index), done + state.epoch
            self._tell("on_epoch", record, number=number, epochs=loop.phase.epochs)
            write_if_due()

        with stoppable(write) as check_stop:
            loop.run(state, on_step=on_step, on_epoch=on_epoch, check_stop=check_stop)
        self._tell("on_phase_end")

    def _write(self, progress: Progress) -> None:
        """Write a checkpoint; where that fails training goes on, the ones before are there."""
        if self.checkpoints is None:
            return
        if failed := self.checkpoints.write(progress):
            self._say(f"warning: {failed}")

    def _entered(
        self, index: int, mode: ExecutionMode
    ) -> tuple[ExecutionMode, tuple[Part, Part | None, nn.Module]]:
        """Return what a phase learns from; live where activations do not fit on the disk."""
        try:
            return mode, self._parts(mode)
        except RegraftError as error:
            if mode.cache is None or error.code != "CACHE-WRITE":
                raise
            self._warnings.append(
                f"phase {index + 1} runs the whole network in every step: {error}"
            )
            self._say(f"warning: {self._warnings[-1]}")
        mode = ExecutionMode(None, why="its activations could not be stored")
        return mode, self._parts(mode)

    def _mode(self, phase: Phase, trained: Trained) -> ExecutionMode:
        config = self.config
        runtime = replace(self.runtime, backbone=self.trained_backbone())
        if self._progress.mode is not None:  # half-trained weights may measure otherwise
            return recall_mode(self._progress.mode, runtime)
        changing = ""
        if config.regularize.mixing is not None:
            changing = "images are mixed in every batch"
        elif config.augment is not None and config.views is None:
            changing = "images are augmented anew in every epoch"
        samples = len(self.train) * (config.views or 1) + len(self.validation or ())
        loss = self._loop_settings.loss
        return choose_mode(
            runtime, phase, trained, self.train, loss, samples=samples, changing=changing
        )

    def _parts(self, mode: ExecutionMode) -> tuple[Part, Part | None, nn.Module]:
        config, held, cache = self.config, self.validation, mode.cache
        validation: Inputs | None = None
        if cache is None:
            network: nn.Module = self.network
            train: Inputs = self.train.pixels if config.augment is None else self._augmented()
            validation = None if held is None else held.pixels
            self.embedded += len(self.train) + len(held or ())
        else:
            network = cache.split_point.behind(self.network)
            if config.augment is None:
                train, computed = cache.plain(self.train.images)
            else:
                about = {"augment": to_json(config.augment), "seed": config.seed}
                train, computed = cache.views(self._augmented(), config.views or 1, about)
            self.embedded += computed
            if held is not None:
                validation, computed = cache.plain(held.images)
                self.embedded += computed
        kept = None if held is None or validation is None else Part(validation, held.targets)
        return Part(train, self.train.targets), kept, network

    def _augmented(self) -> AugmentedImages:
        assert self.config.augment is not None
        before = sum(phase.epochs for phase in self.phases[: self._progress.phase])
        return AugmentedImages(
            self.train.pixels,
            self.config.augment,
            seed=self.config.seed,
            views=self.config.views,
            before=before,
        )

    def _optimizer(self, phase: Phase, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        optimizer = build_optimizer(phase, groups)
        if self._progress.optimizer is not None:
            restore_optimizer(optimizer, self._progress, self.network)
        return optimizer

    @cached_property
    def _loop_settings(self) -> LoopConfig:
        config, device = self.config, self.runtime.compute.device
        chosen = config.regularize
        weights = class_weights(config.class_weight, self.train.labels, self.train.classes)
        weights = None if weights is None else weights.to(device)
        smoothing = chosen.label_smoothing
        return LoopConfig(
            batch_size=config.batch_size,
            seed=config.seed,
            device=device,
            precision=self.runtime.compute.precision,
            loss=make_loss(config.output, label_smoothing=smoothing, class_weights=weights),
            class_weights=weights,
            validation_loss=make_loss(config.output),
            clip=chosen.clip,
            mix=chosen.mix(),
            average=chosen.average,
        )

    def _loop_config(self, start: float) -> LoopConfig:
        """Return what the loop needs, with the time that is left of the budget for this phase."""
        if self.config.time_budget is None:
            return self._loop_settings
        spent = sum(record["seconds"] for record in self._progress.finished)
        spent += time.perf_counter() - start  # for activations
        left = max(60 * self.config.time_budget - spent, 0.0)
        return replace(self._loop_settings, time_budget=left)

    def _moved(self) -> dict[str, Tensor]:
        """Return all that training may have changed so far."""
        names = {*self._progress.tensors, *self.network.trained_tensors()}
        return {name: t for name, t in self.network.state_dict().items() if name in names}

    def _title(self, index: int, phase: Phase, mode: ExecutionMode) -> str:
        how = f"the whole network runs in every step ({mode.why})"
        if mode.cache is not None:
            where = f"activations of {mode.cache.split_point.name} are kept"
            how = f"{where}, {mode.size / 1e6:,.1f} MB"
        return f"phase {index + 1} of {len(self.phases)}, {phase.epochs} epochs: {how}"

    def _say(self, text: str) -> None:
        self._tell("on_message", text)

    def _tell(self, event: str, *arguments: Any, **options: Any) -> None:
        """Tell every callback of an event; pass on what it warns of at once."""
        for callback in self.callbacks:
            known = callback.warnings
            getattr(callback, event)(*arguments, **options)
            for text in callback.warnings:
                if text not in known:
                    self._say(f"warning: {text}")


def phase_warnings(record: Mapping[str, Any], batchnorm: bool) -> list[str]:
    """Return what went otherwise in a finished phase than one would expect.

    Example:
        >>> same = {"frozen": {"before": "ab", "after": "ab"}, "trained": {"batchnorm": "frozen"}}
        >>> record = {"phase": 1, "micro_batch": None, "stopped": "time budget", "last_epoch": 3}
        >>> phase_warnings({**record, **same}, batchnorm=True)
        ['phase 1 was ended by the time budget after 3 epochs']
    """
    found, name, trained = [], f"phase {record['phase']}", record["trained"]
    if record["micro_batch"] is not None:
        found.append(
            f"{name}: the memory was not enough for whole batches; "
            f"{record['micro_batch']} images at a time passed the network"
        )
    asked, made = trained.get("steps"), record.get("steps_per_epoch")
    if asked is not None and made is not None and made < asked:
        found.append(
            f"{name}: {asked} steps per epoch were asked for, the training part fills {made}; "
            "more epochs show the images more often"
        )
    if record["stopped"] == "time budget":
        found.append(f"{name} was ended by the time budget after {record['last_epoch']} epochs")
    moving = trained["batchnorm"] == "batch_statistics"
    if batchnorm and moving and record["share_of_stages"] < 1:
        found.append(
            f"{name}: frozen batch norm moved with the statistics of each batch, so the head "
            "learned from other features than it predicts with; leave "
            'batchnorm="batch_statistics" out unless this is meant'
        )
    if record["frozen"]["before"] != record["frozen"]["after"]:
        found.append(f"{name}: frozen tensors have changed; this should never happen")
    return found


def _numbered(record: dict[str, Any], index: int) -> dict[str, Any]:
    return {"phase": index + 1, **record}
