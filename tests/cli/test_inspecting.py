"""`regraft data split`: what it writes, and what it never writes over."""

import json

import pytest

from regraft.data.manifest import read_manifest
from regraft.data.synthetic import make_flowers
from regraft.errors import DataError, RegraftError, RunError, UsageError


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=2, per_class=8, size=32).root


def test_a_manifest_is_never_written_over_that_of_a_run(regraft, flowers, tmp_path):
    regraft("data", "split", flowers, "--out", tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{}")

    for source in (flowers, tmp_path / "no-such-folder"):  # before any picture is looked at
        with pytest.raises(RunError) as refused:
            regraft("data", "split", source, "--out", tmp_path / "run")

        assert refused.value.code == "RUN-EXISTS"


def test_a_split_is_written_again_but_never_over_another_one(regraft, flowers, tmp_path):
    command = ("data", "split", flowers, "--out", tmp_path)
    first = json.loads(regraft(*command, "--json").stdout)
    rows = read_manifest(tmp_path).rows

    again = json.loads(regraft(*command, "--json").stdout)
    with pytest.raises(DataError) as refused:
        regraft(*command, "--seed", "1")

    assert again == first
    assert refused.value.code == "SPLIT-EXISTS"
    assert read_manifest(tmp_path).rows == rows


def test_a_folder_that_cannot_be_made_is_an_explained_error(regraft, flowers, tmp_path):
    (tmp_path / "afile").write_text("")

    with pytest.raises(RegraftError, match="choose another folder") as refused:
        regraft("data", "split", flowers, "--out", tmp_path / "afile" / "split")

    assert refused.value.code == "FILE-WRITE"


def test_a_root_for_a_folder_of_pictures_is_refused(regraft, flowers):
    for more in ((), ("--label-from-name", "(?P<label>[a-z]+)_")):
        with pytest.raises(UsageError, match="--root"):
            regraft("data", "check", flowers, "--root", flowers, *more)
