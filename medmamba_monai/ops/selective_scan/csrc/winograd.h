/* 3 x 3 convolutions by Winograd's minimal filtering (Lavin and Gray, arXiv 1509.09308): tiles of the map are
 * transformed, multiplied point by point over the channels, and transformed back. With tiles of 4 x 4 outputs a
 * quarter of the multiplications is left, with 2 x 2 four ninths.
 */
#ifndef MEDMAMBA_WINOGRAD_H
#define MEDMAMBA_WINOGRAD_H

#include "product.h"

#define MOST_POINTS 6

/* Transforms of the input along one axis, in place: x[0], x[step], ... */
INLINE void points_in(const int points, vec *x, const int step) {
    if (points == 4) {
        vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step];
        x[0] = v_sub(x0, x2);
        x[step] = v_add(x1, x2);
        x[2 * step] = v_sub(x2, x1);
        x[3 * step] = v_sub(x1, x3);
    } else {
        const vec two = v_set(2.0f), four = v_set(4.0f), five = v_set(5.0f), minus = v_set(-1.0f);
        vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
        vec even = v_fma(v_mul(four, minus), x2, x4), odd = v_fma(v_mul(four, minus), x1, x3);
        vec near = v_sub(x4, x2), far = v_mul(two, v_sub(x3, x1));
        x[0] = v_fma(four, x0, v_fma(v_mul(five, minus), x2, x4));
        x[step] = v_add(even, odd);
        x[2 * step] = v_sub(even, odd);
        x[3 * step] = v_add(near, far);
        x[4 * step] = v_sub(near, far);
        x[5 * step] = v_fma(four, x1, v_fma(v_mul(five, minus), x3, x5));
    }
}

/* Transforms back along one axis, in place: points - 2 results. */
INLINE void points_out(const int points, vec *x, const int step) {
    if (points == 4) {
        vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step];
        x[0] = v_add(v_add(x0, x1), x2);
        x[step] = v_sub(v_sub(x1, x2), x3);
    } else {
        const vec two = v_set(2.0f), four = v_set(4.0f), eight = v_set(8.0f);
        vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
        vec sum1 = v_add(x1, x2), sum2 = v_add(x3, x4), difference1 = v_sub(x1, x2), difference2 = v_sub(x3, x4);
        x[0] = v_add(v_add(x0, sum1), sum2);
        x[step] = v_fma(two, difference2, difference1);
        x[2 * step] = v_fma(four, sum2, sum1);
        x[3 * step] = v_add(v_fma(eight, difference2, difference1), x5);
    }
}

/* Where a tile lies: its image's first pixel, and the row and column of its first output. */
typedef struct {
    int64_t image, row, column;
} tile_origin;

INLINE tile_origin origin_of(const convolution_job *job, int64_t tile) {
    int64_t per_image = job->rows * job->columns, inside = tile % per_image, side = job->packed->tile;
    tile_origin place = {tile / per_image * job->height * job->width, inside / job->columns * side,
                        inside % job->columns * side};
    return place;
}

INLINE void load_tile(const int points, vec *x, const convolution_job *job, const tile_origin *place, int64_t c) {
    const float *scale = job->packed->scale, *shift = job->packed->shift;
    UNROLL
    for (int i = 0; i < points; i++) {
        int64_t row = place->row + i - 1;
        UNROLL
        for (int j = 0; j < points; j++) {
            int64_t column = place->column + j - 1;
            vec value = v_set(0.0f);
            if (row >= 0 && row < job->height && column >= 0 && column < job->width) {
                value = v_load(job->from + (place->image + row * job->width + column) * job->from_stride + c);
                value = scale ? v_fma(value, v_load(scale + c), v_load(shift + c)) : value;
            }
            x[i * points + j] = value;
        }
    }
}

INLINE void tile_in(const int points, const convolution_job *job, int64_t tile) {
    int64_t channels = job->packed->channels, plane = job->tiles * channels;
    tile_origin place = origin_of(job, tile);
    for (int64_t c = 0; c < channels; c += SCAN_WIDTH) {
        float *to = job->input + (tile - job->first_tile) * channels + c;
        vec x[MOST_POINTS * MOST_POINTS];
        load_tile(points, x, job, &place, c);
        UNROLL
        for (int j = 0; j < points; j++) {
            points_in(points, x + j, points);
        }
        UNROLL
        for (int i = 0; i < points; i++) {
            points_in(points, x + i * points, 1);
            UNROLL
            for (int j = 0; j < points; j++) {
                v_store(to + (i * points + j) * plane, x[i * points + j]);
            }
        }
    }
}

INLINE void tile_out(const int points, const convolution_job *job, int64_t tile) {
    int64_t channels = job->packed->channels, plane = job->tiles * channels;
    tile_origin place = origin_of(job, tile);
    for (int64_t c = 0; c < channels; c += SCAN_WIDTH) {
        const float *from = job->output + (tile - job->first_tile) * channels + c;
        vec x[MOST_POINTS * MOST_POINTS], bias = v_load(job->packed->bias + c);
        UNROLL
        for (int j = 0; j < points; j++) {
            UNROLL
            for (int i = 0; i < points; i++) {
                x[i * points + j] = v_load(from + (i * points + j) * plane);
            }
            points_out(points, x + j, points);
        }
        UNROLL
        for (int i = 0; i < points - 2; i++) {
            float *to = job->to + (place.image + (place.row + i) * job->width + place.column) * channels + c;
            points_out(points, x + i * points, 1);
            for (int j = 0; j < points - 2 && place.row + i < job->height && place.column + j < job->width; j++) {
                v_store(to + j * channels, v_max(v_set(0.0f), v_add(x[i * points + j], bias)));
            }
        }
    }
}

static void tiles_in(const convolution_job *job, int64_t first, int64_t end) {
    for (int64_t tile = first; tile < end; tile++) {
        if (job->packed->tile == 4) {
            tile_in(6, job, tile);
        } else {
            tile_in(4, job, tile);
        }
    }
}

static void tiles_out(const convolution_job *job, int64_t first, int64_t end) {
    for (int64_t tile = first; tile < end; tile++) {
        if (job->packed->tile == 4) {
            tile_out(6, job, tile);
        } else {
            tile_out(4, job, tile);
        }
    }
}

static void multiply(const convolution_job *job, int64_t first, int64_t end) {
    static const float no_bias[PANEL];
    int64_t channels = job->packed->channels, plane = job->tiles * channels, panels = channels / PANEL;
    for (int64_t i = first; i < end; i++) {
        int64_t point = i / panels, panel = i % panels;
        packed_product one = {job->packed->weight + i * channels * PANEL, no_bias, channels, PANEL};
        product_job task = {.packed = &one, .source = AS_THEY_ARE, .finish = PLAIN,
                            .from = job->input + point * plane, .from_stride = channels,
                            .to = job->output + point * plane + panel * PANEL, .to_stride = channels,
                            .count = job->tiles};
        product(&task, 0, job->tiles, 0, 1, NULL);
    }
}

#endif
