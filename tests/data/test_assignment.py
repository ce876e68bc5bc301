"""Folds: every picture is tested once, classes are even, and nothing is torn apart."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from regraft.data.dataset import Dataset
from regraft.errors import DataError, UsageError


def dataset(names, **columns):
    """Return a data set of made-up pictures ``class/name`` with different contents."""
    paths = tuple(map(Path, names))
    labels = tuple(path.parent.name for path in paths)
    known = dict(zip(paths, names, strict=True))
    return Dataset(paths, labels, tuple(sorted(set(labels))), _known_hashes=known, **columns)


def classes_of(*sizes):
    return [f"c{name}/{i}.jpg" for name, size in enumerate(sizes) for i in range(size)]


def folds_of(data, folds, **options):
    return [data.split(folds=folds, fold=fold, **options) for fold in range(folds)]


@given(
    st.lists(st.integers(6, 40), min_size=2, max_size=5),
    st.integers(2, 6),
    st.sampled_from([0, 0.15, 0.3]),
    st.integers(0, 3),
)
def test_the_folds_of_one_seed_hold_every_picture_once_and_are_even(sizes, folds, val, seed):
    data = dataset(classes_of(*sizes))

    splits = folds_of(data, folds, val=val, seed=seed)

    tested = [path for split in splits for path in split.test.paths]
    assert sorted(tested) == sorted(data.paths)
    for name in data.classes:
        counts = [split.test.counts()[name] for split in splits]
        assert max(counts) - min(counts) <= 1
    whole = [len(split.test) for split in splits]
    assert max(whole) - min(whole) <= 1
    for split in splits:
        assert sum(map(len, split.parts().values())) == len(data)
        assert bool(len(split.val)) == bool(val)


@given(st.lists(st.integers(0, 29), min_size=80, max_size=80), st.integers(2, 4), st.integers(0, 2))
def test_groups_and_look_alikes_are_never_torn_by_folds(numbers, folds, seed):
    names = [f"c{i % 2}/{i}.jpg" for i in range(80)]
    data = dataset(names, groups=tuple(f"g{number}" if number < 15 else "" for number in numbers))
    alike = [tuple(names[40:43]), tuple(names[60:62])]

    try:
        splits = folds_of(data, folds, val=0.2, seed=seed, alike=alike)
    except DataError:
        reject()  # a group is too large for such folds

    tested = [path for split in splits for path in split.test.paths]
    assert sorted(tested) == sorted(data.paths)
    for split in splits:
        part_of = {str(p): part for part, held in split.parts().items() for p in held.paths}
        parts_of_group = {}
        for name, group in zip(names, data.groups, strict=True):
            parts_of_group.setdefault(group or name, set()).add(part_of[name])
        assert max(map(len, parts_of_group.values())) == 1
        assert all(len({part_of[name] for name in group}) == 1 for group in alike)


def test_the_share_of_validation_is_one_of_the_other_folds():
    split = dataset(classes_of(50, 50)).split(folds=5, fold=2, val=0.25)

    assert {name: len(part) for name, part in split.parts().items()} == {
        "train": 60,
        "val": 20,
        "test": 20,
    }
    assert (split.settings["folds"], split.settings["fold"]) == (5, 2)
    assert split.settings["test"] is None


def test_another_seed_gives_other_folds():
    data = dataset(classes_of(30, 30))

    assert data.split(folds=3, seed=0).hash != data.split(folds=3, seed=1).hash


def test_folds_do_not_depend_on_the_order_of_the_pictures():
    names = classes_of(11, 13, 7)

    one, other = (dataset(order).split(folds=4, fold=1) for order in (names, names[::-1]))

    assert one.hash == other.hash


def test_a_class_smaller_than_the_number_of_folds_is_refused_or_always_in_train():
    data = dataset(classes_of(3, 20))

    with pytest.raises(DataError, match="least number needed: 5"):
        data.split(folds=5)
    splits = folds_of(data, 5, small_classes="train")

    assert [split.train.counts()["c0"] for split in splits] == [3] * 5
    assert Counter(p for split in splits for p in split.test.paths) == Counter(data.paths[3:])


def test_two_folds_leave_enough_of_each_class_for_validation():
    data = dataset(classes_of(3, 20))

    assert len(data.split(folds=2, val=0).test)
    with pytest.raises(DataError, match="least number needed: 4"):
        data.split(folds=2)


def test_parts_of_their_own_are_cut_anew_by_folds_only_on_request():
    data = dataset(classes_of(6, 6), parts=("train", "test") * 6)

    with pytest.raises(DataError) as caught:
        data.split(folds=3)

    assert caught.value.code == "SPLIT-FOLDS"
    assert len(data.split(folds=3, regroup=True).test) == 4


@pytest.mark.parametrize(
    "options", [{"folds": 1}, {"folds": 3, "fold": 3}, {"folds": 3, "fold": -1}, {"fold": 1}]
)
def test_folds_without_sense_are_refused(options):
    with pytest.raises(UsageError):
        dataset(classes_of(9, 9)).split(**options)
