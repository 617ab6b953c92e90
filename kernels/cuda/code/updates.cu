// Optimizer updates, one pass each: what is read once is written once, over any line of parameters.
//
//     out, out_p, ..., p, g, v, m    n elements side by side; an output may be the input of the same name
//     lr, step                       one element, read when the kernel runs: step counts from 1
//
// Versions: by single elements, and (_wide) by 16 bytes, to a multiple of which all arrays have to be aligned. Without
// decay a parameter does not touch its gradient, even where it is infinite; nor the rate the parameter.
//
// What Adam's step count makes of its rates is computed in double precision, by each block for itself.
//
// Run alone: pytest tests/kernels/cuda/test_updates.py
#include "tinynet.cuh"

constexpr int UPDATE_THREADS = 256;

// update(values of the inputs, results), element by element; K of them are loaded and stored at once, but for the last.
template <int K, int INPUTS, int OUTPUTS, class T, class Update>
__device__ __forceinline__ void along(
    int64 n, T* const (&outputs)[OUTPUTS], const T* const (&inputs)[INPUTS], Update update) {
    const int64 stride = int64(gridDim.x) * blockDim.x * K;
    for (int64 first = (int64(blockIdx.x) * blockDim.x + threadIdx.x) * K; first < n; first += stride) {
        const bool whole = first + K <= n;
        Chunk<T, K> read[INPUTS], written[OUTPUTS];
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) {
            if (whole) {
                read[j] = load_chunk<K>(inputs[j] + first);
            } else {
#pragma unroll
                for (int k = 0; k < K; ++k) read[j].at[k] = first + k < n ? inputs[j][first + k] : T(0);
            }
        }
#pragma unroll
        for (int k = 0; k < K; ++k) {
            T values[INPUTS], results[OUTPUTS];
#pragma unroll
            for (int j = 0; j < INPUTS; ++j) values[j] = read[j].at[k];
            update(values, results);
#pragma unroll
            for (int j = 0; j < OUTPUTS; ++j) written[j].at[k] = results[j];
        }
#pragma unroll
        for (int j = 0; j < OUTPUTS; ++j) {
            if (whole) {
                store_chunk(outputs[j] + first, written[j]);
            } else {
#pragma unroll
                for (int k = 0; k < K; ++k)
                    if (first + k < n) outputs[j][first + k] = written[j].at[k];
            }
        }
    }
}

template <class T>
__device__ __forceinline__ T decayed(T g, T p, T decay) {
    return decay != 0 ? g + decay * p : g;
}

template <int K, class T>
__device__ __forceinline__ void gd(int64 n, T* out, const T* p, const T* g, const T* lr, T decay) {
    const T rate = *lr;
    T* const outputs[] = {out};
    const T* const inputs[] = {p, g};
    along<K>(n, outputs, inputs, [=](const T(&x)[2], T(&y)[1]) { y[0] = x[0] - rate * decayed(x[1], x[0], decay); });
}

template <int K, class T>
__device__ __forceinline__ void gd_momentum(
    int64 n, T* out_p, T* out_v, const T* p, const T* g, const T* v, const T* lr, T momentum, T decay, int nesterov) {
    const T rate = *lr;
    T* const outputs[] = {out_p, out_v};
    const T* const inputs[] = {p, g, v};
    along<K>(n, outputs, inputs, [=](const T(&x)[3], T(&y)[2]) {
        const T slope = decayed(x[1], x[0], decay), velocity = momentum * x[2] + slope;
        y[0] = x[0] - rate * (nesterov ? slope + momentum * velocity : velocity);
        y[1] = velocity;
    });
}

// m / (sqrt(v) + small) * rate: the correction of v is a part of `small` and of `rate`. 1 - beta^t is 1 - e^(t log beta)
// without the digits that this loses near 0.
template <int K, class T>
__device__ __forceinline__ void adam(
    int64 n, T* out_p, T* out_m, T* out_v, const T* p, const T* g, const T* m, const T* v, const T* lr,
    const int64* step, double beta1, double beta2, double log_beta1, double log_beta2, double eps, double decay,
    double shrinkage) {
    TINYNET_SHARED(T, corrected, 3);
    if (threadIdx.x == 0) {
        const double t = double(*step), rate = double(*lr);
        const double left1 = -expm1(t * log_beta1), root = sqrt(-expm1(t * log_beta2));
        corrected[0] = T(rate * root / left1);
        corrected[1] = T(eps * root);
        corrected[2] = shrinkage != 0 ? T(1 - rate * shrinkage) : T(1);  // without it the rate may be infinite
    }
    __syncthreads();
    const T rate = corrected[0], small = corrected[1], shrink = corrected[2], of_gradient = T(decay);
    const T keep1 = T(beta1), keep2 = T(beta2), share1 = T(1 - beta1), share2 = T(1 - beta2);
    T* const outputs[] = {out_p, out_m, out_v};
    const T* const inputs[] = {p, g, m, v};
    along<K>(n, outputs, inputs, [=](const T(&x)[4], T(&y)[3]) {
        const T slope = decayed(x[1], x[0], of_gradient);
        const T mean = keep1 * x[2] + share1 * slope, squares = keep2 * x[3] + share2 * (slope * slope);
        y[0] = shrink * x[0] - rate * (mean / (square_root(squares) + small));
        y[1] = mean;
        y[2] = squares;
    });
}

// ---- entry points ----

#define ENTRY(name, TAKES, ...)                                                          \
    extern "C" __global__ void __launch_bounds__(UPDATE_THREADS) name TAKES { __VA_ARGS__; } \
    TINYNET_KERNEL(name)
#define VERSION(version, suffix, T, K)                                                                            \
    ENTRY(gd##version##suffix, (int64 n, T * out, const T* p, const T* g, const T* lr, T decay),                  \
          gd<K>(n, out, p, g, lr, decay))                                                                         \
    ENTRY(gd_momentum##version##suffix,                                                                           \
          (int64 n, T * out_p, T * out_v, const T* p, const T* g, const T* v, const T* lr, T momentum, T decay,   \
           int nesterov),                                                                                         \
          gd_momentum<K>(n, out_p, out_v, p, g, v, lr, momentum, decay, nesterov))                                \
    ENTRY(adam##version##suffix,                                                                                  \
          (int64 n, T * out_p, T * out_m, T * out_v, const T* p, const T* g, const T* m, const T* v, const T* lr, \
           const int64* step, double beta1, double beta2, double log_beta1, double log_beta2, double eps,         \
           double decay, double shrinkage),                                                                       \
          adam<K>(n, out_p, out_m, out_v, p, g, m, v, lr, step, beta1, beta2, log_beta1, log_beta2, eps, decay,   \
                  shrinkage))
#define ALL(suffix, T)               \
    VERSION(, suffix, T, 1)          \
    VERSION(_wide, suffix, T, Pack<T>::COUNT)

ALL(_f32, float)
ALL(_f64, double)
