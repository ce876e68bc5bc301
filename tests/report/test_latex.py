import re

from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import printable
from regraft.report.latex import escaped, tabular

SPECIAL = "\\&%$#_{}~^<>|`'\"-,[]*? !0a\N{EN DASH}\N{MINUS SIGN}\N{PLUS-MINUS SIGN}\n★日é"
TOKENS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textasciigrave{}": "`",
    r"\textendash{}": "\N{EN DASH}",
    r"\char34{}": '"',
    "$-$": "\N{MINUS SIGN}",
    r"$\pm$": "\N{PLUS-MINUS SIGN}",
    r"$\star$": "★",
    r"\,": " ",
    "{}": "",
    "{[}": "[",
    "{*}": "*",
} | {"\\" + letter: letter for letter in "&%$#_{}"}
READ = re.compile("|".join(map(re.escape, sorted(TOKENS, key=len, reverse=True))) + "|.", re.DOTALL)


def typeset(latex):
    """Return what LaTeX prints, and refuse a character that it would act upon."""
    shown = []
    for token in READ.findall(latex):
        assert token in TOKENS or token not in set("\\&%$#_{}~^"), f"{token} acts in {latex!r}"
        shown.append(TOKENS.get(token, token))
    return "".join(shown)


@given(st.one_of(st.text(SPECIAL), st.text()))
def test_every_character_of_a_name_survives(name):
    assert typeset(escaped(name)) == printable(name)


@given(st.text(SPECIAL))
def test_no_two_characters_melt_into_another(name):
    latex = escaped(name)

    assert not any(pair in latex for pair in ("--", "''", ",,", "``"))


def test_the_mark_of_the_winner_is_none_that_latex_does_not_know():
    assert escaped("★ the best") == r"$\star$ the best"


@given(st.lists(st.tuples(st.text(SPECIAL), st.text(SPECIAL)), max_size=4))
def test_names_break_neither_cells_nor_rows(rows):
    table = tabular(["name", "other"], *rows, right=[False, False])

    body = table.splitlines()[5:-2]
    assert len(body) == len(rows)
    for line, row in zip(body, rows, strict=True):
        assert line.endswith(r" \\")
        cells = line.removesuffix(r" \\").split(" & ")
        assert [typeset(cell) for cell in cells] == [printable(cell) for cell in row]
        assert not line.startswith(("[", "*"))


def test_notes_stand_below_the_table_and_are_escaped_too():
    table = tabular(["n"], ["1"], right=[True], notes=["100 % sure & safe"])

    assert table.endswith("\\end{tabular}\n\n100\\,\\% sure \\& safe")
