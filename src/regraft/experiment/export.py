"""The model of a run in forms to hand on, each checked on the test part of the run."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from regraft.classifiers.network_classifier import NetworkClassifier, load_model
from regraft.data.dataset import Dataset
from regraft.data.images import open_image
from regraft.deploy.bundle import write_bundle
from regraft.deploy.export import agreement_of, write_deployed, write_folder, write_onnx
from regraft.deploy.int8 import IMAGES, time_ratio, to_int8
from regraft.deploy.likeness import MOST, Likeness, likeness_of
from regraft.deploy.modules import Learner
from regraft.deploy.predictor import FOLDER, NETWORK, Agreement, Predictor, load
from regraft.deploy.torch_program import write_program
from regraft.deploy.web import find_runtime, write_web
from regraft.errors import DataError, UsageError
from regraft.experiment.config import RunConfig
from regraft.experiment.prepare import read_images
from regraft.explain.neighbours import TrainingFeatures, unit_rows
from regraft.files import temporary_folder
from regraft.report.gallery import image_address
from regraft.results.intervals import Estimate, accuracy_json, percent, points, wilson
from regraft.results.paired import Difference, paired_difference
from regraft.results.run import MODEL, Run
from regraft.settings import from_json, to_json

Target = Literal["folder", "onnx", "bundle", "torch-export", "web"]
_FILES: dict[Target, Callable[[Path, Path], None]] = {"onnx": write_onnx, "bundle": write_bundle}
_SIDE = 64  # pixels of a small copy
_COMPARED = 32  # images with a program of torch, which is not the one that Regraft runs


@dataclass(frozen=True)
class Cost:
    """What a model in 8 bits costs, and saves, on the test part.

    Attributes:
        before: The accuracy of the exported model without it.
        after: The accuracy with it.
        difference: The second minus the first, on the same images.
        changed: On how many of them another class is the most probable one.
        size: Of the file, as a share of the other's.
        time: For an image, as a share of the other's on this machine.
    """

    before: Estimate
    after: Estimate
    difference: Difference
    changed: int
    size: float
    time: float

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON has them, and ``text``."""
        return {
            "before": accuracy_json(self.before),
            "after": accuracy_json(self.after),
            "difference": self.difference.value,
            "interval": self.difference.interval,
            "changed": self.changed,
            "size": self.size,
            "time": self.time,
            "text": str(self),
        }

    def __str__(self) -> str:
        apart = points(self.difference.value, interval=self.difference.interval)
        return (
            f"accuracy {percent(self.after)}, without it {percent(self.before, parts='interval')}: "
            f"{apart}; {self.changed} of {self.after.n:,} labels changed; {self.size:.2f} of the "
            f"size, {self.time:.2f} of the time here"
        )


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        written: The file or folder.
        agreement: With the model of the run.
        cost: Of 8 bits, where they were asked for.
        strangers: How well the distance to the training images tells those of an unknown class:
            the area under the ROC curve.
        seen: Whether the network itself was trained on these images.
    """

    written: Path
    agreement: Agreement
    cost: Cost | None = None
    strangers: Estimate | None = None
    seen: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        told = {"written": str(self.written), **to_json(self.agreement)}
        told |= {"strangers": to_json(self.strangers)} if self.strangers else {}
        return told | ({"int8": self.cost.to_json()} if self.cost else {})

    def __str__(self) -> str:
        more = f"\nint8: {self.cost}" if self.cost else ""
        if self.strangers is not None and self.strangers.known:
            more = (
                "\nimages of a class that was left out are told by their distance to the training "
                f"images: area under the ROC curve {percent(self.strangers)}"
                + (
                    "; the network has learned from all classes, so it is less of new ones"
                    * self.seen
                )
            )
        return f"{self.written}: {self.agreement}{more}"


def export_run(
    run: str | os.PathLike[str],
    *,
    to: Target = "folder",
    out: Path | None = None,
    int8: bool = False,
    with_images: bool = False,
    data: str | os.PathLike[str] | None = None,
    runtime: Path | None = None,
) -> Exported:
    """Write the model of a run in another form.

    Both must agree on every image of the test part; where there is none, on all images. What a
    model in 8 bits costs is measured there, and it is written all the same.

    Args:
        run: The folder of a run.
        to: ``"folder"`` for one in the run's own folder that predicts without torch; it stays as
            it is when another form is written.
        out: The file to write, for ``"web"`` the folder; None for the run's own folder.
        int8: Whether the network counts in whole numbers of 8 bits; it then promises nothing.
        with_images: Whether small copies of the training images go with the folder, to be shown
            beside those that are like them.
        data: Where the images lie, if they were moved.
        runtime: The archive of onnxruntime-web, for ``"web"``; None: see
            :func:`~regraft.deploy.web.find_runtime`.

    Raises:
        RunError: There is no finished run.
        ModelError: The model cannot be exported, or would answer differently
            (``MODEL-UNSAVEABLE``).
        UsageError: Arguments contradict each other, or 8 bits are asked for without a test part.
        DataError: Images of the run are not there any more.
    """
    _check(to, out, int8=int8, runtime=runtime)
    archive = find_runtime(runtime) if to == "web" else None  # before the work that needs it
    finished = Run.open(run)
    model, facts = finished.folder / MODEL, _provenance(finished)
    learner, parts = load_model(model), _parts(finished, data)
    tested = parts["test"] if "test" in parts else parts["all"]
    if int8 and "train" not in parts:
        hint = "export it without --int8"
        raise UsageError("what 8 bits cost is measured on a test part: there is none", hint=hint)
    if to == "torch-export":
        assert out is not None
        shown = tested.paths[:_COMPARED]
        return Exported(out, write_program(learner, out, shown, provenance=facts))
    with _place(model / FOLDER, passing=to != "folder") as place:
        likeness, training, cost = None, None, None
        if to == "folder" and not int8:
            likeness, training = _learned(learner, finished, parts, with_images=with_images)
        agreement = write_deployed(
            learner,
            place,
            tested.paths,
            provenance=facts,
            calibration=finished.calibration,
            likeness=likeness,
            training=training,
        )
        if int8:
            drawn = np.random.default_rng(0).permutation(len(parts["train"]))[:IMAGES]
            agreement, cost = _in_8_bits(place, tested, parts["train"].take(drawn.tolist()))
        if out is not None and archive is not None:
            write_web(place, out, runtime=archive)
        elif out is not None:
            _FILES[to](place, out)
    strangers = likeness.strangers if likeness else None
    return Exported(
        out or model / FOLDER, agreement, cost, strangers, bool(likeness and likeness.seen)
    )


def _check(to: Target, out: Path | None, *, int8: bool, runtime: Path | None) -> None:
    if (to == "folder") != (out is None):
        what = "a file needs a name, and the folder beside the model has one"
        raise UsageError(what, hint="--to onnx --out FILE")
    if runtime is not None and to != "web":
        raise UsageError("a runtime goes with a page only", path=runtime, hint="--to web")
    if int8 and to == "torch-export":
        hint = "choose --to folder, onnx, bundle or web"
        raise UsageError("a program of torch is not written in 8 bits", hint=hint)


def _provenance(run: Run) -> dict[str, Any]:
    record = run.record
    measured = record.metrics.get("test", {}).get("accuracy")
    return {
        "run": record.description,
        "created": record.created,
        "regraft": record.regraft,
        "backbone": to_json(record.backbone),
        "split": record.split.hash,
        "metrics": to_json(record.metrics),
        "accuracy": None if measured is None else f"{percent(measured)} test images",
    }


def _parts(run: Run, data: str | os.PathLike[str] | None) -> dict[str, Dataset]:
    """Return the images of each part that are still there: ``test``, ``val``, ``train``, or all."""
    config = from_json(RunConfig, run.record.config).data
    images = read_images(config if data is None else replace(config, source=Path(data)))
    places = {path: place for place, path in enumerate(images.relative_paths())}
    wanted: dict[str, list[str]] = {"test": [], "val": [], "train": []}
    predicted = run.predictions  # of the training part only what was learned from
    for path, part in zip(predicted.paths, predicted.parts, strict=True):
        wanted[part].append(path)
    there = {
        part: sorted(places[path] for path in paths if path in places)
        for part, paths in wanted.items()
    }
    if missing := len(wanted["test"]) - len(there["test"]):
        what = f"{missing} images of the test part are not there any more"
        hint = "say where they lie with --data"
        raise DataError(what, path=config.source, hint=hint, code="DATA-MISSING")
    if not wanted["test"]:
        return {"all": images}
    return {part: images.take(found) for part, found in there.items() if found}


def _learned(
    learner: Learner, run: Run, parts: dict[str, Dataset], *, with_images: bool
) -> tuple[Likeness | None, TrainingFeatures | None]:
    """Return what is known of the training images, and their features; nothing of wide ones."""
    if "train" not in parts or run.record.method.get("pooling") == "flatten":
        return None, None
    train = parts["train"]
    if len(train) > MOST:
        order = np.argsort(np.array(train.labels, dtype=object), kind="stable")
        train = train.take(order[np.linspace(0, len(order) - 1, MOST).astype(int)].tolist())

    def features(part: Dataset) -> NDArray[np.float32]:
        with learner.recording() as blocks:
            learner.predict_proba(part.paths)
        return np.concatenate(blocks)

    names = tuple(map(str, range(len(train))))
    rows = unit_rows(features(train)).astype(np.float16)
    training = TrainingFeatures(rows, names, tuple(train.labels))
    tested = parts["test"]
    likeness = likeness_of(
        training,
        [str(name) for name in learner.classes_],
        held=features(parts["val"]) if "val" in parts else None,
        tested=(features(tested), tested.labels),
        seen=isinstance(learner, NetworkClassifier) and learner.trains_trunk_,
        images=[_small(Path(path)) for path in train.paths] if with_images else (),
    )
    return likeness, training


def _small(file: Path) -> str:
    """Return a small copy of an image as a ``data:`` address."""
    return image_address(ImageOps.fit(open_image(file), (_SIDE, _SIDE)), "jpeg", quality=70)


@contextlib.contextmanager
def _place(folder: Path, *, passing: bool) -> Iterator[Path]:
    """Give the folder of the deployed model, or one that passes: what others use stays as it is."""
    if not passing:
        yield folder
        return
    place = temporary_folder()
    try:
        yield place / FOLDER
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _in_8_bits(place: Path, tested: Dataset, trained: Dataset) -> tuple[Agreement, Cost]:
    """Let a deployed model count in 8 bits, and measure what that costs."""
    exact, before = load(place), (place / NETWORK).stat().st_size
    network = to_int8((place / NETWORK).read_bytes(), exact.views(trained.paths))
    whole = Predictor(exact.record, network)
    expected, found = (model.predict_proba(tested.paths) for model in (exact, whole))
    agreement = agreement_of(expected, found)
    names = np.array(tested.labels)
    right = [exact.classes_[rows.argmax(axis=1)] == names for rows in (expected, found)]
    first, second = (wilson(int(one.sum()), len(one)) for one in right)
    cost = Cost(
        before=first,
        after=second,
        difference=paired_difference(*right),
        changed=agreement.changed,
        size=len(network) / before,
        time=time_ratio(exact, whole, exact.views(tested.paths[:1])),
    )
    provenance = {**exact.record.provenance, "int8": cost.to_json()}
    record = replace(
        exact.record, agreement=agreement, provenance=provenance, calibration=None, likeness=None
    )
    write_folder(place, record, network)
    return agreement, cost
