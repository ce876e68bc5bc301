import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from regraft.results.intervals import (
    accuracy_json,
    bootstrap,
    effective_n,
    f1_estimate,
    over_seeds,
    over_splits,
    percent,
    points,
    quantile,
    wilson,
    wilson_interval,
)
from regraft.settings import to_json


def right(truth, predicted):
    return [float((truth == predicted).mean())]


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_statsmodels_and_stays_inside_zero_to_one(counts):
    share = wilson(*counts)

    assert share.interval == pytest.approx(proportion_confint(*counts, method="wilson"), abs=1e-12)
    assert 0 <= share.low <= share.value <= share.high <= 1
    assert (share.low == 0) == (counts[0] == 0)
    assert (share.high == 1) == (counts[0] == counts[1])


def test_no_case_is_unknown_and_not_zero():
    share = wilson(0, 0)

    assert not share.known
    assert percent(share) == percent(math.nan) == "no samples"
    assert to_json(share) == {"value": None, "low": None, "high": None, "n": 0}
    assert accuracy_json(share) == {"accuracy": None, "n": 0, "interval": None}


def test_f1_is_the_harmonic_mean_and_lies_in_its_interval():
    share = f1_estimate(8, missed=4, false=1)

    precision, recall, jaccard = 8 / 9, 8 / 12, wilson(8, 13)
    assert share.value == pytest.approx(2 * precision * recall / (precision + recall))
    assert share.interval == pytest.approx([2 * end / (1 + end) for end in jaccard.interval])
    assert share.n == 13
    assert f1_estimate(5, missed=0, false=0).low < 1
    assert not f1_estimate(0, missed=0, false=0).known


def test_the_bootstrap_is_the_same_for_the_same_seed_and_differs_for_another():
    truth = np.arange(61) % 3
    predicted = np.where(np.arange(61) % 7 == 0, 0, truth)

    [first], [again], [other] = (bootstrap(right, truth, predicted, seed=s) for s in (0, 0, 1))

    assert first == again
    assert [first.value] == right(truth, predicted)
    assert first.interval != other.interval


def test_a_perfect_bootstrap_still_has_an_interval_and_that_of_nothing_is_unknown():
    truth = np.arange(100) % 2

    [share] = bootstrap(right, truth, truth)
    [nothing] = bootstrap(lambda *_: [0.0], [], [])

    assert share.value == share.high == 1.0
    assert 0.9 < share.low < 0.99
    assert not nothing.known


def test_two_seeds_are_as_certain_as_one_unless_one_of_them_did_not_learn():
    found = over_seeds(np.arange(400).reshape(2, 200) > 0)

    assert percent(found) == "99.8 % [97.8, 99.97], n = 200"
    assert found.high - found.low < 1.2 * (1 - wilson(200, 200).low)
    alike = over_seeds([[True] * 14 + [False] * 4] * 3)
    assert alike.interval == pytest.approx(wilson(14, 18).interval)
    unlearned = over_seeds(np.arange(200) < np.array([[180], [20]]))
    assert unlearned.low < 0.2
    assert unlearned.high > 0.8


@pytest.mark.parametrize(("lead", "independent"), [(2, 100), (10, 75.91), (20, 57.14), (30, 57.14)])
def test_what_two_seeds_add_grows_with_their_distance_up_to_a_bound(lead, independent):
    table = (np.arange(100) < np.array([[90], [90 - lead]])).astype(float)

    found = effective_n(table.mean() * (1 - table.mean()), table)

    assert found == pytest.approx(independent, abs=0.02)


def drawn(generator, seeds, n, *, mean, scatter, seed_sd):
    """Return whether seeds were right on images: both have their own place on a logit scale."""
    logits = mean + scatter * generator.standard_normal(n)
    logits = logits + seed_sd * generator.standard_normal((seeds, 1))
    return (generator.random((seeds, n)) < 1 / (1 + np.exp(-logits))).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0, 0.5, 1])
def test_intervals_over_seeds_hold_the_true_accuracy_and_are_as_narrow_as_that_of_one(apart):
    """Grid: accuracies of 50 to 99.5 %, 100 and 500 images, 2 to 10 seeds.

    The images are of even and of uneven difficulty. The variance of the seeds' true accuracies is
    0, half or all of what chance adds on these images; beyond, no interval can hold the true
    accuracy and be as narrow as that of one seed.
    """
    generator = np.random.default_rng(int(10 * apart))
    normal = np.random.default_rng(0).standard_normal(200_000)
    held, wider, widest = [], [], []
    for scatter in (1.0, 2.5):
        for mean in np.linspace(0, 5 + scatter, 5):
            share = 1 / (1 + np.exp(-mean - scatter * normal))
            slope = float((share * (1 - share)).mean())
            for n in (100, 500):
                law = {"mean": mean, "scatter": scatter, "seed_sd": math.sqrt(apart / n / slope)}
                logits = mean + math.hypot(scatter, law["seed_sd"]) * normal
                true = float((1 / (1 + np.exp(-logits))).mean())
                for seeds in (2, 3, 5, 10):
                    tables = [drawn(generator, seeds, n, **law) for _ in range(250)]
                    found = [over_seeds(table) for table in tables]
                    width = np.array([np.ptp(one.interval) for one in found])
                    singles = [wilson(int(own.sum()), n) for table in tables for own in table]
                    alike = [
                        np.ptp(wilson_interval(one.value, n, quantile(0.975))) for one in found
                    ]
                    held.append(np.mean([one.low <= true <= one.high for one in found]))
                    wider.append(width.mean() / np.mean([np.ptp(one.interval) for one in singles]))
                    widest.append((width / alike).max())

    print(f"{apart}: {np.mean(held):.3f} {min(held):.3f} {max(wider):.2f} {max(widest):.2f}")
    assert np.mean(held) >= 0.95
    assert min(held) >= (0.92 if apart < 1 else 0.9)
    assert np.mean(wider) <= 1
    assert max(wider) <= (1.02 if apart < 1 else 1.1)
    assert apart == 1 or max(widest) <= 1.5


def test_over_splits_the_interval_is_the_one_by_hand():
    """(1/3 + 0.5) 0.02² = 0.018257²; t(2) = 4.3027."""
    found = over_splits([0.80, 0.82, 0.84], test_to_train=0.5, n=10_000)
    few = over_splits([0.80, 0.82, 0.84], test_to_train=0.5, n=30)

    ends = [0.82 - 4.3027 * 0.018257, 0.82 + 4.3027 * 0.018257]
    assert found.interval == pytest.approx(ends, abs=1e-5)
    assert few.low < found.low  # a single test on 30 images is less sure
    perfect = over_splits([1.0, 1.0, 1.0], test_to_train=0.25, n=60)
    assert perfect.value == perfect.high == 1.0
    assert 0.8 < perfect.low < 0.95


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (1.0, "100.0 %"),
        (0.0, "0.0 %"),
        (0.0001, "0.01 %"),
        (0.99975, "99.98 %"),
        (1e-9, "0.0 %"),
        (0.94, "94.0 %"),
    ],
)
def test_percentages_are_never_off_by_a_hundred_nor_rounded_to_certainty(share, shown):
    assert percent(share) == shown


@given(st.floats(0, 1))
def test_every_share_between_never_and_always_reads_so(share):
    shown = percent(share)

    assert shown.endswith(" %")
    assert abs(float(shown[:-2]) - 100 * share) <= 0.0501
    with pytest.raises(ValueError, match="between 0 and 1"):
        percent(100 * share + 2)


@pytest.mark.parametrize(
    ("difference", "more", "shown"),
    [
        (-0.016, {}, "-1.6 points"),
        (0.021, {"interval": (0.004, 0.038), "signed": False}, "2.1 points [0.4, 3.8]"),
        (0.02, {"interval": (0.0002, 0.04)}, "+2.00 points [0.02, 4.00]"),
        (0.0, {"interval": (-0.01, 0.01)}, "+0.0 points [-1.0, 1.0]"),
        (1e-12, {}, "+0.0 points"),
    ],
)
def test_differences_are_points_and_never_rounded_to_none(difference, more, shown):
    assert points(difference, **more) == shown.replace("-", "\N{MINUS SIGN}")
