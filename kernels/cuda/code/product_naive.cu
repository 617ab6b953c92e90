// Matrix product, step 1: a thread for each element of C.
//
//     C (m x n) = A (m x k) B (k x n), then bias, activation and mask: product.cuh. float32 and float64, any strides.
//
// What it can reach, by the count of its instructions, is 12 of 100: a multiplication and an addition need two loads,
// and a multiprocessor can do 128 of these at a time, but load only 32 words. It stays below that, for the loads take
// long. A warp shares each element of A, but nobody shares those of B: A is read n / 32 times, B m times, from a cache
// at best. The next step, product_shared.cu, reads B m / 32 times.
//
// Run alone: pytest tests/kernels/cuda/test_products.py -k naive
#include "product.cuh"

template <class T>
__device__ __forceinline__ void product_naive(const Product<T>& all) {
    constexpr int ROWS = 8, COLUMNS = 32;  // a warp has 32 neighbours of a row of C
    const Product<T> p = all.of_block();
    const Place at = tile_of_block<ROWS, COLUMNS>(p.m, p.n);
    const int64 row = at.row + threadIdx.x / COLUMNS, column = at.column + threadIdx.x % COLUMNS;
    if (row >= p.m || column >= p.n) return;
    const T *a = p.a + row * p.a_row, *b = p.b + column * p.b_column;
    T sum = 0;
    for (int64 i = 0; i < p.k; ++i) sum += a[i * p.a_step] * b[i * p.b_step];
    store_finished(p, sum, row, column);
}

PRODUCT(product_naive_f32, float, 256, 1, product_naive<T>)
PRODUCT(product_naive_f64, double, 256, 1, product_naive<T>)
