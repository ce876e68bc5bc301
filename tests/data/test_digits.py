"""Handwritten digits as pictures in folders."""

import numpy as np
from PIL import Image
from regraft.data.checks import check
from regraft.data.digits import write_digits
from sklearn.datasets import load_digits

from regraft.data.dataset import Dataset


def test_the_folder_holds_every_scan_of_the_table_under_its_digit(tmp_path):
    written = write_digits(tmp_path / "digits")
    read = Dataset.from_folder(tmp_path / "digits")

    assert read.paths == written.paths
    assert list(read.counts().values()) == np.bincount(load_digits().target).tolist()


def test_a_picture_shows_the_scan_from_black_to_white(tmp_path):
    data = write_digits(tmp_path / "digits", per_class=1)
    table = load_digits()

    pixels = np.asarray(Image.open(data.paths[3]), float)

    np.testing.assert_allclose(
        pixels * 16 / 255, table.images[list(table.target).index(3)], atol=0.05
    )


def test_tiny_scans_are_not_taken_for_look_alikes(tmp_path):
    assert check(write_digits(tmp_path / "digits", per_class=20)).near_duplicates == ()
