/* Products and 3 x 3 convolutions as steps of a plan. */
#ifndef MEDMAMBA_LAYER_PLANS_H
#define MEDMAMBA_LAYER_PLANS_H

#include "network.h"
#include "threads.h"

/* Rows of a product's task: 60 is a multiple of every kernel's tile and makes one task of a 7 x 7 map. */
#define MOST_ROWS 60
#define TASKS_A_THREAD 4

/* Numbers of a convolution's weights that stay in a second-level cache, and tiles of a task that do so beside them. */
#define NARROW (160 * 1024)
#define NARROW_TILES 24

static int64_t divide_up(int64_t size, int64_t part) { return (size + part - 1) / part; }

/* Cuts `count` floats off the workspace, whole cache lines. */
static float *cut(float **cursor, int64_t count) {
    float *start = *cursor;
    *cursor += divide_up(count, 16) * 16;
    return start;
}

/* Indices 0 .. count - 1 in pieces of `each`. */
typedef struct {
    void (*body)(void *context, int64_t first, int64_t end, int worker);
    void *context;
    int64_t count, each;
} piecewise;

static void piece(void *context, int64_t index, int worker) {
    const piecewise *loop = context;
    int64_t first = index * loop->each, end = first + loop->each;
    loop->body(loop->context, first, end < loop->count ? end : loop->count, worker);
}

static int add_pieces(work_plan *plan, const piecewise *loop, int64_t threads, int after) {
    return add_step(plan, piece, (void *)loop, divide_up(loop->count, loop->each), threads, after, AT_ONCE);
}

/* Pieces that give each thread a few, but no larger than `most`. */
static int64_t piece_size(int64_t count, int64_t most, int64_t threads) {
    int64_t each = threads > 1 ? count / (TASKS_A_THREAD * threads) : count;
    each = each < most ? each : most;
    return each < 1 ? 1 : each;
}

typedef struct {
    const network_kernel *kernel;
    product_job asked, job;       /* as asked for, and with rows made beforehand where they are */
    int64_t rows, panels, chunks; /* of a task; tasks side by side */
    float *scratch;
    int64_t scratch_size;
    piecewise prepare;
} product_phase;

static void product_task(void *context, int64_t index, int worker) {
    const product_phase *phase = context;
    int64_t r0 = index / phase->chunks * phase->rows, p0 = index % phase->chunks * phase->panels;
    int64_t r1 = r0 + phase->rows, p1 = p0 + phase->panels;
    int64_t panels = divide_up(phase->job.packed->outputs, PANEL);
    phase->kernel->product(&phase->job, r0, r1 < phase->job.count ? r1 : phase->job.count, p0, p1 < panels ? p1 : panels,
                           phase->scratch + worker * phase->scratch_size);
}

static void prepare_task(void *context, int64_t first, int64_t end, int worker) {
    const product_phase *phase = context;
    (void)worker;
    phase->kernel->prepare(&phase->asked, first, end, phase->scratch + first * phase->asked.packed->inputs);
}

/* Floats in which rows of a product are made: all rows where they are few, else those of each thread's task. */
static int64_t product_scratch(const packed_product *packed, int64_t count, int64_t threads) {
    int64_t most = TASKS_A_THREAD * threads * MOST_ROWS;
    return divide_up((count < most ? count : most) * packed->inputs, 16) * 16;
}

/* Rows are shared out first. Where they are few, panels are too, so that each thread reads weights of its own; the
 * rows are made beforehand then, once for all panels. */
static int plan_product(work_plan *plan, product_phase *phase, const network_kernel *kernel, const product_job *job,
                        float *scratch, int64_t threads, int after, int also_after) {
    int64_t blocks = divide_up(job->count, MOST_ROWS), panels = divide_up(job->packed->outputs, PANEL);
    product_phase made = {.kernel = kernel, .asked = *job, .job = *job, .panels = panels, .scratch = scratch};
    *phase = made;
    if (blocks > 0) {
        phase->rows = divide_up(divide_up(job->count, blocks), 12) * 12;
        blocks = divide_up(job->count, phase->rows);
    }
    phase->scratch_size = phase->rows * job->packed->inputs;
    if (threads > 1 && blocks > 0 && blocks < TASKS_A_THREAD * threads) {
        phase->panels = divide_up(panels, divide_up(TASKS_A_THREAD * threads, blocks));
        if (job->source != AS_THEY_ARE) {
            piecewise prepare = {prepare_task, phase, job->count, piece_size(job->count, MOST_ROWS, threads)};
            phase->prepare = prepare;
            phase->job.source = AS_THEY_ARE;
            phase->job.from = scratch;
            phase->job.from_stride = job->packed->inputs;
            after = add_pieces(plan, &phase->prepare, threads, after);
        }
    }
    phase->chunks = divide_up(panels, phase->panels);
    return add_step(plan, product_task, phase, blocks * phase->chunks, threads, after, also_after);
}

typedef struct {
    const network_kernel *kernel;
    convolution_job job;
    piecewise pieces[3];
} convolution_phase;

static void tiles_in_task(void *context, int64_t first, int64_t end, int worker) {
    const convolution_phase *phase = context;
    (void)worker;
    phase->kernel->tiles_in(&phase->job, first, end);
}

static void multiply_task(void *context, int64_t first, int64_t end, int worker) {
    const convolution_phase *phase = context;
    (void)worker;
    phase->kernel->multiply(&phase->job, first, end);
}

static void tiles_out_task(void *context, int64_t first, int64_t end, int worker) {
    const convolution_phase *phase = context;
    (void)worker;
    phase->kernel->tiles_out(&phase->job, first, end);
}

static int64_t points_of(const packed_convolution *packed) { return (packed->tile + 2) * (packed->tile + 2); }

static int64_t tile_count(const packed_convolution *packed, const block_map *map) {
    return map->batch * divide_up(map->height, packed->tile) * divide_up(map->width, packed->tile);
}

/* Whether a convolution's weights stay in a second-level cache, so that every task may read all of them. */
static int is_narrow(const packed_convolution *packed) {
    return points_of(packed) * packed->channels * packed->channels <= NARROW;
}

/* Tiles of a task of a narrow convolution: tasks of equal size, a whole number of rounds. */
static int64_t narrow_tiles(int64_t tiles, int64_t threads) {
    return divide_up(tiles, threads * divide_up(tiles, threads * NARROW_TILES));
}

/* Floats of one of a convolution's two transformed maps: whole, or of each thread's task. */
static int64_t transformed_size(const packed_convolution *packed, const block_map *map, int64_t threads) {
    int64_t tiles = tile_count(packed, map);
    tiles = is_narrow(packed) ? narrow_tiles(tiles, threads) * workers_for(tiles, threads) : tiles;
    return divide_up(points_of(packed) * tiles * packed->channels, 16) * 16;
}

static void narrow_task(void *context, int64_t first, int64_t end, int worker) {
    const convolution_phase *phase = context;
    convolution_job job = phase->job;
    int64_t size = points_of(job.packed) * job.tiles * job.packed->channels;
    job.input += worker * size, job.output += worker * size;
    job.first_tile = first, job.tiles = end - first;
    phase->kernel->tiles_in(&job, first, end);
    phase->kernel->multiply(&job, 0, points_of(job.packed) * job.packed->channels / PANEL);
    phase->kernel->tiles_out(&job, first, end);
}

static int plan_convolution(work_plan *plan, convolution_phase *phase, const network_kernel *kernel,
                            const packed_convolution *packed, const float *from, int64_t from_stride, float *to,
                            const block_map *map, float *transformed, int64_t threads, int after) {
    convolution_phase made = {kernel, {.packed = packed, .from = from, .from_stride = from_stride, .to = to}, {{0}}};
    convolution_job *job = &phase->job;
    int64_t panels = packed->channels / PANEL, points = points_of(packed), tiles = tile_count(packed, map);
    *phase = made;
    job->height = map->height, job->width = map->width;
    job->rows = divide_up(map->height, packed->tile);
    job->columns = divide_up(map->width, packed->tile);
    job->tiles = tiles;
    job->input = transformed;
    job->output = transformed + transformed_size(packed, map, threads);
    if (is_narrow(packed)) {
        piecewise whole = {narrow_task, phase, tiles, job->tiles = narrow_tiles(tiles, threads)};
        phase->pieces[0] = whole;
        return add_pieces(plan, &phase->pieces[0], threads, after);
    }
    int64_t each = piece_size(tiles, job->columns, threads);
    piecewise in = {tiles_in_task, phase, tiles, each}, back = {tiles_out_task, phase, tiles, each};
    piecewise between = {multiply_task, phase, points * panels, piece_size(points * panels, panels, threads)};
    phase->pieces[0] = in, phase->pieces[1] = between, phase->pieces[2] = back;
    for (int i = 0; i < 3; i++) {
        after = add_pieces(plan, &phase->pieces[i], threads, after);
    }
    return after;
}

#endif
