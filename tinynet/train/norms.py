"""``GradientNorm``: how large the gradients of a batch are together, for those who look on; no step is made.

A captured step uses each gradient up in its update as soon as it has made it, so that there is none to be looked at. To
make them once more takes about as long as a step, and is a program of its own.
"""

from __future__ import annotations

from tinynet import ops
from tinynet.autograd import no_grad
from tinynet.nn import Module
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor

from .step import gradients_of_step
from .watching import dropouts


class GradientNorm:
    """The joint norm of the gradients of a batch, before any clipping, with the parameters as they are.

    Args:
        model, loss_function, optimizer, penalty: as for ``training_step``.

    Nothing is changed: parameters, moments and the counts of ``Dropout`` are as before, to the bit.
    """

    def __init__(self, model: Module, loss_function, optimizer: Optimizer, penalty=None):
        self._differentiate = gradients_of_step(model, loss_function, optimizer, penalty)
        self._optimizer, self._counters = optimizer, dropouts(model, optimizer)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        with no_grad():
            for layer, before in self._counters:
                ops.assign(before, layer.counter)
        _, objective = self._differentiate(x, y)
        with no_grad():
            total = objective * 0.0
            for p in self._optimizer.params:
                if p.grad is not None:
                    total = total + ops.sum(ops.square(p.grad))
            for layer, before in self._counters:
                ops.assign(layer.counter, before)
        self._optimizer.zero_grad()
        return ops.sqrt(total)
