import dataclasses
import re

import numpy as np
import pytest
from sklearn import metrics as theirs

from regraft.results import metrics
from regraft.results.intervals import wilson
from regraft.results.predictions import Predictions

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


def predictions(n=300, *, classes=CLASSES, used=None, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, used or len(classes), n)
    scores = generator.random((n, len(classes))) * (
        np.arange(len(classes)) < (used or len(classes))
    )
    scores[np.arange(n), truth] += 0.6
    return Predictions(
        tuple(f"{i}.jpg" for i in range(n)),
        tuple(classes[i] for i in truth),
        classes,
        scores / scores.sum(axis=1, keepdims=True),
        ("test",) * n,
    )


def predicted(truth, answers, classes=("a", "b", "c")):
    return Predictions(
        tuple(f"{i}.jpg" for i in range(len(truth))),
        tuple(truth),
        classes,
        np.array([[float(answer == name) for name in classes] for answer in answers]).reshape(
            len(truth), len(classes)
        ),
        ("test",) * len(truth),
    )


def test_every_number_equals_that_of_scikit_learn():
    p = predictions()
    precision, recall, f1, support = theirs.precision_recall_fscore_support(p.truth, p.predicted)

    scores = metrics.per_class(p)

    assert metrics.accuracy(p).value == theirs.accuracy_score(p.truth, p.predicted)
    assert (metrics.confusion(p) == theirs.confusion_matrix(p.truth, p.predicted)).all()
    assert [s.precision.value for s in scores] == pytest.approx(precision)
    assert [s.recall.value for s in scores] == pytest.approx(recall)
    assert [s.f1.value for s in scores] == pytest.approx(f1)
    assert [s.support for s in scores] == support.tolist()


@pytest.mark.parametrize("ties", [False, True])
def test_curves_and_their_areas_equal_those_of_scikit_learn(ties):
    p = predictions(200)
    if ties:
        p = dataclasses.replace(p, probabilities=p.probabilities.round(1))

    *each, mean = metrics.rankings(p)

    aucs = [theirs.roc_auc_score(p.truth_index == k, p.probabilities[:, k]) for k in range(7)]
    precise = [
        theirs.average_precision_score(p.truth_index == k, p.probabilities[:, k]) for k in range(7)
    ]
    assert [found.name for found in each] == list(CLASSES)
    assert [found.areas[0].value for found in each] == pytest.approx(aucs)
    assert [found.areas[1].value for found in each] == pytest.approx(precise)
    assert [area.value for area in mean.areas] == pytest.approx([np.mean(aucs), np.mean(precise)])
    assert all(area.low < area.value < area.high for found in each for area in found.areas)
    assert {area.n for found in (*each, mean) for area in found.areas} == {200}
    false, recall, _ = theirs.roc_curve(
        p.truth_index == 0, p.probabilities[:, 0], drop_intermediate=False
    )
    assert [0, *each[0].false] == pytest.approx(false)
    assert [0, *each[0].recall] == pytest.approx(recall)
    precision, recall, _ = theirs.precision_recall_curve(p.truth_index == 0, p.probabilities[:, 0])
    assert each[0].precision[::-1] == pytest.approx(precision[:-1])
    assert each[0].found[::-1] == pytest.approx(recall[:-1])
    assert (mean.false[0], mean.false[-1], mean.recall[-1]) == (0, 1, 1)


def test_the_intervals_of_areas_are_those_of_as_many_images():
    held, widths = 0, []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        own = generator.random(80) < 0.5
        score = 1 / (1 + np.exp(-generator.normal(np.where(own, 0.5, -0.5), 1 / np.sqrt(2))))
        shares = np.stack([score, 1 - score], axis=1)
        names = tuple(np.where(own, "a", "b").tolist())
        p = Predictions(tuple(map(str, range(80))), names, ("a", "b"), shares, ("test",) * 80)
        area = metrics.rankings(p)[0].areas[0]
        held += area.low <= 0.8413 <= area.high  # the area of two normal curves, one sd apart
        widths.append(area.high - area.low)

    assert held >= 52
    assert 0.1 < np.mean(widths) < 0.25


def test_what_is_told_apart_without_an_error_is_not_called_certain():
    perfect = predicted(["a"] * 8 + ["b"] * 30, ["a"] * 8 + ["b"] * 30, classes=("a", "b", "c"))

    one, two = metrics.rankings(perfect)  # c has no image, and two classes have no average

    assert (one.name, two.name) == ("a", "b")
    assert [a.interval for each in (one, two) for a in each.areas] == [wilson(8, 8).interval] * 4
    assert metrics.rankings(predicted(["a"], ["a"])) == []


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_equals_that_of_scikit_learn(k):
    p = predictions()

    expected = theirs.top_k_accuracy_score(p.truth_index, p.probabilities, k=k)
    assert metrics.top_k_accuracy(p, k).value == pytest.approx(expected)
    tied = Predictions(("1", "2"), ("a", "b"), ("a", "b"), np.full((2, 2), 0.5), ("test",) * 2)
    assert metrics.top_k_accuracy(tied, k).value == (0.5 if k == 1 else 1.0)


@pytest.mark.parametrize(("place", "name"), [(0, "macro"), (1, "weighted")])
@pytest.mark.parametrize("used", [7, 4])  # averages run over the classes that have images
def test_averages_equal_those_of_scikit_learn_and_lie_in_their_intervals(place, name, used):
    p = predictions(used=used)

    averages = metrics.averages(p)[place]

    expected = theirs.precision_recall_fscore_support(p.truth, p.predicted, average=name)[:3]
    ours = (averages.precision, averages.recall, averages.f1)
    assert (averages.name, averages.support) == (name, 300)
    assert [share.value for share in ours] == pytest.approx(expected)
    assert all(share.low < share.value < share.high for share in ours)
    flawless = metrics.averages(predicted("aabbcc", "aabbcc"))[place].f1
    assert (flawless.value, flawless.high) == (1.0, 1.0)
    assert flawless.low < 0.7


def test_a_class_without_images_has_no_score_instead_of_zero():
    p = predicted("aab", "aaa")

    scores = {score.name: score for score in metrics.per_class(p)}
    report = p.classification_report()

    assert not scores["c"].recall.known
    assert not scores["c"].f1.known
    assert not scores["b"].precision.known
    assert scores["b"].recall.value == 0.0
    assert re.search(r"c +nan +nan +nan +0\n", report)


def test_the_most_confused_pairs_come_first_with_their_share():
    p = predicted("aaaabbbc", "abbbcaab")

    pairs = metrics.most_confused(p)

    shown = [(pair.true, pair.predicted, pair.count) for pair in pairs]
    assert shown == [("a", "b", 3), ("b", "a", 2), ("c", "b", 1), ("b", "c", 1)]
    assert pairs[0].share.value == 0.75


def test_nothing_predicted_is_nothing_known():
    p = predicted("", "")

    assert not metrics.measures(p)["macro_f1"].known
    assert metrics.most_confused(p) == []


def test_measures_hold_the_accuracy_and_all_that_a_page_shows():
    found = metrics.measures(predicted("aab", "aaa"))

    assert found["accuracy"] == found["majority_baseline"] == wilson(2, 3)
    assert (found["macro_recall"].value, found["macro_precision"].value) == (0.5, 1 / 3)
    assert "top5" not in found
    assert set(metrics.MEASURES) <= set(metrics.measures(predictions()))
