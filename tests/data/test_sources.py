"""Class folders: every layout is read as it was meant, or refused in words of its own."""

import os
import unicodedata

import pytest

from regraft.data.dataset import Dataset
from regraft.errors import UsageError
from samples import refused


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


def test_one_folder_for_each_class(make):
    data = Dataset.from_folder(make("rose/1.jpg", "rose/2.PNG", "Lily/1.webp", "train/é.jpg"))

    assert data.classes == ("Lily", "rose", "train")
    assert data.counts() == {"Lily": 1, "rose": 2, "train": 1}
    assert data.relative_paths() == ("Lily/1.webp", "rose/1.jpg", "rose/2.PNG", "train/é.jpg")
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


def test_what_is_left_out_is_counted_and_noted(make):
    folder = make("a/1.jpg", "b/1.jpg", ".ipynb_checkpoints/x.jpg", "__MACOSX/._a.jpg", ".DS_Store")
    make("a/._1.jpg", "b/list.txt", "b/README", "logo.png")

    data = Dataset.from_folder(folder)

    assert data.classes == ("a", "b")
    assert data.notes == (
        "left out: .txt: not an image (1)",
        "left out: hidden and system files (4)",
        "left out: images outside a class folder (1)",
        "left out: no suffix: not an image (1)",
    )


def test_empty_class_folders_are_all_listed_unless_allowed(make):
    folder = make("a/1.jpg", "b/2.jpg", "c/", "d/notes.txt")

    error = refused(Dataset.from_folder, folder)

    assert error.code == "DATA-EMPTY-CLASS"
    assert "c, d" in str(error)
    assert Dataset.from_folder(folder, allow_empty=True).counts()["c"] == 0


def test_each_wrong_layout_has_its_own_message(tmp_path):
    (tmp_path / "file").touch()
    for name in ("nothing", "flat", "lone"):
        (tmp_path / name).mkdir()
    (tmp_path / "flat" / "1.jpg").touch()
    (tmp_path / "lone" / "cat").mkdir()
    (tmp_path / "lone" / "cat" / "1.jpg").touch()

    found = ("missing", "file", "nothing", "flat", "lone")
    codes = [refused(Dataset.from_folder, tmp_path / name).code for name in found]

    told = ["NOT-FOUND", "NOT-A-FOLDER", "NO-CLASSES", "FLAT", "ONE-CLASS"]
    assert codes == [f"DATA-{code}" for code in told]
    assert Dataset.from_folder(tmp_path / "lone", allow_empty=True).classes == ("cat",)


def test_folders_of_one_name_under_two_parents_are_never_merged(make):
    error = refused(Dataset.from_folder, make("a/x/1.jpg", "b/x/1.jpg"))

    assert error.code == "DATA-NESTED"
    assert "a/x (1), b/x (1)" in str(error)


def test_given_parts_are_recognised_in_any_spelling(make):
    folder = make("Training/a/1.jpg", "Training/b/1.jpg", "valid/a/2.jpg", "valid/b/2.jpg")
    make("TEST/a/3.jpg", "TEST/b/3.jpg")

    data = Dataset.from_folder(folder)

    assert data.classes == ("a", "b")
    assert dict(zip(data.relative_paths(), data.parts, strict=True))["valid/a/2.jpg"] == "val"
    assert sorted(set(data.parts)) == ["test", "train", "val"]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("train/a/1.jpg", "test/a/2.jpg", "more/a/1.jpg"), "DATA-PARTS"),
        (("train/a/1.jpg", "val/a/2.jpg", "validation/a/1.jpg"), "DATA-PARTS"),
        (("train/cat.0.jpg", "test/1.jpg"), "DATA-FLAT"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/A/2.jpg", "test/b/2.jpg"), "DATA-CLASS-TWINS"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/c/1.jpg"), "DATA-CLASSES-DIFFER"),
    ],
)
def test_confused_parts_are_refused(make, names, code):
    assert refused(Dataset.from_folder, make(*names)).code == code


ODD_NAMES = [
    *("a b", "-rf", "🌹", "new\nline", "comma, \"quote\" 'x'", "<script>", "=cmd()", "@x", "x.."),
    *("é" * 80, os.fsdecode(b"\xff\xfe-bytes")),
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_classes_and_files_work(make, name):
    data = Dataset.from_folder(make(f"{name}/{name}.jpg", "plain/1.jpg"))

    assert unicodedata.normalize("NFC", name) in data.classes
    assert len(set(data.hashes())) == 2


def test_a_link_to_an_image_of_the_same_class_is_left_out_and_counted(make):
    folder = make("a/1.jpg", "b/1.jpg")
    (folder / "a" / "0.jpg").symlink_to("1.jpg")

    data = Dataset.from_folder(folder)

    assert data.relative_paths() == ("a/1.jpg", "b/1.jpg")
    assert data.notes == ("left out: links to an image that is there (1)",)


@pytest.mark.parametrize(
    "names", [("a/1.jpg", "b/1.jpg"), ("train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg")]
)
def test_a_file_linked_into_another_class_or_part_is_refused(make, names):
    folder = make(*names)
    place = (folder / names[-1]).parent / "link.jpg"
    place.symlink_to(folder / names[0])

    assert refused(Dataset.from_folder, folder).code == "DATA-LINK-TWICE"


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table beside four images and returns its path."""
    for name in ("1.jpg", "2.jpg", "3.jpg", "a, b.jpg"):
        (tmp_path / name).write_bytes(name.encode())

    def write(text):
        file = tmp_path / "labels.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_common_dialect_is_understood(table, delimiter, end, mark):
    lines = ["path,label", "1.jpg,rose", "2.jpg,lily", ""]
    text = end.join(lines).replace(",", delimiter)

    data = Dataset.from_csv(table(mark + text.encode()))

    assert data.labels == ("rose", "lily")
    assert data.classes == ("lily", "rose")


def test_other_columns_parts_and_groups(table):
    file = table(
        "file,class,set,who\n1.jpg,NA,Training,p1\n2.jpg,007,valid,\n"
        '"a, b.jpg","x, ""y""\nz",TEST,p1\n'
    )

    data = Dataset.from_csv(file, path="file", label="class", part="set", group="who")

    assert data.parts == ("train", "val", "test")
    assert data.groups == ("p1", "", "p1")
    assert data.labels == ("NA", "007", 'x, "y"\nz')
    assert data.relative_paths()[2] == "a, b.jpg"
    error = refused(Dataset.from_csv, file, path="file", label="class", part="who")
    assert "line 2: 'p1' is no part" in str(error)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("path,class\n1.jpg,a\n", "DATA-CSV-COLUMN", "its columns: path, class"),
        ("", "DATA-CSV-COLUMN", "its columns: none"),
        ("path,label,label\n1.jpg,a,b\n", "DATA-CSV-COLUMN", "its columns: path, label, label"),
        ("path,label\n", "DATA-CSV", "no row"),
        ("path,label\n1.jpg,a\n9.jpg,b\n", "DATA-CSV-FILE", "line 3"),
        ('path,label\n1.jpg,"a\nb"\n9.jpg,b\n', "DATA-CSV-FILE", "line 4"),
        ("path,label\n1.jpg,a\n../x.jpg,b\n", "DATA-CSV", "line 3"),
        ("path,label\n/etc/passwd,a\n", "DATA-CSV", "line 2"),
        ("path,label\n,a\n", "DATA-CSV", "'' lies outside"),
        ("path,label\n1.jpg,a\n./1.jpg,b\n", "DATA-CSV", "line 3: its image stands in line 2"),
        ("path,label\n1.jpg, \n", "DATA-CSV", "line 2"),
        ("path,label\n1.jpg,a,b\n", "DATA-CSV", "line 2 has 3 cells, the header 2"),
        ('path,label\n1.jpg,"a\n', "DATA-CSV", "line 2"),
        ("path,label\n1.jpg,rose\n2.jpg,Rose\n", "DATA-CLASS-TWINS", "'Rose' and 'rose'"),
        ("path,label\n1.jpg,rose\n2.jpg,rose \n", "DATA-CLASS-TWINS", "'rose '"),
        ("path,label\n1.jpg,straße\n2.jpg,STRASSE\n", "DATA-CLASS-TWINS", "'STRASSE'"),
        ("path,label\n1.jpg,é\n2.jpg,e\u0301\n", "DATA-CLASS-TWINS", "'e\\u0301' and '\\xe9'"),
    ],
)
def test_each_fault_is_named_with_its_line(table, text, code, words):
    error = refused(Dataset.from_csv, table(text))

    assert error.code == code
    assert words in str(error)


def test_a_group_is_one_however_it_is_typed_and_blank_cells_are_groups_of_their_own(table):
    rows = '1.jpg,a,M\u00fcller\n2.jpg,b,Mu\u0308ller \n3.jpg,a, \n"a, b.jpg",b,\u00a0\n'

    data = Dataset.from_csv(table(f"path,label,who\n{rows}"), group="who")

    assert data.groups == ("m\u00fcller", "m\u00fcller", "", "")


def test_the_class_stands_before_the_number(make):
    folder = make(
        "cat.0.jpg", "dog.12.jpg", "sub/cat_0003.jpg", "dog (2).png", "b2_01.jpg", "dog.jpg"
    )

    data = Dataset.from_names(folder)

    assert data.counts() == {"b2": 1, "cat": 2, "dog": 3}


def test_a_pattern_may_name_the_group_as_well(make):
    folder = make("person1_virus_3.jpg", "person1_virus_4.jpg", "person2_flu_1.jpg")

    data = Dataset.from_names(folder, pattern=r"^(?P<group>person\d+)_(?P<label>[a-z]+)_")

    assert data.classes == ("flu", "virus")
    assert data.groups == ("person1", "person1", "person2")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("cat.0.jpg", "0001.jpg", "0002.jpg"), ("2 file names", "0001.jpg, 0002.jpg")),
        (("notes.txt",), ("no image", "left out: .txt: not an image (1)")),
    ],
)
def test_names_that_do_not_match_are_listed(make, names, words):
    error = refused(Dataset.from_names, make(*names))

    assert error.code == "DATA-NAMES"
    assert all(word in str(error) for word in words)


@pytest.mark.parametrize("pattern", ["(", "(.*)"])
def test_patterns_that_cannot_work_are_refused(make, pattern):
    error = refused(Dataset.from_names, make("cat.0.jpg"), pattern=pattern)

    assert isinstance(error, UsageError)


@pytest.fixture
def rose(make):
    """Return the first class folder of a data folder with one image in each of two classes."""
    return make("rose/1.jpg", "tulip/2.jpg") / "rose"


def roses(folder, **options):
    data = Dataset.from_folder(folder.parent, **options)
    return sorted(path.name for path in data.paths if path.parent.name == "rose")


def test_broken_and_odd_files_named_as_images_are_kept_for_the_check(rose):
    (rose / "empty.png").touch()
    (rose / "nowhere.jpg").symlink_to(rose / "gone.jpg")
    (rose / "a.jpg").symlink_to("b.jpg")
    (rose / "b.jpg").symlink_to("a.jpg")
    (rose / "stored.jpg").symlink_to(rose.parent / "tulip" / ".store")
    os.mkfifo(rose / "pipe.jpg")

    odd = ["a.jpg", "b.jpg", "empty.png", "nowhere.jpg", "pipe.jpg", "stored.jpg"]
    assert roses(rose) == ["1.jpg", *odd]


@pytest.mark.parametrize("target", ["..", ".", "../../outside"])
def test_links_that_lead_in_a_circle_are_refused(rose, target, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "back").symlink_to(rose.parent)
    (rose / "loop").symlink_to(target)

    assert refused(roses, rose, follow_outside=True).code == "DATA-LINK-LOOP"


def test_a_link_that_leads_out_is_refused_unless_asked_for(rose, tmp_path):
    (tmp_path / "secret.jpg").touch()
    (rose / "2.jpg").symlink_to(tmp_path / "secret.jpg")

    assert refused(roses, rose).code == "DATA-LINK-OUTSIDE"
    assert roses(rose, follow_outside=True) == ["1.jpg", "2.jpg"]
