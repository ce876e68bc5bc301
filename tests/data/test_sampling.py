"""Whole numbers from shares, and orders of chance."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from regraft.data.sampling import exact, largest_remainder, quotas, stratified_order

weights = st.lists(st.integers(1, 50), min_size=2, max_size=5)


def shares_of(numbers):
    return [Fraction(number, sum(numbers)) for number in numbers]


@given(st.integers(0, 1000), weights)
def test_largest_remainder_adds_up_and_is_within_one(total, numbers):
    shares = shares_of(numbers)

    counts = largest_remainder(total, shares)

    assert sum(counts) == total
    assert all(abs(c - total * s) < 1 for c, s in zip(counts, shares, strict=True))


@given(st.integers(0, 200), weights)
def test_quotas_add_up_and_leave_no_part_empty(extra, numbers):
    total = len(numbers) + extra

    counts = quotas(total, shares_of(numbers))

    assert sum(counts) == total
    assert min(counts) >= 1


def test_a_share_of_zero_gets_nothing():
    assert quotas(10, [Fraction(1), Fraction(0), Fraction(0)]) == [10, 0, 0]


def test_shares_are_the_decimals_that_were_written():
    assert largest_remainder(20, [1 - exact(0.15), exact(0.15)]) == [17, 3]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_the_stratified_order_names_every_picture_once(class_sizes):
    order = stratified_order(class_sizes)

    assert sorted(order) == [(k, i) for k, size in enumerate(class_sizes) for i in range(size)]
