"""What is told of a training stands in its file; a first signal ends it at the next safe place."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.errors import RegraftError
from regraft.training import callbacks as module
from regraft.training.batches import LabelledImages
from regraft.training.callbacks import (
    History,
    LiveFile,
    ProgressDisplay,
    TensorBoard,
    stoppable,
)
from samples import refused

MEASURED = {"train_loss": 0.5, "train_accuracy": 0.8, "lr": 0.001, "seconds": 2.0}


def epoch(number):
    return {"phase": 1, "epoch": number, **MEASURED}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "history.jsonl"


def lines(file):
    return [json.loads(text) for text in file.read_text().splitlines()]


@pytest.fixture
def full(monkeypatch):
    """Return a switch that makes every write to the disk fail."""
    state = {"on": False}
    really_open, really_write = Path.open, module.write_text

    def opened(self, mode="r", **options):
        if state["on"] and "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_open(self, mode, **options)

    def written(path, text):
        if state["on"]:
            raise RegraftError("cannot write", why="No space left on device")
        really_write(path, text)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(module, "write_text", written)

    def switch(on):
        state["on"] = on

    return switch


def hear(history, *records):
    for record in records:
        with contextlib.suppress(RegraftError, OSError):  # as the trainer does
            history.on_epoch(record, number=record["epoch"], epochs=9)


def started(file, *records):
    history = History(file)
    with contextlib.suppress(RegraftError):
        history.on_start(records)
    return history


def test_a_resumed_training_begins_with_what_its_checkpoint_knows(file):
    file.write_text(json.dumps(epoch(1)) + "\n" + json.dumps(epoch(2)) + "\n" + '{"phase": 1, "ep')

    history = started(file, epoch(1))
    for number in (2, 3):  # there is a line as soon as an epoch is over
        hear(history, epoch(number))
        assert lines(file) == [epoch(n) for n in range(1, number + 1)]


def test_what_is_missing_is_caught_up_on_as_soon_as_there_is_space(file, full):
    full(True)
    history = started(file, epoch(1))
    hear(history, epoch(2))
    assert "No space left" in str(refused(history.close))
    full(False)

    hear(history, epoch(3))
    caught_up = lines(file)
    full(True)
    hear(history, epoch(4))
    full(False)
    history.close()

    assert caught_up == [epoch(n) for n in (1, 2, 3)]
    assert lines(file) == [epoch(n) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_a_line_per_epoch_elsewhere(
    terminal, capsys, monkeypatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    shown = ProgressDisplay()

    shown.on_message("hello")
    shown.on_phase("Phase 1", 2)
    shown.on_step()
    shown.on_epoch(epoch(1), number=1, epochs=4)
    shown.on_phase_end()
    shown.on_phase("Phase 2", 2)  # a second bar needs the first one to have ended
    shown.close()

    told = capsys.readouterr().err
    assert told.startswith("hello\n")
    assert ("phase 1, epoch 1 of 4" in told) == ("6 s left" in told) == (not terminal)
    assert ("Phase 2" in told) == terminal


# --- live.json


PLACES = ("a.jpg", Path.home() / "b.jpg", np.zeros((2, 2, 3), np.uint8))


def live_file(file, images=PLACES):
    labels = [name for name, _ in zip("xyx" * 9, images, strict=False)]
    return LiveFile(file, LabelledImages(images, labels, ("x", "y"), None), planned=[2, 9])


def answer(live, logits, *, number):
    for batch in torch.tensor(logits).split(2):
        live.on_validation(batch)
    live.on_epoch(epoch(number), number=number, epochs=9)


def test_whoever_looks_on_sees_what_the_last_epoch_took_the_images_for(tmp_path):
    live, big = live_file(tmp_path / "live.json"), 20.0
    live.on_start([])
    answer(live, [[0.0, big], [0.0, big], [0.0, 0.0]], number=1)
    answer(live, [[big, 0.0], [0.0, big], [0.0, big]], number=2)
    live.close()

    found = json.loads((tmp_path / "live.json").read_text())
    assert (found["planned"], found["classes"]) == ([2, 9], ["x", "y"])
    assert found["images"][1:] == [["~/b.jpg", "y"], [None, "x"]]
    assert found["images"][0] == [str(Path.cwd() / "a.jpg"), "x"]
    assert found["counts"] == [[0, 0, 1], [0, 1, 1], [1, 1, 1]]  # true, predicted, images
    first, second = found["epochs"]
    assert first == {"number": 1, "answers": [[1, 1.0], [1, 1.0], [0, 0.5]]}
    assert (second["number"], [code for code, _ in second["answers"]]) == (2, [0, 1, 1])


def test_one_output_stands_for_two_classes(tmp_path):
    live = live_file(tmp_path / "live.json")
    answer(live, [[-20.0], [20.0], [20.0]], number=1)
    live.close()

    found = json.loads((tmp_path / "live.json").read_text())
    assert found["epochs"][0]["answers"] == [[0, 1.0], [1, 1.0], [1, 1.0]]


def test_a_resumed_training_keeps_the_epochs_before_and_the_file_stays_small(tmp_path):
    logits = [[0.0, 1.0]] * 27
    live = live_file(tmp_path / "live.json", images=[f"{n}.jpg" for n in range(27)])
    for number in range(1, 101):
        answer(live, logits, number=number)
    live.close()

    again = live_file(tmp_path / "live.json", images=[f"{n}.jpg" for n in range(27)])
    again.on_start([{}] * 99)  # the checkpoint does not know the hundredth

    found = json.loads((tmp_path / "live.json").read_text())
    assert [one["number"] for one in found["epochs"]] == list(range(41, 100))
    assert len(found["images"]) == len(found["epochs"][0]["answers"]) == 12
    assert found["counts"] == [[0, 1, 18], [1, 1, 9]]


@pytest.mark.parametrize("left", ["[]", "{", '{"epochs": [3]}'])
def test_a_damaged_file_of_an_earlier_training_gives_way(tmp_path, left):
    (tmp_path / "live.json").write_text(left)

    live_file(tmp_path / "live.json").on_start([])

    assert json.loads((tmp_path / "live.json").read_text())["epochs"] == []


def test_without_validation_images_there_is_only_what_is_planned(tmp_path):
    live = LiveFile(tmp_path / "live.json", None, planned=[3])
    live.on_start([])
    live.on_epoch(epoch(1), number=1, epochs=3)

    found = json.loads((tmp_path / "live.json").read_text())
    assert found == {"planned": [3], "epochs": [], "images": [], "counts": []}


def test_tensorboard_gets_every_measurement_of_every_epoch(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path / "events")
    for number, loss in enumerate((0.9, 0.7, 0.5), start=1):
        record = {**MEASURED, "phase": 1 + (number == 3), "epoch": number % 3, "train_loss": loss}
        board.on_epoch(record, number=number, epochs=2)
    board.close()

    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()

    assert set(events.Tags()["scalars"]) == set(MEASURED)
    steps = [(event.step, round(event.value, 3)) for event in events.Scalars("train_loss")]
    assert steps == [(1, 0.9), (2, 0.7), (3, 0.5)]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install regraft[track]" in str(refused(TensorBoard, tmp_path))


# --- signals


STEPS = ["0", "1", "2", "written"]
# Each program of interruptible.py: what it says, and how it ends.
PROGRAMS = {
    ("in_a_step", int(signal.SIGINT)): (STEPS, -signal.SIGINT),
    ("in_a_step", int(signal.SIGTERM)): (STEPS, 143),
    ("twice",): (["still at work"], -signal.SIGINT),  # the second one stops at once
    ("in_the_last_step",): (["written"], -signal.SIGINT),
    ("ignored",): (["0", "1", "2"], 0),
    ("let_pass",): (["written", f"passed {int(signal.SIGTERM)}"], 143),  # not a finished work
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="programs are forked")
def test_the_step_is_finished_then_a_checkpoint_written_then_the_signal_takes_effect():
    file = Path(__file__).with_name("interruptible.py")
    command = [sys.executable, str(file), json.dumps(list(PROGRAMS))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)

    ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert dict(zip(PROGRAMS, map(tuple, ended), strict=True)) == PROGRAMS


def test_outside_the_main_thread_nothing_is_listened_to():
    done = []

    def work():
        with stoppable(lambda: None) as check_stop:
            check_stop()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert done == [True]
