/* Selective scan on CPUs: what the Python side fills in, and what the kernels are given.
 *
 * One description serves both scans. The directional scan has one group and `directions` pixel orders over
 * (batch, L, E) maps; the plain scan has one direction in natural order and `groups` slices of its channels.
 * Every size and stride is int64 and counted in elements; all numbers are float32.
 */
#ifndef MEDMAMBA_SCAN_H
#define MEDMAMBA_SCAN_H

#include <stddef.h>
#include <stdint.h>

#include "network.h"

#ifdef _WIN32
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif

/* What entry points return; 0 for success. */
#define OUT_OF_MEMORY 1
#define UNKNOWN_KERNEL 2
#define BAD_ORDER 3

/* Steps handled at a time, a multiple of the group in vector.h. The forward pass saves the state before every such
 * block (16 states of 4 directions: as much memory as the input has), the backward pass recomputes inside it. Measured
 * on 32 KB of L1 cache: 64 beats 16, 32 and 48. */
#define SCAN_BLOCK 64

/* A tensor indexed by (batch item, step or pixel, slice, last); `slice` is a direction or a group for B, C and
 * the low-rank step sizes; for u, y and full step sizes it is unused and `last` is the channel. */
typedef struct {
    float *data;
    int64_t batch, step, slice, last;
} scan_tensor;

typedef struct {
    int64_t batch, length, channels, groups, directions, states;
    int64_t rank;      /* width of the low-rank step sizes; 0 where `dt` holds one step size a channel */
    int64_t low_rank;  /* 1: dt is (batch, L, K, rank) with `weight`; 0: dt is (batch, L, channel) */
    int64_t softplus;  /* whether step sizes pass through softplus */
    scan_tensor u, dt, b, c;
    const float *a;       /* (directions, channels, states) */
    const float *skip;    /* (directions, channels) or NULL */
    const float *weight;  /* (directions, channels, rank) or NULL */
    const float *bias;    /* (directions, channels) or NULL */
    const float *initial; /* (batch, channels, states) or NULL */
    const int64_t *order; /* (directions, length) or NULL for natural order */
    float *saved;         /* (batch, directions, blocks, states, channels) or NULL */
} scan_problem;

/* Results of the forward pass. y is contiguous in some order of its axes. */
typedef struct {
    scan_tensor y;
    float *last; /* (batch, channels, states) or NULL */
} scan_output;

/* Gradients. u, dt, b and c are contiguous in some order of their axes; the others are shaped as in the problem,
 * with one leading part per batch item inside the kernels and none in the arrays the caller gives. */
typedef struct {
    scan_tensor y;         /* gradient of the output (given) */
    const float *last;     /* gradient of the last state (given) or NULL */
    scan_tensor u, dt, b, c;
    float *a, *skip, *weight, *bias, *initial;
} scan_gradient;

/* A piece of work: `count` channels from `first` (inside one group), directions k0 up to k1, one batch item. */
typedef struct {
    int64_t item, group, first, count, k0, k1;
} scan_task;

/* One instruction set's kernels. `scratch` bytes, aligned to 64, are handed to each call of a task: of so many channels
 * at most and, forward, so many directions. */
typedef struct {
    const char *name;
    int64_t width; /* channels in a vector */
    size_t (*forward_scratch)(const scan_problem *problem, int64_t channels, int64_t directions);
    void (*forward)(const scan_problem *problem, const scan_output *output, const scan_task *task, void *scratch);
    size_t (*backward_scratch)(const scan_problem *problem, int64_t channels);
    void (*backward)(const scan_problem *problem, const scan_gradient *gradient, const scan_task *task,
                     void *scratch);
    const network_kernel *network;
} scan_kernel;

extern const scan_kernel scan_kernel_portable;
#ifdef SCAN_HAVE_AVX2
extern const scan_kernel scan_kernel_avx2;
#endif
#ifdef SCAN_HAVE_AVX512
extern const scan_kernel scan_kernel_avx512;
#endif

/* The variant of that name, NULL where it was not built or cannot run here. */
const scan_kernel *find_kernel(const char *name);

API int64_t medmamba_scan_forward(const char *variant, const scan_problem *problem, const scan_output *output,
                                  int64_t threads);

#endif
