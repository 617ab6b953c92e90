"""The own product or cuBLAS's: what a measurement holds for, when there is one, and what becomes of the calls."""

import importlib
import json

import fake_blas
import numpy as np
import pytest
from fake_blas import Event, product_of
from product_checks import exact, finished, integers

from tinynet.kernels.choices import read

blas = importlib.import_module("tinynet.kernels.cuda.blas")
choice = importlib.import_module("tinynet.kernels.cuda.choice")
products = importlib.import_module("tinynet.kernels.cuda.products")

device = fake_blas.device  # the fixture


def test_what_a_measurement_holds_for():
    a, b, out = integers((4, 5)), integers((5, 6)), np.zeros((4, 6), "float32")
    keys = [
        choice.key(product, precision)
        for product in (
            product_of(out, a, b), product_of(out, integers((5, 4)).T, b), product_of(out, a, b, activation="relu"),
            product_of(out, a, b, bias=b[0]), product_of(out, a, b, mask=out), product_of(out.astype("float64"), a, b),
        )
        for precision in ("float32", "tf32")
    ]  # fmt: skip
    assert keys[0] == "1x4x5x6 NNN float32 float32 -" and keys[2].startswith("1x4x5x6 TNN")
    assert len(set(keys)) == 11  # float64 has no other precision


def test_times_are_medians_of_the_device_and_of_a_call_that_another_one_goes_ahead_of(device):
    costs = iter([each for cost in (100, 100, 1, 2, 3, 4, 5, 6, 7, 8, 90) for each in (1000, cost)])

    def function():
        Event.clock += next(costs)

    assert choice.device_seconds(function) == pytest.approx(5e-3)


@pytest.mark.parametrize("extra", [
    {}, {"activation": "relu"}, {"bias": True, "activation": "tanh"}, {"mask": True}, {"bias": True},
])  # fmt: skip
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_product_that_is_left_to_cublas(device, harness, monkeypatch, extra, batch):
    """The same product, by a call and, where there is more to do, a launch that the harness runs here."""
    a, b, out = integers((*batch, 9, 5)), integers((*batch, 5, 7), seed=1), np.full((*batch, 9, 7), 77, "float32")
    extra = extra | ({"bias": integers((7,), seed=2)} if "bias" in extra else {})
    extra |= {"mask": integers(out.shape, seed=3)} if "mask" in extra else {}
    product = product_of(out, a, b, **extra)
    own = products.launches(product, "vectors")
    seconds = lambda function: function() or (1.0 if "cublasGemm" in str(device.library.calls) else 2.0)
    monkeypatch.setattr(choice, "device_seconds", seconds)
    calls = choice.best(product, own, "float32", device.array)
    assert isinstance(calls[0][0], blas.Call) and len(calls) == 1 + bool(extra)
    assert calls[0][0].note == "cuBLAS 1,000,000 µs, own kernel 2,000,000 µs"
    assert all(type(each) in (int, str) for each in calls[0][0].arguments)
    (file,) = device.folder.glob("*.json")
    assert file.name == "products-NVIDIA-Some--GPU--13.json" and len(json.loads(file.read_text())) == 1
    out[...] = 77
    device.library.calls.clear()
    calls[0][0]()
    assert device.library.names == ["GemmStridedBatchedEx" if batch else "GemmEx"], "nothing else, in a capture"
    harness.run(calls[1:])
    np.testing.assert_allclose(out, finished(exact(a, b), **extra), rtol=4e-7)


def test_what_is_not_measured(device, monkeypatch):
    a, b, out = integers((9, 5)), integers((5, 7), seed=1), np.ones((9, 7), "float32")
    product, own = product_of(out, a, b), ["own"]
    monkeypatch.setattr(choice, "device_seconds", lambda function: pytest.fail("measured"))
    assert choice.best(product, own, "float32", out) == own, "an array of NumPy"
    device.stream.capturing = True
    assert choice.best(product, own, "float32", device.array) == own
    device.stream.capturing = False
    assert choice.best(product_of(out, a[:, ::-1], b), own, "float32", device.array) == own, "a layout that it lacks"
    monkeypatch.setattr(blas, "library", lambda: None)
    monkeypatch.setattr(blas, "_handles", {})
    assert choice.best(product, own, "float32", device.array) == own
    monkeypatch.setattr(choice, "LEAST_FLOPS", 1e9)
    monkeypatch.setattr(blas, "handle", lambda: pytest.fail("asked"))
    assert choice.best(product, own, "float32", device.array) == own


def test_what_the_output_held_is_there_after_a_measurement(device, monkeypatch):
    """It may be a tensor that an earlier instruction reads, or the mask."""
    a, b, out = integers((9, 5)), integers((5, 7), seed=1), integers((9, 7), seed=2)
    before, wrote = out.copy(), []

    def seconds(function):
        function()
        wrote.append(not (out == before).all())
        return 1.0 if wrote[-1] else 2.0  # cuBLAS; the own kernel is not run here

    monkeypatch.setattr(choice, "device_seconds", seconds)
    product = product_of(out, a, b, mask=out)
    calls = choice.best(product, products.launches(product, "vectors"), "float32", fake_blas.OnDevice(out))
    assert isinstance(calls[0][0], blas.Call) and sorted(wrote) == [False, True]
    np.testing.assert_array_equal(out, before)


def test_without_memory_for_what_is_put_back_it_is_the_own_product(device, monkeypatch):
    class Full(fake_blas.OnDevice):
        def copy(self):
            raise MemoryError("out of memory")

    monkeypatch.setattr(choice, "device_seconds", lambda function: pytest.fail("measured"))
    a, b, out = integers((9, 5)), integers((5, 7), seed=1), np.ones((9, 7), "float32")
    assert choice.best(product_of(out, a, b), ["own"], "float32", Full(out)) == ["own"]


def test_the_own_kernel_stays_where_cublas_fails(device, monkeypatch):
    a, out = integers((9, 9)), np.zeros((9, 9), "float32")
    device.library.fails = {"cublasGemmEx": 15}
    monkeypatch.setattr(choice, "device_seconds", lambda function: function() or 1.0)
    assert choice.best(product_of(out, a, a.T), [], "float32", device.array) == []
    (file,) = device.folder.glob("*.json")
    assert read(file) == {"1x9x9x9 NTN float32 float32 -": {"own kernel": 1.0, "cuBLAS": float("inf")}}


def test_the_own_kernel_stays_where_it_is_no_slower_and_says_so(device, monkeypatch):
    a, out = integers((9, 9)), np.zeros((9, 9), "float32")
    product = product_of(out, a, a.T)
    own = products.launches(product, "vectors")
    monkeypatch.setattr(choice, "device_seconds", lambda function: 1.0)
    found = choice.best(product, own, "float32", device.array)
    assert found == [each._replace(note="own kernel 1,000,000 µs, cuBLAS 1,000,000 µs") for each in own] != own
