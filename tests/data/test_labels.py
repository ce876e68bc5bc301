"""Class names: their form, their order and their twins."""

import pytest
from regraft.data.labels import class_name, list_names, ordered_classes, refuse_twins

from regraft.errors import DataError


def test_the_order_is_by_code_point():
    assert ordered_classes(["é", "b", "a2", "C", "a10"]) == ["C", "a10", "a2", "b", "é"]


def test_a_given_order_is_kept():
    assert ordered_classes(["a", "b", "c"], wanted=["c", "a"]) == ["c", "a"]


def test_a_class_asked_for_twice_is_refused():
    with pytest.raises(DataError):
        ordered_classes(["a"], wanted=["a", "a"])


@pytest.mark.parametrize("pair", [("cat", "CAT"), ("cat", " cat"), ("straße", "STRASSE")])
def test_twins_are_refused(pair):
    with pytest.raises(DataError) as caught:
        refuse_twins(pair)

    assert caught.value.code == "DATA-CLASS-TWINS"


def test_undecodable_names_keep_their_bytes():
    assert class_name("\udcff") == "\udcff"


def test_messages_show_names_a_terminal_can_carry():
    assert list_names(["a\nb", "\udcff"]) == "a\\nb, \\udcff"
