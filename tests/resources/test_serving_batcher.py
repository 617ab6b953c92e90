"""Who runs what: requests merged, refused, failed, interrupted; and none of those that were accepted lost."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError, Future

import pytest

import tinynet as tn
from tinynet.resources.serving.batcher import Batcher, Request
from tinynet.resources.serving.forecast import Forecast

WAIT = 20  # seconds until a test that hangs is over


class Runner:
    """Answers each row with its double, and remembers batches and threads. ``hold`` keeps the first batch running."""

    def __init__(self, hold=True):
        self.batches, self.threads = [], []
        self.running, self.go = threading.Event(), threading.Event()
        if not hold:
            self.go.set()

    def __call__(self, requests):
        self.batches.append([row for request in requests for row in request.rows])
        self.threads.append(threading.get_ident())
        self.running.set()
        assert self.go.wait(WAIT)
        for request in requests:
            if "bad" in request.rows:
                raise ValueError("a bad row")
            if "stop" in request.rows and threading.current_thread().name == "stop":
                raise KeyboardInterrupt
            request.result = [row * 2 for row in request.rows]


class Caller(threading.Thread):
    """A thread with one request."""

    def __init__(self, batcher, *rows, request=None):
        super().__init__(daemon=True, name=str(rows[0]))
        self.batcher, self.rows, self.request = batcher, rows, request
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self.batcher.call(self.request or ask(*self.rows))
        except BaseException as error:
            self.error = error

    def answer(self):
        self.join(WAIT)
        assert not self.is_alive(), "a request without an answer"
        if self.error is not None:
            raise self.error
        return self.result


def ask(*rows, future=None):
    return Request(list(rows), False, time.perf_counter_ns(), future)


def batcher_of(run, batch=4, deadline=10**15, queue=100):
    forecast = Forecast(dict.fromkeys(range(1, batch + 1), 10**6), deadline)
    forecast.gap = 0
    return Batcher(run, forecast, queue)


def wait_for(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def held(batcher, *rows):
    """A caller whose batch is running."""
    caller = Caller(batcher, *rows)
    assert batcher._run.running.wait(WAIT)
    return caller


def waiting(batcher, *each_rows):
    """Callers that are in the queue, in this order."""
    callers = []
    for rows in each_rows:
        before = batcher.waiting
        callers.append(Caller(batcher, *(rows if isinstance(rows, tuple) else (rows,))))
        wait_for(lambda before=before: batcher.waiting > before)
    return callers


def test_a_lone_caller_runs_its_request_itself():
    run = Runner(hold=False)
    batcher = batcher_of(run)
    assert batcher.call(ask(3)) == [6] and batcher.call(ask(4, 5)) == [8, 10]
    assert run.batches == [[3], [4, 5]] and set(run.threads) == {threading.get_ident()}
    assert batcher.accepted == batcher.latencies.count == 2 and batcher.rows == 3


def test_requests_that_come_during_a_run_are_merged_in_their_order():
    run = Runner()
    batcher = batcher_of(run)
    callers = [held(batcher, 0), *waiting(batcher, 1, 2, 3, 4, 5)]
    run.go.set()
    assert [caller.answer() for caller in callers] == [[0], [2], [4], [6], [8], [10]]
    assert run.batches == [[0], [1, 2, 3, 4], [5]]
    assert run.threads == [callers[0].ident, callers[1].ident, callers[5].ident], "the first of each batch runs it"
    assert (batcher.accepted, batcher.latencies.count, batcher.batches, batcher.waiting) == (6, 6, 3, 0)


def test_requests_of_several_rows_stay_whole_and_in_order():
    run = Runner()
    batcher = batcher_of(run)
    callers = [held(batcher, 0), *waiting(batcher, (1, 2, 3), (4, 5), (6,))]
    run.go.set()
    assert [caller.answer() for caller in callers] == [[0], [2, 4, 6], [8, 10], [12]]
    assert run.batches == [[0], [1, 2, 3], [4, 5, 6]]


def test_a_leader_runs_for_others_what_takes_less_time_than_to_wake_one():
    run = Runner()
    batcher = batcher_of(run, batch=1)
    callers = [held(batcher, 0), *waiting(batcher, 1, 2)]
    batcher.forecast.gap = 10**12
    run.go.set()
    assert [caller.answer() for caller in callers] == [[0], [2], [4]]
    assert run.threads == [callers[0].ident] * 3


def test_a_full_queue_refuses_with_what_there_is_to_know():
    run = Runner()
    batcher = batcher_of(run, queue=2)
    callers = [held(batcher, 0), *waiting(batcher, 1, 2)]
    with pytest.raises(tn.errors.BusyError, match=r"at most 2 waiting requests.*got 2 waiting.*again later") as caught:
        batcher.call(ask(3))
    assert (caught.value.waiting, caught.value.limit, caught.value.deadline) == (2, 2, 10.0**6)
    assert 0 < caught.value.predicted < 10**6
    run.go.set()
    assert [caller.answer() for caller in callers] == [[0], [2], [4]]
    assert (batcher.accepted, batcher.refused) == (3, 1)
    assert batcher.call(ask(3)) == [6], "there is room again"


def test_what_would_be_late_is_refused_when_it_comes():
    run = Runner()
    batcher = batcher_of(run, deadline=3_500_000)  # a run takes 1 ms
    first = held(batcher, 0)
    batcher._began = time.perf_counter_ns() + 10**9  # so that the time this takes does not matter
    with pytest.raises(tn.errors.BusyError, match=r"within 3\.5 ms, got 0 waiting and an answer in about") as caught:
        batcher.submit(ask(1))
    assert caught.value.predicted > caught.value.deadline == 0.0035
    run.go.set()
    assert first.answer() == [0]
    assert batcher.call(ask(1)) == [2], "an idle server takes whatever comes"


def test_one_bad_request_does_no_harm_to_others_in_its_batch():
    run = Runner()
    batcher = batcher_of(run)
    callers = [held(batcher, 0), *waiting(batcher, 1, "bad", 3)]
    run.go.set()
    assert [callers[i].answer() for i in (0, 1, 3)] == [[0], [2], [6]]
    with pytest.raises(ValueError, match="a bad row"):
        callers[2].answer()
    assert run.batches == [[0], [1, "bad", 3], [1], ["bad"], [3]]
    assert (batcher.accepted, batcher.failed, batcher.latencies.count) == (4, 1, 4)
    with pytest.raises(ValueError, match="a bad row"):
        batcher.call(ask("bad"))
    assert batcher.call(ask(1)) == [2]


def test_an_interrupted_leader_leaves_the_others_their_answers():
    run = Runner()
    batcher = batcher_of(run)
    callers = [held(batcher, 0), *waiting(batcher, "stop", 2, 3)]
    run.go.set()
    with pytest.raises(KeyboardInterrupt):
        callers[1].answer()
    assert [callers[i].answer() for i in (0, 2, 3)] == [[0], [4], [6]]
    assert run.batches == [[0], ["stop", 2, 3], [2, 3]]
    assert (batcher.accepted, batcher.latencies.count, batcher.waiting) == (3, 3, 0)


class Interrupted(Request):
    """A request whose caller is interrupted while it waits, which is when it acquires its gate again."""

    __slots__ = ("times",)

    @property
    def gate(self):
        return self

    @gate.setter
    def gate(self, lock):
        self.times = 0

    def acquire(self):
        self.times += 1
        if self.times == 2:
            raise KeyboardInterrupt


def test_an_interrupted_caller_leaves_the_queue():
    run = Runner()
    batcher = batcher_of(run)
    first = held(batcher, 0)
    with pytest.raises(KeyboardInterrupt):
        batcher.call(Interrupted([1], False, time.perf_counter_ns()))
    assert batcher.waiting == 0
    second = waiting(batcher, 2)[0]
    run.go.set()
    assert first.answer() == [0] and second.answer() == [4]
    assert run.batches == [[0], [2]] and batcher.accepted == batcher.latencies.count == 2


def test_closing_answers_what_was_accepted_and_takes_no_more():
    run = Runner()
    batcher = batcher_of(run)
    callers = [held(batcher, 0), *waiting(batcher, 1, 2)]
    closing = threading.Thread(target=batcher.close, daemon=True)
    closing.start()
    wait_for(lambda: batcher._closed)
    with pytest.raises(tn.errors.ArgumentError, match="expected an open server, got one that has been closed"):
        batcher.call(ask(3))
    assert closing.is_alive()
    run.go.set()
    closing.join(WAIT)
    assert not closing.is_alive()
    assert [caller.answer() for caller in callers] == [[0], [2], [4]]
    batcher.close()
    with pytest.raises(tn.errors.ArgumentError):
        batcher.call(ask(3))


# ---- requests that nobody waits for ----


def submit(batcher, *rows):
    future = Future()
    batcher.submit(ask(*rows, future=future))
    return future


def test_what_is_submitted_is_run_by_one_thread_of_its_own():
    run = Runner()
    batcher = batcher_of(run)
    first = submit(batcher, 0)
    assert run.running.wait(WAIT)
    others = [submit(batcher, row) for row in (1, 2, "bad", 4, 5)]
    cancelled = submit(batcher, 6)
    assert cancelled.cancel()
    run.go.set()
    assert [each.result(WAIT) for each in (first, *others[:2], *others[3:])] == [[0], [2], [4], [8], [10]]
    with pytest.raises(ValueError, match="a bad row"):
        others[2].result(WAIT)
    with pytest.raises(CancelledError):
        cancelled.result(WAIT)
    batcher.close()
    assert len(set(run.threads)) == 1 and threading.get_ident() not in run.threads
    assert [6] not in run.batches and batcher.accepted == batcher.latencies.count == 6
    assert not batcher._worker.is_alive()


def test_callers_and_what_is_submitted_share_batches():
    run = Runner()
    batcher = batcher_of(run)
    first = held(batcher, 0)
    submitted = submit(batcher, 1)
    caller = waiting(batcher, 2)[0]
    run.go.set()
    assert (first.answer(), submitted.result(WAIT), caller.answer()) == ([0], [2], [4])
    assert run.batches == [[0], [1, 2]]
    batcher.close()


def test_a_callback_may_close_and_still_all_are_answered():
    run = Runner()
    batcher = batcher_of(run, batch=1)
    first = submit(batcher, 0)
    first.add_done_callback(lambda _: batcher.close())
    others = [submit(batcher, row) for row in (1, 2)]
    run.go.set()
    assert [each.result(WAIT) for each in others] == [[2], [4]]
    batcher._worker.join(WAIT)
    assert not batcher._worker.is_alive()


def test_a_callback_that_a_caller_runs_may_ask_again_and_close():
    run = Runner()
    batcher, asked = batcher_of(run, batch=2), []

    def again(_):
        asked.append(batcher.call(ask(7)))
        batcher.close()

    first, caller = held(batcher, 0), waiting(batcher, 1)[0]
    batcher.forecast.gap = 10**12  # so that the lead would be kept
    submit(batcher, 2).add_done_callback(again)
    last = waiting(batcher, 3)[0]
    run.go.set()
    assert [each.answer() for each in (first, caller, last)] == [[0], [2], [6]]
    wait_for(lambda: asked == [[14]])
    batcher.close()


@pytest.mark.parametrize("gap", [0, 10**12], ids=["lead handed on", "lead kept"])
@pytest.mark.parametrize("batch", [1, 4])
def test_nothing_is_lost_when_many_threads_call_submit_and_fail(batch, gap):
    run = Runner(hold=False)
    batcher, wrong = batcher_of(run, batch), []
    batcher.forecast.gap = gap

    def client(seed):
        rng = random.Random(seed)
        for i in range(150):
            row = "bad" if rng.random() < 0.05 else seed * 1000 + i
            try:
                answer = submit(batcher, row).result(WAIT) if rng.random() < 0.3 else batcher.call(ask(row))
            except ValueError:
                answer = "bad"
            if answer != ("bad" if row == "bad" else [row * 2]):
                wrong.append((row, answer))

    threads = [threading.Thread(target=client, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive(), "a request without an answer"
    batcher.close()
    assert not wrong
    assert (batcher.accepted, batcher.latencies.count, batcher.waiting) == (1200, 1200, 0)
