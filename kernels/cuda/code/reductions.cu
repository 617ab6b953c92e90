// What follows a reduction in parts, whose kernel is written by chains.py: puts together what the parts have come to.
//
//     combine_rows       x[results][parts], a block for each result
//     combine_columns    x[parts][results], blocks of columns side by side
//     y                  the results, `step` elements apart; divided by `count` unless it is 0
//
// For sum, max and min; NaN comes through. And the place of the largest of n, the first of equals, or of the first NaN:
//
//     argmax             x with strides over what is kept (outer and inner) and what is reduced; LANES threads for one
//
// Run alone: pytest tests/kernels/cuda/test_reductions.py
#include "tinynet.cuh"
#include "chains.cuh"

// An array of two axes as a chain: the one that is kept, and the one that is reduced.
template <class T>
struct Table {
    using Result = T;
    T* y;
    int64 step;
    const T* x;
    int64 kept, reduced;
    struct Place {
        int64 y, x;
    };
    __device__ __forceinline__ Place at(int64 i) const { return {i * step, i * kept}; }
    template <int K>
    __device__ __forceinline__ Chunk<T, K> values(const Place& place, int64 i, int64 left) const {
        return load_along<K>(x + place.x + i * reduced, reduced, left);
    }
};

#define COMBINE(operator_name, Operator, suffix, T)                                                             \
    extern "C" __global__ void __launch_bounds__(CHAIN_THREADS) combine_rows_##operator_name##suffix(           \
        T* y, int64 step, const T* x, int64 results, int64 parts, int64 count) {                                \
        const Table<T> table = {y, step, x, parts, 1};                                                          \
        reduce_rows<CHAIN_THREADS, 1, Operator>(table, results, parts, parts, nullptr, count);                  \
    }                                                                                                           \
    TINYNET_KERNEL(combine_rows_##operator_name##suffix)                                                        \
    extern "C" __global__ void __launch_bounds__(CHAIN_THREADS) combine_columns_##operator_name##suffix(        \
        T* y, int64 step, const T* x, int64 results, int64 parts, int64 count) {                                \
        const Table<T> table = {y, step, x, 1, results};                                                        \
        reduce_columns<Operator>(table, results, parts, parts, nullptr, count);                                 \
    }                                                                                                           \
    TINYNET_KERNEL(combine_columns_##operator_name##suffix)
#define ALL(suffix, T)            \
    COMBINE(sum, Sum, suffix, T)  \
    COMBINE(max, Max, suffix, T)  \
    COMBINE(min, Min, suffix, T)

// ---- the place of the largest ----

template <class T>
struct Ranked {
    T value;
    int64 at;  // -1: nowhere
};

struct Larger {
    template <class T>
    __device__ __forceinline__ Ranked<T> operator()(const Ranked<T>& a, const Ranked<T>& b) const {
        if (a.at < 0 || b.at < 0) return a.at < 0 ? b : a;
        const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
        const bool equal = a_is_nan || b_is_nan ? a_is_nan == b_is_nan : a.value == b.value;
        if (equal) return a.at < b.at ? a : b;
        return a_is_nan || (!b_is_nan && a.value > b.value) ? a : b;
    }
};

template <int LANES, class T>
__device__ __forceinline__ void argmax(
    int64* y, const T* x, int64 results, int64 n, int64 inner, int64 outer_step, int64 inner_step, int64 step) {
    const int64 result = int64(blockIdx.x) * (CHAIN_THREADS / LANES) + threadIdx.x / LANES;
    const int lane = threadIdx.x % LANES;
    const bool is_there = result < results;
    const int64 outer = is_there ? quotient(result, inner) : 0, within = is_there ? result - outer * inner : 0;
    x += outer * outer_step + within * inner_step;
    Ranked<T> found = {T(0), -1};
    for (int64 i = lane; is_there && i < n; i += LANES) found = Larger()(found, Ranked<T>{x[i * step], i});
    if constexpr (LANES <= WARP) {
        found = warp_reduce<LANES>(found, Larger());
    } else {
        TINYNET_SHARED(Ranked<T>, room, CHAIN_THREADS / WARP);
        found = block_reduce(found, room, Larger());
    }
    if (is_there && lane == 0) y[result] = found.at;
}

// ---- entry points ----

#define ARGMAX(name, LANES, T)                                                                                  \
    extern "C" __global__ void __launch_bounds__(CHAIN_THREADS) name(                                           \
        int64* y, const T* x, int64 results, int64 n, int64 inner, int64 outer_step, int64 inner_step,          \
        int64 step) {                                                                                           \
        argmax<LANES>(y, x, results, n, inner, outer_step, inner_step, step);                                   \
    }                                                                                                           \
    TINYNET_KERNEL(name)

ARGMAX(argmax_warp_f32, WARP, float)
ARGMAX(argmax_warp_f64, WARP, double)
ARGMAX(argmax_block_f32, CHAIN_THREADS, float)
ARGMAX(argmax_block_f64, CHAIN_THREADS, double)
ALL(_f32, float)
ALL(_f64, double)
ALL(_i32, int)
ALL(_i64, int64)
