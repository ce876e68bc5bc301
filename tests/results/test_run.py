import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import RegraftError, RunError
from regraft.results.intervals import wilson
from regraft.results.predictions import Predictions
from regraft.results.run import Run, reserve
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
