"""The section on confidence says what was found, what can be promised and what cannot."""

import numpy as np

from regraft.report.confidence import confidence
from regraft.results.calibration import Calibration
from regraft.results.predictions import Predictions


def predictions(n, *, sure=0.9, right=None, seed=0):
    """Return predictions that are right as often as they are sure, or as often as is said."""
    draw = np.random.default_rng(seed)
    confident = draw.uniform(2 * sure - 1, 1, n)
    truth = tuple("ab"[int(k)] for k in draw.random(n) >= (confident if right is None else right))
    shares = np.stack([confident, 1 - confident], axis=1)
    return Predictions(tuple(map(str, range(n))), truth, ("a", "b"), shares, ("test",) * n)


def test_an_honest_model_differs_by_chance_only():
    section = confidence(
        predictions(400), Calibration.of(predictions(300, seed=1)), temperature=1.5
    )

    told = " ".join(section.found)
    assert "which may be chance" in told
    assert "a perfect model shows up to" in told
    assert "temperature of 1.50, fitted on the 300 validation images" in told
    assert section.drawing.startswith("<svg")


def test_an_overconfident_model_is_called_so():
    section = confidence(predictions(400, sure=0.95, right=0.7), None)

    told = " ".join(section.found)
    assert "overconfident by" in told
    assert "a perfect model would stay below" in told
    assert "Nothing was calibrated" in told
    assert (section.errors, section.coverages, section.refused) == (None, None, ())


def test_promises_stand_in_tables_and_what_cannot_be_promised_below_them():
    held = Calibration.of(predictions(60, seed=1), chose=True)

    section = confidence(predictions(400), held)

    assert [row[0] for row in section.coverages.rows][:2] == [
        "90 % of all images",
        "95 % of all images",
    ]
    assert any("1 % wrong: with 299 images it could be shown" in each for each in section.refused)
    assert "chose the epoch" in section.found[-1]


def test_a_few_images_say_nothing():
    assert confidence(predictions(10), None) is None
