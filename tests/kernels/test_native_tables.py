"""Tables of native instructions: what is one call, who shares the work, and what is kept between processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import native_checks
import numpy as np
import pytest
from native_checks import integers

from tinynet import kernels

native = native_checks.native  # the fixture


@pytest.fixture(autouse=True)
def own_kernels(native, monkeypatch):
    """No product is left to BLAS."""
    from tinynet.kernels.cpu.native import choice

    monkeypatch.setattr(choice, "LEAST_FLOPS", float("inf"))


@pytest.fixture
def pool(native):
    """The pool, whose size a test may set."""
    from tinynet.kernels.cpu.native import pool

    yield pool
    pool.set_threads(None)


def bound(out, a, b):
    """A product as calls."""
    kernel = kernels.find("matmul", "native", str(out.dtype))
    return kernel.bind(out, a, b, scratch=np.empty(kernel.scratch_bytes(out, a, b), "uint8"))


def run(calls):
    for function, arguments in calls:
        function(*arguments)


@pytest.fixture
def chain(native):
    """Products of which each reads what the one before wrote: (a function that makes their calls, the last result)."""
    a, b = integers((300, 300), 0), np.eye(300, dtype="float32")[::-1].copy()
    results = [np.zeros_like(a) for _ in range(7)]

    def calls():
        return [call for x, out in zip([a, *results], results) for call in bound(out, x, b)]

    return calls, results[-1], a[:, ::-1]


def test_instructions_that_follow_each_other_become_one_call(chain):
    calls, last, expected = chain
    linked, compiled = kernels.link(calls(), "native")
    assert (len(linked), compiled) == (1, True)
    run(linked)
    np.testing.assert_array_equal(last, expected)
    between = [*calls(), (last.fill, (5,)), *calls()[:1]]
    linked, compiled = kernels.link(between, "native")
    assert (len(linked), compiled) == (3, False)
    run(linked)
    assert (last == 5).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_threads_meet_between_instructions(chain, pool, threads):
    calls, last, expected = chain
    pool.set_threads(threads)
    linked, _ = kernels.link(calls(), "native")
    assert linked[0][0].threads == threads
    for _ in range(20):
        last[...] = 0
        run(linked)
        np.testing.assert_array_equal(last, expected)


@pytest.mark.parametrize("dtype", native_checks.DTYPES)
@pytest.mark.parametrize("shape", [(301, 257, 383), (6, 700, 900), (900, 700, 6), (1, 900, 1100), (1100, 900, 1)])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_a_product_has_the_same_bits_on_any_number_of_threads(pool, shape, transposed, dtype):
    (m, k, n), rng = shape, np.random.default_rng(0)
    a, b = (
        rng.standard_normal(each[:: -1 if flip else 1]).astype(dtype).T if flip
        else rng.standard_normal(each).astype(dtype)
        for each, flip in zip(((m, k), (k, n)), transposed)
    )  # fmt: skip
    found = []
    for threads in (1, 2, 3):
        pool.set_threads(threads)
        found.append(np.full((m, n), np.nan, dtype))
        calls = bound(found[-1], a, b)
        shared = calls[0][1][0].threads
        assert 1 <= shared <= threads and (shared > 1 or threads == 1 or min(m, n) < 10)
        run(calls)
    np.testing.assert_allclose(found[0], a @ b, rtol=1e-4, atol=1e-3)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


@pytest.mark.parametrize("transposed", [(True, False), (False, True)])
def test_the_scratch_of_a_thread_ends_a_page_before_that_of_the_next_one(pool, transposed):
    from tinynet.kernels.cpu.native import plan, strips

    a, b = (integers((257, 257), i).T if flip else integers((257, 257), i) for i, flip in enumerate(transposed))
    out = np.empty((257, 257), "float32")
    alone, shared = (plan.Product(out, a, b, threads=threads) for threads in (1, 2))
    scratch = np.empty(shared.scratch_bytes, "uint8")
    each = shared.instruction(scratch).words[strips.EACH]
    assert (shared.threads, shared.scratch_bytes) == (2, 2 * each) and alone.scratch_bytes > 0
    cut = plan.shared(257, 257, 257, 4, plan.machine.widths()[0], transposed[0], transposed[1] or None, None, 2)[2]
    assert each >= cut.scratch_bytes + 4096
    assert kernels.find("matmul", "native", "float32").scratch_bytes(out, a, b) >= shared.scratch_bytes


def test_threads_take_turns_with_the_slices_of_rows_that_are_a_power_of_two_apart(pool):
    from tinynet.kernels.cpu.native import instructions, layout

    pool.set_threads(2)
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((1, 512), "float32"), rng.standard_normal((3, 512, 512), "float32")
    results = [np.zeros((1, 512), "float32") for _ in weights]
    calls = [call for a, b, out in zip([x, *results], weights, results) for call in bound(out, a, b)]
    table = instructions.Table(each for _, (each,) in calls)
    assert all(each.threads == 2 and each.slices for each in table.instructions)
    reversed_, at = [], layout.TABLE
    for _ in results:
        reversed_.append(int(table.words[at + layout.REVERSED]))
        at += int(table.words[at + layout.LENGTH])
    assert reversed_ == [0, 1, 0]
    table()
    shared = [out.copy() for out in results]
    pool.set_threads(1)
    table()
    for one, two in zip(results, shared):
        assert one.tobytes() == two.tobytes()
    right = x @ weights[0] @ weights[1] @ weights[2]
    np.testing.assert_allclose(shared[-1], right, atol=1e-5 * np.abs(right).max())


def test_a_worker_that_has_fallen_asleep_is_woken(chain, pool):
    calls, last, expected = chain
    pool.set_threads(2)
    linked, _ = kernels.link(calls(), "native")
    for _ in range(3):
        last[...] = 0
        run(linked)
        np.testing.assert_array_equal(last, expected)
        time.sleep(0.05)  # far longer than a worker waits for work


def test_a_worker_is_woken_on_a_processor_of_its_own_and_is_free_from_then_on(chain, pool, monkeypatch):
    from tinynet.kernels.cpu.native import layout, processors

    calls, last, expected = chain
    pool.set_threads(2)
    linked, _ = kernels.link(calls(), "native")
    run(linked)
    worker, words = pool._pool._workers[1].native_id, pool._pool._words
    asleep, told = layout.worker(1) + layout.ASLEEP, []
    monkeypatch.setattr(processors, "_here", lambda: 4)
    monkeypatch.setattr(processors, "_usable", lambda: {4, 6})
    monkeypatch.setattr(processors, "free", lambda thread, to: told.append((thread, to)))
    for waited, spread in ((0, []), (1, [(worker, {6}), (worker, {4, 6})])):
        end = time.monotonic() + 30  # reached by a failure only
        while not words[asleep] and time.monotonic() < end:
            time.sleep(0.001)
        told.clear()
        monkeypatch.setattr(pool._Pool, "waited", lambda self, waited=waited: waited)
        last[...] = 0
        run(linked)
        np.testing.assert_array_equal(last, expected)
        assert told == [(worker, {6}), (0, {4, 6}), *spread]


def test_who_waits_for_long_at_a_barrier_says_so(chain, pool, monkeypatch):
    from tinynet.kernels.cpu.native import layout

    calls, last, expected = chain
    pool.set_threads(2)
    linked, _ = kernels.link(calls(), "native")
    run(linked)
    words, wake, noted = pool._pool._words, pool._Pool.wake, []

    def until(word):
        end = time.monotonic() + 30  # reached by a failure only
        while not words[word] and time.monotonic() < end:
            time.sleep(0.001)
        return words[word]

    def wake_late(self):
        noted.append(until(layout.WAITED))
        wake(self)

    until(layout.worker(1) + layout.ASLEEP)
    monkeypatch.setattr(pool._Pool, "wake", lambda self: threading.Thread(target=wake_late, args=(self,)).start())
    last[...] = 0
    run(linked)
    monkeypatch.undo()
    np.testing.assert_array_equal(last, expected)
    assert noted == [1] and not pool._pool.waited()


def test_threads_that_waited_are_made_anew_for_the_processors_that_are_left(chain, pool, monkeypatch):
    from tinynet.kernels.cpu.native import layout

    calls, last, expected = chain
    monkeypatch.delenv("TINYNET_NUM_THREADS", raising=False)
    monkeypatch.setattr(pool, "affinity", lambda: 3)
    linked, _ = kernels.link(calls(), "native")
    for left, then in ((3, 3), (2, None), (2, 2), (1, None), (1, None)):
        monkeypatch.setattr(pool, "affinity", lambda left=left: left)
        if pool._pool is not None:
            pool._pool._words[layout.WAITED] = 1
        last[...] = 0
        run(linked)
        np.testing.assert_array_equal(last, expected)
        assert (pool._pool and pool._pool.threads) == then


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
@pytest.mark.parametrize("impatient", [False, True], ids=["once", "and again"])
def test_ctrl_c_between_the_start_of_a_table_and_its_end_leaves_no_worker_behind(chain, pool, monkeypatch, impatient):
    calls, _, _ = chain
    pool.set_threads(2)
    linked, _ = kernels.link(calls(), "native")
    run(linked)
    wake, left = pool._Pool.wake, [1 + impatient]

    def interrupted(self):
        wake(self)
        if left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)

    time.sleep(0.05)  # the worker falls asleep
    monkeypatch.setattr(pool._Pool, "wake", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt):
            run(linked)
    finally:
        signal.signal(signal.SIGINT, before)
    assert left == [0]
    for factor in (2, 3, 4):  # a worker that is one table behind would compute this with what was there before
        a, out = np.eye(300, dtype="float32") * factor, np.zeros((300, 300), "float32")
        again, _ = kernels.link(bound(out, a, a) * 2, "native")
        run(again)
        np.testing.assert_array_equal(out, a @ a)


def test_callers_in_several_threads_compute_what_each_alone_would(chain, pool):
    _, _, expected = chain
    pool.set_threads(2)
    failures = []

    def work():
        a, b = integers((300, 300), 0), np.eye(300, dtype="float32")[::-1].copy()
        out = np.zeros_like(a)
        linked, _ = kernels.link([call for _ in range(5) for call in bound(out, a, b)], "native")
        for _ in range(30):
            out[...] = 0
            run(linked)
            if not (out == expected).all():
                failures.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert not failures


def test_the_number_of_threads_is_what_was_set_or_asked_for_or_what_the_process_may_use(pool, monkeypatch):
    monkeypatch.delenv("TINYNET_NUM_THREADS", raising=False)
    assert pool.threads() == pool.affinity() >= 1
    monkeypatch.setenv("TINYNET_NUM_THREADS", "3")
    assert pool.threads() == 3
    pool.set_threads(2)
    assert pool.threads() == 2
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match="from 1 on"):
            pool.set_threads(wrong)
    assert pool.threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_process_has_a_pool_of_its_own(chain, pool):
    calls, _, _ = chain
    run(calls())  # it is compiled now
    code = """if 1:
        import os, numpy as np
        from tinynet import kernels
        from tinynet.kernels.cpu.native import pool
        pool.set_threads(2)
        a = np.eye(400, dtype="float32"); out = np.zeros_like(a)
        kernel = kernels.find("matmul", "native", "float32")
        calls = kernel.bind(out, a, a, scratch=np.empty(kernel.scratch_bytes(out, a, a), "uint8"))
        (table, _), = kernels.link(calls, "native")[0]
        table()
        child = os.fork()
        out[...] = 0
        table()
        good = (out == a).all()
        if child == 0:
            os._exit(0 if good else 1)
        assert good and os.waitpid(child, 0)[1] == 0
        print("both")
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "both\n", done.stderr


def test_a_process_that_finds_its_library_compiled_imports_no_numba(chain):
    calls, _, _ = chain
    run(calls())  # it is compiled now
    code = """if 1:
        import sys, numpy as np
        from tinynet import kernels
        a = np.eye(5, dtype="float32"); out = np.zeros_like(a)
        kernels.find("matmul", "native", "float32")(out, a, a)
        assert (out == a).all()
        print([name for name in ("numba", "scipy") if name in sys.modules])
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_library_is_read_back_whole_or_not_at_all(native, tmp_path):
    from tinynet.kernels.cpu.native import library

    path = tmp_path / "library.o"
    assert library._read(path) is None
    library._write(path, ["one", "two"], b"\0code\n\0")
    assert library._read(path) == (["one", "two"], b"\0code\n\0")
    assert list(tmp_path.iterdir()) == [path]
    content = path.read_bytes()
    for damaged in (content[:-1], content[:40] + bytes([content[40] ^ 1]) + content[41:], b""):
        path.write_bytes(damaged)
        assert library._read(path) is None
    library._write(tmp_path / "missing" / "library.o", ["one"], b"code")  # no place to keep it: no matter


def test_values_out_of_bounds_are_seen(native):
    kinds = "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"
    labels = {kind: np.array([0, 3, 9], kind) for kind in kinds}
    look = kernels.screen([(array, 0, 10) for array in labels.values()], "native")
    assert look() is False
    for array in labels.values():
        for wrong in (10, 127, *((-1,) if array.dtype.kind == "i" else ())):
            array[1], kept = wrong, array[1]
            assert look() is True
            array[1] = kept
    assert look() is False
    assert kernels.screen([(np.arange(6)[::2], 0, 10)], "native") is None
    assert kernels.screen([(labels["int8"], 0, 10)], "numpy") is None


@pytest.mark.parametrize("threads", [1, 2])
def test_denormal_numbers_are_zero_in_a_program_and_nowhere_else(pool, threads):
    """On each of its threads; and the core is left as it was."""
    pool.set_threads(threads)
    tiny = np.float32(1e-40)
    a, b = np.full((600, 300), tiny), np.eye(300, dtype="float32")
    alone, together = np.ones_like(a), np.ones_like(a)
    run(bound(alone, a, b))
    linked, _ = kernels.link(bound(together, a, b) * 2, "native")
    assert linked[0][0].threads == threads
    run(linked)
    assert (alone == tiny).all() and (together == 0).all()
    assert (a * np.float32(1.5)).all()  # here, and where the workers compute, the mode has been given back
    run(bound(alone, a, b))
    assert (alone == tiny).all()
