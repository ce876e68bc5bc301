"""Keras' files become timm's networks: the same numbers, whatever the layout, or a refusal."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch

from regraft.backbones.backbone import build
from regraft.backbones.keras_files import read_keras
from regraft.backbones.sources import find, import_weights
from regraft.backbones.spec import BackboneSpec
from regraft.backbones.weights import list_weights
from samples import refused

# Names of layers with weights in the order in which Keras 3.15 makes them, which is timm's too.
NAMES = {
    title: layers
    for title, *layers in map(
        str.split, Path(__file__).with_name("keras_layers.txt").read_text().splitlines()
    )
}
BACKBONES = {
    "MobileNet": "mobilenet_v1",
    "MobileNetV2": "mobilenet_v2",
}
VGG16 = {1: (64, 64), 2: (128, 128), 3: (256, 256, 256), 4: (512, 512, 512), 5: (512, 512, 512)}
DENSE = {"fc1": (25088, 40), "fc2": (40, 4096), "predictions": (4096, 10)}


def write_legacy(path, layers, folder="", dtype="float32"):
    """Write layers as `save_weights` of Keras 2 does, or `save` in the folder model_weights."""
    with h5py.File(path, "w") as file:
        root = file.require_group(folder) if folder else file
        root.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers)]
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for name, arrays in layers.items():
            group = root.create_group(name)
            names = [f"{name}/{index}:0" for index in range(len(arrays))]
            group.attrs["weight_names"] = [text.encode() for text in names]
            for text, array in zip(names, arrays, strict=True):
                group.create_dataset(text, data=array.astype(dtype))
    return path


def write_keras_3(path, layers, *, named=True):
    """Write layers as `save_weights` of Keras 3 does: counted by kind, their names beside them."""
    with h5py.File(path, "w") as file:
        for index, (name, arrays) in enumerate(layers.items()):
            group = file.create_group(f"layers/layer_{index}/vars")
            if named:
                group.attrs["name"] = name
            for number, array in enumerate(arrays):
                group.create_dataset(str(number), data=array)
        file.create_group("layers/dropout/seed_generator/vars")["0"] = np.zeros(2, np.uint32)
        file.create_group("layers/flatten/vars").attrs["name"] = "flatten"
    return path


@pytest.fixture(scope="module")
def vgg16():
    random = np.random.default_rng(0)
    layers, depth = {}, 3
    for block, widths in VGG16.items():
        for number, width in enumerate(widths, start=1):
            kernel = random.normal(0, np.sqrt(2 / 9 / depth), (3, 3, depth, width))
            layers[f"block{block}_conv{number}"] = [kernel, random.normal(0, 0.1, width)]
            depth = width
    for name, shape in DENSE.items():
        kernel = random.normal(0, np.sqrt(2 / shape[0]), shape)
        layers[name] = [kernel, random.normal(0, 0.1, shape[1])]
    return {name: [a.astype(np.float32) for a in arrays] for name, arrays in layers.items()}


def convolved(values, layers):
    """Run VGG16's trunk on (height, width, 3) as Keras defines it, with numpy alone."""
    for block, widths in VGG16.items():
        for number in range(1, len(widths) + 1):
            kernel, bias = layers[f"block{block}_conv{number}"]
            padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
            values = np.maximum(np.einsum("yxihw,hwio->yxo", windows, kernel, optimize=True), -bias)
            values = values + bias
        height, width, depth = values.shape
        values = values.reshape(height // 2, 2, width // 2, 2, depth).max((1, 3))
    return values


@pytest.mark.parametrize("top", [True, False])
def test_vgg16_computes_what_keras_does(top, vgg16, tmp_path):
    layers = {name: a for name, a in vgg16.items() if top or name not in DENSE}
    path = write_legacy(tmp_path / "any_name.h5", layers)
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)

    stored = import_weights(path, name="mine", backbone="vgg16", arguments={"mlp_ratio": 0.01})
    trunk = BackboneSpec("mine", arguments={"mlp_ratio": 0.01, "size": 32}, pooling="flatten")
    (row,) = build(trunk).embed([image])

    caffe = image[..., ::-1].astype(np.float32) - (103.939, 116.779, 123.68)
    expected = convolved(caffe, vgg16)
    np.testing.assert_allclose(row, expected.transpose(2, 0, 1).ravel(), rtol=1e-4, atol=1e-3)
    assert (stored.preprocessing.mode, stored.preprocessing.size) == ("squash", 224)
    assert top != any("no classifier" in note for note in stored.notes)
    assert any("VGG16" in note for note in stored.notes)


def test_the_dense_layers_see_a_map_flattened_as_keras_does_it(vgg16, tmp_path):
    path = write_legacy(tmp_path / "net.h5", vgg16)
    keras = read_keras(path, find("vgg16"))
    network = timm.create_model("vgg16", mlp_ratio=0.01, **dict(keras.arguments)).eval()
    network.load_state_dict(keras.state)
    last_map = np.random.default_rng(2).random((7, 7, 512)).astype(np.float32)

    with torch.inference_mode():
        found = network.forward_head(torch.from_numpy(last_map.transpose(2, 0, 1))[None])

    hidden = last_map.ravel()
    for kernel, bias in (vgg16["fc1"], vgg16["fc2"]):
        hidden = np.maximum(hidden @ kernel + bias, 0)
    kernel, bias = vgg16["predictions"]
    np.testing.assert_allclose(found.numpy()[0], hidden @ kernel + bias, rtol=1e-4, atol=1e-4)


def keras_layers(title):
    """Return a random network of timm's, and its tensors as Keras would hold them."""
    size = {"channel_multiplier": 0.25} if title == "MobileNet" else {"num_classes": 5}
    module = build(BackboneSpec(BACKBONES[title], weights=None, arguments=size)).module
    state = {name: torch.rand(tensor.shape) for name, tensor in module.state_dict().items()}
    modules = dict.fromkeys(name.rpartition(".")[0] for name in state)
    layers = {}
    for layer, own in zip(NAMES[title], modules, strict=True):
        weight = state[f"{own}.weight"].numpy()
        more = [f"{own}.{name}" for name in ("bias", "running_mean", "running_var")]
        rest = [state[name].numpy() for name in more if name in state]
        if weight.ndim == 4:
            weight = weight.transpose((2, 3, 0, 1) if "dw" in own else (2, 3, 1, 0))
        elif weight.ndim == 2:
            weight = weight.T
        if layer == "conv_preds":
            weight = weight[None, None]
        layers[layer] = [weight, *rest]
    return state, layers


@pytest.mark.parametrize(
    ("arguments", "changes", "size", "resize", "mode"),
    [
        ({}, {"mode": "crop", "resize": 256}, 224, 256, "crop"),
        ({}, {"size": 150}, 150, 150, "squash"),
        ({"size": 150}, None, 150, 150, "squash"),
    ],
)
def test_what_is_given_changes_keras_preprocessing(
    arguments, changes, size, resize, mode, tmp_path
):
    _, layers = keras_layers("MobileNet")
    path = write_legacy(tmp_path / "net.h5", layers)
    arguments = {**arguments, "channel_multiplier": 0.25}

    stored = import_weights(
        path, name="mine", backbone="mobilenet_v1", arguments=arguments, preprocessing=changes
    )

    found = stored.preprocessing
    assert (found.interpolation, found.mean) == ("bilinear", (0.5, 0.5, 0.5))
    assert (found.size, found.resize, found.mode) == (size, resize, mode)
    assert stored.preprocessing_from == "given"
    assert build("mine").preprocessing == found


@pytest.mark.parametrize(
    ("title", "layout"),
    [
        ("MobileNet", write_legacy),
        ("MobileNet", lambda path, layers: write_legacy(path, layers, "model_weights")),
        ("MobileNetV2", write_keras_3),
    ],
    ids=["legacy", "whole", "keras_3"],
)
def test_every_tensor_finds_its_place(title, layout, tmp_path):
    state, layers = keras_layers(title)
    if title == "MobileNet":  # a batch normalisation without a scale gets one
        layers["conv1_bn"], state["bn1.weight"] = layers["conv1_bn"][1:], torch.ones(8)
    path = layout(tmp_path / "net.h5", layers)

    keras = read_keras(path, find(BACKBONES[title]))

    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert set(keras.state) == set(state) - counters
    for name, tensor in keras.state.items():
        assert torch.equal(tensor, state[name]), name
    arguments = dict(keras.arguments)
    assert arguments.pop("num_classes", 1000) == (5 if title == "MobileNetV2" else 1000)
    assert arguments == {"pad_type": "same", "bn_eps": 1e-3}


def tiny(*names):
    return {name: [np.ones((1, 1, 3, 4), np.float32)] for name in names}


@pytest.mark.parametrize(
    ("layers", "what"),
    [
        (("conv2_block1_3_conv", "dense"), "no network of Keras"),
        (("block5_conv3", "my_head"), "more than VGG16"),
    ],
)
def test_other_networks_are_refused_with_what_can_be_read(layers, what, tmp_path):
    path = write_keras_3(tmp_path / "net.weights.h5", tiny(*layers))

    error = refused(import_weights, path, name="mine", backbone="vgg16")

    assert error.code == "WEIGHTS-MISFIT"
    assert what in str(error)
    assert layers[-1] in error.why
    assert "VGG16, VGG19" in error.hint
    assert list_weights() == ()


@pytest.mark.parametrize("backbone", ["vgg19", "torchvision:vgg16"])
def test_the_network_in_the_file_must_be_the_one_named(backbone, tmp_path):
    path = write_legacy(tmp_path / "vgg19_notop.h5", tiny("block5_conv3"))

    error = refused(import_weights, path, name="mine", backbone=backbone)

    assert "the file holds Keras' VGG16" in str(error)
    assert error.hint == "import it with --backbone timm:vgg16"


def test_a_classifier_for_another_size_is_refused(tmp_path):
    layers = {**tiny("block5_conv3"), "fc1": [np.ones((512 * 14, 4)), np.ones(4)]}

    error = refused(read_keras, write_legacy(tmp_path / "net.h5", layers), find("vgg16"))

    assert "7×7" in str(error)


def linked(path):
    path.rename(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/")


def replaced(path, **changed):
    with h5py.File(path, "a") as file:
        del file["block5_conv3/block5_conv3/0:0"]
        if changed:
            file["block5_conv3"].create_dataset("block5_conv3/0:0", **changed)


def external(path):
    other = path.parent / "other.bin"
    other.write_bytes(bytes(48))
    replaced(path, shape=(1, 1, 3, 4), dtype="f4", external=[(str(other), 0, 48)])


HARM = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "no HDF5": lambda path: path.write_bytes(b"<html>not found</html>"),
    "a link": linked,
    "external data": external,
    "huge": lambda path: replaced(path, shape=(1 << 40,), dtype="f4", chunks=(1 << 20,)),
    "a tensor less": replaced,
    "three dimensions": lambda path: replaced(path, data=np.ones((2, 2, 2), np.float32)),
    "text": lambda path: replaced(path, data="text"),
    "no names": lambda path: write_keras_3(
        path, tiny("block5_conv3"), named=False
    ),  # early Keras 3
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_or_harmful_file_is_refused(harm, tmp_path):
    path = write_legacy(tmp_path / "net.h5", tiny("block5_conv3"))
    HARM[harm](path)

    error = refused(import_weights, path, name="mine", backbone="vgg16")

    assert error.code == "MODEL-CORRUPT"
    assert "net.h5" in str(error)
