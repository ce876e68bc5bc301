"""A check says everything that is wrong with a data set at once, and little when it is sound."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data.check import check, usable
from regraft.data.dataset import Dataset, Split
from samples import photograph, refused, saved


def jpeg(seed, quality=90):
    return saved(photograph(seed, (96, 72)), "JPEG", quality=quality)


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


def test_a_sound_data_set_has_no_findings_but_what_its_source_has_said(data):
    report = check(data(sound(), notes=("left out: .txt: not an image (1)",)))
    every = data(sound(per_class=2))

    split = check(Split(every.take([0, 2]), every.take([]), every.take([1, 3])))

    [found] = report.findings
    assert (found.severity, found.message) == ("note", "left out: .txt: not an image (1)")
    assert report.counts == {"all": {"a": 4, "b": 4}}
    assert split.to_text() == "4 images, nothing to report"
    assert list(split.counts) == ["train", "test"]


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


@pytest.mark.parametrize(
    ("name", "code", "severity"),
    [
        ("a/copy.jpg", "DATA-DUPLICATES", "note"),
        ("b/copy.jpg", "DATA-CONFLICT", "error"),
        ("a/again.jpg", "DATA-NEAR-DUPLICATES", "warning"),
        ("b/again.jpg", "DATA-NEAR-CONFLICT", "warning"),
    ],
)
def test_a_copy_or_look_alike_is_told_by_where_it_stands(data, name, code, severity):
    content = jpeg(0, quality=40 if "again" in name else 90)

    report = check(data(sound() | {name: content}))

    assert codes(report) == [code]
    assert report.findings[0].severity == severity
    assert f"a/0.jpg = {name}" in report.findings[0].message
    found = [("a/0.jpg", name)]
    assert [list(report.duplicates), list(report.near_duplicates)] == (
        [[], found] if "again" in name else [found, []]
    )


def test_copies_and_look_alikes_across_classes_and_parts_are_told(data):
    contents = sound() | {"a/copy.jpg": jpeg(1), "b/again.jpg": jpeg(0, quality=40)}
    parts = ("train", "train", "val", "test") * 2 + ("test", "test")

    report = check(data(contents, parts=parts))

    assert finding(report, "DATA-LEAK").severity == "error"
    assert "1 in train and test" in finding(report, "DATA-LEAK").message
    assert finding(report, "DATA-NEAR-CONFLICT").severity == "warning"
    assert "1 in train and test" in finding(report, "DATA-NEAR-LEAK").message
    assert "DATA-NEAR-DUPLICATES" not in codes(report)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((3, 8), ()),
        ((3, 9), ("DATA-IMBALANCE", "warning", "3.0 times", "9 of 12")),
        ((2, 3), ("DATA-FEW", "error", "a (2)", "least number needed: 3")),
        ((0, 1), ("DATA-FEW", "error", "a (0)", "least number needed: 3")),
    ],
)
def test_findings_about_class_sizes_follow_from_the_counts(data, sizes, told):
    every = data(sound(per_class=9))

    report = check(every.take([*range(sizes[0]), *range(9, 9 + sizes[1])]))

    assert codes(report) == list(told[:1])
    for found in report.findings:
        assert found.severity == told[1]
        assert all(words in found.message for words in told[2:])


def test_a_class_missing_in_a_part_is_named(data):
    parts = ("train", "train", "val", "test", "train", "train", "val", "val")

    report = check(data(sound(), parts=parts))

    found = finding(report, "DATA-CLASS-MISSING")
    assert found.severity == "warning"
    assert found.message == "test has no usable image of 1 class: b"


def test_odd_kinds_are_counted_as_notes_and_flat_images_collide_with_nothing(data):
    ramp = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16)
    odd = {
        "a/deep.png": saved(ramp),
        "a/grey.jpg": saved(photograph(70).convert("L"), "JPEG"),
        "a/clear.png": saved(photograph(71).convert("RGBA")),
        "a/print.jpg": saved(photograph(72).convert("CMYK"), "JPEG"),
        "a/tiny.png": saved(photograph(74, (10, 10))),
        **{f"b/{v}.png": saved(Image.new("RGB", (50, 50), (v, v, v))) for v in (0, 99)},
    }

    report = check(data(sound(per_class=5) | odd))

    assert {found.severity for found in report.findings} == {"note"}
    assert {"NOTE-16BIT", "NOTE-ALPHA", "NOTE-CMYK", "NOTE-TINY"} <= set(codes(report))
    assert "2 of 17" in finding(report, "NOTE-GREY").message
    assert report.notes["NOTE-FLAT"] == 4
    assert report.near_duplicates == ()


def test_the_report_is_written_as_json_and_csv(data, tmp_path):
    odd = os.fsdecode(b"b/\xff\n<script>.jpg")
    contents = sound() | {"a/=cut, 1.jpg": jpeg(50)[:500], "a/copy.jpg": jpeg(0), odd: b""}
    report = check(data(contents))

    report.write(tmp_path / "report")

    written = json.loads((tmp_path / "report" / "check.json").read_text())
    with (tmp_path / "report" / "bad_files.csv").open(newline="", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    assert written["images"] == 11
    assert written["bad"] == {"IMG-TRUNCATED": 1, "IMG-EMPTY": 1}
    assert written["duplicates"] == [["a/0.jpg", "a/copy.jpg"]]
    named = [(row["path"], row["class"], row["code"]) for row in rows]
    assert named[0] == ("a/=cut, 1.jpg", "a", "IMG-TRUNCATED")
    assert [code for *_, code in named[1:]] == ["IMG-EMPTY"]
    assert "\n<script>" not in report.to_text()
    report.to_text().encode()


def test_nothing_is_written_into_the_data_folder(data):
    dataset = data(sound(per_class=3))

    def there():
        return {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*")}

    before = there()
    check(dataset)

    assert there() == before


def test_lines_of_c_libraries_do_not_reach_the_terminal(tmp_path):
    file = tmp_path / "x.tif"
    noise = np.random.default_rng(0).integers(0, 2, (60, 60)).astype(bool)
    Image.fromarray(noise).save(file, compression="group4")
    damaged = bytearray(file.read_bytes())
    damaged[300:600:7] = bytes(byte ^ 0x5A for byte in damaged[300:600:7])
    file.write_bytes(damaged)

    code = f"""
import sys
from regraft.data import check, dataset, images
check.check(dataset.Dataset(({str(file)!r},), ("a",), ("a",)))
print("checked", file=sys.stderr)
images.inspect({str(file)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    silenced, heard = done.stderr.split("checked\n")
    assert silenced == ""
    assert "Fax4Decode" in heard


def test_bad_images_stop_or_are_left_out_on_request_but_not_too_many(data):
    dataset = data(sound(per_class=60) | {"a/cut.jpg": jpeg(50)[:500], "c/only.jpg": b""})
    report = check(dataset)
    one_bad, fine = dataset.take(range(121)), dataset.take(range(120))

    error = refused(usable, one_bad, report)
    skipped = refused(usable, one_bad, report, skip_bad=True, max_bad=0.001)
    left = refused(usable, dataset, report, skip_bad=True, max_bad=1.0)

    assert [each.code for each in error.errors] == ["IMG-TRUNCATED"]
    assert "--skip-bad" in error.hint
    assert "max_bad=0.001" in skipped.hint
    assert "no image would be left of: c" in str(left)
    assert usable(fine, report) is fine
    assert usable(one_bad, report, skip_bad=True).paths == fine.paths
    assert "2 images of 122 cannot be used" in report.to_text()


def test_a_check_hands_over_the_hashes_that_it_has_read(data):
    fresh = data(sound(per_class=2))
    expected, report = data(sound(per_class=2)).hashes(), check(fresh)
    for path in fresh.paths:
        path.unlink()

    assert report.hashed(fresh).hashes() == expected


def test_real_photographs_raise_no_false_alarm(assets):
    report = check(Dataset.from_folder(assets / "data" / "hymenoptera"))

    assert report.bad == ()
    assert not [found for found in report.findings if found.severity == "error"]


def test_a_split_is_looked_at_without_decoding_again_and_every_torn_group_is_named(
    data, tmp_path, monkeypatch
):
    contents = sound() | {"a/cut.jpg": b""}
    groups = ("anna", "bob", "carl", "anna", "dora", "", "dora", "", "bob")
    every = data(contents, groups=groups)
    report = check(every)
    monkeypatch.setattr("regraft.data.duplicates.inspect", None)

    report = report.across(Split(every.take([0, 1, 4]), every.take([2, 5]), every.take([3, 6, 7])))
    report.write(tmp_path)

    found = finding(report, "DATA-GROUP-LEAK")
    assert found.severity == "error"
    assert found.message == "2 groups stand in several parts (2 in train and test): anna, dora"
    assert report.counts["test"] == {"a": 1, "b": 2}
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

    every, cut = data(plants()), check(data(plants(), parts=parts))
    apart = {i for i in range(36) if i % 18 < 3}
    kept = Split(every.take(set(range(36)) - apart), every.take([]), every.take(apart))

    assert finding(check(every), "DATA-LIKELY-GROUPS").names == ()
    assert check(kept).findings == ()
    found = finding(cut, "DATA-LIKELY-GROUPS")
    assert found.severity == "warning"
    assert "4 groups stand in several parts (4 in train and test): pa0, pa1, pb0" in found.message
    assert "--group-by 'pa[0-9]+|pb[0-9]+'" in found.advice
    assert found.names == ("pa0", "pa1", "pb0", "pb1")


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

    assert report.bad == ()
    assert len(report.near_duplicates) < 10  # radiographs are not all taken for the same
    likely = finding(report, "DATA-LIKELY-GROUPS")
    torn = finding(report.across(kept), "DATA-GROUP-LEAK")

    assert "170 groups stand in several parts (170 in train and test): person1" in likely.message
    assert torn.names == likely.names
    assert len(torn.names) == 170
    assert len(report.across(kept).leaked()) == 320
    assert report.across(apart).leaked() == ()
    assert "DATA-GROUP-LEAK" not in codes(report.across(apart))
