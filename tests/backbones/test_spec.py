"""Specs are plain values: checked, hashable, the same after a way through JSON."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.errors import BackboneError
from regraft.settings import from_json, to_json


def test_the_three_usual_preprocessings_have_their_published_numbers():
    torch, tf, caffe = Preprocessing.torch(), Preprocessing.tf(299), Preprocessing.caffe()

    assert (torch.size, torch.resize, torch.mean) == (224, 256, (0.485, 0.456, 0.406))
    assert (tf.size, tf.mean, tf.std, tf.scale) == (299, (0.5,) * 3, (0.5,) * 3, 255.0)
    assert (caffe.mean, caffe.scale, caffe.channels) == ((103.939, 116.779, 123.68), 1.0, "BGR")


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"size": 5000},
        {"size": True},
        {"resize": 100},
        {"mode": "stretch"},
        {"interpolation": "lanczos"},
        {"channels": "GBR"},
        {"mean": (0.5, 0.5)},
        {"mean": "abc"},
        {"std": (0.5, 0.0, 0.5)},
        {"mean": (float("nan"), 0.0, 0.0)},
        {"scale": 0},
        {"scale": float("inf")},
    ],
)
def test_a_preprocessing_out_of_range_is_refused(changes):
    with pytest.raises(BackboneError) as caught:
        Preprocessing(**{"size": 224, "resize": 256, **changes})

    assert caught.value.code == "BACKBONE-PREPROCESSING"


def test_another_size_keeps_the_share_that_is_cut_away():
    assert Preprocessing.torch(224).at_size(112).resize == 128
    assert Preprocessing(size=224, resize=224).at_size(300).resize == 300


@given(
    arguments=st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.lists(st.integers())),
        max_size=3,
    )
)
def test_a_spec_survives_json_and_stays_hashable(arguments):
    spec = BackboneSpec("vgg16", arguments=arguments, preprocessing=Preprocessing.tf())

    read = from_json(BackboneSpec, json.loads(json.dumps(to_json(spec))))

    assert read == spec
    assert hash(read) == hash(spec)
    assert read == BackboneSpec(
        "vgg16", arguments=tuple(reversed(spec.arguments)), preprocessing=spec.preprocessing
    )


@pytest.mark.parametrize("value", [{}, {"name": "a", "colour": 1}, [], "vgg16"])
def test_a_spec_with_missing_or_unknown_fields_is_refused(value):
    with pytest.raises(BackboneError):
        from_json(BackboneSpec, value)


@pytest.mark.parametrize("pooling", ["max", "stage:", ""])
def test_an_unknown_pooling_is_refused(pooling):
    with pytest.raises(BackboneError, match="unknown pooling"):
        BackboneSpec("vgg16", pooling=pooling)


def test_an_argument_that_is_no_plain_value_is_refused():
    with pytest.raises(BackboneError, match="no plain value"):
        BackboneSpec("vgg16", arguments=(("act_layer", object()),))


def test_names_and_specs_need_no_torch():
    code = (
        "import sys, regraft.backbones.published, regraft.backbones.catalog as c;"
        "c.known('vgg16'); c.list_backbones();"
        "from regraft.backbones.spec import BackboneSpec; BackboneSpec('vgg16');"
        "sys.exit('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert done.returncode == 0
