"""One experiment, whole: prepare the data, fit, predict every part, write the run and its page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.compute import Stopwatch, environment
from regraft.data.dataset import Dataset
from regraft.errors import UsageError
from regraft.experiment.preparation import DataPlan, PreparedData
from regraft.report.page import write_page
from regraft.results.predictions import Predictions, evaluate
from regraft.results.reservation import reserve
from regraft.results.run import Run, RunRecord


def fit_run(
    plan: DataPlan,
    learner: FeatureClassifier,
    *,
    out: str | os.PathLike[str],
    description: str = "",
    command: str = "",
    verbose: bool = False,
) -> Run:
    """Fit a learner on a plan's pictures, measure it on every part, and leave a run with its page.

    The test part is predicted once, after everything was chosen.

    Args:
        plan: Which pictures, and how they are split.
        learner: A classifier that is not fitted yet; it is fitted here.
        out: The folder of the run; it must be empty or absent.
        description: What the run is called in tables.
        command: How to repeat it.
        verbose: Whether to show progress on standard error.

    Raises:
        DataError: The pictures cannot be used or split as asked.
        BackboneError: The network or its weights are not to be had.
        RunError: The folder is taken.
    """
    _refuse_inside(out, plan.source)
    watch = Stopwatch()
    with reserve(out) as place:
        with watch.step("check and split"):
            prepared = plan.prepare(verbose=verbose)
        with watch.step("fit"):
            learner.fit(prepared.train.paths, prepared.train.labels)
        embedded = learner.embedding_stats_.embedded
        with watch.step("predict"):
            predictions, more = _predict_parts(learner, prepared)
            prepared.refuse_changed_files()
        record = RunRecord(
            description or learner_name(learner),
            learner=type(learner).__name__,
            parameters=_parameters(learner),
            backbone=_backbone_facts(learner),
            seconds=watch.seconds,
            images=len(predictions),
            images_embedded=embedded + more,
            history=learner.history_,
            environment=environment(),
            warnings=(*learner.warnings_, *_data_warnings(prepared)),
            command=command,
        )
        run = Run.write(
            place, record, predictions, split=prepared.split, check=prepared.report, learner=learner
        )
    write_page(run, data_root=plan.source)
    return run


def _refuse_inside(out: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    data = Path(source).resolve()
    if data.is_dir() and Path(out).resolve().is_relative_to(data):
        raise UsageError(
            "a run cannot stand inside its pictures",
            path=out,
            why=f"it would become a class of {Path(source)}",
            hint="choose another folder with out (--out)",
        )


def learner_name(learner: FeatureClassifier) -> str:
    """Return how a learner is called where nobody named the run: ``vgg16 + logistic``."""
    parameters = learner.get_params(deep=False)
    backbone = parameters["backbone"]
    classifier = parameters["classifier"]
    return f"{getattr(backbone, 'name', backbone)} + {_plain(classifier)}"


def _predict_parts(learner: FeatureClassifier, prepared: PreparedData) -> tuple[Predictions, int]:
    """Return the predictions of all parts, and how many pictures had to be embedded for them."""
    parts: dict[str, Dataset] = {**prepared.split.parts(), "train": prepared.train}
    answers, embedded = [], 0
    for name, part in parts.items():
        if len(part):
            answers.append(evaluate(learner, part, name))
            embedded += learner.embedding_stats_.embedded
    return answers[0].joined(*answers[1:]), embedded


def _backbone_facts(learner: FeatureClassifier) -> dict[str, Any]:
    backbone = learner.backbone_
    return {
        "name": backbone.spec.name,
        "weights": backbone.weights.source,
        "weights_sha256": backbone.weights.sha256,
        "licence": backbone.weights.licence,
        "preprocessing": backbone.preprocessing.to_json(),
        "feature_dim": backbone.feature_dim,
        "parameters": backbone.parameters,
        "notes": list(backbone.notes),
    }


def _parameters(learner: FeatureClassifier) -> dict[str, Any]:
    return {name: _plain(value) for name, value in learner.get_params(deep=False).items()}


def _plain(value: Any) -> Any:
    """Return a parameter as JSON has it; objects without a JSON form as they print."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _data_warnings(prepared: PreparedData) -> list[str]:
    return [finding.message for finding in prepared.report.findings if finding.severity != "note"]
