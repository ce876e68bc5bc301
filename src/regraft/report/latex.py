r"""Text and tables for LaTeX: every character of a name arrives as it was."""

from __future__ import annotations

import re
from collections.abc import Sequence

from regraft.errors import printable

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": r"\textendash{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "★": r"$\star$",
    '"': r"\char34{}",
} | {letter: "\\" + letter for letter in "&%$#_{}"}


def escaped(text: str) -> str:
    r"""Return text so that LaTeX prints every character of it as it stands.

    Args:
        text: Any text; what cannot be printed, such as a line end, becomes an escape first.

    Example:
        >>> print(escaped("94.0 % of A&B_1"))
        94.0\,\% of A\&B\_1
    """
    shown = "".join(_COMMANDS.get(letter, letter) for letter in printable(text))
    shown = re.sub(r"(?<=\d) \\%", r"\\,\\%", shown)
    # Two of these in a row would melt into another character: a dash, a quotation mark.
    shown = re.sub(r"([-',])(?=\1)", r"\1{}", shown)
    # After the end of a row LaTeX takes a bracket or a star for an argument.
    return f"{{{shown[0]}}}{shown[1:]}" if shown[:1] in {"[", "*"} else shown


def tabular(
    head: Sequence[str], *rows: Sequence[str], right: Sequence[bool], notes: Sequence[str] = ()
) -> str:
    r"""Return a table with the rules of the package booktabs.

    Args:
        head: The names of the columns.
        rows: A text for every column.
        right: Which columns stand to the right.
        notes: Sentences below the table.

    Example:
        >>> print(tabular(["class", "n"], ["rose", "12"], right=[False, True]))
        % needs \usepackage{booktabs}
        \begin{tabular}{lr}
        \toprule
        class & n \\
        \midrule
        rose & 12 \\
        \bottomrule
        \end{tabular}
    """
    first, *others = (" & ".join(map(escaped, row)) + r" \\" for row in (head, *rows))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{" + "".join("r" if flush else "l" for flush in right) + "}",
        r"\toprule",
        first,
        r"\midrule",
        *others,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, *("\n" + escaped(note) for note in notes)])
