"""A run in its folder: written, reserved, opened, and without secrets."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regraft.errors import RegraftError, RunError
from regraft.results.intervals import wilson
from regraft.results.run import Run, is_running, no_run, reserve, unfinished
from regraft.results.run import without_secrets as cleaned
from regraft.settings import to_json


class Check:
    def write(self, folder):
        """Write an empty list of findings."""
        (Path(folder) / "check.json").write_text('{"findings": []}')


class Learner:
    def save(self, folder):
        """Write a model that holds nothing."""
        folder.mkdir()
        (folder / "model.json").write_text("{}")


@pytest.fixture
def run(create, split):
    return create(split, wrong=2, check=Check(), learner=Learner())


def test_an_opened_run_is_the_one_that_was_written(run, split, predict):
    opened = Run.open(run.folder)

    names = {entry.name for entry in run.folder.iterdir()}
    files = {"run.json", "predictions.csv", "check.json", "split.csv", "split.json", "model"}
    assert files == names - {".split.lock"}
    assert opened.record == run.record
    assert opened.predictions.paths == predict(split).paths
    assert opened.description == "squares by logistic regression"
    assert (opened.split_hash, opened.seconds) == (split.hash, 2.0)
    assert opened.check == {"findings": []}


def test_the_record_holds_the_keys_that_others_read(
    create, record, images, split, tmp_path, monkeypatch
):
    (images.root / "SOURCE.json").write_text('{"photographer": "me"}')  # which costs no run
    monkeypatch.setenv("HOME", str(tmp_path))
    command = f"regraft fit {tmp_path}/squares --token hf_{'a' * 30}"

    run = create(split, wrong=2, record=replace(record, command=command))

    data = json.loads((run.folder / "run.json").read_text())

    assert set(data["metrics"]) == {"train", "validation", "test"}
    assert data["command"] == run.record.command == "regraft fit ~/squares --token [removed]"
    assert data["metrics"]["test"]["accuracy"] == to_json(wilson(16, 18))
    assert data["data"]["root_name"] == "squares"
    assert data["data"]["counts"]["test"] == {"blue": 6, "green": 6, "red": 6}
    assert data["split"]["hash"] == run.split_hash
    assert (data["epochs"], data["images"], data["images_embedded"]) == (None, 36, 0)
    assert data["data"]["origin"] is None


def test_the_result_has_one_shape_for_every_part_and_epochs_only_after_training(
    run, create, record, split
):
    history = {
        "phases": [{"phase": 1}],
        "epochs": [{"train_accuracy": 0.5}, {"train_accuracy": 0.7}],
    }

    trained = create(split, "net", record=replace(record, history=history, epochs=2))

    result = trained.result()
    assert set(result["test"]) == {"accuracy", "n", "interval"}
    assert json.loads(json.dumps(result))["validation"]["n"] == 9
    assert (result["phases"], result["history"]) == (history["phases"], history["epochs"])
    assert {"phases", "history"} & set(run.result()) == set()
    assert (trained.last_epoch, run.last_epoch) == (0.7, None)


def test_looks_at_the_test_part_are_counted(run, create, images, split):
    split.count_test_look(run.folder)

    assert (run.record.split.test_looks, Run.open(run.folder).test_looks) == (1, 2)
    assert create(split, "again", test_looks=4).record.split.test_looks == 4
    assert create(images.split(val=0, test=0.5), "two").result()["validation"] is None


def test_a_run_continues_those_it_started_from_on_the_same_split(create, record, images, split):
    def going_on(split, name, earlier):
        method = {"start": str(earlier.folder / "model")}
        return create(split, name, record=replace(record, config={"method": method}))

    elsewhere = create(images.split(test=0.5, seed=1), "elsewhere", learner=Learner())
    first = going_on(split, "first", elsewhere)
    third = going_on(split, "third", going_on(split, "second", first))

    assert [run.name for run in third.continued] == ["second", "first"]
    assert first.continued == ()


def test_a_run_that_breaks_off_is_recognised_and_can_be_repeated(tmp_path, create, split):
    class Broken:
        def save(self, folder):
            raise RegraftError("the disk is full")

    with pytest.raises(RegraftError, match="disk"):
        create(split, learner=Broken())
    with pytest.raises(RunError) as caught:
        Run.open(tmp_path / "run")

    assert caught.value.code == "RUN-INCOMPLETE"
    assert create(split).metrics["test"]["accuracy"].n == 18


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "FILE-JSON"),
        ("[]", "RUN-FOREIGN"),
        ('{"name": "somebody else\'s"}', "RUN-FOREIGN"),
        ('{"format": "regraft-run", "version": 99, "description": ""}', "RUN-INVALID"),
        ('{"format": "regraft-run", "version": 1}', "RUN-INVALID"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(tmp_path, content, code):
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(RegraftError) as caught:
        Run.open(tmp_path)

    assert caught.value.code == code


def test_leaked_test_images_are_left_out_of_a_second_score(create, record, split):
    leaked = split.test.relative_paths()[2:6]

    run = create(split, wrong=2, record=replace(record, leaked=leaked))

    assert run.metrics["test without leaks"]["accuracy"] == wilson(12, 14)
    assert run.metrics["test"]["accuracy"].n == 18


def test_images_are_told_by_the_run_s_own_manifest_alone(run, images, split):
    told = {row.path for row in run.rows() if row.part == "test"}

    images.split(seed=1).write(run.folder)
    with pytest.raises(RunError) as refused:
        run.rows()

    assert told == set(split.test.relative_paths())
    assert refused.value.code == "SPLIT-HASH"


# ---- the folder while it is filled

HOLD = """
import sys, time
from regraft.results.run import reserve
with reserve(sys.argv[1]) as place:
    (place / "predictions.csv").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Return a process that has reserved ``tmp_path / "run"``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_a_second_writer_is_refused_until_the_first_has_died(tmp_path, holder):
    for _ in range(2):  # the one that was refused must leave the lock where it is
        with pytest.raises(RunError) as caught, reserve(tmp_path / "run"):
            pass
        assert caught.value.code == "RUN-LOCKED"
    assert is_running(tmp_path / "run")

    holder.send_signal(signal.SIGKILL)
    holder.wait()

    assert not is_running(tmp_path / "run")
    assert unfinished(tmp_path / "run")  # to ask leaves the mark where it is
    with reserve(tmp_path / "run") as place:
        assert (place / "predictions.csv").read_text() == "half"


def test_a_finished_run_and_a_folder_without_a_run_are_not_running(run, tmp_path):
    assert not is_running(run.folder)
    assert not is_running(tmp_path)
    assert not (tmp_path / ".regraft.lock").exists()


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["run.json"], "finished run"),
        (["thesis.txt"], r"thesis\.txt"),
        (["predictions.csv"], "not empty"),  # without our mark it is somebody else's
    ],
)
def test_a_folder_with_other_things_in_it_is_refused_and_stays_as_it_is(tmp_path, names, match):
    for name in names:
        (tmp_path / name).touch()

    with pytest.raises(RunError, match=match) as caught, reserve(tmp_path):
        pass

    assert caught.value.code == "RUN-EXISTS"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(names)


def test_a_work_that_left_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), reserve(tmp_path / "run"):
        raise KeyboardInterrupt

    assert not (tmp_path / "run").exists()


def test_where_there_is_no_run_the_error_says_what_to_name(tmp_path):
    (tmp_path / "compared" / "runs").mkdir(parents=True)

    said = {name: no_run(tmp_path / name) for name in ("compared", "absent", ".")}

    assert {error.code for error in said.values()} == {"RUN-FOREIGN"}
    assert f"name {tmp_path / 'compared' / 'runs'}" in str(said["compared"])
    assert "there is no such folder" in str(said["absent"])
    assert "name the folder that holds run.json" in str(said["."])


# ---- what is kept out of what is written down


@pytest.mark.parametrize(
    "secret",
    [
        *("hf_" + "x" * 34, "ghp_" + "x" * 36, "github_pat_" + "x" * 40, "sk-" + "x" * 40),
        *("--token=swordfish", "https://ada:swordfish@example.org"),
    ],
)
def test_tokens_are_removed_wherever_they_stand(secret):
    text = cleaned({"a": [f"before {secret} after"]})["a"][0]

    assert text.startswith("before ")
    assert text.endswith(" after")
    assert "[removed]" in text
    assert not {"swordfish", "xxxx"} & {text[i : i + n] for n in (4, 9) for i in range(len(text))}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (["/home/ada/x", "/home/adam/x", "/home/ada"], ["~/x", "/home/adam/x", "~"]),
        *(
            (f"x{before}/home/ada/y", f"x{before}~/y")
            for before in ("--data=", "'", "file://", " ")
        ),
        *((path, path) for path in ("/gpfs/home/ada/x", "/mnt/../home/ada", "~/home/ada")),
        ({"a": [1, None, 0.5, True]}, {"a": [1, None, 0.5, True]}),
    ],
)
def test_the_home_folder_is_shortened_where_a_path_begins_with_it(monkeypatch, written, kept):
    monkeypatch.setenv("HOME", "/home/ada")

    assert cleaned(written) == kept
    monkeypatch.setenv("HOME", "/")
    assert cleaned("/data/flowers") == "/data/flowers"
