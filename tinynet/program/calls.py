"""A call of a captured step: its arguments taken apart, and its results described so that later calls can make them.

Arguments and results may be tensors in lists, tuples, named tuples and dicts. Nothing is traced or run here.
"""

from __future__ import annotations

from collections.abc import Callable

from tinynet.backend import HostArray, Shadow, get_backend
from tinynet.errors import CaptureError
from tinynet.ops import Value, door
from tinynet.tensor import Tensor, as_tensor

from .guards import written

_PLAIN = (bool, int, float, str)
_MOST_COMPARED = 16  # arrays of a call that are compared with each other


class Call:
    """The arguments of a call, taken apart.

    Attributes:
        args, kwargs: as given, arrays having become tensors.
        leaves: the tensors in them, in order.
        objects: other things in them, for the guards.
        given: as given, arrays included.
        copied: which leaves are contiguous copies of the arguments.
        shapes: of the leaves, with dtype and whether a gradient is wanted.
        signature: what a program is for; the shapes come last.
    """

    def __init__(self, args: tuple, kwargs: dict):
        self.leaves: list[Tensor] = []
        self.objects: list[object] = []
        self.copied: set[int] = set()
        self.given = args, kwargs
        (self.args, self.kwargs), structure = self._take((args, kwargs))
        backends = {leaf.backend for leaf in self.leaves}
        if len(backends) > 1:
            raise CaptureError("capture", expected="arguments on one backend", got=", ".join(b.name for b in backends))
        self.backend = backends.pop() if backends else get_backend()
        first: dict[int, int] = {}  # a trace knows arrays by their identity
        alias = tuple(first.setdefault(id(leaf.array), i) for i, leaf in enumerate(self.leaves))
        self.shapes = tuple((leaf.shape, leaf.dtype.name, leaf.requires_grad) for leaf in self.leaves)
        self.signature = (structure, self.backend.name, alias, door.state.tape is not None, self.shapes)

    def place(self, tensor: Value) -> int | None:
        """The index of a tensor among the leaves, or None."""
        return next((i for i, leaf in enumerate(self.leaves) if leaf is tensor), None)

    def _take(self, value):
        """``value`` with arrays as tensors, and a hashable description of the rest."""
        if isinstance(value, HostArray):
            value = as_tensor(value)
        if isinstance(value, Value):
            return self._leaf(value), "tensor"
        if isinstance(value, (list, tuple)):
            pairs = [self._take(each) for each in value]
            kind = type(value)
            made = kind(*(v for v, _ in pairs)) if hasattr(value, "_fields") else kind(v for v, _ in pairs)
            return made, (kind.__name__, *(d for _, d in pairs))
        if isinstance(value, dict):
            pairs = {key: self._take(each) for key, each in value.items()}
            return {k: v for k, (v, _) in pairs.items()}, ("dict", *((k, d) for k, (_, d) in pairs.items()))
        if value is None or isinstance(value, _PLAIN):
            return value, (type(value).__name__, value, repr(value))  # 0.0 == -0.0, which are two numbers
        self.objects.append(value)
        return value, ("object", id(value))

    def _leaf(self, value: Tensor) -> Tensor:
        array = value.array if isinstance(value.array, Shadow) else value.backend.contiguous(value.array)
        if array is not value.array:  # slots of programs are contiguous, and so is what is traced
            if value.requires_grad:
                raise CaptureError(
                    "capture", expected="contiguous arguments where a gradient is wanted", got="another layout",
                    mend="pass a .copy() of it",
                )  # fmt: skip
            self.copied.add(len(self.leaves))
            value = Tensor(array, value.backend, value.spec)
        self.leaves.append(value)
        return value


class Form:
    """What the arguments of a call are like, to know the arrays of a later call that is like it in little time.

    The comparison is a function that is written for the call. It takes a call for like it only where ``Call`` would
    give the same signature and copy nothing, and where no argument lies in memory that the step can reach by itself.
    Many calls for which that is so it does not know, which cost the time of a ``Call`` then: containers, for example.
    """

    def __init__(self, count: int, names: tuple[str, ...], arrays: Callable[..., list | None]):
        self._count, self._names, self._arrays = count, names, arrays

    @classmethod
    def of(cls, call: Call, reachable: frozenset[int]) -> Form | None:
        """The form of a call's arguments; None where it would be known of no later call.

        Args:
            reachable: identities of what owns the memory that the step can reach.
        """
        args, kwargs = call.given
        values, backend, leaves = [*args, *kwargs.values()], call.backend, iter(call.leaves)
        names = {"backend": backend, "contiguous": backend.contiguous, "owner": backend.owner, "in_use": get_backend}
        names["reachable"] = reachable
        conditions, arrays = [], []
        if not all(isinstance(value, Value) for value in values):  # arrays become tensors of the backend in use
            conditions.append("in_use() is backend")
        for i, value in enumerate(values):
            names |= {f"type{i}": type(value), f"value{i}": value}
            if isinstance(value, (list, tuple, dict)):
                return None
            if not isinstance(value, (Value, HostArray)):
                conditions.append(f"a{i} is value{i}")
                continue
            del names[f"value{i}"]  # an argument is not kept alive
            leaf, array = next(leaves), f"a{i}"
            names |= {f"shape{i}": leaf.shape, f"dtype{i}": leaf.dtype}
            conditions += [f"type(a{i}) is type{i}", f"a{i}.shape == shape{i}", f"a{i}.dtype == dtype{i}"]
            if isinstance(value, Value):
                names[f"flag{i}"], array = value.requires_grad, f"a{i}.array"
                conditions += [f"a{i}.requires_grad is flag{i}", f"a{i}.backend is backend"]
            elif not backend.owns(value):
                return None
            conditions += [f"{array} is not {other}" for other in arrays]
            conditions += [f"contiguous({array}) is {array}", f"id(owner({array})) not in reachable"]
            arrays.append(array)
        if len(arrays) > _MOST_COMPARED or len({id(leaf.array) for leaf in call.leaves}) < len(arrays):
            return None
        parameters = [f"a{i}" for i in range(len(values))]
        return cls(len(values), tuple(kwargs), written(parameters, conditions, f"[{', '.join(arrays)}]", names))

    def arrays(self, args: tuple, kwargs: dict) -> list | None:
        """The arrays of the leaves of a call that is like this one; None if it may not be."""
        if kwargs or self._names:
            if tuple(kwargs) != self._names:
                return None
            args = (*args, *kwargs.values())
        return self._arrays(*args) if len(args) == self._count else None


class Results:
    """What a step returned and the gradients it left, as outputs of the graph and a way to make them of its outputs.

    Args:
        result: what the step returned.
        trace: of that call; outputs are added to its graph.
        call: the call.
        keep_grads: whether gradients are outputs too.

    Attributes:
        eager: the arrays of the outputs, where the trace evaluated.
        of_arguments: whether arguments are among the results, or get gradients.

    Raises:
        CaptureError: results of a kind that cannot be made again.
    """

    def __init__(self, result, trace, call: Call, keep_grads: bool):
        self.eager: list[object] = []
        self.of_arguments = False
        self._trace = trace
        self._structure = self._describe(result, call)
        grads = self._final_grads(call, keep_grads)
        self._fixed_grads = [(p, grad) for p, grad in grads if not isinstance(p, int) and not isinstance(grad, int)]
        self._grads = [(p, grad) for p, grad in grads if isinstance(p, int) or isinstance(grad, int)]
        self.of_arguments |= any(isinstance(p, int) for p, _ in grads)
        del self._trace

    def make(self, tensors: list[Tensor], leaves: list[Tensor] | None = None):
        """The result of a call, from the tensors of the outputs; sets gradients as the step would have.

        Args:
            leaves: of the call; needed where ``of_arguments``.
        """
        for target, grad in self._fixed_grads:
            target._grad = grad
        for target, grad in self._grads:
            (leaves[target] if isinstance(target, int) else target)._grad = (
                tensors[grad] if isinstance(grad, int) else grad
            )
        kind, content = self._structure
        return tensors[content] if kind == "output" else self._rebuild(self._structure, tensors, leaves)

    def _output(self, value: Tensor) -> int:
        graph = self._trace.graph
        graph.outputs.append(self._trace.register(value))
        self.eager.append(value.array)
        return len(graph.outputs) - 1

    def _describe(self, value, call: Call):
        """A description of the result, from which ``_rebuild`` makes that of a later call."""
        if isinstance(value, Value):
            place = call.place(value)
            if place is not None:
                self.of_arguments = True
                return "input", place
            if any(value is tensor for tensor in self._trace.externals.values()):
                return "same", value
            return "output", self._output(value)
        if isinstance(value, (list, tuple)):
            return type(value), [self._describe(each, call) for each in value]
        if isinstance(value, dict):
            return dict, {key: self._describe(each, call) for key, each in value.items()}
        if value is None or isinstance(value, _PLAIN):
            return "same", value
        raise CaptureError(
            "capture", expected="tensors, numbers and containers of them as results", got=type(value).__name__,
            mend="return tensors, and make other objects of them outside",
        )  # fmt: skip

    def _rebuild(self, structure, tensors: list[Tensor], leaves: list[Tensor] | None):
        kind, content = structure
        if kind == "output":
            return tensors[content]
        if kind == "same":
            return content
        if kind == "input":
            return leaves[content]
        if kind is dict:
            return {key: self._rebuild(each, tensors, leaves) for key, each in content.items()}
        values = [self._rebuild(each, tensors, leaves) for each in content]
        return kind(*values) if hasattr(kind, "_fields") else kind(values)

    def _final_grads(self, call: Call, keep_grads: bool) -> list[tuple]:
        """(Tensor or index of the argument, its ``grad`` after the step: None, ``WITHHELD`` or an index of outputs)."""
        found, trace = [], self._trace
        outside = {id(tensor): tensor for tensor in trace.externals.values()}
        for tensor, grad in trace.grads:
            place = call.place(tensor)
            if place is None:
                if id(tensor) not in outside and id(tensor.array) not in trace.guards.arrays:
                    continue  # made within the step, and gone with it
                place = tensor
            if grad is not None:
                grad = self._output(grad) if keep_grads else door.WITHHELD
            found.append((place, grad))
        return found
