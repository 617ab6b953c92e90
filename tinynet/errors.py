"""The exception types of tinynet, and the one way in which they are phrased.

Every error says where it arose, what was expected, what came, and how to mend it. The types derive from
the built-in exception that a NumPy user would expect (``ShapeError`` is a ``ValueError``), so that both
``except tn.errors.TinynetError`` and ``except ValueError`` work. Nothing else of the engine lives here.
"""

from __future__ import annotations

import importlib

__all__ = [
    "ArenaError",
    "ArgumentError",
    "BackendError",
    "BusyError",
    "CaptureError",
    "CheckpointError",
    "DTypeError",
    "DataError",
    "GradientError",
    "MissingExtraError",
    "NonFiniteError",
    "PlanError",
    "RangeError",
    "ShapeError",
    "TinynetError",
    "import_extra",
]


class TinynetError(Exception):
    """Base of all errors that tinynet raises on purpose.

    Args:
        where: the operation, layer or file (with its line) in which it arose.
        expected: what would have been right.
        got: what came instead.
        mend: what the reader can do about it, as a sentence.

    The four parts stay available as attributes; ``str()`` joins those that are given.
    """

    def __init__(self, where: str, *, expected: object = None, got: object = None, mend: str | None = None):
        self.where, self.expected, self.got, self.mend = where, expected, got, mend
        says = [str(part) for part in (expected and f"expected {expected}", got and f"got {got}") if part]
        text = f"{where}: {', '.join(says)}" if says else where
        if mend:
            text += f". {mend[0].upper()}{mend[1:].rstrip('.')}."
        super().__init__(text)

    def __reduce__(self):  # keyword-only arguments do not survive pickling by themselves
        return _rebuild, (type(self), self.where, self.expected, self.got, self.mend)


def _rebuild(kind, where, expected, got, mend):
    return kind(where, expected=expected, got=got, mend=mend)


class ShapeError(TinynetError, ValueError):
    """Shapes or axes that do not fit the operation."""


class DTypeError(TinynetError, TypeError):
    """An element type that the operation does not take, or two that do not fit each other."""


class RangeError(TinynetError, IndexError, ValueError):
    """A value outside its range: a class index, an axis, an element of an index array."""


class ArgumentError(TinynetError, ValueError):
    """An option with a value outside what it may be (a negative rate, an unknown name)."""


class BackendError(TinynetError, RuntimeError):
    """A backend that is unknown, not usable here, or mixed with another in one operation."""


class GradientError(TinynetError, RuntimeError):
    """A gradient was asked for that cannot be given."""


class CaptureError(TinynetError, RuntimeError):
    """A step that cannot be a program: it reads a value, or does what Python would do anew at each call."""


class NonFiniteError(TinynetError, FloatingPointError):
    """A step made a number that is not finite. ``where`` names the step, the operation and its line."""


class DataError(TinynetError, ValueError):
    """A data file that is not what it should be; ``where`` names the file and, where there is one, the line."""


class CheckpointError(TinynetError, ValueError):
    """A model file that is damaged, hostile, or does not fit the model it is loaded into."""


class PlanError(TinynetError, ValueError):
    """A memory plan that cannot be made or is not valid: lifetimes, offsets or pins that contradict each other."""


class ArenaError(TinynetError, MemoryError):
    """An arena cannot give, or take back, what is asked of it; it stays usable.

    Attributes:
        requested, free, largest_hole: where there was no room, in bytes; else None.
    """

    requested: int | None = None
    free: int | None = None
    largest_hole: int | None = None

    def __reduce__(self):
        return *super().__reduce__(), {key: getattr(self, key) for key in ("requested", "free", "largest_hole")}


class BusyError(TinynetError, RuntimeError):
    """A server does not take a request now: its queue is full, or the answer would be late. It may later.

    Attributes:
        waiting, limit: requests in the queue, and how many there may be.
        predicted, deadline: how long the answer would have taken, and how long it may take, in seconds.
    """

    waiting: int | None = None
    limit: int | None = None
    predicted: float | None = None
    deadline: float | None = None

    def __reduce__(self):
        names = ("waiting", "limit", "predicted", "deadline")
        return *super().__reduce__(), {key: getattr(self, key) for key in names}


class MissingExtraError(TinynetError, ImportError):
    """An optional dependency is needed and not installed; the message names the extra that brings it."""


def import_extra(package: str, where: str, extras: str):
    """The optional package, imported.

    Args:
        package: its import name.
        where: what needs it.
        extras: the extra of tinynet that brings it, or several with "or" between them.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        named = " or ".join(f"tinynet[{extra}]" for extra in extras.split(" or "))
        raise MissingExtraError(
            where, expected=f"the package {package}", got=f"none ({error})", mend=f"install {named}"
        ) from error
