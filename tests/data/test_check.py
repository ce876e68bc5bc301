"""A check says everything that is wrong with a data set at once, and little when it is sound."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.data.check import check, usable
from regraft.data.dataset import Dataset, Split
from regraft.data.synthetic import make_flowers
from regraft.errors import BadImagesError, UsageError


def photograph(seed, size=(96, 72)):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def saved(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(seed, quality=90):
    return saved(photograph(seed), "JPEG", quality=quality)


@pytest.fixture
def data(tmp_path):
    """Make a data set from contents by file name; ``label/name`` gives the class."""

    def make(contents, **columns):
        root = tmp_path / "data"
        for name, content in contents.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        labels = tuple(name.split("/")[0] for name in contents)
        paths = tuple(root / name for name in contents)
        return Dataset(paths, labels, tuple(sorted(set(labels))), root=root, **columns)

    return make


def sound(per_class=4, classes="ab", start=0):
    return {
        f"{label}/{number}.jpg": jpeg(start + 100 * place + number)
        for place, label in enumerate(classes)
        for number in range(per_class)
    }


def finding(report, code):
    (found,) = [finding for finding in report.findings if finding.code == code]
    return found


def codes(report):
    return [finding.code for finding in report.findings]


def test_a_sound_data_set_has_no_findings(data):
    report = check(data(sound()))

    assert report.findings == ()
    assert report.bad == ()
    assert report.counts == {"all": {"a": 4, "b": 4}}
    assert report.to_text() == "8 images, nothing to report"


def test_all_bad_files_are_reported_at_once_in_one_finding(data):
    contents = sound() | {
        "a/cut.jpg": jpeg(50)[:500],
        "a/empty.jpg": b"",
        "b/page.jpg": b"<html>404</html>",
    }
    dataset = data(contents)
    dataset.paths[0].unlink()

    report = check(dataset)

    assert {Path(error.path).name: error.code for error in report.bad} == {
        "0.jpg": "IMG-UNREADABLE",
        "cut.jpg": "IMG-TRUNCATED",
        "empty.jpg": "IMG-EMPTY",
        "page.jpg": "IMG-NOT-AN-IMAGE",
    }
    assert codes(report) == ["DATA-BAD-IMAGES"]
    assert "4 images of 11" in report.findings[0].message
    assert report.counts["all"] == {"a": 3, "b": 4}


def test_copies_within_a_class_are_a_note(data):
    report = check(data(sound() | {"a/copy.jpg": jpeg(0)}))

    assert finding(report, "DATA-DUPLICATES").severity == "note"
    assert report.duplicates == (("a/0.jpg", "a/copy.jpg"),)
    assert report.near_duplicates == ()


def test_copies_in_two_classes_are_an_error(data):
    report = check(data(sound() | {"b/copy.jpg": jpeg(0)}))

    assert finding(report, "DATA-CONFLICT").severity == "error"
    assert "a/0.jpg = b/copy.jpg" in finding(report, "DATA-CONFLICT").message
    assert "DATA-DUPLICATES" not in codes(report)


def test_an_image_saved_again_is_a_near_duplicate(data):
    report = check(data(sound() | {"a/again.jpg": jpeg(0, quality=40)}))

    assert report.near_duplicates == (("a/0.jpg", "a/again.jpg"),)
    assert finding(report, "DATA-NEAR-DUPLICATES").severity == "warning"


def test_copies_and_look_alikes_across_classes_and_parts_are_told(data):
    contents = sound() | {"a/copy.jpg": jpeg(1), "b/again.jpg": jpeg(0, quality=40)}
    parts = ("train", "train", "val", "test") * 2 + ("test", "test")

    report = check(data(contents, parts=parts))

    assert finding(report, "DATA-LEAK").severity == "error"
    assert "1 in train and test" in finding(report, "DATA-LEAK").message
    assert finding(report, "DATA-NEAR-CONFLICT").severity == "warning"
    assert "1 in train and test" in finding(report, "DATA-NEAR-LEAK").message
    assert "DATA-NEAR-DUPLICATES" not in codes(report)


def test_what_the_source_has_left_out_is_told(data):
    found = finding(
        check(data(sound(), notes=("left out: .txt: not an image (1)",))), "DATA-SOURCE"
    )

    assert (found.severity, found.message) == ("note", "left out: .txt: not an image (1)")


def test_the_distance_of_near_duplicates_can_be_chosen(data):
    dataset = data(sound() | {"a/again.jpg": jpeg(0, quality=40)})

    assert check(dataset, near_distance=0).near_duplicates == ()
    with pytest.raises(UsageError):
        check(dataset, near_distance=-1)


def test_flat_images_are_told_apart_and_collide_with_nothing(data):
    flat = {
        f"a/{level}.png": saved(Image.new("RGB", (50, 50), (level,) * 3)) for level in (0, 100, 200)
    }

    report = check(data(sound() | flat))

    assert report.notes == {"NOTE-FLAT": 3}
    assert report.near_duplicates == ()


def test_classes_too_small_for_a_split_are_named_with_the_least_number(data):
    report = check(data(sound() | {"tiny/1.jpg": jpeg(900), "tiny/2.jpg": jpeg(901)}))

    found = finding(report, "DATA-FEW")
    assert found.severity == "error"
    assert "tiny (2)" in found.message
    assert "least number needed: 3" in found.message


@settings(max_examples=40, derandomize=True, database=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=6))
def test_findings_about_class_sizes_follow_from_the_counts(tmp_path_factory, sizes):
    file = tmp_path_factory.mktemp("one") / "x.jpg"
    file.write_bytes(jpeg(0))
    classes = tuple(f"class{number}" for number in range(len(sizes)))
    labels = tuple(name for name, size in zip(classes, sizes, strict=True) for _ in range(size))
    for number in range(len(labels)):
        (file.parent / f"{number}.jpg").hardlink_to(file)
    paths = tuple(file.parent / f"{number}.jpg" for number in range(len(labels)))

    found = set(codes(check(Dataset(paths, labels, classes))))

    present = [size for size in sizes if size]
    assert ("DATA-FEW" in found) == (min(sizes) < 3)
    assert ("DATA-IMBALANCE" in found) == bool(present and max(present) >= 3 * min(present))


def test_imbalance_is_a_warning_with_ratio_and_majority(data):
    report = check(data(sound(classes="a", per_class=12) | sound(classes="b", start=500)))

    found = finding(report, "DATA-IMBALANCE")
    assert found.severity == "warning"
    assert "3.0 times" in found.message
    assert "12 of 16" in found.message


def test_a_class_missing_in_a_part_is_named(data):
    parts = ("train", "train", "val", "test", "train", "train", "val", "val")

    report = check(data(sound(), parts=parts))

    found = finding(report, "DATA-CLASS-MISSING")
    assert found.severity == "warning"
    assert found.message == "test has no usable image of 1 class: b"


def test_a_split_without_validation_needs_no_more_than_one_image_to_learn_from(data):
    every = data(sound(per_class=2))

    report = check(Split(every.take([0, 2]), every.take([]), every.take([1, 3])))

    assert report.findings == ()
    assert list(report.counts) == ["train", "test"]


def test_a_group_in_two_parts_is_an_error(data):
    groups = ("anna", "bob", "carl", "anna", "", "", "", "")
    parts = ("train", "train", "val", "test") * 2

    report = check(data(sound(), groups=groups, parts=parts))

    found = finding(report, "DATA-GROUP-LEAK")
    assert found.severity == "error"
    assert "1 group stands" in found.message
    assert "anna" in found.message


def test_odd_kinds_are_counted_as_notes(data):
    ramp = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16)
    odd = {
        "a/deep.png": saved(ramp),
        "a/grey.jpg": saved(photograph(70).convert("L"), "JPEG"),
        "a/clear.png": saved(photograph(71).convert("RGBA"), "PNG"),
        "a/print.jpg": saved(photograph(72).convert("CMYK"), "JPEG"),
        "a/really-a-png.jpg": saved(photograph(73), "PNG"),
        "a/tiny.png": saved(photograph(74, (10, 10)), "PNG"),
    }

    report = check(data(sound(per_class=5) | odd))

    assert {found.severity for found in report.findings} == {"note"}
    assert {"NOTE-16BIT", "NOTE-ALPHA", "NOTE-CMYK", "NOTE-EXTENSION", "NOTE-TINY"} <= set(
        codes(report)
    )
    assert "2 of 16" in finding(report, "NOTE-GREY").message


def test_the_report_is_written_as_json_and_csv(data, tmp_path):
    contents = sound() | {"a/=cut, 1.jpg": jpeg(50)[:500], "a/copy.jpg": jpeg(0)}
    report = check(data(contents))

    report.write(tmp_path / "report")

    written = json.loads((tmp_path / "report" / "check.json").read_text())
    with (tmp_path / "report" / "bad_files.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert written["images"] == 10
    assert written["bad"] == {"IMG-TRUNCATED": 1}
    assert written["duplicates"] == [["a/0.jpg", "a/copy.jpg"]]
    assert [(row["path"], row["class"], row["code"]) for row in rows] == [
        ("a/=cut, 1.jpg", "a", "IMG-TRUNCATED")
    ]


def test_a_report_of_odd_names_can_be_written_and_shown(data, tmp_path):
    name = os.fsdecode(b"a/\xff\n<script>.jpg")
    report = check(data(sound() | {name: b"", "a/é.jpg": b""}))

    report.write(tmp_path / "report")

    assert json.loads((tmp_path / "report" / "check.json").read_text())["bad"] == {"IMG-EMPTY": 2}
    assert "\n<script>" not in report.to_text()
    report.to_text().encode()


def test_nothing_is_written_into_the_data_folder(data):
    dataset = data(sound(per_class=3))
    folders = [dataset.root, *dataset.root.iterdir()]
    for folder in folders:
        folder.chmod(0o555)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(dataset.root.rglob("*"))]

    check(dataset)

    after = [(path, path.stat().st_mtime_ns) for path in sorted(dataset.root.rglob("*"))]
    for folder in folders:
        folder.chmod(0o755)
    assert after == before


def test_lines_of_c_libraries_do_not_reach_the_terminal(tmp_path):
    file = tmp_path / "x.tif"
    noise = np.random.default_rng(0).integers(0, 2, (60, 60)).astype(bool)
    Image.fromarray(noise).save(file, compression="group4")
    damaged = bytearray(file.read_bytes())
    damaged[300:600:7] = bytes(byte ^ 0x5A for byte in damaged[300:600:7])
    file.write_bytes(damaged)

    def stderr_of(call):
        imports = "from regraft.data import check, dataset, images"
        command = [sys.executable, "-c", f"import sys; {imports}; {call}", str(file)]
        return subprocess.run(command, capture_output=True, timeout=60, check=True).stderr

    heard = stderr_of("images.inspect(sys.argv[1])")
    silenced = stderr_of("check.check(dataset.Dataset((sys.argv[1],), ('a',), ('a',)))")

    assert b"Fax4Decode" in heard
    assert silenced == b""


@pytest.fixture
def with_one_bad(data):
    dataset = data(sound(per_class=60, classes="ab") | {"a/cut.jpg": jpeg(50)[:500]})
    return dataset, check(dataset)


def test_bad_images_stop_by_default_and_what_has_none_stays_what_it_is(with_one_bad):
    dataset, report = with_one_bad
    sound_ones = dataset.take(range(120))

    with pytest.raises(BadImagesError, match="--skip-bad") as caught:
        usable(dataset, report)

    assert [error.code for error in caught.value.errors] == ["IMG-TRUNCATED"]
    assert usable(sound_ones, report) is sound_ones


def test_on_request_bad_images_are_left_out(with_one_bad):
    dataset, report = with_one_bad

    kept = usable(dataset, report, skip_bad=True)

    assert len(kept) == 120
    assert not [path for path in kept.paths if path.name == "cut.jpg"]
    assert "1 image of 121 cannot be used (1 IMG-TRUNCATED): a/cut.jpg" in report.to_text()


def test_more_bad_images_than_allowed_stop_all_the_same(with_one_bad):
    dataset, report = with_one_bad

    with pytest.raises(BadImagesError, match=r"max_bad=0\.001"):
        usable(dataset, report, skip_bad=True, max_bad=0.001)


def test_a_whole_class_is_never_lost(data):
    dataset = data(sound(per_class=9) | {"c/only.jpg": b""})

    with pytest.raises(BadImagesError, match="no image would be left of: c"):
        usable(dataset, check(dataset), skip_bad=True, max_bad=1.0)


@pytest.mark.parametrize("folder", ["flowers17", "hymenoptera"])
def test_real_photographs_raise_no_false_alarm(assets, folder):
    report = check(Dataset.from_folder(assets / "data" / folder))

    assert report.bad == ()
    assert not [found for found in report.findings if found.severity == "error"]


@pytest.mark.slow
def test_radiographs_are_not_all_taken_for_the_same(assets):
    report = check(Dataset.from_folder(assets / "data" / "chest_xray"))

    assert report.bad == ()
    assert len(report.near_duplicates) < 10


def test_a_checked_split_is_not_decoded_again(tmp_path, monkeypatch):

    data = make_flowers(tmp_path, species=2, per_class=8, size=32)
    report = check(data)
    split = report.hashed(data).split()
    monkeypatch.setattr("regraft.data.duplicates.inspect", None)

    again = report.across(split)

    assert again.counts["test"] == split.test.counts()


def test_a_check_hands_over_the_hashes_that_it_has_read(tmp_path):

    data = make_flowers(tmp_path, species=2, per_class=2, size=32)
    expected = data.hashes()
    fresh = Dataset.from_folder(tmp_path)
    report = check(fresh)
    for path in fresh.paths:
        path.unlink()

    assert report.hashed(fresh).hashes() == expected


def test_every_group_in_two_parts_is_named_and_bad_images_count_for_none(data, tmp_path):
    contents = sound() | {"a/cut.jpg": b""}
    groups = ("anna", "bob", "carl", "anna", "dora", "", "dora", "", "bob")
    report = check(data(contents, groups=groups))
    every = data(contents, groups=groups)

    report = report.across(Split(every.take([0, 1, 4]), every.take([2, 5]), every.take([3, 6, 7])))
    report.write(tmp_path)

    found = finding(report, "DATA-GROUP-LEAK")
    assert found.message == "2 groups stand in several parts (2 in train and test): anna, dora"
    written = json.loads((tmp_path / "check.json").read_text())["findings"]
    assert [entry["names"] for entry in written if entry["names"]] == [["anna", "dora"]]


def plants():
    """Return images of twelve plants of two classes, three of each."""
    return {
        f"{label}/p{label}{i // 3}_{i}.jpg": jpeg(100 * ord(label) + i)
        for label in "ab"
        for i in range(18)
    }


def test_groups_that_nobody_named_are_proposed_with_those_in_two_parts(data):
    parts = tuple("test" if i % 18 in {0, 1, 4} else "train" for i in range(36))

    uncut, cut = check(data(plants())), check(data(plants(), parts=parts))

    assert finding(uncut, "DATA-LIKELY-GROUPS").names == ()
    found = finding(cut, "DATA-LIKELY-GROUPS")
    assert found.severity == "warning"
    assert "4 groups stand in several parts (4 in train and test): pa0, pa1, pb0" in found.message
    assert "--group-by 'pa[0-9]+|pb[0-9]+'" in found.advice
    assert found.names == ("pa0", "pa1", "pb0", "pb1")


def test_likely_groups_that_a_split_keeps_apart_are_not_worth_a_word(data):
    every = data(plants())
    apart = {i for i in range(36) if i % 18 < 3}

    report = check(Split(every.take(set(range(36)) - apart), every.take([]), every.take(apart)))

    assert report.findings == ()


def test_leaked_images_are_copies_look_alikes_and_members_of_groups_of_an_earlier_part(data):
    contents = sound() | {"a/copy.jpg": jpeg(0), "b/again.jpg": jpeg(101, quality=40)}
    groups = ("", "", "", "anna", "", "", "", "anna", "", "")
    every = data(contents, groups=groups)
    names = every.relative_paths()
    learned = [names.index(name) for name in ("a/0.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg")]
    held = [names.index(name) for name in ("a/3.jpg", "b/0.jpg")]
    rest = sorted(set(range(len(names))) - {*learned, *held})

    report = check(Split(every.take(learned), every.take(held), every.take(rest)))

    assert report.leaked() == ("b/3.jpg", "a/copy.jpg", "b/again.jpg")
    assert report.leaked("val") == ()


@pytest.mark.slow
def test_the_patients_of_the_chest_x_rays_in_both_parts_are_found_and_named(assets):
    every = Dataset.from_folder(assets / "data" / "chest_xray")
    report = check(every)
    kept = every.split(group_by=r"person\d+", keep_parts=True, val=0)
    apart = every.split(group_by=r"person\d+", regroup=True)

    likely = finding(report, "DATA-LIKELY-GROUPS")
    torn = finding(report.across(kept), "DATA-GROUP-LEAK")

    assert "170 groups stand in several parts (170 in train and test): person1" in likely.message
    assert torn.names == likely.names
    assert len(torn.names) == 170
    assert len(report.across(kept).leaked()) == 320
    assert report.across(apart).leaked() == ()
    assert "DATA-GROUP-LEAK" not in codes(report.across(apart))
