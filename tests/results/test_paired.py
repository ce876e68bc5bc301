import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.results.paired import (
    detectable_difference,
    holm,
    paired_difference,
    resampled_difference,
    score_interval,
)

Z = 1.959963984540054


def counts(both, only_first, only_second, neither):
    """Return two ways that were right on so many pictures."""
    cells = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], cells), np.repeat([True, False] * 2, cells)


def on_a_logit_scale(generator, seeds, n, pictures, *, mean=2.0, seed_sd=0.2):
    """Return what seeds of one way say of pictures, some of which are harder for it than others."""
    own = pictures + generator.normal(0, 1, n)
    luck = generator.normal(0, seed_sd, (seeds, 1))
    return generator.random((seeds, n)) < 1 / (1 + np.exp(-(mean + own + luck)))


@pytest.mark.parametrize(
    ("only_first", "only_second", "n", "quantile", "low", "high"),
    [
        (1, 0, 44, 1.6448536, -0.096, 0.037),  # Tango 1998: two ways to disinfect lenses, 90 %
        (7, 1, 21, Z, -0.517, -0.026),  # Fagerland, Lydersen and Laake 2014: airways
    ],
)
def test_the_score_interval_is_the_published_one(only_first, only_second, n, quantile, low, high):
    ends = score_interval(only_first, only_second, n, quantile)

    assert [round(end, 3) for end in ends] == [low, high]


def test_the_score_interval_is_close_to_the_hybrid_score_interval():
    """Newcombe's method 10 (1998) on two treatments of 161 patients: -0.1186 to -0.0046."""
    assert score_interval(16, 6, 161, Z) == pytest.approx([-0.1186, -0.0046], abs=0.006)


def test_one_repeat_gives_the_exact_test_and_the_score_interval():
    """Two media for one culture, Armitage and Berry 1994, p. 127: p = 0.0129."""
    found = paired_difference(*counts(20, 12, 2, 16))

    assert found.value == pytest.approx(-0.2)
    assert round(found.p_value, 4) == 0.0129
    assert found.interval == pytest.approx(score_interval(12, 2, 50, Z))
    assert (found.n, found.repeats) == (50, 1)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60))
def test_what_the_test_calls_different_the_interval_does_too(only_first, only_second, others):
    found = paired_difference(*counts(others, only_first, only_second, 0))

    assert found.low <= found.value <= found.high
    assert found.p_value >= 0.05 or found.low > 0 or found.high < 0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 60))
def test_the_other_way_round_everything_is_mirrored(only_first, only_second, others):
    first, second = counts(others, only_first, only_second, 0)

    there, back = paired_difference(first, second), paired_difference(second, first)

    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )
    assert there.p_value == pytest.approx(back.p_value)


def test_two_ways_that_are_alike_are_still_only_alike_on_so_many_pictures():
    found = paired_difference([True] * 100, [True] * 100)

    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.interval == pytest.approx([-0.037, 0.037], abs=0.0005)
    assert 0.07 < found.detectable < 0.08


def test_seeds_that_are_all_alike_count_as_one():
    first, second = counts(20, 12, 2, 16)

    once, thrice = (
        paired_difference(first, second),
        paired_difference(np.tile(first, (3, 1)), [second] * 3),
    )

    assert thrice.repeats == 3
    assert (thrice.interval, thrice.p_value) == (once.interval, once.p_value)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 4))
def test_over_seeds_the_interval_and_the_test_say_the_same(seed, seeds, others):
    generator = np.random.default_rng(seed)
    pictures = generator.normal(0, 2, 60)
    first = on_a_logit_scale(generator, seeds, 60, pictures)
    second = on_a_logit_scale(generator, others, 60, pictures, mean=3.0)

    found = paired_difference(first, second)

    assert found.value == pytest.approx(second.mean() - first.mean())
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_seeds_that_scatter_make_a_difference_less_sure():
    generator = np.random.default_rng(0)
    pictures = generator.normal(0, 2, 400)

    def width(seed_sd):
        first, second = (
            on_a_logit_scale(generator, 3, 400, pictures, seed_sd=seed_sd) for _ in range(2)
        )
        found = paired_difference(first, second)
        return found.high - found.low

    assert width(0.0) < width(1.0)


def test_pictures_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="paired"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="paired"):
        paired_difference([], [])


def test_a_detectable_difference_is_detected_in_four_of_five_cases():
    n, disagreement = 850, 40 / 850
    least = detectable_difference(disagreement, n)
    generator = np.random.default_rng(0)
    only_second = (disagreement + least) / 2
    drawn = generator.multinomial(
        n, [disagreement - only_second, only_second, 1 - disagreement], size=20_000
    )
    scores = (drawn[:, 1] - drawn[:, 0]) / np.sqrt(drawn[:, 0] + drawn[:, 1])

    assert round(least, 4) == 0.0208
    assert (np.abs(scores) > Z).mean() == pytest.approx(0.8, abs=0.02)


def test_more_pictures_and_fewer_comparisons_show_smaller_differences():
    first, second = counts(80, 6, 4, 10)

    one, many = paired_difference(first, second), paired_difference(*counts(320, 24, 16, 40))
    of_ten = paired_difference(first, second, comparisons=10)

    assert many.detectable < one.detectable < of_ten.detectable
    assert of_ten.p_value == one.p_value


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

    assert found.value == 0.25
    assert found.low < 0 < found.high
    assert found.p_value > 0.05
    assert 0 < found.detectable <= 1


def test_splits_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="same splits"):
        resampled_difference([[1, 0]], [[1, 0]], test_to_train=1, n=2)
    with pytest.raises(ValueError, match="same splits"):
        resampled_difference([[1], [0]], [[1], [0, 1]], test_to_train=1, n=3)


def test_holm_gives_the_textbook_p_values():
    """R's p.adjust(method = "holm") on the same numbers."""
    adjusted = holm([0.01, 0.02, 0.03, 0.04, 0.05])

    assert adjusted == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.9, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)

    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert np.argsort(p_values, kind="stable").tolist() == sorted(
        range(len(p_values)), key=lambda index: (adjusted[index], p_values[index], index)
    )


@pytest.mark.parametrize("difference", [0.0, 0.03])
def test_intervals_of_one_repeat_hold_the_true_difference_in_95_percent(difference):
    """Grid: 50, 170, 624 and 850 pictures; the ways disagree on 5, 10, 20 and 40 % of them."""
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


def test_intervals_over_seeds_hold_the_true_difference_in_95_percent():
    """Grid: 50, 170 and 624 pictures; 3 and 5 seeds, which scatter by 0 to 3 points."""
    generator = np.random.default_rng(0)
    held, alarms = [], []
    for n in (50, 170, 624):
        for seeds in (3, 5):
            for seed_sd in (0.0, 0.1, 0.3):
                for _ in range(400):
                    pictures = generator.normal(0, 2, n)
                    first, second = (
                        on_a_logit_scale(generator, seeds, n, pictures, seed_sd=seed_sd)
                        for _ in range(2)
                    )
                    found = paired_difference(first, second)
                    held.append(found.low <= 0 <= found.high)
                    alarms.append(found.p_value < 0.05)

    assert np.mean(held) == pytest.approx(0.95, abs=0.01)
    assert np.mean(alarms) <= 0.055


def test_over_splits_the_test_raises_false_alarms_in_5_percent():
    """Differences that are correlated as the correction supposes: test / (test + train)."""
    generator = np.random.default_rng(0)
    alarms = []
    for splits, test_to_train in ((3, 0.25), (5, 0.25), (10, 1 / 9), (10, 0.5)):
        shared = test_to_train / (1 + test_to_train)
        for _ in range(1000):
            noise = math.sqrt(shared) * generator.standard_normal() + math.sqrt(
                1 - shared
            ) * generator.standard_normal(splits)
            ahead = np.rint(500 + 20 * noise).astype(int)
            first = [np.repeat([1.0, 0.0], [500, 500])] * splits
            second = [np.repeat([1.0, 0.0], [right, 1000 - right]) for right in ahead]
            found = resampled_difference(first, second, test_to_train=test_to_train, n=100_000)
            alarms.append(found.p_value < 0.05)

    assert 0.04 <= np.mean(alarms) <= 0.055
