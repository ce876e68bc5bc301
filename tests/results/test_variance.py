import math

import numpy as np
import pytest
from regraft.results.variance import Variance, variance_over_seeds, variance_over_splits


def test_over_splits_the_variance_is_corrected_for_shared_training_pictures():
    """Nadeau and Bengio 2003: (1/k + test/train) s², here (1/4 + 1/9) (0.02 ** 2)."""
    found = variance_over_splits([0.88, 0.92, 0.88 + 0.02, 0.90], test_to_train=1 / 9)

    assert found.value == pytest.approx((1 / 4 + 1 / 9) * np.var([0.88, 0.92, 0.9, 0.9], ddof=1))
    assert found.degrees == 3


def test_one_seed_has_the_variance_of_a_share():
    found = variance_over_seeds(np.array([[1.0] * 30 + [0.0] * 10]))

    assert found.value == pytest.approx(0.75 * 0.25 / 40)
    assert math.isinf(found.degrees)


def test_seeds_that_are_right_on_other_pictures_but_as_often_add_nothing():
    right = np.array([[1.0, 0.0] * 20, [0.0, 1.0] * 20, [1.0, 0.0] * 20])

    assert variance_over_seeds(right).value == pytest.approx(np.var(right.mean(axis=0)) / 40)


def test_a_seed_that_is_always_better_adds_its_variance_and_leaves_few_degrees():
    right = np.array([[1.0] * 90 + [0.0] * 10, [1.0] * 50 + [0.0] * 50])
    pictures = np.var(right.mean(axis=0)) / 100

    found = variance_over_seeds(right)

    assert found.value > pictures + 0.9 * 0.04  # of the means 0.9 and 0.5: 0.08 / 2
    assert 1 <= found.degrees < 1.2


def test_the_variance_of_a_mean_is_the_one_that_means_have():
    generator = np.random.default_rng(0)
    means, found = [], []
    for _ in range(2000):
        logits = generator.normal(1, 1, 100) + generator.normal(0, 0.3, (5, 1))
        right = (generator.random((5, 100)) < 1 / (1 + np.exp(-logits))).astype(float)
        means.append(right.mean())
        found.append(variance_over_seeds(right).value)

    assert np.mean(found) == pytest.approx(np.var(means), rel=0.1)


def test_few_degrees_of_freedom_make_intervals_wider_and_p_values_larger():
    normal, few = Variance(1.0), Variance(1.0, 2)

    assert normal.quantile() == pytest.approx(1.95996, abs=1e-5)
    assert few.quantile() == pytest.approx(4.30265, abs=1e-5)
    assert normal.p_value(1.95996) == pytest.approx(0.05, abs=1e-5)
    assert few.p_value(-4.30265) == pytest.approx(0.05, abs=1e-5)
