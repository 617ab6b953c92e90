// Matrix product, step 3: tiles in registers.
//
//     C (m x n) = A (m x k) B (k x n), then bias, activation and mask: product.cuh. float32 and float64, any strides.
//
// A block computes 64 x 64 elements of C, each of its 256 threads 4 x 4 of them, in registers: 8 loads from shared
// memory serve 16 multiplications and additions, where the step before needed 32. What it can reach, by that count: 50
// of 100. It waits for memory now: while a tile is on its way, nobody of the block computes, and each load moves 4
// bytes. That is what the next step, product_vectors.cu, is about.
//
// A thread has every 16th row and every 16th column of the tile, so that neighbours read neighbours in shared memory.
//
// Run alone: pytest tests/kernels/cuda/test_products.py -k registers
#include "product.cuh"

template <class T>
__device__ __forceinline__ void product_registers(const Product<T>& all) {
    constexpr int TILE = 64, DEPTH = 16, EACH = 4, SIDE = TILE / EACH, THREADS = SIDE * SIDE;
    constexpr int STRIDE = TILE + 1, LOADS = TILE * DEPTH / THREADS;
    TINYNET_SHARED(T, a_tile, DEPTH* STRIDE);
    TINYNET_SHARED(T, b_tile, DEPTH* STRIDE);
    const Product<T> p = all.of_block();
    const Place at = tile_of_block<TILE, TILE>(p.m, p.n);
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    const bool a_deep = p.a_step == 1, b_deep = p.b_step == 1;  // neighbours are along the depth
    T sums[EACH][EACH] = {};
    for (int64 first = 0; first < p.k; first += DEPTH) {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const int number = threadIdx.x + i * THREADS;
            const int a_r = a_deep ? number / DEPTH : number % TILE, a_k = a_deep ? number % DEPTH : number / TILE;
            const int b_c = b_deep ? number / DEPTH : number % TILE, b_k = b_deep ? number % DEPTH : number / TILE;
            const bool a_there = at.row + a_r < p.m && first + a_k < p.k;
            const bool b_there = at.column + b_c < p.n && first + b_k < p.k;
            const T a = a_there ? p.a[(at.row + a_r) * p.a_row + (first + a_k) * p.a_step] : T(0);
            const T b = b_there ? p.b[(at.column + b_c) * p.b_column + (first + b_k) * p.b_step] : T(0);
            a_tile[a_k * STRIDE + a_r] = a, b_tile[b_k * STRIDE + b_c] = b;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k) {
            T a[EACH], b[EACH];
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                a[i] = a_tile[k * STRIDE + y + i * SIDE];
                b[i] = b_tile[k * STRIDE + x + i * SIDE];
            }
#pragma unroll
            for (int i = 0; i < EACH; ++i)
#pragma unroll
                for (int j = 0; j < EACH; ++j) sums[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j)
            store_finished(p, sums[i][j], at.row + y + i * SIDE, at.column + x + j * SIDE);
}

PRODUCT(product_registers_f32, float, 256, 1, product_registers<T>)
PRODUCT(product_registers_f64, double, 256, 1, product_registers<T>)
