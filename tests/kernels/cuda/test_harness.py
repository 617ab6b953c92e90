"""The harness finds what is wrong with a kernel, and says where: one small bad kernel for each fault."""

import importlib

import numpy as np
import pytest

launch = importlib.import_module("tinynet.kernels.cuda.launch")
encoding = importlib.import_module("tinynet.kernels.cuda.encoding")

BAD = r"""
#include "tinynet.cuh"
#define BAD(name, ...) extern "C" __global__ void name(__VA_ARGS__); TINYNET_KERNEL(name) \
    extern "C" __global__ void name(__VA_ARGS__)

BAD(touches, float* x, int64 at, int writes) {
    if (blockIdx.x != 1 || threadIdx.x != 2) return;
    if (writes) x[at] = 1; else x[0] += x[at];
}
BAD(touches_f64, double* x, int64 at, int writes) {
    if (blockIdx.x != 1 || threadIdx.x != 2) return;
    if (writes) x[at] = 1; else x[0] += x[at];
}
BAD(touches_byte, unsigned* x, int64 at) {
    if (threadIdx.x == 0) reinterpret_cast<unsigned char*>(x)[at] = 1;
}
BAD(loads_pack, float* x, int64 at) {
    const Pack<float> pack = load_pack(x + at);
    x[threadIdx.x] = pack.at[threadIdx.x % 4];
}
BAD(touches_shared, float* x, int64 at, int writes) {
    TINYNET_SHARED(float, room, 10);
    if (threadIdx.x < 10) room[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 3) { if (writes) room[at] = 2; else x[0] = room[at]; }
}
BAD(touches_dynamic, float* x, int64 at, int writes) {
    TINYNET_DYNAMIC_SHARED(float, room);
    if (threadIdx.x < 10) room[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 3) { if (writes) room[at] = 2; else x[0] = room[at]; }
}
BAD(reads_unwritten, float* x) {  // but in the first block
    TINYNET_SHARED(float, room, 32);
    if (threadIdx.x != 5 || blockIdx.x == 0) room[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0 && blockIdx.x == 1) x[0] = room[5];
}
BAD(misaligned_shared, float* x) {
    TINYNET_SHARED(float, room, 128);
    store_pack(room + 4 * threadIdx.x, Pack<float>{{1, 2, 3, 4}});
}
BAD(diverges, float* x) {
    if (threadIdx.x < 40) {
        __syncthreads();
    } else {
        x[threadIdx.x] = 1;
        __syncthreads();
    }
}
BAD(leaves, float* x) {
    if (threadIdx.x == 33) return;
    __syncthreads();
}
BAD(misses_a_barrier, float* x) {
    TINYNET_SHARED(float, room, 64);
    room[threadIdx.x] = 0;
    __syncthreads();
    room[threadIdx.x] = threadIdx.x;
    x[threadIdx.x] = room[63 - threadIdx.x];
}
BAD(writes_what_is_read, float* x) {
    TINYNET_SHARED(float, room, 64);
    room[threadIdx.x] = 0;
    __syncthreads();
    x[threadIdx.x] = room[(threadIdx.x + 32) % 64];
    room[threadIdx.x] = 1;
}
BAD(reads_what_is_written, float* x) {
    TINYNET_SHARED(float, room, 1);
    if (threadIdx.x == 0) room[0] = 1;
    x[threadIdx.x] = room[0];
}
BAD(writes_what_all_read, float* x) {
    TINYNET_SHARED(float, room, 64);
    room[threadIdx.x] = 0;
    __syncthreads();
    x[threadIdx.x] = room[0];
    if (threadIdx.x == 63) room[0] = 1;
}
BAD(races_in_global, float* x) {
    if (threadIdx.x < 2) x[7] = threadIdx.x;
}
BAD(races_between_blocks, float* x) {
    if (threadIdx.x == 1) x[7] += blockIdx.x;
}
BAD(shuffles_without_order, float* x) {
    TINYNET_SHARED(float, room, 32);
    if (threadIdx.x == 0) room[0] = 1;
    __shfl_sync(ALL_LANES, 1, 0);
    x[threadIdx.x] = room[0];
}
BAD(shuffles_from_outside, float* x) {
    if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0xffff, 1.0f, 20);
}
BAD(is_not_in_the_mask, float* x) {
    x[threadIdx.x] = __shfl_sync(0xffff, 1.0f, 0);
}
BAD(left_its_warp, float* x) {
    if (threadIdx.x == 9) return;
    x[threadIdx.x] = __shfl_sync(ALL_LANES, 1.0f, 0);
}
BAD(warp_diverges, float* x) {
    if (threadIdx.x < 16) {
        x[0] = __shfl_sync(ALL_LANES, 1.0f, 0);
    } else {
        x[1] = __shfl_sync(ALL_LANES, 2.0f, 0);
    }
}
BAD(waits_for_no_copy, float* x) {
    TINYNET_SHARED(Pack<float>, room, 1);
    if (threadIdx.x == 0) copy_later(room, x);
    close_copies();
    __syncthreads();
    x[threadIdx.x] = room[0].at[0];
}
BAD(forgets_copies, float* x) {
    TINYNET_SHARED(Pack<float>, room, 1);
    copy_later(room, x);
}
BAD(overflows, int* x) { x[0] += 2147483647; }
BAD(shares_too_much, float* x) {
    TINYNET_SHARED(float, room, 12289);
    room[0] = x[0];
}
"""


@pytest.fixture(scope="module")
def bad(harness):
    """Launches a bad kernel on an array of 40 numbers, two blocks of 64 threads."""
    name = launch.keep_source(BAD)

    def go(function, *arguments, x=None, grid=2, block=64, shared=0, **options):
        x = np.ones(40, "float32") if x is None else x
        one = launch.Launch(
            name, function, (grid, 1, 1), (block, 1, 1), (encoding.pointer(x), *arguments), shared, (x,)
        )
        harness.run([one], **options)
        return x

    return go


@pytest.fixture
def fault(harness):
    """Whether a fault says all of this."""

    class Fault:
        def __enter__(self):
            self.raised = pytest.raises(harness.HarnessError)
            self.found = self.raised.__enter__()
            return self

        def __exit__(self, *error):
            caught = self.raised.__exit__(*error)
            if caught:
                missing = [part for part in self.parts if part not in str(self.found.value)]
                assert not missing, f"{missing} not in {self.found.value}"
            return caught

        def __call__(self, *parts):
            self.parts = parts
            return self

    return Fault()


def place(kernel, block, thread):
    return f"in kernel {kernel}, block ({block}, 0, 0), thread ({thread}, 0, 0)"


# ---- memory ----


@pytest.mark.parametrize("writes", [0, 1], ids=["read", "write"])
@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_element_out_of_bounds_at_either_end(bad, fault, dtype, offset, writes):
    x = np.ones(60, dtype)[offset : offset + 40]
    name = "touches" if dtype == "float32" else "touches_f64"
    verb, size = "writes" if writes else "reads", x.itemsize
    bad(name, np.int64(0), np.int32(writes), x=x)
    bad(name, np.int64(39), np.int32(writes), x=x)
    with fault(f"{verb} {size} bytes out of bounds, {size} bytes before the beginning of array 0", place(name, 1, 2)):
        bad(name, np.int64(-1), np.int32(writes), x=x)
    with fault(f"{verb} {size} bytes out of bounds, 0 bytes behind the end of array 0", place(name, 1, 2), ".cu:"):
        bad(name, np.int64(40), np.int32(writes), x=x)


def test_one_byte_out_of_bounds(bad, fault):
    x = np.zeros(3, "uint32")
    bad("touches_byte", np.int64(11), x=x, grid=1)
    assert x[2] == 1 << 24
    for at in (-1, 12):
        with fault("writes 1 bytes out of bounds", place("touches_byte", 0, 0)):
            bad("touches_byte", np.int64(at), x=x, grid=1)


def test_far_from_any_array(bad, fault):
    with fault("writes 4 bytes at an address that is in no array", place("touches", 1, 2)):
        bad("touches", np.int64(10**9), np.int32(1))


def test_a_load_of_16_bytes_that_ends_outside(bad, fault):
    x = np.ones(48, "float32")
    start = -x.ctypes.data % 16 // 4
    x = x[start : start + 42]
    bad("loads_pack", np.int64(36), x=x, grid=1, block=1)
    with fault("reads 4 bytes out of bounds, 0 bytes behind the end", place("loads_pack", 0, 0)):
        bad("loads_pack", np.int64(40), x=x, grid=1, block=1)
    with fault("misaligned address", "16 byte alignment", place("loads_pack", 0, 0)):
        bad("loads_pack", np.int64(2), x=x, grid=1, block=1)


def test_between_rows(bad, fault):
    held = np.ones((4, 10), "float32")
    rows = held[:, :7]
    bad("touches", np.int64(16), np.int32(1), x=rows)
    for writes, verb in ((0, "reads"), (1, "writes")):
        with fault(f"{verb} 4 bytes out of bounds, between the rows of array 0", place("touches", 1, 2)):
            bad("touches", np.int64(17), np.int32(writes), x=rows)


def test_an_array_that_may_only_be_read(bad, fault):
    x = np.ones(40, "float32")
    x.flags.writeable = False
    with fault("writes 4 bytes at byte 4 of array 0", "which may only be read", place("touches", 1, 2)):
        bad("touches", np.int64(1), np.int32(1), x=x)


@pytest.mark.parametrize("writes", [0, 1], ids=["read", "write"])
@pytest.mark.parametrize(("kernel", "name"), [
    ("touches_shared", "the shared array room"), ("touches_dynamic", "the dynamic shared memory"),
])  # fmt: skip
def test_shared_memory_out_of_bounds(bad, fault, kernel, name, writes):
    verb = "writes" if writes else "reads"
    for at in (0, 9):
        bad(kernel, np.int64(at), np.int32(writes), shared=40, grid=1)
    with fault(f"{verb} 4 bytes out of bounds, 4 bytes before the beginning of {name} (40", place(kernel, 0, 3)):
        bad(kernel, np.int64(-1), np.int32(writes), shared=40, grid=1)
    with fault(f"{verb} 4 bytes out of bounds, 0 bytes behind the end of {name} (40 bytes)", place(kernel, 0, 3)):
        bad(kernel, np.int64(10), np.int32(writes), shared=40, grid=1)


def test_shared_memory_that_nobody_has_written(bad, fault):
    with fault("reads byte 20 of the shared array room, which no thread", place("reads_unwritten", 1, 0)):
        bad("reads_unwritten", block=32)
    with fault("no thread of the block has written"):
        bad("reads_unwritten", block=32, races=False)


def test_shared_memory_is_no_better_aligned_than_cuda_promises(bad, fault):
    with fault("misaligned address", place("misaligned_shared", 0, 0)):
        bad("misaligned_shared", block=32)


def test_more_shared_memory_than_there_is(bad, fault):
    with fault("49156 bytes of static shared memory", place("shares_too_much", 0, 0)):
        bad("shares_too_much")
    with fault("bytes of shared memory", "in kernel touches"):
        bad("touches", np.int64(0), np.int32(0), shared=228 * 1024)


# ---- barriers and races ----


def test_threads_at_different_barriers(bad, fault):
    with fault("divergent barrier", "waits at the barrier in", "thread (40, 0, 0) waits", place("diverges", 0, 0)):
        bad("diverges", x=np.ones(64, "float32"), grid=1)


def test_a_thread_that_never_comes_to_a_barrier(bad, fault):
    with fault("divergent barrier", "thread (33, 0, 0) has left the kernel", place("leaves", 0, 0)):
        bad("leaves")


def test_a_missing_barrier_shows_as_a_race(bad, fault):
    x = np.ones(64, "float32")
    with fault("race: writes byte 124 of the shared array room", "thread (32, 0, 0) read", "misses_a_barrier", ".cu:"):
        bad("misses_a_barrier", x=x, grid=1, orders=("reverse",))
    with fault("race: writes byte 128", "thread (31, 0, 0) read with no barrier", place("misses_a_barrier", 0, 32)):
        bad("misses_a_barrier", x=x, grid=1, orders=("forward",))
    with fault("race: reads byte", "thread (0, 0, 0) wrote with no barrier", place("reads_what_is_written", 0, 1)):
        bad("reads_what_is_written", x=x, grid=1, orders=("forward",))
    with fault("race: reads byte 252", "thread (63, 0, 0) wrote with no barrier", place("writes_what_is_read", 0, 31)):
        bad("writes_what_is_read", x=x, grid=1, orders=("reverse",))
    with fault("race: writes byte", "other threads read with no barrier", place("writes_what_all_read", 0, 63)):
        bad("writes_what_all_read", x=x, grid=1)


def test_a_missing_barrier_shows_by_the_order_of_the_threads(bad, fault):
    x = np.ones(64, "float32")
    with fault("depends on the order of the threads (forward, reverse)", "array 0", "in kernel misses_a_barrier"):
        bad("misses_a_barrier", x=x, grid=1, races=False)
    assert (x == 1).all(), "a fault leaves the arrays as they were"


def test_races_in_global_memory(bad, fault):
    with fault("race: writes byte 28 of array 0", "thread (0, 0, 0) wrote", place("races_in_global", 0, 1)):
        bad("races_in_global", grid=1)
    with fault("race: reads byte 28 of array 0", "another block wrote", place("races_between_blocks", 1, 1)):
        bad("races_between_blocks")


def test_shuffles_order_no_memory(bad, fault):
    with fault("race: reads byte 0 of the shared array room", place("shuffles_without_order", 0, 31)):
        bad("shuffles_without_order", block=32, grid=1, orders=("forward",))


# ---- warps ----


def test_lanes_that_are_missed(bad, fault):
    with fault("reads from a lane that is not in the mask", place("shuffles_from_outside", 0, 15)):
        bad("shuffles_from_outside", grid=1)
    with fault("is not in the mask 0000ffff", place("is_not_in_the_mask", 0, 16)):
        bad("is_not_in_the_mask", grid=1, block=32)
    with fault("waits for thread (9, 0, 0), which has left the kernel", place("left_its_warp", 0, 10)):
        bad("left_its_warp", grid=1, block=32, orders=("forward",))
    with fault("divergent warp", "waits for its warp in", place("warp_diverges", 0, 0)):
        bad("warp_diverges", grid=1, block=32)
    with fault("waits for lane 20, which its warp does not have", place("left_its_warp", 0, 0)):
        bad("left_its_warp", grid=1, block=20, orders=("forward",))


def test_copies_that_are_not_waited_for(bad, fault):
    x = np.ones(48, "float32")
    start = -x.ctypes.data % 16 // 4
    x = x[start : start + 40]
    with fault("which no thread of the block has written", "waits_for_no_copy"):
        bad("waits_for_no_copy", x=x, grid=1, block=32)
    with fault("leaves the kernel with copies on their way", place("forgets_copies", 0, 0)):
        bad("forgets_copies", x=x, grid=1, block=1)


def test_undefined_behaviour(bad, fault):
    with fault("signed integer overflow", place("overflows", 0, 0)):
        bad("overflows", x=np.ones(1, "int32"), grid=1, block=1)


# ---- launches ----


def test_launches_that_do_not_fit_their_kernel(bad, fault):
    with fault("expected 3 arguments (pqi), got 1"):
        bad("touches")
    with fault("expected a NumPy scalar of int64 as argument 1"):
        bad("touches", np.int32(0), np.int32(0))
    with fault("expected a NumPy scalar of int32 as argument 2"):
        bad("touches", np.int64(0), True)
    with fault("has no kernel no_such; it has "):
        bad("no_such")
    with fault("a block of 1056 threads"):
        bad("touches", np.int64(0), np.int32(0), block=1056)
    with fault("a grid of (0, 1, 1)"):
        bad("touches", np.int64(0), np.int32(0), grid=0)


def test_an_address_in_no_array_that_is_kept(harness, bad, fault):
    x, other = np.ones(40, "float32"), np.ones(40, "float32")
    arguments = (encoding.pointer(other), np.int64(0), np.int32(0))
    one = launch.Launch(launch.keep_source(BAD), "touches", (1, 1, 1), (32, 1, 1), arguments, keep=(x,))
    with fault("argument 0 is the address of no array in keep"):
        harness.run([one])


def test_a_process_goes_on_after_a_fault(bad, fault):
    for _ in range(2):
        with fault("divergent barrier"):
            bad("leaves")
        bad("touches", np.int64(0), np.int32(0))
