/* Vectors of SCAN_WIDTH floats and the functions the scan needs of them.
 *
 * GCC and Clang: their vector extensions, with intrinsics where those have no operator. Others (MSVC): plain loops.
 */
#ifndef MEDMAMBA_VECTOR_H
#define MEDMAMBA_VECTOR_H

#include <string.h>

#include "scan.h"

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline, unused))
#define RESTRICT __restrict__
#define UNROLL _Pragma("GCC unroll 16")
#define PREFETCH(address) __builtin_prefetch(address)
typedef float vec __attribute__((vector_size(4 * SCAN_WIDTH), may_alias));
typedef float loose_vec __attribute__((vector_size(4 * SCAN_WIDTH), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * SCAN_WIDTH)));

INLINE vec v_set(float value) { return value - (vec){0}; }
INLINE vec v_load(const float *from) { return *(const loose_vec *)from; }
INLINE void v_store(float *to, vec a) { *(loose_vec *)to = a; }
INLINE vec v_add(vec a, vec b) { return a + b; }
INLINE vec v_sub(vec a, vec b) { return a - b; }
INLINE vec v_mul(vec a, vec b) { return a * b; }
INLINE vec v_div(vec a, vec b) { return a / b; }
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
/* a where x >= 0, else b */
INLINE vec v_pick(vec x, vec a, vec b) {
    ivec mask = x >= v_set(0.0f);
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}
/* value * 2^k, where magic = 1.5 * 2^23 + k; the magic number's own bits leave through the shift */
INLINE vec v_scale(vec value, vec magic) { return (vec)((ivec)value + ((ivec)magic << 23)); }

#if SCAN_WIDTH == 16 && defined(__AVX512F__)
#include <immintrin.h>
INLINE vec v_max(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec v_min(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif SCAN_WIDTH == 8 && defined(__AVX2__)
#include <immintrin.h>
INLINE vec v_max(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec v_min(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
#elif SCAN_WIDTH == 4 && defined(__SSE2__)
#include <emmintrin.h>
INLINE vec v_max(vec a, vec b) { return (vec)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vec v_min(vec a, vec b) { return (vec)_mm_min_ps((__m128)a, (__m128)b); }
#else
INLINE vec v_max(vec a, vec b) {
    ivec mask = a > b;
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}
INLINE vec v_min(vec a, vec b) {
    ivec mask = a < b;
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}
#endif

#else /* no vector extensions */
#define INLINE static __inline
#define RESTRICT __restrict
#define UNROLL
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
INLINE vec v_max(vec a, vec b) { LANES(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE vec v_min(vec a, vec b) { LANES(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE vec v_scale(vec value, vec magic) {
    uint32_t bits[SCAN_WIDTH], shift[SCAN_WIDTH];
    memcpy(bits, value.lane, sizeof(bits));
    memcpy(shift, magic.lane, sizeof(shift));
    for (int i = 0; i < SCAN_WIDTH; i++) {
        bits[i] += shift[i] << 23;
    }
    memcpy(value.lane, bits, sizeof(bits));
    return value;
}
#endif

/* 2^x to 1.7e-7: x = k + r with |r| <= 1/2, 2^r a degree-5 polynomial with value 1 at 0 (fitted to the least
 * relative error), k added to the exponent. Infinite from 128, no less than 2^-126; NaN stays NaN, which is why
 * the variable stands second in max and min. Needs true rounding: no -ffast-math. */
INLINE vec v_exp2(vec x) {
    const vec magic = v_set(12582912.0f);
    x = v_min(v_set(128.0f), v_max(v_set(-126.0f), x));
    vec shifted = v_add(x, magic);
    vec r = v_sub(x, v_sub(shifted, magic));
    vec p = v_fma(v_set(1.3264717e-3f), r, v_set(9.6715130e-3f));
    p = v_fma(p, r, v_set(5.5507338e-2f));
    p = v_fma(p, r, v_set(2.4022242e-1f));
    p = v_fma(p, r, v_set(6.9314698e-1f));
    p = v_fma(p, r, v_set(1.0f));
    return v_scale(p, shifted);
}

#define LOG2_E 1.44269504088896341f
#define LN_2 0.69314718055994531f

/* exp(-|x|), from which softplus and its derivative follow without overflow */
INLINE vec v_exp_minus_abs(vec x) {
    vec scaled = v_mul(x, v_set(LOG2_E));
    return v_exp2(v_min(v_sub(v_set(0.0f), scaled), scaled));
}

/* log(1 + z) for 0 <= z <= 1 as z times a degree-8 polynomial: relative error 3e-8 also for tiny z */
INLINE vec v_log1p(vec z) {
    vec p = v_fma(v_set(5.232690027e-3f), z, v_set(-2.950521992e-2f));
    p = v_fma(p, z, v_set(7.822591751e-2f));
    p = v_fma(p, z, v_set(-1.366324250e-1f));
    p = v_fma(p, z, v_set(1.910600499e-1f));
    p = v_fma(p, z, v_set(-2.484298170e-1f));
    p = v_fma(p, z, v_set(3.331909673e-1f));
    p = v_fma(p, z, v_set(-4.999949314e-1f));
    p = v_fma(p, z, v_set(9.999999699e-1f));
    return v_mul(p, z);
}

INLINE vec v_softplus(vec x) { return v_add(v_max(v_set(0.0f), x), v_log1p(v_exp_minus_abs(x))); }

/* the derivative of softplus, 1 / (1 + exp(-x)) */
INLINE vec v_sigmoid(vec x) {
    vec z = v_exp_minus_abs(x);
    return v_div(v_pick(x, v_set(1.0f), z), v_add(v_set(1.0f), z));
}

INLINE float v_sum(vec a) {
    float lanes[SCAN_WIDTH], sum = 0.0f;
    v_store(lanes, a);
    for (int half = SCAN_WIDTH / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    sum = lanes[0];
    return sum;
}

#endif
