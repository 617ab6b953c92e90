"""The public names of the data room, and what importing it loads."""

import os
import subprocess
import sys

import pytest

import tinynet.data


def test_every_public_name_is_there_and_listed():
    for name in tinynet.data.__all__:
        assert getattr(tinynet.data, name).__name__ == name
        assert name in dir(tinynet.data)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'excel'"):
        tinynet.data.excel  # noqa: B018


def test_tables_are_loaded_at_first_use_only():
    code = (
        "import sys, tinynet.data as data\n"
        "loaded = lambda: [name for name in ('table', 'tabular') if f'tinynet.data.{name}' in sys.modules]\n"
        "print(loaded()); data.csv; print(loaded())"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # the same tinynet as this process imports
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=here)
    assert done.stdout.splitlines() == ["[]", "['table', 'tabular']"]
