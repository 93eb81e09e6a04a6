/* The backward scan of one task: blocks in reverse, states recomputed inside each block from the saved ones. */
#ifndef MEDMAMBA_BACKWARD_H
#define MEDMAMBA_BACKWARD_H

#include "block.h"

/* Vectors of channels whose steps are in memory at a time; the task may have more. */
#define VECTORS_AT_ONCE 4

typedef struct {
    scan_params params;
    scan_steps steps;
    vec *carry;                 /* [vectors][states]: gradient of the state, times its decay, from later steps */
    vec *g_a;                   /* [vectors][states] */
    vec *g_skip, *g_bias;       /* [vectors] */
    vec *g_weight;              /* [vectors][rank] */
    vec *g_y, *g_delta, *g_du;  /* [VECTORS_AT_ONCE][SCAN_BLOCK]; g_du: gradient of delta * u */
    vec *g_b, *g_c, *g_dt;      /* [SCAN_BLOCK][states or rank], summed over vectors, lanes still apart */
    vec *before, *decay;        /* [SCAN_BLOCK][STATES_AT_ONCE] */
} backward_memory;

static void carve_backward(backward_memory *memory, char **cursor, const scan_problem *problem, int64_t channels) {
    int64_t vectors = vectors_of(channels);
    size_t block = sizeof(vec) * SCAN_BLOCK;
    carve_params(&memory->params, cursor, problem, channels);
    carve_steps(&memory->steps, cursor, problem, VECTORS_AT_ONCE);
    memory->carry = take(cursor, sizeof(vec) * vectors * problem->states);
    memory->g_a = take(cursor, sizeof(vec) * vectors * problem->states);
    memory->g_skip = take(cursor, sizeof(vec) * vectors);
    memory->g_bias = take(cursor, sizeof(vec) * vectors);
    memory->g_weight = take(cursor, sizeof(vec) * vectors * problem->rank);
    memory->g_y = take(cursor, block * VECTORS_AT_ONCE);
    memory->g_delta = take(cursor, block * VECTORS_AT_ONCE);
    memory->g_du = take(cursor, block * VECTORS_AT_ONCE);
    memory->g_b = take(cursor, block * problem->states);
    memory->g_c = take(cursor, block * problem->states);
    memory->g_dt = take(cursor, block * problem->rank);
    memory->before = take(cursor, block * STATES_AT_ONCE);
    memory->decay = take(cursor, block * STATES_AT_ONCE);
}

static size_t backward_scratch(const scan_problem *problem, int64_t channels) {
    backward_memory memory;
    char *const base = (char *)64, *cursor = base;
    carve_backward(&memory, &cursor, problem, channels);
    return (size_t)(cursor - base);
}

/* Recomputes `count` states from `h`, keeping each step's decay and the state before it; h ends as the last state. */
INLINE void recompute_states(const int count, backward_memory *memory, vec *h, const vec *a2, int64_t u, int64_t n,
                             int64_t states) {
    const scan_steps *steps = &memory->steps;
    const vec *delta = steps->delta + u * SCAN_BLOCK, *du = steps->du + u * SCAN_BLOCK;
    const float *b = steps->b + n;
    vec *RESTRICT before = memory->before, *RESTRICT decay = memory->decay;
    for (int64_t t = 0; t < steps->steps; t++, b += states) {
        UNROLL
        for (int j = 0; j < count; j++) {
            vec d = v_exp2(v_mul(delta[t], a2[j]));
            decay[t * count + j] = d;
            before[t * count + j] = h[j];
            h[j] = v_fma(d, h[j], v_mul(du[t], v_set(b[j])));
        }
    }
}

/* The reverse recurrence of the same states: s = decay * (s' + g_y C), and all that hangs on it. */
INLINE void reverse_states(const int count, backward_memory *memory, vec *h, const vec *a2, int64_t v, int64_t u,
                           int64_t n, int64_t states) {
    const scan_steps *steps = &memory->steps;
    const vec *delta = steps->delta + u * SCAN_BLOCK, *du = steps->du + u * SCAN_BLOCK;
    const vec *g_y = memory->g_y + u * SCAN_BLOCK;
    vec *RESTRICT g_delta = memory->g_delta + u * SCAN_BLOCK, *RESTRICT g_du = memory->g_du + u * SCAN_BLOCK;
    const vec *before = memory->before, *decay = memory->decay;
    vec s[STATES_AT_ONCE], g_a[STATES_AT_ONCE];
    UNROLL
    for (int j = 0; j < count; j++) {
        s[j] = memory->carry[v * states + n + j];
        g_a[j] = memory->g_a[v * states + n + j];
    }
    for (int64_t t = steps->steps - 1; t >= 0; t--) {
        const float *b = steps->b + t * states + n, *c = steps->c + t * states + n;
        vec *RESTRICT g_b = memory->g_b + t * states + n, *RESTRICT g_c = memory->g_c + t * states + n;
        vec sum_delta = g_delta[t], sum_du = g_du[t];
        UNROLL
        for (int j = 0; j < count; j++) {
            vec g_h = v_fma(g_y[t], v_set(c[j]), s[j]);
            g_c[j] = v_fma(g_y[t], h[j], g_c[j]);
            g_b[j] = v_fma(g_h, du[t], g_b[j]);
            sum_du = v_fma(g_h, v_set(b[j]), sum_du);
            s[j] = v_mul(g_h, decay[t * count + j]);
            h[j] = before[t * count + j];
            vec q = v_mul(s[j], h[j]);
            sum_delta = v_fma(q, a2[j], sum_delta);
            g_a[j] = v_fma(q, delta[t], g_a[j]);
        }
        g_delta[t] = sum_delta;
        g_du[t] = sum_du;
    }
    UNROLL
    for (int j = 0; j < count; j++) {
        memory->carry[v * states + n + j] = s[j];
        memory->g_a[v * states + n + j] = g_a[j];
    }
}

INLINE void states_back(const int count, backward_memory *memory, const float *saved, int64_t stride, int lanes,
                        int64_t v, int64_t u, int64_t n, int64_t states) {
    vec h[STATES_AT_ONCE];
    const vec *a2 = memory->params.a2 + v * states + n;
    read_states(h, saved + n * stride, count, stride, lanes);
    recompute_states(count, memory, h, a2, u, n, states);
    reverse_states(count, memory, h, a2, v, u, n, states);
}

/* One block of vector v of the task, vector u of those in memory. */
static void vector_back(const scan_problem *problem, backward_memory *memory, const float *saved, int lanes,
                        int64_t v, int64_t u) {
    const scan_steps *steps = &memory->steps;
    int64_t states = problem->states, n = 0, base = u * SCAN_BLOCK;
    vec skip = memory->params.skip[v], g_skip = memory->g_skip[v], g_bias = memory->g_bias[v];
    memset(memory->g_delta + base, 0, sizeof(vec) * SCAN_BLOCK);
    memset(memory->g_du + base, 0, sizeof(vec) * SCAN_BLOCK);
    for (; n + STATES_AT_ONCE <= states; n += STATES_AT_ONCE) {
        states_back(STATES_AT_ONCE, memory, saved, problem->channels, lanes, v, u, n, states);
    }
    for (; n < states; n++) {
        states_back(1, memory, saved, problem->channels, lanes, v, u, n, states);
    }
    for (int64_t t = base; t < base + steps->steps; t++) {
        vec input = steps->u[t], g_y = memory->g_y[t], g_du = memory->g_du[t];
        vec g_x = v_fma(memory->g_delta[t], v_set(LN_2), v_mul(g_du, input));
        if (problem->softplus) {
            g_x = v_mul(g_x, v_sigmoid(steps->x[t]));
        }
        g_skip = v_fma(g_y, input, g_skip);
        g_bias = v_add(g_bias, g_x);
        memory->g_delta[t] = g_x;
        memory->g_du[t] = v_fma(steps->delta[t], g_du, v_mul(skip, g_y));
    }
    memory->g_skip[v] = g_skip;
    memory->g_bias[v] = g_bias;
}

/* Gradients of the low-rank step sizes and of their weight, for vector v (u of those in memory). */
static void project_back(backward_memory *memory, int64_t rank, int64_t v, int64_t u) {
    const scan_steps *steps = &memory->steps;
    const vec *g_x = memory->g_delta + u * SCAN_BLOCK, *weight = memory->params.weight + v * rank;
    vec *RESTRICT g_weight = memory->g_weight + v * rank, *RESTRICT g_dt = memory->g_dt;
    for (int64_t t = 0; t < steps->steps; t++) {
        for (int64_t r = 0; r < rank; r++) {
            g_dt[t * rank + r] = v_fma(g_x[t], weight[r], g_dt[t * rank + r]);
            g_weight[r] = v_fma(g_x[t], v_set(steps->dt[t * rank + r]), g_weight[r]);
        }
    }
}

/* Writes lane sums of rows: gradients of B, C and the low-rank step sizes. */
static void write_sums(const scan_tensor *to, const vec *from, const scan_steps *steps, int64_t item, int64_t slice,
                       int64_t width) {
    float *base = to->data + item * to->batch + slice * to->slice;
    for (int64_t t = 0; t < steps->steps; t++) {
        float *row = base + steps->pixel[t] * to->step;
        for (int64_t j = 0; j < width; j++) {
            row[j * to->last] = v_sum(from[t * width + j]);
        }
    }
}

/* One block of direction k: every channel of the task, VECTORS_AT_ONCE vectors at a time. */
static void block_back(const scan_problem *problem, const scan_gradient *gradient, const scan_task *task,
                       backward_memory *memory, int64_t k, int64_t start) {
    scan_steps *steps = &memory->steps;
    int64_t states = problem->states, rank = problem->rank, vectors = memory->params.vectors, slice = k + task->group;
    float *saved = saved_block(problem, task, k, start);
    load_shared(steps, problem, task, k, start);
    memset(memory->g_b, 0, sizeof(vec) * SCAN_BLOCK * states);
    memset(memory->g_c, 0, sizeof(vec) * SCAN_BLOCK * states);
    memset(memory->g_dt, 0, sizeof(vec) * SCAN_BLOCK * rank);
    for (int64_t v = 0; v < vectors; v += VECTORS_AT_ONCE) {
        int64_t left = task->count - v * SCAN_WIDTH, most = VECTORS_AT_ONCE * SCAN_WIDTH;
        scan_task part = *task;
        part.first += v * SCAN_WIDTH;
        part.count = left < most ? left : most;
        scan_params params = {vectors_of(part.count), NULL, memory->params.weight + v * rank,
                              memory->params.bias + v, NULL};
        load_channels(steps, problem, &params, &part);
        gather(memory->g_y, &gradient->y, &part, steps);
        for (int64_t u = 0; u < params.vectors; u++) {
            vector_back(problem, memory, saved + (v + u) * SCAN_WIDTH, lanes_of(task, v + u), v + u, u);
            if (problem->low_rank) {
                project_back(memory, rank, v + u, u);
            }
        }
        scatter(&gradient->u, memory->g_du, &part, steps, k > task->k0);
        if (!problem->low_rank) {
            scatter(&gradient->dt, memory->g_delta, &part, steps, 0);
        }
    }
    write_sums(&gradient->b, memory->g_b, steps, task->item, slice, states);
    write_sums(&gradient->c, memory->g_c, steps, task->item, slice, states);
    if (problem->low_rank) {
        write_sums(&gradient->dt, memory->g_dt, steps, task->item, slice, rank);
    }
}

static void start_back(const scan_problem *problem, const scan_gradient *gradient, const scan_task *task,
                       backward_memory *memory) {
    int64_t vectors = memory->params.vectors, states = problem->states;
    memset(memory->carry, 0, sizeof(vec) * vectors * states);
    if (gradient->last) {
        const float *rows = gradient->last + (task->item * problem->channels + task->first) * states;
        transpose_rows(memory->carry, rows, states, task, 1.0f);
    }
    memset(memory->g_a, 0, sizeof(vec) * vectors * states);
    memset(memory->g_skip, 0, sizeof(vec) * vectors);
    memset(memory->g_bias, 0, sizeof(vec) * vectors);
    memset(memory->g_weight, 0, sizeof(vec) * vectors * problem->rank);
}

/* Writes direction k's parameter gradients into the part of this batch item. */
static void finish_back(const scan_problem *problem, const scan_gradient *gradient, const scan_task *task,
                        const backward_memory *memory, int64_t k) {
    int64_t states = problem->states, rank = problem->rank;
    int64_t row = (task->item * problem->directions + k) * problem->channels + task->first;
    write_rows(gradient->a + row * states, memory->g_a, states, task, 1.0f);
    if (gradient->skip) {
        memcpy(gradient->skip + row, memory->g_skip, sizeof(float) * task->count);
    }
    if (gradient->bias) {
        memcpy(gradient->bias + row, memory->g_bias, sizeof(float) * task->count);
    }
    if (problem->low_rank) {
        write_rows(gradient->weight + row * rank, memory->g_weight, rank, task, 1.0f);
    }
    if (gradient->initial) {
        float *rows = gradient->initial + (task->item * problem->channels + task->first) * states;
        write_rows(rows, memory->carry, states, task, 1.0f);
    }
}

static void backward(const scan_problem *problem, const scan_gradient *gradient, const scan_task *task,
                     void *scratch) {
    backward_memory memory;
    char *cursor = scratch;
    carve_backward(&memory, &cursor, problem, task->count);
    for (int64_t k = task->k0; k < task->k1; k++) {
        load_params(&memory.params, problem, task, k);
        start_back(problem, gradient, task, &memory);
        int64_t start = (problem->length - 1) / SCAN_BLOCK * SCAN_BLOCK;
        for (; start >= 0; start -= SCAN_BLOCK) {
            block_back(problem, gradient, task, &memory, k, start);
        }
        finish_back(problem, gradient, task, &memory, k);
    }
}

#endif
