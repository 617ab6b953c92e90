"""The choice between the own product and BLAS: measured once, remembered, and without an effect on what is computed."""

import itertools

import native_checks
import numpy as np
import pytest
from native_checks import integers

import tinynet as tn
from tinynet import kernels
from tinynet.kernels.choices import Choices

native = native_checks.native  # the fixture
SHAPE = (130, 250, 140)
NAME = "130x250x140 NN float32"


def times(own, blas):
    return {"own kernel": own, "BLAS": blas}


@pytest.fixture
def choice(native, monkeypatch, tmp_path):
    """The module, with nothing known, one thread, and no trace of the test left."""
    from tinynet.kernels.cpu.native import choice, pool

    monkeypatch.setattr(choice, "_choices", Choices(choice.CLEARLY, kept=True))
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
    monkeypatch.setattr(choice, "_measure", lambda *_: measured.append(1) or times(1e-3, 2e-3))
    for _ in range(2):
        ((_, (instruction,)),) = bound("matmul", *arrays())
        assert instruction.note == "on one thread: own kernel 1,000 µs, BLAS 2,000 µs"
    bound("matmul", *arrays((8, 8, 8)))
    assert len(measured) == 1 and list(choice._choices.known) == [NAME]


def test_a_measurement_is_two_times_and_leaves_a_product(choice):
    pytest.importorskip("threadpoolctl")
    out, a, b = arrays()
    seconds = choice._measure(out, a, b, np.empty(2**22, "uint8"))
    assert list(seconds) == ["own kernel", "BLAS"] and all(0 < each < 1 for each in seconds.values())
    np.testing.assert_array_equal(out, a @ b)


def test_a_measurement_is_the_shortest_of_several_turns(choice, monkeypatch):
    """However long the first one took."""
    pytest.importorskip("threadpoolctl")
    took, now = iter([23.0, 5.0, 1.0, 3.0, 2.0, 4.0]), [0.0]
    ends = itertools.cycle((False, True))

    def clock():
        now[0] += next(took) if next(ends) else 0.0
        return now[0]

    monkeypatch.setattr(choice, "_clock", clock)
    assert choice._measure(*arrays(), np.empty(2**22, "uint8")) == times(1.0, 3.0)
    assert not list(took)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("biased", [False, True])
def test_blas_computes_the_same(choice, activation, biased):
    found = []
    for seconds in (times(1e-3, 1e-3), times(2e-3, 1e-3)):
        choice._choices.known[NAME] = seconds
        out, a, b = arrays()
        bias = (integers((140,), 2),) if biased else ()
        run(bound("linear", out, a / 64, b, *bias, activation=activation))
        found.append(out)
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-6)
    calls = bound("matmul", *arrays())
    assert calls[0][0].note == "on one thread: BLAS 1,000 µs, own kernel 2,000 µs"
    linked, compiled = kernels.link(calls, "native")
    assert not compiled and len(linked) == 1


def test_threads_share_the_own_kernel_though_one_would_leave_it_to_blas(choice):
    from tinynet.kernels.cpu.native import pool

    choice._choices.known[NAME] = times(2e-3, 1e-3)
    pool.set_threads(2)
    ((_, (instruction,)),) = bound("matmul", *arrays())
    assert instruction.note == "own kernel on several threads; on one thread: BLAS 1,000 µs, own kernel 2,000 µs"


def test_a_program_says_what_was_measured_and_how(choice):
    choice._choices.known[NAME] = times(2e-3, 1e-3)
    _, a, b = arrays()
    captured, operands = tn.capture(lambda a, b: a @ b, executor="native"), (tn.tensor(a), tn.tensor(b))
    captured(*operands)
    told = captured.program(*operands).explain()
    heading, line = told[told.index("products") :].splitlines()[:2]
    assert heading == "products whose kernel was chosen by measurement:"
    assert line == "   matmul 130x250 250x140  on one thread: BLAS 1,000 µs, own kernel 2,000 µs"


def test_a_choice_that_cannot_be_kept_is_not_made(choice, monkeypatch, tmp_path):
    """Or the next run would measure again, and might choose otherwise."""
    pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(choice, "_path", lambda: tmp_path / "missing" / "products.json")
    measured = []
    monkeypatch.setattr(choice, "_measure", lambda *_: measured.append(1) or times(2.0, 1.0))
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
