"""Class-activation maps: which parts of an image speak for a class, by two methods.

Grad-CAM weighs the channels of the last feature map by the gradient of the class's score. Occlusion
covers the image piece by piece and looks how far the class's probability falls; it needs no
gradient and so works with any classifier.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from regraft.backbones.backbone import Backbone
from regraft.backbones.from_timm import imagenet_classes
from regraft.backbones.network import Stage, channels_first, tap
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.classifiers.shallow import tempered
from regraft.data.images import Decoding, ImageLike, open_image
from regraft.errors import UsageError, list_names
from regraft.system import exact_float32
from regraft.training.optim import probabilities

Learner = FeatureClassifier | NetworkClassifier | Backbone
Method = Literal["grad-cam", "occlusion"]
Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]

CELLS = 14  # to a side of an occlusion map; a patch covers 2 × 2 of them
_AT_ONCE = 16
_NOISE = 1e-9  # a smaller change of a probability is rounding


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network that is looked into: a learner with its classes, or a trunk with ImageNet's.

    Attributes:
        backbone: The trunk, with its preprocessing.
        network: All that has weights.
        classes: The names of the classes; of ImageNet's, their WordNet identifiers.
        scores: From views (n, size, size, 3), 0 to 255, to the score of each class before it
            becomes a probability, (n, k); None where a classifier has no gradient.
        chances: From the same views to the probability of each class, (n, k).
        stage: The stage whose output is the last feature map.
        decoding: How images are decoded.
    """

    backbone: Backbone
    network: nn.Module
    classes: tuple[str, ...]
    scores: Callable[[Tensor], Tensor] | None
    chances: Callable[[Tensor], NDArray[np.float64]]
    stage: Stage
    decoding: Decoding = Decoding()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def views(self, images: Sequence[ImageLike]) -> Pixels:
        """Return images as they enter the network; see `seen`."""
        size = self.backbone.preprocessing.size
        views = np.empty((len(images), size, size, 3), np.uint8)
        for place, image in enumerate(images):
            views[place] = self.backbone.prepare(open_image(image, self.decoding))
        return views

    def probabilities(self, views: Pixels) -> NDArray[np.float64]:
        """Return the probability of each class for each view, (n, k)."""
        blocks = (views[start : start + _AT_ONCE] for start in range(0, len(views), _AT_ONCE))
        with torch.no_grad(), exact_float32(self.device.type):
            return np.concatenate(
                [self.chances(torch.from_numpy(b).to(self.device)) for b in blocks]
            )

    def columns(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Return the column of each class.

        Raises:
            UsageError: There is no such class.
        """
        places = {name: place for place, name in enumerate(self.classes)}
        unknown = sorted(set(classes) - set(places))
        if unknown:
            what, hint = "there is no such class", f"the classes are {list_names(self.classes)}"
            raise UsageError(what, why=list_names(unknown), hint=hint)
        return np.array([places[name] for name in classes], np.int64)


def subject_of(learner: Learner) -> Subject:
    """Return what is looked into, for a fitted learner or a trunk with its ImageNet classifier.

    Example:
        >>> from regraft.backbones.backbone import build
        >>> from regraft.backbones.spec import BackboneSpec
        >>> subject_of(build(BackboneSpec("simple_cnn", weights=None))).stage.name
        'features.3'
    """
    if isinstance(learner, Backbone):
        return _bare(learner)
    check_is_fitted(learner)
    backbone = learner.backbone_
    names, decoding = tuple(map(str, learner.classes_)), learner.compute.decoding
    temperature = learner.temperature_
    if isinstance(learner, NetworkClassifier):
        network = learner.network_.eval()
        return Subject(
            backbone=backbone,
            network=network,
            classes=names,
            scores=lambda views: _one_for_each(network(views)),
            chances=lambda views: tempered(probabilities(network(views)).numpy(), temperature),
            stage=backbone.stages[-1],
            decoding=decoding,
        )
    shallow, rows = learner.shallow_, backbone.embedder
    linear, device = shallow.linear(), next(rows.parameters()).device
    scores = None
    if linear is not None:
        weights, offsets = (torch.from_numpy(part).float().to(device) for part in linear)
        scores = lambda views: rows(views) @ weights.T + offsets  # noqa: E731 - one expression
    pooling = backbone.spec.pooling.removeprefix("stage:")
    return Subject(
        backbone=backbone,
        network=backbone.module,
        classes=names,
        scores=scores,
        chances=lambda views: tempered(
            shallow.predict_proba(rows(views).cpu().numpy()), temperature
        ),
        stage=next((s for s in backbone.stages if s.name == pooling), backbone.stages[-1]),
        decoding=decoding,
    )


def _bare(backbone: Backbone) -> Subject:
    normalise, module = backbone.embedder.normalise, backbone.module
    return Subject(
        backbone=backbone,
        network=module,
        classes=tuple(wnid for wnid, _ in imagenet_classes()),
        scores=lambda views: module(normalise(views)),
        chances=lambda views: probabilities(module(normalise(views))).numpy(),
        stage=backbone.stages[-1],
    )


def seen(learner: Learner, images: Sequence[ImageLike]) -> Pixels:
    """Return images as they enter the network: the squares on which maps lie.

    Args:
        learner: A fitted learner, or a trunk.
        images: Paths, Pillow images or H × W × 3 arrays of 8 bits.

    Returns:
        (n, size, size, 3), 8 bits.

    Raises:
        ImageError: An image cannot be used.
    """
    return subject_of(learner).views(images)


def methods_for(learner: Learner) -> tuple[Method, ...]:
    """Return the methods that can explain a learner, the best first.

    Nearest neighbours, trees and kernels have no gradient: occlusion alone explains them.
    """
    return ("occlusion",) if subject_of(learner).scores is None else ("grad-cam", "occlusion")


def class_maps(
    learner: Learner,
    images: Sequence[ImageLike],
    classes: Sequence[str],
    *,
    method: Method = "grad-cam",
) -> Maps:
    """Return which parts of each image speak for a class.

    Args:
        learner: A fitted learner, or a trunk with its ImageNet classifier.
        images: Paths, Pillow images or H × W × 3 arrays of 8 bits.
        classes: The class that is explained, one for each image; of ImageNet its identifier.
        method: ``"grad-cam"`` (Selvaraju et al., Grad-CAM, 2017) takes one pass of an image, and a
            learner without a gradient falls back on ``"occlusion"`` (Zeiler & Fergus, Visualizing
            and understanding convolutional networks, 2014, figure 6), which takes 170: see
            `methods_for`. Patches get the mean colour of the view.

    Returns:
        (n, h, w), 0 to 1: a grid over the square that `seen` returns. The largest value of a map is
        1, or all are 0 where nothing speaks for the class.

    Raises:
        UsageError: There is no such class, or not one for each image.
        ImageError: An image cannot be used.

    Example:
        >>> from regraft.backbones.spec import BackboneSpec
        >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
        >>> learner = FeatureClassifier(BackboneSpec("simple_cnn", weights=None))
        >>> _ = learner.fit([dark, light], ["night", "day"])
        >>> class_maps(learner, [light], ["day"]).shape
        (1, 12, 12)
    """
    subject = subject_of(learner)
    if len(classes) != len(images):
        why = f"{len(images)} images, {len(classes)} classes"
        raise UsageError("every image needs the class that is explained", why=why)
    columns, found = subject.columns(classes), [np.zeros((0, 1, 1), np.float32)]
    make = _occlusion if method == "occlusion" or subject.scores is None else _grad_cam
    for start in range(0, len(images), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found.append(make(subject, subject.views(images[part]), columns[part]))
    return np.concatenate(found[1:] or found)


def correlation_with_redrawn(
    learner: Learner,
    images: Sequence[ImageLike],
    classes: Sequence[str],
    *,
    method: Method = "grad-cam",
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return how like each map is to that of the same network with its weights shuffled.

    A method whose maps stay the same shows edges of the image, not what the network has learned
    (Adebayo et al., Sanity checks for saliency maps, 2018). The network itself stays as it is.

    Args:
        learner: A fitted learner, or a trunk with its ImageNet classifier.
        images: As in `class_maps`.
        classes: As in `class_maps`.
        method: As in `class_maps`.
        seed: Another seed, another order of the weights.

    Returns:
        (n,), the rank correlation of the two maps, -1 to 1; 0 where one of them is empty.
    """
    own = class_maps(learner, images, classes, method=method)
    with _redrawn(subject_of(learner).network, seed):
        other = class_maps(learner, images, classes, method=method)
    return np.array([_rank_correlation(*pair) for pair in zip(own, other, strict=True)])


# ---- Grad-CAM ----------------------------------------------------------------------------------


def _grad_cam(subject: Subject, views: Pixels, columns: NDArray[np.int64]) -> Maps:
    assert subject.scores is not None
    device = subject.device
    batch, chosen = torch.from_numpy(views).to(device), torch.from_numpy(columns).to(device)
    with exact_float32(device.type):
        with torch.no_grad(), _recorded_from_map(subject, batch[:1]) as kept:
            scores = subject.scores(batch).gather(1, chosen[:, None])
        (slopes,) = torch.autograd.grad(scores.sum(), kept)
    module = subject.backbone.module
    values, slopes = (as_grid(part, module) for part in (kept[0].detach(), slopes))
    maps = (slopes.mean((2, 3), keepdim=True) * values).sum(1).clamp(min=0)
    return _scaled(maps.float().cpu().numpy())


@contextlib.contextmanager
def _recorded_from_map(subject: Subject, probe: Tensor) -> Iterator[list[Tensor]]:
    """Record a pass from the last feature map on, so that a gradient goes no further back.

    Of a transformer it is what enters the last block: behind it, a classifier that reads the class
    token alone has no gradient at the patches.

    Args:
        subject: What is looked into.
        probe: One view.
    """
    module, stage = subject.backbone.module, subject.stage
    kept: list[Tensor] = []

    def cut(value: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        kept.append(value.detach().requires_grad_())
        return kept[0].clone()  # what follows may compute in place

    normalised = subject.backbone.embedder.normalise(probe)
    if tap(module, stage.output)(normalised).ndim == 3:
        block = module.get_submodule(stage.modules[0])
        handle = block.register_forward_pre_hook(lambda _, inputs: (cut(inputs[0]), *inputs[1:]))
    else:
        last = module.get_submodule(stage.output)
        handle = last.register_forward_hook(lambda _, _inputs, output: cut(output))
    try:
        yield kept
    finally:
        handle.remove()


def as_grid(values: Tensor, module: nn.Module) -> Tensor:
    """Return feature maps as (n, channels, h, w); tokens without those in front of the patches."""
    if values.ndim == 4:
        return channels_first(values)
    count = values.shape[1]
    extra = getattr(module, "num_prefix_tokens", count - math.isqrt(count) ** 2)
    side = math.isqrt(count - extra)
    return values[:, extra:].transpose(1, 2).reshape(len(values), -1, side, side)


def _one_for_each(logits: Tensor) -> Tensor:
    """Return a score of each class: one logit for two classes is that of the second."""
    return logits if logits.shape[1] > 1 else torch.cat([-logits, logits], 1)


# ---- occlusion ---------------------------------------------------------------------------------


def _occlusion(subject: Subject, views: Pixels, columns: NDArray[np.int64]) -> Maps:
    edges = np.linspace(0, views.shape[1], CELLS + 1).round().astype(int)
    corners = [(row, column) for row in range(CELLS - 1) for column in range(CELLS - 1)]
    maps = np.zeros((len(views), CELLS, CELLS))
    covered = np.zeros((CELLS, CELLS))
    for row, column in corners:
        covered[row : row + 2, column : column + 2] += 1
    before = subject.probabilities(views)
    for own, view, chosen, chances in zip(maps, views, columns, before, strict=True):
        patched = np.repeat(view[None], len(corners), 0)
        mean = view.mean((0, 1)).round().astype(np.uint8)
        for one, (row, column) in zip(patched, corners, strict=True):
            one[edges[row] : edges[row + 2], edges[column] : edges[column + 2]] = mean
        drops = chances[chosen] - subject.probabilities(patched)[:, chosen]
        for drop, (row, column) in zip(drops, corners, strict=True):
            own[row : row + 2, column : column + 2] += drop
    maps /= covered
    maps[maps < _NOISE] = 0
    return _scaled(maps.astype(np.float32))


# ---- shared ------------------------------------------------------------------------------------


def _scaled(maps: Maps) -> Maps:
    most = maps.max((1, 2), keepdims=True, initial=0)
    return np.asarray(np.divide(maps, most, out=np.zeros_like(maps), where=most > 0))


@contextlib.contextmanager
def _redrawn(network: nn.Module, seed: int) -> Iterator[None]:
    """Put the numbers of each of a network's tensors into another order, for a while."""
    random = torch.Generator().manual_seed(seed)
    kept = [(tensor, tensor.detach().clone()) for tensor in network.parameters()]
    try:
        with torch.no_grad():
            for tensor, own in kept:
                order = torch.randperm(own.numel(), generator=random).to(own.device)
                tensor.copy_(own.flatten()[order].view_as(own))
        yield
    finally:
        with torch.no_grad():
            for tensor, own in kept:
                tensor.copy_(own)


def _rank_correlation(one: Maps, other: Maps) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
