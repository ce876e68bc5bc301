"""What a notebook shows of values is small, well-formed, escaped and without a script."""

from html.parser import HTMLParser

import numpy as np
import pytest

from regraft.data.dataset import Dataset
from regraft.report.comparison_page import compare_runs
from regraft.report.notebook import html
from regraft.results.predictions import Predictions

NAMES = ("<script>alert(1)</script>", "b & c", "é")


class Element(HTMLParser):
    """One element, read strictly: everything that begins ends."""

    def __init__(self, value):
        super().__init__()
        self.source, self.open, self.begun, self.text = value._repr_html_(), [], [], ""
        self.sources, self.top = [], 0
        self.feed(self.source)
        self.close()
        self.text = " ".join(self.text.split())  # a non-breaking space is a space here
        assert self.open == []
        assert self.top == 1
        assert len(self.source) < 300_000
        assert "script" not in self.begun
        assert all(source.startswith("data:image/jpeg;base64,") for source in self.sources)

    def handle_starttag(self, tag, attrs):
        """Note an element that begins."""
        self.top += not self.open
        self.begun.append(tag)
        self.sources += [value for name, value in attrs if name in {"src", "href"}]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Make sure that elements are closed in order."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Note a text."""
        self.text += f" {data} "


@pytest.fixture
def run(make_run):
    return make_run(classes=NAMES, wrong=2)


@pytest.fixture
def data(run, tmp_path):
    return Dataset.from_folder(tmp_path / "images" / "0")


def test_a_data_set_shows_examples_and_counts(data):
    data.paths[0].write_bytes(b"no image")

    shown = Element(data)

    assert "36 images of 3 classes" in shown.text
    assert "0 12 1 12 2 12" in shown.text
    assert len(shown.sources) == 15  # of 16, one of which is damaged


def test_a_split_shows_what_is_in_each_part(data):
    shown = Element(data.split(seed=7))

    assert "36 images, split by seed 7" in shown.text
    assert "class train validation test all 21 6 9 0 7 2 3" in shown.text


def test_predictions_show_accuracies_and_what_was_confused(run):
    shown = Element(run.predictions)

    assert "Confusion on the test part" in shown.text
    assert "true ↓ predicted → <script>alert(1)</script> b & c é" in shown.text
    assert "test 88.9 %" in shown.text
    assert "n = 18" in shown.text


def test_of_many_classes_the_confused_pairs_are_shown():
    names = tuple(f"kind {n:03}" for n in range(200))
    shares = np.roll(np.eye(200), 1, axis=1)

    shown = Element(Predictions(names, names, names, shares, ("val",) * 200))

    assert "Most confused pairs on the validation part; 170 more rows not shown" in shown.text
    assert "kind 000 kind 001" in shown.text


def test_a_run_shows_what_was_done_and_where_its_page_is(run):
    whole = Element(run)
    (run.folder / "predictions.csv").unlink()
    del run.__dict__["predictions"]
    without = Element(run)

    assert "the run run A logistic classifier was fitted on the features of small" in whole.text
    assert str(run.folder / "report.html") in whole.text
    assert "Confusion on the test part" in whole.text
    assert "Confusion" not in without.text
    assert "test 88.9 %" in without.text


def test_a_comparison_shows_its_table_and_its_verdict(make_run):
    shown = Element(compare_runs([make_run("one", wrong=9), make_run("two")]))

    assert "2 runs side by side" in shown.text
    assert "the run two is better than the run one by 50.0 points" in shown.text
    assert shown.begun.count("tr") == 3


def test_nothing_is_shown_as_nothing():
    empty = Dataset((), (), ("a", "b"))
    nothing = Predictions((), (), ("a", "b"), np.zeros((0, 2)), ())

    assert "0 images of 2 classes" in Element(empty).text
    assert "Predictions of 0 images" in Element(nothing).text
    with pytest.raises(TypeError, match="int"):
        html(3)
