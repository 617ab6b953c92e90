"""read_table: what a CSV file may hold, and every fault named by file, line and column."""

import time

import numpy as np
import pytest

from tinynet.data import read_table
from tinynet.errors import ArgumentError, DataError


def refused(path, *words, line=None, **options):
    """The file is refused with file, line, expectation and mend; the message holds the words."""
    with pytest.raises(DataError) as caught:
        read_table(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}" if line else str(path))
    assert caught.value.expected and caught.value.got and caught.value.mend
    for word in words:
        assert word in message, message
    return message


def cells(table):
    return {name: column.cells.tolist() for name, column in table.columns.items()}


def test_columns_know_their_kind(write_csv):
    table = read_table(write_csv("age,colour,size\n1,red,1.5\n-2e3,blue,\n 3 ,7,2\n"))
    assert [column.kind for column in table.columns.values()] == ["numeric", "categorical", "numeric"]
    np.testing.assert_array_equal(table.columns["age"].values, [1, -2000, 3])
    np.testing.assert_array_equal(table.columns["size"].values, [1.5, np.nan, 2])
    assert cells(table)["colour"] == ["red", "blue", "7"] and table.columns["colour"].values is None
    assert len(table) == 3 and table.names == ("age", "colour", "size")
    assert repr(table).endswith("3 rows: 'age' numeric, 'colour' categorical, 'size' numeric)")


def test_missing_marks_are_missing_in_every_kind(write_csv):
    table = read_table(write_csv("a,b\n1,x\n,\nNA, NA \nN/A,N/A\nnull,null\n?,?\n"))
    assert table.columns["a"].kind == "numeric"
    assert cells(table) == {"a": ["1"] + [None] * 5, "b": ["x"] + [None] * 5}


def test_quoted_cells_hold_delimiters_newlines_and_quotes(write_csv):
    table = read_table(write_csv('a,b\n"x, y","say ""hi"""\n"two\r\nlines", "after a blank"\n'))
    assert cells(table) == {"a": ["x, y", "two\r\nlines"], "b": ['say "hi"', "after a blank"]}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_they_stand_in_the_file(write_csv, newline):
    text = newline.join(['"a\nb",c', "", '"1\r2\n3",4', "", "5,6", '7,"8', '"', "9,10", ""])
    assert read_table(write_csv(text)).lines.tolist() == [4, 8, 9, 11]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_does_not_count(write_csv, mark):
    assert read_table(write_csv(mark + "größe,b\n1,2\n".encode())).names == ("größe", "b")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_out(write_csv, delimiter):
    text = f"a{delimiter}b{delimiter}c\n1{delimiter}2{delimiter}3\n"
    assert read_table(write_csv(text)).names == ("a", "b", "c")


def test_the_delimiter_is_the_one_that_fits_the_rows(write_csv):
    assert read_table(write_csv("a;b\nhello, world;1,5\nbye, all;2,5\n")).names == ("a", "b")
    assert read_table(write_csv("a,b;c\n1,2\n3,4\n")).names == ("a", "b;c")
    assert read_table(write_csv("only\n1\n")).names == ("only",)
    assert read_table(write_csv("a,x\n1,2\n" + "3,4\n" * 50000)).names == ("a", "x")


def test_a_given_delimiter_is_used(write_csv):
    assert read_table(write_csv("a b\n1 2\n"), delimiter=" ").names == ("a", "b")
    assert read_table(write_csv("a,b|c\n1|2\n"), delimiter="|").names == ("a,b", "c")


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_a_delimiter_is_one_character(write_csv, delimiter):
    with pytest.raises(ArgumentError, match="one character"):
        read_table(write_csv("a\n1\n"), delimiter=delimiter)


def test_rows_can_be_selected(write_csv):
    table = read_table(write_csv("a,b\n1,x\n2,y\n3,z\n"))
    part = table[np.array([2, 0])]
    assert cells(part) == {"a": ["3", "1"], "b": ["z", "x"]} and part.lines.tolist() == [4, 2]
    assert len(table[:0]) == 0


@pytest.mark.parametrize("literal", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_named(write_csv, literal):
    path = write_csv(f'a,"x\ny"\n1,2\n3,{literal}\n')
    refused(path, f"'{literal}'", "Leave the cell empty if the value is missing", repr("x\ny"), line=4)


def test_nan_among_text_is_text(write_csv):
    assert read_table(write_csv("a\nnan\nred\n")).columns["a"].kind == "categorical"


def test_what_only_python_calls_a_number_is_text(write_csv):
    assert read_table(write_csv("a\n1_000\n2\n")).columns["a"].kind == "categorical"


def test_a_column_without_values_is_numeric(write_csv):
    column = read_table(write_csv("a,b\n,1\nNA,2\n")).columns["a"]
    assert column.kind == "numeric" and np.isnan(column.values).all()


@pytest.mark.parametrize(("row", "got"), [("1", "got 1"), ("1,2,3", "got 3"), ("1,2,", "got 3"), ("  ", "got 1")])
def test_a_row_of_another_length_is_named(write_csv, row, got):
    refused(write_csv(f'a,b\n"x\n\ny",1\n{row}\n1,2\n'), "2 cells, as in the header", got, line=5)


@pytest.mark.parametrize(("header", "words"), [
    ("a,b,a", ["'a' twice (columns 1 and 3)", "add one"]), ("a, a", ["twice"]),
    ("a,,b", ["empty name for column 2 of 3"]), ("a,b,", ["column 3 of 3", "stray delimiter"]),
])  # fmt: skip
def test_a_faulty_header_is_named(write_csv, header, words):
    refused(write_csv(f"\n{header}\n{'1,' * header.count(',')}1\n"), *words, line=2)


def test_files_without_rows_are_refused(write_csv):
    refused(write_csv(""), "an empty file")
    refused(write_csv("\n\n"), "an empty file")
    refused(write_csv("a,b\n"), "rows below the header")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_bytes_that_are_no_text_are_named(write_csv, mark, newline):
    refused(write_csv(mark + newline.join([b"a,b", b"1,2", b"3,\xe9"])), "UTF-8", "0xe9", line=3)
    refused(write_csv(mark + newline.join([b"a,b", b"1,2", b"3,\x00"])), "NUL", line=3)


def test_utf16_is_no_utf8(write_csv):
    refused(write_csv("a,b\n1,2\n".encode("utf-16")), "Save the file as CSV in UTF-8", line=1)


def test_faulty_quotes_are_named(write_csv):
    refused(write_csv('a,b\n1,2\n3,"open\n4,5\n'), "never closed", line=3)
    refused(write_csv('a,b\n1,2\n"3"x,4\n'), "quote", line=3)
    refused(write_csv('a,b\n1,2\n"' + "x" * 200_000 + '",4\n'), "field limit", line=3)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "absent.csv", "No such file")
    refused(tmp_path, "directory")


def test_an_unknown_column_comes_with_a_suggestion(write_csv):
    table = read_table(write_csv("height,weight\n1,2\n"))
    with pytest.raises(DataError, match=r"table.csv: .*'wieght'.*'height', 'weight'.*Did you mean 'weight'\?"):
        table.column("wieght")
    with pytest.raises(DataError, match="Use one of these names"):
        table.column("zzz")


def test_text_where_numbers_are_wanted_is_named(write_csv):
    table = read_table(write_csv("a\n1\n\nNA\nred\n"))
    with pytest.raises(DataError, match=r"table.csv, line 5, column 'a': expected a number, got 'red'"):
        table.numbers("a")
    np.testing.assert_array_equal(table[:2].numbers("a"), [1, np.nan])


def test_reading_takes_linear_time(write_csv):
    rows = 20_000
    path = write_csv("a,b,c,d,e\n" + "".join(f'{i},{i / 7},text {i % 9},,"x\n{i}"\n' for i in range(rows)))
    start = time.process_time()
    table = read_table(path)
    assert time.process_time() - start < 3  # a tenth of that is usual
    assert table.lines[-1] == 2 * rows
