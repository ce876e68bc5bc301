"""Settings: strict, plain, hashable, the same after JSON, and errors that name the nearest key."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from regraft.errors import DataError, UsageError
from regraft.settings import (
    AnyPath,
    changed_fields,
    from_json,
    hash_key,
    parse_settings,
    settings_class,
    to_json,
)


@settings_class()
class Step:
    """One step.

    Args:
        rate: How fast
            it goes.
        repeats: How often.
        way: Up or down.
    """

    rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    repeats: Annotated[int, Field(ge=0)] | None = None
    way: Literal["up", "down"] = "up"


@settings_class(DataError, code="DATA-STAIRS", kw_only=True)
class Stairs:
    """Many steps."""

    steps: tuple[Step, ...] = ()
    root: AnyPath | None = None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate": 2}, "rate cannot be 2 - it should be less than or equal to 1"),
        ({"rate": "0.5"}, "rate cannot be '0.5'"),
        ({"rate": float("nan")}, "rate cannot be nan"),
        ({"rate": True}, "rate cannot be True"),
        ({"repeats": 1.5}, "repeats cannot be 1.5"),
        ({"way": "left"}, "it should be 'up' or 'down'"),
        ({"rat": 1}, "unknown key 'rat' - did you mean 'rate'?"),
        ({"colour": 1}, "unknown key 'colour' - known: rate, repeats, way"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named_with_what_it_should_be(wrong, said):
    with pytest.raises(UsageError) as error:
        dataclasses.replace(Step(), **wrong)

    assert said in str(error.value)


def test_an_unknown_key_inside_other_settings_is_told_from_its_neighbours(tmp_path):
    with pytest.raises(DataError, match=r"plan.toml.*did you mean 'repeats'") as error:
        from_json(Stairs, {"steps": [{"repeat": 1}]}, path=tmp_path / "plan.toml")

    assert error.value.code == "DATA-STAIRS"  # the class declares both


@given(
    st.lists(
        st.builds(
            Step, st.floats(0, 1), st.none() | st.integers(0), st.sampled_from(["up", "down"])
        )
    )
)
def test_settings_are_the_same_after_json_and_have_the_same_key(steps):
    stairs = Stairs(steps=steps, root="here")

    again = from_json(Stairs, to_json(stairs))

    assert again == stairs
    assert hash_key(again) == hash_key(stairs)


def test_names_that_are_not_utf_8_survive_json():
    """A folder of a class may be named in any bytes; Python shows them as lone surrogates."""
    names = ["r\udcfcbe", "\udc80", "日本 😀"]

    assert from_json(list[str], to_json(names)) == names
    assert from_json(tuple[str, ...], ["\udcff", "a"]) == ("\udcff", "a")


def test_a_whole_number_is_the_same_setting_as_its_float():
    assert hash_key(Step(rate=1)) == hash_key(Step(rate=1.0)) == hash_key(Step(np.float32(1)))


def test_arrays_become_lists_and_what_json_does_not_know_becomes_a_text():
    assert to_json({"row": np.arange(2), "what": ...}) == {"row": [0, 1], "what": "Ellipsis"}


def test_only_fields_that_were_changed_are_listed():
    assert changed_fields(Step(repeats=np.int64(3))) == {"repeats": 3}
    assert changed_fields(Step()) == {}


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("none", None),
        ("slow", Step(0.1)),
        ("slow,way=down", Step(0.1, way="down")),
        ("rate=1, repeats=2", Step(1.0, 2)),
    ],
)
def test_settings_are_parsed_from_a_preset_or_pairs(text, settings):
    assert parse_settings(text, Step, {"slow": Step(0.1)}) == settings


@pytest.mark.parametrize("text", ["slo", "rate", "rate=1,rate=1", "rate=1,slow", "rate=high"])
def test_what_is_neither_a_preset_nor_pairs_is_refused(text):
    with pytest.raises(UsageError):
        parse_settings(text, Step, {"slow": Step(0.1)})
