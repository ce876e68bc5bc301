"""Published layouts: which picture belongs to which class and part."""

import numpy as np
import pytest
from regraft.data.oxford import FLOWERS_17, FLOWERS_102
from scipy.io import savemat

from regraft.data.layouts import ClassFolders, LabelFiles, LeafFolders, NamePrefixes, NumberRanges
from regraft.errors import DataError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def placed(layout, root):
    found = layout.arrange(root)
    return {
        each.source.relative_to(root).as_posix(): f"{each.part}/{each.label}".strip("/")
        for each in found.placements
    }


def test_class_folders_are_found_at_any_depth_and_others_are_no_class(tmp_path):
    touch(tmp_path, "a/b/rose/1.jpg", "a/b/lily/2.jpg", "a/b/other/3.jpg")

    assert placed(ClassFolders(("lily", "rose")), tmp_path) == {
        "a/b/lily/2.jpg": "lily",
        "a/b/rose/1.jpg": "rose",
    }


def test_the_highest_of_two_such_folders_is_taken(tmp_path):
    touch(tmp_path, "set/rose/1.jpg", "set/lily/2.jpg", "set/set/rose/1.jpg", "set/set/lily/2.jpg")

    assert set(placed(ClassFolders(("lily", "rose")), tmp_path)) == {
        "set/lily/2.jpg",
        "set/rose/1.jpg",
    }


def test_given_parts_are_kept(tmp_path):
    touch(tmp_path, *(f"x/{part}/{c}/1.jpg" for part in ("train", "valid", "test") for c in "ab"))

    assert placed(ClassFolders(("a", "b")), tmp_path) == {
        f"x/{folder}/{c}/1.jpg": f"{part}/{c}"
        for folder, part in (("train", "train"), ("valid", "val"), ("test", "test"))
        for c in "ab"
    }


def test_a_folder_that_is_no_class_is_named_with_its_pictures(tmp_path):
    touch(tmp_path, "o/ant/1.jpg", "o/bee/1.jpg", "o/BACKGROUND_Google/1.jpg")

    found = ClassFolders(among=("ant",), leave_out=("BACKGROUND_Google",)).arrange(tmp_path)

    assert {each.label for each in found.placements} == {"ant", "bee"}
    assert {name: len(files) for name, files in found.removed.items()} == {"BACKGROUND_Google": 1}


def test_a_missing_class_is_an_error_that_names_the_classes(tmp_path):
    with pytest.raises(DataError, match="lily, rose") as refusal:
        ClassFolders(("lily", "rose")).arrange(touch(tmp_path, "set/rose/1.jpg"))

    assert refusal.value.code == "DATA-LAYOUT"


def test_leaf_folders_are_classes_and_collections_of_them_are_not(tmp_path):
    touch(tmp_path, "Apple/Apple A/1.png", "Apple/Apple B/1.png", "Apple/Total/1.png", "Pear/1.png")

    found = LeafFolders(leave_out=("Total",)).arrange(tmp_path)

    assert {each.label for each in found.placements} == {"Apple A", "Apple B", "Pear"}
    assert {name: len(files) for name, files in found.removed.items()} == {"Total": 1}


def test_of_two_leaf_folders_of_one_name_one_is_taken(tmp_path):
    touch(tmp_path, "a/Pear/1.png", "a/Fig/1.png", "b/b/Pear/2.png")

    assert set(placed(LeafFolders(), tmp_path)) == {"a/Pear/1.png", "a/Fig/1.png"}


@pytest.mark.parametrize("folder", ["jpg/", "", "sorted/{}/"])
def test_numbers_decide_the_class_however_the_pictures_are_sorted(folder, tmp_path):
    numbers = {1: "daffodil", 80: "daffodil", 81: "snowdrop", 1280: "windflower", 1360: "pansy"}
    for number, name in numbers.items():
        touch(tmp_path, f"{folder.format(name)}image_{number:04}.jpg")
    touch(tmp_path, "jpg/files.txt", "jpg/image_1361.jpg")

    found = NumberRanges(FLOWERS_17, each=80).arrange(tmp_path)

    assert {int(e.source.stem[6:]): e.label for e in found.placements} == numbers


def matlab(root, labels, **parts):
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    savemat(root / "setid.mat", {k: np.array([v], dtype=np.uint16) for k, v in parts.items()})
    return root


def test_labels_and_parts_come_from_matlab_files(tmp_path):
    touch(tmp_path, *(f"jpg/image_{n:05}.jpg" for n in range(1, 5)))
    matlab(tmp_path, [77, 1, 60, 102], trnid=[3], valid=[1], tstid=[4, 2])

    found = LabelFiles(FLOWERS_102).arrange(tmp_path)

    assert {int(e.source.stem[6:]): (e.part, e.label) for e in found.placements} == {
        1: ("val", "passion flower"),
        2: ("test", "pink primrose"),
        3: ("train", "pink-yellow dahlia"),
        4: ("test", "blackberry lily"),
    }
    assert {paper.name for paper in found.papers} == {"imagelabels.mat", "setid.mat"}


@pytest.mark.parametrize(
    ("labels", "parts", "reason"),
    [
        ([103], {"trnid": [1], "valid": [], "tstid": []}, "no known class"),
        ([0], {"trnid": [1], "valid": [], "tstid": []}, "no known class"),
        ([], {"trnid": [1], "valid": [], "tstid": []}, "no known class"),
        ([5], {"trnid": [1], "valid": [1], "tstid": []}, "two parts"),
        ([5], {"trnid": [1], "valid": []}, "KeyError"),
    ],
)
def test_matlab_files_that_make_no_sense_are_refused(labels, parts, reason, tmp_path):
    touch(tmp_path, "jpg/image_00001.jpg")

    with pytest.raises(DataError, match=reason) as refusal:
        LabelFiles(FLOWERS_102).arrange(matlab(tmp_path, labels, **parts))

    assert refusal.value.code == "DATA-LAYOUT"


def test_a_damaged_matlab_file_is_named(tmp_path):
    touch(tmp_path, "jpg/image_00001.jpg")
    matlab(tmp_path, [1], trnid=[1], valid=[], tstid=[])
    (tmp_path / "setid.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))

    with pytest.raises(DataError, match="cannot read the MATLAB file") as refusal:
        LabelFiles(FLOWERS_102).arrange(tmp_path)

    assert refusal.value.path == str(tmp_path / "setid.mat")


def test_the_class_before_the_first_dot_is_taken_from_names(tmp_path):
    touch(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg", "train/fish.0.jpg", "test1/1.jpg")

    assert placed(NamePrefixes(("cat", "dog")), tmp_path) == {
        "train/cat.0.jpg": "cat",
        "train/dog.0.jpg": "dog",
    }


@pytest.mark.parametrize(
    "layout",
    [
        ClassFolders(("a", "b")),
        ClassFolders(among=("a",)),
        LeafFolders(among=("a",)),
        NumberRanges(("a", "b"), each=2),
        NamePrefixes(("a", "b")),
        LabelFiles(("a", "b")),
    ],
    ids=lambda layout: type(layout).__name__,
)
def test_every_layout_names_a_folder_that_is_laid_out_otherwise(layout, tmp_path):
    touch(tmp_path, "only/picture.jpg")

    with pytest.raises(DataError) as refusal:
        layout.arrange(tmp_path)

    assert refusal.value.code == "DATA-LAYOUT"
    assert refusal.value.path == str(tmp_path)
