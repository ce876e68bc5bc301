import pytest

from regraft.data.dataset import Split
from regraft.report.comparison_page import compare_runs
from regraft.report.text import (
    conclude,
    flat,
    looks,
    remarks,
    training_in_words,
    what_was_done,
    what_was_found,
)
from regraft.results.comparison import Comparison, Row


def test_values_read_on_one_line():
    value = {"mean": [0.5, 1 / 3], "std": [], "crop": False, "top": None}

    assert flat(value) == "mean 0.5, 0.333333 · std – · crop no · top –"


def test_a_run_says_what_was_done_and_found(make_run):
    run = make_run(wrong=3)

    found = what_was_found(run.predictions.part("test"), "test")

    assert what_was_done(run.record) == (
        "A logistic classifier was fitted on the features of small from 9 images of 0 "
        "to distinguish 3 classes."
    )
    assert found == (
        "Of 18 test images that it had never seen it predicted 15 correctly. Always predicting "
        "“a” would be right for 33.3 % of them. On other images like these expect between 60.8 % "
        "and 94.2 %."
    )


def test_nothing_is_expected_of_a_model_no_better_than_the_most_frequent_class(make_run):
    p = make_run(wrong=11).predictions

    found = what_was_found(p.part("val"), "validation")

    assert found.startswith("Of 9 validation images it predicted 9 correctly.")
    assert what_was_found(p.part("test"), "test").endswith("would be right for 33.3 % of them.")
    assert what_was_found(p.take([]), "test") == "No image was set aside to measure it on."


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"strategy": "from_scratch"}, "small was trained, beginning with random weights,"),
        ({"weights": "random", "start": "runs/a"}, "A new head was trained together with all"),
        ({"weights": "random"}, "small was trained, beginning with random weights,"),
        ({"strategy": "fine_tune"}, "A new head was trained together with all stages of small"),
    ],
)
def test_a_training_from_scratch_is_said_so(make_run, method, said):
    history = {"phases": [{"share_of_stages": 1.0}], "epochs": []}

    record = make_run(method=method, history=history).record

    assert what_was_done(record).startswith(said)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([0.0], "A new head was trained on the frozen vgg16"),
        (
            [0.0, 0.25, 1.0],
            (
                "A new head was trained on the frozen vgg16, then together with 25 % of the stages "
                "of vgg16, then together with all stages of vgg16"
            ),
        ),
    ],
)
def test_the_strategy_reads_as_a_sentence(shares, said):
    assert training_in_words([{"share_of_stages": share} for share in shares], "vgg16") == said


def test_looks_at_the_test_part_are_counted(make_run):
    runs = [make_run("a", warnings=("w",)), make_run("b"), make_run("none", test=0)]
    once, before = looks(runs), remarks(runs[0])

    Split.count_test_look(runs[0].folder)

    assert once == "The test part was looked at once per run, 2 times in all."
    assert looks(runs).endswith("and 1 more time when runs were evaluated again.")
    assert looks(runs[2:]) == ""
    assert before == ["w"]
    assert "looked at 2 times" in remarks(runs[0])[1]


def test_the_best_of_several_is_better_than_each_of_the_others(make_run):
    runs = [make_run("good"), make_run("bad", wrong=12), make_run("worse", wrong=18)]

    said = conclude(compare_runs(runs))

    assert said.best == 0
    assert said.sentences[0] == (
        "★ the run good has the highest validation accuracy and is better than each of the others "
        "by more than chance explains."
    )
    assert said.sentences[1].startswith("The nearest: the run good is better than the run bad by")


def test_one_more_right_image_is_no_difference(make_run):
    runs = [make_run("one", wrong=2), make_run("two", wrong=3), make_run("bad", wrong=16)]

    said = conclude(compare_runs(runs))
    many = conclude(compare_runs([make_run(f"m{i}", wrong=i) for i in range(6)])).sentences[0]

    assert said.best is None
    assert said.sentences[0] == (
        "the run one has the highest validation accuracy, but is not distinguishable from "
        "the run two."
    )
    assert "not distinguishable on 18 images" in said.sentences[1]
    assert many.endswith("from the run m1, the run m2, the run m3, the run m4 and 1 more.")


def test_many_comparisons_ask_for_more(make_run):
    """Six images of difference have p = 0.03: enough against one run, not against three."""
    runs = [make_run("best")] + [make_run(f"other {i}", wrong=6) for i in range(3)]

    assert conclude(compare_runs(runs[:2])).best == 0
    assert conclude(compare_runs(runs)).best is None


def test_a_method_chosen_by_validation_and_beaten_on_the_test_part_is_not_the_best(make_run):
    runs = [make_run("chosen", wrong=15), make_run("better"), make_run("worse", wrong=16)]

    said = conclude(compare_runs(runs))

    assert said.best is None
    assert said.sentences[0].startswith(
        "the run chosen has the highest validation accuracy, but is not the best: "
        "the run better is better than the run chosen by"
    )


def test_of_methods_that_are_not_distinguishable_the_cheapest_is_named(make_run):
    slow = make_run("slow", seconds={"fit": 900.0})
    quick = make_run("quick", wrong=1, seconds={"fit": 9.0})

    said = conclude(compare_runs([slow, quick])).sentences

    assert said[-1].endswith(
        "the quickest is the run quick: 9.0 s, where the run slow takes 15 min 0 s."
    )


def test_without_a_validation_part_the_luck_of_the_choice_is_said(make_run):
    said = conclude(compare_runs([make_run(name, val=0) for name in ("one", "two")]))

    assert "no validation part to choose by" in said.sentences[-1]


@pytest.mark.parametrize(("names", "facts"), [("ab", {"test": 0}), ("a", {})])
def test_without_a_test_part_or_with_one_run_nothing_is_concluded(make_run, names, facts):
    assert conclude(compare_runs([make_run(name, **facts) for name in names])).sentences == ()


@pytest.mark.parametrize(
    ("published", "told"), [(0.83, "1 within"), (0.99, "1 above"), (0.2, "1 below")]
)
def test_published_figures_are_held_against_what_was_measured(make_run, published, told):
    row = Row("method", (make_run(wrong=3),), {"test": published})

    assert told in conclude(Comparison("x", (row,))).sentences[0]
    assert conclude(Comparison("x", (row,), faithful=False)).sentences == ()
