"""A deployed model: it predicts without torch, timm or scikit-learn, a second after the start.

network.onnx    from views, as they enter the network, to probabilities and features
training.npy    the features of the images that it has learned from
deploy.json     a `DeployRecord`: classes, preprocessing, where it comes from, what was checked
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL.Image import Image
from pydantic import Field

from regraft.backbones.spec import Preprocessing
from regraft.backbones.views import prepare
from regraft.data.images import Decoding, ImageLike, open_image
from regraft.deploy.likeness import Likeness, read_training
from regraft.errors import ImageError, ModelError
from regraft.explain.neighbours import TrainingFeatures
from regraft.files import read_json, sha256_file
from regraft.results.calibration import Calibration
from regraft.settings import from_json, hash_key, settings_class, to_json
from regraft.system import threads

FOLDER = "deploy"  # within the folder of a model
NETWORK, RECORD = "network.onnx", "deploy.json"
CHECKSUM = "checksum"  # in the record: of all else in it
VIEWS, PROBABILITIES, FEATURES = "views", "probabilities", "features"  # input and outputs
_AT_ONCE = 32

Answer = Callable[[Sequence[Image]], Sequence[dict[str, Any]]]  # from images to what is said

Name = Annotated[str, Field(min_length=1)]


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class Agreement:
    """How far the deployed model was from the fitted one when it was written.

    Args:
        images: How many images both have predicted: all of the test part.
        difference: The largest difference of a probability.
        changed: On how many images another class was the most probable one.
    """

    images: int
    difference: float
    changed: int

    def __str__(self) -> str:
        return (
            f"on {self.images:,} test images the largest difference of a probability is "
            f"{self.difference:.1e}, and {self.changed} labels changed"
        )


@settings_class(ModelError, code="MODEL-CORRUPT", kw_only=True)
class DeployRecord:
    """What ``deploy.json`` holds.

    Args:
        classes: The names of the classes, in the order of the probabilities.
        preprocessing: How an image becomes a view.
        decoding: How a file becomes pixels.
        sha256: Of ``network.onnx``.
        agreement: With the fitted model.
        provenance: Where the model comes from: network, weights, licence, version, data.
        calibration: What its promises rest on; None where nothing can be promised.
        likeness: What is known of the images that it has learned from.
    """

    classes: Annotated[tuple[Name, ...], Field(min_length=2)]
    preprocessing: Preprocessing
    decoding: Decoding
    sha256: str
    agreement: Agreement
    provenance: dict[str, Any]
    calibration: Calibration | None = None
    likeness: Likeness | None = None
    format: Literal["regraft-deploy"] = "regraft-deploy"


def record_json(record: DeployRecord) -> dict[str, Any]:
    """Return what ``deploy.json`` holds: the record, and its checksum."""
    values = to_json(record)
    return {**values, CHECKSUM: hash_key(values)}


class Predictor:
    """A deployed model, ready to predict.

    Args:
        record: What is known of it.
        network: The content or the path of ``network.onnx``.
        training: The features of the images that it has learned from, if they were kept.
        processors: How many one call uses; None for all. Where calls come beside each other, one
            each does more than all for each.

    Attributes:
        classes_: The names of the classes in the order of the columns of ``predict_proba``.
    """

    def __init__(
        self,
        record: DeployRecord,
        network: bytes | str,
        training: TrainingFeatures | None = None,
        processors: int | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = processors or threads()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # it would keep memory for every size of a batch
        # Threads that spin between two layers take the processors from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.record, self.training = record, training
        self.classes_ = np.array(record.classes, dtype=str)
        self._session = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"]
        )

    def predict(self, images: Sequence[ImageLike]) -> NDArray[np.str_]:
        """Return the name of the most probable class of each image, (n,).

        Raises:
            ImageError: An image cannot be used.
        """
        names: NDArray[np.str_] = self.classes_[self.predict_proba(images).argmax(axis=1)]
        return names

    def predict_proba(self, images: Sequence[ImageLike]) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k), columns in the order of ``classes_``.

        Args:
            images: Paths, Pillow images or H × W × 3 arrays of 8 bits.

        Raises:
            ImageError: An image cannot be used.
        """
        nothing = np.empty((0, len(self.classes_)))
        return np.concatenate([nothing, *self._blocks(images)])

    def outputs(
        self, images: Sequence[ImageLike]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return the probabilities (n, k) of images, and the features (n, d) behind them.

        Args:
            images: At least one.

        Raises:
            ImageError: An image cannot be used.
        """
        found = []
        for start in range(0, len(images), _AT_ONCE):
            views = self.views(images[start : start + _AT_ONCE])
            found.append(self._session.run([PROBABILITIES, FEATURES], {VIEWS: views}))
        shares, features = (np.concatenate(each) for each in zip(*found, strict=True))
        return shares.astype(np.float64), features

    def views(self, images: Sequence[ImageLike]) -> NDArray[np.uint8]:
        """Return images as they enter the network, (n, size, size, 3), by all threads.

        Raises:
            ImageError: An image cannot be used.
        """
        if len(images) == 1:
            return self._view(images[0])[None]
        size = self.record.preprocessing.size
        views = np.empty((len(images), size, size, 3), np.uint8)
        with ThreadPoolExecutor(threads()) as pool:
            for place, view in enumerate(pool.map(self._view, images)):
                views[place] = view
        return views

    def answer(self, views: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k), for images as they enter the network."""
        (found,) = self._session.run([PROBABILITIES], {VIEWS: views})
        return np.asarray(found, dtype=np.float64)

    def _blocks(self, images: Sequence[ImageLike]) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(images), _AT_ONCE):
            yield self.answer(self.views(images[start : start + _AT_ONCE]))

    def _view(self, image: ImageLike) -> NDArray[np.uint8]:
        return prepare(open_image(image, self.record.decoding), self.record.preprocessing)


def load(folder: str | os.PathLike[str], *, processors: int | None = None) -> Predictor:
    """Return the deployed model of a folder: ``load("runs/flowers").predict(["new.jpg"])``.

    Args:
        folder: Of the deployed model, or of the model or run that it belongs to.
        processors: How many one call uses; None for all.

    Raises:
        ModelError: It is not there (``MODEL-MISSING``), damaged (``MODEL-CORRUPT``) or changed
            (``MODEL-CHECKSUM``).
    """
    place = find_deployed(folder)
    if place is None:
        why, hint = f"there is no {RECORD}", "write it from the run: regraft export RUN"
        raise ModelError("no deployed model", path=folder, why=why, hint=hint, code="MODEL-MISSING")
    values = read_json(place / RECORD)
    checksum = values.pop(CHECKSUM, "") if isinstance(values, dict) else ""
    record = from_json(DeployRecord, values, path=place / RECORD)
    if checksum != hash_key(values):
        what, hint = "the record of the model was changed after it was written", "export it again"
        raise ModelError(what, path=place / RECORD, hint=hint, code="MODEL-CHECKSUM")
    network = place / NETWORK
    if not network.is_file() or sha256_file(network) != record.sha256:
        what, hint = "the deployed network is not the one that was written", "export it again"
        raise ModelError(what, path=network, hint=hint, code="MODEL-CHECKSUM")
    likeness = record.likeness
    training = read_training(place, likeness, record.classes) if likeness else None
    try:
        return Predictor(record, str(network), training, processors)
    except Exception as error:  # of onnxruntime, whatever it is
        what, why = "the deployed network cannot be run", f"{error}"[:300]
        raise ModelError(what, path=network, why=why, code="MODEL-CORRUPT") from error


def find_deployed(folder: str | os.PathLike[str]) -> Path | None:
    """Return the folder of the deployed model in that of a run or model; None if there is none."""
    place = Path(folder)
    places = (place, place / FOLDER, place / "model" / FOLDER)
    return next((each for each in places if (each / RECORD).is_file()), None)


class Predicts(Protocol):
    """A deployed or fitted model."""

    classes_: NDArray[np.str_]

    def predict_proba(self, X: Sequence[ImageLike]) -> NDArray[np.float64]:
        """Return the probability of each class, (n, k)."""
        ...


def predict_files(model: Predicts, files: Iterable[str], top: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the most probable classes of each image; see :func:`answer_files`.

    Args:
        model: What predicts.
        files: Paths of images.
        top: How many classes.
    """

    def answer(images: Sequence[Image]) -> list[dict[str, Any]]:
        rows = top_classes(model.classes_, model.predict_proba(images), top=top)
        return [{"top": row} for row in rows]

    return answer_files(files, {"": answer})


def top_classes(
    classes: Sequence[str] | NDArray[np.str_], shares: NDArray[np.float64], *, top: int
) -> list[list[dict[str, Any]]]:
    """Return the most probable classes of each image: entries with ``label`` and ``probability``.

    Args:
        classes: Their names.
        shares: The probabilities, (n, k).
        top: How many classes.

    Example:
        >>> top_classes(["day", "night"], np.array([[0.2, 0.8]]), top=1)
        [[{'label': 'night', 'probability': 0.8}]]
    """
    best = (-shares).argsort(axis=1, kind="stable")[:, :top]
    return [
        [{"label": str(classes[k]), "probability": float(row[k])} for k in order]
        for row, order in zip(shares, best, strict=True)
    ]


def answer_files(files: Iterable[str], answers: Mapping[str, Answer]) -> Iterator[dict[str, Any]]:
    """Yield a row for each image and model, in the order given; a bad image has its error.

    Args:
        files: Paths of images.
        answers: By the name of each model, what it says of images; "" for a model without a name.

    Returns:
        For each image and model ``file``, ``backbone`` (its name) and what it said; for
        an image that cannot be used ``file``, ``error`` and ``message``.
    """
    remaining = iter(files)
    with ThreadPoolExecutor(threads()) as pool:

        def begin() -> list[tuple[str, Future[Image]]]:
            return [(path, pool.submit(open_image, path)) for path in islice(remaining, _AT_ONCE)]

        block = begin()
        while block:
            following = begin()  # is opened while the networks look at this one
            yield from _rows(block, answers)
            block = following


def _rows(
    block: Sequence[tuple[str, Future[Image]]], answers: Mapping[str, Answer]
) -> Iterator[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    images = []
    for path, opened in block:
        rows.append({"file": path})
        try:
            images.append(opened.result())
        except ImageError as error:
            rows[-1].update(error=error.code, message=str(error))
    seen = {name: iter(answer(images) if images else ()) for name, answer in answers.items()}
    for row in rows:
        if "error" in row:
            yield row
            continue
        for name, entries in seen.items():
            yield row | ({"backbone": name} if name else {}) | next(entries)
