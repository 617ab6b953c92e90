"""Reverse-mode differentiation: the tape, ``backward``, ``grad``, ``value_and_grad``, ``no_grad``.

The tape is an interpreter in the door: it lets an operation be evaluated and hangs a ``Node`` on its result, with what
backward will need. Nodes point at the nodes they came from, so a tape lives exactly as long as a result that needs it.
``_sweep`` walks them in the reverse order of their making, in a loop and not by recursion, and multiplies by each
record's vector-Jacobian product. Those are operations too: recorded in turn, they give gradients of gradients.

Whether operations are recorded is a matter of each thread.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

from tinynet.backend import is_floating
from tinynet.errors import ArgumentError, BackendError, DTypeError, GradientError, ShapeError

from .ops import door
from .ops.door import Value
from .ops.reduction import sum_to
from .ops.shaping import alias
from .ops.spec import Spec

_serial = itertools.count()


class Node:
    """What the tape remembers of one operation.

    Attributes:
        op, attributes: the record and its attributes.
        inputs: for each input, the node or the leaf that its gradient goes to, or None.
        kept: inputs as values where the record keeps them, as specs elsewhere.
        y: the output, likewise; without a node, lest it hold itself alive.
        versions: (counter, its value then, name) of every value kept.
        serial: position on the tape.
    """

    __slots__ = ("attributes", "inputs", "kept", "op", "serial", "versions", "y")

    def __init__(self, op, inputs: tuple[Value, ...], attributes: dict, output: Value):
        self.op, self.attributes, self.serial = op, attributes, next(_serial)
        self.inputs = tuple((v.node or v) if v.requires_grad else None for v in inputs)
        self.kept = tuple(v if i in op.keep else v.spec for i, v in enumerate(inputs))
        self.versions = [(v.versions, v.versions[0], i) for i, v in enumerate(self.kept) if isinstance(v, Value)]
        self.y: Value | Spec = output.spec
        if "y" in op.keep:
            self.y = door.values(output.array, output.backend, output.spec, output.versions)
            self.versions.append((output.versions, output.versions[0], "y"))

    def __repr__(self) -> str:
        return f"<node {self.serial}: {self.op.name}>"

    def check(self) -> None:
        """Raises GradientError if backward went through already, or a value it needs has been written to since."""
        if self.kept is None:
            raise GradientError(
                f"backward through {self.op.name}",
                expected="a tape that no backward has used",
                got="a second backward through the same operations",
                mend="compute the result again, or call the first backward with retain_graph=True",
            )
        for counter, version, which in self.versions:
            if counter[0] != version:
                name = (
                    "its result"
                    if which == "y"
                    else f"its input {self.op.inputs[min(which, len(self.op.inputs) - 1)]!r}"
                )
                raise GradientError(
                    f"backward through {self.op.name}",
                    expected=f"{name} as it was when the operation ran",
                    got=f"{counter[0] - version} write(s) to it since",
                    mend="call backward before changing tensors in place (before optimizer.step(), say)",
                )

    def gradients(self, g: Value, needs: tuple[bool, ...]) -> Sequence[Value | None]:
        """One gradient per input, None where none is needed."""
        op, y = self.op, self.y
        if (
            isinstance(y, Value) and door.state.tape is not None
        ):  # for gradients of gradients, the output is part of the tape
            y = door.values(y.array, y.backend, y.spec, y.versions)
            y.node, y.requires_grad = self, True
        if isinstance(op.vjp, tuple):
            grads = [
                f(g, y, *self.kept, **self.attributes) if need and f is not None else None
                for f, need in zip(op.vjp, needs)
            ]
        else:
            grads = op.vjp(g, y, *self.kept, needs=needs, **self.attributes)
        if op.broadcasts:
            grads = [
                sum_to(grad, shape=x.shape) if grad is not None and grad.shape != x.shape else grad
                for grad, x in zip(grads, self.kept)
            ]
        return grads


def tape(op, inputs, attributes, specs, evaluate):
    """The interpreter: evaluates, and records if a gradient flows to any input."""
    tracked = False
    for value in inputs:
        if value.requires_grad:
            tracked = True
            break
    if not tracked:
        return evaluate(op, inputs, attributes, specs)
    if op.updates:
        _refuse_update(op, inputs)
        return evaluate(op, inputs, attributes, specs)
    outputs = evaluate(op, inputs, attributes, specs)
    if op.vjp is not None and is_floating(specs[0].dtype):
        node = Node(op, inputs, attributes, outputs[0])
        if any(source is not None and _differentiable(op, i) for i, source in enumerate(node.inputs)):
            outputs[0].node = node
            outputs[0].requires_grad = True
    return outputs


def _differentiable(op, i: int) -> bool:
    return not isinstance(op.vjp, tuple) or op.vjp[i] is not None


def _refuse_update(op, inputs) -> None:
    raise GradientError(
        op.name,
        expected="no gradient to flow through a tensor that is written over",
        got="a tensor with requires_grad=True",
        mend="write inside 'with tn.no_grad():', or make a new tensor with tn.where or tn.concatenate",
    )


class recording:
    """A context that switches the tape of this thread on or off; also a decorator."""

    def __init__(self, on: bool):
        self._tape = tape if on else None
        self._outer: list = []

    def __enter__(self):
        self._outer.append(door.state.tape)
        door.state.tape = self._tape

    def __exit__(self, *_):
        door.state.tape = self._outer.pop()

    def __call__(self, function: Callable) -> Callable:
        on = self._tape is not None

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with recording(on):
                return function(*args, **kwargs)

        return wrapped


def no_grad() -> recording:
    """``with tn.no_grad():`` nothing is recorded, in this thread; results have ``requires_grad=False``.

    Works as a decorator too: ``@tn.no_grad()``.
    """
    return recording(False)


def is_recording() -> bool:
    """Whether operations of this thread are recorded for backward."""
    return door.state.tape is not None


# ---- the sweep ----


def _reachable(root: Node) -> list[Node]:
    """All nodes that ``root`` came from, itself included, latest first; each checked."""
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        node.check()
        for source in node.inputs:
            if isinstance(source, Node) and source not in seen:
                seen.add(source)
                stack.append(source)
    return sorted(seen, key=lambda node: -node.serial)


def _sweep(nodes: list[Node], seeds: dict, wanted: set | None, retain: bool) -> dict:
    """Gradients of ``seeds`` (node -> gradient) with respect to leaves and wanted nodes.

    Args:
        nodes: latest first.
        wanted: the leaves and nodes asked for; None for all leaves.
        retain: whether the nodes keep what they need for another sweep.
    """
    useful = None if wanted is None else _leading_to(nodes, wanted)
    gradients: dict = dict(seeds)
    for node in nodes:
        g = gradients.get(node) if wanted is not None and node in wanted else gradients.pop(node, None)
        if g is None or (useful is not None and node not in useful):
            continue
        needs = tuple(s is not None and (useful is None or s in useful or s in wanted) for s in node.inputs)
        if not any(needs):
            continue
        for i, (source, grad) in enumerate(zip(node.inputs, node.gradients(g, needs))):
            if grad is None or not needs[i]:
                continue
            before = gradients.get(source)
            gradients[source] = grad if before is None else before + grad
        if not retain:
            node.kept = node.y = None
            node.versions = []
    return gradients


def _leading_to(nodes: list[Node], wanted: set) -> set:
    """The nodes from which something wanted can be reached."""
    useful: set = set()
    for node in reversed(nodes):
        if any(source is not None and (source in useful or source in wanted) for source in node.inputs):
            useful.add(node)
    return useful


def backward(y: Value, grad=None, retain_graph: bool = False, create_graph: bool = False) -> None:
    """Adds dy/dx to ``x.grad`` of every leaf x with ``requires_grad`` that y was computed from.

    Args:
        y: a tensor that was recorded.
        grad: the gradient of some scalar with respect to y, of y's shape and dtype; may be left out if y has one
            element, and is then 1.
        retain_graph: keep the tape, for another backward through it.
        create_graph: record the gradients too, for gradients of gradients. Implies ``retain_graph``.

    Raises:
        GradientError: y was not recorded; it has several elements and no ``grad`` is given; backward went through
            before; a value that backward needs has been changed. Nothing is accumulated then.
        ShapeError, DTypeError: ``grad`` does not match y.
    """
    _require_recorded("backward", y)
    seed = _seed(y, grad)
    if y.node is None:
        gradients = {y: seed}
    else:
        nodes = _reachable(y.node)
        with recording(create_graph):
            gradients = _sweep(nodes, {y.node: seed}, None, retain_graph or create_graph)
            for leaf, g in gradients.items():
                if isinstance(leaf, Value) and leaf.grad is not None:
                    gradients[leaf] = leaf.grad + g
            for leaf, g in gradients.items():
                if isinstance(leaf, Value):
                    leaf.grad = g
        return
    y.grad = seed if y.grad is None else y.grad + seed


def _require_recorded(where: str, y: Value) -> None:
    if not isinstance(y, Value) or not y.requires_grad:
        raise GradientError(
            where,
            expected="a result that depends on a tensor with requires_grad=True",
            got="one that does not" if isinstance(y, Value) else repr(y),
            mend="set requires_grad=True on the inputs, and compute outside of no_grad()",
        )


def _seed(y: Value, grad) -> Value:
    if grad is None:
        if y.spec.size != 1:
            raise GradientError(
                "backward",
                expected="a scalar, or the gradient of its result as backward(grad)",
                got=f"shape {y.shape} and no gradient",
                mend="reduce to a scalar first: loss.mean().backward()",
            )
        return door.values(y.backend.full(y.shape, 1, y.dtype), y.backend, y.spec)
    grad = grad if isinstance(grad, Value) else door.wrap(grad, y.backend, "backward")
    if grad.shape != y.shape:
        raise ShapeError("backward", expected=f"a gradient of shape {y.shape}", got=str(grad.shape))
    if grad.dtype != y.dtype:
        raise DTypeError("backward", expected=f"a gradient of {y.dtype}", got=str(grad.dtype), mend="use .astype(...)")
    if grad.backend is not y.backend:
        raise BackendError("backward", expected=f"a gradient on {y.backend.name}", got=grad.backend.name)
    return grad


# ---- the functional interface ----


def value_and_grad(f: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """A function that returns ``(f(*args), gradients)``.

    Args:
        f: takes tensors (and anything else), returns a scalar tensor.
        argnums: which positional arguments to differentiate with respect to. An integer gives one gradient, a tuple a
            tuple of them.

    The gradients can be differentiated again if an argument, or a tensor that f uses, requires gradients itself;
    ``grad(grad(f))`` works.

    Raises:
        GradientError: f does not return a scalar, or an argument is not a floating tensor.
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(f)
    def with_gradient(*args, **kwargs):
        outer = is_recording()
        with recording(True):
            inputs = []
            args = list(args)
            for i in positions:
                if not -len(args) <= i < len(args):
                    raise ArgumentError("grad", expected=f"argnums below {len(args)}", got=str(i))
                args[i] = _entry(args[i], outer)
                inputs.append(args[i])
            y = f(*args, **kwargs)
            if not isinstance(y, Value) or y.spec.size != 1:
                got = f"a tensor of shape {y.shape}" if isinstance(y, Value) else repr(y)
                raise GradientError("grad", expected="a function that returns a scalar tensor", got=got)
            gradients, again = _gradients_of(y, inputs, outer)
        if not again and y.requires_grad:
            y = door.values(y.array, y.backend, y.spec, y.versions)
        return y, gradients[0] if isinstance(argnums, int) else tuple(gradients)

    return with_gradient


def grad(f: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """A function that returns the gradient of ``f``; arguments and errors as ``value_and_grad``.

    Example:
        >>> tn.grad(lambda x: (x * x).sum())(tn.tensor([1.0, 2.0]))
        tensor([2., 4.])
    """
    both = value_and_grad(f, argnums)

    @functools.wraps(f)
    def gradient(*args, **kwargs):
        return both(*args, **kwargs)[1]

    return gradient


def _entry(x, outer: bool) -> Value:
    """``x`` as an input of its own: a fresh leaf, or, if an outer differentiation follows it, its alias."""
    if not isinstance(x, Value) or not is_floating(x.dtype):
        raise GradientError(
            "grad",
            expected="a floating tensor to differentiate with respect to",
            got=f"a tensor of {x.dtype}" if isinstance(x, Value) else repr(x),
            mend="convert it with .astype('float32'), or leave it out of argnums",
        )
    if x.requires_grad and outer:
        return alias(x)
    leaf = door.values(x.array, x.backend, x.spec, x.versions)
    leaf.requires_grad = True
    return leaf


def _gradients_of(y: Value, inputs: list[Value], outer: bool) -> tuple[list[Value], bool]:
    """dy/dx for each input, zeros where y does not depend on it; and whether they are differentiable in turn."""
    sources = [x.node or x for x in inputs]
    found: dict = {}
    again = False
    if y.requires_grad:
        seed = _seed(y, None)
        if y.node is None:
            found = {y: seed}
        else:
            nodes = _reachable(y.node)
            fresh = {x for x in inputs if x.node is None}
            # Only what somebody else tracks needs a tape of the gradients: other leaves, or nodes of an outer function.
            again = outer and any(
                source is not None and source not in fresh
                for node in nodes
                for source in node.inputs
                if not isinstance(source, Node)
            )
            with recording(again):
                found = _sweep(nodes, {y.node: seed}, set(sources), retain=again)
    zeros = [door.values(x.backend.zeros(x.shape, x.dtype), x.backend, x.spec) for x in inputs]
    return [found.get(source, zero) for source, zero in zip(sources, zeros)], again


door._State.tape = staticmethod(tape)
