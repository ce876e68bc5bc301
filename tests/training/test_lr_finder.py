"""A search for a rate takes the steps of a training, finds the fall of the loss, repeats itself."""

import math

import numpy as np
import pytest

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import RegraftError, UsageError
from regraft.training import loop as loop_module
from regraft.training.lr_finder import search_rate, smoothed, suggest
from regraft.training.phases import Phase, from_scratch, frozen

SMALL = BackboneSpec("test_resnet", weights=None, arguments=(("size", 32),))


def draw(count):
    """Return noisy images in three colours, and their classes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 90, (count, 32, 32, 3)).astype(np.uint8)
    for i, image in enumerate(images):
        image[..., i % 3] += np.uint8(120)
    return images, ["rgb"[i % 3] for i in range(count)]


IMAGES, LABELS = draw(30)


def learner(phases=None, **changes):
    chosen = {"device": "cpu", "engine": "torch", "batch_size": 8, "cache": None, **changes}
    how = {name: chosen.pop(name) for name in Compute.__dataclass_fields__ if name in chosen}
    chosen["phases"] = phases or from_scratch(1)
    return NetworkClassifier(SMALL, compute=Compute(**how), **chosen)


def search(phases=None, *, steps=40, lowest=1e-6, highest=1.0, **changes):
    trainer = learner(phases, **changes).trainer(IMAGES, LABELS)
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


def rates_of_steps(monkeypatch, **options):
    """Return the rates of all groups at each step of a search."""
    seen = []
    take = loop_module.take_step

    def record(network, optimizer, *arguments, **options):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return take(network, optimizer, *arguments, **options)

    monkeypatch.setattr(loop_module, "take_step", record)
    found = search(**options)
    return found, np.array(seen)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rates_are_those_of_the_search_whatever_the_schedule(monkeypatch, schedule):
    phase = Phase(unfreeze=1.0, schedule=schedule, warmup=0.2, lr=5.0, epochs=1)

    found, seen = rates_of_steps(monkeypatch, phases=[phase], steps=20, highest=1e-3)

    assert len(seen) == 20
    assert np.allclose(seen, np.array(found.rates)[:, None], rtol=1e-12)


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


def test_a_loss_that_is_no_number_ends_the_search(monkeypatch):
    found, take, steps = [], loop_module.take_step, 25

    def break_off(*arguments, **options):
        found.append(1)
        sums = take(*arguments, **options)
        return sums * np.nan if len(found) > steps else sums

    monkeypatch.setattr(loop_module, "take_step", break_off)

    assert len(search(highest=1e-2).rates) == steps


def test_a_loss_that_is_no_number_from_the_beginning_is_an_error(monkeypatch):
    monkeypatch.setattr(loop_module, "take_step", lambda *_a, **_k: np.full(3, np.nan))

    with pytest.raises(RegraftError) as caught:
        search()

    assert caught.value.code == "TRAIN-NAN"


def test_a_rate_that_never_matters_has_no_suggestion():
    found = search(lowest=1e-12, highest=1e-9, steps=20, batch_size=30)

    assert found.suggestion is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0}, "must rise"),
        ({"lowest": 1e-2, "highest": 1e-3}, "must rise"),
        ({"highest": math.inf}, "must rise"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        search(**options)


# --- smoothing and reading a curve


def test_smoothing_does_not_move_a_fall_to_higher_rates():
    steps = np.arange(100)
    fall = 2 - 1 / (1 + np.exp(-(steps - 50) / 4))
    noise = np.random.default_rng(0).normal(0, 0.1, 100)

    rates = np.geomspace(1e-6, 1, 100)
    found = suggest(rates, smoothed(fall + noise, spread=3))

    assert rates[44] <= found <= rates[56]


def test_an_explosion_does_not_hide_what_was_before_it():
    losses = [2.0] * 20 + [0.5] * 20 + [1e9]

    assert smoothed(losses, spread=1)[35] == pytest.approx(0.5, abs=0.1)


def test_the_steepest_place_after_the_minimum_does_not_count():
    rates = np.geomspace(1e-6, 1, 9)
    losses = [2.0, 1.9, 1.2, 0.9, 0.8, 5.0, 9.0, 2.0, 1.0]

    assert suggest(rates, losses) == rates[2]


@pytest.mark.parametrize("losses", [[], [2.0], [2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.99, 1.95, 2]])
def test_a_curve_that_does_not_fall_has_no_suggestion(losses):
    assert suggest(np.geomspace(1e-6, 1, len(losses)) if losses else [], losses) is None
