// Kernels that move elements: copies, fills, transpositions, gathers and their adjoint, rows that are 1 in one place.
//
// Elements are 1, 2, 4, 8 or 16 bytes, whatever they mean; rows that may be are copied as elements of 16 bytes. Names
// end in the bytes of an element.
//
//     out, x    over up to 1, 2 or 4 axes, of sizes n0 (outermost), n1, ..., with strides of either sign; x may repeat
//     transpose tiles of 32 x 32 through shared memory: x is read along its lines and out written along its own
//
// Run alone: pytest tests/kernels/cuda/test_layouts.py
#include "tinynet.cuh"

constexpr int MOVING_THREADS = 256, MOVED = 4;  // elements that a thread moves
constexpr int TILE = 32, TILE_ROWS = 8;         // of a tile, and threads that go down it

struct alignas(16) Sixteen {
    uint64 low, high;
};

// a / b of numbers that are not negative; short ones in a fraction of the time.
__device__ __forceinline__ int64 ratio(int64 a, int64 b) {
    return static_cast<uint64>(a | b) >> 32 ? a / b : int64(unsigned(a) / unsigned(b));
}

// Where the elements of two arrays are.
struct Offsets {
    int64 out, x;
};

struct Axes1 {
    int64 out0, x0;
    __device__ __forceinline__ Offsets at(int64 i) const { return {i * out0, i * x0}; }
};

struct Axes2 {
    int64 n1, out0, out1, x0, x1;
    __device__ __forceinline__ Offsets at(int64 i) const {
        const int64 i0 = ratio(i, n1), i1 = i - i0 * n1;
        return {i0 * out0 + i1 * out1, i0 * x0 + i1 * x1};
    }
};

struct Axes4 {
    int64 n1, n2, n3, out0, out1, out2, out3, x0, x1, x2, x3;
    __device__ __forceinline__ Offsets at(int64 i) const {
        const int64 q2 = ratio(i, n3), i3 = i - q2 * n3, q1 = ratio(q2, n2), i2 = q2 - q1 * n2;
        const int64 i0 = ratio(q1, n1), i1 = q1 - i0 * n1;
        return {i0 * out0 + i1 * out1 + i2 * out2 + i3 * out3, i0 * x0 + i1 * x1 + i2 * x2 + i3 * x3};
    }
};

// Threads side by side move elements side by side, several each, which are all read before any is written.
template <class T, class Axes>
__device__ __forceinline__ void copy(int64 n, T* out, const T* x, const Axes axes) {
    const int64 first = int64(blockIdx.x) * (MOVING_THREADS * MOVED) + threadIdx.x;
    T values[MOVED];
#pragma unroll
    for (int k = 0; k < MOVED; ++k)
        if (first + k * MOVING_THREADS < n) values[k] = x[axes.at(first + k * MOVING_THREADS).x];
#pragma unroll
    for (int k = 0; k < MOVED; ++k)
        if (first + k * MOVING_THREADS < n) out[axes.at(first + k * MOVING_THREADS).out] = values[k];
}

// `bits` are those of the element, or of one that it is made of several times over.
template <class T>
__device__ __forceinline__ T element_of(uint64 bits) {
    if constexpr (sizeof(T) == 16) return {bits, bits};
    else return T(bits);
}

template <class T, class Axes>
__device__ __forceinline__ void fill(int64 n, T* out, uint64 bits, const Axes axes) {
    const T value = element_of<T>(bits);
    const int64 first = int64(blockIdx.x) * (MOVING_THREADS * MOVED) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < MOVED; ++k)
        if (first + k * MOVING_THREADS < n) out[axes.at(first + k * MOVING_THREADS).out] = value;
}

// out[a][b] = x[b][a] for tables of n0 x n1, which are counted by two axes more, m0 x m1. Both lie side by side along
// their last axis. A line of the tile is one element longer than it has to be, so that a column is in 32 banks.
template <class T>
__device__ __forceinline__ void transpose(
    int64 m1, int64 n0, int64 n1, T* out, int64 out_m0, int64 out_m1, int64 out0, const T* x, int64 x_m0, int64 x_m1,
    int64 x1) {
    TINYNET_SHARED(T, tile, TILE * (TILE + 1));
    const int64 wide = (n1 + TILE - 1) / TILE, high = (n0 + TILE - 1) / TILE;
    const int64 line = ratio(blockIdx.x, wide), left = (blockIdx.x - line * wide) * TILE;
    const int64 table = ratio(line, high), top = (line - table * high) * TILE;
    const int64 i0 = ratio(table, m1), i1 = table - i0 * m1;
    x += i0 * x_m0 + i1 * x_m1, out += i0 * out_m0 + i1 * out_m1;
#pragma unroll
    for (int row = threadIdx.y; row < TILE; row += TILE_ROWS)
        if (top + threadIdx.x < n0 && left + row < n1)
            tile[row * (TILE + 1) + threadIdx.x] = x[(left + row) * x1 + top + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int row = threadIdx.y; row < TILE; row += TILE_ROWS)
        if (top + row < n0 && left + threadIdx.x < n1)
            out[(top + row) * out0 + left + threadIdx.x] = tile[threadIdx.x * (TILE + 1) + row];
}

// out[a][j][b] = x[a][index j][b], for n elements, `count` indices and lines of `inner`; negative indices count from
// the end. An index that is none of `size` gives zeros.
template <class T>
__device__ __forceinline__ void take(
    int64 n, T* out, const T* x, const void* indices, int64 index_step, int kind, int64 size, int64 count,
    int64 inner) {
    const int64 first = int64(blockIdx.x) * (MOVING_THREADS * MOVED) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < MOVED; ++k) {
        const int64 i = first + k * MOVING_THREADS;
        if (i >= n) return;
        const int64 line = ratio(i, inner), b = i - line * inner, a = ratio(line, count), j = line - a * count;
        const int64 given = integer_at(indices, j * index_step, kind), index = given < 0 ? given + size : given;
        out[i] = index >= 0 && index < size ? x[(a * size + index) * inner + b] : element_of<T>(0);
    }
}

// Rows of `classes`, which are 1 at their index; of an index that is no class, all 0.
template <class T>
__device__ __forceinline__ void one_hot(
    int64 n, T* out, int64 row, const void* indices, int64 index_step, int kind, int64 classes) {
    const int64 first = int64(blockIdx.x) * (MOVING_THREADS * MOVED) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < MOVED; ++k) {
        const int64 i = first + k * MOVING_THREADS;
        if (i >= n) return;
        const int64 j = ratio(i, classes), c = i - j * classes;
        out[j * row + c] = T(integer_at(indices, j * index_step, kind) == c);
    }
}

// out[a][k][b] = the sum of x[a][j][b] over the j whose index is k, in their order; for n elements of out. Every one
// looks at all `count` indices: no two threads add to one place, so that sums are the same each time.
template <class T>
__device__ __forceinline__ void scatter_add(
    int64 n, T* out, const T* x, const void* indices, int64 index_step, int kind, int64 size, int64 count,
    int64 inner) {
    const int64 i = int64(blockIdx.x) * MOVING_THREADS + threadIdx.x;
    if (i >= n) return;
    const int64 line = ratio(i, inner), b = i - line * inner, a = ratio(line, size), k = line - a * size;
    x += a * count * inner + b;
    T sum = 0;
    for (int64 j = 0; j < count; ++j) {
        const int64 given = integer_at(indices, j * index_step, kind);
        if (given == k || given == k - size) sum += x[j * inner];
    }
    out[i] = sum;
}

// ---- entry points ----

#define KERNEL(name, THREADS, TAKES, ...)                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) name TAKES { __VA_ARGS__; } \
    TINYNET_KERNEL(name)
#define MOVING(bytes, T)                                                                                             \
    KERNEL(copy1_##bytes, MOVING_THREADS, (int64 n, T * out, const T* x, int64 out0, int64 x0),                      \
           copy(n, out, x, Axes1{out0, x0}))                                                                         \
    KERNEL(copy2_##bytes, MOVING_THREADS,                                                                            \
           (int64 n, T * out, const T* x, int64 n1, int64 out0, int64 out1, int64 x0, int64 x1),                     \
           copy(n, out, x, Axes2{n1, out0, out1, x0, x1}))                                                           \
    KERNEL(copy4_##bytes, MOVING_THREADS,                                                                            \
           (int64 n, T * out, const T* x, int64 n1, int64 n2, int64 n3, int64 out0, int64 out1, int64 out2,          \
            int64 out3, int64 x0, int64 x1, int64 x2, int64 x3),                                                     \
           copy(n, out, x, Axes4{n1, n2, n3, out0, out1, out2, out3, x0, x1, x2, x3}))                               \
    KERNEL(fill1_##bytes, MOVING_THREADS, (int64 n, T * out, unsigned long long bits, int64 out0),                   \
           fill(n, out, bits, Axes1{out0, 0}))                                                                       \
    KERNEL(fill2_##bytes, MOVING_THREADS,                                                                            \
           (int64 n, T * out, unsigned long long bits, int64 n1, int64 out0, int64 out1),                            \
           fill(n, out, bits, Axes2{n1, out0, out1, 0, 0}))                                                          \
    KERNEL(fill4_##bytes, MOVING_THREADS,                                                                            \
           (int64 n, T * out, unsigned long long bits, int64 n1, int64 n2, int64 n3, int64 out0, int64 out1,         \
            int64 out2, int64 out3),                                                                                 \
           fill(n, out, bits, Axes4{n1, n2, n3, out0, out1, out2, out3, 0, 0, 0, 0}))                                \
    KERNEL(transpose_##bytes, TILE * TILE_ROWS,                                                                      \
           (int64 m1, int64 n0, int64 n1, T * out, int64 out_m0, int64 out_m1, int64 out0, const T* x, int64 x_m0,   \
            int64 x_m1, int64 x1),                                                                                   \
           transpose(m1, n0, n1, out, out_m0, out_m1, out0, x, x_m0, x_m1, x1))                                      \
    KERNEL(take_##bytes, MOVING_THREADS,                                                                             \
           (int64 n, T * out, const T* x, const void* indices, int64 index_step, int kind, int64 size, int64 count,  \
            int64 inner),                                                                                            \
           take(n, out, x, indices, index_step, kind, size, count, inner))
#define NUMBERS(suffix, T)                                                                                           \
    KERNEL(scatter_add##suffix, MOVING_THREADS,                                                                      \
           (int64 n, T * out, const T* x, const void* indices, int64 index_step, int kind, int64 size, int64 count,  \
            int64 inner),                                                                                            \
           scatter_add(n, out, x, indices, index_step, kind, size, count, inner))                                    \
    KERNEL(one_hot##suffix, MOVING_THREADS,                                                                          \
           (int64 n, T * out, int64 row, const void* indices, int64 index_step, int kind, int64 classes),            \
           one_hot(n, out, row, indices, index_step, kind, classes))

MOVING(1, unsigned char)
MOVING(2, unsigned short)
MOVING(4, unsigned)
MOVING(8, unsigned long long)
MOVING(16, Sixteen)
NUMBERS(_f32, float)
NUMBERS(_f64, double)
