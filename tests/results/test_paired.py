import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from regraft.results.paired import (
    Difference,
    holm,
    judge,
    mcnemar,
    paired_difference,
    resampled_difference,
    tango_interval,
)

Z = 1.959963984540054


def counts(both, only_first, only_second, neither):
    """Return two methods that were right on so many images."""
    cells = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], cells), np.repeat([True, False] * 2, cells)


@pytest.mark.parametrize(
    ("only_first", "only_second", "n", "quantile", "low", "high"),
    [
        (1, 0, 44, 1.6448536, -0.096, 0.037),  # Tango 1998: two ways to disinfect lenses, 90 %
        (7, 1, 21, Z, -0.517, -0.026),  # Fagerland, Lydersen and Laake 2014: airways
    ],
)
def test_the_tango_interval_is_the_published_one(only_first, only_second, n, quantile, low, high):
    ends = tango_interval(only_first, only_second, n, quantile)

    assert [round(end, 3) for end in ends] == [low, high]


def test_one_repeat_gives_the_exact_test_and_the_tango_interval():
    """Two media for one culture, Armitage and Berry 1994, p. 127: p = 0.0129."""
    found = paired_difference(*counts(20, 12, 2, 16))

    assert found.value == pytest.approx(-0.2)
    assert round(found.p_value, 4) == 0.0129
    assert found.interval == pytest.approx(tango_interval(12, 2, 50, Z))
    assert (found.n, found.repeats) == (50, 1)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 60))
def test_interval_and_test_agree_and_are_mirrored_the_other_way_round(
    only_first, only_second, others
):
    first, second = counts(others, only_first, only_second, 0)

    there, back = paired_difference(first, second), paired_difference(second, first)

    assert there.low <= there.value <= there.high
    assert there.p_value >= 0.05 or there.low > 0 or there.high < 0
    mirrored = (-back.value, -back.high, -back.low)
    assert (there.value, there.low, there.high) == pytest.approx(mirrored)
    assert there.p_value == pytest.approx(back.p_value)


def test_two_ways_that_are_alike_are_still_only_alike_on_so_many_images():
    found = paired_difference([True] * 100, [True] * 100)

    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.interval == pytest.approx([-0.037, 0.037], abs=0.0005)
    assert 0.07 < found.detectable < 0.08


def test_one_miss_in_two_seeds_hides_no_difference_that_one_seed_would_show():
    """399 of 400 right over two seeds, beside a method that is right on 199 of the 200 images."""
    nearly = np.arange(400).reshape(2, 200) > 0
    other = np.tile(np.arange(200) != 7, (2, 1))

    found, one = paired_difference(other, nearly), paired_difference(other[0], nearly[0])

    assert found.value == pytest.approx(0.0025)
    assert np.ptp(found.interval) < 1.1 * np.ptp(one.interval)
    assert found.detectable < 1.1 * one.detectable < 0.06
    assert found.detectable < paired_difference(other, nearly, comparisons=10).detectable


def test_images_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="paired"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="paired"):
        paired_difference([], [])
    for first, second in (([[1, 0]], [[1, 0]]), ([[1], [0]], [[1], [0, 1]])):
        with pytest.raises(ValueError, match="same splits"):
            resampled_difference(first, second, test_to_train=1, n=2)


def test_over_splits_the_difference_has_the_corrected_resampled_t_interval():
    """By hand: differences 0.1, 0.2, 0.3; (1/3 + 0.5) 0.01 = 0.0913 ** 2; t(2) = 4.303."""
    first = [np.arange(10) < right for right in (5, 5, 5)]
    second = [np.arange(10) < right for right in (6, 7, 8)]

    found = resampled_difference(first, second, test_to_train=0.5, n=1000)

    assert found.value == pytest.approx(0.2)
    assert found.interval == pytest.approx([0.2 - 4.303 * 0.0913, 0.2 + 4.303 * 0.0913], abs=1e-4)
    assert found.p_value == pytest.approx(0.1598, abs=1e-4)  # t = 2.19
    assert (found.n, found.repeats) == (1000, 3)


def test_splits_that_agree_by_chance_prove_nothing():
    first, second = [[1, 1, 1, 0]] * 3, [[1, 1, 1, 1]] * 3

    found = resampled_difference(first, second, test_to_train=0.25, n=12)

    # Bonett and Price: shares 1/14 and 4/14, variance (5/14 - (3/14)²) / 14; t(2) = 4.3027
    half = 4.3027 * math.sqrt((5 / 14 - (3 / 14) ** 2) / 14)
    assert found.value == 0.25
    assert found.interval == pytest.approx([0.25 - half, 0.25 + half], abs=1e-4)
    assert found.p_value > 0.05
    assert 0 < found.detectable <= 1


def test_holm_agrees_with_statsmodels():
    generator = np.random.default_rng(0)

    for p_values in ([0.01, 0.04, 0.03, 0.04], *(generator.random(n) ** 3 for n in (1, 2, 7, 20))):
        expected = multipletests(p_values, method="holm")[1]
        assert holm(list(p_values)) == pytest.approx(expected.tolist())
    assert holm([]) == []


@given(st.integers(0, 60), st.integers(0, 60))
@example(3100, 2900)
def test_mcnemar_agrees_with_statsmodels(only_first, only_second):
    theirs = contingency_tables.mcnemar([[5, only_first], [only_second, 5]], exact=True)

    expected = 1.0 if only_first == only_second == 0 else min(1.0, theirs.pvalue)
    assert mcnemar(only_first, only_second) == pytest.approx(expected)


def difference(value, p_value, *, n=1850):
    return Difference(value, value - 0.02, value + 0.02, p_value, n, 1, 0.04)


@pytest.mark.parametrize(
    ("value", "p_value", "better", "said"),
    [
        (0.03, 0.04, "b", "new is better than old by 3.0 points [1.0, 5.0]"),
        (-0.03, 0.04, "a", "old is better than new by 3.0 points [1.0, 5.0]"),
        (
            *(0.03, 0.05, None),
            (
                "old and new are not distinguishable on 1,850 images; "
                "a difference under 4.0 points cannot be seen here"
            ),
        ),
    ],
)
def test_a_verdict_says_which_is_better_by_how_much_or_that_none_is(value, p_value, better, said):
    [verdict] = judge([("old", "new", difference(value, p_value))])

    assert (verdict.a, verdict.b, verdict.better) == ("old", "new", better)
    assert (verdict.difference, verdict.p, verdict.n) == (value, p_value, 1850)
    assert verdict.interval == (value - 0.02, value + 0.02)
    assert verdict.verdict == said


@pytest.mark.parametrize("difference", [0.0, 0.03])
def test_intervals_of_one_repeat_hold_the_true_difference_in_95_percent(difference):
    """Grid: 50, 170, 624 and 850 images; the methods disagree on 5, 10, 20 and 40 % of them."""
    generator = np.random.default_rng(0)
    held, alarms = [], []
    for n in (50, 170, 624, 850):
        for disagreement in (0.05, 0.1, 0.2, 0.4):
            only_second = (disagreement + difference) / 2
            shares = [disagreement - only_second, only_second, 1 - disagreement]
            drawn, often = np.unique(
                generator.multinomial(n, shares, size=1000), axis=0, return_counts=True
            )
            found = [paired_difference(*counts(rest, a, b, 0)) for a, b, rest in drawn.tolist()]
            held.append(np.average([d.low <= difference <= d.high for d in found], weights=often))
            alarms.append(np.average([d.p_value < 0.05 for d in found], weights=often))

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)
    if difference == 0:
        assert max(alarms) <= 0.055 + 3 * math.sqrt(0.05 * 0.95 / 1000)
        assert np.mean(alarms) <= 0.055


def on_a_logit_scale(generator, seeds, images, *, mean, seed_sd):
    """Return what seeds of one method say of images, some of them hard for it."""
    own = images + generator.normal(0, 1, len(images))
    luck = generator.normal(0, seed_sd, (seeds, 1))
    return generator.random((seeds, len(images))) < 1 / (1 + np.exp(-(mean + own + luck)))


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0, 0.5, 1])
def test_comparisons_over_seeds_raise_no_false_alarm_and_are_as_narrow_as_that_of_one(apart):
    """Grid: accuracies of 50 to 99.5 %, 100 and 500 images, 2 to 10 seeds of two equal methods.

    The variance of the seeds' true accuracies is 0, half or all of what chance adds on the images.
    """
    generator = np.random.default_rng(int(10 * apart))
    alarms, held, wider = [], [], []
    for mean in (0.0, 2.5, 4.5, 6.5):
        share = 1 / (1 + np.exp(-mean - math.sqrt(2) * np.random.default_rng(0).normal(size=10**5)))
        slope = float((share * (1 - share)).mean())
        for n in (100, 500):
            law = {"mean": mean, "seed_sd": math.sqrt(apart / (n * slope))}
            for seeds in (2, 3, 5, 10):
                ratios = []
                for _ in range(150):
                    images = generator.normal(0, 1, n)
                    first, second = (
                        on_a_logit_scale(generator, seeds, images, **law) for _ in range(2)
                    )
                    found = paired_difference(first, second)
                    one = paired_difference(first[0], second[0])
                    ratios.append(np.ptp(found.interval) / np.ptp(one.interval))
                    held.append(found.low <= 0 <= found.high)
                    alarms.append(found.p_value < 0.05)
                wider.append(np.mean(ratios))

    print(f"{apart}: held {np.mean(held):.3f}, alarms {np.mean(alarms):.3f}, {max(wider):.2f}")
    assert np.mean(held) >= 0.95
    assert np.mean(alarms) <= 0.055
    assert np.mean(wider) <= 1
