"""Class folders: every layout is read as it was meant, or refused in words of its own."""

import os
import unicodedata

import pytest

from regraft.data.dataset import Dataset
from regraft.errors import DataError


@pytest.fixture
def make(tmp_path):
    """Return a function that makes files below a data folder and returns the folder."""
    root = tmp_path / "data"

    def build(*names):
        root.mkdir(exist_ok=True)
        for name in names:
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(name.encode("utf-8", "surrogateescape"))
        return root

    return build


def refused(folder, **options):
    with pytest.raises(DataError) as caught:
        Dataset.from_folder(folder, **options)
    return caught.value


def test_one_folder_for_each_class(make):
    data = Dataset.from_folder(make("rose/1.jpg", "rose/2.PNG", "Lily/1.webp"))

    assert data.classes == ("Lily", "rose")
    assert data.counts() == {"Lily": 1, "rose": 2}
    assert data.relative_paths() == ("Lily/1.webp", "rose/1.jpg", "rose/2.PNG")
    assert data.parts is None


def test_the_order_in_which_the_system_lists_files_does_not_matter(make, monkeypatch):
    folder = make("b/1.jpg", "b/2.jpg", "a/1.jpg", "a/2.jpg")
    first = Dataset.from_folder(folder)
    real = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = sorted(real(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Backwards)

    assert Dataset.from_folder(folder) == first


def test_junk_folders_are_no_classes(make):
    folder = make("a/1.jpg", "b/1.jpg", ".ipynb_checkpoints/x.jpg", "__MACOSX/._a.jpg", ".DS_Store")

    data = Dataset.from_folder(folder)

    assert data.classes == ("a", "b")
    assert data.ignored == (("hidden and system files", 3),)


def test_other_files_and_stray_pictures_are_counted_and_noted(make):
    data = Dataset.from_folder(make("a/1.jpg", "b/1.jpg", "b/list.txt", "logo.png"))

    assert data.ignored == ((".txt: not a picture", 1), ("pictures outside a class folder", 1))
    assert "left out: pictures outside a class folder (1)" in data.notes


def test_empty_class_folders_are_all_listed_unless_allowed(make):
    folder = make("a/1.jpg", "b/2.jpg", "c/", "d/notes.txt")

    error = refused(folder)

    assert error.code == "DATA-EMPTY-CLASS"
    assert "c, d" in str(error)
    assert Dataset.from_folder(folder, allow_empty=True).counts() == {
        "a": 1,
        "b": 1,
        "c": 0,
        "d": 0,
    }


def test_each_wrong_layout_has_its_own_message(make, tmp_path):
    (tmp_path / "file").touch()
    for name in ("nothing", "flat", "lone"):
        (tmp_path / name).mkdir()
    (tmp_path / "flat" / "1.jpg").touch()
    (tmp_path / "lone" / "cat").mkdir()
    (tmp_path / "lone" / "cat" / "1.jpg").touch()

    codes = [
        refused(tmp_path / name).code for name in ("missing", "file", "nothing", "flat", "lone")
    ]

    assert codes == [
        "DATA-NOT-FOUND",
        "DATA-NOT-A-FOLDER",
        "DATA-NO-CLASSES",
        "DATA-FLAT",
        "DATA-ONE-CLASS",
    ]


def test_one_class_alone_may_be_looked_at_on_request(make):
    folder = make("cat/1.jpg")

    assert Dataset.from_folder(folder, allow_empty=True).classes == ("cat",)
    assert Dataset.from_folder(folder, classes=["cat"]).classes == ("cat",)


def test_folders_of_one_name_under_two_parents_are_never_merged(make):
    error = refused(make("a/x/1.jpg", "b/x/1.jpg"))

    assert error.code == "DATA-NESTED"
    assert "a/x (1), b/x (1)" in str(error)


def test_empty_folders_below_a_class_do_not_matter(make):
    assert len(Dataset.from_folder(make("a/1.jpg", "a/old/", "b/1.jpg"))) == 2


def test_given_parts_are_recognised_in_any_spelling(make):
    folder = make(
        "Training/a/1.jpg",
        "Training/b/1.jpg",
        "valid/a/2.jpg",
        "valid/b/2.jpg",
        "TEST/a/3.jpg",
        "TEST/b/3.jpg",
    )

    data = Dataset.from_folder(folder)

    assert data.classes == ("a", "b")
    assert dict(zip(data.relative_paths(), data.parts, strict=True))["valid/a/2.jpg"] == "val"
    assert sorted(set(data.parts)) == ["test", "train", "val"]


def test_a_class_may_be_called_train(make):
    data = Dataset.from_folder(make("bus/1.jpg", "car/1.jpg", "train/1.jpg"))

    assert data.classes == ("bus", "car", "train")
    assert data.parts is None


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("train/a/1.jpg", "test/a/2.jpg", "more/a/1.jpg"), "DATA-PARTS-MIXED"),
        (("train/a/1.jpg", "val/a/2.jpg", "validation/a/1.jpg"), "DATA-PARTS-TWICE"),
        (("train/cat.0.jpg", "test/1.jpg"), "DATA-FLAT"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/A/2.jpg", "test/b/2.jpg"), "DATA-CLASS-TWINS"),
    ],
)
def test_confused_parts_are_refused(make, names, code):
    assert refused(make(*names)).code == code


def test_a_class_that_train_lacks_is_an_error_with_both_sets(make):
    error = refused(make("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/c/1.jpg"))

    assert error.code == "DATA-CLASSES-DIFFER"
    assert "train: a, b; test: a, c" in str(error)


def test_a_class_that_test_lacks_is_noted_with_both_sets(make):
    data = Dataset.from_folder(make("train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg"))

    assert data.notes == ("the part test lacks b (it has: a)",)


def test_names_that_differ_by_case_or_unicode_form_are_refused_with_both(make):
    assert "'Cat' and 'cat'" in str(refused(make("cat/1.jpg", "Cat/1.jpg")))


def test_composed_and_decomposed_twins_are_refused_and_told_apart_in_the_message(make):
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]

    error = refused(make(*(f"{name}/1.jpg" for name in names)))

    assert error.code == "DATA-CLASS-TWINS"
    assert all(ascii(name) in error.why for name in names)


def test_twins_that_are_meant_can_be_named(make):
    data = Dataset.from_folder(make("a/1.jpg", "A/1.jpg"), classes=["a", "A"])

    assert data.classes == ("a", "A")


def test_a_decomposed_folder_name_gives_the_composed_class(make):
    data = Dataset.from_folder(make(unicodedata.normalize("NFD", "café/1.jpg"), "tea/1.jpg"))

    assert data.classes == (unicodedata.normalize("NFC", "café"), "tea")
    assert all(path.is_file() for path in data.paths)


def test_chosen_classes_keep_their_order_and_the_others_are_counted(make):
    data = Dataset.from_folder(make("a/1.jpg", "b/1.jpg", "c/1.jpg"), classes=["c", "a"])

    assert data.classes == ("c", "a")
    assert data.ignored == (("class folders that were not asked for", 1),)
    assert "missing: d; there: a" in str(refused(data.root, classes=["a", "d"]))


ODD_NAMES = [
    "a b",
    "-rf",
    "🌹",
    "new\nline",
    "comma, \"quote\" 'x'",
    "<script>",
    "=cmd()",
    "@x",
    "x..",
    "é" * 80,
    os.fsdecode(b"\xff\xfe-bytes"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_classes_and_files_work(make, name):
    data = Dataset.from_folder(make(f"{name}/{name}.jpg", "plain/1.jpg"))

    assert unicodedata.normalize("NFC", name) in data.classes
    assert len(set(data.hashes())) == 2
    assert len(data.fingerprint) == 64


def test_a_name_of_255_bytes_works(make):
    assert len(Dataset.from_folder(make(f"{'n' * 251}/{'f' * 251}.jpg", "plain/1.jpg"))) == 2


def test_a_link_to_a_picture_of_the_same_class_is_left_out_and_counted(make):
    folder = make("a/1.jpg", "b/1.jpg")
    (folder / "a" / "0.jpg").symlink_to("1.jpg")

    data = Dataset.from_folder(folder)

    assert data.relative_paths() == ("a/1.jpg", "b/1.jpg")
    assert ("links to a picture that is there", 1) in data.ignored


@pytest.mark.parametrize(
    "names", [("a/1.jpg", "b/1.jpg"), ("train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg")]
)
def test_a_file_linked_into_another_class_or_part_is_refused(make, names):
    folder = make(*names)
    place = (folder / names[-1]).parent / "link.jpg"
    place.symlink_to(folder / names[0])

    assert refused(folder).code == "DATA-LINK-TWICE"


def test_a_part_linked_to_another_part_is_refused(make):
    folder = make("train/a/1.jpg", "train/b/1.jpg")
    (folder / "test").symlink_to("train")

    assert refused(folder).code == "DATA-LINK-TWICE"


def test_pictures_that_are_links_into_a_hidden_store_work(make):
    folder = make(".store/1", ".store/2", "a/", "b/")
    (folder / "a" / "1.jpg").symlink_to("../.store/1")
    (folder / "b" / "1.jpg").symlink_to("../.store/2")

    assert Dataset.from_folder(folder).counts() == {"a": 1, "b": 1}


def test_nothing_is_written_into_the_data_folder(make):
    folder = make("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg")
    before = sorted(folder.rglob("*"))

    Dataset.from_folder(folder).split()

    assert sorted(folder.rglob("*")) == before


def test_real_folders_are_read(assets):
    counts = {
        name: len(Dataset.from_folder(assets / "data" / name))
        for name in ("flowers5", "flowers17", "animals", "hymenoptera", "chest_xray")
    }

    assert counts == {
        "flowers5": 2000,
        "flowers17": 1360,
        "animals": 450,
        "hymenoptera": 396,
        "chest_xray": 5840,
    }
