"""Units that stay together, and parts close to the wanted sizes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from regraft.data.grouping import Assignment, make_units
from regraft.data.sampling import exact, quotas

SHARES = [exact(0.6), exact(0.15), exact(0.25)]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 12), st.integers(0, 30))))
def test_no_tie_is_torn_apart_and_nothing_is_lost(rows):
    names = [str(number) for number in range(len(rows))]
    labels, groups, contents = zip(*rows, strict=True) if rows else ((), (), ())

    units = make_units(names, labels, (groups, contents), seed=0)
    parts = Assignment(units, SHARES).divide()

    assert sorted(index for part in parts for index in part) == list(range(len(rows)))
    part_of = {index: part for part, members in enumerate(parts) for index in members}
    for column in (groups, contents):
        for value in set(column):
            assert len({part_of[i] for i, other in enumerate(column) if other == value}) == 1


@given(st.lists(st.integers(3, 60), min_size=1, max_size=5), st.integers(0, 5))
def test_single_pictures_are_cut_exactly_by_largest_remainder(class_sizes, seed):
    labels = [str(k) for k, size in enumerate(class_sizes) for _ in range(size)]
    names = [str(number) for number in range(len(labels))]

    parts = Assignment(make_units(names, labels, [range(len(labels))], seed=seed), SHARES).divide()

    counts = [Counter(labels[index] for index in part) for part in parts]
    for k, size in enumerate(class_sizes):
        assert [count[str(k)] for count in counts] == quotas(size, SHARES)


@given(st.lists(st.integers(1, 20), min_size=20, max_size=60), st.integers(0, 5))
def test_groups_come_close_to_the_wanted_sizes(group_sizes, seed):
    groups = [number for number, size in enumerate(group_sizes) for _ in range(size)]
    names = [str(number) for number in range(len(groups))]

    units = make_units(names, ["x"] * len(groups), [groups], seed=seed)
    parts = Assignment(units, SHARES).divide()

    for part, share in zip(parts, SHARES, strict=True):
        assert abs(len(part) - share * len(groups)) <= max(group_sizes)


@given(st.lists(st.integers(1, 50), min_size=3, max_size=8))
def test_every_part_gets_a_group_when_there_are_as_many_groups_as_parts(group_sizes):
    groups = [number for number, size in enumerate(group_sizes) for _ in range(size)]
    names = [str(number) for number in range(len(groups))]

    units = make_units(names, ["x"] * len(groups), [groups], seed=0)

    assert all(Assignment(units, SHARES).divide())
