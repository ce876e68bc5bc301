"""What a network has learned: filters, feature maps from edges to parts, and what excites it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F  # noqa: N812 - its usual name

from regraft.backbones.network import Apply, record_calls, tap, watched, within
from regraft.data.images import ImageLike
from regraft.errors import UsageError
from regraft.explain.maps import Learner, Maps, Pixels, Subject, as_grid, subject_of
from regraft.report.explain_page import StageMaps
from regraft.system import exact_float32

_STAGES = 6
_CHANNELS = 8
_AT_ONCE = 32
_GREY, _NOISE = 117.0, 8.0  # where activation maximisation starts, in 8-bit levels
_STEP, _SHIFT, _BLUR = 5.0, 24, 6.0  # levels per step; most pixels of a shift; first sigma
_KEPT = 0.98  # of the distance from grey, per step


@dataclass(frozen=True)
class Excited:
    """An image that excites a channel.

    Args:
        index: Which of the images it is.
        value: The largest value of the channel's map.
        crop: What lies around the place where it is largest, (side, side, 3), 8 bits.
    """

    index: int
    value: float
    crop: Pixels


def first_filters(learner: Learner) -> Pixels:
    """Return the filters of the first layer as small RGB images, (n, h, w, 3), 8 bits.

    Each is scaled by itself around grey, which stands for 0.

    Raises:
        UsageError: The first layer is no convolution over colours.

    Example:
        >>> from regraft.backbones.backbone import build
        >>> from regraft.backbones.spec import BackboneSpec
        >>> first_filters(build(BackboneSpec("simple_cnn", weights=None))).shape
        (16, 3, 3, 3)
    """
    backbone = subject_of(learner).backbone
    layers = (m for m in backbone.module.modules() if isinstance(m, nn.Conv2d))
    first = next(layers, None)
    if first is None or first.in_channels != 3:
        why = "its first layer is no convolution over three colours"
        raise UsageError(f"{backbone.spec.name} has no filters to show", why=why)
    weights = first.weight.detach().float().cpu().permute(0, 2, 3, 1)
    if backbone.preprocessing.channels == "BGR":
        weights = weights.flip(3)
    most = weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo().tiny)
    return np.asarray((127.5 * (weights / most + 1)).round().byte().numpy())


def feature_maps(
    learner: Learner, image: ImageLike, *, channels: Mapping[str, Sequence[int]] | None = None
) -> list[StageMaps]:
    """Return feature maps of an image behind some stages, from the first to the last.

    Args:
        learner: A fitted learner, or a trunk.
        image: A path, a Pillow image or an H × W × 3 array of 8 bits.
        channels: Which channels to show of which stages, such as those of another network of the
            same kind; by default of six stages the eight whose maps vary most.

    Raises:
        ImageError: The image cannot be used.
    """
    subject = subject_of(learner)
    module, stages = subject.backbone.module, subject.backbone.stages
    stages = stages[: stages.index(subject.stage) + 1]
    found: dict[str, Any] = {}
    with torch.no_grad(), exact_float32(subject.device.type):
        batch = _normalised(subject, subject.views([image]))
        outputs = {
            stage.name: module.get_submodule(stage.output) for stage in stages if stage.output
        }
        with watched(outputs, found.__setitem__):
            subject.backbone.network.last_map(batch)
    maps = {name: found[name] for name in outputs if name in found}
    kept = {name: as_grid(v, module)[0].float().cpu() for name, v in maps.items() if v.ndim > 2}
    if channels is None:
        names = list(kept)
        places = np.linspace(0, len(names) - 1, min(_STAGES, len(names))).round().astype(int)
        spread = {names[at]: kept[names[at]].flatten(1).std(1, correction=0) for at in places}
        channels = {
            name: values.topk(min(_CHANNELS, len(values))).indices.tolist()
            for name, values in spread.items()
        }
    return [
        StageMaps(name, tuple(chosen), _stretched(kept[name][list(chosen)]), len(kept[name]))
        for name, chosen in channels.items()
    ]


def most_excited(
    learner: Learner, images: Sequence[ImageLike], channel: int, *, count: int = 8
) -> list[Excited]:
    """Return the images that excite a channel of the last feature map most, strongest first.

    Args:
        learner: A fitted learner, or a trunk.
        images: Paths, Pillow images or H × W × 3 arrays of 8 bits.
        channel: Its number, from 0.
        count: How many images to return.

    Raises:
        UsageError: There is no such channel.
        ImageError: An image cannot be used.
    """
    subject = subject_of(learner)
    found: list[Excited] = []
    for start in range(0, len(images), _AT_ONCE):
        views = subject.views(images[start : start + _AT_ONCE])
        with torch.no_grad(), exact_float32(subject.device.type):
            reached = tap(subject.backbone.module, subject.stage.output)
            values = _channel(subject, reached(_normalised(subject, views)), channel)
        maps = values.float().cpu().numpy()
        for place, (view, own) in enumerate(zip(views, maps, strict=True)):
            at = np.unravel_index(own.argmax(), own.shape)
            crop = _around(view, [(int(i) + 0.5) / len(own) for i in at], 3 / len(own))
            found.append(Excited(start + place, float(own.max()), crop))
    return sorted(found, key=lambda one: -one.value)[:count]


def maximise(
    learner: Learner,
    *,
    class_name: str | None = None,
    channel: int | None = None,
    steps: int = 64,
    seed: int = 0,
) -> Pixels:
    """Return an image that makes a class's score, or a channel of the last map, large.

    Gradient ascent on the pixels from grey noise (Erhan et al., Visualizing higher-layer features
    of a deep network, 2009). So that it shows something, the image is shifted by chance before each
    step, the gradient is blurred, less and less, and all decays towards grey (Yosinski et al.,
    Understanding neural networks through deep visualization, 2015).

    Args:
        learner: A fitted learner, or a trunk with its ImageNet classifier.
        class_name: The class; of ImageNet its identifier.
        channel: The number of the channel, where no class is given.
        steps: Steps of the ascent; each is a pass forward and back.
        seed: Another seed, another image.

    Returns:
        (size, size, 3), 8 bits.

    Raises:
        UsageError: There is no such class or channel, or the classifier has no gradient.

    Example:
        >>> from regraft.backbones.backbone import build
        >>> from regraft.backbones.spec import BackboneSpec
        >>> trunk = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}))
        >>> maximise(trunk, channel=3, steps=2).shape
        (64, 64, 3)
    """
    subject = subject_of(learner)
    if class_name is not None and subject.scores is None:
        what, why = "no image can be made for a class", "its classifier has no gradient"
        raise UsageError(what, why=why, hint="ask for a channel")
    column = None if class_name is None else int(subject.columns([class_name])[0])

    reach = _before_activation(subject)

    def value(image: Tensor) -> Tensor:
        if column is not None and subject.scores is not None:
            return subject.scores(image)[0, column]
        normalised = subject.backbone.embedder.normalise(image)
        return _channel(subject, reach(normalised), channel or 0).mean()

    random = torch.Generator().manual_seed(seed)
    size, device = subject.backbone.preprocessing.size, subject.device
    image = _GREY + _NOISE * torch.randn(1, size, size, 3, generator=random)
    with torch.enable_grad(), exact_float32(device.type):
        for step in range(steps):
            down, right = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=random).tolist()
            moved = image.roll((down, right), (1, 2)).to(device).requires_grad_()
            slope = torch.autograd.grad(value(moved), moved)[0].cpu()
            sigma = _BLUR * (1 - step / steps) + 0.8
            slope = F.gaussian_blur(slope.permute(0, 3, 1, 2), [13, 13], [sigma, sigma])
            slope = slope.permute(0, 2, 3, 1).roll((-down, -right), (1, 2)) / slope.std().clamp(
                min=1e-12
            )
            image = (_GREY + (image + _STEP * slope - _GREY) * _KEPT).clamp(0, 255)
    return np.asarray(image[0].round().byte().numpy())


def _normalised(subject: Subject, views: Pixels) -> Tensor:
    batch: Tensor = subject.backbone.embedder.normalise(torch.from_numpy(views).to(subject.device))
    return batch


def _channel(subject: Subject, values: Tensor, channel: int) -> Tensor:
    """Return a channel of the last feature maps, (n, h, w)."""
    maps = as_grid(values, subject.backbone.module)
    if not 0 <= channel < maps.shape[1]:
        why = f"the last feature map of {subject.backbone.spec.name} has {maps.shape[1]}"
        raise UsageError(f"there is no channel {channel}", why=why, hint="they count from 0")
    return maps[:, channel]


def _before_activation(subject: Subject) -> Apply:
    """Return what runs a network up to the last feature map, in front of its last ReLU.

    Behind it a channel that nothing excites yet has no gradient.
    """
    network, stage, side = (
        subject.backbone.network,
        subject.stage,
        subject.backbone.preprocessing.size,
    )
    blank = torch.zeros(1, 3, side, side, device=subject.device)
    behind = tap(network.module, stage.output)
    with torch.no_grad():
        calls = record_calls(network.module, lambda: network.last_map(blank))
        last = [
            name
            for name in calls
            if within(name, stage.modules)
            and isinstance(network.module.get_submodule(name), nn.ReLU | nn.ReLU6)
        ]
        before = tap(network.module, last[-1], "input") if last else behind
        same = before(blank).shape[1] == behind(blank).shape[1]
    return before if same else behind


def _stretched(maps: Tensor) -> Maps:
    least, most = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return np.asarray(((maps - least) / (most - least).clamp(min=1e-12)).numpy())


def _around(view: Pixels, centre: Sequence[float], share: float) -> Pixels:
    """Return the square around a place that takes a share of the view's side."""
    size = len(view)
    side = min(size, max(32, round(share * size)))
    top, left = (min(max(round(at * size - side / 2), 0), size - side) for at in centre)
    return view[top : top + side, left : left + side]
