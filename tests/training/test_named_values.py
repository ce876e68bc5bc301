"""Names, KEY=VALUE lists and ranges, as augmentation and regularization share them."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import UsageError
from regraft.training.named_values import Range, find_settings, settle_fields, to_json

RULES = {
    "share": Range(0, 1, "a share", below=True),
    "count": Range(1, 9, whole=True),
    "limit": Range(0, float("inf"), above=True, below=True),
    "mode": ("a", "b"),
    "on": (False, True),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    share: float = 0.0
    count: int = 3
    limit: float | None = None
    mode: str = "a"
    on: bool = False

    def __post_init__(self):
        settle_fields(self, "options", RULES)


KNOWN = {"plain": Options(), "strong": Options(share=0.5, on=True)}


def find(value):
    return find_settings(value, Options, KNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", Options()),
        ("share=0.25,mode=b,on=true", Options(share=0.25, mode="b", on=True)),
        (" share = .25e0 , on = True ".replace(".25e0", "0.25"), Options(share=0.25, on=True)),
        ("strong,count=5", Options(share=0.5, on=True, count=5)),
        ("strong,on=false", Options(share=0.5)),
        ("limit=none", Options()),
    ],
)
def test_a_text_is_a_name_or_a_list_of_settings(text, expected):
    assert find(text) == expected


def test_nothing_and_the_settings_themselves_pass_through():
    options = Options(share=0.1)

    assert find(options) is options
    assert find(None) is None
    assert find("none") is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("strog", "did you mean 'strong'?"),
        ("xyz", "KEY=VALUE"),
        ("", "unknown options"),
        ("shar=0.2", "did you mean 'share'?"),
        ("share=0.2,share=0.3", "given twice"),
        ("share=0.2,on", "write KEY=VALUE"),
        ("plain,strong", "write KEY=VALUE"),
        ("share=1", "a share, 0 to below 1"),
        ("share=-0.1", "a share, 0 to below 1"),
        ("share=NaN", "a share, 0 to below 1"),
        ("share=true", "a share, 0 to below 1"),
        ("share=much", "'much'"),
        ("share=none", "a share, 0 to below 1"),
        ("count=2.5", "1 to 9"),
        ("limit=0", "above 0"),
        ("limit=Infinity", "above 0"),
        ("mode=c", "one of a, b"),
        ("on=1", "one of false, true"),
        (3, "a name or Options"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(value, said):
    with pytest.raises(UsageError) as refused:
        find(value)

    assert said in str(refused.value)


def test_whole_and_fractional_spellings_are_one_setting():
    assert to_json(Options(share=0, count=3.0, limit=2)) == to_json(
        Options(share=0.0, count=3, limit=2.0)
    )
    assert repr(Options(limit=2)) == repr(Options(limit=2.0))


@given(
    share=st.floats(0, 1, exclude_max=True),
    count=st.integers(1, 9),
    limit=st.none() | st.floats(0, 1e300, exclude_min=True),
    mode=st.sampled_from("ab"),
    on=st.booleans(),
)
def test_settings_survive_json_and_text(share, count, limit, mode, on):
    options = Options(share=share, count=count, limit=limit, mode=mode, on=on)
    text = ",".join(f"{key}={value}" for key, value in to_json(options).items())

    assert Options(**to_json(options)) == options
    assert find(text) == options
