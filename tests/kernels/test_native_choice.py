"""The choice between the own product and BLAS: measured once, remembered, and without an effect on what is computed."""

import json
import threading

import native_checks
import numpy as np
import pytest
from native_checks import integers

from tinynet import kernels

native = native_checks.native  # the fixture
SHAPE = (130, 250, 140)


@pytest.fixture
def choice(native, monkeypatch, tmp_path):
    """The module, with nothing known, one thread, and no trace of the test left."""
    from tinynet.kernels.cpu.native import choice, pool

    monkeypatch.setattr(choice, "_chosen", {})
    monkeypatch.setattr(choice, "_path", lambda: tmp_path / "products.json")
    pool.set_threads(1)
    yield choice
    pool.set_threads(None)


def arrays(shape=SHAPE):
    m, k, n = shape
    return np.full((m, n), np.nan, "float32"), integers((m, k), 0), integers((k, n), 1)


def bound(name, out, *inputs, **attributes):
    kernel = kernels.find(name, "native", "float32")
    scratch = np.empty(kernel.scratch_bytes(out, *inputs, **attributes), "uint8")
    return kernel.bind(out, *inputs, scratch=scratch, **attributes)


def run(calls):
    for function, arguments in calls:
        function(*arguments)


def test_a_large_product_is_measured_once(choice, monkeypatch):
    pytest.importorskip("threadpoolctl")
    measured = []
    monkeypatch.setattr(choice, "_measure", lambda *_: measured.append(1) or [1e-3, 2e-3])
    for _ in range(2):
        ((_, (instruction,)),) = bound("matmul", *arrays())
        assert instruction.note == "own kernel 1,000 µs, BLAS 2,000 µs"
    bound("matmul", *arrays((8, 8, 8)))
    assert len(measured) == 1 and list(choice._chosen) == ["130x250x140 NN float32"]


def test_a_measurement_is_two_times_and_leaves_a_product(choice):
    pytest.importorskip("threadpoolctl")
    out, a, b = arrays()
    own, blas = choice._measure(out, a, b, np.empty(2**22, "uint8"))
    assert 0 < own < 1 and 0 < blas < 1
    np.testing.assert_array_equal(out, a @ b)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("biased", [False, True])
def test_blas_computes_the_same(choice, activation, biased):
    found = []
    for seconds in ([1e-3, 1e-3], [2e-3, 1e-3]):
        choice._chosen["130x250x140 NN float32"] = seconds
        out, a, b = arrays()
        bias = (integers((140,), 2),) if biased else ()
        run(bound("linear", out, a / 64, b, *bias, activation=activation))
        found.append(out)
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-6)
    calls = bound("matmul", *arrays())
    assert calls[0][0].note == "BLAS 1,000 µs, own kernel 2,000 µs"
    linked, compiled = kernels.link(calls, "native")
    assert not compiled and len(linked) == 1


def test_threads_share_the_own_kernel_though_one_would_leave_it_to_blas(choice):
    from tinynet.kernels.cpu.native import pool

    choice._chosen["130x250x140 NN float32"] = [2e-3, 1e-3]
    pool.set_threads(2)
    ((_, (instruction,)),) = bound("matmul", *arrays())
    assert instruction.note == "own kernel on several threads; on one: BLAS 1,000 µs, own kernel 2,000 µs"


def test_a_tie_goes_to_the_own_kernel(choice):
    assert not choice.Choice(1.04, 1.0).is_blas
    assert choice.Choice(1.06, 1.0).is_blas


def another_process(choice, monkeypatch, seconds):
    """From here on it is as in a process that knows nothing and would measure these times."""
    monkeypatch.setattr(choice, "_chosen", {})
    monkeypatch.setattr(choice, "_measure", lambda *_: list(seconds))


def test_what_was_measured_is_read_by_a_later_process(choice, monkeypatch):
    pytest.importorskip("threadpoolctl")
    another_process(choice, monkeypatch, [1.0, 2.0])
    choice.choose(*arrays(), None)
    another_process(choice, monkeypatch, [2.0, 1.0])
    assert choice.choose(*arrays(), None) == (1.0, 2.0)
    for damaged in ("", "[1, 2]", json.dumps({"a": 5}), json.dumps({"a": ["x", "y"]}), "{"):
        choice._path().write_text(damaged)
        assert choice._read(choice._path()) == {}
        another_process(choice, monkeypatch, [3.0, 4.0])
        assert choice.choose(*arrays(), None) == (3.0, 4.0)


def test_what_processes_choose_side_by_side_is_kept_of_all_of_them(choice, monkeypatch):
    """Two that begin with the same file, and measure other shapes and the same one."""
    pytest.importorskip("threadpoolctl")
    measured = []

    def measure(out, a, b, scratch):
        measured.append((len(out), threading.current_thread().name))
        started.wait(1)  # so that the other one is past its first look at the file
        return [float(len(measured)), 1.0]

    monkeypatch.setattr(choice, "_measure", measure)
    started, found = threading.Event(), {}

    def process(name, *lengths):
        for m in lengths:
            found[name, m] = choice._decide(f"{m}", *arrays((m, 250, 140)), None)

    workers = [threading.Thread(target=process, args=each, name=each[0]) for each in (("a", 130, 131), ("b", 130, 132))]
    for each in workers:
        each.start()
    started.set()
    for each in workers:
        each.join()
    assert found["a", 130] == found["b", 130]
    assert sorted(m for m, _ in measured) == [130, 131, 132]
    assert choice._read(choice._path()) == {str(m): seconds for (_, m), seconds in found.items()}


def test_a_choice_that_cannot_be_kept_is_not_made(choice, monkeypatch, tmp_path):
    """Or the next run would measure again, and might choose otherwise."""
    pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(choice, "_path", lambda: tmp_path / "missing" / "products.json")
    measured = []
    monkeypatch.setattr(choice, "_measure", lambda *_: measured.append(1) or [2.0, 1.0])
    assert choice.choose(*arrays(), None) is choice.choose(*arrays(), None) is None
    assert len(measured) == 1


def test_where_nothing_can_be_remembered_nothing_is_measured(choice, monkeypatch):
    monkeypatch.setattr(choice, "_path", lambda: None)
    monkeypatch.setattr(choice, "_measure", lambda *_: pytest.fail("measured"))
    ((_, (instruction,)),) = bound("matmul", *arrays())
    assert instruction.note == ""


def test_the_number_of_threads_of_blas_is_no_part_of_what_is_remembered(native, monkeypatch):
    from tinynet.kernels.cpu.native import choice

    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = choice._path()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert choice._path() == before
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert choice._path() != before
