// The tensor cores' instructions, as functions of a warp: all 32 lanes come, and each holds some elements of a matrix,
// its fragment. Layouts as in the PTX ISA; g is lane / 4, t is lane % 4:
//
//     m16n8k8, TF32     A: (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4)      B: (t, g) (t + 4, g)
//     m16n8k16, bf16    A: (g, 2t) (g + 8, 2t) (g, 2t + 8) (g + 8, 2t + 8), each with its right neighbour
//                       B: (2t, g) (2t + 8, g), each with its neighbour below
//     both              C: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
//
// From compute capability 8.0 on; before that a kernel that comes here is trapped. The harness computes what they are
// documented to compute: products are exact, and their sum is rounded to float32 once. Tensor cores add with a few bits
// less, in an order of their own.
#ifndef TINYNET_TENSOR_CUH
#define TINYNET_TENSOR_CUH
#include "tinynet.cuh"

#if !defined(TINYNET_HARNESS) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define TINYNET_NO_TENSOR_CORES
#endif

// Rounded to TF32, whose 10 bits of fraction are the upper ones of a float: to the nearest, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float x) {
#if defined(TINYNET_HARNESS)
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
#elif defined(TINYNET_NO_TENSOR_CORES)
    __trap();
    return 0;
#else
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#endif
}

// Two numbers rounded to bf16, to the nearest, ties to even; the first in the lower half.
__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
#if defined(TINYNET_HARNESS)
    const auto rounded = [](float x) {
        const unsigned bits = __float_as_uint(x);
        return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    };
    return rounded(low) | rounded(high) << 16;
#elif defined(TINYNET_NO_TENSOR_CORES)
    __trap();
    return 0;
#else
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

#ifdef TINYNET_HARNESS
struct Operands {
    unsigned a[4], b[2];
};

// c += a b, where a's and b's elements are what `a_of(lanes, row, k)` and `b_of(lanes, k, column)` find in fragments.
template <int K, class A, class B>
void multiply_add_lanes(float (&c)[4], const Operands& mine, const A& a_of, const B& b_of, const char* file, int line) {
    Operands lanes[WARP];
    harness::gather(ALL_LANES, &mine, lanes, sizeof mine, file, line);
    const int g = harness::lane() / 4, t = harness::lane() % 4;
    for (int i = 0; i < 4; ++i) {
        double sum = c[i];
        for (int k = 0; k < K; ++k)
            sum += double(a_of(lanes, g + i / 2 * 8, k)) * double(b_of(lanes, k, 2 * t + i % 2));
        c[i] = float(sum);
    }
}
#endif

// c += a b, 16 x 8 x 8
__device__ __forceinline__ void multiply_add_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(TINYNET_HARNESS)
    const auto number = [](unsigned bits) { return __uint_as_float(bits & 0xffffe000u); };
    multiply_add_lanes<8>(
        c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}},
        [=](const Operands* lanes, int row, int k) {
            return number(lanes[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2]);
        },
        [=](const Operands* lanes, int k, int column) { return number(lanes[column * 4 + k % 4].b[k / 4]); },
        __FILE__, __LINE__);
#elif defined(TINYNET_NO_TENSOR_CORES)
    __trap();
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// c += a b, 16 x 8 x 16
__device__ __forceinline__ void multiply_add_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(TINYNET_HARNESS)
    const auto number = [](unsigned pair, int half) { return __uint_as_float(half ? pair & 0xffff0000u : pair << 16); };
    multiply_add_lanes<16>(
        c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}},
        [=](const Operands* lanes, int row, int k) {
            return number(lanes[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2);
        },
        [=](const Operands* lanes, int k, int column) { return number(lanes[column * 4 + k % 8 / 2].b[k / 8], k % 2); },
        __FILE__, __LINE__);
#elif defined(TINYNET_NO_TENSOR_CORES)
    __trap();
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four matrices of 8 x 8 elements of 16 bits from shared memory. Lane 8 i + r gives the address of row r of matrix i,
// 16 bytes at a multiple of 16. Each lane gets elements (g, 2t) and (g, 2t + 1) of all four, or of their transposes.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const unsigned short* row) {
#if defined(TINYNET_HARNESS)
    const unsigned short* rows[WARP];
    harness::gather(ALL_LANES, &row, rows, sizeof row, __FILE__, __LINE__);
    const int g = harness::lane() / 4, t = harness::lane() % 4;
    for (int i = 0; i < 4; ++i) {
        if (reinterpret_cast<uintptr_t>(rows[8 * i + g]) % 16) harness::fail("misaligned address: a row of ldmatrix");
        const unsigned short* const* matrix = rows + 8 * i;
        const auto at = [&](int r, int c) { return unsigned(TRANSPOSED ? matrix[c][r] : matrix[r][c]); };
        to[i] = at(g, 2 * t) | at(g, 2 * t + 1) << 16;
    }
#elif defined(TINYNET_NO_TENSOR_CORES)
    __trap();
#else
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
#endif
}

#endif
