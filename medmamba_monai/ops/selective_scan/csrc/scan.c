/* Entry points: choice of the instruction set, division into tasks, threads, sums of partial results.
 *
 * Results do not depend on the number of threads: channels are independent, and every sum over directions, channel
 * chunks or batch items runs in index order, whoever computed the parts.
 */
#include "scan_plan.h"

#include <stdlib.h>
#include <string.h>

team_entry team;
team_number_entry team_number;
int64_t team_process;

/* Channels of a backward task, if the batch gives enough tasks; see chunk_count. */
#define LEAST_CHUNK 32
#define ENOUGH_TASKS 16
#define LEAST_WORK 100000

static int runs_here(const scan_kernel *kernel) {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_cpu_init();
    if (strcmp(kernel->name, "avx512") == 0) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
    }
    if (strcmp(kernel->name, "avx2") == 0) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
#endif
    return strcmp(kernel->name, "portable") == 0;
}

/* Best first. */
static const scan_kernel *const kernels[] = {
#ifdef SCAN_HAVE_AVX512
    &scan_kernel_avx512,
#endif
#ifdef SCAN_HAVE_AVX2
    &scan_kernel_avx2,
#endif
    &scan_kernel_portable,
};
#define KERNELS ((int)(sizeof(kernels) / sizeof(kernels[0])))

/* Layout version of the structures in scan.h and network.h; the Python side refuses another. */
API int64_t medmamba_scan_version(void) { return 4; }

API int64_t medmamba_scan_block(void) { return SCAN_BLOCK; }

/* Name of variant `index` among those this machine can run, best first; NULL past the last. */
API const char *medmamba_scan_variant(int64_t index) {
    for (int i = 0; i < KERNELS; i++) {
        if (runs_here(kernels[i]) && index-- == 0) {
            return kernels[i]->name;
        }
    }
    return NULL;
}

/* Name of variant `index` among all that were compiled, best first; NULL past the last. */
API const char *medmamba_scan_built(int64_t index) {
    return index >= 0 && index < KERNELS ? kernels[index]->name : NULL;
}

/* Hands over GOMP_parallel and omp_get_thread_num of PyTorch's OpenMP runtime; NULL: threads of our own. */
API void medmamba_scan_use_team(void *entry, void *number) {
    memcpy(&team, &entry, sizeof(team));
    memcpy(&team_number, &number, sizeof(team_number));
    team_process = this_process();
}

const scan_kernel *find_kernel(const char *name) {
    for (int i = 0; i < KERNELS; i++) {
        if (strcmp(kernels[i]->name, name) == 0 && runs_here(kernels[i])) {
            return kernels[i];
        }
    }
    return NULL;
}

/* Whether every pixel named by the orders exists: a wrong table must not reach foreign memory. */
static int order_is_inside(const scan_problem *problem) {
    uint64_t length = (uint64_t)problem->length;
    int inside = 1;
    for (int64_t i = 0; problem->order && i < problem->directions * problem->length; i++) {
        inside &= (uint64_t)problem->order[i] < length;
    }
    return inside;
}

#define ALIGNMENT 64

static size_t round_up(size_t size) { return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static char *align(char *memory) { return (char *)(((uintptr_t)memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT); }

/* Scratch memory of threads, each aligned. */
typedef struct {
    char *aligned;
    size_t each;
} scratch_pool;

static void *worker_scratch(const scratch_pool *pool, int worker) { return pool->aligned + pool->each * worker; }

/* parts[0] + parts[1] + ..., each `size` long, into `to`. */
typedef struct {
    float *to;
    const float *parts;
    int64_t size, count;
} part_sum;

#define SUM_SLICE 16384

static void add_slice(void *context, int64_t index, int worker) {
    const part_sum *sum = context;
    int64_t from = index * SUM_SLICE, left = sum->size - from;
    int64_t size = left < SUM_SLICE ? left : SUM_SLICE;
    (void)worker;
    memcpy(sum->to + from, sum->parts + from, sizeof(float) * size);
    for (int64_t part = 1; part < sum->count; part++) {
        float *to = sum->to + from;
        const float *add = sum->parts + part * sum->size + from;
        for (int64_t i = 0; i < size; i++) {
            to[i] += add[i];
        }
    }
}

static int64_t slices_of(int64_t size) { return (size + SUM_SLICE - 1) / SUM_SLICE; }

static void sum_parts(float *to, const float *parts, int64_t size, int64_t count, int64_t threads) {
    part_sum sum = {to, parts, size, count};
    parallel_loop(add_slice, &sum, slices_of(size), threads);
}

/* How the channels of a group are cut, and whether directions are tasks of their own. */
typedef struct {
    int64_t per_group, chunk, chunks, split, tasks;
} division;

static void count_tasks(division *cut, const scan_problem *problem, int64_t chunk) {
    cut->per_group = problem->channels / problem->groups;
    cut->chunk = chunk < cut->per_group ? chunk : cut->per_group;
    cut->chunks = (cut->per_group + cut->chunk - 1) / cut->chunk;
    cut->tasks = problem->batch * problem->groups * cut->chunks;
}

/* Threads worth their start: below some tens of microseconds of work, one. */
static int64_t useful_threads(const scan_problem *problem, int64_t threads) {
    int64_t work = problem->batch * problem->length * problem->channels * problem->directions * problem->states;
    return work < LEAST_WORK ? 1 : threads;
}

static void split_directions(division *cut, const scan_problem *problem, int64_t threads) {
    cut->split = problem->directions > 1 && cut->tasks < threads;
    cut->tasks *= cut->split ? problem->directions : 1;
}

/* Task `index`: direction slowest, so that the first tasks are of one direction and share its rows of B and C. */
static scan_task task_at(const division *cut, const scan_problem *problem, int64_t index) {
    scan_task task;
    int64_t chunk = index % cut->chunks, left;
    index /= cut->chunks;
    task.group = index % problem->groups;
    index /= problem->groups;
    task.item = index % problem->batch;
    task.k0 = cut->split ? index / problem->batch : 0;
    task.k1 = cut->split ? task.k0 + 1 : problem->directions;
    task.first = task.group * cut->per_group + chunk * cut->chunk;
    left = cut->per_group - chunk * cut->chunk;
    task.count = left < cut->chunk ? left : cut->chunk;
    return task;
}

typedef struct {
    const scan_kernel *kernel;
    const scan_problem *problem;
    division cut;
    scratch_pool pool;
    scan_output output;
    scan_gradient gradient;
    int64_t u_size, dt_size, b_size; /* of one part of the gradients of u, dt, and B or C */
} scan_job;

static void forward_task(void *context, int64_t index, int worker) {
    const scan_job *job = context;
    scan_task task = task_at(&job->cut, job->problem, index);
    scan_output output = job->output;
    output.y.data += task.k0 * job->u_size;
    job->kernel->forward(job->problem, &output, &task, worker_scratch(&job->pool, worker));
}

/* Channels of a forward task: up to twelve vectors, fewer if that feeds more threads. */
static int64_t forward_chunk(const scan_problem *problem, int64_t width, int64_t threads) {
    int64_t vectors = (problem->channels / problem->groups + width - 1) / width;
    int64_t lists = problem->batch * problem->groups, best = 1, best_cost = INT64_MAX;
    for (int64_t each = 12; each >= 1; each--) {
        int64_t tasks = lists * ((vectors + each - 1) / each);
        int64_t rounds = (tasks + threads - 1) / threads;
        int64_t cost = rounds * (4 * each + 1); /* a task's shared work costs about a quarter of a steady vector */
        if (cost < best_cost) {
            best = each, best_cost = cost;
        }
    }
    return best * width;
}

/* What a planned forward scan needs until it is done; the scratch memory of its threads and the parts follow it. */
typedef struct {
    scan_job job;
    part_sum sum;
} forward_plan;

int64_t plan_forward(work_plan *plan, const char *variant, const scan_problem *problem, const scan_output *output,
                     int64_t threads, int after, int *last, void **memory) {
    const scan_kernel *kernel = find_kernel(variant);
    int64_t size = problem->batch * problem->length * problem->channels;
    division cut;
    *memory = NULL;
    threads = useful_threads(problem, threads);
    if (!kernel) {
        return UNKNOWN_KERNEL;
    }
    if (!order_is_inside(problem)) {
        return BAD_ORDER;
    }
    count_tasks(&cut, problem, forward_chunk(problem, kernel->width, threads));
    split_directions(&cut, problem, threads);
    int64_t directions = cut.split ? 1 : problem->directions;
    size_t head = round_up(sizeof(forward_plan));
    size_t each = round_up(kernel->forward_scratch(problem, cut.chunk, directions));
    size_t scratch = each * workers_for(cut.tasks, threads);
    size_t parts = cut.split ? sizeof(float) * size * problem->directions : 0;
    forward_plan *forward = *memory = malloc(head + scratch + parts + ALIGNMENT);
    if (!forward) {
        return OUT_OF_MEMORY;
    }
    char *aligned = align((char *)forward + sizeof(forward_plan));
    scan_job job = {.kernel = kernel, .problem = problem, .cut = cut, .pool = {aligned, each}, .output = *output};
    forward->job = job;
    *last = add_step(plan, forward_task, &forward->job, cut.tasks, threads, after, AT_ONCE);
    if (cut.split) {
        part_sum sum = {output->y.data, (float *)(aligned + scratch), size, problem->directions};
        forward->sum = sum;
        forward->job.output.y.data = (float *)(aligned + scratch);
        forward->job.u_size = size;
        *last = add_step(plan, add_slice, &forward->sum, slices_of(size), threads, *last, AT_ONCE);
    }
    return 0;
}

API int64_t medmamba_scan_forward(const char *variant, const scan_problem *problem, const scan_output *output,
                                  int64_t threads) {
    work_plan plan = {.count = 0};
    void *memory;
    int last;
    int64_t code = plan_forward(&plan, variant, problem, output, threads, AT_ONCE, &last, &memory);
    if (code == 0) {
        run_plan(&plan, threads);
    }
    free(memory);
    return code;
}

static void backward_task(void *context, int64_t index, int worker) {
    const scan_job *job = context;
    scan_task task = task_at(&job->cut, job->problem, index);
    scan_gradient gradient = job->gradient;
    int64_t chunk = index % job->cut.chunks;
    gradient.u.data += task.k0 * job->u_size;
    gradient.b.data += chunk * job->b_size;
    gradient.c.data += chunk * job->b_size;
    gradient.dt.data += chunk * job->dt_size;
    job->kernel->backward(job->problem, &gradient, &task, worker_scratch(&job->pool, worker));
}

/* Channels of a backward task. Sums over channels (gradients of B, C, dt) run inside a task, so fewer and larger
 * chunks need fewer partial arrays; small batches get more, for the threads' sake. Depends on shapes alone, so
 * that the order of summation does too. */
static int64_t backward_chunk(const scan_problem *problem) {
    int64_t channels = problem->channels / problem->groups;
    int64_t wanted = ENOUGH_TASKS / (problem->batch * problem->groups * problem->directions);
    int64_t most = (channels + LEAST_CHUNK - 1) / LEAST_CHUNK;
    int64_t chunks = wanted < 1 ? 1 : wanted < most ? wanted : most;
    int64_t chunk = (channels + chunks - 1) / chunks;
    return (chunk + LEAST_CHUNK - 1) / LEAST_CHUNK * LEAST_CHUNK;
}

/* One array cut from the memory of partial results, or the caller's own where one part is all there is. */
static float *part_array(float **cursor, float *own, int64_t size, int64_t parts) {
    float *start = *cursor;
    if (!own || parts == 1) {
        return own;
    }
    *cursor += size * parts;
    return start;
}

typedef struct {
    float **from, *to;
    int64_t size, count;
} partial;

API int64_t medmamba_scan_backward(const char *variant, const scan_problem *problem, const scan_gradient *gradient,
                                   int64_t threads) {
    scan_job job = {.kernel = find_kernel(variant), .problem = problem, .gradient = *gradient};
    scan_gradient *g = &job.gradient;
    threads = useful_threads(problem, threads);
    if (!job.kernel) {
        return UNKNOWN_KERNEL;
    }
    if (!order_is_inside(problem)) {
        return BAD_ORDER;
    }
    count_tasks(&job.cut, problem, backward_chunk(problem));
    split_directions(&job.cut, problem, 2 * threads);
    int workers = workers_for(job.cut.tasks, threads);
    int64_t rows = problem->batch * problem->length, heads = problem->directions * problem->channels;
    int64_t slices = problem->directions * problem->groups, chunks = job.cut.chunks;
    int64_t b_size = rows * slices * problem->states, u_size = rows * problem->channels;
    int64_t dt_size = rows * slices * problem->rank, dt_parts = problem->low_rank ? chunks : 1;
    int64_t u_parts = job.cut.split ? problem->directions : 1;
    partial sums[] = {
        {&g->u.data, g->u.data, u_size, u_parts},      {&g->b.data, g->b.data, b_size, chunks},
        {&g->c.data, g->c.data, b_size, chunks},       {&g->dt.data, g->dt.data, dt_size, dt_parts},
        {&g->a, g->a, heads * problem->states, problem->batch},
        {&g->skip, g->skip, heads, problem->batch},    {&g->bias, g->bias, heads, problem->batch},
        {&g->weight, g->weight, heads * problem->rank, problem->batch},
    };
    int64_t total = 1, count = (int64_t)(sizeof(sums) / sizeof(sums[0]));
    for (int64_t i = 0; i < count; i++) {
        total += sums[i].count > 1 && sums[i].to ? sums[i].size * sums[i].count : 0;
    }
    job.pool.each = round_up(job.kernel->backward_scratch(problem, job.cut.chunk));
    char *scratch = malloc(job.pool.each * workers + ALIGNMENT);
    float *parts = malloc(sizeof(float) * total), *cursor = parts;
    if (!parts || !scratch) {
        free(parts);
        free(scratch);
        return OUT_OF_MEMORY;
    }
    job.pool.aligned = align(scratch);
    for (int64_t i = 0; i < count; i++) {
        *sums[i].from = part_array(&cursor, sums[i].to, sums[i].size, sums[i].count);
    }
    job.u_size = job.cut.split ? u_size : 0;
    job.b_size = chunks > 1 ? b_size : 0;
    job.dt_size = dt_parts > 1 ? dt_size : 0;
    parallel_loop(backward_task, &job, job.cut.tasks, threads);
    free(scratch);
    for (int64_t i = 0; i < count; i++) {
        if (sums[i].to && sums[i].count > 1) {
            sum_parts(sums[i].to, *sums[i].from, sums[i].size, sums[i].count, threads);
        }
    }
    free(parts);
    return 0;
}
