"""Images whose features are known: what is drawn in them is their mean colour."""

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (30, 40, 200), "green": (40, 200, 30), "red": (200, 30, 40)}


class MeanColour:
    """Stands in for a network: an image's features are its mean colour."""

    def transform(self, paths):
        """Return one row for each image."""
        rows = [np.asarray(Image.open(path), float).mean(axis=(0, 1)) for path in paths]
        return np.array(rows, np.float32)


@pytest.fixture
def extractor():
    return MeanColour()


@pytest.fixture
def paint():
    """Return a function that writes an image of a colour, with a little noise of a seed."""

    def painted(path, colour, seed):
        rng = np.random.default_rng(seed)
        pixels = rng.normal(COLOURS.get(colour, colour), 25, (24, 32, 3)) + rng.normal(0, 12, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path)

    return painted


@pytest.fixture
def folder(tmp_path, paint):
    """Return a folder of 36 images of three colours, two of which lie in a wrong one."""
    for name in COLOURS:
        for number in range(12):
            place = {("red", 3): "blue", ("green", 7): "red"}.get((name, number), name)
            paint(tmp_path / "set" / place / f"{name}{number}.png", name, hash_of(name, number))
    return tmp_path / "set"


def hash_of(name, number):
    """Return a seed that no other image has."""
    return 100 * sorted(COLOURS).index(name) + number
