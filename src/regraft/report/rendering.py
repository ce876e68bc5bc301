"""Templates to HTML: everything escaped, nothing fetched."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from regraft.errors import printable
from regraft.report.tables import NUMBERS, Duration, show
from regraft.report.wording import count
from regraft.results.intervals import Estimate, percent, points

_NAMES = {"n": "Pictures learned from", "d": "Numbers per picture"}


def render(template: str, **values: Any) -> str:
    """Return the page that a template makes of ``values``.

    Args:
        template: The name of a file in ``templates/``.
        values: What the template speaks about; text in it is escaped.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regraft.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "value": lambda share, digits=1: percent(share, digits=digits, parts=""),
        "interval": _interval,
        "spread": lambda sd: points(sd, signed=False).removesuffix(" points"),
        "show": show,
        "title": _title,
        "duration": lambda seconds: str(Duration(float(seconds))),
        "place": lambda share: f"{100 * share:.2f}%",
        "count": count,
        "svg": Markup,  # figures are our own markup; text in them was escaped when they were drawn
    }
    environment.tests |= {
        "estimate": lambda cell: isinstance(cell, Estimate),
        "number": lambda cell: isinstance(cell, NUMBERS),
    }
    return environment


def _visible(value: Any) -> Any:
    """Return text with escapes for what HTML cannot carry, such as undecodable bytes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        # A percent sign must not begin a line.
        return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", printable(value))
    return value


def _interval(share: Estimate, counted: bool = True) -> str:
    """Return what follows the value: ``[91.6, 95.8], n = 500``, without the n if not counted."""
    if not share.known:
        return ""
    whole = percent(share, parts="interval n" if counted else "interval")
    return whole.removeprefix(percent(share, parts="")).strip()


def _title(name: str) -> str:
    """Return a key as a title: ``weights_sha256`` as ``Weights SHA-256``."""
    if name in _NAMES:
        return _NAMES[name]
    words = str(name).replace("_", " ").replace("sha256", "SHA-256")
    return words[:1].upper() + words[1:]
