"""One finished run: a folder with what was done, on which data, what came out, and the model."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regraft.data import manifest
from regraft.data.named import read_source
from regraft.errors import RegraftError, RunError, list_names
from regraft.files import locked, read_json, remove_leftovers, write_json
from regraft.notebook import ShownInNotebook
from regraft.results.calibration import Calibration
from regraft.results.intervals import Estimate, accuracy_json
from regraft.results.metrics import measures
from regraft.results.predictions import Predictions
from regraft.settings import from_json, settings_class, to_json
from regraft.system import __version__

if TYPE_CHECKING:
    from regraft.data.check import CheckReport
    from regraft.data.dataset import Split

FORMAT: Literal["regraft-run"] = "regraft-run"
PART_TITLES = {"train": "train", "val": "validation", "test": "test"}
CLEAN = "test without leaks"  # the title of the test images that nothing gives away
RECORD = "run.json"
PREDICTIONS = "predictions.csv"
CHECK = "check.json"
MODEL = "model"
REPORT = "report.html"
THUMBNAILS = "thumbnails"
CHECKPOINTS = "checkpoints"
EPOCHS = "history.jsonl"
LIVE = "live.json"  # what a network takes validation images for, while it is trained
SPLIT = ("split.csv", "split.json")
_LOCK = ".regraft.lock"  # left beside what an unfinished run left, as its mark
_PATIENCE = 0.2  # seconds; who asks whether a run is being written holds its lock for a moment


@settings_class(RunError, code="RUN-INVALID", kw_only=True)
class DataFacts:
    """The images of a run.

    Args:
        origin: Where they came from, as far as a file beside them says so.
        root_name: The name of their folder; its path is nobody's business.
        images: How many there are.
        classes: Their classes in order.
        counts: Images of each class, by part.
    """

    origin: dict[str, Any] | None = None
    root_name: str | None = None
    images: int = 0
    classes: tuple[str, ...] = ()
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


@settings_class(RunError, code="RUN-INVALID")
class SplitFacts:
    """How the images were split.

    Args:
        hash: Tells this split from all others.
        seed: Its seed.
        settings: Shares, groups, parts that were given, what was found.
        test_looks: How often the test part was looked at, this run included.
    """

    hash: str = ""
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    test_looks: int = 0


@settings_class(RunError, code="RUN-INVALID", kw_only=True)
class BackboneFacts:
    """The network of a run.

    Args:
        name: Its name.
        weights: Where its weights came from.
        weights_sha256: Of the weights that it began with.
        licence: Of the weights.
        preprocessing: How an image becomes numbers.
        feature_dim: Numbers per image.
        parameters: How many the trunk has.
        notes: What its source says of it.
        initial: The SHA-256 of each thing that training begins with and that can give way to
            another: a file of weights, stored weights, an earlier run.
    """

    name: str = ""
    weights: str | None = None
    weights_sha256: str | None = None
    licence: str = ""
    preprocessing: dict[str, Any] | None = None
    feature_dim: int | None = None
    parameters: int | None = None
    notes: tuple[str, ...] = ()
    initial: dict[str, str] = field(default_factory=dict)


@settings_class(RunError, code="RUN-INVALID", kw_only=True)
class RunRecord:
    """What a run leaves in ``run.json``: what was done, on which data, and what came out.

    Args:
        description: One line that tells this run from others.
        config: The settings of the run, JSON values of a ``RunConfig``: run them again.
        seconds: Seconds per step.
        images: How many images went into the run, each time counted.
        images_embedded: How many of them passed through the backbone; the others were cached.
        epochs: Passes over the training part; None for a classifier that has none.
        history: What happened while fitting: the learner's ``history_``.
        temperature: What the scores were divided by, so that confidence says how often the model is
            right: fitted on the validation part, 1 where there is none.
        environment: Versions and threads.
        warnings: What the reader should know before trusting a number.
        leaked: Test images that something in train or validation gives away; the test accuracy is
            recorded without them, too.
        command: The command that repeats the run.
        backbone: The network.
        data: The images; filled in when the run is written, as are the following.
        split: How they were split.
        metrics: What was measured, by part: train, validation, test, and test without leaks.
        created: When the run was written: ISO 8601, UTC.
        regraft: The version that wrote it.

    Example:
        >>> RunRecord(description="svm on vgg16").epochs is None
        True
    """

    description: str
    config: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    images_embedded: int = 0
    epochs: int | None = None
    history: Any = None
    temperature: float = 1.0
    environment: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    leaked: tuple[str, ...] = ()
    command: str = ""
    backbone: BackboneFacts = BackboneFacts()
    data: DataFacts = DataFacts()
    split: SplitFacts = SplitFacts()
    metrics: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    created: str = ""
    regraft: str = __version__
    format: Literal["regraft-run"] = FORMAT
    version: Literal[1] = 1

    @property
    def method(self) -> Mapping[str, Any]:
        """The settings of network and learner, JSON values; empty where none were recorded."""
        found: Mapping[str, Any] = self.config.get("method", {})
        return found

    @property
    def training(self) -> Mapping[str, Any] | None:
        """The history of a trained network, with ``phases`` and ``epochs``; None for others."""
        trained = isinstance(self.history, dict) and {"phases", "epochs"} <= set(self.history)
        return self.history if trained else None


@dataclass(frozen=True, eq=False)
class Run(ShownInNotebook):
    """A finished run in its folder: made by :meth:`write`, read by :meth:`open`.

    Args:
        folder: Where it stands.
        record: What ``run.json`` says.
    """

    folder: Path
    record: RunRecord

    @classmethod
    def write(
        cls,
        place: Path,
        record: RunRecord,
        predictions: Predictions,
        *,
        split: Split,
        check: CheckReport | None = None,
        learner: Any = None,
        test_looks: int | None = None,
    ) -> Run:
        """Write a run into a reserved folder; ``run.json`` comes last and makes it a run.

        Args:
            place: What :func:`reserve` gave.
            record: What was done; the facts of data and split, metrics and time are filled in here.
            predictions: The predictions of all the parts, one after the other.
            split: The split that was used; its manifest is written beside.
            check: What the data check found.
            learner: The fitted classifier; its ``save`` writes ``model/``.
            test_looks: How often the test part was looked at, this time included; by default
                counted in the manifest that is written here.
        """
        split.write(place)
        if test_looks is None:
            test_looks = split.count_test_look(place) if "test" in predictions.parts else 0
        predictions.write(place / PREDICTIONS)
        if check is not None:
            check.write(place)
        if learner is not None:
            learner.save(place / MODEL)
        whole = replace(
            record,
            data=_data_facts(split),
            split=SplitFacts(split.hash, split.seed, split.settings, test_looks),
            metrics=_measured(predictions, record.leaked),
            seconds={step: round(seconds, 3) for step, seconds in record.seconds.items()},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_json(place / RECORD, without_secrets(to_json(whole)))
        return cls.open(place)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Open a finished run.

        Raises:
            RegraftError: There is no run (``RUN-FOREIGN``), it was begun and not finished
                (``RUN-INCOMPLETE``), or its record is damaged (``RUN-INVALID``, ``FILE-JSON``).
        """
        place = Path(folder)
        file = place / RECORD
        if not file.is_file():
            raise no_run(place)
        values = read_json(file)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise RunError("this run.json is not Regraft's", path=file, code="RUN-FOREIGN")
        return cls(place, from_json(RunRecord, values, path=file))

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def description(self) -> str:
        """One line that tells this run from others; the folder's name if there is none."""
        return self.record.description or self.name

    @property
    def split_hash(self) -> str:
        """The hash of the split; accuracies can be compared case by case where it is equal."""
        return self.record.split.hash

    @property
    def metrics(self) -> dict[str, dict[str, Estimate]]:
        """What was measured on ``train``, ``validation`` and ``test``, as far as there are."""
        return self.record.metrics

    @property
    def shown_part(self) -> str:
        """The part whose images pages show: the test part, or else what there is."""
        return next((part for part in ("test", "validation") if part in self.metrics), "train")

    @property
    def seconds(self) -> float:
        """Seconds of all steps together."""
        return float(sum(self.record.seconds.values()))

    @cached_property
    def continued(self) -> tuple[Run, ...]:
        """The earlier runs on the same split that this one goes on from, as far as they are here.

        One on other images, whose network was only transferred, is no part of this training.
        """
        earlier = ancestors(self.record.method.get("start"))
        same = itertools.takewhile(lambda run: run.split_hash == self.split_hash, earlier)
        return tuple(same)

    @property
    def last_epoch(self) -> float | None:
        """The training accuracy while the last epoch ran: dropout and augmentation were on.

        That is what is published as training accuracy nearly everywhere. What
        ``metrics["train"]`` holds is that of the finished network on the images as they are.
        """
        epochs = (self.record.training or {}).get("epochs")
        return float(epochs[-1]["train_accuracy"]) if epochs else None

    @cached_property
    def calibration(self) -> Calibration | None:
        """What promises rest on: the validation part, if there is one."""
        held = self.predictions.part("val")
        phases = (self.record.training or {}).get("phases", ())
        chose = any(
            phase["stopped"] == "patience"
            or (phase["best_epoch"] is not None and phase["trained"]["keep"] == "best")
            for phase in phases
        )
        return Calibration.of(held, chose=chose) if len(held) else None

    @property
    def cut_short(self) -> tuple[int, int] | None:
        """Epochs that were run and asked for, where a time budget has ended the training."""
        phases = (self.record.training or {}).get("phases", ())
        if all(phase.get("stopped") != "time budget" for phase in phases):
            return None
        asked = sum(phase["trained"]["epochs"] for phase in phases)
        return sum(phase["last_epoch"] for phase in phases), asked

    def result(self) -> dict[str, Any]:
        """Return the run in short for a machine: accuracies, what it took and where it is.

        A trained network has ``phases`` and ``history`` too, one mapping per phase and epoch.
        """
        found = {title: self.metrics.get(title) for title in PART_TITLES.values()}
        parts = {title: one and accuracy_json(one["accuracy"]) for title, one in found.items()}
        training = self.record.training
        trained = {"phases": training["phases"], "history": training["epochs"]} if training else {}
        return {
            **parts,
            **trained,
            "images": self.record.images,
            "images_embedded": self.record.images_embedded,
            "seconds": round(self.seconds, 3),
            "run": str(self.folder),
        }

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions of all the parts.

        Raises:
            DataError: The table is missing or damaged.
        """
        return Predictions.read(self.folder / PREDICTIONS)

    def rows(self) -> tuple[manifest.Row, ...]:
        """Return what the split says of each image: path, SHA-256, class and part.

        Raises:
            DataError: The manifest is missing or damaged.
            RunError: It is that of another split (``SPLIT-HASH``).
        """
        rows, facts = manifest.read_manifest(self.folder)
        digest = manifest.manifest_hash(rows, facts.classes)
        if digest != self.split_hash:
            what, place = "the manifest is not that of this run", self.folder / SPLIT[0]
            why = f"hash {digest[:12]}…, the run's {self.split_hash[:12]}…"
            hint = "restore split.csv and split.json, or repeat the run into another folder"
            raise RunError(what, path=place, why=why, hint=hint, code="SPLIT-HASH")
        return rows

    @cached_property
    def check(self) -> dict[str, Any] | None:
        """What the data check found, as JSON has it, or ``None`` when there was no check."""
        file = self.folder / CHECK
        return dict(read_json(file)) if file.is_file() else None

    @property
    def test_looks(self) -> int:
        """How often the test part was looked at, later evaluations included."""
        file = self.folder / SPLIT[1]
        written = read_json(file).get("test_looks") if file.is_file() else None
        return self.record.split.test_looks if written is None else int(written)


def ancestors(start: str | os.PathLike[str] | None) -> Iterator[Run]:
    """Yield the run that training started from, the one that that started from, and so on.

    Args:
        start: The folder of a run or of its model; of a model without its run nothing is known.
    """
    seen: set[Path] = set()
    while start:
        place = Path(start).expanduser().resolve()  # runs know the home as ~
        if place.name == MODEL and not (place / RECORD).is_file():
            place = place.parent
        if place in seen or not (place / RECORD).is_file():
            return
        seen.add(place)
        run = Run.open(place)
        yield run
        start = run.record.method.get("start")


@contextlib.contextmanager
def reserve(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Claim a folder for one run, for as long as the ``with`` block lasts.

    Begin the work inside, so that a second run into the same folder is refused before it starts.
    The operating system drops the claim when the process dies; what a killed run left is then
    overwritten.

    Args:
        folder: Where the run shall stand; it is made if need be. It must be empty or hold an
            unfinished run.

    Yields:
        The folder.

    Raises:
        RunError: ``RUN-EXISTS``: the folder holds a finished run or anything else; ``RUN-LOCKED``:
            another process is writing there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, reserve(Path(folder) / "run") as place:
        ...     place.is_dir()
        True
    """
    place = Path(folder)
    _refuse_taken(place)
    what, hint = "another process is writing here", "wait for it or choose another folder"
    busy = RunError(what, path=place, hint=hint, code="RUN-LOCKED")
    held = False
    try:
        with locked(place / _LOCK, busy=busy, seconds=_PATIENCE):
            held = True
            _refuse_taken(place)  # once more: somebody may have finished here in between
            remove_leftovers(place)
            yield place
    finally:
        if held:
            _tidy(place)


def unfinished(folder: Path) -> bool:
    """Return whether a folder holds a run that was begun and not finished."""
    return (folder / _LOCK).exists() and not (folder / RECORD).exists()


def is_running(folder: Path) -> bool:
    """Return whether a process is writing a run into a folder; a killed one is not."""
    if not unfinished(folder):
        return False
    lock = folder / _LOCK
    try:
        with locked(lock, busy=RunError("another process is writing here", code="RUN-LOCKED")):
            pass
    except RegraftError as error:
        return error.code == "RUN-LOCKED"
    with contextlib.suppress(OSError):  # the folder may be deleted meanwhile
        if (folder / RECORD).exists():  # finished meanwhile
            lock.unlink()
        else:
            lock.touch()  # some systems delete the file when it is unlocked
    return False


def no_run(place: Path) -> RunError:
    """Return the error that says why there is no finished run, and where one may be."""
    if unfinished(place):
        what, at = "this run was never finished", "repeat it into the same folder, or delete it"
        return RunError(what, path=place, hint=at, code="RUN-INCOMPLETE")
    runs = place / "runs"
    at = f"name {runs}" if runs.is_dir() else f"name the folder that holds {RECORD}"
    why = f"there is no {RECORD}" if place.exists() else "there is no such folder"
    return RunError("no run here", path=place, why=why, hint=at, code="RUN-FOREIGN")


def _refuse_taken(place: Path) -> None:
    names = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
    if names and not unfinished(place):
        what = "a finished run stands here" if RECORD in names else "the folder is not empty"
        why, hint = f"it holds {list_names(names, most=5)}", "choose a new or an empty folder"
        raise RunError(what, path=place, why=why, hint=hint, code="RUN-EXISTS")


def _tidy(place: Path) -> None:
    left = {entry.name for entry in place.iterdir()} - {_LOCK}
    if RECORD in left or not left:
        (place / _LOCK).unlink(missing_ok=True)
    else:
        (place / _LOCK).touch()  # some systems delete the file when it is unlocked
    if not left:
        with contextlib.suppress(OSError):
            place.rmdir()


def _data_facts(split: Split) -> DataFacts:
    """Return what a run records of its data: no path but the folder's own name."""
    parts = {PART_TITLES[name]: part for name, part in split.parts().items()}
    root = next((part.root for part in parts.values() if part.root is not None), None)
    origin = None
    with contextlib.suppress(RegraftError):  # a file of that name that is not ours costs no run
        origin = None if root is None else read_source(root)
    return DataFacts(
        origin=None if origin is None else to_json(origin),
        root_name=None if root is None else root.resolve().name,
        images=sum(len(part) for part in parts.values()),
        classes=split.classes,
        counts={title: part.counts() for title, part in parts.items()},
    )


def _measured(predictions: Predictions, leaked: tuple[str, ...]) -> dict[str, dict[str, Estimate]]:
    present = {title: predictions.part(name) for name, title in PART_TITLES.items()}
    if leaked:
        present[CLEAN] = present["test"].without(leaked)
    return {title: measures(part) for title, part in present.items() if len(part)}


# ---- what is kept out of what is written down ---------------------------------------------------

_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,})"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?<=--token[= ])\S+"
)


def without_secrets(value: Any) -> Any:
    """Return a value of JSON with the home folder as ``~`` and without tokens.

    Example:
        >>> without_secrets({"command": "fit --token hf_abcdefghijklmnopqrst"})
        {'command': 'fit --token [removed]'}
    """
    home = str(Path.home())
    begins, ends = r"(?:(?<![\w.~/\\-])|(?<=://))", r"(?=[/\\\s'\",:]|$)"
    at_home = re.compile(begins + re.escape(home) + ends)

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cleaned(item) for key, item in value.items()}
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        if not isinstance(value, str):
            return value
        # Half a surrogate, as names of files that are not UTF-8 have, is no text in JSON.
        text = _TOKEN.sub("[removed]", value.encode("utf-8", "backslashreplace").decode())
        return at_home.sub("~", text) if len(home) > 1 else text  # "/" would eat every path

    return cleaned(value)
