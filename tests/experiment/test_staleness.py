"""A finished run is still it only where its images and weights are those that it was fitted on."""

import os
import shutil
import time

import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers
from regraft.errors import RunError
from regraft.experiment.batch import PlanRunner
from regraft.experiment.plan import plan_from

TINY = {"backbone": "simple_cnn", "weights": "random", "arguments": {"size": 48}, "engine": "torch"}
HEAD = {"id": "head", "strategy": "frozen", "epochs": 1}
ON = {"id": "on", "strategy": "fine_tune", "epochs": 1, "start": "head"}


@pytest.fixture
def flowers(tmp_path):
    return make_flowers(tmp_path / "flowers", species=2, per_class=12, size=48).root


def planned(flowers, *rows, **data):
    return plan_from({"data": {"source": str(flowers), **data}, "defaults": TINY, "rows": [*rows]})


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
    with pytest.raises(RunError, match="the weights are not the ones of this run any more"):
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
