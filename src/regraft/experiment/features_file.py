"""A run on an HDF5 file of features: a classifier alone, without images, network or torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regraft.classifiers.shallow import (
    check_settings,
    fit_shallow,
    fit_temperature,
    log_shares,
    tempered,
)
from regraft.data.check import check
from regraft.data.dataset import Dataset
from regraft.errors import UsageError
from regraft.experiment.config import MethodConfig, RunConfig
from regraft.experiment.prepare import split_as_asked, take_amount
from regraft.experiment.warnings import run_warnings
from regraft.features.hdf5 import read_features
from regraft.report.model_card import write_card
from regraft.report.run_page import write_page
from regraft.results.predictions import evaluate
from regraft.results.run import BackboneFacts, Run, RunRecord, reserve
from regraft.settings import changed_fields, to_json
from regraft.system import Stopwatch, environment

# What says how features are computed, which has happened already.
_COMPUTED = (
    *("backbone", "weights", "arguments", "preprocessing", "pooling", "test_views"),
    *("device", "engine", "precision", "cache"),
)
_NO_MODEL = "no model is kept: the file holds features, and not the network that made them"


class _ByRows(NamedTuple):
    """A fitted classifier that takes paths, as learners do, and looks their rows up."""

    classes_: np.ndarray
    predict_proba: Callable[[Sequence[Path]], np.ndarray]


def fit_features(config: RunConfig, *, out: str | os.PathLike[str], command: str = "") -> Run:
    """Fit a classifier on a file that ``regraft extract`` wrote, and leave a run with its page.

    Labels, groups and the SHA-256 of the images stand in the file, so it is split as the images
    themselves would be; these are not looked at.

    Args:
        config: The file is its data source; its method is a classifier on features.
        out: The folder of the run.
        command: How to repeat it.

    Raises:
        UsageError: The method trains a network, or says how features are computed.
        DataError: The file is no file of features, or cannot be split as asked.
        RunError: The folder is taken.
    """
    config = config.absolute()
    method, data = config.method, config.data
    _refuse_networks(method, data.source)
    grid = None if method.grid == "none" else method.grid
    how: dict[str, Any] = {"classifier": method.classifier, "grid": grid, "scale": method.scale}
    check_settings(**how)
    watch = Stopwatch()
    with reserve(out) as place:
        with watch.step("read and split"):
            found = read_features(data.source)
            images = found.dataset(data.source).grouped(data.group_by)
            split = split_as_asked(images, data)
            train = take_amount(split.train, method)
        row_of = {path: row for row, path in enumerate(images.paths)}

        def rows(paths: Sequence[Path]) -> np.ndarray:
            return found.features[[row_of[path] for path in paths]]

        with watch.step("fit"):
            classes, codes = np.unique(np.asarray(train.labels, object), return_inverse=True)
            fitted = fit_shallow(rows(train.paths), codes, **how, seed=method.seed)
        learner = _ByRows(classes, lambda paths: fitted.predict_proba(rows(paths)))
        with watch.step("predict"):
            parts = {**split.parts(), "train": train}.items()
            first, *others = (evaluate(learner, part, name) for name, part in parts if len(part))
        raw, temperature = first.joined(*others), 1.0
        if len(held := raw.part("val")):
            temperature = fit_temperature(log_shares(held.probabilities), held.truth_index)
        shares = tempered(raw.probabilities, temperature)
        predictions = replace(raw, probabilities=shares.astype(np.float32))
        notes = (*(f"learned from {note}" for note in train.notes), *fitted.warnings, _NO_MODEL)
        network = found.about.get("backbone", data.source.stem)
        title = method.description or replace(method, backbone=network).title
        record = RunRecord(
            description=title,
            config=to_json(config),
            backbone=BackboneFacts(name=network, feature_dim=found.features.shape[1]),
            seconds=watch.seconds,
            history=fitted.history,
            temperature=temperature,
            environment=environment(),
            warnings=tuple(run_warnings(predictions, check(Dataset((), (), ())), notes=notes)),
            command=command,
        )
        run = Run.write(place, record, predictions, split=split)
    write_page(run)
    write_card(run)
    return run


def _refuse_networks(method: MethodConfig, file: Path) -> None:
    given = changed_fields(method)
    if method.strategy != "features":
        what = f"{method.strategy} trains a network on images"
        why, hint = "this file holds features alone", "name the folder of the images"
        raise UsageError(what, path=file, why=why, hint=hint)
    if idle := [name for name in _COMPUTED if name in given]:
        why = "its features are computed already; its attributes say how"
        raise UsageError(f"{idle[0]} does nothing with a file of features", path=file, why=why)
