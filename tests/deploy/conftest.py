"""Small fitted models, and images for them."""

import numpy as np
import pytest

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.training.phases import from_scratch

SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


@pytest.fixture(scope="session")
def images():
    """Return images of many sizes, and the names of three classes."""
    draw = np.random.default_rng(0)
    shapes = draw.integers(20, 120, (30, 2))
    names = [("dark", "grey", "light")[number % 3] for number in range(30)]
    level = {"dark": 40, "grey": 120, "light": 200}
    found = [
        (level[name] + draw.integers(-40, 40, (*shape, 3))).clip(0, 255).astype(np.uint8)
        for name, shape in zip(names, shapes, strict=True)
    ]
    return found, names


@pytest.fixture(scope="session")
def learner_of():
    """Return a function that makes a learner by the name of its classifier, not fitted yet."""

    def make(kind, spec=SPEC, **settings):
        compute = Compute(cache=None, engine="torch")
        if kind == "network":
            return NetworkClassifier(spec, phases=from_scratch(2), compute=compute, **settings)
        return FeatureClassifier(spec, classifier=kind, compute=compute, **settings)

    return make
