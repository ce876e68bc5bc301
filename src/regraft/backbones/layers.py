"""The table of a network's layers: name, type, output shape, parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from regraft.backbones.network import within


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of the table.

    Args:
        index: Its place in the order of the forward pass, from 0.
        name: The module's name in the network; "" is the network itself.
        type: The module's class.
        output_shape: Shape of its output for one picture, without the batch axis.
        parameters: How many numbers it holds itself, its submodules' not counted.
        trainable: How many of them are not frozen.

    Example:
        >>> row = Layer(
        ...     index=0, name="fc", type="Linear", output_shape=(2,), parameters=4, trainable=4
        ... )
        >>> row.name
        'fc'
    """

    index: int
    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int


def layer_table(
    module: nn.Module, run: Callable[[], Any], *, without: Sequence[str] = ()
) -> list[Layer]:
    """Return the layers that ``run`` calls, in the order in which they finish.

    Listed are modules without submodules and modules with parameters of their own. A layer that is
    called several times is listed once; one whose parameters are used without a call comes first.

    Args:
        module: The network.
        run: A forward pass of one picture.
        without: Names of the parts to leave out.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU())
        >>> [row.parameters for row in layer_table(net, lambda: net(torch.zeros(1, 3, 8, 8)))]
        [1792, 0]
    """
    layers = {
        name: child
        for name, child in module.named_modules()
        if not within(name, without) and (_own(child) or next(child.children(), None) is None)
    }
    shapes: dict[str, tuple[int, ...]] = {}
    handles = [
        child.register_forward_hook(functools.partial(_note, shapes, name))
        for name, child in layers.items()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    uncalled = [name for name, child in layers.items() if name not in shapes and _own(child)]
    return [
        Layer(
            index=index,
            name=name,
            type=type(layers[name]).__name__,
            output_shape=shapes.get(name, ()),
            parameters=sum(own.numel() for own in _own(layers[name])),
            trainable=sum(own.numel() for own in _own(layers[name]) if own.requires_grad),
        )
        for index, name in enumerate((*uncalled, *shapes))
    ]


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _note(
    shapes: dict[str, tuple[int, ...]], name: str, _module: nn.Module, _inputs: Any, output: Any
) -> None:
    first = output[0] if isinstance(output, tuple | list) else output
    shapes.setdefault(name, tuple(first.shape[1:]) if isinstance(first, Tensor) else ())
