"""Copy elision: a result that is written over a tensor is computed there, and not first and then copied.

``assign(out, f(x))`` takes a temporary of the size of ``out``, and moves its bytes twice more than it has to. Where
``out`` may be written to when ``f`` runs, the two become one update, ``assign[f]``, whose result is ``out`` itself; who
else read the temporary reads ``out``. Every bit stays: it is the kernel of ``f`` that runs. What is written over
temporaries that die is the business of ``inplace``.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinynet import kernels
from tinynet.backend import SHADOWS, Backend, Shadow, get_backend
from tinynet.ops import Op, lookup, splitting

from ..graph import TEMPORARY, Graph, Instruction


class Into(Op):
    """An operation that computes its result over a tensor, which becomes its first input.

    Args:
        producer: the operation.
        count: how many inputs it has here.
        own: which of them are that very tensor.
        backend: on whose arrays it runs.

    Attributes of the instruction are those of the producer.
    """

    def __init__(self, producer: Op, count: int, own: frozenset[int], backend: Backend):
        def bounds(over, *arrays, **attributes):
            found = producer.bounds(*arrays, **attributes)
            return None if found is None else found._replace(input=found.input + 1)

        def flops(out, over, *specs, **attributes):
            return producer.flops(out, *specs, **attributes) if producer.flops else 0

        self.producer, self.own, self.backend = producer, own, backend
        super().__init__(
            f"assign[{producer.name}]", " ".join(["over", *(f"of{i}" for i in range(count))]),
            lambda over, *specs, **attributes: producer.rule(*specs, **attributes), attributes=producer.attributes,
            updates={0: 0}, bounds=bounds if producer.bounds else None, flops=flops, listed=False,
            split=splitting.rows if producer.expression is not None else None,
        )  # fmt: skip

    def cost(self, over, *specs, **attributes) -> tuple[int, int]:
        return self.producer.cost(*specs, **attributes)  # what it is written over is not read

    def kernel(self, target: str, dtype) -> kernels.Kernel:
        inner, copy = self.producer.kernel(target, dtype), lookup("assign").kernel(target, dtype)

        def scratch(out, over, *inputs, **attributes) -> int:
            return inner.scratch_bytes(out, *inputs, **attributes)

        def steps(out, over, *inputs, scratch, **attributes) -> list:
            if self._takes(out, inputs):
                return inner.bind(out, *inputs, scratch=scratch, **attributes)
            made = self._beside(out)
            calls = inner.bind(made, *inputs, scratch=scratch, **attributes)
            return calls + copy.bind(out, over, made, scratch=scratch)

        def run(*arrays, scratch=None, **attributes) -> None:
            for function, arguments in steps(*arrays, scratch=scratch, **attributes):
                function(*arguments)

        return kernels.Kernel(run, self.name, inner.target, scratch, steps)

    def _takes(self, out, inputs) -> bool:
        """Whether the producer can write there: what a graph does not show of the arrays it meets.

        Tensors outside of a program may share memory with each other, and lie in any way; only elementwise kernels
        write to every layout.
        """
        lies = self.producer.expression is not None or self.backend.contiguous(out) is out
        return lies and all(i in self.own or _apart(self.backend, out, x) for i, x in enumerate(inputs))

    def _beside(self, out):
        """Memory for a result that has to be copied after all. No plan knows of it, for none could know the need."""
        shape, dtype = tuple(out.shape), self.backend.dtype_of(out)
        whole = Shadow(shape, dtype)
        nbytes = max((n * step for n, step in zip(shape, whole.strides)), default=dtype.itemsize)
        return self.backend.carve(self.backend.block(nbytes), 0, shape, dtype)


def _apart(backend: Backend, a, b) -> bool:
    """Whether two arrays share no byte, as far as their first and last ones tell."""
    if backend.owner(a) is not backend.owner(b) or 0 in (*a.shape, *b.shape):
        return True
    if not backend.address(a):  # the library does not say
        return False
    (low, high), (start, end) = _span(backend, a), _span(backend, b)
    return high <= start or end <= low


def _span(backend: Backend, array) -> tuple[int, int]:
    """The addresses of the first byte, and of the one past the last."""
    low = high = backend.address(array)
    for n, step in zip(array.shape, array.strides):
        low, high = low + min(0, (n - 1) * step), high + max(0, (n - 1) * step)
    return low, high + array.dtype.itemsize


def forward_results(graph: Graph) -> None:
    """Lets what computes the value of an ``assign`` write over its target, where shape and element type are the same.

    The value has to be a temporary that nobody views or updates; and the operation may read the target only where it
    may write over that input, element for element. The write goes to where the value was computed, if nothing touches
    the target from there on; else the computation goes to where the write is, if nothing it reads changes until then,
    nobody needs its result sooner, and no more memory is kept for it than the value took. Other readers of the value
    come before the next write to the target, or everything stays.
    """
    _Forwarding(graph).run()
    graph.verify("forward_results")


class _Forwarding:
    """The pass at work. Places stay what they were; instructions that are no more are skipped."""

    def __init__(self, graph: Graph):
        self.graph, self.code, self.gone = graph, graph.instructions, set()
        self.readers, self.makers, self.updated = graph.readers(), graph.makers(), graph.written()
        self.viewed = {graph.storage(each.outputs[0]) for each in graph if each.view}
        self.last: dict[int, int] = {}  # storage -> place of the last instruction that touches it, at first
        for i, each in enumerate(self.code):
            self.last.update((graph.storage(r), i) for r in (*each.inputs, *each.outputs))
        self.last.update((graph.storage(r), len(self.code)) for r in graph.outputs)

    def run(self) -> None:
        assign = lookup("assign")
        for at, each in enumerate(self.code):
            if each.op is assign:
                self._forward(at, *each.inputs)
        self.graph.instructions = [each for i, each in enumerate(self.code) if i not in self.gone]

    def _forward(self, at: int, target: int, value: int) -> None:
        graph, place = self.graph, self.makers.get(value)
        if place is None or graph.spec(target) != graph.spec(value) or not self._is_plain(value):
            return
        made = self.code[place]
        inputs = self._inputs_over(made, target)
        if made.view or made.op.updates or len(made.outputs) > 1 or inputs is None:
            return
        others = [i for i in self.readers[value] if i != at]
        if (others or made.op.expression is None) and not self._lies_in_order(target):
            return  # most kernels write to what lies side by side, and who reads it expects that too
        if any(self._writes(each, target) for _, each in self._between(at, max(others, default=at) + 1)):
            return
        if self.makers.get(target, -1) < place and not any(
            self._touches(each, target) for _, each in self._between(place, at)
        ):
            new = place
        elif self._can_wait(place, at, value):
            new = at
        else:
            return
        own = frozenset(i for i, register in enumerate(inputs) if register == target)
        op = Into(made.op, len(inputs), own, get_backend(graph.backend))
        self.code[new] = made.with_(op=op, inputs=(target, *inputs), outputs=(target,))
        self.gone.add(at if new == place else place)
        for register in set(made.inputs):
            self.readers[register] = [new if i == place else i for i in self.readers[register]]
        self._redirect(value, target, others)

    def _is_plain(self, register: int) -> bool:
        """Whether it is a temporary in memory of its own, which keeps the value that it was made with."""
        found = self.graph.registers[register]
        return (
            found.kind == TEMPORARY and found.storage == register
            and register not in self.viewed and register not in self.updated
        )  # fmt: skip

    def _inputs_over(self, made: Instruction, target: int) -> list[int] | None:
        """What the instruction reads where it writes over the target; None if it may not."""
        allowed, inputs = {i for i, result in made.op.overwrites if result == 0}, []
        for i, register in enumerate(made.inputs):
            if self.graph.storage(register) != self.graph.storage(target):
                inputs.append(register)
            elif i in allowed and self._location(register) == self._location(target):
                inputs.append(target)
            else:
                return None
        return inputs

    def _location(self, register: int):
        """Equal for registers that are the same elements in the same order: views taken in the same way.

        A view of the same shape and strides is all of what it is a view of.
        """
        view = self._view(register)
        if view is None:
            return register
        shadow, whole = self._shadow(register), self._shadow(view.inputs[0])
        below = self._location(view.inputs[0])
        return below if (shadow.shape, shadow.strides) == (whole.shape, whole.strides) else (view.key(), below)

    def _lies_in_order(self, register: int) -> bool:
        """Whether its elements lie side by side, if those of the tensor do that it is in."""
        found = self._shadow(register)
        whole = Shadow(found.shape, found.dtype)
        return all(n <= 1 or step == there for n, step, there in zip(found.shape, whole.strides, found.strides))

    def _shadow(self, register: int) -> Shadow:
        view = self._view(register)
        if view is None:
            return Shadow(*self.graph.spec(register))
        return view.op.view(SHADOWS, self._shadow(view.inputs[0]), **view.attributes)[0]

    def _view(self, register: int) -> Instruction | None:
        """The instruction that makes the register as a view, if it is one."""
        made = self.code[self.makers[register]] if register in self.makers else None
        return made if made is not None and made.view else None

    def _between(self, first: int, last: int) -> Iterator[tuple[int, Instruction]]:
        """Instructions after the one and before the other, with their places."""
        return ((i, self.code[i]) for i in range(first + 1, min(last, len(self.code))) if i not in self.gone)

    def _touches(self, each: Instruction, register: int) -> bool:
        storage = self.graph.storage(register)
        return not each.view and any(self.graph.storage(r) == storage for r in (*each.inputs, *each.outputs))

    def _writes(self, each: Instruction, register: int) -> bool:
        storage = self.graph.storage(register)
        return not each.view and any(self.graph.storage(r) == storage for r in each.outputs)

    def _can_wait(self, place: int, at: int, value: int) -> bool:
        """Whether the instruction at ``place`` may run at ``at``, and what it keeps alive for that is no more."""
        graph, made, between = self.graph, self.code[place], [each for _, each in self._between(place, at)]
        if any(graph.conflict(made, each) for each in between):
            return False
        storages = {graph.storage(register) for register in made.inputs}
        kept = sum(
            graph.spec(storage).nbytes for storage in storages
            if graph.registers[storage].kind == TEMPORARY and self.last[storage] == place
        )  # fmt: skip
        return all(each.view for each in between) or kept <= graph.spec(value).nbytes

    def _redirect(self, value: int, target: int, places: list[int]) -> None:
        """Lets the readers of the value read the target."""
        for i in places:
            if i < len(self.code):
                each = self.code[i]
                self.code[i] = each.with_(inputs=tuple(target if r == value else r for r in each.inputs))
            else:
                self.graph.outputs = [target if r == value else r for r in self.graph.outputs]
