"""Ranking networks on somebody's own images, by what a linear probe makes of their features.

Of the scores that were proposed for choosing a network, linear probes on the features themselves
hold up best over many data sets (arXiv:2204.01403, arXiv:2503.18528); so nothing else is computed
here. The test part is not looked at.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from regraft.experiment import prepare as data_steps
from regraft.experiment.config import DataConfig
from regraft.features.cache import FeatureCache
from regraft.features.extractor import FeatureExtractor
from regraft.report.tables import Table
from regraft.results.intervals import Estimate, points, wilson
from regraft.results.paired import LEVEL, Difference, paired_difference

NOT_HERE = "the weights are not on this machine; `regraft weights fetch NAME` brings them"
NO_WEIGHTS = "there are no trained weights to fetch"
NO_TIME = "there is no time for it in the budget"
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Ranked:
    """One network and what it was worth.

    Attributes:
        backbone: Its name.
        bytes: The size of its file of weights; None for random weights and networks of your own.
        parameters: Of the trunk.
        right: Whether the linear probe predicted each image of a fold right, (n,).
        milliseconds: How long an image took, decoding included; None where all were cached.
        difference: From the first row to this one; None for the first.
        tie: Whether it cannot be told from the first row; the first itself cannot.
    """

    backbone: str
    bytes: int | None
    parameters: int
    right: NDArray[np.bool_]
    milliseconds: float | None = None
    difference: Difference | None = None
    tie: bool = True

    @property
    def accuracy(self) -> Estimate:
        """The share of images that the probe predicted correctly."""
        return wilson(int(self.right.sum()), len(self.right))


@dataclass(frozen=True)
class Ranking:
    """What came of a ranking.

    Attributes:
        rows: The networks, by their linear probes.
        left_out: Why a network was not measured, by its name, without a full stop.
        folds: Of the cross-validation.
        split_hash: Of the split whose test part was not looked at.
        bad: The error of each image that could not be used and was left out.
    """

    rows: tuple[Ranked, ...]
    left_out: Mapping[str, str]
    folds: int
    split_hash: str
    bad: tuple[ImageError, ...] = ()

    @property
    def images(self) -> int:
        """How many images were predicted."""
        return len(self.rows[0].right)

    def table(self) -> Table:
        """Return the ranking; a row is marked as best only if it can be told from all others."""
        columns = ("backbone", "linear probe", "parameters", "MB", "ms")
        rows = tuple(
            (
                *(row.backbone, row.accuracy, row.parameters),
                None if row.bytes is None else round(row.bytes / 1e6, 1),
                None if row.milliseconds is None else round(row.milliseconds, 1),
                _verdict(row),
            )
            for row in self.rows
        )
        told = (
            f"{self.folds}-fold cross-validation on {self.images:,} images of the training and"
            " validation parts; the test part was not looked at. MB: file of weights; ms: per image"
            " that was not cached, with decoding. Tie: cannot be told from the highest by McNemar's"
            " exact test, corrected for all pairs, 5 %; intervals are of 95 %, each by itself."
        )
        names = defaultdict(list)
        for name, why in self.left_out.items():
            names[why].append(name)
        left_out = [f"Left out: {', '.join(several)}: {why}." for why, several in names.items()]
        best = 0 if sum(row.tie for row in self.rows) == 1 < len(self.rows) else None
        return Table((*columns, "against the highest"), rows, notes=(told, *left_out), best=best)


def _verdict(row: Ranked) -> str:
    if row.difference is None:
        return "highest"
    change = points(row.difference.value, interval=row.difference.interval)
    return f"tie: {change}" if row.tie else change


def rank_backbones(
    data: DataConfig,
    backbones: Sequence[str | BackboneSpec] | None = None,
    *,
    folds: int = 5,
    clock: data_steps.Clock | None = None,
    per_class: int | None = None,
    compute: Compute = Compute(),
    verbose: bool = False,
) -> Ranking:
    """Rank networks by cross-validated probes of their features on images.

    Every image of the training and validation parts passes each trunk once and comes from the cache
    afterwards. Nothing is downloaded: networks whose weights are not here are left out.

    The intervals are Wilson's over the pooled predictions of all folds: they speak of the images.

    Args:
        data: Which images; its seed makes the folds.
        backbones: Names, groups of the catalogue or specs; None for all whose weights are on this
            machine.
        folds: Of the cross-validation, at least 2.
        clock: How long it may take. The smallest networks come first; those whose trunk would not
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
    clock = clock or data_steps.Clock()
    here, left_out = find_here(backbones)
    if here and clock.left < math.inf:
        seconds = data_steps.check_seconds(data_steps.read_images(data))
        if seconds > clock.left:
            raise clock.too_short(seconds, "a look at the images")
    prepared = data_steps.prepare(data, verbose=verbose)
    split = replace(prepared.split, test=prepared.split.test.take([]))
    images = replace(split.joined(), parts=None)
    if per_class is not None:
        images = images.subset(per_class=per_class, seed=data.seed)
    alike = prepared.report.near_duplicates
    places = make_folds(images, folds, data.seed, data.small_classes, alike)
    if compute.cache is None:  # a piece that was embedded is not embedded again
        kept = FeatureCache.temporary()
        compute = replace(compute, cache=str(kept.folder))
    rows, lacking = [], None
    for spec, size in here.items():
        try:
            rows.append(_probed(spec, compute, images, places, clock, size))
        except (BackboneError, ModelError, UsageError) as error:
            if error.code == "BUDGET":
                lacking = lacking or error
            elif backbones is not None:
                raise
            left_out[spec.name] = NO_TIME if error.code == "BUDGET" else str(error)
    if not rows:
        raise lacking or WeightsError(
            "there is no network to rank",
            why="; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:5]),
            hint="`regraft weights fetch` and `regraft weights import` bring weights here",
            code="WEIGHTS-MISSING",
        )
    prepared.refuse_changed_files()
    bad = prepared.report.bad
    return Ranking(ranked(rows), left_out, folds, prepared.split.hash, bad)


def _probed(
    spec: BackboneSpec,
    compute: Compute,
    images: Dataset,
    folds: Indices,
    clock: data_steps.Clock,
    size: int | None,
) -> Ranked:
    """Return a network with its linear probe; without time for it, raise ``BUDGET``."""
    if clock.left <= 0:
        raise clock.too_short(0.0, f"to rank {spec.name}")
    extractor = FeatureExtractor(spec, compute=compute)
    for passed in data_steps.embed_in_pieces(extractor, images):
        if passed.left > clock.left:
            raise clock.too_short(passed.left, f"to rank {spec.name}")
    features = np.asarray(extractor.transform(images.paths), dtype=np.float32)
    labels = np.unique(np.array(images.labels, dtype=object), return_inverse=True)[1]
    predicted = predict_out_of_fold(features, labels, folds).argmax(axis=1)
    return Ranked(
        *(spec.name, size, extractor.backbone_.parameters),
        *((predicted == labels)[folds >= 0], 1000 * passed.each or None),
    )


def find_here(
    named: Sequence[str | BackboneSpec] | None = None,
) -> tuple[dict[BackboneSpec, int | None], dict[str, str]]:
    """Return the networks that can be used without a download, smallest file first, and the others.

    Weights in the cache of the Hugging Face hub or of torch hub are on this machine, too; they are
    taken into the store. Nothing is fetched.

    Returns:
        Each with the size of its file of weights, None for random ones; and why the others are
        left out, by their names.

    Raises:
        BackboneError: A name is unknown.
        ModelError: The weights of a named network are damaged.
    """
    here: dict[BackboneSpec, int | None] = {}
    others: dict[str, str] = {}
    for one in [entry.name for entry in list_backbones()] if named is None else named:
        for each in [entry.name for entry in in_group(one)] if one in GROUPS else [one]:
            spec = each if isinstance(each, BackboneSpec) else BackboneSpec(each)
            try:
                here[spec] = _file_size(spec)
            except RegraftError as error:
                missing = error.code == "WEIGHTS-MISSING"
                if named is not None and not missing:
                    raise
                fetched = NOT_HERE if find(spec.name).weights else NO_WEIGHTS
                others[spec.name] = fetched if missing else str(error)
    return dict(sorted(here.items(), key=lambda one: one[1] or 0)), others


def _file_size(spec: BackboneSpec) -> int | None:
    """Return the size of a network's file of weights, None where it has none."""
    entry = find(spec.name)
    if entry.trained or spec.weights is None:
        return None
    if spec.weights != "default":
        file = Path(spec.weights)
        return file.stat().st_size if file.is_file() else None
    return locate(entry, download=False, verbose=False).path.stat().st_size


def ranked(measured: Sequence[Ranked]) -> tuple[Ranked, ...]:
    """Return networks by their linear probes, of equals the quicker first, compared with the first.

    Any two could have become the pair that is looked at, so the comparisons are corrected for all
    k(k - 1) / 2 pairs of k networks, not for the k - 1 that are shown.
    """
    first, *others = sorted(
        measured, key=lambda row: (-row.accuracy.value, row.milliseconds or 0.0)
    )
    pairs = math.comb(len(measured), 2)
    found = [paired_difference(first.right, row.right, comparisons=pairs) for row in others]
    return first, *(
        replace(row, difference=change, tie=pairs * change.p_value >= LEVEL)
        for row, change in zip(others, found, strict=True)
    )


def make_folds(
    data: Dataset,
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
    classifier: str = "logistic",
    grid: str | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return what classifiers that were fitted on the other folds say of every row.

    Without a grid the same amount of work falls on every network, and none is favoured by a range.

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
