"""The search for like images finds exactly what comparing each with each would find."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.dataset import Dataset
from regraft.data.duplicates import alike, copies, inspect_all, near_copies, propose_groups
from regraft.data.images import Decoding, ImageFacts
from regraft.data.sources import find_groups
from regraft.errors import ImageError


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


def test_a_crowd_of_like_images_is_one_group_in_bounded_time():
    rng = np.random.default_rng(0)
    hashes = np.full(3000, 12345, np.uint64)
    hashes ^= np.uint64(1) << rng.integers(0, 64, 3000).astype(np.uint64)
    fine = np.zeros((3000, 4), np.uint64)
    fine[:, 0] = np.arange(3000) % 64

    assert set(alike(hashes, fine, distance=4)) == {0}


def proposed(names):
    """Return what is proposed for paths ``class/name``."""
    return propose_groups(names, [name.split("/")[0] for name in names])


def numbered(pattern, **ranges):
    """Return a path for every combination of the values."""
    names = [pattern]
    for key, values in ranges.items():
        names = [name.replace(f"<{key}>", str(value)) for name in names for value in values]
    return names


def test_patients_of_radiographs_are_proposed_though_their_names_hold_constant_numbers():
    names = numbered("sick/person<p>_bacteria_<i>.jpeg", p=range(12), i=range(3))
    names += numbered("well/NORMAL2-IM-<p>-<i>.jpeg", p=range(12), i=range(2))

    found = proposed(names)

    assert found.expression == "NORMAL[0-9]+-IM-[0-9]+|person[0-9]+"
    assert found.groups[0] == "person0"
    assert found.groups[-1] == "NORMAL2-IM-11"


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("<c>/video<c>_<p>_frame<i>.jpg", "video[0-9]+_[0-9]+"),
        ("<c>/<p>_<i>.jpg", "(?:^|/)([0-9]+)[^/]*$"),
        ("<c>/plant <p>.<i>.jpg", r"plant\ [0-9]+"),
    ],
)
def test_identifiers_are_found_in_many_ways_of_naming(pattern, expression):
    found = proposed(numbered(pattern, c=range(2), p=range(20), i=range(4)))

    assert found.expression == expression


@pytest.mark.parametrize(
    "pattern",
    [
        *("<c>/image_<i>.jpg", "<c>/cat.<i>.jpg", "<c>/rose (<i>).jpg"),
        *("<c>/n0144<c>_<i>.JPEG", "<c>/<i>_0faa23cce9_n.jpg", "<c>/IMG_2020_<i>.jpg"),
    ],
)
def test_mere_numbering_is_taken_for_no_identifier(pattern):
    assert proposed(numbered(pattern, c=range(3), i=range(50))) is None


def test_a_folder_that_looks_like_an_identifier_does_not_confuse_the_expression():
    names = numbered("<c>/person0/person<p>_<i>.jpg", c=range(2), p=range(1, 15), i=range(3))

    found = proposed(names)

    assert set(found.groups) == {f"person{number}" for number in range(1, 15)}


@given(st.lists(st.text(alphabet="ab01_-./", min_size=1, max_size=12), max_size=60))
def test_any_names_give_a_proposal_that_finds_what_it_says_or_none(names):
    found = propose_groups(names, ["x"] * len(names))

    if found is not None:
        again = [name or "" for name in find_groups(names, found.expression)]
        assert again == list(found.groups)
        assert any(again)


@pytest.mark.parametrize("folder", ["flowers5", "flowers17", "animals", "hymenoptera"])
def test_photographs_that_are_only_numbered_give_no_proposal(assets, folder):
    data = Dataset.from_folder(assets / "data" / folder)

    assert propose_groups(data.relative_paths(), data.labels) is None


def facts(number, hashes=(0, 0)):
    return ImageFacts(f"{number:064x}", hashes, ("NOTE-TINY",))


def test_copies_are_images_of_the_same_content_and_bad_ones_are_none():
    found = [facts(5), None, facts(6), facts(5), None]

    assert copies(found) == [[0, 3]]


def test_look_alikes_differ_in_content_agree_in_both_hashes_and_are_not_flat():
    found = [facts(5), None, facts(6, None), facts(5)]
    others = [facts(7), facts(8, (0b1111, 0)), facts(9, (0b11111, 0)), facts(1, (0, 2**13 - 1))]

    assert near_copies([]) == near_copies(found) == []
    assert near_copies([*found, *others]) == [[0, 3, 4, 5, 6]]  # through the one between
    assert near_copies([facts(1), others[2]]) == near_copies([facts(2), others[3]]) == []


def test_results_stand_at_the_places_of_their_images(monkeypatch):
    def inspect(path, _decoding):
        if path.name == "bad":
            raise ImageError("damaged", path=path)
        return facts(int(path.name))

    monkeypatch.setattr("regraft.data.duplicates.inspect", inspect)
    paths = [Path(str(number)) for number in range(600)]
    paths[513] = Path("bad")

    found, bad = inspect_all(paths, Decoding(), verbose=False)

    assert list(bad) == [513]
    assert found == [None if number == 513 else facts(number) for number in range(600)]
