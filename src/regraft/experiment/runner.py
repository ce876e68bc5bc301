"""One experiment, whole: prepare the data, fit, predict every part, write the run and its page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.backbones.spec import BackboneSpec
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.dataset import Dataset
from regraft.errors import RunError, UsageError
from regraft.experiment.cautions import cautions
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.naming import learner_name
from regraft.experiment.preparation import DataPlan, PreparedData
from regraft.experiment.starting import refuse_learned_test_pictures
from regraft.experiment.unchanged import initial_weights
from regraft.report.run_page import write_page
from regraft.results.predictions import Predictions, evaluate
from regraft.results.run import (
    CHECKPOINTS,
    EPOCHS,
    BackboneFacts,
    Run,
    RunRecord,
    reserve,
)
from regraft.settings import from_json, to_json
from regraft.system import Stopwatch, environment
from regraft.training.callbacks import Callback

Learner = FeatureClassifier | NetworkClassifier


def fit_run(
    plan: DataPlan,
    learner: Learner,
    *,
    out: str | os.PathLike[str],
    description: str = "",
    command: str = "",
    recipe: Mapping[str, Any] | None = None,
    shared: PreparedData | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    verbose: bool = False,
) -> Run:
    """Fit a learner on a plan's pictures, measure it on every part, and leave a run with its page.

    The test part is predicted once, after everything was chosen. A network keeps checkpoints in the
    folder while it is trained; the same call on the folder of a killed run goes on from them.

    Args:
        plan: Which pictures, and how they are split.
        learner: A classifier that is not fitted yet; it is fitted here. The validation part tells a
            network which epoch was best; classifiers on features do not look at it.
        out: The folder of the run; it must be empty, absent or hold an unfinished run.
        description: What the run is called in tables.
        command: How to repeat it.
        recipe: The run as a plan of one row, which ``run.json`` keeps.
        shared: What another run on the same pictures has prepared: nothing is decoded again.
        resume: Whether there must be a checkpoint to go on from.
        callbacks: Who hears of each epoch of a network.
        verbose: Whether to show progress on standard error.

    Raises:
        DataError: The pictures cannot be used or split as asked.
        BackboneError: The network or its weights are not to be had.
        ModelError: The learner could not be saved afterwards (``MODEL-UNSAVEABLE``).
        RunError: The folder is taken, there is nothing to go on from (``RUN-RESUME``), or the run
            to start from has learned pictures of the test part (``START-LEAK``).
    """
    _refuse_inside(out, plan.source)
    learner.refuse_unsaveable()
    watch = Stopwatch()
    with reserve(out) as place:
        if resume:
            _refuse_nothing_to_resume(place)
        with watch.step("check and split"):
            prepared = plan.prepare(shared=shared, verbose=verbose)
            if isinstance(learner, NetworkClassifier) and learner.start is not None:
                refuse_learned_test_pictures(learner.start, prepared.split.test)
        weights = _initial_weights(learner)  # as they are before what may take hours
        with watch.step("fit"):
            _fit(learner, prepared, place, callbacks)
        embedded = learner.embedding_stats_.embedded
        with watch.step("predict"):
            predictions, more = _predict_parts(learner, prepared)
            prepared.refuse_changed_files()
        record = RunRecord(
            description=description or learner_name(learner),
            backbone=_backbone_facts(learner, weights),
            seconds=watch.seconds,
            images=len(predictions),
            # A network that trains its trunk sees every picture many times.
            images_embedded=min(embedded + more, len(predictions)),
            epochs=_epochs(learner),
            history=learner.history_,
            environment=environment(),
            warnings=tuple(
                cautions(
                    predictions,
                    prepared.report,
                    notes=(*learner.warnings_, *learner.backbone_.notes),
                )
            ),
            leaked=tuple(prepared.report.leaked("test")),
            command=command,
            config=_config(recipe),
        )
        run = Run.write(
            place, record, predictions, split=prepared.split, check=prepared.report, learner=learner
        )
        shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)
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


def _refuse_nothing_to_resume(place: Path) -> None:
    kept = place / CHECKPOINTS
    if not kept.is_dir() or not any(kept.iterdir()):
        raise RunError(
            "there is nothing to go on from",
            path=place,
            why="no checkpoint of a network stands there",
            hint="leave resume (--resume) out to begin anew",
            code="RUN-RESUME",
        )


def _fit(
    learner: Learner, prepared: PreparedData, place: Path, callbacks: Sequence[Callback]
) -> None:
    train, held = prepared.train, prepared.split.val
    if isinstance(learner, NetworkClassifier):
        learner.fit(
            train.paths,
            train.labels,
            validation=held if len(held) else None,
            checkpoints=place / CHECKPOINTS,
            callbacks=callbacks,
        )
    else:
        (place / EPOCHS).unlink(missing_ok=True)  # of a network that was begun here and given up
        learner.fit(train.paths, train.labels)


def _epochs(learner: Learner) -> int | None:
    return len(learner.history_["epochs"]) if isinstance(learner, NetworkClassifier) else None


def _predict_parts(learner: Learner, prepared: PreparedData) -> tuple[Predictions, int]:
    """Return the predictions of all parts, and how many pictures had to be embedded for them."""
    parts: dict[str, Dataset] = {**prepared.split.parts(), "train": prepared.train}
    answers, embedded = [], 0
    for name, part in parts.items():
        if len(part):
            answers.append(evaluate(learner, part, name))
            embedded += learner.embedding_stats_.embedded
    return answers[0].joined(*answers[1:]), embedded


def _initial_weights(learner: Learner) -> dict[str, str]:
    spec = learner.backbone
    start = learner.start if isinstance(learner, NetworkClassifier) else None
    return initial_weights(BackboneSpec(spec) if isinstance(spec, str) else spec, start)


def _config(recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    if not recipe:
        return {}
    data = from_json(DataConfig, recipe["data"])
    return dict(to_json(RunConfig(data, from_json(MethodConfig, recipe["rows"][0]))))


def _backbone_facts(learner: Learner, initial: dict[str, str]) -> BackboneFacts:
    backbone = learner.backbone_
    return BackboneFacts(
        name=backbone.spec.name,
        weights=backbone.weights.source,
        weights_sha256=backbone.weights.sha256,
        licence=backbone.weights.licence,
        preprocessing=backbone.preprocessing.to_json(),
        feature_dim=backbone.feature_dim,
        parameters=backbone.parameters,
        notes=tuple(backbone.notes),
        initial=initial,
    )
