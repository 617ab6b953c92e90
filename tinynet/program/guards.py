"""Guards: what a captured step read of Python, and whether it is still so.

A program freezes every Python number, flag and layer that the step used. So the objects that the step can reach (its
closure, the globals it names, and from there attributes, lists, dicts, modules, optimizers) are walked once, and every
number, string or flag found is noted with its place. Before each call the places are looked at again; where one has
changed, the program does not apply, and the step is captured anew.

There are a hundred places in a small step, and a call has time for nanoseconds at each. So they are compared by one
expression, which is written for them: ``h0.array is v0 and h1['lr'] is v1 and ...``. What it does not find the same is
looked at once more, since an equal number in another object is no change.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tinynet.backend import Backend, HostArray
from tinynet.errors import CaptureError
from tinynet.ops import Op, Value

from .source import Source, all_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LIMIT = 20_000  # places looked at before each call
_MISSING = object()
NOTHING_THERE = (AttributeError, LookupError, ValueError)  # ValueError: a name of a closure that is not bound
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
        except NOTHING_THERE:
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
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()  # of functions that compare
        self._compare: tuple[Source, Callable[[], bool]] | None = None
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

    def conditions(self, source: Source) -> list[str]:
        """Expressions for a function, all of them true if everything is the same, and not only equal.

        They are sound because they compare identities: what is the same object in the same place is what the step met,
        and what can change within that object has places of its own. They may raise one of ``NOTHING_THERE``.
        """
        source.names.update(own=dict.get, missing=_MISSING)
        self._name_values(source)
        self._sources.add(source)
        name = source.name
        return [
            kind.comparison.format(
                holder=name(holder), value=f"v{i}",
                key=key if kind is _ATTRIBUTE else repr(key) if type(key) in (int, str) else name(key),
            ) for i, (kind, holder, key) in enumerate(self._places)
        ]  # fmt: skip

    def hold(self) -> bool:
        """Whether everything is as it was. Equal numbers in other objects are what is compared with from then on."""
        if self._compare is None:
            source = Source()
            source.add(f"return {all_of(self.conditions(source))}")
            self._compare = source, source.function()
        with contextlib.suppress(*NOTHING_THERE):
            if self._compare[1]():
                return True
        found = [place.now() for place in self._places]
        if not all(map(_same, found, self._values)):
            return False
        self._values = found
        for source in self._sources:
            self._name_values(source)
        return True

    def _name_values(self, source: Source) -> None:
        source.names.update((f"v{i}", value) for i, value in enumerate(self._values))

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
            yield vars(value)  # an item of a dict that is there is read in half the time of an attribute
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

