"""Heads: what stands on a trunk and says which class it is. Plain values that build a module."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from regraft.errors import UsageError

Pool = Callable[[Tensor], Tensor]
Entrance = Literal["pooled", "map"]
Activation = Literal["relu", "gelu", "selu", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
}


class Head(Protocol):
    """What every head can do; a head of your own needs nothing else."""

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return a module from a trunk's last feature map to logits (n, outputs).

        Args:
            shape: Shape of one picture's feature map: (channels, height, width).
            outputs: How many logits per picture.
            pool: From feature maps to rows, the way the network itself does it.
        """
        ...


class _Pooled(nn.Module):
    """A network's own pooling as a layer."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def forward(self, features: Tensor) -> Tensor:
        return self._pool(features)


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """One linear layer on the pooled or flattened feature map.

    Args:
        pooling: ``"avg"`` for the network's own pooling, ``"flatten"`` for the whole map.
        dropout: Share of the inputs that is dropped while training, 0 to below 1.

    Example:
        >>> from regraft.backbones.network import average
        >>> head = LinearHead().build((512, 7, 7), 5, pool=average)
        >>> sum(parameter.numel() for parameter in head.parameters())
        2565
    """

    pooling: Literal["avg", "flatten"] = "avg"
    dropout: float = 0.0

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return the module; see :class:`Head`."""
        entrance, width = _entrance(self.pooling, shape, pool)
        return nn.Sequential(*entrance, *_dropout(self.dropout), nn.Linear(width, outputs))


@dataclass(frozen=True, kw_only=True)
class MLPHead:
    """Hidden layers, each with activation and optional batch norm and dropout, then the output.

    Args:
        widths: Units of each hidden layer.
        pooling: ``"flatten"``, ``"avg"`` for the network's own pooling, or ``"average_2x2"`` for
            an average over windows of 2 × 2 before flattening.
        activation: ``"relu"``, ``"gelu"``, ``"selu"`` or ``"tanh"``.
        dropout: Share dropped behind the hidden layers while training, 0 to below 1: one number for
            all, or one for each.
        batch_norm: Whether each hidden layer is normalised before its activation.

    Example:
        >>> from regraft.backbones.network import average
        >>> head = MLPHead(widths=(512, 512)).build((512, 7, 7), 5, pool=average)
        >>> sum(parameter.numel() for parameter in head.parameters())
        13110789
    """

    widths: tuple[int, ...] = (512, 512)
    pooling: Literal["flatten", "avg", "average_2x2"] = "flatten"
    activation: Activation = "relu"
    dropout: float | tuple[float, ...] = 0.0
    batch_norm: bool = False

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return the module; see :class:`Head`.

        Raises:
            UsageError: The activation is unknown, a layer has no units, or the dropouts do not
                match the widths.
        """
        if not all(units >= 1 for units in self.widths):
            raise UsageError("a hidden layer needs units", why=f"widths {self.widths}")
        layers, width = _entrance(self.pooling, shape, pool)
        for units, share in zip(self.widths, self._shares(), strict=True):
            layers.append(nn.Linear(width, units))
            if self.batch_norm:
                layers.append(nn.BatchNorm1d(units))
            layers += [_activation(self.activation), *_dropout(share)]
            width = units
        return nn.Sequential(*layers, nn.Linear(width, outputs))

    def _shares(self) -> tuple[float, ...]:
        if not isinstance(self.dropout, tuple):
            return (self.dropout,) * len(self.widths)
        if len(self.dropout) != len(self.widths):
            raise UsageError(
                "a head needs one dropout per hidden layer",
                why=f"{len(self.dropout)} dropouts for {len(self.widths)} layers",
                hint="give one number for all, or as many as there are widths",
            )
        return self.dropout


@dataclass(frozen=True, kw_only=True)
class ConvHead:
    """Global average pooling and a convolution of 1 × 1, as in MobileNet v1.

    Args:
        dropout: Share dropped before the convolution while training, 0 to below 1.

    Example:
        >>> head = ConvHead(dropout=0.3).build((512, 7, 7), 1, pool=lambda maps: maps)
        >>> sum(parameter.numel() for parameter in head.parameters())
        513
    """

    dropout: float = 0.0

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return the module; see :class:`Head`.

        Raises:
            UsageError: The trunk ends in a row of tokens, not in a map of two dimensions.
        """
        _check_map(shape, least=1)
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            *_dropout(self.dropout),
            nn.Conv2d(shape[0], outputs, 1),
            nn.Flatten(),
        )


# The heads of the published teaching material have names of their own.
HEADS: dict[str, Head] = {
    "linear": LinearHead(),
    "mlp_512_512": MLPHead(widths=(512, 512)),
    "mlp_256": MLPHead(widths=(256,), dropout=0.5),
    "pooled_mlp_128": MLPHead(widths=(128,), pooling="average_2x2", dropout=0.4),
    "mlp_512_256": MLPHead(widths=(512, 256), dropout=(0.2, 0.0)),
    "conv_1x1": ConvHead(dropout=0.3),
    "mlp_264_128_64_32": MLPHead(
        widths=(264, 128, 64, 32), activation="selu", dropout=(0.2, 0.2, 0.2, 0.0)
    ),
}
_KINDS: dict[str, type[Any]] = {
    "linear": LinearHead,
    "mlp": MLPHead,
    "conv": ConvHead,
}


def find_head(head: str | Head) -> Head:
    """Return a head by its name, or the head itself.

    Raises:
        UsageError: There is no head of that name.

    Example:
        >>> find_head("conv_1x1").dropout
        0.3
    """
    if not isinstance(head, str):
        return head
    if head in HEADS:
        return HEADS[head]
    near = difflib.get_close_matches(head, HEADS, n=1)
    raise UsageError(
        f"unknown head {head!r}",
        why=f"known: {', '.join(HEADS)}",
        hint=f"did you mean {near[0]!r}?" if near else "",
    )


def entrance(module: nn.Module) -> Entrance:
    """Return what the inside of a built head starts from.

    Returns:
        ``"pooled"`` where the head pools the way the network itself does it and then works on rows;
        the rows can then be computed once and `after_entrance` run on them. ``"map"`` for every
        other head, one of your own included.

    Example:
        >>> from regraft.backbones.network import average
        >>> entrance(LinearHead().build((8, 7, 7), 3, pool=average))
        'pooled'
        >>> entrance(ConvHead().build((8, 7, 7), 3, pool=average))
        'map'
    """
    pools = isinstance(module, nn.Sequential) and len(module) and isinstance(module[0], _Pooled)
    return "pooled" if pools else "map"


def after_entrance(module: nn.Module, rows: Tensor) -> Tensor:
    """Return the logits (n, outputs) of pooled rows (n, columns): the head without its pooling.

    Raises:
        UsageError: The head does not pool the way the network itself does it.

    Example:
        >>> from regraft.backbones.network import average
        >>> head, maps = LinearHead().build((8, 7, 7), 3, pool=average), torch.rand(2, 8, 7, 7)
        >>> torch.equal(after_entrance(head, average(maps)), head(maps))
        True
    """
    if not isinstance(module, nn.Sequential) or entrance(module) == "map":
        raise UsageError("this head works on maps, not on rows", hint="run the head itself")
    for layer in list(module)[1:]:
        rows = layer(rows)
    return rows


def head_to_json(head: Head) -> dict[str, Any]:
    """Return a head as JSON has it.

    Raises:
        UsageError: The head is not one of Regraft's own.

    Example:
        >>> head_from_json(head_to_json(HEADS["mlp_256"])) == HEADS["mlp_256"]
        True
    """
    for name, kind in _KINDS.items():
        if type(head) is kind:
            fields = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(head).items()}
            return {"kind": name, **fields}
    raise UsageError(
        "this head cannot be written down",
        why=type(head).__name__,
        hint=f"use one of {', '.join(kind.__name__ for kind in _KINDS.values())}",
    )


def head_from_json(value: dict[str, Any]) -> Head:
    """Return the head written by :func:`head_to_json`.

    Raises:
        UsageError: The kind or a field is unknown.
    """
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k != "kind"}
    kind = _KINDS.get(str(value.get("kind")))
    known = set() if kind is None else set(kind.__dataclass_fields__)
    if kind is None or not set(fields) <= known:
        raise UsageError("unknown head", why=f"{value!r:.200}", hint=f"kinds: {', '.join(_KINDS)}")
    head: Head = kind(**fields)
    return head


def _entrance(pooling: str, shape: tuple[int, ...], pool: Pool) -> tuple[list[nn.Module], int]:
    """Return the layers from the feature map to rows, and how many columns these have."""
    if pooling == "avg":
        layers: list[nn.Module] = [_Pooled(pool)]
    elif pooling == "flatten":
        layers = [nn.Flatten()]
    elif pooling == "average_2x2":
        _check_map(shape, least=2)
        layers = [nn.AvgPool2d(2), nn.Flatten()]
    else:
        raise UsageError(f"a head cannot pool by {pooling!r}", hint="avg, flatten or average_2x2")
    with torch.no_grad():
        width = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
    return layers, width


def _check_map(shape: tuple[int, ...], *, least: int) -> None:
    if len(shape) != 3 or min(shape[1:]) < least:
        raise UsageError(
            "this head does not fit on the trunk",
            why=f"it needs a map of {least} × {least} or larger; the trunk ends in {shape}",
            hint='take the head "linear", or larger pictures',
        )


def _dropout(share: float) -> list[nn.Module]:
    if not 0 <= share < 1:
        raise UsageError("dropout is a share of the units", why=f"{share}", hint="0 to below 1")
    return [nn.Dropout(share)] if share else []


def _activation(name: str) -> nn.Module:
    if name not in _ACTIVATIONS:
        raise UsageError(f"unknown activation {name!r}", hint=f"known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()
