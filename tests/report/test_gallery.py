import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from regraft.errors import UsageError
from regraft.files import sha256_file
from regraft.report import gallery as module
from regraft.report.gallery import Thumbnails, gallery, preview_sheet, write_suspects
from regraft.results.predictions import Predictions


def wrong_ones(counts, classes=("a", "b", "c")):
    """Return predictions with so many wrong images of each (true, predicted) pair."""
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


def test_pairs_come_by_frequency_and_images_by_confidence(none):
    shown = gallery(wrong_ones({("a", "b"): 2, ("b", "c"): 3}), none)

    assert [(pair.confused.true, len(pair.images)) for pair in shown.pairs] == [("b", 3), ("a", 2)]
    for pair in shown.pairs:
        confidences = [image.confidence for image in pair.images]
        assert confidences == sorted(confidences, reverse=True)
        assert all(image.true_probability < 0.1 for image in pair.images)


def test_the_number_of_images_is_bounded_and_the_rest_is_counted(none, monkeypatch):
    monkeypatch.setattr(module, "MOST_THUMBNAILS", 30)
    p = wrong_ones({("a", "b"): 40, ("b", "c"): 10, ("c", "a"): 5})

    shown = gallery(p, none)

    assert [len(pair.images) for pair in shown.pairs] == [24, 6]
    assert [pair.hidden for pair in shown.pairs] == [16, 4]
    assert (shown.hidden, shown.hidden_pairs) == (25, 1)


def test_right_images_stand_in_one_row_only_the_most_confident_with_one_of_each_class_first(none):
    few = gallery(wrong_ones({("a", "a"): 5, ("b", "b"): 6}), none)
    many = gallery(wrong_ones({("c", "c"): 20, ("a", "a"): 9, ("b", "b"): 9}), none)

    most, least = ({s.path for s in row} for row in (few.most_confident, few.least_confident))
    assert few.pairs == ()
    assert len(most) == len(least) == 5
    assert not most & least
    assert [image.true for image in many.most_confident[:3]] == ["b", "a", "c"]


def thumbnails(folder, *paths):
    """Return thumbnails of images that were predicted as they lie there now."""
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


def test_another_image_of_the_same_name_is_not_shown_and_spoils_nothing(tmp_path):
    Image.new("RGB", (30, 30), (200, 0, 0)).save(tmp_path / "one.png")
    kept = thumbnails(tmp_path, "one.png")
    first = kept.address("one.png")
    Image.new("RGB", (30, 30), (0, 0, 200)).save(tmp_path / "one.png")

    assert kept.address("one.png") == first
    shutil.rmtree(tmp_path / "kept")
    assert kept.address("one.png") is None


@pytest.mark.parametrize("path", ["absent.jpg", "text.jpg", "../secret.png", "/etc/hostname"])
def test_what_is_gone_damaged_or_outside_is_not_shown(tmp_path, path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.jpg").write_text("no image")
    Image.new("RGB", (30, 30)).save(tmp_path / "secret.png")

    hashes = {path: sha256_file(tmp_path / "data" / path)} if path != "absent.jpg" else {}

    address = Thumbnails(tmp_path / "kept", tmp_path / "data", hashes).address(path)

    assert address is None


def plain(level, size=120):
    return np.full((size, size, 3), level, np.uint8)


def noise(image, random):
    return random.integers(0, 256, image.shape, dtype=np.uint8)


def test_each_image_stands_whole_in_the_first_column_of_its_row():
    sheet = np.asarray(preview_sheet([plain(201), plain(77)], noise, views=3))

    first, second = ((sheet == level).all(axis=2) for level in (201, 77))
    for hit in (first, second):
        assert (hit.sum(axis=0) >= 120).sum() >= 120
    assert first[:, 40].nonzero()[0].max() < second[:, 40].nonzero()[0].min()


def test_every_view_is_drawn_anew_and_repeatably():
    drawn = []

    def record(image, random):
        drawn.append(float(random.random()))
        return image

    images = [plain(9), plain(9)]
    first, again, _ = (preview_sheet(images, record, views=4, seed=seed) for seed in (1, 1, 2))

    assert len(set(drawn[:8])) == 8
    assert drawn[:8] == drawn[8:16]
    assert not set(drawn[:8]) & set(drawn[16:])
    assert first.tobytes() == again.tobytes()


def test_the_sheet_grows_with_images_and_views():
    def sheet(rows, views):
        return preview_sheet([plain(5)] * rows, lambda p, _: p, views=views)

    assert sheet(1, 3).width - sheet(1, 2).width >= 120
    assert sheet(2, 1).height - sheet(1, 1).height >= 120


@pytest.mark.parametrize(("images", "views"), [([], 3), ([plain(1)], 0)])
def test_an_empty_sheet_is_refused(images, views):
    with pytest.raises(UsageError):
        preview_sheet(images, noise, views=views)


def test_suspects_are_shown_beside_their_neighbours_and_what_is_missing_is_said(tmp_path):
    for number in range(3):
        Image.new("RGB", (40, 30), (90 * number, 20, 20)).save(tmp_path / f"{number}.png")
    near = [{"path": "1.png", "label": "lily", "similarity": 0.876}]
    suspect = {"path": "0.png", "given": "<rose>", "suggested": "lily", "score": 0.9876}
    suspect |= {"agreeing": 1, "neighbours": near}
    copies = [{"path": "2.png", "label": "iris"}, {"path": "gone.png", "label": "lily"}]
    conflicts = [{"exact": True, "images": copies}]

    path = write_suspects(
        [suspect] * (module.MOST_SUSPECTS + 2), conflicts, tmp_path / "page.html", root=tmp_path
    )

    page = path.read_text()
    assert page.count("data:image/jpeg") == 2 * module.MOST_SUSPECTS + 1
    assert page.count("image not here") == 1
    assert "2 more suspects are not shown" in page
    assert "score 0.988; 1 of the images around it has its label" in page
    assert "lily</strong> 0.88" in page
    assert "&lt;rose&gt;" in page
    assert "<rose>" not in page
    assert "The same content" in page
