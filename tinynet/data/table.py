"""read_table: a CSV file, parsed into columns that know their kind and rows that know their line.

Here text becomes columns, with every fault of the file reported by line. What a column means to a network (mean,
vocabulary, target) is the business of :mod:`.encoders` and :mod:`.preprocess`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinynet.errors import ArgumentError, DataError

__all__ = ["MISSING", "Column", "Table", "read_table"]

MISSING = frozenset(["", "NA", "N/A", "null", "NULL", "?"])
_DELIMITERS = ",;\t"
_SNIFFED_CHARACTERS, _SNIFFED_ROWS = 1 << 16, 20
_NEWLINE = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Attributes:
        name: from the header.
        kind: "numeric" if every cell that is not missing is a finite number, else "categorical".
        cells: the text of each cell without surrounding blanks, None where it is missing; object, shape (n,).
        values: the numbers of a numeric column, NaN where missing; float64, shape (n,). None if categorical.
    """

    name: str
    kind: str
    cells: np.ndarray
    values: np.ndarray | None

    def take(self, rows) -> Column:
        """The cells at ``rows`` (a slice or an index array). The kind stays that of the whole column."""
        return Column(self.name, self.kind, self.cells[rows], None if self.values is None else self.values[rows])


class Table:
    """Columns of equal length by name, with the file and the lines they come from.

    ``len(table)`` is the number of rows; ``table[rows]``, with a slice or an index array, a table of those rows.

    Attributes:
        path: the file, as it was given.
        columns: name -> Column, in the order of the file.
        lines: for each row, the line of the file (from 1) on which it starts; int64, shape (n,).
    """

    __slots__ = ("columns", "lines", "path")

    def __init__(self, path: str, columns: dict[str, Column], lines: np.ndarray):
        self.path, self.columns, self.lines = path, columns, lines

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the file."""
        return tuple(self.columns)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, rows) -> Table:
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return Table(self.path, columns, self.lines[rows])

    def column(self, name: str) -> Column:
        """The column called ``name``; DataError, with the names there are, if there is none."""
        if name in self.columns:
            return self.columns[name]
        import difflib

        close = difflib.get_close_matches(str(name), self.names, n=1)
        names = ", ".join(map(repr, self.names))
        raise DataError(
            self.path,
            expected=f"a column {name!r}",
            got=f"columns {names}",
            mend=f"did you mean {close[0]!r}? If not, add the column" if close else "use one of these names",
        )

    def numbers(self, name: str) -> np.ndarray:
        """A column as float64 of shape (n,), NaN where missing; DataError at the first cell that is no number."""
        column = self.column(name)
        if column.values is not None:
            return column.values
        numbers = np.full(len(self), np.nan)
        for row, cell in enumerate(column.cells):
            if cell is not None:
                parsed = _parse_numbers([cell])
                if parsed is None or not np.isfinite(parsed[0]):
                    raise DataError(
                        self.where(row, name),
                        expected="a number",
                        got=repr(cell),
                        mend="correct the cell, or leave it empty if the value is missing",
                    )
                numbers[row] = parsed[0]
        return numbers

    def where(self, row: int, name: str) -> str:
        """How errors name a cell: file, line (on which the row starts), column."""
        return f"{self.path}, line {self.lines[row]}, column {name!r}"

    def __repr__(self) -> str:
        kinds = ", ".join(f"{column.name!r} {column.kind}" for column in self.columns.values())
        return f"Table({self.path!r}, {len(self)} rows: {kinds})"


def read_table(path, *, delimiter: str | None = None) -> Table:
    """Read a CSV file with a header row.

    Args:
        path: a file in UTF-8, with or without a byte-order mark.
        delimiter: the character between cells. None takes the one of comma, semicolon and tab that cuts the first
            rows most evenly.

    Cells may be quoted with ``"`` and then hold delimiters, line breaks and doubled quotes. Blanks around a cell
    do not count; empty lines are skipped. A cell is missing if it is empty or one of ``NA``, ``N/A``, ``null``,
    ``NULL``, ``?``. A column is numeric if all other cells are finite numbers, else categorical.

    Raises:
        DataError: the file is missing or not text in UTF-8, has no rows, a header with an empty or repeated name,
            a row of another length than the header, faulty quoting, or ``nan`` or ``inf`` written out among
            numbers. The message names the file and the line.
        ArgumentError: a delimiter that is not one character, or is a quote or a line break.
    """
    import csv

    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ArgumentError(
            "read_table", expected="a delimiter of one character", got=repr(delimiter), mend="use ',', ';' or '\\t'"
        )
    path = os.fspath(path)
    text = _read_text(path)
    records = _records(csv, text, delimiter or _sniff(csv, text), path)
    line, header = next(records, (1, None))
    if header is None:
        raise DataError(path, expected="a header row", got="an empty file", mend="check that this is the right file")
    names = _check_header(header, f"{path}, line {line}")

    rows, lines = [], []
    for line, row in records:
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}",
                expected=f"{_count(len(names), 'cell')}, as in the header",
                got=str(len(row)),
                mend="fill in or remove cells, and quote those that contain the delimiter",
            )
        rows.append(row)
        lines.append(line)
    if not rows:
        raise DataError(path, expected="rows below the header", got="none", mend="check that this is the right file")

    table = Table(path, {}, np.array(lines, dtype=np.int64))
    for name, cells in zip(names, zip(*rows)):
        table.columns[name] = _column(table, name, cells)
    return table


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DataError(
            path, expected="a readable file", got=error.strerror or str(error), mend="check the path"
        ) from error
    save = "save the file as CSV in UTF-8"
    if (position := data.find(b"\0")) >= 0:
        raise DataError(f"{path}, line {_line_at(data, position)}", expected="text", got="a NUL byte", mend=save)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        position = error.start + (len(data) - len(error.object))  # the codec counts from behind the mark
        raise DataError(
            f"{path}, line {_line_at(data, position)}",
            expected="text in UTF-8",
            got=f"the byte 0x{data[position]:02x}",
            mend=save,
        ) from error


def _line_at(data: bytes, position: int) -> int:
    return 1 + sum(1 for _ in _NEWLINE.finditer(data, 0, position))


def _records(csv, text: str, delimiter: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """The records of ``text`` that are not empty lines, each with the line on which it starts."""
    # A space after a delimiter is skipped so that a quote behind it is seen as one.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=delimiter != " "
    )
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        raise DataError(
            f"{path}, line {line}",
            expected='cells in CSV, quoted with " where they contain delimiters, quotes or line breaks',
            got="a quoted cell that is never closed" if unclosed else str(error),
            mend='close the quote, and write a quote inside a quoted cell as ""',
        ) from error


def _sniff(csv, text: str) -> str:
    """The delimiter that gives most of the first rows as many cells as the header, and the most of those."""

    def evenness(delimiter: str) -> tuple[float, int]:
        sample = io.StringIO(text[:_SNIFFED_CHARACTERS], newline="")
        widths = []
        try:
            for row in csv.reader(sample, delimiter=delimiter, skipinitialspace=True):
                if row:
                    widths.append(len(row))
                if len(widths) > _SNIFFED_ROWS:
                    break
        except csv.Error:
            pass  # what was read until then decides; the fault is reported when the file is read for good
        if len(widths) > 1 and len(text) > _SNIFFED_CHARACTERS:
            widths.pop()  # may be cut in two
        if not widths or widths[0] == 1:
            return 0.0, 1
        return widths.count(widths[0]) / len(widths), widths[0]

    return max(_DELIMITERS, key=evenness)


def _check_header(header: Sequence[str], where: str) -> list[str]:
    names = [name.strip() for name in header]
    seen = set()
    for position, name in enumerate(names, start=1):
        if not name:
            raise DataError(
                where,
                expected="a name for every column",
                got=f"an empty name for column {position} of {len(names)}",
                mend="name the column, or remove a stray delimiter at the end of the lines",
            )
        if name in seen:
            raise DataError(
                where,
                expected="column names that differ",
                got=f"{name!r} twice (columns {names.index(name) + 1} and {position})",
                mend="rename one; if the file has no header row, add one",
            )
        seen.add(name)
    return names


def _column(table: Table, name: str, texts: Sequence[str]) -> Column:
    cells = [None if cell in MISSING else cell for cell in map(str.strip, texts)]
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    values = _parse_numbers(cells)
    if values is None:
        return Column(name, "categorical", array, None)
    for row in np.flatnonzero(~np.isfinite(values)):
        if cells[row] is not None:
            raise DataError(
                table.where(row, name),
                expected="a finite number",
                got=repr(cells[row]),
                mend="leave the cell empty if the value is missing",
            )
    return Column(name, "numeric", array, values)


def _parse_numbers(cells: Sequence[str | None]) -> np.ndarray | None:
    """float64, NaN where missing; None if a cell is no number."""
    try:
        values = [np.nan if cell is None else float(cell) for cell in cells]
    except ValueError:
        return None
    # float() also takes Python's own digit groups, which no other reader of the file would take for a number.
    if any(cell is not None and "_" in cell for cell in cells):
        return None
    return np.array(values, dtype=np.float64)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
