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


def goal_of(law, accuracy, **more):
    return fit_curve("features", measured(law, **more)).images_for(accuracy)


def test_a_power_law_is_found_again():
    curve = fit_curve("features", measured((0.05, 1.0, 0.6), n=1_000_000))

    assert (curve.fit.a, curve.fit.b, curve.fit.c) == pytest.approx((0.05, 1.0, 0.6), rel=0.1)
    ends = [curve.points[0][1].value, curve.points[-1][1].value]
    assert curve.fit.accuracy([25, 400]) == pytest.approx(ends, abs=0.002)
    assert curve.fit.limit.low < 0.95 < curve.fit.limit.high
    low, high = curve.fit.band([100, 400, 40_000])
    assert (low <= curve.fit.accuracy([100, 400, 40_000])).all()
    assert high[2] - low[2] > high[1] - low[1]
    points = [(n, wilson(x, 3000)) for n, x in ((5, 1500), (10, 2700), (20, 2000), (40, 2950))]
    assert fit_curve("x", points).note == "the accuracies do not lie on one power law"


def test_the_answer_is_a_number_with_its_interval():
    """With error = n ** -0.5, 97 % takes 1111 images per class: 711 more than 400."""
    goal = goal_of((0, 1, 0.5), 0.97, n=100_000)

    assert goal.interval[0] < 711 < goal.interval[1]
    assert goal.more == pytest.approx(711, rel=0.2)
    assert goal.sentence.startswith("about ")
    assert " more images per class for 97 % [" in goal.sentence
    open_end = goal_of((0, 1, 0.5), 0.97, n=2000)  # the curve may level off before
    assert 0 < open_end.interval[0] <= open_end.more
    assert open_end.interval[1] is None
    assert open_end.sentence.endswith("how many at most cannot be said")


@pytest.mark.parametrize(
    ("shares", "size"),
    [
        ((0.8, 0.86, 0.89, 0.9), 200),
        ((0.8, 0.86, 0.9, 0.93), 100),
        ((0.91, 0.89, 0.90, 0.95), 100),
        ((0.9, 0.91, 0.92, 0.95), 25),
    ],
)
def test_an_accuracy_is_reached_where_no_larger_size_falls_below_it(shares, size):
    points = [
        (n, wilson(round(1000 * s), 1000)) for n, s in zip((25, 50, 100, 200), shares, strict=True)
    ]

    goal = fit_curve("features", points).images_for(0.9)

    assert (goal.more, goal.interval) == (0, (0, 0))
    assert goal.sentence == f"90 % is reached with {size} images per class"


@pytest.mark.parametrize(
    ("law", "accuracy", "more", "why"),
    [
        ((0.1, 1, 0.8), 0.95, {"n": 100_000}, "it takes more than 100 times as many images"),
        ((0, 1, 0.5), 0.995, {"n": 2000}, "the curve may well level off before, its limit is"),
        ((0, 1, 0.5), 0.99, {"sizes": (25, 400)}, "a curve needs 3 sizes, and 2 were measured"),
        ((0.2, 0, 1), 0.95, {}, "the accuracy does not rise with the number of images"),
        ((0.2, 0.1, 1), 0.95, {}, "the accuracy does not rise with the number of images"),
        ((0.2, -1, 1), 0.9, {}, "the accuracy does not rise with the number of images"),
    ],
)
def test_what_cannot_be_said_is_said_so(law, accuracy, more, why):
    goal = goal_of(law, accuracy, **more)

    assert (goal.more, goal.interval) == (None, None)
    wanted = f"{100 * accuracy:g} %"
    assert goal.sentence.startswith(
        f"how many more images per class {wanted} takes cannot be said: {why}"
    )


def test_unknown_points_are_passed_over_and_the_order_does_not_matter():
    points = measured((0, 1, 0.5))

    shuffled = fit_curve("features", [points[3], (800, Estimate.unknown()), *points[:3], points[4]])

    assert shuffled.points == tuple(points)
    assert shuffled.note == fit_curve("features", points).note
    told = json.loads(json.dumps(shuffled.to_json(), allow_nan=False))
    assert {"name", "points", "fit", "note", "goal"} == set(told)
    with pytest.raises(ValueError, match="between 0 and 1"):
        shuffled.images_for(95)


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
