"""A checkpoint is there whole or not at all, comes back to the bit, and is of the same work."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regraft.training import checkpoint
from regraft.training.checkpoint import Checkpoints, Progress, restore_optimizer
from regraft.training.loop import State
from regraft.training.optim import build_optimizer
from regraft.training.phases import Phase
from samples import refused

TENSORS = "tensors.safetensors"
WORK = {"seed": 0, "classes": ["a", "b"]}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def plain(state):
    """Return all of a state but its tensors, as it compares."""
    values = {k: v for k, v in vars(state).items() if k != "best_weights"}
    return {**values, "sums": state.sums.tolist()}


def progress(phase=0, value=1.0):
    state = State(epoch=2, step=3, best=(0.5, 1), best_weights={"w": torch.full((2,), value)})
    tensors = {"w": torch.full((2,), value)}
    return Progress(phase, [{"phase": 1}] * phase, [{"epoch": 1}], state=state, tensors=tensors)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw", "nadam"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_every_optimizer_goes_on_with_its_moments(folder, name, momentum):
    phase = Phase(optimizer=name, lr=0.1, momentum=momentum, weight_decay=0.01)
    network = nn.Linear(3, 2)
    other = nn.Linear(3, 2)

    def step(net, optimizer):
        optimizer.zero_grad()
        net(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()

    first = build_optimizer(phase, list(network.parameters()))
    step(network, first)
    Checkpoints(folder, WORK).write(Progress(optimizer=first.state_dict()))
    other.load_state_dict(network.state_dict())
    second = build_optimizer(phase, list(other.parameters()))
    restore_optimizer(second, Checkpoints(folder, WORK).read(), other)
    step(network, first)
    step(other, second)

    assert torch.equal(network.weight, other.weight)


def test_where_a_phase_stood_comes_back(folder):
    Checkpoints(folder, WORK).write(progress(phase=1))

    found = Checkpoints(folder, WORK).read()

    assert (found.phase, found.finished, found.optimizer) == (1, [{"phase": 1}], None)
    assert found.epochs == [{"epoch": 1}]
    assert plain(found.state) == plain(progress().state)
    assert torch.equal(found.state.best_weights["w"], torch.ones(2))


def damage_tensors(place):
    content = bytearray((place / TENSORS).read_bytes())
    content[-1] ^= 1
    (place / TENSORS).write_bytes(content)


def cut(place):
    os.truncate(place / TENSORS, (place / TENSORS).stat().st_size // 2)


def spoil_json(place):
    (place / "state.json").write_text("{")


def take_away(place):
    (place / TENSORS).unlink()


@pytest.mark.parametrize("damage", [damage_tensors, cut, spoil_json, take_away])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it_and_is_named(folder, damage):
    checkpoints = Checkpoints(folder, WORK)
    for value in (1.0, 2.0):
        checkpoints.write(progress(value=value))
    damage(folder / "000002")

    again = Checkpoints(folder, WORK)
    found = again.read()

    assert float(found.tensors["w"][0]) == 1.0
    assert "checkpoint 000002 is damaged" in again.warnings[0]
    damage(folder / "000001")
    assert refused(Checkpoints(folder, WORK).read).code == "TRAIN-CHECKPOINT"


@pytest.mark.parametrize(
    ("change", "named"),
    [({"threads": 77}, "threads differ"), ({"versions": {}}, "versions differ")],
)
def test_other_versions_or_threads_are_said_and_not_refused(folder, monkeypatch, change, named):
    Checkpoints(folder, WORK).write(progress())
    now = {**checkpoint._versions(), **change}
    monkeypatch.setattr(checkpoint, "_versions", lambda: now)

    again = Checkpoints(folder, WORK)

    assert again.read() is not None
    assert named in again.warnings[0]


@settings(max_examples=40)
@given(data=st.data())
def test_whatever_byte_is_changed_the_checkpoint_says_the_same_or_is_not_used(
    tmp_path_factory, data
):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("c"), WORK)
    for value in (1.0, 2.0):
        checkpoints.write(progress(value=value))
    file = checkpoints.folder / "000002" / data.draw(st.sampled_from(["state.json", TENSORS]))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)

    again = Checkpoints(checkpoints.folder, WORK)
    found = again.read()

    assert plain(found.state) == plain(progress().state)
    assert float(found.tensors["w"][0]) == (1.0 if again.warnings else 2.0)


def test_the_last_two_are_kept_and_a_damaged_one_is_none_of_them(folder):
    checkpoints = Checkpoints(folder, WORK)
    for value in (0.0, 1.0, 2.0):
        checkpoints.write(progress(value=value))
    assert sorted(p.name for p in folder.iterdir()) == ["000002", "000003"]
    take_away(folder / "000003")
    checkpoints.read()

    checkpoints.write(progress(value=3.0))
    take_away(folder / "000004")

    assert float(Checkpoints(folder, WORK).read().tensors["w"][0]) == 1.0


def test_where_writing_fails_the_one_before_stays(folder, monkeypatch):
    checkpoints = Checkpoints(folder, WORK)
    checkpoints.write(progress(value=1.0))

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("regraft.files.write_json", full)
    error = refused(checkpoints.write, progress(value=2.0))

    assert "No space left on device" in str(error)
    assert checkpoints.last() == folder / "000001"
    assert float(Checkpoints(folder, WORK).read().tensors["w"][0]) == 1.0


def test_a_slow_disk_is_written_to_less_often_for_as_long_as_it_is_slow(folder, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(folder, WORK, every=30)
    write = checkpoints._write

    def writing(seconds):
        def slowly(progress):
            now[0] += seconds
            write(progress)

        monkeypatch.setattr(checkpoints, "_write", slowly)
        checkpoints.write(progress())

    def due_after(seconds):
        now[0] += seconds
        return checkpoints.due()

    writing(20)
    assert not due_after(179)
    assert due_after(1)
    writing(1)
    assert not due_after(29)
    assert due_after(1)
