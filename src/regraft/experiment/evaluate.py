"""A finished run measured on labelled images, apart by whether it learned from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regraft.classifiers.network_classifier import load_model
from regraft.data.check import check, usable
from regraft.data.dataset import Dataset, Split
from regraft.data.sources import PARTS
from regraft.errors import ImageError
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import read_images
from regraft.results.intervals import Estimate, accuracy_json
from regraft.results.metrics import accuracy
from regraft.results.predictions import evaluate
from regraft.results.run import PART_TITLES, Run


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
    images = read_images(data)
    report = check(images, verbose=verbose)
    good = report.hashed(usable(images, report, skip_bad=data.skip_bad, max_bad=data.max_bad))
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
