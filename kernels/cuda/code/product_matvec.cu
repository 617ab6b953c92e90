// A matrix times a vector: the product of one column (or of one row: then it is the transpose's, see matrices.py).
//
//     C (m x 1) = A (m x k) B (k x 1), then bias, activation and mask: product.cuh. float32 and float64, any strides.
//
// Every element of A is used once, so that this takes as long as A takes to be read: what it can reach is the bandwidth
// of the memory. So loads are as wide as they can be, and four of a thread are on their way at a time.
//
//     rows       a warp for each row of A, whose elements lie side by side; "rows_wide" reads 16 bytes at a time
//     block      a block for each row, for few that are long; "block_wide" the same
//     columns    a lane for each row of A, where elements of a column lie side by side, or for any strides; the warps
//                of a block take the depth in turns and add up in shared memory
//
// Run alone: pytest tests/kernels/cuda/test_products.py -k vector
#include "product.cuh"

constexpr int MATVEC_THREADS = 256, MATVEC_WARPS = MATVEC_THREADS / WARP;

// What LANES threads, this one the number `lane`, find of the sum over a row.
template <class T, bool WIDE, int LANES>
__device__ __forceinline__ T part_of_row(const T* a, const T* x, int64 x_step, int64 k, int lane) {
    constexpr int P = WIDE ? Pack<T>::COUNT : 1, AHEAD = 4;  // loads on their way at a time
    T sums[AHEAD] = {};
    const int64 whole = k / P;
    int64 i = lane;
    for (; i + (AHEAD - 1) * LANES < whole; i += AHEAD * LANES)
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
            const auto row = load_chunk<P>(a + (i + s * LANES) * P);
            if constexpr (WIDE) {
                const auto other = load_chunk<P>(x + (i + s * LANES) * P);
#pragma unroll
                for (int j = 0; j < P; ++j) sums[s] += row.at[j] * other.at[j];
            } else {
                sums[s] += row.at[0] * x[(i + s * LANES) * x_step];
            }
        }
    T sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (; i < whole; i += LANES)
#pragma unroll
        for (int j = 0; j < P; ++j) sum += a[i * P + j] * x[(i * P + j) * x_step];
    const int64 rest = whole * P + lane;
    if (rest < k) sum += a[rest] * x[rest * x_step];
    return sum;
}

template <class T, bool WIDE>
__device__ __forceinline__ void matvec_rows(const Product<T>& all) {
    const Product<T> p = all.of_block();
    const int lane = threadIdx.x % WARP;
    const int64 row = int64(blockIdx.x) * MATVEC_WARPS + threadIdx.x / WARP;
    if (row >= p.m) return;
    const T sum = warp_sum(part_of_row<T, WIDE, WARP>(p.a + row * p.a_row, p.b, p.b_step, p.k, lane));
    if (lane == 0) store_finished(p, sum, row, 0);
}

template <class T, bool WIDE>
__device__ __forceinline__ void matvec_block(const Product<T>& all) {
    TINYNET_SHARED(T, room, MATVEC_WARPS);
    const Product<T> p = all.of_block();
    const int64 row = blockIdx.x;
    const T part = part_of_row<T, WIDE, MATVEC_THREADS>(p.a + row * p.a_row, p.b, p.b_step, p.k, threadIdx.x);
    const T sum = block_sum(part, room);
    if (threadIdx.x == 0) store_finished(p, sum, row, 0);
}

template <class T>
__device__ __forceinline__ void matvec_columns(const Product<T>& all) {
    constexpr int AHEAD = 4;
    TINYNET_SHARED(T, room, MATVEC_THREADS);
    const Product<T> p = all.of_block();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64 row = int64(blockIdx.x) * WARP + lane;
    T sums[AHEAD] = {};
    if (row < p.m) {
        const T *a = p.a + row * p.a_row, *x = p.b;
        int64 i = warp;
        for (; i + (AHEAD - 1) * MATVEC_WARPS < p.k; i += AHEAD * MATVEC_WARPS)
#pragma unroll
            for (int s = 0; s < AHEAD; ++s) {
                const int64 at = i + s * MATVEC_WARPS;
                sums[s] += a[at * p.a_step] * x[at * p.b_step];
            }
        for (; i < p.k; i += MATVEC_WARPS) sums[0] += a[i * p.a_step] * x[i * p.b_step];
    }
    room[threadIdx.x] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    __syncthreads();
    if (warp) return;
    T sum = room[lane];
#pragma unroll
    for (int i = 1; i < MATVEC_WARPS; ++i) sum += room[i * WARP + lane];
    store_finished(p, sum, row, 0);
}

#define MATVEC(suffix, T, LEAST)                                                       \
    PRODUCT(matvec_rows##suffix, T, MATVEC_THREADS, LEAST, matvec_rows<T, false>)                 \
    PRODUCT(matvec_rows_wide##suffix, T, MATVEC_THREADS, LEAST, matvec_rows<T, true>)             \
    PRODUCT(matvec_block##suffix, T, MATVEC_THREADS, LEAST, matvec_block<T, false>)               \
    PRODUCT(matvec_block_wide##suffix, T, MATVEC_THREADS, LEAST, matvec_block<T, true>)           \
    PRODUCT(matvec_columns##suffix, T, MATVEC_THREADS, LEAST, matvec_columns<T>)

MATVEC(_f32, float, 3)
MATVEC(_f64, double, 2)
