import dataclasses
import re
import shutil

from regraft.report.page import write_page
from regraft.results.run import Run

NASTY = ("<img src=x onerror=alert(1)>", "=cmd()", 'a "b" & c', "{{ 7 * 7 }}", "two\nlines \udcff")


def test_the_page_tells_accuracy_n_interval_and_baseline_in_words(make_run, pictures, read_page):
    page = read_page(write_page(make_run(wrong=3), data_root=pictures))

    text = " ".join(page.text.split())
    assert "Of 18 test pictures that it had never seen it named 15 correctly." in text
    assert "83.3 % 95 % interval [60.8, 94.2], n = 18" in text
    assert "would be right in 33.3 % of them" in text
    assert "Logistic regression was fitted on the features of small from 9 pictures" in text


def test_every_section_is_there(make_run, pictures, read_page):
    run = make_run(wrong=3, history={"folds": 3}, warnings=["the lamp flickered"])

    page = read_page(write_page(run, data_root=pictures))

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


def test_the_page_fetches_nothing(make_run, pictures, read_page):
    page = read_page(write_page(make_run(wrong=3), data_root=pictures))

    assert "http:" not in page.source
    assert "https:" not in page.source
    assert "script" not in page.elements
    assert all(value.startswith("data:image/jpeg;base64,") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert "@import" not in page.source
    assert "url(" not in page.source
    assert "default-src 'none'" in page.source


def test_names_that_are_markup_stay_text(make_run, pictures, read_page):
    run = make_run(wrong=5, classes=NASTY, description="<script>alert(1)</script>")

    page = read_page(write_page(run, data_root=pictures))

    assert "script" not in page.elements
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "x" not in page.values("src")
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in re.sub(r"\d\d+", "", page.text)
    assert "two\\nlines \\udcff" in page.text


def test_every_picture_has_a_description_and_every_header_a_scope(make_run, pictures, read_page):
    page = read_page(write_page(make_run(wrong=3), data_root=pictures))

    images = page.elements.count("img")
    assert images > 0
    assert len([value for value in page.values("alt") if value]) == images
    assert len(page.values("scope")) == page.elements.count("th")
    assert page.open == []
    assert ("html", "lang", "en") in page.attributes


def test_identifiers_are_unique_and_links_lead_to_them(make_run, pictures, read_page):
    page = read_page(write_page(make_run(wrong=3), data_root=pictures))

    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for value in page.values("href")} <= set(identifiers)


def test_missing_pictures_have_a_place_holder(make_run, pictures, read_page):
    run = make_run(wrong=3)
    shutil.rmtree(pictures)

    page = read_page(write_page(run, data_root=pictures))

    assert "img" not in page.elements
    assert "picture not here" in page.text
    assert "could not be read" in page.text


def test_the_page_can_be_written_again_without_the_pictures(make_run, pictures):
    run = make_run(wrong=3)
    first = write_page(run, data_root=pictures).read_text()
    shutil.rmtree(pictures)

    again = write_page(Run.open(run.folder)).read_text()

    assert again == first


def test_no_error_is_not_called_certainty(make_run, pictures, read_page):
    page = read_page(write_page(make_run(), data_root=pictures))

    text = " ".join(page.text.split())
    assert "No test picture was named wrongly" in text
    assert "up to 17.6 % of pictures like these" in text


def test_nothing_is_expected_of_a_model_no_better_than_the_most_frequent_class(
    make_run, pictures, read_page
):
    page = read_page(write_page(make_run(wrong=11), data_root=pictures))

    assert "Always answering “a” would be right in 33.3 % of them." in page.text
    assert "On other pictures like these expect" not in page.text


def test_a_second_look_at_the_test_part_is_told(make_run, pictures, tmp_path, read_page):
    from regraft.data.dataset import Split

    run = make_run(wrong=1)
    Split.count_test_look(run.folder)

    page = read_page(write_page(run, data_root=pictures))

    assert "looked at 2 times" in page.text


def test_without_a_test_part_the_page_speaks_of_the_validation_part(make_run, pictures, read_page):
    page = read_page(write_page(make_run(test=0), data_root=pictures))

    assert "Validation accuracy" in " ".join(page.text.split())


def test_many_classes_get_a_heat_map_instead_of_a_table(make_run, pictures, read_page):
    classes = tuple(f"class {index:02d}" for index in range(40))

    page = read_page(
        write_page(make_run(classes=classes, per_class=5, wrong=9), data_root=pictures)
    )

    assert "svg" in page.elements
    assert "matrix" not in page.values("class")
    assert "40 classes are too many for a table" in page.text


def test_more_classes_than_a_page_can_show_leave_it_small(make_run, monkeypatch, read_page):
    monkeypatch.setattr("regraft.report.page._MOST_HEAT", 30)
    monkeypatch.setattr("regraft.report.page._MOST_ROWS", 20)
    classes = tuple(f"class {index:02d}" for index in range(40))

    page = read_page(write_page(make_run(classes=classes, per_class=4, wrong=30)))

    assert "too many classes for a matrix" in page.text
    assert "svg" not in page.elements
    assert "the 20 of 40 classes with the lowest F1" in page.text
    assert "class 00" in page.text
    assert "the first 20 classes" in page.text or page.text.count("class 39") <= 1


def test_rows_of_the_matrix_are_true_classes(make_run, pictures, read_page):
    page = read_page(write_page(make_run(wrong=2), data_root=pictures))

    assert "2 of 6 “a” named “b” (33.3 %)" in page.values("title")
    assert "0 of 6 “b” named “a” (0.0 %)" in page.values("title")


def test_epochs_are_drawn(make_run, pictures, read_page):
    history = [{"epoch": i, "train_loss": 1 / i, "val_accuracy": 0.5} for i in range(1, 4)]

    page = read_page(write_page(make_run(history=history), data_root=pictures))

    assert "Accuracy and loss after each epoch." in page.values("aria-label")


def test_the_page_of_a_trained_network_tells_its_phases_in_words(
    make_run, pictures, trained, read_page
):
    phases = [{"optimizer": "sgd", "epochs": 2}, {"optimizer": "adamw", "epochs": 9}]
    run = make_run(
        wrong=3,
        method={"strategy": "two_stage", "head": "linear", "phases": phases, "start": None},
        history=trained,
        epochs=5,
    )

    page = read_page(write_page(run, data_root=pictures))

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


def test_the_chosen_point_of_a_grid_is_marked(make_run, pictures, read_page):
    grid = [{"parameters": {"C": c}, "mean": 0.9, "sd": 0.01} for c in (0.1, 1.0)]

    page = read_page(
        write_page(make_run(history={"grid": grid, "best": {"C": 1.0}}), data_root=pictures)
    )

    assert "1 ★" in page.text
    assert "90.0 %" in page.text


def test_the_page_of_a_table_finds_the_pictures_beside_it(make_run, pictures, read_page):
    run = make_run(wrong=1)
    (pictures / "table.csv").touch()

    page = read_page(write_page(run, data_root=pictures / "table.csv"))

    assert "img" in page.elements


def leaking(run):
    """Give a run two scores, a warning from the check and groups with names."""
    message = "2 groups stand in both train and test: anna, bob"
    finding = {"code": "DATA-GROUP-LEAK", "severity": "error", "message": message, "path": "x"}
    finding |= {"advice": "cut anew", "names": ["anna", "bob & co"]}
    share = {"accuracy": 0.5, "n": 10, "interval": [0.24, 0.76], "left_out": 8}
    share["macro_recall"] = {"value": 0.6, "low": 0.3, "high": 0.8, "n": 10}
    run.metrics["test"]["without_leaks"] = share
    record = dataclasses.replace(run.record, warnings=(f"{message}; cut anew",))
    told = dataclasses.replace(run, record=record)
    told.check["findings"].append(finding)
    return told


def test_both_scores_stand_on_the_page_where_the_test_part_leaks(make_run, pictures, read_page):
    page = read_page(write_page(leaking(make_run(wrong=3)), data_root=pictures))

    text = " ".join(page.text.split())
    assert "83.3 % 95 % interval [60.8, 94.2], n = 18" in text
    assert "Test accuracy without leaks" in text
    assert "50.0 % 95 % interval [24.0, 76.0], n = 10; without 8 pictures that" in text
    assert "Mean recall of the classes 60.0 %, with them 83.3 %" in text


def test_a_finding_that_a_remark_tells_is_not_told_again_but_its_groups_are_all_named(
    make_run, pictures, read_page
):
    page = read_page(write_page(leaking(make_run(wrong=3)), data_root=pictures))

    assert page.text.count("2 groups stand in both") == 1
    assert "What else the data check found" in page.text
    assert "two pictures are the same" in page.text
    assert "anna, bob & co" in page.text


def test_a_page_without_leaks_has_one_score(make_run, pictures, read_page):
    page = read_page(write_page(make_run(wrong=3), data_root=pictures))

    assert "without leaks" not in page.text
