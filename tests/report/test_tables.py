import csv
import io
import json

import pytest

from regraft.report.tables import Duration, Share, Table, parts_table
from regraft.results.comparison import Repeated
from regraft.results.intervals import wilson

TABLE = Table(
    ("class", "accuracy", "pictures", "time"),
    (("rose", wilson(9, 10), 1200, Duration(61)), ("=cmd()|\n", wilson(0, 0), None, Duration(0))),
)


def test_text_is_aligned_and_numbers_stand_to_the_right():
    lines = Table(("class", "n"), (("日本", 5), ("a", 1200))).to_text().splitlines()

    assert lines == ["class      n", "日本       5", "a      1,200"]


def test_an_n_that_a_column_shares_moves_into_its_head():
    table = Table(("run", "test"), (("x", wilson(9, 10)), ("y", wilson(8, 10))))

    head = table.to_text().splitlines()[0]

    assert head == "run  test (n = 10)"
    assert "n = 10" in table.to_json() or json.loads(table.to_json())["rows"][0]["test"]["n"] == 10


def test_different_ns_stay_with_their_numbers():
    table = Table(("run", "test"), (("x", wilson(9, 10)), ("y", wilson(8, 20))))

    assert "n = 20" in table.to_text().splitlines()[2]


def test_markdown_escapes_what_would_break_a_row():
    lines = TABLE.to_markdown().splitlines()

    assert lines[1] == "| --- | --- | ---: | ---: |"
    assert lines[3].startswith("| =cmd()\\|\\\\n | no samples |")
    assert all(line.count(" | ") == 3 for line in lines)


def test_csv_gives_numbers_and_no_formula():
    rows = list(csv.reader(io.StringIO(TABLE.to_csv())))

    assert rows[0][1:5] == ["accuracy", "accuracy low", "accuracy high", "accuracy n"]
    assert float(rows[1][1]) == 0.9
    assert rows[2][0].startswith("'=cmd")
    assert rows[2][1:5] == ["", "", "", "0"]
    assert rows[1][6] == "61"


def test_json_gives_objects():
    rows = json.loads(TABLE.to_json())["rows"]

    assert rows[0]["accuracy"] == wilson(9, 10).to_json()
    assert rows[0]["time"] == 61
    assert rows[1]["accuracy"]["value"] is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (59.97, "1 min 0 s"), (81, "1 min 21 s"), (3600, "1 h 0 min")],
)
def test_times_read_as_people_say_them(seconds, shown):
    assert str(Duration(seconds)) == shown


def test_the_parts_table_leaves_out_what_was_not_measured():
    share = {"accuracy": 0.5, "n": 10, "interval": [0.24, 0.76]}

    table = parts_table({"train": None, "validation": {"accuracy": None, "n": 0}, "test": share})

    assert [row[0] for row in table.rows] == ["test"]
    assert table.rows[0][2] == 5


def test_latex_has_the_rules_of_booktabs_and_says_the_same():
    lines = TABLE.to_latex().splitlines()

    assert lines[1] == r"\begin{tabular}{llrr}"
    assert lines[2] == r"\toprule"
    assert lines[5] == (r"rose & 90.0\,\% [59.6, 98.2], n = 10 & 1,200 & 1 min 1 s \\")
    assert lines[6].startswith(r"=cmd()\textbar{}\textbackslash{}n & no samples & \textendash{} &")


REPEATED = Repeated(wilson(9, 10), 0.012, 3)


def test_repeats_show_their_spread_everywhere():
    table = Table(("way", "test"), (("x", REPEATED), ("y", Repeated(wilson(8, 10), None, 1))))

    assert "90.0 % ± 1.2 [59.6, 98.2]" in table.to_text()
    assert table.to_text().splitlines()[0] == "way  test (n = 10)"
    assert r"90.0\,\% $\pm$ 1.2" in table.to_latex()
    rows = list(csv.reader(io.StringIO(table.to_csv())))
    assert rows[0][-1] == "test sd"
    assert [row[-1] for row in rows[1:]] == ["0.012", ""]
    spread = json.loads(table.to_json())["rows"][0]["test"]
    assert (spread["sd"], spread["repeats"]) == (0.012, 3)


def test_shares_that_others_printed_keep_their_digits_and_stay_numbers():
    table = Table(("way", "published"), (("x", Share(0.8882)), ("y", Share(0.94))))

    assert [line.split()[1] for line in table.to_text().splitlines()[1:]] == ["88.82", "94.0"]
    assert json.loads(table.to_json())["rows"][1]["published"] == 0.94
    assert table.numeric(1)


@pytest.mark.parametrize("form", ["to_text", "to_markdown", "to_latex", "to_csv", "to_json"])
def test_a_table_without_rows_is_still_a_table(form):
    text = getattr(Table(("way", "test"), ()), form)()

    assert "way" in text or form == "to_json"
