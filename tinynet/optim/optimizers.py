"""Gradient descent and Adam over the parameters of a model.

What changes from step to step (learning rate, step count) is held in scalar tensors and updated by operations, so that
a captured step reads it afresh every time. An optimizer's moments are one segment each, laid out as the parameters are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tinynet import ops
from tinynet.autograd import no_grad
from tinynet.errors import ArgumentError, BackendError, CheckpointError, DTypeError, GradientError, ShapeError
from tinynet.nn.segment import Segment
from tinynet.ops import door
from tinynet.ops.spec import Spec
from tinynet.tensor import Tensor, as_tensor, full

from .schedules import Schedule


class Optimizer:
    """Base of the optimizers: parameters, learning rate, step count, moments.

    Args:
        params: tensors with ``requires_grad``, of one dtype and backend.
        lr: the learning rate, a positive number or a ``Schedule``.
        weight_decay: not negative.
        moments: names of the per-parameter state, set by the subclass.

    Raises:
        ArgumentError: no parameters, one given twice, numbers outside their range.
        GradientError: a tensor that does not require gradients.
        DTypeError, BackendError: parameters of two dtypes or backends.
    """

    def __init__(self, params: Iterable[Tensor], lr: float | Schedule, weight_decay: float, moments: tuple[str, ...]):
        self.params = tuple(params)
        name = type(self).__name__
        if not self.params:
            raise ArgumentError(name, expected="at least one parameter", got="none", mend="pass model.parameters()")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ArgumentError(name, expected="each parameter once", got="one twice")
        for p in self.params:
            if not isinstance(p, Tensor) or not p.requires_grad or p.node is not None:
                raise GradientError(name, expected="leaf tensors with requires_grad=True", got=repr(p))
        if not weight_decay >= 0:
            raise ArgumentError(name, expected="weight_decay of at least 0", got=repr(weight_decay))
        self.weight_decay = weight_decay
        first = self.params[0]
        self._schedule: Schedule | None = lr if callable(lr) else None
        self._lr = full((), self._checked(lr(0) if callable(lr) else lr), first.dtype, backend=first.backend)
        self._step = full((), 0, "int64", backend=first.backend)
        shapes = [p.shape for p in self.params]
        self.moments = {moment: Segment(shapes, first.dtype, first.backend) for moment in moments}
        writes = [0]  # one count for all moments, which are written together and on no tape
        self._moments = {
            moment: tuple(
                Tensor(view, first.backend, Spec(shape, first.dtype), writes)
                for view, shape in zip(segment.views, shapes)
            )
            for moment, segment in self.moments.items()
        }
        for p in self.params:
            self._require_fit(p)

    def _checked(self, lr: float) -> float:
        if not lr >= 0:
            raise ArgumentError(type(self).__name__, expected="a learning rate of at least 0", got=repr(lr))
        return float(lr)

    @property
    def lr(self) -> float:
        """The learning rate of the next step. Assigning a number or a ``Schedule`` replaces it."""
        return self._checked(self._schedule(self.steps)) if self._schedule else self._lr.item()

    @lr.setter
    def lr(self, lr: float | Schedule) -> None:
        self._schedule = lr if callable(lr) else None
        self._lr.data = self._checked(lr(self.steps) if callable(lr) else lr)

    @property
    def steps(self) -> int:
        """How many steps have been made."""
        return self._step.item()

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Changes the parameters by their gradients; those without a gradient stay as they are.

        Raises:
            ShapeError, DTypeError: a gradient that does not fit its parameter, or a model that was converted since.
            BackendError: a model that was moved since. Nothing is changed then.
        """
        with no_grad():
            for p in self.params:
                self._require_fit(p)
            if self._schedule is not None:
                door.before_each_call(self._refresh_rate)
            ops.assign(self._step, self._step + 1)
            for i, p in enumerate(self.params):
                if p.grad is not None:
                    self._update(p, p.grad, *(views[i] for views in self._moments.values()))

    def _refresh_rate(self) -> None:
        self._lr.data = self._checked(self._schedule(self.steps))

    def _require_fit(self, p: Tensor) -> None:
        """That a parameter is of the optimizer's own dtype and backend, and its gradient, if there is one, like it."""
        where, own = type(self).__name__, self._lr
        mend = "make the optimizer after the model has been converted or moved"
        if p.dtype != own.dtype:
            raise DTypeError(where, expected=f"parameters of {own.dtype}", got=str(p.dtype), mend=mend)
        if p.backend is not own.backend:
            raise BackendError(where, expected=f"parameters on {own.backend.name}", got=p.backend.name, mend=mend)
        if p.grad is not None and p.grad.shape != p.shape:
            raise ShapeError(where, expected=f"a gradient of shape {p.shape}", got=str(p.grad.shape))
        if p.grad is not None and p.grad.dtype != p.dtype:
            raise DTypeError(where, expected=f"a gradient of {p.dtype}", got=str(p.grad.dtype))

    def _update(self, p: Tensor, g: Tensor, *moments: Tensor) -> None:
        raise TypeError(f"{type(self).__name__} defines no _update")

    def state_dict(self) -> dict[str, object]:
        """Step count, learning rate, and the moments of each parameter as arrays on the host, copied."""
        state: dict[str, object] = {"step": self.steps, "lr": self.lr}
        for moment, views in self._moments.items():
            state |= {f"{moment}.{i}": view.numpy().copy() for i, view in enumerate(views)}
        return state

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes up where ``state_dict`` was made. A schedule stays as it is and goes on from the step count.

        Raises:
            CheckpointError: names, shapes or dtypes of another optimizer. Nothing is changed then.
        """
        where = f"load_state_dict of {type(self).__name__}"
        wanted = self.state_dict()
        if wanted.keys() != state.keys():
            raise CheckpointError(where, expected=", ".join(wanted), got=", ".join(map(str, state)))
        for name, value in wanted.items():
            expected, got = _kind_of(value), _kind_of(state[name])
            if expected != got:
                raise CheckpointError(f"{where}, {name!r}", expected=expected, got=got)
        if not (0 <= state["step"] < 2**63 and state["lr"] >= 0):
            got = f"step {state['step']}, lr {state['lr']}"
            raise CheckpointError(where, expected="a step and a learning rate of at least 0", got=got)
        backend = self._lr.backend
        values = [
            (view, as_tensor(state[f"{moment}.{i}"], backend))
            for moment, views in self._moments.items()
            for i, view in enumerate(views)
        ]
        values.append((self._step, full((), state["step"], "int64", backend=backend)))
        if self._schedule is None:
            values.append((self._lr, full((), state["lr"], self._lr.dtype, backend=backend)))
        for tensor, value in values:  # memory is taken before anything is written
            tensor.data = value

    def __repr__(self) -> str:
        rate = "schedule" if self._schedule else f"{self.lr:g}"
        return f"{type(self).__name__}({len(self.params)} parameters, lr={rate}, steps={self.steps})"


def _kind_of(value) -> str:
    """What kind of value an entry of a state is, for comparison and for messages."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__


class GD(Optimizer):
    """Gradient descent: p = p - lr g, over whatever batch the gradient comes from.

    Args:
        params, lr: see ``Optimizer``.
        momentum: mu in v = mu v + g, p = p - lr v (Polyak 1964).
        weight_decay: added to the gradient as weight_decay * p.
        nesterov: p = p - lr (g + mu v) instead (Sutskever et al. 2013). Needs momentum.
    """

    def __init__(
        self, params, lr: float | Schedule, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
    ):
        if not 0 <= momentum < 1:
            raise ArgumentError("GD", expected="momentum from 0 up to, not including, 1", got=repr(momentum))
        if nesterov and not momentum:
            raise ArgumentError("GD", expected="momentum above 0 with nesterov=True", got=repr(momentum))
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(params, lr, weight_decay, ("velocity",) if momentum else ())

    def _update(self, p, g, *velocity):
        if velocity:
            ops.gd_momentum(
                p,
                g,
                *velocity,
                self._lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )
        else:
            ops.gd(p, g, self._lr, weight_decay=self.weight_decay)


class Adam(Optimizer):
    """Adam (Kingma and Ba, ICLR 2015, Algorithm 1).

    Args:
        params, lr: see ``Optimizer``.
        betas: decay of the first and of the second moment, each from 0 up to 1.
        eps: added to the root of the second moment.
        weight_decay: added to the gradient as weight_decay * p; or, if ``decoupled``, taken off the parameter as
            lr * weight_decay * p (AdamW; Loshchilov and Hutter, ICLR 2019).
    """

    def __init__(self, params, lr: float | Schedule = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False):  # fmt: skip
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ArgumentError(
                type(self).__name__, expected="two betas from 0 up to, not including, 1", got=repr(betas)
            )
        if not eps > 0:
            raise ArgumentError(type(self).__name__, expected="eps above 0", got=repr(eps))
        self.betas, self.eps, self.decoupled = tuple(betas), eps, decoupled
        super().__init__(params, lr, weight_decay, ("m", "v"))

    def _update(self, p, g, m, v):
        ops.adam(
            p, g, m, v, self._lr, self._step, beta1=self.betas[0], beta2=self.betas[1], eps=self.eps,
            weight_decay=self.weight_decay, decoupled=self.decoupled,
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay, 0.01 by default."""

    def __init__(self, params, lr: float | Schedule = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, decoupled=True)


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales all gradients by one factor so that their joint norm is at most ``max_norm`` (Pascanu et al. 2013).

    Args:
        params: tensors; those without a gradient do not count.
        max_norm: above 0.

    Returns:
        The norm before, a scalar tensor.

    Raises:
        ArgumentError: ``max_norm`` not above 0, or no gradients at all.
    """
    if not max_norm > 0:
        raise ArgumentError("clip_grad_norm", expected="max_norm above 0", got=repr(max_norm))
    with_grad = [p for p in params if p.grad is not None]
    if not with_grad:
        raise ArgumentError("clip_grad_norm", expected="gradients", got="none", mend="call loss.backward() first")
    with no_grad():
        total = None
        for p in with_grad:
            part = ops.sum(ops.square(p.grad))
            total = part if total is None else total + part
        norm = ops.sqrt(total)
        factor = ops.minimum(max_norm / (norm + 1e-6), 1.0)
        scaled = [p.grad * factor for p in with_grad]  # all of them, before any is replaced
        for p, grad in zip(with_grad, scaled):
            p.grad = grad
    return norm
