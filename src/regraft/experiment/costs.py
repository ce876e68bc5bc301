"""What a run will cost on this machine, judged by a few pictures and a few steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.catalog import DEFAULT_BACKBONE
from regraft.experiment.recipe import Recipe

if TYPE_CHECKING:
    from regraft.backbones.spec import BackboneSpec

_FEW = 16  # pictures that are embedded, and trained on, to see how long one takes
_OVERHEAD = 3.0  # seconds of a run for the page, the files and what is built
_SHALLOW = 4e-4  # seconds per picture and class to fit a shallow classifier with its grid
_HEAD = 2e-4  # seconds per picture and epoch to train a head on kept rows
_FORWARD = 0.35  # of a training step: the forward pass alone, for validation
_LEAST, _MOST = 0.5, 4.0  # how far one surprise may change the estimates


@dataclass
class Costs:
    """Seconds of runs.

    Args:
        pictures: How many there are in all.
        learned: How many of them are learned from.
        classes: How many classes they have.
        embed: Seconds per picture and backbone through the trunk; cached pictures are not counted
            twice.
        step: Seconds per picture and backbone of a training step through the whole network.

    Example:
        >>> costs = Costs(pictures=100, learned=60, classes=5, embed={"vgg16": 0.1}, step={})
        >>> round(costs.seconds({"backbone": "vgg16", "strategy": "features"}))
        13
    """

    pictures: int
    learned: int
    classes: int
    embed: Mapping[str, float]
    step: Mapping[str, float]
    _embedded: set[str] = field(default_factory=set)
    _surprise: float = 1.0

    def seconds(self, row: Mapping[str, Any]) -> float:
        """Return how long one run of a plan's row takes.

        Args:
            row: A row of a plan, such as those of the ladder.
        """
        name = str(row.get("backbone", DEFAULT_BACKBONE))
        embed, step = self.embed.get(name, 0.0), self.step.get(name, 0.0)
        learned = min(self.learned, self.classes * int(row.get("per_class", self.learned)))
        first = 0.0 if name in self._embedded else embed * self.pictures
        if row.get("strategy", "features") == "features":
            return self._surprise * (_OVERHEAD + first + _SHALLOW * self.classes * learned)
        epochs, views = int(row.get("epochs", 0)), int(row.get("views", 0))
        head = _HEAD * learned * (epochs + int(row.get("head_epochs", 0)))
        held = self.pictures - self.learned
        if row["strategy"] == "frozen":
            kept = embed * learned * (views if "augment" in row else 0)
            return self._surprise * (_OVERHEAD + first + kept + head)
        share = float(row.get("unfreeze", 1.0))
        live = "augment" in row or share == 1
        pass_below = (embed if live else 0.0) * (1 - share)
        each = share * step + pass_below + 0.004 * ("augment" in row)
        trained = epochs * (each * learned + _FORWARD * share * step * held / 2)
        once = (0.0 if live else embed) * (1 - share) * self.pictures
        predicted = _FORWARD * step * self.pictures
        return self._surprise * (_OVERHEAD + once + head + trained + predicted)

    def learn(self, row: Mapping[str, Any], taken: float) -> None:
        """Take into account how long a run really took.

        Args:
            row: The row that was run.
            taken: Its seconds.
        """
        expected = self.seconds(row)
        if taken > 2 * _OVERHEAD:  # what is mostly overhead tells little
            ratio = float(np.clip(taken / max(expected, 1e-9), _LEAST, _MOST))
            self._surprise *= ratio**0.5
        self._embedded.add(str(row.get("backbone", DEFAULT_BACKBONE)))


def measure_costs(
    backbones: Sequence[Mapping[str, Any]],
    *,
    paths: Sequence[Any],
    pictures: int,
    learned: int,
    classes: int,
) -> Costs:
    """Return what runs cost here, from a few pictures through each network.

    Args:
        backbones: The keys of a plan's row that name each network.
        paths: Pictures; a few of them are embedded and kept in the cache.
        pictures: How many there are in all.
        learned: How many are learned from.
        classes: How many classes they have.

    Raises:
        BackboneError: A network cannot be built.
        WeightsError: Its weights are not to be had.
    """
    embed: dict[str, float] = {}
    step: dict[str, float] = {}
    for row in backbones:
        name = str(row.get("backbone", DEFAULT_BACKBONE))
        spec = Recipe({"source": "."}, row).backbone
        embed[name] = _embedding_seconds(spec, paths)
        step[name] = _step_seconds(spec)
    return Costs(pictures, learned, classes, embed, step)


def _embedding_seconds(spec: BackboneSpec, paths: Sequence[Any]) -> float:
    from regraft.backbones.spec import Compute
    from regraft.features.extractor import FeatureExtractor

    places = np.linspace(0, len(paths) - 1, min(_FEW + 1, len(paths))).round().astype(int)
    few = [paths[place] for place in places]
    # Nothing is kept, so that the figure is the same when all pictures are cached.
    extractor = FeatureExtractor(spec, compute=Compute(cache=None))
    extractor.stream(few[:1])  # builds the engine
    stats = extractor.stream(few[1:] or few).stats
    return stats.seconds / max(stats.images, 1)


def _step_seconds(spec: BackboneSpec) -> float:
    """Return what a picture costs in an epoch in which the whole network is trained."""
    from dataclasses import replace

    from regraft.backbones.spec import Compute
    from regraft.classifiers.network_classifier import NetworkClassifier
    from regraft.training.phases import Phase

    random = np.random.default_rng(0)
    drawn = list(random.integers(0, 256, (_FEW, 64, 64, 3), dtype=np.uint8))
    labels = ["a", "b"] * (_FEW // 2)
    phases = [Phase(unfreeze=1.0, epochs=3)]
    learner = NetworkClassifier(
        replace(spec, weights=None), phases=phases, batch_size=_FEW, compute=Compute(cache=None)
    ).fit(drawn, labels)
    # The first epoch pays for what is loaded and allocated.
    return float(min(epoch["seconds"] for epoch in learner.history_["epochs"][1:])) / _FEW
