"""``plan``: what a training step will take, before there is memory for it.

The step that ``fit`` would run is traced with shapes alone and planned as it would be. No array is made: a model of ten
billion parameters, built within ``with tn.nn.abstract():``, is planned in less than a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinynet.backend import Shadow, as_dtype
from tinynet.errors import ArgumentError, PlanError
from tinynet.kernels import using_precision
from tinynet.memory.units import as_bytes
from tinynet.nn import Dense, LayerNorm, Module, abstract
from tinynet.ops import Spec
from tinynet.optim import Optimizer
from tinynet.program import MemoryPlan
from tinynet.program.budget import SMALLEST_TILE, fitting
from tinynet.program.calls import Call, Results
from tinynet.program.compile import compiled, simplify
from tinynet.program.graph import Graph
from tinynet.program.guards import Guards
from tinynet.program.trace import Trace
from tinynet.program.variant import Options, targets_for
from tinynet.tensor import Tensor

from .step import named_loss, named_optimizer, training_step

_PROBES, _NEAR = (1 << 12, 1 << 13), 64  # batch sizes, and a distance, between which sizes in bytes are linear


class StepPlan(MemoryPlan):
    """The memory of a training step: that of its program, and what lives beside it.

    Attributes:
        batch_size: of the plan.
        parameter_bytes, moment_bytes: of the model, and of the optimizer's state for it.
        notes: what was chosen to keep to a budget, in words.
        graph: the program that was planned.

    All of ``MemoryPlan`` besides: ``peak_bytes`` is the arena, of which the batch itself takes ``input_bytes``.
    """

    def __init__(self, graph: Graph, notes: list[str], target: str, batch_size: int, planner: _Planner):
        super().__init__(graph, target)
        self.graph, self.notes, self.batch_size = graph, notes, batch_size
        self.parameter_bytes, self.moment_bytes = planner.parameters, planner.moments
        self._again = planner.lean

    @property
    def total_bytes(self) -> int:
        """Parameters, moments, and the arena with the batch in it."""
        return self.parameter_bytes + self.moment_bytes + self.peak_bytes

    def resized(self, batch_size: int) -> StepPlan:
        """The leanest plan of the same step for another batch size, without cutting it or computing anything twice."""
        return self._again(batch_size)

    def largest_batch(self, memory: str | int, *, arguments: int = 0) -> int:
        """The largest batch that fits into ``memory`` without cutting it or computing anything twice.

        By arithmetic: every tensor's bytes are linear in the batch size, and so are the live bytes at each
        instruction, whose largest is the workspace. 0 if not even one sample fits.

        Args:
            memory: for the workspace.
            arguments: how many times the batch itself has to fit in as well.
        """
        budget = as_bytes(memory, "largest_batch")
        best = self._largest(budget, *_PROBES, arguments)
        if best > 0:  # once more from there, since scratch grows with a batch only as far as one block
            best = self._largest(budget, best, best + _NEAR, arguments)
        return self._bisect(budget, max(best, 0), arguments)

    def _bisect(self, budget: int, near: int, arguments: int) -> int:
        """The largest batch that fits, sought around a good guess: sizes are rounded, and scratch grows by blocks."""

        def fits(n: int) -> bool:
            if n < 1:
                return True
            plan = self._again(n)
            return plan.workspace_bytes + arguments * plan.input_bytes <= budget

        low, high, step = near, near + 1, 1
        while fits(high):
            low, high, step = high, high + 2 * step, 2 * step
        step = 1
        while not fits(low):
            low, high, step = max(0, low - step), low, 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _largest(self, budget: int, small: int, large: int, arguments: int) -> int:
        """The largest batch by the lines through the live bytes of two batch sizes."""
        at_small, at_large = (self._again(n)._profile(arguments) for n in (small, large))
        if len(at_small) != len(at_large):
            raise PlanError("largest_batch", expected="one step for all batch sizes", got="steps that differ")
        found = []
        for low, high in zip(at_small, at_large):
            slope = (high - low) / (large - small)
            fixed = low - slope * small
            if slope > 0:
                found.append(math.floor((budget - fixed) / slope))
            elif fixed > budget:
                return 0
        if not found:
            raise PlanError("largest_batch", expected="a step that takes more for a larger batch", got="none")
        return min(found)

    def _profile(self, arguments: int = 0) -> list[int]:
        """Bytes that live at each instruction, with the batch itself so many times, without rounding."""
        live = [0] * (max((t.last for t in self.tensors), default=0) + 2)
        for tensor in self.tensors:
            live[tensor.first] += tensor.nbytes
            live[tensor.last + 1] -= tensor.nbytes
        total, found = (arguments - 1) * sum(tensor.nbytes for tensor in self.tensors if tensor.tag == "input"), []
        for change in live[:-1]:
            total += change
            found.append(total)
        return found

    def summary(self) -> str:
        """A short table: parameters, moments, batch, activations at the peak, peak, bound, and what was chosen."""
        by_tag: dict[str, int] = {}
        at = self._when()
        for tensor in self.tensors:
            if tensor.first <= at <= tensor.last:
                by_tag[tensor.tag] = by_tag.get(tensor.tag, 0) + tensor.nbytes
        rows = [
            ("parameters", self.parameter_bytes), ("moments", self.moment_bytes), ("batch", self.input_bytes),
            *((f"{tag}s at the peak" if tag != "scratch" else "scratch at the peak", by_tag[tag])
              for tag in ("activation", "gradient", "update", "scratch") if tag in by_tag),
            ("workspace", self.workspace_bytes), ("peak of the arena", self.peak_bytes),
            ("lower bound", self.lower_bound_bytes), ("all together", self.total_bytes),
        ]  # fmt: skip
        width = max(len(name) for name, _ in rows)
        lines = [f"{name.ljust(width)}  {nbytes:>18,} bytes  {nbytes / 2**20:>12,.3f} MiB" for name, nbytes in rows]
        return "\n".join([*lines, *self.notes])

    def _when(self) -> int:
        """An instruction at which most bytes live."""
        live = self._profile()
        return max(range(len(live)), key=live.__getitem__, default=0)


def plan(
    model: Module, loss, optimizer: str | Optimizer, batch_size: int, input_shape: tuple[int, ...] | None = None,
    memory: str | int | None = None, *, target_shape: tuple[int, ...] | None = None, fuse: bool = True,
    clip_norm: float | None = None, penalty: Callable | None = None, executor: str | None = None,
    precision: str = "float32",
) -> StepPlan:  # fmt: skip
    """Plans a training step from shapes alone. No array is allocated, and nothing is changed.

    Args:
        model: of any size; one made within ``with tn.nn.abstract():`` takes no memory itself.
        loss: "mse", "cross_entropy" (for class indices), or a function of (prediction, target).
        optimizer: an ``Optimizer`` over the model's parameters, or "gd", "adam", "adamw".
        batch_size: samples per step.
        input_shape: of one sample; by default (in_features,) of the first layer.
        memory: a budget for the workspace, as for ``capture``.
        target_shape: of one sample's target; by default that of the prediction, and () for "cross_entropy".
        fuse, clip_norm, penalty, executor, precision: as for ``capture`` and ``fit``. With executor "cuda" it is the
            plan of a GPU, whether there is one or not.

    Raises:
        PlanError: the budget is too small; the message names the least that would do.
        ArgumentError: an input shape that is not known, a batch below one sample, unknown names.
        CaptureError: a model that looks at numbers.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError("plan", expected="a batch_size of at least 1", got=repr(batch_size))
    budget = None if memory is None else as_bytes(memory, "plan, memory")
    shape = tuple(input_shape) if input_shape is not None else input_shape_of(model, "plan")
    with abstract():
        optimizer = named_optimizer(optimizer, model)
    step = training_step(model, named_loss(loss), optimizer, penalty, clip_norm)
    options = Options(fuse=fuse, executor=executor, precision=precision)
    return _Planner(model, loss, optimizer, step, shape, target_shape, options).plan(batch_size, budget)


class _Planner:
    """Plans one step for any batch size."""

    def __init__(
        self, model: Module, loss, optimizer: Optimizer, step: Callable, shape, target_shape, options: Options
    ):  # fmt: skip
        self.model, self.loss, self.step, self.fuse, self.precision = model, loss, step, options.fuse, options.precision
        self.shape, self.target_shape = shape, target_shape
        first = model.parameters()[0]
        self.backend, self.dtype = first.backend, first.dtype
        elsewhere = options.executor == "cuda" and options.fuse  # a plan is integers: it takes no device
        self.targets = ("cuda",) if elsewhere else targets_for(options, self.backend, (self.dtype,))
        self.parameters = sum(p.nbytes for p in model.parameters())
        self.moments = sum(view.nbytes for views in optimizer._moments.values() for view in views)

    def plan(self, batch_size: int, budget: int | None) -> StepPlan:
        with using_precision(self.precision):
            return StepPlan(*fitting(self._graph(batch_size), budget, self.fuse, self.targets), batch_size, self)

    def lean(self, batch_size: int) -> StepPlan:
        """The plan that takes least without more work."""
        with using_precision(self.precision):
            graph = compiled(self._graph(batch_size), self.fuse, tile_bytes=SMALLEST_TILE, target=self.targets[0])
            return StepPlan(graph, [], self.targets[0], batch_size, self)

    def _graph(self, n: int) -> Graph:
        """The step on shadows of a batch, simplified."""
        x = self._shadow(Spec((n, *self.shape), self.dtype))
        training = self.model.training
        self.model.train()
        try:
            with Trace([x], Guards(self.model.forward), self.backend, shapes=True):
                output = self.model(x).spec
            target = Spec(output.shape if self.target_shape is None else (n, *self.target_shape), output.dtype)
            if self.loss == "cross_entropy" and self.target_shape is None:
                target = Spec(output.shape[:-1], as_dtype("int64"))
            call = Call((x, self._shadow(target)), {})
            with Trace(call.leaves, Guards(self.step), self.backend, shapes=True) as trace:
                loss = self.step(*call.args)
        finally:
            self.model.train(training)
        Results(loss, trace, call, keep_grads=False)
        simplify(trace.graph)
        return trace.graph

    def _shadow(self, spec: Spec) -> Tensor:
        return Tensor(Shadow(*spec), self.backend, spec)


def input_shape_of(model: Module, where: str) -> tuple[int, ...]:
    """The shape of one sample, as the model's first layer says it.

    Raises:
        ArgumentError: it says none; ``where`` is for the message.
    """
    for _, module in model.named_modules():
        if isinstance(module, Dense):
            return (module.in_features,)
        if isinstance(module, LayerNorm):
            return (module.features,)
    raise ArgumentError(
        where, expected="an input_shape for a model whose first layer does not say it", got="None",
        mend="pass input_shape=(features,)",
    )  # fmt: skip
