"""Warnings: each is said where it is due, with its numbers, and not elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from regraft.data.check import Finding
from regraft.experiment.config import MethodConfig
from regraft.experiment.warnings import advice, comparison_warnings, run_warnings
from regraft.results.intervals import Estimate
from regraft.results.predictions import Predictions
from regraft.results.run import DataFacts, Run, RunRecord, SplitFacts
from regraft.training.phases import Phase


def answers(part, right, n, *, classes=2):
    """Return predictions of ``n`` images of two or more classes, so many of them right."""
    names = tuple("abcdef"[:classes])
    truth = np.arange(n) % classes
    named = np.where(np.arange(n) < right, truth, (truth + 1) % classes)
    shares = np.full((n, classes), 0.1)
    shares[np.arange(n), named] = 0.5
    paths = tuple(f"{part}/{i}.jpg" for i in range(n))
    return Predictions(paths, tuple(names[i] for i in truth), names, shares, (part,) * n)


class Report:
    """What a data check found, invented."""

    def __init__(self, findings=(), leaked=()):
        self.findings, self._leaked = findings, tuple(leaked)

    def leaked(self, part):
        """Return what leaked of the test part."""
        return self._leaked if part == "test" else ()


def said(*parts, report=None, **more):
    first, *others = parts
    return run_warnings(first.joined(*others), report or Report(), **more)


SOUND = (answers("train", 960, 1000), answers("val", 190, 200), answers("test", 475, 500))


def test_a_sound_run_needs_no_warning():
    assert said(*SOUND) == []


def test_sixteen_validation_images_are_said_to_say_little():
    (warning,) = said(SOUND[0], answers("val", 15, 16), SOUND[2])

    assert warning.startswith("16 validation images: 93.8 % may be anything from 72 to 99 %;")


@pytest.mark.parametrize(("right", "n", "few"), [(99, 99, 1), (80, 150, 1), (110, 110, 0)])
def test_a_part_is_small_by_its_number_or_by_its_interval(right, n, few):
    train = answers("train", 500, 1000) if right == 80 else answers("train", 1000, 1000)

    said_of = [text for text in said(train, answers("test", right, n)) if "may be anything" in text]

    assert len(said_of) == few


def test_without_a_test_part_the_numbers_are_called_too_good():
    (warning,) = said(SOUND[0], SOUND[1])

    assert "there is no test part" in warning
    assert "validation part" in warning


def test_a_model_that_the_most_frequent_class_equals_is_named_so():
    (warning,) = said(answers("train", 500, 900), answers("test", 270, 500))

    assert "(54.0 % [49.6, 58.3], n = 500) cannot be told from always predicting “a”" in warning


def test_training_far_above_validation_is_said_once():
    (warning,) = said(answers("train", 1000, 1000), answers("val", 160, 200), SOUND[2])
    both = said(answers("train", 1000, 1000), answers("val", 160, 200), answers("test", 400, 500))

    assert "20.0 points above validation" in warning
    assert len(both) == 1


@pytest.mark.parametrize(("right", "n"), [(91, 100), (176, 200)])
def test_a_gap_of_less_than_ten_points_or_within_the_intervals_is_none(right, n):
    assert said(answers("train", 97, 100), answers("test", right, n)) == []


def test_a_small_part_whose_interval_reaches_the_training_accuracy_shows_no_gap():
    found = said(answers("train", 100, 100), answers("val", 14, 16), SOUND[2])

    assert not [text for text in found if "above" in text]


def test_findings_of_the_check_are_warnings_with_their_advice_but_notes_are_not():
    found = (
        Finding("DATA-CLASS-MISSING", "warning", "val has no image of b", advice="cut it anew"),
        Finding("DATA-DUPLICATES", "note", "two are the same"),
    )

    assert said(*SOUND, report=Report(found)) == ["val has no image of b; cut it anew"]


def test_what_the_learner_says_is_taken_over_once():
    assert said(*SOUND, notes=["it did not converge"] * 2) == ["it did not converge"]


def test_the_score_without_leaks_stands_beside_the_one_with_them():
    leaked = [f"test/{i}.jpg" for i in range(500)]

    (warning,) = said(*SOUND, report=Report(leaked=leaked[:400]))
    (every,) = said(*SOUND, report=Report(leaked=leaked))

    assert warning.startswith("400 of 500 test images have a copy")
    assert "without them the test accuracy is 75.0 % [65.7, 82.5], n = 100" in warning
    assert "with them 95.0 % [92.7, 96.6], n = 500" in warning
    assert every.startswith("500 of 500")
    assert "95.0 % [92.7, 96.6], n = 500 is too good; cut the set anew" in every


HEAD, RATE, FEW = "begins with random weights", "is high for weights", "are few to train"


@pytest.mark.parametrize(
    ("method", "learned", "said"),
    [
        ({"strategy": "fine_tune"}, 1000, [HEAD]),
        ({"strategy": "fine_tune", "unfreeze": "last:1"}, 1000, [HEAD]),
        ({"strategy": "two_stage", "lr": 0.05}, 1000, [RATE]),
        ({"strategy": "two_stage", "lr": 0.001}, None, []),
        ({"strategy": "fine_tune", "start": "run", "lr": 0.01, "optimizer": "sgd"}, 9, []),
        ({"strategy": "fine_tune", "start": "run", "lr": 0.05, "optimizer": "sgd"}, 9, [RATE]),
        ({"strategy": "fine_tune", "weights": "random", "lr": 0.05}, 1000, []),
        ({"strategy": "from_scratch", "lr": 0.05}, 299, [FEW]),
        ({"strategy": "from_scratch"}, 300, []),
        ({"strategy": "fine_tune"}, 299, [HEAD, FEW]),
        ({"strategy": "frozen", "lr": 0.05}, 9, []),
        ({"strategy": "fine_tune", "phases": [Phase(epochs=0), Phase(unfreeze=0.5)]}, None, [HEAD]),
        ({"strategy": "fine_tune", "phases": [Phase(unfreeze_matching="norm")]}, None, [HEAD]),
        ({}, 9, []),
    ],
)
def test_what_speaks_against_a_method_is_said_before_it_is_run(method, learned, said):
    found = advice(MethodConfig(**method), learned)

    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))


def run(split="one", *, warnings=(), n=40, strategy="features", learned=1000):
    record = RunRecord(
        description="a run",
        config={"method": {"strategy": strategy}},
        data=DataFacts(counts={"train": {"a": learned - 1, "b": 1}}),
        split=SplitFacts(hash=split),
        metrics={"test": {"accuracy": Estimate(0.5, 0.4, 0.6, n)}},
        warnings=tuple(warnings),
    )
    return Run(Path("nowhere"), record)


def test_methods_that_were_measured_once_are_named():
    (every, split) = comparison_warnings([("a", [run()]), ("b", [run()])])
    some = comparison_warnings([("a", [run()]), ("b", [run(), run("two")])])

    assert every.startswith("every method was measured once")
    assert "one split with 40 test images" in split
    assert some == [every.replace("every method was", "a:")]


def test_repeats_on_several_splits_need_no_warning():
    ways = [("a", [run("one"), run("two")]), ("b", [run("one"), run("two")])]

    assert comparison_warnings(ways) == []


def test_what_every_run_warns_of_is_said_once():
    first, second = run("one", warnings=["leak", "own"]), run("two", warnings=["leak"])

    assert comparison_warnings([("a", [first, second])]) == ["leak"]


@pytest.mark.parametrize(
    ("strategies", "learned", "missing"),
    [
        (("fine_tune", "from_scratch"), 299, True),
        (("fine_tune", "from_scratch"), 300, False),
        (("fine_tune", "frozen"), 299, False),
    ],
)
def test_few_images_without_a_row_of_features_are_said_to_be_few(strategies, learned, missing):
    runs = [
        (s, [run(split, strategy=s, learned=learned) for split in ("a", "b")]) for s in strategies
    ]

    assert any(FEW in text for text in comparison_warnings(runs)) == missing
