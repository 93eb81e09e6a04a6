/* Products of rows with packed weights, and what is done to rows on the way in and out. */
#ifndef MEDMAMBA_PRODUCT_H
#define MEDMAMBA_PRODUCT_H

#include "network.h"
#include "rows.h"

/* A tile of the result lives in registers: ROWS rows of one panel. Twelve sums hide the latency of a multiply-add on
 * all machines at hand, and leave registers for what they are made of. */
#if SCAN_WIDTH == 16
#define ROWS 12
#elif SCAN_WIDTH == 8 || defined(__aarch64__)
#define ROWS 6
#else
#define ROWS 3
#endif

/* A tile: `rows` (a constant after inlining) rows from `a`, each of `inputs` numbers, times one panel, plus bias. On
 * the way it asks for memory from `ahead` on, `pace` floats a step. */
INLINE void multiply_rows(const int rows, float *RESTRICT to, int64_t to_stride, const float *RESTRICT a,
                          int64_t stride, const float *RESTRICT weight, const float *RESTRICT bias, int64_t inputs,
                          const float *ahead, int64_t pace) {
    vec sum[ROWS][PANEL_VECTORS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int j = 0; j < PANEL_VECTORS; j++) {
            sum[r][j] = v_load(bias + j * SCAN_WIDTH);
        }
    }
    for (int64_t k = 0; k < inputs; k++, weight += PANEL, ahead += pace) {
        vec w[PANEL_VECTORS];
        PREFETCH(ahead);
        UNROLL
        for (int j = 0; j < PANEL_VECTORS; j++) {
            w[j] = v_load(weight + j * SCAN_WIDTH);
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            vec value = v_set(a[r * stride + k]);
            UNROLL
            for (int j = 0; j < PANEL_VECTORS; j++) {
                sum[r][j] = v_fma(value, w[j], sum[r][j]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int j = 0; j < PANEL_VECTORS; j++) {
            v_store(to + r * to_stride + j * SCAN_WIDTH, sum[r][j]);
        }
    }
}

#define MULTIPLY_ROWS(rows)                                                                                       \
    case rows:                                                                                                    \
        multiply_rows(rows, to, to_stride, a, stride, weight, bias, inputs, ahead, pace);                         \
        break;

static void multiply_tile(int64_t rows, float *to, int64_t to_stride, const float *a, int64_t stride,
                          const float *weight, const float *bias, int64_t inputs, const float *ahead, int64_t pace) {
    switch (rows) {
        MULTIPLY_ROWS(1)
        MULTIPLY_ROWS(2)
        MULTIPLY_ROWS(3)
#if ROWS > 3
        MULTIPLY_ROWS(4)
        MULTIPLY_ROWS(5)
        MULTIPLY_ROWS(6)
#endif
#if ROWS > 6
        MULTIPLY_ROWS(7)
        MULTIPLY_ROWS(8)
        MULTIPLY_ROWS(9)
        MULTIPLY_ROWS(10)
        MULTIPLY_ROWS(11)
        MULTIPLY_ROWS(12)
#endif
    }
}

/* What remains to be done to one row of a panel: `sum`, or `left` numbers of it where the panel is not full. */
static void finish_row(const product_job *job, const float *sum, int64_t row, int64_t panel) {
    int64_t left = job->packed->outputs - panel * PANEL;
    if (job->finish == SHUFFLED) {
        const float *residual = job->residual + row * job->to_stride + 2 * panel * PANEL;
        const float *other = job->other + row * job->other_stride + panel * PANEL;
        float *to = job->to + row * job->to_stride + 2 * panel * PANEL;
        for (int i = 0; i < PANEL; i++) {
            to[2 * i] = residual[2 * i] + other[i];
            to[2 * i + 1] = residual[2 * i + 1] + sum[i];
        }
    } else if (job->finish == RECTIFIED) {
        float *to = job->to + row * job->to_stride + panel * PANEL;
        for (int j = 0; j < PANEL; j += SCAN_WIDTH) {
            v_store(to + j, v_max(v_set(0.0f), v_load(sum + j)));
        }
    } else {
        memcpy(job->to + row * job->to_stride + panel * PANEL, sum, sizeof(float) * left);
    }
}

/* Tile `index` of `tiles` of a panel. All of them together fetch the next panel, which otherwise the first tile there
 * would wait for: deep in the network weights come from main memory. */
static void product_tile(const product_job *job, int64_t rows, const float *a, int64_t stride, int64_t row,
                         int64_t panel, int64_t index, int64_t tiles) {
    int64_t inputs = job->packed->inputs, pace = tiles < PANEL ? PANEL / tiles : 1;
    const float *weight = job->packed->weight + panel * inputs * PANEL, *bias = job->packed->bias + panel * PANEL;
    const float *ahead = weight + inputs * (PANEL + pace * index);
    float sums[ROWS * PANEL];
    if (job->finish == PLAIN && job->packed->outputs >= (panel + 1) * PANEL) {
        float *to = job->to + row * job->to_stride + panel * PANEL;
        multiply_tile(rows, to, job->to_stride, a, stride, weight, bias, inputs, ahead, pace);
        return;
    }
    multiply_tile(rows, sums, PANEL, a, stride, weight, bias, inputs, ahead, pace);
    for (int64_t r = 0; r < rows; r++) {
        finish_row(job, sums + r * PANEL, row + r, panel);
    }
}

static void prepare(const product_job *job, int64_t r0, int64_t r1, float *to) {
    int64_t inputs = job->packed->inputs;
    for (int64_t r = r0; r < r1; r++, to += inputs) {
        const float *from = to;
        if (job->source == PATCHES || job->source == NORMALISED_PATCHES) {
            gather_patch(to, job->patches, job->map, r);
        } else {
            from = job->from + r * job->from_stride;
        }
        if (job->source != PATCHES) {
            normalise_row(to, from, inputs, job->epsilon);
        }
        if (job->source == NORMALISED_AND_GATED) {
            gate_row(to, job->gate + r * job->gate_stride, job->gain, job->offset, inputs);
        }
    }
}

static void product(const product_job *job, int64_t r0, int64_t r1, int64_t p0, int64_t p1, float *scratch) {
    const float *rows = scratch;
    int64_t stride = job->packed->inputs;
    if (job->source == AS_THEY_ARE) {
        rows = job->from + r0 * job->from_stride;
        stride = job->from_stride;
    } else {
        prepare(job, r0, r1, scratch);
    }
    int64_t tiles = (r1 - r0 + ROWS - 1) / ROWS; /* of nearly equal height: a tile of a row or two is slow */
    for (int64_t p = p0; p < p1; p++) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t first = (r1 - r0) * i / tiles, end = (r1 - r0) * (i + 1) / tiles;
            product_tile(job, end - first, rows + first * stride, stride, r0 + first, p, i, tiles);
        }
    }
}

static float multiply_add(int64_t count) {
    vec sum[12], factor = v_set(0.999f), step = v_set(1e-3f);
    for (int i = 0; i < 12; i++) {
        sum[i] = v_set((float)i);
    }
    for (; count > 0; count--) {
        UNROLL
        for (int i = 0; i < 12; i++) {
            sum[i] = v_fma(sum[i], factor, step);
        }
    }
    for (int i = 1; i < 12; i++) {
        sum[0] = v_add(sum[0], sum[i]);
    }
    return v_sum(sum[0]);
}

#endif
