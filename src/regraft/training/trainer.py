"""Phase after phase: freeze, choose the mode, run the loop, and keep what a resumed run needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from regraft.backbones.backbone import Backbone, retrained
from regraft.backbones.network import state_sha256
from regraft.backbones.spec import Compute
from regraft.errors import RegraftError, UsageError
from regraft.files import free_bytes
from regraft.settings import settings_class, to_json
from regraft.system import choose_device, exact_float32
from regraft.training import activations
from regraft.training.augment import Augmentation
from regraft.training.batches import AugmentedImages, Inputs, LabelledImages, Part, balanced_order
from regraft.training.callbacks import Callback, History, LiveFile, ProgressDisplay, stoppable
from regraft.training.checkpoint import Checkpoints, Progress, restore_optimizer
from regraft.training.heads import head_to_json
from regraft.training.loop import Loop, LoopConfig, State
from regraft.training.network import Trained, TransferNetwork
from regraft.training.optim import ClassWeight, Output, build_optimizer, class_weights, make_loss
from regraft.training.phases import AboveZero, Phase, frozen
from regraft.training.regularize import Regularization


@settings_class(kw_only=True)
class TrainingConfig:
    """How a network is trained; the fields mean what they mean to a ``NetworkClassifier``.

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
    focal: Annotated[float, Field(ge=0)] | None = None
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
        if not validation and any(phase.patience is not None for phase in self.phases):
            hint = "give fit(..., validation=...), or no patience"
            raise UsageError("patience needs validation images", hint=hint)
        if self.output == "sigmoid" and len(classes) != 2:
            why, hint = f"there are {len(classes)}", "take the output softmax"
            raise UsageError("a sigmoid output tells two classes apart", why=why, hint=hint)


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


class Trainer:
    """Trains a network through phases.

    Args:
        network: Trunk and head.
        config: How it is trained.
        train: What is learned from.
        validation: What decides which epoch was best; None: the last one stays.
        checkpoints: A folder to resume from, ``history.jsonl`` and ``live.json`` beside it, which
            tell of each epoch; None for none of them.
        checkpoint_every: Seconds between two of them; 0 for one after every step.
        callbacks: Who hears of the training.
        verbose: Whether to show progress on standard error.
        warnings: What a reader should know already, one sentence each.

    Attributes:
        phases: What is trained, regularized.
        progress: How far it has come: records of phases and epochs, and where the phase stands.
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
        if config.augment is not None:
            before = config.augment.before(train.backbone.preprocessing)
            train = replace(train, preprocessing=before)
        self.train = train
        self.validation = validation if validation is not None and len(validation) else None
        self.network = network
        self.runtime = activations.Runtime.prepare(
            network, train.backbone, config.compute, batch_size=config.batch_size, verbose=verbose
        )
        self.callbacks = [*([ProgressDisplay()] if verbose else []), *callbacks]
        self.checkpoints: Checkpoints | None = None
        if checkpoints is not None:
            work = resume_key(config, network, train, validation)
            self.checkpoints = Checkpoints(checkpoints, work, every=checkpoint_every)
            place = Path(checkpoints).parent
            planned = [phase.epochs for phase in self.phases]
            facts = {"planned": planned, "time_budget": config.time_budget}
            live = LiveFile(place / "live.json", self.validation, **facts)
            self.callbacks += [History(place / "history.jsonl"), live]
        self.cache: activations.ActivationCache | None = None
        self.embedded = 0
        self.progress = Progress()
        self._failed: dict[str, str] = {}
        self._loop_config = self._make_loop_config()
        self._warnings = list(warnings)
        if self.runtime.compute.precision != config.compute.precision:
            device = self.runtime.compute.device
            self._warnings.append(f"this {device} has no bf16 arithmetic; training uses fp32")

    @property
    def warnings(self) -> list[str]:
        """What a reader should know about how it went."""
        of_checkpoints = [] if self.checkpoints is None else self.checkpoints.warnings
        batchnorm = self.network.has_batchnorm
        finished = self.progress.finished
        of_phases = [text for record in finished for text in phase_warnings(record, batchnorm)]
        return [*self._warnings, *of_checkpoints, *self._failed.values(), *of_phases]

    def run(self) -> None:
        """Run all phases, or those that an interrupted run has left; then the network predicts.

        Raises:
            RegraftError: The loss is NaN, the memory is full, or the checkpoints are of other work.
            ImageError: An image cannot be used.
        """
        found = self.checkpoints.read() if self.checkpoints else None
        if found is not None:
            self._resume(found)
        self._tell("on_start", [*self.progress.epochs, *self.progress.state.records])
        try:
            with exact_float32(self.runtime.compute.device):
                for index in range(self.progress.phase, len(self.phases)):
                    self._run_phase(index)
            self.network.eval()
        except RegraftError as error:
            if self.checkpoints is not None and (last := self.checkpoints.last()):
                error.hint += f"{error.hint and '; '}the last good checkpoint is {last}"
            raise
        finally:
            self._tell("close")

    def prepare(self, index: int, title: str = "") -> tuple[Loop, dict[str, Any]]:
        """Get a phase ready: freeze, choose the mode, and compute the activations that it keeps.

        Args:
            index: The phase, counted from 0.
            title: What is done, for the progress; by default which phase it is.

        Returns:
            What runs it, and its record as far as it is known before.
        """
        start, phase = time.perf_counter(), self.phases[index]
        trained = self.network.freeze(phase)
        self.network.eval()  # the phase before may have left batch norm in training mode
        checksum = self.network.frozen_checksum()
        mode = self._mode(phase, trained)
        self.cache, self.progress.mode = mode.cache, mode.facts()
        title = title or f"phase {index + 1} of {len(self.phases)}, {phase.epochs} epochs"
        how = f"the whole network runs in every step ({mode.why})"
        if mode.cache is not None:
            where = mode.cache.split_point.name
            how = f"activations of {where} are kept, {mode.size / 1e6:,.1f} MB"
        self._say(f"{title}: {how}")
        train, validation = self._inputs(mode.cache)
        optimizer = build_optimizer(phase, self.network.trained_parameters())
        if self.progress.optimizer is not None:
            restore_optimizer(optimizer, self.progress, self.network)
        balanced, left = self.config.sampling == "balanced", None
        if self.config.time_budget is not None:
            spent = sum(record["seconds"] for record in self.progress.finished)
            spent += time.perf_counter() - start  # for activations
            left = max(60 * self.config.time_budget - spent, 0.0)
        loop = Loop(
            mode.cache.split_point.behind(self.network) if mode.cache else self.network,
            optimizer,
            phase,
            Part(train, self.train.targets),
            Part(validation, self.validation.targets) if validation and self.validation else None,
            config=self._loop_config,
            number=index,
            set_mode=self.network.set_mode,
            tensors=self.network.trained_tensors,
            order=partial(balanced_order, self.train.codes) if balanced else None,
            time_budget=left,
        )
        moved = sum(parameter.numel() for parameter in self.network.trained_parameters())
        return loop, {
            "phase": index + 1,
            "trained": to_json(phase),
            "share_of_stages": trained.stages,
            "share_of_parameters": moved / self.network.size(),
            "parameters": moved,
            **mode.facts(),
            "steps_per_epoch": loop.steps_per_epoch(),
            "frozen": {"before": checksum},
        }

    def trained_backbone(self) -> Backbone:
        """Return the trunk with the facts of the weights that it has now."""
        moved = any(name.startswith("trunk.") for name in self.progress.tensors)
        return retrained(self.train.backbone) if moved else self.train.backbone

    def predictor(self) -> activations.Predictor:
        """Return what predicts the way that the last phase ran, from the same activations."""
        return activations.Predictor(self.runtime, self.cache)

    def _resume(self, found: Progress) -> None:
        self.progress = found
        own = self.network.state_dict()
        with torch.no_grad():
            for name, value in found.tensors.items():
                own[name].copy_(value)
        if found.phase < len(self.phases):
            reached = f"phase {found.phase + 1}, epoch {found.state.epoch + 1}"
            self._say(f"training resumes from a checkpoint: {reached}")
        elif found.finished:  # only the end is left, and what predicts as the last phase ran
            runtime = replace(self.runtime, backbone=self.trained_backbone())
            self.cache = activations.recall_mode(found.finished[-1], runtime).cache

    def _run_phase(self, index: int) -> None:
        start, earlier = time.perf_counter(), self.progress.state.seconds
        loop, record = self.prepare(index)
        self._run_loop(loop, index)
        state = self.progress.state
        record |= {
            "best_epoch": None if state.best is None else state.best[1],
            "last_epoch": state.epoch,
            "stopped": state.stopped,
            "seconds": time.perf_counter() - start + earlier,
        }
        record["frozen"]["after"] = self.network.frozen_checksum()
        self.progress = Progress(
            index + 1,
            [*self.progress.finished, record],
            [*self.progress.epochs, *state.records],
            tensors=self._moved(),
        )
        self._write(self.progress)

    def _run_loop(self, loop: Loop, index: int) -> None:
        state, done = self.progress.state, len(self.progress.epochs)
        epochs = loop.phase.epochs
        title, steps = f"Phase {index + 1} of {len(self.phases)}", epochs * loop.steps_per_epoch()
        self._tell("on_phase", title, steps)

        def write() -> None:
            moments = loop.optimizer.state_dict()
            self._write(replace(self.progress, tensors=self._moved(), optimizer=moments))

        def tell(event: str, *arguments: Any, **options: Any) -> None:
            self._tell(event, *arguments, **options)
            if self.checkpoints is not None and self.checkpoints.due():
                write()

        def on_epoch(state: State) -> None:
            tell("on_epoch", state.records[-1], number=done + state.epoch, epochs=epochs)

        with stoppable(write) as check_stop:
            loop.run(
                state,
                on_step=lambda _state: tell("on_step"),
                on_epoch=on_epoch,
                on_validation=partial(self._tell, "on_validation"),
                check_stop=check_stop,
            )
        self._tell("on_phase_end")

    def _write(self, progress: Progress) -> None:
        """Write a checkpoint; where that fails, the ones before are there."""
        if self.checkpoints is not None:
            write = partial(self.checkpoints.write, progress)
            self._attempt("cannot write a checkpoint", write)

    def _mode(self, phase: Phase, trained: Trained) -> activations.ExecutionMode:
        """Return how a phase is run: as it began, live where it must be, else from activations."""
        config = self.config
        runtime = replace(self.runtime, backbone=self.trained_backbone())
        if self.progress.mode is not None:  # half-trained weights may measure otherwise
            return activations.recall_mode(self.progress.mode, runtime)
        why = ""
        if config.compute.boundary == "off":
            why = "no activations were to be kept"
        elif trained.first == 0:
            why = "the whole trunk is trained"
        elif config.regularize.mixing is not None:
            why = "images are mixed in every batch"
        elif config.augment is not None and config.views is None:
            why = "images are augmented anew in every epoch"
        elif phase.batchnorm == "batch_statistics" and self.network.has_batchnorm:
            why = "frozen batch norm works with the statistics of each batch"
        if why:
            return activations.ExecutionMode(None, why)
        samples = len(self.train) * (config.views or 1) + len(self.validation or ())
        loss = self._loop_config.loss
        return activations.choose_mode(runtime, trained.first, self.train, loss, samples)

    def _inputs(self, cache: activations.ActivationCache | None) -> tuple[Inputs, Inputs | None]:
        """Return what a phase learns from and what it is validated on: images or activations."""
        config, held, augmented = self.config, self.validation, None
        if config.augment is not None:
            before = sum(phase.epochs for phase in self.phases[: self.progress.phase])
            augmented = AugmentedImages(
                self.train.pixels,
                config.augment,
                size=self.network.side,
                seed=config.seed,
                views=config.views,
                before=before,
            )
        if cache is None:
            self.embedded += len(self.train) + len(held or ())
            live = self.train.pixels if augmented is None else augmented
            return live, None if held is None else held.pixels
        if augmented is None:
            train, computed = cache.plain(self.train.images)
        else:
            about = {"augment": to_json(config.augment), "seed": config.seed}
            train, computed = cache.views(augmented, config.views or 1, about)
        self.embedded += computed
        if held is None:
            return train, None
        validation, computed = cache.plain(held.images)
        self.embedded += computed
        return train, validation

    def _make_loop_config(self) -> LoopConfig:
        config, device, chosen = self.config, self.runtime.compute.device, self.config.regularize
        weights = class_weights(config.class_weight, self.train.labels, self.train.classes)
        return LoopConfig(
            batch_size=config.batch_size,
            seed=config.seed,
            device=device,
            precision=self.runtime.compute.precision,
            loss=make_loss(
                config.output,
                label_smoothing=chosen.label_smoothing,
                class_weights=None if weights is None else weights.to(device),
                focal=config.focal,
            ),
            validation_loss=make_loss(config.output),
            clip=chosen.clip,
            mix=chosen.mix(),
        )

    def _moved(self) -> dict[str, Tensor]:
        """Return all that training may have changed so far."""
        names = {*self.progress.tensors, *self.network.trained_tensors()}
        return {name: t for name, t in self.network.state_dict().items() if name in names}

    def _say(self, text: str) -> None:
        for callback in self.callbacks:
            callback.on_message(text)

    def _tell(self, event: str, *arguments: Any, **options: Any) -> None:
        for callback in self.callbacks:
            hear = partial(getattr(callback, event), *arguments, **options)
            self._attempt(f"{type(callback).__name__} cannot write", hear)

    def _attempt(self, what: str, write: Callable[[], object]) -> None:
        """Write something; where that fails training goes on, and the first reason is a warning."""
        try:
            write()
        except (RegraftError, OSError) as error:
            if isinstance(error, RegraftError):
                place, why = error.path or ".", error.why or error.what
            else:
                place, why = error.filename or ".", str(error.strerror)
            text = f"{what} - {place} - {why}; {free_bytes(place):,} bytes are free there"
            self._failed.setdefault(what, text)
            self._say(f"warning: {text}")


def phase_warnings(record: Mapping[str, Any], batchnorm: bool) -> list[str]:
    """Return what went otherwise in a finished phase than one would expect.

    Example:
        >>> same = {"frozen": {"before": "ab", "after": "ab"}, "trained": {"batchnorm": "frozen"}}
        >>> record = {"phase": 1, "stopped": "time budget", "last_epoch": 3}
        >>> phase_warnings({**record, **same}, batchnorm=True)
        ['phase 1 was ended by the time budget after 3 epochs']
    """
    found, name, trained = [], f"phase {record['phase']}", record["trained"]
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
