import pytest

from regraft.report.comparison import compare_runs
from regraft.report.conclusions import conclude, looks
from regraft.results.comparison import Comparison, Row


def test_a_clear_winner_is_named_first(make_run):
    said = conclude(compare_runs([make_run("bad", wrong=12), make_run("good")]))

    assert said.best == 1
    assert said.sentences[0].startswith("★ the run good is better than the run bad by 66.7 points")


def test_the_best_of_several_is_better_than_each_of_the_others(make_run):
    runs = [make_run("good"), make_run("bad", wrong=12), make_run("worse", wrong=18)]

    said = conclude(compare_runs(runs))

    assert said.best == 0
    assert said.sentences[0].startswith("★ the run good is the best: it has the highest validation")
    assert "each of the other 2 by more than chance" in said.sentences[0]
    assert "the run good is better than the run bad by" in said.sentences[1]


def test_one_more_right_picture_is_no_difference(make_run):
    said = conclude(compare_runs([make_run("one", wrong=2), make_run("two", wrong=3)]))

    assert said.best is None
    assert "cannot be told from the run two" in said.sentences[0]
    assert "not distinguishable on 18 images" in said.sentences[1]


def test_many_comparisons_ask_for_more(make_run):
    """Six pictures of difference have p = 0.03: enough against one run, not against three."""
    runs = [make_run("best")] + [make_run(f"other {i}", wrong=6) for i in range(3)]

    assert conclude(compare_runs(runs[:2])).best == 0
    assert conclude(compare_runs(runs)).best is None


def test_whoever_is_chosen_by_validation_and_beaten_on_the_test_part_is_not_the_best(make_run):
    runs = [make_run("chosen", wrong=15), make_run("better"), make_run("worse", wrong=16)]

    said = conclude(compare_runs(runs))

    assert said.best is None
    assert said.sentences[0].startswith(
        "the run chosen has the highest validation accuracy, but is not the best: "
        "the run better is better than the run chosen by"
    )


def test_of_ways_that_cannot_be_told_apart_the_cheapest_is_named(make_run):
    slow = make_run("slow", seconds={"fit": 900.0})
    quick = make_run("quick", wrong=1, seconds={"fit": 9.0})

    said = conclude(compare_runs([slow, quick]))

    assert (
        "the run quick takes the least time: 9.0 s, where the run slow takes 15 min 0 s."
        in (said.sentences[-1])
    )


def test_without_a_validation_part_the_luck_of_the_choice_is_told(make_run):
    said = conclude(compare_runs([make_run(name, val=0) for name in ("one", "two")]))

    assert "no validation part to choose by" in said.sentences[-1]


def test_without_a_test_part_nothing_is_concluded(make_run):
    assert conclude(compare_runs([make_run(name, test=0) for name in "ab"])).sentences == ()


def test_one_run_needs_no_conclusion(make_run):
    assert conclude(compare_runs([make_run("a")])).sentences == ()


def test_runs_of_different_splits_are_flagged_and_none_is_best(make_run):
    said = conclude(compare_runs([make_run("a"), make_run("b", wrong=15, seed=1)]))

    assert said.best is None
    assert "2 different splits" in said.sentences[0]


@pytest.mark.parametrize(
    ("published", "told"), [(0.83, "1 within"), (0.99, "1 above"), (0.2, "1 below")]
)
def test_published_figures_are_held_against_what_was_measured(make_run, published, told):
    row = Row("way", (make_run(wrong=3),), {"test": published})

    assert told in conclude(Comparison("x", (row,))).sentences[0]


def test_looks_at_the_test_part_are_counted(make_run):
    from regraft.data.dataset import Split

    runs = [make_run("a"), make_run("b"), make_run("none", test=0)]
    once = looks(runs)
    Split.count_test_look(runs[0].folder)

    assert once == "The test part was opened once per run, 2 times in all."
    assert looks(runs).endswith("and 1 more time when runs were evaluated again.")
    assert looks(runs[2:]) == ""


def test_a_small_size_is_not_held_against_published_figures(make_run):
    row = Row("way", (make_run(wrong=3),), {"test": 0.83})

    assert conclude(Comparison("x", (row,), faithful=False)).sentences == ()
