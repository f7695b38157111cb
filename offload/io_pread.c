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

/* What is to be read of a file: no disk's threads wait for another disk. */
struct lane {
    struct preader *reader;
    pthread_t threads[MAX_THREADS];
    unsigned n_threads;
    pthread_cond_t work; /* todo is not empty, or stop */
    struct fifo todo;
    struct sl_io_read *reads; /* (depth) ring of todo */
};

/* The mutex guards everything below it, and what is to be read. The submitter
   owns a read until it is in `todo`, a thread while it is in neither list, the
   submitter again when it was taken from `done`. */
struct preader {
    struct sl_io io;
    struct sl_io_file file;
    struct lane lanes[SL_IO_FILES];
    pthread_mutex_t mutex;
    pthread_cond_t ended; /* done is not empty, or woken */
    struct fifo done;
    struct sl_io_done *results; /* (depth) ring of done */
    bool woken, stop;
};

/* Returns what one pread did: bytes, or -errno. */
static int read_one(const struct preader *p, const struct sl_io_read *r)
{
    ssize_t n = pread(p->file.fd[r->file], r->buf, r->bytes, (off_t)r->off);

    if (n < 0)
        return -errno;
    sl_io_drop(&p->file, r->file, r->off, r->bytes);
    return (int)n;
}

/* The mutex is let go for the read alone: threads take reads in the order in
 * which they came, which is the order of use. */
static void *thread_main(void *arg)
{
    struct lane *l = arg;
    struct preader *p = l->reader;

    pthread_mutex_lock(&p->mutex);
    for (;;) {
        struct sl_io_read r;
        int result;

        while (!p->stop && l->todo.n == 0)
            pthread_cond_wait(&l->work, &p->mutex);
        if (p->stop)
            break;
        r = l->reads[l->todo.head];
        l->todo.head = (l->todo.head + 1) % p->file.depth;
        l->todo.n--;
        pthread_mutex_unlock(&p->mutex);
        result = read_one(p, &r);
        pthread_mutex_lock(&p->mutex);
        p->results[(p->done.head + p->done.n) % p->file.depth] =
            (struct sl_io_done){.tag = r.tag, .result = result, .file = r.file};
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
    struct lane *l = &p->lanes[r->file];

    pthread_mutex_lock(&p->mutex);
    l->reads[(l->todo.head + l->todo.n) % p->file.depth] = *r;
    l->todo.n++;
    pthread_cond_signal(&l->work);
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

/* Everything but the files. */
static void preader_fini(struct preader *p)
{
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    for (unsigned i = 0; i < p->file.n; i++)
        pthread_cond_broadcast(&p->lanes[i].work);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->file.n; i++) {
        struct lane *l = &p->lanes[i];

        for (unsigned k = 0; k < l->n_threads; k++)
            pthread_join(l->threads[k], NULL);
        pthread_cond_destroy(&l->work);
        free(l->reads);
    }
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->ended);
    free(p->results);
    free(p);
}

/* The files outlive their readers: one of them may still be in pread. */
static void pread_close(struct sl_io *io)
{
    struct preader *p = (struct preader *)io;
    struct sl_io_file file = p->file;

    preader_fini(p);
    sl_io_close_files(&file);
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
static int start_threads(struct lane *l)
{
    unsigned depth = l->reader->file.depth;
    unsigned want = depth < MAX_THREADS ? depth : MAX_THREADS;
    pthread_attr_t attr;
    int rc = 0;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (rc == 0 && l->n_threads < want) {
        rc = pthread_create(&l->threads[l->n_threads], &attr, thread_main, l);
        l->n_threads += rc == 0;
    }
    pthread_attr_destroy(&attr);
    return l->n_threads > 0 ? 0 : rc;
}

/* Returns false without memory. */
static bool make_lanes(struct preader *p)
{
    bool made = true;

    for (unsigned i = 0; i < p->file.n; i++) {
        struct lane *l = &p->lanes[i];

        l->reader = p;
        pthread_cond_init(&l->work, NULL);
        l->reads = sl_alloc_array(p->file.depth, sizeof *l->reads);
        made &= l->reads != NULL;
    }
    p->results = sl_alloc_array(p->file.depth, sizeof *p->results);
    return made && p->results != NULL;
}

int sl_io_pread_open(struct sl_io **io, const struct sl_io_config *config,
                     const struct sl_io_file *file, struct sl_error *err)
{
    struct preader *p = calloc(1, sizeof *p);
    int rc = 0;

    if (p == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "reader threads: no memory");
    p->io = (struct sl_io){.ops = &pread_ops, .direct = file->direct};
    p->file = *file;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->ended, NULL);
    if (!make_lanes(p)) {
        preader_fini(p);
        return sl_fail(err, SL_ERR_NOMEM, "reader threads: no memory");
    }
    for (unsigned i = 0; i < file->n && rc == 0; i++)
        rc = start_threads(&p->lanes[i]);
    if (rc != 0) {
        preader_fini(p);
        return sl_fail_os(err, rc, "%s: cannot start a reader thread",
                          config->path);
    }
    *io = &p->io;
    return 0;
}
