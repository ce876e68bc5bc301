"""A search for a rate takes the steps of a training, finds the fall of the loss, repeats itself."""

import math

import numpy as np
import pytest

from regraft import BackboneSpec, Phase, from_scratch, frozen
from regraft.training import loop as loop_module
from regraft.training.lr_finder import search_rate, smoothed, suggest
from samples import COLOURS, coloured, learner, refused

RESNET = BackboneSpec("test_resnet", weights=None, arguments=(("size", 32),))


LABELS = [COLOURS[i % 3] for i in range(30)]
IMAGES = coloured(LABELS)


def search(phases=None, *, steps=40, lowest=1e-6, highest=1.0, **changes):
    chosen = {"phases": phases or from_scratch(1), "cache": None, **changes}
    trainer = learner(RESNET, **chosen).trainer(IMAGES, LABELS)
    return search_rate(trainer, lowest=lowest, highest=highest, steps=steps)


@pytest.fixture(scope="module")
def found():
    return search(steps=42)  # in the middle of an epoch


def test_rates_rise_by_the_same_factor_from_step_to_step(found):
    factors = np.diff(np.log(found.rates))

    assert found.rates[0] == pytest.approx(1e-6)
    assert np.allclose(factors, math.log(1e6) / 41)
    assert len(found.losses) == len(found.rates) <= 42


def test_the_suggestion_lies_where_the_loss_falls(found):
    at = found.rates.index(found.suggestion)
    lowest = int(np.argmin(found.losses))

    assert found.losses[at - 1] > found.losses[at] > found.losses[lowest]
    assert at < lowest
    assert found.losses[lowest] < 0.9 * found.losses[0]
    assert 1e-5 < found.suggestion < 0.1


def test_the_same_seed_finds_the_same_and_another_seed_something_else(found):
    again, other = search(steps=42), search(steps=60, seed=1)

    assert again == found
    assert other.losses != found.losses


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rates_are_those_of_the_search_whatever_the_schedule(monkeypatch, schedule):
    phase = Phase(unfreeze=1.0, schedule=schedule, warmup=0.2, lr=5.0, epochs=1)

    seen, take = [], loop_module.take_step

    def record(network, optimizer, *arguments, **options):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return take(network, optimizer, *arguments, **options)

    monkeypatch.setattr(loop_module, "take_step", record)
    found = search([phase], steps=20, highest=1e-3)

    assert len(seen) == 20
    assert np.allclose(seen, np.array(found.rates)[:, None], rtol=1e-12)


@pytest.mark.parametrize("sound", [25, 0])
def test_a_loss_that_is_no_number_ends_the_search_or_is_an_error_from_the_beginning(
    monkeypatch, sound
):
    taken, take = [], loop_module.take_step

    def break_off(*arguments, **options):
        taken.append(1)
        sums = take(*arguments, **options)
        return sums * np.nan if len(taken) > sound else sums

    monkeypatch.setattr(loop_module, "take_step", break_off)

    if sound:
        assert len(search(highest=1e-2).rates) == sound
        return
    assert refused(search).code == "TRAIN-NAN"


def test_progress_says_what_is_done_in_place_of_a_phase(capsys):
    search(frozen(50), steps=12, highest=1e-3, verbose=True)

    told = capsys.readouterr().err
    assert "12 steps at rates from 1e-06 to 0.001: activations of pooled are kept" in told
    assert "50 epochs" not in told


def test_it_ends_when_the_loss_explodes():
    found = search([Phase(unfreeze=1.0, optimizer="sgd")], highest=1e4, steps=62)

    assert len(found.rates) < 62
    assert np.isfinite(found.losses).all()
    assert found.suggestion < found.rates[-1] / 3
    assert "must rise" in str(refused(search, lowest=1e-2, highest=1e-3))


# --- smoothing and reading a curve


def test_a_fall_is_found_where_it_is_whatever_comes_behind_it():
    steps = np.arange(100)
    fall = 2 - 1 / (1 + np.exp(-(steps - 50) / 4))
    noise = np.random.default_rng(0).normal(0, 0.1, 100)

    rates = np.geomspace(1e-6, 1, 100)
    found = suggest(rates, smoothed(fall + noise, spread=3))

    assert rates[44] <= found <= rates[56]
    exploded = smoothed([2.0] * 20 + [0.5] * 20 + [1e9], spread=1)
    assert exploded[35] == pytest.approx(0.5, abs=0.1)  # it hides nothing that was before it
    late = [2.0, 1.9, 1.2, 0.9, 0.8, 5.0, 9.0, 2.0, 1.0]  # steepest behind its minimum
    assert suggest(rates[:9], late) == rates[2]


@pytest.mark.parametrize("losses", [[], [2.0], [2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.99, 1.95, 2]])
def test_a_curve_that_does_not_fall_has_no_suggestion(losses):
    assert suggest(np.geomspace(1e-6, 1, len(losses)) if losses else [], losses) is None
