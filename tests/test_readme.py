"""What the README shows is what happens: its Python examples and its command-line example are run and compared."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinynet as tn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"<!-- example -->\n```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"<!-- example: (\w+) -->\n```sh\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def unchanged_op_table():
    before = tn.ops.table()
    yield
    for name, op in tn.ops.table().items():
        if name not in before:
            op.remove()


@pytest.mark.parametrize(("code", "output"), PYTHON, ids=range(len(PYTHON)))
def test_python_example_prints_what_the_readme_says(code, output, tmp_path, monkeypatch, unchanged_op_table):
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == output


@pytest.mark.skipif(os.name != "posix", reason="the README's commands are for a POSIX shell")
@pytest.mark.parametrize(("name", "commands", "output"), SHELL, ids=[name for name, _, _ in SHELL])
def test_shell_example_prints_the_lines_that_the_readme_shows(name, commands, output, tmp_path):
    commands = commands.replace("python -m", f"{sys.executable} -m")
    run = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert set(output.splitlines()) <= set(run.stdout.splitlines())


def test_the_readme_has_examples_and_the_two_marked_commands():
    assert len(PYTHON) >= 3
    assert SHELL
    for mark in ("run", "test"):
        assert re.search(rf"<!-- command: {mark} -->\n```sh\n.+?\n```", README)


def test_every_room_is_in_the_table_of_what_is_where():
    rooms = {path.name for path in (ROOT / "tinynet").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {room for room in rooms if f"/{room}/" not in README and f"`{room}/`" not in README} == set()
