"""`regraft fit` with every strategy, in this process: what it prints and what it leaves."""

import json

import pytest
from typer.testing import CliRunner

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.cli.app import app
from regraft.data.synthetic import make_flowers
from regraft.errors import UsageError
from regraft.report.comparison_page import compare_runs, comparison_table
from regraft.results.run import Run

NETWORK = ("--backbone", "simple_cnn", "--arg", "size=48")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with drawn flowers in ``flowers`` and weights in ``net.safetensors``."""
    folder = tmp_path_factory.mktemp("fitting")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    write_state(folder / "net.safetensors", network.module.state_dict())
    return folder


def regraft(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], standalone_mode=False)


def fit(place, out, *arguments, weights=True):
    named = ("--weights", place / "net.safetensors") if weights else ()
    result = regraft(
        "fit", place / "flowers", *NETWORK, *named, "--engine", "torch", "--out", out, *arguments
    )
    if result.exception is not None:
        raise result.exception
    return result


STRATEGIES = {
    "features": ("--classifier", "knn"),
    "frozen": ("--epochs", 2, "--head", "mlp_256"),
    "fine_tune": ("--epochs", 2, "--unfreeze", "last:2", "--optimizer", "sgd", "--lr", "0.01"),
    "two_stage": ("--epochs", 2, "--head-epochs", 1, "--output", "sigmoid"),
    "from_scratch": ("--epochs", 2, "--augment", "flip=true", "--class-weight", "balanced"),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_leaves_a_run_that_can_be_used(place, tmp_path, strategy):
    out = tmp_path / "run"

    result = fit(
        place,
        out,
        "--strategy",
        strategy,
        *STRATEGIES[strategy],
        "--json",
        weights=strategy != "from_scratch",
    )
    told = json.loads(result.stdout)
    picture = next((place / "flowers" / "daisy").iterdir())
    predicted = regraft("predict", out, picture, "--json")
    evaluated = regraft("evaluate", out, place / "flowers", "--json")

    assert result.return_value == 0
    assert told["test"]["n"] == 6
    assert ("phases" in told) == (strategy != "features")
    assert json.loads(predicted.stdout)["top"][0]["label"] in {"daisy", "poppy"}
    assert json.loads(evaluated.stdout)["test"]["accuracy"] == told["test"]["accuracy"]
    assert strategy == "features" or strategy in Run.open(out).description
    assert (out / "report.html").is_file()


def test_a_network_is_told_in_epochs_and_images(place, tmp_path):
    result = fit(place, tmp_path / "run", "--strategy", "frozen", "--epochs", "3")

    assert "3 epochs of training; " in result.stderr
    assert "images embedded" in result.stderr
    table = comparison_table(compare_runs([Run.open(tmp_path / "run")]))
    assert table.rows[0][2] == 3


def test_a_second_head_on_the_same_pictures_embeds_none_of_them(place, tmp_path):
    fit(place, tmp_path / "first", "--strategy", "frozen", "--epochs", "1")

    second = fit(
        place, tmp_path / "second", "--strategy", "frozen", "--epochs", "1", "--lr", "0.01"
    )

    assert "0 of 24 images embedded, the others came from the cache" in second.stderr


def test_a_run_starts_from_an_earlier_one(place, tmp_path):
    fit(place, tmp_path / "first", "--strategy", "fine_tune", "--epochs", "1")

    result = fit(
        place,
        tmp_path / "second",
        "--strategy",
        "frozen",
        "--epochs",
        "1",
        "--from",
        tmp_path / "first",
    )

    assert "started from trunk and head of first" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--epochs", "3"), "epochs (--epochs) does nothing with the strategy features"),
        (("--strategy", "two_stage", "--classifier", "knn"), "(--classifier) does nothing"),
        (("--strategy", "frozen", "--resume"), "--out FOLDER"),
        (("--strategy", "from_scratch", "--weights", "net.safetensors"), "random weights"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_picture_is_read(
    place, monkeypatch, arguments, said
):
    monkeypatch.chdir(place)

    result = regraft("fit", "no such folder", *NETWORK, *arguments)

    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


def test_the_help_names_every_head():
    from regraft.training.heads import HEADS

    told = " ".join(regraft("fit", "--help").output.split())

    assert [name for name in HEADS if name not in told] == []
