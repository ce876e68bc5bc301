"""The command `data fetch`: what it prints, and what a machine reads of it."""

import json

import pytest
from typer.testing import CliRunner

from regraft.cli import app as command_line
from regraft.cli.app import app
from regraft.data import fetching
from regraft.data.named import NAMED
from regraft.data.synthetic import make_flowers
from regraft.errors import UsageError


def run(*arguments):
    result = CliRunner().invoke(app, ["data", "fetch", *arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def given(tmp_path):
    folder = tmp_path / "given"
    drawn = make_flowers(tmp_path / "drawn", species=3, per_class=2, size=32)
    for name, kind in zip(drawn.classes, ("cats", "dogs", "panda"), strict=True):
        (folder / kind).mkdir(parents=True)
        for path in (tmp_path / "drawn" / name).iterdir():
            (folder / kind / path.name).write_bytes(path.read_bytes())
    (folder / "cats" / "broken.jpg").write_bytes(b"")
    return folder


def test_without_a_name_every_data_set_is_listed_with_size_and_licence():
    lines = run().stdout.splitlines()

    assert lines[0].split() == ["name", "classes", "pictures", "download", "what", "licence"]
    assert [line.split()[0] for line in lines[1:]] == [data.name for data in NAMED]
    assert "229 MB" in lines[1]
    assert "Creative Commons" in lines[1]


def test_the_list_is_there_for_machines():
    listed = json.loads(run("--json").stdout)["data_sets"]

    assert [each["name"] for each in listed] == [data.name for data in NAMED]
    assert listed[0]["bytes"] == 228_813_984


def test_licence_counts_and_what_was_left_out_are_shown(given, tmp_path):
    output = run("animals", "--from", str(given), "--to", str(tmp_path / "set")).stdout

    assert "6 pictures of 3 classes" in output
    assert "cats 2, dogs 2, panda 2" in output
    assert f"licence: {next(d.licence for d in NAMED if d.name == 'animals')}" in output
    assert "left out, no pictures inside (1): cats/broken.jpg" in output
    again = run("animals", "--from", str(given), "--to", str(tmp_path / "set")).stdout
    assert again.startswith("animals is there already, nothing was done")


def test_json_is_one_object(given, tmp_path):
    result = run("animals", "--from", str(given), "--to", str(tmp_path / "set"), "--json")

    fetched = json.loads(result.stdout)
    assert fetched["folder"] == str(tmp_path / "set")
    assert fetched["pictures"] == 6
    assert fetched["broken"] == ["cats/broken.jpg"]
    assert fetched["already"] is False


def test_the_folder_is_named_like_the_data_set_unless_told(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    run("animals", "--from", str(given))

    assert (tmp_path / "animals" / "SOURCE.json").is_file()


def test_options_without_a_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="which data set"):
        run("--to", str(tmp_path))


def test_ctrl_c_says_that_a_download_goes_on(monkeypatch, capsys):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "fetch_data", interrupted)
    monkeypatch.setattr("sys.argv", ["regraft", "data", "fetch", "animals"])

    assert command_line._run() == 130
    assert "the same command goes on there" in capsys.readouterr().err
