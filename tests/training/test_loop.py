"""The loop repeats itself to the bit, continues to the bit, stops when it should, and says why."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from regraft.training.batches import Part
from regraft.training.loop import Loop, LoopConfig, State
from regraft.training.phases import Phase
from samples import refused, timeless


class Rows:
    """Rows of numbers as inputs."""

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def take(self, samples, epoch):
        """Return the rows of these samples."""
        return self._rows[samples]


def part(samples=30, seed=0):
    """Return two clouds that a line divides, with soft targets."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.arange(samples) % 2
    rows = torch.randn(samples, 4, generator=random) + 3.0 * codes[:, None]
    return Part(Rows(rows), nn.functional.one_hot(codes, 2).float())


def net():
    """Return a small network with batch norm and dropout, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2)
        )


def adam(network, phase):
    return torch.optim.AdamW(network.parameters(), lr=phase.lr)


def run(network, phase, validation=None, optimizer=None, state=None, heard=None, **options):
    """Run a phase as it is mostly run here."""
    options = {"config": LoopConfig(batch_size=8), **options}
    loop = Loop(network, optimizer or adam(network, phase), phase, part(), validation, **options)
    return loop.run(state or State(), **(heard or {}))


def same(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def scripted(monkeypatch, losses, accuracies):
    """Let the validation of each epoch say what a test wants."""
    pairs = iter(zip(losses, accuracies, strict=True))

    def validate(*_arguments, **_options):
        loss, accuracy = next(pairs)
        return {"val_loss": loss, "val_accuracy": accuracy}

    monkeypatch.setattr("regraft.training.loop.validate", validate)


def test_a_network_learns_and_every_epoch_has_a_record_of_plain_json():
    phase = Phase(epochs=8, lr=0.02)

    state = run(net(), phase, validation=part(20, seed=1))

    assert [record["epoch"] for record in state.records] == list(range(1, 9))
    assert state.records[-1]["train_loss"] < state.records[0]["train_loss"]
    assert state.records[-1]["val_accuracy"] >= 0.9
    assert json.loads(json.dumps(state.records)) == state.records
    assert {type(v) for record in state.records for v in record.values()} == {int, float}


@pytest.mark.parametrize("watch", ["val_accuracy", "val_loss"])
@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 0), (2, 3), (4, 4)])
def test_a_phase_continued_from_any_step_ends_with_the_same_bits(watch, epoch, step):
    phase = Phase(epochs=6, lr=0.05, schedule="cosine", warmup=0.2, watch=watch)
    whole = net()
    kept = {}
    optimizer = adam(whole, phase)

    def keep(state):
        if (state.epoch, state.step) == (epoch, step):
            kept["all"] = copy.deepcopy((whole.state_dict(), optimizer.state_dict(), state))

    options, heard = {"validation": part(20, seed=1)}, {"on_step": keep, "on_epoch": keep}
    uninterrupted = run(whole, phase, optimizer=optimizer, heard=heard, **options)
    weights, moments, state = kept["all"]
    resumed = net()
    resumed.load_state_dict(weights)
    later = adam(resumed, phase)
    later.load_state_dict(moments)
    torch.manual_seed(99)
    expected = torch.rand(1)
    torch.manual_seed(99)
    continued = run(resumed, phase, optimizer=later, state=state, **options)

    assert torch.equal(torch.rand(1), expected)  # the program's own numbers are left alone
    assert same(whole, resumed)
    assert timeless(continued.records) == timeless(uninterrupted.records)
    assert continued.best == uninterrupted.best


def test_a_loss_that_is_nan_stops_with_its_place_and_rate():
    seen = []

    def loss(logits, targets):
        seen.append(len(logits))
        value = nn.functional.cross_entropy(logits, targets)
        return value * math.nan if len(seen) == 6 else value

    config = LoopConfig(batch_size=8, loss=loss)
    error = refused(run, net(), Phase(epochs=3, lr=0.25), config=config, number=1)

    assert error.code == "TRAIN-NAN"
    assert error.why == "phase 2, epoch 2, batch 2, learning rate 0.25"


@pytest.mark.parametrize("validation", [None, part(20, seed=1)])
def test_weights_that_the_last_step_destroyed_are_never_the_best(validation):
    network = net()
    phase = Phase(epochs=2, lr=3e38, schedule="cosine")
    settings = LoopConfig(
        batch_size=8, loss=lambda logits, _t: logits.sum() * (1e30 if len(logits) == 6 else 0.0)
    )

    optimizer = torch.optim.SGD(network.parameters())
    error = refused(run, network, phase, validation, optimizer, config=settings)

    assert "epoch 1, batch 4" in str(error)


@pytest.mark.parametrize(("watch", "ended", "best"), [("val_accuracy", 4, 2), ("val_loss", 5, 3)])
def test_patience_counts_epochs_in_which_what_is_watched_is_no_better(
    monkeypatch, watch, ended, best
):
    scripted(monkeypatch, [1.0, 0.9, 0.8, 0.8, 0.9, 0.1], [0.5, 0.7, 0.7, 0.6, 0.6, 0.9])
    network, kept = net(), []

    heard = {"on_epoch": lambda _state: kept.append(copy.deepcopy(network))}
    state = run(network, Phase(epochs=6, patience=2, watch=watch), part(4), heard=heard)

    assert (state.epoch, state.stopped) == (ended, "patience")
    assert state.best[1] == best  # of equal epochs the first
    assert same(network, kept[best - 1])


def test_patience_that_ends_with_the_last_epoch_has_stopped_nothing_and_nan_is_never_best(
    monkeypatch,
):
    scripted(monkeypatch, [1.0, 1.1, 1.2], [0.5, 0.4, 0.4])
    ended = run(net(), Phase(epochs=3, patience=2), part(4))
    scripted(monkeypatch, [1.0, math.nan], [0.5, 1.0])
    states = []

    error = refused(run, net(), Phase(epochs=3), part(4), heard={"on_epoch": states.append})

    assert "epoch 2" in str(error)
    assert (ended.epoch, ended.stopped) == (3, None)
    assert states[-1].best == (0.5, 1)


def test_a_phase_that_keeps_the_last_epoch_ends_as_one_without_validation(monkeypatch):
    kept, alone = net(), net()
    without = run(alone, Phase(epochs=3))
    scripted(monkeypatch, losses=[1, 1, 1], accuracies=[0.9, 0.5, 0.5])

    state = run(kept, Phase(epochs=3, keep="last"), validation=part(4))

    assert state.best == (0.9, 1)
    assert same(kept, alone)
    assert without.best is None
    assert "val_loss" not in without.records[0]


def test_the_gradient_is_clipped_to_its_largest_norm():
    network = nn.Linear(4, 2)
    before = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters())
    settings = LoopConfig(batch_size=30, clip=1e-3)

    run(network, Phase(epochs=1, lr=1.0), optimizer=optimizer, config=settings)

    pairs = zip(network.parameters(), before.parameters(), strict=True)
    moved = torch.cat([(after - old).detach().flatten() for after, old in pairs])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_mixing_sees_every_training_batch_and_repeats_itself():
    drawn = []

    def mix(inputs, targets, random):
        drawn.append(float(random.random()))
        return inputs.flip(0), targets.flip(0)

    settings = LoopConfig(batch_size=8, mix=mix)

    run(net(), Phase(epochs=2), validation=part(8), config=settings)
    first = list(drawn)
    run(net(), Phase(epochs=2), validation=part(8), config=settings)

    assert len(set(first)) == 8
    assert drawn == first * 2


def test_the_time_budget_ends_the_phase_with_an_epoch_that_is_measured(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("regraft.training.loop.time.perf_counter", lambda: float(next(clock)))

    state = run(net(), Phase(epochs=50), validation=part(8), time_budget=5.0)

    assert state.stopped == "time budget"
    assert 1 <= state.epoch < 50
    assert "val_accuracy" in state.records[-1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "problem", [MemoryError("nothing left"), torch.OutOfMemoryError("nothing left")], ids=repr
)
def test_a_batch_too_large_for_the_memory_is_an_error_with_its_size_and_what_to_do(
    problem, training
):
    network = nn.Linear(4, 2)

    def fail(network, _rows, error=problem):
        if network.training == training:
            raise error

    network.register_forward_pre_hook(fail)

    error = refused(run, network, Phase(epochs=1), part(16))

    assert error.code == "TRAIN-MEMORY"
    assert "a batch of 8 images - nothing left" in str(error)
    assert error.hint.startswith("take a smaller batch size or smaller images")
    problem = RuntimeError("shapes do not match")
    network.register_forward_pre_hook(lambda *both: fail(*both, problem), prepend=True)
    with pytest.raises(RuntimeError, match="shapes"):
        run(network, Phase(epochs=1), part(16))


def test_the_training_accuracy_of_an_epoch_is_the_running_one():
    """It is counted batch by batch, each before its step and with dropout."""
    right = []

    def loss(logits, targets):
        right.append(logits.argmax(1) == targets.argmax(1))
        return nn.functional.cross_entropy(logits, targets)

    state = run(net(), Phase(epochs=2, lr=0.05), config=LoopConfig(batch_size=8, loss=loss))

    running = [float(torch.cat(part).float().mean()) for part in (right[:4], right[4:])]
    assert [record["train_accuracy"] for record in state.records] == pytest.approx(running)
