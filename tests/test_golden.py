"""What people see stays what it is: the same plan gives the same splits, numbers and pages.

``tests/golden/expected.json`` was written once. After a change that is meant to change it, run this
file with ``REGRAFT_RENEW_GOLDEN=1`` and read the difference before it is committed.
"""

import csv
import hashlib
import html
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.cli import main

EXPECTED = Path(__file__).parent / "golden" / "expected.json"
PLAN = """
title = "Golden"
[data]
source = "images"
val = 0.2
test = 0.3
[defaults]
backbone = "simple_cnn"
arguments = { size = 64 }
[[rows]]
weights = "random"
classifier = ["logistic", "knn"]
[[rows]]
weights = "random"
strategy = ["frozen", "fine_tune"]
head = "mlp_256"
epochs = 12
lr = 0.003
batch_size = 8
augment = "flip=true"
[[rows]]
strategy = "from_scratch"
epochs = 12
batch_size = 8
seed = [0, 1]
"""
SPLITS = {
    "default": [],
    "seed 3": ["--seed", "3"],
    "shares": ["--val", "0", "--test", "0.5"],
    "groups": ["--group-by", "tree[0-9]+"],
    "folds": ["--folds", "4", "--fold", "2"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with 72 noisy images of three classes, a copy among them, and the runs."""
    folder = tmp_path_factory.mktemp("golden")
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("ash", "beech", "cedar")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.normal(90, 60, (36, 48, 1)) + rng.normal(0, 40, (36, 48, 3))
            pixels[:, :, channel] += rng.normal(25, 40)
            image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
            image.save(folder / "images" / name / f"tree{number // 2}_{number}.png")
    copied = folder / "images" / "ash" / "tree0_0.png"
    copied.with_name("tree0_copy.png").write_bytes(copied.read_bytes())
    (folder / "plan.toml").write_text(PLAN)
    return folder


@pytest.fixture(scope="module")
def call(place):
    """Return a function that types a command there and returns what it prints."""

    def typed(*arguments):
        before, sys.argv, stdout = Path.cwd(), ["regraft", *map(str, arguments)], sys.stdout
        os.chdir(place)
        printed, code = place / "printed.txt", 0
        try:
            with printed.open("w", encoding="utf-8") as sys.stdout:
                main()
        except SystemExit as stopped:
            code = stopped.code
        finally:
            os.chdir(before)
            sys.stdout = stdout
        assert not code, (arguments, code)
        return printed.read_text(encoding="utf-8")

    return typed


@pytest.fixture(scope="module")
def table(call):
    return json.loads(call("run", "plan.toml", "--out", "runs", "--json"))


@pytest.fixture(scope="module")
def golden():
    known = json.loads(EXPECTED.read_text()) if EXPECTED.is_file() else {}

    def compare(name, value):
        if os.environ.get("REGRAFT_RENEW_GOLDEN"):
            known[name] = value
            EXPECTED.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        assert value == known[name]

    return compare


def run_folders(table, place):
    return {
        f"{row['description']} {number}": place / "runs" / "runs" / Path(run).name
        for row in table["rows"]
        for number, run in enumerate(row["runs"])
    }


def text_of(page):
    """Return what a page shows at once, without styles, scripts and images."""
    bare = re.sub(r"(?s)<(style|script|svg|details).*?</\1>", " ", page.read_text(encoding="utf-8"))
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", bare)).split())


@pytest.mark.parametrize("name", SPLITS)
def test_images_are_split_as_ever(name, call, golden):
    options = SPLITS[name]

    split = json.loads(
        call(
            "data",
            "split",
            "images",
            "--out",
            "split-" + name.replace(" ", "-"),
            "--json",
            *options,
        )
    )

    golden(f"split {name}", [split["hash"], split["images"]])


def test_the_check_finds_the_copy(call, golden):
    found = json.loads(call("data", "check", "images", "--json"))

    golden("check", [found["images"], found["counts"], len(found["duplicates"])])


def test_a_plan_gives_the_same_rows_and_accuracies(table, golden):
    seen = [
        [row["description"], *(round(row[part]["accuracy"], 3) for part in ("train", "test"))]
        for row in table["rows"]
    ]

    assert table["failures"] == []
    golden("rows", seen)


def test_verdicts_stay(table, golden):
    pairs = [[v["a"], v["b"], v["verdict"].split(" on ")[0]] for v in table["verdicts"]]

    golden("verdicts", sorted(pairs))


def test_predicted_labels_stay(table, place, golden):
    seen = {}
    for name, folder in run_folders(table, place).items():
        with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = sorted(
                (r["path"], r["part"], r["truth"], r["predicted"]) for r in csv.DictReader(file)
            )
        seen[name] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    golden("predictions", seen)


def test_a_saved_model_predicts_what_the_run_predicted(table, place, call):
    for folder in run_folders(table, place).values():
        with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
            told = {row["path"]: row["predicted"] for row in csv.DictReader(file)}
        names = sorted(told)[::9]

        lines = call("predict", folder / "model", *(place / "images" / n for n in names), "--json")

        again = [json.loads(line)["top"][0]["label"] for line in lines.splitlines()]
        assert again == [told[name] for name in names], folder.name


def test_frozen_tensors_have_the_same_checksum_before_and_after(table, place):
    networks = 0
    for folder in run_folders(table, place).values():
        history = json.loads((folder / "run.json").read_text())["history"]
        for phase in history["phases"] if isinstance(history, dict) and "phases" in history else ():
            networks += 1
            assert phase["frozen"]["before"] == phase["frozen"]["after"]

    assert networks == 4


def test_run_json_is_a_plan_of_the_same_run(table, place, call):
    folder = next(iter(run_folders(table, place).values()))

    again = json.loads(call("run", folder / "run.json", "--out", "again", "--json"))

    assert [row["description"] for row in again["rows"]] == [table["rows"][0]["description"]]
    assert again["rows"][0]["test"] == table["rows"][0]["test"]


def test_pages_show_the_same_percentages(table, place, golden):
    first = next(iter(run_folders(table, place).values()))
    pages = {"run": first / "report.html", "comparison": place / "runs" / "comparison.html"}
    shown = {
        name: sorted(set(re.findall(r"\d+\.\d %", text_of(page)))) for name, page in pages.items()
    }

    golden("pages", shown)
