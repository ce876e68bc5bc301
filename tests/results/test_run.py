"""A run in its folder: written, reserved, opened, and without secrets."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import RegraftError, RunError
from regraft.results.intervals import wilson
from regraft.results.predictions import Predictions
from regraft.results.run import Run, no_run, reserve, unfinished, without_secrets
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
def run(tmp_path, record, split, predict):
    return Run.create(
        tmp_path / "run",
        record,
        predict(split, wrong=2),
        split=split,
        check=Check(),
        learner=Learner(),
    )


def test_a_run_is_a_folder_with_everything_in_it(run):
    names = {entry.name for entry in run.folder.iterdir() if not entry.name.startswith(".")}

    assert names == {
        "run.json",
        "predictions.csv",
        "check.json",
        "split.csv",
        "split.json",
        "model",
    }
    assert not (run.folder / ".lock").exists()


def test_an_opened_run_is_the_one_that_was_written(run, split, predict):
    opened = Run.open(run.folder)

    assert opened.record == run.record
    assert opened.predictions.paths == predict(split).paths
    assert opened.description == "squares by logistic regression"
    assert opened.split_hash == split.hash
    assert opened.seconds == 2.0
    assert opened.check == {"findings": []}


def test_the_record_holds_the_keys_that_others_read(run):
    data = json.loads((run.folder / "run.json").read_text())

    assert set(data["metrics"]) == {"train", "validation", "test"}
    assert data["metrics"]["test"]["accuracy"] == to_json(wilson(16, 18))
    assert data["data"]["root_name"] == "squares"
    assert data["data"]["counts"]["test"] == {"blue": 6, "green": 6, "red": 6}
    assert data["split"]["hash"] == run.split_hash
    assert data["epochs"] is None
    assert (data["images"], data["images_embedded"]) == (36, 0)


def test_the_result_has_one_shape_for_every_part(run):
    result = run.result()

    assert set(result["test"]) == {"accuracy", "n", "interval"}
    assert result["validation"]["n"] == 9
    json.dumps(result)


def test_the_result_of_a_trained_network_has_its_phases_and_epochs(
    tmp_path, record, split, predict
):
    history = {"phases": [{"phase": 1}], "epochs": [{"epoch": 1}, {"epoch": 2}]}
    trained = replace(record, history=history, epochs=2)

    result = Run.create(tmp_path / "net", trained, predict(split), split=split).result()

    assert (result["phases"], result["history"]) == (history["phases"], history["epochs"])


def test_the_result_of_features_has_neither_phases_nor_history(run):
    assert {"phases", "history"} & set(run.result()) == set()


def test_a_part_that_is_missing_is_null(tmp_path, record, images, predict):
    split = images.split(val=0, test=0.5)

    run = Run.create(tmp_path / "run", record, predict(split), split=split)

    assert run.result()["validation"] is None
    assert "validation" not in run.metrics


def test_looks_at_the_test_part_are_counted(run, split):
    assert run.test_looks == run.record.split.test_looks == 1

    split.count_test_look(run.folder)

    assert Run.open(run.folder).test_looks == 2


def test_neither_paths_nor_tokens_nor_the_machine_stand_in_the_record(
    tmp_path, record, split, predict, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "a-very-secret-value")
    monkeypatch.setattr("platform.node", lambda: "adas-workstation")
    told = replace(
        record,
        command=f"regraft fit {tmp_path}/squares --token hf_{'a' * 30}",
        config={"method": {"weights": "weights.pth", "url": "https://ada:pw@example.org/x"}},
        environment={"host": "adas-workstation"},
        warnings=["a-very-secret-value was refused"],
    )

    run = Run.create(tmp_path / "run", told, predict(split), split=split)

    text = (run.folder / "run.json").read_text()
    assert run.record.command.startswith("regraft fit ~/squares --token")
    for secret in (str(tmp_path), "hf_aaa", "ada:pw", "adas-workstation", "very-secret"):
        assert secret not in text


def test_what_json_does_not_know_is_written_all_the_same(tmp_path, record, split, predict):
    odd = {"C": np.float64(1.5), "n": np.int64(3), "nan": math.nan, "path": Path("x"), 1: (1, 2)}

    run = Run.create(tmp_path / "run", replace(record, history=odd), predict(split), split=split)

    assert run.record.history == {"C": 1.5, "n": 3, "nan": None, "path": "x", "1": [1, 2]}


def test_a_finished_run_is_never_overwritten(run, record, split, predict):
    before = (run.folder / "run.json").read_bytes()

    with pytest.raises(RunError, match="finished run") as caught:
        Run.create(run.folder, record, predict(split), split=split)

    assert caught.value.code == "RUN-EXISTS"
    assert "choose another folder" in str(caught.value)
    assert (run.folder / "run.json").read_bytes() == before


def test_a_run_that_breaks_off_is_recognised_and_can_be_repeated(tmp_path, record, split, predict):
    class Broken:
        def save(self, folder):
            raise RegraftError("the disk is full")

    with pytest.raises(RegraftError, match="disk"):
        Run.create(tmp_path / "run", record, predict(split), split=split, learner=Broken())
    with pytest.raises(RunError) as caught:
        Run.open(tmp_path / "run")
    again = Run.create(tmp_path / "run", record, predict(split), split=split)

    assert caught.value.code == "RUN-INCOMPLETE"
    assert again.metrics["test"]["accuracy"].n == 18


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "RUN-INVALID"),
        ("[]", "RUN-FOREIGN"),
        ('{"name": "somebody else\'s"}', "RUN-FOREIGN"),
        ('{"format": "regraft-run", "version": 99}', "RUN-NEWER"),
        ('{"format": "regraft-run", "version": "x"}', "RUN-INVALID"),
        ('{"format": "regraft-run", "version": 1}', "RUN-INVALID"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(tmp_path, content, code):
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(RunError) as caught:
        Run.open(tmp_path)

    assert caught.value.code == code


def test_a_folder_without_a_run_is_foreign(tmp_path):
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError) as caught:
            Run.open(place)

        assert caught.value.code == "RUN-FOREIGN"


def test_a_run_can_be_written_into_a_place_reserved_before(tmp_path, record, split, predict):
    with reserve(tmp_path / "run") as place:
        run = Run.write(place, record, predict(split), split=split, test_looks=4)

    assert run.record.split.test_looks == 4
    assert isinstance(Run.open(run.folder).predictions, Predictions)


def test_a_file_of_the_name_of_our_record_does_not_cost_a_run(
    tmp_path, record, images, split, predict
):
    (images.root / "SOURCE.json").write_text('{"photographer": "me"}')

    run = Run.create(tmp_path / "run", record, predict(split), split=split)

    assert run.record.data.origin is None


def test_leaked_test_images_are_left_out_of_a_second_score(tmp_path, record, split, predict):
    predictions = predict(split, wrong=2)
    leaked = split.test.relative_paths()[2:6]

    run = Run.create(tmp_path / "leak", replace(record, leaked=leaked), predictions, split=split)

    assert run.metrics["test without leaks"]["accuracy"] == wilson(12, 14)
    assert run.metrics["test"]["accuracy"].n == 18


def test_images_are_told_by_the_run_s_own_manifest_alone(run, images, split):
    told = {row.path: row.part for row in run.rows()}

    images.split(seed=1).write(run.folder)
    with pytest.raises(RunError) as refused:
        run.rows()

    assert {path for path, part in told.items() if part == "test"} == set(
        split.test.relative_paths()
    )
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


def test_a_second_writer_is_refused_and_told_who_is_first(tmp_path, holder):
    with pytest.raises(RunError) as caught, reserve(tmp_path / "run"):
        pass

    assert caught.value.code == "RUN-LOCKED"
    assert f"process {holder.pid}" in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_the_folder_of_a_killed_writer_is_free_again(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    assert unfinished(tmp_path / "run")
    with reserve(tmp_path / "run") as place:
        assert (place / "predictions.csv").read_text() == "half"


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(RunError, match=r"thesis\.txt") as caught, reserve(tmp_path):
        pass

    assert caught.value.code == "RUN-EXISTS"


def test_the_folder_of_a_killed_training_may_be_used_again(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".lock", "history.jsonl"):
        (tmp_path / name).touch()

    with reserve(tmp_path) as place:
        assert (place / "checkpoints").is_dir()


def test_files_named_like_ours_are_somebody_else_s_without_our_mark(tmp_path):
    (tmp_path / "predictions.csv").touch()

    with pytest.raises(RunError, match="not empty"), reserve(tmp_path):
        pass


def test_an_unfinished_run_with_foreign_files_is_refused(tmp_path):
    for name in (".lock", "predictions.csv", "notes.txt"):
        (tmp_path / name).touch()

    with pytest.raises(RunError, match=r"notes\.txt"), reserve(tmp_path):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").touch()

    with pytest.raises(RunError, match="file, not a folder"), reserve(tmp_path / "run"):
        pass


def test_a_work_that_left_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), reserve(tmp_path / "run"):
        raise KeyboardInterrupt

    assert not (tmp_path / "run").exists()


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()

    with reserve(tmp_path / "run") as place:
        (place / "run.json").touch()

    assert [entry.name for entry in place.iterdir()] == ["run.json"]


def test_where_there_is_no_run_the_error_says_what_to_name(tmp_path):
    (tmp_path / "compared" / "runs" / "one").mkdir(parents=True)
    (tmp_path / "compared" / "runs" / "one" / "run.json").write_text("{}")
    (tmp_path / "image.jpg").write_text("")

    said = {name: str(no_run(tmp_path / name)) for name in ("compared", "image.jpg", "absent")}

    assert f"name {tmp_path / 'compared' / 'runs'}" in said["compared"]
    assert "this is a file - name the folder that holds run.json" in said["image.jpg"]
    assert "there is no such folder" in said["absent"]
    assert "name the folder that holds run.json" in str(no_run(tmp_path))


# ---- what is kept out of what is written down


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "x" * 34,
        "ghp_" + "x" * 36,
        "github_pat_" + "x" * 40,
        "sk-" + "x" * 40,
        "--token=swordfish",
        "https://ada:swordfish@example.org",
    ],
)
def test_tokens_are_removed_wherever_they_stand(secret):
    cleaned = without_secrets({"a": [f"before {secret} after"]})["a"][0]

    assert "[removed]" in cleaned
    assert "swordfish" not in cleaned
    assert "xxxx" not in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


def test_only_the_home_folder_itself_is_shortened(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")

    cleaned = without_secrets(["/home/ada/x", "/home/adam/x", "/home/ada"])

    assert cleaned == ["~/x", "/home/adam/x", "~"]


@pytest.mark.parametrize("path", ["/gpfs/home/ada/x", "/mnt/../home/ada", "~/home/ada"])
def test_a_path_that_only_contains_the_home_folder_stays(monkeypatch, path):
    monkeypatch.setenv("HOME", "/home/ada")

    assert without_secrets(path) == path
    assert without_secrets(f"--data=/home/ada/x file:///home/ada {path}").endswith(path)


@pytest.mark.parametrize("before", ["--data=", "'", "file://", "[", ",", " "])
def test_the_home_folder_is_shortened_wherever_a_path_begins(monkeypatch, before):
    monkeypatch.setenv("HOME", "/home/ada")

    assert without_secrets(f"x{before}/home/ada/y") == f"x{before}~/y"


def test_a_home_at_the_root_eats_no_path(monkeypatch):
    monkeypatch.setenv("HOME", "/")

    assert without_secrets("/data/flowers") == "/data/flowers"


def test_a_short_host_name_is_an_ordinary_word(monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "vit")

    assert without_secrets("vit_tiny vit") == "vit_tiny vit"


def test_values_become_json():
    values = {"array": np.array([[1.0, np.inf]]), "flag": True, "none": None, 2: {1}}

    assert without_secrets(values) == {
        "array": [[1.0, None]],
        "flag": True,
        "none": None,
        "2": "{1}",
    }
