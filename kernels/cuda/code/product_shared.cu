// Matrix product, step 2: tiles in shared memory.
//
//     C (m x n) = A (m x k) B (k x n), then bias, activation and mask: product.cuh. float32 and float64, any strides.
//
// A block computes 32 x 32 elements of C. It takes 32 columns of A and 32 rows of B at a time into shared memory, where
// each element that was read from memory is used by 32 threads. What it can reach is 12 of 100 still. Memory is no
// longer what it waits for, shared memory is: there are two loads for a multiplication and an addition, and a
// multiprocessor can do 128 of these at a time, but load only 32 words. The next step, product_registers.cu, loads
// less.
//
// Whether neighbours in memory are along the rows or the columns of an operand, neighbouring threads read them. Rows of
// 33 elements put both ways of writing a tile, and of reading it, into 32 different banks.
//
// Run alone: pytest tests/kernels/cuda/test_products.py -k shared
#include "product.cuh"

template <class T>
__device__ __forceinline__ void product_shared(const Product<T>& all) {
    constexpr int TILE = 32, STRIDE = TILE + 1;
    TINYNET_SHARED(T, a_tile, TILE* STRIDE);
    TINYNET_SHARED(T, b_tile, TILE* STRIDE);
    const Product<T> p = all.of_block();
    const Place at = tile_of_block<TILE, TILE>(p.m, p.n);
    const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;
    const int a_r = p.a_step == 1 ? y : x, a_k = p.a_step == 1 ? x : y;
    const int b_c = p.b_column == 1 ? x : y, b_k = p.b_column == 1 ? y : x;
    const T* const a = p.a + (at.row + a_r) * p.a_row;
    const T* const b = p.b + (at.column + b_c) * p.b_column;
    const bool a_there = at.row + a_r < p.m, b_there = at.column + b_c < p.n;
    T sum = 0;
    for (int64 first = 0; first < p.k; first += TILE) {
        a_tile[a_r * STRIDE + a_k] = a_there && first + a_k < p.k ? a[(first + a_k) * p.a_step] : T(0);
        b_tile[b_k * STRIDE + b_c] = b_there && first + b_k < p.k ? b[(first + b_k) * p.b_step] : T(0);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; ++i) sum += a_tile[y * STRIDE + i] * b_tile[i * STRIDE + x];
        __syncthreads();
    }
    store_finished(p, sum, at.row + y, at.column + x);
}

PRODUCT(product_shared_f32, float, 1024, 1, product_shared<T>)
PRODUCT(product_shared_f64, double, 1024, 1, product_shared<T>)
