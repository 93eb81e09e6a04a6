/* Work shared by threads: steps of many tasks, some of which wait for others.
 *
 * No OpenMP runtime is linked, as two in one process do harm. But PyTorch's own threads spin for a while after each of
 * its operations, and threads of ours would have to share the processor with them: where PyTorch runs on GNU OpenMP,
 * the Python side hands over its entry point and the work is done on PyTorch's threads. Elsewhere, and in a forked
 * child, where those threads do not exist, threads are made and joined inside each call (tens of microseconds). Either
 * way no thread of ours outlives a call, and a process may fork at any time.
 */
#ifndef MEDMAMBA_THREADS_H
#define MEDMAMBA_THREADS_H

#include <stddef.h>
#include <stdint.h>

#define MOST_THREADS 256

#define MOST_STEPS 20
#define MOST_RANGES 16
#define AT_ONCE (-1)

/* Handles one index; `worker` is the number of the thread. */
typedef void (*loop_body)(void *context, int64_t index, int worker);

/* Tasks 0 .. count - 1 in any order, once all those of the steps `after` are done; for workers 0 .. workers - 1. Each
 * worker has a range of neighbouring tasks, the same in each call, and helps others when its own is done: what it
 * wrote last time, or in the step before, is likely to be in its caches. */
typedef struct {
    loop_body body;
    void *context;
    int64_t count;
    int workers, ranges, after[2];
    volatile int64_t next[MOST_RANGES], begun, done; /* next task of each range, from its first; tasks begun and done */
} work_step;

/* Steps, the urgent ones first: a thread takes a task of the first step that has one and may begin. So threads that
 * would wait for the last tasks of one step work on another that does not need them. */
typedef struct {
    work_step steps[MOST_STEPS];
    int count;
    volatile int64_t present[MOST_THREADS]; /* threads that came as this worker */
} work_plan;

/* Small results (denormals) cost up to a hundred cycles an operation on some processors and carry no accuracy
 * here: they are flushed to zero while a thread computes. */
#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#define FLUSH_DENORMALS 0x8040u
static unsigned enter_fast_mode(void) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | FLUSH_DENORMALS);
    return mode;
}
static void leave_fast_mode(unsigned mode) { _mm_setcsr(mode); }
#else
static unsigned enter_fast_mode(void) { return 0; }
static void leave_fast_mode(unsigned mode) { (void)mode; }
#endif

#ifdef _WIN32
#include <windows.h>
typedef HANDLE loop_thread;
static int64_t take_number(volatile int64_t *counter) { return InterlockedIncrement64((volatile LONG64 *)counter) - 1; }
static int64_t read_number(volatile int64_t *counter) { return InterlockedAdd64((volatile LONG64 *)counter, 0); }
static void let_others_run(void) { SwitchToThread(); }
#else
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
typedef pthread_t loop_thread;
static int64_t take_number(volatile int64_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_ACQ_REL); }
static int64_t read_number(volatile int64_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }
static void let_others_run(void) { sched_yield(); }
#endif

/* Waits of some tens of cycles, and from time to time for a thread that may have lost its processor. */
#define WAITS_BETWEEN_YIELDS 256
static void wait_a_little(unsigned *waits) {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#endif
    if (++*waits % WAITS_BETWEEN_YIELDS == 0) {
        let_others_run();
    }
}

static int may_begin(work_plan *plan, const work_step *step) {
    for (int i = 0; i < 2; i++) {
        work_step *before = step->after[i] == AT_ONCE ? NULL : &plan->steps[step->after[i]];
        if (before && read_number(&before->done) < before->count) {
            return 0;
        }
    }
    return 1;
}

/* A task that nobody has, of the worker's own range if there is one; -1: none is left. */
static int64_t take_task(work_step *step, int worker) {
    for (int i = 0; i < step->ranges; i++) {
        int range = (worker + i) % step->ranges;
        int64_t first = step->count * range / step->ranges, end = step->count * (range + 1) / step->ranges;
        if (first + read_number(&step->next[range]) < end) {
            int64_t index = first + take_number(&step->next[range]);
            if (index < end) {
                take_number(&step->begun);
                return index;
            }
        }
    }
    return -1;
}

/* Does one task; `first` is the first step that may have one left. Returns 0 where there was none to begin. */
static int do_a_task(work_plan *plan, int worker, int *first) {
    for (int i = *first; i < plan->count; i++) {
        work_step *step = &plan->steps[i];
        if (read_number(&step->begun) >= step->count) {
            *first += i == *first;
        } else if (worker < step->workers && may_begin(plan, step)) {
            int64_t index = take_task(step, worker);
            if (index >= 0) {
                step->body(step->context, index, worker);
                take_number(&step->done);
                return 1;
            }
        }
    }
    return 0;
}

/* What each thread does until nothing is left to begin; the one that called is worker 0. */
static void work(work_plan *plan, int worker) {
    int first = 0;
    unsigned waits = 0, mode = enter_fast_mode();
    while (first < plan->count) {
        if (!do_a_task(plan, worker, &first)) {
            wait_a_little(&waits);
        }
    }
    leave_fast_mode(mode);
}

typedef struct {
    work_plan *plan;
    int worker;
} work_share;

#ifdef _WIN32
static DWORD WINAPI thread_main(LPVOID share) {
    work(((work_share *)share)->plan, ((work_share *)share)->worker);
    return 0;
}
static int start_thread(loop_thread *thread, work_share *share) {
    *thread = CreateThread(NULL, 0, thread_main, share, 0, NULL);
    return *thread != NULL;
}
static void join_thread(loop_thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}
static int64_t this_process(void) { return (int64_t)GetCurrentProcessId(); }
#else
static void *thread_main(void *share) {
    work(((work_share *)share)->plan, ((work_share *)share)->worker);
    return NULL;
}
static int start_thread(loop_thread *thread, work_share *share) {
    return pthread_create(thread, NULL, thread_main, share) == 0;
}
static void join_thread(loop_thread thread) { pthread_join(thread, NULL); }
static int64_t this_process(void) { return (int64_t)getpid(); }
#endif

/* GOMP_parallel and omp_get_thread_num of the OpenMP runtime that PyTorch uses, and the process they were found in. */
typedef void (*team_entry)(void (*function)(void *), void *data, unsigned threads, unsigned flags);
typedef int (*team_number_entry)(void);
extern team_entry team;
extern team_number_entry team_number;
extern int64_t team_process;

/* The thread's number in the team, which stays the same from call to call; should another runtime than the team's have
 * told it, the next free one, as no two may share one. Threads past the last do nothing. */
static void work_in_team(void *shared) {
    work_plan *plan = shared;
    int worker = team_number() % MOST_THREADS, tried = 0;
    while (tried < MOST_THREADS && take_number(&plan->present[worker]) > 0) {
        worker = (worker + 1) % MOST_THREADS;
        tried++;
    }
    work(plan, tried < MOST_THREADS ? worker : MOST_THREADS);
}

/* Number of workers worth using for `count` indices. */
static int workers_for(int64_t count, int64_t threads) {
    int64_t workers = threads < count ? threads : count;
    workers = workers < MOST_THREADS ? workers : MOST_THREADS;
    return workers < 1 ? 1 : (int)workers;
}

/* Adds a step that begins after one or two others, on as many of `threads` as are worth it; returns its number. A step
 * of no tasks counts as done whatever it waits for. */
static int add_step(work_plan *plan, loop_body body, void *context, int64_t count, int64_t threads, int after,
                    int also_after) {
    int workers = workers_for(count, threads), ranges = workers < MOST_RANGES ? workers : MOST_RANGES;
    work_step step = {body, context, count, workers, ranges, {after, also_after}, {0}, 0, 0};
    plan->steps[plan->count] = step;
    return plan->count++;
}

/* Does all steps on `threads` threads. The team is always asked for in full, as it would end the threads left out. A
 * thread that cannot be made is done without. */
static void run_plan(work_plan *plan, int64_t threads) {
    loop_thread made[MOST_THREADS];
    work_share shares[MOST_THREADS];
    int workers = 1, count_made = 0;
    for (int i = 0; i < plan->count; i++) {
        workers = plan->steps[i].workers > workers ? plan->steps[i].workers : workers;
    }
    if (workers > 1 && team && team_number && team_process == this_process()) {
        team(work_in_team, plan, (unsigned)threads, 0);
        return;
    }
    while (count_made + 1 < workers) {
        work_share share = {plan, count_made + 1};
        shares[count_made] = share;
        if (!start_thread(&made[count_made], &shares[count_made])) {
            break;
        }
        count_made++;
    }
    work(plan, 0);
    for (int i = 0; i < count_made; i++) {
        join_thread(made[i]);
    }
}

/* Calls body for 0 .. count - 1 in any order. */
static void parallel_loop(loop_body body, void *context, int64_t count, int64_t threads) {
    work_plan plan = {.count = 0};
    add_step(&plan, body, context, count, threads, AT_ONCE, AT_ONCE);
    run_plan(&plan, threads);
}

#endif
