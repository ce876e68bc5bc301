import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.results.intervals import (
    Estimate,
    bootstrap,
    bootstrap_all,
    f1_estimate,
    mcnemar,
    percent,
    points,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    """Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I."""
    share = wilson(successes, n)

    assert round(share.low, 4) == low
    assert round(share.high, 4) == high


def test_wilson_intervals_hold_the_true_share_in_95_percent():
    """Grid: 16, 50, 170, 624 and 850 pictures; accuracies of 50, 70, 80, 90, 95 and 98 %."""
    generator = np.random.default_rng(0)
    held = []
    for n in (16, 50, 170, 624, 850):
        ends = np.array([wilson(right, n).interval for right in range(n + 1)])
        for share in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
            low, high = ends[generator.binomial(n, share, 20_000)].T
            held.append(((low <= share) & (share <= high)).mean())

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_wilson_agrees_with_scipy():
    from scipy.stats import binomtest

    for successes, n in [(3, 7), (50, 100), (999, 1000)]:
        theirs = binomtest(successes, n).proportion_ci(0.9, method="wilson")

        ours = wilson(successes, n, confidence=0.9)

        assert ours.interval == pytest.approx([theirs.low, theirs.high])


def test_no_case_is_unknown_and_not_zero():
    share = wilson(0, 0)

    assert not share.known
    assert percent(share) == "no samples"
    assert share.to_json() == {"value": None, "low": None, "high": None, "n": 0}


def test_a_perfect_score_still_has_an_interval():
    share = wilson(16, 16)

    assert share.high == 1.0
    assert 0.79 < share.low < 0.82


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="between 0 and 3"):
        wilson(successes, n)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_value_and_stays_inside_zero_to_one(counts):
    share = wilson(*counts)

    assert 0 <= share.low <= share.value <= share.high <= 1


def test_f1_is_the_harmonic_mean_and_lies_in_its_interval():
    share = f1_estimate(8, missed=4, false=1)

    precision, recall = 8 / 9, 8 / 12
    assert share.value == pytest.approx(2 * precision * recall / (precision + recall))
    assert share.low < share.value < share.high
    assert f1_estimate(5, missed=0, false=0).low < 1
    assert not f1_estimate(0, missed=0, false=0).known


def test_the_bootstrap_is_the_same_for_the_same_seed_and_differs_for_another():
    truth = np.arange(60) % 3
    predicted = np.where(np.arange(60) % 7 == 0, 0, truth)

    def right(truth, predicted):
        return float((truth == predicted).mean())

    first, again, other = (bootstrap(right, truth, predicted, seed=seed) for seed in (0, 0, 1))

    assert first == again
    assert first.value == right(truth, predicted)
    assert (first.low, first.high) != (other.low, other.high) or first.low < first.high


def test_the_bootstrap_keeps_the_number_of_cases_of_every_class():
    truth, predicted = np.array([0] * 5 + [1] * 11), np.array([0, 1] * 8)
    seen = []

    def note(truth, predicted):
        seen.append(np.bincount(truth).tolist())
        return [0.0]

    bootstrap_all(note, truth, predicted, resamples=20)

    assert seen == [[5, 11]] * 21


def test_the_bootstrap_of_an_accuracy_is_close_to_its_wilson_interval():
    generator = np.random.default_rng(0)
    truth = np.zeros(400, dtype=int)
    predicted = (generator.random(400) < 0.2).astype(int)

    share = bootstrap(lambda t, p: float((t == p).mean()), truth, predicted)

    exact = wilson(int((predicted == 0).sum()), 400)
    assert share.interval == pytest.approx(exact.interval, abs=0.01)


def test_a_perfect_bootstrap_still_has_an_interval_that_holds_it():
    truth = np.arange(100) % 2

    share = bootstrap(lambda t, p: float((t == p).mean()), truth, truth)

    assert share.value == share.high == 1.0
    assert 0.9 < share.low < 0.99


@pytest.mark.slow
def test_bootstrap_intervals_hold_the_true_macro_recall_in_95_percent():
    """Grid: 5 classes of 20, 60 and 170 pictures; mean recalls of 70, 90 and 97 %."""
    generator = np.random.default_rng(0)
    classes, held = 5, []

    def macro_recall(truth, predicted):
        hits = np.bincount(truth[truth == predicted], minlength=classes)
        return (hits / np.bincount(truth, minlength=classes)).mean()

    for size in (20, 60, 170):
        truth = np.repeat(np.arange(classes), size)
        for mean in (0.7, 0.9, 0.97):
            recalls = 1 - (1 - mean) * np.linspace(0.4, 1.6, classes)
            for _ in range(400):
                wrong = generator.random(len(truth)) > recalls[truth]
                others = (truth + generator.integers(1, classes, len(truth))) % classes
                share = bootstrap(
                    macro_recall, truth, np.where(wrong, others, truth), resamples=200
                )
                held.append(share.low <= mean <= share.high)

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_the_bootstrap_of_nothing_is_unknown():
    assert not bootstrap(lambda truth, predicted: float(len(truth) + len(predicted)), [], []).known


def test_a_thousand_resamples_of_ten_thousand_cases_are_quick():
    truth = np.arange(10_000) % 100
    start = time.perf_counter()

    bootstrap(lambda t, p: float((t == p).mean()), truth, np.roll(truth, 1))

    assert time.perf_counter() - start < 5


def test_mcnemar_agrees_with_the_binomial_test():
    from scipy.stats import binomtest

    first = np.array([True] * 15 + [False] * 5 + [True] * 80)
    second = np.array([False] * 15 + [True] * 5 + [True] * 80)

    test = mcnemar(first, second)

    assert (test.only_first, test.only_second) == (15, 5)
    assert test.p_value == pytest.approx(binomtest(15, 20).pvalue)
    assert mcnemar(first, first).p_value == 1.0


def test_mcnemar_of_thousands_of_differences_does_not_overflow():
    first = np.arange(6000) < 3100

    assert 0 < mcnemar(first, ~first).p_value < 0.02


def test_mcnemar_refuses_cases_that_do_not_pair():
    with pytest.raises(ValueError, match="paired"):
        mcnemar([True], [True, False])


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (1.0, "100.0 %"),
        (0.0, "0.0 %"),
        (0.0001, "0.01 %"),
        (0.99975, "99.98 %"),
        (0.94, "94.0 %"),
        (math.nan, "no samples"),
    ],
)
def test_percentages_are_never_off_by_a_hundred_nor_rounded_to_certainty(share, shown):
    assert percent(share) == shown


def test_a_percentage_is_no_share():
    with pytest.raises(ValueError, match="between 0 and 1"):
        percent(94.0)


def test_an_estimate_is_shown_with_its_interval_and_n():
    share = Estimate(0.94, 0.912, 0.96, 1500)

    assert percent(share) == "94.0 % [91.2, 96.0], n = 1,500"
    assert percent(share, parts="interval") == "94.0 % [91.2, 96.0]"
    assert percent(share, parts="", digits=0) == "94 %"


@given(st.floats(0, 1))
def test_every_share_between_never_and_always_reads_so(share):
    shown = percent(share)

    assert shown.endswith(" %")
    assert abs(float(shown[:-2]) - 100 * share) <= 0.0501


def test_differences_are_points():
    assert points(-0.016) == "\N{MINUS SIGN}1.6 points"


def test_differences_are_shown_with_their_interval_and_never_rounded_to_none():
    assert points(0.021, interval=(0.004, 0.038), signed=False) == "2.1 points [0.4, 3.8]"
    assert points(0.02, interval=(0.0002, 0.04)) == "+2.00 points [0.02, 4.00]"
    assert points(0.0, interval=(-0.01, 0.01)) == "+0.0 points [\N{MINUS SIGN}1.0, 1.0]"
