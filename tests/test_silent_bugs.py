"""The mistakes that this field makes without noticing, one test each."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from regraft import (
    Dataset,
    FeatureClassifier,
    FeatureExtractor,
    Preprocessing,
    check,
    evaluate,
    load_model,
)
from regraft.backbones.backbone import build
from regraft.backbones.spec import Compute
from regraft.data.manifest import read_manifest
from regraft.data.synthetic import make_flowers
from regraft.errors import ImageError
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.prepare import prepare
from regraft.experiment.run import fit_run
from samples import SMALL, refused


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=3, per_class=12, size=48)


@pytest.fixture(scope="module")
def fitted(flowers):
    return FeatureClassifier(SMALL, compute=Compute(engine="torch", cache=None)).fit(
        flowers.paths, flowers.labels
    )


def test_the_wrong_preprocessing_is_refused_when_a_saved_model_is_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "model")

    error = refused(load_model, tmp_path / "model", preprocessing=Preprocessing.torch(96))

    assert error.code == "MODEL-PREPROCESSING"


def test_a_preprocessing_edited_in_the_file_of_a_model_is_noticed(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    file.write_text(file.read_text().replace('"scale": 255.0', '"scale": 254.0'))

    assert refused(load_model, tmp_path / "model").code == "MODEL-CHECKSUM"


def test_normalised_numbers_never_cross_a_public_boundary(fitted):
    normalised = np.random.default_rng(0).normal(size=(96, 96, 3)).astype(np.float32)

    for use in (
        fitted.predict,
        build(SMALL).embed,
        FeatureExtractor(SMALL, compute=Compute(cache=None)).transform,
    ):
        assert isinstance(refused(use, [normalised]), ImageError)


def test_features_are_computed_in_eval_mode_whatever_the_mode_of_the_network(flowers):
    backbone = build(SMALL)
    expected = backbone.embed(flowers.paths[:4])
    before = {name: value.clone() for name, value in backbone.module.state_dict().items()}

    again = backbone.embed(flowers.paths[:4])

    assert not backbone.module.training
    np.testing.assert_array_equal(again, expected)
    for name, value in backbone.module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_classes_are_matched_by_name_whatever_the_order_of_folders(fitted, flowers):
    order = np.random.default_rng(0).permutation(len(flowers))
    shuffled = Dataset(
        tuple(flowers.paths[i] for i in order),
        tuple(flowers.labels[i] for i in order),
        tuple(reversed(flowers.classes)),
        root=flowers.root,
    )

    assert evaluate(fitted, shuffled).correct.mean() == evaluate(fitted, flowers).correct.mean()


def test_a_class_that_the_model_does_not_know_is_an_error_with_both_lists(fitted, flowers):
    strange = Dataset(flowers.paths[:1], ("rosemary",), ("rosemary",), root=flowers.root)

    error = refused(evaluate, fitted, strange)

    assert "rosemary" in str(error)
    assert "daisy" in str(error)


def test_predict_gives_names_and_never_numbers(fitted, flowers):
    assert set(fitted.predict(flowers.paths)) <= set(flowers.classes)


def test_labels_that_are_numbers_are_refused(flowers):
    learner = FeatureClassifier(SMALL, compute=Compute(cache=None))

    assert "name" in str(refused(learner.fit, flowers.paths, list(range(len(flowers)))))


def test_a_changed_picture_is_computed_anew_and_never_served_from_the_cache(tmp_path):
    path = tmp_path / "a.png"
    extractor = FeatureExtractor(SMALL, compute=Compute(engine="torch", cache=tmp_path / "cache"))
    Image.new("RGB", (64, 64), "red").save(path)
    red = extractor.transform([path])
    Image.new("RGB", (64, 64), "blue").save(path)

    blue = extractor.transform([path])

    assert extractor.stats_.embedded == 1
    assert not np.array_equal(red, blue)


def test_an_unreadable_picture_is_never_replaced_by_its_neighbour(flowers, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(flowers.paths[0].read_bytes()[:200])

    extractor = FeatureExtractor(SMALL, compute=Compute(engine="torch", cache=None))
    error = refused(extractor.transform, [flowers.paths[0], broken])

    assert str(broken) in str(error)
    assert error.code.startswith("IMG-")


def test_fit_never_opens_a_picture_of_the_test_part(flowers):
    split = flowers.split(seed=0)
    learner = FeatureClassifier(SMALL, compute=Compute(engine="torch", cache=None))
    opened = []
    for path in split.test.paths:
        opened.append(path.read_bytes())
        path.write_bytes(b"")  # opening it would be an error now
    try:
        learner.fit(split.train.paths, split.train.labels)
    finally:
        for path, data in zip(split.test.paths, opened, strict=True):
            path.write_bytes(data)

    assert learner.embedding_stats_.images > 0


def test_copies_of_a_picture_never_stand_on_both_sides_of_a_split(tmp_path):
    data = make_flowers(tmp_path, species=2, per_class=10, size=48)
    for index in range(10):
        copy = tmp_path / "daisy" / f"copy{index}.jpg"
        copy.write_bytes(data.paths[index].read_bytes())

    split = Dataset.from_folder(tmp_path).split(seed=1)

    parts = [set(part.hashes()) for part in split.parts().values()]
    assert [a & b for a in parts for b in parts if a is not b] == [set()] * 6


def test_a_manifest_that_was_edited_is_refused(flowers, tmp_path):
    flowers.split().write(tmp_path)
    table = tmp_path / "split.csv"
    table.write_text(table.read_text().replace(",train", ",test", 1))

    assert refused(read_manifest, tmp_path).code == "SPLIT-HASH"


def test_every_bad_picture_is_listed_before_anything_is_learned(tmp_path):
    make_flowers(tmp_path, species=2, per_class=6, size=48)
    for name in ("one", "two", "three"):
        (tmp_path / "daisy" / f"{name}.jpg").write_bytes(b"")

    assert len(refused(prepare, DataConfig(tmp_path)).errors) == 3
    assert len(check(Dataset.from_folder(tmp_path)).bad) == 3


def test_a_picture_that_changes_while_a_run_is_at_work_ends_it(tmp_path):
    make_flowers(tmp_path, species=2, per_class=8, size=48)
    prepared = prepare(DataConfig(tmp_path))
    prepared.refuse_changed_files()
    Image.new("RGB", (48, 48)).save(prepared.split.train.paths[0])

    assert refused(prepared.refuse_changed_files).code == "DATA-CHANGED"


def test_fewer_training_images_leave_the_test_part_as_it_is(tmp_path):
    make_flowers(tmp_path, species=2, per_class=20, size=48)
    small = {"backbone": "simple_cnn", "weights": "random", "classifier": "knn", "cache": False}

    whole, few = (
        fit_run(
            RunConfig(DataConfig(tmp_path), MethodConfig(**small, per_class=n)),
            out=tmp_path.with_name(f"{tmp_path.name}-{n}"),
        )
        for n in (None, 3)
    )

    assert whole.split_hash == few.split_hash
    assert few.metrics["train"]["accuracy"].n == 6
    assert few.metrics["test"]["accuracy"].n == whole.metrics["test"]["accuracy"].n


def test_a_clone_of_a_fitted_learner_knows_nothing(fitted, flowers):
    with pytest.raises(Exception, match="not fitted"):
        clone(fitted).predict(flowers.paths[:1])


def test_every_look_at_the_test_part_is_counted(flowers, tmp_path):
    from regraft.data.dataset import Split

    flowers.split().write(tmp_path)

    assert [Split.count_test_look(tmp_path) for _ in range(3)] == [1, 2, 3]
    assert json.loads((tmp_path / "split.json").read_text())["test_looks"] == 3
