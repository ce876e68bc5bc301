"""Does Regraft compute what Keras computes from the same file of weights? In two halves.

The first half needs Keras and TensorFlow, the second Regraft; nothing needs both, so that each may
have an environment of its own:

    python benchmarks/keras_weights.py write FOLDER [NETWORK …]
    python benchmarks/keras_weights.py check FOLDER

``write`` lets Keras build each network with random weights, random batch statistics included, save
it in every form that Keras has, and compute features and probabilities of the same pixels.
``check`` imports the files, compares, and writes ``docs/keras-weights.md`` once all networks were
compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 1e-4  # difference that is accepted, as a share of the values' root mean square
# Keras' name, the module of its preprocess_input, Regraft's name.
NETWORKS = (
    ("VGG16", "vgg16", "vgg16"),
    ("VGG19", "vgg19", "vgg19"),
    ("MobileNet", "mobilenet", "mobilenet_v1"),
    ("MobileNetV2", "mobilenet_v2", "mobilenet_v2"),
)
REFUSED = (
    ("ResNet50", "resnet50"),
    ("InceptionV3", "inception_v3"),
    ("InceptionResNetV2", "inception_resnet_v2"),
    ("Xception", "xception"),
    ("NASNetMobile", "nasnet"),
)
SMALLER = {"block1_conv1": 0.01, "predictions": 0.2, "conv_preds": 0.2}
FORMS = ("top.h5", "top.weights.h5", "whole.h5", "notop.h5", "notop.weights.h5")
DOCUMENT = Path(__file__).parents[1] / "docs" / "keras-weights.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("half", choices=["write", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*")
    chosen = parser.parse_args()
    if chosen.half == "write":
        for title, *_ in (*NETWORKS, *REFUSED):
            if not chosen.networks or title in chosen.networks:
                write(chosen.folder / title, title)
    elif not check(chosen.folder, chosen.networks):
        sys.exit(1)


def write(folder: Path, title: str) -> None:
    """Let Keras save a network and compute what it makes of the pixels."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    folder.mkdir(parents=True, exist_ok=True)
    build = getattr(keras.applications, title)
    if title in dict(REFUSED):
        build(weights=None).save_weights(folder / "top.weights.h5")
        return
    random = np.random.default_rng(0)
    whole = build(weights=None)
    for layer in whole.layers:
        layer.set_weights(random_weights(layer, random))
    trunk = build(weights=None, include_top=False, input_shape=(224, 224, 3))
    sources = {layer.name: layer for layer in whole.layers}
    for layer in trunk.layers:
        if layer.weights:
            layer.set_weights(sources[layer.name].get_weights())
    save(whole, trunk, folder)
    pixels = np.stack([drawn_image(random, side) for side in (7, 28, 112, 224)])
    module = getattr(keras.applications, next(m for t, m, _ in NETWORKS if t == title))
    prepared = module.preprocess_input(pixels.astype("float32"))
    last = sources[trunk.layers[-1].name]
    both = keras.Model(whole.input, [last.output, whole.output])
    maps, probabilities = both.predict(prepared, verbose=0)
    np.savez(folder / "expected.npz", pixels=pixels, maps=maps, probabilities=probabilities)
    (folder / "versions.json").write_text(json.dumps(versions("keras", "tensorflow", "h5py")))


def drawn_image(random: np.random.Generator, side: int) -> np.ndarray:
    """Return random squares of one colour each: few large ones to single pixels."""
    squares = random.integers(0, 256, (side, side, 3), np.uint8)
    return squares.repeat(224 // side, 0).repeat(224 // side, 1)


def random_weights(layer: Any, random: np.random.Generator) -> list[np.ndarray]:
    """Return weights that keep the values' size from layer to layer, so that errors show."""
    kind, values = type(layer).__name__, []
    for weight in layer.weights:
        shape = tuple(weight.shape)
        if weight.name == "kernel":
            inputs = np.prod(shape[:2] if kind == "DepthwiseConv2D" else shape[:-1])
            # VGG takes values up to 150, and of far apart outputs only one class would be left. Of
            # layers without an activation, too large ones would let rounding errors grow.
            smaller = 0.5 if "project" in layer.name else SMALLER.get(layer.name, 1.0)
            size = smaller * np.sqrt(2 / inputs)
            values.append(random.normal(0, size, shape))
        elif weight.name in {"gamma", "moving_variance"}:
            values.append(random.uniform(0.8, 1.2, shape))
        else:
            values.append(random.normal(0, 0.1, shape))
    return values


def save(whole: Any, trunk: Any, folder: Path) -> None:
    from h5py import File
    from keras.src.legacy.saving import legacy_h5_format

    whole.save(folder / "whole.h5")
    for model, form in ((whole, "top"), (trunk, "notop")):
        model.save_weights(folder / f"{form}.weights.h5")
        with File(
            folder / f"{form}.h5", "w"
        ) as file:  # what Keras Applications offers for download
            legacy_h5_format.save_weights_to_hdf5_group(file, model)


def check(folder: Path, chosen: list[str]) -> bool:
    """Compare what Regraft makes of the files, and write the table if it is complete."""
    rows, refusals = [], []
    with tempfile.TemporaryDirectory() as home:
        os.environ["REGRAFT_HOME"] = home
        for title, _, name in NETWORKS:
            if not chosen or title in chosen:
                rows.append((title, name, *compared(folder / title, name)))
                print(*rows[-1], flush=True)
        for title, name in REFUSED:
            if not chosen or title in chosen:
                refusals.append((title, refusal(folder / title, name)))
                print(*refusals[-1], flush=True)
    good = all(max(row[2:]) <= LARGEST for row in rows)
    if good and not chosen:
        made = json.loads((folder / "VGG16" / "versions.json").read_text())
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(document(rows, refusals, made | versions("torch", "timm")))
    return good


def compared(folder: Path, name: str) -> tuple[float, float, float]:
    """Return the largest differences of features, maps and probabilities over all forms."""
    from regraft.backbones.backbone import build
    from regraft.backbones.sources import import_weights
    from regraft.backbones.spec import BackboneSpec

    expected = np.load(folder / "expected.npz")
    pixels, maps = list(expected["pixels"]), expected["maps"]
    features, flat, probabilities = [], [], []
    for form in FORMS:
        stored = import_weights(folder / form, name="keras", backbone=name, overwrite=True)
        backbone = build("keras")
        features.append(difference(backbone.embed(pixels), maps.mean((1, 2))))
        rows = build(BackboneSpec("keras", pooling="flatten")).embed(pixels)
        flat.append(difference(rows, maps.transpose(0, 3, 1, 2).reshape(len(maps), -1)))
        if form.startswith("notop"):
            assert stored.num_classes is None
            continue
        guesses = backbone.top_k(pixels, k=1000)
        ordered = [sorted(image, key=lambda guess: guess.wnid) for image in guesses]
        found = np.array([[guess.probability for guess in image] for image in ordered])
        probabilities.append(difference(found, expected["probabilities"]))
    return max(features), max(flat), max(probabilities)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.sqrt(np.mean(expected**2)))


def refusal(folder: Path, name: str) -> str:
    from regraft.backbones.sources import import_weights
    from regraft.errors import WeightsError

    try:
        import_weights(folder / "top.weights.h5", name="keras", backbone=name, overwrite=True)
    except WeightsError as error:
        return error.why
    raise AssertionError(f"{folder.name} was imported")


def versions(*packages: str) -> dict[str, str]:
    from importlib import metadata

    def found(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return metadata.version(f"{package}-cpu")

    return {package: found(package) for package in packages}


def document(rows: list[Any], refusals: list[Any], found: dict[str, str]) -> str:
    table = [
        f"| {title} | `{name}` | {features:.0e} | {flat:.0e} | {probabilities:.0e} |"
        for title, name, features, flat, probabilities in rows
    ]
    refused = [f"| {title} | {why} |" for title, why in refusals]
    listed = ", ".join(f"{package} {version}" for package, version in found.items())
    return TEXT.format(
        table="\n".join(table),
        refused="\n".join(refused),
        versions=listed,
        largest=LARGEST,
    )


TEXT = """\
# Weights of Keras Applications

<!-- written by benchmarks/keras_weights.py -->

    regraft weights import ~/.keras/models/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 \\
        --name keras_vgg16 --backbone vgg16
    regraft fit DIR --backbone keras_vgg16

Files of Keras Applications and what `save_weights` and `save` write as `.h5` are read without
TensorFlow, with and without the classifier ("top"). The names of the layers in a file tell which
network it is, whatever the file is called.

Each network below was built by Keras with random weights and random batch statistics and saved in
five forms: legacy weights with and without top, `.weights.h5` of Keras 3 with and without top,
and a whole model. Regraft read each, and both computed four images of the same pixels: the
averaged last feature map, the last feature map value by value, and the probabilities of the 1000
classes. The figures are the largest difference of any value, as a share of the values' root mean
square; up to {largest:.0e} is accepted. What is left is the rounding of 32-bit numbers.

| Keras | Regraft | features | whole map | probabilities |
|---|---|---|---|---|
{table}

Versions: {versions}.

To repeat it, the first with Keras and the second with Regraft:

    python benchmarks/keras_weights.py write FOLDER
    python benchmarks/keras_weights.py check FOLDER

`make keras-weights` does both in the environment of the benchmarks.

## What goes with the weights

Keras' own preprocessing: for VGG the channels in the order BGR with 103.939, 116.779 and 123.68
subtracted and no scaling ("caffe"), for MobileNet the range -1 to 1 ("tf"). MobileNet is built
with TensorFlow's padding and Keras' epsilon; the record keeps that.

Images are squashed to 224×224, whatever their shape, since `load_img(target_size=…)` and
`image_dataset_from_directory` do so, and with them nearly all code that uses these weights.
Regraft's bilinear filter is antialiased and Keras' is not, so pixels differ a little where images
are made much smaller. To keep the shape of what is seen, import with `--mode crop --resize 256`.

A flattened map (`--pooling flatten`) has the same values as Keras' `Flatten()`, in the order
channel, row, column instead of row, column, channel.

## What is refused

Where timm's network is not the very same one, or layers cannot be told apart, a file is refused:

| Keras | why |
|---|---|
{refused}
"""


if __name__ == "__main__":
    main()
