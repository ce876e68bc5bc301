import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.results.intervals import Estimate, wilson
from regraft.results.learning_curve import fit_curve

SIZES = (25, 50, 100, 200, 400)


def measured(law, sizes=SIZES, *, n=4000):
    """Return the accuracies of a law as n images would show them without luck."""
    a, b, c = law
    return [(size, wilson(round(n * (1 - a - b * size**-c)), n)) for size in sizes]


def test_a_power_law_is_found_again():
    curve = fit_curve("features", measured((0.05, 1.0, 0.6), n=1_000_000))

    assert curve.fit is not None
    assert (curve.fit.a, curve.fit.b, curve.fit.c) == pytest.approx((0.05, 1.0, 0.6), rel=0.1)
    assert curve.fit.accuracy([25, 400]) == pytest.approx(
        [share.value for _, share in (curve.points[0], curve.points[-1])], abs=0.002
    )


def test_the_answer_is_a_number_with_its_interval():
    """With error = n ** -0.5, 97 % takes 1111 images per class: 711 more than 400."""
    goal = fit_curve("features", measured((0, 1, 0.5), n=100_000)).images_for(0.97)

    assert goal.more is not None
    assert goal.interval[0] < 711 < goal.interval[1]
    assert goal.more == pytest.approx(711, rel=0.2)
    assert goal.sentence.startswith("about ")
    assert " more images per class for 97 % [" in goal.sentence


def test_what_is_reached_already_takes_no_more():
    goal = fit_curve("features", measured((0, 1, 0.5))).images_for(0.9)

    assert (goal.more, goal.interval) == (0, (0, 0))
    assert goal.sentence == "90 % is reached with 100 images per class"


def test_a_size_that_a_larger_one_falls_below_has_not_reached_an_accuracy():
    shares = [(25, 0.91), (50, 0.89), (100, 0.90), (200, 0.95)]
    curve = fit_curve("features", [(size, wilson(round(1000 * s), 1000)) for size, s in shares])

    assert curve.images_for(0.9).sentence == "90 % is reached with 100 images per class"


def test_what_lies_beyond_the_limit_cannot_be_said():
    goal = fit_curve("features", measured((0.1, 1, 0.8), n=100_000)).images_for(0.95)

    assert (goal.more, goal.interval) == (None, None)
    assert goal.sentence.startswith(
        "how many more images per class 95 % takes cannot be said: it takes more than 100 times"
    )


def test_where_the_curve_may_level_off_no_upper_end_is_given():
    curve = fit_curve("features", measured((0, 1, 0.5), n=2000))

    goal = curve.images_for(0.97)

    assert goal.more is not None
    assert goal.interval[0] > 0
    assert goal.interval[1] is None
    assert goal.sentence.endswith("how many at most cannot be said")
    assert "may well level off" in curve.images_for(0.995).sentence


def test_two_sizes_are_too_few():
    curve = fit_curve("features", measured((0, 1, 0.5), sizes=(25, 400)))

    assert curve.fit is None
    assert curve.images_for(0.99).sentence == (
        "how many more images per class 99 % takes cannot be said: "
        "a curve needs 3 sizes, and 2 were measured"
    )


@pytest.mark.parametrize("accuracies", [(0.8, 0.8, 0.8), (0.8, 0.79, 0.81), (0.9, 0.85, 0.8)])
def test_a_curve_that_does_not_rise_says_nothing(accuracies):
    points = [(10 * 4**i, wilson(round(400 * a), 400)) for i, a in enumerate(accuracies)]

    curve = fit_curve("features", points)

    assert curve.fit is None
    assert "does not rise" in curve.images_for(0.95).sentence


def test_unknown_points_are_passed_over_and_the_order_does_not_matter():
    points = measured((0, 1, 0.5))

    shuffled = fit_curve("features", [points[3], (800, Estimate.unknown()), *points[:3], points[4]])

    assert shuffled.points == tuple(points)
    assert shuffled.note == fit_curve("features", points).note


def test_the_same_seed_gives_the_same_answer():
    one, two, other = (
        fit_curve("features", measured((0, 1, 0.5)), seed=seed).images_for(0.96)
        for seed in (0, 0, 1)
    )

    assert one == two
    assert one != other


def test_the_band_holds_the_curve_and_is_wider_where_nothing_was_measured():
    fit = fit_curve("features", measured((0.02, 1, 0.5))).fit
    assert fit is not None

    low, high = fit.band([100, 400, 40_000])

    assert (low <= fit.accuracy([100, 400, 40_000])).all()
    assert (high >= fit.accuracy([100, 400, 40_000])).all()
    assert high[2] - low[2] > high[1] - low[1]


def test_a_curve_is_plain_values_even_where_nothing_can_be_said():
    for points in (measured((0, 1, 0.5)), measured((0, 1, 0.5))[:1], []):
        found = json.loads(json.dumps(fit_curve("features", points).to_json(), allow_nan=False))

        assert {"name", "points", "fit", "note", "goal"} == set(found)


def test_an_accuracy_of_one_or_more_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_curve("features", measured((0, 1, 0.5))).images_for(95)


@given(
    st.lists(
        st.tuples(st.integers(1, 2000), st.integers(0, 200)),
        min_size=3,
        max_size=7,
        unique_by=lambda point: point[0],
    )
)
def test_whatever_was_measured_the_answer_is_a_sentence_and_the_law_is_one(points):
    curve = fit_curve("features", [(size, wilson(right, 200)) for size, right in points])
    goal = curve.images_for(0.95)

    assert goal.sentence
    if goal.more is not None:
        low, high = goal.interval
        assert 0 <= low <= goal.more
        assert high is None or goal.more <= high
    if curve.fit is not None:
        assert min(curve.fit.a, curve.fit.b, curve.fit.c) >= 0
        assert np.isfinite(curve.fit.draws).all()


def test_what_is_answered_is_true_and_a_limit_is_not_overlooked():
    """Grid: limits of 100, 97 and 94 %; 3 and 5 sizes; 850 and 3000 images to test on."""
    generator = np.random.default_rng(0)
    held = []
    for a, b, c in ((0.0, 0.6, 0.4), (0.03, 0.8, 0.5), (0.06, 1.0, 0.7)):
        for sizes in ((30, 90, 270), SIZES):
            errors = a + b * np.array(sizes, dtype=float) ** -c
            wanted = a + 0.6 * (errors[-1] - a)
            true = (b / (wanted - a)) ** (1 / c) - sizes[-1]
            for n in (850, 3000):
                for wrong in generator.binomial(n, errors, size=(15, len(sizes))):
                    points = [(s, wilson(int(n - w), n)) for s, w in zip(sizes, wrong, strict=True)]
                    goal = fit_curve("features", points).images_for(1 - wanted)
                    if goal.more:
                        low, high = goal.interval
                        held.append(low <= true <= (np.inf if high is None else high))

    assert len(held) > 90  # of 180
    assert np.mean(held) >= 0.94
