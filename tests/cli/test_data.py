"""`data check`, `split`, `preview` and `fetch`: what they print, write, and never write over."""

import json
import shlex
import shutil

import pytest

from regraft.data.manifest import read_manifest
from regraft.data.named import named_data
from regraft.data.synthetic import make_flowers
from regraft.errors import DataError, RunError, UsageError


def test_check_lists_all_bad_files_at_once_and_fails(regraft, place, tmp_path):
    (tmp_path / "poppy").mkdir()
    (tmp_path / "poppy" / "page.jpg").write_text("<html>")
    for name in ("daisy", "poppy"):
        for path in (place.bad / name).iterdir():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / path.name).write_bytes(path.read_bytes())

    result = regraft("data", "check", tmp_path, "--out", tmp_path / "found", "--json")
    shown = regraft("data", "check", tmp_path, "--allow-empty-class")

    assert result.return_value == shown.return_value == 1
    report = json.loads(result.stdout)
    assert report["bad"] == {"IMG-EMPTY": 1, "IMG-NOT-AN-IMAGE": 1}
    assert {row["path"] for row in report["bad_files"]} == {"daisy/empty.jpg", "poppy/page.jpg"}
    assert all(row["class"] and row["reason"] and row["advice"] for row in report["bad_files"])
    table = (tmp_path / "found" / "bad_files.csv").read_text()
    for name in ("empty.jpg", "page.jpg"):
        assert name in table
        assert name in shown.stdout


def test_check_draws_a_bar_for_each_class_and_marks_those_with_few_images(regraft, place, tmp_path):
    for name, count in (("daisy", 12), ("poppy", 4)):
        (tmp_path / name).mkdir()
        for path in sorted((place.flowers / name).iterdir())[:count]:
            (tmp_path / name / path.name).write_bytes(path.read_bytes())

    bars = regraft("data", "check", tmp_path).stdout.splitlines()[-2:]

    assert bars == [
        f"daisy      12  {'#' * 40}",
        f"poppy       4  {'#' * 13}  few: a third of the largest class or less",
    ]


def test_a_root_for_a_folder_of_images_is_refused(regraft, place):
    for more in ((), ("--label-from-name", "(?P<label>[a-z]+)_")):
        with pytest.raises(UsageError, match="--root"):
            regraft("data", "check", place.flowers, "--root", place.flowers, *more)


def test_a_split_is_written_and_said_and_never_written_over_another(regraft, place, tmp_path):
    command = ("data", "split", place.flowers, "--out", tmp_path)

    shown = regraft(*command)
    rows = read_manifest(tmp_path)
    told = json.loads(regraft(*command, "--json").stdout)
    with pytest.raises(DataError) as refused:
        regraft(*command, "--seed", "1")

    assert told["images"] == {"train": 14, "val": 4, "test": 6}
    assert told["manifest"] == str(tmp_path / "split.csv")
    assert shown.stdout == "train 14  val 4  test 6\n"
    assert told["hash"][:16] in shown.stderr
    assert refused.value.code == "SPLIT-EXISTS"
    assert read_manifest(tmp_path) == rows


def test_a_manifest_is_never_written_over_that_of_a_run(regraft, place, fitted, tmp_path):
    before = read_manifest(fitted)
    for source in (place.flowers, tmp_path / "no-such-folder"):  # before any image is looked at
        with pytest.raises(RunError) as refused:
            regraft("data", "split", source, "--out", fitted)

        assert refused.value.code == "RUN-EXISTS"
    assert read_manifest(fitted) == before


@pytest.fixture
def preview(regraft, place):
    """Return a function that draws a sheet of the flowers."""

    def call(out, *options):
        return regraft("data", "preview", place.flowers, "--out", out, *options)

    return call


def test_a_sheet_is_written_its_path_printed_and_it_depends_on_the_seed_alone(preview, tmp_path):
    files = [tmp_path / "sheets" / name for name in ("a.png", "b.png", "c.png")]

    printed = [
        preview(file, "--seed", seed, "--views", "2").stdout.strip()
        for file, seed in zip(files, "001", strict=True)
    ]

    first, again, other = (file.read_bytes() for file in files)
    assert printed == list(map(str, files))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("out", "augment", "said"),
    [
        ("sheet.jpg", "standard", ".png"),
        ("sheet.png", "standart", "did you mean 'standard'?"),
        ("sheet.png", "rotaton=3", "did you mean 'rotation'?"),
        ("sheet.png", "none", "no augmentation"),
    ],
)
def test_what_cannot_be_shown_is_wrong_usage(preview, tmp_path, out, augment, said):
    with pytest.raises(UsageError) as refused:
        preview(tmp_path / out, "--augment", augment)

    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_every_data_set_is_listed_with_size_and_licence(regraft):
    lines = regraft("data", "fetch").stdout.splitlines()
    listed = json.loads(regraft("data", "fetch", "--json").stdout)["data_sets"]

    assert lines[0].split() == ["name", "classes", "images", "download", "what", "licence"]
    assert [line.split()[0] for line in lines[1:]] == [data.name for data in named_data()]
    assert [each["name"] for each in listed] == [data.name for data in named_data()]
    assert "229 MB" in lines[1]
    assert "Creative Commons" in lines[1]
    assert listed[0]["size"] == 228_813_984


def test_licence_counts_and_what_was_left_out_are_shown(regraft, place, tmp_path):
    shutil.copytree(place.animals, tmp_path / "given")
    (tmp_path / "given" / "cats" / "broken.jpg").write_bytes(b"")
    command = ("data", "fetch", "animals", "--from", tmp_path / "given", "--to", tmp_path / "set")

    output = regraft(*command).stdout
    again = regraft(*command).stdout
    told = json.loads(regraft(*command, "--json").stdout)

    assert "48 images of 3 classes in " in output
    assert "cats 12, dogs 12, panda 24" in output
    assert f"licence: {next(d.licence for d in named_data() if d.name == 'animals')}" in output
    assert "left out, not an image: cats/broken.jpg" in output
    assert again.startswith("animals is there already, nothing was done")
    assert told["folder"] == str(tmp_path / "set")
    assert told["broken"] == ["cats/broken.jpg"]
    assert told["already"] is True


def test_the_folder_is_named_like_the_data_set_unless_told(regraft, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    regraft("data", "fetch", "animals", "--from", place.animals)

    assert (tmp_path / "animals" / "SOURCE.json").is_file()


def test_options_without_a_name_are_refused(regraft, tmp_path):
    with pytest.raises(UsageError, match="which data set"):
        regraft("data", "fetch", "--to", tmp_path)


@pytest.fixture
def mistaken(place, tmp_path):
    """Return a table of the flowers in which one label is wrong and one image stands twice."""
    rows = [(path, path.parent.name) for path in sorted(place.flowers.rglob("*.jpg"))]
    (tmp_path / "set").mkdir()
    lines = ["path,label"]
    for number, (path, label) in enumerate(rows):
        shutil.copy(path, tmp_path / "set" / f"{number}.jpg")
        lines.append(f"{number}.jpg,{label}")
    shutil.copy(rows[0][0], tmp_path / "set" / "again.jpg")
    lines.append(f"again.jpg,{rows[-1][1]}")
    (tmp_path / "set" / "table.csv").write_text("\n".join(lines))
    return tmp_path / "set" / "table.csv"


def test_suspects_are_printed_shown_on_a_page_reviewed_and_learned_from(
    regraft, small, mistaken, tmp_path
):
    page, review, corrected = (tmp_path / name for name in ("page.html", "review.csv", "new.csv"))
    command = ("data", "suspects", mistaken, *small, "--folds", "3")

    told = json.loads(regraft(*command, "--out", page, "--csv", review, "--json").stdout)
    shown = regraft(*command)
    with pytest.raises(DataError) as refused:  # before any image is looked at
        regraft("data", "suspects", tmp_path / "no-such-table.csv", *small, "--csv", review)
    lines = review.read_text().splitlines()
    filled = [f"{row}poppy" if row.startswith("0.jpg") else row for row in lines]
    review.write_text("\n".join(filled))
    applied = regraft("data", "apply-review", mistaken, review, "--out", corrected)
    done = regraft(*shlex_of(applied.stderr), *small, "--out", tmp_path / "run", "--json")

    assert refused.value.code == "DATA-EXISTS"
    assert [set(one) for one in told["suspects"]] == [
        {"path", "given", "suggested", "score", "agreeing", "neighbours"}
    ] * len(told["suspects"])
    assert {one["path"] for one in told["conflicts"][0]["images"]} == {"0.jpg", "again.jpg"}
    assert "the same content: 0.jpg (daisy) = again.jpg (poppy)" in shown.stdout
    assert "Copies with different labels" in page.read_text()
    assert "data:image/jpeg" in page.read_text()
    assert "1 of 25 labels changed: daisy → poppy 1" in applied.stderr
    assert applied.stdout == f"{corrected}\n"
    assert json.loads(done.stdout)


def shlex_of(told):
    """Return the words of the command that is proposed next."""
    return shlex.split(told.rpartition("next:   regraft ")[2])


def test_the_next_images_to_label_are_printed_line_by_line(regraft, small, place, tmp_path):
    make_flowers(tmp_path / "new", species=2, per_class=4, size=48, seed=5)
    files = sorted(map(str, (tmp_path / "new").rglob("*.jpg")))
    command = ("data", "next", place.flowers, tmp_path / "new", place.image, *small, "--count", "3")

    shown = regraft(*command)
    told = json.loads(regraft(*command, "--json").stdout)

    rows = [line.split("\t") for line in shown.stdout.splitlines()]
    assert len(rows) == len({path for path, *_ in rows}) == 3
    assert {path for path, *_ in rows} <= set(files)
    assert [one["path"] for one in told["next"]] == [path for path, *_ in rows]
    assert "3 of 8 unlabelled images, by what 24 labelled ones teach; 1 copies" in shown.stderr
