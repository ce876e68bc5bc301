"""What enters the loop depends on the seed, the epoch and the sample, and on nothing else."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regraft.backbones.spec import BackboneSpec
from regraft.errors import ImageError, UsageError
from regraft.training import batches as module
from regraft.training.batches import (
    AugmentedPictures,
    Pictures,
    epoch_batches,
    generator,
    prefetched,
)


def noisy(picture, random):
    return picture ^ random.integers(256, size=picture.shape, dtype=np.uint8)


@pytest.fixture
def squares():
    random = np.random.default_rng(0)
    arrays = [random.integers(256, size=(8, 8, 3), dtype=np.uint8) for _ in range(6)]
    return Pictures(arrays, np.asarray, size=8)


@given(st.integers(0, 300), st.integers(2, 40))
def test_an_epoch_holds_each_sample_once_and_no_batch_of_one(samples, batch_size):
    order = generator(0, "order", samples).permutation(samples)

    batches = epoch_batches(order, batch_size, None)

    assert sorted(int(sample) for batch in batches for sample in batch) == list(range(samples))
    assert samples == 1 or all(2 <= len(batch) <= batch_size + 1 for batch in batches)


def test_steps_bound_the_batches_of_an_epoch():
    assert [len(batch) for batch in epoch_batches(np.arange(9), 2, 3)] == [2, 2, 2]
    assert [len(batch) for batch in epoch_batches(np.arange(4), 2, 9)] == [2, 2]


@pytest.mark.parametrize("batch_size", [1, 0, -4])
def test_a_batch_size_below_two_is_refused(batch_size):
    with pytest.raises(UsageError, match="two pictures or more"):
        epoch_batches(np.arange(4), batch_size, None)


def test_pictures_are_those_that_the_backbone_prepares(tmp_path):
    backbone = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)).build()
    random = np.random.default_rng(0)
    array = random.integers(256, size=(130, 100, 3), dtype=np.uint8)
    picture = Image.fromarray(random.integers(256, size=(99, 140, 3), dtype=np.uint8))
    file = tmp_path / "a.png"
    picture.save(file)
    given_pictures = [file, array, picture]
    expected = [backbone.prepare(p) for p in (picture, Image.fromarray(array), picture)]

    pictures = Pictures(given_pictures, backbone.prepare, size=96)

    assert len(pictures) == 3
    assert np.array_equal(pictures.take(np.array([2, 0, 1]), 5), np.stack(expected)[[2, 0, 1]])


def test_the_file_of_pictures_goes_with_them(squares, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pictures = Pictures([np.zeros((8, 8, 3), np.uint8)], np.asarray, size=8)
    assert [file.name for file in tmp_path.rglob("*.npy")] == ["pictures.npy"]

    del pictures
    gc.collect()

    assert list(tmp_path.iterdir()) == []


def test_no_pictures_are_no_error():
    assert len(Pictures([], np.asarray, size=8)) == 0


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"no picture")

    with pytest.raises(ImageError, match=r"broken\.jpg"):
        Pictures([np.zeros((8, 8, 3), np.uint8), Path(file)], np.asarray, size=8)


def test_a_view_depends_on_seed_epoch_and_sample_only(squares):
    views = AugmentedPictures(squares, noisy, seed=3)
    together = views.take(np.array([4, 1, 2]), 7)

    again = AugmentedPictures(squares, noisy, seed=3)
    assert torch.equal(again.take(np.array([1]), 7)[0], together[1])
    assert torch.equal(again.take(np.array([2, 4]), 7), together[[2, 0]])
    assert not torch.equal(again.take(np.array([1]), 8)[0], together[1])
    other_seed = AugmentedPictures(squares, noisy, seed=4)
    assert not torch.equal(other_seed.take(np.array([1]), 7)[0], together[1])


def test_views_of_earlier_phases_are_not_shown_again(squares):
    first = AugmentedPictures(squares, noisy, seed=3)
    second = AugmentedPictures(squares, noisy, seed=3, before=5)

    assert torch.equal(second.take(np.array([1]), 2), first.take(np.array([1]), 7))


def test_a_number_of_views_comes_around(squares):
    views = AugmentedPictures(squares, noisy, seed=0, views=2)
    seen = [views.take(np.array([3]), epoch) for epoch in range(4)]

    assert len(views) == 6
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_randomness_for_another_purpose_or_number_is_another():
    draws = {
        int(generator(*arguments).integers(2**62))
        for arguments in ((0, "order", 1), (1, "order", 1), (0, "step", 1), (0, "order", 2))
    }

    assert len(draws) == 4


def test_prefetching_keeps_the_order_and_the_numbers(squares, monkeypatch):
    views = AugmentedPictures(squares, noisy, seed=0)
    batches = epoch_batches(np.arange(6)[::-1].copy(), 2, None) * 3
    plain = [views.take(batch, 1) for batch in batches]

    for threads in (1, 7):
        monkeypatch.setattr(module, "threads", lambda count=threads: count)
        ahead = list(prefetched(views, batches, 1))

        assert all(torch.equal(a, b) for a, b in zip(ahead, plain, strict=True))
