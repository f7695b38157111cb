#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "quant/planes.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/base/pool.h"
#include "src/base/progress.h"
#include "src/base/section_out.h"
#include "src/convert/synth.h"
#include "src/convert/synth_fill.h"
#include "src/convert/synth_router.h"

/* Made and handed to the writer in runs that stay in a core's cache. */
#define RUN_BYTES (256u << 10)

/* A worker's own. */
struct worker {
    struct sl_out *out;
    struct sl_synth_source source;
    uint8_t *run; /* (RUN_BYTES) */
};

struct synth {
    const struct sl_synth_options *o;
    struct sl_layout layout;
    char quant[SL_SYNTH_QUANT];
    char *output, *partial;
    int fd; /* of the partial file, locked */
    struct sl_pool *pool;
    struct worker *workers;
    unsigned n_workers;
    atomic_bool stop; /* a hint to the others: the error says why */
    pthread_mutex_t mutex;
    struct sl_progress progress; /* with mutex held, as all below */
    uint64_t done_bytes;
    struct sl_error err;
};

/* --- writing -------------------------------------------------------------- */

/* Counts what was written; true: go on. */
static bool report(struct synth *s, uint64_t bytes)
{
    bool stop;

    pthread_mutex_lock(&s->mutex);
    s->done_bytes += bytes;
    sl_progress_update(&s->progress, s->done_bytes);
    if (!atomic_load(&s->stop) && s->o->interrupted != NULL &&
        s->o->interrupted(s->o->opaque)) {
        sl_fail(&s->err, SL_ERR_INTERRUPTED, "stopped; nothing is left of %s",
                s->output);
        atomic_store(&s->stop, true);
    }
    stop = atomic_load(&s->stop);
    pthread_mutex_unlock(&s->mutex);
    return !stop;
}

static void fail(struct synth *s, const struct sl_error *err)
{
    pthread_mutex_lock(&s->mutex);
    if (!atomic_load(&s->stop))
        s->err = *err;
    atomic_store(&s->stop, true);
    pthread_mutex_unlock(&s->mutex);
}

/* The tensor at off, made of w->source; -1 without an error when others have
 * failed. */
static int write_tensor(struct synth *s, struct worker *w, uint64_t off,
                        uint64_t bytes, struct sl_error *err)
{
    if (sl_out_pad(w->out, off, err) != 0)
        return -1;
    /* A tensor is told from others by where it lies. */
    w->source.key = (s->o->seed + 1) * UINT64_C(0xd1342543de82ef95) ^ off;
    sl_synth_source_init(&w->source);
    for (uint64_t at = 0; at < bytes; at += RUN_BYTES) {
        size_t n = bytes - at < RUN_BYTES ? (size_t)(bytes - at) : RUN_BYTES;

        sl_synth_fill(&w->source, w->run, at, n);
        if (sl_out_append(w->out, w->run, n, err) != 0)
            return -1;
        if (!report(s, n))
            return sl_fail(err, SL_ERR_INTERRUPTED, "stopped");
    }
    return 0;
}

/* In a mixture positions have to differ where routers look at them, or all
 * choose the same: what their ids begin with outweighs what they have in
 * common, which attention to the same past makes more of in every layer. */
#define EMBED_RMS    1.0
#define ATTENTION_BY 0.25

static void spread(const struct synth *s, struct worker *w,
                   const struct sl_model_matrix *m)
{
    double by = 1;

    sl_synth_spread(&w->source);
    if (s->layout.hp.n_experts == 0)
        return;
    if (m->spec.slot == SL_SLOT_EMBED)
        by = EMBED_RMS * sqrt((double)m->geom.cols);
    else if (m->spec.slot == SL_SLOT_ATTN_OUT)
        by = ATTENTION_BY;
    w->source.centre *= (float)by;
    w->source.spread *= (float)by;
}

static int write_scale(struct synth *s, struct worker *w,
                       const struct sl_model_matrix *m, struct sl_error *err)
{
    w->source.kind = SL_SYNTH_SCALE;
    w->source.fmt = SL_FMT_F16;
    w->source.m = m->geom;
    spread(s, w, m);
    return write_tensor(s, w, m->scale_off, m->scale_bytes, err);
}

static int write_matrix(struct synth *s, struct worker *w,
                        const struct sl_model_matrix *m, struct sl_error *err)
{
    w->source.kind =
        sl_fmt_is_float(m->geom.fmt) ? SL_SYNTH_FLOATS : SL_SYNTH_BLOCKS;
    w->source.fmt = m->geom.fmt;
    w->source.m = m->geom;
    spread(s, w, m);
    if (m->low_bytes > 0)
        w->source.m = sl_matrix_plane(&m->geom);
    if (write_tensor(s, w, m->off, m->bytes, err) != 0)
        return -1;
    if (m->scale_bytes == 0 || m->scale_resident)
        return 0;
    return write_scale(s, w, m, err);
}

/* Of nibbles of -7 .. 7 as the high plane: together INT8 of -119 .. 119. */
static int write_low_plane(struct synth *s, struct worker *w,
                           const struct sl_model_matrix *m,
                           struct sl_error *err)
{
    w->source.kind = SL_SYNTH_BLOCKS;
    w->source.fmt = SL_FMT_INT4;
    w->source.m = sl_matrix_plane(&m->geom);
    return write_tensor(s, w, m->low_off, m->low_bytes, err);
}

/* Norms are near one, biases small. */
static int write_vector(struct synth *s, struct worker *w,
                        const struct sl_model_small *v, struct sl_error *err)
{
    bool weight = sl_slot_is_gain(v->spec.slot);

    if (v->spec.slot == SL_SLOT_ROUTER_BIAS && s->o->router_skew > 0) {
        if (sl_out_pad(w->out, v->off, err) != 0)
            return -1;
        sl_synth_router_bias((float *)(void *)w->run, &s->layout.hp,
                             v->spec.layer, s->o->router_skew);
        return sl_out_append(w->out, w->run, v->bytes, err);
    }
    w->source.kind = SL_SYNTH_FLOATS;
    w->source.fmt = SL_FMT_F32;
    w->source.centre = weight ? 1 : 0;
    w->source.spread = weight ? 0.1f : 0.02f;
    return write_tensor(s, w, v->off, v->bytes, err);
}

static int write_section(struct synth *s, struct worker *w, size_t i,
                         struct sl_error *err)
{
    struct sl_layout *l = &s->layout;
    struct sl_model_section *section = &l->sections[i];

    sl_out_begin(w->out, section->off);
    if (i < l->n_small && write_vector(s, w, &l->small[i], err) != 0)
        return -1;
    if (l->tokenizer_bytes > 0 && section->off == l->tokenizer_off &&
        sl_out_append(w->out, s->o->tokenizer, l->tokenizer_bytes, err) != 0)
        return -1;
    for (size_t k = 0; i >= l->n_small && k < l->n_matrices; k++) {
        const struct sl_model_matrix *m = &l->matrices[k];

        if (i < l->first_stage) {
            if (m->scale_resident && m->scale_off == section->off &&
                write_scale(s, w, m, err) != 0)
                return -1;
        } else if (m->section == i && write_matrix(s, w, m, err) != 0) {
            return -1;
        } else if (m->low_bytes > 0 && m->low_section == i &&
                   write_low_plane(s, w, m, err) != 0) {
            return -1;
        }
    }
    return sl_out_end(w->out, section->off + section->bytes, &section->xxh3,
                      err);
}

static void write_sections(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct synth *s = arg;
    struct sl_error err;

    for (size_t i = begin; i < end && !atomic_load(&s->stop); i++) {
        if (write_section(s, &s->workers[worker], i, &err) != 0)
            fail(s, &err);
    }
}

static int write_header(struct synth *s, struct sl_error *err)
{
    struct sl_out *out = s->workers[0].out;
    uint8_t *header;
    uint64_t sum;
    int rc;

    if (sl_layout_header(&s->layout, &header, err) != 0)
        return -1;
    sl_out_begin(out, 0);
    rc = sl_out_append(out, header, (size_t)s->layout.header_bytes, err);
    free(header);
    return rc == 0 ? sl_out_end(out, s->layout.header_bytes, &sum, err) : -1;
}

static int start_workers(struct synth *s, struct sl_error *err)
{
    unsigned n = s->o->threads > 0 ? s->o->threads : SL_SYNTH_THREADS;

    if (sl_pool_create(&s->pool, n, err) != 0)
        return -1;
    s->workers = sl_zalloc_array(n, sizeof *s->workers);
    if (s->workers == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u threads", n);
    for (s->n_workers = 0; s->n_workers < n; s->n_workers++) {
        struct worker *w = &s->workers[s->n_workers];

        w->run = malloc(RUN_BYTES);
        if (w->run == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "no memory for %u threads", n);
        if (sl_out_open(&w->out, s->partial, err) != 0) {
            free(w->run);
            return -1;
        }
    }
    return 0;
}

static int write_file(struct synth *s, struct sl_error *err)
{
    uint64_t total = s->layout.file_bytes - s->layout.header_bytes;

    if (start_workers(s, err) != 0)
        return -1;
    sl_progress_init(&s->progress, "writing", total, 0, s->o->quiet);
    sl_pool_for(s->pool, s->layout.n_sections, 1, write_sections, s);
    sl_progress_fini(&s->progress);
    if (atomic_load(&s->stop)) {
        *err = s->err;
        return -1;
    }
    if (write_header(s, err) != 0)
        return -1;
    return sl_newfile_commit(s->fd, s->partial, s->output, err);
}

/* --- the file ------------------------------------------------------------- */

static int name_files(struct synth *s, struct sl_error *err)
{
    int n = 0;

    if (s->o->output != NULL) {
        if (sl_newfile_name(&s->output, s->o->output, err) != 0)
            return -1;
    } else {
        n = asprintf(&s->output, "%s-%s.gguf", s->o->name, s->quant);
        if (n < 0)
            s->output = NULL;
    }
    if (n < 0 || asprintf(&s->partial, "%s.partial", s->output) < 0) {
        s->partial = NULL;
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    }
    return 0;
}

static int open_partial(struct synth *s, struct sl_error *err)
{
    struct stat st;

    if (sl_newfile_check_kind(s->output, err) != 0 ||
        sl_newfile_check_kind(s->partial, err) != 0)
        return -1;
    if (!s->o->force && lstat(s->output, &st) == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s exists; give --force to replace it, or another -o",
                       s->output);
    if (!s->o->force && lstat(s->partial, &st) == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s is there from a run that did not finish; give "
                       "--force to replace it",
                       s->partial);
    if (sl_newfile_check_space(s->partial, s->output, s->layout.file_bytes,
                               err) != 0)
        return -1;
    s->fd = open(s->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (s->fd < 0)
        return sl_fail_os(err, errno, "%s: cannot create", s->partial);
    if (sl_newfile_lock(s->fd, s->partial, err) != 0) {
        close(s->fd);
        s->fd = -1;
        return -1;
    }
    if (ftruncate(s->fd, 0) != 0)
        return sl_fail_os(err, errno, "%s: cannot empty it", s->partial);
    return sl_newfile_reserve(s->fd, s->partial, s->layout.file_bytes, err);
}

static void fini(struct synth *s, bool failed)
{
    for (unsigned i = 0; i < s->n_workers; i++) {
        sl_out_close(s->workers[i].out);
        free(s->workers[i].run);
    }
    free(s->workers);
    sl_pool_destroy(s->pool);
    if (s->fd >= 0) {
        if (failed)
            unlink(s->partial);
        close(s->fd);
    }
    sl_layout_fini(&s->layout);
    free(s->output);
    free(s->partial);
    pthread_mutex_destroy(&s->mutex);
}

int sl_synth(struct sl_synth_result *r, const struct sl_synth_options *o,
             struct sl_error *err)
{
    struct synth s = {.o = o, .fd = -1};
    uint64_t began = sl_clock_ns();
    int rc = -1;

    pthread_mutex_init(&s.mutex, NULL);
    atomic_init(&s.stop, false);
    if (sl_synth_layout(&s.layout, s.quant, o, err) == 0 &&
        name_files(&s, err) == 0 && open_partial(&s, err) == 0)
        rc = write_file(&s, err);
    if (rc == 0) {
        *r = (struct sl_synth_result){
            .output = s.output,
            .file_bytes = s.layout.file_bytes,
            .ns = sl_clock_ns() - began,
        };
        memcpy(r->quant, s.quant, sizeof r->quant);
        s.output = NULL;
    }
    fini(&s, rc != 0);
    return rc;
}

void sl_synth_result_fini(struct sl_synth_result *r)
{
    free(r->output);
    memset(r, 0, sizeof *r);
}
