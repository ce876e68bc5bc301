import dataclasses
import re
import shutil
import xml.etree.ElementTree as ET

import pytest

from regraft.report import run_page
from regraft.report.run_page import fitting, write_page
from regraft.results.intervals import wilson
from regraft.results.run import Run

NASTY = ("<img src=x onerror=alert(1)>", "=cmd()", 'a "b" & c', "{{ 7 * 7 }}", "two\nlines \udcff")


@pytest.fixture
def page_of(images, read_page):
    """Return a function that writes the page of a run and reads it."""
    return lambda run, root=images: read_page(write_page(run, data_root=root))


def text_of(page):
    return " ".join(page.text.split())


def test_every_section_is_there_with_its_numbers(make_run, page_of):
    run = make_run(wrong=3, history={"folds": 3}, warnings=("the lamp flickered",))

    page = page_of(run)

    for words in (
        "Of 18 test images that it had never seen it predicted 15 correctly.",
        "83.3 % 95 % interval [60.8, 94.2], n = 18",
        "Most confused pairs",
        "macro average",
        "macro F1",
        "Right, but least confident",
        "two images are the same",
        "the lamp flickered",
        "Folds",
        run.split_hash,
        "1 ×",
        "CC0-1.0",
        "size 32",
        "1 min 1 s",
        "0 of 36 images passed through the backbone",
        "regraft fit images --backbone small",
    ):
        assert words in text_of(page)
    assert "None" not in page.text
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    sections = ["results", "confusion", "classes", "curves", "images"]
    sections += ["fitting", "data", "settings", "repeat"]
    links = [value for value in page.values("href") if value[0] == "#"]
    within = ["#pair-0-1", "#pair-0-1", "#confusion"]  # from the matrix and the pairs, and back
    assert links == [*(f"#{section}" for section in sections), *within]
    assert set(sections) <= set(identifiers)
    assert "3 of 6 “a” predicted as “b” (50.0 %)" in page.values("title")
    assert "0 of 6 “b” predicted as “a” (0.0 %)" in page.values("title")


def test_the_page_fetches_nothing_and_can_be_heard(make_run, page_of):
    page = page_of(make_run(wrong=3))

    for word in ("http:", "https:", "@import"):
        assert word not in page.source
    assert re.search(r"url\((?!#)", page.source) is None  # a drawing's own clip paths are inside
    assert "default-src 'none'" in page.source
    assert "script" not in page.elements
    assert all(value.startswith("data:image/jpeg;base64,") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    images = page.elements.count("img")
    assert images > 0
    assert len([value for value in page.values("alt") if value]) == images
    assert len(page.values("scope")) == page.elements.count("th")
    assert page.open == []
    assert ("html", "lang", "en") in page.attributes


def test_names_that_are_markup_stay_text(make_run, page_of):
    page = page_of(make_run(wrong=5, classes=NASTY, description="<script>alert(1)</script>"))

    assert "script" not in page.elements
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "x" not in page.values("src")
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in re.sub(r"\d\d+", "", page.text)
    assert "two\\nlines \\udcff" in page.text


def test_the_page_can_be_written_again_without_the_images(make_run, images, page_of):
    run = make_run(wrong=3)
    first = write_page(run, data_root=images).read_text()
    shutil.rmtree(images)

    again = write_page(Run.open(run.folder)).read_text()
    shutil.rmtree(run.folder / "thumbnails")
    page = page_of(run)

    assert again == first
    assert "img" not in page.elements
    assert "image not here" in page.text
    assert "could not be read" in page.text


def test_the_page_of_a_table_finds_the_images_beside_it(make_run, images, page_of):
    run = make_run(wrong=1)
    (images / "table.csv").touch()

    assert "img" in page_of(run, images / "table.csv").elements


def test_no_error_is_not_called_certainty(make_run, page_of):
    text = text_of(page_of(make_run()))

    assert "No test image was predicted wrongly" in text
    assert "up to 17.6 % of images like these" in text
    assert "without leaks" not in text
    assert "Validation accuracy" in text_of(page_of(make_run("b", test=0)))


def test_many_classes_get_a_heat_map_and_too_many_leave_the_page_small(
    make_run, page_of, monkeypatch
):
    classes = tuple(f"class {index:02d}" for index in range(40))
    run = make_run(classes=classes, per_class=4, wrong=30)
    drawn = page_of(run)
    monkeypatch.setattr(run_page, "_MOST_HEAT", 30)
    monkeypatch.setattr(run_page, "_MOST_ROWS", 20)

    small = page_of(run)

    assert "svg" in drawn.elements
    assert "matrix" not in drawn.values("class")
    assert "40 classes are too many for a table" in drawn.text
    assert "top-5 accuracy" in drawn.text
    assert "too many classes for a matrix" in small.text
    assert small.elements.count("svg") == drawn.elements.count("svg") - 1
    assert "the 20 of 40 classes with the lowest F1" in small.text


def test_curves_of_each_class_stand_on_the_page_and_of_many_classes_their_average(
    make_run, page_of
):
    few = page_of(make_run(wrong=3))
    many = make_run("many", classes=tuple(f"class {index:02d}" for index in range(12)), per_class=4)
    average = text_of(page_of(many))

    spoken = [alt for alt in few.values("aria-label") if alt.startswith("ROC")]
    assert len(spoken) == 1
    assert spoken[0].count("area under the ROC curve") == 4  # three classes and their average
    assert "area under the ROC curveaverage precision a " in text_of(few)
    assert "#curves" in few.values("href")
    assert "Of 12 classes only the average is shown" in average
    assert "area under the ROC curveaverage precision macro average " in average


def leaking(run):
    """Give a run two scores, a warning from the check and groups with names."""
    message = "2 groups stand in both train and test: anna, bob"
    finding = {"code": "DATA-GROUP-LEAK", "severity": "error", "message": message, "path": "x"}
    finding |= {"advice": "cut anew", "names": ["anna", "bob & co"]}
    clean = {"accuracy": wilson(5, 10), "macro_recall": wilson(6, 10)}
    run.metrics["test without leaks"] = clean
    record = dataclasses.replace(run.record, warnings=(f"{message}; cut anew",))
    told = dataclasses.replace(run, record=record)
    told.check["findings"].append(finding)
    return told


def test_both_scores_and_all_leaking_groups_stand_on_the_page(make_run, page_of):
    text = text_of(page_of(leaking(make_run(wrong=3))))

    assert "83.3 % 95 % interval [60.8, 94.2], n = 18" in text
    assert "Test accuracy without leaks" in text
    assert "50.0 % 95 % interval [23.7, 76.3], n = 10; without 8 images that" in text
    assert "Macro recall 60.0 %, with all 83.3 %" in text
    assert text.count("2 groups stand in both") == 1
    assert "What else the data check found" in text
    assert "two images are the same" in text
    assert "anna, bob & co" in text


def test_the_page_of_a_trained_network_says_its_phases_in_words(make_run, trained, page_of):
    phases = [{"optimizer": "sgd", "epochs": 2}, {"optimizer": "adamw", "epochs": 9}]
    method = {"strategy": "two_stage", "head": "linear", "phases": phases, "start": None}

    page = page_of(make_run(wrong=3, method=method, history=trained, epochs=5))

    for words in (
        "A new head was trained on the frozen small, then together with 50 % of the stages of ",
        "What was trained, phase by phase",
        "5 epochs of training; 0 of 36 images",
        "2, see Fitting",
    ):
        assert words in text_of(page)
    assert "{'" not in page.text
    assert any("rings at the best epoch" in value for value in page.values("aria-label"))
    assert page.open == []


def phases_of(trained, number):
    """Return what the table of phases says of one, by the name of the row."""
    (_, table), *_ = fitting(trained).tables
    assert table.columns == ("", "Phase 1", "Phase 2")
    return {row[0]: row[number] for row in table.rows}


def test_phases_are_told_in_plain_words(trained):
    assert phases_of(trained, 1) == {
        "trained": "the new head alone",
        "parameters": "1,539, 1.0 % of all",
        "optimizer": "sgd, momentum 0.9 · weight_decay 0.01",
        "learning rate": "0.01, constant",
        "epochs": "2",
        "best epoch": "the last; there were no validation images to choose by",
        "execution": "cached: each image went through the frozen part once; kept: the activation "
        "at features.30, 12 MB",
        "frozen tensors unchanged": "yes, bit for bit",
        "time": "1 min 1 s",
    }
    assert phases_of(trained, 2) == {
        "trained": "the new head and 50 % of the stages",
        "parameters": "120,000, 40.0 % of all",
        "optimizer": "adamw, weight_decay 0.01",
        "learning rate": "0.0001, cosine, warm-up for 10 % of the phase",
        "epochs": "3 of 9; stopped after 2 without a better validation accuracy",
        "best epoch": "1, by validation accuracy; its weights were kept",
        "execution": "live: each image went through the whole network in every epoch",
        "frozen tensors unchanged": "yes, bit for bit",
        "time": "5.0 s",
    }


@pytest.mark.parametrize(
    ("row", "phase", "setting", "said"),
    [
        ("trained", {}, {"unfreeze_from": "f.24"}, "the new head and 50 % of the stages, from f.2"),
        ("trained", {}, {"unfreeze_matching": "norm"}, "the new head and what matches /norm/ in 5"),
        ("trained", {"share_of_stages": 1.0}, {}, "the new head and all stages"),
        ("optimizer", {}, {"weight_decay": 0}, "adamw"),
        ("best epoch", {}, {"watch": "val_loss"}, "1, by validation loss; its weights were kept"),
        ("epochs", {"stopped": "time budget"}, {}, "3 of 9; stopped by the time budget"),
        ("execution", {"boundary": {"why": "no room"}}, {}, "live: each image went through the"),
        ("best epoch", {}, {"keep": "last"}, "1, by validation accuracy; the last one's"),
        ("frozen tensors unchanged", {"share_of_parameters": 1}, {}, "nothing was frozen"),
        ("frozen tensors unchanged", {"frozen": {"before": 1, "after": 2}}, {}, "NO"),
    ],
)
def test_what_is_special_about_a_phase_is_said(trained, row, phase, setting, said):
    trained["phases"][1] |= phase
    trained["phases"][1]["trained"] |= setting

    assert str(phases_of(trained, 2)[row]).startswith(said)


def test_epochs_are_rows_and_curves_with_borders_and_rings(trained):
    told = fitting({**trained, "device": "cpu"}, held=9)

    (first, _), (second, table) = told.tables
    assert first == "What was trained, phase by phase"
    assert second == "After each epoch, on 9 validation images"
    assert table.columns[:4] == ("phase", "epoch", "training loss", "training accuracy")
    assert (len(table.rows), table.rows[0][3], str(table.rows[0][-1])) == (5, "90.0 %", "1.5 s")
    dashed = [e for e in ET.fromstring(told.curves).iter() if "dasharray" in e.get("style", "")]
    assert len(dashed) == 2  # one border in each of two panels
    assert told.facts == (("device", "cpu"),)


def test_curves_survive_a_phase_without_epochs_and_epochs_without_validation(trained):
    trained["phases"].append(trained["phases"][1] | {"phase": 3, "best_epoch": None})
    epochs = [{k: v for k, v in e.items() if not k.startswith("val")} for e in trained["epochs"]]

    assert fitting({**trained, "epochs": epochs}).curves.startswith("<svg")


def test_a_grid_has_a_column_per_parameter_and_marks_the_chosen_point():
    grid = [
        {"parameters": {"C": 0.1, "penalty": "l2"}, "mean": 0.9, "sd": 0.01},
        {"parameters": {"C": 1.0}, "mean": 1.0, "sd": 0.0},
    ]

    told = fitting({"grid": grid, "best": {"C": 1.0}, "converged": True, "odd": None})

    [(title, table)] = told.tables
    assert (title, table.best) == ("grid", 1)
    assert table.columns[:2] == ("C", "penalty")
    assert table.rows[0] == ("0.1", "l2", "90.0 %", "1.0 %")
    assert table.rows[1][1] == "–"
    assert told.facts == (("best", "C 1"), ("converged", "yes"))
    assert told.curves is None


@pytest.mark.parametrize("history", [None, {}, {"phases": [], "epochs": []}])
def test_where_nothing_was_recorded_nothing_is_said(history):
    assert fitting(history) == run_page.Fitting()
