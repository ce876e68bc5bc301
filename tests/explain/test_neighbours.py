"""The nearest training images: by cosine, kept as data, and the same for an image seen again."""

import shutil

import numpy as np
import pytest

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import RunError
from regraft.experiment.evaluate import nearest_images
from regraft.explain.neighbours import TrainingFeatures, tell_strangers, unit_rows
from regraft.results.inspection import FOLDER, Inspection
from regraft.results.run import Run
from regraft.training.phases import fine_tune, frozen

FILE = f"{FOLDER}/train_features.npy"


def test_neighbours_are_the_nearest_by_cosine_and_no_image_is_its_own():
    rows = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float16)
    kept = TrainingFeatures(rows, ("a", "b", "c"), ("x", "x", "y"))

    (near,) = kept.nearest(np.array([[5.0, 0.0]], np.float32), most=2)
    (others,) = kept.nearest(np.array([[5.0, 0.0]], np.float32), most=3, names=["a"])

    assert [(one.path, one.label, one.distance) for one in near] == [
        ("a", "x", 0.0),
        ("b", "x", pytest.approx(0.2, abs=1e-3)),
    ]
    assert [one.path for one in others] == ["b", "c"]


def test_a_wrong_image_shown_again_has_the_neighbours_that_the_page_shows(explained, flowers):
    for path, image in Inspection.read(explained.folder).images.items():
        (row,) = nearest_images(explained.folder / "model", [str(flowers / path)])

        near = [(one["path"], one["label"]) for one in row["top"]]
        assert near == [(one.path, one.label) for one in image.nearest]
        distances = [one["distance"] for one in row["top"]]
        assert distances == pytest.approx([one.distance for one in image.nearest], abs=1e-3)


def test_a_training_image_is_nearest_to_itself(explained, flowers):
    path = explained.predictions.part("train").paths[0]

    (row,) = nearest_images(explained.folder, [str(flowers / path)], top=1)

    assert row["top"][0]["path"] == path
    assert row["top"][0]["distance"] < 1e-3


@pytest.mark.parametrize("head", ["linear", "mlp_256"])
@pytest.mark.parametrize("phases", [frozen(1), fine_tune(1)], ids=["cached", "live"])
def test_the_features_of_a_trained_network_are_its_last_map_pooled(head, phases):
    spec = BackboneSpec("simple_cnn", weights=None, arguments={"size": 48})
    images = list(np.random.default_rng(0).integers(0, 256, (8, 48, 48, 3), dtype=np.uint8))
    learner = NetworkClassifier(spec, head=head, phases=phases, compute=Compute(cache=None))
    learner.fit(images, ["night", "day"] * 4)

    with learner.recording() as features:
        learner.predict(images)

    expected = learner.backbone_.embed(images)
    np.testing.assert_allclose(np.concatenate(features), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "RUN-FEATURES"),
        (b"no numbers", "RUN-INVALID"),
        (np.ones((2, 3), np.float16), "RUN-INVALID"),
    ],
)
def test_lost_or_foreign_features_are_an_error(explained, tmp_path, content, code):
    run = tmp_path / "run"
    shutil.copytree(explained.folder, run)
    (run / FILE).unlink()
    if isinstance(content, bytes):
        (run / FILE).write_bytes(content)
    elif content is not None:
        np.save(run / FILE, content)

    with pytest.raises(RunError) as raised:
        TrainingFeatures.read(Run.open(run))

    assert raised.value.code == code


def test_a_class_that_was_left_out_is_told_by_its_distance():
    draw = np.random.default_rng(0)
    centres = 3 * draw.normal(size=(4, 16))
    labels = tuple("abcd"[k] for k in range(4) for _ in range(25))
    rows = (np.repeat(centres, 25, axis=0) + draw.normal(size=(100, 16))).astype(np.float32)
    kept = TrainingFeatures(unit_rows(rows).astype(np.float16), tuple(map(str, range(100))), labels)
    others = (np.repeat(centres, 10, axis=0) + draw.normal(size=(40, 16))).astype(np.float32)
    names = [label for label in "abcd" for _ in range(10)]

    told = tell_strangers(kept, others, names)
    nothing = tell_strangers(kept, draw.normal(size=(40, 16)).astype(np.float32), names)

    assert told.low > 0.9
    assert nothing.low < 0.5 < nothing.high
    assert not tell_strangers(kept, others[:10], names[:10]).known


def test_the_area_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(1)
    rows = draw.normal(size=(60, 5)).astype(np.float32)
    labels = tuple("ab"[k % 2] for k in range(60))
    kept = TrainingFeatures(unit_rows(rows).astype(np.float16), labels, labels)
    others, names = draw.normal(size=(30, 5)).astype(np.float32), ["a", "b", "b"] * 10

    areas = []
    for name in "ab":
        left = [place for place, label in enumerate(labels) if label != name]
        alike = kept.alike(others)[:, left]
        far = 1 - np.sort(alike, axis=1)[:, -3]
        areas.append(roc_auc_score([each == name for each in names], far))

    assert tell_strangers(kept, others, names).value == pytest.approx(np.mean(areas), abs=1e-6)
