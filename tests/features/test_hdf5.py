"""Features survive the way to an HDF5 file and back, and foreign files are read or refused."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from regraft.data.dataset import Dataset
from regraft.errors import DataError
from regraft.features.hdf5 import read_features, write_features, write_pixels
from samples import refused

FEATURES = np.arange(20, dtype=np.float32).reshape(5, 4)
CLASSES = ("lily", "rose", "Löwenzahn")
LABELS = ("rose", "lily", "Löwenzahn", "rose", "rose")
NAMES = ("a.jpg", "ü.jpg", "b\udcff.jpg", "c.jpg", "d.jpg")
IMAGES = Dataset(NAMES, LABELS, CLASSES)


def first(count):
    return Dataset(NAMES[:count], LABELS[:count], CLASSES)


class Pieces:
    shape = (5, 4)
    sha256s = ("01", "02", "03", "04", "04")

    def __init__(self):
        self.about = {"backbone": "vgg16", "pooling": "flatten"}
        self.sizes = []

    def blocks(self, size):
        """Yield the rows, and remember how many were asked for."""
        for start in range(0, 5, size):
            self.sizes.append(size)
            yield FEATURES[start : start + size]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "features.h5"


def foreign(file, **changed):
    contents = {
        "features": FEATURES.astype(float),
        "labels": [1, 0, 2, 1, 1],
        "label_names": CLASSES,
    }
    with h5py.File(file, "w") as target:
        for key, value in (contents | changed).items():
            if value is not None:
                target[key] = value


@pytest.mark.parametrize("groups", [None, ("p1", "p1", "", "p2", "p2")])
def test_features_come_back_with_labels_as_names_and_all_that_is_known(file, groups):
    pieces = Pieces()
    write_features(file, pieces, replace(IMAGES, groups=groups), block=2)

    found = read_features(file)

    assert pieces.sizes == [2, 2, 2]
    assert found.features.dtype == np.float32
    assert np.array_equal(found.features, FEATURES)
    assert found[1:] == (LABELS, CLASSES, NAMES, pieces.sha256s, groups or (), pieces.about)
    with h5py.File(file) as written:  # as the files of other programs are laid out
        kinds = {key: written[key].dtype.kind for key in ("features", "labels", "label_names")}
    assert kinds == {"features": "f", "labels": "i", "label_names": "O"}


def test_images_come_back_as_pixels_with_the_means_of_the_channels_beside_them(file):
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[0], images[1, :, :, 0], images[2, 0, 0, 2] = 60, 30, 12
    batches = iter([images[:2], images[2:]])

    means = write_pixels(file, batches, first(3), side=2)

    assert means == {"R": 30.0, "G": 20.0, "B": 21.0}
    assert json.loads(file.with_suffix(".json").read_text()) == means
    with h5py.File(file) as written:
        assert np.array_equal(written["images"], images)
        assert written["labels"][:].tolist() == [1, 0, 2]
        assert dict(written.attrs) == means


@pytest.mark.parametrize("taken", ["features.h5", "features.json"])
def test_no_file_is_replaced(file, taken):
    file.with_name(taken).write_bytes(b"precious")

    errors = [refused(write_pixels, file, [], IMAGES, side=2)]
    if taken == "features.h5":
        errors.append(refused(write_features, file, Pieces(), IMAGES))

    assert {error.code for error in errors} == {"DATA-EXISTS"}
    assert [found.read_bytes() for found in file.parent.iterdir()] == [b"precious"]


def test_a_write_that_fails_leaves_nothing_behind(file, tmp_path):
    class Failing(Pieces):
        def blocks(self, size):
            """Fail after the first piece."""
            yield FEATURES[:2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(file, Failing(), IMAGES)

    assert list(tmp_path.iterdir()) == []


def test_other_images_than_rows_are_refused(file):
    assert "4 images for 5 rows" in str(refused(write_features, file, Pieces(), first(4)))


def test_a_foreign_file_of_doubles_is_read(file):
    foreign(file)

    found = read_features(file)

    assert found.features.dtype == np.float32
    assert np.array_equal(found.features, FEATURES)
    assert (found.labels, found.classes) == (LABELS, CLASSES)


def test_other_keys_are_listed(file):
    foreign(file, labels=None, images=[1, 2])

    error = refused(read_features, file)

    assert error.code == "DATA-HDF5"
    assert "found ['features', 'images', 'label_names']" in str(error)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": FEATURES[0]}, "float32 of shape .4,."),
        ({"features": LABELS}, "found object of shape"),
        ({"labels": [0, 1]}, "int64 of shape .2,."),
        ({"labels": [0.0] * 5}, "whole numbers"),
        ({"labels": [0, 1, 2, 3, -1]}, "codes from -1 to 3 for 3 label names"),
        ({"label_names": [1, 2, 3]}, "and texts"),
        ({"groups": ["p1", "p2"]}, "not one for each row"),
        ({"features": h5py.SoftLink("/labels")}, "expected the keys"),
        ({"features": h5py.ExternalLink("other.h5", "/features")}, "expected the keys"),
    ],
)
def test_contents_that_do_not_fit_together_are_refused(file, changed, message):
    foreign(file, **changed)

    with pytest.raises(DataError, match=message):
        read_features(file)


def test_a_file_that_is_missing_or_no_hdf5_is_refused(file):
    absent = refused(read_features, file)
    file.write_text("features")
    foreign_kind = refused(read_features, file)

    assert "file not found" in str(absent)
    assert "cannot read features" in str(foreign_kind)
    assert foreign_kind.path == str(file)
