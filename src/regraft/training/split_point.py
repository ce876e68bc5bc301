"""The split point between what is frozen and what is trained: the network cut in two there.

The frozen part gives the same activation for an image in every epoch, so that it is computed once
and kept. What comes behind runs from the kept activation: the network is run as a whole, but its
frozen modules are replaced by empty ones, and the one at the split point hands out what was kept.
Whether a network can be cut like this is not assumed: the gradients of both are compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbones.network import Apply, tap, watched
from regraft.errors import RegraftError
from regraft.training.heads import after_entrance, entrance
from regraft.training.network import TransferNetwork

EXACT = 1e-6  # relative error of a gradient that the cut alone may bring: rounding


@dataclass(frozen=True)
class SplitPoint:
    """Where a network is cut.

    Attributes:
        name: ``"pooled"`` and ``"map"`` behind the whole trunk, with and without its pooling; else
            the name of the last frozen stage.
        shape: Shape of one image's activation there.
        channels_last: Whether its channels stand last in memory; kept so, the same instructions
            run behind the split point, to the bit, and the faster ones.
    """

    name: str
    shape: tuple[int, ...]
    channels_last: bool = False

    @property
    def width(self) -> int:
        """Numbers per image."""
        return int(torch.Size(self.shape).numel())

    @property
    def is_behind_trunk(self) -> bool:
        """Whether the whole trunk stands in front of it."""
        return self.name in {"pooled", "map"}

    def before(self, network: TransferNetwork) -> Apply:
        """Return the frozen part: from normalised images to activations as rows, (n, width)."""
        reach = _reach(network, self.name)
        if self.channels_last:
            return lambda batch: reach(batch).permute(0, 2, 3, 1).flatten(1)
        return lambda batch: reach(batch).flatten(1)

    def activation(self, rows: Tensor) -> Tensor:
        """Return rows (n, width) in the shape that they had at the split point."""
        if not self.channels_last:
            return rows.reshape(len(rows), *self.shape)
        channels, height, width = self.shape
        return rows.reshape(len(rows), height, width, channels).permute(0, 3, 1, 2)

    def behind(self, network: TransferNetwork) -> Suffix:
        """Return the trained part: from rows (n, width) to logits."""
        return Suffix(network, self)


class Suffix(nn.Module):
    """What comes behind a split point; it shares tensors and mode with the whole network."""

    def __init__(self, network: TransferNetwork, split_point: SplitPoint) -> None:
        super().__init__()
        self.network = network
        self._split_point = split_point
        self._empty = {} if split_point.is_behind_trunk else _empty_outputs(network, split_point)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits (n, outputs) of activations as rows (n, width)."""
        if self._split_point.name == "pooled":
            return after_entrance(self.network.head, rows)
        activation = self._split_point.activation(rows)
        if self._split_point.name == "map":
            logits: Tensor = self.network.head(activation)
            return logits
        with self._replaced(activation):
            side = self.network.side
            return self.network.logits(activation.new_zeros(1).expand(len(rows), 3, side, side))

    @contextlib.contextmanager
    def _replaced(self, activation: Tensor) -> Iterator[None]:
        """Let the frozen modules do nothing while the block lasts."""
        last = _output_of(self.network, self._split_point.name)
        modules = {name: self.network.trunk.get_submodule(name) for name in self._empty}
        for name, module in modules.items():
            shape = self._empty[name]
            module.forward = _stub(activation, None if name == last else shape)
        try:
            yield
        finally:
            for module in modules.values():
                del module.forward


def find_split_point(
    network: TransferNetwork, first: int, images: Tensor, loss: Callable[[Tensor], Tensor]
) -> SplitPoint | None:
    """Return the last place in front of a stage where a network can be cut, or None.

    That is a place where the gradient of every trained parameter is the same for the whole network
    and for what comes behind the cut, but for rounding: the nearest one to the first trained stage.
    """
    whole = gradients(network, images, loss)
    for index in reversed(range(first)):
        name = network.stages[index].name
        with contextlib.suppress(RegraftError, RuntimeError, TypeError, ValueError, IndexError):
            split_point = named_split_point(network, name)
            with torch.no_grad():
                rows = split_point.before(network)(network.normalise(images))
            if distance(whole, gradients(split_point.behind(network), rows, loss)) <= EXACT:
                return split_point
    return None


def behind_trunk(network: TransferNetwork) -> SplitPoint:
    """Return the split point behind the whole trunk, in front of the head or behind its pooling."""
    return named_split_point(network, entrance(network.head))


def named_split_point(network: TransferNetwork, name: str) -> SplitPoint:
    """Return the split point of a name; see `SplitPoint`.

    Raises:
        RegraftError: There is no such stage, or it does not hand on one tensor.
    """
    with torch.no_grad(), _evaluated(network):
        found = _reach(network, name)(network.normalise(network.blank(2)))
    last = found.ndim == 4 and not found.is_contiguous() and name != "map"
    last = last and found.is_contiguous(memory_format=torch.channels_last)
    return SplitPoint(name, tuple(found.shape[1:]), last)


def gradients(network: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return the gradient of each trained parameter, in eval mode; nothing is left behind."""
    trained = [p for p in network.parameters() if p.requires_grad]
    with _evaluated(network):
        found = torch.autograd.grad(loss(network(inputs).float()), trained, allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g.detach()
        for p, g in zip(trained, found, strict=True)
    ]


def distance(whole: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Return the relative error of gradients, over all parameters together.

    Example:
        >>> distance([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 4.5])])
        0.1
    """

    def square(values: Tensor) -> float:  # graphics processors of Apple have no float64
        return float(values.detach().cpu().double().square().sum())

    wrong = sum(square(b - a) for a, b in zip(whole, other, strict=True))
    length = sum(square(a) for a in whole)
    return (wrong / length) ** 0.5 if length else (0.0 if wrong == 0 else float("inf"))


@contextlib.contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """Put everything into eval mode, and each module back into its own afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _reach(network: TransferNetwork, name: str) -> Apply:
    if name == "map":
        return network.map
    if name == "pooled":
        return lambda batch: network.pool(network.map(batch))
    return tap(network.trunk, _output_of(network, name))


def _output_of(network: TransferNetwork, name: str) -> str:
    for stage in network.stages:
        if stage.name == name and stage.output:
            return stage.output
    raise RegraftError("there is no such split point", why=name, code="TRAIN-SPLIT-POINT")


def _empty_outputs(network: TransferNetwork, split_point: SplitPoint) -> dict[str, tuple[int, ...]]:
    """Return the modules up to the split point, and the shape that each one's output has."""
    names = [stage.name for stage in network.stages]
    last = _output_of(network, split_point.name)
    upto = network.stages[: names.index(split_point.name) + 1]
    modules = {n: network.trunk.get_submodule(n) for stage in upto for n in stage.modules}
    calls: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise RegraftError("no tensor", why=name, code="TRAIN-SPLIT-POINT")
        calls.append(name)
        shapes[name] = tuple(output.shape[1:])

    with torch.no_grad(), _evaluated(network), watched(modules, note):
        network.map(network.normalise(network.blank(1)))
    if calls.count(last) != 1:
        raise RegraftError("it runs more than once", why=last, code="TRAIN-SPLIT-POINT")
    return shapes


def _stub(activation: Tensor, shape: tuple[int, ...] | None) -> Callable[..., Tensor]:
    """Return a module's replacement: it gives the activation, or numbers that cost nothing."""
    if shape is None:
        return lambda *_inputs, **_options: activation
    return lambda *_i, **_o: activation.new_zeros(1).expand(len(activation), *shape)
