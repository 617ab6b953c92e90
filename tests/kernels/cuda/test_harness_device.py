"""What kernels are made of does what CUDA says it does: shuffles, barriers, reductions, copies that are waited for."""

import importlib

import numpy as np
import pytest

launch = importlib.import_module("tinynet.kernels.cuda.launch")
encoding = importlib.import_module("tinynet.kernels.cuda.encoding")

GOOD = r"""
#include "tinynet.cuh"
#define GOOD(name, ...) extern "C" __global__ void name(__VA_ARGS__); TINYNET_KERNEL(name) \
    extern "C" __global__ void name(__VA_ARGS__)

GOOD(shuffles, int* out) {
    const int lane = threadIdx.x;
    out[lane] = __shfl_sync(ALL_LANES, lane, lane + 3);
    out[32 + lane] = __shfl_up_sync(ALL_LANES, lane, 3);
    out[64 + lane] = __shfl_down_sync(ALL_LANES, lane, 3);
    out[96 + lane] = __shfl_xor_sync(ALL_LANES, lane, 5);
    out[128 + lane] = __shfl_down_sync(ALL_LANES, lane, 3, 8);
    out[160 + lane] = int(__ballot_sync(ALL_LANES, lane % 3 == 0));
    out[192 + lane] = __any_sync(ALL_LANES, lane == 4) * 2 + __all_sync(ALL_LANES, lane < 32);
}
GOOD(reduces, double* x, double* sums, double* largest, double* eighths) {
    TINYNET_SHARED(double, room, 32);
    TINYNET_SHARED(double, other, 32);
    const double value = x[threadIdx.x];
    const double sum = block_sum(value, room), peak = block_max(value, other);
    sums[threadIdx.x] = sum, largest[threadIdx.x] = peak;
    eighths[threadIdx.x] = warp_sum<8>(value);
}
GOOD(sees_by_its_warp, int* out) {
    TINYNET_SHARED(int, room, 64);
    room[threadIdx.x] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = room[threadIdx.x ^ 31];
}
GOOD(copies, float* x, float* out) {
    TINYNET_SHARED(Pack<float>, room, 64);
    copy_later(room + threadIdx.x, x + 4 * threadIdx.x);
    close_copies();
    copy_later(room + 32 + threadIdx.x, x + 128 + 4 * threadIdx.x, threadIdx.x == 31 ? 8 : 0);
    close_copies();
    wait_copies<1>();
    __syncthreads();
    const Pack<float> first = room[31 - threadIdx.x];
    wait_copies<0>();
    __syncthreads();
    const Pack<float> second = room[63 - threadIdx.x];
    store_pack(out + 4 * threadIdx.x, first);
    store_pack(out + 128 + 4 * threadIdx.x, second);
}
GOOD(last_block_sums, float* x, int* counter, float* out) {
    TINYNET_SHARED(int, last, 1);
    if (threadIdx.x == 0) {
        x[blockIdx.x] = blockIdx.x;
        __threadfence();
        last[0] = atomicAdd(counter, 1) == int(gridDim.x) - 1;
    }
    __syncthreads();
    if (last[0] && threadIdx.x == 0)
        for (unsigned i = 0; i < gridDim.x; ++i) out[0] += x[i];
}
GOOD(numbers_its_threads, int* out, int64 a, uint64 b, int c, unsigned d, float e, double f) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const bool right = a == -(1ll << 40) && b == ~0ull && c == -5 && d == ~0u && e == 0.1f && f == 0.1;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = int(100 * block + thread) + (right ? 0 : 7);
}
"""


@pytest.fixture(scope="module")
def good(harness):
    name = launch.keep_source(GOOD)

    def go(function, *arrays, grid=(1, 1, 1), block=(32, 1, 1), more=()):
        arguments = (*map(encoding.pointer, arrays), *more)
        harness.run([launch.Launch(name, function, grid, block, arguments, keep=arrays)])

    return go


def test_shuffles(good):
    out, lane = np.zeros((7, 32), "int32"), np.arange(32)
    good("shuffles", out)
    expected = [
        (lane + 3) % 32, np.where(lane < 3, lane, lane - 3), np.where(lane > 28, lane, lane + 3), lane ^ 5,
        np.where(lane % 8 > 4, lane, lane + 3), np.full(32, sum(1 << i for i in range(0, 32, 3))), np.full(32, 3),
    ]  # fmt: skip
    np.testing.assert_array_equal(out.view("uint32"), np.array(expected, "uint32"))


@pytest.mark.parametrize("threads", [32, 64, 96, 160, 256, 1024])
def test_reductions_of_blocks(good, threads):
    x = np.random.default_rng(threads).integers(-99, 99, threads).astype("float64")
    sums, largest, eighths = np.zeros((3, threads))
    good("reduces", x, sums, largest, eighths, block=(threads, 1, 1))
    assert (sums == x.sum()).all() and (largest == x.max()).all()
    np.testing.assert_array_equal(eighths, np.repeat(x.reshape(-1, 8).sum(axis=1), 8))
    x[threads // 2] = np.nan
    good("reduces", x, sums, largest, eighths, block=(threads, 1, 1))
    assert np.isnan(sums).all() and np.isnan(largest).all()


def test_a_warp_sees_what_it_wrote_before_it_was_ordered(good):
    out = np.zeros(64, "int32")
    good("sees_by_its_warp", out, block=(64, 1, 1))
    np.testing.assert_array_equal(out, np.arange(64) ^ 31)


def test_copies_arrive_when_they_are_waited_for(good):
    held, out = np.arange(1, 301, dtype="float32"), np.zeros(300, "float32")
    x = held[-held.ctypes.data % 16 // 4 :][:254]  # of the last chunk, half is not there
    out = out[-out.ctypes.data % 16 // 4 :][:256]
    good("copies", x, out)
    expected = np.r_[x, 0, 0].reshape(2, 32, 4)[:, ::-1].reshape(-1)
    np.testing.assert_array_equal(out, expected)


def test_the_last_block_may_read_what_the_others_fenced(good):
    x, counter, out = np.zeros(9, "float32"), np.zeros(1, "int32"), np.zeros(1, "float32")
    good("last_block_sums", x, counter, out, grid=(9, 1, 1))
    assert out[0] == 36 and counter[0] == 9


def test_arguments_and_places_of_three_dimensions(good):
    out = np.zeros(24 * 30, "int32")
    integers = (np.int64(-(1 << 40)), np.uint64(2**64 - 1), np.int32(-5), np.uint32(2**32 - 1))
    more = (*integers, np.float32(0.1), np.float64(0.1))
    good("numbers_its_threads", out, grid=(2, 3, 4), block=(5, 3, 2), more=more)
    expected = np.arange(24)[:, None] * 100 + np.arange(30)
    np.testing.assert_array_equal(out, expected.reshape(-1))


def test_launches_of_several_files_follow_each_other(harness):
    """Built into one executable, or into two: what the first has written, the second reads."""
    text = """#include "tinynet.cuh"
extern "C" __global__ void NAME(float* x, const float* y) { x[threadIdx.x] = y[threadIdx.x] * 2 + 1; }
TINYNET_KERNEL(NAME)
"""
    for prefix in ("apart", "together"):
        names = [f"{prefix}_{i}" for i in range(2)]
        files = [launch.keep_source(text.replace("NAME", name)) for name in names]
        if prefix == "together":
            harness.prepare(files)
        x, y, z = np.arange(7, dtype="float32"), np.zeros(7, "float32"), np.zeros(7, "float32")
        pairs = zip(files, names, ((y, x), (z, y)))
        harness.run([
            launch.Launch(file, name, (1, 1, 1), (7, 1, 1), tuple(map(encoding.pointer, arrays)), keep=arrays)
            for file, name, arrays in pairs
        ])  # fmt: skip
        np.testing.assert_array_equal(z, 4 * x + 3)
