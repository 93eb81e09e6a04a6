/* Inference of a whole SS-Conv-SSM block: what the Python side fills in, and what the kernels are given.
 *
 * Maps are channels-last, (batch, height, width, channels), float32; a half of the channels is a multiple of PANEL.
 * Weights are packed once, see packed_product, with everything folded into them that does not depend on the image.
 */
#ifndef MEDMAMBA_NETWORK_H
#define MEDMAMBA_NETWORK_H

#include <stddef.h>
#include <stdint.h>

/* Outputs of a product computed side by side; the same for every instruction set, so that all share one packing. */
#define PANEL 16

/* A linear map of rows: `weight` is (panels, inputs, PANEL), zero past the last output, `bias` (panels * PANEL). */
typedef struct {
    const float *weight, *bias;
    int64_t inputs, outputs;
} packed_product;

/* A 3 x 3 convolution with padding 1 by Winograd's algorithm on tiles of `tile` x `tile` outputs (2 or 4): `weight` is
 * (points, panels, channels, PANEL) with (tile + 2)^2 points. What is loaded is multiplied by `scale` and added to
 * `shift` first, where those are not NULL; padding stays zero. Rectified. */
typedef struct {
    const float *weight, *bias, *scale, *shift;
    int64_t channels, tile;
} packed_convolution;

/* A block; `half` channels pass through each of its branches. */
typedef struct {
    int64_t half, rank, states, directions;
    packed_convolution conv1, conv2;
    packed_product conv3;
    packed_product in_proj;  /* of rows normalised without gain and bias */
    const float *depthwise;  /* (9, 2 * half) */
    const float *depthwise_bias;
    packed_product x_proj;   /* to (directions, rank + 2 * states) */
    const float *a, *skip, *dt_weight, *dt_bias; /* as in scan_problem */
    const float *gain, *offset;                  /* of the norm after the scan */
    packed_product out_proj;
    double norm_epsilon, out_norm_epsilon;
} packed_block;

/* The map a block is applied to. */
typedef struct {
    const float *x;       /* (batch, height, width, 2 * half) */
    float *y;             /* the same; it may be x */
    const int64_t *order; /* (directions, height * width) */
    int64_t batch, height, width;
} block_map;

/* A reduction of the map: pixels of `side` x `side` patches become channels of one and are multiplied. */
typedef struct {
    packed_product product;
    const float *gain, *offset; /* of the norm behind the product; NULL: the rows are normalised before it */
    double epsilon;
    int64_t channels, side;
    int64_t channels_first; /* the order of the axes of what comes in; and of a patch: channel, row, column, or column,
                               row, channel */
} packed_patches;

/* What it is applied to; `rows` x `columns` patches, and zeros where they reach over the edge. */
typedef struct {
    const float *x;
    float *y; /* (batch, rows, columns, product.outputs) */
    int64_t batch, height, width, rows, columns;
} patch_map;

/* One of several parts in a row, and its map; x and y there are not read. */
enum { BLOCK_LINK, PATCHES_LINK };
typedef struct {
    int64_t kind;
    const void *part; /* packed_block or packed_patches */
    void *map;        /* block_map or patch_map */
} chain_link;

/* How the rows that enter a product come about, and what becomes of those that leave. */
enum { AS_THEY_ARE, NORMALISED, NORMALISED_AND_GATED, PATCHES, NORMALISED_PATCHES };
enum { PLAIN, RECTIFIED, SHUFFLED };

/* A product over `count` rows. */
typedef struct {
    const packed_product *packed;
    int source, finish;
    const float *from; /* row r at from + r * from_stride */
    int64_t from_stride;
    const float *gate; /* NORMALISED_AND_GATED: times silu of these, after gain and offset */
    int64_t gate_stride;
    const float *gain, *offset;
    const packed_patches *patches; /* PATCHES, NORMALISED_PATCHES: instead of `from` */
    const patch_map *map;
    float epsilon;
    float *to;
    int64_t to_stride, count;
    /* SHUFFLED: to[2 i] = residual[2 i] + other[i], to[2 i + 1] = residual[2 i + 1] + product[i] */
    const float *residual, *other;
    int64_t other_stride;
} product_job;

/* One convolution over a map of `rows` x `columns` tiles an image: `tiles` of them, from `first_tile` on. */
typedef struct {
    const packed_convolution *packed;
    const float *from; /* pixel p at from + p * from_stride */
    int64_t from_stride;
    float *to;         /* pixel p at to + p * channels */
    int64_t height, width, rows, columns, first_tile, tiles;
    float *input, *output; /* (points, tiles, channels) */
} convolution_job;

/* The depthwise convolution and its activation. */
typedef struct {
    const float *weight, *bias, *from;
    int64_t from_stride;
    float *to; /* pixel p at to + p * channels */
    int64_t height, width, channels;
} depthwise_job;

/* One instruction set's kernels. */
typedef struct {
    /* makes rows r0 .. r1 - 1 that enter a product, `inputs` floats each; not for AS_THEY_ARE */
    void (*prepare)(const product_job *job, int64_t r0, int64_t r1, float *to);
    /* rows r0 .. r1 - 1, panels p0 .. p1 - 1; scratch: (r1 - r0) * inputs floats, not for AS_THEY_ARE */
    void (*product)(const product_job *job, int64_t r0, int64_t r1, int64_t p0, int64_t p1, float *scratch);
    /* the three steps of a convolution, over tiles, points, tiles */
    void (*tiles_in)(const convolution_job *job, int64_t first, int64_t end);
    void (*multiply)(const convolution_job *job, int64_t first, int64_t end);
    void (*tiles_out)(const convolution_job *job, int64_t first, int64_t end);
    /* gain and offset after normalisation, of `count` rows of `width` numbers in place */
    void (*normalise)(float *rows, int64_t count, int64_t width, const float *gain, const float *offset,
                      float epsilon);
    /* row `row` of image `image` */
    void (*depthwise)(const depthwise_job *job, int64_t image, int64_t row);
    /* `count` times twelve independent multiply-adds; returns their sum, so that they are computed */
    float (*multiply_add)(int64_t count);
} network_kernel;

#endif
