"""Products of bf16 copies: the copies that a kernel makes of the operands, the room for them, and cuBLAS on them.

Kernels run on a processor, and cuBLAS is the library of ``fake_blas`` that computes with NumPy.
"""

import asyncio
import contextvars
import importlib
import itertools
import threading

import numpy as np
import pytest
from fake_blas import Library, device, handle_of, product_of  # noqa: F401
from product_checks import LAYOUTS, exact, finished, integers, placed
from runs import bound

from tinynet import kernels

blas = importlib.import_module("tinynet.kernels.cuda.blas")
choice = importlib.import_module("tinynet.kernels.cuda.choice")
matrices = importlib.import_module("tinynet.kernels.cuda.matrices")
operands = importlib.import_module("tinynet.kernels.cuda.operands")
precision = importlib.import_module("tinynet.kernels.precision")
products = importlib.import_module("tinynet.kernels.cuda.products")


def room_for(nbytes):
    """Scratch that begins at a multiple of 64 and ends where it has to; every number in it is a NaN."""
    held = np.full(nbytes + 64, 255, "uint8")
    start = -held.ctypes.data % 64
    return held[start : start + nbytes]


def rounded(x):
    """To the nearest number of 8 bits, ties to even: in float64, by their exponents."""
    fraction, exponent = np.frexp(x.astype("float64"))
    return np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)


def numbers(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def copies_of(harness, product, scratch):
    """Both copies, as matrices of float32 (or batches), and the launches that make them."""
    made, copy = operands.in_bf16(product, scratch)
    harness.run(made, orders=("forward",))
    found = []
    for view, shape in ((copy.a, (product.m, product.k)), (copy.b, (product.k, product.n))):
        halves = scratch.view("uint16")[(view.address - scratch.ctypes.data) // 2 :]
        shape, strides = (product.batch, *shape), [2 * each for each in (view.batch, view.row, view.column)]
        halves = np.lib.stride_tricks.as_strided(halves, shape, strides)
        found.append((halves.astype("uint32") << 16).view("float32"))
    return found, made, copy


# ---- copies ----


def test_copies_are_rounded_and_lie_as_their_operands_do(harness):
    for (m, n, k), (a_turned, b_turned, aligned) in itertools.product([(9, 16, 24), (5, 7, 1), (31, 3, 41)], LAYOUTS):
        a, b = placed(numbers((m, k)), a_turned, aligned), placed(numbers((k, n), 1), b_turned, aligned)
        product = product_of(np.zeros((m, n), "float32"), a, b)
        scratch = room_for(operands.copies_bytes(m, n, k, 1, 1))
        (first, second), made, copy = copies_of(harness, product, scratch)
        np.testing.assert_array_equal(first[0], rounded(a))
        np.testing.assert_array_equal(second[0], rounded(b))
        for view, is_turned, launch, shape in zip(
            (copy.a, copy.b), (a_turned, b_turned), made, ((m, k), (k, n)), strict=True
        ):
            if min(shape) > 1:
                assert (view.row == 1, view.column == 1) == (is_turned, not is_turned)
                assert launch.function == ("to_bf16_wide_f32" if aligned else "to_bf16_f32")
            assert view.address % 16 == 0 and max(view.row, view.column) % 8 == 0


def test_what_is_beyond_a_row_is_zero_and_not_read(harness):
    """The harness fails on a byte that is read beyond an array; a row that ends in a group has seven elements more."""
    a, b = numbers((3, 9)), numbers((9, 8), 1)
    scratch = room_for(operands.copies_bytes(3, 8, 9, 1, 1))
    made, copy = operands.in_bf16(product_of(np.zeros((3, 8), "float32"), a, b), scratch)
    harness.run(made)
    rows = scratch.view("uint16")[: 3 * 16].reshape(3, 16)
    assert copy.a.row == 16 and not rows[:, 9:].any() and rows[:, :9].all()


def test_strided_operands_get_contiguous_copies(harness):
    held = numbers((40, 60))
    for a, b in ((held[::2, ::3], held[:20, 1::4]), (held[::-1, ::-1][:7, :31], held[:31, 5:36:2])):
        b = b[: a.shape[1]] if len(b) >= a.shape[1] else np.broadcast_to(numbers((1, 6), 2), (a.shape[1], 6))
        (m, k), n = a.shape, b.shape[1]
        scratch = room_for(operands.copies_bytes(m, n, k, 1, 1))
        (first, second), _, copy = copies_of(harness, product_of(np.zeros((m, n), "float32"), a, b), scratch)
        np.testing.assert_array_equal(first[0], rounded(a))
        np.testing.assert_array_equal(second[0], rounded(b))
        assert 1 in (copy.a.row, copy.a.column) and 1 in (copy.b.row, copy.b.column)


def test_batches_and_a_matrix_that_is_there_once(harness):
    a, b = numbers((3, 10, 12)), numbers((3, 12, 9), 1)
    for first, second, counts in ((a, b, (3, 3)), (a, b[1], (3, 1)), (a[0], b, (1, 3))):
        out = np.zeros((3, 10, 9), "float32")
        for turned in (False, True):
            one, other = placed(first, turned), placed(second, not turned, True)
            (product,) = matrices.products(out, one, other)
            if product.batch == 1:
                continue
            scratch = room_for(operands.copies_bytes(10, 9, 12, *counts))
            got, _, copy = copies_of(harness, product, scratch)
            np.testing.assert_array_equal(got[0], np.broadcast_to(rounded(one), (3, 10, 12)))
            np.testing.assert_array_equal(got[1], np.broadcast_to(rounded(other), (3, 12, 9)))
            assert (copy.a.batch > 0, copy.b.batch > 0) == tuple(count > 1 for count in counts)


def test_nothing_that_is_not_a_number_gets_lost(harness):
    a = numbers((8, 16))
    a[0, :5] = np.nan, np.inf, -np.inf, -0.0, 3.4e38
    (first, _), *_ = copies_of(harness, product_of(np.zeros((8, 8), "float32"), a, a.T[:, :8]), room_for(1024))
    np.testing.assert_array_equal(first[0, 0, :5], np.array([np.nan, np.inf, -np.inf, -0.0, np.inf]))
    assert np.signbit(first[0, 0, 3])


def test_no_copies_without_room():
    product = product_of(np.zeros((9, 16), "float32"), numbers((9, 24)), numbers((24, 16)))
    nbytes = 2 * 24 * (9 + 16)
    assert operands.in_bf16(product, room_for(nbytes)) is not None
    assert operands.in_bf16(product, room_for(nbytes - 1)) is None and operands.in_bf16(product, None) is None
    assert operands.in_bf16(product._replace(m=2**20, k=2**15), np.broadcast_to(np.uint8(0), 2**40)) is None


# ---- room in a plan ----


def scratch_of(out, *arrays, name="matmul", **attributes):
    return kernels.find(name, "cuda", str(out.dtype)).scratch_bytes(out, *arrays, **attributes)


def shaped(*shape, dtype="float32"):
    return np.broadcast_to(np.zeros((), dtype), shape)


def test_room_is_declared_in_bf16_alone_and_for_products_that_it_may_pay_for():
    large = shaped(4096, 8192), shaped(4096, 8192), shaped(8192, 8192)
    small = shaped(500, 500), shaped(500, 4096), shaped(4096, 500)
    both = 2 * (4096 * 8192 + 8192 * 8192)
    assert scratch_of(*large) == 0
    slices = scratch_of(*small)
    for exactness, expected in (("bf16", both), ("tf32", 0), ("float32", 0)):
        with precision.using_precision(exactness):
            assert scratch_of(*large) == expected and scratch_of(*small) == slices
            assert scratch_of(*large, name="linear", activation="relu") == expected
            assert scratch_of(*large, large[0], name="masked_matmul") == expected
    with precision.using_precision("bf16"):
        double = [shaped(*each.shape, dtype="float64") for each in large]
        assert scratch_of(*double) == 0
        narrow = products.scratch_bytes(4096, 10, 8192, 1, "float32")  # of slices
        assert scratch_of(shaped(4096, 10), shaped(4096, 8192), shaped(8192, 10)) == narrow
        assert operands.copies_pay(512, 512) and not operands.copies_pay(512, 511)
        batch = shaped(3, 512, 512)
        one, two = 2 * 3 * 512 * 512, 2 * 512 * 512
        assert scratch_of(batch, batch, batch) == 2 * one and scratch_of(batch, batch[0], batch) == one + two
        assert scratch_of(batch, batch, batch[0]) == one + two


@pytest.mark.parametrize("turned", [False, True])
def test_the_room_that_is_declared_is_enough_whatever_the_strides(monkeypatch, turned):
    """For operations, too, whose batch becomes several products, or more rows of one."""
    monkeypatch.setattr(operands, "LEAST", 0)
    taken = []
    best = lambda product, own, exactness, out, scratch: taken.append(operands.in_bf16(product, scratch)) or own
    monkeypatch.setattr(choice, "best", best)
    shapes = [((9, 17), (17, 11)), ((4, 9, 17), (17, 11)), ((2, 1, 9, 17), (3, 17, 11)), ((3, 9, 17), (3, 17, 11)),
              ((9, 1), (1, 11)), ((2, 3, 9, 17), (2, 1, 17, 11)), ((9, 17), (2, 17, 11))]  # fmt: skip
    for first, second in shapes:
        a, b = placed(numbers(first), turned), placed(numbers(second, 1), not turned)
        out = np.zeros(np.matmul(a, b).shape, "float32")
        with precision.using_precision("bf16"):
            bound("matmul", out, [a, b], {})
    assert len(taken) >= len(shapes) and None not in taken


# ---- cuBLAS on the copies ----


def test_arguments_of_bf16():
    a, b, out = numbers((16, 24)), numbers((24, 8), 1), np.zeros((16, 8), "float32")
    made, copy = operands.in_bf16(product_of(out, a, b), room_for(4096))
    found = blas.gemm(copy, "bf16", "bfloat16")
    assert (found.dtype, found.operands, found.compute, found.math) == ("float32", "bfloat16", 68, 0)
    assert (found.a, found.b, found.c) == (copy.b.address, copy.a.address, out.ctypes.data)
    assert {each.arguments[3] for each in made} == {copy.a.address, copy.b.address}


@pytest.mark.parametrize("batch", [(), (3,)])
def test_products_of_copies_in_every_layout(harness, batch):
    handle = handle_of(Library())
    for (m, n, k), turned in itertools.product([(9, 7, 5), (8, 16, 24)], itertools.product((False, True), repeat=3)):
        a, b = placed(numbers((*batch, m, k)), turned[0]), placed(numbers((*batch, k, n), 1), turned[1])
        out = placed(np.full((*batch, m, n), 77, "float32"), turned[2])
        product = product_of(out, a, b)
        made, copy = operands.in_bf16(product, room_for(operands.copies_bytes(m, n, k, *[product.batch] * 2)))
        harness.run(made, orders=("forward",))
        handle.multiply(blas.gemm(copy, "bf16", "bfloat16"), 5)
        np.testing.assert_allclose(out, rounded(a) @ rounded(b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("extra", [{}, {"bias": True, "activation": "tanh"}, {"mask": True}])
def test_a_product_whose_copies_are_the_fastest(device, harness, monkeypatch, extra):  # noqa: F811
    """Copies, the call and what is left to do, in that order; chosen among three ways, and why is noted."""
    a, b, out = integers((9, 50)), integers((50, 7), seed=1), np.full((9, 7), 77, "float32")
    extra = extra | ({"bias": integers((7,), seed=2)} if "bias" in extra else {})
    extra |= {"mask": integers(out.shape, seed=3)} if "mask" in extra else {}
    product = product_of(out, a, b, **extra)
    own = products.launches(product, "tensor", "bf16")
    ran = []
    monkeypatch.setattr(choice, "run", ran.append)

    def seconds(function):
        ran.clear()
        device.library.calls.clear()
        function()
        copies = [each.function for each in ran].count("to_bf16_f32")
        return 1.0 if copies == 2 else 1.5 if "GemmEx" in device.library.names else 2.0

    monkeypatch.setattr(choice, "device_seconds", seconds)
    scratch = room_for(operands.copies_bytes(9, 7, 50, 1, 1))
    calls = choice.best(product, own, "bf16", device.array, scratch)
    assert [each.function for each in calls[:2]] == ["to_bf16_f32"] * 2 and isinstance(calls[2][0], blas.Call)
    note = "cuBLAS on bf16 copies 1,000,000 µs, cuBLAS 1,500,000 µs, own kernel 2,000,000 µs"
    assert calls[2][0].note == note and len(calls) == 3 + bool(extra)
    out[...] = 77
    harness.run(calls[:2])
    device.library.calls.clear()
    calls[2][0]()
    assert device.library.names == ["GemmEx"]
    harness.run(calls[3:])
    np.testing.assert_allclose(out, finished(exact(a, b), **extra), rtol=4e-7)
    less = choice.best(product, own, "bf16", device.array, scratch[:64])
    assert less[0][0].note == "cuBLAS 1,500,000 µs, own kernel 2,000,000 µs"
    assert choice.COPIES not in choice.ways_of_library(product, "tf32", scratch)


def test_a_gpu_without_tensor_cores_multiplies_in_float32(monkeypatch):
    """The kernel that makes copies would be trapped there, too."""
    asked = []
    best = lambda product, own, exactness, *rest: asked.append(exactness) or own
    monkeypatch.setattr(choice, "best", best)
    a, out = integers((40, 40)), np.zeros((40, 40), "float32")
    with precision.using_precision("bf16"):
        for capability, step in ((75, "product_vectors"), (80, "product_tensor")):
            monkeypatch.setattr(matrices, "capability", lambda array, capability=capability: capability)
            ((_, (one,)),) = bound("matmul", out, [a, a], {})
            assert one.file == step
    assert asked == ["float32", "bf16"]


# ---- the precision that is in force ----


def test_precisions_nest_and_survive_exceptions():
    with precision.using_precision("bf16"):
        with pytest.raises(ZeroDivisionError), precision.using_precision("tf32"):
            assert precision.precision() == "tf32"
            raise ZeroDivisionError
        assert precision.precision() == "bf16"
        with pytest.raises(ValueError, match="fp8"), precision.using_precision("fp8"):
            pass
        assert precision.precision() == "bf16"
    assert precision.precision() == "float32"


def test_every_thread_and_every_task_has_its_own_precision():
    seen, inside = [], threading.Barrier(2)

    def other():
        seen.append(precision.precision())
        with precision.using_precision("tf32"):
            inside.wait(30)
            inside.wait(30)
            seen.append(precision.precision())

    # A context of its own, whether or not threads begin with that of the thread that starts them.
    thread = threading.Thread(target=contextvars.Context().run, args=(other,))
    thread.start()
    inside.wait(30)
    assert precision.precision() == "float32"
    with precision.using_precision("bf16"):
        inside.wait(30)
        thread.join(30)
        assert precision.precision() == "bf16"
    assert seen == ["float32", "tf32"]

    async def task(name, first, second):
        with precision.using_precision(name):
            first.set()
            await second.wait()
            return precision.precision()

    async def both():
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(task("tf32", *events), task("bf16", *events[::-1]))

    assert asyncio.run(both()) == ["tf32", "bf16"]
