"""The one door through which every operation goes, and what flows through it.

``apply(record, inputs, attributes)`` makes values of the inputs, applies the record's shape rule, and hands over to the
interpreter of this thread: evaluation, behind a tape that records it for backward. Other interpreters (capturing into
a program, tracing with shapes alone) take the same place; no operation knows which of them is at work.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tinynet.backend import Backend, HostArray, HostScalar, get_backend, host_array, integer_range, is_floating
from tinynet.errors import ArgumentError, BackendError, CaptureError, DTypeError

from .spec import BOOL, FLOAT32, Spec

if TYPE_CHECKING:
    from .record import Op


class Value:
    """An array with its spec and backend, and what a tape hangs on it. ``Tensor`` adds what users see.

    Attributes:
        array: the backend's array.
        shape, dtype: its spec.
        backend: where it lives.
        requires_grad: whether gradients flow to it.
        grad: the accumulated gradient of a leaf, or None. CaptureError where a captured step did not keep it.
        node: the tape's entry that made it, or None for a leaf.
        versions: a one-element list that counts writes to the memory; shared by all views of it.
    """

    __slots__ = ("__weakref__", "_grad", "array", "backend", "dtype", "node", "requires_grad", "shape", "versions")

    def __init__(self, array, backend: Backend, spec: Spec, versions: list[int] | None = None):
        self.array, self.backend = array, backend
        self.shape, self.dtype = spec
        self.requires_grad = False
        self._grad = self.node = None
        self.versions = [0] if versions is None else versions

    @property
    def grad(self):
        """The accumulated gradient, or None."""
        if state.tracer is not None:
            state.tracer.grad_read(self)
        if self._grad is WITHHELD:
            raise CaptureError(
                "grad",
                expected="a gradient that somebody keeps",
                got="one of a captured step, whose memory has other uses by now",
                mend="capture with keep_grads=True",
            )
        return self._grad

    @grad.setter
    def grad(self, value) -> None:
        if state.tracer is not None:
            state.tracer.grad_written(self)
        self._grad = value

    @property
    def spec(self) -> Spec:
        return Spec(self.shape, self.dtype)


WITHHELD = object()  # in place of a gradient that a captured step has computed and not kept


class Tracer(Protocol):
    """What an interpreter that captures is told, beside the operations that it is given."""

    def value_read(self, value: Value) -> None:
        """Python is about to see the numbers of a tensor."""

    def grad_read(self, value: Value) -> None:
        """``value.grad`` is about to be read."""

    def grad_written(self, value: Value) -> None:
        """``value.grad`` is about to be set."""

    def before_each_call(self, refresh: Callable[[], None]) -> None:
        """``refresh`` writes what Python computes anew for each call into tensors that the step reads."""


class _State(threading.local):
    """What is at work in a thread.

    Attributes:
        evaluate: the interpreter that gives results.
        tape: set by autograd: a wrapper around ``evaluate``, or None.
        tracer: while a step is being captured, what wants to know of more than operations.
    """

    evaluate = None
    tape = None
    tracer: Tracer | None = None


def host(value: Value):
    """The numbers of a tensor as a host array: the only way out of the engine."""
    if state.tracer is not None:
        state.tracer.value_read(value)
    return value.backend.to_host(value.array)


def before_each_call(refresh: Callable[[], None]) -> None:
    """Runs ``refresh`` now and, if a step is being captured, before each later call of the program too.

    It is for what Python computes from call to call, such as the learning rate of a schedule.
    """
    with paused():
        refresh()
    if state.tracer is not None:
        state.tracer.before_each_call(refresh)


@contextlib.contextmanager
def paused():
    """What is done in this block is no part of a step that is being captured."""
    outer = state.tracer, state.evaluate
    state.tracer, state.evaluate = None, evaluate
    try:
        yield
    finally:
        state.tracer, state.evaluate = outer


state = _State()
values: type[Value] = Value  # the class of results; tensor.py puts Tensor here


def apply(op: Op, inputs: tuple, attributes: dict):
    """Runs an operation: a Value, or a tuple of them for several outputs."""
    inputs = adapt(op, inputs)
    specs = [Spec(value.shape, value.dtype) for value in inputs]
    if op.normalize is not None:
        attributes = op.normalize(*specs, **attributes)
    outputs = op.rule(*specs, **attributes)
    single = isinstance(outputs, Spec)
    outputs = (outputs,) if single else outputs
    run = state.evaluate
    results = run(op, inputs, attributes, outputs) if state.tape is None else state.tape(
        op, inputs, attributes, outputs, run
    )  # fmt: skip
    return results[0] if single else results


def adapt(op: Op, inputs: tuple) -> tuple[Value, ...]:
    """The inputs as values on one backend.

    Arrays and lists become constants on the backend of the other inputs. Python scalars take the element type of the
    other inputs, so that float32 stays float32.

    Raises:
        BackendError: inputs on two backends.
        DTypeError: a fraction next to integers, a boolean next to numbers.
    """
    backend = reference = None
    plain = True
    for value in inputs:
        if isinstance(value, Value):
            if backend is None:
                backend = value.backend
            elif value.backend is not backend:
                raise BackendError(
                    op.name,
                    expected="inputs on one backend",
                    got=f"{backend.name} and {value.backend.name}",
                    mend="move one with .to(...)",
                )
            if reference is None or reference == BOOL:
                reference = value.dtype
        else:
            plain = False
    if plain:
        return inputs
    if backend is None:
        backend = get_backend()
    wrapped = []
    for value in inputs:
        if not isinstance(value, (Value, bool, int, float, HostScalar)):
            value = wrap(value, backend, op.name)
            if reference is None or reference == BOOL:
                reference = value.dtype
        wrapped.append(value)
    return tuple(v if isinstance(v, Value) else _scalar(op, v, backend, reference) for v in wrapped)


def wrap(data, backend: Backend, where: str) -> Value:
    """A constant from an array of the backend, a host array or nested lists."""
    if data is None or isinstance(data, (str, bytes, dict)):
        raise ArgumentError(where, expected="a tensor, an array or a number", got=repr(data))
    if not backend.owns(data):
        if not isinstance(data, (HostArray, list, tuple)) and not hasattr(data, "__array__"):
            raise ArgumentError(where, expected=f"a tensor or an array of {backend.name}", got=type(data).__name__)
        data = backend.from_host(host_array(data))
    dtype = backend.dtype_of(data)
    return values(data, backend, Spec(tuple(data.shape), dtype))


def _scalar(op: Op, value, backend: Backend, reference) -> Value:
    if isinstance(value, HostScalar):
        value = value.item()
    dtype = reference if reference is not None and reference != BOOL else FLOAT32
    if isinstance(value, bool):
        dtype = BOOL
    check_number(op.name, value, dtype)
    return values(backend.full((), value, dtype), backend, Spec((), dtype))


def check_number(where: str, value: bool | int | float, dtype) -> None:
    """Raises DTypeError where a Python number would not be what it is in ``dtype``; floats round."""
    if dtype == BOOL:
        return
    if is_floating(dtype):
        fits = not isinstance(value, int) or abs(value) < 2**1023
    elif isinstance(value, float):
        raise DTypeError(
            where,
            expected=f"an integer next to a tensor of {dtype}",
            got=repr(value),
            mend="convert the tensor with .astype('float32')",
        )
    else:
        fits = integer_range(dtype)[0] <= value <= integer_range(dtype)[1]
    if not fits:
        raise DTypeError(where, expected=f"a number that {dtype} can hold", got=repr(value))


def evaluate(op: Op, inputs: tuple[Value, ...], attributes: dict, specs: tuple[Spec, ...]) -> tuple[Value, ...]:
    """The interpreter that computes: fresh memory for each output, then the kernel."""
    backend = inputs[0].backend
    arrays = [value.array for value in inputs]
    if op.bounds is not None:
        op.check(backend, arrays, attributes)
    if op.updates:
        return _update(op, inputs, arrays, attributes, backend)
    if op.view is not None:
        array, shares = op.view(backend, arrays[0], **attributes)
        return (values(array, backend, specs[0], inputs[0].versions if shares else None),)
    outputs = tuple(backend.empty(shape, dtype) for shape, dtype in specs)
    kernel = op.kernel(backend.target, specs[0].dtype)
    with backend.quiet():
        kernel(outputs[0] if len(outputs) == 1 else outputs, *arrays, **attributes)
    return tuple(values(array, backend, spec) for array, spec in zip(outputs, specs))


def _update(op, inputs, arrays, attributes, backend) -> tuple[Value, ...]:
    """An operation that writes over some of its inputs, which are its results."""
    targets = tuple(inputs[i] for _, i in sorted(op.updates.items()))
    outputs = tuple(value.array for value in targets)
    if not all(map(backend.writable, outputs)):
        raise ArgumentError(
            op.name,
            expected="memory that may be written to",
            got="a read-only array, or a broadcast view",
            mend="write into a .copy() of it",
        )
    kernel = op.kernel(backend.target, targets[0].dtype)
    with backend.quiet():
        kernel(outputs[0] if len(outputs) == 1 else outputs, *arrays, **attributes)
    for value in targets:
        value.versions[0] += 1
    return targets


_State.evaluate = staticmethod(evaluate)
