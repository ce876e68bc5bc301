"""Data on standard output, talk on standard error, JSON where a machine reads."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143

JsonLinesOption = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, one object per line.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]


def talk(text: str = "") -> None:
    """Say something to the person at the terminal (standard error)."""
    print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print data (standard output)."""
    print(text, flush=True)


def say_json(value: Any) -> None:
    """Print one JSON value on standard output; names that are not UTF-8 survive as escapes."""
    say(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def say_json_line(value: Any) -> None:
    """Print one JSON value on one line of standard output (JSON Lines)."""
    say(json.dumps(value, ensure_ascii=True, allow_nan=False))
