"""The command line, called in the process of the tests, and small real images for it."""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from typer.testing import CliRunner

from regraft.cli.app import app
from regraft.data.synthetic import make_flowers

# A network that needs no weights and no compiling.
NETWORK = ("--backbone", "simple_cnn", "--arg", "size=48", "--weights", "random")
PLAN = """
title = "Two methods"
note = "Drawn flowers, to show how a plan works."
[data]
source = "flowers"
[defaults]
backbone = "simple_cnn"
arguments = {size = 48}
engine = "torch"
[[rows]]
id = "knn"
classifier = "knn"
weights = "random"
seed = [0, 1]
published = {test = 0.9}
[[rows]]
id = "scratch"
strategy = "from_scratch"
epochs = 1
"""


@pytest.fixture(scope="session")
def regraft():
    """Return a function that calls the command line and raises what a command raises."""

    def call(*arguments):
        texts = [str(argument) for argument in arguments]
        with mock.patch.object(sys, "argv", ["regraft", *texts]):
            result = CliRunner().invoke(app, texts, standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result

    return call


@pytest.fixture(scope="session")
def small():
    """Return the options that choose a small network."""
    return (*NETWORK, "--engine", "torch")


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Return the paths of small data sets: as folders, flat, as a table, cut, and damaged."""
    folder = tmp_path_factory.mktemp("cli")
    drawn = make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    rows = [(path.relative_to(folder / "flowers"), path.parent.name) for path in drawn.paths]
    for number, (path, label) in enumerate(rows):
        data = (folder / "flowers" / path).read_bytes()
        person = f"person{number // 2}_{path.name}"
        part = "test" if number % 3 == 0 else "train"
        for copy in (
            Path("flat") / f"{label}_{number}.jpg",
            Path("parts") / part / label / person,
            Path("bad") / path,
            Path("animals") / {"daisy": "cats"}.get(label, "dogs") / path.name,
            Path("animals") / "panda" / f"{number}.jpg",
        ):
            (folder / copy).parent.mkdir(parents=True, exist_ok=True)
            (folder / copy).write_bytes(data)
    (folder / "bad" / "daisy" / "empty.jpg").write_bytes(b"")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "group"))
        table.writerows((path, label, f"g{n // 2}") for n, (path, label) in enumerate(rows))
    (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
    names = ("flowers", "flat", "parts", "bad", "animals", "table.csv", "plan.toml")
    paths = {name.partition(".")[0]: folder / name for name in names}
    return SimpleNamespace(folder=folder, image=drawn.paths[0], **paths)


@pytest.fixture(scope="session")
def fitted(regraft, small, place):
    """Return the folder of a run on the flowers."""
    regraft("fit", place.flowers, *small, "--out", place.folder / "run", "--json")
    return place.folder / "run"
