"""What enters the loop depends on the seed, the epoch and the sample, and on nothing else."""

import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regraft.backbones.backbone import build
from regraft.backbones.spec import Preprocessing
from regraft.training import batches as module
from regraft.training.batches import (
    AugmentedImages,
    Images,
    LabelledImages,
    balanced_order,
    epoch_batches,
    generator,
    prefetched,
)
from samples import SMALL, refused

BACKBONE = build(SMALL)
PLAIN = Preprocessing.tf(8, resize=8)


def noisy(image, random, size):
    assert size == 8
    return image ^ random.integers(256, size=image.shape, dtype=np.uint8)


@pytest.fixture
def squares():
    random = np.random.default_rng(0)
    arrays = [random.integers(256, size=(8, 8, 3), dtype=np.uint8) for _ in range(6)]
    return Images(arrays, PLAIN)


@given(st.integers(0, 300), st.integers(2, 40))
def test_an_epoch_holds_each_sample_once_and_no_batch_of_one(samples, batch_size):
    order = generator(0, "order", samples).permutation(samples)

    batches = epoch_batches(order, batch_size, None)

    assert sorted(int(sample) for batch in batches for sample in batch) == list(range(samples))
    assert samples == 1 or all(2 <= len(batch) <= batch_size + 1 for batch in batches)
    few = epoch_batches(order, batch_size, 3)
    assert len(few) == min(3, len(batches))
    assert all(map(np.array_equal, few, batches))


def test_images_are_those_that_the_backbone_prepares(tmp_path):
    random = np.random.default_rng(0)
    array = random.integers(256, size=(130, 100, 3), dtype=np.uint8)
    image = Image.fromarray(random.integers(256, size=(99, 140, 3), dtype=np.uint8))
    file = tmp_path / "a.png"
    image.save(file)
    given_images = [file, array, image]
    expected = [BACKBONE.prepare(p) for p in (image, Image.fromarray(array), image)]

    images = Images(given_images, BACKBONE.preprocessing)

    assert len(images) == 3
    assert np.array_equal(images.take(np.array([2, 0, 1]), 5), np.stack(expected)[[2, 0, 1]])


def test_the_file_of_images_goes_with_them(squares, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = Images([np.zeros((8, 8, 3), np.uint8)], PLAIN)
    assert [file.name for file in tmp_path.rglob("*.npy")] == ["images.npy"]

    del images
    gc.collect()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("free", [191, 192])
def test_a_disk_too_small_for_decoded_images_is_an_error_with_its_free_bytes(monkeypatch, free):
    monkeypatch.setattr(module, "free_bytes", lambda _folder: free)
    images = [np.zeros((8, 8, 3), np.uint8)]

    if free >= 192:
        assert len(Images(images, PLAIN)) == 1
        return
    error = refused(Images, images, PLAIN)
    assert error.code == "TRAIN-DISK"
    assert "they take 192 bytes, 191 are free" in str(error)


def test_a_view_depends_on_seed_epoch_and_sample_only(squares):
    views = AugmentedImages(squares, noisy, 8, seed=3)
    together = views.take(np.array([4, 1, 2]), 7)

    again = AugmentedImages(squares, noisy, 8, seed=3)
    assert torch.equal(again.take(np.array([1]), 7)[0], together[1])
    assert torch.equal(again.take(np.array([2, 4]), 7), together[[2, 0]])
    assert not torch.equal(again.take(np.array([1]), 8)[0], together[1])
    other_seed = AugmentedImages(squares, noisy, 8, seed=4)
    assert not torch.equal(other_seed.take(np.array([1]), 7)[0], together[1])
    two = AugmentedImages(squares, noisy, 8, seed=0, views=2)
    first, second, third = (two.take(np.array([3]), epoch) for epoch in range(3))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


def test_prefetching_keeps_the_order_and_the_numbers(squares, monkeypatch):
    views = AugmentedImages(squares, noisy, 8, seed=0)
    batches = epoch_batches(np.arange(6)[::-1].copy(), 2, None) * 3
    plain = [views.take(batch, 1) for batch in batches]

    for threads in (1, 7):
        monkeypatch.setattr(module, "threads", lambda count=threads: count)
        ahead = list(prefetched(views, batches, 1))

        assert all(torch.equal(a, b) for a, b in zip(ahead, plain, strict=True))


CLASSES = ["a", "b", "c"]
LABELS = ["a"] * 9 + ["b"] * 8 + ["c"] * 3


@pytest.fixture
def files(tmp_path):
    """Return 20 files, sorted by class, each of its own grey."""
    paths = [tmp_path / f"{i:02d}.png" for i in range(20)]
    for i, path in enumerate(paths):
        Image.new("RGB", (40, 30), (12 * i, 12 * i, 12 * i)).save(path)
    return paths


def part_of(images, labels=LABELS, classes=CLASSES):
    return LabelledImages(images, labels, classes, backbone=BACKBONE)


def test_a_few_images_are_spread_over_the_part(files):
    part = part_of(files)
    images, targets = part.few(5)

    assert images.shape == (5, 48, 48, 3)
    assert images.dtype == torch.uint8
    assert images[:, 16, 16, 0].tolist() == [0, 12 * 4, 12 * 9, 12 * 14, 12 * 19]
    assert targets.argmax(1).tolist() == [0, 0, 1, 1, 2]
    assert part.targets.sum(1).tolist() == [1.0] * 20
    assert [CLASSES[code] for code in part.codes] == LABELS


def test_the_fingerprint_is_that_of_contents_and_labels_in_their_order(files, tmp_path):
    whole = part_of(files).fingerprint()
    copies = [tmp_path / f"copy_{path.name}" for path in files]
    for path, copy in zip(files, copies, strict=True):
        copy.write_bytes(path.read_bytes())

    assert part_of(copies).fingerprint() == whole
    assert part_of(files[:-1], LABELS[:-1]).fingerprint() != whole
    assert part_of(files[::-1], LABELS).fingerprint() != whole
    assert part_of(files, ["b", *LABELS[1:]]).fingerprint() != whole
    Image.new("RGB", (40, 30)).save(files[5])
    assert part_of(files).fingerprint() != whole


def test_in_a_balanced_order_classes_and_the_samples_of_a_class_are_equally_likely():
    codes = np.array([2] * 6000 + [7] * 20 + [4] * 3980)
    np.random.default_rng(0).shuffle(codes)

    order = balanced_order(codes, np.random.default_rng(1))

    _, counts = np.unique(codes[order], return_counts=True)
    assert np.abs(counts - 10_000 / 3).max() < 200
    rare = np.bincount(order, minlength=len(codes))[codes == 7]
    assert rare.min() > 110  # 167 on average
    assert rare.max() < 225
