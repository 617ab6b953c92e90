"""``evaluate`` and ``predict``: a model on data that it does not learn from, batch by batch. ``fit`` does it too.

All batches but the last have one shape, so that two programs at most are made for a data set. To make one takes the
time of some tens of batches; where there are fewer, they run eagerly. What trains is in ``loop``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np

from tinynet.autograd import no_grad
from tinynet.backend import is_floating
from tinynet.data import Dataset, Loader
from tinynet.errors import ArgumentError
from tinynet.nn import Module
from tinynet.tensor import Tensor, tensor

from .step import as_program, can_capture, named_loss

_WORTH = 32  # batches of a shape from which on a program is worth its making: 24 to 46, for dense networks on one core


def evaluate(
    model: Module, data, loss: str | Callable[[Tensor, Tensor], Tensor], batch_size: int = 1024, *, capture: bool = True
) -> dict[str, float]:
    """How well a model does on data it is not trained on.

    Args:
        model: used in evaluation mode.
        data: a ``Dataset`` or a pair (x, y).
        loss: as for ``fit``.
        capture: run many batches of one shape (32 or more) as a program, which is faster, and whose results are those
            of eager batches to rounding. Model and loss must then be what a program can do; with False they may do
            anything. On a backend that cannot hold a program's arena all batches run eagerly in any case.

    Returns:
        "loss", the mean over the samples; and "accuracy" for integer targets, the part that the largest output gets
        right, or "r2" for floating ones, 1 - squared error over variance (nan if the targets do not vary).

    Raises:
        ArgumentError: no samples. Otherwise as ``fit``.
    """
    return evaluation("evaluate", model, as_dataset("evaluate", data), named_loss(loss), batch_size, capture)()


def evaluation(
    where: str, model: Module, data: Dataset, loss_function, batch_size: int = 1024, capture: bool = True,
    passes: int = 1,
) -> Callable[[], dict[str, float]]:  # fmt: skip
    """``evaluate`` as a function to be called ``passes`` times or so, which keeps its programs from call to call."""

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        output = model(x)
        return loss_function(output, y), output

    step = _chosen(where, forward, model, data, batch_size, capture, passes)

    def run() -> dict[str, float]:
        outputs, total, batch = [], 0.0, onto(model)
        with _evaluating(model):
            for x, y in Loader(data, batch_size, shuffle=False):
                loss, output = step(batch(x), batch(y))
                total += loss.item() * len(x)
                outputs.append(output.numpy())
        return {"loss": total / len(data)} | _score(np.concatenate(outputs), np.asarray(data.y))

    return run


def _score(predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
    if y.dtype.kind in "iu":
        return {"accuracy": float((predicted.argmax(axis=-1) == y).mean())}
    if y.shape != predicted.shape:
        return {}
    error = np.square(predicted - y, dtype="float64").sum()
    spread = np.square(y - y.mean(axis=0, dtype="float64")).sum()
    return {"r2": float(1 - error / spread) if spread else math.nan}


def predict(model: Module, x, batch_size: int = 1024, *, capture: bool = True) -> np.ndarray:
    """The model's outputs for all samples, in evaluation mode.

    Args:
        x: an array or tensor (n, ...), or a ``Dataset``.
        capture: as for ``evaluate``.

    Returns:
        A host array (n, ...).

    Raises:
        As ``evaluate``.
    """
    x = x.x if isinstance(x, Dataset) else np.asarray(x)
    data = Dataset(x, np.zeros(len(x)))
    step = _chosen("predict", lambda x: model(x), model, data, batch_size, capture)
    batch = onto(model)
    with _evaluating(model):
        return np.concatenate([step(batch(x)).numpy() for x, _ in Loader(data, batch_size, shuffle=False)])


def _chosen(where: str, step: Callable, model: Module, data: Dataset, batch_size: int, capture: bool, passes: int = 1):
    """A function of the tensors of a batch: the step, or a program of it for batches whose shape comes often enough."""
    if not len(data):
        raise ArgumentError(where, expected="at least one sample", got="none")
    size = Loader(data, batch_size, shuffle=False).batch_size
    full, rest = divmod(len(data), size)
    often = {length for length, times in ((size, full * passes), (rest, passes)) if times >= _WORTH}
    if not (capture and often and can_capture(model)):
        return step
    program = as_program(where, step)
    return lambda x, *more: (program if x.shape[0] in often else step)(x, *more)


@contextlib.contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode, and no tape; the model's mode is restored at the end."""
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        model.train(was_training)


def onto(model: Module) -> Callable[[object], Tensor]:
    """What makes tensors of batches: on the model's backend, floating arrays in the model's dtype.

    The model is looked at once, since walking through it takes longer than a step of a small one.
    """
    first = next(iter(model.parameters()), None)

    def batch(array) -> Tensor:
        array = np.asarray(array)
        if first is None:
            return tensor(array)
        return tensor(array, first.dtype if is_floating(array.dtype) else array.dtype, backend=first.backend)

    return batch


def as_dataset(where: str, data) -> Dataset:
    """The data set that was given, or that of a pair; ArgumentError for anything else."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Dataset(*(each.numpy() if isinstance(each, Tensor) else each for each in data))
    raise ArgumentError(where, expected="a Dataset or a pair (x, y)", got=type(data).__name__)
