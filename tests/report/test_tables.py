import csv
import io
import json

import pytest

from regraft.report.tables import Duration, Table, comparison, parts_table
from regraft.results.statistics import wilson

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


def test_a_comparison_has_a_row_per_run(make_run):
    table = comparison([make_run("one", wrong=1, epochs=30), make_run("two", wrong=2)])

    assert table.columns[:6] == ("description", "data", "epochs", "train", "validation", "test")
    assert table.rows[0][2] == 30
    assert "–" in table.to_text()
    assert "1 min 2 s" in table.to_text() or "1 min 1 s" in table.to_text()


def test_the_best_is_marked_only_when_it_can_be_told_from_the_others(make_run):
    good, near, bad = make_run("a", wrong=0), make_run("b", wrong=1), make_run("c", wrong=15)

    clear = comparison([bad, good])
    unclear = comparison([bad, good, near])

    assert clear.best == 1
    assert "the run a *" in clear.to_text()
    assert "better than every other run" in clear.notes[0]
    assert unclear.best is None
    assert "cannot be told from the run b" in unclear.notes[0]


def test_runs_of_different_splits_are_flagged_and_none_is_best(make_run):
    table = comparison([make_run("a"), make_run("b", wrong=15, seed=1)])

    assert table.columns[-1] == "split"
    assert table.best is None
    assert "2 different splits" in table.notes[0]


def test_one_run_needs_no_verdict(make_run):
    assert comparison([make_run("a")]).notes == ()
