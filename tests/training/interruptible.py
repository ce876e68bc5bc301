"""Programs that send themselves signals; `python interruptible.py PROGRAMS` runs each.

Each has a process of its own: a real signal to the process that runs the tests could end them all.
What each has said and how it ended is printed as a line of JSON.
"""

import json
import os
import signal
import sys

from regraft.training.callbacks import stoppable


def say(*words):
    """Write a line at once: what comes next may end the process."""
    print(*words, flush=True)


def send(number):
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def written():
    """Stand for the checkpoint."""
    say("written")


def terminate(_number, _frame):
    """Leave as the command line does on SIGTERM."""
    raise SystemExit(143)


def in_a_step(number):
    """Take five steps; the signal comes in the third."""
    with stoppable(written) as check_stop:
        for step in range(5):
            if step == 2:
                send(number)
            say(step)
            check_stop()


def twice():
    """Get a second signal before the step is over."""
    with stoppable(written):
        send(signal.SIGINT)
        say("still at work")
        send(signal.SIGINT)
        say("never")


def in_the_last_step():
    """Get a signal after which nobody asks any more."""
    with stoppable(written):
        send(signal.SIGINT)


def ignored():
    """Get signals that this program ignores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable(written) as check_stop:
        for step in range(3):
            send(signal.SIGINT)
            check_stop()
            say(step)


def let_pass():
    """Get a signal whose handler returns."""
    signal.signal(signal.SIGTERM, lambda number, _frame: say("passed", int(number)))
    with stoppable(written) as check_stop:
        send(signal.SIGTERM)
        check_stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, *arguments in json.loads(sys.argv[1]):
        said, told = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(told, 1)
            globals()[name](*arguments)
            sys.exit()
        os.close(told)
        with os.fdopen(said) as stream:
            lines = stream.read().splitlines()
        say(json.dumps([lines, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]))
