/* A loop shared by threads. They are made and joined inside each call (tens of microseconds), so that no thread
 * exists between calls: a process may fork at any time, and no OpenMP runtime is linked beside PyTorch's own.
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
#ifdef _WIN32
    volatile long long next;
#else
    int64_t next;
#endif
} shared_loop;

typedef struct {
    shared_loop *loop;
    int worker;
} loop_worker;

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
static int64_t next_index(shared_loop *loop) { return InterlockedIncrement64(&loop->next) - 1; }
#else
#include <pthread.h>
typedef pthread_t loop_thread;
static int64_t next_index(shared_loop *loop) { return __atomic_fetch_add(&loop->next, 1, __ATOMIC_RELAXED); }
#endif

static void work(const loop_worker *self) {
    unsigned mode = enter_fast_mode();
    for (;;) {
        int64_t index = next_index(self->loop);
        if (index >= self->loop->count) {
            break;
        }
        self->loop->body(self->loop->context, index, self->worker);
    }
    leave_fast_mode(mode);
}

#ifdef _WIN32
static DWORD WINAPI thread_main(LPVOID self) {
    work((const loop_worker *)self);
    return 0;
}
static int start_thread(loop_thread *thread, loop_worker *worker) {
    *thread = CreateThread(NULL, 0, thread_main, worker, 0, NULL);
    return *thread != NULL;
}
static void join_thread(loop_thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}
#else
static void *thread_main(void *self) {
    work((const loop_worker *)self);
    return NULL;
}
static int start_thread(loop_thread *thread, loop_worker *worker) {
    return pthread_create(thread, NULL, thread_main, worker) == 0;
}
static void join_thread(loop_thread thread) { pthread_join(thread, NULL); }
#endif

/* Number of workers worth using for `count` indices. */
static int workers_for(int64_t count, int64_t threads) {
    int64_t workers = threads < count ? threads : count;
    workers = workers < MOST_THREADS ? workers : MOST_THREADS;
    return workers < 1 ? 1 : (int)workers;
}

/* Calls body for 0 .. count - 1 in any order. A thread that cannot be made is done without. */
static void parallel_loop(loop_body body, void *context, int64_t count, int workers) {
    shared_loop loop = {body, context, count, 0};
    loop_worker all[MOST_THREADS];
    loop_thread threads[MOST_THREADS];
    int made = 1;
    for (; made < workers; made++) {
        all[made].loop = &loop;
        all[made].worker = made;
        if (!start_thread(&threads[made], &all[made])) {
            break;
        }
    }
    all[0].loop = &loop;
    all[0].worker = 0;
    work(&all[0]);
    for (int i = 1; i < made; i++) {
        join_thread(threads[i]);
    }
}

#endif
