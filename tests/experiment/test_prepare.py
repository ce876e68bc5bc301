"""The data part of an experiment: read once, checked once, split without leaks."""

import csv
import shutil

import pytest

from regraft.data import check as checks
from regraft.data.dataset import Split
from regraft.data.synthetic import make_flowers
from regraft.errors import BadImagesError, DataError, RunError, UsageError
from regraft.experiment.config import DataConfig, MethodConfig
from regraft.experiment.prepare import Clock, prepare, read_images, take_amount, write_split


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
        read_images(DataConfig(flowers.root)).counts(),
        read_images(DataConfig(table, root=flowers.root)).counts(),
        read_images(DataConfig(flat, label_from_name=r"^(?P<label>[a-z]+)_")).counts(),
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

    split = prepare(DataConfig(table, root=flowers.root)).split
    anew = prepare(DataConfig(table, root=flowers.root, regroup=True)).split

    assert split.test.paths == flowers.paths[2::3]
    assert set(split.val.groups) == {"plant1", "plant4"}
    assert set(anew.train.groups).isdisjoint(anew.test.groups)
    assert set(anew.test.paths) != set(split.test.paths)


def test_learning_from_fewer_images_takes_them_from_the_training_part_only(flowers):
    train = prepare(DataConfig(flowers.root)).split.train

    few = [take_amount(train, MethodConfig(per_class=2, seed=seed)) for seed in (0, 1)]

    assert set(few[0].paths) < set(train.paths)
    assert [len(part) for part in few] == [6, 6]
    assert few[0].paths != few[1].paths
    assert take_amount(train, MethodConfig()) is train
    assert len(take_amount(train, MethodConfig(size=9))) == 9
    assert len(take_amount(train, MethodConfig(fraction=0.5))) == round(len(train) / 2)


def test_a_clock_runs_from_its_beginning_and_says_how_much_would_have_been_enough(monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 100.0)
    clock = Clock(60, begun=90.0)

    error = clock.too_short(90, "a look")

    assert (clock.spent, clock.left, Clock().left) == (10.0, 50.0, float("inf"))
    assert "a look, takes about 1 min 40 s; the budget is 1 min 0 s" in error.why
    assert error.hint == "give it --budget 120s or more"


def test_a_root_is_where_the_paths_of_a_table_begin_and_nothing_for_a_folder(flowers):
    with pytest.raises(UsageError, match=r"root .--root. does nothing for a folder"):
        read_images(DataConfig(flowers.root, root=flowers.root))


def test_the_folds_test_every_image_once(flowers):
    tested = [
        path
        for fold in range(3)
        for path in prepare(DataConfig(flowers.root, folds=3, fold=fold)).split.test.paths
    ]

    assert sorted(tested) == sorted(flowers.paths)


def test_every_image_is_decoded_once_for_check_and_split(flowers, monkeypatch):
    decoded = []
    inspect_all = checks.inspect_all

    def counted(paths, *arguments, **options):
        decoded.extend(paths)
        return inspect_all(paths, *arguments, **options)

    monkeypatch.setattr(checks, "inspect_all", counted)
    prepared = prepare(DataConfig(flowers.root))

    assert sorted(decoded) == sorted(flowers.paths)
    assert prepared.report.counts["test"] == prepared.split.test.counts()


def test_look_alikes_do_not_stand_on_both_sides(tmp_path):
    from PIL import Image

    data = make_flowers(tmp_path, species=2, per_class=12, size=96)
    for path in data.paths[:12]:
        with Image.open(path) as image:
            image.save(path.with_name(f"again_{path.name}"), quality=60)

    prepared = prepare(DataConfig(tmp_path, seed=2))

    assert prepared.report.near_duplicates
    part_of = {
        name: part
        for part, dataset in prepared.split.parts().items()
        for name in dataset.relative_paths()
    }
    for group in prepared.report.near_duplicates:
        assert len({part_of[name] for name in group}) == 1


def test_bad_images_are_skipped_only_on_request_and_up_to_a_share(tmp_path):
    make_flowers(tmp_path, species=2, per_class=10, size=48)
    (tmp_path / "daisy" / "bad.jpg").write_bytes(b"not a image")

    with pytest.raises(BadImagesError):
        prepare(DataConfig(tmp_path))
    with pytest.raises(BadImagesError):
        prepare(DataConfig(tmp_path, skip_bad=True))
    prepared = prepare(DataConfig(tmp_path, skip_bad=True, max_bad=0.1))

    assert sum(map(len, prepared.split.parts().values())) == 20
    assert len(prepared.report.bad) == 1


@pytest.mark.parametrize("shares", [{}, {"val": 0.0}, {"test": 0.0}], ids=str)
def test_a_written_split_is_repeated_exactly(tmp_path, shares):
    photos = make_flowers(tmp_path / "photos", species=2, per_class=8, size=16).root
    written = prepare(DataConfig(photos, seed=3, **shares)).split
    written.write(tmp_path / "split")
    table = tmp_path / "split" / "split.csv"

    again = prepare(DataConfig(table, root=photos)).split
    anew = prepare(DataConfig(table, root=photos, regroup=True)).split

    assert again.hash == written.hash
    assert {name: len(part) for name, part in anew.parts().items() if not len(part)} == {}


def test_a_split_is_written_once_and_never_over_another_one_or_a_run(flowers, tmp_path):
    written = write_split(DataConfig(flowers.root), tmp_path / "split").split

    again = write_split(DataConfig(flowers.root), tmp_path / "split").split
    with pytest.raises(DataError, match="another split stands here"):
        write_split(DataConfig(flowers.root, seed=1), tmp_path / "split")
    (tmp_path / "split" / "run.json").touch()
    with pytest.raises(RunError, match="a finished run stands here"):
        write_split(DataConfig(flowers.root), tmp_path / "split")

    stored = Split.read(tmp_path / "split", root=flowers.root)
    assert written.hash == again.hash == stored.hash


def test_an_image_that_changes_while_a_run_is_at_work_is_noticed(tmp_path):
    images = make_flowers(tmp_path, species=2, per_class=8, size=48)
    prepared = prepare(DataConfig(tmp_path))
    prepared.refuse_changed_files()
    images.paths[0].write_bytes(b"other")

    with pytest.raises(DataError, match="1 images changed") as refused:
        prepared.refuse_changed_files()

    assert refused.value.code == "DATA-CHANGED"
