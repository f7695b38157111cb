#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/pool.h"

/* How long a thread spins before it sleeps. The jobs of a token follow each
 * other within microseconds; to sleep and be woken takes tens of them, so
 * that spinning wastes at most about as much again. */
#define SPIN_NS 100000u
/* Pauses between two looks at the clock. */
#define SPIN_TURNS  16
#define CACHE_LINE  64u
#define ERRAND_NS   1000000u
#define STACK_BYTES (2u << 20)

/* The chunks a worker begins with. Others take those it has not begun, when
 * they have none left of their own. */
struct share {
    _Alignas(CACHE_LINE) atomic_size_t next;
    size_t end;
};

/* Idle workers wait for generation to move on; each job raises it by one. The
 * job and the shares are written by the caller before that and read by
 * workers after they saw it.
 *
 * Who goes to sleep says so first (sleepers, joining) and then looks once
 * more at what it waits for; who changes that looks for sleepers afterwards.
 * Both are sequentially consistent: one of the two sees the other, no wake-up
 * is lost, and while nobody sleeps nobody takes the mutex. */
struct sl_pool {
    unsigned n_threads;
    bool spin;
    pthread_t *threads;   /* n_threads - 1 of them */
    struct share *shares; /* (n_threads) */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_cond_t finished;
    atomic_uint sleepers;
    atomic_bool joining; /* the caller sleeps until running is 0 */
    bool stop;
    size_t n, grain;
    sl_pool_fn *fn;
    void *arg;
    void (*errand)(void *arg); /* the caller's; NULL: none */
    void *errand_arg;
    uint64_t errand_ns; /* when it was last done */
    _Alignas(CACHE_LINE) atomic_ulong generation;
    _Alignas(CACHE_LINE) atomic_uint running; /* not done with this job */
};

struct start {
    struct sl_pool *pool;
    unsigned worker;
    void (*begin)(void *arg, unsigned worker); /* or NULL */
    void *arg;
};

static void run_errand(struct sl_pool *p)
{
    uint64_t now = sl_clock_ns();

    if (now - p->errand_ns < ERRAND_NS)
        return;
    p->errand_ns = now;
    p->errand(p->errand_arg);
}

/* Each thread begins with its own share and helps others with what is left
 * of theirs: a thread that was held up holds nobody up. Which thread
 * computes a chunk changes no bit, as chunks are of outputs. */
static void work(struct sl_pool *p, unsigned worker)
{
    for (unsigned i = 0; i < p->n_threads; i++) {
        struct share *s = &p->shares[(worker + i) % p->n_threads];

        for (;;) {
            /* relaxed: chunks carry no data to each other */
            size_t begin = atomic_fetch_add_explicit(&s->next, p->grain,
                                                     memory_order_relaxed);

            if (begin >= s->end)
                break;
            p->fn(p->arg, begin,
                  s->end - begin < p->grain ? s->end : begin + p->grain,
                  worker);
            if (worker == 0 && p->errand != NULL)
                run_errand(p);
        }
    }
}

/* --- waiting ---------------------------------------------------------------
 */

static bool new_job(struct sl_pool *p, unsigned long seen)
{
    return atomic_load(&p->generation) != seen;
}

static bool all_done(struct sl_pool *p, unsigned long ignored)
{
    return atomic_load(&p->running) == 0;
}

/* False if it takes too long. */
static bool spin_until(bool (*ready)(struct sl_pool *p, unsigned long seen),
                       struct sl_pool *p, unsigned long seen)
{
    uint64_t end = 0, now;

    while (p->spin) {
        for (int i = 0; i < SPIN_TURNS; i++) {
            if (ready(p, seen))
                return true;
#ifdef SL_X86_64
            __builtin_ia32_pause();
#endif
        }
        now = sl_clock_ns();
        if (end == 0)
            end = now + SPIN_NS;
        else if (now >= end)
            break;
    }
    return ready(p, seen);
}

/* Returns false when the pool is to end. */
static bool wait_for_job(struct sl_pool *p, unsigned long *seen)
{
    if (!spin_until(new_job, p, *seen)) {
        pthread_mutex_lock(&p->mutex);
        atomic_fetch_add(&p->sleepers, 1);
        while (!new_job(p, *seen))
            pthread_cond_wait(&p->wake, &p->mutex);
        atomic_fetch_sub(&p->sleepers, 1);
        pthread_mutex_unlock(&p->mutex);
    }
    /* The caller begins no other job before this worker is done with one. */
    *seen = atomic_load(&p->generation);
    return !p->stop;
}

static void wait_for_workers(struct sl_pool *p)
{
    if (spin_until(all_done, p, 0))
        return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->joining, true);
    while (!all_done(p, 0))
        pthread_cond_wait(&p->finished, &p->mutex);
    atomic_store(&p->joining, false);
    pthread_mutex_unlock(&p->mutex);
}

static void begin_job(struct sl_pool *p)
{
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->sleepers) == 0)
        return;
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}

/* Counted down without the lock, as most jobs last microseconds: it is taken
 * only where the caller has gone to sleep (joining), who looks at `running`
 * again under it. */
static void *worker_main(void *arg)
{
    struct start start = *(struct start *)arg;
    struct sl_pool *p = start.pool;
    unsigned long seen = 0;

    free(arg);
    if (start.begin != NULL)
        start.begin(start.arg, start.worker);
    while (wait_for_job(p, &seen)) {
        work(p, start.worker);
        if (atomic_fetch_sub(&p->running, 1) == 1 && atomic_load(&p->joining)) {
            pthread_mutex_lock(&p->mutex);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->mutex);
        }
    }
    return NULL;
}

/* --- life ------------------------------------------------------------------
 */

unsigned sl_pool_cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

/* With a small stack of known size, so that memory that is planned has them
 * in it. */
static int start_worker(struct sl_pool *p, const struct start *with,
                        struct sl_error *err)
{
    struct start *start = malloc(sizeof *start);
    pthread_attr_t attr;
    int rc;

    if (start == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "thread pool: no memory");
    *start = *with;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    rc = pthread_create(&p->threads[with->worker - 1], &attr, worker_main,
                        start);
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        free(start);
        return sl_fail_os(err, rc, "cannot start thread %u of %u",
                          with->worker + 1, p->n_threads);
    }
    return 0;
}

/* What threads write lies in cache lines of its own. */
static struct sl_pool *pool_alloc(unsigned wanted)
{
    size_t bytes = sizeof(struct share) * wanted;
    struct sl_pool *p = aligned_alloc(CACHE_LINE, sizeof *p);

    if (p == NULL)
        return NULL;
    memset(p, 0, sizeof *p);
    p->threads = sl_zalloc_array(wanted, sizeof *p->threads);
    p->shares = aligned_alloc(CACHE_LINE, bytes);
    if (p->threads == NULL || p->shares == NULL) {
        free(p->threads);
        free(p->shares);
        free(p);
        return NULL;
    }
    memset(p->shares, 0, bytes);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->finished, NULL);
    return p;
}

int sl_pool_create(struct sl_pool **pool, unsigned n_threads,
                   struct sl_error *err)
{
    return sl_pool_create_with(pool, n_threads, NULL, NULL, err);
}

int sl_pool_create_with(struct sl_pool **pool, unsigned n_threads,
                        void (*begin)(void *arg, unsigned worker), void *arg,
                        struct sl_error *err)
{
    unsigned cpus = sl_pool_cpus(), wanted = n_threads ? n_threads : cpus;
    struct sl_pool *p = pool_alloc(wanted);

    if (p == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "thread pool: no memory");
    /* A thread that spins on a CPU another one needs would only delay it. */
    p->spin = wanted <= cpus;
    p->n_threads = 1;
    for (unsigned i = 1; i < wanted; i++) {
        struct start start = {p, i, begin, arg};

        if (start_worker(p, &start, err) != 0) {
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
    p->stop = true;
    begin_job(p);
    for (unsigned i = 1; i < p->n_threads; i++)
        pthread_join(p->threads[i - 1], NULL);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->finished);
    free(p->threads);
    free(p->shares);
    free(p);
}

void sl_pool_set_errand(struct sl_pool *p, void (*fn)(void *arg), void *arg)
{
    p->errand = fn;
    p->errand_arg = arg;
}

unsigned sl_pool_threads(const struct sl_pool *pool)
{
    return pool->n_threads;
}

void sl_pool_share(size_t *begin, size_t *end, size_t n, size_t grain,
                   unsigned worker, unsigned n_threads)
{
    size_t chunks = n / grain + (n % grain != 0);
    size_t each = chunks / n_threads, more = chunks % n_threads;
    size_t first = worker * each + (worker < more ? worker : more);
    size_t last = first + each + (worker < more);

    *begin = first * grain < n ? first * grain : n;
    *end = last * grain < n ? last * grain : n;
}

void sl_pool_for(struct sl_pool *p, size_t n, size_t grain, sl_pool_fn *fn,
                 void *arg)
{
    if (n == 0)
        return;
    if (grain == 0)
        grain = 1;
    if (p->n_threads == 1 || n <= grain) {
        for (size_t i = 0; i < n; i += grain) {
            fn(arg, i, n - i < grain ? n : i + grain, 0);
            if (p->errand != NULL)
                run_errand(p);
        }
        return;
    }
    p->n = n;
    p->grain = grain;
    p->fn = fn;
    p->arg = arg;
    for (unsigned i = 0; i < p->n_threads; i++) {
        size_t begin;

        sl_pool_share(&begin, &p->shares[i].end, n, grain, i, p->n_threads);
        atomic_store_explicit(&p->shares[i].next, begin, memory_order_relaxed);
    }
    atomic_store_explicit(&p->running, p->n_threads - 1, memory_order_relaxed);
    begin_job(p);
    work(p, 0);
    wait_for_workers(p);
}
