"""The mistakes that this field makes without noticing, one test each."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from regraft import (
    BackboneSpec,
    Dataset,
    FeatureClassifier,
    FeatureExtractor,
    Preprocessing,
    check,
    evaluate,
    load_model,
)
from regraft.backbones.backbone import build
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import Compute
from regraft.data.manifest import read_manifest
from regraft.data.synthetic import make_flowers
from regraft.errors import BackboneError, BadImagesError, DataError, ImageError, ModelError
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.prepare import prepare
from regraft.experiment.run import fit_run

SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=3, per_class=12, size=48)


@pytest.fixture(scope="module")
def fitted(flowers):
    return FeatureClassifier(SPEC, compute=Compute(engine="torch", cache=None)).fit(
        flowers.paths, flowers.labels
    )


def test_the_wrong_preprocessing_is_refused_when_a_saved_model_is_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "model")

    with pytest.raises(ModelError) as refused:
        load_model(tmp_path / "model", preprocessing=Preprocessing.torch(96))

    assert refused.value.code == "MODEL-PREPROCESSING"


def test_a_preprocessing_edited_in_the_file_of_a_model_is_noticed(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    file.write_text(file.read_text().replace('"scale": 255.0', '"scale": 254.0'))

    with pytest.raises(ModelError) as refused:
        load_model(tmp_path / "model")

    assert refused.value.code == "MODEL-CHECKSUM"


def test_imported_weights_keep_their_preprocessing_against_all_comers(tmp_path):
    from regraft.backbones.checkpoint_files import write_state

    write_state(tmp_path / "net.safetensors", build(SPEC).module.state_dict())
    own = Preprocessing.tf(96)
    import_weights(
        tmp_path / "net.safetensors", name="mine", backbone="simple_cnn", preprocessing=own
    )

    assert build(BackboneSpec("mine")).preprocessing == own
    with pytest.raises(BackboneError):
        build(BackboneSpec("mine", preprocessing=Preprocessing.torch(96)))


def test_normalised_numbers_never_cross_a_public_boundary(fitted):
    normalised = np.random.default_rng(0).normal(size=(96, 96, 3)).astype(np.float32)

    for use in (
        fitted.predict,
        build(SPEC).embed,
        FeatureExtractor(SPEC, compute=Compute(cache=None)).transform,
    ):
        with pytest.raises(ImageError):
            use([normalised])


def test_features_are_computed_in_eval_mode_whatever_the_mode_of_the_network(flowers):
    backbone = build(SPEC)
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

    with pytest.raises(DataError) as refused:
        evaluate(fitted, strange)

    assert "rosemary" in str(refused.value)
    assert "daisy" in str(refused.value)


def test_predict_gives_names_and_never_numbers(fitted, flowers):
    assert set(fitted.predict(flowers.paths)) <= set(flowers.classes)


def test_labels_that_are_numbers_are_refused(flowers):
    with pytest.raises(Exception, match="name"):
        FeatureClassifier(SPEC, compute=Compute(cache=None)).fit(
            flowers.paths, list(range(len(flowers)))
        )


def test_a_changed_picture_is_computed_anew_and_never_served_from_the_cache(tmp_path):
    path = tmp_path / "a.png"
    extractor = FeatureExtractor(SPEC, compute=Compute(engine="torch", cache=tmp_path / "cache"))
    Image.new("RGB", (64, 64), "red").save(path)
    red = extractor.transform([path])
    Image.new("RGB", (64, 64), "blue").save(path)

    blue = extractor.transform([path])

    assert extractor.stats_.embedded == 1
    assert not np.array_equal(red, blue)


def test_the_same_weights_built_with_other_arguments_are_another_network(tmp_path):
    from regraft.backbones.checkpoint_files import write_state

    name = "mobilenetv3_small_050"
    module = build(BackboneSpec(name, weights=None)).module
    write_state(tmp_path / "net.safetensors", module.state_dict())
    spectra = {}
    for pad in ("", "same"):
        stored = import_weights(
            tmp_path / "net.safetensors",
            name=f"net_{pad or 'plain'}",
            backbone=name,
            arguments=(("pad_type", pad),),
        )
        spectra[pad] = build(BackboneSpec(stored.name)).fingerprint

    assert spectra[""] != spectra["same"]


def test_an_unreadable_picture_is_never_replaced_by_its_neighbour(flowers, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(flowers.paths[0].read_bytes()[:200])

    with pytest.raises(ImageError) as refused:
        FeatureExtractor(SPEC, compute=Compute(engine="torch", cache=None)).transform(
            [flowers.paths[0], broken]
        )

    assert str(broken) in str(refused.value)
    assert refused.value.code.startswith("IMG-")


def test_fit_never_opens_a_picture_of_the_test_part(flowers):
    split = flowers.split(seed=0)
    learner = FeatureClassifier(SPEC, compute=Compute(engine="torch", cache=None))
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


def test_a_hundred_per_class_is_a_hundred_of_each_class(flowers):
    assert set(flowers.subset(per_class=5).counts().values()) == {5}
    with pytest.raises(DataError):
        flowers.subset(per_class=13)


def test_smaller_training_sets_are_part_of_larger_ones(flowers):
    sizes = [set(flowers.subset(per_class=n, seed=3).paths) for n in (2, 5, 9)]

    assert sizes[0] < sizes[1] < sizes[2]


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
    with table.open(newline="") as stream:
        rows = list(csv.reader(stream))
    rows[1][rows[0].index("part")] = "test" if rows[1][-1] != "test" else "train"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)

    with pytest.raises(DataError) as refused:
        read_manifest(tmp_path)[0]

    assert refused.value.code == "SPLIT-HASH"


def test_every_bad_picture_is_listed_before_anything_is_learned(tmp_path):
    make_flowers(tmp_path, species=2, per_class=6, size=48)
    for name in ("one", "two", "three"):
        (tmp_path / "daisy" / f"{name}.jpg").write_bytes(b"")

    with pytest.raises(BadImagesError) as refused:
        prepare(DataConfig(tmp_path))

    assert len(refused.value.errors) == 3
    assert len(check(Dataset.from_folder(tmp_path)).bad) == 3


def test_a_picture_that_changes_while_a_run_is_at_work_ends_it(tmp_path):
    make_flowers(tmp_path, species=2, per_class=8, size=48)
    prepared = prepare(DataConfig(tmp_path))
    prepared.refuse_changed_files()
    Image.new("RGB", (48, 48)).save(prepared.split.train.paths[0])

    with pytest.raises(DataError) as refused:
        prepared.refuse_changed_files()

    assert refused.value.code == "DATA-CHANGED"


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


def test_rows_do_not_depend_on_the_company_they_are_embedded_in(flowers):
    backbone = build(SPEC)
    together = backbone.embed(flowers.paths[:7])
    alone = np.concatenate([backbone.embed([path]) for path in flowers.paths[:7]])

    np.testing.assert_allclose(alone, together, rtol=1e-6, atol=1e-6)


def test_every_look_at_the_test_part_is_counted(flowers, tmp_path):
    from regraft.data.dataset import Split

    flowers.split().write(tmp_path)

    assert [Split.count_test_look(tmp_path) for _ in range(3)] == [1, 2, 3]
    assert json.loads((tmp_path / "split.json").read_text())["test_looks"] == 3
