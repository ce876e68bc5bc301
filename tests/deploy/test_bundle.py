"""A bundle is used by its own example, with onnxruntime, numpy and Pillow alone."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from regraft.deploy.bundle import write_bundle
from regraft.deploy.export import write_deployed
from regraft.deploy.predictor import load

HEAVY = ["torch", "timm", "torchvision", "sklearn", "scipy", "regraft", "onnx"]
PROVENANCE = {
    "run": "shades",
    "accuracy": "93.3 % [78.7, 98.2], n = 30 test images",
    "backbone": {"name": "simple_cnn", "weights": None, "licence": "none"},
}


@pytest.fixture(scope="module")
def bundle(images, learner_of, tmp_path_factory):
    """Return a deployed model, and the folder where its bundle was unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    learner = learner_of("logistic").fit(*images)
    write_deployed(learner, folder / "deploy", images[0], provenance=PROVENANCE)
    write_bundle(folder / "deploy", folder / "shades.zip")
    with zipfile.ZipFile(folder / "shades.zip") as archive:
        archive.extractall(folder / "shades")
    return load(folder / "deploy"), folder / "shades"


def answers(folder, *files):
    """Return what the example in a bundle says, where it finds nothing else than it needs."""
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}))\n"
    code += "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", code, str(folder / "predict.py"), *map(str, files)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder.parent)
    return [line.split("\t") for line in told.stdout.splitlines()]


def test_the_example_says_what_the_model_says(bundle, images, tmp_path):
    model, folder = bundle
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for file, image in zip(files, images[0], strict=False):
        Image.fromarray(image).save(file)

    told = answers(folder, *files)

    assert [line[0] for line in told] == list(map(str, files))
    assert [line[1] for line in told] == model.predict(files).tolist()
    expected = model.predict_proba(files).max(axis=1)
    assert [float(line[2]) for line in told] == pytest.approx(expected, abs=0.01)


def test_the_example_turns_photographs_upright_and_paints_what_is_clear(bundle, tmp_path):
    model, folder = bundle
    turned, clear = tmp_path / "turned.jpg", tmp_path / "clear.png"
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, :45] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(turned, exif=exif)
    Image.new("RGBA", (60, 50), (0, 0, 0, 0)).save(clear)

    told = answers(folder, turned, clear)

    assert [line[1] for line in told] == model.predict([turned, clear]).tolist()
    expected = model.predict_proba([turned, clear]).max(axis=1)
    assert [float(line[2]) for line in told] == pytest.approx(expected, abs=0.01)


def test_a_bundle_says_what_is_known_of_it_and_its_example_is_short(bundle):
    _, folder = bundle
    said = (folder / "README.md").read_text()
    example = (folder / "predict.py").read_text().splitlines()

    assert {file.name for file in folder.iterdir()} == {
        *("model.onnx", "labels.json", "predict.py", "README.md")
    }
    assert json.loads((folder / "labels.json").read_text()) == ["dark", "grey", "light"]
    assert "3 classes: dark, grey, light" in said
    assert r"93.3 % \[78.7, 98.2\], n = 30 test images" in said
    assert "licence of the weights: none" in said
    assert len(example) <= 20
    assert max(map(len, example)) <= 100
