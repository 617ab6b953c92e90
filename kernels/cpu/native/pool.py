"""The one pool of threads that compiled tables run on.

Its size is what the process may use (CPU affinity), or what ``set_threads`` or TINYNET_NUM_THREADS say. Results do not
depend on it: a thread's share of an operation is whole elements of the result, each of which is computed in one order.
Where the process is left with fewer processors later on, threads wait long for each other, which they note; the pool is
then made anew for those that are left.

Workers are Python threads that are inside compiled code nearly all the time, without the interpreter's lock: they spin
for a fraction of a millisecond after a table, because the next one mostly follows at once, and then sleep on an event.
Each is woken on a processor of its own, and sent to one anew when threads have waited for long (see ``processors``).
One caller at a time has the pool; another one that comes meanwhile runs its table alone.
"""

from __future__ import annotations

import contextlib
import os
import threading

import numpy as np

from . import layout, processors
from .processors import affinity

SPINS = 1 << 16  # turns of about 2 ns
_lock = threading.Lock()  # held by whom the pool belongs to, and by who changes it
_chosen: int | None = None
_pool: _Pool | None = None


class _Pool:
    """``threads - 1`` workers and their control block."""

    def __init__(self, threads: int, library):
        self.threads, self.library = threads, library
        words = layout.control_words(threads)
        held = np.zeros(words + layout.LINE, np.int64)
        start = -held.ctypes.data % 64 // 8
        self._words, self.control = memoryview(held[start:]), held[start:].ctypes.data
        self._stop = False
        self._usable: set[int] = set()  # the processors that a woken worker may move to
        self._bells = {index: threading.Event() for index in range(1, threads)}
        self._workers = {
            index: threading.Thread(target=self._work, args=(index, bell), name=f"tinynet-{index}", daemon=True)
            for index, bell in self._bells.items()
        }
        for worker in self._workers.values():
            worker.start()

    def _work(self, index: int, bell: threading.Event) -> None:
        while not self._stop:
            self.library.work(index, self.threads, SPINS, self.control)
            bell.wait()
            bell.clear()
            processors.free(0, self._usable)

    def run(self, library, table: int) -> None:
        try:
            if library.start(table, self.threads, self.control):
                self.wake()
            library.join(table, self.threads, self.control)
        except BaseException:
            self._finish(library, table)
            raise

    def _finish(self, library, table: int) -> None:
        """Ends a table from whose midst Ctrl-C has called Python away: the workers are within it, and wait."""
        while self._words[layout.EPOCH] != self._words[layout.FINISHED]:
            with contextlib.suppress(KeyboardInterrupt):  # of the impatient; it is a matter of microseconds
                self.wake()
                library.join(table, self.threads, self.control)

    def waited(self) -> bool:
        """Whether a thread has waited for long since this was asked last."""
        if not self._words[layout.WAITED]:
            return False
        self._words[layout.WAITED] = 0
        return True

    def wake(self) -> None:
        # Lists: a tuple made of a generator is cut from a longer one, and leaves memory behind at each wake.
        asleep = [index for index in self._workers if self._words[layout.worker(index) + layout.ASLEEP]]
        self._usable = processors.spread([self._workers[index].native_id for index in asleep])
        for bell in self._bells.values():
            bell.set()

    def spread(self) -> None:
        """Sends each worker to a processor that is not the caller's."""
        workers = [worker.native_id for worker in self._workers.values()]
        usable = processors.spread(workers)
        for worker in workers:
            processors.free(worker, usable)

    def close(self) -> None:
        self._stop = True
        self.wake()


def threads() -> int:
    """How many threads tables run on."""
    if _chosen is not None:
        return _chosen
    asked = os.environ.get("TINYNET_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else affinity()


def set_threads(count: int | None) -> None:
    """Sets how many threads tables run on, from the next one on; None for as many as the process may use.

    Raises:
        ValueError: a number below 1.
    """
    global _chosen
    if count is not None and (type(count) is not int or count < 1):
        raise ValueError(f"set_threads: expected a number of threads from 1 on, or None, got {count!r}")
    with _lock:
        _chosen = count
        _close()


def useful_threads(cost: float, least: float = 10_000.0) -> int:
    """How many threads to share work of ``cost`` nanoseconds of one core: each gets ``least`` at least."""
    return max(1, min(threads(), int(cost / least)))


def run(library, table: int) -> bool:
    """Runs a table on all threads; False, and nothing done, where there is one only or the pool is in use."""
    global _pool
    if not _lock.acquire(blocking=False):
        return False
    try:
        if _pool is None:
            if threads() == 1:
                return False
            _pool = _Pool(threads(), library)
        _pool.run(library, table)
        if _pool.waited():
            if threads() < _pool.threads:
                _close()
            else:
                _pool.spread()
        return True
    finally:
        _lock.release()


def _close() -> None:
    global _pool
    if _pool is not None:
        _pool.close()
        _pool = None


def _after_fork() -> None:
    """A child has the memory of the pool and none of its threads."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
