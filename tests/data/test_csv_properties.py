"""Whatever the standard library's writer writes, read_table reads back."""

import csv
import io
import json

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinynet.data import Preprocessor, read_table
from tinynet.data.table import MISSING
from tinynet.errors import DataError

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
cell = st.one_of(text, st.sampled_from(["", "NA", "?", '"', ",", ";", "\n", "\r\n", " x ", "a,b\nc"]))
quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw):
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=6))
    return [f"column {i}" for i in range(width)], rows


@quick
@given(tables(), st.sampled_from(",;\t|"), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.booleans())
def test_a_written_table_comes_back(write_csv, table, delimiter, quoting, mark):
    header, rows = table
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([header, *rows])
    path = write_csv(file.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    try:
        back = read_table(path, delimiter=delimiter)
    except DataError as error:
        assert "finite" in str(error)  # the one thing that a well-formed file can be refused for
        return
    expected = [[None if c.strip() in MISSING else c.strip() for c in row] for row in rows]
    assert [list(row) for row in zip(*(back.columns[name].cells for name in header))] == expected
    assert back.names == tuple(header)


@quick
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_the_file_named(write_csv, content):
    path = write_csv(content)
    try:
        read_table(path)
    except DataError as error:
        assert str(error).startswith(str(path))


@quick
@given(tables(), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_a_fitted_preprocessor_survives_json_and_encodes_finitely(write_csv, table, targets):
    header, rows = table
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
        [[*header, "y"], *([*row, repr(value)] for row, value in zip(rows, targets))]
    )
    try:
        back = read_table(write_csv(file.getvalue()), delimiter=",")
        fitted = Preprocessor.fit(back, "y", "regression")
        x, y = fitted.transform(back), fitted.target(back)
    except DataError:
        return
    assert x.shape == (len(rows), len(fitted.feature_names)) and np.isfinite(x).all() and np.isfinite(y).all()
    restored = Preprocessor.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert restored == fitted
    np.testing.assert_array_equal(restored.transform(back), x)
