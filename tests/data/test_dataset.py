"""The data set: a value that never changes, and subsets that are exact and nested."""

import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.dataset import Dataset
from samples import refused

sizes = st.lists(st.integers(1, 30), min_size=2, max_size=6)


def dataset(class_sizes):
    """Return a data set with these numbers of images that need not exist."""
    rows = [(f"c{k}/{i}.jpg", f"c{k}") for k, size in enumerate(class_sizes) for i in range(size)]
    classes = tuple(f"c{k}" for k in range(len(class_sizes)))
    paths, labels = zip(*rows, strict=True)
    return Dataset(paths, labels, classes)


def test_it_survives_pickling_and_can_be_compared_and_hashed():
    data = dataset([2, 1])

    assert pickle.loads(pickle.dumps(data)) == data
    assert len({data, dataset([2, 1])}) == 1
    assert Dataset(list(data.paths), list(data.labels), ["c0", "c1"]) == data


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((("a",), ("x", "y"), ("x", "y")), "DATA-INVALID"),
        ((("a",), ("z",), ("x", "y")), "DATA-CLASSES"),
        ((("a",), ("x",), ("x", "x")), "DATA-CLASSES"),
        ((("a", "a"), ("x", "y"), ("x", "y")), "DATA-TWICE"),
        ((("a",), ("x",), ("x",), None, None, ("dev",)), "DATA-PARTS"),
    ],
)
def test_contradictions_are_refused(arguments, code):
    assert refused(Dataset, *arguments).code == code


@pytest.mark.parametrize("value", [0, np.int64(3), None])
@pytest.mark.parametrize("column", ["labels", "classes", "groups", "parts"])
def test_numbers_and_gaps_are_refused_where_names_belong(column, value):
    columns = {"labels": ("x", "x"), "classes": ("x",), "groups": ("g", "h")}
    columns["parts"] = ("train", "test")

    error = refused(Dataset, ("a", "b"), **columns | {column: (columns[column][0], value)})

    assert error.code == "DATA-NOT-TEXT"
    assert f"{column} are texts" in str(error)
    assert "str()" in error.hint


@pytest.mark.parametrize("path", ["a/1.jpg", "/other/a/1.jpg"])
def test_a_path_that_is_not_below_the_root_is_named(path):
    error = refused(Dataset((path,), ("a",), ("a",), root=Path("/d")).relative_paths)

    assert (error.code, error.path) == ("DATA-OUTSIDE", path)


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_each_file_is_read_once_also_for_data_sets_taken_from_it(folder, monkeypatch):
    reads = []
    monkeypatch.setattr(
        "regraft.data.dataset.sha256_file", lambda path: reads.append(path) or path.name * 32
    )
    data = Dataset.from_folder(folder)

    data.hashes()
    data.hashes()
    data.take([0]).hashes()
    data.subset(per_class=1).hashes()

    assert len(reads) == 3


def test_files_that_cannot_be_read_are_all_named_and_a_pipe_does_not_block(folder):
    os.mkfifo(folder / "a" / "pipe.jpg")
    (folder / "b" / "gone.jpg").symlink_to("nowhere.jpg")

    errors = refused(Dataset.from_folder(folder).hashes).errors

    assert [Path(error.path).name for error in errors] == ["pipe.jpg", "gone.jpg"]
    assert {error.code for error in errors} == {"IMG-UNREADABLE"}


@given(sizes, st.integers(0, 3), st.integers(1, 40), st.integers(1, 40))
def test_per_class_is_exact_or_at_most_that_and_nested(class_sizes, seed, one, other):
    images = dataset(class_sizes)
    few, many = sorted((one, other))

    large = images.subset(per_class=many, at_most=True, seed=seed)
    small = images.subset(per_class=few, at_most=True, seed=seed)

    assert large.counts() == {name: min(n, many) for name, n in images.counts().items()}
    assert set(small.paths) <= set(large.paths)
    if few <= min(class_sizes):
        assert images.subset(per_class=few, seed=seed).paths == small.paths


@given(sizes, st.integers(0, 3), st.data())
def test_size_is_exact_nested_and_in_proportion(class_sizes, seed, data):
    images = dataset(class_sizes)
    many = data.draw(st.integers(len(class_sizes), len(images)))
    few = data.draw(st.integers(len(class_sizes), many))

    large = images.subset(size=many, seed=seed)
    small = images.subset(size=few, seed=seed)

    assert len(large) == many
    assert len(small) == few
    assert set(small.paths) <= set(large.paths)
    assert min(small.counts().values()) >= 1


@given(sizes, st.floats(0.3, 1))
def test_a_fraction_is_the_size_it_rounds_to(class_sizes, fraction):
    images = dataset([size + 10 for size in class_sizes])

    part = images.subset(fraction=fraction)

    assert abs(len(part) - fraction * len(images)) <= 0.5
    for name, count in part.counts().items():
        assert abs(count - fraction * images.counts()[name]) < 2


def test_a_subset_does_not_depend_on_the_order_of_images_and_keeps_it():
    images = dataset([20, 30])

    part = images.subset(size=17, seed=1)

    assert set(images.take(range(49, -1, -1)).subset(size=17, seed=1).paths) == set(part.paths)
    assert list(part.paths) == [path for path in images.paths if path in set(part.paths)]
    assert set(images.subset(size=17, seed=2).paths) != set(part.paths)


REFUSED = {
    "DATA-SUBSET": ({"per_class": 3}, {"size": 6}, {"size": 1}, {"fraction": 0.1}),
    "USAGE": (
        *({}, {"per_class": 0}, {"fraction": 0.0}, {"fraction": 1.2}),
        *({"size": 2, "per_class": 1}, {"size": 2, "at_most": True}),
    ),
}


@pytest.mark.parametrize(("code", "options"), [(c, o) for c, all_ in REFUSED.items() for o in all_])
def test_what_makes_no_sense_or_is_not_possible_exactly_is_refused(code, options):
    assert refused(dataset([2, 3]).subset, **options).code == code


def test_a_subset_says_how_large_it_is_and_which_classes_have_fewer():
    part = dataset([30, 4]).subset(per_class=10, at_most=True)

    assert part.notes == ("14 of 34 images, at most 10 of each class; fewer of c1 4",)
    assert dataset([30, 4]).subset(size=9).notes == ("9 of 34 images",)


def test_groups_are_those_of_a_column_or_of_a_pattern_and_neither_may_be_missing():
    data = dataset([2, 1])
    known = dataclasses.replace(data, groups=("ann", "ann", ""))

    assert known.grouped("column") is known
    assert data.grouped(None) is data
    assert data.grouped(r"c\d").groups == ("c0", "c0", "c1")
    assert refused(data.grouped, "column").code == "SPLIT-GROUP-COLUMN"
    assert refused(data.grouped, "person").code == "SPLIT-GROUP-PATTERN"
