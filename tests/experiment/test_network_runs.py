"""A trained network as a run: phases and epochs recorded, stopped and gone on with, used again."""

import json

import numpy as np
import pytest
from regraft.experiment.evaluation import evaluate_on
from regraft.experiment.preparation import DataPlan

from regraft import BackboneSpec, FeatureClassifier, load_model
from regraft.backbones.spec import Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.synthetic import make_flowers
from regraft.errors import ModelError, RegraftError, RunError
from regraft.experiment.run import fit_run
from regraft.report.comparison_page import compare_runs, comparison_table
from regraft.training.callbacks import History
from regraft.training.checkpoint import Checkpoints
from regraft.training.phases import Phase, two_stage

SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


def network(**changes):
    chosen = {"phases": two_stage(2, head_epochs=1, unfreeze=1.0), **changes}
    compute = Compute(engine="torch", cache=None, device="cpu")
    return NetworkClassifier(SPEC, compute=compute, batch_size=8, **chosen)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    root = tmp_path_factory.mktemp("flowers")
    return DataPlan(make_flowers(root, species=3, per_class=8, size=48).root)


@pytest.fixture(scope="module")
def run(plan, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return fit_run(plan, network(), out=out, command="regraft fit flowers")


def test_a_run_records_phases_epochs_and_the_trained_weights(run):
    record = json.loads((run.folder / "run.json").read_text())

    assert record["description"] == "simple_cnn + two_stage (linear)"
    assert record["learner"] == "NetworkClassifier"
    assert record["epochs"] == 3
    assert [phase["epochs"] for phase in record["parameters"]["phases"]] == [1, 2]
    assert [phase["phase"] for phase in record["history"]["phases"]] == [1, 2]
    assert [epoch["phase"] for epoch in record["history"]["epochs"]] == [1, 2, 2]
    assert all("val_accuracy" in epoch for epoch in record["history"]["epochs"])
    assert record["backbone"]["weights"].startswith("trained further from random")


def test_the_result_for_a_machine_has_phases_and_history(run):
    result = run.result()

    assert result["validation"]["n"] == 3
    assert len(result["phases"]) == 2
    assert [epoch["epoch"] for epoch in result["history"]] == [1, 1, 2]
    assert result["images_embedded"] <= result["images"] == 24


def test_a_finished_run_keeps_its_history_file_and_no_checkpoints(run):
    lines = (run.folder / "history.jsonl").read_text().splitlines()

    assert [json.loads(line)["epoch"] for line in lines] == [1, 1, 2]
    assert not (run.folder / "checkpoints").exists()
    assert not (run.folder / ".lock").exists()


def test_the_model_of_a_run_predicts_what_the_run_recorded(run, plan):
    model = load_model(run.folder / "model")
    paths = [plan.source / path for path in run.predictions.paths]

    assert model.predict(paths).tolist() == list(run.predictions.predicted)


def test_a_finished_run_is_evaluated_like_any_other(run, plan):
    evaluation = evaluate_on(run.folder, plan)

    assert evaluation.new == 0
    assert evaluation.metrics["test"]["accuracy"] == run.metrics["test"]["accuracy"]


def test_both_learners_stand_in_one_comparison(run, plan, tmp_path):
    learner = FeatureClassifier(
        SPEC, classifier="knn", compute=Compute(engine="torch", cache=tmp_path / "cache")
    )
    features = fit_run(plan, learner, out=tmp_path / "features")

    table = comparison_table(compare_runs([run, features]))

    assert [row[:3] for row in table.rows] == [
        ("simple_cnn + two_stage (linear)", table.rows[0][1], 3),
        ("simple_cnn + knn", table.rows[1][1], None),
    ]
    assert "| 3 |" in table.to_markdown()
    assert "simple_cnn + knn" in table.to_text()
    assert not {"phases", "history"} & set(features.result())


def stop_after(learner, epochs, monkeypatch):
    """Let a training be interrupted as a kill would do it, after some epochs."""
    tell, told = History.on_epoch, []

    def epoch(self, record, **others):
        tell(self, record, **others)
        told.append(record)
        if len(told) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(History, "on_epoch", epoch)
    monkeypatch.setattr(Checkpoints, "due", lambda _self: True)
    return learner


def test_a_stopped_run_is_gone_on_with_and_ends_with_the_same_bits(
    run, plan, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fit_run(plan, stop_after(network(), 2, patch), out=tmp_path / "run")
    left = {entry.name for entry in (tmp_path / "run").iterdir()}

    again = fit_run(plan, network(), out=tmp_path / "run", resume=True)

    assert left >= {"checkpoints", "history.jsonl", ".lock"}
    assert np.array_equal(again.predictions.probabilities, run.predictions.probabilities)
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_work_does_not_go_on_from_a_stopped_run(plan, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fit_run(plan, stop_after(network(), 2, patch), out=tmp_path / "run")

    with pytest.raises(RegraftError) as caught:
        fit_run(plan, network(seed=5), out=tmp_path / "run")

    assert caught.value.code == "TRAIN-RESUME"


def test_there_must_be_something_to_resume(plan, tmp_path):
    with pytest.raises(RunError, match="nothing to go on from") as caught:
        fit_run(plan, network(), out=tmp_path / "run", resume=True)

    assert caught.value.code == "RUN-RESUME"
    assert not (tmp_path / "run").exists()


def test_without_validation_pictures_the_last_epoch_stays(plan, tmp_path):
    bare = DataPlan(plan.source, val=0.0)

    run = fit_run(bare, network(phases=[Phase(epochs=1)]), out=tmp_path / "run")

    assert "validation" not in run.metrics
    assert run.data["history"]["phases"][0]["best_epoch"] is None
    assert "no validation pictures to choose by" in (run.folder / "report.html").read_text()


class OwnHead:
    """A head that Regraft does not know."""


def test_what_cannot_be_saved_is_refused_before_any_work(plan, tmp_path):
    from sklearn.svm import SVC

    for learner in (network(head=OwnHead()), FeatureClassifier(SPEC, classifier=SVC())):
        with pytest.raises(ModelError) as caught:
            fit_run(plan, learner, out=tmp_path / "run")
        assert caught.value.code == "MODEL-UNSAVEABLE"

    assert not (tmp_path / "run").exists()
