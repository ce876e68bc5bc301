"""`regraft run`: a plan from its file to one table."""

import json

import pytest

from regraft.data.synthetic import make_flowers
from regraft.errors import RunError

PLAN = """
title = "Two ways"
note = "Drawn flowers, to show how a plan works."
[data]
source = "flowers"
[defaults]
backbone = "simple_cnn"
weights = "random"
arguments = {size = 32}
engine = "torch"
[[rows]]
id = "knn"
classifier = "knn"
seed = [0, 1]
published = {test = 0.9}
[[rows]]
id = "scratch"
strategy = "from_scratch"
epochs = 1
weights = "default"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("running")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    (folder / "plan.toml").write_text(PLAN)
    return folder


@pytest.fixture(scope="module")
def told(regraft, place):
    return json.loads(regraft("run", place / "plan.toml", "--out", place / "out", "--json").stdout)


def test_one_object_has_the_rows_the_verdicts_and_the_page(told, place):
    knn, scratch = told["rows"]

    assert (knn["strategy"], knn["seeds"], knn["epochs"]) == ("features", 2, None)
    assert (scratch["strategy"], scratch["seeds"], scratch["epochs"]) == ("from_scratch", 1, 1)
    assert set(knn["test"]) >= {"accuracy", "n", "interval"}
    assert {"a", "b", "difference", "interval", "p", "verdict"} <= set(told["verdicts"][0])
    assert told["left_out"] == []
    assert told["page"] == str(place / "out" / "comparison.html")


def test_a_second_call_prints_the_same_table_and_fits_nothing(regraft, told, place):
    result = regraft("run", place / "plan.toml", "--out", place / "out", "--resume")

    assert "3 of 3 runs are finished already" in result.stderr
    assert "simple_cnn + knn" in result.stdout
    assert "90.0 %" in result.stdout  # what was published


def test_the_table_can_be_written_for_other_places(regraft, told, place):
    result = regraft("run", place / "plan.toml", "--out", place / "out", "--format", "markdown")

    assert result.stdout.startswith("| ")


def test_one_row_can_be_run_alone(regraft, place):
    arguments = ("--only", "scratch", "--out", place / "alone", "--json")

    (row,) = json.loads(regraft("run", place / "plan.toml", *arguments).stdout)["rows"]

    assert row["strategy"] == "from_scratch"


def test_there_must_be_something_to_go_on_from(regraft, place):
    with pytest.raises(RunError, match="nothing to go on from"):
        regraft("run", place / "plan.toml", "--out", place / "nothing", "--resume")
