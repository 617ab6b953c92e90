"""Kernels for NumPy beyond one block: against the reference, over their inputs, and called again on other arrays."""

import numpy as np
import pytest

import tinynet as tn
from tinynet import kernels
from tinynet.kernels.cpu.cutting import BLOCK
from tinynet.kernels.reference.random import random_bits
from tinynet.ops import Spec

OPS = tuple(tn.ops.table())
BY_HAND = tuple(name for name, op in tn.ops.table().items() if op.expression is None)
# Sizes that make blocks of several rows, several blocks, and rows longer than a block
SIZES = (40, 700, BLOCK + 3)
LAYOUTS = ("contiguous", "transposed", "reversed", "strided")


def cases(op, sizes=SIZES, dtype="float64"):
    rng = np.random.default_rng(0)
    for n in sizes:
        for sample in op.samples(n):
            arrays = []
            for arg in sample.inputs:
                if arg.kind in ("int", "bool"):
                    kind = "bool" if arg.kind == "bool" else "int64"
                    low, high = (0, 2) if arg.kind == "bool" else (int(arg.low), int(arg.high))
                    arrays.append(np.asarray(rng.integers(low, high, arg.shape), kind))
                else:
                    arrays.append(np.asarray(rng.uniform(arg.low, arg.high, arg.shape), dtype))
            specs = [Spec(array.shape, array.dtype) for array in arrays]
            attributes = op.attributes | dict(sample.attributes)
            attributes = op.normalize(*specs, **attributes) if op.normalize else attributes
            outputs = op.rule(*specs, **attributes)
            yield arrays, attributes, (outputs,) if isinstance(outputs, Spec) else tuple(outputs)


def lay_out(array, layout):
    if not array.ndim or layout == "contiguous":
        return array.copy()
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    return np.repeat(array, 2, axis=-1)[..., ::2]


def run(kernel, op, arrays, attributes, outputs, out=None):
    """The outputs of a kernel, of which some may be given; updates write over their inputs."""
    if out is None:
        out = [arrays[i] for _, i in sorted(op.updates.items())] or [np.empty(*spec) for spec in outputs]
    with np.errstate(all="ignore"):
        kernel(out[0] if len(out) == 1 else tuple(out), *arrays, **attributes)
    return out


def copies(arrays):
    return [array.copy() for array in arrays]


@pytest.mark.parametrize("name", OPS)
def test_every_operation_has_a_kernel_for_numpy(name):
    assert kernels.find(name, "numpy").target == "numpy"


@pytest.mark.parametrize("name", BY_HAND)
def test_blocks_and_rows_of_any_length_give_what_the_reference_gives(name):
    op = tn.ops.table()[name]
    for arrays, attributes, outputs in cases(op):
        expected = run(kernels.find(name, "reference"), op, copies(arrays), attributes, outputs)
        for layout in LAYOUTS:
            given = [lay_out(array, layout) for array in arrays]
            for got, want in zip(run(kernels.find(name, "numpy"), op, given, attributes, outputs), expected):
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=f"{layout} {attributes}")


@pytest.mark.parametrize("name", OPS)
def test_a_call_is_the_same_the_first_second_and_third_time(name):
    """From the third call on shapes are known, and the calls of the kernel are not laid out again."""
    op = tn.ops.table()[name]
    for arrays, attributes, outputs in cases(op, (1, 7, 700), "float32"):
        results = [run(kernels.find(name, "numpy"), op, copies(arrays), attributes, outputs) for _ in range(4)]
        for other in results[1:]:
            for got, want in zip(other, results[0]):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", [name for name in OPS if tn.ops.table()[name].overwrites])
def test_results_may_lie_over_the_inputs_that_the_record_names(name):
    op = tn.ops.table()[name]
    for arrays, attributes, outputs in cases(op):
        kernel = kernels.find(name, "numpy")
        expected = run(kernel, op, copies(arrays), attributes, outputs)
        for position, result in op.overwrites:
            if (arrays[position].shape, arrays[position].dtype) != tuple(outputs[result]):
                continue
            for _ in range(3):
                given = copies(arrays)
                out = [np.empty(*spec) for spec in outputs]
                out[result] = given[position]
                for got, want in zip(run(kernel, op, given, attributes, outputs, out), expected):
                    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", BY_HAND)
def test_scratch_is_small_however_large_the_tensors(name):
    op = tn.ops.table()[name]
    for arrays, attributes, outputs in cases(op, (BLOCK * 4,)):
        specs = [Spec(array.shape, array.dtype) for array in arrays]
        out = outputs[0] if len(outputs) == 1 else outputs
        assert kernels.find(name, "numpy").scratch_bytes(out, *specs, **attributes) <= 2**20


def test_updates_read_rates_and_steps_at_each_call():
    p, g, m, v = (np.full(5, value) for value in (1.0, 0.5, 0.0, 0.0))
    lr, step = np.array(0.1), np.array(1)
    attributes = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False}
    kernel = kernels.find("adam", "numpy")
    scratch = np.empty(kernel.scratch_bytes((p, m, v), p, g, m, v, lr, step, **attributes), "uint8")
    steps = kernel.bind((p, m, v), p, g, m, v, lr, step, scratch=scratch, **attributes)
    expected = [each.copy() for each in (p, m, v)]
    for rate, count in ((0.1, 1), (0.2, 2), (0.0, 3)):
        lr[...], step[...] = rate, count
        for function, arguments in steps:
            function(*arguments)
        kernels.find("adam", "reference")(tuple(expected), expected[0], g, *expected[1:], lr, step, **attributes)
        for got, want in zip((p, m, v), expected):
            np.testing.assert_allclose(got, want, rtol=1e-12)


# ---- dropout in parts ----


@pytest.mark.parametrize("target", ["reference", "numpy"])
@pytest.mark.parametrize("cut", [0, 1, 6, 7, 4096, 20001])
def test_parts_of_a_batch_get_the_mask_of_the_whole(target, cut):
    x, step = np.ones(30_000, "float32"), np.asarray(3)
    kernel, attributes = kernels.find("dropout", target), {"p": 0.3, "seed": 2**40 + 5, "stream": 2}
    whole, parts = np.empty_like(x), np.empty_like(x)
    kernel(whole, x, step, **attributes)
    kernel(parts[:cut], x[:cut], step, **attributes, offset=0)
    kernel(parts[cut:], x[cut:], step, **attributes, offset=cut)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("offset", [0, 3, 2**34 - 5, 2**35 + 2])
def test_masks_are_those_of_the_random_bits(offset):
    """Also where the counter of a block passes 32 bits."""
    x, step = np.ones((37, 1000)), np.asarray(2**33 + 1)
    out = np.empty_like(x)
    kernels.find("dropout", "numpy")(out, x, step, p=0.4, seed=11, stream=7, offset=offset)
    np.testing.assert_array_equal(out != 0, random_bits(x, step, 11, 7, offset) >= round(0.4 * 2**32))


# ---- layouts that BLAS does not take ----


@pytest.mark.parametrize("left", [*LAYOUTS, "repeated"])
@pytest.mark.parametrize("right", [*LAYOUTS, "repeated"])
@pytest.mark.parametrize("shape", [(300, 70, 50), (3, 5000, 4), (1, 1, 1), (0, 3, 2), (2, 0, 3)])
def test_products_of_any_layout(left, right, shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    if left == "repeated":
        a = np.broadcast_to(a[:1], a.shape)
    if right == "repeated":
        b = np.broadcast_to(b[:1], b.shape)
    expected = np.ascontiguousarray(a) @ np.ascontiguousarray(b)
    a, b = (x if name == "repeated" else lay_out(x, name) for x, name in ((a, left), (b, right)))
    out = np.empty((m, n))
    kernels.find("matmul", "numpy")(out, a, b)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-10)
