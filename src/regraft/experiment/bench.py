"""One bench for many networks: the same pictures, the same folds, one cache, one clock."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from regraft.backbones.spec import BackboneSpec, Compute, EngineName, Preprocessing
from regraft.data.dataset import Dataset
from regraft.errors import RegraftError
from regraft.experiment.probes import Indices, predict_out_of_fold
from regraft.features.cache import FeatureCache
from regraft.features.extractor import FeatureExtractor
from regraft.files import read_json, sha256_json, write_json
from regraft.report.tables import Duration
from regraft.results.intervals import Estimate, wilson
from regraft.system import threads

if TYPE_CHECKING:
    from regraft.backbones.backbone import Backbone
    from regraft.features.embed import EmbeddingStats

PROBE, NEIGHBOURS = "logistic", "knn"
_FEW = 32  # pictures whose time is taken before all others: one batch
_NOTICED = 5.0  # seconds from which on an estimate that was exceeded counts


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
        right: For each classifier, whether each picture of a fold was named correctly, shape (n,).
        milliseconds: How long a picture took, decoding included; None where that was never taken.
        embedded: How many pictures passed through the network for this.
    """

    preprocessing: Preprocessing
    parameters: int
    licence: str
    right: dict[str, NDArray[np.bool_]]
    milliseconds: float | None
    embedded: int

    def accuracy(self, classifier: str) -> Estimate:
        """Return the share of pictures that a classifier named correctly."""
        right = self.right[classifier]
        return wilson(int(right.sum()), len(right))


@dataclass
class Bench:
    """Where networks are measured.

    Args:
        data: The pictures.
        folds: The fold of each, shape (n,); −1 for those that are learned from only.
        seed: For classifiers that draw numbers.
        engine: What runs the trunks.
        cache: As in :class:`regraft.features.extractor.FeatureExtractor`.
        verbose: Whether to show progress.
    """

    data: Dataset
    folds: Indices
    seed: int = 0
    engine: EngineName = "auto"
    cache: str | os.PathLike[str] | None = "default"
    verbose: bool = False
    _embedded: dict[BackboneSpec, int] = field(default_factory=dict, init=False)
    _expected: dict[BackboneSpec, float] = field(default_factory=dict, init=False)
    _slower: float = field(default=1.0, init=False)
    _classifier_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.cache is None:  # what is embedded for the estimate is not embedded again
            self._kept = FeatureCache.temporary()
            self.cache = self._kept.folder
        self._labels = np.unique(np.array(self.data.labels, dtype=object), return_inverse=True)[1]

    def expect(self, spec: BackboneSpec) -> float:
        """Return how many seconds all pictures will take, judged by a few.

        Those that are cached are judged by a few of them, which are only read, and the others by a
        few of the others, which are cached from then on: nothing is done twice.

        Raises:
            BackboneError: The network cannot be built.
            ImageError: A picture cannot be used.
        """
        paths = self.data.paths
        extractor = self._extractor(spec, verbose=False)
        begun = extractor.stream(paths[:1])
        self._count(spec, begun.stats)
        known = begun.rows.known(self.data.hashes())
        cached = [path for path, there in zip(paths, known, strict=True) if there]
        others = [path for path, there in zip(paths, known, strict=True) if not there]
        self._expected[spec] = sum(
            self._seconds_for(pictures, spec, extractor) for pictures in (cached, others)
        )
        return self._expected[spec]

    def seconds_as_of(self, outcome: Outcome) -> float:
        """Return how many seconds all pictures take where one takes as long as in an outcome."""
        return (outcome.milliseconds or 0.0) / 1000 * len(self.data)

    def measure(self, spec: BackboneSpec, classifiers: tuple[str, ...]) -> Outcome:
        """Embed the pictures that are not cached and cross-validate classifiers on the features.

        Args:
            spec: The network.
            classifiers: Names of :data:`regraft.classifiers.shallow.NAMED`.

        Raises:
            BackboneError: The network cannot be built.
            ImageError: A picture cannot be used.
        """
        extractor = self._extractor(spec, verbose=self.verbose)
        embedded = extractor.stream(self.data.paths)
        self._count(spec, embedded.stats)
        if embedded.stats.seconds > _NOTICED and spec in self._expected:
            self._slower = max(self._slower, embedded.stats.seconds / self._expected[spec])
        backbone = extractor.backbone_
        features = np.asarray(embedded.matrix(), dtype=np.float32)
        start = time.monotonic()
        right = {}
        for name in classifiers:
            named = predict_out_of_fold(
                features, self._labels, self.folds, classifier=name, seed=self.seed
            )
            right[name] = (named == self._labels)[self.folds >= 0]
        self._classifier_seconds = max(self._classifier_seconds, time.monotonic() - start)
        return Outcome(
            preprocessing=backbone.preprocessing,
            parameters=backbone.parameters,
            licence=backbone.weights.licence,
            right=right,
            milliseconds=_remembered(self._timing(backbone)),
            embedded=self._embedded[spec],
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
        return FeatureExtractor(
            spec, compute=Compute(engine=self.engine, cache=self.cache), verbose=verbose
        )

    def _seconds_for(
        self, pictures: Sequence[Path], spec: BackboneSpec, extractor: FeatureExtractor
    ) -> float:
        """Return how many seconds pictures take that are all cached, or all not."""
        if not pictures:
            return 0.0
        begun = extractor.stream(pictures[:1]).stats  # builds the engine, which counts no picture
        places = np.linspace(0, len(pictures) - 1, min(_FEW, len(pictures))).round().astype(int)
        few = extractor.stream([pictures[place] for place in places]).stats
        self._count(spec, begun, few)
        if 2 * few.embedded > few.images:
            _remember(self._timing(extractor.backbone_), few)
        return few.seconds / few.images * len(pictures)

    def _count(self, spec: BackboneSpec, *passes: EmbeddingStats) -> None:
        done = sum(each.embedded for each in passes)
        self._embedded[spec] = self._embedded.get(spec, 0) + done

    def _timing(self, backbone: Backbone) -> str:
        """Return the file that holds how long a picture takes, for later calls that embed none."""
        key = sha256_json([backbone.fingerprint, self.engine, threads()])[:16]
        folder = FeatureCache.chosen(self.cache).folder
        return os.fspath(folder / "timings" / f"{key}.json")


def _remember(file: str, stats: EmbeddingStats) -> None:
    milliseconds = 1000 * stats.seconds / stats.embedded
    write_json(file, {"milliseconds": round(milliseconds, 3), "pictures": stats.embedded})


def _remembered(file: str) -> float | None:
    try:
        return float(read_json(file, limit=4096)["milliseconds"])
    except (RegraftError, KeyError, TypeError, ValueError):
        return None  # never taken, or by another version: a cell stays empty
