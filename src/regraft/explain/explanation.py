"""A page about a network: what it looks at in images, and what it has learned."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regraft.backbones.backbone import Backbone
from regraft.backbones.from_timm import imagenet_class, imagenet_classes
from regraft.errors import UsageError
from regraft.explain import inside
from regraft.explain.maps import (
    Learner,
    class_maps,
    correlation_with_redrawn,
    methods_for,
    subject_of,
)
from regraft.report import explain_page as page

MOST_IMAGES = 8  # whose maps are made; the others are only looked through for a channel
_TOP = 5


def write_explanation(
    learner: Learner,
    images: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str,
    class_name: str | None = None,
    channel: int | None = None,
    before: Backbone | None = None,
) -> Path:
    """Write a page that explains what a network predicts for images, and what it has learned.

    Args:
        learner: A fitted learner, or a trunk with its ImageNet classifier.
        images: Paths; maps are made of the first eight.
        path: The HTML file to write.
        title: What the network is called.
        class_name: A class that is explained beside the predicted one.
        channel: The channel of the last feature map that is looked into; by default the one that
            varies most over the first image.
        before: The trunk before it was trained, to be shown beside it as it is now.

    Raises:
        BackboneError: A trunk has no ImageNet classifier.
        UsageError: There is no image, no such class or no such channel.
        ImageError: An image cannot be used.
    """
    if not images:
        raise UsageError("no image to look at", hint="name at least one")
    names: dict[str, str] = {}
    if isinstance(learner, Backbone):
        learner.top_k([])  # refuses a trunk that has no classifier
        names = dict(imagenet_classes())
        class_name = class_name and (imagenet_class(class_name) or class_name)
    subject, looked_at = subject_of(learner), images[:MOST_IMAGES]
    views = subject.views(looked_at)
    chances = subject.probabilities(views)
    predicted = [subject.classes[best] for best in chances.argmax(1)]
    asked = [[class_name] * len(views)] if class_name else []
    drawn: list[dict[tuple[str, str], page.Map]] = [{} for _ in views]
    for method in methods_for(learner):
        for classes in (predicted, *asked):
            found = class_maps(learner, looked_at, classes, method=method)
            for own, name, values in zip(drawn, classes, found, strict=True):
                own[method, name] = page.Map(method, names.get(name, name), values)
    explained = []
    for image, view, row, own in zip(looked_at, views, chances, drawn, strict=True):
        best = [subject.classes[at] for at in np.argsort(-row, kind="stable")[:_TOP]]
        bars = [(names.get(c, c), float(row[subject.classes.index(c)])) for c in best]
        explained.append(page.Explained(os.fspath(image), view, tuple(bars), tuple(own.values())))
    wanted = class_name or predicted[0]
    return page.write_explained(
        explained,
        look_inside(learner, images, channel=channel, class_name=wanted, before=before),
        path,
        title=title,
        label=names.get(wanted, wanted),
        likeness=float(correlation_with_redrawn(learner, looked_at, predicted).mean()),
    )


def look_inside(
    learner: Learner,
    images: Sequence[str],
    *,
    channel: int | None,
    class_name: str,
    before: Backbone | None,
) -> page.Inside:
    """Return what a network has learned, beside what it was before; see `write_explanation`."""
    subject, former = subject_of(learner), before
    if former and former.weights.sha256 == subject.backbone.weights.sha256:
        former = None  # nothing of the trunk was trained
    stages = inside.feature_maps(learner, images[0])
    shown = {one.stage: one.channels for one in stages}
    chosen = stages[-1].channels[0] if channel is None else channel
    made = [(f"channel {chosen}", inside.maximise(learner, channel=chosen))]
    if former:
        made.append((f"channel {chosen}, before", inside.maximise(former, channel=chosen)))
    if subject.scores is not None:
        made.append(("class", inside.maximise(learner, class_name=class_name)))
    networks = [learner, former] if former else [learner]
    filters = []
    with contextlib.suppress(UsageError):  # a network of somebody's own may have none
        filters = [inside.first_filters(one) for one in networks]
    return page.Inside(
        filters=filters,
        stages=[inside.feature_maps(one, images[0], channels=shown) for one in networks],
        channel=chosen,
        excited=[
            (os.fspath(images[one.index]), one.value, one.crop)
            for one in inside.most_excited(learner, images, chosen)
        ],
        made=made,
    )
