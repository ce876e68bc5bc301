"""What a deployed model says of an image: classes, and whether that can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.data.images import ImageLike
from regraft.deploy.predictor import Predictor, top_classes
from regraft.errors import UsageError
from regraft.results.intervals import percent


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What is asked of the answers, beside their classes.

    Args:
        abstain_error: At most this share of the answers may be wrong, others become "unknown".
        coverage: Each image gets a set of classes that holds the true one so often.
        each_class: Whether the coverage holds for the images of every class.
        unlike: Images that are farther from all training images than all but this share of the
            validation images are unknown.
        nearest: How many training images stand beside each answer.
    """

    abstain_error: float | None = None
    coverage: float | None = None
    each_class: bool = False
    unlike: float | None = None
    nearest: int = 0


class Answerer:
    """Answers for images with what was promised.

    Args:
        model: A deployed model.
        promises: What is asked of it.
        top: How many classes each answer has.

    Attributes:
        told: What the answers can be relied on for, a sentence for each promise.

    Raises:
        UsageError: The model was exported without what a promise rests on, or there are too few
            validation images for it (``USAGE-CALIBRATION``).

    Example:
        >>> import tempfile
        >>> from regraft import BackboneSpec, FeatureClassifier, load, write_deployed
        >>> from regraft.results.calibration import Calibration
        >>> dark, light = [np.full((32, 32, 3), shade, np.uint8) for shade in (20, 220)]
        >>> learner = FeatureClassifier(BackboneSpec("simple_cnn", weights=None))
        >>> learner = learner.fit([dark, light], ["night", "day"])
        >>> sure = (0.6, 0.7)
        >>> held = Calibration(truth=(0, 1), own=sure, confidence=sure, right=(True, True))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_deployed(learner, f"{folder}/deploy", [dark, light], calibration=held)
        ...     answers = Answerer(load(folder), Promises(coverage=0.6), top=1)([light, dark])
        >>> [answer["labels"] for answer in answers]
        [['day'], ['night']]
    """

    def __init__(self, model: Predictor, promises: Promises, *, top: int) -> None:
        self.model, self.promises, self.top = model, promises, top
        self.told: list[str] = []
        self._least, self._farthest = 0.0, np.inf
        self._limits: NDArray[np.float64] | None = None
        if promises.each_class and promises.coverage is None:
            raise UsageError("--each-class goes with --coverage")
        self._promise()

    def _promise(self) -> None:
        record, promises = self.model.record, self.promises
        if promises.abstain_error is not None or promises.coverage is not None:
            held = record.calibration
            if held is None:
                raise _nothing_kept("nothing can be promised", "no validation images")
            rests = f"by {len(held.truth):,} validation images"
            if held.chose:
                rests += ", which also chose the epoch that was kept: so it is not exact"
            if promises.abstain_error is not None:
                self._least = held.threshold(promises.abstain_error)
                self.told.append(
                    f"unknown: less than {percent(self._least)} sure; of the other answers at most "
                    f"{percent(promises.abstain_error)} are wrong, {rests}"
                )
            if promises.coverage is not None:
                each, classes = promises.each_class, len(record.classes)
                self._limits = held.limits(promises.coverage, classes, each=each)
                whose = "of each class" if each else "of all images"
                self.told.append(
                    f"sets of classes hold the true one for {percent(promises.coverage)} {whose}, "
                    f"{rests}"
                )
        if promises.unlike is not None:
            if record.likeness is None:
                raise _nothing_kept("unlike images cannot be told", "no training images")
            self._farthest = record.likeness.limit(promises.unlike)
            self.told.append(
                f"unknown: farther than {self._farthest:.3f} from the training images, as "
                f"{percent(promises.unlike)} of the images of known classes are"
            )

    def __call__(self, images: Sequence[ImageLike]) -> list[dict[str, Any]]:
        """Return for each image ``top``, and what was promised.

        ``top`` is as in :func:`~regraft.deploy.predictor.top_classes`; ``unknown`` and ``why`` say
        whether it is no answer; ``labels`` is the set of classes; ``distance`` is that to the
        training images, and ``nearest`` has ``label``, ``distance`` and ``image`` of some.

        Raises:
            ImageError: An image cannot be used.
        """
        if not images:
            return []
        shares, features = self.model.outputs(images)
        rows = top_classes(self.model.classes_, shares, top=self.top)
        answers: list[dict[str, Any]] = [{"top": row} for row in rows]
        reasons = [self._unsure(row) for row in shares.max(axis=1).astype(np.float32).tolist()]
        if self.promises.unlike is not None and self.model.training is not None:
            distances = self.model.training.distances(features).tolist()
            for place, distance in enumerate(distances):
                answers[place]["distance"] = round(distance, 4)
                if distance > self._farthest:
                    reasons[place] = (
                        f"unlike what was learned: at a distance of {distance:.2f}, where known "
                        f"images stay below {self._farthest:.2f}"
                    )
        if self.promises.abstain_error is not None or self.promises.unlike is not None:
            for answer, why in zip(answers, reasons, strict=True):
                answer.update({"unknown": bool(why)} | ({"why": why} if why else {}))
        if self._limits is not None:
            names = self.model.classes_
            for answer, row in zip(answers, shares.astype(np.float32), strict=True):
                answer["labels"] = names[row >= self._limits.astype(np.float32)].tolist()
        self._add_nearest(answers, features)
        return answers

    def _unsure(self, confidence: float) -> str:
        return f"only {percent(confidence)} sure" if confidence < self._least else ""

    def _add_nearest(self, answers: list[dict[str, Any]], features: NDArray[np.float32]) -> None:
        training, likeness = self.model.training, self.model.record.likeness
        if not self.promises.nearest or training is None or likeness is None:
            return
        for answer, near in zip(
            answers, training.nearest(features, most=self.promises.nearest), strict=True
        ):
            answer["nearest"] = [
                {"label": one.label, "distance": one.distance}
                | ({"image": likeness.images[int(one.path)]} if likeness.images else {})
                for one in near
            ]


def _nothing_kept(what: str, why: str) -> UsageError:
    hint = "fit with validation images, and export the run (not in 8 bits)"
    return UsageError(what, why=f"the model was exported with {why}", hint=hint)
