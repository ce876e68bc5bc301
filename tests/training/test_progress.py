"""What is told about a training stands in its file, or is said to be missing and caught up on."""

import errno
import json
import sys
from pathlib import Path

import pytest
from regraft.training.progress import Listeners, TensorBoard, line

from regraft.errors import UsageError
from regraft.files import unfinished_mark
from regraft.training import progress

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
    really_open, really_write = Path.open, progress.write_text

    def opened(self, mode="r", **options):
        if state["on"] and "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_open(self, mode, **options)

    def written(path, text):
        if state["on"]:
            raise progress.RegraftError("cannot write", why="No space left on device")
        really_write(path, text)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(progress, "write_text", written)

    def switch(on):
        state["on"] = on

    return switch


def test_there_is_a_line_per_epoch_as_soon_as_it_is_over(file):
    listeners = Listeners(file=file)
    listeners.begin([])

    for number in (1, 2, 3):
        listeners.epoch(epoch(number), of=3)
        assert lines(file) == [epoch(n) for n in range(1, number + 1)]


def test_a_resumed_training_begins_with_what_its_checkpoint_knows(file):
    file.write_text(json.dumps(epoch(1)) + "\n" + json.dumps(epoch(2)) + "\n" + '{"phase": 1, "ep')

    listeners = Listeners(file=file)
    listeners.begin([epoch(1)])
    listeners.epoch(epoch(2), of=2)

    assert lines(file) == [epoch(1), epoch(2)]


def test_what_a_killed_writer_left_beside_the_file_goes(file):
    left = file.with_name(f".history.jsonl.{unfinished_mark(2**22 + 1)}.part")
    left.write_text("half")

    Listeners(file=file).begin([])

    assert not left.exists()
    assert lines(file) == []


def test_a_full_disk_does_not_end_the_training_and_is_said_once(file, full, capsys):
    listeners = Listeners(file=file, verbose=True)
    listeners.begin([])
    listeners.epoch(epoch(1), of=3)
    full(True)

    for number in (2, 3):
        listeners.epoch(epoch(number), of=3)
    listeners.close()

    [note] = listeners.notes
    assert f"{file} could not be written: No space left on device; " in note
    assert note.endswith("bytes are free there")
    assert capsys.readouterr().err.count("could not be written") == 1
    assert lines(file) == [epoch(1)]


def test_what_is_missing_is_caught_up_on_as_soon_as_there_is_space(file, full):
    listeners = Listeners(file=file)
    full(True)
    listeners.begin([epoch(1)])
    listeners.epoch(epoch(2), of=4)
    full(False)

    listeners.epoch(epoch(3), of=4)
    caught_up = lines(file)
    listeners.epoch(epoch(4), of=4)

    assert caught_up == [epoch(n) for n in (1, 2, 3)]
    assert lines(file) == [epoch(n) for n in (1, 2, 3, 4)]
    assert listeners.notes == []


def test_the_last_chance_to_catch_up_is_at_the_end(file, full):
    listeners = Listeners(file=file)
    listeners.begin([])
    full(True)
    listeners.epoch(epoch(1), of=1)
    full(False)

    listeners.close()

    assert lines(file) == [epoch(1)]
    assert listeners.notes == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_line_that_a_full_disk_has_cut_does_not_stay(file):
    listeners = Listeners(file=file)
    listeners.begin([])
    file.unlink()
    file.symlink_to("/dev/full")  # takes the bytes and has no space for them

    listeners.epoch(epoch(1), of=2)
    assert listeners.notes
    file.unlink()
    file.write_text('{"phase": 1, "epo')
    listeners.epoch(epoch(2), of=2)

    assert lines(file) == [epoch(1), epoch(2)]


def test_without_a_file_and_unasked_nothing_is_written_or_said(tmp_path, capsys):
    listeners = Listeners()
    listeners.begin([])
    listeners.say("hello")
    with listeners.phase("Phase 1", 2) as advance:
        advance()
    listeners.epoch(epoch(1), of=1)
    listeners.close()

    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_line_has_validation_where_there_is_one():
    told = line({**epoch(1), "val_loss": 0.25, "val_accuracy": 0.9}, of=2)

    assert "validation 0.2500, 90.0 %" in told
    assert told.endswith("2 s left")


def test_tensorboard_gets_every_measurement_of_every_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    listeners = Listeners(callbacks=[TensorBoard(tmp_path / "events")])
    listeners.begin([])
    for phase, epoch, loss in ((1, 1, 0.9), (1, 2, 0.7), (2, 1, 0.5)):
        measured = {"train_loss": loss, "train_accuracy": 0.5, "lr": 0.1, "seconds": 1.0}
        listeners.epoch({"phase": phase, "epoch": epoch, **measured}, of=2)
    listeners.close()

    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()

    assert set(events.Tags()["scalars"]) == {"train_loss", "train_accuracy", "lr", "seconds"}
    steps = [(event.step, round(event.value, 3)) for event in events.Scalars("train_loss")]
    assert steps == [(1, 0.9), (2, 0.7), (3, 0.5)]


def test_without_tensorboard_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    with pytest.raises(UsageError, match=r"pip install regraft\[track\]"):
        TensorBoard(tmp_path)
