"""The model of a run in every form, checked on its test part."""

import shutil

import pytest

from regraft.data.synthetic import make_flowers
from regraft.deploy.predictor import load
from regraft.errors import DataError, UsageError
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.export import export_run
from regraft.experiment.run import fit_run

METHOD = MethodConfig(
    backbone="simple_cnn", weights="random", arguments={"size": 48}, explain=False
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    return fit_run(RunConfig(DataConfig(folder / "flowers"), METHOD), out=folder / "run")


def test_a_run_is_exported_beside_its_model_and_checked_on_its_whole_test_part(run):
    found = export_run(run.folder)

    tested = sum(row.part == "test" for row in run.rows())
    assert found.written == run.folder / "model" / "deploy"
    assert (found.agreement.images, found.agreement.changed) == (tested, 0)
    assert load(run.folder).record.provenance["accuracy"].endswith(f"n = {tested} test images")


def test_8_bits_say_what_they_cost_on_the_test_part(run, tmp_path):
    export_run(run.folder)
    before = load(run.folder).record

    found = export_run(run.folder, to="onnx", out=tmp_path / "small.onnx", int8=True)

    tested = sum(row.part == "test" for row in run.rows())
    cost = found.to_json()["int8"]
    assert cost["before"]["n"] == cost["after"]["n"] == tested
    assert cost["interval"][0] <= cost["difference"] <= cost["interval"][1]
    assert cost["changed"] == found.agreement.changed
    assert 0 < cost["size"] < 1 < tested
    assert "int8: accuracy " in str(found)
    assert "without it" in str(found)
    assert "of the size" in str(found)
    assert load(run.folder).record == before  # what predicts here is as exact as it was


def test_a_folder_in_8_bits_predicts_and_says_what_it_is(run):
    found = export_run(run.folder, int8=True)

    record = load(run.folder).record
    assert record.agreement == found.agreement
    assert record.provenance["int8"]["text"] == str(found.cost)
    export_run(run.folder)
    assert "int8" not in load(run.folder).record.provenance


def test_without_a_test_part_the_cost_of_8_bits_is_unknown(run, tmp_path):
    data = DataConfig(run.record.config["data"]["source"], test=0)
    whole = fit_run(RunConfig(data, METHOD), out=tmp_path / "run")

    assert export_run(whole.folder).agreement.images == 24
    with pytest.raises(UsageError, match="there is none"):
        export_run(whole.folder, int8=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"to": "bundle"}, "a file needs a name"),
        ({"out": "model.onnx"}, "a file needs a name"),
        ({"to": "torch-export", "out": "model.pt2", "int8": True}, "not written in 8 bits"),
    ],
)
def test_arguments_that_contradict_each_other_are_wrong_usage(run, given, said):
    with pytest.raises(UsageError, match=said):
        export_run(run.folder, **given)


def test_images_that_were_moved_are_named_and_can_be_found_again(run, tmp_path):
    source = run.record.config["data"]["source"]
    moved = shutil.copytree(source, tmp_path / "moved")
    assert export_run(run.folder, data=moved).agreement.changed == 0
    tested = next(row.path for row in run.rows() if row.part == "test")
    (moved / tested).unlink()

    with pytest.raises(DataError, match="1 images of the test part are not there any more"):
        export_run(run.folder, data=moved)
