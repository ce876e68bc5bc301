"""One temperature for scores without probabilities."""

import numpy as np
import pytest
from scipy.special import softmax

from regraft.classifiers.calibration import fit_temperature, margin_probabilities


@pytest.mark.parametrize("true", [0.2, 1.0, 30.0])
def test_the_temperature_that_made_the_labels_is_found_again(true):
    random = np.random.default_rng(0)
    scores = random.normal(size=(20_000, 4)) * 2
    chances = softmax(scores, axis=1)
    labels = np.array([random.choice(4, p=row) for row in chances])

    assert fit_temperature(scores * true, labels) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 1000.0])
def test_the_best_class_stays_the_best(temperature):
    scores = np.random.default_rng(0).normal(size=(100, 5))

    probabilities = margin_probabilities(scores, temperature)

    assert np.array_equal(probabilities.argmax(axis=1), scores.argmax(axis=1))
    assert probabilities.sum(axis=1) == pytest.approx(1.0)


def test_one_score_for_two_classes_is_positive_for_the_second():
    probabilities = margin_probabilities(np.array([-1.0, 0.0, 1.0]), 1.0)

    assert probabilities.argmax(axis=1).tolist() == [0, 0, 1]
    assert probabilities[2, 1] == pytest.approx(1 / (1 + np.exp(-1.0)))


@pytest.mark.parametrize("right", [True, False])
def test_perfect_and_hopeless_scores_give_a_finite_temperature(right):
    scores = np.eye(3)[np.arange(30) % 3]
    labels = (np.arange(30) + (0 if right else 1)) % 3

    probabilities = margin_probabilities(scores, fit_temperature(scores, labels))

    assert (
        probabilities.max() < 0.99
        if right
        else probabilities.max() == pytest.approx(1 / 3, abs=0.01)
    )


def test_scores_that_say_nothing_leave_the_temperature_at_one():
    assert fit_temperature(np.zeros((4, 2)), np.array([0, 1, 0, 1])) == 1.0
