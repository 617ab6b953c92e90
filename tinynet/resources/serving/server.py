"""``serve`` and ``Server``: a model that answers requests of many threads within a deadline.

What a request may be and what a server tells of itself is said here; ``batcher`` merges requests, ``programs`` answers
them.
"""

from __future__ import annotations

from concurrent.futures import Future
from time import perf_counter_ns
from typing import NamedTuple

from tinynet.backend import (
    INTEGERS,
    HostArray,
    as_dtype,
    host_array,
    host_indices,
    is_floating,
    is_integer,
)
from tinynet.errors import ArgumentError, DTypeError, ShapeError
from tinynet.meters.units import as_seconds, show_seconds
from tinynet.nn import Module
from tinynet.ops.spec import as_shape
from tinynet.tensor import Tensor
from tinynet.train.planning import input_shape_of

from .batcher import QUEUE, Batcher, Request
from .forecast import Forecast
from .programs import Programs


def serve(
    model: Module, batch: int = 1, deadline: str | float = "1ms", *, input_shape: tuple[int, ...] | None = None,
    dtype=None, queue: int = QUEUE, executor: str | None = None,
) -> Server:  # fmt: skip
    """Prepares a model for requests of single samples, or of a few rows, from any number of threads.

    The forward pass becomes programs, one for each batch size of a ladder, whose memory is planned and taken now. A
    caller that comes alone runs its request itself; callers that come while a batch is running are merged into the
    next one, of up to ``batch`` rows. A request that would miss the deadline, by what was measured so far, is refused
    with ``BusyError`` when it comes; one that has been accepted is answered in any case.

    The weights are those at the moment of the run: training that goes on and ``load_state_dict`` are seen by the next
    request, an update that is under way in another thread perhaps in part. Layers that are exchanged are not seen.
    Results may differ by rounding with the size of the batch in which a request was merged.

    A process that serves should call ``tn.set_num_threads(1)`` first, unless its cores are its own: threads of a
    program wait for each other, and where another process is on one of their cores they wait for the system's next
    turn, some milliseconds. Where other threads compute in Python, ``sys.setswitchinterval(1e-4)`` lets a caller have
    Python back after a tenth of a millisecond, instead of five. What is rarer than one answer in a hundred is the
    system's: a process that is not run for 4 ms is late in whatever was under way.

    Args:
        model: used in evaluation mode; its own mode stays as it is.
        batch: rows that are answered together, at most; 1 merges nothing.
        deadline: from the arrival of a request to its answer, in seconds or as "0.5ms", "1 s".
        input_shape: of one sample; by default (in_features,) of the first layer.
        dtype: of a sample; by default that of the parameters.
        queue: requests that may be waiting, at most.
        executor: as for ``tn.capture``.

    Returns:
        A ``Server``, to be called as the model is; a context manager.

    Raises:
        ArgumentError: an option out of its range; a deadline shorter than a single run of one sample takes.
        CaptureError: the model cannot be a program, or its samples depend on each other.
        BackendError: a backend that has no programs.

    Example:
        >>> with tn.serve(model, batch=16, deadline="2ms") as server:
        ...     logits = server(x)
    """
    for name, value in (("batch", batch), ("queue", queue)):
        if not isinstance(value, INTEGERS) or isinstance(value, bool) or value < 1:
            raise ArgumentError("serve", expected=f"{name} to be a whole number from 1 on", got=repr(value))
    if not isinstance(model, Module):
        raise ArgumentError("serve", expected="a tn.nn.Module", got=type(model).__name__)
    allowed = int(as_seconds(deadline, "serve, deadline") * 1e9)
    shape = as_shape("serve", input_shape) if input_shape is not None else input_shape_of(model, "serve")
    first = next(iter(model.parameters()), None)
    kind = as_dtype(dtype if dtype is not None else first.dtype if first is not None else "float32")
    programs = Programs(model, shape, kind, int(batch), executor)
    least = programs.run_times[1]
    if least > allowed:
        raise ArgumentError(
            "serve", expected=f"a deadline that one sample can meet, longer than {show_seconds(least / 1e9)}",
            got=show_seconds(allowed / 1e9), mend="allow more time, or serve a smaller model",
        )  # fmt: skip
    return Server(programs, shape, kind, int(batch), allowed, int(queue))


class Statistics(NamedTuple):
    """What a server has done so far. Times in seconds, from the arrival of a request to its answer.

    Attributes:
        accepted, refused: requests.
        failed: accepted ones that ended in an error.
        missed: accepted ones that were answered after their deadline.
        waiting: that are in the queue now.
        batches, rows: that were run.
        deadline: as it was given.
        p50, p99, p999: what 50, 99 and 99.9 % of the answers did not exceed, at most 1/64 too long; nan without any.
        worst: the longest.
    """

    accepted: int
    refused: int
    failed: int
    missed: int
    waiting: int
    batches: int
    rows: int
    deadline: float
    p50: float
    p99: float
    p999: float
    worst: float

    def __str__(self) -> str:
        times = zip(("p50", "p99", "p99.9", "worst"), (self.p50, self.p99, self.p999, self.worst))
        rows = self.rows / self.batches if self.batches else 0.0
        return (
            f"{self.accepted:,} accepted ({self.failed:,} failed), {self.refused:,} refused, {self.waiting:,} waiting; "
            f"{rows:.1f} rows to a batch; {', '.join(f'{name} {time * 1e6:,.0f} us' for name, time in times)}; "
            f"{self.missed:,} after the deadline of {self.deadline * 1e6:,.0f} us"
        )


class Server:
    """Answers requests; made by ``serve``.

    Attributes:
        deadline: in seconds.
    """

    def __init__(self, programs, shape: tuple[int, ...], dtype, batch: int, deadline: int, queue: int):
        self._shape, self._dtype, self._batch = shape, dtype, batch
        self.deadline = deadline / 1e9
        self._batcher = Batcher(programs, Forecast(programs.run_times, deadline), queue)

    def __call__(self, x):
        """The model's outputs.

        Args:
            x: one sample, or rows of them, of which there may be as many as a batch has: an array, a tensor, or nested
                lists of numbers. Floating arrays are converted to the dtype that is served.

        Returns:
            A host array: for one sample without the axis of rows.

        Raises:
            ShapeError, DTypeError: not a sample; nothing has been done then.
            BusyError: the answer would be late, or the queue is full.
            ArgumentError: the server is closed.
            What the operations of the model raise for these rows.
        """
        arrived = perf_counter_ns()
        rows, single = self._rows(x)
        return self._batcher.call(Request(rows, single, arrived))

    def submit(self, x) -> Future:
        """As a call, for a caller that does not wait.

        A thread of the server, which lives until ``close``, runs what is submitted, and the callbacks of its futures,
        which must not wait for other answers: a short request takes longer in this way than in a call, by the time in
        which a thread wakes up.

        Args:
            x: as for a call; it is copied.

        Returns:
            A ``concurrent.futures.Future`` of the result.

        Raises:
            As a call, but for the errors of the model, which the future raises.
        """
        arrived = perf_counter_ns()
        rows, single = self._rows(x)
        future: Future = Future()
        self._batcher.submit(Request(rows.copy(), single, arrived, future))
        return future

    def stats(self) -> Statistics:
        """What has been done so far."""
        batcher = self._batcher
        with batcher.lock:
            times = batcher.latencies
            return Statistics(
                batcher.accepted, batcher.refused, batcher.failed, batcher.missed, batcher.waiting, batcher.batches,
                batcher.rows, self.deadline, *(times.percentile(percent) / 1e9 for percent in (50, 99, 99.9)),
                times.worst / 1e9,
            )  # fmt: skip

    def close(self) -> None:
        """Takes no more requests; returns when all that were accepted are answered."""
        self._batcher.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({self._shape} {self._dtype}, batch={self._batch}, deadline={show_seconds(self.deadline)})"

    def _rows(self, x) -> tuple[HostArray, bool]:
        """The rows of a request, and whether they are one sample."""
        if type(x) is not HostArray or x.dtype != self._dtype:
            x = self._converted(x)
        if x.shape == self._shape:
            return x[None], True
        if x.ndim == len(self._shape) + 1 and x.shape[1:] == self._shape and 0 < len(x) <= self._batch:
            return x, False
        rows = "rows" if self._batch == 1 else f"1 to {self._batch} rows"
        raise ShapeError(
            "serve", expected=f"a sample of shape {self._shape}, or {rows} of it", got=f"shape {x.shape}",
            mend="serve with a larger batch for more rows at a time; tn.predict takes any number of them",
        )  # fmt: skip

    def _converted(self, x) -> HostArray:
        """The dtype that is served, where nothing but precision may be lost."""
        x = x.numpy() if isinstance(x, Tensor) else x
        floating = is_floating(self._dtype)
        try:
            found = host_array(x) if floating or hasattr(x, "__array__") else host_indices(x)
            if is_floating(found.dtype) if floating else is_integer(found.dtype):
                return host_array(x, self._dtype)  # of numbers as they were given
        except ValueError as error:
            raise ShapeError("serve", expected="nested lists of equal lengths", got=str(error)) from error
        if found.dtype != self._dtype:
            raise DTypeError(
                "serve", expected=f"samples of {self._dtype}", got=str(found.dtype),
                mend="convert and scale them as those that the model was trained on",
            )  # fmt: skip
        return found
