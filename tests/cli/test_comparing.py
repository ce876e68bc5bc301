"""`regraft compare`: one command, one table, one page."""

import json

import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers
from regraft.errors import RegraftError, UsageError
from regraft.experiment.batch import PlanRunner


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    write_state(folder / "net.safetensors", network.module.state_dict())
    return folder


@pytest.fixture(scope="module")
def command(place):
    network = (
        "--backbone",
        "simple_cnn",
        "--arg",
        "size=48",
        "--weights",
        place / "net.safetensors",
    )
    options = ("--engine", "torch", "--budget", "1s", "--out", place / "out")
    return ("compare", place / "flowers", *network, *options)


@pytest.fixture(scope="module")
def told(regraft, command):
    return json.loads(regraft(*command, "--json").stdout)


def test_one_object_tells_rows_verdicts_what_was_left_out_and_the_page(told, place):
    assert {"rows", "verdicts", "left_out", "page"} <= set(told)
    assert [row["strategy"] for row in told["rows"]][:3] == ["features"] * 3
    assert any("two_stage" in sentence for sentence in told["left_out"])
    assert told["page"] == str(place / "out" / "comparison.html")
    assert "Left out" in (place / "out" / "comparison.html").read_text()


def test_the_estimate_is_shown_before_and_the_second_call_does_nothing(regraft, told, command):
    result = regraft(*command)

    assert "everything was run before" in result.stderr
    assert "simple_cnn + from_scratch" in result.stdout
    assert "Left out: simple_cnn + two_stage" in result.stdout


def test_where_nothing_could_be_run_the_reason_is_said(regraft, command, place, monkeypatch):
    def broken(*_arguments):
        raise RegraftError("the disk is full")

    monkeypatch.setattr(PlanRunner, "fit", broken)
    result = regraft(*command, "--out", place / "broken")

    assert result.return_value == 1
    assert "simple_cnn + knn: the disk is full" in result.stderr


def test_a_network_that_is_named_twice_is_run_once(regraft, command, told):
    again = regraft(*command, "--backbone", "simple_cnn", "--json")

    assert len(json.loads(again.stdout)["rows"]) == len(told["rows"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--splits", "2", "--folds", "3"), "two ways to repeat"),
        (("--backbone", "vgg16"), "go with one --backbone"),
        (("--budget", "soon"), "write --budget"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_any_work(regraft, command, options, said):
    with pytest.raises(UsageError, match=said):
        regraft(*command, *options)
