"""Files of lines that a run appends to while it goes on: samples and decisions, each a JSON object."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TextIO

from tinynet.errors import ArgumentError

_LONGEST = 1 << 20  # bytes of a line


def check_folder(where: str, path: str | os.PathLike | None) -> None:
    """Raises ArgumentError if a file cannot be written there for want of its folder; None is no file."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise ArgumentError(
            where, expected="a path in a folder that exists", got=repr(os.fspath(path)), mend="make the folder first"
        )


def open_lines(path: str | os.PathLike) -> TextIO:
    """Opens a file to append lines, without a last one that was cut short, by a full disk or a power failure."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        begin = file.seek(max(0, end - _LONGEST))
        file.truncate(begin + file.read().rfind(b"\n") + 1)
    return open(path, "a", encoding="utf-8", buffering=1)
