"""What all commands share: options made from the fields of settings classes, and what is printed.

A command takes settings as arguments, ``data: DataConfig``. Each field of the class that stands in
``PANELS`` becomes an option of the same name, explained by the class's docstring, and the command
gets one checked value. Data go to standard output, everything else to standard error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import shlex
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin
from typing import get_type_hints as hints_of

import typer
from typer.core import TyperCommand

from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.errors import ImageError
    from regraft.report.tables import Table
    from regraft.results.comparison import Comparison
    from regraft.results.run import Run

# Holds the classes and their PANELS; is imported when the options of a command are needed.
SETTINGS = "regraft.experiment.config"
EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3
STARTED: dict[str, float] = {}  # when the process began, under "at"; empty where a test calls
EXIT_INTERRUPTED, EXIT_BROKEN_PIPE, EXIT_TERMINATED = 130, 141, 143
_SPELLED = {"arguments": "--arg", "start": "--from"}  # the other options are called --FIELD
_METAVARS = """
source:DATA backbone:NAME weights:FILE arguments:KEY=VALUE head:NAME augment:TEXT regularize:TEXT
unfreeze:PART group_by:REGEX label_from_name:REGEX root:FOLDER start:RUN time_budget:TIME
"""
_FIRST, _OTHER = "Arguments", "Options"  # headings of what does not stand in PANELS

TableFormat = Literal["text", "markdown", "latex", "csv"]


@dataclasses.dataclass(frozen=True)
class Fields:
    """Which fields of its settings a command takes, beside the class in ``Annotated``.

    Args:
        only: Their names, separated by spaces; empty for all.
        without: The names of those that it does not take.
        own: The names of those that it has options of its own for, with other values or defaults.
    """

    only: str = ""
    without: str = ""
    own: str = ""

    def has(self, name: str) -> bool:
        """Return whether the command takes this field."""
        left_out = (*self.without.split(), *self.own.split())
        return (not self.only or name in self.only.split()) and name not in left_out


def opt(
    told: str, metavar: str | None = None, *names: str, panel: str | None = None, **more: Any
) -> Any:
    """Return an option of a command's own.

    Args:
        told: What it means.
        metavar: What its value is called in the help.
        *names: Its spellings, where it is not called like the parameter.
        panel: The heading above it.
        **more: As for ``typer.Option``.
    """
    return typer.Option(*names, help=told, metavar=metavar, rich_help_panel=panel, **more)


def arg(told: str, metavar: str) -> Any:
    """Return an argument of a command's own; see ``opt``."""
    return typer.Argument(help=told, metavar=metavar)


def out(told: str, metavar: str | None = "FOLDER", *names: str) -> Any:
    """Return an option about what is written or printed; see ``opt``."""
    return opt(told, metavar, *names, panel="Output")


FormatOption = Annotated[TableFormat, out("Form of the table.", None, "--format")]
JsonOption = Annotated[bool, opt("Print one JSON object.", None, "--json", panel="Output")]
JsonLinesOption = Annotated[bool, opt("Print JSON, a line each.", None, "--json", panel="Output")]


def add_commands(app: typer.Typer, functions: Mapping[str, Callable[..., Any]]) -> None:
    """Add functions to a group of commands; their options are made when they are needed."""
    for name, function in functions.items():
        app.command(name, cls=_waiting(name, function), help=inspect.getdoc(function))(lambda: None)


def _waiting(name: str, function: Callable[..., Any]) -> type[TyperCommand]:
    class Waiting(TyperCommand):
        def make_context(self, *args: Any, **extra: Any) -> Any:
            app = typer.Typer(
                add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
            )
            app.command(name, cls=_Command)(with_options(function))
            return typer.main.get_command(app).make_context(*args, **extra)

    return Waiting


class _Command(TyperCommand):
    """A command whose help has a list for each heading."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the lists."""
        panels: dict[str, list[tuple[str, str]]] = {name: [] for name in (_FIRST, *_panels())}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            panel = getattr(param, "rich_help_panel", None) or _OTHER
            panel = _FIRST if param.param_type_name == "argument" else panel
            if record is not None:
                panels.setdefault(panel, []).append(record)
        for name, records in panels.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the fields of its settings as parameters of their own.

    Args:
        function: Its parameters whose annotation is a settings class, or ``Annotated`` with one and
            ``Fields``, are taken apart.
    """
    names = {**vars(importlib.import_module(SETTINGS)), **function.__globals__}
    hints = hints_of(function, names, include_extras=True)
    own: list[inspect.Parameter] = []
    first: list[inspect.Parameter] = []  # arguments, in the order in which the command has them
    made: dict[str, tuple[Any, list[str]]] = {}
    fields: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if hasattr(kind, "__pydantic_fields__"):
            taken = next((note for note in notes if isinstance(note, Fields)), Fields())
            made[parameter.name] = (kind, taken.own.split())
            for option in _options_of(kind, taken):
                fields.setdefault(option.name, option)
                first += [option] * (option.default is inspect.Parameter.empty)
        else:
            for note in notes if parameter.default is False else ():
                if note.default is ...:  # typer has the first name here; without a --no- form
                    note.default = f"--{parameter.name.replace('_', '-')}"
            own.append(parameter.replace(annotation=hint, kind=parameter.KEYWORD_ONLY))
            first += own[-1:] * (parameter.default is inspect.Parameter.empty)

    def call(**given: Any) -> Any:
        values = {name: given.pop(name) for name in fields}
        changed = {name: v for name, v in values.items() if v != fields[name].default}
        if "arguments" in changed:
            changed["arguments"] = read_pairs(changed["arguments"])
        for name, (kind, also) in made.items():
            known = {field.name for field in dataclasses.fields(kind)}
            chosen = changed | {field: given[field] for field in also}
            given[name] = kind(**{f: value for f, value in chosen.items() if f in known})
        needed = not any(getattr(given[name], "holds_features", False) for name in made)
        if needed and "backbone" in values and "backbone" not in changed:
            echo_default(names["DEFAULT_BACKBONE"])
        return function(**given)

    parameters = [*first, *(one for one in (*fields.values(), *own) if one not in first)]
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def read_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` texts as a table: numbers, truth values, and lists with commas.

    Raises:
        UsageError: A text has no key or no ``=``.

    Example:
        >>> read_pairs(["pad_type=same", "channel_multiplier=0.5", "mean=0.5,0.4,0.3"])
        {'pad_type': 'same', 'channel_multiplier': 0.5, 'mean': [0.5, 0.4, 0.3]}
    """
    from regraft.settings import parse_value

    table = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError("not a setting", path=pair, hint="write KEY=VALUE")
        values = [parse_value(part) for part in text.split(",")]
        table[key] = values if len(values) > 1 else values[0]
    return table


def _panels() -> Mapping[str, tuple[str, ...]]:
    panels: Mapping[str, tuple[str, ...]] = importlib.import_module(SETTINGS).PANELS
    return panels


def _options_of(kind: Any, taken: Fields) -> list[inspect.Parameter]:
    """Return an argument for each field without a default, and an option for the others."""
    from regraft.settings import field_help

    hints, told = hints_of(kind, include_extras=True), field_help(kind)
    panels = {name: panel for panel, names in _panels().items() for name in names}
    metavars = dict(pair.split(":") for pair in _METAVARS.split())
    options = []
    for field in dataclasses.fields(kind):
        name, default = field.name, field.default
        argument = default is field.default_factory is dataclasses.MISSING
        if not taken.has(name) or not (argument or name in panels):
            continue
        facts: dict[str, Any] = {"help": told[name], "metavar": metavars.get(name)}
        facts["rich_help_panel"] = panels.get(name, next(iter(_panels())))
        if name == "backbone":  # whether it was named is told apart from its default
            facts["show_default"], default = str(default), None
        elif argument:
            default = inspect.Parameter.empty
        elif default is dataclasses.MISSING or default == "default":
            facts["show_default"], default = False, None
        known, ranges = _option_type(name, hints[name])
        spelled = _SPELLED.get(name, f"--{name.replace('_', '-')}")
        spelled += f"/--no-{spelled[2:]}" if default is True else ""
        note = typer.Argument(**facts) if argument else typer.Option(spelled, **facts, **ranges)
        annotation: Any = Annotated[known | None if default is None else known, note]
        keyword = inspect.Parameter.KEYWORD_ONLY
        options.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))
    return options


def _option_type(name: str, hint: Any) -> tuple[Any, dict[str, Any]]:
    """Return the type of a field's option, and the least and the greatest value."""
    members, notes = _parts(hint)
    if name == "arguments":
        return list[str], {}
    plain = members[0] in {bool, int, float, Path} or get_origin(members[0]) is Literal
    if len(members) > 1 or not plain or any(hasattr(note, "func") for note in notes):
        return str, {}  # the class itself reads it
    ranges = {"min": None, "max": None}
    for fact in (fact for note in notes for fact in getattr(note, "metadata", ())):
        ranges["min"] = getattr(fact, "ge", ranges["min"])
        ranges["max"] = getattr(fact, "le", ranges["max"])
    return members[0], ranges


def _parts(hint: Any) -> tuple[list[Any], list[Any]]:
    """Return the types that a value may have, without None, and the notes beside them."""
    if get_origin(hint) is Annotated:
        members, notes = _parts(get_args(hint)[0])
        return members, [*notes, *hint.__metadata__]
    if get_origin(hint) in {Union, types.UnionType}:
        members, notes = zip(*(_parts(part) for part in get_args(hint)), strict=True)
        return list(chain(*members)), list(chain(*notes))
    return ([] if hint is type(None) else [hint]), []


# ---- what is printed ----------------------------------------------------------------------------


class ReaderLeft(BaseException):
    """Nobody reads the data any more; a BaseException so that no handler for errors swallows it."""


class _OptionalOutput(io.FileIO):
    """An output that is lost where nobody takes it, without harm to the work that writes it."""

    def write(self, data: Any) -> int:
        """Write what can be written, and say that all of it was."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def prepare_streams() -> None:
    """Let names of any bytes come in and go out, and a closed terminal end no training."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # a stream that the shell has closed is None
            with contextlib.suppress(io.UnsupportedOperation):  # somebody has read from it before
                stream.reconfigure(errors=errors)
    if sys.stderr is None:
        return
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_OptionalOutput(sys.stderr.fileno(), "w", closefd=False)),
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def echo_err(text: str = "") -> None:
    """Print a line for the person at the terminal (standard error)."""
    print(text, file=sys.stderr, flush=True)


def echo(text: str) -> None:
    """Print data (standard output).

    Raises:
        ReaderLeft: Whoever read it has left.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise ReaderLeft from error


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Print one JSON value on standard output; names that are not UTF-8 survive as escapes.

    Args:
        value: JSON values.
        indent: None for one line (JSON Lines).
    """
    echo(json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False))


def echo_table(table: Table, *, form: TableFormat = "text") -> None:
    """Print a table in the form that was asked for."""
    echo(getattr(table, f"to_{form}")())


def table_json(table: Table) -> dict[str, Any]:
    """Return a table as one JSON object: its rows by the names of the columns, and its notes."""
    from regraft.settings import to_json

    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {"rows": to_json(rows), "notes": list(table.notes)}


def echo_either(
    value: Any, shown: str | Table, *, as_json: bool, form: TableFormat = "text"
) -> None:
    """Print one JSON object, or what people read: a text or a table."""
    if as_json:
        echo_json(value)
    elif isinstance(shown, str):
        echo(shown)
    else:
        echo_table(shown, form=form)


def echo_refused(errors: Collection[ImageError], *, as_json: bool) -> int:
    """Name the images that were left out, with the reasons; return the exit code.

    Args:
        errors: Their errors.
        as_json: Whether JSON that was printed names them already.
    """
    for error in () if as_json else errors:
        echo_err(f"refused: {error}")
    return EXIT_REFUSED if errors else 0


def echo_comparison(
    comparison: Comparison, page: Path | None, *, form: TableFormat, as_json: bool
) -> int:
    """Print a comparison, and where its page is; return the exit code."""
    from regraft.report.comparison_page import comparison_table

    if as_json:
        echo_json(comparison.to_json(None if page is None else str(page)))
    elif comparison.rows:
        echo_table(comparison_table(comparison), form=form)
    if page is not None and not as_json:
        echo_err(f"page:   {page}")
    if comparison.failures:
        return EXIT_FAILED
    return refused_code(*(run for row in comparison.rows for run in row.runs))


def echo_default(backbone: str) -> None:
    """Say which network is used where none was named, and the way to better ones."""
    echo_err(
        f"no --backbone named: {backbone} is used; for better ones see `regraft backbones list` and"
        " `regraft backbones rank`"
    )


def refused_code(*runs: Run) -> int:
    """Return the exit code of runs that are finished: 3 where images were left out of some."""
    return EXIT_REFUSED if any((run.check or {}).get("bad") for run in runs) else 0


def command_line() -> str:
    """Return the command as it was typed, quoted for a shell."""
    return shlex.join(["regraft", *sys.argv[1:]])
