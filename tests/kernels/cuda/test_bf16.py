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
from product_checks import LAYOUTS, exact, finished, in_bf16, integers, placed
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
    found = blas.gemm(copy, "bf16")
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
        handle.multiply(blas.gemm(copy, "bf16"), 5)
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


# ---- operands that are kept in bf16 ----


def floats(bits):
    return (bits.astype("uint32") << 16).view("float32")


def bits_of(*shape):
    """Memory for numbers in bf16, as a plan aligns it."""
    return room_for(2 * int(np.prod(shape))).view("uint16").reshape(shape)


@pytest.mark.parametrize("target", ["reference", "cuda"])
def test_numbers_are_rounded_to_the_nearest_ties_to_even(harness, target):
    x = np.float32([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -(1 + 2**-8), 3.4e38, 1e-40, -0.0])
    x = np.stack([x, np.float32([np.inf, -np.inf, np.nan, 0, 2**-133, 2**-134, 3e38, -3e-45])])
    out = bits_of(2, 8)
    calls = kernels.find("to_bf16", target, "uint16").bind(out, x)
    if target == "cuda":
        harness.run(calls)
    else:
        calls[0][0]()
    np.testing.assert_array_equal(floats(out), [
        [1, 1, 1 + 2**-6, 1 + 2**-7, -1, np.inf, 2**-133, -0.0],
        [np.inf, -np.inf, np.nan, 0, 2**-133, 0, rounded(x[1, 6]), 0],
    ])  # fmt: skip
    assert np.signbit(floats(out)[0, 7])


@pytest.mark.parametrize("turned", [False, True])
def test_operands_in_bf16_are_made_of_any_strides(harness, turned):
    for rows, columns in ((1, 8), (3, 24), (17, 256)):
        x = placed(numbers((rows, columns)), turned, rows > 1)
        out = bits_of(rows, columns)
        ((_, (one,)),) = calls = kernels.find("to_bf16", "cuda", "uint16").bind(out, x)
        assert one.function == ("to_bf16_wide_f32" if not turned and rows > 1 else "to_bf16_f32")
        harness.run(calls)
        np.testing.assert_array_equal(floats(out), rounded(x))


def test_what_is_not_made_by_the_kernel():
    """Rows that are not whole loads, more axes, and GPUs that would be trapped: the reference does those."""

    def launched(out, x):
        ((_, arguments),) = kernels.find("to_bf16", "cuda", "uint16").bind(out, x)
        return bool(arguments)  # a launch; the reference is bound to its arrays

    assert launched(bits_of(4, 16), numbers((4, 16)))
    assert not launched(bits_of(4, 12), numbers((4, 12)))
    assert not launched(bits_of(2, 4, 16), numbers((2, 4, 16)))
    assert not launched(bits_of(4, 32)[:, ::2], numbers((4, 16)))


@pytest.mark.parametrize("name", kernels.PRODUCTS)
def test_products_of_operands_in_bf16_are_those_of_their_numbers(harness, name):
    """On any target, with an epilogue or without; the kernel of a GPU also where the depth is cut."""
    of = kernels.of_bf16(name)
    for (m, k, n), (a_turned, b_turned, aligned) in itertools.product([(9, 16, 24), (70, 520, 66)], LAYOUTS):
        a, b = (in_bf16(placed(integers(shape, seed=i), flag, aligned))
                for i, (shape, flag) in enumerate((((m, k), a_turned), ((k, n), b_turned))))  # fmt: skip
        rest = {"matmul": [], "linear": [integers((n,), seed=3)], "masked_matmul": [integers((m, n), seed=4)]}[name]
        attributes = {"activation": "relu"} if name == "linear" else {}
        extra = {"bias": rest[0], "activation": "relu"} if name == "linear" else {"mask": rest[0]} if rest else {}
        expected = finished(exact(floats(a), floats(b)), **extra)
        for target in ("reference", "cuda"):
            out = np.full((m, n), 77, "float32")
            kernel = kernels.find(of, target, "float32")
            scratch = room_for(kernel.scratch_bytes(out, a, b, *rest, **attributes))
            calls = kernel.bind(out, a, b, *rest, scratch=scratch, **attributes)
            if target == "cuda":
                assert calls[0][1][0].function.startswith("product_tensor_of_bf16_")
                harness.run(calls, orders=("forward",))
            else:
                for function, arguments in calls:
                    function(*arguments)
            np.testing.assert_array_equal(out, expected)


def test_cublas_multiplies_operands_in_bf16_as_they_are(device, monkeypatch):  # noqa: F811
    a, b, out = in_bf16(integers((16, 40))), in_bf16(integers((40, 24), seed=1)), np.zeros((16, 24), "float32")
    product = product_of(out, a, b)
    ways = choice.ways_of_library(product, "bf16", room_for(2**16))
    ((call, _),) = ways[choice.LIBRARY]
    assert list(ways) == [choice.LIBRARY]  # there is nothing to be copied
    assert (call.arguments.operands, call.arguments.dtype, call.arguments.compute) == ("bfloat16", "float32", 68)
    call()
    np.testing.assert_array_equal(out, exact(floats(a), floats(b)))
    assert choice.key(product, "bf16") != choice.key(product_of(out, floats(a), floats(b)), "bf16")


def test_batches_of_operands_in_bf16(harness, monkeypatch):
    monkeypatch.setattr(products, "LARGEST_Z", 2)
    for first, second in (((3, 9, 16), (3, 16, 8)), ((2, 3, 9, 16), (2, 1, 16, 8)), ((3, 9, 16), (16, 8))):
        a, b = (bits_of(*shape) for shape in (first, second))
        for bits, seed in ((a, 0), (b, 1)):
            bits[...] = in_bf16(integers((1, bits.size), seed=seed)).reshape(bits.shape)
        expected = np.matmul(floats(a), floats(b))
        out = np.full(expected.shape, 77, "float32")
        kernel = kernels.find(kernels.of_bf16("matmul"), "cuda", "float32")
        harness.run(kernel.bind(out, a, b, scratch=room_for(kernel.scratch_bytes(out, a, b))), orders=("forward",))
        np.testing.assert_array_equal(out, expected)


def test_operands_are_kept_where_that_pays_and_is_possible(monkeypatch):
    with precision.using_precision("bf16"):
        assert kernels.keeps_in_bf16("cuda", 4096, 8192, 4096)
        assert not kernels.keeps_in_bf16("native", 4096, 8192, 4096) and not kernels.keeps_in_bf16(None, 512, 512, 512)
        assert not kernels.keeps_in_bf16("cuda", 4096, 10, 8192)
        for odd in ((4097, 8192, 4096), (4096, 8190, 4096), (4096, 8192, 4100)):
            assert not kernels.keeps_in_bf16("cuda", *odd)
        monkeypatch.setattr(matrices, "capability", lambda array=None: 75)
        assert not kernels.keeps_in_bf16("cuda", 4096, 8192, 4096)
    for other in ("float32", "tf32"):
        with precision.using_precision(other):
            assert not kernels.keeps_in_bf16("cuda", 4096, 8192, 4096)


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
