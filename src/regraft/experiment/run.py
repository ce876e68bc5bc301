"""One experiment, whole: prepare the data, fit, predict every part, write the run and its page."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.backbones.backbone import Backbone
from regraft.backbones.sources import stored_hash
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.model_files import MANIFEST
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.classifiers.shallow import check_settings, tempered
from regraft.data.dataset import Dataset
from regraft.errors import ImageError, RunError, UsageError
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.features_file import fit_features
from regraft.experiment.prepare import PreparedData, prepare, read_images, take_amount
from regraft.experiment.warnings import advice, run_warnings
from regraft.explain.inspector import inspect_run
from regraft.features.embed import EmbeddingStats
from regraft.features.extractor import FeatureExtractor
from regraft.features.hdf5 import refuse_existing, write_features, write_pixels
from regraft.files import sha256_file
from regraft.report.model_card import write_card
from regraft.report.run_page import write_page
from regraft.results import run as records
from regraft.results.predictions import Predictions, evaluate
from regraft.results.run import CHECKPOINTS, Run
from regraft.settings import to_json
from regraft.system import Stopwatch, environment
from regraft.training.callbacks import Callback

Learner = FeatureClassifier | NetworkClassifier


def build(method: MethodConfig, *, verbose: bool = False) -> Learner:
    """Return the learner that a configuration describes, not fitted yet.

    Raises:
        BackboneError: The network cannot be described.
        UsageError: The classifier, its grid or the scaling is impossible.

    Example:
        >>> net = build(MethodConfig(backbone="simple_cnn", strategy="from_scratch", epochs=60))
        >>> net.backbone.weights, net.phases[0].epochs
        (None, 60)
    """
    kind = FeatureClassifier if method.strategy == "features" else NetworkClassifier
    names = [name for name in inspect.signature(kind).parameters if hasattr(method, name)]
    given: dict[str, Any] = {name: getattr(method, name) for name in names}
    given |= {"backbone": method.spec, "verbose": verbose}
    if method.strategy == "features":
        given["grid"] = None if method.grid == "none" else method.grid
        check_settings(given["classifier"], given["grid"], given["scale"])
    else:
        given["phases"] = method.all_phases()
    return kind(**given)


def fit_run(
    config: RunConfig,
    *,
    out: str | os.PathLike[str],
    command: str = "",
    shared: PreparedData | None = None,
    alone: bool = True,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    verbose: bool = False,
) -> Run:
    """Fit what a configuration describes, measure it on every part, leave a run, its page and card.

    The test part is predicted once, after everything was chosen. A network keeps checkpoints in the
    folder while it is trained; the same call on the folder of a killed run resumes from them.

    Args:
        config: Images and method; ``run.json`` keeps it, so that the run can be run again.
        out: The folder of the run; it must be empty, absent or hold an unfinished run.
        command: How to repeat it.
        shared: What another run on the same images has prepared: nothing is decoded again.
        alone: Whether no other method stands beside it, which a warning may then ask for.
        resume: Whether there must be a checkpoint to resume from.
        callbacks: Who hears of each epoch of a network.
        verbose: Whether to show progress on standard error.

    Raises:
        DataError: The images cannot be used or split as asked.
        BackboneError: The network or its weights are not to be had.
        RunError: The folder is taken, there is nothing to resume (``RUN-RESUME``), or the run to
            start from has learned images of the test part (``START-LEAK``).
    """
    if config.data.holds_features:
        return fit_features(config, out=out, command=command)
    config = config.absolute()
    _refuse_inside(out, config.data.source)
    learner = build(config.method, verbose=verbose)
    watch = Stopwatch()
    with records.reserve(out) as place:
        if resume and not any((place / CHECKPOINTS).glob("*")):
            what, hint = "there is nothing to resume", "leave --resume out to begin anew"
            raise RunError(what, path=place, hint=hint, code="RUN-RESUME")
        with watch.step("check and split"):
            prepared = prepare(config.data, shared=shared, verbose=verbose)
            train = take_amount(prepared.split.train, config.method)
            if config.method.start is not None:
                refuse_learned_test_images(config.method.start, prepared.split.test)
        initial = initial_weights(config.method)  # as they are before what may take hours
        with watch.step("fit"):
            _fit(learner, train, prepared.split.val, place, callbacks)
        embedded = learner.embedding_stats_.embedded
        with watch.step("predict"):
            parts = {**prepared.split.parts(), "train": train}
            found, more, features = _predict_parts(learner, parts, config.method)
            predictions = calibrated(learner, found)
            prepared.refuse_changed_files()
        amount = (f"learned from {note}" for note in train.notes)
        history, notes = learner.history_, (*amount, *learner.warnings_, *learner.backbone_.notes)
        notes += tuple(advice(config.method, len(train) if alone else None))
        record = records.RunRecord(
            description=config.description,
            config=to_json(config),
            backbone=_backbone_facts(learner, initial),
            seconds=watch.seconds,
            images=len(predictions),
            # A network that trains its trunk sees every image many times.
            images_embedded=min(embedded + more, len(predictions)),
            epochs=len(history["epochs"]) if "epochs" in history else None,
            history=history,
            temperature=learner.temperature_,
            environment=environment(),
            warnings=tuple(run_warnings(predictions, prepared.report, notes=notes)),
            leaked=tuple(prepared.report.leaked("test")),
            command=command,
        )
        run = Run.write(
            place,
            record,
            predictions,
            split=prepared.split,
            check=prepared.report,
            learner=learner if learner.can_be_saved_ else None,  # a warning says why
        )
        shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)
    if config.method.explain:
        _explain(run, learner, parts, features)
    write_page(run, data_root=config.data.source)
    write_card(run)
    return run


def _explain(
    run: Run, learner: Learner, parts: dict[str, Dataset], features: NDArray[np.float32] | None
) -> None:
    files = {
        path: Path(file)
        for part in parts.values()
        for path, file in zip(part.relative_paths(), part.paths, strict=True)
    }
    with contextlib.suppress(ImageError):  # gone since it was predicted: the run is whole
        inspect_run(run, learner, files, features)


def initial_weights(method: MethodConfig) -> dict[str, str]:
    """Return the SHA-256 of what a run begins with and that can give way to another, by its name.

    It is the model of the run that it starts from (a ``start`` that is no folder is passed over),
    its file of weights, or what is stored under the name of its network.

    Raises:
        BackboneError: The network is unknown.
        ModelError: The record of its stored weights is damaged.
    """
    spec, found = method.spec, {}
    if method.start is not None:
        places = (method.start / records.MODEL / MANIFEST, method.start / MANIFEST)
        model = next((each for each in places if each.is_file()), None)
        found = {} if model is None else {"run to start from": sha256_file(model)}
    elif spec.weights == "default":
        stored = stored_hash(spec.name)
        found = {} if stored is None else {"stored weights": stored}
    elif spec.weights is not None and (file := Path(spec.weights)).is_file():
        facts = file.stat()
        found = {"file of weights": _digest(file, facts.st_mtime_ns, facts.st_ctime_ns)}
    return found


@functools.lru_cache(maxsize=64)
def _digest(file: Path, *_when: int) -> str:
    """Return the SHA-256 of a file; many rows of a plan begin with the same large one."""
    return sha256_file(file)


def refuse_learned_test_images(start: Path, test: Dataset) -> None:
    """Refuse to start from a run that has learned images of the test part.

    The contents of the files are compared, along all the runs that it started from itself, as far
    as their folders are there. Of a model without its run nothing is known, nor of one that came
    from a hub: its split stayed at home.

    Raises:
        RunError: Naming the run that has learned some of them (``START-LEAK``), or one whose
            manifest is that of another split (``SPLIT-HASH``).
    """
    tested = test.hashes()
    for run in records.ancestors(start):
        if not any((run.folder / name).exists() for name in records.SPLIT):
            continue
        learned = {row.sha256 for row in run.rows() if row.part != "test"}
        count = sum(sha256 in learned for sha256 in tested)
        if count:
            images = "1 test image was" if count == 1 else f"{count} test images were"
            what, why = f"{images} learned by the run to start from", "it would test its memory"
            hint = "take the same seed of the split and the same images as that run"
            raise RunError(what, path=run.folder, why=why, hint=hint, code="START-LEAK")


def extract_features(
    data: DataConfig, extractor: FeatureExtractor, file: str | os.PathLike[str]
) -> tuple[EmbeddingStats, int]:
    """Write the features of all images into an HDF5 file, in blocks, so that memory stays flat.

    Args:
        data: Which images; they are not split.
        extractor: What turns images into rows.
        file: A file that does not exist yet.

    Returns:
        What it took, and how many numbers each row has.

    Raises:
        DataError: The images cannot be used, or the file exists.
    """
    refuse_existing(file)
    images = read_images(data)
    embedded = extractor.fit(images.paths).stream(images.paths)
    write_features(file, embedded, images)
    return embedded.stats, embedded.shape[1]


def extract_pixels(
    data: DataConfig, backbone: Backbone, file: str | os.PathLike[str]
) -> tuple[int, dict[str, float]]:
    """Write all images, as they enter a network, into an HDF5 file, and their means beside it.

    Return the number of images, and the mean of each channel; see :func:`extract_features`.
    """
    refuse_existing(file)
    images = read_images(data)
    batches = backbone.batches(images.paths)
    means = write_pixels(file, batches, images, side=backbone.preprocessing.size)
    return len(images), means


def _refuse_inside(out: str | os.PathLike[str], source: Path) -> None:
    data = source.resolve()
    if data.is_dir() and Path(out).resolve().is_relative_to(data):
        why, hint = f"it would become a class of {source}", "choose another folder with --out"
        raise UsageError("a run cannot stand inside its images", path=out, why=why, hint=hint)


def _fit(
    learner: Learner, train: Dataset, val: Dataset, place: Path, callbacks: Sequence[Callback]
) -> None:
    if isinstance(learner, NetworkClassifier):
        keep: Any = {"checkpoints": place / CHECKPOINTS, "callbacks": callbacks}
        learner.fit(train.paths, train.labels, validation=val if len(val) else None, **keep)
    else:  # which does not look at the validation part; epochs are of a network given up here
        for name in (records.EPOCHS, records.LIVE):
            (place / name).unlink(missing_ok=True)
        learner.fit(train.paths, train.labels)


def _predict_parts(
    learner: Learner, parts: dict[str, Dataset], method: MethodConfig
) -> tuple[Predictions, int, NDArray[np.float32] | None]:
    """Return the predictions of all parts, how many images were embedded for them, and features.

    The features are those that the predictions were made from, (n, d); None where nobody asks for
    them or where flattened maps are too wide to be kept.
    """
    answers, embedded, features = [], 0, []
    wanted = method.explain and method.pooling != "flatten"
    for name, part in parts.items():
        if len(part):
            views = method.test_views if name == "test" else 1
            nothing: AbstractContextManager[list[Any]] = nullcontext([])
            with learner.recording() if wanted else nothing as blocks:
                answers.append(evaluate(learner, part, name, views=views))
            embedded += learner.embedding_stats_.embedded
            # Of several views of an image the first is its centre.
            features += [np.concatenate(blocks)[::views]] if wanted else []
    found = np.concatenate(features) if wanted else None
    return answers[0].joined(*answers[1:]), embedded, found


def calibrated(learner: Learner, found: Predictions) -> Predictions:
    """Return predictions after the learner was calibrated on those of the validation part."""
    held = found.part("val")
    if not len(held):
        return found
    learner.calibrate(held.probabilities, held.truth)
    shares = tempered(found.probabilities, learner.temperature_)
    return replace(found, probabilities=shares.astype(np.float32))


def _backbone_facts(learner: Learner, initial: dict[str, str]) -> records.BackboneFacts:
    backbone: Any = learner.backbone_
    return records.BackboneFacts(
        name=backbone.spec.name,
        weights=backbone.weights.source,
        weights_sha256=backbone.weights.sha256,
        licence=backbone.weights.licence,
        preprocessing=to_json(backbone.preprocessing),
        feature_dim=backbone.feature_dim,
        parameters=backbone.parameters,
        notes=tuple(backbone.notes),
        initial=initial,
    )
