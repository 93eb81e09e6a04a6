/* Entry points of inference: a block in steps, each step divided into tasks for threads. The two branches of a block
 * are steps of one plan, so that threads which would wait in one go on in the other.
 *
 * A task's results depend on nothing but its index, and tasks write to different places: the number of threads changes
 * how the work is cut, never a result.
 */
#include <stdlib.h>

#include "scan_plan.h"

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

typedef struct {
    const network_kernel *kernel;
    depthwise_job job;
} depthwise_phase;

static void depthwise_task(void *context, int64_t index, int worker) {
    const depthwise_phase *phase = context;
    (void)worker;
    phase->kernel->depthwise(&phase->job, index / phase->job.height, index % phase->job.height);
}

/* What a block keeps between its steps. Branches run side by side: their parts do not share memory. */
typedef struct {
    float *left, *scratch, *between, *transformed, *hidden, *u, *projected, *scanned;
} block_memory;

static int64_t carve_block(block_memory *memory, float *base, const packed_block *block, const block_map *map,
                           int64_t threads) {
    int64_t pixels = map->batch * map->height * map->width, half = block->half;
    float *cursor = base;
    memory->left = cut(&cursor, pixels * half);
    memory->scratch = cut(&cursor, product_scratch(&block->out_proj, pixels, threads));
    memory->between = cut(&cursor, pixels * half);
    memory->transformed = cut(&cursor, 2 * transformed_size(&block->conv1, map, threads));
    memory->hidden = cut(&cursor, pixels * 4 * half);
    memory->u = cut(&cursor, pixels * 2 * half);
    memory->projected = cut(&cursor, pixels * block->x_proj.outputs);
    memory->scanned = cut(&cursor, pixels * 2 * half);
    return cursor - base;
}

/* A block at work. */
typedef struct {
    const char *variant;
    const network_kernel *kernel;
    const packed_block *block;
    const block_map *map;
    int64_t threads;
    block_memory memory;
    work_plan plan;
    convolution_phase conv1, conv2;
    product_phase conv3, in_proj, x_proj, out_proj;
    depthwise_phase depthwise;
    scan_problem problem;
    void *scan_memory;
} block_run;

static int64_t pixels_of(const block_map *map) { return map->batch * map->height * map->width; }

/* Returns the step that ends the branch. */
static int plan_convolutions(block_run *run) {
    const block_memory *memory = &run->memory;
    const packed_block *block = run->block;
    int64_t half = block->half;
    product_job last = {.packed = &block->conv3, .source = AS_THEY_ARE, .finish = RECTIFIED,
                        .from = memory->between, .from_stride = half,
                        .to = memory->left, .to_stride = half, .count = pixels_of(run->map)};
    int step = plan_convolution(&run->plan, &run->conv1, run->kernel, &block->conv1, run->map->x, 2 * half,
                                memory->left, run->map, memory->transformed, run->threads, AT_ONCE);
    step = plan_convolution(&run->plan, &run->conv2, run->kernel, &block->conv2, memory->left, half, memory->between,
                            run->map, memory->transformed, run->threads, step);
    return plan_product(&run->plan, &run->conv3, run->kernel, &last, NULL, run->threads, step, AT_ONCE);
}

static int64_t plan_scan(block_run *run, int *step) {
    const packed_block *block = run->block;
    const block_map *map = run->map;
    int64_t length = map->height * map->width, inner = 2 * block->half;
    int64_t slice = block->rank + 2 * block->states, row = block->directions * slice;
    scan_tensor dt = {run->memory.projected, length * row, row, slice, 1}, b = dt, c = dt;
    scan_problem problem = {
        .batch = map->batch, .length = length, .channels = inner, .groups = 1,
        .directions = block->directions, .states = block->states,
        .rank = block->rank, .low_rank = 1, .softplus = 1,
        .u = {run->memory.u, length * inner, inner, 0, 1}, .dt = dt,
        .a = block->a, .skip = block->skip, .weight = block->dt_weight, .bias = block->dt_bias,
        .order = map->order,
    };
    scan_output output = {{run->memory.scanned, length * inner, inner, 0, 1}, NULL};
    b.data += block->rank;
    c.data += block->rank + block->states;
    problem.b = b, problem.c = c;
    run->problem = problem;
    return plan_forward(&run->plan, run->variant, &run->problem, &output, run->threads, *step, step,
                        &run->scan_memory);
}

/* Sets *step to the one that ends the scan. */
static int64_t plan_mixer(block_run *run, int *step) {
    const block_memory *memory = &run->memory;
    const packed_block *block = run->block;
    const block_map *map = run->map;
    int64_t half = block->half, inner = 2 * half, rows = map->batch * map->height;
    product_job in = {.packed = &block->in_proj, .source = NORMALISED, .finish = PLAIN,
                      .from = map->x + half, .from_stride = 2 * half, .epsilon = (float)block->norm_epsilon,
                      .to = memory->hidden, .to_stride = 2 * inner, .count = pixels_of(map)};
    product_job parameters = {.packed = &block->x_proj, .source = AS_THEY_ARE, .finish = PLAIN,
                              .from = memory->u, .from_stride = inner,
                              .to = memory->projected, .to_stride = block->x_proj.outputs, .count = pixels_of(map)};
    depthwise_phase depthwise = {run->kernel, {block->depthwise, block->depthwise_bias, memory->hidden, 2 * inner,
                                               memory->u, map->height, map->width, inner}};
    run->depthwise = depthwise;
    *step = plan_product(&run->plan, &run->in_proj, run->kernel, &in, memory->scratch, run->threads, AT_ONCE, AT_ONCE);
    *step = add_step(&run->plan, depthwise_task, &run->depthwise, rows, run->threads, *step, AT_ONCE);
    *step = plan_product(&run->plan, &run->x_proj, run->kernel, &parameters, NULL, run->threads, *step, AT_ONCE);
    return plan_scan(run, step);
}

static void plan_end(block_run *run, int scan, int convolutions) {
    const block_memory *memory = &run->memory;
    const packed_block *block = run->block;
    int64_t half = block->half, inner = 2 * half;
    product_job out = {.packed = &block->out_proj, .source = NORMALISED_AND_GATED, .finish = SHUFFLED,
                       .from = memory->scanned, .from_stride = inner, .epsilon = (float)block->out_norm_epsilon,
                       .gate = memory->hidden + inner, .gate_stride = 2 * inner,
                       .gain = block->gain, .offset = block->offset,
                       .to = run->map->y, .to_stride = 2 * half, .count = pixels_of(run->map),
                       .residual = run->map->x, .other = memory->left, .other_stride = half};
    plan_product(&run->plan, &run->out_proj, run->kernel, &out, memory->scratch, run->threads, scan, convolutions);
}

static int64_t run_block(const scan_kernel *kernel, const packed_block *block, const block_map *map, float *workspace,
                         int64_t threads) {
    block_run run = {.variant = kernel->name, .kernel = kernel->network, .block = block, .map = map,
                     .threads = threads};
    int scan, convolutions;
    int64_t code;
    carve_block(&run.memory, workspace, block, map, threads);
    code = plan_mixer(&run, &scan); /* the longer branch first */
    if (code == 0) {
        convolutions = plan_convolutions(&run);
        plan_end(&run, scan, convolutions);
        run_plan(&run.plan, threads);
    }
    free(run.scan_memory);
    return code;
}

typedef struct {
    const network_kernel *kernel;
    const packed_patches *patches;
    float *rows;
} norm_phase;

static void norm_task(void *context, int64_t first, int64_t end, int worker) {
    const norm_phase *phase = context;
    int64_t width = phase->patches->product.outputs;
    (void)worker;
    phase->kernel->normalise(phase->rows + first * width, end - first, width, phase->patches->gain,
                             phase->patches->offset, (float)phase->patches->epsilon);
}

static void run_patches(const scan_kernel *kernel, const packed_patches *patches, const patch_map *map,
                        float *workspace, int64_t threads) {
    int64_t count = map->batch * map->rows * map->columns;
    product_job job = {.packed = &patches->product, .source = patches->gain ? PATCHES : NORMALISED_PATCHES,
                       .finish = PLAIN, .patches = patches, .map = map, .epsilon = (float)patches->epsilon,
                       .to = map->y, .to_stride = patches->product.outputs, .count = count};
    work_plan plan = {.count = 0};
    product_phase phase;
    norm_phase norm;
    piecewise normalise = {norm_task, &norm, count, piece_size(count, MOST_ROWS, threads)};
    int last = plan_product(&plan, &phase, kernel->network, &job, workspace, threads, AT_ONCE, AT_ONCE);
    if (patches->gain) {
        norm.kernel = kernel->network, norm.patches = patches, norm.rows = map->y;
        add_pieces(&plan, &normalise, threads, last);
    }
    run_plan(&plan, threads);
}

static int64_t link_workspace(const chain_link *link, int64_t threads) {
    if (link->kind == BLOCK_LINK) {
        static float origin[1];
        block_memory memory;
        return carve_block(&memory, origin, link->part, link->map, threads);
    }
    const packed_patches *patches = link->part;
    const patch_map *map = link->map;
    return product_scratch(&patches->product, map->batch * map->rows * map->columns, threads);
}

/* Floats of workspace that parts in a row need. */
API int64_t medmamba_chain_workspace(const chain_link *links, int64_t count, int64_t threads) {
    int64_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t size = link_workspace(&links[i], threads);
        most = size > most ? size : most;
    }
    return most;
}

/* Applies parts in a row: x goes into the first, y comes out of the last. All but the first are blocks, which write a
 * pixel of their result when nothing but that pixel is left to be read: they work in place. */
API int64_t medmamba_chain_forward(const char *variant, const chain_link *links, int64_t count, const float *x,
                                   float *y, float *workspace, int64_t threads) {
    const scan_kernel *kernel = find_kernel(variant);
    int64_t code = kernel ? 0 : UNKNOWN_KERNEL;
    for (int64_t i = 0; code == 0 && i < count; i++, x = y) {
        if (links[i].kind == BLOCK_LINK) {
            block_map map = *(const block_map *)links[i].map;
            map.x = x, map.y = y;
            code = run_block(kernel, links[i].part, &map, workspace, threads);
        } else {
            patch_map map = *(const patch_map *)links[i].map;
            map.x = x, map.y = y;
            run_patches(kernel, links[i].part, &map, workspace, threads);
        }
    }
    return code;
}

typedef struct {
    const scan_kernel *kernel;
    int64_t count;
    float sums[MOST_THREADS];
} peak_loop;

static void peak_task(void *context, int64_t index, int worker) {
    peak_loop *loop = context;
    (void)worker;
    loop->sums[index] = loop->kernel->network->multiply_add(loop->count);
}

/* Does 12 * count multiply-adds of whole vectors, from registers alone, on each thread; returns the vectors done in
 * all, times their width: what the processor can do in that time at most. 0 for an unknown variant. */
API int64_t medmamba_multiply_adds(const char *variant, int64_t count, int64_t threads) {
    peak_loop loop = {find_kernel(variant), count, {0}};
    int workers = workers_for(threads, threads);
    if (!loop.kernel) {
        return 0;
    }
    parallel_loop(peak_task, &loop, workers, threads);
    return 12 * count * loop.kernel->width * workers;
}
