"""What a network has learned: filters, feature maps, what excites a channel or a class."""

import numpy as np
import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.errors import UsageError
from regraft.explain.inside import feature_maps, first_filters, maximise, most_excited

SPEC = BackboneSpec("simple_cnn", weights=None, arguments={"size": 64})
RANDOM = np.random.default_rng(0)
IMAGES = list(RANDOM.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def trunk():
    return build(SPEC)


def test_filters_are_shown_in_the_colours_that_excite_them(trunk):
    weights = trunk.module.features[0][0].weight
    with torch.no_grad():
        weights[0] = 0
        weights[0, 0] = 0.3  # red alone
    bgr = build(BackboneSpec("simple_cnn", weights=None, preprocessing=Preprocessing.caffe()))
    with torch.no_grad():
        bgr.module.features[0][0].weight.copy_(weights)

    filters = first_filters(trunk)

    assert filters.shape == (16, 3, 3, 3)
    assert filters[0, 0, 0].tolist() == [255, 128, 128]
    assert first_filters(bgr)[0, 0, 0].tolist() == [128, 128, 255]  # there the first is blue


def test_feature_maps_go_from_the_first_stage_to_the_last(trunk):
    found = feature_maps(trunk, IMAGES[0])

    assert [one.stage for one in found] == [stage.name for stage in trunk.stages]
    assert [one.total for one in found] == [16, 64, 128, 128]
    sides = [one.maps.shape[1] for one in found]
    assert sides == sorted(sides, reverse=True)
    for one in found:
        assert one.maps.shape[0] == len(one.channels) == 8
        assert one.maps.min() == 0
        assert one.maps.max() <= 1


def test_the_same_channels_of_another_network_can_be_shown_beside(trunk):
    other = build(BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}, seed=1))
    own = feature_maps(trunk, IMAGES[0])

    beside = feature_maps(other, IMAGES[0], channels={one.stage: one.channels for one in own})

    assert [one.channels for one in beside] == [one.channels for one in own]
    assert not np.allclose(beside[0].maps, own[0].maps)


def test_feature_maps_of_a_transformer_are_squares_without_its_class_token():
    vit = build(BackboneSpec("vit_tiny_patch16_224", weights=None))

    last = feature_maps(vit, IMAGES[0])[-1]

    assert last.maps.shape == (8, 14, 14)


def test_the_images_that_excite_a_channel_come_strongest_first(trunk):
    bright = IMAGES[3].copy()
    bright[20:40, 30:50] = 255

    found = most_excited(trunk, [*IMAGES, bright], 3, count=4)

    assert len(found) == 4
    assert [one.value for one in found] == sorted((one.value for one in found), reverse=True)
    alone = most_excited(trunk, [[*IMAGES, bright][found[0].index]], 3)
    assert alone[0].value == pytest.approx(found[0].value, rel=1e-5)
    assert found[0].crop.shape[0] == found[0].crop.shape[1] <= 64


def test_a_made_image_excites_its_channel_more_than_what_it_began_with(trunk):
    begun = maximise(trunk, channel=5, steps=0)
    made = maximise(trunk, channel=5, steps=16)

    first, second = most_excited(trunk, [begun, made], 5)

    assert (first.index, second.index) == (1, 0)
    assert first.value > 2 * second.value
    assert np.array_equal(made, maximise(trunk, channel=5, steps=16))
    assert not np.array_equal(made, maximise(trunk, channel=5, steps=16, seed=1))


def test_a_made_image_is_predicted_as_its_class():
    learner = FeatureClassifier(SPEC, grid=None, compute=Compute(cache=None))
    learner.fit([*IMAGES, *(image // 4 for image in IMAGES)], ["day"] * 5 + ["night"] * 5)

    made = [maximise(learner, class_name=name, steps=16) for name in ("day", "night")]

    assert learner.predict(made).tolist() == ["day", "night"]


def test_what_cannot_be_made_is_said(trunk):
    learner = FeatureClassifier(SPEC, classifier="knn", grid=None, compute=Compute(cache=None))
    learner.fit(IMAGES[:4], ["left", "right", "left", "right"])

    with pytest.raises(UsageError, match="there is no channel 128"):
        maximise(trunk, channel=128)
    with pytest.raises(UsageError, match="its classifier has no gradient"):
        maximise(learner, class_name="left")
