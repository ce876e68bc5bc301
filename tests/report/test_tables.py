import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.backbones.catalog import Entry, known
from regraft.errors import printable
from regraft.report.tables import Duration, Share, Table, network_table, parts_table
from regraft.results.comparison import Repeated
from regraft.results.intervals import wilson

TABLE = Table(
    ("class", "accuracy", "images", "time"),
    (("rose", wilson(9, 10), 1200, Duration(61)), ("=cmd()|\n", wilson(0, 0), None, Duration(0))),
)
REPEATED = Repeated(wilson(9, 10), 0.012, 3)
SPECIAL = "\\&%$#_{}~^<>|`'\"-,[]*? !0a\N{EN DASH}\N{MINUS SIGN}\N{PLUS-MINUS SIGN}\n★日é"
LATEX = {
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
READ = re.compile("|".join(map(re.escape, sorted(LATEX, key=len, reverse=True))) + "|.", re.DOTALL)


def typeset(latex):
    """Return what LaTeX prints, and refuse a character that it would act upon."""
    shown = []
    for token in READ.findall(latex):
        assert token in LATEX or token not in set("\\&%$#_{}~^"), f"{token} acts in {latex!r}"
        shown.append(LATEX.get(token, token))
    return "".join(shown)


def test_text_is_aligned_and_numbers_stand_to_the_right():
    lines = Table(("class", "n"), (("日本", 5), ("a", 1200))).to_text().splitlines()

    assert lines == ["class      n", "日本       5", "a      1,200"]


def test_an_n_that_a_column_shares_moves_into_its_head():
    table = Table(("run", "test"), (("x", wilson(9, 10)), ("y", wilson(8, 10))))
    apart = Table(("run", "test"), (("x", wilson(9, 10)), ("y", wilson(8, 20))))

    assert table.to_text().splitlines()[0] == "run  test (n = 10)"
    assert apart.to_text().splitlines()[0] == "run  test"
    assert apart.to_text().splitlines()[2].endswith("n = 20")
    assert Table(("test",), ((wilson(9, 10),),)).to_text().endswith("n = 10")


def test_the_best_row_has_a_star_and_notes_stand_below():
    table = Table(("run",), (("x",), ("y",)), notes=("y is <better>",), best=1)

    assert table.to_text().splitlines()[2:] == ["y *", "", "y is <better>"]
    assert table.to_markdown().endswith("y is \\<better\\>")


def test_markdown_escapes_what_would_break_a_row():
    lines = TABLE.to_markdown().splitlines()

    assert lines[1] == "| --- | --- | ---: | ---: |"
    assert lines[3].startswith("| =cmd()\\|\\\\n | no samples |")
    assert all(line.count(" | ") == 3 for line in lines)


def test_csv_gives_numbers_and_no_formula():
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))

    assert rows[0][1:5] == ["accuracy", "accuracy low", "accuracy high", "accuracy n"]
    assert (float(rows[1][1]), rows[1][4:]) == (0.9, ["10", "1200", "61"])
    assert rows[2][0].startswith("'=cmd")
    assert rows[2][1:6] == ["", "", "", "0", ""]


@given(st.lists(st.tuples(st.text(SPECIAL), st.one_of(st.text(), st.text(SPECIAL))), max_size=4))
def test_latex_prints_every_character_of_a_name_in_its_cell(rows):
    lines = Table(("name", "other"), tuple(rows)).to_latex().splitlines()

    assert lines[0] == r"% needs \usepackage{booktabs}"
    body = lines[5:-2]
    assert len(body) == len(rows)
    for line, row in zip(body, rows, strict=True):
        cells = line.removesuffix(r" \\").split(" & ")
        assert [typeset(cell) for cell in cells] == [printable(cell) for cell in row]
        assert not line.startswith(("[", "*"))
        assert not any(melting in line for melting in ("--", "''", ",,", "``"))


def test_latex_has_the_rules_of_booktabs_and_says_the_same():
    lines = TABLE.to_latex().splitlines()
    notes = Table(("n",), ((1,),), notes=("★ 100 % sure & safe",)).to_latex()

    assert lines[1:3] == [r"\begin{tabular}{llrr}", r"\toprule"]
    assert lines[5] == (r"rose & 90.0\,\% [59.6, 98.2], n = 10 & 1,200 & 1 min 1 s \\")
    assert lines[6].startswith(r"=cmd()\textbar{}\textbackslash{}n & no samples & \textendash{} &")
    assert notes.endswith("\\end{tabular}\n\n$\\star$ 100\\,\\% sure \\& safe")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (59.97, "1 min 0 s"), (81, "1 min 21 s"), (3600, "1 h 0 min")],
)
def test_times_read_as_people_say_them(seconds, shown):
    assert str(Duration(seconds)) == shown


def test_the_parts_table_has_a_row_for_each_part_that_was_measured():
    measured = {
        "test": {"accuracy": wilson(5, 10)},
        "test without leaks": {"accuracy": wilson(2, 8)},
    }

    rows = parts_table(measured).rows

    assert rows == (("test", wilson(5, 10), 5), ("test without leaks", wilson(2, 8), 6))


def test_a_network_shows_what_was_computed_of_it_as_far_as_it_was():
    mine = Entry(name="mine", source="regraft", identifier="mine", title="Mine", year=2026)

    first, second = network_table([(known("vgg16"), True), (mine, False)]).rows

    assert first[:8] == ("vgg16", "VGG16", "classic", "2014", "138.36", "15.47", 224, 512)
    assert second == ("mine", "Mine", "", "2026", *(None,) * 5, "unknown *", "")


def test_repeats_show_their_spread_everywhere():
    table = Table(("method", "test"), (("x", REPEATED), ("y", Repeated(wilson(8, 10), None, 1))))

    assert "90.0 % ± 1.2 [59.6, 98.2]" in table.to_text()
    assert table.to_text().splitlines()[0] == "method  test (n = 10)"
    assert r"90.0\,\% $\pm$ 1.2" in table.to_latex()
    rows = list(csv.reader(io.StringIO(table.to_csv())))
    assert rows[0][-1] == "test sd"
    assert [row[-1] for row in rows[1:]] == ["0.012", ""]


def test_published_shares_keep_their_digits_and_stay_numbers():
    table = Table(("method", "published"), (("x", Share(0.8882)), ("y", Share(0.94))))

    assert [line.split()[1] for line in table.to_text().splitlines()[1:]] == ["88.82", "94.0"]
    assert table.numeric(1)


@pytest.mark.parametrize("form", ["to_text", "to_markdown", "to_latex", "to_csv"])
def test_a_table_without_rows_is_still_a_table(form):
    text = getattr(Table(("method", "test"), ()), form)()

    assert "method" in text
