"""One experiment, whole: what a run records is what happened, and it resumes to the same bits."""

import json
import shutil

import numpy as np
import pytest

from regraft import load_model
from regraft.backbones.spec import Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.classifiers.shallow import tempered
from regraft.data.synthetic import make_flowers
from regraft.errors import DataError, RegraftError, RunError, UsageError
from regraft.experiment import run as runs
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.prepare import prepare
from regraft.experiment.run import build, extract_features, fit_run
from regraft.features.extractor import FeatureExtractor
from regraft.results.run import Run
from regraft.settings import from_json
from regraft.training.augment import Augmentation
from regraft.training.callbacks import History
from regraft.training.checkpoint import Checkpoints
from regraft.training.phases import two_stage

TINY = {
    "backbone": "simple_cnn",
    "weights": "random",
    "arguments": {"size": 48},
    "engine": "torch",
    "cache": False,
    "explain": False,
}
NET = {**TINY, "batch_size": 8, "device": "cpu"}
STAGES = {"strategy": "two_stage", "epochs": 2, "head_epochs": 1, "unfreeze": 1.0}


def shallow(source, *, method=None, **data):
    return RunConfig(
        DataConfig(source, **data), MethodConfig(**TINY, **{"classifier": "knn", **(method or {})})
    )


def network(source, *, data=None, **method):
    chosen = MethodConfig(**{**NET, **(method or STAGES)})
    return RunConfig(DataConfig(source, **(data or {})), chosen)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    root = tmp_path_factory.mktemp("flowers")
    return make_flowers(root, species=3, per_class=8, size=48).root


@pytest.fixture(scope="module")
def run(flowers, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return fit_run(shallow(flowers), out=out, command="regraft fit flowers")


@pytest.fixture(scope="module")
def trained(flowers, tmp_path_factory):
    return fit_run(network(flowers), out=tmp_path_factory.mktemp("run") / "run")


def test_every_setting_reaches_a_network(tmp_path):
    given = {
        "views": 8,
        "batch_size": 16,
        "class_weight": "balanced",
        "sampling": "balanced",
        "output": "sigmoid",
        "seed": 3,
        "start": tmp_path,
        "time_budget": 120.0,
    }

    learner = build(
        MethodConfig(
            **{**STAGES, **given, "backbone": "vgg16", "head": "mlp_256", "augment": "flip=true"},
            regularize="standard",
            device="cpu",
            boundary="off",
            engine="torch",
        )
    )

    assert isinstance(learner, NetworkClassifier)
    assert learner.phases == tuple(two_stage(2, head_epochs=1, unfreeze=1.0))
    assert (learner.head, learner.regularize) == ("mlp_256", "standard")
    assert learner.augment == Augmentation(flip=True)
    assert {name: getattr(learner, name) for name in given} == given
    assert learner.compute == Compute(device="cpu", boundary="off", engine="torch")
    plain = build(MethodConfig(strategy="frozen")).get_params()
    assert (plain["augment"], plain["head"], plain["output"]) == (None, "linear", "softmax")


def test_a_run_tells_what_was_done_with_which_weights_on_which_split(run, flowers):
    record = json.loads((run.folder / "run.json").read_text())

    assert record["description"] == "simple_cnn + knn"
    assert from_json(RunConfig, record["config"]).absolute() == shallow(flowers).absolute()
    assert record["backbone"]["weights"] == "random, seed 0"
    assert len(record["backbone"]["weights_sha256"]) == len(record["split"]["hash"]) == 64
    assert set(record["seconds"]) == {"check and split", "fit", "predict"}
    assert record["environment"]["packages"]["scikit-learn"]
    assert (record["command"], record["epochs"]) == ("regraft fit flowers", None)
    assert (record["images"], record["images_embedded"]) == (24, 24)
    assert Run.open(run.folder).test_looks == 1


@pytest.mark.parametrize("which", ["run", "trained"])
def test_the_model_of_a_run_predicts_what_the_run_recorded(which, flowers, request):
    fitted = request.getfixturevalue(which)
    model = load_model(fitted.folder / "model")
    paths = [flowers / path for path in fitted.predictions.paths]

    assert model.predict(paths).tolist() == list(fitted.predictions.predicted)


@pytest.mark.parametrize("which", ["run", "trained"])
def test_confidence_is_fitted_on_the_validation_part_and_saved_with_the_model(which, request):
    found = request.getfixturevalue(which)
    learner, held = load_model(found.folder / "model"), found.predictions.part("val")

    assert len(held) > 0
    assert learner.temperature_ == found.record.temperature != 1.0
    calm = found.predictions.predicted
    raw = tempered(found.predictions.probabilities, 1 / found.record.temperature)
    assert [found.predictions.classes[k] for k in raw.argmax(axis=1)] == list(calm)
    assert found.calibration.right == tuple(held.correct)
    assert found.calibration.chose is (which == "trained")


def test_without_validation_images_nothing_is_calibrated(flowers, tmp_path):
    found = fit_run(shallow(flowers, val=0.0), out=tmp_path / "run")

    assert (found.record.temperature, found.calibration) == (1.0, None)


def test_a_taken_folder_is_refused_before_any_work(run, flowers, monkeypatch):
    monkeypatch.setattr(runs, "prepare", None)

    with pytest.raises(RunError, match="a finished run stands here"):
        fit_run(shallow(flowers), out=run.folder)
    with pytest.raises(UsageError, match="a run cannot stand inside its images"):
        fit_run(shallow(flowers), out=flowers / "run")


def test_features_go_to_a_file_that_is_never_overwritten(flowers, tmp_path):
    extractor = FeatureExtractor(MethodConfig(**TINY).spec, compute=Compute(cache=None))
    file = tmp_path / "features.h5"

    stats, columns = extract_features(DataConfig(flowers), extractor, file)

    assert (stats.images, columns) == (24, 128)
    with pytest.raises(DataError, match=r"features\.h5"):
        extract_features(DataConfig(flowers), extractor, file)


def test_an_impossible_classifier_is_refused_before_any_work(flowers, tmp_path):
    with pytest.raises(UsageError, match="unknown classifier"):
        fit_run(shallow(flowers, method={"classifier": "svm"}), out=tmp_path / "run")

    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """Return a run on given parts in which plant 0 of each species stands in train and test."""
    root = tmp_path_factory.mktemp("plants")
    drawn = make_flowers(root / "drawn", species=2, per_class=18, size=48)
    for number, (path, label) in enumerate(zip(drawn.paths, drawn.labels, strict=True)):
        place = number % 18
        part = "test" if place in {0, 3, 4, 5, 15, 16, 17} else "train"
        folder = root / "cut" / part / label
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / f"{label}plant{place // 3}_{place}.png")
    groups = {"group_by": "[a-z]+plant[0-9]+", "val": 0.0}
    with pytest.raises(DataError) as refused:
        prepare(DataConfig(root / "cut", **groups))
    assert (refused.value.code, "--keep-parts" in refused.value.hint) == ("SPLIT-GROUPS", True)
    return fit_run(shallow(root / "cut", keep_parts=True, **groups), out=root / "run")


def test_kept_parts_that_share_groups_are_measured_with_and_without_them(leaking):
    sizes = {part: found["accuracy"].n for part, found in leaking.metrics.items()}
    (finding,) = [f for f in leaking.check["findings"] if f["code"] == "DATA-GROUP-LEAK"]

    assert (sizes["test"], sizes["test without leaks"]) == (14, 12)
    assert len(leaking.record.leaked) == 2
    assert len(finding["names"]) == 2
    assert all(name.endswith("plant0") for name in finding["names"])


def test_the_warnings_of_a_run_say_what_leaks_and_what_that_costs(leaking):
    told = "\n".join(leaking.record.warnings)

    assert "2 groups stand in several parts (2 in train and test)" in told
    assert "2 of 14 test images have a copy" in told
    assert len(leaking.record.warnings) == len(set(leaking.record.warnings))


# ---- trained networks


def test_a_run_records_phases_epochs_and_the_trained_weights(trained):
    record = json.loads((trained.folder / "run.json").read_text())

    assert record["description"] == "simple_cnn + two_stage (linear), unfreeze 1.0"
    assert record["epochs"] == 3
    assert [phase["phase"] for phase in record["history"]["phases"]] == [1, 2]
    assert [epoch["phase"] for epoch in record["history"]["epochs"]] == [1, 2, 2]
    assert all("val_accuracy" in epoch for epoch in record["history"]["epochs"])
    assert record["backbone"]["weights"].startswith("trained further from random")
    result = trained.result()
    assert (result["validation"]["n"], len(result["phases"])) == (3, 2)
    assert [epoch["epoch"] for epoch in result["history"]] == [1, 1, 2]
    assert result["images_embedded"] <= result["images"] == 24


def test_a_finished_run_keeps_its_history_file_and_no_checkpoints(trained):
    lines = (trained.folder / "history.jsonl").read_text().splitlines()

    assert [json.loads(line)["epoch"] for line in lines] == [1, 1, 2]
    assert not (trained.folder / "checkpoints").exists()
    assert not (trained.folder / ".regraft.lock").exists()


def test_a_finished_run_keeps_what_its_epochs_took_some_validation_images_for(trained):
    live = json.loads((trained.folder / "live.json").read_text())

    assert live["planned"] == [1, 2]
    assert [epoch["number"] for epoch in live["epochs"]] == [1, 2, 3]
    assert sum(n for *_, n in live["counts"]) == len(live["images"]) == 3
    last = json.loads((trained.folder / "run.json").read_text())["history"]["epochs"][-1]
    right = sum(n for true, predicted, n in live["counts"] if true == predicted)
    assert right == round(3 * last["val_accuracy"])


def stop(config, out, monkeypatch):
    """Interrupt a training after two epochs as a kill would do it."""
    tell, told = History.on_epoch, []

    def epoch(self, record, **others):
        tell(self, record, **others)
        told.append(record)
        if len(told) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_epoch", epoch)
        patch.setattr(Checkpoints, "due", lambda _self: True)
        with pytest.raises(KeyboardInterrupt):
            fit_run(config, out=out)


def test_a_stopped_run_resumes_and_ends_with_the_same_bits(trained, flowers, tmp_path, monkeypatch):
    stop(network(flowers), tmp_path / "run", monkeypatch)
    left = {entry.name for entry in (tmp_path / "run").iterdir()}

    again = fit_run(network(flowers), out=tmp_path / "run", resume=True)

    assert left >= {"checkpoints", "history.jsonl", ".regraft.lock"}
    assert np.array_equal(again.predictions.probabilities, trained.predictions.probabilities)
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_work_does_not_resume_a_stopped_run(flowers, tmp_path, monkeypatch):
    stop(network(flowers), tmp_path / "run", monkeypatch)

    with pytest.raises(RegraftError) as caught:
        fit_run(network(flowers, **STAGES, seed=5), out=tmp_path / "run")

    assert caught.value.code == "TRAIN-RESUME"


def test_there_must_be_something_to_resume(flowers, tmp_path):
    with pytest.raises(RunError, match="nothing to resume") as caught:
        fit_run(network(flowers), out=tmp_path / "run", resume=True)

    assert caught.value.code == "RUN-RESUME"
    assert not (tmp_path / "run").exists()


def test_without_validation_images_the_last_epoch_stays(flowers, tmp_path):
    bare = network(flowers, data={"val": 0.0}, strategy="frozen", epochs=1)

    fitted = fit_run(bare, out=tmp_path / "run")

    assert "validation" not in fitted.metrics
    assert fitted.record.history["phases"][0]["best_epoch"] is None
    assert "no validation images to choose by" in (fitted.folder / "report.html").read_text()


# ---- what a run starts from


def on(source, out, *, start=None, **data):
    config = network(source, data=data, strategy="frozen", epochs=1, start=start)
    return fit_run(config, out=out)


@pytest.fixture(scope="module")
def first(flowers, tmp_path_factory):
    return on(flowers, tmp_path_factory.mktemp("runs") / "first").folder


@pytest.mark.parametrize("place", [".", "model"])
def test_a_run_that_learned_test_images_is_no_start(flowers, first, tmp_path, place):
    with pytest.raises(RunError, match=r"test images? w.*learned by the run to.*same seed") as no:
        on(flowers, tmp_path / "on", start=first / place, seed=1)

    assert (no.value.code, no.value.path) == ("START-LEAK", str(first))
    assert not (tmp_path / "on" / "run.json").exists()


def test_a_model_that_came_without_its_split_is_a_start(flowers, first, tmp_path):
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    shutil.copy(first / "run.json", pulled)
    shutil.copytree(first / "model", pulled / "model")

    run = on(flowers, tmp_path / "on", start=pulled, seed=1)

    assert any("started from" in warning for warning in run.record.warnings)


@pytest.mark.parametrize("below_home", [False, True])
def test_what_an_earlier_run_of_the_chain_has_learned_is_found_too(
    flowers, tmp_path, monkeypatch, below_home
):
    if below_home:  # which runs know as ~
        monkeypatch.setenv("HOME", str(tmp_path))
    earlier = on(flowers, tmp_path / "first").folder
    others = make_flowers(tmp_path / "others", species=3, per_class=8, size=48, seed=5).root
    between = on(others, tmp_path / "between", start=earlier).folder

    with pytest.raises(RunError) as no:
        on(flowers, tmp_path / "on", start=between, seed=1)

    assert no.value.code == "START-LEAK"


def test_images_are_known_by_their_content_wherever_they_lie(flowers, first, tmp_path):
    shutil.copytree(flowers, tmp_path / "moved")

    with pytest.raises(RunError, match="learned by the run to start from"):
        on(tmp_path / "moved", tmp_path / "on", start=first, seed=1)
    assert on(flowers, tmp_path / "same", start=first).metrics["test"]["accuracy"].n == 6


def test_a_run_that_was_trained_from_scratch_is_a_start_whatever_weights_there_are(
    flowers, tmp_path
):
    plain = {"backbone": "simple_cnn", "batch_size": 8, "device": "cpu", "epochs": 1}
    scratch = MethodConfig(strategy="from_scratch", arguments={"size": 48}, **plain)
    first = fit_run(RunConfig(DataConfig(flowers), scratch), out=tmp_path / "first")

    after = MethodConfig(strategy="frozen", start=first.folder, **plain)
    second = fit_run(RunConfig(DataConfig(flowers), after), out=tmp_path / "second")

    assert second.record.backbone.weights == "trained further from random, seed 0"
    assert second.record.backbone.preprocessing["size"] == 48
    assert "started from trunk and head of first" in second.record.warnings
    assert list(second.record.backbone.initial) == ["run to start from"]


def test_what_speaks_against_a_method_stands_in_its_run(flowers, tmp_path):
    tuned = network(flowers, strategy="from_scratch", weights="default", epochs=1)

    alone = fit_run(tuned, out=tmp_path / "alone").record.warnings
    beside = fit_run(tuned, out=tmp_path / "beside", alone=False).record.warnings

    (said,) = set(alone) - set(beside)
    assert said.startswith("15 images to learn from are few to train a trunk with")
