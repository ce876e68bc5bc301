"""Small images in three colours, and a small network with random weights."""

import numpy as np
import pytest
from PIL import Image

from regraft.backbones.spec import BackboneSpec

CLASSES = ("blue", "green", "red")
SPEC = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))


def draw(name, seed):
    """Return a noisy image that is mostly of one colour."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 90, size=(24, 24, 3))
    pixels[..., 2 - CLASSES.index(name)] += random.integers(60, 150)
    return pixels.astype(np.uint8)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Return paths and labels of 24 training images and of 9 others."""
    folder = tmp_path_factory.mktemp("images")
    parts = []
    for part, count in (("train", 8), ("test", 3)):
        labels = [name for name in CLASSES for _ in range(count)]
        paths = [folder / f"{part}_{i}.png" for i in range(len(labels))]
        for i, (path, name) in enumerate(zip(paths, labels, strict=True)):
            Image.fromarray(draw(name, seed=i + 1000 * (part == "test"))).save(path)
        parts.append((paths, labels))
    return parts


@pytest.fixture(scope="session")
def spec():
    """Return a small network with random weights."""
    return SPEC
