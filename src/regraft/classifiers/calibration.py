"""Probabilities for classifiers that only give scores: the softmax at one fitted temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax


def margin_probabilities(scores: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """Return the softmax of scores divided by a temperature.

    Args:
        scores: (n, k), or (n,) for two classes, positive for the second.
        temperature: Above 0; a higher one gives less certain probabilities.

    Returns:
        (n, k), rows sum to 1; the largest probability belongs to the largest score.

    Example:
        >>> margin_probabilities(np.array([0.0, 4.0]), 2.0).round(2).tolist()
        [[0.5, 0.5], [0.12, 0.88]]
    """
    return np.asarray(softmax(_per_class(scores) / temperature, axis=1))


def fit_temperature(scores: NDArray[Any], labels: NDArray[np.intp]) -> float:
    """Return the temperature under which the labels are most likely.

    Guo et al., On calibration of modern neural networks, 2017, section 4.2. Unlike one sigmoid per
    class (Platt 1999), a single temperature never changes which class is predicted. In Platt's way
    one more picture, of a wrong class, is imagined: no classifier is certain of everything.

    Args:
        scores: Of rows that the classifier has not seen, (n, k) or (n,).
        labels: 0 to k - 1, (n,).

    Example:
        >>> scores, labels = np.array([[9.0, 0.0]] * 100), np.repeat([0, 1], [75, 25])
        >>> temperature = fit_temperature(scores, labels)
        >>> margin_probabilities(scores, temperature)[0].round(2).tolist()
        [0.75, 0.25]
    """
    wide = _per_class(scores)
    spread = float(np.std(wide))
    if spread == 0.0:
        return 1.0
    right = np.zeros(wide.shape, dtype=bool)
    right[np.arange(len(wide)), labels] = True

    def surprise(logarithm: float) -> float:
        logarithms = log_softmax(wide / np.exp(logarithm), axis=1)
        return -float(logarithms[right].sum() + logarithms[~right].mean())

    # A thousandth to a thousand times the scores' own spread is from certain to indifferent.
    middle = float(np.log(spread))
    found = minimize_scalar(surprise, bounds=(middle - 7.0, middle + 7.0), method="bounded")
    return float(np.exp(found.x))


def _per_class(scores: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.asarray(scores, dtype=np.float64)
    return np.stack([-wide / 2.0, wide / 2.0], axis=1) if wide.ndim == 1 else wide
