"""A first signal ends the work at the next safe place, a second one at once."""

import os
import signal
import threading

import pytest

from regraft.training.interruption import stoppable


@pytest.fixture(autouse=True)
def raising_signals():
    """Let both signals raise, as in the command line; in the background Ctrl-C is ignored."""

    def terminate(_number, _frame):
        raise SystemExit(143)

    handlers = {signal.SIGTERM: terminate, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "outcome"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_the_step_is_finished_then_a_checkpoint_written_then_the_signal_takes_effect(
    number, outcome
):
    events = []

    def work():
        with stoppable(lambda: events.append("written")) as stop_if_asked:
            for step in range(5):
                if step == 2:
                    os.kill(os.getpid(), number)
                events.append(step)
                stop_if_asked()

    with pytest.raises(outcome):
        work()

    assert events == [0, 1, 2, "written"]


def test_a_second_signal_stops_at_once():
    events = []

    def work():
        with stoppable(lambda: events.append("written")):
            os.kill(os.getpid(), signal.SIGINT)
            events.append("still at work")
            os.kill(os.getpid(), signal.SIGINT)
            events.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()

    assert events == ["still at work"]


def test_a_signal_during_the_last_step_is_not_lost():
    events = []

    with pytest.raises(KeyboardInterrupt), stoppable(lambda: events.append("written")):
        os.kill(os.getpid(), signal.SIGINT)

    assert events == ["written"]


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


def test_a_signal_that_the_program_ignores_stays_ignored():
    events = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    with stoppable(lambda: events.append("written")) as stop_if_asked:
        for step in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            stop_if_asked()
            events.append(step)

    assert events == [0, 1, 2]


def test_a_handler_that_lets_the_signal_pass_does_not_make_the_work_a_finished_one():
    seen = []
    signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))

    def work():
        with stoppable(lambda: seen.append("written")) as stop_if_asked:
            os.kill(os.getpid(), signal.SIGTERM)
            stop_if_asked()

    with pytest.raises(SystemExit) as caught:
        work()

    assert seen == ["written", signal.SIGTERM]
    assert caught.value.code == 143
