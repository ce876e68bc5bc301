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


@pytest.mark.parametrize(
    ("classes", "more"),
    [(CLASSES, {}), (("a", "a very long name of a class", "c"), {"digits": 3})],
)
def test_the_report_reads_as_that_of_scikit_learn(classes, more):
    p = predictions(classes=classes)

    expected = theirs.classification_report(p.truth, p.predicted, **more)
    assert p.classification_report(**more) == expected


def test_a_class_without_images_has_no_score_instead_of_zero():
    p = predicted("aab", "aaa")

    scores = {score.name: score for score in metrics.per_class(p)}
    report = p.classification_report()

    assert not scores["c"].recall.known
    assert not scores["c"].f1.known
    assert not scores["b"].precision.known
    assert scores["b"].recall.value == 0.0
    assert re.search(r"c +- +- +- +0\n", report)
    assert report.endswith("- no samples\n")


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
    assert re.search(r"macro avg +- +- +- +0\n", p.classification_report())


def test_measures_hold_the_accuracy_and_all_that_a_page_shows():
    found = metrics.measures(predicted("aab", "aaa"))

    assert found["accuracy"] == found["majority_baseline"] == wilson(2, 3)
    assert (found["macro_recall"].value, found["macro_precision"].value) == (0.5, 1 / 3)
    assert "top5" not in found
    assert set(metrics.MEASURES) <= set(metrics.measures(predictions()))
