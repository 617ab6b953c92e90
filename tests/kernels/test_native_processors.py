"""Threads are sent to processors of their own for a moment, and may run anywhere afterwards."""

import os
import threading

import native_checks
import pytest

native = native_checks.native  # the fixture
told = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system is not told where threads run")


@pytest.fixture
def machine(native, monkeypatch):
    """``processors`` on a machine with processors 2, 3, 5 and 7 for this process, whose caller runs on 3; and a list
    of the threads that were told where they may run."""
    from tinynet.kernels.cpu.native import processors

    moves = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {2, 3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, to: moves.append((thread, to)), raising=False)
    monkeypatch.setattr(processors, "_here", lambda: 3)
    return processors, moves


@pytest.mark.parametrize(
    ("threads", "moves"),
    [
        ([], []), ([11], [(11, {2})]), ([11, 12, 13], [(11, {2}), (12, {5}), (13, {7})]),
    ],
)  # fmt: skip
def test_each_thread_is_sent_to_a_processor_of_its_own_that_is_not_the_callers(machine, threads, moves):
    processors, found = machine
    assert processors.spread(threads) == {2, 3, 5, 7}
    assert found == moves


def test_more_threads_than_processors_are_left_where_they_are(machine):
    processors, moves = machine
    usable = processors.spread([11, 12, 13, 14])
    processors.free(11, usable)
    assert usable == set() and moves == []


def test_nothing_is_moved_where_the_system_does_not_say_who_runs_where(machine, monkeypatch):
    processors, moves = machine
    monkeypatch.setattr(processors, "_here", lambda: None)
    assert processors.spread([11]) == set() and moves == []


def test_a_thread_that_has_ended_does_not_matter(machine, monkeypatch):
    processors, _ = machine

    def gone(thread, to):
        raise ProcessLookupError

    monkeypatch.setattr(os, "sched_setaffinity", gone)
    assert processors.spread([11]) == {2, 3, 5, 7}


@told
def test_a_thread_runs_where_it_was_sent_and_may_leave_when_it_is_free(native):
    from tinynet.kernels.cpu.native import processors

    usable, found, go = os.sched_getaffinity(0), [], threading.Event()

    def wait():
        go.wait()
        found.append((processors._here(), os.sched_getaffinity(0)))
        processors.free(0, freed)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=wait)
    thread.start()
    freed = processors.spread([thread.native_id])
    go.set()
    thread.join()
    if len(usable) == 1:
        assert freed == set() and found == [(*usable, usable), usable]
    else:
        (where, bounds), after = found
        assert bounds == {where} < usable and freed == after == usable
