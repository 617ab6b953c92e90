// CUDA's words for g++, so that the .cu files run as they are on a processor: what tinynet.cuh includes where
// TINYNET_HARNESS is defined. The machine itself is in harness.cpp: it runs a block's threads as fibers, and it sees
// every load and store of the kernels, because the compiler calls it there (-fsanitize=thread, whose library is not
// linked).
//
// Warps are real: what lanes exchange goes through `gather`, which waits until every lane of the mask has come.
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace harness {

struct Index {
    unsigned x, y, z;
};

Index thread_index();
Index block_index();
Index block_size();
Index grid_size();

// Waits for all threads of the block. A barrier is the line that it stands in.
void barrier(const char* file, int line);
// Gives each lane of the mask what all of them show: all[lane] = *mine, `size` bytes each.
void gather(unsigned mask, const void* mine, void* all, size_t size, const char* file, int line);
// Orders the memory of the lanes of the mask.
void sync_warp(unsigned mask, const char* file, int line);
unsigned lane();
// The block's memory for the array declared at `site`.
void* shared(const void* site, size_t bytes, size_t alignment, const char* name);
void* dynamic_shared();
// Copies that another thread cannot see before they are waited for; in groups, as cp.async has them.
void copy_later(void* to, const void* from, size_t size, size_t zeros);
void close_copies();
void wait_copies(size_t groups_left);
void fence();
// Between them loads and stores are those of one atomic operation.
void begin_atomic();
void end_atomic();
[[noreturn]] void fail(const char* fault);

// ---- kernels by name, with the types of their parameters: p pointer, q Q i I integers, f d numbers ----

struct Entry {
    Entry(const char* name, const char* types, void (*call)(const uint64_t*));
};

template <class P>
constexpr char code() {
    if constexpr (std::is_pointer_v<P>) return 'p';
    else if constexpr (std::is_same_v<P, long long>) return 'q';
    else if constexpr (std::is_same_v<P, unsigned long long>) return 'Q';
    else if constexpr (std::is_same_v<P, int>) return 'i';
    else if constexpr (std::is_same_v<P, unsigned>) return 'I';
    else if constexpr (std::is_same_v<P, float>) return 'f';
    else if constexpr (std::is_same_v<P, double>) return 'd';
    else static_assert(!sizeof(P), "a kernel takes pointers, long long, int, float and double");
}

template <class P>
P argument(const uint64_t& word) {
    P value;
    memcpy(&value, &word, sizeof value);
    return value;
}

template <auto F>
struct Kernel;

template <class... P, void (*F)(P...)>
struct Kernel<F> {
    static constexpr char types[] = {code<P>()..., 0};
    static void call(const uint64_t* words) {
        [words]<size_t... I>(std::index_sequence<I...>) { F(argument<P>(words[I])...); }
        (std::index_sequence_for<P...>());
    }
};

}  // namespace harness

#define TINYNET_KERNEL(name) \
    static harness::Entry registered_##name(#name, harness::Kernel<&name>::types, &harness::Kernel<&name>::call);
#define TINYNET_SHARED(type, name, count)       \
    static const char shared_##name##_site = 0; \
    type* const name =                          \
        static_cast<type*>(harness::shared(&shared_##name##_site, sizeof(type) * (count), alignof(type), #name))
#define TINYNET_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(harness::dynamic_shared())

// ---- the language ----

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define threadIdx (harness::thread_index())
#define blockIdx (harness::block_index())
#define blockDim (harness::block_size())
#define gridDim (harness::grid_size())
constexpr int warpSize = 32;

#define TINYNET_VECTOR(type, name, alignment)                                  \
    struct alignas(alignment / 2) name##2 { type x, y; };                      \
    struct alignas(alignment) name##4 { type x, y, z, w; };                    \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }           \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
TINYNET_VECTOR(float, float, 16)
TINYNET_VECTOR(int, int, 16)
TINYNET_VECTOR(unsigned, uint, 16)
struct alignas(16) double2 { double x, y; };
inline double2 make_double2(double x, double y) { return {x, y}; }

// ---- barriers and warps ----

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    harness::barrier(file, line);
}
inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    harness::sync_warp(mask, file, line);
}

namespace harness {

// What lane `from` of this lane's group of `width` shows; its own value where that is no lane of the group.
template <class T>
T shuffled(unsigned mask, T value, int from, int width, const char* file, int line) {
    T all[32];
    gather(mask, &value, all, sizeof(T), file, line);
    const int first = lane() / width * width;
    if (from < first || from >= first + width) return value;
    if (!(mask >> from & 1)) fail("reads from a lane that is not in the mask");
    return all[from];
}

}  // namespace harness

#define TINYNET_SHUFFLE(name, parameter, from)                                                        \
    template <class T>                                                                                \
    T __shfl##name##_sync(unsigned mask, T value, int parameter, int width = 32,                      \
                          const char* file = __builtin_FILE(), int line = __builtin_LINE()) {         \
        const int lane = harness::lane(), first = lane / width * width;                               \
        (void)lane, (void)first;                                                                      \
        return harness::shuffled(mask, value, from, width, file, line);                               \
    }
TINYNET_SHUFFLE(, source, first + (source & (width - 1)))
TINYNET_SHUFFLE(_up, delta, lane - delta)
TINYNET_SHUFFLE(_down, delta, lane + delta)
TINYNET_SHUFFLE(_xor, bits, lane ^ bits)

inline unsigned __ballot_sync(
    unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    int all[32];
    harness::gather(mask, &predicate, all, sizeof(int), file, line);
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= unsigned((mask >> i & 1) && all[i]) << i;
    return bits;
}
inline int __any_sync(
    unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(
    unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}

inline void __threadfence() { harness::fence(); }
inline void __threadfence_block() {}

// Of integers only: the order in which blocks come changes a sum of floating-point numbers.
#define TINYNET_ATOMIC(name, result)                                                    \
    template <class T>                                                                  \
    T name(T* at, std::type_identity_t<T> value) {                                      \
        static_assert(std::is_integral_v<T>, "no atomics in floating point");           \
        harness::begin_atomic();                                                        \
        const T old = *at;                                                              \
        *at = result;                                                                   \
        harness::end_atomic();                                                          \
        return old;                                                                     \
    }
TINYNET_ATOMIC(atomicAdd, old + value)
TINYNET_ATOMIC(atomicMax, old > value ? old : value)
TINYNET_ATOMIC(atomicMin, old < value ? old : value)
TINYNET_ATOMIC(atomicOr, old | value)
TINYNET_ATOMIC(atomicExch, value)
TINYNET_ATOMIC(atomicInc, old >= value ? 0 : old + 1)

// ---- functions that CUDA has and C++ has not ----

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, const std::type_identity_t<T>& value) { *p = value; }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)(a) * b >> 64);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
template <class T> requires std::is_arithmetic_v<T> constexpr T min(T a, T b) { return b < a ? b : a; }
template <class T> requires std::is_arithmetic_v<T> constexpr T max(T a, T b) { return a < b ? b : a; }
