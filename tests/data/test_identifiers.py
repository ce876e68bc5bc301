"""Names of files: what an expression finds in them, and which one is proposed for a set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regraft.data.identifiers import matches, propose

from regraft.errors import UsageError


def proposed(names):
    """Return the expression proposed for paths ``class/name``, or None."""
    found = propose(names, [name.split("/")[0] for name in names])
    return found and found.expression


def numbered(pattern, **ranges):
    """Return a path for every combination of the values."""
    names = [pattern]
    for key, values in ranges.items():
        names = [name.replace(f"<{key}>", str(value)) for name in names for value in values]
    return names


def test_patients_of_radiographs_are_proposed_with_the_constant_numbers_of_their_names():
    names = numbered("sick/person<p>_bacteria_<i>.jpeg", p=range(12), i=range(3))
    names += numbered("well/NORMAL2-IM-<p>-<i>.jpeg", p=range(12), i=range(2))

    found = propose(names, [name.split("/")[0] for name in names])

    assert found.expression == "NORMAL2-IM-[0-9]+|person[0-9]+"
    assert found.groups[0] == "person0"
    assert found.groups[-1] == "NORMAL2-IM-11"


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("<c>/video<c>_<p>_frame<i>.jpg", "video0_[0-9]+|video1_[0-9]+"),
        ("<c>/<p>_<i>.jpg", "(?:^|/)([0-9]+)[^/]*$"),
        ("<c>/plant <p>.<i>.jpg", r"plant\ [0-9]+"),
    ],
)
def test_identifiers_are_found_in_many_ways_of_naming(pattern, expression):
    assert proposed(numbered(pattern, c=range(2), p=range(20), i=range(4))) == expression


@pytest.mark.parametrize(
    "pattern",
    [
        "<c>/image_<i>.jpg",
        "<c>/cat.<i>.jpg",
        "<c>/rose (<i>).jpg",
        "<c>/n0144<c>_<i>.JPEG",
        "<c>/<i>_0faa23cce9_n.jpg",
        "<c>/IMG_2020_<i>.jpg",
    ],
)
def test_mere_numbering_is_taken_for_no_identifier(pattern):
    assert proposed(numbered(pattern, c=range(3), i=range(50))) is None


def test_a_folder_that_looks_like_an_identifier_does_not_confuse_the_expression():
    names = numbered("<c>/person0/person<p>_<i>.jpg", c=range(2), p=range(1, 15), i=range(3))

    found = propose(names, [name.split("/")[0] for name in names])

    assert set(found.groups) == {f"person{number}" for number in range(1, 15)}


@given(st.lists(st.text(alphabet="ab01_-./", min_size=1, max_size=12), max_size=60))
def test_any_names_give_a_proposal_that_finds_what_it_says_or_none(names):
    found = propose(names, ["x"] * len(names))

    if found is not None:
        again = [name or "" for name in matches(names, found.expression)]
        assert again == list(found.groups)
        assert any(again)


def test_what_is_no_expression_is_refused():
    with pytest.raises(UsageError):
        matches(["a.jpg"], "(")


@pytest.mark.parametrize("folder", ["flowers5", "flowers17", "animals", "hymenoptera"])
def test_photographs_that_are_only_numbered_give_no_proposal(assets, folder):
    from regraft.data.dataset import Dataset

    data = Dataset.from_folder(assets / "data" / folder)

    assert propose(data.relative_paths(), data.labels) is None
