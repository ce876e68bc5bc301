"""Preprocessing belongs to the weights; what was imported with one keeps it."""

import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import BackboneSpec, Preprocessing
from regraft.errors import BackboneError, ModelError, WeightsError

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


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


def test_imported_weights_are_a_backbone_with_the_preprocessing_they_came_with(imported):
    backbone = build("mine")

    assert backbone.preprocessing == Preprocessing.torch(64)
    assert backbone.weights.licence == "mit"
    assert backbone.notes == ()


def test_another_preprocessing_than_that_of_imported_weights_is_refused(imported):
    with pytest.raises(BackboneError) as caught:
        build(BackboneSpec("mine", preprocessing=Preprocessing.tf(64)))

    assert caught.value.code == "BACKBONE-PREPROCESSING"
    assert build(BackboneSpec("mine", preprocessing=Preprocessing.torch(64))).feature_dim == 128


def test_only_the_size_of_imported_weights_may_change(imported):
    assert build(BackboneSpec("mine", arguments={"size": 128})).preprocessing.size == 128
    with pytest.raises(BackboneError, match="arguments of their own"):
        build(BackboneSpec("mine", arguments={"num_classes": 3}))


def test_imported_weights_that_changed_on_disk_are_refused(imported):
    data = bytearray(imported.path.read_bytes())
    data[-1] ^= 1
    imported.path.write_bytes(bytes(data))

    with pytest.raises(ModelError) as caught:
        build("mine")

    assert caught.value.code == "MODEL-CHECKSUM"


def test_a_file_of_unknown_preprocessing_is_noted(file):
    bare = build(BackboneSpec("simple_cnn", weights=str(file)))
    told = build(BackboneSpec("simple_cnn", weights=str(file), preprocessing=Preprocessing.tf(96)))

    assert len(bare.notes) == 1
    assert "net.safetensors does not say" in bare.notes[0]
    assert str(file.parent) not in bare.notes[0]
    assert told.notes == ()
    assert bare.weights.source == "net.safetensors"


def test_size_and_preprocessing_must_not_contradict_each_other():
    with pytest.raises(BackboneError, match="contradict"):
        build(
            BackboneSpec(
                "simple_cnn",
                weights=None,
                arguments={"size": 64},
                preprocessing=Preprocessing.tf(96),
            )
        )


def test_a_network_without_trained_weights_says_so():
    with pytest.raises(WeightsError, match="no trained weights"):
        build("simple_cnn")


def test_a_missing_file_of_weights_is_an_error_that_names_it(tmp_path):
    with pytest.raises(WeightsError, match=r"nothing\.safetensors"):
        build(BackboneSpec("simple_cnn", weights=str(tmp_path / "nothing.safetensors")))


def test_random_weights_say_so():
    facts = build(
        BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=4)
    ).weights

    assert (facts.licence, facts.source) == ("none", "random, seed 4")


def test_pictures_prepared_otherwise_than_for_the_weights_are_noted():
    from regraft.backbones.backbone import choose_preprocessing
    from regraft.backbones.sources import build_network, find

    entry = find("efficientnet_lite0")
    own = entry.preprocessing
    other = Preprocessing.torch(own.size)
    network = build_network(entry, {}, empty=True)

    def notes(preprocessing, weights="default"):
        spec = BackboneSpec("efficientnet_lite0", weights=weights, preprocessing=preprocessing)
        return choose_preprocessing(spec, entry, network)[1]

    assert "prepared otherwise" in notes(other)[0]
    assert notes(other, weights=None) == ()
    assert notes(own) == notes(own.at_size(2 * own.size)) == ()
