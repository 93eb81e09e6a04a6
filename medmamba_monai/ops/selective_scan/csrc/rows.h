/* Layer norm, gate and depthwise convolution over channels-last rows. */
#ifndef MEDMAMBA_ROWS_H
#define MEDMAMBA_ROWS_H

#include "network.h"
#include "vector.h"

#include <math.h>

#define PANEL_VECTORS (PANEL / SCAN_WIDTH)

/* x times the logistic function of x */
INLINE void v_silu(const vec *x, vec *y) {
    vec z[GROUP];
    EACH(z[i] = v_mul(x[i], v_set(-LOG2_E)))
    v_exp2(z, 1);
    EACH(y[i] = v_div(x[i], v_add(v_set(1.0f), z[i])))
}

/* The sum of several running sums: one addition need not wait for the one before. */
INLINE float add_up(const vec *sums) {
    vec sum = sums[0];
    for (int j = 1; j < PANEL_VECTORS; j++) {
        sum = v_add(sum, sums[j]);
    }
    return v_sum(sum);
}

/* to = (from - mean) / sqrt(variance + epsilon); both may be one. `width` is a multiple of PANEL. */
static void normalise_row(float *to, const float *from, int64_t width, float epsilon) {
    const float share = 1.0f / (float)width;
    vec sums[PANEL_VECTORS], squares[PANEL_VECTORS], mean, scale;
    UNROLL
    for (int j = 0; j < PANEL_VECTORS; j++) {
        sums[j] = squares[j] = v_set(0.0f);
    }
    for (int64_t i = 0; i < width; i += PANEL) {
        UNROLL
        for (int j = 0; j < PANEL_VECTORS; j++) {
            sums[j] = v_add(sums[j], v_load(from + i + j * SCAN_WIDTH));
        }
    }
    mean = v_set(add_up(sums) * share);
    for (int64_t i = 0; i < width; i += PANEL) {
        UNROLL
        for (int j = 0; j < PANEL_VECTORS; j++) {
            vec away = v_sub(v_load(from + i + j * SCAN_WIDTH), mean);
            squares[j] = v_fma(away, away, squares[j]);
        }
    }
    scale = v_set(1.0f / sqrtf(add_up(squares) * share + epsilon));
    for (int64_t i = 0; i < width; i += SCAN_WIDTH) {
        v_store(to + i, v_mul(v_sub(v_load(from + i), mean), scale));
    }
}

/* row = (row * gain + offset) * silu(gate) */
static void gate_row(float *RESTRICT row, const float *RESTRICT gate, const float *RESTRICT gain,
                     const float *RESTRICT offset, int64_t width) {
    for (int64_t first = 0; first < width; first += GROUP * SCAN_WIDTH) {
        int64_t left = (width - first) / SCAN_WIDTH, count = left < GROUP ? left : GROUP;
        vec x[GROUP], y[GROUP];
        EACH(x[i] = i < count ? v_load(gate + first + i * SCAN_WIDTH) : v_set(0.0f))
        v_silu(x, y);
        for (int i = 0; i < count; i++) {
            int64_t c = first + i * SCAN_WIDTH;
            vec value = v_fma(v_load(row + c), v_load(gain + c), v_load(offset + c));
            v_store(row + c, v_mul(value, y[i]));
        }
    }
}

static void normalise(float *rows, int64_t count, int64_t width, const float *gain, const float *offset,
                      float epsilon) {
    for (float *row = rows; row < rows + count * width; row += width) {
        normalise_row(row, row, width, epsilon);
        for (int64_t c = 0; c < width; c += SCAN_WIDTH) {
            v_store(row + c, v_fma(v_load(row + c), v_load(gain + c), v_load(offset + c)));
        }
    }
}

/* `count` numbers, zeros from the `inside`th on. */
INLINE void copy_inside(float *to, const float *from, int64_t count, int64_t inside) {
    for (int64_t i = 0; i < count; i++) {
        to[i] = i < inside ? from[i] : 0.0f;
    }
}

/* Pixels of one patch, side by side. */
static void gather_patch(float *to, const packed_patches *patches, const patch_map *map, int64_t patch) {
    int64_t side = patches->side, channels = patches->channels;
    int64_t column = patch % map->columns * side, row = patch / map->columns % map->rows * side;
    int64_t image = patch / map->columns / map->rows, right = map->width - column, below = map->height - row;
    if (patches->channels_first) {
        for (int64_t line = 0; line < channels * side; line++) {
            int64_t c = line / side, r = line % side;
            const float *from = map->x + ((image * channels + c) * map->height + row + r) * map->width + column;
            copy_inside(to + line * side, from, side, r < below ? right : 0);
        }
        return;
    }
    for (int64_t i = 0; i < side * side; i++) {
        int64_t c = i / side, r = i % side;
        const float *from = map->x + ((image * map->height + row + r) * map->width + column + c) * channels;
        if (r < below && c < right) {
            memcpy(to + i * channels, from, sizeof(float) * channels);
        } else {
            memset(to + i * channels, 0, sizeof(float) * channels);
        }
    }
}

/* GROUP neighbouring outputs of one vector of channels. `from` is the pixel above and left of the first of them; rows
 * y0 .. y1 - 1 of the window lie inside the map, and so do its columns x0 .. x1 - 1. */
INLINE void depthwise_group(vec *sum, const depthwise_job *job, const float *from, int64_t channel, int y0, int y1,
                            int x0, int x1) {
    int64_t pixel = job->from_stride, line = job->from_stride * job->width;
    EACH(sum[i] = v_load(job->bias + channel))
    for (int y = y0; y < y1; y++) {
        const float *weight = job->weight + 3 * y * job->channels + channel;
        vec w[3], x[GROUP + 2];
        UNROLL
        for (int j = 0; j < 3; j++) {
            w[j] = v_load(weight + j * job->channels);
        }
        UNROLL
        for (int j = 0; j < GROUP + 2; j++) {
            x[j] = j >= x0 && j < x1 ? v_load(from + y * line + j * pixel) : v_set(0.0f);
        }
        UNROLL
        for (int j = 0; j < 3; j++) {
            EACH(sum[i] = v_fma(x[i + j], w[j], sum[i]))
        }
    }
}

static void depthwise(const depthwise_job *job, int64_t image, int64_t row) {
    int64_t width = job->width, above = (image * job->height + row - 1) * width;
    int y0 = row == 0, y1 = row == job->height - 1 ? 2 : 3;
    for (int64_t column = 0; column < width; column += GROUP) {
        int64_t left = width - column + 1; /* of the window's columns, those up to the map's end */
        int x0 = column == 0, x1 = left < GROUP + 2 ? (int)left : GROUP + 2;
        const float *from = job->from + (above + column - 1) * job->from_stride;
        float *to = job->to + (above + width + column) * job->channels;
        for (int64_t c = 0; c < job->channels; c += SCAN_WIDTH) {
            vec sum[GROUP], result[GROUP];
            if (y0 == 0 && y1 == 3 && x0 == 0 && x1 == GROUP + 2) {
                depthwise_group(sum, job, from + c, c, 0, 3, 0, GROUP + 2);
            } else {
                depthwise_group(sum, job, from + c, c, y0, y1, x0, x1);
            }
            v_silu(sum, result);
            for (int i = 0; i < GROUP && i + 1 < x1; i++) {
                v_store(to + i * job->channels + c, result[i]);
            }
        }
    }
}

#endif
