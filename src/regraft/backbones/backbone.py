"""A trained network that turns pictures into rows, with its preprocessing and its stages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from regraft.backbones import engines
from regraft.backbones.catalog import find, registered_builder
from regraft.backbones.embedder import Embedder, Normalise
from regraft.backbones.layers import Layer, layer_table
from regraft.backbones.loading import build_network, state_sha256
from regraft.backbones.network import (
    Network,
    Stage,
    average,
    channels_first,
    classifier_modules,
    find_stages,
    tap,
    within,
)
from regraft.backbones.prepare import prepare
from regraft.backbones.resolving import (
    WeightsFacts,
    resolve_arguments,
    resolve_preprocessing,
    resolve_weights,
)
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.data.images import DECODER_VERSION, ImageLike, open_image
from regraft.errors import BackboneError
from regraft.files import sha256_json
from regraft.system import threads

_RETRAINED = "trained further from"


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One class that a network sees in a picture.

    Args:
        wnid: The WordNet identifier of the class.
        label: Its readable name.
        probability: Between 0 and 1, after the softmax.

    Example:
        >>> Guess(wnid="n01440764", label="tench", probability=0.9).label
        'tench'
    """

    wnid: str
    label: str
    probability: float


class Backbone:
    """A network with its weights, preprocessing and stages; always in eval mode.

    Args:
        spec: What was asked for.
        network: The network, taken apart by its adapter.
        preprocessing: What belongs to the weights.
        weights: Where the weights come from.
        identifier: The architecture, as in ``"timm:vgg16.tv_in1k"``.
        arguments: What it was built with, those of imported weights included; by default the
            spec's.
        notes: What a reader of results should know, one sentence each.

    Raises:
        BackboneError: The network takes no pictures of this size, or has no such stage.

    Example:
        >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
        >>> backbone.feature_dim, backbone.stages[0].name
        (128, 'features.0')
    """

    def __init__(
        self,
        spec: BackboneSpec,
        network: Network,
        *,
        preprocessing: Preprocessing,
        weights: WeightsFacts,
        identifier: str,
        arguments: Mapping[str, Any] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.spec = spec
        self.preprocessing = preprocessing
        self.weights = weights
        self.identifier = identifier
        self.arguments = dict(spec.arguments if arguments is None else arguments)
        self.notes = notes
        self.module = network.module.eval()
        self._network = network
        self._check_size()
        trunk_calls, self._top = self._measure()
        self.stages: tuple[Stage, ...] = find_stages(network, self._top, trunk_calls)
        device = next(self.module.parameters()).device  # a trained network may stand on another
        self.embedder = Embedder(self.module, preprocessing, self._rows()).to(device)
        self.feature_dim: int = self._run(self.embedder, self._blank(torch.uint8)).shape[1]

    @property
    def network(self) -> Network:
        """The network taken apart, for those who put another head on its last feature map."""
        return self._network

    @property
    def parameters(self) -> int:
        """The number of parameters of the trunk, without what comes after the embedding."""
        return sum(
            parameter.numel()
            for name, parameter in self.module.named_parameters()
            if not within(name, self._top)
        )

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides which numbers a picture becomes."""
        return self.fingerprint_of(self.spec.pooling)

    def fingerprint_of(self, pooling: str) -> str:
        """Return the fingerprint that the network has with another pooling."""
        return sha256_json(
            {
                "network": self.identifier,
                "weights": self.weights.sha256,
                "arguments": self.arguments,
                "preprocessing": self.preprocessing.to_json(),
                "pooling": pooling,
                "decoder": DECODER_VERSION,
            }
        )

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an upright RGB picture as the square that enters the network, (size, size, 3).

        Raises:
            ImageError: The picture is too long and thin (``IMG-ASPECT``).
        """
        return prepare(image, self.preprocessing)

    def engine(
        self, name: engines.EngineName = "auto", precision: engines.Precision = "fp32"
    ) -> engines.Engine:
        """Return what turns prepared pictures (n, size, size, 3) into rows (n, feature_dim).

        Args:
            name: ``"torch"``, ``"openvino"``, or ``"auto"`` for the faster one on this machine.
            precision: ``"fp32"``, or ``"bf16"`` which is faster and a little less exact.

        Raises:
            UsageError: The engine is unknown or not installed.
        """
        return engines.make_engine(
            self.embedder,
            name=name,
            precision=precision,
            fingerprint=self.fingerprint,
            size=self.preprocessing.size,
        )

    def embed(self, pictures: Sequence[ImageLike], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Return one row per picture, shape (n, feature_dim).

        Args:
            pictures: Paths, PIL pictures or H × W × 3 arrays of 8 bits.
            batch_size: How many pictures go through the network at once.

        Raises:
            ImageError: A picture cannot be read.

        Example:
            >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
            >>> backbone.embed([np.zeros((50, 40, 3), np.uint8)]).shape
            (1, 128)
        """
        engine = self._default_engine
        rows = [engine(batch) for batch in self._batches(pictures, batch_size)]
        return np.concatenate(rows) if rows else np.empty((0, self.feature_dim), np.float32)

    def top_k(self, pictures: Sequence[ImageLike], k: int = 5) -> list[list[Guess]]:
        """Return the ``k`` most probable ImageNet classes of each picture, the most probable first.

        Args:
            pictures: Paths, PIL pictures or H × W × 3 arrays of 8 bits.
            k: How many classes.

        Raises:
            BackboneError: The network has no trained ImageNet head (``BACKBONE-HEAD``).
            ImageError: A picture cannot be read.
        """
        from regraft.backbones.from_timm import imagenet_classes

        self._check_imagenet_head()
        normalise = Normalise(self.preprocessing)
        classes = imagenet_classes()
        guesses = []
        for batch in self._batches(pictures, 32):
            logits = self._run(self.module, normalise(torch.from_numpy(batch)))
            best = logits.float().softmax(1).topk(min(k, logits.shape[1]))
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                guesses.append(
                    [
                        Guess(
                            wnid=classes[index][0],
                            label=classes[index][1],
                            probability=value,
                        )
                        for value, index in zip(values, indices, strict=True)
                    ]
                )
        return guesses

    def layer_table(self, top: bool = False) -> list[Layer]:
        """Return the network's layers in the order of the forward pass.

        Args:
            top: Whether to list the layers after the embedding too.

        Example:
            >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
            >>> backbone.layer_table()[0].output_shape
            (16, 222, 222)
        """
        blank = self._blank(torch.float32)
        whole = self.module if top else self._trunk
        return layer_table(
            self.module, lambda: self._run(whole, blank), without=() if top else self._top
        )

    @functools.cached_property
    def _default_engine(self) -> engines.Engine:
        return self.engine()

    def _trunk(self, batch: torch.Tensor) -> torch.Tensor:
        return self._network.pooled(self._network.last_map(batch))

    def _blank(self, dtype: torch.dtype) -> torch.Tensor:
        size = self.preprocessing.size
        shape = (1, size, size, 3) if dtype == torch.uint8 else (1, 3, size, size)
        return torch.zeros(shape, dtype=dtype)

    def _run(self, apply: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> Any:
        device = next(self.module.parameters()).device
        with torch.inference_mode():
            return apply(batch.to(device))

    def _check_size(self) -> None:
        size, needed = self.preprocessing.size, self._network.size
        if self._network.fixed_size and size != needed:
            raise BackboneError(
                f"{self.spec.name} takes pictures of {needed} pixels only",
                why=f"{size} were asked for",
                hint="leave the size out, or choose a convolutional network",
                code="BACKBONE-SIZE",
            )

    def _measure(self) -> tuple[list[str], tuple[str, ...]]:
        """Return the calls of the trunk, and the names of the modules that only the head runs."""
        try:
            found: tuple[list[str], tuple[str, ...]] = self._run(
                lambda blank: classifier_modules(self._network, blank), self._blank(torch.float32)
            )
        except RuntimeError as error:
            raise BackboneError(
                f"{self.spec.name} cannot take pictures of {self.preprocessing.size} pixels",
                why=str(error).splitlines()[0][:200],
                hint=f"it was designed for {self._network.size}",
                code="BACKBONE-SIZE",
            ) from error
        return found

    def _rows(self) -> Callable[[torch.Tensor], torch.Tensor]:
        network, pooling = self._network, self.spec.pooling
        if pooling == "avg":
            return self._trunk
        if pooling == "flatten":
            return lambda batch: channels_first(network.last_map(batch), network.layout).flatten(1)
        wanted = pooling.removeprefix("stage:")
        stage = next((stage for stage in self.stages if stage.name == wanted), None)
        if stage is None:
            raise BackboneError(
                f"{self.spec.name} has no stage of this name",
                why=repr(wanted),
                hint="stages: " + ", ".join(stage.name for stage in self.stages),
                code="BACKBONE-STAGE",
            )
        reach = tap(self.module, stage.output)
        return lambda batch: average(reach(batch), network.layout)

    def _batches(
        self, pictures: Sequence[ImageLike], batch_size: int
    ) -> Iterator[NDArray[np.uint8]]:
        with ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(pictures), batch_size):
                batch = pictures[start : start + batch_size]
                yield np.stack(list(pool.map(lambda one: self.prepare(open_image(one)), batch)))

    def _check_imagenet_head(self) -> None:
        if not self.weights.classifier:
            raise BackboneError(
                f"{self.spec.name} cannot name ImageNet classes",
                why=f"its weights ({self.weights.source}) have no classifier",
                hint="import the file with its classifier, or learn classes: regraft fit DIR",
                code="BACKBONE-HEAD",
            )
        width = int(self._run(self.module, self._blank(torch.float32)).shape[1])
        if width != 1000 or self.weights.licence == "none":
            found = "its weights are random" if width == 1000 else f"its head has {width} outputs"
            raise BackboneError(
                f"{self.spec.name} cannot name ImageNet classes",
                why=found,
                hint="choose a network with its ImageNet head",
                code="BACKBONE-HEAD",
            )


def build(spec: BackboneSpec | str) -> Backbone:
    """Return the network that a spec or a name describes, with its weights.

    Args:
        spec: What to build; a name stands for a spec with all defaults.

    Raises:
        BackboneError: The name, an argument, the input size or the pooling is impossible.
        WeightsError: The weights are missing, damaged or of another network.

    Example:
        >>> build(BackboneSpec("simple_cnn", weights=None)).parameters
        231168
    """
    spec = BackboneSpec(spec) if isinstance(spec, str) else spec
    entry = find(spec.name)
    if entry.source == "registered":
        return registered_builder(entry.name)(spec)
    arguments = resolve_arguments(spec, entry)
    size = arguments.pop("size", None)
    network = build_network(entry, arguments, seed=spec.seed, empty=spec.weights is not None)
    preprocessing, notes = resolve_preprocessing(spec, entry, network, size)
    weights = resolve_weights(spec, entry, network)
    if not weights.classifier:
        notes += (f"the weights of {spec.name} ({weights.source}) have no classifier",)
    return Backbone(
        spec,
        network,
        preprocessing=preprocessing,
        weights=weights,
        identifier=f"{entry.source}:{entry.identifier}",
        arguments={**dict(entry.arguments), **dict(spec.arguments)},
        notes=notes,
    )


def retrained(backbone: Backbone) -> Backbone:
    """Return a backbone whose tensors were trained, with the facts of what they are now.

    Its fingerprint is what rows and compiled networks are kept under: with the old one, those of
    the weights before training would be taken for those after it.

    Example:
        >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
        >>> with torch.no_grad():
        ...     _ = backbone.module.head.bias.add_(1)
        >>> retrained(backbone).fingerprint == backbone.fingerprint
        False
    """
    source = backbone.weights.source
    facts = WeightsFacts(
        sha256=state_sha256(backbone.module),
        licence=backbone.weights.licence,
        source=source if source.startswith(_RETRAINED) else f"{_RETRAINED} {source}",
        classifier=backbone.weights.classifier,
    )
    return Backbone(
        backbone.spec,
        backbone.network,
        preprocessing=backbone.preprocessing,
        weights=facts,
        identifier=backbone.identifier,
        arguments=backbone.arguments,
        notes=backbone.notes,
    )
