// Matrix product, step 5: tensor cores.
//
//     C (m x n) = A (m x k) B (k x n), then bias, activation and mask: product.cuh. float32 in memory; operands are
//     rounded to TF32 (10 bits of fraction, to the nearest, ties away from zero) or to bf16 (7 bits, ties to even),
//     products are exact, and they are added up in float32. From compute capability 8.0 on.
//
// One instruction of a warp (tensor.cuh) multiplies 16 x 8 by 8 x 8 in TF32, or 16 x 16 by 16 x 8 in bf16.
//
// TF32: a warp has up to 64 x 64 elements of C, so that a word from shared memory serves 32 multiplications and
// additions or more. Copies run ahead by TENSOR_STAGES - 1 tiles (cp.async), and tiles are rounded when a fragment is
// taken from them. Rows are padded so that the lanes of a fragment read from 32 different banks.
//
// bf16: a thread loads its part of the next tile into registers while the warps work on this one, and rounds it on its
// way into shared memory, which then holds half as many bytes; ldmatrix takes fragments from there, four matrices of
// 8 x 8 at once, turned where the operand lies the other way. "of_bf16" has operands that are rounded already, as
// product_operands.cu makes them, and moves half as many bytes on that way, too.
//
// What it is made for: half or more of what the tensor cores of 8.0 can do. In TF32, shared memory delivers the words
// of 64 x 64 elements just as fast as they are used, and not those of smaller tiles. On 9.0 these instructions cannot
// go beyond some 60 of 100: only wgmma, which reads its operands from shared memory itself, feeds those cores.
//
// Ways of lying in memory and tiles: as in product_vectors.cu. TF32 takes its tiles from dynamic shared memory, for
// some are larger than 48 KiB: see TENSOR_STAGES, and products.py.
//
// Run alone: pytest tests/kernels/cuda/test_products.py -k tensor
#include "product.cuh"
#include "tensor.cuh"

// A block of warps: each has WM x WN elements of the BM x BN of C, in tiles of 16 x 8.
template <int BM, int BN, int WM, int WN>
struct Warps {
    static constexpr int THREADS = BM / WM * (BN / WN) * WARP, DOWN = WM / 16, ACROSS = WN / 8;
    int row, column, g, t;  // where the warp begins, and where the lane is

    __device__ __forceinline__ Warps() {
        const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        row = warp / (BN / WN) * WM, column = warp % (BN / WN) * WN, g = lane / 4, t = lane % 4;
    }

    template <class Store>
    __device__ __forceinline__ void each(const float (&sums)[DOWN][ACROSS][4], const Store& store) const {
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int j = 0; j < ACROSS; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    store(row + i * 16 + g + e / 2 * 8, column + j * 8 + 2 * t + e % 2, sums[i][j][e]);
    }
};

constexpr int TENSOR_STAGES = 3;

template <int BM, int BN, int WM, int WN, Way A_WAY, Way B_WAY>
__device__ __forceinline__ void product_tf32(const Product<float>& all) {
    using W = Warps<BM, BN, WM, WN>;
    constexpr int DEPTH = 16, THREADS = W::THREADS;
    using A = Panel<float, BM, DEPTH, A_WAY, THREADS, 4, 8>;
    using B = Panel<float, BN, DEPTH, B_WAY, THREADS, 4, 8>;
    constexpr int BOTH = A::SIZE + B::SIZE, ROWS = BM * (BN + 4) <= TENSOR_STAGES * BOTH ? BM : BM / 2;
    static_assert(ROWS * (BN + 4) <= TENSOR_STAGES * BOTH, "C passes through the memory of the tiles");
    TINYNET_DYNAMIC_SHARED(float, room);

    const Product<float> p = all.of_block();
    const Place at = tile_of_block<BM, BN>(p.m, p.n);
    const W warp;
    const float *a = p.a + at.row * p.a_row, *b = p.b + at.column * p.b_column;
    const int a_rows = int(min(p.m - at.row, int64(BM))), b_rows = int(min(p.n - at.column, int64(BN)));
    int64 left = p.k;
    const auto copy = [&](int stage) {
        if (left > 0) {
            A::copy(room + stage * BOTH, a, p.a_row, p.a_step, a_rows, left);
            B::copy(room + stage * BOTH + A::SIZE, b, p.b_column, p.b_step, b_rows, left);
            a += DEPTH * p.a_step, b += DEPTH * p.b_step, left -= DEPTH;
        }
        close_copies();  // of nothing, at the end: so that as many are waited for every time
    };

    float sums[W::DOWN][W::ACROSS][4] = {};
    for (int stage = 0; stage < TENSOR_STAGES - 1; ++stage) copy(stage);
    int stage = 0, next = TENSOR_STAGES - 1;
    for (int64 done = 0; done < p.k; done += DEPTH) {
        wait_copies<TENSOR_STAGES - 2>();
        __syncthreads();  // this tile is there, and nobody reads the one before it any more
        copy(next);
        const float *a_tile = room + stage * BOTH, *b_tile = a_tile + A::SIZE;
#pragma unroll
        for (int k = 0; k < DEPTH; k += 8) {
            unsigned a_part[W::DOWN][4], b_part[W::ACROSS][2];
#pragma unroll
            for (int i = 0; i < W::DOWN; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int row = warp.row + i * 16 + warp.g + e % 2 * 8;
                    a_part[i][e] = to_tf32(a_tile[A::index(row, k + warp.t + e / 2 * 4)]);
                }
#pragma unroll
            for (int j = 0; j < W::ACROSS; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    b_part[j][e] = to_tf32(b_tile[B::index(warp.column + j * 8 + warp.g, k + warp.t + e * 4)]);
#pragma unroll
            for (int i = 0; i < W::DOWN; ++i)
#pragma unroll
                for (int j = 0; j < W::ACROSS; ++j) multiply_add_tf32(sums[i][j], a_part[i], b_part[j]);
        }
        stage = stage + 1 == TENSOR_STAGES ? 0 : stage + 1, next = next + 1 == TENSOR_STAGES ? 0 : next + 1;
    }
    wait_copies<0>();
    store_tile<BM, BN, ROWS, THREADS>(p, at, room, [&](const auto& store) { warp.each(sums, store); });
}

// Two neighbours in bf16: rounded, unless they are that already.
__device__ __forceinline__ unsigned pair_of(float low, float high) { return to_bf16_pair(low, high); }
__device__ __forceinline__ unsigned pair_of(unsigned short low, unsigned short high) {
    return low | unsigned(high) << 16;
}

// A panel of bf16, on its way through the registers of the block's threads. S: the type in memory.
template <class S, int ROWS, int DEPTH, Way WAY, int THREADS>
struct Rounded : Panel<S, ROWS, DEPTH, WAY, THREADS, 8, 8> {
    using Base = Panel<S, ROWS, DEPTH, WAY, THREADS, 8, 8>;
    static constexpr int GROUP = WAY == ANY ? 1 : Pack<S>::COUNT, COUNT = ROWS * DEPTH / GROUP / THREADS;
    static_assert(ROWS * DEPTH % (GROUP * THREADS) == 0, "all threads do the same");
    S held[COUNT][GROUP];

    __device__ __forceinline__ void load(const S* from, int64 row_step, int64 k_step, int rows, int64 left) {
        Base::each(from, row_step, k_step, rows, left, [&](int, const S* address, int there, int number) {
            if (GROUP == there && GROUP > 1) {
                const auto pack = load_pack(address);
#pragma unroll
                for (int i = 0; i < GROUP; ++i) held[number][i] = pack.at[i];
            } else {
#pragma unroll
                for (int i = 0; i < GROUP; ++i) held[number][i] = i < there ? address[i] : S(0);
            }
        });
    }

    __device__ __forceinline__ void store(unsigned short* room, int64 k_step) const {
        Base::each_place(k_step == 1, [&](int at, int, int, int number) {
            if constexpr (GROUP == 1) {
                room[at] = static_cast<unsigned short>(pair_of(held[number][0], S(0)));
            } else {
                Chunk<unsigned, GROUP / 2> pairs;
#pragma unroll
                for (int i = 0; i < GROUP; i += 2) pairs.at[i / 2] = pair_of(held[number][i], held[number][i + 1]);
                store_chunk(reinterpret_cast<unsigned*>(room + at), pairs);
            }
        });
    }

    // Four matrices: rows and rows + 8 at k, then both at k + 8. Where they lie flat, they are turned.
    static __device__ __forceinline__ void fragment(unsigned (&to)[4], const unsigned short* room, int row, int k) {
        const int lane = threadIdx.x % WARP, matrix = lane / 8, r = lane % 8;
        row += matrix % 2 * 8, k += matrix / 2 * 8;
        if constexpr (WAY == DEEP) load_matrices<false>(to, room + Base::index(row + r, k));
        else load_matrices<true>(to, room + Base::index(row, k + r));
    }
};

template <int BM, int BN, int WM, int WN, Way A_WAY, Way B_WAY, class S>
__device__ __forceinline__ void product_bf16(const Product<float, S>& all) {
    using W = Warps<BM, BN, WM, WN>;
    constexpr int DEPTH = 32, THREADS = W::THREADS;
    using A = Rounded<S, BM, DEPTH, A_WAY, THREADS>;
    using B = Rounded<S, BN, DEPTH, B_WAY, THREADS>;
    constexpr int BOTH = A::SIZE + B::SIZE, ROWS = BM * (BN + 4) <= BOTH ? BM : BM / 2;  // 2 tiles of half a float
    constexpr int FLOATS = BOTH > ROWS * (BN + 4) ? BOTH : ROWS * (BN + 4);
    TINYNET_SHARED(Pack<float>, packs, (FLOATS + 3) / 4);
    unsigned short* const room = reinterpret_cast<unsigned short*>(packs);

    const auto p = all.of_block();
    const Place at = tile_of_block<BM, BN>(p.m, p.n);
    const W warp;
    const S *a = p.a + at.row * p.a_row, *b = p.b + at.column * p.b_column;
    const int a_rows = int(min(p.m - at.row, int64(BM))), b_rows = int(min(p.n - at.column, int64(BN)));
    A a_held;
    B b_held;
    const auto load = [&](int64 left) {
        a_held.load(a, p.a_row, p.a_step, a_rows, left);
        b_held.load(b, p.b_column, p.b_step, b_rows, left);
        a += DEPTH * p.a_step, b += DEPTH * p.b_step;
    };

    float sums[W::DOWN][W::ACROSS][4] = {};
    int which = 0;
    if (p.k > 0) load(p.k);
    for (int64 left = p.k; left > 0; left -= DEPTH, which ^= 1) {
        unsigned short *a_tile = room + which * BOTH, *b_tile = a_tile + A::SIZE;
        a_held.store(a_tile, p.a_step), b_held.store(b_tile, p.b_step);
        __syncthreads();  // the tile is there; the other one was read before the threads came here
        if (left > DEPTH) load(left - DEPTH);
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            unsigned a_part[W::DOWN][4];
#pragma unroll
            for (int i = 0; i < W::DOWN; ++i) A::fragment(a_part[i], a_tile, warp.row + i * 16, k);
#pragma unroll
            for (int j = 0; j < W::ACROSS; j += 2) {
                unsigned both[4];
                B::fragment(both, b_tile, warp.column + j * 8, k);
                const unsigned first[2] = {both[0], both[2]}, second[2] = {both[1], both[3]};
#pragma unroll
                for (int i = 0; i < W::DOWN; ++i) {
                    multiply_add_bf16(sums[i][j], a_part[i], first);
                    multiply_add_bf16(sums[i][j + 1], a_part[i], second);
                }
            }
        }
    }
    float* const c_room = reinterpret_cast<float*>(packs);
    store_tile<BM, BN, ROWS, THREADS>(p, at, c_room, [&](const auto& store) { warp.each(sums, store); });
}

#define TENSOR(what, function, operand, BM, BN, WM, WN, LEAST, name, A, B)                            \
    PRODUCT_OF(product_tensor_##what##_##BM##x##BN##_##name##_f32, float, operand,                    \
               BM / WM * (BN / WN) * WARP, LEAST, product_##function<BM, BN, WM, WN, A, B>)
#define PACKED_WAYS(what, function, operand, BM, BN, WM, WN, LEAST)                  \
    TENSOR(what, function, operand, BM, BN, WM, WN, LEAST, deep_flat, DEEP, FLAT)    \
    TENSOR(what, function, operand, BM, BN, WM, WN, LEAST, deep_deep, DEEP, DEEP)    \
    TENSOR(what, function, operand, BM, BN, WM, WN, LEAST, flat_flat, FLAT, FLAT)    \
    TENSOR(what, function, operand, BM, BN, WM, WN, LEAST, flat_deep, FLAT, DEEP)

PACKED_WAYS(tf32, tf32, float, 128, 128, 64, 64, 2)
PACKED_WAYS(tf32, tf32, float, 64, 64, 32, 32, 3)
TENSOR(tf32, tf32, float, 64, 64, 32, 32, 3, any_any, ANY, ANY)
PACKED_WAYS(bf16, bf16, float, 128, 128, 64, 32, 1)
PACKED_WAYS(bf16, bf16, float, 64, 64, 32, 32, 3)
TENSOR(bf16, bf16, float, 64, 64, 32, 32, 2, any_any, ANY, ANY)
PACKED_WAYS(of_bf16, bf16, unsigned short, 128, 128, 64, 32, 1)
PACKED_WAYS(of_bf16, bf16, unsigned short, 64, 64, 32, 32, 3)
TENSOR(of_bf16, bf16, unsigned short, 64, 64, 32, 32, 2, any_any, ANY, ANY)
