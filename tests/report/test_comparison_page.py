import csv
import io

import pytest

from regraft.errors import UsageError
from regraft.report.comparison_page import (
    class_reports,
    compare_runs,
    comparison_table,
    reports_table,
    verdicts_table,
    write_comparison,
    write_tables_of,
)
from regraft.report.run_page import write_page
from regraft.report.tables import Share, show
from regraft.results.comparison import Comparison, Row
from regraft.results.intervals import wilson

NASTY = "<img src=x onerror=alert(1)> {{ 7 * 7 }} & \n $x$"
PUBLISHED = {"train": 0.9985, "validation": 0.6459, "test": 0.6318, "seconds": 420, "note": "1a"}


@pytest.fixture
def page_of(tmp_path, read_page):
    """Return a function that writes the page of a comparison and reads it."""
    return lambda comparison: read_page(write_comparison(comparison, tmp_path / "out" / "c.html"))


def text_of(page):
    return " ".join(page.text.split())


def test_a_comparison_has_a_row_per_run(make_run):
    runs = [make_run("one", wrong=1, epochs=30), make_run("two", wrong=2)]

    table = comparison_table(compare_runs(runs))

    assert table.columns == ("description", "data", "epochs", "train", "validation", "test", "time")
    assert [row[:3] for row in table.rows] == [
        ("the run one", "0 (36)", 30),
        ("the run two", "0 (36)", None),
    ]
    assert [show(row[-1]) for row in table.rows] == ["1 min 2 s"] * 2


def test_the_best_is_marked_only_when_it_is_better_than_every_other(make_run):
    good, near, bad = make_run("a", wrong=0), make_run("b", wrong=1), make_run("c", wrong=15)

    clear = comparison_table(compare_runs([good, bad]))
    unclear = comparison_table(compare_runs([bad, good, near]))

    assert (clear.best, unclear.best) == (0, None)
    assert clear.notes[0].startswith("★ the run a is better than the run c by 83.3 points")


def test_runs_of_different_splits_get_a_column_and_no_verdict(make_run, page_of):
    comparison = compare_runs([make_run("a"), make_run("b", wrong=15, seed=1)])

    table, page = comparison_table(comparison), page_of(comparison)

    assert table.columns[-1] == "split"
    assert len({row[-1] for row in table.rows}) == 2
    assert "2 different splits" in table.notes[0]
    assert table.best is None
    assert "2 different splits" in page.text
    assert "Class by class" not in page.text
    assert "Which is better than which" not in page.text


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        (["one", "two"], ["same (one)", "same (two)"]),
        (["a/run", "b/run"], ["same (run, run 1)", "same (run, run 2)"]),
    ],
)
def test_runs_of_one_description_are_told_apart(make_run, names, lines):
    runs = [make_run(name, description="same", wrong=at) for at, name in enumerate(names)]

    assert [row.description for row in compare_runs(runs).rows] == lines


def test_published_figures_stand_beside_the_measured_ones(make_run):
    row = Row("SimpleCNN", (make_run(wrong=3),), PUBLISHED)

    table = comparison_table(Comparison("x", (row, Row("other", (make_run("b"),)))))

    pairs = [(part, f"{part} published") for part in ("train", "validation", "test", "time")]
    assert table.columns[3:] == tuple(name for pair in pairs for name in pair)
    assert "99.85 %" in table.to_markdown()
    assert "7 min 0 s" in table.to_text()
    assert next(csv.DictReader(io.StringIO(table.to_csv())))["test published"] == "0.6318"


def test_the_training_accuracy_of_the_last_epoch_stands_beside_that_of_the_finished_network(
    make_run, trained, page_of
):
    trained["epochs"][-1]["train_accuracy"] = 0.987
    row = Row("SimpleCNN", (make_run(epochs=11, history=trained),), PUBLISHED)
    comparison = Comparison("x", (row, Row("features", (make_run("b"),))))

    table = comparison_table(comparison)

    column = table.columns.index("train, last epoch")
    assert table.columns[column - 1 : column + 2] == (
        "train",
        "train, last epoch",
        "train published",
    )
    assert [row[column] for row in table.rows] == [Share(0.987), None]
    assert "in the last epoch 98.7 %" in text_of(page_of(comparison))


def test_a_row_that_learned_from_a_few_images_says_from_how_many(make_run):
    few, all_of_them = make_run("few"), make_run("all")
    few.metrics["train"]["accuracy"] = wilson(5, 6)

    table = comparison_table(compare_runs([few, all_of_them]))

    assert [row[1] for row in table.rows] == ["0 (6 learned from, of 36)", "0 (36)"]


def test_the_score_without_leaks_stands_beside_the_other(make_run, page_of):
    run = make_run("a", wrong=3)
    run.metrics["test without leaks"] = {"accuracy": wilson(5, 10)}
    comparison = Comparison("x", (Row("leaky", (run,)), Row("tight", (make_run("b"),))))

    table = comparison_table(comparison)

    column = table.columns.index("test without leaks")
    assert table.columns[column - 1] == "test"
    assert [show(row[column]) for row in table.rows] == ["50.0 % [23.7, 76.3], n = 10", "–"]
    assert text_of(page_of(comparison)).count("without leaks 50.0 % [23.7, 76.3], n = 10") == 1


REPORT = {"a": (0.97, 1.0, 0.98, 264), "macro average": (0.99, 0.98, 0.97, 750)}


def test_reports_of_every_class_stand_side_by_side_with_the_published_ones(make_run, page_of):
    rows = [
        Row("SimpleCNN", (make_run("a", wrong=3),), {"report": REPORT}),
        Row("features", (make_run("b"),)),
    ]

    (one, measured), (two, printed), (three, _) = reports = class_reports(rows)
    table, page = reports_table(reports), page_of(Comparison("x", tuple(rows)))

    assert (one, two, three) == ("SimpleCNN", "SimpleCNN, published", "features")
    assert list(measured) == ["a", "b", "c", "macro average", "weighted average"]
    assert [show(cell) for cell in measured["a"]] == [
        "100.0 % [43.9, 100.0], n = 3",
        "50.0 % [18.8, 81.2], n = 6",
        "66.7 % [31.6, 89.6], n = 6",
        "6",
    ]
    assert printed["a"] == (Share(0.97), Share(1.0), Share(0.98), 264)
    assert [row[:2] for row in table.rows[:4]] == [
        ("a", "SimpleCNN"),
        ("a", "SimpleCNN, published"),
        ("a", "features"),
        ("b", "SimpleCNN"),
    ]
    assert "The reports of 3 methods side by side" in page.text
    assert "a 100.0 % [43.9, 100.0], n = 3" in text_of(page)
    assert "97.0 % 100.0 % 98.0 % 264 100.0 %" in text_of(page)


def test_of_many_methods_the_best_have_a_report_and_those_with_a_published_one(make_run):
    rows = [Row(f"m{n}", (make_run(f"m{n}", wrong=n),)) for n in range(6)]
    rows.append(Row("worst", (make_run("w", wrong=9),), {"report": REPORT}))
    rows.append(Row("another split", (make_run("s", seed=1),)))

    methods = [method for method, _ in class_reports(rows)]

    assert methods == ["m0", "m1", "m2", "worst", "worst, published"]


def test_several_comparisons_stand_on_one_page_with_a_list_of_contents(
    make_run, tmp_path, read_page
):
    method = {"classifier": "knn", "published": {"test": 0.91}}
    one = compare_runs([make_run("a"), make_run("b", wrong=2)], title="plain")
    two = compare_runs([make_run("c", method=method)], title="regularized")

    page = read_page(write_tables_of([one, two], tmp_path / "all.html"))

    headings = ["plain", "plain, class by class", "regularized"]
    assert page.text.count("published") == 1
    assert "91.0 %" in page.text
    assert [page.text.count(heading) for heading in headings] == [6, 3, 3]
    assert page.values("href") == ["#section-1", "#section-2", "#section-3"]
    assert set(page.values("id")) == {"section-1", "section-2", "section-3"}
    assert page.open == []


def test_verdicts_make_a_row_per_pair(make_run):
    runs = [make_run("good"), make_run("near", wrong=1), make_run("bad", wrong=12)]
    verdicts = compare_runs(runs).verdicts
    other = compare_runs([make_run("c", seed=1), make_run("d", seed=1)]).verdicts

    table, both = verdicts_table(verdicts), verdicts_table([*verdicts, *other])

    assert [(row[0], row[3]) for row in table.rows] == [
        ("the run near", "not distinguishable"),
        ("the run bad", "better"),
    ]
    assert table.rows[1][1] == "+66.7 points [37.4, 83.7]"
    assert both.columns == ("method", *table.columns)
    assert [row[0] for row in both.rows] == ["the run good", "the run good", "the run c"]


def test_the_page_links_to_the_pages_of_its_runs(make_run, images, page_of):
    runs = [make_run("first run"), make_run("second", wrong=4)]
    write_page(runs[0], data_root=images)

    page = page_of(compare_runs(runs))

    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert [link for link in links if link[0] != "#"] == ["../runs/first%20run/report.html"]
    assert page.elements.count("svg") == 2
    assert page.open == []
    assert "://" not in page.source


def test_repeats_are_counted_with_their_spread_and_have_a_link_each(make_run, images, page_of):
    runs = [make_run(f"s{i}", wrong=i) for i in range(2)]
    for run in runs:
        write_page(run, data_root=images)
    comparison = Comparison("x", (Row("two seeds", tuple(runs)),))

    table, page = comparison_table(comparison), page_of(comparison)

    assert (table.columns[3], table.rows[0][3]) == ("runs", 2)
    assert "± 3.9" in table.to_text()
    assert "../runs/s1/report.html" in page.values("href")
    assert "run 1 · run 2" in text_of(page)
    assert "± 3.9" in text_of(page)


def test_the_page_says_all_that_a_reader_needs(make_run, page_of):
    rows = [Row("SimpleCNN", (make_run("a", wrong=3),), PUBLISHED)]
    rows += [Row("features", (make_run("b", wrong=2),))]
    comparison = Comparison.of(
        rows,
        title="Flowers, up the ladder",
        left_out=("fine-tuning all: 9 min more than the budget",),
        failures=("x: the disk is full",),
        warnings=("one seed only",),
        command="regraft compare flowers --budget 20m",
    )

    page = page_of(comparison)

    for words in (
        "Flowers, up the ladder",
        "SimpleCNN has the highest validation accuracy",
        "1 published test figure: ",
        "published 99.85 %",
        "published 7 min 0 s",
        "one seed only",
        "Not finished: x: the disk is full",
        "looked at once per run, 2 times in all",
        "most frequent class would be right for 33.3 %",
        "not distinguishable",
        "SimpleCNN: its test accuracy minus that of each other method",
        "What the budget left out",
        "9 min more than the budget",
        "regraft compare flowers --budget 20m",
        "1 command of the runs",
    ):
        assert words in text_of(page)
    assert comparison_table(comparison).notes[-3:] == (
        "Left out: fine-tuning all: 9 min more than the budget",
        "Not finished: x: the disk is full",
        "one seed only",
    )
    assert page.open == []
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    sections = ["results", "accuracy", "time", "verdicts", "images", "classes"]
    sections += ["left-out", "repeat"]
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links == [f"#{section}" for section in sections]
    assert set(sections) <= set(identifiers)
    assert len(page.values("scope")) == page.elements.count("th")


def test_curves_over_sizes_say_how_many_images_are_missing(make_run, page_of):
    rows = [
        Row(f"{n} per class", (make_run(f"{n}", wrong=wrong, method={"per_class": n}),))
        for n, wrong in ((5, 9), (6, 5))
    ]
    for row, n in zip(rows, (5, 6), strict=True):
        row.runs[0].metrics["train"]["accuracy"] = wilson(0, 3 * n)

    page = page_of(Comparison.of(rows, title="x"))

    assert "cannot be said: a curve needs 3 sizes" in text_of(page)
    labels = page.values("aria-label")
    assert any(label.startswith("Test accuracy against training images") for label in labels)


def test_names_that_are_markup_stay_text(make_run, page_of):
    rows = [Row(f"{NASTY} {i}", (make_run(f"{i}", wrong=i),), {"note": NASTY}) for i in range(3)]

    page = page_of(
        Comparison.of(rows, title=NASTY, left_out=(NASTY,), warnings=(NASTY,), command=NASTY)
    )

    assert "img" not in page.elements
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text


def test_nothing_is_refused_and_no_test_part_is_not(make_run, page_of, tmp_path):
    page = page_of(compare_runs([make_run("a", test=0), make_run("b", test=0)]))

    assert "svg" not in page.elements
    assert page.open == []
    with pytest.raises(UsageError):
        compare_runs([])
    with pytest.raises(UsageError):
        write_comparison(Comparison("x", ()), tmp_path / "comparison.html")
