"""The instructions of the tensor cores, as the harness computes them, against their layouts as the PTX ISA states them.

Each statement is a table: of a matrix, which lane has which element in which register. It is written down here a second
time, with NumPy, so that kernels and harness cannot be wrong in the same way.
"""

import importlib

import numpy as np
import pytest

launch = importlib.import_module("tinynet.kernels.cuda.launch")
encoding = importlib.import_module("tinynet.kernels.cuda.encoding")

SOURCE = r"""
#include "tensor.cuh"
#define MINE(name, ...) extern "C" __global__ void name(__VA_ARGS__); TINYNET_KERNEL(name) \
    extern "C" __global__ void name(__VA_ARGS__)
#define MULTIPLIES(name, multiply_add)                                                     \
    MINE(name, float* c, const unsigned* a, const unsigned* b) {                           \
        float sums[4];                                                                     \
        unsigned a_part[4], b_part[2];                                                     \
        for (int i = 0; i < 4; ++i) sums[i] = c[4 * threadIdx.x + i], a_part[i] = a[4 * threadIdx.x + i]; \
        for (int i = 0; i < 2; ++i) b_part[i] = b[2 * threadIdx.x + i];                    \
        multiply_add(sums, a_part, b_part);                                                \
        for (int i = 0; i < 4; ++i) c[4 * threadIdx.x + i] = sums[i];                      \
    }
MULTIPLIES(multiplies_tf32, multiply_add_tf32)
MULTIPLIES(multiplies_bf16, multiply_add_bf16)

MINE(rounds, const float* x, unsigned* tf32, unsigned* bf16) {
    tf32[threadIdx.x] = to_tf32(x[threadIdx.x]);
    bf16[threadIdx.x] = to_bf16_pair(x[threadIdx.x], x[threadIdx.x ^ 1]);
}

MINE(loads, const unsigned* x, unsigned* plain, unsigned* turned, int off) {
    TINYNET_SHARED(Pack<float>, packs, 34);
    unsigned* const words = reinterpret_cast<unsigned*>(packs);
    for (int i = 0; i < 4; ++i) words[4 * threadIdx.x + i] = x[4 * threadIdx.x + i];
    if (threadIdx.x < 8) words[128 + threadIdx.x] = 0;
    __syncthreads();
    unsigned to[4];
    const unsigned short* const row = reinterpret_cast<const unsigned short*>(packs) + 8 * threadIdx.x + off;
    load_matrices<false>(to, row);
    for (int i = 0; i < 4; ++i) plain[4 * threadIdx.x + i] = to[i];
    load_matrices<true>(to, row);
    for (int i = 0; i < 4; ++i) turned[4 * threadIdx.x + i] = to[i];
}
"""

LANE = np.arange(32)
G, T = LANE // 4, LANE % 4
# The element (row, column) of a register, for all lanes; with bf16, of both halves of it, the lower one first.
C = [(G, 2 * T), (G, 2 * T + 1), (G + 8, 2 * T), (G + 8, 2 * T + 1)]
TF32_A = [(G, T), (G + 8, T), (G, T + 4), (G + 8, T + 4)]
TF32_B = [(T, G), (T + 4, G)]
BF16_A = [
    ((G, 2 * T), (G, 2 * T + 1)), ((G + 8, 2 * T), (G + 8, 2 * T + 1)),
    ((G, 2 * T + 8), (G, 2 * T + 9)), ((G + 8, 2 * T + 8), (G + 8, 2 * T + 9)),
]  # fmt: skip
BF16_B = [((2 * T, G), (2 * T + 1, G)), ((2 * T + 8, G), (2 * T + 9, G))]


def bits(x):
    return np.asarray(x, "float32").view("uint32")


def bf16(x):
    """The 16 bits of numbers that need no more."""
    return bits(x) >> 16


def fragments(x, places):
    return np.stack([x[place] for place in places], axis=1)


def pairs(x, places):
    return np.stack([bf16(x[low]) | bf16(x[high]) << 16 for low, high in places], axis=1)


@pytest.fixture
def go(harness):
    name = launch.keep_source(SOURCE)

    def go(function, *arrays, more=(), grid=1):
        arguments = (*map(encoding.pointer, arrays), *more)
        harness.run([launch.Launch(name, function, (grid, 1, 1), (32, 1, 1), arguments, keep=arrays)])

    return go


def matrices(k, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(-9, 10, shape).astype("float32") for shape in ((16, k), (k, 8), (16, 8))]


@pytest.mark.parametrize("seed", range(3))
def test_fragments_of_tf32(go, seed):
    a, b, c = matrices(8, seed)
    for places, shape in ((TF32_A, a.shape), (TF32_B, b.shape), (C, c.shape)):
        assert sorted(zip(*map(np.concatenate, zip(*places)))) == list(np.ndindex(shape))  # each element, once
    held = np.ascontiguousarray(fragments(c, C))
    go("multiplies_tf32", held, bits(fragments(a, TF32_A)), bits(fragments(b, TF32_B)))
    np.testing.assert_array_equal(held, fragments(c + a @ b, C))


@pytest.mark.parametrize("seed", range(3))
def test_fragments_of_bf16(go, seed):
    a, b, c = matrices(16, seed)
    held = np.ascontiguousarray(fragments(c, C))
    go("multiplies_bf16", held, pairs(a, BF16_A), pairs(b, BF16_B))
    np.testing.assert_array_equal(held, fragments(c + a @ b, C))


def test_tensor_cores_do_not_see_what_tf32_has_no_bits_for(go):
    a, b, c = matrices(8, 5)
    held = np.ascontiguousarray(fragments(c, C))
    go("multiplies_tf32", held, bits(fragments(a, TF32_A)) | np.uint32(0x1FFF), bits(fragments(b, TF32_B)))
    np.testing.assert_array_equal(held, fragments(c + a @ b, C))


def test_infinities_and_nan_go_through(go):
    a, b, c = matrices(8, 6)
    a[3, 2], b[4, 7], a[9, 1] = np.inf, -np.inf, np.nan
    held = np.ascontiguousarray(fragments(c, C))
    go("multiplies_tf32", held, bits(fragments(a, TF32_A)), bits(fragments(b, TF32_B)))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(held, fragments(c + a @ b, C))


def test_four_matrices_from_shared_memory(go):
    """Matrix i is in the 8 rows whose addresses lanes 8 i to 8 i + 7 give; a lane gets two neighbours of one row."""
    words = np.random.default_rng(0).integers(0, 2**32, 128, "uint32")
    x = words.view("uint16").reshape(4, 8, 8)
    plain, turned = np.zeros((2, 32, 4), "uint32")
    go("loads", words, plain, turned, more=(np.int32(0),))
    for found, matrix in ((plain, x), (turned, np.swapaxes(x, 1, 2))):
        expected = matrix[:, G, 2 * T].astype("uint32") | matrix[:, G, 2 * T + 1].astype("uint32") << 16
        np.testing.assert_array_equal(found, expected.T)


def test_rows_of_ldmatrix_begin_at_multiples_of_16_bytes(go, harness):
    words, out = np.zeros(128, "uint32"), np.zeros((2, 32, 4), "uint32")
    with pytest.raises(harness.HarnessError, match="misaligned address: a row of ldmatrix"):
        go("loads", words, *out, more=(np.int32(4),))


def test_rounding(go):
    """TF32: to the nearest, ties away from zero. bf16: to the nearest, ties to even. NaN is one NaN."""
    one = 0x3F800000
    around = lambda unit: [one + unit // 2 + each for each in (-1, 0, 1, unit, unit + 1)]
    infinity, largest, denormal = 0x7F800000, 0x7F7FFFFF, 0x00000FFF
    given = [*around(1 << 13), *around(1 << 16), infinity, largest, denormal, 0, 0x7F800001, 0x7FC12345]
    given = np.array((given + [0] * 32)[:16], "uint32")
    given = np.r_[given, given | np.uint32(1 << 31)]  # and the negative ones
    tf32, pair = np.zeros((2, 32), "uint32")
    go("rounds", given.view("float32"), tf32, pair)
    x = given.view("float32")
    with np.errstate(all="ignore"):
        sign, size = given & np.uint32(1 << 31), (given & np.uint32(0x7FFFFFFF)).astype("int64")
    special = size >= infinity
    expected = np.where(special, size, (size + (1 << 12)) // (1 << 13) * (1 << 13)).astype("uint32") | sign
    np.testing.assert_array_equal(tf32, np.where(np.isnan(x), 0x7FFFFFFF, expected))
    down, rest = size // (1 << 16), size % (1 << 16)
    up = (rest > 1 << 15) | ((rest == 1 << 15) & (down % 2 == 1))
    expected = np.where(special, down, down + up).astype("uint32") | sign >> 16
    expected = np.where(np.isnan(x), 0x7FFF, expected).astype("uint32")
    np.testing.assert_array_equal(pair, expected | expected[LANE ^ 1] << 16)
