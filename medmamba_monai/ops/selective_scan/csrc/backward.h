/* The backward scan of one task: blocks in reverse, states recomputed inside each block from the saved ones. */
#ifndef MEDMAMBA_BACKWARD_H
#define MEDMAMBA_BACKWARD_H

#include "steady.h"

/* Vectors of channels whose steps are in memory at a time; the task may have more. */
#define VECTORS_AT_ONCE 4

/* States and vectors of channels worked on together: what 16 vector registers hold. */
#define TILE_STATES 2
#define TILE (2 * TILE_STATES)

typedef struct {
    scan_params params;
    scan_steps steps;
    vec *carry;                 /* [vectors][states]: gradient of the state, times its decay, from later steps */
    vec *g_a;                   /* [vectors][states] */
    vec *g_skip, *g_bias;       /* [vectors] */
    vec *g_weight;              /* [vectors][rank] */
    vec *g_bc;                  /* [SCAN_BLOCK][states][2]: of B and C, summed over vectors, lanes still apart */
    vec *g_dt;                  /* [SCAN_BLOCK][rank], likewise */
    vec *past;                  /* [SCAN_BLOCK + 1][2][TILE]: the state before a step and the step's decay */
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
    memory->g_bc = take(cursor, block * problem->states * 2);
    memory->g_dt = take(cursor, block * problem->rank);
    memory->past = take(cursor, sizeof(vec) * (SCAN_BLOCK + 1) * 2 * TILE);
}

static size_t backward_scratch(const scan_problem *problem, int64_t channels) {
    backward_memory memory;
    char *const base = (char *)64, *cursor = base;
    carve_backward(&memory, &cursor, problem, channels);
    return (size_t)(cursor - base);
}

/* A tile: the same `count` states from n of `wide` vectors (constants after inlining), so that the sums over
 * channels in g_b and g_c are loaded and stored once for both vectors. Vector w is v + w of the task and u + w of
 * those in memory. */
typedef struct {
    int64_t v, u, n, states;
} tile_place;

/* Recomputes the tile's states from h, keeping each step's decay and the state before it. `drift` is what each decay
 * lacks, see steady.h. */
INLINE void recompute_tile(const int wide, const int count, backward_memory *memory, const tile_place *at, vec *h,
                           vec *drift) {
    const int tile = wide * count;
    const int64_t steps = memory->steps.steps, states = at->states;
    const scan_lane *lane = memory->steps.lane + at->u;
    const float *b = memory->steps.b + at->n;
    vec *past = memory->past;
    for (int w = 0; w < wide; w++) {
        const vec *a2 = memory->params.a2 + (at->v + w) * states + at->n;
        vec *decay = past + tile + w * count;
        if (lane[w].steady) {
            fill_steady_decay(decay, 2 * tile, count, lane + w, steps, a2, drift + w * count);
        } else {
            fill_decay(decay, 2 * tile, count, lane + w, 0, steps, a2);
            for (int j = 0; j < count; j++) {
                drift[w * count + j] = v_set(0.0f);
            }
        }
    }
    for (int64_t t = 0; t < steps; t++, b += states, past += 2 * tile) {
        UNROLL
        for (int i = 0; i < tile; i++) {
            past[i] = h[i];
            h[i] = v_fma(past[tile + i], h[i], v_mul(lane[i / count].du[t], v_set(b[i % count])));
        }
    }
    UNROLL
    for (int i = 0; i < tile; i++) {
        past[i] = h[i];
    }
}

/* The reverse recurrence of the tile, s = decay * (s' + g_y C), and all that hangs on it. */
INLINE void reverse_tile(const int wide, const int count, backward_memory *memory, const tile_place *at,
                         const vec *drift) {
    const int tile = wide * count;
    const int64_t states = at->states, place = at->v * states + at->n;
    const vec *a2 = memory->params.a2 + place;
    scan_lane *lane = memory->steps.lane + at->u;
    const float *b = memory->steps.b + at->n, *c = memory->steps.c + at->n;
    vec *g_bc = memory->g_bc + 2 * at->n, *past = memory->past;
    vec s[TILE], g_a[TILE];
    UNROLL
    for (int i = 0; i < tile; i++) {
        s[i] = memory->carry[place + i / count * states + i % count];
        g_a[i] = memory->g_a[place + i / count * states + i % count];
    }
    for (int64_t t = memory->steps.steps - 1; t >= 0; t--) {
        const float *b_now = b + t * states, *c_now = c + t * states;
        vec *sums = g_bc + t * 2 * states, *now = past + t * 2 * tile, sum_b[TILE_STATES], sum_c[TILE_STATES];
        UNROLL
        for (int j = 0; j < count; j++) {
            sum_b[j] = sums[2 * j];
            sum_c[j] = sums[2 * j + 1];
        }
        UNROLL
        for (int w = 0; w < wide; w++) {
            vec g_y = lane[w].y[t], sum_delta = lane[w].g_delta[t], sum_du = lane[w].g_du[t];
            UNROLL
            for (int j = 0; j < count; j++) {
                const int i = w * count + j;
                vec g_h = v_fma(g_y, v_set(c_now[j]), s[i]), q;
                sum_c[j] = v_fma(g_y, now[2 * tile + i], sum_c[j]);
                sum_b[j] = v_fma(g_h, lane[w].du[t], sum_b[j]);
                sum_du = v_fma(g_h, v_set(b_now[j]), sum_du);
                s[i] = v_mul(g_h, now[tile + i]);
                q = v_mul(s[i], now[i]);
                sum_delta = v_fma(q, a2[w * states + j], sum_delta);
                g_a[i] = v_fma(q, lane[w].delta[t], g_a[i]);
            }
            lane[w].g_delta[t] = sum_delta;
            lane[w].g_du[t] = sum_du;
        }
        UNROLL
        for (int j = 0; j < count; j++) {
            sums[2 * j] = sum_b[j];
            sums[2 * j + 1] = sum_c[j];
        }
    }
    UNROLL
    for (int i = 0; i < tile; i++) {
        s[i] = v_fma(s[i], v_mul(v_set((float)memory->steps.steps), drift[i]), s[i]);
        memory->carry[place + i / count * states + i % count] = s[i];
        memory->g_a[place + i / count * states + i % count] = g_a[i];
    }
}

INLINE void tile_back(const int wide, const int count, const scan_problem *problem, backward_memory *memory,
                      const scan_task *task, const float *saved, const tile_place *at) {
    vec h[TILE], drift[TILE];
    for (int w = 0; w < wide; w++) {
        const float *from = saved + at->n * problem->channels + (at->v + w) * SCAN_WIDTH;
        read_states(h + w * count, from, count, problem->channels, lanes_of(task, at->v + w));
    }
    recompute_tile(wide, count, memory, at, h, drift);
    reverse_tile(wide, count, memory, at, drift);
}

/* `count` states from n on of all vectors in memory, the first of them being v of the task. */
INLINE void states_back(const int count, const scan_problem *problem, backward_memory *memory, const scan_task *task,
                        const float *saved, int64_t v, int64_t vectors, int64_t n) {
    tile_place at = {v, 0, n, problem->states};
    for (; at.u + 2 <= vectors; at.u += 2, at.v += 2) {
        tile_back(2, count, problem, memory, task, saved, &at);
    }
    if (at.u < vectors) {
        tile_back(1, count, problem, memory, task, saved, &at);
    }
}

/* Before the states of the vectors in memory: sums start at 0, and steps up to a whole group get no gradient. */
static void clear_sums(backward_memory *memory, int64_t vectors) {
    for (int64_t u = 0; u < vectors; u++) {
        scan_lane *lane = memory->steps.lane + u;
        memset(lane->g_delta, 0, sizeof(lane->g_delta));
        memset(lane->g_du, 0, sizeof(lane->g_du));
        for (int64_t t = memory->steps.steps; t % GROUP; t++) {
            lane->y[t] = v_set(0.0f);
        }
    }
}

/* After them: g_delta becomes the gradient before softplus, g_du that of u; vector v of the task, u in memory. */
static void finish_steps(const scan_problem *problem, backward_memory *memory, int64_t v, int64_t u) {
    scan_lane *lane = memory->steps.lane + u;
    vec skip = memory->params.skip[v], g_skip = memory->g_skip[v], g_bias = memory->g_bias[v];
    for (int64_t t = 0; t < memory->steps.steps; t += GROUP) {
        vec g_x[GROUP];
        EACH(g_x[i] = v_fma(lane->g_delta[t + i], v_set(LN_2), v_mul(lane->g_du[t + i], lane->u[t + i])))
        if (problem->softplus) {
            v_times_sigmoid(lane->x + t, lane->z + t, g_x);
        }
        EACH(lane->g_delta[t + i] = g_x[i])
        EACH(g_skip = v_fma(lane->y[t + i], lane->u[t + i], g_skip))
        EACH(g_bias = v_add(g_bias, g_x[i]))
        EACH(lane->g_du[t + i] = v_fma(lane->delta[t + i], lane->g_du[t + i], v_mul(skip, lane->y[t + i])))
    }
    memory->g_skip[v] = g_skip;
    memory->g_bias[v] = g_bias;
}

/* Gradients of the low-rank step sizes, summed over `wide` vectors from v on, the first of them in memory. */
INLINE void steps_back(const int wide, backward_memory *memory, int64_t rank, int64_t v, int64_t u) {
    const vec *weight = memory->params.weight + v * rank;
    const scan_lane *lane = memory->steps.lane + u;
    for (int64_t t = 0; t < memory->steps.steps; t++) {
        vec *RESTRICT g_dt = memory->g_dt + t * rank;
        for (int64_t r = 0; r < rank; r++) {
            vec sum = g_dt[r];
            UNROLL
            for (int w = 0; w < wide; w++) {
                sum = v_fma(lane[w].g_delta[t], weight[w * rank + r], sum);
            }
            g_dt[r] = sum;
        }
    }
}

/* Gradient of `count` columns of their weight from r, for `wide` vectors from v on, the first of them in memory. */
INLINE void weight_back(const int wide, const int count, backward_memory *memory, int64_t rank, int64_t v, int64_t u,
                        int64_t r) {
    const scan_lane *lane = memory->steps.lane + u;
    const float *dt = memory->steps.dt + r;
    vec *g_weight = memory->g_weight + v * rank + r, sum[VECTORS_AT_ONCE * 2];
    UNROLL
    for (int i = 0; i < wide * count; i++) {
        sum[i] = g_weight[i / count * rank + i % count];
    }
    for (int64_t t = 0; t < memory->steps.steps; t++, dt += rank) {
        UNROLL
        for (int i = 0; i < wide * count; i++) {
            sum[i] = v_fma(lane[i / count].g_delta[t], v_set(dt[i % count]), sum[i]);
        }
    }
    UNROLL
    for (int i = 0; i < wide * count; i++) {
        g_weight[i / count * rank + i % count] = sum[i];
    }
}

INLINE void project_some(const int wide, backward_memory *memory, int64_t rank, int64_t v, int64_t u) {
    int64_t r = 0;
    for (; r + 2 <= rank; r += 2) {
        weight_back(wide, 2, memory, rank, v, u, r);
    }
    for (; r < rank; r++) {
        weight_back(wide, 1, memory, rank, v, u, r);
    }
    steps_back(wide, memory, rank, v, u);
}

static void project_back(backward_memory *memory, int64_t rank, int64_t v, int64_t vectors) {
    if (vectors == VECTORS_AT_ONCE) {
        project_some(VECTORS_AT_ONCE, memory, rank, v, 0);
    } else {
        for (int64_t u = 0; u < vectors; u++) {
            project_some(1, memory, rank, v + u, u);
        }
    }
}

/* Writes the lane sums of rows of `width` vectors, `apart` from each other: gradients of B, C and low-rank steps. */
static void write_sums(const scan_tensor *to, const vec *from, int64_t apart, const scan_steps *steps, int64_t item,
                       int64_t slice, int64_t width) {
    float *base = to->data + item * to->batch + slice * to->slice;
    for (int64_t t = 0; t < steps->steps; t++) {
        float *row = base + steps->pixel[t] * to->step;
        for (int64_t j = 0; j < width; j++) {
            row[j * to->last] = v_sum(from[(t * width + j) * apart]);
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
    memset(memory->g_bc, 0, sizeof(vec) * SCAN_BLOCK * states * 2);
    memset(memory->g_dt, 0, sizeof(vec) * SCAN_BLOCK * rank);
    for (int64_t v = 0; v < vectors; v += VECTORS_AT_ONCE) {
        int64_t left = task->count - v * SCAN_WIDTH, most = VECTORS_AT_ONCE * SCAN_WIDTH;
        scan_task part = *task;
        part.first += v * SCAN_WIDTH;
        part.count = left < most ? left : most;
        scan_params params = {vectors_of(part.count), NULL, memory->params.weight + v * rank,
                              memory->params.bias + v, NULL, memory->params.bound + v};
        load_channels(steps, problem, &params, &part);
        for (int64_t u = 0; u < params.vectors; u++) {
            scan_lane *lane = steps->lane + u;
            step_sizes(lane, &params, u, steps->steps, problem);
            lane->steady = steady_sizes(lane, params.bound[u], steps->steps);
        }
        gather(steps->lane->y, &gradient->y, &part, steps);
        clear_sums(memory, params.vectors);
        int64_t n = 0;
        for (; n + TILE_STATES <= states; n += TILE_STATES) {
            states_back(TILE_STATES, problem, memory, task, saved, v, params.vectors, n);
        }
        for (; n < states; n++) {
            states_back(1, problem, memory, task, saved, v, params.vectors, n);
        }
        for (int64_t u = 0; u < params.vectors; u++) {
            finish_steps(problem, memory, v + u, u);
        }
        if (problem->low_rank) {
            project_back(memory, rank, v, params.vectors);
        }
        scatter(&gradient->u, &part, steps->lane->g_du, steps, k > task->k0 ? &gradient->u : NULL, &part);
        if (!problem->low_rank) {
            scatter(&gradient->dt, &part, steps->lane->g_delta, steps, NULL, NULL);
        }
    }
    write_sums(&gradient->b, memory->g_bc, 2, steps, task->item, slice, states);
    write_sums(&gradient->c, memory->g_bc + 1, 2, steps, task->item, slice, states);
    if (problem->low_rank) {
        write_sums(&gradient->dt, memory->g_dt, 1, steps, task->item, slice, rank);
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
