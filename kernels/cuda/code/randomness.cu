// Dropout with the counter-based bits of kernels/reference/random.py: Philox 4x32 with ten rounds.
//
//     out, x    n elements side by side; may be the same
//     step      one integer, read when the kernel runs
//
// Element i of the draw is word i mod 4 of the block whose counter is (i / 4, step, stream) and whose key is the seed: a
// thread computes one block, and has the four elements that it is for; of the first one `skip` come before x. Versions:
// any place of x in the draw, and (_wide) from a first word on, with x and out aligned to four elements or 16 bytes.
//
// J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
//
// Run alone: pytest tests/kernels/cuda/test_randomness.py
#include "tinynet.cuh"

constexpr int RANDOM_THREADS = 256, WORDS = 4, ROUNDS = 10;

struct Bits {
    unsigned at[WORDS];
};

__device__ __forceinline__ Bits philox(Bits counter, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const unsigned high0 = __umulhi(counter.at[0], 0xD2511F53u), low0 = counter.at[0] * 0xD2511F53u;
        const unsigned high1 = __umulhi(counter.at[2], 0xCD9E8D57u), low1 = counter.at[2] * 0xCD9E8D57u;
        counter = {{high1 ^ counter.at[1] ^ key0, low1, high0 ^ counter.at[3] ^ key1, low0}};
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return counter;
}

template <bool WIDE, class T>
__device__ __forceinline__ void dropout(
    int64 n, T* out, const T* x, const int64* step, int64 first_block, int skip, unsigned stream, unsigned key0,
    unsigned key1, unsigned least, T scale) {
    const int64 own = int64(blockIdx.x) * blockDim.x + threadIdx.x, first = own * WORDS - skip;
    if (first >= n) return;
    const uint64 block = uint64(first_block + own);
    const Bits bits = philox({{unsigned(block), unsigned(block >> 32), unsigned(*step), stream}}, key0, key1);
    if (WIDE && first + WORDS <= n) {
        constexpr int K = Pack<T>::COUNT;
#pragma unroll
        for (int start = 0; start < WORDS; start += K) {
            Pack<T> values = load_pack(x + first + start);
#pragma unroll
            for (int k = 0; k < K; ++k) values.at[k] = bits.at[start + k] >= least ? values.at[k] * scale : T(0);
            store_pack(out + first + start, values);
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < WORDS; ++k) {
        const int64 i = first + k;
        if (i >= 0 && i < n) out[i] = bits.at[k] >= least ? x[i] * scale : T(0);
    }
}

#define DROPOUT(name, T, WIDE)                                                                              \
    extern "C" __global__ void __launch_bounds__(RANDOM_THREADS) name(                                      \
        int64 n, T* out, const T* x, const int64* step, int64 first_block, int skip, unsigned stream,       \
        unsigned key0, unsigned key1, unsigned least, T scale) {                                            \
        dropout<WIDE>(n, out, x, step, first_block, skip, stream, key0, key1, least, scale);                \
    }                                                                                                       \
    TINYNET_KERNEL(name)

DROPOUT(dropout_f32, float, false)
DROPOUT(dropout_f64, double, false)
DROPOUT(dropout_wide_f32, float, true)
DROPOUT(dropout_wide_f64, double, true)
