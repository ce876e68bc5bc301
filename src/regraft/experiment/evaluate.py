"""Images for trained models: a run measured on labelled ones, and what models say of any."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image, fromarray

from regraft.backbones.backbone import Backbone, build
from regraft.backbones.from_timm import imagenet_class
from regraft.backbones.spec import BackboneSpec
from regraft.classifiers.network_classifier import NetworkClassifier, load_model
from regraft.data.dataset import Dataset, Split
from regraft.data.sources import PARTS
from regraft.deploy.predictor import answer_files
from regraft.errors import ImageError, RegraftError, UsageError
from regraft.experiment.config import DataConfig, MethodConfig
from regraft.experiment.prepare import checked_images
from regraft.explain.explanation import write_explanation
from regraft.explain.inspector import overlay
from regraft.explain.maps import class_maps, seen
from regraft.explain.neighbours import TrainingFeatures
from regraft.report.gallery import image_address
from regraft.results.intervals import Estimate, accuracy_json
from regraft.results.metrics import accuracy
from regraft.results.predictions import evaluate
from regraft.results.run import MODEL, PART_TITLES, RECORD, Run
from regraft.settings import from_json, to_json


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on the images of a folder, part by part.

    Attributes:
        metrics: The accuracy on the images of each part that there are; images that the run never
            saw belong to the test part.
        new: How many of the test images were unknown to the run.
        bad: The error of each image that could not be used and was left out.
        test_looks: How often the run's test part was looked at, this time included.
        test_views: How many views of each test image were predicted.
    """

    metrics: dict[str, dict[str, Estimate]]
    new: int
    bad: tuple[ImageError, ...]
    test_looks: int
    test_views: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        parts = {title: self.metrics.get(title) for title in PART_TITLES.values()}
        return {
            **{title: one and accuracy_json(one["accuracy"]) for title, one in parts.items()},
            "new": self.new,
            "refused": len(self.bad),
            "bad_files": [error.to_json() for error in self.bad],
            "test_looks": self.test_looks,
            "test_views": self.test_views,
        }

    def comment(self) -> str:
        """Return what a reader should know about these numbers, in one line."""
        known = f"{self.new} are new to the run" if self.new else "all are of the run's own split"
        if self.test_views > 1:
            known += f"; each is predicted by the mean of {self.test_views} views"
        return f"test images: {known}; its test part was looked at {self.test_looks} times"


def evaluate_on(
    run: str | os.PathLike[str],
    data: DataConfig,
    *,
    test_views: int | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Measure the model of a run on images.

    Images are recognised by their content: what the run learned from counts as train wherever it
    lies now, so that a model never scores on images it has learned.

    Args:
        run: The folder of a run.
        data: Which images; they are not split.
        test_views: How many views of each test image are predicted: 1, 2 or 10; by default as many
            as the run took.
        verbose: Whether to show progress on standard error.

    Raises:
        RunError: There is no finished run, or its manifest is that of another split
            (``SPLIT-HASH``).
        ModelError: The model is damaged or unsafe.
        DataError: The images cannot be used, or a class is unknown to the model.
    """
    finished = Run.open(run)
    # Of a content that stands in several parts the last row counts: train before the others.
    rows = sorted(finished.rows(), key=lambda row: PARTS.index(row.part), reverse=True)
    known = {row.sha256: row.part for row in rows}
    learner = load_model(finished.folder / "model")
    good, report = checked_images(data, verbose=verbose)
    parts, new = _parts_by_content(good, known)
    views = dict.fromkeys(PART_TITLES, 1)
    views["test"] = test_views or finished.record.method.get("test_views", 1)
    found = {
        PART_TITLES[name]: {"accuracy": accuracy(evaluate(learner, part, name, views=views[name]))}
        for name, part in parts.items()
    }
    looks = Split.count_test_look(finished.folder) if "test" in parts else finished.test_looks
    return Evaluation(found, new, report.bad, looks, views["test"])


def _parts_by_content(data: Dataset, known: Mapping[str, str]) -> tuple[dict[str, Dataset], int]:
    places: dict[str, list[int]] = {name: [] for name in PART_TITLES}
    new = 0
    for index, digest in enumerate(data.hashes()):
        new += digest not in known
        places[known.get(digest, "test")].append(index)
    return {name: data.take(indices) for name, indices in places.items() if indices}, new


def classify_images(
    files: Iterable[str],
    networks: Iterable[BackboneSpec],
    *,
    top: int = 5,
    label_from_name: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield what each network trained on ImageNet sees in each image, in the order given.

    Args:
        files: Paths of images.
        networks: Their specs.
        top: How many classes.
        label_from_name: A pattern with ``(?P<label>…)`` on the name of a file; without it the
            name of its folder may tell its class.

    Returns:
        For each image and network ``file``, ``backbone``, ``top`` (entries with ``wnid``, ``label``
        and ``probability``) and ``truth``, a wnid or None; for an image that cannot be used
        ``file``, ``error`` and ``message``.

    Raises:
        UsageError: The name of a file tells no class of ImageNet.
        BackboneError: A network has no trained ImageNet head.
    """
    built = {spec.name: build(spec) for spec in networks}
    answers = {name: partial(_seen_by, network, top) for name, network in built.items()}
    for row in answer_files(files, answers):
        if "top" in row:
            row["truth"] = _true_class(Path(row["file"]), label_from_name)
        yield row


def _seen_by(network: Backbone, top: int, images: Sequence[Image]) -> list[dict[str, Any]]:
    return [{"top": list(map(to_json, entries))} for entries in network.top_k(images, k=top)]


def explain_run(
    run: Path, images: Sequence[str], out: Path, *, class_name: str | None, channel: int | None
) -> Path:
    """Write a page about the model of a run and some images; see `write_explanation`.

    Beside a trunk that was trained stands what it was before, if those weights are still here.
    """
    learner = load_model(run / "model" if (run / "model").is_dir() else run)
    before = None
    if isinstance(learner, NetworkClassifier) and (run / "run.json").exists():
        method = from_json(MethodConfig, dict(Run.open(run).record.method))
        if method.start is None:
            with contextlib.suppress(RegraftError):
                before = build(method.spec)
    return write_explanation(
        learner,
        images,
        out,
        title=run.resolve().name,
        class_name=class_name,
        channel=channel,
        before=before,
    )


def map_maker(run: str | os.PathLike[str]) -> Callable[[Image, str], tuple[str, str]]:
    """Return what shows, for an image and a class, which parts of it speak for the class.

    It gives what the network sees of the image, and a map to lay over it, as addresses of a page.

    Args:
        run: The folder of a run, or that of its model within it.

    Raises:
        ModelError: There is no model, or it is damaged or unsafe.
    """
    place = Path(run)
    learner = load_model(place / MODEL if (place / MODEL).is_dir() else place)

    def make(image: Image, label: str) -> tuple[str, str]:
        view = fromarray(seen(learner, [image])[0])
        (strength,) = class_maps(learner, [image], [label])
        return image_address(view, "jpeg", quality=85), overlay(strength)

    return make


def explain_backbone(
    spec: BackboneSpec,
    images: Sequence[str],
    out: Path,
    *,
    class_name: str | None,
    channel: int | None,
) -> Path:
    """Write a page about a network with its ImageNet classes; see `write_explanation`."""
    return write_explanation(
        build(spec), images, out, title=spec.name, class_name=class_name, channel=channel
    )


def nearest_images(
    run: str | os.PathLike[str], files: Iterable[str], top: int = 3
) -> Iterator[dict[str, Any]]:
    """Yield the training images of a run that are nearest to each image, as `classify_images`.

    Args:
        run: The folder of a run, or that of its model within it.
        files: Paths of images.
        top: How many training images.

    Returns:
        For each image ``file`` and ``top``: entries with ``path``, ``label`` and ``distance``, 1
        minus the cosine of the features.

    Raises:
        RunError: There is no run, or it has kept no features of its training images
            (``RUN-FEATURES``).
        ModelError: The model is damaged or unsafe.
    """
    place = Path(run)
    inside = place.name == MODEL and not (place / RECORD).is_file()
    finished = Run.open(place.absolute().parent if inside else place)
    training, learner = TrainingFeatures.read(finished), load_model(finished.folder / MODEL)

    def answer(images: Sequence[Image]) -> list[dict[str, Any]]:
        with learner.recording() as features:
            learner.predict_proba(images)
        found = training.nearest(np.concatenate(features), most=top)
        return [{"top": [to_json(one) for one in entries]} for entries in found]

    return answer_files(files, {"": answer})


def _true_class(path: Path, pattern: str | None) -> str | None:
    """Return the ImageNet class that the name of an image tells, or that of its folder."""
    if pattern is None:
        return imagenet_class(path.absolute().parent.name)
    found = re.search(pattern, path.name)
    known = imagenet_class(found["label"]) if found else None
    if known is None:
        hint = "let (?P<label>…) be a wnid, an index from 0 or the name of one class"
        raise UsageError("its name tells no class of ImageNet", path=path, hint=hint)
    return known
