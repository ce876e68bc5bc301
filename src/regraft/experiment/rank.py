"""Ranking networks on somebody's own images, by what simple classifiers make of their features.

Of the scores that were proposed for choosing a network, cross-validated nearest neighbours and
linear probes on the features themselves hold up best over many data sets (arXiv:2204.01403,
arXiv:2503.18528); so nothing else is computed here. The test part is not looked at.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.backbones.catalog import GROUPS, list_backbones
from regraft.backbones.published import in_group
from regraft.backbones.sources import find, locate
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.shallow import fit_shallow
from regraft.data.dataset import Dataset
from regraft.errors import (
    BackboneError,
    ImageError,
    ModelError,
    RegraftError,
    UsageError,
    WeightsError,
)
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import (
    Clock,
    check_seconds,
    embed_in_pieces,
    prepare,
    read_images,
)
from regraft.features.cache import FeatureCache
from regraft.features.extractor import FeatureExtractor
from regraft.report.tables import Duration, Table
from regraft.results.intervals import Estimate, accuracy_json, points, wilson
from regraft.results.paired import LEVEL, Difference, paired_difference

PROBE, NEIGHBOURS = "logistic", "knn"
NOT_HERE = "the weights are not on this machine; `regraft weights fetch NAME` brings them"
NO_WEIGHTS = "there are no trained weights to fetch"
Indices = NDArray[np.intp]
LeftOut = tuple[str, str]
"""The name of a network, and why it was not measured, without a full stop."""


@dataclass(frozen=True)
class Ranked:
    """One network and what it was worth.

    Attributes:
        backbone: Its name.
        bytes: The size of its file of weights; None for random weights and networks of your own.
        parameters: Of the trunk.
        licence: Of its weights.
        input_size: The side of an image that it takes, in pixels.
        right: For each classifier, whether each image of a fold was predicted right, (n,).
        milliseconds: How long an image took, decoding included; None where all were cached.
        embedded: How many images passed through the network for this.
        difference: From the linear probe of the first row to this one; None for the first.
        p: McNemar's exact test of the two, multiplied by the number of pairs of rows (Bonferroni);
            None for the first.
    """

    backbone: str
    bytes: int | None
    parameters: int
    licence: str
    input_size: int
    right: dict[str, NDArray[np.bool_]]
    milliseconds: float | None = None
    embedded: int = 0
    difference: Difference | None = None
    p: float | None = None

    @property
    def tie(self) -> bool:
        """Whether it cannot be told from the first row; the first itself cannot."""
        return self.p is None or self.p >= LEVEL

    def accuracy(self, classifier: str) -> Estimate:
        """Return the share of images that a classifier predicted correctly."""
        right = self.right[classifier]
        return wilson(int(right.sum()), len(right))

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        plain = ("backbone", "bytes", "parameters", "licence", "input_size", "milliseconds")
        return {
            **{name: getattr(self, name) for name in plain},
            "linear_probe": accuracy_json(self.accuracy(PROBE)),
            "knn": accuracy_json(self.accuracy(NEIGHBOURS)),
            "images_embedded": self.embedded,
            "difference": self.difference and self.difference.value,
            "interval": self.difference and self.difference.interval,
            "p": self.p,
            "tie": self.tie,
        }


@dataclass(frozen=True)
class Ranking:
    """What came of a ranking.

    Attributes:
        rows: The networks, by their linear probes.
        left_out: What was not measured.
        folds: Of the cross-validation.
        images: How many were predicted.
        split_hash: Of the split whose test part was not looked at.
        seconds: What it took.
        bad: The error of each image that could not be used and was left out.
    """

    rows: tuple[Ranked, ...]
    left_out: tuple[LeftOut, ...]
    folds: int
    images: int
    split_hash: str
    seconds: float
    bad: tuple[ImageError, ...] = ()

    @property
    def ties(self) -> tuple[Ranked, ...]:
        """The first row and all that cannot be told from it."""
        return tuple(row for row in self.rows if row.tie)

    def table(self) -> Table:
        """Return the ranking; a row is marked as best only if it can be told from all others."""
        columns = ("backbone", "linear probe", "k-NN", "parameters", "MB", "input", "ms", "licence")
        rows = tuple(
            (
                row.backbone,
                row.accuracy(PROBE),
                row.accuracy(NEIGHBOURS),
                row.parameters,
                None if row.bytes is None else round(row.bytes / 1e6, 1),
                row.input_size,
                None if row.milliseconds is None else round(row.milliseconds, 1),
                row.licence,
                self._verdict(row),
            )
            for row in self.rows
        )
        measured_on = (
            f"{self.folds}-fold cross-validation on {self.images:,} images of the training and"
            " validation parts; the test part was not looked at. MB: file of weights; input: side"
            " in pixels; ms: per image that was not cached, with decoding. Intervals are of 95 %,"
            " each by itself."
        )
        notes = [measured_on]
        if len(self.rows) > 1:
            notes.append(self._judgement())
        names = defaultdict(list)
        for name, why in self.left_out:
            names[why].append(name)
        notes += [f"Left out: {', '.join(several)}: {why}." for why, several in names.items()]
        best = 0 if len(self.rows) > 1 and len(self.ties) == 1 else None
        return Table((*columns, "against the highest"), rows, notes=tuple(notes), best=best)

    def to_json(self) -> dict[str, Any]:
        """Return ``rows``, ``left_out``, ``seconds`` and what was measured on."""
        return {
            "rows": [{**row.to_json(), "verdict": self._verdict(row)} for row in self.rows],
            "left_out": [{"backbone": name, "why": why} for name, why in self.left_out],
            "bad_files": [error.to_json() for error in self.bad],
            "folds": self.folds,
            "images": self.images,
            "split": self.split_hash,
            "seconds": round(self.seconds, 3),
        }

    def _verdict(self, row: Ranked) -> str:
        if row.difference is None:
            return "highest, but tied" if len(self.ties) > 1 else "highest"
        change = points(row.difference.value, interval=row.difference.interval)
        return f"tie: {change}" if row.tie else change

    def _judgement(self) -> str:
        first, *others = self.ties
        test = "McNemar's exact test on the linear probes, corrected for all pairs, 5 %"
        if not others:
            return f"* {first.backbone} is better than every other one here ({test})."
        seen = max(row.difference.detectable for row in others if row.difference is not None)
        return (
            f"tie: {', '.join(row.backbone for row in others)} cannot be told from"
            f" {first.backbone} on these images ({test}); a difference under"
            f" {points(seen, signed=False)} cannot be seen here."
        )


def rank_backbones(
    data: DataConfig,
    backbones: Sequence[str | BackboneSpec] | None = None,
    *,
    folds: int = 5,
    clock: Clock | None = None,
    per_class: int | None = None,
    compute: Compute = Compute(),
    verbose: bool = False,
) -> Ranking:
    """Rank networks by cross-validated probes of their features on images.

    Every image of the training and validation parts passes each trunk once and comes from the cache
    afterwards. Nothing is downloaded: networks whose weights are not here are left out.

    The intervals are Wilson's over the pooled predictions of all folds. They speak of the images,
    not of the luck of the folds, which for a fixed classifier is the smaller part.

    Args:
        data: Which images; its seed makes the folds.
        backbones: Names, groups of the catalogue or specs; None for all whose weights are on this
            machine.
        folds: Of the cross-validation, at least 2.
        clock: How long it may take. The quickest networks come first; those whose trunk would not
            be done in time are left out. None for as long as it takes.
        per_class: How many images of each class of training and validation together are used.
        compute: What runs the trunks, and where features are kept.
        verbose: Whether to show progress on standard error.

    Raises:
        WeightsError: None of the networks can be used without a download (``WEIGHTS-MISSING``).
        BackboneError: A named network is unknown or cannot be built.
        ModelError: The weights of a named network are damaged.
        DataError: The images cannot be used, split or put into folds as asked.
        UsageError: There are fewer than two folds, or no network can be measured in time
            (``BUDGET``).

    Example:
        >>> import tempfile
        >>> from regraft.data.synthetic import make_flowers
        >>> spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = make_flowers(folder, species=2, per_class=8, size=32)
        ...     ranking = rank_backbones(DataConfig(folder), [spec], folds=2)
        >>> ranking.rows[0].backbone, ranking.images
        ('simple_cnn', 12)
    """
    clock = clock or Clock()
    here, left_out = find_here(backbones)
    if not here:
        raise _nothing_to_rank(left_out)
    if clock.left < math.inf and (looking := check_seconds(read_images(data))) > clock.left:
        raise clock.too_short(looking, "a look at the images")
    prepared = prepare(data, verbose=verbose)
    images = _learnable(prepared.split.train, prepared.split.val)
    if per_class is not None:
        images = images.subset(per_class=per_class, seed=data.seed)
    alike = prepared.report.near_duplicates
    places = make_folds(
        images, folds=folds, seed=data.seed, small_classes=data.small_classes, alike=alike
    )
    if compute.cache is None:  # a piece that was embedded is not embedded again
        kept = FeatureCache.temporary()
        compute = dataclasses.replace(compute, cache=str(kept.folder))
    networks = _begun(here, images, compute, clock, left_out, skip_broken=backbones is None)
    measured: list[Ranked] = []
    probing = 0.0  # seconds that the classifiers took at most
    for network in networks:
        if network.embed(clock, probing):
            begun = clock.spent
            measured.append(network.probe(images, places, seed=data.seed))
            probing = max(probing, clock.spent - begun)
        else:
            needed, left = (Duration(t) for t in (network.passed.left + probing, clock.left))
            why = f"it needs about {needed}, {left} of the budget were left"
            left_out.append((network.name, "the budget was spent" if clock.left <= 0 else why))
    if not measured:
        raise clock.too_short(networks[0].passed.left, f"to rank {networks[0].name}")
    prepared.refuse_changed_files()
    return Ranking(
        rows=ranked(measured),
        left_out=tuple(left_out),
        folds=folds,
        images=int((places >= 0).sum()),
        split_hash=prepared.split.hash,
        seconds=clock.spent,
        bad=prepared.report.bad,
    )


class _Network:
    """A network that some of the images have passed.

    Args:
        extractor: What images pass.
        size: Of its file of weights, in bytes.
        images: Those that are embedded.
    """

    def __init__(self, extractor: FeatureExtractor, size: int | None, images: Dataset) -> None:
        self._extractor, self._size = extractor, size
        self._pieces = embed_in_pieces(extractor, images)
        self.passed = next(self._pieces)
        self._milliseconds = 1000 * self.passed.each if self.passed.each else None
        self.name = extractor.backbone_.spec.name

    def embed(self, clock: Clock, more: float) -> bool:
        """Embed the rest, and return whether that could be done, and so many seconds are left."""
        while self.passed.left + more <= clock.left:
            following = next(self._pieces, None)
            if following is None:
                return True
            self.passed = following
        return False

    def probe(self, images: Dataset, folds: Indices, *, seed: int) -> Ranked:
        """Cross-validate classifiers on the features."""
        embedded = self._extractor.stream(images.paths)
        features = np.asarray(embedded.matrix(), dtype=np.float32)
        labels = np.unique(np.array(images.labels, dtype=object), return_inverse=True)[1]
        right = {}
        for name in (PROBE, NEIGHBOURS):
            found = predict_out_of_fold(features, labels, folds, classifier=name, seed=seed)
            right[name] = (found.argmax(axis=1) == labels)[folds >= 0]
        backbone = self._extractor.backbone_
        return Ranked(
            self.name,
            self._size,
            backbone.parameters,
            backbone.weights.licence,
            backbone.preprocessing.size,
            right,
            self._milliseconds,
            self.passed.embedded,
        )


def _begun(
    here: Mapping[BackboneSpec, int | None],
    images: Dataset,
    compute: Compute,
    clock: Clock,
    left_out: list[LeftOut],
    *,
    skip_broken: bool,
) -> list[_Network]:
    """Return networks that a first piece of the images has passed, the quickest first."""
    networks: list[_Network] = []
    for spec, size in here.items():
        if networks and clock.left <= 0:
            left_out.append((spec.name, "no time was left in the budget to look at it"))
            continue
        try:
            networks.append(_Network(FeatureExtractor(spec, compute=compute), size, images))
        except (BackboneError, ModelError) as error:
            if not skip_broken:
                raise
            left_out.append((spec.name, str(error)))
    if not networks:
        raise _nothing_to_rank(left_out)
    return sorted(networks, key=lambda network: network.passed.left)


def find_here(
    named: Sequence[str | BackboneSpec] | None = None,
) -> tuple[dict[BackboneSpec, int | None], list[LeftOut]]:
    """Return the networks that can be used without a download, smallest file first, and the others.

    Weights in the cache of the Hugging Face hub or of torch hub are on this machine, too; they are
    taken into the store. Nothing is fetched.

    Returns:
        Each with the size of its file of weights, None for random ones; and what is left out.

    Raises:
        BackboneError: A name is unknown.
        ModelError: The weights of a named network are damaged.
    """
    here: dict[BackboneSpec, int | None] = {}
    others: dict[BackboneSpec, str] = {}
    for one in [entry.name for entry in list_backbones()] if named is None else named:
        group = [entry.name for entry in in_group(one)] if one in GROUPS else [one]
        for each in group:
            spec = each if isinstance(each, BackboneSpec) else BackboneSpec(each)
            try:
                found = _look_for(spec)
            except RegraftError as error:
                if named is not None:
                    raise
                found = str(error)  # damaged: the others can be compared
            if isinstance(found, str):
                others[spec] = found
            else:
                here[spec] = found
    return (
        dict(sorted(here.items(), key=lambda one: one[1] or 0)),
        [(spec.name, why) for spec, why in others.items()],
    )


def ranked(measured: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Return networks by their linear probes, of equals the quicker first, compared with the first.

    Which network is the first depends on the images that it is compared on: any two could have
    become the pair that is looked at. So the comparisons are corrected for all k(k - 1) / 2 pairs
    of k networks, not for the k - 1 that are shown; else one of many equally good networks would
    be called worse far more often than in 5 % of the rankings.
    """
    first, *others = sorted(
        measured, key=lambda row: (-row.accuracy(PROBE).value, row.milliseconds or 0.0)
    )
    pairs = math.comb(len(measured), 2)
    rows = [first]
    for row in others:
        change = paired_difference(first.right[PROBE], row.right[PROBE], comparisons=pairs)
        p = min(1.0, pairs * change.p_value)
        rows.append(dataclasses.replace(row, difference=change, p=p))
    return tuple(rows)


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
    grid: str | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return what classifiers that were fitted on the other folds say of every row.

    The classifier keeps the settings of its name; with no search inside, the same amount of work
    falls on every network, and none is favoured by the range of a grid.

    Args:
        features: Shape (n, d); left as they are.
        labels: The class of each row, 0 to k − 1, shape (n,).
        folds: The fold of each row, shape (n,); every class stands in the rest of each fold. Rows
            in none (−1) are learned from and not predicted.
        classifier: The name of a classifier.
        grid: ``"default"`` to search the classifier's own grid in the other folds.
        seed: For classifiers that draw numbers.

    Returns:
        The probability of each class, shape (n, k); −1 for rows in no fold.

    Example:
        >>> rows = np.array([[0.0], [0.1], [1.0], [1.1]], dtype=np.float32)
        >>> places = np.array([0, 1, 0, 1])
        >>> predict_out_of_fold(rows, np.array([0, 0, 1, 1]), places).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """
    found = np.full((len(labels), labels.max() + 1), -1.0)
    for fold in np.unique(folds[folds >= 0]):
        held = folds == fold
        fitted = fit_shallow(
            features[~held], labels[~held], classifier=classifier, grid=grid, seed=seed
        )
        found[held] = fitted.predict_proba(features[held])
    return found


def _look_for(spec: BackboneSpec) -> int | str | None:
    """Return the size of a network's file of weights, None where it has none, or what is wrong."""
    entry = find(spec.name)
    if entry.trained or spec.weights is None:
        return None
    if spec.weights != "default":
        file = Path(spec.weights)
        return file.stat().st_size if file.is_file() else None
    try:
        return locate(entry, download=False, verbose=False).path.stat().st_size
    except RegraftError as error:
        if error.code != "WEIGHTS-MISSING":
            raise
        return NOT_HERE if entry.weights else NO_WEIGHTS


def _nothing_to_rank(left_out: Sequence[LeftOut]) -> WeightsError:
    return WeightsError(
        "there is no network to rank",
        why="; ".join(f"{name}: {why}" for name, why in left_out[:5]) or "none was named",
        hint="`regraft weights fetch` and `regraft weights import` bring weights here",
        code="WEIGHTS-MISSING",
    )


def _learnable(train: Dataset, val: Dataset) -> Dataset:
    groups = train.groups if train.groups is None else (*train.groups, *(val.groups or ()))
    paths, labels = (*train.paths, *val.paths), (*train.labels, *val.labels)
    return dataclasses.replace(train, paths=paths, labels=labels, groups=groups)
