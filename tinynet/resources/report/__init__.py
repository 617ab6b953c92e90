"""The report of a run, or of two side by side: one HTML file that needs no network, no scripts and no other file.

    folder     what a run's folder holds, checked
    energy     the joules of a run and where they are from, in words
    curves     which curves there are in it
    charts     curves as SVG
    scales     round numbers for their axes
    roofline   instructions beside the limits of the machine, as SVG
    tables     names and values as rows
    sections   the sections of the page
    page       the page around them
    style      how it looks on screens and on paper
    markup     elements; where everything is escaped

What is written into a run's folder for it is in ``tinynet.resources.recording`` and ``monitor``.
"""

from __future__ import annotations

import os

from tinynet.errors import DataError
from tinynet.train.safetensors import atomic_write

from .folder import read
from .page import render

__all__ = ["write_report"]


def write_report(
    run: str | os.PathLike, other: str | os.PathLike | None = None, path: str | os.PathLike | None = None
) -> str:
    """Writes the report of a run into one HTML file. The same folders give the same bytes.

    Args:
        run: the folder of the run, as ``python -m tinynet train`` writes it.
        other: the folder of a second one, to be set beside it: on the same axes, in another colour, with a table of
            what differs.
        path: of the file; by default ``report.html`` in the folder of ``run``.

    Returns:
        Where the file is.

    Raises:
        DataError: no such folder, or a damaged file in it; no folder for ``path``. Nothing is written then.
    """
    text = render(read(run), None if other is None else read(other))
    path = os.path.join(run, "report.html") if path is None else os.fspath(path)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise DataError(path, expected="a file in a folder that is there", got=f"no folder {folder}", mend="make it")
    atomic_write(path, [text.encode()])
    return path
