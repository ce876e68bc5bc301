"""One experiment, whole: what a run records is what happened."""

import json

import pytest
from regraft.experiment.evaluation import evaluate_on
from regraft.experiment.extraction import extract_to_file
from regraft.experiment.preparation import DataPlan
from regraft.experiment.runner import fit_run, learner_name

from regraft import BackboneSpec, FeatureClassifier, load_model
from regraft.backbones.spec import Compute
from regraft.data.synthetic import make_flowers
from regraft.errors import DataError, RunError
from regraft.features.extractor import FeatureExtractor
from regraft.results.run import Run

SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=3, per_class=12, size=48)


@pytest.fixture(scope="module")
def run(flowers, tmp_path_factory):
    home = tmp_path_factory.mktemp("run")
    learner = FeatureClassifier(
        SPEC, classifier="knn", compute=Compute(engine="torch", cache=home / "cache")
    )
    return fit_run(DataPlan(flowers.root), learner, out=home / "run", command="regraft fit flowers")


def test_a_run_tells_what_was_done_with_which_weights_on_which_split(run):
    record = json.loads((run.folder / "run.json").read_text())

    assert record["description"] == "simple_cnn + knn"
    assert record["parameters"]["backbone"]["name"] == "simple_cnn"
    assert record["backbone"]["weights"] == "random, seed 0"
    assert len(record["backbone"]["weights_sha256"]) == len(record["split"]["hash"]) == 64
    assert set(record["seconds"]) == {"check and split", "fit", "predict"}
    assert record["environment"]["packages"]["scikit-learn"]


def test_a_run_counts_each_picture_once(run):
    assert run.images == run.images_embedded == 36
    assert run.test_looks == 1


def test_the_model_of_a_run_predicts_what_the_run_recorded(run, flowers):
    model = load_model(run.folder / "model")
    root = flowers.root
    paths = [root / path for path in run.predictions.paths]

    assert model.predict(paths).tolist() == list(run.predictions.predicted)


def test_a_folder_that_is_taken_is_refused_before_any_work(run, flowers):
    learner = FeatureClassifier(SPEC, compute=Compute(engine="torch", cache=None))

    with pytest.raises(RunError):
        fit_run(DataPlan(flowers.root), learner, out=run.folder)

    assert not hasattr(learner, "classes_")


def test_a_finished_run_opens_from_its_folder_alone(run):
    assert Run.open(run.folder).result()["test"]["n"] == 9


def test_pictures_are_recognised_wherever_they_lie(run, flowers, tmp_path):
    import shutil

    shutil.copytree(flowers.root, tmp_path / "moved")

    evaluation = evaluate_on(run.folder, DataPlan(tmp_path / "moved"))

    assert evaluation.new == 0
    assert evaluation.metrics["test"]["accuracy"] == run.metrics["test"]["accuracy"]
    assert "own split" in evaluation.comment()


def test_features_go_to_a_file_that_is_never_overwritten(flowers, tmp_path):
    extractor = FeatureExtractor(SPEC, compute=Compute(engine="torch", cache=None))
    file = tmp_path / "features.h5"

    written = extract_to_file(DataPlan(flowers.root), extractor, file)

    assert (written.images, written.columns) == (36, 128)
    with pytest.raises(Exception, match="features"):
        extract_to_file(DataPlan(flowers.root), extractor, file)


def test_a_learner_is_named_after_its_backbone_and_classifier():
    assert learner_name(FeatureClassifier("vgg16", classifier="linear_svm")) == "vgg16 + linear_svm"


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """Return a run on given parts in which plant 0 of each species stands in train and test."""
    root = tmp_path_factory.mktemp("plants")
    flowers = make_flowers(root / "drawn", species=2, per_class=18, size=48)
    for number, (path, label) in enumerate(zip(flowers.paths, flowers.labels, strict=True)):
        place = number % 18
        part = "test" if place in {0, 3, 4, 5, 15, 16, 17} else "train"
        folder = root / "cut" / part / label
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / f"{label}plant{place // 3}_{place}.png")
    learner = FeatureClassifier(SPEC, classifier="knn", compute=Compute(engine="torch", cache=None))
    plan = DataPlan(root / "cut", group_by="[a-z]+plant[0-9]+", keep_parts=True, val=0)
    return fit_run(plan, learner, out=root / "run")


def test_kept_parts_that_share_groups_are_measured_with_and_without_them(leaking):
    test = leaking.metrics["test"]
    (finding,) = [f for f in leaking.check["findings"] if f["code"] == "DATA-GROUP-LEAK"]

    assert test["n"] == 14
    assert (test["without_leaks"]["n"], test["without_leaks"]["left_out"]) == (12, 2)
    assert len(finding["names"]) == 2
    assert all(name.endswith("plant0") for name in finding["names"])


def test_the_warnings_of_a_run_say_what_leaks_and_what_that_costs(leaking):
    told = "\n".join(leaking.warnings)

    assert "2 groups stand in both train and test" in told
    assert "2 of 14 test pictures have a copy" in told
    assert len(leaking.warnings) == len(set(leaking.warnings))


def test_given_parts_that_share_groups_are_refused_unless_one_says_what_to_do(leaking):
    plan = DataPlan(leaking.folder.parent / "cut", group_by="[a-z]+plant[0-9]+", val=0)

    with pytest.raises(DataError) as caught:
        plan.prepare()

    assert caught.value.code == "SPLIT-GROUPS"
    assert "--keep-parts" in caught.value.hint


def test_the_folds_of_a_plan_test_every_picture_once(flowers):
    tested = [
        path
        for fold in range(3)
        for path in DataPlan(flowers.root, folds=3, fold=fold).prepare().split.test.paths
    ]

    assert sorted(tested) == sorted(flowers.paths)
