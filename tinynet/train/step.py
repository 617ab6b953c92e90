"""The training step: what ``fit`` runs for each batch, and ``plan`` traces; steps as programs; losses and optimizers
by name."""

from __future__ import annotations

from collections.abc import Callable

from tinynet import losses, optim, program
from tinynet.errors import ArgumentError, CaptureError
from tinynet.nn import Module
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor

LOSSES = {"mse": losses.mse, "cross_entropy": losses.cross_entropy}
OPTIMIZERS = {"gd": optim.GD, "adam": optim.Adam, "adamw": optim.AdamW}


def training_step(
    model: Module, loss_function, optimizer: Optimizer, penalty=None, clip_norm: float | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """One step of training on a batch, as a function that can be captured; arguments as for ``fit``."""

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        objective = loss if penalty is None else loss + penalty(model)
        objective.backward()
        if clip_norm is not None:
            optim.clip_grad_norm(optimizer.params, clip_norm)
        optimizer.step()
        return loss.detach()

    return step


def can_capture(model: Module) -> bool:
    """Whether steps of the model can be programs: it has parameters, on a backend that can hold a program's arena."""
    first = next(iter(model.parameters()), None)
    return first is not None and first.backend.captures


def as_program(where: str, step: Callable, memory: str | int | None = None) -> Callable:
    """The step captured. ``where`` names the function that takes ``capture=False``, of which errors remind."""
    captured = program.capture(step, memory=memory)

    def run(*tensors):
        try:
            return captured(*tensors)
        except CaptureError as error:
            error.add_note(f"{where}(..., capture=False) runs without a program")
            raise

    return run


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
