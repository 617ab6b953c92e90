"""The training step: what ``fit`` runs for each batch, and ``plan`` traces; and losses and optimizers by name."""

from __future__ import annotations

from collections.abc import Callable

from tinynet import losses, optim
from tinynet.errors import ArgumentError
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
