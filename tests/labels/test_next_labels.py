"""Which unlabelled images to label next."""

import shutil

import numpy as np
import pytest

from regraft.data.dataset import Dataset
from regraft.data.manifest import read_manifest
from regraft.errors import DataError, UsageError
from regraft.experiment.config import DataConfig
from regraft.labels.next_labels import choose_next, rank_next, uncertainty

YELLOW, CYAN = (130, 130, 35), (35, 120, 120)  # between red and green, and green and blue


@pytest.fixture
def unlabelled(tmp_path, paint):
    """Return paths of images of which some lie between the colours that are known."""
    paths = []
    for name, colour, count in (("y", YELLOW, 6), ("c", CYAN, 6), ("r", "red", 20)):
        for number in range(count):
            paths.append(tmp_path / "new" / f"{name}{number}.png")
            paint(paths[-1], colour, 5000 + len(paths))
    return paths


def test_uncertain_images_that_differ_from_each_other_are_chosen(folder, unlabelled, extractor):
    found = rank_next(DataConfig(folder), map(str, unlabelled), extractor, count=2)

    assert {path.path[-6] for path in found.wanted} == {"y", "c"}
    assert found.wanted[0].uncertainty >= found.wanted[1].uncertainty
    assert all(0 <= one.uncertainty <= 1 for one in found.wanted)
    assert {one.predicted for one in found.wanted} <= {"red", "green", "blue"}
    assert (found.labelled, found.unlabelled, found.known) == (36, 32, 0)
    assert found.to_json()["next"][0]["path"] == found.wanted[0].path


def test_copies_of_labelled_images_and_of_each_other_are_left_out(folder, unlabelled, extractor):
    known = shutil.copy(folder / "red" / "red0.png", unlabelled[0].with_name("known.png"))
    again = shutil.copy(unlabelled[0], unlabelled[0].with_name("again.png"))
    paths = [str(known), *map(str, unlabelled[:3]), str(again), str(unlabelled[1])]

    found = rank_next(DataConfig(folder), paths, extractor)

    assert {one.path for one in found.wanted} == set(map(str, unlabelled[:3]))
    assert (found.unlabelled, found.known) == (3, 2)
    with pytest.raises(DataError) as refused:
        rank_next(DataConfig(folder), [str(known)], extractor)
    assert refused.value.code == "DATA-NOTHING-LEFT"


def test_nothing_is_learned_from_a_test_part(folder, unlabelled, extractor):
    split = Dataset.from_folder(folder).split()
    split.write(folder.parent)

    data = DataConfig(folder.parent / "split.csv", root=folder)
    found = rank_next(data, [*map(str, unlabelled), str(split.test.paths[0])], extractor)

    assert found.labelled == 36 - len(split.test)
    assert found.known == 1
    assert read_manifest(folder.parent)[1].test_looks == 0


def test_uncertain_is_what_has_two_classes_that_are_equally_probable():
    rows = np.array([[0.45, 0.45, 0.1], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]])

    assert uncertainty(rows) == pytest.approx([1, 0.3, 0])


def test_the_choice_depends_on_the_seed_alone_and_has_no_image_twice():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 8)).astype(np.float32)
    uncertain = rng.random(200)

    first, again = (choose_next(rows, uncertain, count=12) for _ in range(2))

    assert first == again
    assert len(set(first)) == 12
    assert sorted(uncertain[first], reverse=True) == uncertain[first].tolist()
    assert set(first) <= set(np.argsort(-uncertain)[:120].tolist())


def test_equal_rows_are_chosen_all_the_same_and_no_more_than_there_are():
    rows = np.ones((5, 2), np.float32)

    assert len(set(choose_next(rows, np.zeros(5), count=3))) == 3
    assert choose_next(rows, np.array([0.1, 0.5, 0.3, 0.2, 0.4]), count=9) == [1, 4, 2, 3, 0]
    with pytest.raises(UsageError, match="count must be at least 1"):
        choose_next(rows, np.zeros(5), count=0)
