"""The commands put together, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import Abort, TyperException

import regraft.cli.options as cli
from regraft.cli.data import COMMANDS as DATA
from regraft.cli.learn import COMMANDS as LEARN
from regraft.cli.networks import BACKBONES, WEIGHTS
from regraft.cli.use import COMMANDS as USE
from regraft.errors import RegraftError
from regraft.system import __version__

app = typer.Typer(
    name="regraft",
    help="Find out which way of transfer learning works on your images.",
    epilog="Start with `regraft demo`, or with `regraft fit FOLDER`.",
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


def _group(name: str, told: str, functions: Mapping[str, Callable[..., Any]]) -> None:
    group = typer.Typer(help=told, no_args_is_help=True)
    cli.add_commands(group, functions)
    app.add_typer(group, name=name)


_group("data", "Look at images before learning from them.", DATA)
_group("backbones", "The networks that can be transferred.", BACKBONES)
cli.add_commands(app, LEARN | USE)
_group("weights", "The weights of networks: what is here, and how more come in.", WEIGHTS)


def _on_sigterm(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def main(begun: float) -> NoReturn:
    """Run the command line and leave with its exit code.

    Args:
        begun: When the process began, by ``time.perf_counter``.

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but some images were refused, 130 and
    143 interrupted, 141 nobody read the output to its end.
    """
    cli.STARTED["at"] = begun
    signal.signal(signal.SIGTERM, _on_sigterm)
    cli.prepare_streams()
    try:
        result = app(standalone_mode=False)
    except cli.ReaderLeft:  # Python's last flush of what nobody reads stays silent
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(cli.EXIT_BROKEN_PIPE)
    except (Exception, KeyboardInterrupt, _Terminated) as error:  # noqa: BLE001 - the last resort
        if _DEBUG["on"]:
            traceback.print_exception(error)
        line, code = _explained(error)
        cli.echo_err(f"regraft: {line}")
        sys.exit(code)
    finally:
        cli.STARTED.clear()
    if result == cli.EXIT_INTERRUPTED:  # the parser has caught Ctrl-C itself
        cli.echo_err("regraft: interrupted")
    sys.exit(result if isinstance(result, int) else 0)


def _explained(error: BaseException) -> tuple[str, int]:
    """Return in one line why the command ended, and its exit code."""
    if isinstance(error, TyperException):
        return f"error: {error.format_message()} - see --help [USAGE]", cli.EXIT_USAGE
    if isinstance(error, RegraftError):
        return f"error: {error} [{error.code}]", error.exit_code
    if isinstance(error, KeyboardInterrupt | Abort):
        return "interrupted", cli.EXIT_INTERRUPTED
    if isinstance(error, _Terminated):
        return "terminated", cli.EXIT_TERMINATED
    hint = "please report it; `regraft --debug` before the command shows where"
    return f"unexpected error: {type(error).__name__}: {error} - {hint}", cli.EXIT_FAILED
