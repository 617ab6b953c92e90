// Matrix product, step 4: 16 bytes a load, and the next tile on its way while this one is worked on.
//
//     C (m x n) = A (m x k) B (k x n), then bias, activation and mask: product.cuh. float32 and float64.
//
// Two tiles of each operand are in shared memory. While the block computes with one, copies that no register waits for
// (cp.async, from 8.0 on; before that, loads and stores) fill the other, and one barrier for each tile is enough. A
// thread has up to 8 x 8 elements of C and reads its part of a tile 16 bytes at a time: 4 loads for 64 multiplications
// and additions. Loads no longer are what bounds it: what it is made for is 80 to 90 of 100 in float32, for products of
// some thousand rows and columns, without tensor cores; the rest goes to the barriers and to the ends of the product.
//
// A tile lies in shared memory as in memory, for a copy cannot turn it: along the depth (DEEP: A row by row, or B
// transposed) or along the rows of A or columns of B (FLAT). Names say so: "deep_flat" is A B of row-major matrices,
// "deep_deep" A B^T, "flat_flat" A^T B. They need 16-byte addresses and strides; ANY has no conditions, and is copied
// element by element. Tiles: 128x128, 64x64, and 128x16 for products that are narrow, on which others would waste most
// of theirs; B is small there, and its rows hardly ever begin at multiples of 16 bytes, so that it is taken as ANY.
//
// Run alone: pytest tests/kernels/cuda/test_products.py -k vectors
#include "product.cuh"

// Which rows of a panel are a thread's, the one of number `t` among COUNT: number i of EACH of them.
template <class T, Way WAY, int COUNT>
__device__ __forceinline__ int row_of(int t, int i) {
    constexpr int P = Pack<T>::COUNT;
    return WAY == DEEP ? t + i * COUNT : i / P * (COUNT * P) + t * P + i % P;
}

// Those rows, for STEPS steps of the depth from k on.
template <class Panel, int EACH, int COUNT, int STEPS, class T>
__device__ __forceinline__ void load_rows(T (&rows)[STEPS][EACH], const T* room, int t, int k) {
    constexpr int P = Pack<T>::COUNT;
    if constexpr (Panel::WAY == DEEP) {
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const auto chunk = load_chunk<STEPS>(room + (t + i * COUNT) * Panel::STRIDE + k);
#pragma unroll
            for (int s = 0; s < STEPS; ++s) rows[s][i] = chunk.at[s];
        }
    } else {
#pragma unroll
        for (int s = 0; s < STEPS; ++s)
#pragma unroll
            for (int i = 0; i < EACH; i += P) {
                const auto pack = load_pack(room + (k + s) * Panel::STRIDE + row_of<T, FLAT, COUNT>(t, i));
#pragma unroll
                for (int j = 0; j < P; ++j) rows[s][i + j] = pack.at[j];
            }
    }
}

template <class T, int BM, int BN, int TM, int TN, Way A_WAY, Way B_WAY>
__device__ __forceinline__ void product_vectors(const Product<T>& all) {
    constexpr int P = Pack<T>::COUNT, DOWN = BM / TM, ACROSS = BN / TN, THREADS = DOWN * ACROSS;
    constexpr int LANES_ACROSS = ACROSS < 8 ? ACROSS : 8, LANES_DOWN = WARP / LANES_ACROSS;
    constexpr int DEPTH = TM * TN > 16 ? 8 : 16;  // deeper ones would take more registers than there are for two blocks
    // Steps of the depth that are loaded at once: as many as a pack has, unless that took too many registers
    constexpr bool DEEP_A = A_WAY == DEEP, DEEP_B = B_WAY == DEEP;
    constexpr int STEPS = DEEP_A && DEEP_B && TM * TN > 16 ? 2 : DEEP_A || DEEP_B ? P : 1;
    using A = Panel<T, BM, DEPTH, A_WAY, THREADS, P, A_WAY == ANY ? P : 0>;
    using B = Panel<T, BN, DEPTH, B_WAY, THREADS, P, B_WAY == ANY ? P : 0>;
    constexpr int BOTH = A::SIZE + B::SIZE, ROWS = BM * (BN + P) <= 2 * BOTH ? BM : BM / 2;
    constexpr int SIZE = 2 * BOTH > ROWS * (BN + P) ? 2 * BOTH : ROWS * (BN + P);  // for C passes through it as well
    TINYNET_SHARED(Pack<T>, packs, SIZE / P);
    T* const room = reinterpret_cast<T*>(packs);

    const Product<T> p = all.of_block();
    const Place at = tile_of_block<BM, BN>(p.m, p.n);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int y = warp / (ACROSS / LANES_ACROSS) * LANES_DOWN + lane / LANES_ACROSS;
    const int x = warp % (ACROSS / LANES_ACROSS) * LANES_ACROSS + lane % LANES_ACROSS;
    const T *a = p.a + at.row * p.a_row, *b = p.b + at.column * p.b_column;
    const int a_rows = int(min(p.m - at.row, int64(BM))), b_rows = int(min(p.n - at.column, int64(BN)));
    const auto copy = [&](int which, int64 left) {
        A::copy(room + which * BOTH, a, p.a_row, p.a_step, a_rows, left);
        B::copy(room + which * BOTH + A::SIZE, b, p.b_column, p.b_step, b_rows, left);
        close_copies();
        a += DEPTH * p.a_step, b += DEPTH * p.b_step;
    };

    T sums[TM][TN] = {};
    int which = 0;
    if (p.k > 0) copy(0, p.k);
    for (int64 left = p.k; left > 0; left -= DEPTH, which ^= 1) {
        wait_copies<0>();
        __syncthreads();  // the tile is there, and nobody reads the other one any more
        if (left > DEPTH) copy(which ^ 1, left - DEPTH);
        const T *a_tile = room + which * BOTH, *b_tile = a_tile + A::SIZE;
#pragma unroll(DEEP_A && DEEP_B ? 1 : DEPTH)
        for (int k = 0; k < DEPTH; k += STEPS) {
            T a_part[STEPS][TM], b_part[STEPS][TN];
            load_rows<A, TM, DOWN, STEPS>(a_part, a_tile, y, k);
            load_rows<B, TN, ACROSS, STEPS>(b_part, b_tile, x, k);
#pragma unroll
            for (int s = 0; s < STEPS; ++s)
#pragma unroll
                for (int i = 0; i < TM; ++i)
#pragma unroll
                    for (int j = 0; j < TN; ++j) sums[i][j] += a_part[s][i] * b_part[s][j];
        }
    }
    store_tile<BM, BN, ROWS, THREADS>(p, at, room, [&](const auto& store) {
#pragma unroll
        for (int i = 0; i < TM; ++i)
#pragma unroll
            for (int j = 0; j < TN; ++j)
                store(row_of<T, A_WAY, DOWN>(y, i), row_of<T, B_WAY, ACROSS>(x, j), sums[i][j]);
    });
}

#define VECTORS(suffix, T, BM, BN, TM, TN, LEAST, name, A, B)                              \
    PRODUCT(product_vectors_##BM##x##BN##_##name##suffix, T, BM / TM * (BN / TN), LEAST, \
            product_vectors<T, BM, BN, TM, TN, A, B>)
#define ALL_WAYS(suffix, T, BM, BN, TM, TN, LEAST, LEAST_ANY)              \
    VECTORS(suffix, T, BM, BN, TM, TN, LEAST, deep_flat, DEEP, FLAT)       \
    VECTORS(suffix, T, BM, BN, TM, TN, LEAST, deep_deep, DEEP, DEEP)       \
    VECTORS(suffix, T, BM, BN, TM, TN, LEAST, flat_flat, FLAT, FLAT)       \
    VECTORS(suffix, T, BM, BN, TM, TN, LEAST, flat_deep, FLAT, DEEP)       \
    VECTORS(suffix, T, BM, BN, TM, TN, LEAST_ANY, any_any, ANY, ANY)

ALL_WAYS(_f32, float, 128, 128, 8, 8, 2, 2)
ALL_WAYS(_f32, float, 64, 64, 4, 4, 3, 1)
ALL_WAYS(_f64, double, 64, 64, 4, 4, 2, 1)
VECTORS(_f32, float, 128, 16, 4, 4, 4, deep_any, DEEP, ANY)
VECTORS(_f32, float, 128, 16, 4, 4, 4, flat_any, FLAT, ANY)
VECTORS(_f32, float, 128, 16, 4, 4, 2, any_any, ANY, ANY)
