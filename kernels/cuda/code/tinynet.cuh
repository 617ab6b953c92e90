// What the kernels share: element types, loads of 16 bytes, reductions of warps and blocks.
//
// For CUDA 12 and 13, compute capability 7.5 and later, by nvcc or nvrtc, C++17, no other header; and for g++ where
// TINYNET_HARNESS is defined (tests/kernels/cuda), which has the words of CUDA in harness.hpp.
//
// Arrays of shared memory are declared by TINYNET_SHARED(type, name, count) and TINYNET_DYNAMIC_SHARED(type, name), and
// are pointers. An entry point is named once more by TINYNET_KERNEL(name).
#ifndef TINYNET_CUH
#define TINYNET_CUH

#ifdef TINYNET_HARNESS
#include "harness.hpp"
#else
#define TINYNET_KERNEL(name)
#define TINYNET_SHARED(type, name, count) __shared__ type name[count]
#define TINYNET_DYNAMIC_SHARED(type, name)                          \
    extern __shared__ __align__(16) unsigned char tinynet_dynamic[]; \
    type* const name = reinterpret_cast<type*>(tinynet_dynamic)
#endif

typedef long long int64;
typedef unsigned long long uint64;

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARP = 32;

// ---- element types ----

template <class T>
struct Element;

template <>
struct Element<float> {
    static __device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
};

template <>
struct Element<double> {
    static __device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }
};

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }

// An integer of any type, at an index: `kind` is its bytes, and 16 more where it has no sign. Those of 2^63 and more
// come out negative.
__device__ __forceinline__ int64 integer_at(const void* p, int64 i, int kind) {
    switch (kind) {
        case 8: case 24: return static_cast<const int64*>(p)[i];
        case 4: return static_cast<const int*>(p)[i];
        case 20: return static_cast<const unsigned*>(p)[i];
        case 2: return static_cast<const short*>(p)[i];
        case 18: return static_cast<const unsigned short*>(p)[i];
        case 1: return static_cast<const signed char*>(p)[i];
        default: return static_cast<const unsigned char*>(p)[i];
    }
}

// ---- several elements at once ----

// K neighbours, loaded and stored as one: their address is a multiple of their size.
template <class T, int K>
struct alignas(K * sizeof(T)) Chunk {
    static constexpr int COUNT = K;
    T at[K];
};

// 16 bytes, the widest load there is.
template <class T>
using Pack = Chunk<T, 16 / sizeof(T)>;

template <int K, class T>
__device__ __forceinline__ Chunk<T, K> load_chunk(const T* from) {
    return *reinterpret_cast<const Chunk<T, K>*>(from);
}

template <class T, int K>
__device__ __forceinline__ void store_chunk(T* to, const Chunk<T, K>& chunk) {
    *reinterpret_cast<Chunk<T, K>*>(to) = chunk;
}

template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* from) {
    return load_chunk<Pack<T>::COUNT>(from);
}

template <class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack) {
    store_chunk(to, pack);
}

// ---- reductions ----

struct Sum {
    template <class T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a + b;
    }
};

// The larger one; NaN where one is NaN.
struct Max {
    template <class T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a > b || a != a ? a : b;
    }
};

struct Min {
    template <class T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a < b || a != a ? a : b;
    }
};

// The shuffles of CUDA for all lanes of a warp and for values of any size, word by word.
template <class T>
union Words {
    T value;
    unsigned at[sizeof(T) / 4];
};

#define TINYNET_SHUFFLE_OF(name, shuffle)                                                         \
    template <class T>                                                                            \
    __device__ __forceinline__ T name(const T& value, int by) {                                   \
        Words<T> words;                                                                           \
        words.value = value;                                                                      \
        _Pragma("unroll") for (unsigned i = 0; i < sizeof(T) / 4; ++i) words.at[i] =              \
            shuffle(ALL_LANES, words.at[i], by);                                                  \
        return words.value;                                                                       \
    }
TINYNET_SHUFFLE_OF(from_lane, __shfl_sync)
TINYNET_SHUFFLE_OF(from_lane_xor, __shfl_xor_sync)
TINYNET_SHUFFLE_OF(from_lane_above, __shfl_down_sync)

// Of the LANES neighbours that a lane belongs to; all of them get the same result, to the bit, for a commutative
// `combine`. All lanes of the warp have to come.
template <int LANES = WARP, class T, class Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
#pragma unroll
    for (int apart = LANES / 2; apart; apart /= 2)
        value = combine(value, from_lane_xor(value, apart));
    return value;
}

template <int LANES = WARP, class T>
__device__ __forceinline__ T warp_sum(T value) {
    return warp_reduce<LANES>(value, Sum());
}

template <int LANES = WARP, class T>
__device__ __forceinline__ T warp_max(T value) {
    return warp_reduce<LANES>(value, Max());
}

// Of all threads of a block of one dimension, whole warps; all get the result. `room` is shared memory for one T of
// each warp, which is free again when the block has passed its next barrier.
template <class T, class Combine>
__device__ __forceinline__ T block_reduce(T value, T* room, Combine combine) {
    const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    value = warp_reduce(value, combine);
    if (lane == 0) room[warp] = value;
    __syncthreads();
    value = room[lane < warps ? lane : 0];
    for (int i = 1; i < warps; i *= 2) {
        const T other = from_lane_above(value, i);
        if (lane + i < warps && lane % (2 * i) == 0) value = combine(value, other);
    }
    return from_lane(value, 0);
}

template <class T>
__device__ __forceinline__ T block_sum(T value, T* room) {
    return block_reduce(value, room, Sum());
}

template <class T>
__device__ __forceinline__ T block_max(T value, T* room) {
    return block_reduce(value, room, Max());
}

// ---- copies from global to shared memory that pass the registers by ----

// 16 bytes, of which the last `zeros` are not read but zero. Copies are waited for in groups, in the order in which the
// groups are closed; then a barrier shows them to the other threads. Before 8.0 they are made at once.
__device__ __forceinline__ void copy_later(void* to, const void* from, int zeros = 0) {
#if defined(TINYNET_HARNESS)
    harness::copy_later(to, from, 16 - zeros, zeros);
#elif __CUDA_ARCH__ >= 800
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(16 - zeros) : "memory");
#else
    alignas(16) unsigned char bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = i < 16 - zeros ? static_cast<const unsigned char*>(from)[i] : 0;
    *static_cast<Pack<float>*>(to) = *reinterpret_cast<const Pack<float>*>(bytes);
#endif
}

__device__ __forceinline__ void close_copies() {
#if defined(TINYNET_HARNESS)
    harness::close_copies();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until no more than LEFT groups of this thread are on their way.
template <int LEFT>
__device__ __forceinline__ void wait_copies() {
#if defined(TINYNET_HARNESS)
    harness::wait_copies(LEFT);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

#endif
