"""Labels that are probably wrong: as cleanlab finds them, and from a folder of images."""

import csv
import random
import shutil

import numpy as np
import pytest
from cleanlab.count import get_confident_thresholds
from cleanlab.filter import find_label_issues

from regraft.data.dataset import Dataset, Split
from regraft.data.manifest import read_manifest
from regraft.errors import BadImagesError, DataError, UsageError
from regraft.experiment.config import DataConfig
from regraft.explain.neighbours import unit_rows
from regraft.features.extractor import FeatureExtractor
from regraft.labels.suspects import class_thresholds, find_suspects, label_issues


def noisy(classes, size, noise, seed):
    """Return probabilities of images of unequal classes, and labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, size, p=rng.dirichlet(np.full(classes, 8.0)))
    scores = rng.normal(size=(size, classes)) + 2.5 * np.eye(classes)[truth]
    scores += rng.normal(0, 0.7, classes)  # some classes are named too often
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    changed = rng.random(size) < noise
    return probabilities, np.where(changed, rng.integers(0, classes, size), truth)


@pytest.mark.parametrize("seed", range(3))  # of which no rounding is a tie
@pytest.mark.parametrize(
    ("classes", "size", "noise"), [(2, 60, 0.1), (3, 400, 0.05), (5, 1000, 0.3), (17, 1300, 0.1)]
)
def test_thresholds_and_issues_are_those_of_cleanlab(classes, size, noise, seed):
    probabilities, labels = noisy(classes, size, noise, seed)

    thresholds = class_thresholds(probabilities, labels)
    wrong = label_issues(probabilities, labels)

    assert thresholds == pytest.approx(get_confident_thresholds(labels, probabilities))
    expected = find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    assert np.flatnonzero(wrong).tolist() == np.flatnonzero(expected).tolist()
    assert wrong.any()


def test_equal_probabilities_and_a_class_without_images_raise_no_suspicion():
    rows = np.full((6, 3), 1 / 3)

    assert not label_issues(rows, np.array([0, 0, 0, 1, 1, 1])).any()
    assert class_thresholds(rows, np.zeros(6, int)).tolist() == [
        pytest.approx(1 / 3),
        np.inf,
        np.inf,
    ]


def test_rows_get_length_one_and_rows_of_zeros_stay():
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))

    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 0])


def test_wrong_labels_come_first_beside_neighbours_that_disagree(folder, extractor):
    found = find_suspects(DataConfig(folder), extractor, folds=3)

    first = {(s.path, s.given, s.suggested) for s in found.suspects[:2]}
    assert first == {("blue/red3.png", "blue", "red"), ("red/green7.png", "red", "green")}
    scores = [suspect.score for suspect in found.suspects]
    assert scores == sorted(scores, reverse=True)
    assert all(0.5 < suspect.score <= 1 for suspect in found.suspects[:2])
    for suspect in found.suspects[:2]:
        assert {near.label for near in suspect.neighbours} == {suspect.suggested}
        similar = [near.similarity for near in suspect.neighbours]
        assert len(similar) == 3
        assert similar == sorted(similar, reverse=True)
        assert suspect.agreeing == 0
    assert (found.images, found.unjudged, found.conflicts) == (36, 0, ())
    assert "of 36 labels are doubtful" in found.table().to_text()


def test_of_an_image_that_agrees_with_its_neighbours_they_are_counted(folder, extractor, paint):
    for number in range(4):  # too many red ones for a mistake, too few to be believed
        paint(folder / "blue" / f"more{number}.png", "red", 900 + number)

    found = find_suspects(DataConfig(folder), extractor, folds=3)

    counts = {s.path: s.agreeing for s in found.suspects if "more" in s.path}
    assert counts
    assert all(1 <= count <= 4 for count in counts.values())


def test_copies_with_other_labels_stand_beside_the_suspects(folder, extractor):
    shutil.copy(folder / "red" / "red0.png", folder / "green" / "copied.png")
    shutil.copy(folder / "red" / "red1.png", folder / "red" / "same.png")

    found = find_suspects(DataConfig(folder), extractor, folds=3)

    (conflict,) = found.conflicts
    pairs = {(image.path, image.label) for image in conflict.images}
    assert conflict.exact
    assert pairs == {("red/red0.png", "red"), ("green/copied.png", "green")}
    assert "the same content: " in found.table().to_text()
    assert found.to_json()["conflicts"][0]["exact"] is True


def test_look_alikes_with_other_labels_are_conflicts_that_are_not_exact(tmp_path, extractor):
    from PIL import Image

    from regraft.data.synthetic import make_flowers

    drawn = make_flowers(tmp_path, species=2, per_class=6, size=96)
    first = drawn.paths[drawn.labels.index(drawn.classes[0])]
    Image.open(first).save(tmp_path / drawn.classes[1] / "again.jpg", quality=60)

    (conflict,) = find_suspects(DataConfig(tmp_path), extractor, folds=2).conflicts

    assert not conflict.exact
    assert {image.label for image in conflict.images} == set(drawn.classes)


def test_a_class_too_small_for_the_folds_is_refused_or_not_judged(folder, extractor, paint):
    paint(folder / "grey" / "one.png", (120, 120, 120), 1)

    with pytest.raises(DataError) as refused:
        find_suspects(DataConfig(folder), extractor)

    found = find_suspects(DataConfig(folder, small_classes="train"), extractor)
    assert refused.value.code == "SPLIT-TOO-FEW"
    assert (found.images, found.unjudged) == (36, 1)
    assert "1 of small classes were not judged" in found.told()


def test_bad_images_are_refused_or_left_out_and_listed(folder, extractor):
    (folder / "red" / "empty.png").write_bytes(b"")

    with pytest.raises(BadImagesError):
        find_suspects(DataConfig(folder), extractor, folds=3)

    found = find_suspects(DataConfig(folder, skip_bad=True, max_bad=0.1), extractor, folds=3)
    assert found.images == 36
    assert [error["error"] for error in found.to_json()["bad_files"]] == ["IMG-EMPTY"]
    with pytest.raises(UsageError, match="two folds"):
        find_suspects(DataConfig(folder, skip_bad=True, max_bad=0.1), extractor, folds=1)


def test_parts_play_no_role_and_a_look_at_the_test_part_is_counted(folder, extractor):
    Dataset.from_folder(folder).split().write(folder.parent)
    table = folder.parent / "split.csv"

    found = find_suspects(DataConfig(table, root=folder), extractor, folds=3)

    assert found.images == 36
    assert Split.read(table, root=folder).hash == read_manifest(table)[1].hash
    assert read_manifest(table)[1].test_looks == 1


@pytest.mark.slow
def test_of_changed_labels_of_real_photographs_most_are_found(assets, tmp_path):
    images = Dataset.from_folder(assets / "data" / "flowers5")
    draw, rows = random.Random(5), list(zip(images.relative_paths(), images.labels, strict=True))
    changed = draw.sample(range(len(rows)), len(rows) // 20)
    for place in changed:
        path, label = rows[place]
        rows[place] = path, draw.choice([name for name in images.classes if name != label])
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    data = DataConfig(tmp_path / "table.csv", root=images.root)

    found = find_suspects(data, FeatureExtractor("efficientnet_lite0")).suspects

    wrong = {rows[place][0] for place in changed}
    assert sum(s.path in wrong for s in found[: len(wrong)]) >= 0.6 * len(wrong)
