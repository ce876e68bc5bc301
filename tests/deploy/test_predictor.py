"""Many files are answered as one is: in order, whatever the batch, and bad ones are marked."""

import threading

import numpy as np
import pytest
from PIL import Image

from regraft.deploy.export import write_deployed
from regraft.deploy.predictor import load, predict_files


@pytest.fixture(scope="module")
def model(images, learner_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor") / "deploy"
    write_deployed(learner_of("logistic", grid=None).fit(*images), folder, images[0])
    return load(folder)


@pytest.mark.parametrize("batch", [1, 7, 32])
@pytest.mark.parametrize("kind", ["logistic", "knn", "network"])
def test_the_size_of_a_batch_changes_no_label(kind, batch, images, learner_of, tmp_path):
    learner = learner_of(kind).fit(*images)
    write_deployed(learner, tmp_path / "deploy", images[0])
    parts = [images[0][start : start + batch] for start in range(0, len(images[0]), batch)]

    for one in (learner, load(tmp_path / "deploy")):
        alone = np.concatenate([one.predict_proba(part) for part in parts])

        whole = one.predict_proba(images[0])
        assert alone.argmax(axis=1).tolist() == whole.argmax(axis=1).tolist()
        assert alone == pytest.approx(whole, abs=1e-5)


def test_of_classes_that_are_as_probable_the_first_is_named(tmp_path):
    class Undecided:
        classes_ = np.array(["a", "b", "c"])

        def predict_proba(self, images):
            """Return one row for each image."""
            return np.tile([0.2, 0.4, 0.4], (len(images), 1))

    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")

    (row,) = predict_files(Undecided(), [str(tmp_path / "a.png")], top=3)

    assert [entry["label"] for entry in row["top"]] == ["b", "c", "a"]


def test_more_files_than_a_block_are_answered_in_order_with_the_bad_ones_marked(
    model, images, tmp_path
):
    files = []
    for number in range(75):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(images[0][number % 30]).save(files[-1])
    for number in (0, 31, 32, 74):
        (tmp_path / f"{number}.png").write_bytes(b"<html>")

    rows = list(predict_files(model, files))

    expected = model.predict(images[0])
    assert [row["file"] for row in rows] == files
    assert [n for n, row in enumerate(rows) if "error" in row] == [0, 31, 32, 74]
    good = [(n, row) for n, row in enumerate(rows) if "top" in row]
    assert [row["top"][0]["label"] for _, row in good] == [expected[n % 30] for n, _ in good]


def test_the_next_files_are_opened_while_the_network_looks_at_these(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    asked, beyond = [], threading.Event()

    def files():
        for number in range(40):
            asked.append(number)
            if number > 32:
                beyond.set()
            yield str(tmp_path / "a.png")

    class Watching:
        classes_ = np.array(["a", "b"])

        def predict_proba(self, images):
            """Answer when the next files were asked for."""
            assert beyond.wait(30)
            return np.tile([0.4, 0.6], (len(images), 1))

    assert len(list(predict_files(Watching(), files()))) == len(asked) == 40
