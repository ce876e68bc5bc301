"""Small finished runs on drawn squares."""

import numpy as np
import pytest
from PIL import Image

from regraft.data.dataset import Dataset
from regraft.results.predictions import Predictions
from regraft.results.run import BackboneFacts, Run, RunRecord, reserve

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 40, 40)}


@pytest.fixture
def images(tmp_path):
    """Return a data set of twelve small squares of each of three colours."""
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "squares" / name).mkdir(parents=True)
        for index in range(12):
            noise = generator.integers(-30, 30, (24, 24, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "squares" / name / f"{index}.png")
    return Dataset.from_folder(tmp_path / "squares")


@pytest.fixture
def split(images):
    """Return the squares cut in three."""
    return images.split(val=0.25, test=0.5, seed=0)


@pytest.fixture
def predict():
    """Return a function that invents predictions of a split with a given number of errors."""

    def invent(split, *, wrong=0):
        tables = []
        for name, part in split.parts().items():
            truth = np.array([split.classes.index(label) for label in part.labels], dtype=int)
            answers = truth.copy()
            if name == "test":
                answers[:wrong] = (answers[:wrong] + 1) % len(split.classes)
            probabilities = np.full((len(part), len(split.classes)), 0.1)
            probabilities[np.arange(len(part)), answers] = 0.8
            where = (name,) * len(part)
            tables.append(
                Predictions(part.relative_paths(), part.labels, split.classes, probabilities, where)
            )
        return tables[0].joined(*tables[1:])

    return invent


@pytest.fixture
def record():
    """Return the record of an invented run."""
    return RunRecord(
        description="squares by logistic regression",
        config={"data": {"source": "squares"}, "method": {"classifier": "logistic", "seed": 0}},
        backbone=BackboneFacts(name="small", licence="CC0-1.0"),
        seconds={"fit": 1.5, "predict": 0.5},
        images=36,
        images_embedded=0,
        history={"best": {"C": 1.0}},
        environment={"python": "3.11"},
        command="regraft fit squares --backbone small",
    )


@pytest.fixture
def create(record, predict, tmp_path):
    """Return a function that writes a run into a folder under ``tmp_path``."""

    def write(split, name="run", *, wrong=0, record=record, **more):
        with reserve(tmp_path / name) as place:
            return Run.write(place, record, predict(split, wrong=wrong), split=split, **more)

    return write
