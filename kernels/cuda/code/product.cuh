// What the matrix products share: their arguments, the order of their tiles, how a tile is copied and how it is
// finished.
//
//     C = where(mask > 0, activation(A B + bias), 0)      A: m x k, B: k x n, C and mask: m x n, each by two strides
//
// Each part of it is left out where its pointer is null or its number 0. A batch takes the z of the grid: a_batch, ...
// lie between its matrices. With `slices` > 1 it is batch * slices: slice s has the products of depth s * depth on,
// which are written as they are, to be added up in that order by product_parts.cu. A and B may be of another type, S.
#ifndef TINYNET_PRODUCT_CUH
#define TINYNET_PRODUCT_CUH
#include "tinynet.cuh"

template <class T, class S = T>
struct Product {
    int64 m, n, k, depth;
    const S* a;
    int64 a_row, a_step, a_batch;
    const S* b;
    int64 b_step, b_column, b_batch;
    T* c;
    int64 c_row, c_column, c_batch;
    const T* bias;
    int64 bias_row, bias_column;
    const T* mask;
    int64 mask_row, mask_column, mask_batch;
    int slices, activation;
    int packs;  // whether C, bias and mask may be touched 16 bytes at a time

    // The product of this block: its matrix of the batch, its part of the depth.
    __device__ __forceinline__ Product of_block() const {
        Product p = *this;
        const int64 batch = blockIdx.z / slices, first = blockIdx.z % slices * depth;
        p.a += batch * a_batch + first * a_step;
        p.b += batch * b_batch + first * b_step;
        p.c += blockIdx.z * c_batch;
        if (mask) p.mask += batch * mask_batch;
        p.k = min(k - first, depth);
        return p;
    }
};

#define TAKES_PRODUCT                                                                                            \
    int64 m, int64 n, int64 k, int64 depth, const S *a, int64 a_row, int64 a_step, int64 a_batch, const S *b,    \
        int64 b_step, int64 b_column, int64 b_batch, T *c, int64 c_row, int64 c_column, int64 c_batch,           \
        const T *bias, int64 bias_row, int64 bias_column, const T *mask, int64 mask_row, int64 mask_column,      \
        int64 mask_batch, int slices, int activation, int packs
#define GIVES_PRODUCT                                                                                            \
    Product<T, S> {                                                                                              \
        m, n, k, depth, a, a_row, a_step, a_batch, b, b_step, b_column, b_batch, c, c_row, c_column, c_batch,    \
            bias, bias_row, bias_column, mask, mask_row, mask_column, mask_batch, slices, activation, packs      \
    }

// An entry point for elements of a type, with operands of the same or of another one. LEAST: blocks that a
// multiprocessor is to have room for.
#define PRODUCT_OF(name, type, operand, THREADS, LEAST, ...)                                                     \
    namespace of_##name {                                                                                        \
    using T = type;                                                                                              \
    using S = operand;                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, LEAST) name(TAKES_PRODUCT) { __VA_ARGS__(GIVES_PRODUCT); } \
    TINYNET_KERNEL(name)                                                                                         \
    }
#define PRODUCT(name, type, THREADS, LEAST, ...) PRODUCT_OF(name, type, type, THREADS, LEAST, __VA_ARGS__)

// ---- where a block is ----

struct Place {
    int64 row, column;
};

// Where the tile of this block begins. Blocks that run at a time have tiles near each other, so that they find each
// other's rows of A and columns of B in the second-level cache: they go down 8 rows of tiles, then one tile across.
template <int BM, int BN>
__device__ __forceinline__ Place tile_of_block(int64 m, int64 n) {
    const unsigned down = unsigned((m + BM - 1) / BM), across = unsigned((n + BN - 1) / BN), tall = 8;
    const unsigned group = blockIdx.x / (tall * across), inside = blockIdx.x % (tall * across);
    const unsigned height = min(down - group * tall, tall);
    return {int64(group * tall + inside % height) * BM, int64(inside / height) * BN};
}

// ---- finishing ----

template <class T>
__device__ __forceinline__ T activated(T x, int activation) {
    if (activation == 1) return x > 0 || x != x ? x : T(0);
    if (activation == 2) return hyperbolic_tangent(x);
    if (activation == 3) return 1 / (1 + exponential(-x));
    return x;
}

// Bias, activation and mask on an element of the product.
template <class T, class S>
__device__ __forceinline__ T finished(const Product<T, S>& p, T value, int64 row, int64 column) {
    if (p.bias) value += p.bias[row * p.bias_row + column * p.bias_column];
    value = activated(value, p.activation);
    return p.mask && !(p.mask[row * p.mask_row + column * p.mask_column] > 0) ? T(0) : value;
}

template <class T, class S>
__device__ __forceinline__ void store_finished(const Product<T, S>& p, T value, int64 row, int64 column) {
    if (row < p.m && column < p.n) p.c[row * p.c_row + column * p.c_column] = finished(p, value, row, column);
}

// A pack, by one store to global memory: of what comes together element by element, the compiler makes several.
__device__ __forceinline__ void store_at_once(float* to, const Pack<float>& pack) {
#ifdef TINYNET_HARNESS
    store_pack(to, pack);
#else
    const size_t at = __cvta_generic_to_global(to);
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(at), "f"(pack.at[0]), "f"(pack.at[1]),
                 "f"(pack.at[2]), "f"(pack.at[3]) : "memory");
#endif
}
__device__ __forceinline__ void store_at_once(double* to, const Pack<double>& pack) {
#ifdef TINYNET_HARNESS
    store_pack(to, pack);
#else
    const size_t at = __cvta_generic_to_global(to);
    asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(at), "d"(pack.at[0]), "d"(pack.at[1]) : "memory");
#endif
}

// Finishes and stores a tile that the threads of a block hold in any order. `each(f)` calls f(row, column, value) for
// all values of this thread. They pass through shared memory, some rows at a time: so neighbours in a row come to
// neighbouring threads, and what is done to a value is written out once, not once for each register.
//
// room: shared memory for (BN + pack) * ROWS elements, that the block is done with.
template <int BM, int BN, int ROWS, int THREADS, class T, class S, class Each>
__device__ __forceinline__ void store_tile(const Product<T, S>& p, Place at, T* room, const Each& each) {
    constexpr int P = Pack<T>::COUNT, STRIDE = BN + P;
    for (int first = 0; first < BM && at.row + first < p.m; first += ROWS) {
        __syncthreads();
        each([&](int row, int column, T value) {
            if (row >= first && row < first + ROWS) room[(row - first) * STRIDE + column] = value;
        });
        __syncthreads();
        if (p.packs) {
#pragma unroll 1
            for (int i = threadIdx.x; i < ROWS * BN / P; i += THREADS) {
                const int r = i / (BN / P), c = i % (BN / P) * P;
                const int64 row = at.row + first + r, column = at.column + c;
                if (row >= p.m || column >= p.n) continue;
                if (column + P > p.n) {
#pragma unroll 1
                    for (int j = 0; j < P; ++j) store_finished(p, room[r * STRIDE + c + j], row, column + j);
                    continue;
                }
                Pack<T> value = load_pack(room + r * STRIDE + c);
                if (p.bias) {
                    const Pack<T> bias = load_pack(p.bias + column);
#pragma unroll
                    for (int j = 0; j < P; ++j) value.at[j] += bias.at[j];
                }
#pragma unroll
                for (int j = 0; j < P; ++j) value.at[j] = activated(value.at[j], p.activation);
                if (p.mask) {
                    const Pack<T> mask = load_pack(p.mask + row * p.mask_row + column);
#pragma unroll
                    for (int j = 0; j < P; ++j) value.at[j] = mask.at[j] > 0 ? value.at[j] : T(0);
                }
                store_at_once(p.c + row * p.c_row + column, value);
            }
            continue;
        }
        const bool down = p.c_row == 1 && p.c_column != 1;  // C is a transposed view: neighbours stand below each other
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS * BN; i += THREADS) {
            const int r = down ? i % ROWS : i / BN, c = down ? i / ROWS : i % BN;
            store_finished(p, room[r * STRIDE + c], at.row + first + r, at.column + c);
        }
    }
}

// ---- copying ----

// COUNT neighbours into shared memory, of which those from `there` on are not read but zero: by copies that arrive
// later (tinynet.cuh), of any size that they have.
template <int COUNT, class T>
__device__ __forceinline__ void copy_elements(T* to, const T* from, int there) {
    constexpr int BYTES = COUNT * sizeof(T);
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "a size that cp.async has");
#if defined(TINYNET_HARNESS)
    harness::copy_later(to, from, there * sizeof(T), (COUNT - there) * sizeof(T));
#elif __CUDA_ARCH__ >= 800
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
    const int bytes = there * int(sizeof(T));
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(BYTES), "r"(bytes)
                     : "memory");
#else
    Chunk<T, COUNT> chunk;
    if (there == COUNT) chunk = load_chunk<COUNT>(from);
    else
#pragma unroll
        for (int i = 0; i < COUNT; ++i) chunk.at[i] = i < there ? from[i] : T(0);
    store_chunk(to, chunk);
#endif
}

// How an operand lies in memory, and so in shared memory: neighbours are along the depth, along the rows of A or
// columns of B (both are "rows" below), or anywhere.
enum Way { DEEP, FLAT, ANY };

// A part of an operand, ROWS by DEPTH, in shared memory. PAD keeps rows in different banks; PAD_DEEP holds for DEEP.
template <class T, int ROWS_, int DEPTH_, Way WAY_, int THREADS, int PAD_DEEP, int PAD_FLAT>
struct Panel {
    static constexpr int ROWS = ROWS_, DEPTH = DEPTH_, P = Pack<T>::COUNT;
    static constexpr Way WAY = WAY_;
    static constexpr int STRIDE = WAY == DEEP ? DEPTH + PAD_DEEP : ROWS + PAD_FLAT;
    static constexpr int SIZE = (WAY == DEEP ? ROWS : DEPTH) * STRIDE;

    static __device__ __forceinline__ int index(int row, int k) {
        return WAY == DEEP ? row * STRIDE + k : k * STRIDE + row;
    }

    // Calls f(index in shared memory, row, k, number of the call) for each group of neighbours of this thread: for a
    // pack, or for an element where they may lie anywhere. `deep`: then, whether neighbouring threads take neighbours
    // in depth.
    template <class F>
    static __device__ __forceinline__ void each_place(bool deep, const F& f) {
        if constexpr (WAY == ANY) {
            static_assert(ROWS * DEPTH % THREADS == 0, "all threads do the same");
#pragma unroll
            for (int i = 0; i < ROWS * DEPTH / THREADS; ++i) {
                const int at = threadIdx.x + i * THREADS;
                const int row = deep ? at / DEPTH : at % ROWS, k = deep ? at % DEPTH : at / ROWS;
                f(index(row, k), row, k, i);
            }
        } else {
            constexpr int INNER = (WAY == DEEP ? DEPTH : ROWS) / P, OUTER = WAY == DEEP ? ROWS : DEPTH;
#pragma unroll
            for (int i = 0; i < (INNER * OUTER + THREADS - 1) / THREADS; ++i) {
                const int at = threadIdx.x + i * THREADS, inner = at % INNER * P, outer = at / INNER;
                if (INNER * OUTER % THREADS && outer >= OUTER) break;
                f(outer * STRIDE + inner, WAY == DEEP ? outer : inner, WAY == DEEP ? inner : outer, i);
            }
        }
    }

    // Calls f(index in shared memory, address, how many of the group are there, number of the call). The panel begins
    // at `from`, and has that many rows; `left` of the depth are there. An address where nothing is means nothing.
    template <class F>
    static __device__ __forceinline__ void each(
        const T* from, int64 row_step, int64 k_step, int rows, int64 left, const F& f) {
        const int depth = left < DEPTH ? int(left) : DEPTH;
        each_place(k_step == 1, [&](int at, int row, int k, int number) {
            if constexpr (WAY == ANY)
                f(at, from + row * row_step + k * k_step, int(row < rows && k < depth), number);
            else if constexpr (WAY == DEEP)
                f(at, from + row * row_step + k, row < rows ? max(0, min(P, depth - k)) : 0, number);
            else
                f(at, from + k * k_step + row, k < depth ? max(0, min(P, rows - row)) : 0, number);
        });
    }

    static __device__ __forceinline__ void copy(
        T* room, const T* from, int64 row_step, int64 k_step, int rows, int64 left) {
        each(from, row_step, k_step, rows, left, [&](int at, const T* address, int there, int) {
            copy_elements<WAY == ANY ? 1 : P>(room + at, address, there);
        });
    }
};

#endif
