"""The page that explains a network, from images to the file."""

import re

import numpy as np
import pytest
from PIL import Image

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import BackboneError, UsageError
from regraft.explain.explanation import write_explanation
from regraft.training.phases import fine_tune

SPEC = BackboneSpec("simple_cnn", weights=None, arguments={"size": 48})
FRESH = Compute(cache=None)
NAMES = ["night", "day"] * 4


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for at, name in enumerate(NAMES):
        pixels = random.integers(0, 90, (48, 48, 3)) + 150 * (name == "day")
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{at}.png")
    return [str(folder / f"{at}.png") for at in range(len(NAMES))]


def test_a_trained_network_stands_beside_what_it_was(images, tmp_path):
    learner = NetworkClassifier(SPEC, phases=fine_tune(1), batch_size=4, compute=FRESH)
    learner.fit(images, NAMES)

    page = write_explanation(
        learner,
        images[:2],
        tmp_path / "page.html",
        title="my run",
        class_name="day",
        channel=7,
        before=build(SPEC),
    ).read_text()

    assert "my run: what it looks at" in page
    assert len(re.findall("by grad-cam", page)) == len(re.findall("by occlusion", page)) >= 2
    assert "<h3>Before training</h3>" in page
    assert "feature maps of features.3 before training" in page
    assert "channel 7, before" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)


def test_what_was_not_trained_is_shown_once(images, tmp_path):
    learner = FeatureClassifier(SPEC, classifier="knn", grid=None, compute=FRESH)
    learner.fit(images, NAMES)

    page = write_explanation(
        learner, images[:1], tmp_path / "page.html", title="kNN", before=build(SPEC)
    ).read_text()

    assert "efore training" not in page
    assert "by grad-cam" not in page
    assert len(re.findall("by occlusion", page)) == 1


def test_what_cannot_be_explained_is_refused(images, tmp_path):
    with pytest.raises(BackboneError, match="cannot name ImageNet classes"):
        write_explanation(build(SPEC), images[:1], tmp_path / "page.html", title="simple_cnn")
    with pytest.raises(UsageError, match="no image to look at"):
        write_explanation(build(SPEC), [], tmp_path / "page.html", title="simple_cnn")

    assert list(tmp_path.iterdir()) == []
