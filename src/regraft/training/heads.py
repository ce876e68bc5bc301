"""Heads: what stands on a trunk and says which class it is. Plain values that build a module.

To add one, write its class here and name it in `AnyHead`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_args

from pydantic import Field

from regraft.errors import UsageError
from regraft.settings import did_you_mean, settings_class, to_json

if TYPE_CHECKING:
    from torch import Tensor, nn

Pool = Callable[["Tensor"], "Tensor"]
Entrance = Literal["pooled", "map"]
Pooling = Literal["avg", "flatten", "average_2x2"]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Units = Annotated[int, Field(ge=1, le=1_000_000)]
_ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "selu": "SELU", "tanh": "Tanh"}


class Head(Protocol):
    """What every head can do; a head of your own needs nothing else."""

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return a module from a trunk's last feature map to logits (n, outputs).

        Args:
            shape: Shape of one image's feature map: (channels, height, width).
            outputs: How many logits per image.
            pool: From feature maps to rows, the way the network itself does it.
        """
        ...


@settings_class(kw_only=True)
class LinearHead:
    """One linear layer on the pooled or flattened feature map.

    Args:
        kind: Tells the heads apart where they are written down.
        pooling: ``"avg"`` for the network's own pooling, ``"flatten"`` for the whole map.
        dropout: Share of the inputs that is dropped while training, 0 to below 1.

    Example:
        >>> from regraft.backbones.network import average
        >>> head = LinearHead().build((512, 7, 7), 5, pool=average)
        >>> sum(parameter.numel() for parameter in head.parameters())
        2565
    """

    kind: Literal["linear"] = "linear"
    pooling: Literal["avg", "flatten"] = "avg"
    dropout: Dropout = 0.0

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return the module; see :class:`Head`."""
        from torch import nn

        layers, width = _pooled(self.pooling, shape, pool)
        return nn.Sequential(*layers, *_dropout(self.dropout), nn.Linear(width, outputs))


@settings_class(kw_only=True)
class MLPHead:
    """Hidden layers, each with activation and optional batch norm and dropout, then the output.

    Args:
        kind: Tells the heads apart where they are written down.
        widths: Units of each hidden layer.
        pooling: ``"flatten"``, ``"avg"`` for the network's own pooling, or ``"average_2x2"`` for
            an average over windows of 2 × 2 before flattening.
        activation: ``"relu"``, ``"gelu"``, ``"selu"`` or ``"tanh"``.
        dropout: Share dropped behind the hidden layers while training, 0 to below 1: one number for
            all, or one for each.
        batch_norm: Whether each hidden layer is normalised before its activation.

    Raises:
        UsageError: A value is out of range, or the dropouts do not match the widths.

    Example:
        >>> from regraft.backbones.network import average
        >>> head = MLPHead(widths=(512, 512)).build((512, 7, 7), 5, pool=average)
        >>> sum(parameter.numel() for parameter in head.parameters())
        13110789
    """

    kind: Literal["mlp"] = "mlp"
    widths: Annotated[tuple[Units, ...], Field(max_length=100)] = (512, 512)
    pooling: Pooling = "flatten"
    activation: Literal["relu", "gelu", "selu", "tanh"] = "relu"
    dropout: Dropout | tuple[Dropout, ...] = 0.0
    batch_norm: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.dropout, tuple) and len(self.dropout) != len(self.widths):
            why = f"{len(self.dropout)} dropouts for {len(self.widths)} layers"
            hint = "give one number for all, or as many as there are widths"
            raise UsageError("a head needs one dropout per hidden layer", why=why, hint=hint)

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return the module; see :class:`Head`."""
        from torch import nn

        layers, width = _pooled(self.pooling, shape, pool)
        given = self.dropout
        shares = given if isinstance(given, tuple) else (given,) * len(self.widths)
        for units, share in zip(self.widths, shares, strict=True):
            layers.append(nn.Linear(width, units))
            if self.batch_norm:
                layers.append(nn.BatchNorm1d(units))
            layers += [getattr(nn, _ACTIVATIONS[self.activation])(), *_dropout(share)]
            width = units
        return nn.Sequential(*layers, nn.Linear(width, outputs))


@settings_class(kw_only=True)
class ConvHead:
    """Global average pooling and a convolution of 1 × 1, as in MobileNet v1.

    Args:
        kind: Tells the heads apart where they are written down.
        dropout: Share dropped before the convolution while training, 0 to below 1.

    Example:
        >>> head = ConvHead(dropout=0.3).build((512, 7, 7), 1, pool=lambda maps: maps)
        >>> sum(parameter.numel() for parameter in head.parameters())
        513
    """

    kind: Literal["conv"] = "conv"
    dropout: Dropout = 0.0

    def build(self, shape: tuple[int, ...], outputs: int, *, pool: Pool) -> nn.Module:
        """Return the module; see :class:`Head`.

        Raises:
            UsageError: The trunk ends in a row of tokens, not in a map of two dimensions.
        """
        from torch import nn

        del pool  # its own is a global average
        _check_map(shape, least=1)
        convolution = nn.Conv2d(shape[0], outputs, 1)
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), *_dropout(self.dropout), convolution, nn.Flatten()
        )


AnyHead = Annotated[LinearHead | MLPHead | ConvHead, Field(discriminator="kind")]
"""Regraft's own heads, as `regraft.settings.from_json` reads them."""

# The heads of the published teaching material have names of their own.
HEADS: Mapping[str, LinearHead | MLPHead | ConvHead] = {
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


def find_head(head: str | Head) -> Head:
    """Return a head by its name, or the head itself.

    Raises:
        UsageError: There is no head of that name.
    """
    if not isinstance(head, str):
        return head
    if head in HEADS:
        return HEADS[head]
    known = f"known: {', '.join(HEADS)}"
    raise UsageError(f"unknown head {head!r}", why=known, hint=did_you_mean(head, HEADS))


def head_to_json(head: Head) -> dict[str, Any]:
    """Return one of Regraft's own heads as JSON values, which `AnyHead` describes.

    Raises:
        UsageError: The head is not one of Regraft's own.
    """
    own = get_args(get_args(AnyHead)[0])
    if type(head) not in own:
        names = ", ".join(kind.__name__ for kind in own)
        why, hint = type(head).__name__, f"use one of {names}"
        raise UsageError("this head cannot be written down", why=why, hint=hint)
    values: dict[str, Any] = to_json(head)
    return values


def entrance(module: nn.Module) -> Entrance:
    """Return what the inside of a built head starts from.

    ``"pooled"`` where it pools the way the network itself does it and then works on rows, which can
    be computed once and `after_entrance` run on them; ``"map"`` for every other head.

    Example:
        >>> from regraft.backbones.network import average
        >>> entrance(LinearHead().build((8, 7, 7), 3, pool=average))
        'pooled'
    """
    return "pooled" if type(next(module.children(), None)) is _pooling_layer() else "map"


def after_entrance(module: nn.Module, rows: Tensor) -> Tensor:
    """Return the logits (n, outputs) of pooled rows (n, columns): the head without its pooling."""
    for layer in list(module.children())[1:]:
        rows = layer(rows)
    return rows


@functools.cache
def _pooling_layer() -> Any:
    """Return a class: a network's own pooling as a layer. Made late, so that torch loads late."""
    from torch import nn

    class OwnPooling(nn.Module):
        def __init__(self, pool: Pool) -> None:
            super().__init__()
            self._pool = pool

        def forward(self, features: Tensor) -> Tensor:
            return self._pool(features)

    return OwnPooling


def _pooled(pooling: Pooling, shape: tuple[int, ...], pool: Pool) -> tuple[list[nn.Module], int]:
    """Return the layers from the feature map to rows, and how many columns these have."""
    import torch
    from torch import nn

    if pooling == "avg":
        layers: list[nn.Module] = [_pooling_layer()(pool)]
    elif pooling == "flatten":
        layers = [nn.Flatten()]
    else:
        _check_map(shape, least=2)
        layers = [nn.AvgPool2d(2), nn.Flatten()]
    with torch.no_grad():
        width = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
    return layers, width


def _check_map(shape: tuple[int, ...], *, least: int) -> None:
    if len(shape) != 3 or min(shape[1:]) < least:
        why = f"it needs a map of {least} × {least} or larger; the trunk ends in {shape}"
        hint = 'take the head "linear", or larger images'
        raise UsageError("this head does not fit on the trunk", why=why, hint=hint)


def _dropout(share: float) -> list[nn.Module]:
    from torch import nn

    return [nn.Dropout(share)] if share else []
