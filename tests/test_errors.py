"""What an error says: in one line, with the names that matter and how many more there are."""

import pytest

from regraft.errors import BadImagesError, ImageError, RegraftError, list_names


@pytest.mark.parametrize(
    ("names", "said"),
    [([], "none"), (["a"], "a"), (["a", "b"], "a, b"), ("abcd", "a, b and 2 more")],
)
def test_names_are_listed_up_to_a_number_with_how_many_are_left(names, said):
    assert list_names(names, most=2) == said


def test_a_message_is_one_line_of_the_parts_that_there_are():
    error = RegraftError("cannot read", path="two\nlines \udcff", hint="look")

    assert str(error) == "cannot read - two\\nlines \\udcff - look"


@pytest.mark.parametrize(("count", "said"), [(1, "1 image cannot"), (2, "2 images cannot")])
def test_bad_images_are_counted_and_the_first_of_several_is_named_as_that(count, said):
    error = BadImagesError([ImageError("file is empty", path="a.jpg")] * count)

    assert str(error).startswith(f"{said} be used - a.jpg - IMG-CORRUPT: file is empty")
    assert ("(the first of them)" in str(error)) == (count > 1)
