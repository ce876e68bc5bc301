"""The search for like pictures finds exactly what comparing each with each would find."""

import numpy as np
import pytest
from regraft.data.similar import alike

from regraft.errors import UsageError


def compared_one_by_one(hashes, fine, distance):
    close = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    close &= np.bitwise_count(fine[:, None] ^ fine[None]).sum(-1) <= 3 * distance
    numbers = np.arange(len(hashes))
    while True:
        smaller = np.where(close, numbers[None], len(hashes)).min(axis=1)
        if (smaller == numbers).all():
            return np.unique(numbers, return_inverse=True)[1]
        numbers = smaller


def crowd(seed):
    """Return hashes of which many lie a few bits apart, and some fine ones that disagree."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**63, 40, dtype=np.uint64)
    for _ in range(3):
        flipped = hashes ^ (np.uint64(1) << rng.integers(0, 64, len(hashes)).astype(np.uint64))
        hashes = np.concatenate((hashes, flipped))
    fine = np.zeros((len(hashes), 4), np.uint64)
    fine[::5] = rng.integers(0, 2**63, (len(fine[::5]), 4), dtype=np.uint64)
    return hashes, fine


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 7, 20])
def test_the_groups_are_those_of_comparing_each_with_each(distance):
    hashes, fine = crowd(distance)

    groups = alike(hashes, fine, distance=distance)

    expected = compared_one_by_one(hashes, fine, distance)
    assert np.array_equal(groups[:, None] == groups, expected[:, None] == expected)


def test_hashes_that_agree_only_coarsely_are_not_alike():
    fine = np.array([[0, 0, 0, 0], [0, 0, 0, 0b1111111111111]], np.uint64)

    assert alike(np.zeros(2, np.uint64), fine, distance=4).tolist() == [0, 1]


def test_no_and_one_picture_are_fine():
    assert alike(np.zeros(0, np.uint64), np.zeros((0, 4), np.uint64), distance=4).tolist() == []
    assert alike(np.zeros(1, np.uint64), np.zeros((1, 4), np.uint64), distance=4).tolist() == [0]


@pytest.mark.parametrize("distance", [-1, 64])
def test_a_distance_out_of_range_is_refused(distance):
    with pytest.raises(UsageError, match="between 0 and 63"):
        alike(np.zeros(1, np.uint64), np.zeros((1, 4), np.uint64), distance=distance)


def test_a_crowd_of_like_pictures_is_one_group_in_bounded_time():
    rng = np.random.default_rng(0)
    hashes = np.full(3000, 12345, np.uint64)
    hashes ^= np.uint64(1) << rng.integers(0, 64, 3000).astype(np.uint64)
    fine = np.zeros((3000, 4), np.uint64)
    fine[:, 0] = np.arange(3000) % 64

    assert set(alike(hashes, fine, distance=4)) == {0}
