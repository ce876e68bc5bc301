"""Rows and comparisons: what is said of several runs together."""

import json
from dataclasses import replace

import numpy as np
import pytest

from regraft.errors import RunError
from regraft.results.comparison import (
    Comparison,
    Row,
    RunStore,
    best_validated,
    compare_methods,
    learning_curves,
    open_runs,
    summarize,
)
from regraft.results.intervals import over_splits, wilson
from regraft.results.paired import paired_difference, resampled_difference
from regraft.results.run import reserve


@pytest.fixture
def run_of(create, record):
    """Return a function that writes a run with given errors, its validation and its plan."""
    made = []

    def make(split, wrong=0, *, source="squares", validated=None, per_class=None, **row):
        made.append(wrong)
        config = {"data": {"source": source}, "method": row | {"per_class": per_class}}
        name = f"runs/run-{len(made)}"
        run = create(split, name, wrong=wrong, record=replace(record, config=config))
        if validated is None:
            run.metrics.pop("validation", None)
        else:
            share = replace(run.metrics["validation"]["accuracy"], value=validated)
            run.metrics["validation"]["accuracy"] = share
        if per_class is not None:
            run.metrics["train"]["accuracy"] = wilson(0, 3 * per_class)
        return run

    return make


@pytest.fixture
def splits(images):
    """Return the squares cut in three in three different ways."""
    return [images.split(val=0.25, test=0.5, seed=seed) for seed in (0, 1, 2)]


def test_one_run_has_its_wilson_interval_and_seeds_mean_and_spread(run_of, split):
    one, three = summarize([run_of(split, 4)]), summarize([run_of(split, n) for n in (2, 4, 6)])

    assert (one.estimate, one.sd, one.repeats) == (wilson(14, 18), None, 1)
    assert three.estimate.value == pytest.approx(14 / 18)
    assert three.sd == pytest.approx(2 / 18)
    assert (three.estimate.n, three.repeats) == (18, 3)


def test_several_splits_give_the_corrected_resampled_interval(run_of, splits):
    runs = [run_of(split, wrong) for split, wrong in zip(splits, (3, 5, 7), strict=True)]
    paths = {path for run in runs for path in run.predictions.part("test").paths}

    found = summarize(runs)
    seeds = summarize([runs[0], run_of(splits[0], 9), runs[1]])  # averaged on one split first

    assert seeds.estimate.value == pytest.approx((12 / 18 + 13 / 18) / 2)
    shares = [15 / 18, 13 / 18, 11 / 18]
    assert found.estimate == over_splits(shares, test_to_train=18 / 9, n=len(paths))
    assert found.sd == pytest.approx(np.std(shares, ddof=1))
    assert 18 < found.estimate.n <= 36


def test_a_part_without_images_is_unknown(run_of, images):
    run = run_of(images.split(val=0.0, test=0.5, seed=0), 1)

    assert not summarize([run], "val").estimate.known
    assert Row("method", (run,)).validation is None
    assert Row("method", (run,)).to_json()["validation"] is None


def test_images_are_matched_by_their_path(run_of, split):
    one, two = run_of(split, 5), run_of(split, 2)
    right = [run.predictions.part("test").correct for run in (one, two)]
    table = one.predictions
    vars(one)["predictions"] = table.take(np.random.default_rng(0).permutation(len(table)))

    [verdict] = compare_methods([("one", [one]), ("two", [two])])

    expected = paired_difference(*right)
    assert (verdict.difference, verdict.interval) == (expected.value, tuple(expected.interval))
    assert verdict.detectable == expected.detectable


def test_runs_that_cannot_be_paired_are_refused(run_of, split, splits):
    one, two, other = run_of(split, 5), run_of(split, 2), run_of(splits[1])
    vars(two)["predictions"] = two.predictions.take(range(30))

    for runs, why in (([one, two], "different images"), ([one, other], "different splits")):
        with pytest.raises(RunError, match=why) as caught:
            compare_methods([("a", runs[:1]), ("b", runs[1:])])
        assert caught.value.code == "RUN-SPLITS"
    with pytest.raises(RunError, match="different splits") as caught:
        compare_methods([("a", [one]), ("b", [other, one])])
    assert other.split_hash[:12] in caught.value.why
    assert one.split_hash[:12] in caught.value.why


def test_validation_chooses_what_the_others_are_judged_against(run_of, split):
    lucky, chosen = run_of(split, 0, validated=0.8), run_of(split, 9, validated=0.9)

    untested, unvalidated = run_of(split, 0), run_of(split, 1)
    del untested.metrics["test"]
    [verdict] = compare_methods(
        [("lucky", [lucky]), ("untested", [untested]), ("chosen", [chosen])]
    )

    assert (verdict.a, verdict.b, verdict.better) == ("lucky", "chosen", "a")
    assert verdict.difference == -0.5
    assert verdict.verdict == "lucky is better than chosen by 50.0 points [23.6, 71.0]"
    assert best_validated([("chosen", [chosen]), ("unvalidated", [unvalidated])]) == 1
    assert best_validated([("a", [lucky]), ("b", [lucky])]) == 0  # the first of equals


def test_several_splits_are_judged_split_by_split_whatever_their_order(run_of, splits):
    plain = [run_of(split, wrong) for split, wrong in zip(splits, (8, 9, 10), strict=True)]
    better = [run_of(split, wrong) for split, wrong in zip(splits[::-1], (2, 1, 0), strict=True)]
    right = [
        [run.predictions.part("test").correct for run in runs] for runs in (plain, better[::-1])
    ]

    [verdict] = compare_methods([("plain", plain), ("better", better)])

    expected = resampled_difference(*right, test_to_train=2, n=verdict.n)
    assert verdict.difference == pytest.approx(8 / 18)
    assert verdict.interval == pytest.approx(expected.interval)
    assert 18 < verdict.n <= 36


def test_a_row_tells_the_epochs_and_the_time_of_the_runs_that_it_continues(create, record, split):
    def trained(name, epochs, start=None, accuracy=0.5):
        history = {"phases": [], "epochs": [{"train_accuracy": accuracy}] * epochs}
        config = {"method": {"start": None if start is None else str(start.folder)}}
        facts = replace(record, config=config, history=history, epochs=epochs)
        return create(split, name, record=facts)

    first = trained("1c", 30)
    seeds = [trained(name, 60, first, share) for name, share in (("1d", 0.7), ("1d2", 0.9))]

    row = Row("1d", tuple(seeds))

    assert (row.epochs, row.seconds, row.last_epoch) == (90, 4.0, pytest.approx(0.8))
    told = row.to_json()
    assert (told["epochs"], told["train_last_epoch"]) == (90, pytest.approx(0.8))
    assert Row("1c", (first,)).epochs == 30


def test_a_training_that_was_cut_short_is_shown_as_that_and_judged_against_nobody(
    create, record, split
):
    phase = {"stopped": "time budget", "last_epoch": 2, "trained": {"epochs": 20}}
    history = {"phases": [phase], "epochs": [{"train_accuracy": 0.6}] * 2}
    cut = create(split, "runs/cut", record=replace(record, history=history))
    rows = [Row("cut", (cut,)), *(Row(n, (create(split, f"runs/{n}", wrong=4),)) for n in "ab")]

    found = Comparison.of(rows, title="T")

    assert found.rows[0].cut_short == "cut short, 2 of 20"
    assert {name for v in found.verdicts for name in (v.a, v.b)} == {"a", "b"}
    assert "judged against nobody: cut" in found.warnings[0]


def test_a_comparison_is_plain_values(run_of, split):
    seeds = run_of(split), run_of(split, 2)
    rows = [Row("good", seeds, {"test": 0.9}), Row("bad", (run_of(split, 9),))]

    told = Comparison.of(rows, title="x", left_out=("z",)).to_json(page="page.html")

    assert json.loads(json.dumps(told)) == told
    assert [row["description"] for row in told["rows"]] == ["good", "bad"]
    assert {told["rows"][0][name] for name in ("augment", "epochs", "train_last_epoch")} == {None}
    assert told["rows"][0]["test"] | {"sd": None, "interval": None} == {
        "accuracy": pytest.approx(17 / 18),
        "n": 18,
        "repeats": 2,
        "sd": None,
        "interval": None,
    }
    assert told["rows"][0]["seeds"] == 2
    assert told["rows"][0]["test"]["sd"] == pytest.approx(2**0.5 / 18)
    assert (told["left_out"], told["page"]) == (["z"], "page.html")
    assert [verdict["better"] for verdict in told["verdicts"]] == ["b"]


def test_only_runs_on_one_split_are_judged_against_each_other(run_of, split, splits):
    both = Row("both", (run_of(split), run_of(splits[1])))
    good = Row("good", (run_of(split, 4), run_of(splits[1], 4)))
    short = Row("short", (run_of(split),))

    whole = Comparison.of([both, good], title="x", warnings=("before",))
    partial = Comparison.of([both, good, short], title="x")

    assert whole.warnings == ("before",)
    assert [{verdict.a, verdict.b} for verdict in partial.verdicts] == [{"both", "good"}]
    [said] = partial.warnings
    assert said.startswith("no verdict on short: measured on other splits than the rest")


def test_methods_that_differ_in_the_number_of_images_make_a_curve(run_of, split):
    rows = [
        Row(f"method, {n} per class", (run_of(split, wrong, classifier="knn", per_class=n),))
        for n, wrong in ((6, 3), (3, 6))
    ]
    another = Row("another", (run_of(split, classifier="logistic"),))

    whole = Comparison.of([*rows, another], title="x")
    small = Comparison.of([*rows, another], title="x", faithful=False)

    [curve] = whole.curves
    assert curve.name == "method"
    assert curve.points == ((3, wilson(12, 18)), (6, wilson(15, 18)))
    assert small.curves == ()  # a small size says nothing of how many images it takes


def test_seeds_of_one_size_are_one_point_of_the_curve(run_of, split):
    """As `regraft report` gives them: a row for each run, told apart by its folder."""
    rows = [
        Row(f"method, {n} per class ({wrong})", (run_of(split, wrong, per_class=n, seed=wrong),))
        for n, wrongs in ((3, (6, 4)), (6, (3, 1)))
        for wrong in wrongs
    ]

    [curve] = learning_curves(rows)

    together = [Row("", (rows[i].runs[0], rows[i + 1].runs[0])).test.estimate for i in (0, 2)]
    assert [share for _, share in curve.points] == together
    assert "(" not in curve.name


def test_what_was_trained_longer_or_on_other_data_makes_another_curve(run_of, split):
    def row(n, epochs, source="squares"):
        asked = {"strategy": "frozen", "per_class": n, "epochs": epochs, "source": source}
        return Row(f"{epochs}", (run_of(split, **asked),))

    curves = learning_curves([row(n, epochs) for epochs in (1, 9) for n in (3, 6)])
    elsewhere = learning_curves([row(3, 1), row(6, 1, "circles")])

    assert elsewhere == []

    assert [curve.name for curve in curves] == ["1", "9"]
    assert [len(curve.points) for curve in curves] == [2, 2]


# ---- a folder of runs


def test_finished_runs_are_opened_one_by_one_or_by_their_folder(tmp_path, create, split):
    store = RunStore(tmp_path / "runs")
    for name in ("first", "second"):
        create(split, f"runs/{name}")
    (store.folder / "photos").mkdir()
    with reserve(store.folder / "third") as place:  # never becomes a run: nobody writes run.json
        (place / "predictions.csv").touch()

    assert [run.name for run in open_runs([store.folder])] == ["first", "second"]
    assert [run.name for run in open_runs([store.folder / "second"])] == ["second"]
    assert RunStore(tmp_path / "absent").runs() == ()
    assert (store.free_folder("first").name, store.free_folder("日本").name) == ("first-2", "run")
    for name in ("photos", "third"):
        with pytest.raises(RunError):
            open_runs([store.folder / name])
