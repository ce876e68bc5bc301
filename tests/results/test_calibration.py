"""Confidence: what it is worth, and that promises made with it are kept."""

import numpy as np
import pytest

from regraft.errors import UsageError
from regraft.results.calibration import (
    Calibration,
    kept_coverages,
    kept_errors,
    reliability,
    risk_coverage,
)
from regraft.results.predictions import Predictions


def drawn(n, *, seed, classes=4, sharpness=2.0, temperature=1.0):
    """Return predictions whose probabilities are exact where the temperature is 1."""
    draw = np.random.default_rng(seed)
    scores = sharpness * draw.normal(size=(n, classes))
    true = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    truth = [draw.choice(classes, p=row) for row in true]
    shown = np.exp(scores / temperature)
    shown /= shown.sum(axis=1, keepdims=True)
    names = tuple("abcdefgh"[:classes])
    paths = tuple(map(str, range(n)))
    return Predictions(paths, tuple(names[k] for k in truth), names, shown, ("test",) * n)


def test_exact_probabilities_show_no_more_than_chance():
    found = [reliability(drawn(400, seed=seed)) for seed in range(40)]

    assert sum(each.error > each.by_chance for each in found) <= 6


def test_an_overconfident_model_is_found_out():
    found = reliability(drawn(400, seed=0, temperature=0.3))

    assert found.confidence > found.accuracy.high
    assert found.error > 2 * found.by_chance


def test_images_of_the_same_confidence_stand_in_one_bin():
    p = drawn(200, seed=0)
    shares = np.tile([0.7, 0.1, 0.1, 0.1], (200, 1))
    same = Predictions(p.paths, p.truth, p.classes, shares, p.parts)

    ((confidence, share),) = reliability(same).bins

    assert (confidence, share.n) == (pytest.approx(0.7), 200)


def test_the_calibration_error_is_that_of_mapie():
    from mapie.metrics.calibration import top_label_ece

    draw = np.random.default_rng(0)
    sure = draw.uniform(0.5, 1.0, 1000)  # always the first class: MAPIE takes the mean over classes
    truth = (draw.random(1000) > sure**2).astype(int)
    shares = np.stack([sure, 1 - sure], axis=1)
    names = tuple(map(str, range(1000)))
    p = Predictions(names, tuple("ab"[k] for k in truth), ("a", "b"), shares, ("test",) * 1000)

    theirs = top_label_ece(truth, shares, num_bins=10, split_strategy="quantile")

    assert reliability(p).error == pytest.approx(theirs, abs=0.002)  # bins end one image apart


def test_risk_grows_from_the_surest_image_to_the_error_of_all():
    p = drawn(300, seed=1)

    answered, wrong = risk_coverage(p)

    assert answered[-1] == 1.0
    assert wrong[-1] == pytest.approx(1 - p.correct.mean())
    assert wrong[len(wrong) // 3] < wrong[-1]


@pytest.mark.parametrize("error", [0.05, 0.1, 0.2])
def test_a_promised_error_is_broken_in_at_most_five_of_a_hundred_cases(error):
    test, broken, made = drawn(20_000, seed=999, sharpness=6.0), 0, 0
    for seed in range(200):
        try:
            least = Calibration.of(drawn(300, seed=seed, sharpness=6.0)).threshold(error)
        except UsageError:
            continue
        made += 1
        broken += bool((~test.correct)[test.confidence >= np.float32(least)].mean() > error)

    assert made >= 50
    assert broken <= 0.05 * 200 + 3 * (0.05 * 0.95 * 200) ** 0.5


def test_an_error_that_cannot_be_shown_is_refused_with_what_it_takes():
    held = Calibration.of(drawn(100, seed=0))

    with pytest.raises(UsageError, match=r"with 299 images it could be shown, there are 100") as e:
        held.threshold(0.01)
    assert e.value.code == "USAGE-CALIBRATION"
    with pytest.raises(UsageError, match="between 0 and 1"):
        held.threshold(1.0)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_true_class_as_often_as_promised(coverage, each):
    test = drawn(4000, seed=999)
    held = []
    for seed in range(100):
        sets = Calibration.of(drawn(300, seed=seed)).sets(test.probabilities, coverage, each=each)
        held.append(sets[np.arange(len(test)), test.truth_index])

    whose = [np.ones(len(test), bool)] if not each else [test.truth_index == k for k in range(4)]
    for own in whose:  # the mean over calibrations is what is promised
        assert coverage - 0.01 <= np.mean([one[own].mean() for one in held]) <= coverage + 0.03


def test_the_sets_are_those_of_mapie():
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        classes_ = np.arange(4)

        def fit(self, X, y):
            return self

        def predict_proba(self, X):
            return np.asarray(X, dtype=float)

        def predict(self, X):
            return np.asarray(X).argmax(axis=1)

        def __sklearn_is_fitted__(self):
            return True

    held, test = drawn(200, seed=0), drawn(500, seed=1)
    oracle = SplitConformalClassifier(
        Given(), confidence_level=0.9, conformity_score="lac", prefit=True
    )
    oracle.conformalize(held.probabilities.astype(float), held.truth_index)
    _, sets = oracle.predict_set(test.probabilities.astype(float))

    found = Calibration.of(held).sets(test.probabilities, 0.9)

    assert np.array_equal(found, sets[:, :, 0])


def test_a_coverage_of_each_class_needs_enough_images_of_the_rarest():
    held = Calibration.of(drawn(60, seed=0))

    with pytest.raises(UsageError, match="99 validation images of the rarest class"):
        held.limits(0.99, 4, each=True)
    assert len(held.limits(0.9, 4)) == 4


def test_what_came_of_promises_is_told_with_its_number_of_images():
    held, test = Calibration.of(drawn(300, seed=0)), drawn(500, seed=1)

    errors = kept_errors(held, test)
    coverages = kept_coverages(held, test, each=False)

    assert all(one.refused or one.found.n == round(one.answered.value * 500) for one in errors)
    assert [one.refused for one in coverages] == ["", "", ""]
    assert all(one.found.n == 500 for one in coverages)


@pytest.mark.slow
def test_sets_of_real_flowers_hold_the_true_class_as_promised_over_twenty_splits(assets):
    from regraft import Dataset, FeatureClassifier, evaluate

    flowers, hits, n = Dataset.from_folder(assets / "data" / "flowers17"), 0, 0
    for seed in range(20):
        split = flowers.split(val=0.25, test=0.25, seed=seed)
        learner = FeatureClassifier("efficientnet_lite0", grid=None)
        learner.fit(split.train.paths, split.train.labels)
        held = Calibration.of(evaluate(learner, split.val, "val"))
        p = evaluate(learner, split.test)
        sets = held.sets(p.probabilities, 0.9)
        hits += int(sets[np.arange(len(p)), p.truth_index].sum())
        n += len(p)

    # The splits share their images, so the interval is that of the images and not of all tests.
    margin = 1.96 * (0.9 * 0.1 / (n / 20)) ** 0.5
    assert abs(hits / n - 0.9) <= margin
