"""Class-activation maps: as captum makes them, on what speaks for a class, and not on the image."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Occlusion
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier, load_model, save_model
from regraft.errors import UsageError
from regraft.explain.maps import class_maps, correlation_with_redrawn, methods_for, seen, subject_of
from regraft.training.phases import fine_tune, frozen

REAL = BackboneSpec("efficientnet_lite0", arguments={"size": 112})
SMALL = BackboneSpec("simple_cnn", weights=None, arguments={"size": 112})
FRESH = Compute(cache=None)
COLOURS = {"blue": (30, 60, 220), "red": (220, 50, 30), "yellow": (230, 220, 40)}


def disc(colour, seed):
    """Return a grey image with a coloured disc in one corner, and where the disc is."""
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 150, (112, 112, 3))
    top, left = random.choice([30, 82], 2)
    across, down = np.meshgrid(np.arange(112), np.arange(112))
    inside = (down - top) ** 2 + (across - left) ** 2 < 20**2
    pixels[inside] = COLOURS[colour] + random.integers(-25, 25, (int(inside.sum()), 3))
    return pixels.clip(0, 255).astype(np.uint8), inside


NAMES = [name for name in COLOURS for _ in range(6)]
DISCS = [disc(name, seed)[0] for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def linear():
    return FeatureClassifier(REAL, grid=None, compute=FRESH).fit(DISCS, NAMES)


@pytest.fixture(scope="module")
def network():
    learner = NetworkClassifier(SMALL, phases=fine_tune(1), batch_size=6, compute=FRESH)
    return learner.fit(DISCS, NAMES)


def scaled(maps):
    maps = np.maximum(maps, 0)
    return maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12)


def test_grad_cam_of_a_trained_network_is_that_of_captum(network):
    net, views = network.network_, torch.from_numpy(seen(network, DISCS[:3]))
    last = network.backbone_.module.get_submodule(network.backbone_.stages[-1].output)
    expected = LayerGradCam(net, last).attribute(views, 1, relu_attributions=True)

    maps = class_maps(network, DISCS[:3], ["red"] * 3)

    assert np.abs(maps - scaled(expected[:, 0].detach().numpy())).max() < 1e-4


@pytest.mark.parametrize("scale", ["unit", "columns", "principal"])
def test_grad_cam_of_a_linear_classifier_goes_through_its_scaling(scale):
    learner = FeatureClassifier(SMALL, classifier="linear_svm", scale=scale, compute=FRESH)
    fitted, embedder = learner.fit(DISCS, NAMES).shallow_, learner.backbone_.embedder
    model, arrays = fitted.model.arrays, fitted.scaling.arrays

    def scores(views):
        rows = embedder(views).double()
        if scale == "principal":
            rows = rows @ torch.from_numpy(arrays["components"].T).double() - torch.from_numpy(
                arrays["offset"]
            )
        else:
            rows = (rows - torch.from_numpy(arrays["mean"])) / torch.from_numpy(arrays["divisor"])
        return rows @ torch.from_numpy(model["coefficients"].T)

    last = learner.backbone_.module.get_submodule(learner.backbone_.stages[-1].output)
    views, every = torch.from_numpy(seen(learner, DISCS[:1] * 3)), torch.arange(3)
    expected = LayerGradCam(scores, last).attribute(views, every, relu_attributions=True)

    maps = class_maps(learner, DISCS[:1] * 3, ["blue", "red", "yellow"])

    assert maps.max() == 1
    assert np.abs(maps - scaled(expected[:, 0].detach().numpy())).max() < 1e-4


def test_occlusion_is_that_of_captum(network):
    views = torch.from_numpy(seen(network, DISCS[:1])).float()
    mean = views.mean((1, 2), keepdim=True).round().expand(views.shape)
    whole = Occlusion(lambda batch: network.network_(batch).double().softmax(1))
    how = {"strides": (8, 8, 3), "baselines": mean, "target": 0, "perturbations_per_eval": 30}
    expected = whole.attribute(views, (16, 16, 3), **how)
    cells = expected[:, 4::8, 4::8, 0].numpy()  # 14 cells of 8 pixels

    maps = class_maps(network, DISCS[:1], ["blue"], method="occlusion")

    assert maps.shape == (1, 14, 14)
    assert np.abs(maps - scaled(cells)).max() < 1e-4


@pytest.mark.parametrize(("method", "count"), [("grad-cam", 3), ("occlusion", 1)])
def test_a_map_lies_on_what_speaks_for_the_class(linear, method, count):
    names = list(COLOURS)[:count]
    images, discs = zip(*(disc(name, 90 + i) for i, name in enumerate(names)), strict=True)

    maps = class_maps(linear, images, names, method=method)

    for found, inside in zip(maps, discs, strict=True):
        fine = np.kron(found, np.ones((112 // len(found),) * 2))
        assert fine[inside].mean() > 1.2 * fine[~inside].mean()


def test_with_redrawn_weights_the_maps_are_others_and_the_network_is_as_before(linear):
    before = linear.predict_proba(DISCS)

    likeness = correlation_with_redrawn(linear, DISCS, NAMES)

    assert np.abs(likeness).max() < 0.9
    assert abs(likeness.mean()) < 0.4
    assert np.array_equal(linear.predict_proba(DISCS), before)


EVERYBODY = KNeighborsClassifier(18, weights="distance", metric="cosine")  # votes


@pytest.mark.parametrize("classifier", [EVERYBODY, SVC()])
def test_a_classifier_without_a_gradient_is_explained_by_occlusion(classifier):
    learner = FeatureClassifier(SMALL, classifier=classifier, compute=FRESH).fit(DISCS, NAMES)

    maps = class_maps(learner, DISCS[:1], NAMES[:1])

    assert methods_for(learner) == ("occlusion",)
    assert maps.shape == (1, 14, 14)
    assert maps.max() == 1


@pytest.mark.parametrize("pooling", ["flatten", "stage:features.1"])
def test_the_map_is_taken_where_the_features_are(pooling):
    learner = FeatureClassifier(SMALL, pooling=pooling, compute=FRESH).fit(DISCS, NAMES)

    side = class_maps(learner, DISCS[:1], ["blue"]).shape[1]

    assert side == {"flatten": 5, "stage:features.1": 26}[pooling]


def test_one_output_for_two_classes_explains_both():
    learner = NetworkClassifier(SMALL, phases=frozen(1), output="sigmoid", compute=FRESH)
    learner.fit(DISCS[:12], NAMES[:12])

    blue, red = class_maps(learner, DISCS[:1] * 2, ["blue", "red"])

    assert not ((blue > 0) & (red > 0)).any()  # what speaks for one speaks against the other


def test_the_probabilities_are_those_that_the_learner_gives(linear, network):
    for learner in (linear, network):
        before = learner.temperature_
        learner.temperature_ = 2.5
        try:
            found = subject_of(learner).probabilities(seen(learner, DISCS[:3]))
            assert found == pytest.approx(learner.predict_proba(DISCS[:3]), abs=1e-4)
        finally:
            learner.temperature_ = before


def test_a_class_token_is_explained_by_the_patches():
    vit = build(BackboneSpec("vit_tiny_patch16_224", weights=None))

    maps = class_maps(vit, DISCS[:4], ["n01440764", "n01443537", "n01484850", "n01491361"])

    assert maps.shape == (4, 14, 14)
    assert maps.max() == 1


def test_a_saved_learner_gives_the_same_maps(network, tmp_path):
    save_model(network, tmp_path / "model")

    maps = class_maps(load_model(tmp_path / "model"), DISCS[:2], NAMES[:2])

    assert np.array_equal(maps, class_maps(network, DISCS[:2], NAMES[:2]))


def test_what_cannot_be_explained_is_said(network):
    with pytest.raises(UsageError, match="no such class") as unknown:
        class_maps(network, DISCS[:1], ["green"])
    with pytest.raises(UsageError, match="every image needs the class"):
        class_maps(network, DISCS[:2], ["red"])

    assert "the classes are blue, red, yellow" in unknown.value.hint
    assert class_maps(network, [], []).shape[0] == len(seen(network, [])) == 0
