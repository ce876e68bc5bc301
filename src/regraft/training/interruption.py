"""Ctrl-C and SIGTERM while a network is trained: finish the step, write a checkpoint, leave."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class _Stop(BaseException):
    pass


@contextlib.contextmanager
def stoppable(write: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Give a function to call between two steps; after a first signal it ends the block.

    Then a checkpoint is written and the program's own handler gets the signal. A second signal
    goes to that handler at once. A signal that the program ignores stays ignored.

    Args:
        write: Writes the checkpoint.

    Yields:
        A function to call wherever the work may stop.

    Raises:
        SystemExit: The program's handler let the signal pass; what was stopped is not finished.

    Example:
        >>> with stoppable(lambda: print("never")) as stop_if_asked:
        ...     stop_if_asked()
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread may listen
        return
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Shells let programs in the background ignore Ctrl-C; a handler of C cannot be put back.
    before = {n: handler for n, handler in before.items() if handler not in {signal.SIG_IGN, None}}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)
        restore()

    def stop_if_asked() -> None:
        if arrived:
            raise _Stop

    for number in before:
        signal.signal(number, remember)
    try:
        with contextlib.suppress(_Stop):
            yield stop_if_asked
    finally:
        restore()
    if arrived:
        write()
        signal.raise_signal(arrived[0])
        raise SystemExit(128 + arrived[0])
