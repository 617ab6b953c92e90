"""Requests of many threads, merged into batches that the threads themselves run.

One caller at a time leads. It takes what is waiting, as many rows as a batch has, runs the batch, hands the lead to the
first of those that have come in the meantime, and tells the others their answers. So a lone caller runs its request
itself, behind one lock, and no caller is woken more than once. Requests that nobody waits for (``submit``) are led by a
thread of the batcher, which is started with the first of them. What running means is the server's business.

A request that has been accepted is answered, with a result or with the error of its own rows: where a batch of several
fails, each of its requests is run by itself. If a leader is interrupted, its other requests go back to the head of the
queue.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from time import perf_counter_ns

from tinynet.errors import ArgumentError, BusyError
from tinynet.meters.units import show_seconds

from .forecast import Forecast
from .latency import Latencies

_log = logging.getLogger(__name__)

QUEUE = 256  # requests that may be waiting


class Request:
    """Rows to be answered.

    Args:
        rows: their array, which nobody writes to until they are answered.
        single: whether they are one sample, whose answer is no row.
        arrived: by ``perf_counter_ns``.
        future: what is told the answer; None where the caller waits for it.

    Attributes:
        count: of the rows.
        result, error: the answer, when there is one.
        waited: whether another one was being answered when it came.
        gate: held until the caller that waits is woken.
        leads: whether it is woken to lead.
        others: after a run of its batch, those that have to be told yet.
    """

    __slots__ = (
        "arrived", "count", "error", "future", "gate", "leads", "others", "result", "rows", "single", "waited",
    )  # fmt: skip

    def __init__(self, rows, single: bool, arrived: int, future: Future | None = None):
        self.rows, self.single, self.count = rows, single, len(rows)
        self.arrived, self.future = arrived, future
        self.result = self.error = self.gate = None
        self.waited = self.leads = False
        self.others = ()

    def tell(self) -> None:
        """Gives the answer to whoever is to have it. What a callback of a future raises ends neither the thread that
        happens to run it nor the answers of others."""
        if self.future is None:
            self.gate.release()
            return
        try:
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)
        except (InvalidStateError, KeyboardInterrupt):
            raise
        except BaseException:  # futures let pass what is no Exception, such as SystemExit
            _log.exception("a callback of a future that was submitted to a server ended with an error")


class Batcher:
    """The queue and who runs it.

    Args:
        run: gives each request of a list its ``result``, or raises; called by one thread at a time.
        forecast: of a request's waiting time.
        queue: how many requests may be waiting.

    Attributes:
        accepted, refused, failed, missed: requests that were taken and not; of the former those that ended in an error,
            and those answered after their deadline.
        batches, rows: that were run.
        latencies: of accepted requests, from their arrival to the moment in which their caller has the answer.
        lock: held while any of these changes.
    """

    def __init__(self, run: Callable[[Sequence[Request]], None], forecast: Forecast, queue: int = QUEUE):
        self._run, self.forecast, self.queue = run, forecast, queue
        self.accepted = self.refused = self.failed = self.missed = self.batches = self.rows = 0
        self.latencies, self.lock = Latencies(), threading.Lock()
        self._waiting: deque[Request] = deque()
        self._waiting_rows = 0
        self._leader: Request | threading.Thread | None = None
        self._batch: list[Request] = []  # under way
        self._batch_rows = self._began = self._ended = 0
        self._company = False  # whether more than one was there when the last batch ended, and none refused since
        self._closed, self._worker, self._wake = False, None, threading.Semaphore(0)
        self._idle = threading.Condition(self.lock)
        within = show_seconds(forecast.deadline / 1e9)
        self._says = (  # to be said in little time: a server that refuses has none
            f"a place among at most {queue} waiting requests and an answer within {within}",
            "call again later; if this happens often, serve larger batches or allow a longer deadline",
        )

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._waiting)

    # ---- what callers do ----

    def call(self, request: Request):
        """The answer to a request; runs whatever it takes.

        Raises:
            BusyError: it is not taken.
            ArgumentError: the batcher is closed.
            Whatever ``run`` raises for it.
        """
        refusal, gathers = None, False
        try:
            with self.lock:
                leads = self._leader is None and not self._closed
                if leads:
                    self.accepted += 1
                    self._leader = request
                    gathers = self._gathers(request)
                    if gathers:
                        self._waiting.append(request)
                        self._waiting_rows, self._batch_rows, self._began = request.count, 0, perf_counter_ns()
                    else:
                        self._begin([request], request.count, perf_counter_ns())
                else:
                    refusal = self._enter(request)
            if refusal is not None:
                raise self._refused(*refusal)
            if not leads:
                request.gate.acquire()
                leads = request.leads
                with self.lock:
                    gathers = leads and self._gathers(request)
                    if not leads:
                        self._count(request, perf_counter_ns())
                    elif not gathers:
                        self._take()
            if leads:
                if gathers:
                    time.sleep(0)  # other threads get hold of Python, and their requests into the queue
                    with self.lock:
                        self._take()
                self._lead(request)
        except BaseException:
            self._leave(request)
            raise
        if request.error is not None:
            raise request.error
        return request.result

    def submit(self, request: Request) -> None:
        """Takes a request whose future will be told the answer; raises as ``call`` where it is not taken."""
        with self.lock:
            if self._worker is None and not self._closed:
                worker = threading.Thread(target=self._work, name="tinynet.serve", daemon=True)
                worker.start()
                self._worker = worker
            refusal = self._enter(request)
            if self._leader is None:
                self._wake_leader(self._pass_on())
        if refusal is not None:
            raise self._refused(*refusal)

    def close(self) -> None:
        """Takes no more requests, and returns when all that were taken are answered."""
        with self.lock:
            self._closed = True
            worker = self._worker
            within = worker is threading.current_thread()  # in a callback of a future: it answers the others then
            if not within:
                self._idle.wait_for(lambda: self._leader is None)
        if worker is not None:
            self._wake.release()
            if not within:
                worker.join()

    # ---- with the lock held ----

    def _enter(self, request: Request) -> tuple[int, float] | None:
        """Puts a request at the end of the queue. If it has to be refused: how many are waiting, and how long it would
        take, in nanoseconds."""
        if self._closed:
            raise ArgumentError("serve", expected="an open server", got="one that has been closed")
        rows = self._waiting_rows + request.count
        if self._leader is not None:
            now = perf_counter_ns()
            wait = now - request.arrived + self.forecast.wait(rows, self._batch_rows, now - self._began)
            if len(self._waiting) >= self.queue or wait > self.forecast.deadline:
                self.refused += 1
                self._company = False  # a leader has no need to wait for more
                return len(self._waiting), wait
            request.waited = True
        if request.future is None:
            request.gate = threading.Lock()
            request.gate.acquire()
        self.accepted += 1
        self._waiting.append(request)
        self._waiting_rows = rows
        return None

    def _begin(self, batch: list[Request], rows: int, now: int) -> None:
        self._batch, self._batch_rows, self._began = batch, rows, now
        self.batches += 1
        self.rows += rows

    def _gathers(self, request: Request) -> bool:
        """Whether a leader lets others come first: where there were some just now, and the forecast says it pays."""
        spent = perf_counter_ns() - request.arrived
        return self._company and self.forecast.worth_waiting(self._waiting_rows or request.count, spent)

    def _take(self) -> None:
        """Takes a batch from the head of the queue."""
        batch, rows, waiting = [], 0, self._waiting
        self._begin(batch, 0, perf_counter_ns())
        while waiting and rows + waiting[0].count <= self.forecast.batch:
            request = waiting[0]
            future = request.future
            if future is None or future.running() or future.set_running_or_notify_cancel():
                batch.append(request)  # before it leaves the queue: an interrupt finds it in one of them
                rows += request.count
            else:
                self.accepted -= 1
            waiting.popleft()
            self._waiting_rows -= request.count
        self._batch_rows = rows
        self.rows += rows
        if self._ended:
            self.forecast.followed(self._began - self._ended)

    def _pass_on(self) -> Request | threading.Thread | None:
        """Makes the first of those waiting the leader, and gives it for its being woken."""
        self._leader = None
        self._batch_rows, self._began = 0, perf_counter_ns()
        if self._waiting:
            head = self._waiting[0]
            if head.future is None:
                head.leads, self._leader = True, head
            else:
                self._leader = self._worker
        elif self._closed:
            self._idle.notify_all()
        return self._leader

    def _count(self, request: Request, now: int) -> None:
        """Counts a request that is answered."""
        latency = now - request.arrived
        self.latencies.add(latency)
        self.missed += not self.forecast.answered(latency, request.waited)
        self.failed += request.error is not None

    # ---- without ----

    def _refused(self, waiting: int, wait: float) -> BusyError:
        expected, mend = self._says
        got = f"{waiting} waiting and an answer in about {wait / 1e6:.4g} ms"
        error = BusyError("serve", expected=expected, got=got, mend=mend)
        error.waiting, error.limit = waiting, self.queue
        error.predicted, error.deadline = wait / 1e9, self.forecast.deadline / 1e9
        return error

    # ---- with the lead ----

    def _execute(self) -> None:
        """Runs the batch; where several fail together, each by itself, so that the error is that of its cause alone."""
        batch = self._batch
        try:
            if batch:
                self._run(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for request in batch:
                try:
                    self._run([request])
                except Exception as its_own:
                    request.error = its_own

    def _lead(self, own: Request | None) -> None:
        """Runs batches for as long as the lead is kept: by the thread of the batcher (``own`` is None) while requests
        are waiting; by a caller while what it runs for others takes less time than to wake one of them."""
        keeps, answered = True, 0
        while keeps:
            self._execute()
            with self.lock:
                now = perf_counter_ns()
                answered = answered or now
                others, self._batch = self._batch, []
                self._company = len(others) > 1 or bool(self._waiting)
                told = [request for request in others if request.future is not None]
                for request in told:
                    self._count(request, now)
                if own is not None:
                    own.others = others = [request for request in others if request is not own]
                keeps = bool(self._waiting)
                if keeps and own is not None:
                    next_run = self.forecast.run_time(min(self._waiting_rows, self.forecast.batch))
                    # callbacks of futures may do anything, and are called without the lead
                    keeps = not told and now - answered + next_run < self.forecast.gap
                self._ended = now if self._waiting and not keeps else 0
                if keeps:
                    self._take()
                else:
                    if own is not None:
                        self._count(own, now)
                    self._wake_leader(self._pass_on())
            while others:
                others[-1].tell()
                others.pop()

    def _wake_leader(self, leader: Request | threading.Thread | None) -> None:
        if isinstance(leader, Request):
            leader.gate.release()
        elif leader is not None:
            self._wake.release()

    def _work(self) -> None:
        """What the thread of the batcher does."""
        while True:
            self._wake.acquire()
            with self.lock:
                leads = self._leader is self._worker
                if self._closed and not leads:
                    return
                if leads:
                    self._take()
            if leads:
                self._lead(None)

    def _leave(self, request: Request) -> None:
        """Puts in order what a caller leaves behind who was refused, or interrupted wherever it was."""
        if request.gate is None and self._leader is not request and not request.others:
            return
        with self.lock:
            leads, waiting = self._leader is request, self._waiting
            if leads:
                left = [each for each in self._batch if each is not request and each not in waiting]
                waiting.extendleft(reversed(left))
                self._batch, self._ended = [], 0
            if request in waiting:
                waiting.remove(request)
            self._waiting_rows = sum(each.count for each in waiting)
            if leads:
                self._pass_on()
            if not request.others:
                self.accepted -= 1  # nobody takes its answer
            leader = self._leader
            if not isinstance(leader, Request) or leader.leads:
                with contextlib.suppress(RuntimeError):  # woken already
                    self._wake_leader(leader)
        while request.others:
            with contextlib.suppress(RuntimeError, InvalidStateError):  # told already
                request.others[-1].tell()
            request.others.pop()
