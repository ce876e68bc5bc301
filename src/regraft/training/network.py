"""A trunk with a new head as one module; what is frozen has no gradient and is in eval mode."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from regraft.backbones.backbone import Backbone
from regraft.backbones.engines import Normalise
from regraft.backbones.network import (
    Apply,
    Layer,
    Layout,
    Stage,
    channels_first,
    layer_table,
)
from regraft.errors import UsageError
from regraft.training.heads import Head
from regraft.training.phases import BatchNorm, HeadPart, Phase


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
        # Where one of these is a module, it would be registered a second time without the partial.
        self._last_map = functools.partial(_call, backbone.network.last_map)
        self._layout = backbone.network.layout
        self._pooled = functools.partial(_call, backbone.network.pooled)
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
        return channels_first(self._last_map(batch), self._layout)

    def pool(self, maps: Tensor) -> Tensor:
        """Return one row for each of the feature maps, by the network's own pooling."""
        return self._pooled(_own_layout(maps, self._layout))

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
        head = _trained_head(self.head, phase.head, self._open)
        self._trained = _under("trunk", trained.parameters) | _under("head", head)
        self._active = _under("trunk", _active_modules(self.trunk, self.stages, trained.parameters))
        self._active |= _under("head", _active_head(self.head, phase.head, head))
        self._batchnorm = phase.batchnorm
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._trained)
        self.zero_grad(set_to_none=True)  # what an earlier phase left
        return trained

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
                    self._ignore_averages(layer)

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
            _joined(module, name)
            for module in self._active
            for name, _ in self.get_submodule(module).named_buffers(recurse=False)
        }
        return {k: v for k, v in self.state_dict().items() if k in moving}

    def frozen_tensors(self) -> dict[str, Tensor]:
        """Return every other tensor by name: what the phase must leave as it is, bit for bit."""
        moving = self.trained_tensors()
        return {k: v for k, v in self.state_dict().items() if k not in moving}

    def frozen_checksum(self) -> str:
        """Return a SHA-256 over every frozen tensor, buffers included."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.frozen_tensors().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)  # no copy
        return digest.hexdigest()

    def _ignore_averages(self, layer: _BatchNorm) -> None:
        layer.training = True
        if layer.track_running_stats:
            layer.track_running_stats = False
            self._untracked.append(layer)


def _call(function: Apply, value: Tensor) -> Tensor:
    return function(value)


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
    blank = network.normalise(network.blank(1))
    for phase in phases:
        network.freeze(phase)
        with torch.inference_mode():
            maps = network.map(blank)
            rows = layer_table(
                network.trunk, lambda: network.map(blank), without=backbone.top, blocks=blocks
            )
            above = layer_table(network.head, functools.partial(network.head, maps), blocks=blocks)
        above = [replace(row, name=f"head.{row.name}".rstrip(".")) for row in above]
        yield [replace(row, index=index) for index, row in enumerate([*rows, *above])]


def parameter_groups(
    network: TransferNetwork, phase: Phase, trained: Trained
) -> list[dict[str, Any]]:
    """Return what an optimizer takes: the head, then each trained stage with its own rate."""
    head = [parameter for parameter in network.head.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": head, "lr": phase.lr}]
    parameters = dict(network.trunk.named_parameters())
    for distance, stage in enumerate(reversed(network.stages), start=1):
        own = [parameters[name] for name in stage.parameters if name in trained.parameters]
        if own:
            groups.append({"params": own, "lr": phase.lr * phase.layer_decay**distance})
    return groups


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
            raise UsageError(
                "no parameter of the trunk matches",
                why=phase.unfreeze_matching,
                hint=f"names look like {stages[0].parameters[0]!r}" if stages else "",
            )
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
            raise UsageError(
                f"there is no stage {phase.unfreeze_from!r}", hint=f"stages: {', '.join(names)}"
            )
        return names.index(phase.unfreeze_from)
    if phase.unfreeze_last is not None:
        if phase.unfreeze_last > len(stages):
            raise UsageError(
                f"cannot train the last {phase.unfreeze_last} stages",
                why=f"there are {len(stages)}",
            )
        return len(stages) - phase.unfreeze_last
    count = math.floor(phase.unfreeze * len(stages) + 0.5)
    return len(stages) - (max(count, 1) if phase.unfreeze and stages else 0)


def _active_modules(
    trunk: nn.Module, stages: Sequence[Stage], trained: frozenset[str]
) -> frozenset[str]:
    """Return the names of the modules that train: those of trained stages.

    A part of such a stage that holds parameters of its own, all of them frozen, stays as it is;
    dropout, stochastic depth and the like hold none and train with their stage.
    """
    active = set()
    for stage in stages:
        if not trained & set(stage.parameters):
            continue
        for name in stage.modules:
            for inner, part in trunk.get_submodule(name).named_modules():
                whole = _joined(name, inner)
                own = {_joined(whole, p) for p, _ in part.named_parameters(recurse=False)}
                if not own or own & trained:
                    active.add(whole)
    return frozenset(active)


def _trained_head(head: nn.Module, part: HeadPart, trainable: frozenset[str]) -> frozenset[str]:
    """Return the names of the head's trained parameters: all, or those of its last layer."""
    if part == "all":
        return trainable
    layers = [
        {_joined(name, own) for own, _ in layer.named_parameters(recurse=False)} & trainable
        for name, layer in head.named_modules()
    ]
    return frozenset(next((layer for layer in reversed(layers) if layer), set()))


def _active_head(head: nn.Module, part: HeadPart, trained: frozenset[str]) -> frozenset[str]:
    """Return the names of the head's modules that train."""
    if part == "all":
        return frozenset(name for name, _ in head.named_modules())
    return frozenset(name.rpartition(".")[0] for name in trained)


def _under(part: str, names: Iterable[str]) -> frozenset[str]:
    return frozenset(_joined(part, name) for name in names)


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)
