"""The command line: arguments in, one library call, text out; heavy imports inside commands."""

from __future__ import annotations

import os
import time
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and leave with its exit code; see :func:`regraft.cli.app.main`."""
    begun = time.perf_counter()
    try:
        from regraft.cli.app import main as run
    except KeyboardInterrupt:  # while it starts there is nothing to put in order
        os._exit(130)
    run(begun)
