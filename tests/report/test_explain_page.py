"""Maps as pictures that can be read without colours."""

import base64
import io

import numpy as np
from PIL import Image

from regraft.report.explain_page import overlay, sheet


def opened(address):
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_an_overlay_darkens_what_does_not_count_and_surrounds_what_does():
    values = np.zeros((7, 7), np.float32)
    values[2:5, 2:5] = 1

    shade, opacity = np.moveaxis(np.asarray(opened(overlay(values))), 2, 0)

    assert opacity[0, 0] > 150
    assert opacity[56, 56] == 0
    line = shade == 255
    assert (opacity[line] == 255).all()
    assert not line[56, 56]
    assert line[56].sum() == 2  # the line is crossed twice from left to right
    assert set(np.unique(shade)) == {0, 255}


def test_an_empty_map_darkens_everything():
    shade, opacity = np.moveaxis(np.asarray(opened(overlay(np.zeros((7, 7), np.float32)))), 2, 0)

    assert opacity.min() > 150
    assert shade.max() == 0


def test_small_images_stand_in_rows_of_one_image():
    images = np.stack([np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30)])

    drawn = np.asarray(opened(sheet(images, columns=2)))

    unit = drawn.shape[1] // 2
    assert drawn[0, 0].tolist() == [10, 10, 10, 255]
    assert drawn[0, -1].tolist() == [20, 20, 20, 255]
    assert drawn[-1, 0].tolist() == [30, 30, 30, 255]
    assert drawn[-1, -1, 3] == drawn[0, unit, 3] == 0
