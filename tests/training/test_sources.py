"""Pictures of a part are decoded once, and none before somebody needs it."""

import numpy as np
import pytest
import torch
from PIL import Image
from regraft.training.sources import Source

from regraft.backbones.spec import BackboneSpec
from regraft.data.images import open_image
from regraft.errors import ImageError
from regraft.training import sources as module

BACKBONE = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)).build()
CLASSES = ["a", "b", "c"]


@pytest.fixture
def files(tmp_path):
    """Return 20 files, sorted by class, each of its own grey."""
    paths = [tmp_path / f"{i:02d}.png" for i in range(20)]
    for i, path in enumerate(paths):
        Image.new("RGB", (40, 30), (12 * i, 12 * i, 12 * i)).save(path)
    return paths


LABELS = ["a"] * 9 + ["b"] * 8 + ["c"] * 3


def source(pictures, labels=LABELS, classes=CLASSES):
    return Source(pictures, labels, classes, backbone=BACKBONE)


def test_a_target_has_a_one_in_the_column_of_its_class(files):
    part = source(files)

    assert len(part) == 20
    assert part.targets.shape == (20, 3)
    assert part.targets.sum(1).tolist() == [1.0] * 20
    assert [CLASSES[i] for i in part.targets.argmax(1)] == LABELS
    assert part.codes.tolist() == part.targets.argmax(1).tolist()


def test_the_order_of_the_columns_is_that_of_the_classes_and_a_part_may_lack_one(files):
    part = source(files[:2], ["c", "a"], ["c", "b", "a"])

    assert part.targets.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_an_unknown_class_is_never_given_a_column(files):
    with pytest.raises(KeyError, match="mauve"):
        source(files[:1], ["mauve"])


def test_nothing_is_read_before_it_is_needed(tmp_path):
    part = source([tmp_path / "missing.png"] * 2, ["a", "b"])

    assert len(part) == 2
    with pytest.raises(ImageError, match=r"missing\.png"):
        _ = part.pixels


def test_pictures_are_decoded_once(files, monkeypatch):
    counted = []
    made = module.Pictures
    monkeypatch.setattr(module, "Pictures", lambda *a, **k: counted.append(1) or made(*a, **k))
    part = source(files)

    first = part.pixels.take(np.array([3]), 0)
    again = part.pixels.take(np.array([3]), 1)

    assert counted == [1]
    assert torch.equal(first, again)
    wanted = BACKBONE.prepare(open_image(files[3]))
    assert np.array_equal(first[0].numpy(), wanted)


def test_a_few_pictures_are_spread_over_the_part(files):
    pictures, targets = source(files).few(5)

    assert pictures.shape == (5, 32, 32, 3)
    assert pictures.dtype == torch.uint8
    assert pictures[:, 16, 16, 0].tolist() == [0, 12 * 4, 12 * 9, 12 * 14, 12 * 19]
    assert targets.argmax(1).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_of_fewer_pictures_are_all_of_them_once(files, count):
    pictures, targets = source(files[:count], LABELS[:count]).few()

    assert len(pictures) == len(targets) == count
    assert pictures[:, 16, 16, 0].tolist() == [12 * i for i in range(count)]


def test_a_few_pictures_may_be_arrays():
    arrays = np.full((4, 40, 30, 3), 7, np.uint8)

    pictures, _ = source(arrays, LABELS[:4]).few(2)

    assert (pictures == 7).all()


def test_the_fingerprint_is_that_of_contents_and_labels_in_their_order(files, tmp_path):
    whole = source(files).fingerprint()
    copies = [tmp_path / f"copy_{path.name}" for path in files]
    for path, copy in zip(files, copies, strict=True):
        copy.write_bytes(path.read_bytes())

    assert source(copies).fingerprint() == whole
    assert source(files[:-1], LABELS[:-1]).fingerprint() != whole
    assert source(files[::-1], LABELS).fingerprint() != whole
    assert source(files, ["b", *LABELS[1:]]).fingerprint() != whole
    Image.new("RGB", (40, 30)).save(files[5])
    assert source(files).fingerprint() != whole
