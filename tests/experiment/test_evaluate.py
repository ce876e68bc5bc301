"""A run measured on other images: what it has learned counts as train wherever it lies."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from regraft.data.synthetic import make_flowers
from regraft.errors import RunError
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.evaluate import evaluate_on
from regraft.experiment.prepare import prepare
from regraft.experiment.run import fit_run, refuse_learned_test_images

TINY = MethodConfig(
    backbone="simple_cnn",
    weights="random",
    arguments={"size": 48},
    classifier="knn",
    cache=False,
    explain=False,
)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=2, per_class=8, size=48).root


@pytest.fixture(scope="module")
def run(flowers, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return fit_run(RunConfig(DataConfig(flowers), TINY), out=out)


def test_images_are_recognised_wherever_they_lie_and_each_look_is_counted(run, flowers, tmp_path):
    shutil.copytree(flowers, tmp_path / "moved")
    before = run.test_looks  # other tests may have looked, too

    evaluation = evaluate_on(run.folder, DataConfig(tmp_path / "moved"))

    assert before >= 1
    assert (evaluation.new, evaluation.test_looks) == (0, before + 1)
    assert evaluation.metrics["test"]["accuracy"] == run.metrics["test"]["accuracy"]
    assert f"own split; its test part was looked at {before + 1} times" in evaluation.comment()
    assert evaluation.to_json()["test"]["n"] == 4


def test_images_that_a_run_never_saw_are_test_images(run, tmp_path):
    others = make_flowers(tmp_path, species=2, per_class=3, size=48, seed=9).root
    (tmp_path / "daisy" / "bad.jpg").write_bytes(b"")

    found = evaluate_on(run.folder, DataConfig(others, skip_bad=True, max_bad=0.5))

    assert (found.new, found.metrics["test"]["accuracy"].n, list(found.metrics)) == (6, 6, ["test"])
    assert "6 are new to the run" in found.comment()
    assert found.to_json()["refused"] == 1


def test_only_the_test_part_is_measured_by_several_views_and_that_is_said(flowers, run, tmp_path):
    logistic = replace(TINY, classifier="logistic", grid="none")
    plain = fit_run(RunConfig(DataConfig(flowers), logistic), out=tmp_path / "plain")
    method = replace(logistic, test_views=10)

    ten = fit_run(RunConfig(DataConfig(flowers), method), out=tmp_path / "ten")

    for part in ("train", "val", "test"):
        rows = [each.predictions.part(part).probabilities for each in (plain, ten)]
        assert np.array_equal(*rows) == (part != "test")
    assert ten.record.description == "simple_cnn + logistic, 10 test views"
    assert "10 test views" in (ten.folder / "report.html").read_text()
    again = [evaluate_on(ten.folder, DataConfig(flowers), test_views=views) for views in (None, 1)]
    assert [found.test_views for found in again] == [10, 1]
    assert again[0].metrics["test"]["accuracy"] == ten.metrics["test"]["accuracy"]
    assert "by the mean of 10 views" in again[0].comment()
    assert "views" not in again[1].comment()


def test_a_run_with_a_foreign_manifest_is_not_evaluated(flowers, run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "run")
    other = prepare(DataConfig(flowers, seed=1)).split
    other.write(copy)

    for judge in (
        lambda: evaluate_on(copy, DataConfig(flowers)),
        lambda: refuse_learned_test_images(copy, other.test),
    ):
        with pytest.raises(RunError, match="the manifest is not that of this run") as refused:
            judge()

        assert refused.value.code == "SPLIT-HASH"


def test_what_was_learned_counts_as_train_though_a_copy_stands_in_the_test_part(flowers, tmp_path):
    photos = shutil.copytree(flowers, tmp_path / "photos")
    files = sorted(photos.rglob("*.jpg"))
    parts = {file: "train" if number % 4 else "test" for number, file in enumerate(files)}
    for file in files[1::4]:
        parts[file.with_name(f"zz_{file.name}")] = "test"  # stands behind the original
        shutil.copy(file, file.with_name(f"zz_{file.name}"))
    rows = [f"{file},{file.parent.name},{part}" for file, part in parts.items()]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,part", *rows]) + "\n")
    data = DataConfig(tmp_path / "table.csv", root=photos, keep_parts=True)
    leaky = fit_run(RunConfig(data, TINY), out=tmp_path / "run")

    found = evaluate_on(leaky.folder, data).metrics

    assert found["test"]["accuracy"].n == 4
    assert found["train"]["accuracy"].n + found["validation"]["accuracy"].n == 16
