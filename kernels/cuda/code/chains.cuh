// What generated kernels are made of: the functions of the expression language, and the ways over arrays.
//
// A chain is an expression over arrays. Its text is written by chains.py, as a struct with
//
//     Result                        the element type of what it computes
//     Place at(int64 i)             where each array is, for element i of what is kept: of the result
//     values<K>(place, i, left)     K neighbours of the expression, from element i of what is reduced on (i is 0 where
//                                   nothing is); if there are only `left` of them, the others mean nothing
//     y                             the result; place.y: where in it
//
// Reductions are the same to the bit whenever they are computed of the same shapes: parts follow from shapes alone.
#ifndef TINYNET_CHAINS
#define TINYNET_CHAINS

// ---- the functions of the language ----

#define TINYNET_FUNCTION(name, of_float, of_double)                                     \
    __device__ __forceinline__ float name(float x) { return of_float(x); }              \
    __device__ __forceinline__ double name(double x) { return of_double(x); }
TINYNET_FUNCTION(exp_of, expf, exp)
TINYNET_FUNCTION(expm1_of, expm1f, expm1)
TINYNET_FUNCTION(log_of, logf, log)
TINYNET_FUNCTION(log1p_of, log1pf, log1p)
TINYNET_FUNCTION(sqrt_of, sqrtf, sqrt)
TINYNET_FUNCTION(tanh_of, tanhf, tanh)
TINYNET_FUNCTION(erf_of, erff, erf)
TINYNET_FUNCTION(abs_of, fabsf, fabs)
__device__ __forceinline__ float power(float x, float y) { return powf(x, y); }
__device__ __forceinline__ double power(double x, double y) { return pow(x, y); }

template <class T>
struct Is {
    static constexpr bool FLOAT = T(0.5) != T(0), LOGICAL = false;
};
template <>
struct Is<bool> {
    static constexpr bool FLOAT = false, LOGICAL = true;
};

// Integers wrap around; booleans add as "or" and multiply as "and".
template <class T>
__device__ __forceinline__ T add(T a, T b) {
    if constexpr (Is<T>::LOGICAL) return a || b;
    else if constexpr (Is<T>::FLOAT) return a + b;
    else return static_cast<T>(static_cast<uint64>(a) + static_cast<uint64>(b));
}

template <class T>
__device__ __forceinline__ T subtract(T a, T b) {
    if constexpr (Is<T>::FLOAT) return a - b;
    else return static_cast<T>(static_cast<uint64>(a) - static_cast<uint64>(b));
}

template <class T>
__device__ __forceinline__ T multiply(T a, T b) {
    if constexpr (Is<T>::LOGICAL) return a && b;
    else if constexpr (Is<T>::FLOAT) return a * b;
    else return static_cast<T>(static_cast<uint64>(a) * static_cast<uint64>(b));
}

template <class T>
__device__ __forceinline__ T divide(T a, T b) {
    return a / b;
}

template <class T>
__device__ __forceinline__ T negate(T x) {
    if constexpr (Is<T>::FLOAT) return -x;
    else return subtract(T(0), x);
}

template <class T>
__device__ __forceinline__ T abs_of(T x) {
    if constexpr (T(-1) < T(0)) return x < 0 ? negate(x) : x;
    else return x;
}

template <class T>
__device__ __forceinline__ T square_of(T x) {
    return multiply(x, x);
}

// NaN where x is.
template <class T>
__device__ __forceinline__ T sign_of(T x) {
    if constexpr (T(-1) < T(0)) return x > 0 ? T(1) : x < 0 ? T(-1) : x == 0 ? T(0) : x;
    else return x != 0;
}

// x to half of TWICE.
template <int TWICE, class T>
__device__ __forceinline__ T power_of(T x) {
    if constexpr (TWICE == 0) return T(1);
    else if constexpr (TWICE == 1) return sqrt_of(x + T(0));  // the root of -0 is -0
    else if constexpr (TWICE == 2) return x;
    else if constexpr (TWICE == 4) return x * x;
    else if constexpr (TWICE == 6) return x * x * x;
    else if constexpr (TWICE == 8) return (x * x) * (x * x);
    else return T(1) / power_of<-TWICE>(x);
}

// ---- the ways over arrays ----

constexpr int CHAIN_THREADS = 256;

// a / b of numbers that are not negative; short ones in a fraction of the time.
__device__ __forceinline__ int64 quotient(int64 a, int64 b) {
    return static_cast<uint64>(a | b) >> 32 ? a / b : int64(unsigned(a) / unsigned(b));
}

// K neighbours, or those `left` that there are; of an array that does not move along them (step 0) the one for all.
template <int K, class T>
__device__ __forceinline__ Chunk<T, K> load_along(const T* from, int64 step, int64 left) {
    Chunk<T, K> chunk;
    if (K > 1 && step && left >= K) return load_chunk<K>(from);
#pragma unroll
    for (int k = 0; k < K; ++k) chunk.at[k] = k == 0 || k < left ? from[k * step] : T(0);
    return chunk;
}

// Every element of the result, K neighbours by a thread.
template <int K, class Chain>
__device__ __forceinline__ void map_chain(const Chain& chain, int64 n) {
    const int64 first = (int64(blockIdx.x) * blockDim.x + threadIdx.x) * K, left = n - first;
    if (left <= 0) return;
    const auto place = chain.at(first);
    const auto results = chain.template values<K>(place, 0, left);
    if (left >= K) {
        store_chunk(chain.y + place.y, results);
    } else {
#pragma unroll
        for (int k = 0; k < K; ++k)
            if (k < left) chain.y[place.y + k] = results.at[k];
    }
}

template <class Operator>
struct Neutral;

template <>
struct Neutral<Sum> {
    template <class T>
    static __device__ __forceinline__ T of() {
        return T(0);
    }
};

template <>
struct Neutral<Max> {
    template <class T>
    static __device__ __forceinline__ T of() {
        if constexpr (Is<T>::FLOAT) return -Element<T>::infinity();
        else return T(uint64(1) << (8 * sizeof(T) - 1));
    }
};

template <>
struct Neutral<Min> {
    template <class T>
    static __device__ __forceinline__ T of() {
        if constexpr (Is<T>::FLOAT) return Element<T>::infinity();
        else return T((uint64(1) << (8 * sizeof(T) - 1)) - 1);
    }
};

// The mean of so many, where they are counted.
template <class T>
__device__ __forceinline__ T finished(T total, int64 count) {
    if constexpr (Is<T>::FLOAT) return count ? total / T(count) : total;
    else return total;
}

// Reduces n elements, which the last axis of the chain's is one of, to each of `results` ones: LANES threads for one,
// a block's if they are so many. Blocks of grid.y share the elements, `part` for each; where they are several, their
// totals go to parts[result * gridDim.y + part].
//
// `part` is a multiple of K, and so is the last axis, unless it is the only one that is reduced.
template <int LANES, int K, class Operator, class Chain>
__device__ __forceinline__ void reduce_rows(
    const Chain& chain, int64 results, int64 n, int64 part, typename Chain::Result* parts, int64 count) {
    using T = typename Chain::Result;
    constexpr Operator combine{};
    const int64 result = int64(blockIdx.x) * (CHAIN_THREADS / LANES) + threadIdx.x / LANES;
    const int lane = threadIdx.x % LANES;
    const bool is_there = result < results;
    const auto place = chain.at(is_there ? result : 0);
    const int64 low = blockIdx.y * part, high = is_there ? (low + part < n ? low + part : n) : low;
    Chunk<T, K> total;
#pragma unroll
    for (int k = 0; k < K; ++k) total.at[k] = Neutral<Operator>::template of<T>();
    int64 i = low + lane * K;
#pragma unroll 4
    for (; i + K <= high; i += LANES * K) {
        const Chunk<T, K> found = chain.template values<K>(place, i, K);
#pragma unroll
        for (int k = 0; k < K; ++k) total.at[k] = combine(total.at[k], found.at[k]);
    }
    if (K > 1 && i < high) {  // for one thread at most
        const Chunk<T, K> found = chain.template values<K>(place, i, high - i);
#pragma unroll
        for (int k = 0; k < K; ++k)
            if (k < high - i) total.at[k] = combine(total.at[k], found.at[k]);
    }
#pragma unroll
    for (int apart = K / 2; apart; apart /= 2)
#pragma unroll
        for (int k = 0; k < apart; ++k) total.at[k] = combine(total.at[k], total.at[k + apart]);
    T whole = total.at[0];
    if constexpr (LANES <= WARP) {
        whole = warp_reduce<LANES>(whole, combine);
    } else {
        TINYNET_SHARED(T, room, CHAIN_THREADS / WARP);
        whole = block_reduce(whole, room, combine);
    }
    if (lane || !is_there) return;
    if (parts) parts[result * gridDim.y + blockIdx.y] = whole;
    else chain.y[place.y] = finished(whole, count);
}

// The same where neighbours are of different results: a block of blockDim.x of them (2^n), and blockDim.y threads for
// each. Totals of parts go to parts[part * results + result].
template <class Operator, class Chain>
__device__ __forceinline__ void reduce_columns(
    const Chain& chain, int64 results, int64 n, int64 part, typename Chain::Result* parts, int64 count) {
    using T = typename Chain::Result;
    constexpr Operator combine{};
    TINYNET_SHARED(T, room, CHAIN_THREADS);
    const int64 result = int64(blockIdx.x) * blockDim.x + threadIdx.x;
    const bool is_there = result < results;
    const auto place = chain.at(is_there ? result : 0);
    const int64 low = blockIdx.y * part, high = is_there ? (low + part < n ? low + part : n) : low;
    T total = Neutral<Operator>::template of<T>();
#pragma unroll 4
    for (int64 i = low + threadIdx.y; i < high; i += blockDim.y)
        total = combine(total, chain.template values<1>(place, i, 1).at[0]);
    T* const mine = room + threadIdx.y * blockDim.x + threadIdx.x;
    *mine = total;
    __syncthreads();
    for (int apart = blockDim.y / 2; apart; apart /= 2) {
        if (int(threadIdx.y) < apart) *mine = combine(*mine, mine[apart * blockDim.x]);
        __syncthreads();
    }
    if (threadIdx.y || !is_there) return;
    if (parts) parts[blockIdx.y * results + result] = *mine;
    else chain.y[place.y] = finished(*mine, count);
}

#endif
