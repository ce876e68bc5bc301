"""Commands whose options are the fields of settings classes: their names, types, help and ranges.

A command takes settings as arguments, ``data: DataConfig``. Each field of the class that stands in
``PANELS`` becomes an option of the same name, explained by the class's docstring, and the command
gets one checked value.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from regraft.cli.output import TableFormat, echo_err
from regraft.errors import UsageError

# Holds the classes and their PANELS; is imported when the options of a command are needed.
SETTINGS = "regraft.experiment.config"
_SPELLED = {"arguments": "--arg", "start": "--from"}  # the other options are called --FIELD
_METAVARS = """
source:DATA backbone:NAME weights:FILE arguments:KEY=VALUE head:NAME augment:TEXT regularize:TEXT
unfreeze:PART group_by:REGEX label_from_name:REGEX root:FOLDER start:RUN time_budget:TIME
mean:NUMBERS std:NUMBERS
"""
_CHANNELS = ("mean", "std")  # one number, or three with commas
_FIRST, _OTHER = "Arguments", "Options"  # headings of what does not stand in PANELS


_ONE, _LINES = "Print one JSON object on standard output.", "Print one JSON object per line."
FormatOption = Annotated[
    TableFormat, typer.Option("--format", help="Form of the table.", rich_help_panel="Output")
]
JsonOption = Annotated[bool, typer.Option("--json", help=_ONE, rich_help_panel="Output")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help=_LINES, rich_help_panel="Output")]


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


@dataclasses.dataclass(frozen=True)
class Changes:
    """Beside ``dict`` in ``Annotated``: a command takes changes of settings that are not whole.

    Args:
        kind: The name of the class in the module of ``SETTINGS``; it heads the options.
        only: The names of the fields, separated by spaces.
    """

    kind: str
    only: str


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
    hints = get_type_hints(function, names, include_extras=True)
    own: list[inspect.Parameter] = []
    made: dict[str, tuple[Any, list[str]]] = {}
    fields: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        changes = next((note for note in notes if isinstance(note, Changes)), None)
        if changes is not None:
            found = _options_of(names[changes.kind], Fields(changes.only), changes.kind)
            fields |= {option.name: option for option in found}
            made[parameter.name] = (dict, changes.only.split())
        elif hasattr(kind, "__pydantic_fields__"):
            taken = next((note for note in notes if isinstance(note, Fields)), Fields())
            made[parameter.name] = (kind, taken.own.split())
            for option in _options_of(kind, taken):
                fields.setdefault(option.name, option)
        else:
            own.append(parameter.replace(annotation=hint, kind=parameter.KEYWORD_ONLY))

    def call(**given: Any) -> Any:
        values = {name: given.pop(name) for name in fields}
        changed = {name: v for name, v in values.items() if v != fields[name].default}
        if "backbone" in values and "backbone" not in changed:
            echo_default(names["DEFAULT_BACKBONE"])
        apart = {field for kind, also in made.values() if kind is dict for field in also}
        for name, (kind, also) in made.items():
            chosen = changed | {field: given[field] for field in also if field in given}
            taken = also if kind is dict else {f.name for f in dataclasses.fields(kind)} - apart
            given[name] = kind(**{f: _read(f, v) for f, v in chosen.items() if f in taken})
        return function(**given)

    # Arguments stand on the line in the order in which the command has them.
    first = [one for one in own if one.default is inspect.Parameter.empty]
    parameters = [*first, *fields.values(), *(one for one in own if one not in first)]
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def echo_default(backbone: str) -> None:
    """Say which network is used where none was named, and the way to better ones."""
    echo_err(
        f"no --backbone named: {backbone} is used; for better ones see `regraft backbones list` and"
        " `regraft backbones rank`"
    )


def read_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` texts as a table; a number or a truth value becomes one.

    Raises:
        UsageError: A text has no key or no ``=``.

    Example:
        >>> read_pairs(["pad_type=same", "channel_multiplier=0.5"])
        {'pad_type': 'same', 'channel_multiplier': 0.5}
    """
    from regraft.settings import parse_value

    table = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(
                "not an argument of a network", path=pair, hint="write --arg KEY=VALUE"
            )
        table[key] = parse_value(text)
    return table


def _panels() -> Mapping[str, tuple[str, ...]]:
    panels: Mapping[str, tuple[str, ...]] = importlib.import_module(SETTINGS).PANELS
    return panels


def _read(name: str, value: Any) -> Any:
    """Return the value of a field from that of its option."""
    if name == "arguments":
        return read_pairs(value)
    if name not in _CHANNELS:
        return value
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in {1, 3}:
        hint = "write 0.5 or 0.485,0.456,0.406"
        raise UsageError("not a number per channel", path=value, hint=hint)
    return numbers * (3 // len(numbers))


def _options_of(kind: Any, taken: Fields, whole: str = "") -> list[inspect.Parameter]:
    """Return an option for each field, without defaults under the heading ``whole`` if given."""
    from regraft.settings import field_help

    hints, told = get_type_hints(kind, include_extras=True), field_help(kind)
    panels = {name: panel for panel, names in _panels().items() for name in names}
    metavars = dict(pair.split(":") for pair in _METAVARS.split())
    options = []
    for field in dataclasses.fields(kind):
        argument = not whole and field.default is field.default_factory is dataclasses.MISSING
        if not taken.has(field.name) or not (whole or argument or field.name in panels):
            continue
        default = inspect.Parameter.empty if argument else field.default
        facts: dict[str, Any] = {
            "help": told[field.name],
            "metavar": metavars.get(field.name),
            "rich_help_panel": whole or panels.get(field.name, next(iter(_panels()))),
        }
        if field.name == "backbone":  # whether it was named is told apart from its default
            facts["show_default"], default = str(default), None
        elif whole or default is dataclasses.MISSING or default == "default":
            facts["show_default"], default = False, None
        known, ranges = _option_type(field.name, hints[field.name])
        spelling = _spelling(field.name, default)
        note = typer.Argument(**facts) if argument else typer.Option(spelling, **facts, **ranges)
        options.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[known | None if default is None else known, note],
            )
        )
    return options


def _spelling(name: str, default: Any) -> str:
    dashed = name.replace("_", "-")
    both = f"--{dashed}/--no-{dashed}" if default is True else f"--{dashed}"
    return _SPELLED.get(name, both)


def _option_type(name: str, hint: Any) -> tuple[Any, dict[str, Any]]:
    """Return the type of a field's option, and the least and the greatest value."""
    members, notes = _parts(hint)
    if name == "arguments":
        return list[str], {}
    plain = members[0] in {bool, int, float, Path} or get_origin(members[0]) is Literal
    if len(members) > 1 or not plain or any(hasattr(note, "func") for note in notes):
        return str, {}  # the class itself reads it
    facts = [fact for note in notes for fact in getattr(note, "metadata", ())]
    ranges = {
        "min": next((fact.ge for fact in facts if hasattr(fact, "ge")), None),
        "max": next((fact.le for fact in facts if hasattr(fact, "le")), None),
    }
    return members[0], ranges


def _parts(hint: Any) -> tuple[list[Any], list[Any]]:
    """Return the types that a value may have, without None, and the notes beside them."""
    if get_origin(hint) is Annotated:
        members, notes = _parts(get_args(hint)[0])
        return members, [*notes, *hint.__metadata__]
    if get_origin(hint) in {Union, types.UnionType}:
        parts = [_parts(part) for part in get_args(hint)]
        return [m for members, _ in parts for m in members], [
            n for _, notes in parts for n in notes
        ]
    return ([] if hint is type(None) else [hint]), []
