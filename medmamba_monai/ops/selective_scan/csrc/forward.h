/* The forward scan of one task. */
#ifndef MEDMAMBA_FORWARD_H
#define MEDMAMBA_FORWARD_H

#include "steady.h"

/* Steps whose decays are made at a time: they leave room in the L1 cache. */
#define DECAY_STEPS 16

typedef struct {
    scan_params params;
    scan_steps steps;
    vec *h; /* [vectors][states] */
    vec *decay; /* [DECAY_STEPS][STATES_AT_ONCE] */
    vec *sum; /* [length][vectors] or nothing: y without the last direction, see sums_apart */
} forward_memory;

/* Whether a task adds its directions up in memory of its own. Where several tasks share the rows of y, a row's other
 * half would come along into the caches each time, from another core that has just written it. */
static int sums_apart(const scan_problem *problem, int64_t channels, int64_t directions) {
    return directions > 1 && channels < problem->channels;
}

static void carve_forward(forward_memory *memory, char **cursor, const scan_problem *problem, int64_t channels,
                          int64_t directions) {
    int64_t vectors = vectors_of(channels);
    carve_params(&memory->params, cursor, problem, channels);
    carve_steps(&memory->steps, cursor, problem, vectors);
    memory->h = take(cursor, sizeof(vec) * vectors * problem->states);
    memory->decay = take(cursor, sizeof(vec) * DECAY_STEPS * STATES_AT_ONCE);
    memory->sum = take(cursor, sums_apart(problem, channels, directions) ? sizeof(vec) * vectors * problem->length : 0);
}

static size_t forward_scratch(const scan_problem *problem, int64_t channels, int64_t directions) {
    forward_memory memory;
    char *const base = (char *)64, *cursor = base;
    carve_forward(&memory, &cursor, problem, channels, directions);
    return (size_t)(cursor - base);
}

/* `count` states (a constant after inlining) of one vector of channels through a block: y += C h. */
INLINE void scan_states(const int count, vec *RESTRICT state, const vec *RESTRICT decay, const vec *RESTRICT du,
                        vec *RESTRICT y, const float *RESTRICT b, const float *RESTRICT c, int64_t steps,
                        int64_t row) {
    vec h[STATES_AT_ONCE];
    UNROLL
    for (int j = 0; j < count; j++) {
        h[j] = state[j];
    }
    for (int64_t t = 0; t < steps; t++, b += row, c += row, decay += count) {
        vec sum = y[t], entry = du[t];
        UNROLL
        for (int j = 0; j < count; j++) {
            h[j] = v_fma(decay[j], h[j], v_mul(entry, v_set(b[j])));
            sum = v_fma(h[j], v_set(c[j]), sum);
        }
        y[t] = sum;
    }
    UNROLL
    for (int j = 0; j < count; j++) {
        state[j] = h[j];
    }
}

INLINE void scan_some(const int count, forward_memory *memory, int64_t v, int64_t n, int64_t states) {
    const scan_steps *steps = &memory->steps;
    const vec *a2 = memory->params.a2 + v * states + n;
    scan_lane *lane = steps->lane + v;
    for (int64_t t = 0; t < steps->steps; t += DECAY_STEPS) {
        int64_t now = steps->steps - t < DECAY_STEPS ? steps->steps - t : DECAY_STEPS;
        fill_decay(memory->decay, count, count, lane, t, now, a2);
        scan_states(count, memory->h + v * states + n, memory->decay, lane->du + t, lane->y + t,
                    steps->b + t * states + n, steps->c + t * states + n, now, states);
    }
}

static void scan_block(forward_memory *memory, int64_t v, const scan_problem *problem) {
    scan_lane *lane = memory->steps.lane + v;
    const vec skip = memory->params.skip[v];
    int64_t states = problem->states, n = 0;
    for (int64_t t = 0; t < memory->steps.steps; t++) {
        lane->y[t] = v_mul(skip, lane->u[t]);
    }
    if (problem->softplus && steady_steps(lane, &memory->params, v, memory->steps.steps)) {
        steady_states(memory->h + v * states, lane, memory->params.a2 + v * states, &memory->steps, states);
        return;
    }
    step_sizes(lane, &memory->params, v, memory->steps.steps, problem);
    for (; n + STATES_AT_ONCE <= states; n += STATES_AT_ONCE) {
        scan_some(STATES_AT_ONCE, memory, v, n, states);
    }
    for (; n < states; n++) {
        scan_some(1, memory, v, n, states);
    }
}

static void start_states(vec *h, const scan_problem *problem, const scan_task *task) {
    int64_t states = problem->states;
    memset(h, 0, sizeof(vec) * vectors_of(task->count) * states);
    if (problem->initial) {
        const float *rows = problem->initial + (task->item * problem->channels + task->first) * states;
        transpose_rows(h, rows, states, task, 1.0f);
    }
}

static void forward(const scan_problem *problem, const scan_output *output, const scan_task *task, void *scratch) {
    forward_memory memory;
    char *cursor = scratch;
    int64_t states = problem->states;
    carve_forward(&memory, &cursor, problem, task->count, task->k1 - task->k0);
    scan_tensor sum = output->y, apart = {(float *)memory.sum, 0, vectors_of(task->count) * SCAN_WIDTH, 0, 1};
    scan_task sum_at = *task, from_zero = {0, 0, 0, task->count, 0, 0};
    if (sums_apart(problem, task->count, task->k1 - task->k0)) {
        sum = apart, sum_at = from_zero;
    }
    for (int64_t k = task->k0; k < task->k1; k++) {
        load_params(&memory.params, problem, task, k);
        start_states(memory.h, problem, task);
        for (int64_t start = 0; start < problem->length; start += SCAN_BLOCK) {
            load_shared(&memory.steps, problem, task, k, start);
            load_channels(&memory.steps, problem, &memory.params, task);
            for (int64_t v = 0; v < memory.params.vectors; v++) {
                if (problem->saved) {
                    float *to = saved_block(problem, task, k, start) + v * SCAN_WIDTH;
                    save_states(to, memory.h + v * states, states, problem->channels, lanes_of(task, v));
                }
                scan_block(&memory, v, problem);
            }
            int last = k + 1 == task->k1;
            scatter(last ? &output->y : &sum, last ? task : &sum_at, memory.steps.lane->y, &memory.steps,
                    k > task->k0 ? &sum : NULL, &sum_at);
        }
    }
    if (output->last) {
        float *rows = output->last + (task->item * problem->channels + task->first) * states;
        write_rows(rows, memory.h, states, task, 1.0f);
    }
}

#endif
