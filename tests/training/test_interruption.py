"""A first signal ends the work at the next safe place, a second one at once."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from regraft.training.interruption import stoppable


def run(*program):
    """Run a program of interruptible.py; return its lines and how it ended."""
    file = Path(__file__).with_name("interruptible.py")
    command = [sys.executable, str(file), *map(str, program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.splitlines(), done.returncode


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)
def test_the_step_is_finished_then_a_checkpoint_written_then_the_signal_takes_effect(number, code):
    assert run("in_a_step", int(number)) == (["0", "1", "2", "written"], code)


def test_a_second_signal_stops_at_once():
    assert run("twice") == (["still at work"], -signal.SIGINT)


def test_a_signal_during_the_last_step_is_not_lost():
    assert run("in_the_last_step") == (["written"], -signal.SIGINT)


def test_a_signal_that_the_program_ignores_stays_ignored():
    assert run("ignored") == (["0", "1", "2"], 0)


def test_a_handler_that_lets_the_signal_pass_does_not_make_the_work_a_finished_one():
    assert run("let_pass") == (["written", f"passed {int(signal.SIGTERM)}"], 143)


def test_without_a_signal_nothing_is_written_and_the_handlers_are_the_old_ones():
    events = []
    before = signal.getsignal(signal.SIGINT)

    with stoppable(lambda: events.append("written")) as stop_if_asked:
        stop_if_asked()

    assert events == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_of_the_work_itself_restores_the_handlers():
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(ValueError, match="mine"), stoppable(lambda: None):
        raise ValueError("mine")

    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_listened_to():
    done = []

    def work():
        with stoppable(lambda: None) as stop_if_asked:
            stop_if_asked()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert done == [True]
