"""A run measured on other pictures: what it has learned counts as train wherever it lies."""

import shutil

import pytest
from regraft.experiment.evaluation import evaluate_on
from regraft.experiment.preparation import DataPlan
from regraft.experiment.runner import fit_run
from regraft.experiment.starting import refuse_learned_test_pictures

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.data.synthetic import make_flowers
from regraft.errors import RunError

SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=2, per_class=8, size=48).root


@pytest.fixture(scope="module")
def run(flowers, tmp_path_factory):
    learner = FeatureClassifier(SPEC, classifier="knn", compute=Compute(engine="torch", cache=None))
    return fit_run(DataPlan(flowers), learner, out=tmp_path_factory.mktemp("runs") / "run")


def test_a_run_with_a_foreign_manifest_is_not_evaluated(flowers, run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "run")
    plan = DataPlan(flowers)
    other = DataPlan(flowers, seed=1).prepare().split
    other.write(copy)

    for judge in (lambda: evaluate_on(copy, plan), lambda: start_from(copy, other)):
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
    plan = DataPlan(tmp_path / "table.csv", root=photos, keep_parts=True)
    learner = FeatureClassifier(SPEC, classifier="knn", compute=Compute(engine="torch", cache=None))
    leaky = fit_run(plan, learner, out=tmp_path / "run")

    found = evaluate_on(leaky.folder, plan).metrics

    assert found["test"]["n"] == 4
    assert found["train"]["n"] + found["validation"]["n"] == 16


def start_from(run, split):
    refuse_learned_test_pictures(run, split.test)
