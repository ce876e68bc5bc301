"""A trained network that turns images into rows, with its preprocessing and its stages."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from regraft.backbones import engines, sources
from regraft.backbones import network as parts
from regraft.backbones.catalog import Entry
from regraft.backbones.checkpoint_files import read_state
from regraft.backbones.from_timm import imagenet_classes
from regraft.backbones.spec import BackboneSpec, EngineName, PrecisionName, Preprocessing
from regraft.backbones.views import prepare
from regraft.data.images import DECODER_VERSION, ImageLike, open_image
from regraft.errors import BackboneError
from regraft.files import sha256_json
from regraft.settings import to_json
from regraft.system import threads

_RETRAINED = "trained further from"


@dataclass(frozen=True, kw_only=True)
class WeightsFacts:
    """Where the numbers of a network come from.

    Args:
        sha256: Hash over all tensors in the order of their names.
        licence: ``"unknown"`` where none is stated, ``"none"`` for random weights.
        source: A repository, an address, the name of a file, or ``"random, seed 0"``.
        classifier: Whether the classifier is among them.

    Example:
        >>> WeightsFacts(sha256="ab", licence="unknown", source="net.safetensors").licence
        'unknown'
    """

    sha256: str
    licence: str
    source: str
    classifier: bool = True


@dataclass(frozen=True)
class TopK:
    """One of the most probable classes that a network sees in an image.

    Args:
        wnid: The WordNet identifier of the class.
        label: Its readable name.
        probability: Between 0 and 1, after the softmax.
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
        BackboneError: The network takes no images of this size, or has no such stage.

    Example:
        >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
        >>> backbone.feature_dim, backbone.stages[0].name
        (128, 'features.0')
    """

    def __init__(
        self,
        spec: BackboneSpec,
        network: parts.Network,
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
        self.network = network
        sources.check_size(network, preprocessing.size, name=spec.name)
        trunk_calls, self.top = self._measure()
        self.stages: tuple[parts.Stage, ...] = parts.find_stages(network, self.top, trunk_calls)
        device = next(self.module.parameters()).device  # a trained network may stand on another
        self.embedder = engines.Embedder(self.module, preprocessing, self._rows()).to(device)
        self.feature_dim: int = self._run(self.embedder, self._blank(torch.uint8)).shape[1]

    @property
    def parameters(self) -> int:
        """The number of parameters of the trunk, without what comes after the embedding."""
        named = self.module.named_parameters()
        return sum(value.numel() for name, value in named if not parts.within(name, self.top))

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides which numbers an image becomes."""
        return self.fingerprint_of(self.spec.pooling)

    def fingerprint_of(self, pooling: str) -> str:
        """Return the fingerprint that the network has with another pooling."""
        facts = {
            "network": self.identifier,
            "weights": self.weights.sha256,
            "arguments": self.arguments,
            "preprocessing": to_json(self.preprocessing),
            "pooling": pooling,
            "decoder": DECODER_VERSION,
        }
        return sha256_json(facts)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an upright RGB image as the square that enters the network, (size, size, 3).

        Raises:
            ImageError: The image is too long and thin (``IMG-ASPECT``).
        """
        return prepare(image, self.preprocessing)

    def engine(
        self, name: EngineName = "auto", precision: PrecisionName = "fp32"
    ) -> engines.Engine:
        """Return what turns prepared images (n, size, size, 3) into rows (n, feature_dim).

        Args:
            name: ``"torch"``, ``"openvino"``, or ``"auto"`` for the faster one on this machine.
            precision: ``"fp32"``, or ``"bf16"`` which is faster and a little less exact.

        Raises:
            UsageError: The engine is unknown or not installed.
        """
        return engines.make_engine(
            self.embedder, name=name, precision=precision, fingerprint=self.fingerprint
        )

    def batches(
        self, images: Sequence[ImageLike], batch_size: int = 32
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the images as they enter the network, (at most ``batch_size``, size, size, 3).

        Raises:
            ImageError: An image cannot be read.
        """
        with ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size]
                yield np.stack(list(pool.map(lambda one: self.prepare(open_image(one)), batch)))

    def embed(self, images: Sequence[ImageLike], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Return one row per image, shape (n, feature_dim).

        Args:
            images: Paths, PIL images or H × W × 3 arrays of 8 bits.
            batch_size: How many images go through the network at once.

        Raises:
            ImageError: An image cannot be read.

        Example:
            >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
            >>> backbone.embed([np.zeros((50, 40, 3), np.uint8)]).shape
            (1, 128)
        """
        engine = self._default_engine
        rows = [engine(batch) for batch in self.batches(images, batch_size)]
        return np.concatenate(rows) if rows else np.empty((0, self.feature_dim), np.float32)

    def top_k(self, images: Sequence[ImageLike], k: int = 5) -> list[list[TopK]]:
        """Return the ``k`` most probable ImageNet classes of each image, the most probable first.

        Args:
            images: Paths, PIL images or H × W × 3 arrays of 8 bits.
            k: How many classes.

        Raises:
            BackboneError: The network has no trained ImageNet head (``BACKBONE-HEAD``).
            ImageError: An image cannot be read.
        """
        self._check_imagenet_head()
        normalise = engines.Normalise(self.preprocessing)
        classes = imagenet_classes()
        found = []
        for batch in self.batches(images):
            logits = self._run(self.module, normalise(torch.from_numpy(batch)))
            best = logits.float().softmax(1).topk(min(k, logits.shape[1]))
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                pairs = zip(values, indices, strict=True)
                found.append([TopK(classes[i][0], classes[i][1], value) for value, i in pairs])
        return found

    def layer_table(self, top: bool = False, *, blocks: bool = False) -> list[parts.Layer]:
        """Return the network's layers in the order of the forward pass.

        Args:
            top: Whether to list the layers after the embedding too.
            blocks: Whether a block of several layers is listed as one.

        Example:
            >>> backbone = build(BackboneSpec("simple_cnn", weights=None))
            >>> backbone.layer_table()[0].output_shape
            (16, 222, 222)
        """
        blank = self._blank(torch.float32)
        whole, without = (self.module, ()) if top else (self._trunk, self.top)

        def run() -> None:
            self._run(whole, blank)

        return parts.layer_table(self.module, run, without=without, blocks=blocks)

    @functools.cached_property
    def _default_engine(self) -> engines.Engine:
        return self.engine()

    def _trunk(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network.pooled(self.network.last_map(batch))

    def _blank(self, dtype: torch.dtype) -> torch.Tensor:
        size, device = self.preprocessing.size, next(self.module.parameters()).device
        shape = (1, size, size, 3) if dtype == torch.uint8 else (1, 3, size, size)
        return torch.zeros(shape, dtype=dtype, device=device)

    def _run(self, apply: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> Any:
        device = next(self.module.parameters()).device
        with torch.inference_mode():
            return apply(batch.to(device))

    def _measure(self) -> tuple[list[str], tuple[str, ...]]:
        """Return the calls of the trunk, and the names of the modules that only the head runs."""
        try:
            with torch.inference_mode():
                return parts.classifier_modules(self.network, self._blank(torch.float32))
        except RuntimeError as error:
            what = f"{self.spec.name} cannot take images of {self.preprocessing.size} pixels"
            why, hint = str(error).splitlines()[0][:200], f"it was designed for {self.network.size}"
            raise BackboneError(what, why=why, hint=hint, code="BACKBONE-SIZE") from error

    def _rows(self) -> Callable[[torch.Tensor], torch.Tensor]:
        network, pooling = self.network, self.spec.pooling
        if pooling == "avg":
            return self._trunk
        if pooling == "flatten":
            layout = network.layout
            return lambda batch: parts.channels_first(network.last_map(batch), layout).flatten(1)
        wanted = pooling.removeprefix("stage:")
        stage = next((stage for stage in self.stages if stage.name == wanted), None)
        if stage is None:
            what = f"{self.spec.name} has no stage of this name"
            hint = "stages: " + ", ".join(stage.name for stage in self.stages)
            raise BackboneError(what, why=repr(wanted), hint=hint, code="BACKBONE-STAGE")
        reach = parts.tap(self.module, stage.output)
        return lambda batch: parts.average(reach(batch), network.layout)

    def _check_imagenet_head(self) -> None:
        weights = self.weights
        width = int(self._run(self.module, self._blank(torch.float32)).shape[1])
        if weights.licence == "none":
            why = f"its weights ({weights.source}) are random"
        elif not weights.classifier:
            why = f"its weights ({weights.source}) have no classifier"
        elif width != 1000:
            why = f"it has {width} outputs"
        else:
            return
        what = f"{self.spec.name} cannot name ImageNet classes"
        hint = "choose a network with its ImageNet head, or learn classes: regraft fit DIR"
        raise BackboneError(what, why=why, hint=hint, code="BACKBONE-HEAD")


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
    entry = sources.find(spec.name)
    own, arguments = dict(entry.arguments), {**dict(entry.arguments), **dict(spec.arguments)}
    changed = [name for name in arguments if name != "size" and arguments[name] != own.get(name)]
    if entry.stored and changed:
        what = f"the imported weights {entry.name} have arguments of their own"
        hint = "leave the arguments out, or import the file again under another name"
        why = f"{', '.join(changed)} would change them"
        raise BackboneError(what, why=why, hint=hint, code="BACKBONE-ARGUMENT")
    given = {name: value for name, value in arguments.items() if name != "size"}
    network = sources.build_network(entry, given, seed=spec.seed, empty=spec.weights is not None)
    preprocessing, notes = _choose_preprocessing(spec, entry, network)
    weights = _put_weights(spec, entry, network)
    if not weights.classifier:
        notes += (f"the weights of {spec.name} ({weights.source}) have no classifier",)
    return Backbone(
        spec,
        network,
        preprocessing=preprocessing,
        weights=weights,
        identifier=f"{entry.source}:{entry.identifier}",
        arguments=arguments,
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
    source = f"{_RETRAINED} {backbone.weights.source.removeprefix(f'{_RETRAINED} ')}"
    sha256 = parts.state_sha256(backbone.module)
    again = copy.copy(backbone)
    again.weights = replace(backbone.weights, sha256=sha256, source=source)
    again.embedder.to(next(backbone.module.parameters()).device)
    vars(again).pop("_default_engine", None)  # it may hold the weights before
    return again


def _choose_preprocessing(
    spec: BackboneSpec, entry: Entry, network: parts.Network
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the preprocessing to use, with a note where it is assumed or not the weights' own."""
    size, given = dict(spec.arguments).get("size"), spec.preprocessing
    own = sources.usual_preprocessing(entry, network, size)
    if given is None:
        if spec.weights in {None, "default"} or entry.stored:
            return own, ()
        found = f"{Path(str(spec.weights)).name} does not say how its images are to be prepared"
        return own, (f"{found}; the preprocessing of {entry.name} is assumed: {own}.",)
    if given != own if entry.stored else size not in {None, given.size}:
        what = f"another preprocessing than {entry.name} has"
        why = f"asked for {given}; its own, at the size that is asked for, is {own}"
        hint = "leave the preprocessing out, or import the file again under another name"
        raise BackboneError(what, why=why, hint=hint, code="BACKBONE-PREPROCESSING")
    if spec.weights != "default" or given == own.at_size(given.size):
        return given, ()
    note = (
        f"images are prepared otherwise than those that the weights of {entry.name} were trained "
        f"on, so its features are worse: {given} instead of {own}; leave preprocessing out unless "
        "this is meant"
    )
    return given, (note,)


def _put_weights(spec: BackboneSpec, entry: Entry, network: parts.Network) -> WeightsFacts:
    """Put the weights that were asked for into the network, and say where they come from."""
    absent: tuple[str, ...] = ()
    if spec.weights is None:
        licence, source = "none", f"random, seed {spec.seed}"
    elif spec.weights != "default":
        path = Path(spec.weights)
        licence, source = "unknown", path.name
        absent = sources.load_state(network, read_state(path), path=path, entry=entry)
    elif entry.trained:
        licence, source = entry.licence, "the network's own"
    else:
        found = sources.locate(entry)
        licence, source = found.licence, found.source
        # Of PyTorch's own files only those with a hash in the catalogue come here.
        state = read_state(found.path, sha256=found.sha256, importing=True)
        absent = sources.load_state(network, state, path=found.path, entry=entry)
    return WeightsFacts(
        sha256=parts.state_sha256(network.module),
        licence=licence,
        source=source,
        classifier=not absent,
    )
