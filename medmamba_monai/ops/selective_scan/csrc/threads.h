/* A loop shared by threads.
 *
 * No OpenMP runtime is linked, as two in one process do harm. But PyTorch's own threads spin for a while after each of
 * its operations, and threads of ours would have to share the processor with them: where PyTorch runs on GNU OpenMP,
 * the Python side hands over its entry point and the loop runs on PyTorch's threads. Elsewhere, and in a forked child,
 * where those threads do not exist, threads are made and joined inside each call (tens of microseconds). Either way
 * no thread of ours outlives a call, and a process may fork at any time.
 */
#ifndef MEDMAMBA_THREADS_H
#define MEDMAMBA_THREADS_H

#include <stddef.h>
#include <stdint.h>

#define MOST_THREADS 256

/* Handles one index; `worker` is the number of the thread, 0 for the caller's own. */
typedef void (*loop_body)(void *context, int64_t index, int worker);

typedef struct {
    loop_body body;
    void *context;
    int64_t count;
    int workers;
    volatile int64_t next, joined; /* next index; threads that have come */
} shared_loop;

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
#else
#include <pthread.h>
typedef pthread_t loop_thread;
#include <unistd.h>
static int64_t take_number(volatile int64_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }
#endif

/* What each thread does; more threads than workers may come, and fewer. */
static void work(void *shared) {
    shared_loop *loop = shared;
    int64_t worker = take_number(&loop->joined);
    unsigned mode = enter_fast_mode();
    while (worker < loop->workers) {
        int64_t index = take_number(&loop->next);
        if (index >= loop->count) {
            break;
        }
        loop->body(loop->context, index, (int)worker);
    }
    leave_fast_mode(mode);
}

#ifdef _WIN32
static DWORD WINAPI thread_main(LPVOID loop) {
    work(loop);
    return 0;
}
static int start_thread(loop_thread *thread, shared_loop *loop) {
    *thread = CreateThread(NULL, 0, thread_main, loop, 0, NULL);
    return *thread != NULL;
}
static void join_thread(loop_thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}
static int64_t this_process(void) { return (int64_t)GetCurrentProcessId(); }
#else
static void *thread_main(void *loop) {
    work(loop);
    return NULL;
}
static int start_thread(loop_thread *thread, shared_loop *loop) {
    return pthread_create(thread, NULL, thread_main, loop) == 0;
}
static void join_thread(loop_thread thread) { pthread_join(thread, NULL); }
static int64_t this_process(void) { return (int64_t)getpid(); }
#endif

/* GOMP_parallel of the OpenMP runtime that PyTorch uses, and the process it was found in. */
typedef void (*team_entry)(void (*function)(void *), void *data, unsigned threads, unsigned flags);
extern team_entry team;
extern int64_t team_process;

/* Number of workers worth using for `count` indices. */
static int workers_for(int64_t count, int64_t threads) {
    int64_t workers = threads < count ? threads : count;
    workers = workers < MOST_THREADS ? workers : MOST_THREADS;
    return workers < 1 ? 1 : (int)workers;
}

/* Calls body for 0 .. count - 1 in any order, on `workers` threads out of `threads`. The team is always asked for in
 * full, as it would end the threads left out. A thread that cannot be made is done without. */
static void parallel_loop(loop_body body, void *context, int64_t count, int workers, int64_t threads) {
    shared_loop loop = {body, context, count, workers, 0, 0};
    loop_thread made[MOST_THREADS];
    int count_made = 0;
    if (workers > 1 && team && team_process == this_process()) {
        team(work, &loop, (unsigned)threads, 0);
        return;
    }
    while (count_made + 1 < workers && start_thread(&made[count_made], &loop)) {
        count_made++;
    }
    work(&loop);
    for (int i = 0; i < count_made; i++) {
        join_thread(made[i]);
    }
}

#endif
