"""Ranking networks on somebody's own pictures, by what simple classifiers make of their features.

Of the scores that were proposed for choosing a network, cross-validated nearest neighbours and
linear probes on the features themselves hold up best over many data sets (arXiv:2204.01403,
arXiv:2503.18528); so nothing else is computed here. The test part is not looked at.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from regraft.backbones.spec import BackboneSpec, EngineName
from regraft.data.dataset import Dataset
from regraft.errors import BackboneError, ModelError, WeightsError
from regraft.experiment.ablation import Mistake, measure_mistakes
from regraft.experiment.bench import NEIGHBOURS, PROBE, Bench, Budget
from regraft.experiment.candidates import Candidate, LeftOut, find_candidates
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import PreparedData, prepare
from regraft.experiment.probes import make_folds
from regraft.experiment.standings import Measured, Ranking, compared, in_order


def rank_backbones(
    data: DataConfig,
    backbones: Sequence[str | BackboneSpec] | None = None,
    *,
    folds: int = 5,
    budget: float | None = None,
    per_class: int | None = None,
    ablate: bool = False,
    engine: EngineName = "auto",
    cache: str | os.PathLike[str] | None = "default",
    verbose: bool = False,
) -> Ranking:
    """Rank networks by cross-validated probes of their features on a plan's pictures.

    Every picture of the training and validation parts passes each trunk once and comes from the
    cache afterwards. Nothing is downloaded: networks whose weights are not here are left out.

    The intervals are Wilson's over the pooled predictions of all folds. They speak of the pictures,
    not of the luck of the folds, which for a fixed classifier is the smaller part.

    Args:
        data: Which images; its seed makes the folds.
        backbones: Names or specs; None for all whose weights are on this machine.
        folds: Of the cross-validation, at least 2.
        budget: Seconds for everything. The quickest networks come first, and at least one is
            measured; those whose trunk would not be done in time are left out. None for no limit.
        per_class: How many images of each class of training and validation together are used.
        ablate: Whether to measure each network with the usual wrong preprocessings as well.
        engine: What runs the trunks.
        cache: As in :class:`regraft.features.extractor.FeatureExtractor`.
        verbose: Whether to show progress on standard error.

    Raises:
        WeightsError: None of the networks can be used without a download (``WEIGHTS-MISSING``).
        BackboneError: A named network is unknown or cannot be built.
        ModelError: The weights of a named network are damaged.
        DataError: The pictures cannot be used, split or put into folds as asked.
        UsageError: There are fewer than two folds.

    Example:
        >>> import tempfile
        >>> from regraft.data.synthetic import make_flowers
        >>> spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = make_flowers(folder, species=2, per_class=8, size=32)
        ...     data = DataConfig(folder)
        ...     ranking = rank_backbones(data, [spec], folds=2, engine="torch", cache=None)
        >>> ranking.rows[0].backbone, ranking.images
        ('simple_cnn', 12)
    """
    clock = Budget(budget)
    candidates, left_out = find_candidates(backbones)
    if not candidates:
        raise _nothing_to_rank(left_out)
    prepared = prepare(data, verbose=verbose)
    images = _learnable(prepared, per_class, data.seed)
    places = make_folds(
        images,
        folds=folds,
        seed=data.seed,
        small_classes=data.small_classes,
        alike=prepared.report.near_duplicates,
    )
    bench = Bench(images, places, data.seed, engine, cache, verbose)
    skip_broken = backbones is None
    affordable = _by_cost(candidates, bench, clock, left_out, skip_broken=skip_broken)
    measured = in_order(_measure(affordable, bench, clock, left_out))
    mistakes: tuple[Mistake, ...] = ()
    if ablate:
        networks = [(candidate.spec, outcome) for candidate, outcome in measured]
        mistakes, without = measure_mistakes(networks, bench, clock)
        left_out += without
    prepared.refuse_changed_files()
    return Ranking(
        rows=compared(measured),
        mistakes=mistakes,
        left_out=tuple(left_out),
        folds=folds,
        images=int((places >= 0).sum()),
        split_hash=prepared.split.hash,
        seconds=clock.spent,
        bad=prepared.report.bad,
    )


def _nothing_to_rank(left_out: Sequence[LeftOut]) -> WeightsError:
    names = ", ".join(one.backbone for one in left_out[:5])
    return WeightsError(
        "there is no network to rank",
        why=f"{left_out[0].why} ({names})" if left_out else "none was named",
        hint="`regraft weights fetch` and `regraft weights import` bring weights here",
        code="WEIGHTS-MISSING",
    )


def _learnable(prepared: PreparedData, per_class: int | None, seed: int) -> Dataset:
    """Return the training and validation images together, or so many of each class."""
    train, val = prepared.split.train, prepared.split.val
    groups = train.groups if train.groups is None else (*train.groups, *(val.groups or ()))
    images = dataclasses.replace(
        train,
        paths=(*train.paths, *val.paths),
        labels=(*train.labels, *val.labels),
        groups=groups,
    )
    return images if per_class is None else images.subset(per_class=per_class, seed=seed)


def _by_cost(
    candidates: Sequence[Candidate],
    bench: Bench,
    clock: Budget,
    left_out: list[LeftOut],
    *,
    skip_broken: bool,
) -> list[tuple[float, Candidate]]:
    """Return the seconds that the trunk of each will need, the quickest first."""
    costs: list[tuple[float, Candidate]] = []
    for candidate in candidates:
        if costs and clock.left <= 0:
            left_out.append(LeftOut(candidate.name, "no time was left in the budget to look at it"))
            continue
        try:
            costs.append((bench.expect(candidate.spec), candidate))
        except (BackboneError, ModelError) as error:
            if not skip_broken:
                raise
            left_out.append(LeftOut(candidate.name, str(error)))
    return sorted(costs, key=lambda cost: cost[0])


def _measure(
    costs: Sequence[tuple[float, Candidate]],
    bench: Bench,
    clock: Budget,
    left_out: list[LeftOut],
) -> list[Measured]:
    measured: list[Measured] = []
    for seconds, candidate in costs:
        why = bench.too_long(seconds, clock) if measured else ""
        if why:
            left_out.append(LeftOut(candidate.name, why))
        else:
            outcome = bench.measure(candidate.spec, (PROBE, NEIGHBOURS))
            measured.append((candidate, outcome))
    return measured
