#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "src/base/mem.h"
#include "src/base/pool.h"

/* How long a worker spins for the next job before it sleeps: jobs of one
 * token follow each other within microseconds. */
#define SPIN_TURNS 2000

/* Idle workers wait for generation to move on; each job raises it by one.
 * job_* are written by the caller before generation is raised (release) and
 * read by workers after they saw it (acquire). */
struct sl_pool {
    unsigned n_threads;
    pthread_t *threads; /* n_threads - 1 of them */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_cond_t finished;
    atomic_ulong generation;
    atomic_size_t next;
    atomic_uint running; /* workers that have not finished this job */
    bool stop;
    size_t n, grain;
    sl_pool_fn *fn;
    void *arg;
};

struct start {
    struct sl_pool *pool;
    unsigned worker;
};

static void work(struct sl_pool *p, unsigned worker)
{
    for (;;) {
        /* relaxed: chunks carry no data to each other */
        size_t begin =
            atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        if (begin >= p->n)
            return;
        p->fn(p->arg, begin, p->n - begin < p->grain ? p->n : begin + p->grain,
              worker);
    }
}

/* Returns false when the pool is to end. */
static bool wait_for_job(struct sl_pool *p, unsigned long *seen)
{
    unsigned long now;

    for (int i = 0; i < SPIN_TURNS; i++) {
        now = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (now != *seen)
            break;
#ifdef SL_X86_64
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&p->mutex);
    while (atomic_load_explicit(&p->generation, memory_order_acquire) == *seen)
        pthread_cond_wait(&p->wake, &p->mutex);
    *seen = atomic_load_explicit(&p->generation, memory_order_acquire);
    pthread_mutex_unlock(&p->mutex);
    return !p->stop;
}

static void *worker_main(void *arg)
{
    struct start start = *(struct start *)arg;
    struct sl_pool *p = start.pool;
    unsigned long seen = 0;

    free(arg);
    while (wait_for_job(p, &seen)) {
        work(p, start.worker);
        /* release: the caller must see what this worker wrote */
        if (atomic_fetch_sub_explicit(&p->running, 1, memory_order_acq_rel) ==
            1) {
            pthread_mutex_lock(&p->mutex);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->mutex);
        }
    }
    return NULL;
}

static unsigned cpus_allowed(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

static int start_worker(struct sl_pool *p, unsigned worker,
                        struct sl_error *err)
{
    struct start *start = malloc(sizeof *start);
    pthread_attr_t attr;
    int rc;

    if (start == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "thread pool: no memory");
    *start = (struct start){p, worker};
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 512u << 10);
    rc = pthread_create(&p->threads[worker - 1], &attr, worker_main, start);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        free(start);
        return sl_fail_os(err, rc, "cannot start thread %u of %u", worker + 1,
                          p->n_threads);
    }
    return 0;
}

int sl_pool_create(struct sl_pool **pool, unsigned n_threads,
                   struct sl_error *err)
{
    struct sl_pool *p = calloc(1, sizeof *p);
    unsigned wanted = n_threads ? n_threads : cpus_allowed();

    if (p != NULL)
        p->threads = sl_zalloc_array(wanted, sizeof *p->threads);
    if (p == NULL || p->threads == NULL) {
        free(p);
        return sl_fail(err, SL_ERR_NOMEM, "thread pool: no memory");
    }
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->n_threads = 1;
    for (unsigned i = 1; i < wanted; i++) {
        if (start_worker(p, i, err) != 0) {
            sl_pool_destroy(p);
            return -1;
        }
        p->n_threads++;
    }
    *pool = p;
    return 0;
}

void sl_pool_destroy(struct sl_pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 1; i < p->n_threads; i++)
        pthread_join(p->threads[i - 1], NULL);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->finished);
    free(p->threads);
    free(p);
}

unsigned sl_pool_threads(const struct sl_pool *pool)
{
    return pool->n_threads;
}

void sl_pool_for(struct sl_pool *p, size_t n, size_t grain, sl_pool_fn *fn,
                 void *arg)
{
    if (n == 0)
        return;
    p->n = n;
    p->grain = grain ? grain : 1;
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (p->n_threads == 1 || n <= p->grain) {
        work(p, 0);
        return;
    }
    atomic_store_explicit(&p->running, p->n_threads - 1, memory_order_relaxed);
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    work(p, 0);
    /* acquire: pairs with the workers' release above */
    for (int i = 0; i < SPIN_TURNS; i++) {
        if (atomic_load_explicit(&p->running, memory_order_acquire) == 0)
            return;
#ifdef SL_X86_64
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&p->mutex);
    while (atomic_load_explicit(&p->running, memory_order_acquire) != 0)
        pthread_cond_wait(&p->finished, &p->mutex);
    pthread_mutex_unlock(&p->mutex);
}
