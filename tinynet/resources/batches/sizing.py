"""``batch_size``: the largest batch that fits into memory, by arithmetic, and the fastest, by measurement.

What training takes is planned as ``tn.plan`` does it, for any size and without an array, and added up row by row.
Nothing is tried out to see whether it fails. The arithmetic is in ``fitting``, what is measured in ``throughput``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from tinynet.backend import get_backend, is_floating
from tinynet.data import Loader
from tinynet.errors import ArgumentError, PlanError
from tinynet.meters import memory as memory_meter
from tinynet.meters.units import as_bytes, as_seconds, show_bytes
from tinynet.nn import Module
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor
from tinynet.train import StepPlan, plan
from tinynet.train.evaluating import as_dataset

from .. import software
from ..facts import Unknown
from .fitting import Fit, Search
from .schedules import check_counts
from .throughput import Curve, Steps, climb, made_up

_KEPT_BACK = 0.05  # of memory that is merely free just now: others take from it too


class BatchSize:
    """What ``batch_size`` found.

    Attributes:
        budget, source: bytes for all of training, and where the number comes from.
        largest: the largest batch that fits as a whole.
        fit: the ``Fit`` of the size to use: the effective batch if one was asked for; else the knee if it was measured;
            else the largest, or a multiple of 16 or 8 close below it.
        curve: what was measured, or None.
        options: for ``fit``: ``tn.fit(model, train, ..., **found.options)``.
    """

    def __init__(self, budget: int, source: str, largest: int, fit: Fit, curve: Curve | None):
        self.budget, self.source, self.largest, self.fit, self.curve = budget, source, largest, fit, curve

    @property
    def options(self) -> dict[str, int]:
        return {"batch_size": self.fit.batch_size, "memory": self.fit.memory}

    def to_dict(self) -> dict:
        """All of it as plain values."""
        fit = self.fit
        return {
            "budget_bytes": self.budget, "source": self.source, "largest": self.largest,
            "batch_size": fit.batch_size, "memory_bytes": fit.memory, "parts": list(fit.parts), "last": fit.last,
            "taken_bytes": fit.taken, "notes": list(fit.plan.notes),
            "curve": None if self.curve is None else self.curve.to_dict(),
        }  # fmt: skip

    def plot(self, path) -> None:
        """Draws the measured throughput over the batch size, the knee marked (the ending of ``path`` says the kind).

        Raises:
            ArgumentError: nothing was measured.
            MissingExtraError: matplotlib is not installed.
        """
        if self.curve is None:
            raise ArgumentError("BatchSize.plot", expected="a measurement", got="none", mend="pass measure=True")
        self.curve.plot(path)

    def __str__(self) -> str:
        fit = self.fit
        rows = [("memory", self.budget, self.source), *((name, nbytes, "") for name, nbytes in fit.taken.items())]
        rows.append(("left", self.budget - fit.bytes, ""))
        width = max(len(name) for name, *_ in rows)
        lines = [
            f"{name:<{width}}  {nbytes:>18,} bytes  {nbytes / 2**20:>12,.3f} MiB  {note}".rstrip()
            for name, nbytes, note in rows
        ]
        lines.append(f"{self.largest:,} samples fit as a whole; the batch size is {fit.batch_size:,}.")
        if len(fit.parts) > 1:
            parts, size, rest = len(fit.parts), fit.parts[0], fit.parts[-1]
            each = f"{parts} of {size:,}" if rest == size else f"{parts - 1} of {size:,} and 1 of {rest:,}"
            lines.append(f"It is taken in parts, {each}: the same step, with the gradients weighted exactly.")
        lines += fit.plan.notes
        if self.curve is not None:
            lines += ["", str(self.curve), ""]
        lines.append(f"tn.fit(..., batch_size={fit.batch_size}, memory={fit.memory})")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"BatchSize({self.fit.batch_size}, memory={self.fit.memory}, largest={self.largest})"


def batch_size(
    model: Module, *, loss: str | Callable[[Tensor, Tensor], Tensor], optimizer: str | Optimizer,
    memory: str | int | None = None, fraction: float | None = None, data=None, samples: int | None = None,
    drop_last: bool = False, input_shape: tuple[int, ...] | None = None, target_shape: tuple[int, ...] | None = None,
    effective: int | None = None, measure: bool = False, time: str | float = "10s", executor: str | None = None,
    clip_norm: float | None = None, penalty: Callable[[Module], Tensor] | None = None,
) -> BatchSize:  # fmt: skip
    """How large a batch fits into memory, and which is fastest.

    Counted are the parameters, the optimizer's moments, the arena of the step's program, the batch on its way from the
    loader, and the arena of a smaller last batch, which is a program of its own: of the size that ``data`` or
    ``samples`` leave over; as large as the first where neither is given, unless ``drop_last`` is. It holds with the
    ``memory=`` that the result names, without which the first two calls of a step run eagerly as well, to compare. Not
    counted are the data set, validation, programs of other sizes, and Python itself (a megabyte or two).

    Args:
        model: of any size; one made within ``with tn.nn.abstract():`` takes no memory itself.
        loss, optimizer, clip_norm, penalty: as for ``fit``.
        memory: for all that is counted, in bytes or as "4GB". By default what is available now on the model's backend,
            and what parameters and moments hold already, less 5 % of what is available.
        fraction: use this part of ``memory``, or of all the memory of the device; 0.1 to 0.2 leaves room for others.
        data: a ``Loader`` (of any batch size), a ``Dataset``, or a pair (x, y): its shapes, types and length count, and
            whether it prefetches or drops the last batch; its first samples are measured with.
        samples, drop_last: of data that are not at hand: how many there are, and whether a last batch that is not full
            is dropped.
        input_shape, target_shape, executor: as for ``plan``.
        effective: the batch size that is wanted whether it fits or not: it is cut into parts then.
        measure: find the knee of the throughput too, by real captured steps on copies of model and optimizer.
        time: how long to measure at most, in seconds or as "10s"; compiling kernels does not count.

    Raises:
        PlanError: not one sample fits, or ``effective`` does not even in parts; or there is no room to measure.
        ArgumentError: numbers out of range; a model whose input shape is not known; memory that is not known.

    Example:
        >>> found = tn.resources.batch_size(model, loss="mse", optimizer=optimizer, memory="500MB", data=train)
        >>> print(found)
        >>> tn.fit(model, train, loss="mse", optimizer=optimizer, epochs=5, **found.options)
    """
    loader = _as_loader(data)
    if loader is not None:
        samples, drop_last, (x, y) = len(loader.dataset), loader.drop_last, _first(loader, 1)
        input_shape, target_shape = x.shape[1:], y.shape[1:] if is_floating(y.dtype) else target_shape
    check_counts("batch_size", **{k: n for k, n in (("samples", samples), ("effective", effective)) if n is not None})
    if effective is not None and samples is not None and effective > samples:
        raise ArgumentError("batch_size", expected=f"effective of at most {samples}, the samples", got=str(effective))
    one = plan(
        model, loss, optimizer, 1, input_shape, target_shape=target_shape, clip_norm=clip_norm, penalty=penalty,
        executor=executor,
    )  # fmt: skip
    budget, source = _budget(model, optimizer, one, memory, fraction, executor)

    def within(size: int, nbytes: int) -> StepPlan:
        return plan(
            model, loss, optimizer, size, input_shape, nbytes, target_shape=target_shape, clip_norm=clip_norm,
            penalty=penalty, executor=executor,
        )  # fmt: skip

    search = Search(one, within, budget, samples, drop_last, _copies(model, loader, executor))
    largest = search.largest()
    if largest < 1 and effective is None:
        raise PlanError(
            "batch_size", expected=f"at least {show_bytes(search.least())} to train with one sample at a time",
            got=f"{show_bytes(budget)} ({source})", mend="raise the budget, or make the model smaller",
        )  # fmt: skip
    curve = None
    if measure:
        if _is_abstract(model):
            raise ArgumentError("batch_size", expected="a model with memory to measure", got="an abstract one")
        step = Steps(model, loss, optimizer, penalty, clip_norm, executor)
        sizes = search.rungs(max(1, largest), beside=one.parameter_bytes + one.moment_bytes)
        if not sizes:
            raise PlanError(
                "batch_size", expected="room to measure, beside copies of parameters and moments",
                got=f"{show_bytes(budget)} ({source})", mend="raise the budget, or leave out measure=",
            )  # fmt: skip
        specs = tuple(one.graph.spec(register) for register in one.graph.inputs)
        batch = functools.partial(made_up, *specs) if loader is None else functools.partial(_first, loader)
        curve = climb(step.runners(sizes, batch), as_seconds(time, "batch_size, time"))
    size = effective or (curve.knee if curve is not None else search.rounded(largest))
    return BatchSize(budget, source, largest, search.fit(size), curve)


# ---- what there is ----


def _budget(
    model: Module, optimizer, one: StepPlan, memory: str | int | None, fraction: float | None, executor: str | None
) -> tuple[int, str]:  # fmt: skip
    """Bytes for all that is counted, and where the number comes from."""
    if fraction is not None and not 0 < fraction <= 1:
        raise ArgumentError("batch_size", expected="a fraction above 0, up to 1", got=repr(fraction))
    if memory is not None:
        budget = as_bytes(memory, "batch_size, memory")
        if fraction is None:
            return budget, "as given"
        return int(budget * fraction), f"{fraction:.0%} of what is given"
    backend = get_backend("cupy") if executor == "cuda" else model.parameters()[0].backend
    total, available = _device(backend)
    present = 0 if _is_abstract(model) else one.parameter_bytes
    if isinstance(optimizer, Optimizer) and not _is_abstract(model):
        present += one.moment_bytes
    reachable = present + int((1 - _KEPT_BACK) * available)
    if fraction is None:
        return reachable, f"available on {backend.name}, less {_KEPT_BACK:.0%}, and held by the model already"
    if total * fraction > reachable:
        return reachable, f"all that is available on {backend.name}, which is less than {fraction:.0%} of its memory"
    return int(total * fraction), f"{fraction:.0%} of the memory of {backend.name}"


def _device(backend) -> tuple[int, int]:
    """Bytes of memory of the backend's device: all that this process may have, and what is available."""
    try:
        total, available = _of_gpu(backend) if backend.name == "cupy" else _of_host()
    except Unknown as why:
        raise ArgumentError("batch_size", expected="a budget", got=f"none ({why})", mend="pass memory=") from why
    return total, min(total, available)


def _of_gpu(backend) -> tuple[int, int]:
    return software.gpus()["memory_bytes"][0], backend.free_bytes()


def _of_host() -> tuple[int, int]:
    available, total = memory_meter.available(), memory_meter.limit() or memory_meter.system().get("MemTotal")
    if available is None or total is None:
        raise Unknown("the system does not say what memory there is")
    return total, available


def _is_abstract(model: Module) -> bool:
    first = model.parameters()[0]
    return not first.backend.writable(first.array)


def _as_loader(data) -> Loader | None:
    if data is None or isinstance(data, Loader):
        return data
    return Loader(as_dataset("batch_size", data), 1, shuffle=False)


def _first(loader: Loader, size: int) -> tuple:
    """The first samples of the data as a batch, x and y."""
    data = loader.dataset
    batch = data.x[:size], data.y[:size]
    return batch if loader.transform is None else loader.transform(*batch)


def _copies(model: Module, loader: Loader | None, executor: str | None) -> int:
    """How many times a batch is in memory at once, the one in the arena included, in units of that one.

    On the host the loader makes the next batch while the one before is still there, or some ahead. One becomes a
    tensor, by way of a converted copy if it is of another type. A device has the batch in its arena alone, and what is
    on its way there, which the plan counts.
    """
    first = model.parameters()[0]
    if executor == "cuda" or first.backend.name != "numpy":
        return 1
    if loader is None:
        return 3
    dtype, ahead = _first(loader, 1)[0].dtype, loader.prefetch
    converted = is_floating(dtype) and dtype != first.dtype
    ratio = dtype.itemsize / first.dtype.itemsize if converted else 1
    held = ahead + 2 if ahead else 1  # while a step runs
    return 1 + math.ceil(max(2 * ratio, held * ratio + 1 + converted))
