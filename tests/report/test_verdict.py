import pytest

from regraft.report.verdict import judge


def test_a_clear_winner_is_named(make_run):
    verdict = judge([make_run("good"), make_run("bad", wrong=12)])

    assert (verdict.same_split, verdict.best) == (True, 0)
    assert "Choose a run by its validation accuracy" in verdict.notes[-1]


def test_one_more_right_picture_is_no_difference(make_run):
    verdict = judge([make_run("one", wrong=2), make_run("two", wrong=3)])

    assert verdict.best is None
    assert "right on 1 and the second on 0" in verdict.notes[0]


def test_many_comparisons_ask_for_more(make_run):
    """Six pictures of difference have p = 0.03: enough against one run, not against three."""
    runs = [make_run("best")] + [make_run(f"other {i}", wrong=6) for i in range(3)]

    assert judge(runs[:2]).best == 0
    assert judge(runs).best is None


def test_without_a_test_part_there_is_no_verdict(make_run):
    runs = [make_run(name, test=0) for name in ("one", "two")]

    assert judge(runs).best is None


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_runs_need_no_verdict(make_run, count):
    verdict = judge([make_run(str(index)) for index in range(count)])

    assert (verdict.best, verdict.notes) == (None, ())
