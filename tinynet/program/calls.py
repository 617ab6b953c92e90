"""A call of a captured step: its arguments taken apart, and its results described so that later calls can make them.

Arguments and results may be tensors in lists, tuples, named tuples and dicts. Nothing is traced or run here.
"""

from __future__ import annotations

from tinynet.backend import HostArray, Shadow, get_backend
from tinynet.errors import CaptureError
from tinynet.ops import Value, door
from tinynet.tensor import Tensor, as_tensor

from .source import Source

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
    """What the arguments of a call are like, in conditions by which a later call that is like it is known.

    They take a call for like it only where ``Call`` would give the same signature and copy nothing, and where no
    argument lies in memory that the step can reach by itself. Many calls for which that is so they do not know, which
    cost the time of a ``Call`` then: those with containers, for example.

    Args:
        call: the call.
        reachable: identities of what owns the memory that the step can reach.
        source: of the function that will compare; its parameters are ``args`` and ``kwargs``.
        fed: whether the program takes arrays of the host as they are, on whichever backend it runs.

    Attributes:
        known: whether there can be a later call that is known; all else is empty where not.
        count, keywords: how many positional arguments there are, and the names of the others.
        unpacked: lines that come first.
        conditions: expressions.
        arrays: for each leaf of the call the expression of its array.
    """

    def __init__(self, call: Call, reachable: frozenset[int], source: Source, fed: bool = False):
        self._fed, self._hosts = fed, set()
        self.unpacked: list[str] = []
        self.conditions: list[str] = []
        self.arrays: list[str] = []
        args, kwargs = call.given
        self.count, self.keywords = len(args), tuple(kwargs)
        self.known = len(call.leaves) <= _MOST_COMPARED and self._write((*args, *kwargs.values()), call, source)
        if not self.known:
            return
        if args:
            self.unpacked.append(f"{', '.join(f'a{i}' for i in range(self.count))}, = args")
        self.unpacked += [f"a{i} = kwargs[{key!r}]" for i, key in enumerate(self.keywords, self.count)]
        for i, array in enumerate(self.arrays):
            if array in self._hosts:  # it is copied, from whatever memory of the host
                continue
            contiguous, owner = call.backend.expressions(array, source.name)
            self.conditions += [f"{array} is not {other}" for other in self.arrays[:i]]
            self.conditions += [contiguous, f"id({owner}) not in {source.name(reachable)}"]

    def _write(self, values: tuple, call: Call, source: Source) -> bool:
        """Writes conditions for each argument; False where there can be none."""
        name, backend, leaves = source.name, call.backend, iter(call.leaves)
        if not all(isinstance(value, Value) for value in values):  # arrays become tensors of the backend in use
            self.conditions.append(f"{name(get_backend)}() is {name(backend)}")
        for i, value in enumerate(values):
            if isinstance(value, (list, tuple, dict)):
                return False
            if not isinstance(value, (Value, HostArray)):
                self.conditions.append(f"a{i} is {name(value)}")
                continue
            shape, dtype = next(leaves).spec
            self.conditions += [
                f"type(a{i}) is {name(type(value))}", f"a{i}.shape == {shape}", f"a{i}.dtype == {name(dtype)}"
            ]  # fmt: skip
            if isinstance(value, Value):
                self.conditions += [f"a{i}.requires_grad is {value.requires_grad}", f"a{i}.backend is {name(backend)}"]
            elif not backend.owns(value):
                if not self._fed:
                    return False
                self._hosts.add(f"a{i}")
            self.arrays.append(f"a{i}.array" if isinstance(value, Value) else f"a{i}")
        return len({id(leaf.array) for leaf in call.leaves}) == len(self.arrays)


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
        self._grads = self._final_grads(call, keep_grads)
        self.of_arguments |= any(isinstance(p, int) for p, _ in self._grads)
        del self._trace

    def write(self, source: Source, tensors: list[str]) -> str:
        """Adds the lines that set gradients as the step would have, and gives the expression of its result.

        Args:
            source: of a function that has the leaves of its call in ``leaves`` where ``of_arguments``.
            tensors: the names of the outputs in it.
        """
        for target, grad in self._grads:
            owner = f"leaves[{target}]" if isinstance(target, int) else source.name(target)
            source.add(f"{owner}._grad = {tensors[grad] if isinstance(grad, int) else source.name(grad)}")
        return self._expression(self._structure, source, tensors)

    def _output(self, value: Tensor) -> int:
        graph = self._trace.graph
        graph.outputs.append(self._trace.register(value))
        self.eager.append(value.array)
        return len(graph.outputs) - 1

    def _describe(self, value, call: Call):
        """A description of the result, from which ``_expression`` makes that of a later call."""
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

    def _expression(self, structure, source: Source, tensors: list[str]) -> str:
        kind, content = structure
        if kind == "output":
            return tensors[content]
        if kind == "same":
            return source.name(content)
        if kind == "input":
            return f"leaves[{content}]"
        if kind is dict:
            pairs = [(source.name(k), self._expression(each, source, tensors)) for k, each in content.items()]
            return f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        values = ", ".join(self._expression(each, source, tensors) for each in content)
        if kind is list:
            return f"[{values}]"
        values = f"({values},)" if content else "()"
        return values if kind is tuple else f"{source.name(kind)}({'*' if hasattr(kind, '_fields') else ''}{values})"

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
