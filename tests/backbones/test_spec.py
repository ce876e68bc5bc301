"""Specs are plain values: checked, hashable, the same after a way through JSON."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.errors import BackboneError
from regraft.settings import from_json, to_json
from samples import refused


def test_the_three_usual_preprocessings_have_their_published_numbers():
    torch, tf, caffe = Preprocessing.torch(), Preprocessing.tf(299), Preprocessing.caffe()

    assert (torch.size, torch.resize, torch.mean) == (224, 256, (0.485, 0.456, 0.406))
    assert (tf.size, tf.mean, tf.std, tf.scale) == (299, (0.5,) * 3, (0.5,) * 3, 255.0)
    assert (caffe.mean, caffe.scale, caffe.channels) == ((103.939, 116.779, 123.68), 1.0, "BGR")
    assert "224 px (resize 256, centre crop, bilinear), RGB" in str(torch)
    squashes = [str(Preprocessing.torch(mode=mode)) for mode in ("squash", "squash_crop")]
    assert "(squash, " in squashes[0]
    assert "(squash to 256, centre crop, " in squashes[1]


@pytest.mark.parametrize(
    "changes",
    [
        *({"size": 0}, {"size": 5000}, {"size": True}, {"resize": 100}, {"mode": "stretch"}),
        *({"interpolation": "lanczos"}, {"channels": "GBR"}, {"mean": (0.5, 0.5)}, {"mean": "abc"}),
        *({"std": (0.5, 0.0, 0.5)}, {"mean": (math.nan, 0.0, 0.0)}, {"scale": 0}),
        {"scale": math.inf},
    ],
)
def test_a_preprocessing_out_of_range_is_refused(changes):
    error = refused(Preprocessing, **{"size": 224, "resize": 256, **changes})

    assert error.code == "BACKBONE-PREPROCESSING"


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
def test_a_spec_with_missing_unknown_or_impossible_fields_is_refused(value):
    assert isinstance(refused(from_json, BackboneSpec, value), BackboneError)
    for pooling in ("max", "stage:", ""):
        assert "unknown pooling" in str(refused(BackboneSpec, "vgg16", pooling=pooling))
    no_value = (("act_layer", object()),)
    assert "no plain value" in str(refused(BackboneSpec, "vgg16", arguments=no_value))
