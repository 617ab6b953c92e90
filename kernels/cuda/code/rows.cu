// Kernels that work on rows: softmax and its logarithm, cross-entropy of softmax with its gradient, layer norm.
//
//     x, out, grad, t: rows of n elements that lie side by side; from row to row x_row, out_row, ... elements
//     losses, g: one element for each row, loss_row and g_row elements apart
//
// Versions: a row of up to 1024 elements is kept in the registers of some lanes of a warp, which read it once; a longer
// one is worked on by a block, which reads it twice: for what has to be known of the whole row, the peak and the sum of
// the exponentials together or the mean and the variance together, and again for the results, when it still lies in the
// cache. Wide versions load 16 bytes at once; rows have to begin at a multiple of that.
//
// Where a row has a NaN, an infinity above, or nothing but -inf, its softmax is NaN throughout.
//
// Run alone: pytest tests/kernels/cuda/test_rows.py
#include "tinynet.cuh"

// ---- short rows: in registers ----

// The rows of a block of warps, and this lane's part of its row: the elements lane + LANES * i.
template <int LANES, int EACH>
struct Part {
    int64 row;
    int lane, n;
    bool is_there;

    // All lanes have to come to the reductions, so that those beyond the last row go on as if theirs were empty.
    __device__ __forceinline__ Part(int64 rows, int64 length) {
        row = int64(blockIdx.x) * (blockDim.x / LANES) + threadIdx.x / LANES;
        lane = threadIdx.x % LANES;
        is_there = row < rows;
        n = is_there ? int(length) : 0;
    }

    // use(i, place) for the elements that there are; those of a step that no lane has are passed over together.
    template <class Use>
    __device__ __forceinline__ void each(Use use) const {
#pragma unroll
        for (int i = 0; i < EACH; ++i)
            if (lane + LANES * i < n) use(i, lane + LANES * i);
    }
};

template <class T, int LANES, int EACH>
__device__ __forceinline__ T peak_of(const T (&held)[EACH], const Part<LANES, EACH>& part) {
    T found = -Element<T>::infinity();
    part.each([&](int i, int) { found = Max()(found, held[i]); });
    return warp_max<LANES>(found);
}

template <class T, int LANES, int EACH>
__device__ __forceinline__ void softmax_short(
    T* out, int64 out_row, const T* x, int64 x_row, bool logarithmic, int64 rows, int64 n) {
    const Part<LANES, EACH> part(rows, n);
    T held[EACH];
    x += part.row * x_row, out += part.row * out_row;
    part.each([&](int i, int at) { held[i] = x[at]; });
    const T peak = peak_of(held, part);
    T sum = 0;
    part.each([&](int i, int) {
        const T shifted = held[i] - peak, e = exponential(shifted);
        held[i] = logarithmic ? shifted : e;
        sum += e;
    });
    sum = warp_sum<LANES>(sum);
    const T last = logarithmic ? logarithm(sum) : 1 / sum;
    part.each([&](int i, int at) { out[at] = logarithmic ? held[i] - last : held[i] * last; });
}

// What the versions of cross-entropy take. Without losses, or without grad, there is no such result. `grad` may be `x`.
template <class T>
struct Entropy {
    T* losses;
    int64 loss_row;
    T* grad;
    int64 grad_row;
    const T* x;
    int64 x_row;
    const void* target;  // T: probabilities; or a class for each row, of the integer type `kind`
    int64 target_row;
    const T* g;
    int64 g_row;
    int kind;

    // The class of a row, -1 if it is none of n.
    __device__ __forceinline__ int64 class_of(int64 row, int64 n) const {
        const int64 found = integer_at(target, row * target_row, kind);
        return found >= 0 && found < n ? found : -1;
    }

    __device__ __forceinline__ const T* weights(int64 row) const {
        return static_cast<const T*>(target) + row * target_row;
    }
};

// A class without probability is no part of the loss, however impossible the logits make it.
template <class T>
__device__ __forceinline__ T loss_of(T weight, T log_probability) {
    return weight == 0 ? T(0) : -weight * log_probability;
}

template <class T, int LANES, int EACH>
__device__ __forceinline__ void entropy_indices_short(Entropy<T> a, int64 rows, int64 n) {
    const Part<LANES, EACH> part(rows, n);
    const int64 index = part.is_there ? a.class_of(part.row, n) : -1;
    const T* const x = a.x + part.row * a.x_row;
    T held[EACH], sum = 0, at_class = 0;
    part.each([&](int i, int at) { held[i] = x[at]; });
    const T peak = peak_of(held, part);
    part.each([&](int i, int at) {
        const T shifted = held[i] - peak;
        if (at == index) at_class = shifted;
        held[i] = exponential(shifted);
        sum += held[i];
    });
    sum = warp_sum<LANES>(sum);
    at_class = __shfl_sync(ALL_LANES, at_class, int(index) & (LANES - 1), LANES);
    if (a.losses && part.is_there && part.lane == 0)
        a.losses[part.row * a.loss_row] = index < 0 ? T(0) : logarithm(sum) - at_class;
    if (!a.grad || !part.is_there) return;
    const T factor = T(index >= 0) / sum, slope = a.g[part.row * a.g_row];
    T* const grad = a.grad + part.row * a.grad_row;
    part.each([&](int i, int at) { grad[at] = (held[i] * factor - T(at == index)) * slope; });
}

template <class T, int LANES, int EACH>
__device__ __forceinline__ void entropy_rows_short(Entropy<T> a, int64 rows, int64 n) {
    const Part<LANES, EACH> part(rows, n);
    const T* const x = a.x + part.row * a.x_row;
    const T* const t = a.weights(part.row);
    T held[EACH], weights[EACH], sum = 0, weight = 0, loss = 0;
    part.each([&](int i, int at) { held[i] = x[at], weights[i] = t[at]; });
    const T peak = peak_of(held, part);
    part.each([&](int i, int) {
        held[i] -= peak;
        sum += exponential(held[i]);
        weight += weights[i];
    });
    sum = warp_sum<LANES>(sum), weight = warp_sum<LANES>(weight);
    if (a.losses) {
        const T log_sum = logarithm(sum);
        part.each([&](int i, int) { loss += loss_of(weights[i], held[i] - log_sum); });
        loss = warp_sum<LANES>(loss);
        if (part.is_there && part.lane == 0) a.losses[part.row * a.loss_row] = loss;
    }
    if (!a.grad || !part.is_there) return;
    const T factor = weight / sum, slope = a.g[part.row * a.g_row];
    T* const grad = a.grad + part.row * a.grad_row;
    part.each([&](int i, int at) { grad[at] = (exponential(held[i]) * factor - weights[i]) * slope; });
}

// The mean is taken off twice: what its rounding has left is gone then.
template <class T, int LANES, int EACH>
__device__ __forceinline__ void layer_norm_short(
    T* out, int64 out_row, const T* x, int64 x_row, const T* gain, const T* bias, T eps, int64 rows, int64 n) {
    const Part<LANES, EACH> part(rows, n);
    T held[EACH], sum = 0, squares = 0;
    x += part.row * x_row, out += part.row * out_row;
    part.each([&](int i, int at) { held[i] = x[at], sum += held[i]; });
    const T share = T(1) / T(n), mean = warp_sum<LANES>(sum) * share;
    sum = 0;
    part.each([&](int i, int) {
        held[i] -= mean;
        sum += held[i], squares += held[i] * held[i];
    });
    const T drift = warp_sum<LANES>(sum) * share;
    const T variance = warp_sum<LANES>(squares) * share - drift * drift;
    const T scale = 1 / square_root(variance + eps);
    part.each([&](int i, int at) { out[at] = (held[i] - drift) * scale * gain[at] + bias[at]; });
}

// ---- long rows: by a block ----

constexpr int MOST_WARPS = 32;  // of a block

// Calls use(values, first) with the elements of a row from `first` on of each input, which are chunks of 16 bytes where
// the rows are WIDE, and single elements. Several chunks are on their way at a time.
template <bool WIDE, int INPUTS, class T, class Use>
__device__ __forceinline__ void walk(const T* const (&inputs)[INPUTS], int64 n, Use use) {
    constexpr int K = WIDE ? Pack<T>::COUNT : 1, AT_ONCE = 4 / INPUTS;
    const int64 chunks = n / K;
    for (int64 start = threadIdx.x; start < chunks; start += AT_ONCE * blockDim.x) {
        Chunk<T, K> values[AT_ONCE][INPUTS];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i)
#pragma unroll
            for (int j = 0; j < INPUTS; ++j)
                if (start + i * blockDim.x < chunks)
                    values[i][j] = load_chunk<K>(inputs[j] + (start + i * blockDim.x) * K);
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i)
            if (start + i * blockDim.x < chunks) use(values[i], (start + i * blockDim.x) * K);
    }
    const int64 rest = chunks * K + threadIdx.x;
    if (K > 1 && rest < n) {
        Chunk<T, 1> values[INPUTS];
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) values[j] = load_chunk<1>(inputs[j] + rest);
        use(values, rest);
    }
}

// The largest of some elements, and the sum of exp(x - peak). Of no elements: -inf and 0.
template <class T>
struct Exponentials {
    T peak, sum;

    template <int K>
    __device__ __forceinline__ void add(const Chunk<T, K>& x) {
        T larger = peak;
#pragma unroll
        for (int i = 0; i < K; ++i) larger = Max()(larger, x.at[i]);
        if (larger == -Element<T>::infinity()) return;  // of nothing but -inf, whose difference is none
        if (larger != peak) sum *= exponential(peak - larger);
        peak = larger;
#pragma unroll
        for (int i = 0; i < K; ++i) sum += exponential(x.at[i] - larger);
    }
};

struct Merge {
    template <class T>
    __device__ __forceinline__ Exponentials<T> operator()(const Exponentials<T>& a, const Exponentials<T>& b) const {
        const T peak = Max()(a.peak, b.peak);
        const T one = a.peak == peak ? a.sum : a.sum * exponential(a.peak - peak);
        const T other = b.peak == peak ? b.sum : b.sum * exponential(b.peak - peak);
        return {peak, one + other};
    }
};

template <class T, bool WIDE>
__device__ __forceinline__ void softmax_long(
    T* out, int64 out_row, const T* x, int64 x_row, bool logarithmic, int64 n) {
    TINYNET_SHARED(Exponentials<T>, room, MOST_WARPS);
    x += blockIdx.x * x_row, out += blockIdx.x * out_row;
    const T* const inputs[] = {x};
    Exponentials<T> found = {-Element<T>::infinity(), 0};
    walk<WIDE>(inputs, n, [&](const auto& values, int64) { found.add(values[0]); });
    found = block_reduce(found, room, Merge());
    const T last = logarithmic ? logarithm(found.sum) : 1 / found.sum;
    walk<WIDE>(inputs, n, [&](const auto& values, int64 first) {
        auto results = values[0];
#pragma unroll
        for (int i = 0; i < results.COUNT; ++i) {
            const T shifted = results.at[i] - found.peak;
            results.at[i] = logarithmic ? shifted - last : exponential(shifted) * last;
        }
        store_chunk(out + first, results);
    });
}

template <class T, bool WIDE>
__device__ __forceinline__ void entropy_indices_long(Entropy<T> a, int64 n) {
    TINYNET_SHARED(Exponentials<T>, room, MOST_WARPS);
    const int64 row = blockIdx.x, index = a.class_of(row, n);
    const T* const x = a.x + row * a.x_row;
    const T* const inputs[] = {x};
    const T at_class = threadIdx.x == 0 && index >= 0 ? x[index] : T(0);  // before the gradient is written over it
    Exponentials<T> found = {-Element<T>::infinity(), 0};
    walk<WIDE>(inputs, n, [&](const auto& values, int64) { found.add(values[0]); });
    found = block_reduce(found, room, Merge());
    if (a.losses && threadIdx.x == 0)
        a.losses[row * a.loss_row] = index < 0 ? T(0) : logarithm(found.sum) - (at_class - found.peak);
    if (!a.grad) return;
    const T factor = T(index >= 0) / found.sum, slope = a.g[row * a.g_row];
    T* const grad = a.grad + row * a.grad_row;
    walk<WIDE>(inputs, n, [&](const auto& values, int64 first) {
        auto results = values[0];
#pragma unroll
        for (int i = 0; i < results.COUNT; ++i)
            results.at[i] = (exponential(results.at[i] - found.peak) * factor - T(first + i == index)) * slope;
        store_chunk(grad + first, results);
    });
}

template <class T, bool WIDE>
__device__ __forceinline__ void entropy_rows_long(Entropy<T> a, int64 n) {
    TINYNET_SHARED(Exponentials<T>, room, MOST_WARPS);
    TINYNET_SHARED(T, weight_room, MOST_WARPS);
    TINYNET_SHARED(T, loss_room, MOST_WARPS);
    const int64 row = blockIdx.x;
    const T* const inputs[] = {a.x + row * a.x_row, a.weights(row)};
    Exponentials<T> found = {-Element<T>::infinity(), 0};
    T weight = 0, loss = 0;
    walk<WIDE>(inputs, n, [&](const auto& values, int64) {
        found.add(values[0]);
#pragma unroll
        for (int i = 0; i < values[1].COUNT; ++i) weight += values[1].at[i];
    });
    found = block_reduce(found, room, Merge());
    weight = block_sum(weight, weight_room);
    const T log_sum = logarithm(found.sum), factor = weight / found.sum, slope = a.grad ? a.g[row * a.g_row] : T(0);
    T* const grad = a.grad + row * a.grad_row;
    walk<WIDE>(inputs, n, [&](const auto& values, int64 first) {
        auto results = values[0];
#pragma unroll
        for (int i = 0; i < results.COUNT; ++i) {
            const T shifted = results.at[i] - found.peak, t = values[1].at[i];
            if (a.losses) loss += loss_of(t, shifted - log_sum);
            results.at[i] = (exponential(shifted) * factor - t) * slope;
        }
        if (a.grad) store_chunk(grad + first, results);
    });
    if (!a.losses) return;
    loss = block_sum(loss, loss_room);
    if (threadIdx.x == 0) a.losses[row * a.loss_row] = loss;
}

// Mean of some numbers, and the sum of the squares of their distances from it: Welford's way, a chunk at a time, and
// Chan's to put two of them together.
template <class T>
struct Moments {
    T count, mean, squares;
};

struct Join {
    template <class T>
    __device__ __forceinline__ Moments<T> operator()(const Moments<T>& a, const Moments<T>& b) const {
        const T count = a.count + b.count, share = count > 0 ? b.count / count : T(0), apart = b.mean - a.mean;
        return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
    }
};

// The first element is taken off all others: so the mean is of the size of the differences, and none of them is lost.
template <class T, bool WIDE>
__device__ __forceinline__ void layer_norm_long(
    T* out, int64 out_row, const T* x, int64 x_row, const T* gain, const T* bias, T eps, int64 n) {
    TINYNET_SHARED(Moments<T>, room, MOST_WARPS);
    x += blockIdx.x * x_row, out += blockIdx.x * out_row;
    const T* const alone[] = {x};
    const T* const inputs[] = {x, gain, bias};
    const T first_of_row = x[0];
    Moments<T> found = {0, 0, 0};
    walk<WIDE>(alone, n, [&](const auto& values, int64) {
        constexpr int K = sizeof(values[0]) / sizeof(T);
        Moments<T> chunk = {K, 0, 0};
        T difference[K];
#pragma unroll
        for (int i = 0; i < K; ++i) difference[i] = values[0].at[i] - first_of_row, chunk.mean += difference[i];
        chunk.mean *= T(1) / K;
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T apart = difference[i] - chunk.mean;
            chunk.squares += apart * apart;
        }
        found = Join()(found, chunk);
    });
    found = block_reduce(found, room, Join());
    const T scale = 1 / square_root(found.squares / T(n) + eps);
    walk<WIDE>(inputs, n, [&](const auto& values, int64 first) {
        auto results = values[0];
#pragma unroll
        for (int i = 0; i < results.COUNT; ++i) {
            const T normal = (results.at[i] - first_of_row - found.mean) * scale;
            results.at[i] = normal * values[1].at[i] + values[2].at[i];
        }
        store_chunk(out + first, results);
    });
}

// ---- entry points: one for each version, its name and the type ----

constexpr int SHORT_THREADS = 128, LONG_THREADS = 512;

#define TAKES_softmax T *out, int64 out_row, const T *x, int64 x_row, int logarithmic
#define GIVES_softmax out, out_row, x, x_row, logarithmic
#define TAKES_entropy_indices                                                                                  \
    T *losses, int64 loss_row, T *grad, int64 grad_row, const T *x, int64 x_row, const void *target,           \
        int64 target_row, const T *g, int64 g_row, int kind
#define GIVES_entropy_indices \
    Entropy<T> { losses, loss_row, grad, grad_row, x, x_row, target, target_row, g, g_row, kind }
#define TAKES_entropy_rows TAKES_entropy_indices
#define GIVES_entropy_rows GIVES_entropy_indices
#define TAKES_layer_norm T *out, int64 out_row, const T *x, int64 x_row, const T *gain, const T *bias, T eps
#define GIVES_layer_norm out, out_row, x, x_row, gain, bias, eps

// One block of a multiprocessor is enough: asked for less, the compiler spills to make room for more.
#define ENTRY(operation, name, type, THREADS, ...)                                                             \
    namespace of_##name {                                                                                      \
    using T = type;                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(TAKES_##operation, int64 rows, int64 n) {       \
        __VA_ARGS__;                                                                                           \
    }                                                                                                          \
    TINYNET_KERNEL(name)                                                                                       \
    }
#define SHORT(name, version, suffix, type, LANES, EACH)        \
    ENTRY(name, name##_##version##suffix, type, SHORT_THREADS, \
          name##_short<T, LANES, EACH>(GIVES_##name, rows, n))
#define LONG(name, version, suffix, type, WIDE) \
    ENTRY(name, name##_##version##suffix, type, LONG_THREADS, name##_long<T, WIDE>(GIVES_##name, n))
#define VERSIONS(name, suffix, type)         \
    SHORT(name, 8x2, suffix, type, 8, 2)     \
    SHORT(name, 32x8, suffix, type, 32, 8)   \
    SHORT(name, 32x32, suffix, type, 32, 32) \
    LONG(name, block, suffix, type, false)   \
    LONG(name, block_wide, suffix, type, true)
#define ALL(suffix, type)                    \
    VERSIONS(softmax, suffix, type)          \
    VERSIONS(entropy_indices, suffix, type)  \
    VERSIONS(entropy_rows, suffix, type)     \
    VERSIONS(layer_norm, suffix, type)

ALL(_f32, float)
ALL(_f64, double)
