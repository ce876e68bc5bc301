"""The loop repeats itself to the bit, continues to the bit, stops when it should, and says why."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import RegraftError
from regraft.training.batches import Part, generator
from regraft.training.loop import Loop, LoopConfig, State, take_step
from regraft.training.optim import class_weights, make_loss
from regraft.training.phases import Phase


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


def run(
    network,
    phase,
    train=None,
    validation=None,
    optimizer=None,
    state=None,
    on_step=lambda _state: None,
    on_epoch=lambda _state: None,
    **options,
):
    """Run a phase as it is mostly run here."""
    loop = Loop(
        network,
        optimizer or adam(network, phase),
        phase,
        train or part(),
        validation,
        **{"config": LoopConfig(batch_size=8), **options},
    )
    return loop.run(state or State(), on_step=on_step, on_epoch=on_epoch)


def same(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def timeless(state):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in state.records]


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


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(schedule):
    phase = Phase(epochs=3, schedule=schedule)
    first, second, other = net(), net(), net()

    states = [run(network, phase) for network in (first, second)]
    run(other, phase, config=LoopConfig(batch_size=8, seed=1))

    assert same(first, second)
    assert timeless(states[0]) == timeless(states[1])
    assert not same(first, other)


def test_the_random_numbers_of_the_program_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)

    torch.manual_seed(3)
    run(net(), Phase(epochs=1))

    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "plateau"])
@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 0), (2, 3), (4, 4)])
@pytest.mark.parametrize("average", [None, 0.9])
def test_a_phase_continued_from_any_step_ends_with_the_same_bits(schedule, epoch, step, average):
    phase = Phase(epochs=6, lr=0.05, schedule=schedule, warmup=0.2, momentum=0.9)
    validation = part(20, seed=1)
    settings = LoopConfig(batch_size=8, average=average)
    whole = net()
    kept = {}
    optimizer = adam(whole, phase)

    def keep(state):
        if (state.epoch, state.step) == (epoch, step):
            kept["all"] = copy.deepcopy((whole.state_dict(), optimizer.state_dict(), state))

    options = {"validation": validation, "config": settings}
    uninterrupted = run(whole, phase, optimizer=optimizer, on_step=keep, on_epoch=keep, **options)
    weights, moments, state = kept["all"]
    resumed = net()
    resumed.load_state_dict(weights)
    later = adam(resumed, phase)
    later.load_state_dict(moments)
    torch.manual_seed(99)
    continued = run(resumed, phase, optimizer=later, state=state, **options)

    assert same(whole, resumed)
    assert timeless(continued) == timeless(uninterrupted)
    assert continued.best == uninterrupted.best


def test_a_loss_that_is_nan_stops_with_its_place_and_rate():
    seen = []

    def loss(logits, targets):
        seen.append(len(logits))
        value = nn.functional.cross_entropy(logits, targets)
        return value * math.nan if len(seen) == 6 else value

    with pytest.raises(RegraftError) as caught:
        run(net(), Phase(epochs=3, lr=0.25), config=LoopConfig(batch_size=8, loss=loss), number=1)

    assert caught.value.code == "TRAIN-NAN"
    assert caught.value.why == "phase 2, epoch 2, batch 2, learning rate 0.25"


@pytest.mark.parametrize("validation", [None, part(20, seed=1)])
def test_weights_that_the_last_step_destroyed_are_never_the_best(validation):
    network = net()
    optimizer = torch.optim.SGD(network.parameters(), lr=3e38)

    with pytest.raises(RegraftError, match="epoch 1, batch 4"):
        run(
            network,
            Phase(epochs=2, schedule="cosine", warmup=0.0),
            validation=validation,
            optimizer=optimizer,
            config=LoopConfig(
                batch_size=8,
                loss=lambda logits, _t: logits.sum() * (1e30 if len(logits) == 6 else 0.0),
            ),
        )


def test_a_validation_loss_that_is_nan_is_never_the_best(monkeypatch):
    scripted(monkeypatch, [1.0, math.nan], [0.5, 1.0])
    states = []

    with pytest.raises(RegraftError, match="epoch 2"):
        run(net(), Phase(epochs=3), validation=part(4), on_epoch=states.append)

    assert states[-1].best == (0.5, 1)


def test_patience_counts_epochs_without_a_better_accuracy(monkeypatch):
    scripted(monkeypatch, [1.0] * 5, [0.5, 0.7, 0.7, 0.6, 0.9])

    state = run(net(), Phase(epochs=5, patience=2), validation=part(4))

    assert (state.epoch, state.stopped) == (4, "patience")
    assert state.best == (0.7, 2)  # of equal epochs the first


def test_the_best_weights_are_restored_buffers_included(monkeypatch):
    scripted(monkeypatch, [1.0] * 4, [0.5, 0.7, 0.6, 0.6])
    network = net()
    kept = []

    run(
        network,
        Phase(epochs=4),
        validation=part(4),
        on_epoch=lambda _state: kept.append(copy.deepcopy(network)),
    )

    assert same(network, kept[1])
    assert not same(network, kept[3])


def test_a_phase_that_keeps_the_last_epoch_restores_no_earlier_one(monkeypatch):
    kept, alone = net(), net()
    run(alone, Phase(epochs=3))
    scripted(monkeypatch, losses=[1, 1, 1], accuracies=[0.9, 0.5, 0.5])

    state = run(kept, Phase(epochs=3, keep="last"), validation=part(4))

    assert state.best == (0.9, 1)
    assert same(kept, alone)


def test_without_validation_the_last_epoch_stays():
    network = net()
    kept = []

    state = run(
        network, Phase(epochs=2), on_epoch=lambda _state: kept.append(copy.deepcopy(network))
    )

    assert state.best is None
    assert same(network, kept[-1])
    assert set(state.records[0]) == {"epoch", "train_loss", "train_accuracy", "lr", "seconds"}


def test_a_plateau_lowers_the_rate_to_a_tenth(monkeypatch):
    losses = [1.0, 1.1, 1.2, 0.9, 0.95, 0.96, 0.97]
    scripted(monkeypatch, losses, [0.5] * 7)

    state = run(net(), Phase(epochs=7, lr=0.1, schedule="plateau"), validation=part(4))

    rates = [record["lr"] for record in state.records]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


def test_the_gradient_is_clipped_to_its_largest_norm():
    network = nn.Linear(4, 2)
    before = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    settings = LoopConfig(batch_size=30, clip=1e-3)

    run(network, Phase(epochs=1), optimizer=optimizer, config=settings)

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


def test_bfloat16_computes_the_network_in_fewer_bits():
    seen = set()
    network = net()
    network[-1].register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))

    state = run(
        network,
        Phase(epochs=2),
        validation=part(8),
        config=LoopConfig(batch_size=8, precision="bf16"),
    )

    assert seen == {torch.bfloat16}
    assert network[-1].weight.dtype == torch.float32
    assert np.isfinite(state.records[-1]["val_loss"])


def test_validation_moves_no_buffer_and_is_the_same_whatever_the_batch():
    def records(batch_size):
        network = net()
        network.eval()
        state = run(
            network,
            Phase(epochs=1),
            validation=part(21, seed=1),
            optimizer=torch.optim.SGD(network.parameters(), lr=1e-12),
            config=LoopConfig(batch_size=batch_size),
            set_mode=network.eval,
        )
        return network, state.records[0]

    (small, few), (_, many) = records(5), records(64)

    assert torch.equal(small[1].running_mean, net()[1].running_mean)
    assert torch.equal(small[1].running_var, net()[1].running_var)
    assert few["val_loss"] == pytest.approx(many["val_loss"], rel=1e-6)
    assert few["val_accuracy"] == many["val_accuracy"]


def test_the_average_is_what_is_validated_and_what_remains():
    phase = Phase(epochs=3, lr=0.05)
    plain, smooth = net(), net()
    seen = []

    run(plain, phase)
    state = run(
        smooth,
        phase,
        config=LoopConfig(batch_size=8, average=0.5),
        on_epoch=lambda _state: seen.append(copy.deepcopy(smooth)),
    )

    assert same(seen[-1], plain), "training itself went on with the weights that are not averaged"
    assert not same(smooth, plain)
    assert all(torch.equal(v, smooth.state_dict()[k]) for k, v in state.average.items())


@pytest.mark.parametrize("problem", [MemoryError, torch.OutOfMemoryError])
def test_a_batch_too_large_for_the_memory_is_cut_into_parts_with_the_same_gradient(problem):
    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, rows):
            if len(rows) > 3 and self.training:
                raise problem("not here")
            return self.inner(rows)

    torch.manual_seed(0)
    greedy = Greedy()
    modest = copy.deepcopy(greedy.inner)
    descent = {name: torch.optim.SGD(m.parameters(), lr=0.1) for name, m in
               (("greedy", greedy), ("modest", modest))}  # fmt: skip

    state = run(greedy, Phase(epochs=2), optimizer=descent["greedy"])
    expected = run(modest, Phase(epochs=2), optimizer=descent["modest"])

    assert state.micro_batch == 2
    assert torch.allclose(greedy.inner.weight, modest.weight, atol=1e-6)
    assert state.records[-1]["train_loss"] == pytest.approx(expected.records[-1]["train_loss"])
    assert state.records[-1]["train_accuracy"] == expected.records[-1]["train_accuracy"]


@pytest.mark.parametrize("weight", [None, "balanced", {"rare": 9.0}])
@pytest.mark.parametrize("shared", [0.0, 0.3], ids=["one class each", "mixed targets"])
def test_parts_of_a_batch_count_by_the_weights_of_their_classes(weight, shared):
    labels = ["common"] * 6 + ["rare"] * 2
    weights = class_weights(weight, labels, ["common", "rare"])
    settings = LoopConfig(
        loss=make_loss(label_smoothing=0.1, class_weights=weights), class_weights=weights
    )
    rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.eye(2)[[0] * 6 + [1] * 2]
    targets = (1 - shared) * targets + shared * targets.roll(1, 0)

    moved, losses = [], []
    for size in (None, 4, 2):
        torch.manual_seed(0)
        network = nn.Linear(5, 2)
        descent = torch.optim.SGD(network.parameters(), lr=1.0)
        state, draw = State(micro_batch=size), generator(0, "step")
        losses.append(take_step(network, descent, rows, targets, state, settings, random=draw)[0])
        moved.append(network.weight.detach())

    assert torch.allclose(moved[1], moved[0], atol=1e-6)
    assert torch.allclose(moved[2], moved[0], atol=1e-6)
    assert losses == pytest.approx([losses[0]] * 3)


def test_memory_for_less_than_two_samples_is_an_error_that_says_what_to_do():
    class Hungry(nn.Linear):
        def forward(self, rows):
            raise MemoryError("nothing left")

    with pytest.raises(RegraftError, match="smaller images") as caught:
        run(Hungry(4, 2), Phase(epochs=1))

    assert caught.value.code == "TRAIN-MEMORY"
    assert "nothing left" in caught.value.why


def test_another_error_of_the_network_is_not_taken_for_a_lack_of_memory():
    class Broken(nn.Linear):
        def forward(self, rows):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run(Broken(4, 2), Phase(epochs=1))


def test_the_time_budget_ends_the_phase_with_an_epoch_that_is_measured(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("regraft.training.loop.time.perf_counter", lambda: float(next(clock)))
    settings = LoopConfig(batch_size=8, time_budget=5.0)

    state = run(net(), Phase(epochs=50), validation=part(8), config=settings)

    assert state.stopped == "time budget"
    assert 1 <= state.epoch < 50
    assert "val_accuracy" in state.records[-1]


@pytest.mark.parametrize("batch_size", [3, 5, 7])
def test_a_batch_cut_into_parts_never_leaves_one_sample_alone_with_batch_norm(batch_size):
    class Greedy(nn.Sequential):
        def forward(self, rows):
            if self.training and len(rows) > 3:
                raise MemoryError
            return super().forward(rows)

    seen = []
    network = Greedy(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    network[0].register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))

    state = run(
        network, Phase(epochs=1), part(batch_size), config=LoopConfig(batch_size=batch_size)
    )

    assert state.epoch == 1
    assert min(seen) >= 2


def test_validation_takes_no_larger_batches_than_training_found_room_for():
    class Small(nn.Linear):
        def forward(self, rows):
            if len(rows) > 4:
                raise MemoryError
            return super().forward(rows)

    state = run(Small(4, 2), Phase(epochs=1), validation=part(20, seed=1))

    assert state.micro_batch == 4
    assert "val_loss" in state.records[0]


def test_a_validation_that_does_not_fit_says_how_large_its_batches_were():
    class Odd(nn.Linear):
        def forward(self, rows):
            if not self.training:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(rows)

    with pytest.raises(RegraftError, match="validation in batches of 8 - CUDA") as caught:
        run(Odd(4, 2), Phase(epochs=1), validation=part(20, seed=1))

    assert caught.value.code == "TRAIN-MEMORY"
