"""What a wrong preprocessing costs a network, measured on the same pictures and folds.

The most frequent silent mistake of published comparisons is to feed a network with pixels in
another range, channel order or normalisation than its weights have learned with: nothing fails, the
features are only worse. Here the mistakes are made on purpose. What they give is never part of a
ranking and never of a model; a model keeps the preprocessing of its weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.backbones.sources import find
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.backbones.weights import find_weights
from regraft.experiment.bench import PROBE, Bench, Budget, Outcome
from regraft.experiment.candidates import LeftOut
from regraft.results.intervals import Estimate, accuracy_json
from regraft.results.paired import Difference, holm, paired_difference

_ONES, _NOTHING, _HALF = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)
_IMAGENET, _CAFFE = Preprocessing.torch(), Preprocessing.caffe()

MISTAKES: Mapping[str, Mapping[str, Any]] = {
    "0 to 255, not scaled": {"scale": 1.0, "mean": _NOTHING, "std": _ONES, "channels": "RGB"},
    "0 to 1": {"scale": 255.0, "mean": _NOTHING, "std": _ONES, "channels": "RGB"},
    "\N{MINUS SIGN}1 to 1": {"scale": 255.0, "mean": _HALF, "std": _HALF, "channels": "RGB"},
    "ImageNet mean and deviation": {
        "scale": 255.0,
        "mean": _IMAGENET.mean,
        "std": _IMAGENET.std,
        "channels": "RGB",
    },
    "Caffe: BGR, mean subtracted": {
        "scale": 1.0,
        "mean": _CAFFE.mean,
        "std": _ONES,
        "channels": "BGR",
    },
}
"""The usual ways of turning pixels into numbers; each is a mistake with weights of another way."""


def mistakes_for(own: Preprocessing) -> dict[str, Preprocessing]:
    """Return the usual preprocessings that differ from a network's own, with its own geometry.

    Two that differ by less than a grey level of 255 everywhere are taken for the same, such as the
    means 103.939 and 104.

    Args:
        own: The preprocessing of the weights.

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

    Args:
        spec: The network as it should be used.
        preprocessing: What it is fed with instead, at the same size.

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


@dataclass(frozen=True)
class Mistake:
    """One network with one wrong preprocessing.

    Attributes:
        backbone: The name of the network.
        preprocessing: What was wrong, in words.
        linear_probe: The accuracy with it.
        difference: From the accuracy with the network's own preprocessing to this one.
        p: McNemar's exact test of the two, adjusted by Holm for all that were measured.
        embedded: How many pictures passed through the network for this.
    """

    backbone: str
    preprocessing: str
    linear_probe: Estimate
    difference: Difference
    p: float
    embedded: int

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return {
            "backbone": self.backbone,
            "preprocessing": self.preprocessing,
            "linear_probe": accuracy_json(self.linear_probe),
            "difference": self.difference.value,
            "interval": self.difference.interval,
            "p": self.p,
            "images_embedded": self.embedded,
        }


def measure_mistakes(
    networks: Sequence[tuple[BackboneSpec, Outcome]], bench: Bench, clock: Budget
) -> tuple[tuple[Mistake, ...], tuple[LeftOut, ...]]:
    """Measure networks with each wrong preprocessing, as far as there is time.

    Args:
        networks: What was built, and what it was worth with its own preprocessing.
        bench: Where that was measured.
        clock: How much time there is.
    """
    found: list[tuple[str, str, Outcome, Difference]] = []
    left_out: list[LeftOut] = []
    for spec, own in networks:
        for name, wrong in mistakes_for(own.preprocessing).items():
            changed = with_preprocessing(spec, wrong)
            why = bench.too_long(bench.seconds_as_of(own), clock)
            if not why and bench.preprocessing(changed) != wrong:
                why = "this network takes no other preprocessing"
            if why:
                left_out.append(LeftOut(spec.name, why, name))
                continue
            outcome = bench.measure(changed, (PROBE,))
            change = paired_difference(own.right[PROBE], outcome.right[PROBE])
            found.append((spec.name, name, outcome, change))
    adjusted = holm([change.p_value for *_, change in found])
    mistakes = tuple(
        Mistake(backbone, name, outcome.accuracy(PROBE), change, p, outcome.embedded)
        for (backbone, name, outcome, change), p in zip(found, adjusted, strict=True)
    )
    return mistakes, tuple(left_out)


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
