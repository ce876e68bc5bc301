"""The command that finds a learning rate."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from typer.testing import CliRunner

from regraft.cli.app import app
from regraft.data.synthetic import make_flowers
from regraft.errors import DataError, UsageError
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import prepare
from regraft.training import rate_finder


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flowers")
    make_flowers(folder, species=3, per_class=12, size=48)
    return folder


def find(folder, *options):
    arguments = ["find-lr", str(folder), "--backbone", "simple_cnn", "--arg", "size=48"]
    arguments += ["--strategy", "from_scratch", "--batch-size", "8", "--steps", "30", *options]
    result = CliRunner().invoke(app, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_rate_is_printed_and_the_curve_drawn(flowers, tmp_path):
    out = tmp_path / "rates.svg"

    result = find(flowers, "--out", str(out), "--device", "cpu")

    rate = result.stdout.strip()
    assert 1e-6 < float(rate) < 1
    assert f"--lr {rate}" in result.stderr
    assert str(out) in result.stderr
    assert ET.fromstring(out.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    assert f"steepest at {rate}" in out.read_text()


def test_json_has_the_curve_and_the_same_rate(flowers):
    shown = find(flowers, "--device", "cpu")
    found = json.loads(find(flowers, "--device", "cpu", "--json").stdout)

    assert f"{found['suggestion']:.2g}" == shown.stdout.strip()
    assert len(found["rates"]) == len(found["losses"]) <= 30
    assert found["figure"] is None


def test_only_pictures_that_fit_learns_from_are_looked_at(flowers, monkeypatch):
    asked = []
    search = rate_finder.search_rate

    def record(learner, paths, labels, **options):
        asked.extend(paths)
        return search(learner, paths, labels, **options)

    monkeypatch.setattr(rate_finder, "search_rate", record)
    find(flowers, "--seed", "3", "--test", "0.5", "--val", "0.25")

    split = prepare(DataConfig(flowers, seed=3, test=0.5, val=0.25)).split
    assert asked == list(split.train.paths)


def test_where_no_rate_is_good_nothing_is_suggested(flowers):
    result = find(flowers, "--lowest", "1e-12", "--highest", "1e-10")

    assert not result.stdout.strip()
    assert "no rate lowers the loss" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "rates.png"], "SVG"),
        (["--unfreeze", "0.5"], "does nothing"),
        (["--lowest", "1", "--highest", "0.1"], "must rise"),
        (["--head", "mpl_256"], "did you mean 'mlp_256'"),
    ],
)
def test_what_makes_no_sense_is_refused(flowers, options, message):
    with pytest.raises(UsageError, match=message):
        find(flowers, *options)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(DataError):
        find(tmp_path)


def test_the_command_is_explained_without_torch():
    code = (
        "import sys; from regraft.cli.app import app\n"
        "try: app(['find-lr', '--help'], standalone_mode=False)\n"
        "finally: assert 'torch' not in sys.modules, 'torch'"
    )

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert "rising learning rate" in shown.stdout
