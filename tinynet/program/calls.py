"""A call of a captured step: its arguments taken apart, and its results described so that later calls can make them.

Arguments and results may be tensors in lists, tuples, named tuples and dicts. Nothing is traced or run here.
"""

from __future__ import annotations

from tinynet.backend import HostArray, Shadow, get_backend
from tinynet.errors import CaptureError
from tinynet.ops import Value, door
from tinynet.tensor import Tensor, as_tensor

_PLAIN = (bool, int, float, str)


class Call:
    """The arguments of a call, taken apart.

    Attributes:
        args, kwargs: as given, arrays having become tensors.
        leaves: the tensors in them, in order.
        objects: other things in them, for the guards.
        copied: which leaves are contiguous copies of the arguments.
        shapes: of the leaves, with dtype and whether a gradient is wanted.
        signature: what a program is for; the shapes come last.
    """

    def __init__(self, args: tuple, kwargs: dict):
        self.leaves: list[Tensor] = []
        self.objects: list[object] = []
        self.copied: set[int] = set()
        (self.args, self.kwargs), structure = self._take((args, kwargs))
        backends = {leaf.backend for leaf in self.leaves}
        if len(backends) > 1:
            raise CaptureError("capture", expected="arguments on one backend", got=", ".join(b.name for b in backends))
        self.backend = backends.pop() if backends else get_backend()
        first: dict[int, int] = {}
        alias = tuple(first.setdefault(id(leaf.versions), i) for i, leaf in enumerate(self.leaves))
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
            return value, (type(value).__name__, value)
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


class Results:
    """What a step returned and the gradients it left, as outputs of the graph and a way to make them of its outputs.

    Args:
        result: what the step returned.
        trace: of that call; outputs are added to its graph.
        call: the call.
        keep_grads: whether gradients are outputs too.

    Attributes:
        eager: the arrays of the outputs, where the trace evaluated.

    Raises:
        CaptureError: results of a kind that cannot be made again.
    """

    def __init__(self, result, trace, call: Call, keep_grads: bool):
        self.eager: list[object] = []
        self._trace = trace
        self._structure = self._describe(result, call)
        self._grads = self._final_grads(call, keep_grads)
        del self._trace

    def make(self, tensors: list[Tensor], call: Call):
        """The result of a call, from the tensors of the outputs; sets gradients as the step would have."""
        for target, kind, index in self._grads:
            leaf = call.leaves[target] if isinstance(target, int) else target
            leaf.grad = None if kind == "none" else door.WITHHELD if kind == "withheld" else tensors[index]
        return self._rebuild(self._structure, tensors, call)

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

    def _rebuild(self, structure, tensors: list[Tensor], call: Call):
        kind, content = structure
        if kind == "same":
            return content
        if kind == "input":
            return call.leaves[content]
        if kind == "output":
            return tensors[content]
        if kind is dict:
            return {key: self._rebuild(each, tensors, call) for key, each in content.items()}
        values = [self._rebuild(each, tensors, call) for each in content]
        return kind(*values) if hasattr(kind, "_fields") else kind(values)

    def _final_grads(self, call: Call, keep_grads: bool) -> list[tuple]:
        """What ``grad`` of each tensor is after the step: (tensor or index of the argument, kind, output)."""
        found, trace = [], self._trace
        outside = {id(tensor): tensor for tensor in trace.externals.values()}
        for tensor, grad in trace.grads:
            place = call.place(tensor)
            if place is None:
                if id(tensor) not in outside and id(tensor.array) not in trace.guards.arrays:
                    continue  # made within the step, and gone with it
                place = tensor
            if grad is None:
                found.append((place, "none", None))
            elif keep_grads:
                found.append((place, "kept", self._output(grad)))
            else:
                found.append((place, "withheld", None))
        return found
