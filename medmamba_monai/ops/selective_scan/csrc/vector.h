/* Vectors of SCAN_WIDTH floats and the functions the scan needs of them.
 *
 * GCC and Clang: their vector extensions, with intrinsics where those have no operator. Others (MSVC), or with
 * SCAN_PLAIN defined: plain loops.
 */
#ifndef MEDMAMBA_VECTOR_H
#define MEDMAMBA_VECTOR_H

#include <string.h>

#include "scan.h"

#if (defined(__GNUC__) || defined(__clang__)) && !defined(SCAN_PLAIN)
#define INLINE static inline __attribute__((always_inline, unused))
/* Kept out of its caller, where it would take registers from other loops. */
#define APART static __attribute__((noinline, unused))
#define RESTRICT __restrict__
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* Keeps the compiler from turning a loop over a few numbers into a library call. */
#define NOT_MEMCPY(pointer) __asm__("" : "+r"(pointer))
/* Brings a cache line nearer, to be read soon but not at once. */
#define PREFETCH(address) __builtin_prefetch(address, 0, 2)
typedef float vec __attribute__((vector_size(4 * SCAN_WIDTH), may_alias));
typedef float loose_vec __attribute__((vector_size(4 * SCAN_WIDTH), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * SCAN_WIDTH)));
typedef uint32_t uvec __attribute__((vector_size(4 * SCAN_WIDTH)));

INLINE vec v_set(float value) { return value - (vec){0}; }
INLINE vec v_load(const float *from) { return *(const loose_vec *)from; }
INLINE void v_store(float *to, vec a) { *(loose_vec *)to = a; }
INLINE vec v_add(vec a, vec b) { return a + b; }
INLINE vec v_sub(vec a, vec b) { return a - b; }
INLINE vec v_mul(vec a, vec b) { return a * b; }
INLINE vec v_div(vec a, vec b) { return a / b; }
/* a where x >= 0, else b */
INLINE vec v_pick(vec x, vec a, vec b) {
    ivec mask = x >= v_set(0.0f);
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}

INLINE vec v_abs(vec a) { return (vec)((ivec)a & 0x7fffffff); }

#if SCAN_WIDTH == 16 && defined(__AVX512F__)
#include <immintrin.h>
INLINE vec v_max(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec v_min(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vec v_fma(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#elif SCAN_WIDTH == 8 && defined(__AVX2__)
#include <immintrin.h>
INLINE vec v_max(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec v_min(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vec v_fma(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#elif SCAN_WIDTH == 4 && defined(__SSE2__)
#include <emmintrin.h>
INLINE vec v_max(vec a, vec b) { return (vec)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vec v_min(vec a, vec b) { return (vec)_mm_min_ps((__m128)a, (__m128)b); }
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
#else
INLINE vec v_max(vec a, vec b) {
    ivec mask = a > b;
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}
INLINE vec v_min(vec a, vec b) {
    ivec mask = a < b;
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
#endif
/* The low bits to the exponent, and the sum of a number's bits and such an exponent. */
INLINE vec v_shift(vec a) { return (vec)((uvec)a << 23); }
INLINE vec v_add_bits(vec value, vec power) { return (vec)((uvec)value + (uvec)power); }

#else /* no vector extensions */
#define INLINE static __inline
#ifdef _MSC_VER
#define APART static __declspec(noinline)
#else
#define APART static
#endif
#define RESTRICT __restrict
#define UNROLL
#define NOT_MEMCPY(pointer) ((void)(pointer))
#define PREFETCH(address) ((void)(address))
typedef struct {
    float lane[SCAN_WIDTH];
} vec;
#define LANES(expression)                          \
    do {                                           \
        vec r;                                     \
        for (int i = 0; i < SCAN_WIDTH; i++) {     \
            r.lane[i] = (expression);              \
        }                                          \
        return r;                                  \
    } while (0)
INLINE vec v_set(float value) { LANES(value); }
INLINE vec v_load(const float *from) { LANES(from[i]); }
INLINE void v_store(float *to, vec a) { memcpy(to, a.lane, sizeof(a.lane)); }
INLINE vec v_add(vec a, vec b) { LANES(a.lane[i] + b.lane[i]); }
INLINE vec v_sub(vec a, vec b) { LANES(a.lane[i] - b.lane[i]); }
INLINE vec v_mul(vec a, vec b) { LANES(a.lane[i] * b.lane[i]); }
INLINE vec v_div(vec a, vec b) { LANES(a.lane[i] / b.lane[i]); }
INLINE vec v_fma(vec a, vec b, vec c) { LANES(a.lane[i] * b.lane[i] + c.lane[i]); }
INLINE vec v_pick(vec x, vec a, vec b) { LANES(x.lane[i] >= 0.0f ? a.lane[i] : b.lane[i]); }
INLINE vec v_abs(vec a) { LANES(a.lane[i] < 0.0f ? -a.lane[i] : a.lane[i]); }
INLINE vec v_max(vec a, vec b) { LANES(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE vec v_min(vec a, vec b) { LANES(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE vec v_shift(vec a) {
    uint32_t bits[SCAN_WIDTH];
    memcpy(bits, a.lane, sizeof(bits));
    for (int i = 0; i < SCAN_WIDTH; i++) {
        bits[i] <<= 23;
    }
    memcpy(a.lane, bits, sizeof(bits));
    return a;
}
INLINE vec v_add_bits(vec value, vec power) {
    uint32_t bits[SCAN_WIDTH], add[SCAN_WIDTH];
    memcpy(bits, value.lane, sizeof(bits));
    memcpy(add, power.lane, sizeof(add));
    for (int i = 0; i < SCAN_WIDTH; i++) {
        bits[i] += add[i];
    }
    memcpy(value.lane, bits, sizeof(bits));
    return value;
}
#endif

#define LOG2_E 1.44269504088896341f
#define LN_2 0.69314718055994531f

/* Vectors worked on side by side: a polynomial is one long chain of dependent operations, four of them in turn keep
 * the arithmetic units busy. Every step below runs over the group before the next one starts. */
#define GROUP 4
#define EACH(statement)               \
    UNROLL                            \
    for (int i = 0; i < GROUP; i++) { \
        statement;                    \
    }

/* x = whole + rest, |rest| <= 1/2; returns 2^whole in the form v_scale takes. */
#if SCAN_WIDTH == 16 && defined(__AVX512F__) && !defined(SCAN_PLAIN)
INLINE vec v_split(vec x, vec *rest) {
    vec whole = (vec)_mm512_roundscale_ps((__m512)x, 0);
    *rest = x - whole;
    return whole;
}
INLINE vec v_scale(vec value, vec power) { return (vec)_mm512_scalef_ps((__m512)value, (__m512)power); }
#elif SCAN_WIDTH == 8 && defined(__AVX2__) && !defined(SCAN_PLAIN)
INLINE vec v_split(vec x, vec *rest) {
    *rest = x - (vec)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (vec)_mm256_slli_epi32(_mm256_cvtps_epi32((__m256)x), 23);
}
INLINE vec v_scale(vec value, vec power) { return v_add_bits(value, power); }
#else
/* Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits: needs true rounding, no -ffast-math. */
INLINE vec v_split(vec x, vec *rest) {
    const vec magic = v_set(12582912.0f);
    vec shifted = v_add(x, magic);
    *rest = v_sub(x, v_sub(shifted, magic));
    return v_shift(shifted);
}
INLINE vec v_scale(vec value, vec power) { return v_add_bits(value, power); }
#endif

/* 2^x to 1.7e-7 in place: x = k + r, 2^r a degree-5 polynomial with value 1 at 0 (fitted to the least relative
 * error), k added to the exponent. Right for -126 <= x <= 127, with `clamp` for all: infinite from 128, no less than
 * 2^-126; NaN stays NaN, which is why the variable stands second in max and min. */
INLINE void v_exp2(vec *x, const int clamp) {
    vec r[GROUP], power[GROUP];
    if (clamp) {
        EACH(x[i] = v_min(v_set(128.0f), v_max(v_set(-126.0f), x[i])))
    }
    EACH(power[i] = v_split(x[i], &r[i]))
    EACH(x[i] = v_fma(v_set(1.3264717e-3f), r[i], v_set(9.6715130e-3f)))
    EACH(x[i] = v_fma(x[i], r[i], v_set(5.5507338e-2f)))
    EACH(x[i] = v_fma(x[i], r[i], v_set(2.4022242e-1f)))
    EACH(x[i] = v_fma(x[i], r[i], v_set(6.9314698e-1f)))
    EACH(x[i] = v_fma(x[i], r[i], v_set(1.0f)))
    EACH(x[i] = v_scale(x[i], power[i]))
}

/* exp(-|x|), from which softplus and its derivative follow without overflow */
INLINE void v_exp_minus_abs(const vec *x, vec *z) {
    EACH(z[i] = v_max(v_set(-126.0f), v_mul(v_abs(x[i]), v_set(-LOG2_E))))
    v_exp2(z, 0);
}

/* softplus: log(1 + exp(x)) = max(x, 0) + log(1 + z) with z = exp(-|x|), the last as z times a degree-8 polynomial
 * in z, even and odd powers apart: relative error 3e-8 also for tiny z. */
INLINE void v_softplus(const vec *x, const vec *z, vec *y) {
    vec z2[GROUP], even[GROUP], odd[GROUP];
    EACH(z2[i] = v_mul(z[i], z[i]))
    EACH(even[i] = v_fma(v_set(5.232690027e-3f), z2[i], v_set(7.822591751e-2f)))
    EACH(odd[i] = v_fma(v_set(-2.950521992e-2f), z2[i], v_set(-1.366324250e-1f)))
    EACH(even[i] = v_fma(even[i], z2[i], v_set(1.910600499e-1f)))
    EACH(odd[i] = v_fma(odd[i], z2[i], v_set(-2.484298170e-1f)))
    EACH(even[i] = v_fma(even[i], z2[i], v_set(3.331909673e-1f)))
    EACH(odd[i] = v_fma(odd[i], z2[i], v_set(-4.999949314e-1f)))
    EACH(even[i] = v_fma(even[i], z2[i], v_set(9.999999699e-1f)))
    EACH(even[i] = v_fma(odd[i], z[i], even[i]))
    EACH(y[i] = v_fma(even[i], z[i], v_max(v_set(0.0f), x[i])))
}

/* y times the derivative of softplus, 1 / (1 + exp(-x)), from the same z */
INLINE void v_times_sigmoid(const vec *x, const vec *z, vec *y) {
    EACH(y[i] = v_mul(y[i], v_div(v_pick(x[i], v_set(1.0f), z[i]), v_add(v_set(1.0f), z[i]))))
}

/* Whether every lane is below the limit; NaN is not. */
#if SCAN_WIDTH == 8 && defined(__AVX2__) && !defined(SCAN_PLAIN)
INLINE int v_all_below(vec a, float limit) {
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, _mm256_set1_ps(limit), _CMP_LT_OQ)) == 0xff;
}
#else
INLINE int v_all_below(vec a, float limit) {
    float lanes[SCAN_WIDTH];
    int below = 1;
    v_store(lanes, a);
    for (int i = 0; i < SCAN_WIDTH; i++) {
        below &= lanes[i] < limit;
    }
    return below;
}
#endif

#if SCAN_WIDTH == 8 && defined(__AVX2__) && !defined(SCAN_PLAIN)
INLINE float v_sum(vec a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)a), _mm256_extractf128_ps((__m256)a, 1));
    __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}
#else
INLINE float v_sum(vec a) {
    float lanes[SCAN_WIDTH];
    v_store(lanes, a);
    for (int half = SCAN_WIDTH / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}
#endif

#endif
