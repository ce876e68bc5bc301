"""Features survive the way to an HDF5 file and back, and foreign files are read or refused."""

import os
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from regraft.errors import DataError
from regraft.features.hdf5 import read_features, write_features

FEATURES = np.arange(20, dtype=np.float32).reshape(5, 4)
CLASSES = ("lily", "rose", "Löwenzahn")
LABELS = ("rose", "lily", "Löwenzahn", "rose", "rose")


class Pieces:
    shape = (5, 4)
    names = ("a.jpg", "ü.jpg", "b\udcff.jpg", "c.jpg", "d.jpg")

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

    features, labels, classes = read_features(file)

    assert features.dtype == np.float32
    assert np.array_equal(features, FEATURES)
    assert labels == LABELS
    assert classes == CLASSES


def test_pieces_are_written_block_by_block_with_paths_and_what_made_them(file):
    pieces = Pieces()
    write_features(file, pieces, LABELS, classes=CLASSES, block=2)

    with h5py.File(file) as written:
        names = [path.decode("utf-8", "surrogateescape") for path in written["paths"][:]]
        attributes = dict(written.attrs)
        kinds = {key: written[key].dtype.kind for key in ("features", "labels", "label_names")}

    assert pieces.sizes == [2, 2, 2]
    assert tuple(names) == Pieces.names
    assert attributes == pieces.about
    assert kinds == {"features": "f", "labels": "i", "label_names": "O"}
    assert np.array_equal(read_features(file).features, FEATURES)


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

    features, labels, classes = read_features(file)

    assert features.dtype == np.float32
    assert np.array_equal(features, FEATURES)
    assert (labels, classes) == (LABELS, CLASSES)


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

    features, labels, classes = read_features(file)

    assert (features.shape, labels, classes) == ((0, 4), (), CLASSES)
