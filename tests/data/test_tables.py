"""CSV cells that stay text, and line numbers that are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.tables import column_names, plain_cell, read_table, safe_cell
from samples import refused


@given(st.text())
def test_any_text_comes_back_and_starts_no_formula(text):
    cell = safe_cell(text)

    assert plain_cell(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_lines_are_counted_through_blank_lines_and_cells_of_several_lines(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('a\n\n"1\n2"\n3\n')

    assert list(read_table(file, ["a"])) == [(3, ["1\n2"]), (5, ["3"])]


def test_a_cell_without_end_is_refused(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a\n" + "x" * 200_000)

    assert refused(lambda: list(read_table(file, ["a"]))).code == "DATA-CSV"


def test_columns_of_one_name_are_refused_only_where_they_are_wanted(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,,,b,b\n1,2,3,4,5\n")

    assert list(read_table(file, ["a"])) == [(2, ["1"])]
    assert "one column b" in str(refused(lambda: list(read_table(file, ["a", "b"]))))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_columns_of_a_table_are_named_whatever_stands_between_them(tmp_path, delimiter):
    file = tmp_path / "t.csv"
    file.write_text(f"\ufeffpath{delimiter}label\nx{delimiter}y\n", encoding="utf-8")

    assert column_names(file) == ["path", "label"]
    file.write_text("")
    assert column_names(file) == []
