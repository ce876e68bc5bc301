"""A function that makes finished runs on drawn squares, with any class names and any errors."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data.dataset import Dataset
from regraft.results.predictions import Predictions
from regraft.results.run import BackboneFacts, Run, RunRecord, reserve

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Check:
    """A data check that found one thing."""

    def write(self, folder):
        """Write ``check.json``."""
        finding = {
            "severity": "warning",
            "message": "two images are the same",
            "path": "a/0.png",
            "advice": "delete one",
        }
        (Path(folder) / "check.json").write_text(json.dumps({"findings": [finding]}))


class Page(HTMLParser):
    """What stands in a page: elements, their attributes and the text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.attributes, self.text, self.open = [], [], "", []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        """Note an element that begins."""
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Note an element without content."""
        self.elements.append(tag)
        shown = [(name, (value or "").replace("\N{NO-BREAK SPACE}", " ")) for name, value in attrs]
        self.attributes += [(tag, name, value) for name, value in shown]

    def handle_endtag(self, tag):
        """Make sure that elements are closed in order."""
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        """Note a text."""
        self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def values(self, name):
        """Return all values of an attribute."""
        return [value for _, attribute, value in self.attributes if attribute == name]


def draw(root, classes, per_class, *, exif=None):
    """Draw noisy squares into ``root``, in folders with plain names; return them as a data set."""
    generator = np.random.default_rng(0)
    paths, labels = [], []
    for index, name in enumerate(classes):
        (root / str(index)).mkdir(parents=True)
        for number in range(per_class):
            path = root / str(index) / f"{number}.jpg"
            pixels = generator.integers(0, 255, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path, exif=exif or b"")
            paths.append(path)
            labels.append(name)
    return Dataset(tuple(paths), tuple(labels), tuple(classes), root=root)


def invent(split, wrong):
    """Return predictions; the first ``wrong`` test images are predicted as the next class."""
    tables = []
    for name, part in split.parts().items():
        answers = np.array([split.classes.index(label) for label in part.labels], dtype=int)
        if name == "test":
            answers[:wrong] = (answers[:wrong] + 1) % len(split.classes)
        probabilities = np.full((len(part), len(split.classes)), 0.1 / len(split.classes))
        probabilities[np.arange(len(part)), answers] = np.linspace(0.5, 0.9, len(part))
        where = (name,) * len(part)
        tables.append(
            Predictions(part.relative_paths(), part.labels, split.classes, probabilities, where)
        )
    return tables[0].joined(*[table for table in tables[1:] if len(table)])


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes a run; images lie in ``tmp_path / "images"``."""
    splits = {}

    def make(name="run", *, classes=("a", "b", "c"), per_class=12, wrong=0, seed=0, **facts):
        if classes not in splits:
            root = tmp_path / "images" / str(len(splits))
            splits[classes] = draw(root, classes, per_class, exif=facts.pop("exif", None))
        shares = {"val": facts.pop("val", 0.25), "test": facts.pop("test", 0.5)}
        split = splits[classes].split(**shares, seed=seed)
        record = RunRecord(
            description=facts.pop("description", f"the run {name}"),
            config={"method": facts.pop("method", {"classifier": "logistic"})},
            backbone=BackboneFacts(name="small", licence="CC0-1.0", preprocessing={"size": 32}),
            seconds=facts.pop("seconds", {"fit": 61.0, "predict": 0.5}),
            images=36,
            images_embedded=0,
            environment={"python": "3.11"},
            command="regraft fit images --backbone small",
            **facts,
        )
        with reserve(tmp_path / "runs" / name) as place:
            return Run.write(place, record, invent(split, wrong), split=split, check=Check())

    return make


@pytest.fixture
def trained():
    """Return the history of a network that was trained in two phases."""
    shared = {"momentum": 0.9, "weight_decay": 0.01, "warmup": 0.1}
    shared |= {"keep": "best", "patience": 2, "watch": "val_accuracy"}
    first = {"optimizer": "sgd", "lr": 0.01, "schedule": "constant", "epochs": 2}
    second = {"optimizer": "adamw", "lr": 1e-4, "schedule": "cosine", "epochs": 9}
    boundary = {"stage": "features.30", "bytes": 12_300_000}
    phases = [
        {"phase": 1, "trained": shared | first | {"unfreeze": 0.0}}
        | {"share_of_stages": 0.0, "share_of_parameters": 0.01, "parameters": 1539}
        | {"mode": "cached", "boundary": boundary}
        | {"best_epoch": None, "last_epoch": 2, "stopped": None}
        | {"frozen": {"before": "ab", "after": "ab"}, "seconds": 61.0},
        {"phase": 2, "trained": shared | second | {"unfreeze": 0.5}}
        | {"share_of_stages": 0.5, "share_of_parameters": 0.4, "parameters": 120_000}
        | {"mode": "live", "boundary": None}
        | {"best_epoch": 1, "last_epoch": 3, "stopped": "patience"}
        | {"frozen": {"before": "cd", "after": "cd"}, "seconds": 5.0},
    ]
    epochs = [
        {"phase": phase, "epoch": epoch, "lr": 0.01, "seconds": 1.5}
        | {"train_loss": 1.0 / (phase + epoch), "train_accuracy": 0.9}
        | {"val_loss": 0.5, "val_accuracy": 0.75}
        for phase, count in ((1, 2), (2, 3))
        for epoch in range(1, count + 1)
    ]
    return {"phases": phases, "epochs": epochs}


@pytest.fixture
def images(tmp_path):
    """Return the folder of the images of the first data set."""
    return tmp_path / "images" / "0"


@pytest.fixture
def read_page():
    """Return a function that reads a page: its elements, attributes and text."""
    return Page
