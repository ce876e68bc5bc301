"""Cutting: exact, the same everywhere, and nothing of one part known from another."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from regraft.data.dataset import Dataset, Split
from regraft.data.manifest import read_manifest
from regraft.data.split import as_fraction, least_size, part_sizes, quotas, stratified_order
from regraft.errors import DataError, UsageError


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


def refused(data, **options):
    with pytest.raises(DataError) as caught:
        data.split(**options)
    return caught.value


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
        assert refused(data, val=val, test=test).code == "SPLIT-TOO-FEW"
        return
    split = data.split(val=val, test=test, seed=seed)

    assert sorted(placed(split)) == sorted(map(str, data.paths))
    assert min(split.train.counts().values()) >= 1
    for name, part, wanted in (("val", split.val, val), ("test", split.test, test)):
        if wanted >= 1:
            assert set(part.counts().values()) == {wanted}
        assert split.settings[name] == wanted
        assert min(part.counts().values(), default=0) >= bool(wanted)


@given(st.lists(st.integers(0, 12), min_size=60, max_size=60), st.integers(0, 3))
def test_groups_stay_together_where_parts_are_numbers_and_come_close_to_them(numbers, seed):
    names = numbered(30, 30)
    groups = tuple(f"g{number}-{name[:2]}" for number, name in zip(numbers, names, strict=True))
    data = dataset(names, groups=groups)

    try:
        split = data.split(val=5, test=8, seed=seed)
    except DataError:
        reject()  # a group is too large for such parts

    parts_of = {}
    for part, held in split.parts().items():
        for group in held.groups:
            parts_of.setdefault(group, set()).add(part)
    assert max(map(len, parts_of.values())) == 1
    for held, wanted in ((split.val, 5), (split.test, 8)):
        largest = max(Counter(groups).values())
        assert all(1 <= count <= wanted + largest for count in held.counts().values())


def test_a_class_too_small_for_numbers_is_named_with_the_least_number():
    error = refused(dataset(classes_of(a=200, b=100)), val=50, test=50)

    assert "b: 100 images; least number needed: 101" in str(error)
    assert refused(dataset(classes_of(a=9, b=5)), folds=3, val=3).code == "SPLIT-TOO-FEW"


def test_a_number_for_validation_is_taken_from_the_other_folds():
    split = dataset(numbered(12, 9)).split(folds=3, val=3)

    assert split.val.counts() == {"c0": 3, "c1": 3}
    assert split.train.counts() == {"c0": 5, "c1": 3}


@given(st.permutations(classes_of(a=6, b=7, c=4)), st.integers(0, 3))
def test_the_order_of_the_images_does_not_matter(names, seed):
    split = dataset(names).split(seed=seed)

    assert split.hash == dataset(sorted(names)).split(seed=seed).hash


def test_the_cut_is_the_same_on_every_machine_and_in_every_version():
    split = dataset(classes_of(a=5, b=5)).split(seed=0)

    assert split.hash == "1acb5a08760b2a95c3667cd061666f33a5006e554434f52a21e5bb64ec83c70c"


def test_a_seed_of_numpy_is_the_number_it_stands_for(tmp_path):
    data = dataset(classes_of(a=5, b=5))

    split = data.split(seed=np.int64(3), folds=2, fold=np.int64(1))
    split.write(tmp_path / "split")

    assert split.hash == data.split(seed=3, folds=2, fold=1).hash
    assert read_manifest(tmp_path / "split")


def test_another_seed_gives_another_cut():
    data = dataset(classes_of(a=20, b=20))

    assert data.split(seed=0).hash != data.split(seed=1).hash


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_may_be_left_empty(part):
    split = dataset(classes_of(a=2, b=2)).split(**{part: 0})

    assert len(split.parts()[part]) == 0
    assert split.parts()[part].classes == ("a", "b")


def test_a_class_too_small_is_named_with_its_count_and_the_least_number():
    error = refused(dataset(classes_of(a=20, b=2, c=1)))

    assert error.code == "SPLIT-TOO-FEW"
    assert "b: 2 images, c: 1 images; least number needed: 3" in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"val": -0.1},
        {"val": 1.5},
        {"val": 0.5, "test": 0.5},
        {"group_by": "("},
        {"small_classes": "x"},
        {"keep_parts": True, "regroup": True},
        {"folds": 1},
        {"folds": 3, "fold": 3},
        {"folds": 3, "fold": -1},
        {"fold": 1},
    ],
)
def test_arguments_without_sense_are_refused(options):
    with pytest.raises(UsageError):
        dataset(classes_of(a=9, b=9)).split(**options)


@pytest.mark.parametrize(
    ("names", "columns", "options", "code"),
    [
        (classes_of(a=9), {}, {}, "DATA-ONE-CLASS"),
        (classes_of(a=9, b=9), {}, {"group_by": "patient"}, "SPLIT-GROUP-PATTERN"),
        (classes_of(a=9, b=9), {}, {"group_by": "column"}, "SPLIT-GROUP-COLUMN"),
        (classes_of(a=2, b=2), {"parts": ("test",) * 4}, {}, "SPLIT-NO-TRAIN"),
    ],
)
def test_what_cannot_be_cut_is_named(names, columns, options, code):
    assert refused(dataset(names, **columns), **options).code == code


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


def test_a_pattern_keeps_groups_together_and_images_without_one_are_alone():
    names = [f"{c}/p{i % 9}_{i}.jpg" for c in "ab" for i in range(60)] + ["a/x.jpg", "b/y.jpg"]

    split = dataset(names).split(group_by=r"/(p\d+)_")

    part_of = placed(split)
    for group in range(9):
        assert len({part for name, part in part_of.items() if f"/p{group}_" in name}) == 1
    assert split.settings["groups"] == 11
    groups = dict(zip(split.joined().paths, split.joined().groups, strict=True))
    assert groups[Path("a/p3_3.jpg")] == "p3"
    assert groups[Path("a/x.jpg")] == ""


@pytest.mark.parametrize("pattern", [r"(?P<group>p\d)x?(_)", r"(p\d)_", r"p\d"])
def test_the_named_group_the_first_group_or_the_match_is_the_group(pattern):
    names = [f"{c}/p{i % 5}_{i}.jpg" for c in "ab" for i in range(30)]

    assert dataset(names).split(group_by=pattern).settings["groups"] == 5


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


def test_too_few_groups_are_an_error_that_counts_images_and_groups():
    names = [f"a/p{i % 2}_{i}.jpg" for i in range(10)] + classes_of(b=9)

    error = refused(dataset(names), group_by=r"(p\d)_")

    assert error.code == "SPLIT-TOO-FEW"
    assert "a: 10 images in 2 separate groups; least number needed: 3" in str(error)


def given_parts(names, parts, **columns):
    return dataset(names, parts=tuple(parts), **columns)


def test_given_parts_are_kept_and_a_missing_one_is_cut_from_train():
    names = classes_of(a=20, b=20)
    parts = ["val" if i % 4 == 0 else "train" for i in range(40)]

    split = given_parts(names, parts).split(val=0.5, test=0.2)

    part_of = placed(split)
    assert all((part_of[n] == "val") == (p == "val") for n, p in zip(names, parts, strict=True))
    assert split.test.counts() == {"a": 3, "b": 3}
    assert split.settings["given_parts"] == ["train", "val"]
    assert split.train.parts is None


def test_a_whole_given_split_is_kept_as_it_is():
    names = classes_of(a=6, b=6)
    parts = ["train", "train", "val", "test", "train", "train"] * 2

    assert placed(given_parts(names, parts).split()) == dict(zip(names, parts, strict=True))


def test_groups_torn_by_the_given_parts_are_an_error_and_regroup_cuts_anew():
    names = [f"{c}/p{i % 10}_{i}.jpg" for c in "ab" for i in range(40)]
    data = given_parts(names, ["test" if i % 5 == 0 else "train" for i in range(80)])
    torn = given_parts(names, ["test" if i % 7 == 0 else "train" for i in range(80)])

    assert len(data.split(group_by=r"(p\d)_", val=0).test) == 16
    error = refused(torn, group_by=r"(p\d)_")
    assert error.code == "SPLIT-GROUPS"
    assert "10 groups" in str(error)
    assert "regroup=True" in str(error)
    anew = placed(torn.split(group_by=r"(p\d)_", regroup=True))
    for group in range(10):
        assert len({part for name, part in anew.items() if f"/p{group}_" in name}) == 1


def test_on_request_the_given_parts_are_kept_whatever_they_share():
    names = [f"{c}/p{i % 10}_{i}.jpg" for c in "ab" for i in range(40)]
    contents = ["copy" if name.endswith(("_0.jpg", "_1.jpg")) else name for name in names]
    parts = ["test" if i % 7 == 0 else "train" for i in range(80)]
    data = given_parts(names, parts, contents=contents)

    split = data.split(group_by=r"p\d", keep_parts=True, val=0)
    with_val = placed(data.split(group_by=r"p\d", keep_parts=True, val=0.3))

    assert placed(split) == dict(zip(names, parts, strict=True))
    assert split.settings["keep_parts"] is True
    assert split.test.groups[:2] == ("p0", "p7")
    for group in range(10):  # what is cut here is cut as ever: validation and train share no group
        held = {part for name, part in with_val.items() if f"/p{group}_" in name} - {"test"}
        assert len(held) == 1


def test_copies_in_two_given_parts_are_refused():
    names = classes_of(a=8, b=8)
    contents = ["copy" if name in {"a/0.jpg", "a/7.jpg"} else name for name in names]
    data = given_parts(names, (["train"] * 6 + ["test"] * 2) * 2, contents=contents)

    error = refused(data)

    assert error.code == "SPLIT-DUPLICATES"
    assert "a/0.jpg = a/7.jpg" in str(error)
    assert "keep_parts=True" in error.hint


def test_parts_with_an_image_in_common_are_no_split():
    data = dataset(classes_of(a=2, b=2))

    with pytest.raises(DataError):
        Split(data, data, data)


def test_patients_of_the_chest_x_rays_are_kept_apart(assets):
    data = Dataset.from_folder(assets / "data" / "chest_xray")

    error = refused(data, group_by=r"person(\d+)")
    split = data.split(group_by=r"person(\d+)", regroup=True)

    assert "170 groups" in str(error)
    assert split.train.groups.count("") > 500
    for name, size in data.counts().items():
        for part, share in (("val", 0.15), ("test", 0.25)):
            assert abs(split.parts()[part].counts()[name] - share * size) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_images_that_look_alike_come_to_the_same_part(seed):
    alike = [("a/0.jpg", "a/1.jpg", "a/2.jpg"), ("b/3.jpg", "b/4.jpg")]

    split = dataset(classes_of(a=12, b=12)).split(seed=seed, alike=alike)

    part = placed(split)
    for group in alike:
        assert len({part[path] for path in group}) == 1
    assert split.settings["look_alikes"] == 5


def test_given_parts_are_kept_even_where_images_of_two_parts_look_alike():
    names = ["train/a/0.jpg", "train/a/1.jpg", "test/a/2.jpg"] + [
        f"{part}/b/{i}.jpg" for part in ("train", "test") for i in range(3)
    ]
    parts = tuple(name.split("/")[0] for name in names)
    data = dataset(names, parts=parts)

    split = data.split(val=0, alike=[("train/a/0.jpg", "test/a/2.jpg")])

    assert placed(split)["test/a/2.jpg"] == "test"
    assert placed(split)["train/a/0.jpg"] == "train"


def test_a_class_too_small_for_every_part_can_go_into_train_as_a_whole():
    data = dataset(classes_of(a=2, b=20))

    error = refused(data)
    split = data.split(small_classes="train")

    assert "a: 2 images" in str(error)
    assert split.train.counts()["a"] == 2
    assert split.test.counts() == {"a": 0, "b": 5}


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
    for split in splits:
        part_of = {str(p): part for part, held in split.parts().items() for p in held.paths}
        parts_of_group = {}
        for name, group in zip(names, data.groups, strict=True):
            parts_of_group.setdefault(group or name, set()).add(part_of[name])
        assert max(map(len, parts_of_group.values())) == 1
        assert all(len({part_of[name] for name in group}) == 1 for group in alike)


def test_the_share_of_validation_is_one_of_the_other_folds():
    split = dataset(numbered(50, 50)).split(folds=5, fold=2, val=0.25)

    assert {name: len(part) for name, part in split.parts().items()} == {
        "train": 60,
        "val": 20,
        "test": 20,
    }
    assert (split.settings["folds"], split.settings["fold"]) == (5, 2)
    assert split.settings["test"] is None


def test_a_class_smaller_than_the_number_of_folds_is_refused_or_always_in_train():
    data = dataset(numbered(3, 20))

    with pytest.raises(DataError, match="least number needed: 5"):
        data.split(folds=5)
    splits = folds_of(data, 5, small_classes="train")

    assert [split.train.counts()["c0"] for split in splits] == [3] * 5
    assert Counter(p for split in splits for p in split.test.paths) == Counter(data.paths[3:])


def test_two_folds_leave_enough_of_each_class_for_validation():
    data = dataset(numbered(3, 20))

    assert len(data.split(folds=2, val=0).test)
    with pytest.raises(DataError, match="least number needed: 4"):
        data.split(folds=2)


def test_parts_of_their_own_are_cut_anew_by_folds_only_on_request():
    data = dataset(numbered(6, 6), parts=("train", "test") * 6)

    with pytest.raises(DataError) as caught:
        data.split(folds=3)

    assert caught.value.code == "SPLIT-FOLDS"
    assert len(data.split(folds=3, regroup=True).test) == 4


@given(st.lists(st.integers(1, 20), min_size=20, max_size=60), st.integers(0, 5))
def test_groups_come_close_to_the_wanted_sizes_and_every_part_gets_one(group_sizes, seed):
    groups = [f"g{number}" for number, size in enumerate(group_sizes) for _ in range(size)]
    names = [f"x/{number}.jpg" for number in range(len(groups))] + numbered(9)
    data = dataset(names, groups=(*groups, *[""] * 9))

    split = data.split(seed=seed)

    for part, share in zip(split.parts().values(), (0.6, 0.15, 0.25), strict=True):
        assert abs(part.counts()["x"] - share * len(groups)) <= max(group_sizes)
        assert part.counts()["x"] > 0


weights = st.lists(st.integers(1, 50), min_size=2, max_size=5)


def shares_of(numbers):
    return [Fraction(number, sum(numbers)) for number in numbers]


@given(st.integers(0, 1000), weights)
def test_quotas_add_up_and_leave_no_part_empty(total, numbers):
    shares = shares_of(numbers)

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
