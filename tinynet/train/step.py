"""The training step: what ``fit`` runs for each batch, and ``plan`` traces; steps as programs; losses and optimizers
by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinynet import losses, optim, program
from tinynet.backend import Backend, Shadow
from tinynet.errors import ArgumentError, CaptureError
from tinynet.nn import Module
from tinynet.ops import Spec
from tinynet.optim import Optimizer
from tinynet.program import MemoryPlan
from tinynet.program.budget import within
from tinynet.program.calls import Call, Results
from tinynet.program.compile import simplify
from tinynet.program.guards import Guards
from tinynet.program.trace import Trace
from tinynet.program.variant import targets_for
from tinynet.tensor import Tensor

LOSSES = {"mse": losses.mse, "cross_entropy": losses.cross_entropy}
OPTIMIZERS = {"gd": optim.GD, "adam": optim.Adam, "adamw": optim.AdamW}


def training_step(
    model: Module, loss_function, optimizer: Optimizer, penalty=None, clip_norm: float | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """One step of training on a batch, as a function that can be captured; arguments as for ``fit``."""
    gradients = gradients_of_step(model, loss_function, optimizer, penalty, clip_norm)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss, _ = gradients(x, y)
        optimizer.step()
        return loss

    return step


def gradients_of_step(
    model: Module, loss_function, optimizer: Optimizer, penalty=None, clip_norm: float | None = None
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The step but for its update: leaves gradients in ``grad``; returns the loss, and what was differentiated."""

    def gradients(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        objective = loss if penalty is None else loss + penalty(model)
        objective.backward()
        if clip_norm is not None:
            optim.clip_grad_norm(optimizer.params, clip_norm)
        return loss.detach(), objective.detach()

    return gradients


def can_capture(model: Module) -> bool:
    """Whether steps of the model can be programs: it has parameters, on a backend that can hold a program's arena."""
    first = next(iter(model.parameters()), None)
    return first is not None and first.backend.captures


class StepProgram:
    """A captured function of tensors, whose budget of memory may be changed between two calls.

    Args:
        where: the function that takes ``capture=False``, of which errors remind.
        step: what is captured.
        memory: as for ``tn.capture``.
    """

    def __init__(self, where: str, step: Callable, memory: str | int | None = None):
        self._where, self._step = where, step
        self.memory = memory

    @property
    def memory(self) -> int | None:
        """The budget in bytes. Assigning one forgets all programs; the next call makes its own, within the new budget.

        What a budget changes in the results is the rounding of sums that are made in parts.
        """
        return self._captured.options.memory

    @memory.setter
    def memory(self, memory: str | int | None) -> None:
        self._captured = program.capture(self._step, memory=memory)

    def __call__(self, *tensors):
        try:
            return self._captured(*tensors)
        except CaptureError as error:
            error.add_note(f"{self._where}(..., capture=False) runs without a program")
            raise

    def program(self, *tensors) -> program.Program:
        """The program for these tensors; see ``tinynet.program.Captured``."""
        return self._captured.program(*tensors)

    def workspace(self, specs: Sequence[Spec], backend: Backend, memory: int | None) -> int:
        """Bytes that a call would take beyond its arguments, within a budget: planned from shapes, without an array.

        Raises:
            PlanError: the budget is too little; the message names the least that would do.
        """
        call = Call(tuple(Tensor(Shadow(*spec), backend, spec) for spec in specs), {})
        with Trace(call.leaves, Guards(self._step), backend, shapes=True) as trace:
            result = self._step(*call.args)
        Results(result, trace, call, keep_grads=False)
        simplify(trace.graph)
        options = self._captured.options
        target = targets_for(options, backend, (each.spec.dtype for each in trace.graph.registers))[0]
        graph, _ = within(trace.graph, memory, options.fuse, target)
        return MemoryPlan(graph, target).workspace_bytes


def as_program(where: str, step: Callable, memory: str | int | None = None) -> StepProgram:
    """The step captured; arguments as for ``StepProgram``."""
    return StepProgram(where, step, memory)


def named_loss(loss) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name; functions pass.

    Raises:
        ArgumentError: an unknown name.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ArgumentError("fit", expected=f"loss to be a function or one of {', '.join(LOSSES)}", got=repr(loss))
    return LOSSES[loss]


def named_optimizer(optimizer, model: Module) -> Optimizer:
    """An optimizer over the model's parameters: the one given, or a new one of that name with its defaults.

    Raises:
        ArgumentError: an unknown name, or an optimizer over parameters of another model.
    """
    if isinstance(optimizer, Optimizer):
        if not {id(p) for p in optimizer.params} & {id(p) for p in model.parameters()}:
            raise ArgumentError(
                "fit", expected="an optimizer over parameters of this model", got=f"{optimizer!r} over others",
                mend="make it of model.parameters(), after copying or loading the model",
            )  # fmt: skip
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(
            "fit", expected=f"an Optimizer, or one of {', '.join(OPTIMIZERS)}", got=repr(optimizer),
            mend="make one: tn.optim.Adam(model.parameters(), lr=1e-3)",
        )  # fmt: skip
    options = {"lr": 0.01} if optimizer == "gd" else {}
    return OPTIMIZERS[optimizer](model.parameters(), **options)
