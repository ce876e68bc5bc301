"""What is asked for, as plain values: a network's name, weights, preprocessing and pooling."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

import pydantic

from regraft.data.images import Decoding
from regraft.errors import BackboneError
from regraft.settings import settings_class

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone

Mode = Literal["crop", "squash", "squash_crop"]
Interpolation = Literal["bicubic", "bilinear", "nearest"]
Channels = Literal["RGB", "BGR"]
EngineName = Literal["auto", "torch", "openvino"]
PrecisionName = Literal["fp32", "bf16"]
BoundaryChoice = Literal["auto", "off", "float32", "float16", "bfloat16"]
Triple = tuple[float, float, float]

LARGEST_SIDE = 4096
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


def _path_as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the numbers that a network was trained on.

    The picture is resized and cropped as 8-bit RGB; the network then sees
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

    size: int
    resize: int
    mode: Mode = "crop"
    interpolation: Interpolation = "bicubic"
    mean: Triple = _IMAGENET_MEAN
    std: Triple = _IMAGENET_STD
    scale: float = 255.0
    channels: Channels = "RGB"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _triple(name, getattr(self, name)))
        for name, allowed in (
            ("mode", get_args(Mode)),
            ("interpolation", get_args(Interpolation)),
            ("channels", get_args(Channels)),
        ):
            if getattr(self, name) not in allowed:
                raise _refused(name, getattr(self, name), "one of " + ", ".join(allowed))
        if not _whole(self.size) or not 1 <= self.size <= LARGEST_SIDE:
            raise _refused("size", self.size, f"a whole number from 1 to {LARGEST_SIDE}")
        if not _whole(self.resize) or not self.size <= self.resize <= LARGEST_SIDE:
            raise _refused("resize", self.resize, f"a whole number from size to {LARGEST_SIDE}")
        if not _number(self.scale) or self.scale <= 0:
            raise _refused("scale", self.scale, "a number above 0")
        if min(self.std) <= 0:
            raise _refused("std", self.std, "three numbers above 0")

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
        """Return the preprocessing of TensorFlow's networks: the range -1 to 1.

        Args:
            size: Height and width that enter the network, in pixels.
            **changes: Other fields, for example ``mode="squash"``.

        Example:
            >>> Preprocessing.tf(mode="squash", resize=224).std
            (0.5, 0.5, 0.5)
        """
        return cls(**{**_geometry(size), "mean": _HALF, "std": _HALF, **changes})

    @classmethod
    def caffe(cls, size: int = 224, **changes: Any) -> Self:
        """Return the preprocessing of Caffe's networks: BGR, mean subtracted, not scaled.

        Args:
            size: Height and width that enter the network, in pixels.
            **changes: Other fields, for example ``mean=(104.0, 117.0, 123.0)``.

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
        resize = max(size, round(self.resize * size / self.size)) if _whole(size) else size
        return dataclasses.replace(self, size=size, resize=resize)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        Example:
            >>> Preprocessing.from_json(Preprocessing.tf().to_json()) == Preprocessing.tf()
            True
        """
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the preprocessing written by `to_json`.

        Raises:
            BackboneError: A field is missing, unknown or out of range (``BACKBONE-PREPROCESSING``).
        """
        _check_keys(cls, value, code="BACKBONE-PREPROCESSING")
        return cls(**value)

    def __str__(self) -> str:
        way = "resize" if self.mode == "crop" else "squash to"
        cut = "squash" if self.mode == "squash" else f"{way} {self.resize}, centre crop"
        return (
            f"{self.size} px ({cut}, {self.interpolation}), {self.channels}, "
            f"scale 1/{self.scale:g}, mean {_shown(self.mean)}, std {_shown(self.std)}"
        )


@dataclass(frozen=True, kw_only=True)
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

    name: str = dataclasses.field(kw_only=False)
    weights: str | None = "default"
    arguments: tuple[tuple[str, Any], ...] = ()
    preprocessing: Preprocessing | None = None
    pooling: str = "avg"
    seed: int = 0

    def __post_init__(self) -> None:
        given = self.arguments
        pairs = given.items() if isinstance(given, Mapping) else given
        object.__setattr__(
            self, "arguments", tuple(sorted((str(key), _plain(key, value)) for key, value in pairs))
        )
        stage = self.pooling.removeprefix("stage:") if self.pooling.startswith("stage:") else ""
        if self.pooling not in {"avg", "flatten"} and not stage:
            raise BackboneError(
                "unknown pooling",
                why=repr(self.pooling),
                hint='use "avg", "flatten" or "stage:NAME"',
                code="BACKBONE-POOLING",
            )

    def build(self) -> Backbone:
        """Return the network with its weights, ready to embed pictures.

        Raises:
            BackboneError: The name, an argument, the input size or the pooling is impossible.
            WeightsError: The weights are missing, damaged or of another network.
        """
        from regraft.backbones.backbone import build

        return build(self)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        Example:
            >>> spec = BackboneSpec("mobilenet_v2", arguments=(("pad_type", "same"),))
            >>> BackboneSpec.from_json(spec.to_json()) == spec
            True
        """
        shown = self.preprocessing
        return {
            "name": self.name,
            "weights": self.weights,
            "arguments": dict(self.arguments),
            "preprocessing": None if shown is None else shown.to_json(),
            "pooling": self.pooling,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the spec written by `to_json`.

        Raises:
            BackboneError: A field is missing, unknown or out of range.
        """
        _check_keys(cls, value, code="BACKBONE-INVALID")
        shown = value.get("preprocessing")
        own = None if shown is None else Preprocessing.from_json(shown)
        return cls(**{**value, "preprocessing": own})


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
        boundary: How activations of frozen parts are kept while a network is trained: ``"auto"``,
            ``"off"`` to run everything in every step, or ``"float32"``, ``"float16"``,
            ``"bfloat16"``.
        disk_budget: The most bytes that these may take; None for half of what is free.
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
    cache: Annotated[str | os.PathLike[str] | None, pydantic.BeforeValidator(_path_as_text)] = (
        "default"
    )
    boundary: BoundaryChoice = "auto"
    disk_budget: Annotated[int, pydantic.Field(ge=0)] | None = None
    decoding: Decoding = field(default_factory=Decoding)


def _geometry(size: int) -> dict[str, Any]:
    # 224 of 256 pixels is what most ImageNet networks since AlexNet were tested with.
    return {"size": size, "resize": round(size / 0.875)}


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return (_whole(value) or isinstance(value, float)) and math.isfinite(value)  # type: ignore[arg-type]


def _triple(name: str, values: Any) -> Triple:
    listed = isinstance(values, tuple | list)
    if not listed or len(values) != 3 or not all(_number(value) for value in values):
        raise _refused(name, values, "three finite numbers")
    return (float(values[0]), float(values[1]), float(values[2]))


def _refused(name: str, value: object, expected: str) -> BackboneError:
    return BackboneError(
        f"preprocessing: {name} is out of range",
        why=f"found {value!r:.100}, expected {expected}",
        code="BACKBONE-PREPROCESSING",
    )


def _plain(key: object, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_plain(key, item) for item in value)
    if value is None or isinstance(value, str | bool) or _number(value):
        return value
    raise BackboneError(
        f"argument {key!s:.100} is no plain value",
        why=f"found {value!r:.100}",
        hint="use a text, number, true, false or a list of them",
        code="BACKBONE-ARGUMENT",
    )


def _check_keys(kind: type[Any], value: Mapping[str, Any], *, code: str) -> None:
    if not isinstance(value, Mapping):
        raise BackboneError(f"{kind.__name__} is not an object", why=f"{value!r:.100}", code=code)
    fields = dataclasses.fields(kind)
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    known = {field.name for field in fields}
    unknown, missing = sorted(set(value) - known), sorted(needed - set(value))
    if unknown or missing:
        found = f"unknown {unknown[:5]}" if unknown else f"missing {missing[:5]}"
        raise BackboneError(
            f"cannot read {kind.__name__}", why=found, hint=f"known: {sorted(known)}", code=code
        )


def _shown(values: Triple) -> str:
    same = len(set(values)) == 1
    return f"{values[0]:g}" if same else "/".join(f"{value:g}" for value in values)
