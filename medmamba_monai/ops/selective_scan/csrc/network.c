/* Entry points of inference: a block in steps, each step divided into tasks for threads. The two branches of a block
 * are steps of one plan, so that threads which would wait in one go on in the other.
 *
 * A task's results depend on nothing but its index, and tasks write to different places: the number of threads changes
 * how the work is cut, never a result.
 */
#include <stdlib.h>

#include "layer_plans.h"
#include "scan_plan.h"

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

/* Floats of what leaves a part, and of the workspace it needs. */
typedef struct {
    int64_t result, workspace;
} link_size;

static link_size size_of_link(const chain_link *link, int64_t threads) {
    link_size size;
    if (link->kind == BLOCK_LINK) {
        static float origin[1];
        const packed_block *block = link->part;
        block_memory memory;
        size.result = pixels_of(link->map) * 2 * block->half;
        size.workspace = carve_block(&memory, origin, block, link->map, threads);
    } else {
        const packed_patches *patches = link->part;
        const patch_map *map = link->map;
        int64_t count = map->batch * map->rows * map->columns;
        size.result = count * patches->product.outputs;
        size.workspace = product_scratch(&patches->product, count, threads);
    }
    return size;
}

/* Blocks write a pixel of their result when nothing but that pixel is left to be read, and work in place. What enters a
 * later reduction lies in two areas by turns, in front of the parts' workspace; what leaves the last one, in y. */
typedef struct {
    int64_t last_reduction, area, workspace;
} chain_layout;

static chain_layout lay_out(const chain_link *links, int64_t count, int64_t threads) {
    chain_layout layout = {0, 0, 0};
    for (int64_t i = 0; i < count; i++) {
        layout.last_reduction = links[i].kind == PATCHES_LINK ? i : layout.last_reduction;
    }
    for (int64_t i = 0; i < count; i++) {
        link_size size = size_of_link(&links[i], threads);
        layout.workspace = size.workspace > layout.workspace ? size.workspace : layout.workspace;
        layout.area = i < layout.last_reduction && size.result > layout.area ? size.result : layout.area;
    }
    layout.area = divide_up(layout.area, 16) * 16;
    return layout;
}

/* Floats of workspace that parts in a row need. */
API int64_t medmamba_chain_workspace(const chain_link *links, int64_t count, int64_t threads) {
    chain_layout layout = lay_out(links, count, threads);
    return 2 * layout.area + layout.workspace;
}

static int64_t run_link(const scan_kernel *kernel, const chain_link *link, const float *x, float *y, float *workspace,
                        int64_t threads) {
    if (link->kind == BLOCK_LINK) {
        block_map map = *(const block_map *)link->map;
        map.x = x, map.y = y;
        return run_block(kernel, link->part, &map, workspace, threads);
    }
    patch_map map = *(const patch_map *)link->map;
    map.x = x, map.y = y;
    run_patches(kernel, link->part, &map, workspace, threads);
    return 0;
}

/* Applies parts in a row: x goes into the first, y comes out of the last. */
API int64_t medmamba_chain_forward(const char *variant, const chain_link *links, int64_t count, const float *x,
                                   float *y, float *workspace, int64_t threads) {
    const scan_kernel *kernel = find_kernel(variant);
    chain_layout layout = lay_out(links, count, threads);
    int64_t code = kernel ? 0 : UNKNOWN_KERNEL, area = 0;
    float *to = NULL;
    for (int64_t i = 0; code == 0 && i < count; i++, x = to) {
        if (i >= layout.last_reduction) {
            to = y;
        } else if (i == 0 || links[i].kind == PATCHES_LINK) {
            to = workspace + area * layout.area;
            area = 1 - area;
        }
        code = run_link(kernel, &links[i], x, to, workspace + 2 * layout.area, threads);
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
