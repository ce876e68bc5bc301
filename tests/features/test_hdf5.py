"""Features survive the way to an HDF5 file and back, and foreign files are read or refused."""

import json
import os
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from regraft.errors import DataError
from regraft.features.hdf5 import read_features, write_features, write_pixels

FEATURES = np.arange(20, dtype=np.float32).reshape(5, 4)
CLASSES = ("lily", "rose", "Löwenzahn")
LABELS = ("rose", "lily", "Löwenzahn", "rose", "rose")


class Pieces:
    shape = (5, 4)
    names = ("a.jpg", "ü.jpg", "b\udcff.jpg", "c.jpg", "d.jpg")
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


def test_an_array_comes_back_with_labels_as_names(file):
    write_features(file, FEATURES, LABELS, classes=CLASSES)

    found = read_features(file)

    assert found.features.dtype == np.float32
    assert np.array_equal(found.features, FEATURES)
    assert found[1:] == (LABELS, CLASSES, (), (), (), {})


def test_embedded_images_come_back_with_paths_hashes_groups_and_what_made_them(file):
    pieces, groups = Pieces(), ("p1", "p1", "", "p2", "p2")
    write_features(file, pieces, LABELS, classes=CLASSES, groups=groups, block=2)

    found = read_features(file)

    assert pieces.sizes == [2, 2, 2]
    assert np.array_equal(found.features, FEATURES)
    assert found[1:] == (LABELS, CLASSES, pieces.names, pieces.sha256s, groups, pieces.about)
    with h5py.File(file) as written:  # as the files of other programs are laid out
        kinds = {key: written[key].dtype.kind for key in ("features", "labels", "label_names")}
    assert kinds == {"features": "f", "labels": "i", "label_names": "O"}


def test_images_come_back_as_pixels_with_the_means_of_the_channels_beside_them(file):
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[0], images[1, :, :, 0], images[2, 0, 0, 2] = 60, 30, 12
    batches = iter([images[:2], images[2:]])
    write_pixels(file, batches, Pieces.names[:3], LABELS[:3], classes=CLASSES, side=2)

    means = {"R": 30.0, "G": 20.0, "B": 21.0}

    assert json.loads(file.with_suffix(".json").read_text()) == means
    with h5py.File(file) as written:
        assert np.array_equal(written["images"], images)
        assert written["labels"][:].tolist() == [1, 0, 2]
        assert dict(written.attrs) == means


@pytest.mark.parametrize("taken", ["features.h5", "features.json"])
def test_pixels_replace_no_file(file, taken):
    file.with_name(taken).write_bytes(b"precious")

    with pytest.raises(DataError, match="exists already"):
        write_pixels(file, [], [], [], classes=CLASSES, side=2)

    assert [found.read_bytes() for found in file.parent.iterdir()] == [b"precious"]


def test_an_existing_file_is_never_replaced(file):
    file.write_bytes(b"precious")

    with pytest.raises(DataError, match="exists already") as caught:
        write_features(file, FEATURES, LABELS, classes=CLASSES)

    assert caught.value.code == "DATA-EXISTS"
    assert file.read_bytes() == b"precious"


def test_a_write_that_fails_leaves_nothing_behind(file, tmp_path):
    class Failing(Pieces):
        def blocks(self, size):
            """Fail after the first piece."""
            yield FEATURES[:2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(file, Failing(), LABELS, classes=CLASSES)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_full_disk_is_an_error_that_leaves_nothing_behind(file):
    program = f"""
        import resource
        import numpy as np
        from regraft.errors import RegraftError
        from regraft.features.hdf5 import write_features

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_features({str(file)!r}, np.ones((1000, 100)), ["a"] * 1000, classes=["a"])
        except RegraftError as error:
            print(error.code)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )

    assert result.stdout == "FILE-WRITE\n"
    assert result.stderr == ""
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (LABELS, ("rose", "lily"), "labels .'Löwenzahn'. without a class"),
        (LABELS[:4], CLASSES, "4 labels for 5 rows"),
        (LABELS, (*CLASSES, "rose"), "a class is named twice"),
    ],
)
def test_labels_that_do_not_fit_are_refused(file, labels, classes, message):
    with pytest.raises(DataError, match=message):
        write_features(file, FEATURES, labels, classes=classes)


def test_features_that_are_no_matrix_are_refused(file):
    with pytest.raises(DataError, match="no matrix"):
        write_features(file, FEATURES.reshape(5, 2, 2), LABELS, classes=CLASSES)


def test_a_foreign_file_of_doubles_is_read(file):
    foreign(file)

    found = read_features(file)

    assert found.features.dtype == np.float32
    assert np.array_equal(found.features, FEATURES)
    assert (found.labels, found.classes) == (LABELS, CLASSES)


def test_other_keys_are_listed(file):
    foreign(file, labels=None, images=[1, 2])

    with pytest.raises(DataError, match=r"found \['features', 'images', 'label_names'\]") as caught:
        read_features(file)

    assert caught.value.code == "DATA-HDF5"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": FEATURES[0]}, "features of shape"),
        ({"features": LABELS}, "features of"),
        ({"labels": [0, 1]}, "labels for"),
        ({"labels": [0.0] * 5}, "labels of type float"),
        ({"labels": [0, 1, 2, 3, -1]}, "codes from -1 to 3 for 3 label names"),
        ({"label_names": [1, 2, 3]}, "label_names of type int"),
        ({"groups": ["p1", "p2"]}, "not one for each row"),
        ({"features": h5py.SoftLink("/labels")}, "expected the keys"),
        ({"features": h5py.ExternalLink("other.h5", "/features")}, "expected the keys"),
    ],
)
def test_contents_that_do_not_fit_together_are_refused(file, changed, message):
    foreign(file, **changed)

    with pytest.raises(DataError, match=message):
        read_features(file)


def test_a_file_that_is_no_hdf5_is_refused(file):
    file.write_text("features")

    with pytest.raises(DataError, match="cannot read features") as caught:
        read_features(file)

    assert caught.value.path == str(file)


def test_a_missing_file_is_said_to_be_missing(file):
    with pytest.raises(DataError, match="file not found"):
        read_features(file)


def test_no_rows_are_a_file_too(file):
    write_features(file, FEATURES[:0], (), classes=CLASSES)

    found = read_features(file)

    assert (found.features.shape, found.labels, found.classes) == ((0, 4), (), CLASSES)
