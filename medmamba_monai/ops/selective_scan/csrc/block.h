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
} scan_params;

/* One block of steps. Vectors are stored [vector][SCAN_BLOCK]. */
typedef struct {
    int64_t steps;
    int64_t pixel[SCAN_BLOCK];
    float *dt, *b, *c; /* [step][rank], [step][states] */
    vec *u, *x, *delta, *du;
} scan_steps;

INLINE int64_t vectors_of(int64_t channels) { return (channels + SCAN_WIDTH - 1) / SCAN_WIDTH; }

INLINE int lanes_of(const scan_task *task, int64_t vector) {
    int64_t left = task->count - vector * SCAN_WIDTH;
    return left < SCAN_WIDTH ? (int)left : SCAN_WIDTH;
}

/* Cuts `size` bytes off the scratch memory. */
static void *take(char **cursor, size_t size) {
    char *start = *cursor;
    *cursor += (size + 63) / 64 * 64;
    return start;
}

static void carve_params(scan_params *params, char **cursor, const scan_problem *problem, int64_t channels) {
    int64_t vectors = vectors_of(channels);
    params->vectors = vectors;
    params->a2 = take(cursor, sizeof(vec) * vectors * problem->states);
    params->weight = take(cursor, sizeof(vec) * vectors * problem->rank);
    params->bias = take(cursor, sizeof(vec) * vectors);
    params->skip = take(cursor, sizeof(vec) * vectors);
}

static void carve_steps(scan_steps *steps, char **cursor, const scan_problem *problem, int64_t vectors) {
    steps->dt = take(cursor, sizeof(float) * SCAN_BLOCK * problem->rank);
    steps->b = take(cursor, sizeof(float) * SCAN_BLOCK * problem->states);
    steps->c = take(cursor, sizeof(float) * SCAN_BLOCK * problem->states);
    steps->u = take(cursor, sizeof(vec) * SCAN_BLOCK * vectors);
    steps->x = take(cursor, sizeof(vec) * SCAN_BLOCK * vectors);
    steps->delta = take(cursor, sizeof(vec) * SCAN_BLOCK * vectors);
    steps->du = take(cursor, sizeof(vec) * SCAN_BLOCK * vectors);
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
    if (problem->bias) {
        memcpy(params->bias, problem->bias + row, sizeof(float) * task->count);
    }
    if (problem->skip) {
        memcpy(params->skip, problem->skip + row, sizeof(float) * task->count);
    }
}

/* Copies `steps` rows of the task's channels into vectors, whatever the strides. */
static void gather(vec *to, const scan_tensor *from, const scan_task *task, const scan_steps *steps) {
    const float *base = from->data + task->item * from->batch + task->first * from->last;
    int64_t vectors = vectors_of(task->count);
    for (int64_t v = 0; v < vectors; v++, base += SCAN_WIDTH * from->last, to += SCAN_BLOCK) {
        int lanes = lanes_of(task, v);
        if (from->last == 1 && lanes == SCAN_WIDTH) {
            for (int64_t t = 0; t < steps->steps; t++) {
                to[t] = v_load(base + steps->pixel[t] * from->step);
            }
            continue;
        }
        if (lanes < SCAN_WIDTH) {
            memset(to, 0, sizeof(vec) * steps->steps);
        }
        for (int i = 0; i < lanes; i++) {
            const float *lane = base + i * from->last;
            for (int64_t t = 0; t < steps->steps; t++) {
                ((float *)(to + t))[i] = lane[steps->pixel[t] * from->step];
            }
        }
    }
}

/* Writes vectors back to the task's channels, adding to what is there where `add`. */
static void scatter(const scan_tensor *to, const vec *from, const scan_task *task, const scan_steps *steps, int add) {
    float *base = to->data + task->item * to->batch + task->first * to->last;
    int64_t vectors = vectors_of(task->count);
    for (int64_t v = 0; v < vectors; v++, base += SCAN_WIDTH * to->last, from += SCAN_BLOCK) {
        int lanes = lanes_of(task, v);
        if (to->last == 1 && lanes == SCAN_WIDTH) {
            for (int64_t t = 0; t < steps->steps; t++) {
                float *row = base + steps->pixel[t] * to->step;
                v_store(row, add ? v_add(v_load(row), from[t]) : from[t]);
            }
            continue;
        }
        for (int i = 0; i < lanes; i++) {
            float *lane = base + i * to->last;
            for (int64_t t = 0; t < steps->steps; t++) {
                float value = ((const float *)(from + t))[i];
                float *cell = lane + steps->pixel[t] * to->step;
                *cell = add ? *cell + value : value;
            }
        }
    }
}

/* Copies one row of `width` numbers a step: B, C or the low-rank step sizes. */
static void gather_rows(float *RESTRICT to, const scan_tensor *from, int64_t item, int64_t slice, int64_t width,
                        const scan_steps *steps) {
    const float *base = from->data + item * from->batch + slice * from->slice;
    for (int64_t t = 0; t < steps->steps; t++) {
        const float *row = base + steps->pixel[t] * from->step;
        if (from->last == 1) {
            for (int64_t j = 0; j < width; j++) {
                to[t * width + j] = row[j];
            }
        } else {
            for (int64_t j = 0; j < width; j++) {
                to[t * width + j] = row[j * from->last];
            }
        }
    }
}

/* x = bias + weight dt for vector v, four steps at a time so that one load of the weight serves four. */
static void project(vec *RESTRICT x, const scan_params *params, const scan_steps *steps, int64_t v, int64_t rank) {
    const vec *weight = params->weight + v * rank;
    int64_t t = 0;
    for (; t + 4 <= steps->steps; t += 4) {
        const float *dt = steps->dt + t * rank;
        vec x0 = params->bias[v], x1 = x0, x2 = x0, x3 = x0;
        for (int64_t r = 0; r < rank; r++) {
            vec w = weight[r];
            x0 = v_fma(w, v_set(dt[r]), x0);
            x1 = v_fma(w, v_set(dt[rank + r]), x1);
            x2 = v_fma(w, v_set(dt[2 * rank + r]), x2);
            x3 = v_fma(w, v_set(dt[3 * rank + r]), x3);
        }
        x[t] = x0, x[t + 1] = x1, x[t + 2] = x2, x[t + 3] = x3;
    }
    for (; t < steps->steps; t++) {
        vec sum = params->bias[v];
        for (int64_t r = 0; r < rank; r++) {
            sum = v_fma(weight[r], v_set(steps->dt[t * rank + r]), sum);
        }
        x[t] = sum;
    }
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

/* Loads u and computes x (step sizes before softplus), delta and delta * u for the task's channels. */
static void load_channels(scan_steps *steps, const scan_problem *problem, const scan_params *params,
                          const scan_task *task) {
    gather(steps->u, &problem->u, task, steps);
    if (!problem->low_rank) {
        gather(steps->x, &problem->dt, task, steps);
    }
    for (int64_t v = 0; v < params->vectors; v++) {
        vec *x = steps->x + v * SCAN_BLOCK, *delta = steps->delta + v * SCAN_BLOCK;
        if (problem->low_rank) {
            project(x, params, steps, v, problem->rank);
        }
        for (int64_t t = 0; t < steps->steps; t++) {
            if (!problem->low_rank) {
                x[t] = v_add(x[t], params->bias[v]);
            }
            delta[t] = problem->softplus ? v_softplus(x[t]) : x[t];
            steps->du[v * SCAN_BLOCK + t] = v_mul(delta[t], steps->u[v * SCAN_BLOCK + t]);
        }
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
