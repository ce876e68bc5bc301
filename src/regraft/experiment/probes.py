"""How far a network's features tell classes apart: shallow classifiers, cross-validated.

All networks are measured on the same images and folds, with one cache and one clock; and, where it
is asked for, with the usual wrong preprocessings. To feed a network with pixels in another range,
channel order or normalisation than its weights have learned with is the most frequent silent
mistake of published comparisons: nothing fails, the features are only worse. What these mistakes
give is never part of a ranking and never of a model.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.backbones.sources import find
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.backbones.weights import find_weights
from regraft.classifiers.shallow import fit_shallow
from regraft.data.dataset import Dataset
from regraft.errors import UsageError
from regraft.features.cache import FeatureCache
from regraft.features.extractor import FeatureExtractor
from regraft.report.tables import Duration
from regraft.results.intervals import Estimate, wilson

PROBE, NEIGHBOURS = "logistic", "knn"
Indices = NDArray[np.intp]
_FEW = 32  # images whose time is taken before all others: one batch
_NOTICED = 5.0  # seconds from which on an estimate that was exceeded counts
_ONES, _NOTHING, _HALF = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)
_IMAGENET, _CAFFE = Preprocessing.torch(), Preprocessing.caffe()

MISTAKES: Mapping[str, Mapping[str, Any]] = {
    name: {"scale": scale, "mean": mean, "std": std, "channels": channels}
    for name, scale, mean, std, channels in (
        ("0 to 255, not scaled", 1.0, _NOTHING, _ONES, "RGB"),
        ("0 to 1", 255.0, _NOTHING, _ONES, "RGB"),
        ("\N{MINUS SIGN}1 to 1", 255.0, _HALF, _HALF, "RGB"),
        ("ImageNet mean and deviation", 255.0, _IMAGENET.mean, _IMAGENET.std, "RGB"),
        ("Caffe: BGR, mean subtracted", 1.0, _CAFFE.mean, _ONES, "BGR"),
    )
}
"""The usual ways of turning pixels into numbers; each is a mistake with weights of another way."""


def make_folds(
    data: Dataset,
    *,
    folds: int = 5,
    seed: int = 0,
    small_classes: str = "refuse",
    alike: Sequence[Sequence[str]] = (),
) -> Indices:
    """Put every image into a fold, so that each fold holds the classes in their proportions.

    Images of one group, copies of one file and images that look alike share a fold, so that none is
    predicted by a classifier that has learned from its double.

    Args:
        data: The images; their groups are used if they have any.
        folds: How many, at least 2.
        seed: Another seed, other folds.
        small_classes: What to do with a class that has less to share out than there are folds:
            ``"refuse"`` it, or ``"train"``, which lets all classifiers learn from it and tests none
            on it.
        alike: Groups of relative paths whose images look alike, as a check finds them.

    Returns:
        The number of the fold of each image, from 0, shape (n,); −1 for what is in none.

    Raises:
        UsageError: There are fewer than two folds.
        DataError: A class is too small for so many folds (``SPLIT-TOO-FEW``).
    """
    if folds < 2:
        raise UsageError("cross-validation needs at least two folds", why=f"found {folds}")
    row = {path: place for place, path in enumerate(data.paths)}
    numbers = np.full(len(data), -1, dtype=np.intp)
    shared: dict[str, Any] = {"seed": seed, "small_classes": small_classes, "alike": alike}
    for number in range(folds):
        held = data.split(val=0.0, folds=folds, fold=number, **shared).test
        numbers[[row[path] for path in held.paths]] = number
    return numbers


def predict_out_of_fold(
    features: NDArray[np.float32],
    labels: Indices,
    folds: Indices,
    *,
    classifier: str = PROBE,
    seed: int = 0,
) -> Indices:
    """Predict every row with a classifier that was fitted on the other folds.

    The classifier keeps the settings of its name; with no search inside, the same amount of work
    falls on every network, and none is favoured by the range of a grid.

    Args:
        features: Shape (n, d); left as they are.
        labels: The class of each row, 0 to k − 1, shape (n,).
        folds: The fold of each row, shape (n,); every class stands in the rest of each fold. Rows
            in none (−1) are learned from and not predicted.
        classifier: The name of a classifier.
        seed: For classifiers that draw numbers.

    Returns:
        The predicted class of each row, shape (n,); −1 for rows in no fold.

    Example:
        >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]], dtype=np.float32)
        >>> places = np.array([0, 1, 0, 1])
        >>> predict_out_of_fold(rows, np.array([0, 0, 1, 1]), places).tolist()
        [0, 0, 1, 1]
    """
    predicted = np.full(len(labels), -1, dtype=np.intp)
    for fold in np.unique(folds[folds >= 0]):
        held = folds == fold
        fitted = fit_shallow(
            features[~held], labels[~held], classifier=classifier, grid=None, seed=seed
        )
        predicted[held] = fitted.predict_proba(features[held]).argmax(axis=1)
    return predicted


class Budget:
    """A number of seconds and a clock that runs from now on.

    Args:
        seconds: How many there are; None for as many as it takes.

    Example:
        >>> Budget(None).left
        inf
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the clock began to run."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds that are left; below zero when it was not enough."""
        return self._seconds - self.spent


@dataclass(frozen=True)
class Outcome:
    """What one network was worth.

    Attributes:
        preprocessing: What the network was fed with.
        parameters: Of the trunk.
        licence: Of its weights.
        right: For each classifier, whether each image of a fold was predicted right, (n,).
        milliseconds: How long an image took, decoding included; None where all were cached.
        embedded: How many images passed through the network for this.
    """

    preprocessing: Preprocessing
    parameters: int
    licence: str
    right: dict[str, NDArray[np.bool_]]
    milliseconds: float | None
    embedded: int

    def accuracy(self, classifier: str) -> Estimate:
        """Return the share of images that a classifier predicted correctly."""
        right = self.right[classifier]
        return wilson(int(right.sum()), len(right))


class Bench:
    """Where networks are measured.

    Args:
        data: The images.
        folds: The fold of each, shape (n,); −1 for those that are learned from only.
        seed: For classifiers that draw numbers.
        compute: Engine and cache.
        verbose: Whether to show progress.
    """

    def __init__(
        self,
        data: Dataset,
        folds: Indices,
        *,
        seed: int = 0,
        compute: Compute = Compute(),
        verbose: bool = False,
    ) -> None:
        self._data, self._folds, self._seed, self._verbose = data, folds, seed, verbose
        if compute.cache is None:  # what is embedded for the estimate is not embedded again
            self._kept = FeatureCache.temporary()
            compute = dataclasses.replace(compute, cache=str(self._kept.folder))
        self._compute = compute
        self._labels = np.unique(np.array(data.labels, dtype=object), return_inverse=True)[1]
        self._embedded: dict[BackboneSpec, int] = {}
        self._milliseconds: dict[BackboneSpec, float] = {}
        self._expected: dict[BackboneSpec, float] = {}
        self._slower, self._classifier_seconds = 1.0, 0.0

    def expect(self, spec: BackboneSpec) -> float:
        """Return how many seconds the images that are not cached will take, judged by a few.

        These are cached from then on: nothing is done twice.

        Raises:
            BackboneError: The network cannot be built.
            ImageError: An image cannot be used.
        """
        paths, extractor = self._data.paths, self._extractor(spec, verbose=False)
        begun = extractor.stream(paths[:1])  # builds the engine, which counts no image
        known = begun.rows.known(self._data.hashes())
        others = [path for path, there in zip(paths, known, strict=True) if not there]
        places = np.linspace(0, len(others) - 1, min(_FEW, len(others))).round().astype(int)
        few = extractor.stream([others[place] for place in places]).stats
        self._embedded[spec] = begun.stats.embedded + few.embedded
        each = few.seconds / max(few.images, 1)
        if few.embedded:
            self._milliseconds[spec] = 1000 * each
        self._expected[spec] = each * len(others)
        return self._expected[spec]

    def seconds_as_of(self, spec: BackboneSpec) -> float:
        """Return how many seconds all images take where one takes as long as in a network."""
        return self._milliseconds.get(spec, 0.0) / 1000 * len(self._data)

    def measure(self, spec: BackboneSpec, classifiers: tuple[str, ...]) -> Outcome:
        """Embed the images that are not cached and cross-validate classifiers on the features.

        Raises:
            BackboneError: The network cannot be built.
            ImageError: An image cannot be used.
        """
        extractor = self._extractor(spec, verbose=self._verbose)
        embedded = extractor.stream(self._data.paths)
        stats, expected = embedded.stats, self._expected.get(spec, 0.0)
        if stats.seconds > _NOTICED and expected:
            self._slower = max(self._slower, stats.seconds / expected)
        backbone = extractor.backbone_
        features = np.asarray(embedded.matrix(), dtype=np.float32)
        start = time.monotonic()
        right = {}
        for name in classifiers:
            predicted = predict_out_of_fold(
                features, self._labels, self._folds, classifier=name, seed=self._seed
            )
            right[name] = (predicted == self._labels)[self._folds >= 0]
        self._classifier_seconds = max(self._classifier_seconds, time.monotonic() - start)
        return Outcome(
            preprocessing=backbone.preprocessing,
            parameters=backbone.parameters,
            licence=backbone.weights.licence,
            right=right,
            milliseconds=self._milliseconds.get(spec),
            embedded=self._embedded.get(spec, 0) + stats.embedded,
        )

    def preprocessing(self, spec: BackboneSpec) -> Preprocessing:
        """Return the preprocessing that a network really uses.

        Raises:
            BackboneError: The network cannot be built.
        """
        return self._extractor(spec, verbose=False).backbone_.preprocessing

    def too_long(self, seconds: float, clock: Budget) -> str:
        """Return why there is no time for a trunk that needs so many seconds, "" if there is.

        The classifiers are taken to need as long as they did at most so far, and a trunk to exceed
        its estimate by as much as one did before it.
        """
        needed = self._slower * seconds + self._classifier_seconds
        if needed <= clock.left:
            return ""
        if clock.left <= 0:
            return "the budget was spent"
        return f"it needs about {Duration(needed)}, {Duration(clock.left)} of the budget were left"

    def _extractor(self, spec: BackboneSpec, *, verbose: bool) -> FeatureExtractor:
        return FeatureExtractor(spec, compute=self._compute, verbose=verbose)


def mistakes_for(own: Preprocessing) -> dict[str, Preprocessing]:
    """Return the usual preprocessings that differ from a network's own, with its own geometry.

    Two that differ by less than a grey level of 255 everywhere are taken for the same, such as the
    means 103.939 and 104.

    Example:
        >>> "\N{MINUS SIGN}1 to 1" in mistakes_for(Preprocessing.tf())
        False
        >>> len(mistakes_for(Preprocessing.tf()))
        4
    """
    wrong = {name: dataclasses.replace(own, **change) for name, change in MISTAKES.items()}
    return {name: other for name, other in wrong.items() if not _same(own, other)}


def with_preprocessing(spec: BackboneSpec, preprocessing: Preprocessing) -> BackboneSpec:
    """Return a spec of the same network and weights with another preprocessing.

    Imported weights refuse another preprocessing under their own name; the file of weights under
    the name of its network takes it.

    Example:
        >>> with_preprocessing(BackboneSpec("vgg16"), Preprocessing.tf(160)).name
        'vgg16'
    """
    changed = dataclasses.replace(spec, preprocessing=preprocessing)
    entry = find(spec.name)
    stored = find_weights(spec.name) if entry.stored else None
    if stored is None or spec.weights != "default":
        return changed
    arguments = {**dict(stored.arguments), **dict(spec.arguments)}
    return dataclasses.replace(
        changed, name=stored.backbone, weights=str(stored.path), arguments=tuple(arguments.items())
    )


def _same(one: Preprocessing, other: Preprocessing) -> bool:
    """Return whether black and white become the same numbers to within a grey level."""
    if one.channels != other.channels:
        return False
    for mean, std, mean2, std2 in zip(one.mean, one.std, other.mean, other.std, strict=True):
        for pixel in (0.0, 255.0):
            first, second = (pixel / one.scale - mean) / std, (pixel / other.scale - mean2) / std2
            if abs(first - second) * std * one.scale >= 1:
                return False
    return True
