// The second pass of a product whose depth was cut into slices: adds them up, in their order, so that the sum is the
// same every time. It also finishes a product that a library has computed: one slice, which is C itself.
//
//     C (m x n, or a batch of such) = where(mask > 0, activation(sum of the parts + bias), 0)
//
// The parts are A of the arguments that all products have (product.cuh): a_row and a_step lie between their elements,
// a_batch between slices, which are `slices` for each matrix of the batch. float32 and float64.
//
// Run alone: pytest tests/kernels/cuda/test_products.py -k slices
#include "product.cuh"

template <class T>
__device__ __forceinline__ void product_parts(Product<T> p) {
    const int64 batch = blockIdx.z, count = p.m * p.n, threads = int64(gridDim.x) * blockDim.x;
    p.c += batch * p.c_batch;
    if (p.mask) p.mask += batch * p.mask_batch;
    const bool down = p.c_row == 1 && p.c_column != 1;
    for (int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
        const int64 row = down ? i % p.m : i / p.n, column = down ? i / p.m : i % p.n;
        const T* part = p.a + batch * p.slices * p.a_batch + row * p.a_row + column * p.a_step;
        T sum = *part;
        for (int s = 1; s < p.slices; ++s) sum += *(part += p.a_batch);
        store_finished(p, sum, row, column);
    }
}

PRODUCT(product_parts_f32, float, 256, 2, product_parts<T>)
PRODUCT(product_parts_f64, double, 256, 2, product_parts<T>)
