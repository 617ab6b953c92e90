"""Guards: what a captured step read of Python, and whether it is still so.

A program freezes every Python number, flag and layer that the step used. So the objects that the step can reach (its
closure, the globals it names, and from there attributes, lists, dicts, modules, optimizers) are walked once, and every
number, string or flag found is noted with its place. Before each call the places are looked at again; where one has
changed, the program does not apply, and the step is captured anew.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterator

from tinynet.backend import Backend, HostArray
from tinynet.errors import CaptureError
from tinynet.ops import Op, Value

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LIMIT = 20_000  # places looked at before each call
_MISSING = object()
_FOREIGN = {"tinynet", "numpy", "builtins", *sys.stdlib_module_names} - {"__main__"}  # code without a user's state


class Guards:
    """The Python state that a function can reach, as it is now.

    Attributes:
        arrays: identity of each array that belongs to a reachable tensor (or is reachable itself).
        grads: identity of the array of a reachable tensor's gradient -> (the tensor, the array).

    Raises:
        CaptureError: more than 20,000 places: a data set in the closure, say.
    """

    def __init__(self, function: Callable, *others: object):
        self._cells: list[tuple[types.CellType, object]] = []
        self._items: list[tuple[object, object, object]] = []  # container, key, value
        self._sets: list[tuple[object, frozenset]] = []
        self._lengths: list[tuple[object, int]] = []
        self._tensors: list[tuple[Value, object]] = []
        self._kept: list[object] = []  # arrays, kept alive so that an identity stays theirs
        self.arrays: set[int] = set()
        self.grads: dict[int, tuple[Value, object]] = {}
        self._seen: set[int] = set()
        stack: list[object] = [function, *others]
        while stack:
            stack.extend(self._enter(stack.pop()))
            if len(self._items) + len(self._tensors) > _LIMIT:
                raise CaptureError(
                    f"capture of {getattr(function, '__name__', function)}",
                    expected=f"a step that reaches at most {_LIMIT:,} Python values",
                    got="more of them in its closure, globals or attributes",
                    mend="pass data as arrays, and as arguments",
                )

    def hold(self) -> bool:
        """Whether everything is as it was."""
        return (
            all(tensor.array is array for tensor, array in self._tensors)
            and all(_same(_contents(cell), value) for cell, value in self._cells)
            and all(len(container) == n for container, n in self._lengths)
            and all(now == then for now, then in self._sets)
            and all(_same(_get(container, key), value) for container, key, value in self._items)
        )

    def changed(self) -> str | None:
        """A place where something has changed, in words; None if ``hold``."""
        for tensor, array in self._tensors:
            if tensor.array is not array:
                return f"the memory of a tensor of shape {tensor.shape}"
        for cell, value in self._cells:
            if not _same(_contents(cell), value):
                return f"a variable of the closure, from {_short(value)} to {_short(_contents(cell))}"
        for container, n in self._lengths:
            if len(container) != n:
                return f"the length of a {type(container).__name__}, from {n} to {len(container)}"
        for now, then in self._sets:
            if now != then:
                return f"a set of {len(then)} elements"
        for container, key, value in self._items:
            if not _same(_get(container, key), value):
                return f"{key!r}, from {_short(value)} to {_short(_get(container, key))}"
        return None

    def _enter(self, value) -> Iterator[object]:
        """Notes what ``value`` holds, and gives what is to be walked from there."""
        if id(value) in self._seen or isinstance(value, (*_PLAIN, Op, Backend)):
            return
        self._seen.add(id(value))
        if isinstance(value, Value):
            self._tensors.append((value, value.array))
            self._keep(value.array)
            if isinstance(value._grad, Value):
                self.grads[id(value._grad.array)] = value, value._grad.array
        elif isinstance(value, HostArray) or hasattr(value, "__array_namespace__"):
            self._keep(value)
        elif isinstance(value, types.MethodType):
            yield value.__func__
            yield value.__self__
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, dict):
            self._lengths.append((value, len(value)))
            for key, each in value.items():
                yield from self._item(value, key, each)
        elif isinstance(value, (list, tuple)):
            self._lengths.append((value, len(value)))
            for i, each in enumerate(value):
                yield from self._item(value, i, each)
        elif isinstance(getattr(value, "__wrapped__", None), types.FunctionType) and _is_ours(type(value)):
            yield value.__wrapped__  # another captured step; its own programs are no state of this one
        elif isinstance(value, types.ModuleType):
            return  # which of its names are used is known where they are used: see _function
        elif isinstance(value, (set, frozenset)):
            self._sets.append((value, frozenset(value)))
        elif isinstance(value, type):
            if not _is_foreign(value):
                for name, each in vars(value).items():
                    yield from self._item(value, name, each)
        else:
            yield from self._object(value)

    def _object(self, value) -> Iterator[object]:
        """Attributes of an object, those in slots included, and of its classes."""
        if isinstance(getattr(value, "__dict__", None), dict):
            yield vars(value)
        for cls in type(value).__mro__:
            if not _is_foreign(cls):
                yield cls
                for name in cls.__dict__.get("__slots__", ()):
                    yield from self._item(value, name, getattr(value, name, _MISSING))

    def _item(self, container, key, value) -> Iterator[object]:
        self._items.append((container, key, value))
        yield value

    def _keep(self, array) -> None:
        self.arrays.add(id(array))
        self._kept.append(array)

    def _function(self, function: types.FunctionType) -> Iterator[object]:
        for cell in function.__closure__ or ():
            value = _contents(cell)
            self._cells.append((cell, value))
            yield value
        yield function.__defaults__ or ()
        yield function.__kwdefaults__ or {}
        if _is_foreign(function):
            return  # libraries' functions read no state but their arguments', the engine's own included
        names = set(_names(function.__code__))
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            yield from self._item(function.__globals__, name, value)
            if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in _FOREIGN:
                for attribute in names & vars(value).keys():
                    yield from self._item(vars(value), attribute, vars(value)[attribute])


def _names(code: types.CodeType) -> Iterator[str]:
    """Names of globals and attributes that a function and those within it mention."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_ours(thing) -> bool:
    return (getattr(thing, "__module__", None) or "").startswith("tinynet.")


def _is_foreign(thing) -> bool:
    """Whether a function or class is a library's."""
    return (getattr(thing, "__module__", None) or "builtins").partition(".")[0] in _FOREIGN


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _contents(cell: types.CellType):
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return _MISSING


def _get(container, key):
    if isinstance(container, dict):
        return container.get(key, _MISSING)
    if isinstance(container, (list, tuple)):
        return container[key]
    return vars(container).get(key, _MISSING) if isinstance(container, type) else getattr(container, key, _MISSING)


def _same(now, then) -> bool:
    return now is then or (type(now) is type(then) and isinstance(then, _PLAIN) and now == then)
