"""A table to decide in, and the corrected table that comes of it."""

import csv
import dataclasses

import pytest

from regraft.data.dataset import Dataset
from regraft.errors import DataError
from regraft.labels.review import apply_review, write_review
from regraft.labels.suspects import Conflict, Labelled, Suspect, Suspects

COLUMNS = ["path", "given", "suggested", "label"]


@pytest.fixture
def images(tmp_path):
    """Return images of three classes, one with a name that a spreadsheet would run."""
    rows = [("rose/1.jpg", "rose"), ("-lily/=2.jpg", "-lily"), ("iris/3.jpg", "iris")]
    for path, _ in rows:
        (tmp_path / "set" / path).parent.mkdir(parents=True)
        (tmp_path / "set" / path).write_bytes(path.encode())
    return Dataset.from_folder(tmp_path / "set")


@pytest.fixture
def review(tmp_path):
    """Return a function that writes a filled-in review."""

    def written(*rows):
        with (tmp_path / "relabel.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([COLUMNS, *rows])
        return tmp_path / "relabel.csv"

    return written


def test_suspects_and_copies_stand_in_a_table_with_an_empty_column(tmp_path):
    suspects = (Suspect("a.jpg", "rose", "lily", 0.9, 0, ()),)
    copies = Conflict(True, (Labelled("a.jpg", "rose"), Labelled("b.jpg", "lily")))

    write_review(Suspects(suspects, (copies,), tmp_path, 9, 0, 5), tmp_path / "relabel.csv")

    with (tmp_path / "relabel.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [COLUMNS, ["a.jpg", "rose", "lily", ""], ["b.jpg", "lily", "", ""]]
    with pytest.raises(DataError) as refused:  # somebody may have filled it in
        write_review(Suspects((), (), tmp_path, 9, 0, 5), tmp_path / "relabel.csv")
    assert refused.value.code == "DATA-EXISTS"


def test_what_was_decided_comes_into_a_new_table_and_nothing_else_changes(images, review, tmp_path):
    file = review(["rose/1.jpg", "rose", "iris", " -lily "], ["iris/3.jpg", "iris", "rose", ""])
    before = {path: path.read_bytes() for path in (*images.paths, file)}

    done = apply_review(images, file, tmp_path / "out.csv")

    read = Dataset.from_csv(tmp_path / "out.csv", root=images.root)
    assert done.changes == {("rose", "-lily"): 1}
    assert done.to_json()["changes"] == [{"from": "rose", "to": "-lily", "count": 1}]
    assert dict(zip(read.relative_paths(), read.labels, strict=True)) == {
        "rose/1.jpg": "-lily",
        "-lily/=2.jpg": "-lily",
        "iris/3.jpg": "iris",
    }
    assert before == {path: path.read_bytes() for path in before}
    with pytest.raises(DataError) as refused:
        apply_review(images, file, tmp_path / "out.csv")
    assert refused.value.code == "DATA-EXISTS"


def test_a_name_that_was_made_safe_for_spreadsheets_is_found_again(images, tmp_path):
    suspect = Suspect("-lily/=2.jpg", "-lily", "rose", 0.9, 0, ())
    write_review(Suspects((suspect,), (), images.root, 3, 0, 5), tmp_path / "relabel.csv")
    text = (tmp_path / "relabel.csv").read_text()
    (tmp_path / "relabel.csv").write_text(text.replace("rose,", "rose,rose"))

    done = apply_review(images, tmp_path / "relabel.csv", tmp_path / "out.csv")

    assert done.changes == {("-lily", "rose"): 1}


def test_groups_and_parts_are_kept(images, review, tmp_path):
    cut = dataclasses.replace(images, groups=("a", "b", "b"), parts=("train", "train", "test"))

    apply_review(cut, review(), tmp_path / "out.csv")

    read = Dataset.from_csv(tmp_path / "out.csv", root=images.root, part="part", group="group")
    kept = dict(zip(read.relative_paths(), zip(read.groups, read.parts, strict=True), strict=True))
    wanted = zip(cut.groups, cut.parts, strict=True)
    assert kept == dict(zip(cut.relative_paths(), wanted, strict=True))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["no.jpg", "rose", "", "iris"], "'no.jpg' is no image"),
        (["rose/1.jpg", "rose", "", "orchid"], "'orchid' is no class"),
        (["rose/1.jpg", "iris", "", ""], "has the label 'rose', not 'iris'"),
        (["iris/3.jpg", "iris", "", "rose"], "stands in line 2, too"),
    ],
)
def test_rows_that_do_not_fit_the_images_are_refused(images, review, tmp_path, row, said):
    file = review(["iris/3.jpg", "iris", "rose", "rose"], row)

    with pytest.raises(DataError, match=said) as refused:
        apply_review(images, file, tmp_path / "out.csv")

    assert "line 3" in str(refused.value)
    assert refused.value.code == "REVIEW-ROWS"
    assert not (tmp_path / "out.csv").exists()
