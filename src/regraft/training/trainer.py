"""Phase after phase: freeze, choose the way, run the loop, and keep what a resumed run needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbones.backbone import Backbone, retrained
from regraft.errors import RegraftError
from regraft.settings import to_json
from regraft.system import exact_float32
from regraft.training.activations import Keeper
from regraft.training.batches import AugmentedPictures, Inputs, balanced_order
from regraft.training.checkpoint import Checkpoints, Progress, restore_optimizer
from regraft.training.interruption import stoppable
from regraft.training.loop import Loop
from regraft.training.network import Trained, TransferNetwork, parameter_groups
from regraft.training.optim import build_optimizer
from regraft.training.options import Options
from regraft.training.phases import Phase
from regraft.training.progress import Listeners
from regraft.training.sources import Source
from regraft.training.split_point import Boundary
from regraft.training.state import Part, Settings, State
from regraft.training.using import Predictor
from regraft.training.ways import Way, choose_way, recalled, why_live


class Trainer:
    """Trains a network through phases.

    Args:
        network: Trunk and head, on their device.
        backbone: The trunk with its preprocessing.
        phases: What is trained, in this order.
        train: What is learned from.
        validation: What decides which epoch was best; None: the last one stays.
        settings: Of the loop.
        options: Everything else.
        listeners: Who hears of each epoch.
        checkpoints: Where a resumed run goes on from; None for no checkpoints.
        notes: What a reader should know already, one sentence each.

    Attributes:
        records: One record per finished phase.
        epochs: One record per finished epoch, over all phases.
        keeper: What the last phase computed activations with; None if it ran live.
        embedded: How many pictures or views passed through the trunk to be kept or were run live.
    """

    def __init__(
        self,
        network: TransferNetwork,
        backbone: Backbone,
        phases: Sequence[Phase],
        train: Source,
        validation: Source | None,
        *,
        settings: Settings,
        options: Options,
        listeners: Listeners,
        checkpoints: Checkpoints | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.network = network
        self.backbone = backbone
        self.phases = list(phases)
        self.train = train
        self.validation = validation if validation is not None and len(validation) else None
        self.settings = settings
        self.options = options
        self.listeners = listeners
        self.checkpoints = checkpoints
        self.keeper: Keeper | None = None
        self.embedded = 0
        self._progress = Progress()
        self._notes = list(notes)

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

    def run(self, phases: int | None = None) -> None:
        """Run all phases, or those that an interrupted run has left; then the network predicts.

        Args:
            phases: Only so many of the first ones.

        Raises:
            RegraftError: The loss is no number any more, the memory is not enough, or the
                checkpoints are of other work.
            ImageError: A picture cannot be used.
        """
        found = self.checkpoints.read() if self.checkpoints else None
        if found is not None:
            self._go_on_from(found)
        interrupted = [_numbered(record, self._progress.phase) for record in self._state.records]
        self.listeners.begin([*self.epochs, *interrupted])
        try:
            with exact_float32(self.settings.device):
                for index in range(self._progress.phase, len(self.phases[:phases])):
                    self._phase(index)
            self.network.eval()
        except RegraftError as error:
            if self.checkpoints is not None and (last := self.checkpoints.last()):
                error.hint += f"{error.hint and '; '}the last good checkpoint is {last}"
            raise
        finally:
            self.listeners.close()

    def trained_backbone(self) -> Backbone:
        """Return the trunk with the facts of the weights that it has now."""
        return retrained(self.backbone) if self._trunk_has_moved() else self.backbone

    def predictor(self) -> Predictor:
        """Return what predicts on the way that the last phase ran, from the same activations."""
        return Predictor(
            network=self.network,
            backbone=self.backbone,
            keeper=self.keeper,
            settings=self.settings,
            decoding=self.options.decoding,
            verbose=self.listeners.verbose,
        )

    @property
    def notes(self) -> list[str]:
        """What a reader should know about how it went."""
        kept = [] if self.checkpoints is None else self.checkpoints.notes
        return [*self._notes, *kept, *self.listeners.notes]

    @property
    def _state(self) -> State:
        return self._progress.state

    def _go_on_from(self, found: Progress) -> None:
        self._progress = found
        own = self.network.state_dict()
        with torch.no_grad():
            for name, value in found.tensors.items():
                own[name].copy_(value)
        if found.phase < len(self.phases):
            reached = f"phase {found.phase + 1}, epoch {found.state.epoch + 1}"
            self.listeners.say(f"going on from a checkpoint: {reached}")
        elif found.finished:  # only the end is left, and what predicts on the way of the last phase
            self.keeper = recalled(found.finished[-1], self.network, self._keeper).keeper

    def loop(self, index: int) -> tuple[Loop, Trained, Way]:
        """Get a phase ready: freeze, choose the way, and compute the activations that it keeps.

        Args:
            index: The phase, counted from 0.

        Returns:
            What trains, what it trains of the trunk, and how it gets from pictures to logits.

        Raises:
            ImageError: A picture cannot be used.
        """
        start, phase = time.perf_counter(), self.phases[index]
        trained = self.network.freeze(phase)
        self.network.eval()  # the phase before may have left batch norm in training mode
        way = self._way(phase, trained)
        self.listeners.say(self._title(index, phase, way))
        way, (train, validation, network) = self._entered(index, way)
        loop = Loop(
            network,
            self._optimizer(phase, parameter_groups(self.network, phase, trained)),
            phase,
            train,
            validation,
            settings=self._timed(start),
            number=index,
            set_mode=self.network.set_mode,
            tensors=self.network.trained_tensors,
            order=self._order(),
        )
        return loop, trained, way

    def _phase(self, index: int) -> None:
        start, phase, earlier = time.perf_counter(), self.phases[index], self._state.seconds
        self.network.freeze(phase)  # decides which tensors the checksum is over
        before = self.network.frozen_checksum()  # before activations are computed
        loop, trained, way = self.loop(index)
        self._progress.way = way.to_json()
        self._run(loop, index, phase)
        state = self._state
        moved = sum(p.numel() for group in loop.optimizer.param_groups for p in group["params"])
        record = {
            "phase": index + 1,
            "trained": to_json(phase),
            "share_of_stages": trained.stages,
            "share_of_parameters": moved / self.network.size(),
            "parameters": moved,
            **way.to_json(),
            "best_epoch": None if state.best is None else state.best[1],
            "last_epoch": state.epoch,
            "steps_per_epoch": loop.steps_per_epoch(),
            "stopped": state.stopped,
            "frozen": {"before": before, "after": self.network.frozen_checksum()},
            "micro_batch": state.micro_batch,
            "seconds": time.perf_counter() - start + earlier,
            "epochs": [_numbered(record, index) for record in state.records],
        }
        self.keeper = way.keeper
        finished = [*self._progress.finished, record]
        fresh = State(micro_batch=state.micro_batch)
        moved_so_far = self._moved()
        self._progress = Progress(index + 1, finished, fresh, moved_so_far)
        self._keep()

    def _run(self, loop: Loop, index: int, phase: Phase) -> None:
        state = self._state
        steps = phase.epochs * loop.steps_per_epoch()

        def write() -> None:
            moments = loop.optimizer.state_dict()
            self._keep(replace(self._progress, tensors=self._moved(), optimizer=moments))

        def write_if_due() -> None:
            if self.checkpoints is not None and self.checkpoints.due():
                write()

        def after_epoch(state: State) -> None:
            self.listeners.epoch(_numbered(state.records[-1], index), of=phase.epochs)
            write_if_due()

        title = f"Phase {index + 1} of {len(self.phases)}"
        with self.listeners.phase(title, steps) as advance, stoppable(write) as stop_if_asked:

            def after_step(_state: State) -> None:
                advance()
                write_if_due()

            loop.run(state, after_step=after_step, after_epoch=after_epoch, between=stop_if_asked)

    def _keep(self, progress: Progress | None = None) -> None:
        """Write a checkpoint; where that fails the work goes on, the ones before are there."""
        if self.checkpoints is None:
            return
        if failed := self.checkpoints.keep(progress or self._progress):
            self.listeners.say(f"warning: {failed}")

    def _entered(self, index: int, way: Way) -> tuple[Way, tuple[Part, Part | None, nn.Module]]:
        """Return what a phase learns from; live where activations do not fit on the disk."""
        try:
            return way, self._parts(way)
        except OverflowError:  # a picture that was not looked at is beyond the range of float16
            assert way.keeper is not None
            way.keeper.stored = "bfloat16"  # the range of float32, in as many bytes
            return self._entered(index, replace(way, error=None))
        except RegraftError as error:
            if way.keeper is None or error.code != "CACHE-WRITE":
                raise
            self._notes.append(f"phase {index + 1} runs the whole network in every step: {error}")
            self.listeners.say(f"warning: {self._notes[-1]}")
        live = Way(None, why="its activations could not be stored")
        return live, self._parts(live)

    def _way(self, phase: Phase, trained: Trained) -> Way:
        options = self.options
        if self._progress.way is not None:  # measured again, half-trained weights may say otherwise
            return recalled(self._progress.way, self.network, self._keeper)
        why = why_live(
            self.network, phase, trained, choice=options.boundary, changing=self._changing()
        )
        if why:
            return Way(None, why=why)
        held = len(self.validation or ())
        return choose_way(
            self.network,
            trained,
            few=self.train.few,
            loss=self.settings.loss,
            samples=len(self.train) * self._views() + held,
            make_keeper=self._keeper,
            choice=options.boundary,
            budget=options.disk_budget,
        )

    def _keeper(self, boundary: Boundary) -> Keeper:
        options, settings = self.options, self.settings
        shared = boundary.is_behind_trunk and options.augment is None
        return Keeper(
            backbone=self.trained_backbone(),
            network=self.network,
            boundary=boundary,
            cache=options.cache if shared else options.workspace,
            engine=options.engine,
            precision="bf16" if settings.precision == "bf16" else "fp32",
            device=settings.device,
            batch_size=settings.batch_size,
            decoding=options.decoding,
            verbose=self.listeners.verbose,
        )

    def _parts(self, way: Way) -> tuple[Part, Part | None, nn.Module]:
        options, held = self.options, self.validation
        validation: Inputs | None = None
        if way.keeper is None:
            network: nn.Module = self.network
            pixels = self.train.pixels
            train: Inputs = pixels if options.augment is None else self._augmented()
            validation = None if held is None else held.pixels
            self.embedded += len(self.train) + len(held or ())
        else:
            network = way.keeper.boundary.behind(self.network)
            if options.augment is None:
                train, computed = way.keeper.plain(self.train.pictures)
            else:
                about = {"augment": to_json(options.augment), "seed": self.settings.seed}
                train, computed = way.keeper.views(self._augmented(), self._views(), about)
            self.embedded += computed
            if held is not None:
                validation, computed = way.keeper.plain(held.pictures)
                self.embedded += computed
        kept = None if held is None or validation is None else Part(validation, held.targets)
        return Part(train, self.train.targets), kept, network

    def _augmented(self) -> AugmentedPictures:
        assert self.options.augment is not None
        return AugmentedPictures(
            self.train.pixels,
            self.options.augment,
            seed=self.settings.seed,
            views=self.options.views,
            before=sum(phase.epochs for phase in self.phases[: self._progress.phase]),
        )

    def _changing(self) -> str:
        if self.settings.mix is not None:
            return "pictures are mixed in every batch"
        if self.options.augment is not None and self.options.views is None:
            return "pictures are augmented anew in every epoch"
        return ""

    def _views(self) -> int:
        return 1 if self.options.augment is None else self.options.views or 1

    def _order(self) -> Any:
        if self.options.sampling is None:
            return None
        return lambda draw: balanced_order(self.train.codes, draw)

    def _optimizer(self, phase: Phase, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        optimizer = build_optimizer(phase, groups)
        if self._progress.optimizer is not None:
            restore_optimizer(optimizer, self._progress, self.network)
        return optimizer

    def _timed(self, start: float) -> Settings:
        """Return the settings with the time that is left of the budget, for this phase."""
        if self.options.time_budget is None:
            return self.settings
        spent = sum(record["seconds"] for record in self._progress.finished)
        spent += time.perf_counter() - start  # for activations
        return replace(self.settings, time_budget=max(self.options.time_budget - spent, 0.0))

    def _moved(self) -> dict[str, Tensor]:
        """Return all that training may have changed so far."""
        names = {*self._progress.tensors, *self.network.trained_tensors()}
        return {name: t for name, t in self.network.state_dict().items() if name in names}

    def _trunk_has_moved(self) -> bool:
        return any(name.startswith("trunk.") for name in self._progress.tensors)

    def _title(self, index: int, phase: Phase, way: Way) -> str:
        found = way.to_json()
        kept = found["boundary"] or {}
        how = (
            f"activations of {kept['stage']} are kept, {kept['bytes'] / 1e6:,.1f} MB as "
            f"{kept['dtype']}"
            if found["way"] == "cached"
            else f"the whole network runs in every step ({way.why})"
        )
        return f"phase {index + 1} of {len(self.phases)}, {phase.epochs} epochs: {how}"


def _numbered(record: dict[str, Any], index: int) -> dict[str, Any]:
    return {"phase": index + 1, **record}
