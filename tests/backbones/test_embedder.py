"""The normalisation is what the preprocessing says."""

import pytest
import torch

from regraft.backbones.engines import Embedder, Normalise
from regraft.backbones.network import average
from regraft.backbones.spec import Preprocessing


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (Preprocessing.torch(1), [(0 / 255 - 0.485) / 0.229, (51 / 255 - 0.456) / 0.224, 2.64]),
        (Preprocessing.tf(1), [-1.0, -0.6, 1.0]),
        (Preprocessing.caffe(1), [255 - 103.939, 51 - 116.779, 0 - 123.68]),
    ],
)
def test_one_pixel_becomes_the_published_numbers(preprocessing, expected):
    pixel = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)

    found = Normalise(preprocessing)(pixel).flatten()

    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)


def test_a_blended_picture_in_floats_is_normalised_like_one_in_8_bits():
    normalise = Normalise(Preprocessing.torch(1))
    black, white, between = (torch.full((1, 1, 1, 3), v) for v in (0.0, 255.0, 127.5))

    assert torch.equal(normalise(white), normalise(white.to(torch.uint8)))
    assert torch.allclose(normalise(between), (normalise(black) + normalise(white)) / 2, atol=1e-6)


def test_an_embedder_gives_float32_rows():
    embedder = Embedder(torch.nn.Identity(), Preprocessing.tf(4), average)

    rows = embedder(torch.zeros(2, 4, 4, 3, dtype=torch.uint8))

    assert rows.dtype == torch.float32
    assert torch.equal(rows, -torch.ones(2, 3))
