"""The store: records are read strictly, whatever somebody wrote into them."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft.backbones.spec import Preprocessing
from regraft.backbones.weights import StoredWeights, find_weights, list_weights, store
from regraft.errors import ModelError
from regraft.settings import to_json
from samples import refused

SOUND = to_json(
    StoredWeights(
        name="mine",
        backbone="simple_cnn",
        arguments=(("num_classes", 2), ("size", 64)),
        preprocessing=Preprocessing.tf(64),
        licence="mit",
        source="mine.safetensors",
        sha256="0" * 64,
        notes=("a note",),
    )
)


def write(record, name="mine"):
    folder = store() / name
    folder.mkdir(parents=True, exist_ok=True)
    text = record if isinstance(record, str) else json.dumps(record)
    (folder / "weights.json").write_text(text)
    return folder


HARM = {
    "no backbone": {"backbone": None},
    "another name": {"name": "other"},
    "a path as name": {"name": "../mine"},
    "unknown key": {"surprise": 1},
    "no hash": {"sha256": "0"},
    "no preprocessing": {"preprocessing": None},
    "preprocessing out of range": {"preprocessing": {**SOUND["preprocessing"], "size": 10**9}},
    "an argument that is an object": {"arguments": {"weights": {"a": 1}}},
    "arguments as a list": {"arguments": ["size"]},
    "notes as text": {"notes": "a note"},
}


@pytest.mark.parametrize("harm", HARM)
def test_a_record_with_a_wrong_value_is_refused_with_the_name_of_the_file(harm):
    folder = write(SOUND)
    assert to_json(find_weights("mine")) == SOUND
    write({**SOUND, **HARM[harm]})

    error = refused(find_weights, "mine")

    assert error.code == "MODEL-CORRUPT"
    assert str(folder) in str(error)
    assert list_weights() == ()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 100_000, '"' + "a" * (9 << 20) + '"', "NaN"],
)
def test_a_record_that_is_no_object_is_refused(text):
    write(text)

    assert refused(find_weights, "mine").code == "MODEL-CORRUPT"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(SOUND)), inner=st.booleans(), value=anything)
def test_any_value_anywhere_is_read_or_refused_and_nothing_else(key, inner, value):
    record = copy.deepcopy(SOUND)
    if inner and isinstance(record[key], dict):
        record[key][next(iter(record[key]))] = value
    else:
        record[key] = value
    write(record)

    refused = None
    try:
        find_weights("mine")
    except ModelError as error:
        refused = error

    assert refused is None or refused.code == "MODEL-CORRUPT"
