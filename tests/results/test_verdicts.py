import pytest

from regraft.errors import RunError
from regraft.results.paired import compare, judge_ways, paired_difference, reference
from regraft.results.run import Run


@pytest.fixture
def run_of(tmp_path, record, predict):
    """Return a function that writes a run with given errors and a given validation accuracy."""
    made = []

    def make(split, wrong, *, validated=None):
        made.append(wrong)
        place = tmp_path / "runs" / f"run-{len(made)}"
        run = Run.create(place, record, predict(split, wrong=wrong), split=split)
        if validated is None:
            run.metrics.pop("validation")
        else:
            run.metrics["validation"]["accuracy"] = validated
        return run

    return make


def test_a_way_that_is_better_is_called_so_by_how_much(run_of, split):
    good, bad = run_of(split, 0), run_of(split, 9)

    (verdict,) = judge_ways([("scratch", [bad]), ("features", [good])])

    assert (verdict.a, verdict.b, verdict.better) == ("scratch", "features", "b")
    assert verdict.difference == 0.5
    assert verdict.verdict == "features is better than scratch by 50.0 points [23.6, 71.0]"
    assert verdict.p == pytest.approx(2 / 2**9)


def test_ways_that_cannot_be_told_apart_are_not(run_of, split):
    one, two = run_of(split, 3), run_of(split, 2)

    (verdict,) = judge_ways([("plain", [one]), ("augmented", [two])])

    least = 100 * verdict.detectable
    assert verdict.better is None
    assert verdict.p == 1.0
    assert verdict.verdict == (
        "plain and augmented are not distinguishable on 18 images; "
        f"a difference under {least:.1f} points cannot be seen here"
    )


def test_validation_chooses_what_the_others_are_judged_against(run_of, split):
    lucky, chosen = run_of(split, 0, validated=0.8), run_of(split, 9, validated=0.9)

    (verdict,) = judge_ways([("lucky", [lucky]), ("chosen", [chosen])])

    assert (verdict.a, verdict.b, verdict.better) == ("lucky", "chosen", "a")
    assert verdict.difference == -0.5
    assert verdict.verdict == "lucky is better than chosen by 50.0 points [23.6, 71.0]"


def test_where_one_way_was_not_validated_the_test_part_chooses(run_of, split):
    ways = [("one", [run_of(split, 2, validated=1.0)]), ("two", [run_of(split, 1)])]

    assert reference(ways) == 1


def test_the_first_of_equals_is_chosen(run_of, split):
    ways = [(name, [run_of(split, 2, validated=0.9)]) for name in "abc"]

    assert reference(ways) == 0


def test_many_pairs_are_corrected_by_holm(run_of, split):
    ways = [(str(wrong), [run_of(split, wrong)]) for wrong in (0, 6, 7, 8)]

    (alone,), together = judge_ways(ways[:2]), judge_ways(ways)

    assert (alone.p, alone.better) == (pytest.approx(2 / 2**6), "b")
    assert [verdict.p for verdict in together] == pytest.approx([2 / 2**6, 4 / 2**7, 6 / 2**8])
    assert together[0].detectable > alone.detectable


def test_all_pairs_are_judged_on_request(run_of, split):
    ways = [(name, [run_of(split, wrong)]) for name, wrong in (("a", 0), ("b", 4), ("c", 9))]

    verdicts = judge_ways(ways, all_pairs=True)

    assert [(verdict.a, verdict.b) for verdict in verdicts] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert verdicts[1].p == pytest.approx(3 * 2 / 2**9)


def test_seeds_are_judged_together(run_of, split):
    plain = [run_of(split, wrong) for wrong in (9, 10, 11)]
    better = [run_of(split, wrong) for wrong in (0, 1)]

    (verdict,) = judge_ways([("plain", plain), ("better", better)])

    assert verdict.difference == pytest.approx(9.5 / 18)
    assert verdict.better == "b"


def test_several_splits_are_judged_split_by_split_whatever_their_order(run_of, pictures):
    splits = [pictures.split(val=0.25, test=0.5, seed=seed) for seed in (0, 1, 2)]
    plain = [run_of(split, wrong) for split, wrong in zip(splits, (8, 9, 10), strict=True)]
    better = [run_of(split, wrong) for split, wrong in zip(splits[::-1], (2, 1, 0), strict=True)]

    found = compare(plain, better)

    assert found.value == pytest.approx(8 / 18)
    assert found.repeats == 3
    assert 18 < found.n <= 36


def test_one_run_each_is_the_paired_comparison(run_of, split):
    first, second = run_of(split, 7), run_of(split, 2)
    right = [run.predictions.part("test").correct for run in (first, second)]

    assert compare([first], [second]) == paired_difference(*right)


def test_runs_of_different_splits_are_refused(run_of, split, pictures):
    other = pictures.split(val=0.25, test=0.5, seed=1)

    with pytest.raises(RunError) as caught:
        judge_ways([("one", [run_of(split, 1)]), ("two", [run_of(other, 1)])])
    assert caught.value.code == "RUN-SPLITS"

    with pytest.raises(RunError) as caught:
        compare([run_of(split, 1)], [run_of(split, 1), run_of(other, 2)])
    assert caught.value.code == "RUN-SPLITS"


def test_a_way_without_a_test_part_is_left_out(run_of, split):
    untested = run_of(split, 0)
    untested.metrics.pop("test")

    assert judge_ways([("untested", [untested]), ("tested", [run_of(split, 1)])]) == []


def test_a_verdict_is_plain_values(run_of, split):
    (verdict,) = judge_ways([("one", [run_of(split, 0)]), ("two", [run_of(split, 9)])])

    found = verdict.to_json()

    assert found["interval"] == list(verdict.interval)
    assert {"a", "b", "difference", "interval", "p", "verdict"} <= set(found)
