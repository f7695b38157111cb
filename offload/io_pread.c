#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/io_readers.h"
#include "src/base/mem.h"

/* Direct reads are megabytes each, which the kernel cuts into many requests:
   a few threads keep a disk as busy as a deep queue. */
#define MAX_THREADS 4u
#define STACK_BYTES (256u << 10)

/* A FIFO of at most depth entries. */
struct fifo {
    unsigned head, n;
};

/* The mutex guards everything below it. The submitter owns a read until it
   is in `todo`, a thread while it is in neither list, the submitter again
   when it was taken from `done`. */
struct preader {
    struct sl_io io;
    struct sl_io_file file;
    pthread_t threads[MAX_THREADS];
    unsigned n_threads;
    pthread_mutex_t mutex;
    pthread_cond_t work;  /* todo is not empty, or stop */
    pthread_cond_t ended; /* done is not empty, or woken */
    struct fifo todo, done;
    struct sl_io_read *reads;   /* (depth) ring of todo */
    struct sl_io_done *results; /* (depth) ring of done */
    bool woken, stop;
};

/* Returns what one pread did: bytes, or -errno. */
static int read_one(const struct preader *p, const struct sl_io_read *r)
{
    ssize_t n = pread(p->file.fd, r->buf, r->bytes, (off_t)r->off);

    if (n < 0)
        return -errno;
    sl_io_drop(&p->file, r->off, r->bytes);
    return (int)n;
}

/* The mutex is let go for the read alone: threads take reads in the order in
 * which they came, which is the order of use. */
static void *thread_main(void *arg)
{
    struct preader *p = arg;

    pthread_mutex_lock(&p->mutex);
    for (;;) {
        struct sl_io_read r;
        int result;

        while (!p->stop && p->todo.n == 0)
            pthread_cond_wait(&p->work, &p->mutex);
        if (p->stop)
            break;
        r = p->reads[p->todo.head];
        p->todo.head = (p->todo.head + 1) % p->file.depth;
        p->todo.n--;
        pthread_mutex_unlock(&p->mutex);
        result = read_one(p, &r);
        pthread_mutex_lock(&p->mutex);
        p->results[(p->done.head + p->done.n) % p->file.depth] =
            (struct sl_io_done){.tag = r.tag, .result = result};
        p->done.n++;
        pthread_cond_signal(&p->ended);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static int pread_submit(struct sl_io *io, const struct sl_io_read *r,
                        struct sl_error *err)
{
    struct preader *p = (struct preader *)io;

    pthread_mutex_lock(&p->mutex);
    p->reads[(p->todo.head + p->todo.n) % p->file.depth] = *r;
    p->todo.n++;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->mutex);
    return 0;
}

static int pread_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                      struct sl_error *err)
{
    struct preader *p = (struct preader *)io;
    unsigned n = 0;

    pthread_mutex_lock(&p->mutex);
    while (p->done.n == 0 && !p->woken)
        pthread_cond_wait(&p->ended, &p->mutex);
    p->woken = false;
    while (n < max && p->done.n > 0) {
        done[n++] = p->results[p->done.head];
        p->done.head = (p->done.head + 1) % p->file.depth;
        p->done.n--;
    }
    pthread_mutex_unlock(&p->mutex);
    return (int)n;
}

static void pread_wake(struct sl_io *io)
{
    struct preader *p = (struct preader *)io;

    pthread_mutex_lock(&p->mutex);
    p->woken = true;
    pthread_cond_signal(&p->ended);
    pthread_mutex_unlock(&p->mutex);
}

/* Everything but the file. */
static void preader_fini(struct preader *p)
{
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->ended);
    free(p->reads);
    free(p->results);
    free(p);
}

/* The file outlives its readers: one of them may still be in pread. */
static void pread_close(struct sl_io *io)
{
    struct preader *p = (struct preader *)io;
    int fd = p->file.fd;

    preader_fini(p);
    close(fd);
}

static const struct sl_io_ops pread_ops = {
    .name = "pread",
    .submit = pread_submit,
    .wait = pread_wait,
    .wake = pread_wake,
    .close = pread_close,
};

/* Starts as many threads as there may be. Returns 0, or an errno when not
   even one could be started. */
static int start_threads(struct preader *p)
{
    unsigned want = p->file.depth < MAX_THREADS ? p->file.depth : MAX_THREADS;
    pthread_attr_t attr;
    int rc = 0;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (rc == 0 && p->n_threads < want) {
        rc = pthread_create(&p->threads[p->n_threads], &attr, thread_main, p);
        p->n_threads += rc == 0;
    }
    pthread_attr_destroy(&attr);
    return p->n_threads > 0 ? 0 : rc;
}

int sl_io_pread_open(struct sl_io **io, const struct sl_io_config *config,
                     const struct sl_io_file *file, struct sl_error *err)
{
    struct preader *p = calloc(1, sizeof *p);
    int rc;

    if (p == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "reader threads: no memory");
    p->io = (struct sl_io){.ops = &pread_ops, .direct = file->direct};
    p->file = *file;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->ended, NULL);
    p->reads = sl_alloc_array(file->depth, sizeof *p->reads);
    p->results = sl_alloc_array(file->depth, sizeof *p->results);
    if (p->reads == NULL || p->results == NULL) {
        preader_fini(p);
        return sl_fail(err, SL_ERR_NOMEM, "reader threads: no memory");
    }
    rc = start_threads(p);
    if (rc != 0) {
        preader_fini(p);
        return sl_fail_os(err, rc, "%s: cannot start a reader thread",
                          config->path);
    }
    *io = &p->io;
    return 0;
}
