"""A trunk with a new head as one module; what is frozen has no gradient and is in eval mode."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from regraft.backbones.backbone import Backbone
from regraft.backbones.engines import Normalise
from regraft.backbones.network import Layer, Layout, Stage, channels_first, layer_table
from regraft.errors import UsageError
from regraft.training.heads import Head
from regraft.training.phases import BatchNorm, Phase


@dataclass(frozen=True)
class Trained:
    """What a phase trains of a trunk.

    Attributes:
        parameters: Names of the trained parameters of the trunk.
        first: Index of the first stage with a trained parameter; the number of stages if none has.
        stages: Share of the stages that have one, 0 to 1.
    """

    parameters: frozenset[str]
    first: int
    stages: float


class TransferNetwork(nn.Module):
    """Normalisation, trunk and head: from prepared images in 8 bits to logits.

    Args:
        backbone: Its network becomes part of this module and may be trained.
        head: What stands on the last feature map.
        outputs: Logits per image.
        seed: Seed of the head's random weights.

    Example:
        >>> from regraft.backbones.backbone import build
        >>> from regraft.backbones.spec import BackboneSpec
        >>> from regraft.training.heads import LinearHead
        >>> backbone = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 80}))
        >>> network = TransferNetwork(backbone, LinearHead(), outputs=3)
        >>> network(torch.zeros(2, 80, 80, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, backbone: Backbone, head: Head, *, outputs: int, seed: int = 0) -> None:
        super().__init__()
        self.normalise = Normalise(backbone.preprocessing)
        self.trunk = backbone.module
        self.stages = backbone.stages
        # In a tuple no module is registered a second time.
        self._functions = (backbone.network.last_map, backbone.network.pooled)
        self._layout = backbone.network.layout
        self.preprocessing = backbone.preprocessing
        self.head_settings = head
        self.side = backbone.preprocessing.size  # of the images, in pixels
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            shape = tuple(self.map(self.normalise(self.blank(1))).shape[1:])
            self.head = head.build(shape, outputs, pool=self.pool)
        # What an own head keeps frozen stays frozen.
        self._open = frozenset(n for n, p in self.head.named_parameters() if p.requires_grad)
        self._trained: frozenset[str] = frozenset()
        self._active: frozenset[str] = frozenset()
        self._batchnorm: BatchNorm = "frozen"
        self._untracked: list[_BatchNorm] = []
        self.freeze(Phase())

    def blank(self, count: int) -> Tensor:
        """Return black images, (count, side, side, 3) in 8 bits, where the network stands."""
        device = next(self.parameters()).device
        return torch.zeros(count, self.side, self.side, 3, dtype=torch.uint8, device=device)

    def map(self, batch: Tensor) -> Tensor:
        """Return the feature maps, channels first, of normalised images (n, 3, side, side)."""
        return channels_first(self._functions[0](batch), self._layout)

    def pool(self, maps: Tensor) -> Tensor:
        """Return one row for each of the feature maps, by the network's own pooling."""
        return self._functions[1](_own_layout(maps, self._layout))

    def logits(self, batch: Tensor) -> Tensor:
        """Return logits (n, outputs) of normalised images (n, 3, side, side)."""
        found: Tensor = self.head(self.map(batch))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, outputs) of images (n, side, side, 3) in 8 bits."""
        return self.logits(self.normalise(images))

    def size(self) -> int:
        """Return the number of parameters of trunk and head, without the trunk's former head."""
        parameters = dict(self.trunk.named_parameters())
        trunk = sum(parameters[n].numel() for stage in self.stages for n in stage.parameters)
        return trunk + sum(parameter.numel() for parameter in self.head.parameters())

    @property
    def has_batchnorm(self) -> bool:
        """Whether the trunk has batch norm."""
        return any(isinstance(module, _BatchNorm) for module in self.trunk.modules())

    def freeze(self, phase: Phase) -> Trained:
        """Freeze what a phase does not train, and return what it trains of the trunk."""
        trained = choose_trained(phase, self.stages)
        names = {f"trunk.{name}" for name in trained.parameters}
        self._trained = frozenset(names | {f"head.{name}" for name in self._open})
        self._active = self._active_modules(trained)
        self._batchnorm = phase.batchnorm
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._trained)
        self.zero_grad(set_to_none=True)  # what an earlier phase left
        return trained

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return what an optimizer takes: of the head, then from the last stage to the first."""
        own = dict(self.trunk.named_parameters())
        trunk = [own[name] for stage in reversed(self.stages) for name in stage.parameters]
        return [p for p in (*self.head.parameters(), *trunk) if p.requires_grad]

    def set_mode(self) -> None:
        """Put the head and the trained stages into training mode, everything else into eval mode.

        Frozen batch norm would otherwise use each batch's statistics and move its averages. Where
        the phase asks for batch statistics, it uses them and its averages still do not move.
        """
        self.eval()
        self.training = True
        for name in self._active:
            self.get_submodule(name).training = True
        if self._batchnorm == "batch_statistics":
            for layer in self.trunk.modules():
                if isinstance(layer, _BatchNorm) and not layer.training:
                    layer.training = True
                    if layer.track_running_stats:
                        layer.track_running_stats = False
                        self._untracked.append(layer)

    def train(self, mode: bool = True) -> Self:
        """Put every module into training or eval mode; see `set_mode` for what a phase needs."""
        for layer in self._untracked:
            layer.track_running_stats = True
        self._untracked = []
        return super().train(mode)

    def trained_tensors(self) -> dict[str, Tensor]:
        """Return every tensor that the phase can change, by its name in the state dictionary.

        These are the trained parameters and the buffers of all modules that train, such as the
        averages of their batch norm; with the optimizer's state they are what a checkpoint holds.
        """
        moving = self._trained | {
            f"{module}.{name}"
            for module in self._active
            for name, _ in self.get_submodule(module).named_buffers(recurse=False)
        }
        return {k: v for k, v in self.state_dict().items() if k in moving}

    def frozen_checksum(self) -> str:
        """Return a SHA-256 over what the phase must leave as it is, buffers included."""
        digest, moving = hashlib.sha256(), self.trained_tensors()
        for name, tensor in sorted(self.state_dict().items()):
            if name not in moving:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().data)  # no copy
        return digest.hexdigest()

    def _active_modules(self, trained: Trained) -> frozenset[str]:
        """Return the names of the modules that train: those of the head and of trained stages.

        A part that holds parameters of its own, all of them frozen, stays as it is; dropout,
        stochastic depth and the like hold none and train with their stage.
        """
        touched = [s for s in self.stages if trained.parameters & set(s.parameters)]
        roots = [self.trunk.get_submodule(name) for stage in touched for name in stage.modules]
        inside = {part for root in (self.head, *roots) for part in root.modules()}
        active = set()
        for name, part in self.named_modules(remove_duplicate=False):
            own = {f"{name}.{parameter}" for parameter, _ in part.named_parameters(recurse=False)}
            if part in inside and (not own or own & self._trained):
                active.add(name)
        return frozenset(active)


def _own_layout(maps: Tensor, layout: Layout) -> Tensor:
    """Undo `channels_first`."""
    if maps.ndim == 4 and layout == "NHWC":
        return maps.permute(0, 2, 3, 1)
    return maps.transpose(1, 2) if maps.ndim == 3 else maps


def phase_layers(
    backbone: Backbone, head: Head, phases: Iterable[Phase], *, outputs: int, blocks: bool = False
) -> Iterator[list[Layer]]:
    """Yield, phase by phase, the layers of trunk and head and what is trained of each.

    Args:
        backbone: The network; nothing is trained.
        head: What stands on its last feature map.
        phases: What is trained.
        outputs: Logits per image.
        blocks: Whether a block of several layers is listed as one.

    Example:
        >>> from regraft.backbones.backbone import build
        >>> from regraft.backbones.spec import BackboneSpec
        >>> from regraft.backbones.network import total
        >>> from regraft.training.heads import HEADS
        >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
        >>> for layers in phase_layers(backbone, HEADS["linear"], [Phase()], outputs=5):
        ...     print(total(layers))
        14 layers, 5 with parameters; 231,813 parameters, 645 trainable, 231,168 frozen
    """
    network = TransferNetwork(backbone, head, outputs=outputs).eval()
    with torch.inference_mode():
        blank = network.normalise(network.blank(1))
        maps = network.map(blank)
    for phase in phases:
        network.freeze(phase)
        with torch.inference_mode():
            rows = layer_table(
                network.trunk, lambda: network.map(blank), without=backbone.top, blocks=blocks
            )
            above = layer_table(network.head, lambda: network.head(maps), blocks=blocks)
        above = [replace(row, name=f"head.{row.name}".rstrip(".")) for row in above]
        yield [*rows, *above]


def choose_trained(phase: Phase, stages: Sequence[Stage]) -> Trained:
    """Return what a phase trains of a trunk with these stages.

    A share is rounded to the nearest number of stages, a half upwards: half of 13 stages are 7. It
    is at least one where the share is not 0.

    Raises:
        UsageError: There is no such stage, or no parameter matches.
    """
    if phase.unfreeze_matching is not None:
        pattern = re.compile(phase.unfreeze_matching)
        named = frozenset(n for stage in stages for n in stage.parameters if pattern.search(n))
        if not named:
            why, hint = phase.unfreeze_matching, f"names look like {stages[0].parameters[0]!r}"
            raise UsageError("no parameter of the trunk matches", why=why, hint=hint)
    else:
        first = _first_stage(phase, stages)
        named = frozenset(name for stage in stages[first:] for name in stage.parameters)
    touched = [index for index, stage in enumerate(stages) if named & set(stage.parameters)]
    first = touched[0] if touched else len(stages)
    return Trained(named, first, len(touched) / max(len(stages), 1))


def _first_stage(phase: Phase, stages: Sequence[Stage]) -> int:
    names = [stage.name for stage in stages]
    if phase.unfreeze_from is not None:
        if phase.unfreeze_from not in names:
            what, hint = f"there is no stage {phase.unfreeze_from!r}", f"stages: {', '.join(names)}"
            raise UsageError(what, hint=hint)
        return names.index(phase.unfreeze_from)
    if phase.unfreeze_last is not None:
        if phase.unfreeze_last > len(stages):
            what = f"cannot train the last {phase.unfreeze_last} stages"
            raise UsageError(what, why=f"there are {len(stages)}")
        return len(stages) - phase.unfreeze_last
    count = math.floor(phase.unfreeze * len(stages) + 0.5)
    return len(stages) - (max(count, 1) if phase.unfreeze and stages else 0)
