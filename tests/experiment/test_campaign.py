"""Many runs into one folder: nothing twice, nothing lost, nothing measured on other pictures."""

import importlib
import os
import shutil
import time

import pytest
from regraft.experiment.campaign import Campaign

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers
from regraft.errors import RunError
from regraft.experiment import campaign, runner
from regraft.experiment.plan import plan_from, read_plan

TINY = {"backbone": "simple_cnn", "weights": "random", "arguments": {"size": 48}, "engine": "torch"}


@pytest.fixture
def flowers(tmp_path):
    return make_flowers(tmp_path / "flowers", species=2, per_class=12, size=48).root


def planned(flowers, *rows, **data):
    return plan_from({"data": {"source": str(flowers), **data}, "defaults": TINY, "rows": rows})


def test_each_run_is_fitted_once_and_repeats_stand_in_one_row(flowers, tmp_path):
    plan = planned(flowers, {"classifier": "knn", "seed": [0, 1]}, {"classifier": "logistic"})

    first = Campaign(tmp_path / "out").run(plan)
    again = Campaign(tmp_path / "out").run(plan)

    assert (first.fitted, again.fitted) == (3, 0)
    assert [row.seeds for row in first.rows] == [row.seeds for row in again.rows] == [2, 1]
    assert {run.split_hash for row in first.rows for run in row.runs} == {
        first.rows[0].runs[0].split_hash
    }


def test_pictures_are_checked_once_for_all_runs_of_a_split(flowers, tmp_path, monkeypatch):
    from regraft.experiment import preparation

    calls = []
    check = preparation.check
    monkeypatch.setattr(preparation, "check", lambda *a, **k: calls.append(1) or check(*a, **k))

    outcome = Campaign(tmp_path / "out").run(
        planned(flowers, {"classifier": "knn", "per_class": [2, 3]}, {"classifier": "logistic"})
    )

    assert (outcome.fitted, len(calls)) == (3, 1)
    assert [row.runs[0].metrics["train"]["n"] for row in outcome.rows] == [4, 6, 14]
    assert {row.runs[0].metrics["test"]["n"] for row in outcome.rows} == {6}


def test_another_seed_learns_from_other_pictures_of_the_same_training_part(flowers, tmp_path):
    plan = planned(flowers, {"classifier": "knn", "per_class": 3, "seed": [0, 1]})

    one, two = Campaign(tmp_path / "out").run(plan).rows[0].runs

    assert one.split_hash == two.split_hash
    assert set(one.predictions.part("train").paths) != set(two.predictions.part("train").paths)


def test_folds_are_cut_from_pictures_that_were_checked_once(flowers, tmp_path, monkeypatch):
    from regraft.experiment import preparation

    calls = []
    check = preparation.check
    monkeypatch.setattr(preparation, "check", lambda *a, **k: calls.append(1) or check(*a, **k))

    (row,) = Campaign(tmp_path / "out").run(planned(flowers, {"classifier": "knn"}, folds=3)).rows

    assert (row.seeds, len(calls)) == (3, 1)
    tested = [path for run in row.runs for path in run.predictions.part("test").paths]
    assert len(tested) == len(set(tested)) == 24


def test_a_plan_that_was_stopped_goes_on_with_the_run_that_was_missing(
    flowers, tmp_path, monkeypatch
):
    plan = planned(flowers, {"classifier": "knn"}, {"classifier": "logistic"})
    fit_run, calls = runner.fit_run, []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit_run(*arguments, **options)

    monkeypatch.setattr(runner, "fit_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        Campaign(tmp_path / "out").run(plan)

    assert Campaign(tmp_path / "out").run(plan).fitted == 1


def test_a_run_that_cannot_be_made_does_not_stop_the_others(flowers, tmp_path):
    said = []
    plan = planned(flowers, {"backbone": "no_such_network"}, {"classifier": "knn"})

    outcome = Campaign(tmp_path / "out", say=said.append).run(plan)

    assert len(outcome.rows) == outcome.fitted == 1
    assert "no_such_network" in outcome.failures[0]
    assert any("failed" in line for line in said)


def test_an_error_that_nobody_foresaw_fails_its_own_row(flowers, tmp_path, monkeypatch):
    fit_run = runner.fit_run

    def broken(plan, learner, **options):
        if options["description"] == "broken":
            raise MemoryError("no room")
        return fit_run(plan, learner, **options)

    monkeypatch.setattr(runner, "fit_run", broken)
    rows = [{"classifier": "knn", "description": "broken"}, {"classifier": "logistic"}]

    outcome = Campaign(tmp_path / "out").run(planned(flowers, *rows))

    assert outcome.failures == ("broken: unexpected error: MemoryError - no room",)
    assert len(outcome.rows) == 1


def test_a_run_with_another_description_is_not_run_again(flowers, tmp_path):
    Campaign(tmp_path / "out").run(planned(flowers, {"classifier": "knn"}))

    renamed = {"classifier": "knn", "description": "nearest neighbours"}

    assert Campaign(tmp_path / "out").run(planned(flowers, renamed)).fitted == 0


def test_a_run_goes_on_from_the_row_that_it_names(flowers, tmp_path):
    plan = planned(
        flowers,
        {"id": "head", "strategy": "frozen", "epochs": 1},
        {"id": "on", "strategy": "fine_tune", "epochs": 1, "start": "head"},
    )

    outcome = Campaign(tmp_path / "out").run(plan)

    head, on = (row.runs[0] for row in outcome.rows)
    assert on.data["parameters"]["start"] == str(head.folder.absolute())


HEAD = {"id": "head", "strategy": "frozen", "epochs": 1}
ON = {"id": "on", "strategy": "fine_tune", "epochs": 1, "start": "head"}


def test_a_row_with_another_description_is_still_what_others_started_from(flowers, tmp_path):
    Campaign(tmp_path / "out").run(planned(flowers, HEAD, ON))
    renamed = planned(flowers, HEAD | {"description": "a new head"}, ON)

    again = Campaign(tmp_path / "out").run(renamed)
    head, on = (row.runs[0] for row in again.rows)
    shutil.rmtree(on.folder)
    anew = Campaign(tmp_path / "out").run(renamed)

    assert (again.fitted, anew.fitted, anew.failures) == (0, 1, ())
    assert anew.rows[1].runs[0].data["parameters"]["start"] == str(head.folder.absolute())


def test_the_plan_of_a_run_that_started_from_another_can_be_run_anywhere(flowers, tmp_path):
    first = Campaign(tmp_path / "out").run(planned(flowers, HEAD, ON)).rows[1].runs[0]

    (again,) = Campaign(tmp_path / "again").run(read_plan(first.folder / "run.json")).rows

    assert again.runs[0].predictions.predicted == first.predictions.predicted


def test_what_failed_is_no_start_for_others(flowers, tmp_path):
    plan = planned(flowers, HEAD | {"backbone": "no_such_network"}, ON)

    broken, on = Campaign(tmp_path / "out").run(plan).failures

    assert "no_such_network" in broken
    assert on == "simple_cnn + fine_tune (linear): the run to start from is not finished"


@pytest.mark.slow
def test_runs_in_processes_of_their_own_give_the_same_answers(flowers, tmp_path):
    plan = planned(flowers, {"classifier": ["knn", "logistic"]})

    alone = Campaign(tmp_path / "one").run(plan)
    together = Campaign(tmp_path / "two").run(plan, jobs=2)

    assert together.fitted == 2
    for one, two in zip(alone.rows, together.rows, strict=True):
        assert one.runs[0].predictions.predicted == two.runs[0].predictions.predicted


DYING = """
import os

def fit_or_die(campaign, recipe):
    if recipe.row.get("id") == "dies":
        os._exit(9)  # as the system does where memory is short
    return campaign.fit(recipe).folder
"""


@pytest.mark.slow
def test_a_process_that_the_system_ends_fails_its_own_row_alone(flowers, tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(campaign, "_fit_quietly", importlib.import_module("dying").fit_or_die)
    dies = {"id": "dies", "classifier": "linear_svm"}
    rows = [dies, {"classifier": ["knn", "logistic"]}, HEAD, ON]

    outcome = Campaign(tmp_path / "out").run(planned(flowers, *rows), jobs=2)

    assert (outcome.fitted, len(outcome.rows)) == (4, 4)
    (failure,) = outcome.failures
    assert failure.startswith("simple_cnn + linear_svm: its process was ended by the system - perh")


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_pictures_that_are_not_there_fail_their_own_row_alone(flowers, tmp_path, jobs):
    nowhere = {"classifier": "logistic", "data": {"source": str(tmp_path / "nowhere")}}
    plan = planned(flowers, {"classifier": "knn"}, nowhere)

    outcome = Campaign(tmp_path / "out").run(plan, jobs=jobs)

    assert [row.description for row in outcome.rows] == ["simple_cnn + knn"]
    assert "folder not found" in outcome.failures[0]


def pictures(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def dated(path, days):
    """Give a file a time of so many days from now."""
    then = time.time() + 86400 * days
    os.utime(path, (then, then))


@pytest.mark.parametrize("change", ["new", "gone", "changed", "changed by an older one"])
def test_runs_on_other_pictures_are_refused(flowers, tmp_path, change):
    plan = planned(flowers, {"classifier": "knn"})
    Campaign(tmp_path / "out").run(plan)
    picture, *_, last = pictures(flowers)
    if change == "new":
        shutil.copy(picture, picture.with_stem("another"))
    elif change == "gone":
        picture.unlink()
    else:
        picture.write_bytes(last.read_bytes())
        dated(picture, days=-9 if "older" in change else 9)

    with pytest.raises(RunError, match=f"1 {change.split()[0]}"):
        Campaign(tmp_path / "out").run(plan)


def test_pictures_that_were_only_copied_again_are_those_of_the_run(flowers, tmp_path):
    plan = planned(flowers, {"classifier": "knn"})
    Campaign(tmp_path / "out").run(plan)
    for picture in pictures(flowers):
        dated(picture, days=9)

    assert Campaign(tmp_path / "out").run(plan).fitted == 0


def test_a_run_whose_labels_were_corrected_in_the_table_is_refused(flowers, tmp_path):
    names = [path.relative_to(flowers).as_posix() for path in pictures(flowers)]
    lines = [f"{name},{name.partition('/')[0]}" for name in names]
    table = flowers / "labels.csv"
    table.write_text("\n".join(["path,label", *lines]))
    plan = planned(table, {"classifier": "knn"})
    Campaign(tmp_path / "out").run(plan)

    other = lines[-1].partition(",")[2]
    table.write_text("\n".join(["path,label", f"{names[0]},{other}", *lines[1:]]))

    with pytest.raises(RunError, match="1 of another class"):
        Campaign(tmp_path / "out").run(plan)


@pytest.mark.parametrize("column", ["part", "group"])
def test_a_run_whose_parts_or_groups_were_corrected_in_the_table_is_refused(
    flowers, tmp_path, column
):
    names = [path.relative_to(flowers).as_posix() for path in pictures(flowers)]
    table = flowers / "labels.csv"

    def write(values):
        rows = zip(names, values, strict=True)
        lines = [f"{name},{name.partition('/')[0]},{value}" for name, value in rows]
        table.write_text("\n".join([f"path,label,{column}", *lines]))

    values = [("train", "test")[i % 2] if column == "part" else f"p{i % 8}" for i in range(24)]
    write(values)
    plan = planned(table, {"classifier": "knn"})
    Campaign(tmp_path / "out").run(plan)

    write(values)
    assert Campaign(tmp_path / "out").run(plan).fitted == 0
    write([values[2], values[1], values[0], *values[3:-1], values[0]])
    with pytest.raises(RunError, match="their own parts or groups are others"):
        Campaign(tmp_path / "out").run(plan)


def test_a_run_that_left_a_picture_out_is_refused_when_that_is_repaired(flowers, tmp_path):
    broken = pictures(flowers)[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    plan = planned(flowers, {"classifier": "knn"}, skip_bad=True, max_bad=0.1)
    Campaign(tmp_path / "out").run(plan)
    dated(broken, days=9)

    assert Campaign(tmp_path / "out").run(plan).fitted == 0
    broken.write_bytes(whole)
    with pytest.raises(RunError, match="1 repaired"):
        Campaign(tmp_path / "out").run(plan)


@pytest.mark.parametrize("way", [{"classifier": "knn"}, {"strategy": "fine_tune", "epochs": 1}])
def test_runs_with_other_weights_in_the_same_file_are_refused(flowers, tmp_path, way):
    def write(seed):
        arguments = (("size", 48),)
        spec = BackboneSpec("simple_cnn", weights=None, arguments=arguments, seed=seed)
        write_state(tmp_path / "net.safetensors", build(spec).module.state_dict())

    write(0)
    plan = planned(flowers, {**way, "weights": str(tmp_path / "net.safetensors")})
    Campaign(tmp_path / "out").run(plan)

    write(0)
    assert Campaign(tmp_path / "out").run(plan).fitted == 0
    write(1)
    with pytest.raises(RunError, match="the weights are not the ones of this run any more"):
        Campaign(tmp_path / "out").run(plan)


def test_runs_with_other_weights_stored_under_the_same_name_are_refused(
    flowers, tmp_path, store_mine
):
    store_mine(0)
    row = {"backbone": "mine", "weights": "default", "arguments": {}, "classifier": "knn"}
    plan = planned(flowers, row)
    Campaign(tmp_path / "out").run(plan)

    assert Campaign(tmp_path / "out").run(plan).fitted == 0
    store_mine(1)
    with pytest.raises(RunError, match="the store under the name mine has other content now"):
        Campaign(tmp_path / "out").run(plan)


def test_runs_that_went_on_from_a_run_that_was_made_anew_are_refused(flowers, tmp_path):
    def base(seed):
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        (row,) = Campaign(tmp_path / "base").run(planned(flowers, HEAD | {"seed": seed})).rows
        return row.runs[0].folder

    shutil.copytree(base(0), tmp_path / "start")
    plan = planned(flowers, ON | {"start": str(tmp_path / "start")})
    Campaign(tmp_path / "out").run(plan)

    assert Campaign(tmp_path / "out").run(plan).fitted == 0
    shutil.rmtree(tmp_path / "start")
    shutil.copytree(base(1), tmp_path / "start")
    with pytest.raises(RunError, match="start has other content now"):
        Campaign(tmp_path / "out").run(plan)


def test_a_finished_run_is_a_plan(flowers, tmp_path):
    outcome = Campaign(tmp_path / "out").run(planned(flowers, {"classifier": "knn", "seed": 4}))
    run = outcome.rows[0].runs[0]

    again = Campaign(tmp_path / "again").run(read_plan(run.folder / "run.json"))

    assert again.rows[0].runs[0].predictions.predicted == run.predictions.predicted
    assert again.rows[0].runs[0].split_hash == run.split_hash
