import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from regraft.results.intervals import (
    Estimate,
    Variance,
    accuracy_json,
    bootstrap,
    f1_estimate,
    newcombe,
    over_seeds,
    over_splits,
    percent,
    points,
    variance_over_seeds,
    variance_over_splits,
    wilson,
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


@pytest.mark.parametrize("counts", [(56, 70, 48, 80), (9, 10, 3, 10), (10, 10, 0, 20)])
def test_newcombe_agrees_with_statsmodels(counts):
    ends = newcombe(wilson(*counts[:2]), wilson(*counts[2:]))

    assert ends == pytest.approx(confint_proportions_2indep(*counts, method="newcomb"), abs=1e-9)


def test_wilson_intervals_hold_the_true_share_in_95_percent():
    """Grid: 16, 50, 170, 624 and 850 images; accuracies of 50, 70, 80, 90, 95 and 98 %."""
    generator = np.random.default_rng(0)
    held = []
    for n in (16, 50, 170, 624, 850):
        ends = np.array([wilson(right, n).interval for right in range(n + 1)])
        for share in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
            low, high = ends[generator.binomial(n, share, 20_000)].T
            held.append(((low <= share) & (share <= high)).mean())

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_no_case_is_unknown_and_not_zero():
    share = wilson(0, 0)

    assert not share.known
    assert percent(share) == percent(math.nan) == "no samples"
    assert to_json(share) == {"value": None, "low": None, "high": None, "n": 0}
    assert accuracy_json(share) == {"accuracy": None, "n": 0, "interval": None}


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="between 0 and 3"):
        wilson(successes, n)


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


def test_the_bootstrap_keeps_the_number_of_cases_of_every_class():
    truth, predicted = np.array([0] * 5 + [1] * 11), np.array([0, 1] * 8)
    seen = []

    def note(truth, _):
        seen.append(np.bincount(truth).tolist())
        return [0.0]

    bootstrap(note, truth, predicted, resamples=20)

    assert seen == [[5, 11]] * 21


def test_the_bootstrap_of_an_accuracy_is_close_to_its_wilson_interval():
    predicted = (np.random.default_rng(0).random(400) < 0.2).astype(int)

    [share] = bootstrap(right, np.zeros(400, dtype=int), predicted)

    exact = wilson(int((predicted == 0).sum()), 400)
    assert share.interval == pytest.approx(exact.interval, abs=0.01)


def test_a_perfect_bootstrap_still_has_an_interval_and_that_of_nothing_is_unknown():
    truth = np.arange(100) % 2

    [share] = bootstrap(right, truth, truth)
    [nothing] = bootstrap(lambda *_: [0.0], [], [])

    assert share.value == share.high == 1.0
    assert 0.9 < share.low < 0.99
    assert not nothing.known


@pytest.mark.slow
def test_bootstrap_intervals_hold_the_true_macro_recall_in_95_percent():
    """Grid: 5 classes of 20, 60 and 170 images; mean recalls of 70, 90 and 97 %."""
    generator = np.random.default_rng(0)
    classes, held = 5, []

    def macro_recall(truth, predicted):
        hits = np.bincount(truth[truth == predicted], minlength=classes)
        return [(hits / np.bincount(truth, minlength=classes)).mean()]

    for size in (20, 60, 170):
        truth = np.repeat(np.arange(classes), size)
        for mean in (0.7, 0.9, 0.97):
            recalls = 1 - (1 - mean) * np.linspace(0.4, 1.6, classes)
            for _ in range(400):
                wrong = generator.random(len(truth)) > recalls[truth]
                others = (truth + generator.integers(1, classes, len(truth))) % classes
                answers = np.where(wrong, others, truth)
                [share] = bootstrap(macro_recall, truth, answers, resamples=200)
                held.append(share.low <= mean <= share.high)

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_over_splits_the_variance_is_corrected_for_shared_training_images():
    """Nadeau and Bengio 2003: (1/k + test/train) s², here (1/4 + 1/9) (0.02 ** 2)."""
    found = variance_over_splits([0.88, 0.92, 0.90, 0.90], test_to_train=1 / 9)

    assert found.value == pytest.approx((1 / 4 + 1 / 9) * np.var([0.88, 0.92, 0.9, 0.9], ddof=1))
    assert found.degrees == 3


def test_seeds_that_are_right_on_other_images_but_as_often_add_nothing():
    table = np.array([[1.0, 0.0] * 20, [0.0, 1.0] * 20, [1.0, 0.0] * 20])

    found = variance_over_seeds(table)

    assert found == Variance(pytest.approx(np.var(table.mean(axis=0)) / 40))
    assert variance_over_seeds(table[:1]) == Variance(pytest.approx(0.25 / 40))


def test_a_seed_that_is_always_better_adds_its_variance_and_leaves_few_degrees():
    table = np.array([[1.0] * 90 + [0.0] * 10, [1.0] * 50 + [0.0] * 50])
    of_images = np.var(table.mean(axis=0)) / 100

    found = variance_over_seeds(table)

    assert found.value > of_images + 0.9 * 0.04  # of the means 0.9 and 0.5: 0.08 / 2
    assert 1 <= found.degrees < 1.2


def test_the_variance_of_a_mean_is_the_one_that_means_have():
    generator = np.random.default_rng(0)
    means, found = [], []
    for _ in range(2000):
        logits = generator.normal(1, 1, 100) + generator.normal(0, 0.3, (5, 1))
        table = (generator.random((5, 100)) < 1 / (1 + np.exp(-logits))).astype(float)
        means.append(table.mean())
        found.append(variance_over_seeds(table).value)

    assert np.mean(found) == pytest.approx(np.var(means), rel=0.1)


def test_few_degrees_of_freedom_make_intervals_wider_and_p_values_larger():
    normal, few = Variance(1.0), Variance(1.0, 2)

    assert normal.quantile() == pytest.approx(1.95996, abs=1e-5)
    assert few.quantile() == pytest.approx(4.30265, abs=1e-5)
    assert normal.p_value(1.95996) == pytest.approx(0.05, abs=1e-5)
    assert few.p_value(-4.30265) == pytest.approx(0.05, abs=1e-5)


def test_seeds_that_are_all_alike_count_as_one():
    once = [True] * 14 + [False] * 4

    assert over_seeds([once] * 3) == over_seeds([once]) == wilson(14, 18)


def test_intervals_of_accuracies_over_seeds_hold_the_true_one_in_95_percent():
    """Grid: 50, 170 and 624 images; 3 and 5 seeds, which scatter by 0 to 4 points."""
    generator = np.random.default_rng(1)
    held = []
    for mean in (1.5, 4.0):
        for seed_sd in (0.0, 0.1, 0.3):
            scatter = math.hypot(2.0, seed_sd)
            logits = mean + scatter * np.random.default_rng(0).standard_normal(500_000)
            true = float((1 / (1 + np.exp(-logits))).mean())
            for n in (50, 170, 624):
                for seeds in (3, 5):
                    for _ in range(300):
                        own = generator.normal(0, seed_sd, (seeds, 1))
                        logits = generator.normal(mean, 2.0, n) + own
                        found = over_seeds(generator.random((seeds, n)) < 1 / (1 + np.exp(-logits)))
                        held.append(found.low <= true <= found.high)

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_over_splits_the_interval_is_the_one_by_hand():
    """(1/3 + 0.5) 0.02² = 0.018257²; t(2) = 4.3027."""
    found = over_splits([0.80, 0.82, 0.84], test_to_train=0.5, n=10_000)
    few = over_splits([0.80, 0.82, 0.84], test_to_train=0.5, n=30)

    ends = [0.82 - 4.3027 * 0.018257, 0.82 + 4.3027 * 0.018257]
    assert found.interval == pytest.approx(ends, abs=1e-5)
    assert few.low < found.low  # a single test on 30 images is less sure


def test_a_perfect_score_over_splits_still_has_an_interval():
    found = over_splits([1.0, 1.0, 1.0], test_to_train=0.25, n=60)

    assert found.value == found.high == 1.0
    assert 0.8 < found.low < 0.95


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


@pytest.mark.parametrize("share", [94.0, -0.1])
def test_a_percentage_is_not_a_share(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        percent(share)


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
