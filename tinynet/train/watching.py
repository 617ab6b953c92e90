"""``WatchedStep``: a training step that looks for NaN and infinity before it changes anything; and what made them.

An update that is fused into backward has written parameters before the last gradient is known. So a watched step is two
programs: one makes all gradients, which stay in a segment of their own, and one number that is finite if they and the
loss are; the other makes the update, if that number is. Who made the first number that is not finite is asked after one
was found: the batch is run once more, eagerly, with an observer behind the door.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

from tinynet import ops
from tinynet.autograd import no_grad
from tinynet.backend import is_floating
from tinynet.errors import ArgumentError, NonFiniteError
from tinynet.nn import Dropout, Module
from tinynet.nn.segment import Segment
from tinynet.ops.observing import observing
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor, full

from .step import StepProgram, gradients_of_step

WATCHES = ("warn", "raise", "skip")
_EXPLAINED = 8  # steps of a run whose cause is looked for, and as many different causes that are warned of
_OPERATION = "lower the learning rate, pass clip_norm=, or keep what goes into the operation where it has a result"
_BATCH = "clean the data, or leave such rows out with a transform of the Loader"
_SPOILT = "load the parameters of an earlier checkpoint, and lower the learning rate or pass clip_norm="


class WatchedStep:
    """One step of training, watched; called as the step itself, with a batch.

    Args:
        mode: what to do with a step that makes a number that is not finite: "warn" says so, once for each cause, and
            makes the step; "raise" raises ``NonFiniteError`` instead of making it; "skip" leaves it out.
        model, loss_function, optimizer, penalty, clip_norm: as for ``training_step``.

    A step that is not made leaves parameters, moments, the optimizer's count of steps and those of ``Dropout`` as they
    were, to the bit. What an update itself may overflow to is seen at the next step.

    Attributes:
        skipped: whether the last step was left out.
        causes: for each number that was found, up to a few, the ``NonFiniteError`` that says where it is from.

    Raises:
        ArgumentError: an unknown mode.
    """

    def __init__(
        self, mode: str, model: Module, loss_function, optimizer: Optimizer, penalty=None,
        clip_norm: float | None = None,
    ):  # fmt: skip
        if mode not in WATCHES:
            raise ArgumentError("fit", expected=f"watch to be None or one of {', '.join(WATCHES)}", got=repr(mode))
        self.mode, self.skipped = mode, False
        self.causes: list[NonFiniteError] = []
        self._model, self._optimizer = model, optimizer
        self._differentiate = gradients_of_step(model, loss_function, optimizer, penalty, clip_norm)
        self._counters = dropouts(model, optimizer)
        self._gradients: Callable = _judged(self._differentiate, optimizer, self._counters)
        self._kept: list[Tensor] | None = None
        self._updates: dict[tuple[bool, ...], Callable] = {}
        self._there: tuple[bool, ...] = ()  # which parameters got gradients in the last step
        self._captured, self._at = False, (1, 1)

    def capture(self, memory: str | int | None) -> StepProgram:
        """Has both parts run as programs from now on; the one of the gradients, whose budget it is."""
        params, first = self._optimizer.params, self._optimizer.params[0]
        segment = Segment([p.shape for p in params], first.dtype, first.backend)
        self._kept = [Tensor(view, p.backend, p.spec) for view, p in zip(segment.views, params)]
        judged = _judged(self._differentiate, self._optimizer, self._counters, self._kept)
        self._gradients, self._captured = StepProgram("fit", judged, memory), True
        return self._gradients

    def gradients(self) -> list[Tensor]:
        """The gradients of the last step, after clipping."""
        if self._kept is None:
            return [p.grad for p in self._optimizer.params if p.grad is not None]
        return [kept for kept, is_there in zip(self._kept, self._there) if is_there]

    def __call__(self, x, y) -> Tensor:
        loss, judgement = self._gradients(x, y)
        finite = math.isfinite(judgement.item())
        self.skipped = not finite and self.mode != "warn"
        if not finite:
            self._found(x, y)
        if self.skipped:
            for layer, before in self._counters:
                layer.counter.data = before
            self._optimizer.zero_grad()
            return loss
        self._update(loss)
        return loss

    def _update(self, loss: Tensor) -> None:
        self._there = there = tuple(p._grad is not None for p in self._optimizer.params)
        update = self._updates.get(there)
        if update is None:
            update = _update_of(self._optimizer, self._kept, there)
            self._updates[there] = update = StepProgram("fit", update) if self._captured else update
        update(loss)

    # ---- where numbers that are not finite come from ----

    def at(self, step: int, epoch: int) -> None:
        """Says which step comes next, for messages: both are counted from 1."""
        self._at = step, epoch

    def _found(self, x, y) -> None:
        if len(self.causes) >= _EXPLAINED and self.mode != "raise":
            return
        cause = self._cause(x, y)
        if self.mode == "raise":
            for layer, before in self._counters:
                layer.counter.data = before
            self._optimizer.zero_grad()
            raise cause
        if self.mode == "warn" and not any(_alike(cause, other) for other in self.causes):
            warnings.warn(str(cause), RuntimeWarning, stacklevel=5)
        self.causes.append(cause)

    def _cause(self, x, y) -> NonFiniteError:
        """What made the first number that is not finite in this batch: its data, a parameter, or an operation."""
        for name, value in (("inputs", x), ("targets", y)):
            found = _first_bad(value.numpy() if isinstance(value, Tensor) else np.asarray(value))
            if found is not None:
                got = f"{found} in the {name}"
                row = f" of row {found.place[0]} of the batch" if found.place else ""
                return self._error(f"the data{row}", got, _BATCH)
        for name, p in self._model.named_parameters():
            found = _first_bad(p.numpy())
            if found is not None:
                return self._error(f"parameter {name!r}", f"{found}, before the step", _SPOILT)
        origin = _Origin()
        grads, counts = [p._grad for p in self._optimizer.params], [layer.counter.copy() for layer, _ in self._counters]
        for layer, before in self._counters:  # the masks of this very step
            layer.counter.data = before
        try:
            with observing(origin):
                self._differentiate(x, y)
        finally:
            for p, grad in zip(self._optimizer.params, grads):
                p._grad = grad
            for (layer, _), count in zip(self._counters, counts):
                layer.counter.data = count
        if origin.found is None:
            got = "a number that is not finite from the step as a program, and none from its operations one by one"
            return self._error("rounding in merged operations", got, _OPERATION)
        return self._error(*origin.found, _OPERATION)

    def _error(self, what: str, got: str, mend: str) -> NonFiniteError:
        step, epoch = self._at
        return NonFiniteError(f"step {step} in epoch {epoch}, {what}", expected="finite numbers", got=got, mend=mend)


def _alike(cause: NonFiniteError, other: NonFiniteError) -> bool:
    """Whether two errors name the same thing, if in two steps."""
    return cause.where.partition(", ")[2] == other.where.partition(", ")[2]


# ---- the two parts of a step ----


def dropouts(model: Module, optimizer: Optimizer) -> list[tuple[Dropout, Tensor]]:
    """Each layer that counts its calls, and room for the count before a step."""
    backend, found = optimizer.params[0].backend, []
    for _, module in model.named_modules():
        if isinstance(module, Dropout):
            module.counter = module.counter.to(backend)  # as its first call would
            found.append((module, full((), module.step, "int64", backend=backend)))
    return found


def _judged(differentiate: Callable, optimizer: Optimizer, counters, kept: list[Tensor] | None = None) -> Callable:
    """A function of a batch that makes the gradients, and keeps them if there is room given: loss, and a judgement.

    The judgement is 0 if the loss and all gradients are finite, else NaN: each times 0, added up.
    """

    def gradients(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with no_grad():
            for layer, before in counters:
                ops.assign(before, layer.counter)
        loss, objective = differentiate(x, y)
        with no_grad():
            judgement = objective * 0.0
            for p, room in zip(optimizer.params, kept or optimizer.params):
                if p.grad is not None:
                    if kept is not None:
                        ops.assign(room, p.grad)
                    judgement = judgement + ops.sum(p.grad * 0.0)
        return loss, judgement

    return gradients


def _update_of(optimizer: Optimizer, kept: list[Tensor] | None, there: tuple[bool, ...]) -> Callable:
    """The update, as a function of the loss, which tells a program its backend."""
    pairs = [] if kept is None else [(p, g) for p, g, is_there in zip(optimizer.params, kept, there) if is_there]

    def update(loss: Tensor) -> None:
        for p, g in pairs:
            p.grad = g
        optimizer.step()

    return update


# ---- looking ----


class _Bad:
    """The first element of an array that is not finite."""

    def __init__(self, number: float, place: tuple[int, ...], shape: tuple[int, ...]):
        self.number, self.place, self.shape = number, place, shape

    def __str__(self) -> str:
        at = f" at {list(self.place)} of shape {self.shape}" if self.place else ""
        return f"{self.number}{at}"


def _first_bad(array: np.ndarray) -> _Bad | None:
    if array.dtype.kind != "f":
        return None
    flat = ~np.isfinite(array).reshape(-1)
    if not flat.any():
        return None
    at = int(flat.argmax())
    place = tuple(int(i) for i in np.unravel_index(at, array.shape))
    return _Bad(float(array.reshape(-1)[at]), place, array.shape)


class _Origin:
    """Looks for the first operation whose result is not finite though all that went into it is.

    Attributes:
        found: the operation with its line, and what came of what; None as long as there is none.
    """

    found: tuple[str, str] | None = None

    def __call__(self, op, inputs, outputs, line: str) -> None:
        if self.found is not None:
            return
        bad = next(filter(None, (_first_bad(each.backend.to_host(each.array)) for each in outputs)), None)
        if bad is None:
            return
        given = [(name, each.backend.to_host(each.array)) for name, each in _named(op, inputs)]
        if not any(_first_bad(array) for _, array in given):
            ranges = ", ".join(f"{n} from {a.min():.6g} to {a.max():.6g}" for n, a in given if a.size)
            self.found = f"{op.name} ({line})", f"{bad}{', given ' if ranges else ''}{ranges}"


def _named(op, inputs) -> list[tuple[str, object]]:
    """The floating inputs of an operation, by the names that its record gives them."""
    last = len(op.inputs) - 1
    return [(op.inputs[min(i, last)], value) for i, value in enumerate(inputs) if is_floating(value.dtype)]
