/* What forward and backward share: parameters of a piece of channels, one block of steps of the inputs, and the
 * recurrence over a few states. Everything strided, permuted or ragged is copied here into small local arrays, so
 * that the arithmetic sees full vectors in natural order; missing lanes hold zeros.
 */
#ifndef MEDMAMBA_BLOCK_H
#define MEDMAMBA_BLOCK_H

#include "vector.h"

#define STATES_AT_ONCE 4

/* Parameters of the task's channels for one direction; vector v covers channels first + v * SCAN_WIDTH and on. */
typedef struct {
    int64_t vectors;
    vec *a2;     /* [vectors][states]: A * log2(e) */
    vec *weight; /* [vectors][rank] */
    vec *bias;   /* [vectors] */
    vec *skip;   /* [vectors] */
    vec *bound;  /* [vectors]: greatest |a2| */
} scan_params;

/* One block of steps of one vector of channels. In one structure, so that one address serves the inner loops. */
typedef struct {
    vec u[SCAN_BLOCK], x[SCAN_BLOCK], z[SCAN_BLOCK]; /* x: step size before softplus, z: exp(-|x|) */
    vec delta[SCAN_BLOCK], du[SCAN_BLOCK];           /* du: delta * u */
    vec y[SCAN_BLOCK];                               /* output, or its gradient */
    vec g_delta[SCAN_BLOCK], g_du[SCAN_BLOCK];       /* backward only */
    vec middle, spread; /* where steps are steady, see steady.h: of delta, and the furthest way from it */
    int64_t clamp;  /* whether some delta * a2 may leave the range in which exp2 needs no clamping */
    int64_t steady; /* backward only */
    /* at equal places in their pages, lanes would fight for cache lines */
    char skew[5 * 64 - 2 * sizeof(vec) - 2 * sizeof(int64_t)];
} scan_lane;

#define LANE_VECTORS (sizeof(scan_lane) / sizeof(vec)) /* from a lane's array to the next lane's */

/* One block of steps. */
typedef struct {
    int64_t steps;
    int64_t pixel[SCAN_BLOCK];
    float *dt, *b, *c; /* [step][rank], [step][states] */
    scan_lane *lane;   /* [vector] */
} scan_steps;

INLINE int64_t vectors_of(int64_t channels) { return (channels + SCAN_WIDTH - 1) / SCAN_WIDTH; }

INLINE int lanes_of(const scan_task *task, int64_t vector) {
    int64_t left = task->count - vector * SCAN_WIDTH;
    return left < SCAN_WIDTH ? (int)left : SCAN_WIDTH;
}

/* Cuts `size` bytes off the scratch memory. */
static void *take(char **cursor, size_t size) {
    char *start = *cursor;
    *cursor += (size + 63) / 64 * 64 + 64;
    return start;
}

static void carve_params(scan_params *params, char **cursor, const scan_problem *problem, int64_t channels) {
    int64_t vectors = vectors_of(channels);
    params->vectors = vectors;
    params->a2 = take(cursor, sizeof(vec) * vectors * problem->states);
    params->weight = take(cursor, sizeof(vec) * vectors * problem->rank);
    params->bias = take(cursor, sizeof(vec) * vectors);
    params->skip = take(cursor, sizeof(vec) * vectors);
    params->bound = take(cursor, sizeof(vec) * vectors);
}

static void carve_steps(scan_steps *steps, char **cursor, const scan_problem *problem, int64_t vectors) {
    steps->dt = take(cursor, sizeof(float) * SCAN_BLOCK * problem->rank);
    steps->b = take(cursor, sizeof(float) * SCAN_BLOCK * problem->states);
    steps->c = take(cursor, sizeof(float) * SCAN_BLOCK * problem->states);
    steps->lane = take(cursor, sizeof(scan_lane) * vectors);
}

/* Rows of `width` numbers, one a channel, become `width` vectors: vectors[v][j] lane i = rows[v * W + i][j]. */
static void transpose_rows(vec *to, const float *rows, int64_t width, const scan_task *task, float scale) {
    int64_t vectors = vectors_of(task->count);
    for (int64_t v = 0; v < vectors; v++) {
        int lanes = lanes_of(task, v);
        float *out = (float *)(to + v * width);
        const float *in = rows + v * SCAN_WIDTH * width;
        if (lanes < SCAN_WIDTH) {
            memset(out, 0, sizeof(vec) * width);
        }
        for (int64_t j = 0; j < width; j++) {
            for (int i = 0; i < lanes; i++) {
                out[j * SCAN_WIDTH + i] = in[i * width + j] * scale;
            }
        }
    }
}

/* The way back, with the numbers multiplied by `scale`. */
static void write_rows(float *rows, const vec *from, int64_t width, const scan_task *task, float scale) {
    for (int64_t e = 0; e < task->count; e++) {
        const float *lane = (const float *)(from + e / SCAN_WIDTH * width) + e % SCAN_WIDTH;
        for (int64_t j = 0; j < width; j++) {
            rows[e * width + j] = lane[j * SCAN_WIDTH] * scale;
        }
    }
}

static void load_params(scan_params *params, const scan_problem *problem, const scan_task *task, int64_t k) {
    int64_t row = k * problem->channels + task->first;
    transpose_rows(params->a2, problem->a + row * problem->states, problem->states, task, LOG2_E);
    if (problem->low_rank) {
        transpose_rows(params->weight, problem->weight + row * problem->rank, problem->rank, task, 1.0f);
    }
    memset(params->bias, 0, sizeof(vec) * params->vectors);
    memset(params->skip, 0, sizeof(vec) * params->vectors);
    for (int64_t v = 0; v < params->vectors; v++) {
        vec bound = v_set(0.0f);
        for (int64_t n = 0; n < problem->states; n++) {
            bound = v_max(bound, v_abs(params->a2[v * problem->states + n]));
        }
        params->bound[v] = bound;
    }
    if (problem->bias) {
        memcpy(params->bias, problem->bias + row, sizeof(float) * task->count);
    }
    if (problem->skip) {
        memcpy(params->skip, problem->skip + row, sizeof(float) * task->count);
    }
}

/* Copies rows of the task's channels into an array of each lane (that of the first is given), whatever the strides.
 * Full vectors go row by row, so that neighbours share the cache lines they come from. */
static void gather(vec *to, const scan_tensor *from, const scan_task *task, const scan_steps *steps) {
    const float *base = from->data + task->item * from->batch + task->first * from->last;
    int64_t full = from->last == 1 ? task->count / SCAN_WIDTH : 0, steps_now = steps->steps;
    for (int64_t t = 0; t < steps_now && full > 0; t++) {
        const float *row = base + steps->pixel[t] * from->step;
        for (int64_t v = 0; v < full; v++) {
            to[v * LANE_VECTORS + t] = v_load(row + v * SCAN_WIDTH);
        }
    }
    for (int64_t v = full; v < vectors_of(task->count); v++) {
        vec *lane = to + v * LANE_VECTORS;
        int lanes = lanes_of(task, v);
        if (lanes < SCAN_WIDTH) {
            memset(lane, 0, sizeof(vec) * steps_now);
        }
        for (int i = 0; i < lanes; i++) {
            const float *column = base + (v * SCAN_WIDTH + i) * from->last;
            for (int64_t t = 0; t < steps_now; t++) {
                ((float *)(lane + t))[i] = column[steps->pixel[t] * from->step];
            }
        }
    }
}

/* Writes an array of each lane to the channels of the task `at`, plus what lies in the tensor `add`, which may be the
 * same one, at those of `add_at`; nothing is added where `add` is NULL. */
static void scatter(const scan_tensor *to, const scan_task *at, const vec *from, const scan_steps *steps,
                    const scan_tensor *add, const scan_task *add_at) {
    float *base = to->data + at->item * to->batch + at->first * to->last;
    const float *more = add ? add->data + add_at->item * add->batch + add_at->first * add->last : NULL;
    int64_t full = to->last == 1 && (!add || add->last == 1) ? at->count / SCAN_WIDTH : 0, steps_now = steps->steps;
    for (int64_t t = 0; t < steps_now && full > 0; t++) {
        float *row = base + steps->pixel[t] * to->step;
        const float *add_row = more ? more + steps->pixel[t] * add->step : NULL;
        for (int64_t v = 0; v < full; v++) {
            vec value = from[v * LANE_VECTORS + t];
            v_store(row + v * SCAN_WIDTH, add ? v_add(v_load(add_row + v * SCAN_WIDTH), value) : value);
        }
    }
    for (int64_t v = full; v < vectors_of(at->count); v++) {
        const vec *lane = from + v * LANE_VECTORS;
        for (int i = 0; i < lanes_of(at, v); i++) {
            int64_t channel = v * SCAN_WIDTH + i;
            for (int64_t t = 0; t < steps_now; t++) {
                float value = ((const float *)(lane + t))[i];
                float sum = add ? more[channel * add->last + steps->pixel[t] * add->step] + value : value;
                base[channel * to->last + steps->pixel[t] * to->step] = sum;
            }
        }
    }
}

INLINE void copy_row(float *to, const float *from, int64_t width, int64_t stride) {
    int64_t j = 0;
    for (; stride == 1 && j + SCAN_WIDTH <= width; j += SCAN_WIDTH) {
        v_store(to + j, v_load(from + j));
        NOT_MEMCPY(to);
    }
    for (; j < width; j++) {
        to[j] = from[j * stride];
        NOT_MEMCPY(to);
    }
}

/* Copies one row of `width` numbers a step: B, C or the low-rank step sizes. */
static void gather_rows(float *to, const scan_tensor *from, int64_t item, int64_t slice, int64_t width,
                        const scan_steps *steps) {
    const float *base = from->data + item * from->batch + slice * from->slice;
    for (int64_t t = 0; t < steps->steps; t++) {
        copy_row(to + t * width, base + steps->pixel[t] * from->step, width, from->last);
    }
}

/* x = bias + weight dt for `count` vectors (a constant after inlining) from v on: four steps at a time, so that one
 * load of a weight serves four, and two vectors, so that a step size does. */
INLINE void project_lanes(const int count, const scan_steps *steps, const scan_params *params, int64_t v,
                         int64_t rank) {
    const vec *weight = params->weight + v * rank;
    scan_lane *lane = steps->lane + v;
    int64_t t = 0;
    for (; t + GROUP <= steps->steps; t += GROUP) {
        const float *dt = steps->dt + t * rank;
        vec x[2][GROUP];
        for (int j = 0; j < count; j++) {
            EACH(x[j][i] = params->bias[v + j])
        }
        for (int64_t r = 0; r < rank; r++) {
            vec size[GROUP];
            EACH(size[i] = v_set(dt[i * rank + r]))
            for (int j = 0; j < count; j++) {
                vec w = weight[j * rank + r];
                EACH(x[j][i] = v_fma(w, size[i], x[j][i]))
            }
        }
        for (int j = 0; j < count; j++) {
            EACH(lane[j].x[t + i] = x[j][i])
        }
    }
    for (; t < steps->steps; t++) {
        for (int j = 0; j < count; j++) {
            vec sum = params->bias[v + j];
            for (int64_t r = 0; r < rank; r++) {
                sum = v_fma(weight[j * rank + r], v_set(steps->dt[t * rank + r]), sum);
            }
            lane[j].x[t] = sum;
        }
    }
}

/* Computes x (step sizes before softplus) of all vectors from low-rank step sizes. */
static void project(const scan_steps *steps, const scan_params *params, int64_t rank) {
    int64_t v = 0;
    for (; v + 2 <= params->vectors; v += 2) {
        project_lanes(2, steps, params, v, rank);
    }
    if (v < params->vectors) {
        project_lanes(1, steps, params, v, rank);
    }
}

/* delta and delta * u of a lane from x. Past the last step, up to a whole group, x and u are 0: those steps are
 * computed and not used. */
static void step_sizes(scan_lane *lane, const scan_params *params, int64_t v, int64_t steps,
                       const scan_problem *problem) {
    vec greatest = v_set(0.0f);
    for (int64_t t = steps; t % GROUP; t++) {
        lane->x[t] = lane->u[t] = v_set(0.0f);
    }
    for (int64_t t = 0; t < steps; t += GROUP) {
        v_exp_minus_abs(lane->x + t, lane->z + t);
    }
    for (int64_t t = 0; t < steps; t += GROUP) {
        vec delta[GROUP];
        if (problem->softplus) {
            v_softplus(lane->x + t, lane->z + t, delta);
        } else {
            EACH(delta[i] = lane->x[t + i])
        }
        EACH(lane->delta[t + i] = delta[i])
        EACH(lane->du[t + i] = v_mul(delta[i], lane->u[t + i]))
        EACH(greatest = v_max(greatest, v_abs(delta[i])))
    }
    lane->clamp = !v_all_below(v_mul(greatest, params->bound[v]), 126.0f);
}

static void set_pixels(scan_steps *steps, const scan_problem *problem, int64_t k, int64_t start) {
    int64_t left = problem->length - start;
    steps->steps = left < SCAN_BLOCK ? left : SCAN_BLOCK;
    for (int64_t t = 0; t < steps->steps; t++) {
        steps->pixel[t] = problem->order ? problem->order[k * problem->length + start + t] : start + t;
    }
}

/* Loads block `start` of direction k: what all channels share. */
static void load_shared(scan_steps *steps, const scan_problem *problem, const scan_task *task, int64_t k,
                        int64_t start) {
    int64_t slice = k + task->group;
    set_pixels(steps, problem, k, start);
    if (problem->low_rank) {
        gather_rows(steps->dt, &problem->dt, task->item, slice, problem->rank, steps);
    }
    gather_rows(steps->b, &problem->b, task->item, slice, problem->states, steps);
    gather_rows(steps->c, &problem->c, task->item, slice, problem->states, steps);
}

/* Loads u, and loads or computes x (step sizes before softplus), for the task's channels. */
static void load_channels(scan_steps *steps, const scan_problem *problem, const scan_params *params,
                          const scan_task *task) {
    gather(steps->lane->u, &problem->u, task, steps);
    if (problem->low_rank) {
        project(steps, params, problem->rank);
    } else {
        gather(steps->lane->x, &problem->dt, task, steps);
        for (int64_t v = 0; v < params->vectors; v++) {
            for (int64_t t = 0; t < steps->steps; t++) {
                steps->lane[v].x[t] = v_add(steps->lane[v].x[t], params->bias[v]);
            }
        }
    }
}

/* Writes decay[t * stride + j] = exp(delta[t] A[j]) for `count` states. */
INLINE void fill_decay_of(vec *RESTRICT decay, const int stride, const int count, const vec *delta, const vec *a2,
                          int64_t steps, const int clamp) {
    for (int j = 0; j < count; j++) {
        vec a = a2[j];
        for (int64_t t = 0; t < steps; t += GROUP) {
            vec x[GROUP];
            EACH(x[i] = v_mul(delta[t + i], a))
            v_exp2(x, clamp);
            EACH(decay[(t + i) * stride + j] = x[i])
        }
    }
}

INLINE void fill_decay(vec *decay, const int stride, const int count, const scan_lane *lane, int64_t first,
                       int64_t steps, const vec *a2) {
    if (lane->clamp) {
        fill_decay_of(decay, stride, count, lane->delta + first, a2, steps, 1);
    } else {
        fill_decay_of(decay, stride, count, lane->delta + first, a2, steps, 0);
    }
}

/* Vectors of states to and from rows of channels: saved states lie as [states][channels]. */
static void save_states(float *to, const vec *states, int64_t count, int64_t stride, int lanes) {
    for (int64_t n = 0; n < count; n++) {
        if (lanes == SCAN_WIDTH) {
            v_store(to + n * stride, states[n]);
        } else {
            memcpy(to + n * stride, states + n, sizeof(float) * lanes);
        }
    }
}

static void read_states(vec *states, const float *from, int64_t count, int64_t stride, int lanes) {
    for (int64_t n = 0; n < count; n++) {
        if (lanes == SCAN_WIDTH) {
            states[n] = v_load(from + n * stride);
        } else {
            memset(states + n, 0, sizeof(vec));
            memcpy(states + n, from + n * stride, sizeof(float) * lanes);
        }
    }
}

INLINE float *saved_block(const scan_problem *problem, const scan_task *task, int64_t k, int64_t start) {
    int64_t blocks = (problem->length + SCAN_BLOCK - 1) / SCAN_BLOCK;
    int64_t block = (task->item * problem->directions + k) * blocks + start / SCAN_BLOCK;
    return problem->saved + block * problem->states * problem->channels + task->first;
}

#endif
