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
from regraft.errors import BadImagesError, DataError, UsageError

sizes = st.lists(st.integers(1, 30), min_size=2, max_size=6)


def dataset(class_sizes):
    """Return a data set with these numbers of images that need not exist."""
    rows = [(f"c{k}/{i}.jpg", f"c{k}") for k, size in enumerate(class_sizes) for i in range(size)]
    classes = tuple(f"c{k}" for k in range(len(class_sizes)))
    paths, labels = zip(*rows, strict=True)
    return Dataset(paths, labels, classes)


def shuffled(data, order):
    return data.take(sorted(range(len(data)), key=lambda index: hash((order, index))))


def test_it_never_changes():
    data = dataset([2, 2])

    with pytest.raises(dataclasses.FrozenInstanceError):
        data.labels = ()


def test_it_survives_pickling_and_can_be_compared_and_hashed():
    data = dataset([2, 1])

    assert pickle.loads(pickle.dumps(data)) == data
    assert len({data, dataset([2, 1])}) == 1


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
    with pytest.raises(DataError) as caught:
        Dataset(*arguments)

    assert caught.value.code == code


@pytest.mark.parametrize("value", [0, 1.5, np.int64(3), None])
@pytest.mark.parametrize("column", ["labels", "classes", "groups", "parts"])
def test_numbers_and_gaps_are_refused_where_names_belong(column, value):
    columns = {"labels": ("x", "x"), "classes": ("x",), "groups": ("g", "h")}
    columns["parts"] = ("train", "test")

    with pytest.raises(DataError, match=f"{column} are texts") as caught:
        Dataset(("a", "b"), **columns | {column: (columns[column][0], value)})

    assert caught.value.code == "DATA-NOT-TEXT"
    assert "str()" in caught.value.hint


def test_columns_may_be_lists():
    data = Dataset(["a"], ["x"], ["x"], groups=["g"], parts=["test"])

    assert data == Dataset(("a",), ("x",), ("x",), groups=("g",), parts=("test",))
    assert hash(data)


@pytest.mark.parametrize("path", ["a/1.jpg", "/other/a/1.jpg"])
def test_a_path_that_is_not_below_the_root_is_named(path):
    with pytest.raises(DataError) as caught:
        Dataset((path,), ("a",), ("a",), root=Path("/d")).relative_paths()

    assert caught.value.code == "DATA-OUTSIDE"
    assert caught.value.path == path


def test_paths_are_named_relative_to_the_root():
    data = Dataset(("/d/a/1.jpg",), ("a",), ("a",), root=Path("/d"))

    assert data.relative_paths() == ("a/1.jpg",)
    assert data.take([0]).root == Path("/d")


@pytest.fixture
def folder(tmp_path):
    for name, content in (("a/1.jpg", b"1"), ("a/2.jpg", b"2"), ("b/1.jpg", b"3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_fingerprint_follows_content_labels_and_names_but_not_order_or_place(
    folder, tmp_path_factory
):
    first = Dataset.from_folder(folder)
    fingerprint = first.fingerprint
    moved = folder.rename(tmp_path_factory.mktemp("other") / "moved")

    again = Dataset.from_folder(moved)

    assert again.fingerprint == fingerprint
    assert again.take([2, 0, 1]).fingerprint == fingerprint
    (moved / "a" / "1.jpg").write_bytes(b"changed")
    assert Dataset.from_folder(moved).fingerprint != fingerprint


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

    with pytest.raises(BadImagesError) as caught:
        Dataset.from_folder(folder).hashes()

    assert [Path(error.path).name for error in caught.value.errors] == ["pipe.jpg", "gone.jpg"]
    assert {error.code for error in caught.value.errors} == {"IMG-UNREADABLE"}


@given(sizes, st.integers(0, 3), st.data())
def test_per_class_is_exact_and_nested(class_sizes, seed, data):
    images = dataset(class_sizes)
    many = data.draw(st.integers(1, min(class_sizes)))
    few = data.draw(st.integers(1, many))

    large = images.subset(per_class=many, seed=seed)
    small = images.subset(per_class=few, seed=seed)

    assert set(large.counts().values()) == {many}
    assert set(small.counts().values()) == {few}
    assert set(small.paths) <= set(large.paths)


@given(sizes, st.integers(1, 40))
def test_at_most_so_many_of_each_class_takes_all_of_a_smaller_one(class_sizes, most):
    images = dataset(class_sizes)

    part = images.subset(per_class=most, at_most=True)

    assert part.counts() == {name: min(n, most) for name, n in images.counts().items()}
    assert set(part.paths) <= set(images.subset(per_class=most + 1, at_most=True).paths)


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


def test_equal_classes_get_equal_shares():
    assert dataset([40, 40, 40]).subset(fraction=0.25).counts() == {"c0": 10, "c1": 10, "c2": 10}


def test_a_subset_does_not_depend_on_the_order_of_images_and_keeps_it():
    images = dataset([20, 30])

    part = images.subset(size=17, seed=1)

    assert set(shuffled(images, 5).subset(size=17, seed=1).paths) == set(part.paths)
    assert list(part.paths) == [path for path in images.paths if path in set(part.paths)]
    assert set(images.subset(size=17, seed=2).paths) != set(part.paths)


@pytest.mark.parametrize("options", [{"per_class": 3}, {"size": 6}, {"size": 1}, {"fraction": 0.1}])
def test_what_is_not_possible_exactly_is_an_error(options):
    with pytest.raises(DataError) as caught:
        dataset([2, 3]).subset(**options)

    assert caught.value.code == "DATA-SUBSET"


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"per_class": 0}, {"fraction": 0.0}, {"fraction": 1.2}),
        *({"size": 2, "per_class": 1}, {"size": 2, "at_most": True}),
    ],
)
def test_arguments_without_sense_are_refused(options):
    with pytest.raises(UsageError):
        dataset([2, 3]).subset(**options)


def test_a_subset_says_how_large_it_is_and_which_classes_have_fewer():
    part = dataset([30, 4]).subset(per_class=10, at_most=True)

    assert part.notes == ("14 of 34 images, at most 10 of each class; fewer of c1 4",)
    assert dataset([30, 4]).subset(size=9).notes == ("9 of 34 images",)
