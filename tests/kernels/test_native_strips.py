"""A product that an update uses up strip by strip, as one instruction: what the two one after the other leave."""

import native_checks
import numpy as np
import pytest

from tinynet import kernels

native = native_checks.native  # the fixture
UPDATES = {
    "gd": (1, [0.05], {"weight_decay": 0.1}),
    "gd_momentum": (2, [0.05], {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0}),
    "adam": (3, [0.05, 3], {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01, "decoupled": False}),
}


@pytest.fixture(autouse=True)
def own_kernels(native, monkeypatch):
    """No product is left to BLAS, and the pool is as it was."""
    from tinynet.kernels.cpu.native import choice, pool

    monkeypatch.setattr(choice, "LEAST_FLOPS", float("inf"))
    yield
    pool.set_threads(None)


def operands(name, shape, dtype, transposed):
    (m, k, n), rng = shape, np.random.default_rng(0)
    count, rates, attributes = UPDATES[name]
    state = [rng.uniform(0.1, 1, (m, n)).astype(dtype) for _ in range(count)]
    rates = [np.asarray(each, "int64" if each == 3 else dtype) for each in rates]
    a, b = rng.normal(size=(k, m) if transposed else (m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    return state, a.T if transposed else a, b, rates, attributes


def both(name, dtype):
    """The kernel of both, and that of each."""
    update, product = (kernels.find(each, "native", dtype) for each in (name, "matmul"))
    count = UPDATES[name][0]
    cuts = (True, True, False, *[True] * (count - 1), *[False] * len(UPDATES[name][1]))
    return kernels.tiled(update, 1, product, {}, cuts, 2, np.dtype(dtype), 4096), update, product


def bound(kernel, out, *inputs, **attributes):
    scratch = np.full(kernel.scratch_bytes(out, *inputs, **attributes) + 64, 0xA5, "uint8")
    start = -scratch.ctypes.data % 64
    calls = kernel.bind(out, *inputs, scratch=scratch[start : len(scratch) - 64 + start], **attributes)
    return calls, scratch


def run(calls):
    for function, arguments in calls:
        function(*arguments)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("dtype", native_checks.DTYPES)
@pytest.mark.parametrize("transposed", [True, False], ids=["transposed", "plain"])
@pytest.mark.parametrize("shape", [(1000, 33, 70), (257, 128, 128), (61, 5, 700), (30, 600, 31), (3, 4, 2)])
@pytest.mark.parametrize("asks", [False, True], ids=["", "asking"])
def test_strips_leave_what_product_and_update_leave(monkeypatch, name, dtype, transposed, shape, asks):
    from tinynet.kernels.cpu.native import pool, strips

    monkeypatch.setattr(strips, "ASK_FROM", 0 if asks else float("inf"))
    state, a, b, rates, attributes = operands(name, shape, dtype, transposed)
    whole, update, product = both(name, dtype)
    g = np.empty_like(state[0])
    run(bound(product, g, a, b)[0])
    expected = [each.copy() for each in state]
    out = expected[0] if len(state) == 1 else tuple(expected)
    run(bound(update, out, expected[0], g, *expected[1:], *rates, **attributes)[0])
    found = []
    for threads in (1, 2, 3):
        pool.set_threads(threads)
        found.append([each.copy() for each in state])
        out = found[-1][0] if len(state) == 1 else tuple(found[-1])
        calls, scratch = bound(whole, out, found[-1][0], a, b, *found[-1][1:], *rates, **attributes)
        assert [each[1][0].operation for each in calls] == ["strips"]
        assert calls[0][1][0].words[12] == asks * len(state)  # arrays that the update reads, beside the product
        run(kernels.link(calls, "native")[0])
        assert (scratch[-64 + -scratch.ctypes.data % 64 :] == 0xA5).all()
    for one, two, three, other in zip(*found, expected):
        assert one.tobytes() == two.tobytes() == three.tobytes()
        np.testing.assert_allclose(one, other, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_a_product_that_would_be_packed_for_each_strip_is_made_in_tiles():
    state, a, b, rates, attributes = operands("gd", (500, 40, 60), "float32", True)
    whole, update, product = both("gd", "float32")
    b = np.ascontiguousarray(b.T).T
    expected, g = state[0].copy(), np.empty_like(state[0])
    run(bound(product, g, a, b)[0])
    run(bound(update, expected, expected, g, *rates, **attributes)[0])
    calls, _ = bound(whole, state[0], state[0], a, b, *rates, **attributes)
    assert "strips" not in {each[1][0].operation for each in calls} and len(calls) > 2
    run(calls)
    np.testing.assert_allclose(state[0], expected, rtol=1e-5)
