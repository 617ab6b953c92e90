"""Which line of the user's code is being served, for messages and for statistics by source line."""

from __future__ import annotations

import sys
from types import CodeType, FrameType


def caller_line() -> str:
    """The nearest line of code outside of the engine as "file.py:12", or "?" where there is none.

    The training loops count as outside: a step that ``fit`` runs has its lines there.
    """
    frame, _ = caller_frame()
    return "?" if frame is None else line_of(frame.f_code, frame.f_lineno)


def line_of(code: CodeType, line: int | None) -> str:
    """A place in a file as "file.py:12"."""
    return f"{code.co_filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{line}"


def caller_frame(landmark: CodeType | None = None) -> tuple[FrameType | None, FrameType | None]:
    """The nearest frame outside of the engine, and the nearest one on the way there that runs ``landmark``.

    It walks frames and formats nothing, because an arena asks for every array. Keep neither frame: it would keep the
    arrays that its variables name.
    """
    frame, marked = sys._getframe(1), None
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name[:8] != "tinynet." or name[8:13] == "train":
            return frame, marked
        if frame.f_code is landmark and marked is None:
            marked = frame
        frame = frame.f_back
    return None, marked
