"""A backbone is sealed: eval mode, its own preprocessing, measured width, a fingerprint."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from regraft import BackboneSpec, Preprocessing, import_weights
from regraft.backbones.backbone import Backbone, build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.views import prepare, views_of
from samples import SMALL, photograph, refused


def pictures(count, size=50):
    draws = np.random.default_rng(3).integers(0, 256, (count, size, size + 10, 3), dtype=np.uint8)
    return list(draws)


@pytest.mark.parametrize(
    ("name", "size", "pooling", "width"),
    [
        ("resnet50", 224, "flatten", 100_352),
        ("resnet50", 64, "avg", 2048),
        ("inception_v3", 299, "flatten", 131_072),
        ("resnet50", 64, "stage:layer2.3", 512),
        ("timm:test_vit", 160, "avg", 64),
    ],
)
def test_the_width_is_the_published_one(name, size, pooling, width):
    spec = BackboneSpec(name, weights=None, pooling=pooling, arguments={"size": size})

    assert build(spec).feature_dim == width


def test_paths_pictures_and_arrays_give_the_same_row(tmp_path):
    (array,) = pictures(1)
    image = Image.fromarray(array)
    image.save(tmp_path / "a.png")

    rows = build(SMALL).embed([tmp_path / "a.png", str(tmp_path / "a.png"), image, array])

    assert rows.dtype == np.float32
    assert all(np.array_equal(rows[0], row) for row in rows[1:])
    error = refused(build, replace(SMALL, pooling="stage:features.9"))
    assert "stages: features.0, features.1, features.2" in str(error)


def test_every_ingredient_changes_the_fingerprint():
    variants = [
        SMALL,
        replace(SMALL, seed=1),
        BackboneSpec("simple_cnn", weights=None, pooling="flatten"),
        BackboneSpec("simple_cnn", weights=None, arguments={"size": 64}),
        BackboneSpec("simple_cnn", weights=None, arguments={"num_classes": 3}),
        BackboneSpec("simple_cnn", weights=None, preprocessing=Preprocessing.torch(96)),
    ]

    fingerprints = [build(spec).fingerprint for spec in variants]

    assert len(set(fingerprints)) == len(variants)
    assert fingerprints[0] == build(SMALL).fingerprint


def test_where_weights_come_from_does_not_change_the_fingerprint(tmp_path):
    drawn = build(SMALL)
    write_state(tmp_path / "a.safetensors", drawn.module.state_dict())

    loaded = build(replace(SMALL, weights=str(tmp_path / "a.safetensors")))

    assert loaded.fingerprint == drawn.fingerprint
    assert np.array_equal(loaded.embed(pictures(1)), drawn.embed(pictures(1)))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_tiny_patch16_224", 192, "takes images of 224 pixels only"),
        ("alexnet", 32, "cannot take images of 32 pixels"),
    ],
)
def test_a_size_that_the_network_cannot_take_is_an_error(name, size, message):
    error = refused(build, BackboneSpec(name, weights=None, arguments={"size": size}))

    assert error.code == "BACKBONE-SIZE"
    assert message in str(error)


def test_only_a_trained_imagenet_head_names_classes(file):
    random = build(BackboneSpec("squeezenet", weights=None))
    other = build(BackboneSpec("simple_cnn", weights=str(file)))

    for backbone, why in ((random, "are random"), (other, "5 outputs")):
        assert why in str(refused(backbone.top_k, pictures(1)))
    assert (random.weights.licence, random.weights.source) == ("none", "random, seed 0")


def test_the_most_probable_classes_come_first(tmp_path):
    state = build(BackboneSpec("squeezenet", weights=None)).module.state_dict()
    state["classifier.1.bias"][[0, 1]] = torch.tensor([90.0, 91.0])
    write_state(tmp_path / "a.safetensors", state)
    backbone = build(BackboneSpec("squeezenet", weights=str(tmp_path / "a.safetensors")))

    (guesses,) = backbone.top_k(pictures(1), k=3)

    assert [guess.label for guess in guesses[:2]] == ["goldfish", "tench"]
    assert guesses[1].wnid == "n01440764"
    assert 1 >= guesses[0].probability > guesses[1].probability > guesses[2].probability
    assert "does not say how its images are to be prepared" in backbone.notes[0]


OF_TF = {"arguments": {"pad_type": "same"}, "preprocessing": Preprocessing.tf()}
REAL = {
    "efficientnet_lite0": (BackboneSpec("efficientnet_lite0"), 0.985),
    "efficientnet_lite2": (BackboneSpec("efficientnet_lite2"), 0.995),
    "vit_tiny_patch16_224": (BackboneSpec("vit_tiny_patch16_224"), 0.965),
    "mobilenetv2_100": (BackboneSpec("mobilenetv2_100", **OF_TF), 0.979),
    "mobilenetv1_100": (BackboneSpec("mobilenet_v1", **OF_TF), 0.981),
    "squeezenet1_1": (BackboneSpec("squeezenet1_1"), 0.834),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", REAL)
def test_real_weights_name_real_photographs_as_often_as_published(assets, file):
    from regraft.backbones.from_timm import imagenet_classes

    spec, rate = REAL[file]
    given = assets / "weights" / f"{file}.safetensors"
    backbone = build(replace(spec, weights=str(given)) if given.is_file() else spec)
    photographs = sorted((assets / "data" / "imagenet200").iterdir())
    indices = [int(re.match(r"\d+", photograph.name)[0]) for photograph in photographs]
    truth = [imagenet_classes()[index][0] for index in indices]

    guesses = backbone.top_k(photographs)

    hits = np.mean(
        [wnid in {g.wnid for g in row} for wnid, row in zip(truth, guesses, strict=True)]
    )
    noise = 2.6 * np.sqrt(rate * (1 - rate) * (1 / 200 + 1 / 1000))
    assert abs(hits - rate) < noise


def test_a_network_on_another_device_is_measured_there():
    """As after training on an accelerator; the device without memory stands for one here."""
    built = build(SMALL)
    built.module.to("meta")

    facts = {name: getattr(built, name) for name in ("preprocessing", "weights", "identifier")}
    moved = Backbone(built.spec, built.network, **facts)

    assert moved.feature_dim == built.feature_dim


FILTERS = {name.lower(): Image.Resampling[name] for name in ("BICUBIC", "BILINEAR", "NEAREST")}


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    ("mode", "size", "scaled"),
    [
        ("crop", (500, 375), (341, 256)),
        ("crop", (60, 90), (256, 384)),
        ("crop", (1023, 77), (3401, 256)),
        ("squash", (500, 375), (224, 224)),
        ("squash_crop", (20, 300), (256, 256)),
        ("squash", (224, 224), (224, 224)),
    ],
)
def test_a_prepared_picture_equals_pillows_to_the_last_level(interpolation, mode, size, scaled):
    image = photograph(size=size)
    preprocessing = Preprocessing(size=224, resize=256, mode=mode, interpolation=interpolation)
    left, top = round((scaled[0] - 224) / 2), round((scaled[1] - 224) / 2)

    expected = image.resize(scaled, FILTERS[interpolation]).crop((left, top, left + 224, top + 224))

    assert np.array_equal(prepare(image, preprocessing), np.array(expected))


def test_the_networks_own_resize_decides_whether_a_picture_is_too_thin():
    image = Image.new("RGB", (100, 12_000))
    prepare(image, Preprocessing(size=224, resize=256))

    error = refused(prepare, image, Preprocessing(size=600, resize=600))

    assert error.code == "IMG-ASPECT"


@pytest.fixture
def file(tmp_path):
    write_state(tmp_path / "net.safetensors", build(SMALL).module.state_dict())
    return tmp_path / "net.safetensors"


@pytest.fixture
def imported(file):
    own = Preprocessing.torch(64)
    return import_weights(
        file, name="mine", backbone="simple_cnn", preprocessing=own, licence="mit"
    )


def test_of_imported_weights_only_the_size_may_change(imported):
    other = refused(build, BackboneSpec("mine", preprocessing=Preprocessing.tf(64)))
    sized = refused(build, replace(SMALL, preprocessing=Preprocessing.tf(96)))

    assert other.code == sized.code == "BACKBONE-PREPROCESSING"
    assert build(BackboneSpec("mine", preprocessing=Preprocessing.torch(64))).feature_dim == 128
    assert build(BackboneSpec("mine", arguments={"size": 128})).preprocessing.size == 128
    fewer = refused(build, BackboneSpec("mine", arguments={"num_classes": 3}))
    assert "arguments of their own" in str(fewer)


def test_a_file_of_unknown_preprocessing_is_noted_and_an_absent_one_named(file):
    bare = build(BackboneSpec("simple_cnn", weights=str(file)))
    told = build(BackboneSpec("simple_cnn", weights=str(file), preprocessing=Preprocessing.tf(96)))

    assert len(bare.notes) == 1
    assert "net.safetensors does not say" in bare.notes[0]
    assert str(file.parent) not in bare.notes[0]
    assert told.notes == ()
    assert bare.weights.source == "net.safetensors"
    assert "no trained weights" in str(refused(build, "simple_cnn"))
    absent = refused(build, replace(SMALL, weights="nothing.safetensors"))
    assert "nothing.safetensors" in str(absent)


def test_images_prepared_otherwise_than_for_the_weights_are_noted():
    own = build("efficientnet_lite0").preprocessing

    def notes(preprocessing, weights="default"):
        spec = BackboneSpec("efficientnet_lite0", weights=weights, preprocessing=preprocessing)
        return build(spec).notes

    assert "prepared otherwise" in notes(Preprocessing.torch(own.size))[0]
    assert notes(Preprocessing.torch(own.size), weights=None) == ()
    assert notes(own) == notes(own.at_size(160)) == ()


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing.torch(48),
        Preprocessing(size=47, resize=60),
        Preprocessing(size=48, resize=48),
        Preprocessing.torch(48, mode="squash"),
        Preprocessing.torch(48, mode="squash_crop"),
    ],
    ids=str,
)
def test_ten_views_are_the_centre_and_the_corners_each_with_its_mirror_image(preprocessing):
    image = photograph(size=(70, 90))
    centre = prepare(image, preprocessing)

    views = views_of(image, preprocessing, 10)

    entering = [prepare(Image.fromarray(view), preprocessing) for view in views]
    assert np.array_equal(entering[0], centre)
    assert len({view.tobytes() for view in entering}) == 10
    for plain, mirrored in zip(entering[::2], entering[1::2], strict=True):
        assert np.array_equal(mirrored, plain[:, ::-1])
    if preprocessing == Preprocessing(size=47, resize=60):
        whole = np.array(image.resize((60, int(60 * 90 / 70)), Image.Resampling.BICUBIC))
        cuts = [whole[:47, :47], whole[:47, -47:], whole[-47:, :47], whole[-47:, -47:]]
        assert all(map(np.array_equal, entering[2::2], cuts))
    two = views_of(image, preprocessing, 2)
    assert all(map(np.array_equal, two, views))
