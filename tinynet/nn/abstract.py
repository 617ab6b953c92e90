"""Models without memory: what has to be known before a byte is allocated (sizes, names, a plan) is asked of these."""

from __future__ import annotations

import contextlib
import threading


class _Mode(threading.local):
    on = False


_mode = _Mode()


@contextlib.contextmanager
def abstract():
    """Modules made in this block (and thread) have parameters with shapes and a dtype, but without memory.

    Every element of such a parameter is one shared, read-only zero: the model's structure can be asked for, its
    results mean nothing.
    """
    outer, _mode.on = _mode.on, True
    try:
        yield
    finally:
        _mode.on = outer


def is_abstract() -> bool:
    """Whether modules are made without memory just now."""
    return _mode.on
