"""Guards: what a captured step read of Python, and whether it is still so.

A program freezes every Python number, flag and layer that the step used. So the objects that the step can reach (its
closure, the globals it names, and from there attributes, lists, dicts, modules, optimizers) are walked once, and every
number, string or flag found is noted with its place. Before each call the places are looked at again; where one has
changed, the program does not apply, and the step is captured anew.

There are a hundred places in a small step, and a call has time for nanoseconds at each. So a function is written that
compares all of them in one expression: ``h0.array is v0 and h1['lr'] is v1 and ...``. What it does not find the same is
looked at once more, since an equal number in another object is no change.
"""

from __future__ import annotations

import functools
import operator
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tinynet.backend import Backend, HostArray
from tinynet.errors import CaptureError
from tinynet.ops import Op, Value

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LIMIT = 20_000  # places looked at before each call
_MISSING = object()
_NOTHING_THERE = (AttributeError, LookupError, ValueError)  # ValueError: a name of a closure that is not bound
_FOREIGN = {"tinynet", "numpy", "builtins", *sys.stdlib_module_names} - {"__main__"}  # code without a user's state


class _Kind(NamedTuple):
    """A kind of place: how it is read, and the comparison of it in the function that compares all."""

    read: Callable
    comparison: str


_ATTRIBUTE = _Kind(getattr, "{holder}.{key} is {value}")
_ITEM = _Kind(operator.getitem, "{holder}[{key}] is {value}")
_OWN_ITEM = _Kind(  # of a dict whose class has brackets of its own
    lambda holder, key: dict.get(holder, key, _MISSING), "own({holder}, {key}, missing) is {value}"
)
_SLOT = _Kind(  # may be empty, and stay so
    lambda holder, key: getattr(holder, key, _MISSING), "getattr({holder}, {key}, missing) is {value}"
)
_LENGTH = _Kind(lambda holder, _: len(holder), "len({holder}) == {value}")
_SET = _Kind(lambda holder, _: frozenset(holder), "{holder} == {value}")


class _Place(NamedTuple):
    """Where Python state is: a kind, what holds it and, in most kinds, an index or a name."""

    kind: _Kind
    holder: object
    key: object = None

    def now(self):
        """What is there; ``_MISSING`` if nothing is."""
        try:
            return self.kind.read(self.holder, self.key)
        except _NOTHING_THERE:
            return _MISSING

    def __str__(self) -> str:
        if self.kind is _LENGTH:
            return f"the length of a {type(self.holder).__name__}"
        if self.kind is _SET:
            return "a set"
        if isinstance(self.holder, types.CellType):
            return "a variable of the closure"
        if isinstance(self.holder, Value):
            what = "the memory" if self.key == "array" else self.key
            return f"{what} of a tensor of shape {self.holder.shape}"
        return repr(self.key)


class Guards:
    """The Python state that a function can reach, as it is now.

    Attributes:
        arrays: identity of each array that belongs to a reachable tensor (or is reachable itself).
        grads: identity of the array of a reachable tensor's gradient -> (the tensor, the array).

    Raises:
        CaptureError: more than 20,000 places: a data set in the closure, say.
    """

    def __init__(self, function: Callable, *others: object):
        self._places: list[_Place] = []
        self._values: list[object] = []  # what was found there; that keeps alive whose identity is compared
        self._kept: list[object] = []  # arrays, kept alive so that an identity stays theirs
        self._compare: Callable[..., bool] | None = None
        self.arrays: set[int] = set()
        self.grads: dict[int, tuple[Value, object]] = {}
        self._seen: set[int] = set()
        stack: list[object] = [function, *others]
        while stack:
            stack.extend(self._enter(stack.pop()))
            if len(self._places) > _LIMIT:
                raise CaptureError(
                    f"capture of {getattr(function, '__name__', function)}",
                    expected=f"a step that reaches at most {_LIMIT:,} Python values",
                    got="more of them in its closure, globals or attributes",
                    mend="pass data as arrays, and as arguments",
                )

    def unchanged(self) -> bool:
        """Whether everything is the same, and not only equal; False may be wrong, and ``hold`` says then.

        Sound because it compares identities: what is the same object in the same place is what the step met, and what
        can change within that object has places of its own.
        """
        if self._compare is None:
            self._compare = _comparison(self._places, self._values)
        try:
            return self._compare() is True
        except _NOTHING_THERE:
            return False

    def hold(self) -> bool:
        """Whether everything is as it was. Equal numbers in other objects are what is compared with from then on."""
        if self.unchanged():
            return True
        found = [place.now() for place in self._places]
        if not all(map(_same, found, self._values)):
            return False
        self._values = found
        self._compare.__defaults__ = tuple(found)
        return True

    def changed(self) -> str | None:
        """A place where something has changed, in words; None if ``hold``."""
        for place, then in zip(self._places, self._values):
            now = place.now()
            if not _same(now, then):
                return f"{place}, from {_short(then)} to {_short(now)}"
        return None

    def _enter(self, value) -> Iterator[object]:
        """Notes what ``value`` holds, and gives what is to be walked from there."""
        if id(value) in self._seen or isinstance(value, (*_PLAIN, Op, Backend)):
            return
        self._seen.add(id(value))
        if isinstance(value, Value):
            self._note(_ATTRIBUTE, value, "array", value.array)
            self._note(_ATTRIBUTE, value, "requires_grad", value.requires_grad)
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
            plain = type(value).__getitem__ is dict.__getitem__ and not hasattr(value, "__missing__")
            self._note(_LENGTH, value, None, len(value))
            for key, each in dict.items(value):
                yield self._note(_ITEM if plain else _OWN_ITEM, value, key, each)
        elif isinstance(value, tuple):
            yield from value  # what it holds is settled by what it is
        elif isinstance(value, list):
            self._note(_LENGTH, value, None, len(value))
            for i, each in enumerate(value):
                yield self._note(_ITEM, value, i, each)
        elif isinstance(getattr(value, "__wrapped__", None), types.FunctionType) and _is_ours(type(value)):
            yield value.__wrapped__  # another captured step; its own programs are no state of this one
        elif isinstance(value, types.ModuleType):
            return  # which of its names are used is known where they are used: see _function
        elif isinstance(value, (set, frozenset)):
            self._note(_SET, value, None, frozenset(value))
        elif isinstance(value, type):
            if not _is_foreign(value):
                for name, each in vars(value).items():
                    yield self._note(_ITEM, vars(value), name, each)
        elif getattr(type(value), "settled", False):  # no attribute is ever another, by the word of its class
            for each in vars(value).values():
                yield from each if isinstance(each, list) else (each,)
        else:
            yield from self._object(value)

    def _object(self, value) -> Iterator[object]:
        """Attributes of an object, those in slots included, and of its classes."""
        if isinstance(getattr(value, "__dict__", None), dict):
            yield vars(value)
        for cls in type(value).__mro__:
            if not _is_foreign(cls):
                yield cls
                for name, slot in vars(cls).items():
                    if isinstance(slot, types.MemberDescriptorType):
                        yield self._note(_SLOT, value, name, getattr(value, name, _MISSING))

    def _note(self, kind: _Kind, holder, key, value):
        """Notes a place and what is there, and gives that."""
        self._places.append(_Place(kind, holder, key))
        self._values.append(value)
        return value

    def owners(self, backend: Backend) -> frozenset[int]:
        """Identities of what owns the memory of all reachable arrays of a backend."""
        return frozenset(id(backend.owner(array)) for array in self._kept if backend.owns(array))

    def _keep(self, array) -> None:
        self.arrays.add(id(array))
        self._kept.append(array)

    def _function(self, function: types.FunctionType) -> Iterator[object]:
        for cell in function.__closure__ or ():
            place = _Place(_ATTRIBUTE, cell, "cell_contents")
            yield self._note(*place, place.now())
        yield function.__defaults__ or ()
        yield function.__kwdefaults__ or {}
        if _is_foreign(function):
            return  # libraries' functions read no state but their arguments', the engine's own included
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if getattr(function, name) is not None:
                self._note(_ATTRIBUTE, function, name, getattr(function, name))
        names = set(_names(function.__code__))
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            yield self._note(_ITEM, function.__globals__, name, value)
            if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in _FOREIGN:
                for attribute in names & vars(value).keys():
                    yield self._note(_ITEM, vars(value), attribute, vars(value)[attribute])


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


def _same(now, then) -> bool:
    """Whether it is no change to a program: the same object, or an equal number, string or set."""
    if now is then or type(now) is not type(then):
        return now is then
    if isinstance(then, frozenset):
        return now == then
    return isinstance(then, _PLAIN) and now == then and repr(now) == repr(then)  # 0.0 == -0.0, which are two numbers


def _comparison(places: list[_Place], values: list[object]) -> Callable[..., bool]:
    """A function of a value for each place: whether they are what is there. Raises where nothing is.

    ``values`` are its defaults, which are passed on faster than arguments are.
    """
    names = {"own": dict.get, "missing": _MISSING}

    def name(thing) -> str:
        names[f"o{id(thing)}"] = thing
        return f"o{id(thing)}"

    comparisons = []
    for i, (kind, holder, key) in enumerate(places):
        text = key if kind is _ATTRIBUTE else repr(key) if type(key) in (int, str) else name(key)
        comparisons.append(kind.comparison.format(holder=name(holder), key=text, value=f"v{i}"))
    compare = written([f"v{i}" for i in range(len(places))], comparisons, "True", names)
    compare.__defaults__ = tuple(values)
    return compare


def written(parameters: Sequence[str], conditions: Sequence[str], result: str, names: dict[str, object]) -> Callable:
    """A new function: ``result`` if all conditions are true, else None. All are expressions of parameters and names.

    What is compared one after the other in one function costs a third of what it does in a loop over places.
    """
    test = f"{result} if {' and '.join(conditions)} else None" if conditions else result
    exec(f"def check({', '.join(parameters)}):\n    return {test}", names)
    return names["check"]
