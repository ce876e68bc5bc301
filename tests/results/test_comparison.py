"""Rows and comparisons: what is said of several runs together, as values."""

import json
from dataclasses import replace

import pytest

from regraft.results.comparison import Comparison, Row, size_curves
from regraft.results.run import Run


@pytest.fixture
def run_of(tmp_path, record, predict):
    """Return a function that writes a run with given errors and the row of its plan."""
    made = []

    def make(split, wrong=0, source="squares", **row):
        made.append(wrong)
        config = {"data": {"source": source}, "method": row}
        place = tmp_path / "runs" / f"run-{len(made)}"
        return Run.create(
            place, replace(record, config=config), predict(split, wrong=wrong), split=split
        )

    return make


def test_a_row_of_several_seeds_is_one_row_with_mean_and_spread(run_of, split):
    row = Row("way", (run_of(split, 2), run_of(split, 4)))

    assert row.seeds == 2
    assert row.test.estimate.value == pytest.approx(15 / 18)
    assert row.test.sd == pytest.approx(2**0.5 / 18)


def test_what_was_planned_is_told_by_the_run(run_of, split):
    row = Row("way", (run_of(split, strategy="features", per_class=12),))

    assert (row.strategy, row.per_class, row.backbone) == ("features", 12, "small")
    assert (row.augment, row.regularize, row.epochs) == (None, None, None)


def test_a_part_that_was_not_measured_is_unknown(run_of, split):
    run = run_of(split)
    del run.metrics["validation"]

    assert Row("way", (run,)).validation is None


def test_a_comparison_is_plain_values(run_of, split):
    rows = [Row("good", (run_of(split),), {"test": 0.9}), Row("bad", (run_of(split, 9),))]

    told = Comparison.of(rows, title="x", left_out=("z",)).to_json(page="page.html")

    assert json.loads(json.dumps(told)) == told
    assert [row["description"] for row in told["rows"]] == ["good", "bad"]
    assert told["rows"][0]["test"]["n"] == 18
    assert (told["left_out"], told["page"]) == (["z"], "page.html")
    assert len(told["verdicts"]) == 1


def test_only_runs_on_one_split_are_judged_against_each_other(run_of, pictures, split):
    other = pictures.split(val=0.25, test=0.5, seed=1)
    rows = [
        Row("one", (run_of(split),)),
        Row("two", (run_of(other),)),
        Row("three", (run_of(split, 9),)),
    ]

    (verdict,) = Comparison.of(rows, title="x").verdicts

    assert {verdict.a, verdict.b} == {"one", "three"}


def test_a_row_that_misses_a_split_is_said_to_have_no_verdict(run_of, pictures, split):
    other = pictures.split(val=0.25, test=0.5, seed=1)
    both, good, short = (
        Row("both", (run_of(split), run_of(other))),
        Row("good", (run_of(split, 4), run_of(other, 4))),
        Row("short", (run_of(split),)),
    )

    whole = Comparison.of([both, good], title="x", warnings=("before",))
    partial = Comparison.of([both, good, short], title="x")

    assert whole.warnings == ("before",)
    assert len(partial.verdicts) == 1
    [said] = partial.warnings
    assert said.startswith("short has no verdict: measured on other splits than the rest")


def test_ways_that_differ_in_the_number_of_pictures_make_a_curve(run_of, split):
    rows = [
        Row(f"way, {n} per class", (run_of(split, wrong, classifier="knn", per_class=n),))
        for n, wrong in ((3, 6), (6, 3))
    ]
    for row, n in zip(rows, (3, 6), strict=True):
        row.runs[0].metrics["train"]["n"] = 3 * n
    another = Row("another", (run_of(split, classifier="logistic"),))

    (curve,) = size_curves([*rows, another])

    assert curve.name == "way"
    assert [size for size, _ in curve.points] == [3, 6]


def test_seeds_of_one_size_are_one_point_of_the_curve(run_of, split):
    """As `compare-runs` gives them: a row for each run, told apart by its folder."""
    rows = [
        learned_from(
            Row(f"way, {n} per class ({wrong})", (run_of(split, wrong, per_class=n, seed=wrong),)),
            n,
        )
        for n, wrongs in ((3, (6, 4)), (6, (3, 1)))
        for wrong in wrongs
    ]

    (curve,) = size_curves(rows)

    together = [Row("", (rows[i].runs[0], rows[i + 1].runs[0])).test.estimate for i in (0, 2)]
    assert [share for _, share in curve.points] == together
    assert "(" not in curve.name


def learned_from(row, per_class):
    row.runs[0].metrics["train"]["n"] = 3 * per_class
    return row


def test_one_way_on_two_data_sets_is_no_curve(run_of, split):
    rows = [
        learned_from(Row(source, (run_of(split, classifier="knn", source=source),)), n)
        for source, n in (("squares", 3), ("circles", 6))
    ]

    assert size_curves(rows) == []


def test_sizes_that_were_run_with_several_epochs_make_a_curve_for_each(run_of, split):
    rows = [
        learned_from(
            Row(f"{epochs}", (run_of(split, strategy="frozen", per_class=n, epochs=epochs),)), n
        )
        for epochs in (1, 9)
        for n in (3, 6)
    ]

    curves = size_curves(rows)

    assert [curve.name for curve in curves] == ["1", "9"]
    assert [len(curve.points) for curve in curves] == [2, 2]
