"""What is asked for, as plain values: a network's name, weights, preprocessing and pooling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic

from regraft.data.images import Decoding
from regraft.errors import BackboneError
from regraft.settings import PathText, settings_class

LARGEST_SIDE = 4096
Mode = Literal["crop", "squash", "squash_crop"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]
Channels = Literal["RGB", "BGR"]
EngineName = Literal["auto", "torch", "openvino"]
PrecisionName = Literal["fp32", "bf16"]
BoundaryChoice = Literal["auto", "off"]
Side = Annotated[int, pydantic.Field(ge=1, le=LARGEST_SIDE)]
Positive = Annotated[float, pydantic.Field(gt=0)]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


@settings_class(BackboneError, code="BACKBONE-PREPROCESSING", kw_only=True)
class Preprocessing:
    """How an image becomes the numbers that a network was trained on.

    The image is resized and cropped as 8-bit RGB; the network then sees
    ``(x / scale - mean) / std`` in the channel order ``channels``.

    Args:
        size: Height and width that enter the network, in pixels (1 to 4096).
        resize: Length of the shortest side before the centre crop, in pixels, at least ``size``.
        mode: ``"crop"`` keeps the aspect ratio and crops the centre; ``"squash"`` ignores it and
            crops nothing; ``"squash_crop"`` squashes to ``resize`` both ways and crops the centre.
        interpolation: The filter of the resize, antialiased except for ``"nearest"``.
        mean: Subtracted per channel, in the order ``channels``, after the division by ``scale``.
        std: Divides per channel.
        scale: Divides the 8-bit values: 255 gives the range 0 to 1.
        channels: The order in which the network takes the channels.

    Raises:
        BackboneError: A value is out of range (code ``BACKBONE-PREPROCESSING``).

    Example:
        >>> Preprocessing.tf(299).mean
        (0.5, 0.5, 0.5)
    """

    size: Side
    resize: Side
    mode: Mode = "crop"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = _IMAGENET_STD
    scale: Positive = 255.0
    channels: Channels = "RGB"

    def __post_init__(self) -> None:
        if self.resize < self.size:
            what, why = f"resize cannot be {self.resize}", f"it should be at least {self.size}"
            raise BackboneError(what, why=why, code="BACKBONE-PREPROCESSING")

    @classmethod
    def torch(cls, size: int = 224, **changes: Any) -> Self:
        """Return the preprocessing of torchvision's networks: ImageNet mean and standard deviation.

        Args:
            size: Height and width that enter the network, in pixels.
            **changes: Other fields, for example ``mode="squash"``.

        Example:
            >>> Preprocessing.torch().resize
            256
        """
        return cls(**{**_geometry(size), "interpolation": "bilinear", **changes})

    @classmethod
    def tf(cls, size: int = 224, **changes: Any) -> Self:
        """Return the preprocessing of TensorFlow's networks, the range -1 to 1; see :meth:`torch`.

        Example:
            >>> Preprocessing.tf(mode="squash", resize=224).std
            (0.5, 0.5, 0.5)
        """
        return cls(**{**_geometry(size), "mean": _HALF, "std": _HALF, **changes})

    @classmethod
    def caffe(cls, size: int = 224, **changes: Any) -> Self:
        """Return that of Caffe's networks: BGR, mean subtracted, not scaled; see :meth:`torch`.

        Example:
            >>> Preprocessing.caffe().channels
            'BGR'
        """
        own = {"mean": _CAFFE_MEAN, "std": (1.0, 1.0, 1.0), "scale": 1.0, "channels": "BGR"}
        return cls(**{**_geometry(size), **own, **changes})

    def at_size(self, size: int) -> Self:
        """Return the same preprocessing for another input size; the share cut away stays the same.

        Args:
            size: Height and width that enter the network, in pixels.

        Example:
            >>> Preprocessing.torch(224).at_size(112).resize
            128
        """
        whole = isinstance(size, int) and not isinstance(size, bool)
        resize = max(size, round(self.resize * size / self.size)) if whole else size
        return dataclasses.replace(self, size=size, resize=resize)

    def __str__(self) -> str:
        resized = "resize" if self.mode == "crop" else "squash to"
        cut = "squash" if self.mode == "squash" else f"{resized} {self.resize}, centre crop"
        return (
            f"{self.size} px ({cut}, {self.interpolation}), {self.channels}, "
            f"scale 1/{self.scale:g}, mean {_shown(self.mean)}, std {_shown(self.std)}"
        )


def read_arguments(value: Any) -> Any:
    """Return constructor arguments, given as pairs or a mapping, as sorted pairs of plain values.

    Raises:
        BackboneError: An argument is no plain value (``BACKBONE-ARGUMENT``).

    Example:
        >>> read_arguments({"size": 96, "layers": [2, 2]})
        (('layers', (2, 2)), ('size', 96))
    """
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        return tuple(sorted((str(key), _plain(key, item)) for key, item in pairs))
    except (TypeError, ValueError):
        return value  # refused by the check of the field


Arguments = Annotated[
    tuple[tuple[str, Any], ...],
    pydantic.BeforeValidator(read_arguments),
    pydantic.PlainSerializer(dict),
]
"""Names and values for the constructor of a network."""


@settings_class(BackboneError, code="BACKBONE-INVALID")
class BackboneSpec:
    """A backbone as plain values: hashable, cheap to clone, the same on every machine.

    Args:
        name: A name of the catalogue or of imported weights, or any name of timm or torchvision.
        weights: ``"default"``, ``None`` for random weights, or the path of a file of weights.
        arguments: Names and values for the network's constructor, for example
            ``(("pad_type", "same"),)``; a mapping is taken too. ``size`` sets the input size.
        preprocessing: The preprocessing to use instead of the weights' own.
        pooling: ``"avg"`` (the pooled last feature map), ``"flatten"`` (the last feature map in the
            order channel, height, width) or ``"stage:NAME"`` (the average over one stage's output).
        seed: The seed of random weights.

    Raises:
        BackboneError: An argument that is no plain value, or an unknown pooling.

    Example:
        >>> BackboneSpec("vgg16", pooling="flatten").weights
        'default'
    """

    name: str
    _: dataclasses.KW_ONLY
    weights: str | None = "default"
    arguments: Arguments = ()
    preprocessing: Preprocessing | None = None
    pooling: str = "avg"
    seed: int = 0

    def __post_init__(self) -> None:
        stage = self.pooling.removeprefix("stage:") if self.pooling.startswith("stage:") else ""
        if self.pooling not in {"avg", "flatten"} and not stage:
            why, hint = repr(self.pooling), 'use "avg", "flatten" or "stage:NAME"'
            raise BackboneError("unknown pooling", why=why, hint=hint, code="BACKBONE-POOLING")


@settings_class(kw_only=True)
class Compute:
    """Where and how numbers are computed and kept: what changes their cost, hardly their value.

    Args:
        device: Where a network is trained and predicts: ``"auto"``, ``"cpu"``, ``"cuda"`` or
            ``"mps"``.
        engine: What runs a frozen trunk: ``"auto"``, ``"torch"`` or ``"openvino"``.
        precision: ``"fp32"``, or ``"bf16"`` for half the bits; training then uses automatic mixed
            precision.
        cache: Where features are kept: ``"default"`` (below ``REGRAFT_HOME``), a folder, which then
            keeps all activations of frozen parts, too, or None for nowhere.
        boundary: Whether activations of frozen parts are kept while a network is trained:
            ``"auto"`` where they can be, ``"off"`` to run everything in every step.
        decoding: How files become pixels.

    Raises:
        UsageError: A value is not one of these.

    Example:
        >>> Compute(engine="torch", cache=None).precision
        'fp32'
    """

    device: str = "auto"
    engine: EngineName = "auto"
    precision: PrecisionName = "fp32"
    cache: PathText | None = "default"
    boundary: BoundaryChoice = "auto"
    decoding: Decoding = dataclasses.field(default_factory=Decoding)


def _geometry(size: int) -> dict[str, Any]:
    # 224 of 256 pixels is what most ImageNet networks since AlexNet were tested with.
    return {"size": size, "resize": round(size / 0.875) if isinstance(size, int) else size}


def _plain(key: object, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_plain(key, item) for item in value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if value is None or (isinstance(value, str | bool | int | float) and finite):
        return value
    what, why = f"argument {key!s:.100} is no plain value", f"found {value!r:.100}"
    hint = "use a text, number, true, false or a list of them"
    raise BackboneError(what, why=why, hint=hint, code="BACKBONE-ARGUMENT")


def _shown(values: tuple[float, float, float]) -> str:
    same = len(set(values)) == 1
    return f"{values[0]:g}" if same else "/".join(f"{value:g}" for value in values)
