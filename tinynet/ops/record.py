"""The op record: all that the engine knows of an operation, in one place.

Making a record puts it into the op table, and the record is the function that users call. A new operation needs one
record and, unless it is elementwise, one reference kernel; evaluation, gradients, every backend and the test suite
follow from those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from tinynet import kernels
from tinynet.errors import ArgumentError, RangeError

from . import door, splitting
from .spec import Spec

REQUIRED = object()
_table: dict[str, Op] = {}
_dtype_names: dict[object, str] = {}  # NumPy takes microseconds to say one


class Sample(NamedTuple):
    """Inputs and attributes on which the test suite tries an operation; see ``tinynet.ops.samples``."""

    inputs: tuple
    attributes: Mapping[str, Any] = {}


class Bounds(NamedTuple):
    """Between which numbers the values of an input have to be: low <= value < high.

    Attributes:
        input: its index.
        where, what: for the message: the operation, and what the values are.
    """

    input: int
    low: int
    high: int
    where: str
    what: str

    def check(self, backend, array) -> None:
        """Raises RangeError where a value is outside."""
        if 0 in array.shape:
            return
        least, most = int(backend.xp.min(array)), int(backend.xp.max(array))
        if least < self.low or most >= self.high:
            raise RangeError(
                self.where, expected=f"{self.what} from {self.low} to {self.high - 1}",
                got=str(least if least < self.low else most),
            )  # fmt: skip


class Op:
    """One operation.

    Args:
        name: unique; also the name of its kernels.
        inputs: names of the array inputs. A last name with ``*`` takes any number, one with ``?`` may be left out.
        rule: ``rule(*specs, **attributes) -> Spec`` (a tuple of them for several outputs). Raises the typed errors.
        attributes: keyword attributes and their defaults; ``REQUIRED`` for those without.
        vjp: the vector-Jacobian product, in operations, so that gradients have gradients. Either one function per
            input, ``f(g, y, *inputs, **attributes)``, None where an input has no gradient; or one for all inputs,
            ``f(g, y, *inputs, needs, **attributes)``, which returns a gradient for each input whose ``needs`` is
            true. Inputs that ``keep`` does not name, and ``y``, come as their ``Spec``. Only operations with one
            output are differentiable.
        keep: what backward needs: indices of inputs, and "y" for the output.
        expression: the mathematics of an elementwise operation (text in the language of ``kernels.expression``).
        kernel: the reference kernel, if it is not registered already.
        view: ``f(backend, array, **attributes) -> (array, shares)``: the result as a view of the first input.
        updates: output index -> index of the input that it is written over, for operations that change their inputs.
        overwrites: indices of inputs whose memory an output may take, if nobody else needs it: the first output, or
            with a pair (input, output) that one.
        broadcasts: inputs are broadcast against each other, so that gradients are summed back to their shapes.
        normalize: ``f(*specs, **attributes) -> dict``: attributes in the one form that kernels see.
        bounds: ``f(*specs, **attributes) -> Bounds | None``: between which numbers the *values* of an input have to be,
            which is looked at before any write.
        split: ``f(n, axes, *specs, **attributes) -> Split | None``: how it acts on parts of inputs of n rows, input i
            along ``axes[i]`` (see ``splitting``). Elementwise operations have one by themselves; None: not at all.
        flops: ``f(output, *specs, **attributes) -> int``, arithmetic operations of one evaluation.
        samples: ``f(n) -> iterable of Sample`` for a size parameter n; may be empty for an n that cannot be.
        public: whether it is exported as ``tinynet.<name>``.
        listed: whether it is put into the op table. What a program makes for itself (fused chains) is not.
        doc: the docstring.
    """

    def __init__(
        self,
        name: str,
        inputs: str,
        rule: Callable[..., Spec | tuple[Spec, ...]],
        *,
        attributes: Mapping[str, Any] | None = None,
        vjp: tuple[Callable | None, ...] | Callable | None = None,
        keep: tuple[int | str, ...] = (),
        expression: str | kernels.Expression | None = None,
        kernel: Callable | None = None,
        view: Callable | None = None,
        updates: Mapping[int, int] | None = None,
        overwrites: tuple[int | tuple[int, int], ...] = (),
        broadcasts: bool = False,
        normalize: Callable[..., dict] | None = None,
        bounds: Callable | None = None,
        split: Callable | None = None,
        flops: Callable[..., int] | None = None,
        samples: Callable[[int], Iterable[Sample]] | None = None,
        public: bool = True,
        listed: bool = True,
        doc: str = "",
    ):
        if listed and name in _table:
            raise ArgumentError(f"op {name!r}", expected="a name that is not in the op table", got="one that is")
        names = inputs.split()
        self.name = self.__name__ = name
        self.__doc__ = doc
        self.variadic = bool(names) and names[-1].endswith("*")
        self.optional = sum(each.endswith("?") for each in names)
        self.inputs = tuple(each.rstrip("*?") for each in names)
        self.attributes = dict(attributes or {})
        self.rule, self.vjp, self.keep, self.view, self.bounds = rule, vjp, frozenset(keep), view, bounds
        self.updates = dict(updates or {})
        self.overwrites = tuple(each if isinstance(each, tuple) else (each, 0) for each in overwrites)
        self.broadcasts, self.normalize = broadcasts, normalize
        self.flops, self.samples, self.public = flops, samples, public
        self.expression: kernels.Expression | None = None
        self.split = split
        if expression is not None:
            given = isinstance(expression, kernels.Expression)
            self.expression = (
                expression if given else kernels.Expression(expression, self.inputs, tuple(self.attributes))
            )
            self.split = split or splitting.rows
            self.flops = flops or (lambda out, *specs, **attributes: self.expression.flops * out.size)
        if not listed:
            return
        if self.expression is not None:
            kernels.define(name, self.expression)
        if kernel is not None:
            kernels.register(name)(kernel)
        _table[name] = self

    def __repr__(self) -> str:
        return f"<op {self.name}({', '.join(self.inputs)}{''.join(f', {a}=' for a in self.attributes)})>"

    @property
    def __signature__(self):
        """What ``help`` and editors show: inputs by position, attributes with their defaults."""
        from inspect import Parameter, Signature

        inputs = [
            Parameter(name, Parameter.VAR_POSITIONAL if self.variadic else Parameter.POSITIONAL_ONLY)
            for name in self.inputs
        ]
        kind = Parameter.KEYWORD_ONLY
        defaults = {name: Parameter.empty if v is REQUIRED else v for name, v in self.attributes.items()}
        return Signature([*inputs, *(Parameter(name, kind, default=v) for name, v in defaults.items())])

    def __reduce__(self):  # a record is found by its name: copies of a model share it
        return lookup, (self.name,)

    def __call__(self, *args, **attributes):
        """Inputs come first; positional arguments after them are attributes, in their order."""
        if self.variadic:
            if len(args) == 1 and isinstance(args[0], (list, tuple)):
                args = tuple(args[0])
            return door.apply(self, args, self._complete(attributes))
        n = len(self.inputs)
        if len(args) > n:
            named = dict(zip(self.attributes, args[n:]))
            if len(args) - n > len(self.attributes) or named.keys() & attributes.keys():
                raise ArgumentError(self.name, expected=repr(self), got=f"{len(args)} positional arguments")
            args, attributes = args[:n], named | attributes
        while len(args) > n - self.optional and args[-1] is None:  # an optional input, left out by name
            args = args[:-1]
        if len(args) < n - self.optional:
            raise ArgumentError(self.name, expected=f"inputs {', '.join(self.inputs)}", got=f"{len(args)} of them")
        return door.apply(self, args, self._complete(attributes))

    def _complete(self, attributes: dict) -> dict:
        if not attributes.keys() <= self.attributes.keys():
            unknown = ", ".join(sorted(attributes.keys() - self.attributes.keys()))
            raise ArgumentError(self.name, expected=repr(self), got=f"an attribute {unknown}")
        complete = self.attributes | attributes
        for key, value in complete.items():
            if value is REQUIRED:
                raise ArgumentError(self.name, expected=f"the attribute {key}=", got="nothing")
        return complete

    def kernel(self, target: str, dtype) -> Callable:
        """The kernel for a backend's target and an element type."""
        name = _dtype_names.get(dtype)
        if name is None:
            name = _dtype_names[dtype] = dtype.name
        return kernels.find(self.name, target, name)

    def check(self, backend, arrays, attributes: dict) -> None:
        """Raises RangeError where a value of an input is out of its bounds."""
        bounds = self.bounds(*arrays, **attributes) if self.bounds is not None else None
        if bounds is not None:
            bounds.check(backend, arrays[bounds.input])

    def cost(self, *specs: Spec, **attributes) -> tuple[int, int]:
        """(flops, bytes read and written) of one evaluation."""
        attributes = self._complete(attributes)
        if self.normalize:
            attributes = self.normalize(*specs, **attributes)
        outputs = self.rule(*specs, **attributes)
        outputs = (outputs,) if isinstance(outputs, Spec) else outputs
        flops = self.flops(outputs[0], *specs, **attributes) if self.flops else 0
        return flops, sum(spec.nbytes for spec in (*specs, *outputs))

    def remove(self) -> None:
        """Takes the operation and its kernels out of the table; for tests that add one."""
        _table.pop(self.name, None)
        kernels.registry.forget(self.name)


def lookup(name: str) -> Op:
    """The record of that name. KeyError if there is none."""
    return _table[name]


def table() -> dict[str, Op]:
    """The op table: name -> record, in the order of their making."""
    return dict(_table)
