/* Blocks of steps whose sizes hardly change, as most do in trained networks: a channel's bias sets the size, the image
 * moves it by a few percent. The forward scan of such a block, and its decays for the backward scan.
 *
 * Step sizes are softplus(x) with x close to a middle x0, and softplus becomes its Taylor polynomial there. A decay is
 * exp(delta A) = exp(middle A) exp(away A) with a small away = delta - middle: one exponential a block and state, and a
 * polynomial of degree 2 or 3 a step, which is short enough to stay in registers with the recurrence.
 */
#ifndef MEDMAMBA_STEADY_H
#define MEDMAMBA_STEADY_H

#include "block.h"

/* Half the range of x at most: softplus's polynomial of degree 3 is then right to 3e-7, and no step size is further
 * than 5 % from the middle. */
#define STEADY_X 0.05f
/* |away A| at most, for polynomials of degree 3 and 2 that are right to 1.4e-7 and 0.9e-7. */
#define STEADY_CUBIC 0.06f
#define STEADY_SQUARE 0.0125f
/* |middle A| at most: exp2 of it needs no clamping. */
#define STEADY_MIDDLE 80.0f
/* |A| at most: its powers in the polynomials stay finite. */
#define STEADY_RATE 1e12f

/* softplus(x0 + r) - softplus(x0): coefficients of r, r^2, r^3. */
typedef struct {
    vec first, second, third;
} softplus_slopes;

INLINE vec softplus_away(const softplus_slopes *slopes, vec r) {
    return v_mul(r, v_fma(v_fma(slopes->third, r, slopes->second), r, slopes->first));
}

/* Whether polynomials serve all decays of a lane. */
INLINE int decays_are_steady(const scan_lane *lane, vec bound) {
    return v_all_below(bound, STEADY_RATE) && v_all_below(v_mul(lane->spread, bound), STEADY_CUBIC * LOG2_E) &&
           v_all_below(v_mul(v_abs(lane->middle), bound), STEADY_MIDDLE * LOG2_E);
}

/* Whether the steps of a lane are steady. If so, makes what steady_states takes: middle, spread, z = delta - middle,
 * and du. Past the last step, up to a whole group, u is 0. */
APART int steady_steps(scan_lane *lane, const scan_params *params, int64_t v, int64_t steps) {
    const vec one = v_set(1.0f), half = v_set(0.5f);
    vec low = lane->x[0], high = lane->x[0], middle_x[GROUP], z[GROUP], middle[GROUP];
    softplus_slopes slopes;
    if (!v_all_below(v_abs(v_sub(lane->x[steps / 2], lane->x[0])), 2.0f * STEADY_X)) {
        return 0; /* most that are not are known by two of them */
    }
    for (int64_t t = 1; t < steps; t++) {
        low = v_min(lane->x[t], low), high = v_max(lane->x[t], high); /* in this order NaN is passed over */
    }
    if (!v_all_below(v_sub(high, low), 2.0f * STEADY_X)) {
        return 0;
    }
    EACH(middle_x[i] = v_mul(half, v_add(low, high)))
    v_exp_minus_abs(middle_x, z);
    v_softplus(middle_x, z, middle);
    slopes.first = v_div(v_pick(middle_x[0], one, z[0]), v_add(one, z[0]));
    slopes.second = v_mul(half, v_mul(slopes.first, v_sub(one, slopes.first)));
    slopes.third = v_mul(v_mul(v_set(1.0f / 3.0f), slopes.second), v_fma(v_set(-2.0f), slopes.first, one));
    lane->middle = middle[0];
    lane->spread = v_max(v_abs(softplus_away(&slopes, v_sub(low, middle_x[0]))),
                         v_abs(softplus_away(&slopes, v_sub(high, middle_x[0]))));
    if (!decays_are_steady(lane, params->bound[v])) {
        return 0;
    }
    for (int64_t t = 0; t < steps; t++) {
        vec away = softplus_away(&slopes, v_sub(lane->x[t], middle_x[0]));
        lane->z[t] = away;
        lane->du[t] = v_mul(v_add(lane->middle, away), lane->u[t]);
    }
    return 1;
}

/* exp(delta A) of a state = p[0] + away (p[1] + away (p[2] + away p[3])). What the next power would add is spread
 * over the ones that are there. The rounding of p[0] is the same at every step and adds up in states that remember
 * long: `drift` is what p[0] lacks. */
typedef struct {
    vec p[4], drift;
} decay_polynomial;

/* |middle A| below which drift is known; beyond, states forget in a few steps. */
#define STEADY_SLOW 0.125f

/* exp(y) - 1 for |y| <= STEADY_SLOW, to 1e-7 of itself. */
INLINE vec exp_less_one(vec y) {
    vec sum = v_fma(y, v_set(1.0f / 120.0f), v_set(1.0f / 24.0f));
    sum = v_fma(y, sum, v_set(1.0f / 6.0f));
    sum = v_fma(y, sum, v_set(0.5f));
    return v_mul(y, v_fma(y, sum, v_set(1.0f)));
}

/* Those of `count` states, a group at most. */
INLINE void decay_polynomials(decay_polynomial *to, const scan_lane *lane, const vec *a2, int64_t count) {
    vec base[GROUP];
    EACH(base[i] = v_mul(lane->middle, a2[i < count ? i : 0]))
    v_exp2(base, 0);
    for (int64_t j = 0; j < count; j++) {
        vec a = v_mul(a2[j], v_set(LN_2)), y = v_mul(lane->middle, a), less_one = exp_less_one(y), *p = to[j].p;
        vec sum = v_add(v_set(1.0f), less_one), slow = v_sub(v_set(STEADY_SLOW), v_abs(y));
        p[0] = v_pick(slow, sum, base[j]);
        to[j].drift = v_pick(slow, v_sub(less_one, v_sub(sum, v_set(1.0f))), v_set(0.0f));
        p[1] = v_mul(p[0], a);
        p[2] = v_mul(v_mul(p[1], a), v_set(0.5f));
        p[3] = v_mul(v_mul(p[2], a), v_set(1.0f / 3.0f));
    }
}

/* Whether polynomials of degree 2 serve `count` states, one or two. */
INLINE int squares_do(const int count, const scan_lane *lane, const vec *a2) {
    return v_all_below(v_mul(lane->spread, v_max(v_abs(a2[0]), v_abs(a2[count - 1]))), STEADY_SQUARE * LOG2_E);
}

/* Coefficients of the polynomial of that degree. */
INLINE void shorten(const int degree, vec *p, const decay_polynomial *decay) {
    const float spare = degree == 3 ? STEADY_CUBIC * STEADY_CUBIC / 16.0f : STEADY_SQUARE * STEADY_SQUARE / 8.0f;
    UNROLL
    for (int i = 0; i <= degree; i++) {
        p[i] = decay->p[i];
    }
    p[degree - 1] = v_fma(p[degree - 1], v_set(spare), p[degree - 1]);
}

INLINE vec decay_at(const int degree, const vec *p, vec away) {
    vec a = p[degree];
    UNROLL
    for (int i = degree - 1; i >= 0; i--) {
        a = v_fma(a, away, p[i]);
    }
    return a;
}

/* `count` states (one or two) through a block with decays of that degree: y += C h. */
INLINE void steady_some(const int count, const int degree, vec *RESTRICT state, const decay_polynomial *decay,
                        scan_lane *lane, const float *RESTRICT b, const float *RESTRICT c, int64_t steps, int64_t row) {
    vec h[2], p[2][4];
    UNROLL
    for (int j = 0; j < count; j++) {
        h[j] = state[j];
        shorten(degree, p[j], decay + j);
    }
    for (int64_t t = 0; t < steps; t++, b += row, c += row) {
        vec away = lane->z[t], entry = lane->du[t], sum = lane->y[t];
        UNROLL
        for (int j = 0; j < count; j++) {
            h[j] = v_fma(decay_at(degree, p[j], away), h[j], v_mul(entry, v_set(b[j])));
            sum = v_fma(h[j], v_set(c[j]), sum);
        }
        lane->y[t] = sum;
    }
    UNROLL
    for (int j = 0; j < count; j++) {
        state[j] = v_fma(h[j], v_mul(v_set((float)steps), decay[j].drift), h[j]);
    }
}

INLINE void steady_count(const int count, vec *state, const decay_polynomial *decay, scan_lane *lane, const vec *a2,
                         const scan_steps *steps, int64_t n, int64_t states) {
    const float *b = steps->b + n, *c = steps->c + n;
    if (squares_do(count, lane, a2)) {
        steady_some(count, 2, state, decay, lane, b, c, steps->steps, states);
    } else {
        steady_some(count, 3, state, decay, lane, b, c, steps->steps, states);
    }
}

/* All states `h` of a steady lane through a block. */
APART void steady_states(vec *h, scan_lane *lane, const vec *a2, const scan_steps *steps, int64_t states) {
    for (int64_t first = 0; first < states; first += GROUP) {
        decay_polynomial decay[GROUP];
        int64_t end = first + GROUP < states ? first + GROUP : states, n = first;
        decay_polynomials(decay, lane, a2 + first, end - first);
        for (; n + 2 <= end; n += 2) {
            steady_count(2, h + n, decay + (n - first), lane, a2 + n, steps, n, states);
        }
        if (n < end) {
            steady_count(1, h + n, decay + (n - first), lane, a2 + n, steps, n, states);
        }
    }
}

/* For the backward scan, where delta is known: whether a lane's decays are steady. Sets middle and spread. */
APART int steady_sizes(scan_lane *lane, vec bound, int64_t steps) {
    const vec half = v_set(0.5f);
    vec low = lane->delta[0], high = low;
    for (int64_t t = 1; t < steps; t++) {
        low = v_min(lane->delta[t], low), high = v_max(lane->delta[t], high);
    }
    lane->middle = v_mul(half, v_add(low, high));
    lane->spread = v_mul(half, v_sub(high, low));
    return decays_are_steady(lane, bound);
}

/* Writes decay[t * stride + j] of `count` states (one or two) with polynomials of that degree. */
INLINE void steady_decay_of(vec *RESTRICT to, const int stride, const int count, const int degree,
                            const decay_polynomial *decay, const scan_lane *lane, int64_t steps) {
    vec p[2][4], middle = lane->middle;
    UNROLL
    for (int j = 0; j < count; j++) {
        shorten(degree, p[j], decay + j);
    }
    for (int64_t t = 0; t < steps; t++, to += stride) {
        vec away = v_sub(lane->delta[t], middle);
        UNROLL
        for (int j = 0; j < count; j++) {
            to[j] = decay_at(degree, p[j], away);
        }
    }
}

/* The decays of `count` states (one or two) of a steady lane, and the drift of each. */
INLINE void fill_steady_decay(vec *to, const int stride, const int count, const scan_lane *lane, int64_t steps,
                              const vec *a2, vec *drift) {
    decay_polynomial decay[2];
    decay_polynomials(decay, lane, a2, count);
    for (int j = 0; j < count; j++) {
        drift[j] = decay[j].drift;
    }
    if (squares_do(count, lane, a2)) {
        steady_decay_of(to, stride, count, 2, decay, lane, steps);
    } else {
        steady_decay_of(to, stride, count, 3, decay, lane, steps);
    }
}

#endif
