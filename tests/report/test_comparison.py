import csv
import io

import pytest

from regraft.errors import UsageError
from regraft.report.comparison import (
    compare_runs,
    comparison_table,
    verdicts_table,
    write_comparison,
)
from regraft.report.page import write_page
from regraft.report.tables import show
from regraft.results.comparison import Comparison, Row
from regraft.results.paired import judge_ways

NASTY = "<img src=x onerror=alert(1)> {{ 7 * 7 }} & \n $x$"
PUBLISHED = {"train": 0.9985, "validation": 0.6459, "test": 0.6318, "seconds": 420, "note": "1a"}


def written(comparison, tmp_path, read_page):
    return read_page(write_comparison(comparison, tmp_path / "out" / "comparison.html"))


def text_of(page):
    return " ".join(page.text.split())


def test_a_comparison_has_a_row_per_run(make_run):
    table = comparison_table(
        compare_runs([make_run("one", wrong=1, epochs=30), make_run("two", wrong=2)])
    )

    assert table.columns == ("description", "data", "epochs", "train", "validation", "test", "time")
    assert table.rows[0][2] == 30
    assert "–" in table.to_text()
    assert "1 min 2 s" in table.to_text() or "1 min 1 s" in table.to_text()


def test_the_best_is_marked_only_when_it_can_be_told_from_the_others(make_run):
    good, near, bad = make_run("a", wrong=0), make_run("b", wrong=1), make_run("c", wrong=15)

    clear = comparison_table(compare_runs([good, bad]))
    unclear = comparison_table(compare_runs([bad, good, near]))

    assert clear.best == 0
    assert "the run a *" in clear.to_text()
    assert clear.notes[0].startswith("★ the run a is better")
    assert unclear.best is None
    assert "*" not in unclear.to_text()


def test_runs_of_different_splits_get_a_column_that_tells_them_apart(make_run):
    table = comparison_table(compare_runs([make_run("a"), make_run("b", wrong=15, seed=1)]))

    assert table.columns[-1] == "split"
    assert len({row[-1] for row in table.rows}) == 2
    assert "2 different splits" in table.notes[0]


def test_runs_of_one_name_are_told_apart_by_their_folders(make_run):
    comparison = compare_runs(
        [make_run("one", description="same"), make_run("two", description="same")]
    )

    assert [row.description for row in comparison.rows] == ["same (one)", "same (two)"]


def test_runs_of_one_name_in_folders_of_one_name_are_numbered(make_run):
    runs = [make_run(f"{place}/run", description="x", wrong=n) for n, place in enumerate("ab")]

    comparison = compare_runs(runs)

    assert [row.description for row in comparison.rows] == ["x (run, run 1)", "x (run, run 2)"]
    assert comparison_table(comparison).rows


def test_published_figures_stand_beside_the_measured_ones(make_run):
    row = Row("SimpleCNN", (make_run(wrong=3),), PUBLISHED)

    table = comparison_table(Comparison("x", (row, Row("other", (make_run("b"),)))))

    assert table.columns[3:] == (
        "train",
        "train published",
        "validation",
        "validation published",
        "test",
        "test published",
        "time",
        "time published",
    )
    assert "99.85 %" in table.to_markdown()
    assert "7 min 0 s" in table.to_text()
    assert next(csv.DictReader(io.StringIO(table.to_csv())))["test published"] == "0.6318"


def test_the_score_without_leaks_stands_beside_the_other(make_run, tmp_path, read_page):
    run = make_run("a", wrong=3)
    run.metrics["test"]["without_leaks"] = {
        "accuracy": 0.5,
        "n": 10,
        "interval": [0.24, 0.76],
    }
    comparison = Comparison("x", (Row("leaky", (run,)), Row("tight", (make_run("b"),))))

    table = comparison_table(comparison)
    page = written(comparison, tmp_path, read_page)

    column = table.columns.index("test without leaks")
    assert [show(row[column]) for row in table.rows] == ["50.0 % [24.0, 76.0], n = 10", "–"]
    assert text_of(page).count("without leaks 50.0 % [24.0, 76.0], n = 10") == 1


def test_repeats_are_counted_and_their_spread_is_shown(make_run):
    row = Row("three seeds", tuple(make_run(f"s{i}", wrong=i) for i in range(3)))

    table = comparison_table(Comparison("x", (row,)))

    assert table.columns[3] == "runs"
    assert table.rows[0][3] == 3
    assert "± 5.6" in table.to_text()


def test_what_was_left_out_and_warnings_stand_below_the_table(make_run):
    rows = (Row("a", (make_run("a"),)),)

    table = comparison_table(
        Comparison("x", rows, left_out=("no vgg16: 9 min more",), warnings=("one seed",))
    )

    assert table.notes[-2:] == ("Left out: no vgg16: 9 min more", "one seed")


def test_verdicts_make_a_row_per_pair(make_run):
    comparison = compare_runs(
        [make_run("good"), make_run("near", wrong=1), make_run("bad", wrong=12)]
    )

    table = verdicts_table(comparison.verdicts)

    assert [(row[0], row[3]) for row in table.rows] == [
        ("the run near", "not distinguishable"),
        ("the run bad", "better"),
    ]
    assert table.rows[1][1] == "+66.7 points [37.4, 83.7]"
    assert table.columns[-1] == "could be seen from"


def test_verdicts_of_all_pairs_name_both_ways(make_run):
    ways = [(name, [make_run(name)]) for name in "abc"]

    table = verdicts_table(judge_ways(ways, all_pairs=True))

    assert [row[:2] for row in table.rows] == [("b", "a"), ("c", "a"), ("c", "b")]


def test_the_page_links_to_the_pages_of_its_runs(make_run, pictures, tmp_path, read_page):
    runs = [make_run("first run"), make_run("second", wrong=4)]
    write_page(runs[0], data_root=pictures)

    page = written(compare_runs(runs), tmp_path, read_page)

    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert [link for link in links if not link.startswith("#")] == [
        "../runs/first%20run/report.html"
    ]
    assert page.elements.count("svg") == 2
    assert "F1 of every class" in page.text
    assert page.open == []
    assert "://" not in page.source


def test_repeats_have_a_link_each(make_run, pictures, tmp_path, read_page):
    runs = [make_run(f"s{i}", wrong=i) for i in range(2)]
    for run in runs:
        write_page(run, data_root=pictures)

    page = written(Comparison("x", (Row("two seeds", tuple(runs)),)), tmp_path, read_page)

    assert "../runs/s1/report.html" in page.values("href")
    assert "run 1 · run 2" in text_of(page)
    assert "± 3.9" in text_of(page)


def test_the_page_says_all_that_a_reader_needs(make_run, tmp_path, read_page):
    rows = (
        Row("SimpleCNN", (make_run("a", wrong=3),), PUBLISHED),
        Row("features", (make_run("b", wrong=2),)),
    )
    comparison = Comparison.of(
        rows,
        title="Flowers, up the ladder",
        left_out=("fine-tuning all: 9 min more than the budget",),
        warnings=("one seed only",),
        command="regraft compare flowers --budget 20m",
    )

    page = written(comparison, tmp_path, read_page)

    text = text_of(page)
    for words in (
        "Flowers, up the ladder",
        "SimpleCNN has the highest validation accuracy",
        "1 published test figure: ",
        "published 99.85 %",
        "published 7 min 0 s",
        "one seed only",
        "opened once per run, 2 times in all",
        "most frequent class would be right in 33.3 %",
        "not distinguishable",
        "SimpleCNN: its test accuracy minus that of each other way",
        "What the budget left out",
        "9 min more than the budget",
        "regraft compare flowers --budget 20m",
        "1 command of the runs",
    ):
        assert words in text
    assert page.open == []
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for value in page.values("href") if value[0] == "#"} <= set(identifiers)
    assert len(page.values("scope")) == page.elements.count("th")


def test_curves_over_sizes_say_how_many_pictures_are_wanting(make_run, tmp_path, read_page):
    rows = [
        Row(
            f"{n} per class",
            (make_run(f"{n}", wrong=wrong, method={"strategy": "features", "per_class": n}),),
        )
        for n, wrong in ((5, 9), (6, 5))
    ]
    from regraft.results.learning_curve import fit_curve

    curve = fit_curve("features", [(5, rows[0].test.estimate), (6, rows[1].test.estimate)])

    page = written(Comparison("x", tuple(rows), curves=(curve,)), tmp_path, read_page)

    assert "cannot be said: a curve needs 3 sizes" in text_of(page)
    assert any(
        value.startswith("Test accuracy against training") for value in page.values("aria-label")
    )


def test_names_that_are_markup_stay_text(make_run, tmp_path, read_page):
    rows = tuple(
        Row(f"{NASTY} {i}", (make_run(f"{i}", wrong=i),), {"note": NASTY}) for i in range(3)
    )

    page = written(
        Comparison.of(rows, title=NASTY, left_out=(NASTY,), warnings=(NASTY,), command=NASTY),
        tmp_path,
        read_page,
    )

    assert "img" not in page.elements
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text


def test_a_comparison_of_different_splits_says_so_and_pairs_nothing(make_run, tmp_path, read_page):
    page = written(compare_runs([make_run("a"), make_run("b", seed=1)]), tmp_path, read_page)

    assert "2 different splits" in page.text
    assert "F1 of every class" not in page.text
    assert "Which is better than which" not in page.text


def test_without_a_test_part_the_page_still_stands(make_run, tmp_path, read_page):
    page = written(
        compare_runs([make_run("a", test=0), make_run("b", test=0)]), tmp_path, read_page
    )

    assert "svg" not in page.elements
    assert page.open == []


def test_nothing_is_refused():
    with pytest.raises(UsageError):
        compare_runs([])


def test_a_page_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError):
        write_comparison(Comparison("x", ()), tmp_path / "comparison.html")
