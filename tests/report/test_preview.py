"""The sheet of pictures and their views."""

import numpy as np
import pytest

from regraft.errors import UsageError
from regraft.report.preview import preview_sheet


def plain(level, size=120):
    return np.full((size, size, 3), level, np.uint8)


def noise(picture, random):
    return random.integers(0, 256, picture.shape, dtype=np.uint8)


def places(sheet, colour):
    """Return the rows and columns in which exactly this colour stands."""
    hit = (np.asarray(sheet) == colour).all(2)
    return np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0)), hit


def test_each_picture_stands_whole_in_the_first_column_of_its_row():
    sheet = preview_sheet([("one", plain(201)), ("two", plain(77))], noise, views=3)

    for level in (201, 77):
        rows, columns, hit = places(sheet, (level,) * 3)
        square = hit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        solid = square[:, :120].sum(0) >= 120
        assert solid.sum() >= 120
    first, second = (places(sheet, (level,) * 3)[2][:, 40].nonzero()[0] for level in (201, 77))
    assert first.max() < second.min()


def test_every_view_is_drawn_anew_and_repeatably():
    drawn = []

    def record(picture, random):
        drawn.append(float(random.random()))
        return picture

    pictures = [("one", plain(9)), ("two", plain(9))]
    first = preview_sheet(pictures, record, views=4, seed=1)
    again = preview_sheet(pictures, record, views=4, seed=1)
    preview_sheet(pictures, record, views=4, seed=2)

    assert len(set(drawn[:8])) == 8
    assert drawn[:8] == drawn[8:16]
    assert not set(drawn[:8]) & set(drawn[16:])
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("size", [8, 96, 224])
def test_the_sheet_grows_with_pictures_and_views_and_small_pictures_are_enlarged(size):
    def sheet(rows, views):
        return preview_sheet([("a", plain(5, size))] * rows, lambda p, _: p, views=views)

    assert sheet(1, 3).width - sheet(1, 2).width >= max(size, 96)
    assert sheet(2, 1).height - sheet(1, 1).height >= max(size, 96)


def test_titles_make_room_for_themselves_and_long_or_odd_names_do_not_break_the_sheet():
    odd = "Gänseblümchen\n" + "x" * 400 + ".jpg"
    bare = preview_sheet([("a", plain(5))], noise, views=1)
    titled = preview_sheet([(odd, plain(5))], noise, views=1, title=odd, subtitle="zoom=0.2")

    assert titled.height > bare.height
    assert titled.width == bare.width
    edge = np.asarray(titled)[:, -10:]
    assert (edge == 255).all()  # nothing is written over the margin


@pytest.mark.parametrize(("pictures", "views"), [([], 3), ([("a", plain(1))], 0)])
def test_an_empty_sheet_is_refused(pictures, views):
    with pytest.raises(UsageError):
        preview_sheet(pictures, noise, views=views)
