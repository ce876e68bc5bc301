import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from regraft.errors import UsageError
from regraft.report.page import write_comparison, write_page
from regraft.results.run import Run

NASTY = ("<img src=x onerror=alert(1)>", "=cmd()", 'a "b" & c', "{{ 7 * 7 }}", "two\nlines \udcff")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What stands in a page: elements, their attributes and the text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.attributes, self.text, self.open = [], [], "", []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        """Note an element that begins."""
        self.elements.append(tag)
        self.attributes += [
            (tag, name, (value or "").replace("\N{NO-BREAK SPACE}", " ")) for name, value in attrs
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Note an element without content."""
        self.elements.append(tag)
        self.attributes += [
            (tag, name, (value or "").replace("\N{NO-BREAK SPACE}", " ")) for name, value in attrs
        ]

    def handle_endtag(self, tag):
        """Make sure that elements are closed in order."""
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        """Note a text."""
        self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def values(self, name):
        """Return all values of an attribute."""
        return [value for _, attribute, value in self.attributes if attribute == name]


def test_the_page_tells_accuracy_n_interval_and_baseline_in_words(make_run, pictures):
    page = Page(write_page(make_run(wrong=3), data_root=pictures))

    text = " ".join(page.text.split())
    assert "Of 18 test pictures that it had never seen it named 15 correctly." in text
    assert "83.3 % 95 % interval [60.8, 94.2], n = 18" in text
    assert "would be right in 33.3 % of them" in text
    assert "Logistic regression was fitted on the features of small from 9 pictures" in text


def test_every_section_is_there(make_run, pictures):
    run = make_run(wrong=3, history={"folds": 3}, warnings=["the lamp flickered"])

    page = Page(write_page(run, data_root=pictures))

    for words in (
        "Most confused pairs",
        "macro average",
        "Right, but least sure",
        "two pictures are the same",
        "the lamp flickered",
        "Folds",
        run.split_hash,
        "1 ×",
        "CC0-1.0",
        "size 32",
        "1 min 1 s",
        "0 of 36 images embedded",
        "regraft fit pictures --backbone small",
    ):
        assert words in page.text


def test_the_page_fetches_nothing(make_run, pictures):
    page = Page(write_page(make_run(wrong=3), data_root=pictures))

    assert "http:" not in page.source
    assert "https:" not in page.source
    assert "script" not in page.elements
    assert all(value.startswith("data:image/jpeg;base64,") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert "@import" not in page.source
    assert "url(" not in page.source
    assert "default-src 'none'" in page.source


def test_names_that_are_markup_stay_text(make_run, pictures):
    run = make_run(wrong=5, classes=NASTY, description="<script>alert(1)</script>")

    page = Page(write_page(run, data_root=pictures))

    assert "script" not in page.elements
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "x" not in page.values("src")
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in re.sub(r"\d\d+", "", page.text)
    assert "two\\nlines \\udcff" in page.text


def test_every_picture_has_a_description_and_every_header_a_scope(make_run, pictures):
    page = Page(write_page(make_run(wrong=3), data_root=pictures))

    images = page.elements.count("img")
    assert images > 0
    assert len([value for value in page.values("alt") if value]) == images
    assert len(page.values("scope")) == page.elements.count("th")
    assert page.open == []
    assert ("html", "lang", "en") in page.attributes


def test_identifiers_are_unique_and_links_lead_to_them(make_run, pictures):
    page = Page(write_page(make_run(wrong=3), data_root=pictures))

    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for value in page.values("href")} <= set(identifiers)


def test_missing_pictures_have_a_place_holder(make_run, pictures):
    run = make_run(wrong=3)
    shutil.rmtree(pictures)

    page = Page(write_page(run, data_root=pictures))

    assert "img" not in page.elements
    assert "picture not here" in page.text
    assert "could not be read" in page.text


def test_the_page_can_be_written_again_without_the_pictures(make_run, pictures):
    run = make_run(wrong=3)
    first = write_page(run, data_root=pictures).read_text()
    shutil.rmtree(pictures)

    again = write_page(Run.open(run.folder)).read_text()

    assert again == first


def test_no_error_is_not_called_certainty(make_run, pictures):
    page = Page(write_page(make_run(), data_root=pictures))

    text = " ".join(page.text.split())
    assert "No test picture was named wrongly" in text
    assert "up to 17.6 % of pictures like these" in text


def test_no_better_than_the_most_frequent_class_is_said(make_run, pictures):
    page = Page(write_page(make_run(wrong=11), data_root=pictures))

    assert "cannot be told from always answering" in page.text


def test_a_second_look_at_the_test_part_is_told(make_run, pictures, tmp_path):
    from regraft.data.split import Split

    run = make_run(wrong=1)
    Split.count_test_look(run.folder)

    page = Page(write_page(run, data_root=pictures))

    assert "looked at 2 times" in page.text


def test_without_a_test_part_the_page_warns(make_run, pictures):
    page = Page(write_page(make_run(test=0), data_root=pictures))

    assert "There is no test part" in page.text
    assert "Validation accuracy" in " ".join(page.text.split())


def test_many_classes_get_a_heat_map_instead_of_a_table(make_run, pictures):
    classes = tuple(f"class {index:02d}" for index in range(40))

    page = Page(write_page(make_run(classes=classes, per_class=5, wrong=9), data_root=pictures))

    assert "svg" in page.elements
    assert "matrix" not in page.values("class")
    assert "40 classes are too many for a table" in page.text


def test_more_classes_than_a_page_can_show_leave_it_small(make_run, monkeypatch):
    monkeypatch.setattr("regraft.report.page._MOST_HEAT", 30)
    monkeypatch.setattr("regraft.report.page._MOST_ROWS", 20)
    classes = tuple(f"class {index:02d}" for index in range(40))

    page = Page(write_page(make_run(classes=classes, per_class=4, wrong=30)))

    assert "too many classes for a matrix" in page.text
    assert "svg" not in page.elements
    assert "the 20 of 40 classes with the lowest F1" in page.text
    assert "class 00" in page.text
    assert "the first 20 classes" in page.text or page.text.count("class 39") <= 1


def test_rows_of_the_matrix_are_true_classes(make_run, pictures):
    page = Page(write_page(make_run(wrong=2), data_root=pictures))

    assert "2 of 6 “a” named “b” (33.3 %)" in page.values("title")
    assert "0 of 6 “b” named “a” (0.0 %)" in page.values("title")


def test_epochs_are_drawn(make_run, pictures):
    history = [{"epoch": i, "train_loss": 1 / i, "val_accuracy": 0.5} for i in range(1, 4)]

    page = Page(write_page(make_run(history=history), data_root=pictures))

    assert "Accuracy and loss after each epoch." in page.values("aria-label")


def test_the_page_of_a_trained_network_tells_its_phases_in_words(make_run, pictures, trained):
    phases = [{"optimizer": "sgd", "epochs": 2}, {"optimizer": "adamw", "epochs": 9}]
    run = make_run(
        wrong=3,
        learner="NetworkClassifier",
        parameters={"head": "linear", "phases": phases, "start": None},
        history=trained,
        epochs=5,
    )

    page = Page(write_page(run, data_root=pictures))

    text = " ".join(page.text.split())
    assert (
        "A new head was trained on the frozen small, then together with 50 % of the stages, "
        "from 9 pictures" in text
    )
    assert "The network names 100.0 % of its 9 training pictures correctly" in text
    assert "What was trained, phase by phase" in text
    assert "the new head and 50 % of the stages" in text
    assert "what left features.30 was kept as float16" in text
    assert "yes, bit for bit" in text
    assert "5 epochs of training; 0 of 36 images embedded anew" in text
    assert "2, see Fitting" in text
    assert "{'" not in text
    assert any("rings at the epoch" in value for value in page.values("aria-label"))
    assert page.open == []


def test_the_chosen_point_of_a_grid_is_marked(make_run, pictures):
    grid = [{"parameters": {"C": c}, "mean": 0.9, "sd": 0.01} for c in (0.1, 1.0)]

    page = Page(
        write_page(make_run(history={"grid": grid, "best": {"C": 1.0}}), data_root=pictures)
    )

    assert "1 ★" in page.text
    assert "90.0 %" in page.text


def test_the_page_of_a_table_finds_the_pictures_beside_it(make_run, pictures):
    run = make_run(wrong=1)
    (pictures / "table.csv").touch()

    page = Page(write_page(run, data_root=pictures / "table.csv"))

    assert "img" in page.elements


def test_a_comparison_links_to_the_pages_of_its_runs(make_run, pictures, tmp_path):
    runs = [make_run("first run"), make_run("second", wrong=4)]
    write_page(runs[0], data_root=pictures)

    page = Page(write_comparison(runs, tmp_path / "out" / "comparison.html"))

    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links == ["../runs/first%20run/report.html"]
    assert "svg" in page.elements
    assert "F1 of every class" in page.text
    assert page.open == []
    assert "://" not in page.source


def test_a_comparison_of_different_splits_says_so_and_pairs_nothing(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", seed=1)]

    page = Page(write_comparison(runs, tmp_path / "comparison.html"))

    assert "2 different splits" in page.text
    assert "F1 of every class" not in page.text


def test_a_comparison_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError):
        write_comparison([], tmp_path / "comparison.html")
