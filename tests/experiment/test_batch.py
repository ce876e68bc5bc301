"""Many runs into one folder: nothing twice, nothing lost, nothing measured on other images."""

import os
import shutil
import time

import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers
from regraft.errors import RunError
from regraft.experiment import batch, prepare
from regraft.experiment.batch import PlanRunner, dry_run
from regraft.experiment.plan import plan_from, read_plan
from regraft.report.tables import Duration

TINY = {"backbone": "simple_cnn", "weights": "random", "arguments": {"size": 48}}
TINY |= {"engine": "torch", "explain": False}


@pytest.fixture
def flowers(tmp_path):
    return make_flowers(tmp_path / "flowers", species=2, per_class=12, size=48).root


def planned(flowers, *rows, **data):
    return plan_from({"data": {"source": str(flowers), **data}, "defaults": TINY, "rows": [*rows]})


def test_each_run_is_fitted_once_and_repeats_stand_in_one_row(flowers, tmp_path):
    plan = planned(flowers, {"classifier": "knn", "seed": [0, 1]}, {"classifier": "logistic"})

    first = PlanRunner(tmp_path / "out").run(plan)
    again = PlanRunner(tmp_path / "out").run(plan)

    assert (first.fitted, again.fitted) == (3, 0)
    assert [row.seeds for row in first.rows] == [row.seeds for row in again.rows] == [2, 1]
    assert {run.split_hash for row in first.rows for run in row.runs} == {
        first.rows[0].runs[0].split_hash
    }


def test_images_are_checked_once_for_all_runs_of_a_split(flowers, tmp_path, monkeypatch):
    calls = []
    check = prepare.check
    monkeypatch.setattr(prepare, "check", lambda *a, **k: calls.append(1) or check(*a, **k))

    outcome = PlanRunner(tmp_path / "out").run(
        planned(flowers, {"classifier": "knn", "per_class": [2, 3]}, {"classifier": "logistic"})
    )

    assert (outcome.fitted, len(calls)) == (3, 1)
    assert [row.runs[0].metrics["train"]["accuracy"].n for row in outcome.rows] == [4, 6, 14]
    assert {row.runs[0].metrics["test"]["accuracy"].n for row in outcome.rows} == {6}


def test_folds_are_cut_from_images_that_were_checked_once(flowers, tmp_path, monkeypatch):
    calls = []
    check = prepare.check
    monkeypatch.setattr(prepare, "check", lambda *a, **k: calls.append(1) or check(*a, **k))

    (row,) = PlanRunner(tmp_path / "out").run(planned(flowers, {"classifier": "knn"}, folds=3)).rows

    assert (row.seeds, len(calls)) == (3, 1)
    tested = [path for run in row.runs for path in run.predictions.part("test").paths]
    assert len(tested) == len(set(tested)) == 24


def test_a_plan_that_was_stopped_goes_on_with_the_run_that_was_missing(
    flowers, tmp_path, monkeypatch
):
    plan = planned(flowers, {"classifier": "knn"}, {"classifier": "logistic"})
    fit_run, calls = batch.fit_run, []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit_run(*arguments, **options)

    monkeypatch.setattr(batch, "fit_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        PlanRunner(tmp_path / "out").run(plan)

    assert PlanRunner(tmp_path / "out").run(plan).fitted == 1


def test_a_run_that_cannot_be_made_does_not_stop_the_others(flowers, tmp_path):
    said = []
    plan = planned(flowers, {"backbone": "no_such_network"}, {"classifier": "knn"})

    outcome = PlanRunner(tmp_path / "out", say=said.append).run(plan)

    assert len(outcome.rows) == outcome.fitted == 1
    assert "no_such_network" in outcome.failures[0]
    assert any("failed" in line for line in said)


def test_an_error_that_nobody_foresaw_fails_its_own_row(flowers, tmp_path, monkeypatch):
    fit_run = batch.fit_run

    def broken(config, **options):
        if config.description == "broken":
            raise MemoryError("no room")
        return fit_run(config, **options)

    monkeypatch.setattr(batch, "fit_run", broken)
    rows = [{"classifier": "knn", "description": "broken"}, {"classifier": "logistic"}]

    outcome = PlanRunner(tmp_path / "out").run(planned(flowers, *rows))

    assert outcome.failures == ("broken: unexpected error: MemoryError - no room",)
    assert len(outcome.rows) == 1


def test_a_run_with_another_description_is_not_run_again(flowers, tmp_path):
    PlanRunner(tmp_path / "out").run(planned(flowers, {"classifier": "knn"}))

    renamed = {"classifier": "knn", "description": "nearest neighbours"}

    assert PlanRunner(tmp_path / "out").run(planned(flowers, renamed)).fitted == 0


HEAD = {"id": "head", "strategy": "frozen", "epochs": 1}
ON = {"id": "on", "strategy": "fine_tune", "epochs": 1, "start": "head"}


def test_a_row_with_another_description_is_still_what_others_started_from(flowers, tmp_path):
    PlanRunner(tmp_path / "out").run(planned(flowers, HEAD, ON))
    renamed = planned(flowers, HEAD | {"description": "a new head"}, ON)

    again = PlanRunner(tmp_path / "out").run(renamed)
    head, on = (row.runs[0] for row in again.rows)
    shutil.rmtree(on.folder)
    anew = PlanRunner(tmp_path / "out").run(renamed)

    assert (again.fitted, anew.fitted, anew.failures) == (0, 1, ())
    assert anew.rows[1].runs[0].record.method["start"] == str(head.folder.absolute())


def test_the_plan_of_a_run_that_started_from_another_can_be_run_anywhere(flowers, tmp_path):
    first = PlanRunner(tmp_path / "out").run(planned(flowers, HEAD, ON)).rows[1].runs[0]

    (again,) = PlanRunner(tmp_path / "again").run(read_plan(first.folder / "run.json")).rows

    assert again.runs[0].predictions.predicted == first.predictions.predicted


def test_what_failed_is_no_start_for_others(flowers, tmp_path):
    plan = planned(flowers, HEAD | {"backbone": "no_such_network"}, ON)

    broken, on = PlanRunner(tmp_path / "out").run(plan).failures

    assert "no_such_network" in broken
    assert on == "simple_cnn + fine_tune (linear): the run to start from is not finished"


@pytest.mark.slow
def test_runs_in_processes_of_their_own_give_the_same_answers(flowers, tmp_path):
    plan = planned(flowers, {"classifier": ["knn", "logistic"]})

    alone = PlanRunner(tmp_path / "one").run(plan)
    together = PlanRunner(tmp_path / "two").run(plan, jobs=2)

    assert together.fitted == 2
    for one, two in zip(alone.rows, together.rows, strict=True):
        assert one.runs[0].predictions.predicted == two.runs[0].predictions.predicted


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_images_that_are_not_there_fail_their_own_row_alone(flowers, tmp_path, jobs):
    nowhere = {"classifier": "logistic", "data": {"source": str(tmp_path / "nowhere")}}
    plan = planned(flowers, {"classifier": "knn"}, nowhere)

    outcome = PlanRunner(tmp_path / "out").run(plan, jobs=jobs)

    assert [row.description for row in outcome.rows] == ["simple_cnn + knn"]
    assert "folder not found" in outcome.failures[0]


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(
    flowers, tmp_path, private_home, monkeypatch
):
    monkeypatch.setattr(batch, "_seconds", lambda _work: 4.0)  # a second for each image
    net = {"batch_size": 8, "epochs": 3, "augment": "flip=true"}
    plan = planned(
        flowers,
        {"classifier": ["knn", "logistic"], "per_class": 3, "seed": [0, 1], "weights": "default"},
        {"strategy": "frozen", **net, "seed": [0, 1]},
        {"strategy": "from_scratch", "weights": "default", **net, "output": "sigmoid"},
        {"strategy": "fine_tune", "weights": "default", "lr": 0.05},
        {"strategy": "two_stage", "phases": [{"unfreeze": 1.0, "epochs": 2, "steps": 1}]},
        test=4,
    )
    before = sorted(tmp_path.rglob("*"))

    table = dry_run(plan)

    assert [row[1:7] for row in table.rows] == [
        (2, 6, 231_168, 0, 231_168, 0),
        (2, 6, 231_168, 0, 231_168, 0),
        (2, 12, 231_426, 258, 231_168, 6),
        (1, 12, 231_297, 231_297, 0, 6),
        (1, 12, 231_426, 231_426, 0, 30),
        (1, 12, 231_426, 231_426, 0, 2),
    ]
    # Features pass once for all seeds and rows; each training looks at all images at its end.
    trainings = [2 * (24 + 36), 24 + 3 * 36, 24 + 3 * 360, 24 + 3 * 24]
    assert [row[-1].seconds for row in table.rows] == [24, 0, *trainings]
    estimate, head, rate = table.notes
    assert estimate.startswith(f"about {Duration(24 + sum(trainings))} in all")
    assert "random weights while" in head
    assert "rate of 0.05 is high" in rate
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(private_home.rglob("*"))


def test_images_that_came_in_parts_or_folds_are_counted_as_they_are(flowers):
    for number, path in enumerate(sorted(flowers.rglob("*.jpg"))):
        part = (
            flowers.with_name("cut") / ("test" if number % 4 == 0 else "train") / path.parent.name
        )
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part)

    cut = dry_run(planned(flowers.with_name("cut"), {"classifier": "knn"}))
    again = dry_run(planned(flowers.with_name("cut"), {"classifier": "knn"}, regroup=True, val=0))
    folds = dry_run(planned(flowers, {"fraction": 0.5}, folds=4, val=0))

    assert [table.rows[0][2] for table in (cut, again, folds)] == [18, 18, 9]
    assert folds.rows[0][1] == 4


def test_what_speaks_against_a_method_is_said_before_it_is_run(flowers, tmp_path):
    said = []

    PlanRunner(tmp_path / "out", say=said.append).run(planned(flowers, HEAD, ON | {"lr": 0.05}))

    assert said[0].startswith("warning: simple_cnn + fine_tune (linear): a learning rate of 0.05")


# ---- whether a finished run is still it


def images(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def dated(path, days):
    """Give a file a time of so many days from now."""
    then = time.time() + 86400 * days
    os.utime(path, (then, then))


@pytest.mark.parametrize("change", ["new", "gone", "changed", "changed by an older one"])
def test_runs_on_other_images_are_refused(flowers, tmp_path, change):
    plan = planned(flowers, {"classifier": "knn"})
    PlanRunner(tmp_path / "out").run(plan)
    image, *_, last = images(flowers)
    if change == "new":
        shutil.copy(image, image.with_stem("another"))
    elif change == "gone":
        image.unlink()
    else:
        image.write_bytes(last.read_bytes())
        dated(image, days=-9 if "older" in change else 9)

    with pytest.raises(RunError, match=f"1 {change.split()[0]}"):
        PlanRunner(tmp_path / "out").run(plan)


def test_images_that_were_only_copied_again_are_those_of_the_run(flowers, tmp_path):
    plan = planned(flowers, {"classifier": "knn"})
    PlanRunner(tmp_path / "out").run(plan)
    for image in images(flowers):
        dated(image, days=9)

    assert PlanRunner(tmp_path / "out").run(plan).fitted == 0


def test_a_run_whose_labels_were_corrected_in_the_table_is_refused(flowers, tmp_path):
    names = [path.relative_to(flowers).as_posix() for path in images(flowers)]
    lines = [f"{name},{name.partition('/')[0]}" for name in names]
    table = flowers / "labels.csv"
    table.write_text("\n".join(["path,label", *lines]))
    plan = planned(table, {"classifier": "knn"})
    PlanRunner(tmp_path / "out").run(plan)

    other = lines[-1].partition(",")[2]
    table.write_text("\n".join(["path,label", f"{names[0]},{other}", *lines[1:]]))

    with pytest.raises(RunError, match="1 of another class"):
        PlanRunner(tmp_path / "out").run(plan)


@pytest.mark.parametrize("column", ["part", "group"])
def test_a_run_whose_parts_or_groups_were_corrected_in_the_table_is_refused(
    flowers, tmp_path, column
):
    names = [path.relative_to(flowers).as_posix() for path in images(flowers)]
    table = flowers / "labels.csv"

    def write(values):
        rows = zip(names, values, strict=True)
        lines = [f"{name},{name.partition('/')[0]},{value}" for name, value in rows]
        table.write_text("\n".join([f"path,label,{column}", *lines]))

    values = [("train", "test")[i % 2] if column == "part" else f"p{i % 8}" for i in range(24)]
    write(values)
    plan = planned(table, {"classifier": "knn"})
    PlanRunner(tmp_path / "out").run(plan)

    write(values)
    assert PlanRunner(tmp_path / "out").run(plan).fitted == 0
    write([values[2], values[1], values[0], *values[3:-1], values[0]])
    with pytest.raises(RunError, match="their own parts or groups are others"):
        PlanRunner(tmp_path / "out").run(plan)


def test_a_run_that_left_an_image_out_is_refused_when_that_is_repaired(flowers, tmp_path):
    broken = images(flowers)[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    plan = planned(flowers, {"classifier": "knn"}, skip_bad=True, max_bad=0.1)
    PlanRunner(tmp_path / "out").run(plan)

    assert PlanRunner(tmp_path / "out").run(plan).fitted == 0
    broken.write_bytes(whole)
    with pytest.raises(RunError, match="1 perhaps repaired"):
        PlanRunner(tmp_path / "out").run(plan)


@pytest.mark.parametrize("method", [{"classifier": "knn"}, {"strategy": "fine_tune", "epochs": 1}])
def test_runs_with_other_weights_in_the_same_file_are_refused(flowers, tmp_path, method):
    def write(seed):
        arguments = (("size", 48),)
        spec = BackboneSpec("simple_cnn", weights=None, arguments=arguments, seed=seed)
        write_state(tmp_path / "net.safetensors", build(spec).module.state_dict())

    write(0)
    plan = planned(flowers, {**method, "weights": str(tmp_path / "net.safetensors")})
    PlanRunner(tmp_path / "out").run(plan)

    write(0)
    assert PlanRunner(tmp_path / "out").run(plan).fitted == 0
    write(1)
    with pytest.raises(RunError, match=r"the file of weights .* has other content now"):
        PlanRunner(tmp_path / "out").run(plan)


def test_runs_with_other_weights_stored_under_the_same_name_are_refused(
    flowers, tmp_path, store_mine
):
    store_mine(0)
    row = {"backbone": "mine", "weights": "default", "arguments": {}, "classifier": "knn"}
    plan = planned(flowers, row)
    PlanRunner(tmp_path / "out").run(plan)

    assert PlanRunner(tmp_path / "out").run(plan).fitted == 0
    store_mine(1)
    with pytest.raises(RunError, match=r"the stored weights .* has other content now"):
        PlanRunner(tmp_path / "out").run(plan)


def test_runs_that_went_on_from_a_run_that_was_made_anew_are_refused(flowers, tmp_path):
    def base(seed):
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        (row,) = PlanRunner(tmp_path / "base").run(planned(flowers, HEAD | {"seed": seed})).rows
        return row.runs[0].folder

    shutil.copytree(base(0), tmp_path / "start")
    plan = planned(flowers, ON | {"start": str(tmp_path / "start")})
    PlanRunner(tmp_path / "out").run(plan)

    assert PlanRunner(tmp_path / "out").run(plan).fitted == 0
    shutil.rmtree(tmp_path / "start")
    shutil.copytree(base(1), tmp_path / "start")
    with pytest.raises(RunError, match=r"the run to start from .* has other content now"):
        PlanRunner(tmp_path / "out").run(plan)
