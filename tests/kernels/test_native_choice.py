"""The choice between the own product and BLAS: measured once, remembered, and without an effect on what is computed."""

import json

import native_checks
import numpy as np
import pytest
from native_checks import integers

from tinynet import kernels

native = native_checks.native  # the fixture
SHAPE = (130, 250, 140)


@pytest.fixture
def choice(native, monkeypatch):
    """The module, with nothing known, and no trace of the test left."""
    from tinynet.kernels.cpu.native import choice

    monkeypatch.setattr(choice, "_known", {})
    monkeypatch.setattr(choice, "_save", lambda known: None)
    return choice


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
    assert len(measured) == 1 and list(choice._known) == ["130x250x140 NN float32"]


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
        choice._known["130x250x140 NN float32"] = seconds
        out, a, b = arrays()
        bias = (integers((140,), 2),) if biased else ()
        run(bound("linear", out, a / 64, b, *bias, activation=activation))
        found.append(out)
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-6)
    calls = bound("matmul", *arrays())
    assert calls[0][0].note == "BLAS 1,000 µs, own kernel 2,000 µs"
    linked, compiled = kernels.link(calls, "native")
    assert not compiled and len(linked) == 1


def test_a_tie_goes_to_the_own_kernel(choice):
    assert not choice.Choice(1.04, 1.0).is_blas
    assert choice.Choice(1.06, 1.0).is_blas


def test_what_was_measured_is_read_by_a_later_process(native, monkeypatch, tmp_path):
    from tinynet.kernels.cpu.native import choice

    monkeypatch.setattr(choice, "_path", lambda: tmp_path / "products.json")
    monkeypatch.setattr(choice, "_known", None)
    known = choice._load()
    known["2x2x2 NN float32"] = [1.0, 2.0]
    choice._save(known)
    monkeypatch.setattr(choice, "_known", None)
    assert choice._load() == {"2x2x2 NN float32": [1.0, 2.0]}
    for damaged in ("", "[1, 2]", json.dumps({"a": 5}), json.dumps({"a": ["x", "y"]}), "{"):
        (tmp_path / "products.json").write_text(damaged)
        monkeypatch.setattr(choice, "_known", None)
        assert choice._load() == {}


def test_where_nothing_can_be_remembered_nothing_is_measured(choice, monkeypatch):
    monkeypatch.setattr(choice, "_known", None)
    monkeypatch.setattr(choice, "_path", lambda: None)
    monkeypatch.setattr(choice, "_measure", lambda *_: pytest.fail("measured"))
    ((_, (instruction,)),) = bound("matmul", *arrays())
    assert instruction.note == ""
