"""CSV tables: read with line numbers, and written so that cells stay text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from regraft.errors import DataError, list_names
from regraft.files import write_text

_DELIMITERS = (",", ";", "\t")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def safe_cell(text: str) -> str:
    """Return ``text`` so that no spreadsheet takes it for a formula; ``plain_cell`` turns it back.

    Example:
        >>> safe_cell("=1+1"), safe_cell("rose")
        ("'=1+1", 'rose')
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def plain_cell(text: str) -> str:
    """Return the text that ``safe_cell`` was given.

    Example:
        >>> plain_cell(safe_cell("=1+1"))
        '=1+1'
    """
    return text.removeprefix("'")


def table_line(cells: Sequence[str]) -> str:
    r"""Return one line of a table as :func:`write_table` writes it, without its end.

    Example:
        >>> table_line(["a,b.jpg", "=rose"])
        '"a,b.jpg",\'=rose'
    """
    text = io.StringIO(newline="")
    # Its line end, CR LF, is what makes it quote both of them in cells.
    csv.writer(text).writerow([safe_cell(cell) for cell in cells])
    return text.getvalue().removesuffix("\r\n")


def write_table(file: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table atomically as UTF-8, every cell safe in a spreadsheet."""
    lines = [table_line(columns), *map(table_line, rows), ""]
    write_text(file, "\r\n".join(lines))


def column_names(file: Path) -> list[str]:
    """Return the names of the columns of a table; none of an empty file.

    Raises:
        DataError: The file cannot be read or is no table (``DATA-NOT-FOUND``, ``DATA-CSV``).
    """
    return next((cells for _, cells in _lines(file, ())), [])


def read_table(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of the named columns, every cell as the text it is.

    A byte-order mark, any line end, quoted cells and the delimiters comma, semicolon and tab are
    understood; blank lines are skipped.

    Args:
        file: A table whose first line names the columns, in UTF-8.
        columns: The columns wanted.

    Yields:
        The number of the line where the row begins (the header is line 1) and its cells.

    Raises:
        DataError: The file cannot be read, is no table, lacks a column or has it twice, or has a
            row of another length (``DATA-NOT-FOUND``, ``DATA-CSV``, ``DATA-CSV-COLUMN``).
    """
    lines = _lines(file, columns)
    header = next(lines, (1, []))[1]
    if wrong := [name for name in columns if header.count(name) != 1]:
        what = f"the table must have one column {' and one '.join(wrong)}"
        why = f"its columns: {list_names(header)}"
        hint = f"rename them to {' and '.join(columns)}, or name the columns to use"
        raise DataError(what, path=file, why=why, hint=hint, code="DATA-CSV-COLUMN")
    places = [header.index(name) for name in columns]
    for number, cells in lines:
        if len(cells) != len(header):
            why = f"line {number} has {len(cells)} cells, the header {len(header)}"
            raise DataError("a row does not fit the header", path=file, why=why, code="DATA-CSV")
        yield number, [cells[place] for place in places]


def _lines(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of every line that is not blank, the header first."""
    number = 1
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            header_line = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=_delimiter(header_line, columns), strict=True)
            for cells in reader:
                if cells:
                    yield number, cells
                number = reader.line_num + 1
    except FileNotFoundError as error:
        raise DataError("table not found", path=file, code="DATA-NOT-FOUND") from error
    except (OSError, csv.Error) as error:
        why = (error.strerror or "") if isinstance(error, OSError) else f"line {number}: {error}"
        raise DataError("cannot read the table", path=file, why=why, code="DATA-CSV") from error


def _delimiter(header_line: str, columns: Sequence[str]) -> str:
    def fit(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([header_line], delimiter=delimiter), [])
        return sum(name in cells for name in columns), len(cells)

    return max(_DELIMITERS, key=fit)
