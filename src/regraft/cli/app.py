"""The commands put together, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer.exceptions import Abort, TyperException

from regraft.cli import (
    comparing,
    demonstrating,
    fetching,
    finding,
    fitting,
    inspecting,
    looking,
    previewing,
    ranking,
    running,
    using,
    weights,
)
from regraft.cli.output import (
    EXIT_BROKEN_PIPE,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USAGE,
    ReaderLeft,
    prepare_streams,
    talk,
)
from regraft.errors import RegraftError
from regraft.version import __version__

app = typer.Typer(
    name="regraft",
    help="Find out which way of transfer learning works on your pictures.",
    epilog="Start with `regraft demo`, or with `regraft fit FOLDER --backbone NAME`.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DEBUG = {"on": False}


class _Terminated(BaseException):
    """SIGTERM arrived; a BaseException so that no handler for errors swallows it."""


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"regraft {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    _DEBUG["on"] = debug


demonstrating.add_to(app)
inspecting.add_to(app)
previewing.add_to(inspecting.data)
fetching.add_to(inspecting.data)
ranking.add_to(inspecting.backbones)
fitting.add_to(app)
running.add_to(app)
comparing.add_to(app)
finding.add_to(app)
using.add_to(app)
looking.add_to(app)
weights.add_to(app)


def _on_sigterm(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def main() -> NoReturn:
    """Run the command line and leave with its exit code.

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but some pictures were refused, 130 and
    143 interrupted, 141 nobody read the output to its end.
    """
    signal.signal(signal.SIGTERM, _on_sigterm)
    prepare_streams()
    sys.exit(_run())


def _run() -> int:
    try:
        result = app(standalone_mode=False)
    except TyperException as error:
        talk(f"regraft: error: {error.format_message()} - see --help [USAGE]")
        return EXIT_USAGE
    except ReaderLeft:
        return _leave_quietly()
    except (Exception, KeyboardInterrupt, _Terminated) as error:  # noqa: BLE001 - the last resort
        if _DEBUG["on"]:
            traceback.print_exception(error)
        return _explain(error)
    if result == EXIT_INTERRUPTED:  # the parser has caught Ctrl-C itself
        talk("regraft: interrupted")
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> int:
    """Say in one line why the command ended, and return its exit code."""
    if isinstance(error, RegraftError):
        talk(f"regraft: error: {error} [{error.code}]")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | Abort):
        talk("regraft: interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, _Terminated):
        talk("regraft: terminated")
        return EXIT_TERMINATED
    talk(f"regraft: unexpected error: {type(error).__name__}: {error}")
    talk("hint: `regraft --debug` before the command shows where; please report it")
    return 1


def _leave_quietly() -> int:
    """Point stdout, which nobody reads any more, at nothing: Python's last flush stays silent."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE
