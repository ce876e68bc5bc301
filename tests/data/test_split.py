"""Cutting: exact, the same everywhere, and nothing of one part known from another."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from regraft.data.dataset import Dataset
from regraft.data.split import as_fraction, least_size, part_sizes, quotas, stratified_order
from regraft.errors import DataError
from samples import refused


def dataset(names, *, contents=None, **columns):
    """Return a data set of made-up images ``class/name`` whose contents differ or are given."""
    paths = tuple(map(Path, names))
    labels = tuple(path.parent.name for path in paths)
    known = dict(zip(paths, contents or names, strict=True))
    return Dataset(paths, labels, tuple(sorted(set(labels))), known_hashes=known, **columns)


def classes_of(**sizes):
    return [f"{name}/{i}.jpg" for name, size in sizes.items() for i in range(size)]


def numbered(*sizes):
    return classes_of(**{f"c{number}": size for number, size in enumerate(sizes)})


def placed(split):
    """Return the part of each image."""
    return {str(path): part for part, data in split.parts().items() for path in data.paths}


@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=5),
    st.sampled_from([0.1, 0.15, 0.25]),
    st.sampled_from([0.1, 0.25, 0.33]),
    st.integers(0, 4),
)
def test_every_class_is_cut_exactly(class_sizes, val, test, seed):
    data = dataset(numbered(*class_sizes))

    split = data.split(val=val, test=test, seed=seed)

    shares = [1 - as_fraction(val) - as_fraction(test), as_fraction(val), as_fraction(test)]
    for name, size in data.counts().items():
        assert [part.counts()[name] for part in split.parts().values()] == quotas(size, shares)
    assert sorted(placed(split)) == sorted(map(str, data.paths))


@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=4),
    st.sampled_from([0, 0.2, 1, 5, 9]),
    st.sampled_from([0, 0.25, 1, 3, 8]),
    st.integers(0, 2),
)
def test_parts_have_the_number_of_each_class_that_was_asked_for(class_sizes, val, test, seed):
    data = dataset(numbered(*class_sizes))

    if min(class_sizes) < least_size(val, test):
        assert refused(data.split, val=val, test=test).code == "SPLIT-TOO-FEW"
        return
    split = data.split(val=val, test=test, seed=seed)

    assert sorted(placed(split)) == sorted(map(str, data.paths))
    assert min(split.train.counts().values()) >= 1
    for name, part, wanted in (("val", split.val, val), ("test", split.test, test)):
        if wanted >= 1:
            assert set(part.counts().values()) == {wanted}
        assert split.settings[name] == wanted
        assert min(part.counts().values(), default=0) >= bool(wanted)


@given(st.permutations(classes_of(a=6, b=7, c=4)), st.integers(0, 3))
def test_the_order_of_the_images_does_not_matter(names, seed):
    split = dataset(names).split(seed=seed)

    assert split.hash == dataset(sorted(names)).split(seed=seed).hash


def test_the_cut_is_the_same_on_every_machine_and_in_every_version_and_another_of_another_seed():
    data = dataset(classes_of(a=5, b=5))

    expected = "1acb5a08760b2a95c3667cd061666f33a5006e554434f52a21e5bb64ec83c70c"
    assert data.split(seed=np.int64(0)).hash == expected
    assert data.split(seed=1).hash != expected


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_may_be_left_empty(part):
    split = dataset(classes_of(a=2, b=2)).split(**{part: 0})

    assert len(split.parts()[part]) == 0
    assert split.parts()[part].classes == ("a", "b")


@pytest.mark.parametrize(
    "options",
    [
        *({"val": -0.1}, {"val": 1.5}, {"val": 0.5, "test": 0.5}, {"group_by": "("}),
        *({"small_classes": "x"}, {"keep_parts": True, "regroup": True}),
        *({"folds": 1}, {"folds": 3, "fold": 3}, {"folds": 3, "fold": -1}, {"fold": 1}),
    ],
)
def test_arguments_without_sense_are_refused(options):
    assert refused(dataset(classes_of(a=9, b=9)).split, **options).exit_code == 2


@pytest.mark.parametrize(
    ("names", "columns", "options", "code"),
    [
        (classes_of(a=9), {}, {}, "DATA-ONE-CLASS"),
        (classes_of(a=9, b=9), {}, {"group_by": "patient"}, "SPLIT-GROUP-PATTERN"),
        (classes_of(a=9, b=9), {}, {"group_by": "column"}, "SPLIT-GROUP-COLUMN"),
        (classes_of(a=2, b=2), {"parts": ("test",) * 4}, {}, "SPLIT-NO-TRAIN"),
        (classes_of(a=6, b=6), {"parts": ("train", "test") * 6}, {"folds": 3}, "SPLIT-FOLDS"),
    ],
)
def test_what_cannot_be_cut_is_named(names, columns, options, code):
    assert refused(dataset(names, **columns).split, **options).code == code


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (classes_of(a=20, b=2, c=1), {}, "b: 2 images, c: 1 images; least number needed: 3"),
        (numbered(200, 100), {"val": 50, "test": 50}, "c1: 100 images; least number needed: 1"),
        (classes_of(a=20, b=3), {"folds": 5}, "b: 3 images; least number needed: 5"),
        (classes_of(a=20, b=3), {"folds": 2}, "b: 3 images; least number needed: 4"),
        (classes_of(a=9, b=5), {"folds": 3, "val": 3}, "b: 5 images; least number needed: 6"),
        (
            [f"a/p{i % 2}_{i}.jpg" for i in range(10)] + classes_of(b=9),
            {"group_by": r"(p\d)_"},
            "a: 10 images in 2 separate groups; least number needed: 3",
        ),
    ],
)
def test_a_class_too_small_is_named_with_its_count_and_the_least_number(names, options, told):
    error = refused(dataset(names).split, **options)

    assert error.code == "SPLIT-TOO-FEW"
    assert told in str(error)


def test_a_class_too_small_for_every_part_or_fold_can_go_into_train_as_a_whole():
    data = dataset(classes_of(a=2, b=20))

    split, fold = (data.split(small_classes="train", **more) for more in ({}, {"folds": 5}))

    assert (split.train.counts()["a"], fold.train.counts()["a"]) == (2, 2)
    assert split.test.counts() == {"a": 0, "b": 5}
    assert fold.test.counts() == {"a": 0, "b": 4}


@given(st.lists(st.integers(0, 6), min_size=30, max_size=30), st.integers(0, 3))
def test_copies_of_a_file_stay_in_one_part(numbers, seed):
    names = classes_of(a=15, b=15)
    contents = [
        f"same {number}" if number < 3 and i % 2 else names[i] for i, number in enumerate(numbers)
    ]

    split = dataset(names, contents=contents).split(seed=seed)

    part_of = placed(split)
    for value in set(contents):
        assert len({part_of[n] for n, c in zip(names, contents, strict=True) if c == value}) == 1
    assert split.settings["copies"] == len(names) - len(set(contents))


@pytest.mark.parametrize("pattern", [r"x?(?P<group>p\d)(_)", r"/(p\d)_", r"p\d(?=_)"])
def test_a_pattern_keeps_groups_together_and_images_without_one_are_alone(pattern):
    names = [f"{c}/p{i % 9}_{i}.jpg" for c in "ab" for i in range(60)] + ["a/x.jpg", "b/y.jpg"]

    split = dataset(names).split(group_by=pattern)

    part_of = placed(split)
    for group in range(9):
        assert len({part for name, part in part_of.items() if f"/p{group}_" in name}) == 1
    assert split.settings["groups"] == 11
    groups = dict(zip(split.joined().paths, split.joined().groups, strict=True))
    assert (groups[Path("a/p3_3.jpg")], groups[Path("a/x.jpg")]) == ("p3", "")


def test_groups_of_the_data_set_are_used_without_being_asked_for():
    names = classes_of(a=12, b=12)
    groups = tuple(str(i // 3) for i in range(24))

    for group_by in (None, "column"):
        split = dataset(names, groups=groups).split(group_by=group_by)

        part_of = placed(split)
        assert split.settings["group_by"] == "column"
        for group in set(groups):
            assert len({part_of[n] for n, g in zip(names, groups, strict=True) if g == group}) == 1


def test_another_seed_chooses_other_groups_though_all_sizes_differ():
    names = [f"{'ab'[g % 2]}/g{g}_{i}.jpg" for g in range(30) for i in range(g + 3)]
    data = dataset(names)

    tested = [set(data.split(seed=seed, group_by=r"g\d+").test.groups) for seed in range(20)]

    assert len(set(map(frozenset, tested))) > 10
    assert set.intersection(*tested) == set()
    assert len(set.union(*tested)) > 20


def test_given_parts_are_kept_and_a_missing_one_is_cut_from_train():
    names = classes_of(a=20, b=20)
    parts = tuple("val" if i % 4 == 0 else "train" for i in range(40))

    split = dataset(names, parts=parts).split(val=0.5, test=0.2)

    part_of = placed(split)
    assert all((part_of[n] == "val") == (p == "val") for n, p in zip(names, parts, strict=True))
    assert split.test.counts() == {"a": 3, "b": 3}
    assert split.settings["given_parts"] == ["train", "val"]
    assert split.train.parts is None


def test_groups_or_copies_torn_by_the_given_parts_are_an_error_and_regroup_cuts_anew():
    names = [f"{c}/p{i % 10}_{i}.jpg" for c in "ab" for i in range(40)]
    kept, torn = (
        dataset(names, parts=tuple("test" if i % n == 0 else "train" for i in range(80)))
        for n in (5, 7)
    )
    copied = ["copy" if name in {"a/p0_0.jpg", "a/p1_1.jpg"} else name for name in names]

    by_group = refused(torn.split, group_by=r"(p\d)_")
    by_copy = refused(dataset(names, contents=copied, parts=torn.parts).split)
    anew = placed(torn.split(group_by=r"(p\d)_", regroup=True))

    assert len(kept.split(group_by=r"(p\d)_", val=0).test) == 16
    assert (by_group.code, by_copy.code) == ("SPLIT-GROUPS", "SPLIT-DUPLICATES")
    assert "10 groups" in str(by_group)
    assert "a/p0_0.jpg = a/p1_1.jpg" in str(by_copy)
    assert "regroup=True" in by_copy.hint
    for group in range(10):
        assert len({part for name, part in anew.items() if f"/p{group}_" in name}) == 1


def test_on_request_the_given_parts_are_kept_whatever_they_share():
    names = [f"{c}/p{i % 10}_{i}.jpg" for c in "ab" for i in range(40)]
    contents = ["copy" if name.endswith(("_0.jpg", "_1.jpg")) else name for name in names]
    parts = tuple("test" if i % 7 == 0 else "train" for i in range(80))
    data = dataset(names, parts=parts, contents=contents)

    alike = [("a/p2_2.jpg", "a/p7_7.jpg")]
    split = data.split(group_by=r"p\d", keep_parts=True, val=0, alike=alike)
    with_val = placed(data.split(group_by=r"p\d", keep_parts=True, val=0.3))

    assert placed(split) == dict(zip(names, parts, strict=True))
    assert split.settings["keep_parts"] is True
    assert split.test.groups[:2] == ("p0", "p7")
    for group in range(10):  # what is cut here is cut as ever: validation and train share no group
        held = {part for name, part in with_val.items() if f"/p{group}_" in name} - {"test"}
        assert len(held) == 1


def folds_of(data, folds, **options):
    return [data.split(folds=folds, fold=fold, **options) for fold in range(folds)]


@given(
    st.lists(st.integers(6, 40), min_size=2, max_size=5),
    st.integers(2, 6),
    st.sampled_from([0, 0.15, 0.3]),
    st.integers(0, 3),
)
def test_the_folds_of_one_seed_hold_every_image_once_and_are_even(sizes, folds, val, seed):
    data = dataset(numbered(*sizes))

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
    assert splits[0].settings["look_alikes"] == 5
    for split in splits:
        part_of = {str(p): part for part, held in split.parts().items() for p in held.paths}
        parts_of_group = {}
        for name, group in zip(names, data.groups, strict=True):
            parts_of_group.setdefault(group or name, set()).add(part_of[name])
        assert max(map(len, parts_of_group.values())) == 1
        assert all(len({part_of[name] for name in group}) == 1 for group in alike)


@pytest.mark.parametrize(("val", "sizes"), [(0.25, (60, 20, 20)), (7, (66, 14, 20))])
def test_validation_is_cut_from_the_other_folds(val, sizes):
    split = dataset(numbered(50, 50)).split(folds=5, fold=2, val=val)

    assert tuple(map(len, split.parts().values())) == sizes
    assert (split.settings["folds"], split.settings["fold"]) == (5, 2)
    assert split.settings["test"] is None


@given(st.lists(st.integers(1, 20), min_size=20, max_size=60), st.integers(0, 5))
def test_groups_come_close_to_the_wanted_sizes_and_every_part_gets_one(group_sizes, seed):
    groups = [f"g{number}" for number, size in enumerate(group_sizes) for _ in range(size)]
    names = [f"x/{number}.jpg" for number in range(len(groups))] + numbered(9)
    data = dataset(names, groups=(*groups, *[""] * 9))

    split = data.split(seed=seed)

    for part, share in zip(split.parts().values(), (0.6, 0.15, 0.25), strict=True):
        assert abs(part.counts()["x"] - share * len(groups)) <= max(group_sizes)
        assert part.counts()["x"] > 0


@given(st.integers(0, 1000), st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_quotas_add_up_and_leave_no_part_empty(total, numbers):
    shares = [Fraction(number, sum(numbers)) for number in numbers]

    counts = quotas(total + len(shares), shares)

    assert sum(counts) == total + len(shares)
    assert min(counts) >= 1


def test_a_share_of_zero_gets_nothing_and_shares_are_the_decimals_that_were_written():
    assert part_sizes(10, 0, 0) == [10, 0, 0]
    assert part_sizes(10, 0.25, 0.27) == [5, 2, 3]
    assert part_sizes(20, 0.15, 0) == [17, 3, 0]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_the_stratified_order_names_every_image_once(class_sizes):
    order = stratified_order(class_sizes)

    assert sorted(order) == [(k, i) for k, size in enumerate(class_sizes) for i in range(size)]
