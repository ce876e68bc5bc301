"""A split on disk: it comes back as it was, or says what is wrong with it."""

import csv
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft.data.dataset import Dataset, Split
from regraft.data.manifest import (
    Facts,
    Row,
    is_manifest,
    manifest_hash,
    read_manifest,
    write_manifest,
)
from samples import refused


@pytest.fixture
def images(tmp_path):
    """Return a folder of two classes of eight made-up images, some with awkward names."""
    root = tmp_path / "images"
    odd = ["=1+1", "-x", "@y", "'q", "a,b", 'c"d', "e\nf", os.fsdecode(b"\xff")]
    for name in ("rose", "=cmd()"):
        (root / name).mkdir(parents=True)
        for stem in odd:
            (root / name / f"{stem}.jpg").write_bytes(f"{name}{stem}".encode("utf-8", "replace"))
    (root / "rose" / f"{odd[-1]}.jpg").write_bytes(b"unlike the others")
    return root


@pytest.fixture
def written(images, tmp_path):
    """Return the folder of a written split."""
    Dataset.from_folder(images).split().write(tmp_path / "split")
    return tmp_path / "split"


def write(folder, *rows):
    """Write rows as a split whose hash is right."""
    classes = tuple(sorted({row.label for row in rows}))
    facts = Facts(hash=manifest_hash(rows, classes), classes=classes, seed=0)
    write_manifest(folder, rows, facts)


def test_a_split_comes_back_as_it_was(images, written):
    split = Dataset.from_folder(images).split()

    again = Split.read(written, root=images)

    assert again.hash == split.hash
    assert again.settings == split.settings
    assert set(again.test.paths) == set(split.test.paths)
    moved = images.rename(images.with_name("moved"))
    assert Split.read(written / "split.csv", root=moved).hash == split.hash
    assert refused(Split.read, written, root=images).code == "SPLIT-FILE-MISSING"
    (moved / "rose" / "a,b.jpg").write_bytes(b"other")
    assert refused(Split.read, written, root=moved).code == "SPLIT-FILE-CHANGED"
    lines = (written / "split.csv").read_bytes().decode(errors="replace").splitlines(keepends=True)
    cells = [cell for row in csv.reader(lines) for cell in row]
    assert cells[:4] == ["path", "sha256", "class", "part"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_the_table_of_a_split_is_known_by_its_header(written, tmp_path):
    (tmp_path / "other.csv").write_text("path,label\n")

    assert is_manifest(written / "split.csv")
    assert not is_manifest(tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (",train", ",test", "SPLIT-HASH"),
        ("path,", "file,", "SPLIT-INVALID"),
        (",train", ",train,more", "SPLIT-INVALID"),
    ],
)
def test_a_changed_table_is_refused(images, written, old, new, code):
    table = written / "split.csv"
    data = table.read_bytes()
    table.write_bytes(data.replace(old.encode(), new.encode(), 1))

    assert refused(Split.read, written, root=images).code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"classes": ["rose", "=cmd()"]}, "SPLIT-HASH"),
        ({"hash": 3}, "SPLIT-INVALID"),
        ({"format": 99}, "SPLIT-INVALID"),
        ("[]", "SPLIT-INVALID"),
        ("{", "FILE-JSON"),
    ],
)
def test_a_changed_description_is_refused(images, written, change, code):
    file = written / "split.json"
    whole = json.loads(file.read_text())
    file.write_text(change if isinstance(change, str) else json.dumps(whole | change))

    assert refused(Split.read, written, root=images).code == code


@pytest.mark.parametrize("name", ["split.csv", "split.json"])
def test_a_missing_half_is_named(images, written, name):
    (written / name).unlink()

    assert refused(Split.read, written, root=images).code == "SPLIT-MISSING"


def test_a_path_that_leads_out_or_an_unknown_part_is_refused_even_with_a_right_hash(
    images, tmp_path
):
    rows = [Row(p, "00", "rose", "train") for p in ("../secret.jpg", "/etc/passwd", "a/../../x")]
    for number, row in enumerate([*rows, Row("x", "00", "rose", "dev")]):
        folder = tmp_path / str(number)
        write(folder, row)

        assert refused(Split.read, folder, root=images).code == "SPLIT-INVALID"


def test_looks_at_the_test_part_are_counted_without_loss(written):
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(Split.count_test_look, [written] * 20))

    assert sorted(counts) == list(range(1, 21))
    assert read_manifest(written)[1].test_looks == 20


def test_writing_the_same_split_again_keeps_the_count_and_another_one_starts_anew(images, written):
    Split.count_test_look(written)

    Dataset.from_folder(images).split().write(written)
    assert read_manifest(written)[1].test_looks == 1

    Dataset.from_folder(images).split(seed=1).write(written)
    assert read_manifest(written)[1].test_looks == 0

    (written / "split.json").write_text("{")
    Dataset.from_folder(images).split(seed=1).write(written)
    assert read_manifest(written)[1].test_looks == 0


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.tuples(text, text), min_size=1, max_size=4))
def test_any_names_survive_the_way_through_the_table(tmp_path, names):
    folder = tmp_path / "any"
    rows = [Row(path, "00", label, "train") for path, label in names]

    write(folder, *rows)

    assert sorted(read_manifest(folder)[0]) == sorted(rows)
    shutil.rmtree(folder)
