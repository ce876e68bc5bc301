import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from regraft.files import sha256_file
from regraft.report import gallery as module
from regraft.report.gallery import Thumbnails, gallery
from regraft.results.predictions import Predictions


def wrong_ones(counts, classes=("a", "b", "c")):
    """Return predictions with so many wrong pictures of each (true, predicted) pair."""
    truth, answers = [], []
    for (true, answer), count in counts.items():
        truth += [true] * count
        answers += [answer] * count
    n = len(truth)
    probabilities = np.full((n, len(classes)), 0.01)
    for row, answer in enumerate(answers):
        probabilities[row, classes.index(answer)] = 0.5 + 0.4 * row / n
    paths = tuple(f"{true}/{row}.jpg" for row, true in enumerate(truth))
    return Predictions(paths, tuple(truth), classes, probabilities, ("test",) * n)


@pytest.fixture
def none(tmp_path):
    return Thumbnails(tmp_path / "thumbnails", None, {})


def test_pairs_come_by_frequency_and_pictures_by_confidence(none):
    shown = gallery(wrong_ones({("a", "b"): 2, ("b", "c"): 3}), none)

    assert [(pair.confused.true, len(pair.pictures)) for pair in shown.pairs] == [
        ("b", 3),
        ("a", 2),
    ]
    for pair in shown.pairs:
        confidences = [picture.confidence for picture in pair.pictures]
        assert confidences == sorted(confidences, reverse=True)
        assert all(picture.true_probability < 0.1 for picture in pair.pictures)


def test_the_number_of_pictures_is_bounded_and_the_rest_is_counted(none, monkeypatch):
    monkeypatch.setattr(module, "MOST_THUMBNAILS", 30)
    p = wrong_ones({("a", "b"): 40, ("b", "c"): 10, ("c", "a"): 5})

    shown = gallery(p, none)

    assert [len(pair.pictures) for pair in shown.pairs] == [24, 6]
    assert [pair.hidden for pair in shown.pairs] == [16, 4]
    assert (shown.hidden, shown.hidden_pairs) == (25, 1)


def test_right_pictures_stand_in_one_row_only(none):
    p = wrong_ones({("a", "a"): 5, ("b", "b"): 6})

    shown = gallery(p, none)

    assert shown.pairs == ()
    surest, least = ({s.path for s in row} for row in (shown.surest, shown.least_sure))
    assert len(surest) == len(least) == 5
    assert not surest & least


def test_the_row_of_the_surest_begins_with_one_of_each_class(none):
    p = wrong_ones({("c", "c"): 20, ("a", "a"): 9, ("b", "b"): 9})

    shown = gallery(p, none)

    assert [picture.true for picture in shown.surest[:3]] == ["b", "a", "c"]


def thumbnails(folder, *paths):
    """Return thumbnails of pictures that were judged as they lie there now."""
    return Thumbnails(folder / "kept", folder, {path: sha256_file(folder / path) for path in paths})


def test_thumbnails_are_small_and_carry_no_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (900, 400), (10, 90, 200)).save(tmp_path / "big.jpg", exif=exif)

    address = thumbnails(tmp_path, "big.jpg").address("big.jpg")

    data = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as small:
        assert max(small.size) <= 160
        assert not small.getexif()
    assert b"taken at home" not in data


def test_thumbnails_are_kept_for_the_next_time(tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "one.png")
    first = thumbnails(tmp_path, "one.png").address("one.png")

    again = Thumbnails(tmp_path / "kept", None, {}).address("one.png")

    assert again == first


def test_another_picture_of_the_same_name_is_not_shown_and_spoils_nothing(tmp_path):
    Image.new("RGB", (30, 30), (200, 0, 0)).save(tmp_path / "one.png")
    judged = thumbnails(tmp_path, "one.png")
    first = judged.address("one.png")
    Image.new("RGB", (30, 30), (0, 0, 200)).save(tmp_path / "one.png")

    assert judged.address("one.png") == first
    shutil.rmtree(tmp_path / "kept")
    assert judged.address("one.png") is None


@pytest.mark.parametrize("path", ["absent.jpg", "text.jpg", "../secret.png", "/etc/hostname"])
def test_what_is_gone_damaged_or_outside_is_not_shown(tmp_path, path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.jpg").write_text("no picture")
    Image.new("RGB", (30, 30)).save(tmp_path / "secret.png")

    hashes = {path: sha256_file(tmp_path / "data" / path)} if path != "absent.jpg" else {}

    address = Thumbnails(tmp_path / "kept", tmp_path / "data", hashes).address(path)

    assert address is None
