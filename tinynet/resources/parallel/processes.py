"""``run_all``: tasks in processes that divide the processors among them. What a task does is not known here.

Processes are started afresh ("spawn"), so that no thread or lock of the caller comes along. How many threads a library
uses is mostly read when it is loaded, before code of ours runs in the new process: so it is said by the environment.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from tinynet.errors import ArgumentError, BackendError
from tinynet.kernels import pool
from tinynet.program import set_num_threads

VARIABLES = (
    "TINYNET_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
_environment = threading.Lock()


def divided(where: str, runs: int, processes: int | None, threads: int) -> int:
    """How many processes of so many threads each work on so many runs.

    As many as there are runs, if the processors that this process may use are enough.

    Raises:
        ArgumentError: no whole numbers from 1 on, or more processes times threads than processors.
    """
    available = pool.affinity()
    for name, n in (("processes", 1 if processes is None else processes), ("threads", threads)):
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ArgumentError(where, expected=f"{name}, a whole number of at least 1", got=repr(n))
    if processes is None:
        processes = max(1, available // threads)
    if processes * threads > available:
        raise ArgumentError(
            where, expected=f"processes times threads of at most {available}, the processors that may be used",
            got=f"{processes} times {threads}", mend="lower one of them, or leave processes out",
        )  # fmt: skip
    return min(processes, runs)


def require_picklable(where: str, **given) -> None:
    """That all of it can be sent to another process.

    Raises:
        ArgumentError: the first that cannot, and why.
    """
    for name, value in given.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            raise ArgumentError(
                where, expected=f"{name} that can be sent to another process", got=str(error) or repr(error),
                mend="define functions at the top level of a module: no lambda, and none within another function",
            ) from error  # fmt: skip


def run_all(
    where: str, task: Callable, arguments: Sequence[tuple], *, processes: int, threads: int, kind: str = "run"
) -> list:
    """``task(*each)`` for all arguments, in their order; at most so many at once, each in a process of its own threads.

    The first that fails ends all: those that have not begun are left out, the others are stopped. So does Ctrl-C.

    Args:
        where: the public function that asks, for messages.
        task: at the top level of a module, as what it takes and returns has to be picklable.
        kind: what the tasks are, for messages: "fold" names the third one "fold 2".

    Raises:
        BackendError: a process could not begin, or ended by itself. Otherwise what a task raises, with a note that says
            which it was.
    """
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(threads,))
    try:
        with _surroundings(threads):  # a process is started when a task is submitted
            futures = [executor.submit(task, *each) for each in arguments]
        wait(futures, return_when=FIRST_EXCEPTION)
        for i, future in enumerate(futures):
            if future.done() and future.exception() is not None:
                raise _told(future.exception(), where, f"{kind} {i}")
        return [future.result() for future in futures]
    except BaseException:
        _stop(executor)
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _told(error: BaseException, where: str, which: str) -> BaseException:
    """What to raise for the error of a task."""
    if not isinstance(error, BrokenProcessPool):
        error.add_note(f"{where}, {which}")
        return error
    told = BackendError(
        where, expected="processes that run to their end", got="one that could not begin, or was ended from outside",
        mend="a script must begin its work under `if __name__ == '__main__':`, functions that are passed must be in a "
        "file that can be imported, and there must be memory for all processes",
    )  # fmt: skip
    told.__cause__ = error
    return told


def _stop(executor: ProcessPoolExecutor) -> None:
    for process in list((executor._processes or {}).values()):
        process.terminate()


@contextlib.contextmanager
def _surroundings(threads: int) -> Iterator[None]:
    """What new processes inherit: so many threads, and that Ctrl-C is ignored. Afterwards all is as it was."""
    with _environment:
        before = {name: os.environ.get(name) for name in VARIABLES}
        main = threading.current_thread() is threading.main_thread()  # where alone handlers can be set
        handler = signal.getsignal(signal.SIGINT) if main else None
        os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
        try:
            if handler is not None:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            yield
        finally:
            if handler is not None:
                signal.signal(signal.SIGINT, handler)
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _begin(threads: int) -> None:
    """In a new process: so many threads; and Ctrl-C is for the caller, which ends all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_num_threads(threads)
