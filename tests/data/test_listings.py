"""Tables and file names as sources of labels: read as text, refused with the line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.dataset import Dataset
from regraft.errors import DataError, UsageError


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table beside four pictures and returns its path."""
    for name in ("1.jpg", "2.jpg", "3.jpg", "a, b.jpg"):
        (tmp_path / name).write_bytes(name.encode())

    def write(text):
        file = tmp_path / "labels.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def refused(*arguments, **options):
    with pytest.raises(DataError) as caught:
        Dataset.from_csv(*arguments, **options)
    return caught.value


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_common_dialect_is_understood(table, delimiter, end, mark):
    lines = ["path,label", "1.jpg,rose", "2.jpg,lily", ""]
    text = end.join(lines).replace(",", delimiter)

    data = Dataset.from_csv(table(mark + text.encode()))

    assert data.labels == ("rose", "lily")
    assert data.classes == ("lily", "rose")


def test_quoted_cells_keep_commas_quotes_and_newlines(table):
    data = Dataset.from_csv(table('label,path\n"x, ""y""\nz","a, b.jpg"\nplain,1.jpg\n'))

    assert data.relative_paths() == ("a, b.jpg", "1.jpg")
    assert data.labels[0] == 'x, "y"\nz'


def test_labels_are_text_whatever_they_look_like(table):
    data = Dataset.from_csv(table("path,label\n1.jpg,NA\n2.jpg,007\n3.jpg,1e3\n"))

    assert data.labels == ("NA", "007", "1e3")


def test_other_columns_parts_and_groups(table):
    file = table("file,class,set,who\n1.jpg,a,Training,p1\n2.jpg,b,valid,\n3.jpg,a,TEST,p1\n")

    data = Dataset.from_csv(file, path="file", label="class", part="set", group="who")

    assert data.parts == ("train", "val", "test")
    assert data.groups == ("p1", "", "p1")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("path,class\n1.jpg,a\n", "DATA-CSV-COLUMN", "its columns: path, class"),
        ("", "DATA-CSV-COLUMN", "its columns: none"),
        ("path,label,label\n1.jpg,a,b\n", "DATA-CSV-COLUMN", "2 columns label"),
        ("path,label\n", "DATA-CSV-EMPTY", "no row"),
        ("path,label\n1.jpg,a\n9.jpg,b\n", "DATA-CSV-FILE", "line 3"),
        ('path,label\n1.jpg,"a\nb"\n9.jpg,b\n', "DATA-CSV-FILE", "line 4"),
        ("path,label\n1.jpg,a\n../x.jpg,b\n", "DATA-CSV-OUTSIDE", "line 3"),
        ("path,label\n/etc/passwd,a\n", "DATA-CSV-OUTSIDE", "line 2"),
        ("path,label\n,a\n", "DATA-CSV-OUTSIDE", "line 2"),
        ("path,label\n1.jpg,a\n./1.jpg,b\n", "DATA-CSV-TWICE", "lines 2 and 3"),
        ("path,label\n1.jpg, \n", "DATA-CSV-LABEL", "line 2"),
        ("path,label\n1.jpg,a,b\n", "DATA-CSV", "line 2 has 3 cells, the header 2"),
        ('path,label\n1.jpg,"a\n', "DATA-CSV", "line 2"),
        ("path,label\n1.jpg,rose\n2.jpg,Rose\n", "DATA-CLASS-TWINS", "'Rose' and 'rose'"),
        ("path,label\n1.jpg,rose\n2.jpg,rose \n", "DATA-CLASS-TWINS", "'rose '"),
    ],
)
def test_each_fault_is_named_with_its_line(table, text, code, words):
    error = refused(table(text))

    assert error.code == code
    assert words in str(error)


def test_an_unknown_part_is_named_with_its_line(table):
    error = refused(table("path,label,part\n1.jpg,a,dev1\n"), part="part")

    assert error.code == "DATA-CSV-PART"
    assert "line 2: 'dev1'" in str(error)


def test_a_group_is_one_however_it_is_typed_and_blank_cells_are_groups_of_their_own(table):
    rows = '1.jpg,a,M\u00fcller\n2.jpg,b,Mu\u0308ller \n3.jpg,a, \n"a, b.jpg",b,\u00a0\n'

    data = Dataset.from_csv(table(f"path,label,who\n{rows}"), group="who")

    assert data.groups == ("M\u00fcller", "M\u00fcller", "", "")
    assert data.notes == ()


def test_groups_that_differ_by_case_stay_apart_and_are_told(table):
    data = Dataset.from_csv(table("path,label,who\n1.jpg,a,p1\n2.jpg,b,P1\n"), group="who")

    assert data.groups == ("p1", "P1")
    assert data.notes == ("groups that differ only by case are kept apart: P1 and p1",)


def test_a_missing_table_and_one_in_utf16_are_refused(table, tmp_path):
    assert refused(tmp_path / "none.csv").code == "DATA-NOT-FOUND"
    assert "UTF-16" in str(refused(table("path,label\n1.jpg,a\n".encode("utf-16"))))
    assert refused(tmp_path).code == "DATA-CSV"


def test_labels_that_differ_by_case_can_be_named_and_others_left_out(table):
    file = table("path,label\n1.jpg,a\n2.jpg,A\n3.jpg,other\n")

    data = Dataset.from_csv(file, classes=["A", "a"])

    assert data.classes == ("A", "a")
    assert data.labels == ("a", "A")
    assert data.ignored == (("rows of classes that were not asked for", 1),)


label = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=20)


@given(label.filter(lambda text: text.strip() and text.strip().casefold() != "plain"))
def test_any_label_survives(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("labels")
    (folder / "1.jpg").touch()
    quoted = text.replace('"', '""')
    (folder / "t.csv").write_text(f'path,label\n1.jpg,"{quoted}"\n', encoding="utf-8", newline="")

    data = Dataset.from_csv(folder / "t.csv")

    assert data.labels == (unicodedata.normalize("NFC", text),)


@pytest.fixture
def named(tmp_path):
    """Return a function that makes empty files and returns their folder."""

    def build(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return build


def test_the_class_stands_before_the_number(named):
    folder = named(
        "cat.0.jpg", "dog.12.jpg", "sub/cat_0003.jpg", "dog (2).png", "b2_01.jpg", "dog.jpg"
    )

    data = Dataset.from_names(folder)

    assert data.counts() == {"b2": 1, "cat": 2, "dog": 3}


def test_a_pattern_may_name_the_group_as_well(named):
    folder = named("person1_virus_3.jpg", "person1_virus_4.jpg", "person2_flu_1.jpg")

    data = Dataset.from_names(folder, pattern=r"^(?P<group>person\d+)_(?P<label>[a-z]+)_")

    assert data.classes == ("flu", "virus")
    assert data.groups == ("person1", "person1", "person2")


def test_groups_in_names_are_compared_in_one_form(named):
    folder = named("Mu\u0308ller a_1.jpg", "M\u00fcller a_2.jpg", "m\u00fcller b_3.jpg")

    data = Dataset.from_names(folder, pattern=r"^(?P<group>\S+ )(?P<label>[a-z])_")

    assert sorted(data.groups) == ["M\u00fcller", "M\u00fcller", "m\u00fcller"]
    assert "M\u00fcller and m\u00fcller" in data.notes[0]


def test_names_that_do_not_match_are_listed(named):
    with pytest.raises(DataError) as caught:
        Dataset.from_names(named("cat.0.jpg", "0001.jpg", "0002.jpg"))

    assert caught.value.code == "DATA-NAMES"
    assert "2 file names" in str(caught.value)
    assert "0001.jpg, 0002.jpg" in str(caught.value)


def test_a_folder_without_pictures_is_refused(named):
    with pytest.raises(DataError) as caught:
        Dataset.from_names(named("notes.txt"))

    assert caught.value.code == "DATA-NO-PICTURES"
    assert "1 .txt" in str(caught.value)


@pytest.mark.parametrize("pattern", ["(", "(.*)"])
def test_patterns_that_cannot_work_are_refused(named, pattern):
    with pytest.raises(UsageError):
        Dataset.from_names(named("cat.0.jpg"), pattern=pattern)
