// The operands of a product, rounded to bf16 (7 bits of fraction, to the nearest, ties to even) before a library
// multiplies them: a matrix of float32, or a batch of them, becomes one that lies row by row.
//
//     to[batch][row][column] = from[batch * batch_step + row * row_step + column * column_step]
//
// A row of `to` takes whole groups of 8 elements, 16 bytes; what is beyond its columns is 0. Every thread makes one
// group: it reads 32 bytes and writes 16, and memory is all that this takes time for. "wide" reads 16 bytes at a time:
// elements of a row lie side by side, and rows begin at multiples of 16 bytes. From compute capability 8.0 on.
//
// Run alone: pytest tests/kernels/cuda/test_bf16.py
#include "tensor.cuh"

constexpr int OPERAND_THREADS = 256, GROUP = 8;

template <bool WIDE>
__device__ __forceinline__ void to_bf16(
    unsigned count, unsigned rows, unsigned columns, unsigned* to, const float* from, int64 row_step,
    int64 column_step, int64 batch_step) {
    const unsigned i = blockIdx.x * OPERAND_THREADS + threadIdx.x;
    if (i >= count) return;
    const unsigned groups = (columns + GROUP - 1) / GROUP, line = i / groups, first = (i - line * groups) * GROUP;
    const unsigned batch = line / rows, row = line - batch * rows;
    from += batch * batch_step + row * row_step + first * column_step;
    float values[GROUP];
    if (WIDE && columns - first >= GROUP) {
#pragma unroll
        for (int j = 0; j < GROUP; j += Pack<float>::COUNT) {
            const Pack<float> pack = load_pack(from + j);
#pragma unroll
            for (int k = 0; k < Pack<float>::COUNT; ++k) values[j + k] = pack.at[k];
        }
    } else {
#pragma unroll
        for (int j = 0; j < GROUP; ++j) values[j] = first + j < columns ? from[j * column_step] : 0.0f;
    }
    Pack<unsigned> pairs;
#pragma unroll
    for (int j = 0; j < GROUP / 2; ++j) pairs.at[j] = to_bf16_pair(values[2 * j], values[2 * j + 1]);
    store_pack(to + int64(i) * Pack<unsigned>::COUNT, pairs);
}

#define OPERANDS(name, WIDE)                                                                                      \
    extern "C" __global__ void __launch_bounds__(OPERAND_THREADS) name(                                           \
        unsigned count, unsigned rows, unsigned columns, unsigned* to, const float* from, int64 row_step,         \
        int64 column_step, int64 batch_step) {                                                                    \
        to_bf16<WIDE>(count, rows, columns, to, from, row_step, column_step, batch_step);                         \
    }                                                                                                             \
    TINYNET_KERNEL(name)

OPERANDS(to_bf16_f32, false)
OPERANDS(to_bf16_wide_f32, true)
