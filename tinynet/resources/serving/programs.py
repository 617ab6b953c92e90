"""The programs that answer requests: one for each of a ladder of batch sizes, captured, proven and timed beforehand.

The sizes are all up to 8, and from there on four to each power of two: a batch of another size is filled up to the next
with rows that nobody reads, which is a fifth of it at most. A program takes some milliseconds to make, some hundreds
where products have to be measured first, and its arena; 16 rows take 12 programs, 256 take 28.

What is merged must not mix: before anything is served, rows of one batch are compared with the same rows alone.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence
from time import perf_counter_ns

from tinynet.autograd import no_grad
from tinynet.backend import DType, allocating, get_backend, is_floating
from tinynet.errors import ArgumentError, BackendError, CaptureError
from tinynet.nn import Module
from tinynet.program import Program, capture
from tinynet.program.proof import close, largest
from tinynet.tensor import Tensor, tensor

from .batcher import Request

_TRIES = 30  # runs that are timed
_ARRAY = operator.attrgetter("array")


def ladder(batch: int) -> list[int]:
    """The batch sizes that get a program, in order; ``batch`` is the last."""
    sizes, size, step = [], 1, 1
    while size < batch:
        sizes.append(size)
        if size >= 8 * step:
            step *= 2
        size += step
    return [*sizes, batch]


class Programs:
    """A model's forward pass in evaluation mode, for every number of rows up to ``batch``.

    Args:
        model: on a backend that has programs.
        shape, dtype: of a sample.
        batch: rows of the largest batch.
        executor: as for ``tn.capture``.

    Attributes:
        run_times: batch size -> median of its runs, in nanoseconds.

    Raises:
        CaptureError: the model cannot be a program, does not return one tensor with a row for each sample, or mixes
            the samples of a batch.
        BackendError: no programs on the model's backend.
    """

    def __init__(self, model: Module, shape: tuple[int, ...], dtype: DType, batch: int, executor: str | None):
        self._parameters = model.parameters()
        self._backend = self._parameters[0].backend if self._parameters else get_backend()
        if not self._backend.captures:
            raise BackendError(
                "serve", expected="a model on a backend that has programs (numpy, cupy)",
                got=self._backend.name, mend="model.to('numpy')",
            )  # fmt: skip
        self._arrays = [p.array for p in self._parameters]
        self._host = get_backend("numpy")
        self._programs: dict[int, Program] = {}
        self._staged: dict[int, object] = {}  # batch size -> the array in which its rows are put together
        sizes = ladder(batch)
        was_training = model.training
        model.eval()
        try:
            with no_grad():
                for size in sizes:
                    self._staged[size] = self._host.zeros((size, *shape), dtype)
                    self._programs[size] = self._captured(model, self._staged[size], executor)
        finally:
            model.train(was_training)
        self._fitting = [0, *(next(size for size in sizes if size >= rows) for rows in range(1, batch + 1))]
        self._compare(shape, dtype)
        self.run_times = {size: self._timed(size) for size in sizes}

    def _captured(self, model: Module, rows, executor: str | None) -> Program:
        """The program for so many rows."""

        def forward(x: Tensor):
            return model(x)

        captured, x = capture(forward, executor=executor), tensor(rows, backend=self._backend)
        for _ in range(3):
            output = captured(x)
        if not isinstance(output, Tensor) or output.shape[:1] != rows.shape[:1]:
            got = f"one of shape {output.shape}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise CaptureError("serve", expected=f"a model that returns a tensor of {len(rows)} rows", got=got)
        return captured.program(x)

    def _compare(self, shape: tuple[int, ...], dtype: DType) -> None:
        """Raises CaptureError unless each row of a batch gives what it gives alone, to rounding."""
        xp, batch = self._host.xp, self._fitting[-1]
        rows = xp.zeros((batch, *shape), dtype=dtype)
        if is_floating(dtype):  # of integers only zero is known to be within the bounds of what they are for
            rows += xp.reshape(xp.sin(xp.arange(rows.size, dtype=dtype)), rows.shape)
        together = self._answers(rows)
        alone = xp.concatenate([self._answers(rows[i : i + 1]) for i in range(batch)])
        if not close(self._host, together, alone, largest(self._host, alone)):
            raise CaptureError(
                "serve", expected="a model that answers each sample by itself", got="one whose answers depend on what "
                "else is in the batch", mend="serve it with batch=1",
            )  # fmt: skip

    def _timed(self, size: int) -> int:
        rows, times = self._staged[size], []
        for _ in range(_TRIES):
            start = perf_counter_ns()
            self._answers(rows)
            times.append(perf_counter_ns() - start)
        return int(statistics.median(times))

    def _answers(self, rows):
        """The outputs for rows, as many as a program has, as a new host array. It is in no arena: the thread that runs
        a request may be another than the one that asked."""
        with allocating(None):
            return self._backend.to_host(self._programs[len(rows)](rows))

    def __call__(self, requests: Sequence[Request]) -> None:
        """Answers requests, of ``batch`` rows at most together.

        No array is made but those of the results: one for all, of which each request gets its rows.

        Raises:
            ArgumentError: the parameters lie elsewhere than they did. What the operations of the model raise.
        """
        if any(map(operator.is_not, map(_ARRAY, self._parameters), self._arrays)):
            raise ArgumentError(
                "serve", expected="the model's parameters where they were when it was served", got="others",
                mend="make another server after to(), astype() or a parameter that was replaced",
            )  # fmt: skip
        first = requests[0]
        if len(requests) == 1 and first.count in self._programs:
            answers = self._answers(first.rows)
            first.result = answers[0, ...] if first.single else answers
            return
        staged, at = self._staged[self._fitting[sum(request.count for request in requests)]], 0
        for request in requests:
            staged[at : at + request.count] = request.rows
            at += request.count
        answers, at = self._answers(staged), 0
        for request in requests:
            request.result = answers[at, ...] if request.single else answers[at : at + request.count]
            at += request.count
