"""The data part of an experiment: read once, checked once, cut without leaks."""

import csv
import shutil

import pytest
from regraft.experiment.preparation import DataPlan

from regraft.data import checks
from regraft.data.synthetic import make_flowers
from regraft.errors import BadImagesError, DataError


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=3, per_class=12, size=48)


def test_a_folder_a_table_and_file_names_are_all_sources(flowers, tmp_path):
    table = tmp_path / "flowers.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        writer.writerows(zip(map(str, flowers.paths), flowers.labels, strict=True))
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in flowers.paths:
        shutil.copy(path, flat)

    counts = [
        DataPlan(flowers.root).read().counts(),
        DataPlan(table, root=flowers.root).read().counts(),
        DataPlan(flat, label_from_name=r"^(?P<label>[a-z]+)_").read().counts(),
    ]

    assert counts == [flowers.counts()] * 3


def test_parts_and_groups_of_a_table_are_kept_without_being_asked_for(flowers, tmp_path):
    table = tmp_path / "flowers.csv"
    parts = ["training", "validation", "test"]
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(("part", "path", "group", "label"))
        for number, (path, label) in enumerate(zip(flowers.paths, flowers.labels, strict=True)):
            writer.writerow((parts[number % 3], path, f"plant{number % 6}", label))

    split = DataPlan(table, root=flowers.root).prepare().split
    anew = DataPlan(table, root=flowers.root, regroup=True).prepare().split

    assert split.test.paths == flowers.paths[2::3]
    assert set(split.val.groups) == {"plant1", "plant4"}
    assert set(anew.train.groups).isdisjoint(anew.test.groups)
    assert set(anew.test.paths) != set(split.test.paths)


def test_a_part_column_that_means_something_else_says_what_to_do(flowers, tmp_path):
    table = tmp_path / "flowers.csv"
    table.write_text(f"path,label,part\n{flowers.paths[0]},rose,petal\n")

    with pytest.raises(DataError, match="another name") as refused:
        DataPlan(table, root=flowers.root).read()

    assert "petal" in str(refused.value)


def test_a_table_whose_pictures_lie_elsewhere_is_refused(flowers, tmp_path):
    table = tmp_path / "gone.csv"
    table.write_text("path,label\nno/such.jpg,rose\n")

    with pytest.raises(DataError) as refused:
        DataPlan(table).read()

    assert "such.jpg" in str(refused.value)


def test_learning_from_fewer_pictures_takes_them_from_the_training_part_only(flowers):
    prepared = DataPlan(flowers.root, per_class=2).prepare()

    assert set(prepared.train.paths) < set(prepared.split.train.paths)
    assert len(prepared.train) == 6


def test_every_picture_is_decoded_once_for_check_and_split(flowers, monkeypatch):
    decoded = []
    inspect_all = checks.inspect_all

    def counted(paths, *arguments, **options):
        decoded.extend(paths)
        return inspect_all(paths, *arguments, **options)

    monkeypatch.setattr(checks, "inspect_all", counted)
    prepared = DataPlan(flowers.root).prepare()

    assert sorted(decoded) == sorted(flowers.paths)
    assert prepared.report.counts["test"] == prepared.split.test.counts()


def test_look_alikes_do_not_stand_on_both_sides(tmp_path):
    from PIL import Image

    data = make_flowers(tmp_path, species=2, per_class=12, size=96)
    for path in data.paths[:12]:
        with Image.open(path) as picture:
            picture.save(path.with_name(f"again_{path.name}"), quality=60)

    prepared = DataPlan(tmp_path, seed=2).prepare()

    assert prepared.report.near_duplicates
    part_of = {
        name: part
        for part, dataset in prepared.split.parts().items()
        for name in dataset.relative_paths()
    }
    for group in prepared.report.near_duplicates:
        assert len({part_of[name] for name in group}) == 1


def test_bad_pictures_are_skipped_only_on_request_and_up_to_a_share(tmp_path):
    make_flowers(tmp_path, species=2, per_class=10, size=48)
    (tmp_path / "daisy" / "bad.jpg").write_bytes(b"not a picture")

    with pytest.raises(BadImagesError):
        DataPlan(tmp_path).prepare()
    with pytest.raises(BadImagesError):
        DataPlan(tmp_path, skip_bad=True).prepare()
    prepared = DataPlan(tmp_path, skip_bad=True, max_bad=0.1).prepare()

    assert sum(map(len, prepared.split.parts().values())) == 20
    assert len(prepared.report.bad) == 1


@pytest.mark.parametrize("shares", [{}, {"val": 0.0}, {"test": 0.0}], ids=str)
def test_a_written_split_is_repeated_exactly(tmp_path, shares):
    photos = make_flowers(tmp_path / "photos", species=2, per_class=8, size=16).root
    written = DataPlan(photos, seed=3, **shares).prepare().split
    written.write(tmp_path / "split")
    table = tmp_path / "split" / "split.csv"

    again = DataPlan(table, root=photos).prepare().split
    anew = DataPlan(table, root=photos, regroup=True).prepare().split

    assert again.hash == written.hash
    assert {name: len(part) for name, part in anew.parts().items() if not len(part)} == {}


def test_a_table_without_our_columns_says_what_to_call_them(tmp_path):
    (tmp_path / "table.csv").write_text("file,species\na.jpg,rose\n")

    with pytest.raises(DataError, match="rename them to path and label"):
        DataPlan(tmp_path / "table.csv").read()
