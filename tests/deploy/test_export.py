"""A model written as ONNX answers as the fitted one, without torch and from pixels of any size."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.deploy.export import write_deployed, write_onnx
from regraft.deploy.predictor import Predictor, load
from regraft.errors import ModelError
from regraft.training.phases import from_scratch

SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


def learner_of(kind, **settings):
    compute = Compute(cache=None, engine="torch")
    if kind == "network":
        return NetworkClassifier(SPEC, phases=from_scratch(2), compute=compute, **settings)
    return FeatureClassifier(SPEC, classifier=kind, compute=compute, **settings)


KINDS = ["logistic", "linear_svm", "knn", "random_forest", "gradient_boosting", "network"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployed_model_answers_as_the_fitted_one(kind, images, tmp_path):
    learner = learner_of(kind).fit(*images)

    agreement = write_deployed(learner, tmp_path / "deploy", images[0])

    deployed = load(tmp_path / "deploy")
    assert (agreement.images, agreement.changed) == (30, 0)
    assert deployed.predict_proba(images[0]) == pytest.approx(
        learner.predict_proba(images[0]), abs=1e-4
    )
    assert deployed.predict(images[0]).tolist() == learner.predict(images[0]).tolist()
    assert deployed.predict_proba([]).shape == (0, 3)


def test_a_single_output_becomes_two_probabilities(images, tmp_path):
    two = [place for place, name in enumerate(images[1]) if name != "grey"]
    some, names = ([part[place] for place in two] for part in images)
    learner = learner_of("network", output="sigmoid").fit(some, names)

    agreement = write_deployed(learner, tmp_path / "deploy", some)

    assert (agreement.images, agreement.changed) == (20, 0)


@pytest.fixture(scope="module")
def deployed(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "deploy"
    write_deployed(learner_of("logistic").fit(*images), folder, images[0], provenance={"by": "me"})
    return folder


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(
    ("mode", "size", "resize"), [("crop", 48, 55), ("squash", 48, 48), ("squash_crop", 48, 64)]
)
def test_one_file_takes_pixels_of_any_size(images, tmp_path, interpolation, mode, size, resize):
    geometry = {"size": size, "resize": resize, "mode": mode, "interpolation": interpolation}
    spec = BackboneSpec("simple_cnn", weights=None, preprocessing=Preprocessing(**geometry))
    compute = Compute(cache=None, engine="torch")
    learner = FeatureClassifier(spec, compute=compute, grid=None).fit(*images)
    write_deployed(learner, tmp_path / "deploy", images[0])

    write_onnx(tmp_path / "deploy", tmp_path / "model.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    rows = np.array([session.run(None, {"image": image})[0] for image in images[0]])
    off = np.abs(rows - learner.predict_proba(images[0])).max(axis=1)
    wide = [image.shape[1] >= image.shape[0] for image in images[0]]
    assert off[wide].max() < 1e-4
    assert off.max() < 0.01  # of a high image Pillow may round otherwise


def test_the_file_says_its_labels_and_where_it_comes_from(deployed, tmp_path):
    write_onnx(deployed, tmp_path / "model.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    facts = session.get_modelmeta().custom_metadata_map
    assert (taken.name, taken.shape, taken.type) == (
        "image",
        ["height", "width", 3],
        "tensor(uint8)",
    )
    assert (given.name, given.shape) == ("probabilities", [3])
    assert json.loads(facts["labels"]) == ["dark", "grey", "light"]
    assert facts["by"] == "me"


def test_a_deployed_model_predicts_without_torch(deployed, images, tmp_path):
    Image.fromarray(images[0][0]).save(tmp_path / "a.png")
    heavy = ["torch", "timm", "torchvision", "sklearn", "scipy", "matplotlib"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({heavy}))  # an import of them fails
import regraft
print(*regraft.load({str(deployed)!r}).predict([{str(tmp_path / "a.png")!r}]))
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "dark\n"


def edit(file, old, new):
    """Replace a text that is there, such as a number of the preprocessing."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda folder: (folder / "deploy.json").unlink(), "MODEL-MISSING"),
        (lambda folder: (folder / "deploy.json").write_text("{}"), "MODEL-CORRUPT"),
        (lambda folder: (folder / "network.onnx").write_bytes(b"x"), "MODEL-CHECKSUM"),
        (lambda folder: edit(folder / "deploy.json", '"bicubic"', '"nearest"'), "MODEL-CHECKSUM"),
    ],
)
def test_what_is_damaged_is_refused(deployed, tmp_path, damage, code):
    copy = tmp_path / "deploy"
    copy.mkdir()
    for file in deployed.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    damage(copy)

    with pytest.raises(ModelError) as refused:
        load(copy)

    assert refused.value.code == code


def test_an_answer_that_differs_is_refused_and_nothing_is_written(images, tmp_path, monkeypatch):
    learner = learner_of("knn").fit(*images)
    monkeypatch.setattr(
        Predictor, "predict_proba", lambda _self, given: np.full((len(given), 3), 1 / 3)
    )

    with pytest.raises(ModelError, match="would answer differently"):
        write_deployed(learner, tmp_path / "deploy", images[0])

    assert not (tmp_path / "deploy").exists()
