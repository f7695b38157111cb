#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "quant/planes.h"
#include "src/convert/convert_impl.h"

#define READERS 2u
/* How often the calling thread asks whether it should stop, when nothing
 * else wakes it. */
#define ASK_NS 100000000l

/* Who may touch a slot's bytes; it only ever moves to the next state, and
 * chunk number seq uses slot seq % n_slots. */
enum state {
    FREE,    /* nobody; the reader whose chunk is next takes it */
    READING, /* a reader */
    READY,   /* the calling thread, which packs */
    PACKED,  /* the writer, which frees it */
};

struct slot {
    enum state state;
    size_t seq; /* the chunk that is in it, or that it waits for */
    struct sl_region room;
};

struct pipe {
    struct sl_convert *cv;
    struct sl_partial *partial;
    struct sl_out *out, *low; /* low: NULL without planes */
    struct sl_stage_out *stages;
    struct slot *slots;
    uint8_t *scales; /* of the section being written */
    struct sl_progress progress;
    uint64_t written;
    /* The lock guards what follows and the slots' states. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t next_read;
    bool stop;
    struct sl_error err; /* of the first failure */
};

static void fail_pipe(struct pipe *p, const struct sl_error *err)
{
    pthread_mutex_lock(&p->lock);
    if (!p->stop)
        p->err = *err;
    p->stop = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static void pass_on(struct pipe *p, struct slot *s, enum state state)
{
    pthread_mutex_lock(&p->lock);
    s->state = state;
    if (state == FREE)
        s->seq += p->cv->n_slots;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* The slot of chunk seq once it is in this state; NULL: stop. */
static struct slot *wait_slot(struct pipe *p, size_t seq, enum state state)
{
    struct slot *s = &p->slots[seq % p->cv->n_slots];

    pthread_mutex_lock(&p->lock);
    while (!p->stop && (s->seq != seq || s->state != state))
        pthread_cond_wait(&p->changed, &p->lock);
    if (p->stop)
        s = NULL;
    else if (state == FREE)
        s->state = READING;
    pthread_mutex_unlock(&p->lock);
    return s;
}

struct areas {
    uint8_t *rows, *scratch, *w, *planes;
    uint16_t *q_scale, *scale;
};

static void find_areas(struct areas *a, const struct pipe *p,
                       const struct slot *s, const struct sl_chunk *c)
{
    struct sl_chunk_room room;
    uint8_t *at = s->room.base;

    sl_convert_chunk_room(&room, p->cv, c->matrix, c->n_rows);
    a->rows = at;
    a->scratch = at += room.rows;
    a->q_scale = (uint16_t *)(at += room.scratch);
    a->w = at += room.q_scale;
    a->scale = (uint16_t *)(at += room.w);
    a->planes = at + room.scale;
}

static int read_chunk(struct pipe *p, struct slot *s, const struct sl_chunk *c,
                      struct sl_error *err)
{
    const struct sl_merge *m = &p->cv->matrices[c->matrix].merge;
    uint64_t first = (uint64_t)c->first_block * SL_BLOCK_ROWS;
    struct areas a;

    find_areas(&a, p, s, c);
    first += (uint64_t)c->segment * (m->spec.rows / m->spec.n_segments);
    return sl_merge_read(m, a.rows, m->n_groups > 0 ? a.q_scale : NULL, first,
                         c->n_rows, a.scratch, err);
}

static void *reader(void *arg)
{
    struct pipe *p = arg;
    struct sl_error err;

    for (;;) {
        struct slot *s;
        size_t seq;

        pthread_mutex_lock(&p->lock);
        seq = p->next_read++;
        pthread_mutex_unlock(&p->lock);
        if (seq >= p->cv->n_chunks)
            return NULL;
        s = wait_slot(p, seq, FREE);
        if (s == NULL)
            return NULL;
        if (read_chunk(p, s, &p->cv->chunks[seq], &err) != 0) {
            fail_pipe(p, &err);
            return NULL;
        }
        pass_on(p, s, READY);
    }
}

/* Blocks of a chunk whose weights go to two planes. */
struct split {
    const uint8_t *w;
    uint8_t *high, *low;
    size_t block_bytes;
};

static void split_blocks(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct split *s = arg;
    size_t at = begin * s->block_bytes;

    sl_planes_split(s->high + at / 2, s->low + at / 2, s->w + at,
                    (end - begin) * s->block_bytes);
}

static void split_chunk(const struct pipe *p, const struct areas *a,
                        const struct sl_chunk *c)
{
    const struct sl_model_matrix *m = &p->cv->layout.matrices[c->matrix];
    size_t n = sl_div_up(c->n_rows, SL_BLOCK_ROWS);
    struct split s = {
        .w = a->w,
        .high = a->planes,
        .block_bytes = (size_t)sl_matrix_block_bytes(&m->geom, 0, 1),
    };

    s.low = s.high + n * s.block_bytes / 2;
    if (m->low_bytes > 0)
        sl_pool_for(p->cv->pool, n, 1, split_blocks, &s);
}

static void pack_chunk(struct pipe *p, struct slot *s, const struct sl_chunk *c)
{
    struct sl_convert *cv = p->cv;
    const struct sl_convert_matrix *m = &cv->matrices[c->matrix];
    const struct sl_matrix *g = &cv->layout.matrices[c->matrix].geom;
    struct sl_pack_source src = {.fmt = m->merge.fmt};
    struct sl_pack_error *e = &cv->result->tensors[c->matrix].error;
    /* Copies lose nothing: only what is no number is looked for. */
    bool copy = src.fmt == g->fmt;
    struct areas a;

    find_areas(&a, p, s, c);
    src.rows = a.rows;
    sl_convert_add_adapters(cv, c, (float *)(void *)a.rows);
    if (sl_fmt_has_blocks(src.fmt))
        sl_pack_published(a.w, g, a.rows, (size_t)sl_merge_row_bytes(&m->merge),
                          c->n_rows, cv->pool);
    else if (!sl_fmt_is_float(src.fmt))
        sl_pack_quantized(a.w, a.scale, g, (const int8_t *)a.rows, a.q_scale,
                          c->n_rows, cv->pool);
    else
        sl_pack_rows(a.w, a.scale, g, m->rule, &src, c->n_rows, cv->pool,
                     copy && !cv->o->report ? NULL : e);
    if (copy && !cv->o->report) {
        uint64_t n = (uint64_t)c->n_rows * g->cols;

        e->n += n;
        e->n_not_finite += sl_pack_not_finite(a.rows, src.fmt, n, cv->pool);
    }
    split_chunk(p, &a, c);
}

/* Where the scales of a matrix begin among those of its section. */
static size_t scale_base(const struct sl_convert *cv, uint32_t matrix)
{
    const struct sl_model_matrix *m = cv->layout.matrices;
    size_t base = 0;

    for (uint32_t i = matrix; i-- > 0 && m[i].section == m[matrix].section;)
        base += (size_t)m[i].scale_bytes;
    return base;
}

/* The chunk's scales wait until the weights of its matrix are written. */
static int write_chunk(struct pipe *p, struct slot *s, const struct sl_chunk *c,
                       struct sl_error *err)
{
    const struct sl_convert *cv = p->cv;
    const struct sl_matrix *g = &cv->layout.matrices[c->matrix].geom;
    uint32_t n_blocks = (uint32_t)sl_div_up(c->n_rows, SL_BLOCK_ROWS);
    size_t bytes = (size_t)sl_matrix_block_bytes(g, c->first_block, n_blocks);
    struct areas a;

    find_areas(&a, p, s, c);
    if (sl_fmt_has_scales(g->fmt))
        memcpy(p->scales + scale_base(cv, c->matrix) +
                   sl_matrix_scale_offset(g, c->segment, c->first_block),
               a.scale, (size_t)sl_matrix_scale_block_bytes(g, n_blocks));
    p->written += bytes;
    if (cv->layout.matrices[c->matrix].low_bytes == 0)
        return sl_stage_out_append(p->stages, a.w, bytes, err);
    if (sl_out_append(p->low, a.planes + bytes / 2, bytes / 2, err) != 0)
        return -1;
    return sl_stage_out_append(p->stages, a.planes, bytes / 2, err);
}

static int end_section(struct pipe *p, size_t i, struct sl_error *err)
{
    struct sl_model_section *s = &p->cv->layout.sections[i];

    return sl_out_end(p->out, s->off + s->bytes, &s->xxh3, err);
}

static int end_low(struct pipe *p, size_t i, struct sl_error *err)
{
    struct sl_model_section *s = &p->cv->layout.sections[i];

    return sl_out_end(p->low, s->off + s->bytes, &s->xxh3, err);
}

/* After a matrix's last chunk: its scales, where they travel with it. */
static int end_matrix(struct pipe *p, uint32_t matrix, struct sl_error *err)
{
    const struct sl_model_matrix *m = &p->cv->layout.matrices[matrix];

    if (m->scale_bytes == 0 || m->scale_resident)
        return 0;
    if (sl_stage_out_pad(p->stages, m->scale_off, err) != 0)
        return -1;
    p->written += m->scale_bytes;
    return sl_stage_out_append(p->stages, p->scales + scale_base(p->cv, matrix),
                               (size_t)m->scale_bytes, err);
}

/* The low planes of a stage's matrices, written beside it: NULL without. */
static const struct sl_model_matrix *low_planes(const struct pipe *p,
                                                size_t section)
{
    const struct sl_layout *l = &p->cv->layout;

    for (uint32_t i = 0; i < l->n_matrices; i++) {
        if (l->matrices[i].section == section && l->matrices[i].low_bytes > 0)
            return &l->matrices[i];
    }
    return NULL;
}

static int note_stage(struct pipe *p, size_t section,
                      const struct sl_model_matrix *low, struct sl_error *err)
{
    const struct sl_layout *l = &p->cv->layout;

    if (sl_partial_note_sums(p->partial, err) != 0)
        return -1;
    sl_partial_note(p->partial, section);
    if (low != NULL)
        sl_partial_note(p->partial, low->low_section);
    for (uint32_t i = 0; i < l->n_matrices; i++) {
        const struct sl_model_matrix *m = &l->matrices[i];

        if (m->section == section && m->scale_resident)
            sl_partial_note(p->partial, sl_layout_section_at(l, m->scale_off));
    }
    return sl_partial_sync(p->partial, err);
}

/* A section of weights, a stage or an embedding. Its scales that are always
 * resident have sections of their own, in the front of the file; with them it
 * is finished and noted. */
static int end_stage(struct pipe *p, size_t section, struct sl_error *err)
{
    const struct sl_layout *l = &p->cv->layout;
    const struct sl_model_matrix *low = low_planes(p, section);

    if (sl_stage_out_end(p->stages, &p->cv->layout.sections[section], err) != 0)
        return -1;
    if (low != NULL && (end_low(p, low->low_section, err) != 0 ||
                        sl_out_sync(p->low, err) != 0))
        return -1;
    for (uint32_t i = 0; i < l->n_matrices; i++) {
        const struct sl_model_matrix *m = &l->matrices[i];

        if (m->section != section || !m->scale_resident)
            continue;
        sl_out_begin(p->out, m->scale_off);
        p->written += m->scale_bytes;
        if (sl_out_append(p->out, p->scales + scale_base(p->cv, i),
                          (size_t)m->scale_bytes, err) != 0 ||
            end_section(p, sl_layout_section_at(l, m->scale_off), err) != 0)
            return -1;
    }
    if (sl_out_sync(p->out, err) != 0)
        return -1;
    return note_stage(p, section, low, err);
}

static void begin_stage(struct pipe *p, uint32_t matrix)
{
    const struct sl_layout *l = &p->cv->layout;
    const struct sl_model_matrix *m = &l->matrices[matrix];
    uint32_t planes = sl_fmt_of(m->geom.fmt)->elem_bytes;

    sl_stage_out_begin(p->stages, &l->sections[m->section], planes);
    m = low_planes(p, m->section);
    if (m != NULL)
        sl_out_begin(p->low, m->low_off);
}

static int write_in_order(struct pipe *p, size_t seq, struct slot *s,
                          struct sl_error *err)
{
    const struct sl_convert *cv = p->cv;
    const struct sl_chunk *c = &cv->chunks[seq];
    const struct sl_model_matrix *m = &cv->layout.matrices[c->matrix];
    const struct sl_chunk *prev = seq > 0 ? c - 1 : NULL;
    const struct sl_chunk *next = seq + 1 < cv->n_chunks ? c + 1 : NULL;
    size_t section = m->section;

    if (prev == NULL || cv->layout.matrices[prev->matrix].section != section)
        begin_stage(p, c->matrix);
    if (prev == NULL || prev->matrix != c->matrix) {
        if (sl_stage_out_pad(p->stages, m->off, err) != 0 ||
            (m->low_bytes > 0 && sl_out_pad(p->low, m->low_off, err) != 0))
            return -1;
    }
    if (write_chunk(p, s, c, err) != 0)
        return -1;
    if (next != NULL && next->matrix == c->matrix)
        return 0;
    if (end_matrix(p, c->matrix, err) != 0)
        return -1;
    if (next != NULL && cv->layout.matrices[next->matrix].section == section)
        return 0;
    return end_stage(p, section, err);
}

static void *writer(void *arg)
{
    struct pipe *p = arg;
    struct sl_error err;

    for (size_t seq = 0; seq < p->cv->n_chunks; seq++) {
        struct slot *s = wait_slot(p, seq, PACKED);

        if (s == NULL)
            return NULL;
        if (write_in_order(p, seq, s, &err) != 0) {
            fail_pipe(p, &err);
            return NULL;
        }
        sl_progress_update(&p->progress, p->written);
        pass_on(p, s, FREE);
    }
    return NULL;
}

/* Like wait_slot, for the calling thread, which has to ask now and then
 * whether somebody wants it to stop. */
static struct slot *wait_and_ask(struct pipe *p, size_t seq)
{
    const struct sl_convert_options *o = p->cv->o;
    struct slot *s = &p->slots[seq % p->cv->n_slots];
    struct timespec until;
    struct sl_error err;
    bool there = false;

    while (!there) {
        if (o->interrupted != NULL && o->interrupted(o->opaque)) {
            sl_fail(&err, SL_ERR_INTERRUPTED, "stopped");
            fail_pipe(p, &err);
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += ASK_NS;
        if (until.tv_nsec >= 1000000000l) {
            until.tv_nsec -= 1000000000l;
            until.tv_sec++;
        }
        pthread_mutex_lock(&p->lock);
        while (!p->stop && (s->seq != seq || s->state != READY) &&
               pthread_cond_timedwait(&p->changed, &p->lock, &until) == 0)
            continue;
        there = p->stop || (s->seq == seq && s->state == READY);
        if (p->stop)
            s = NULL;
        pthread_mutex_unlock(&p->lock);
    }
    return s;
}

static void pack_all(struct pipe *p)
{
    for (size_t seq = 0; seq < p->cv->n_chunks; seq++) {
        struct slot *s = wait_and_ask(p, seq);

        if (s == NULL)
            return;
        pack_chunk(p, s, &p->cv->chunks[seq]);
        pass_on(p, s, PACKED);
    }
}

static int start(struct pipe *p, pthread_t *thread, void *(*fn)(void *))
{
    struct sl_error err;
    int rc = pthread_create(thread, NULL, fn, p);

    if (rc == 0)
        return 0;
    sl_fail_os(&err, rc, "cannot start a thread");
    fail_pipe(p, &err);
    return -1;
}

static void run_threads(struct pipe *p)
{
    pthread_t threads[READERS + 1];
    unsigned n = 0;

    if (start(p, &threads[n], writer) == 0)
        n++;
    for (unsigned i = 0; i < READERS; i++) {
        if (start(p, &threads[n], reader) == 0)
            n++;
    }
    pack_all(p);
    while (n > 0)
        pthread_join(threads[--n], NULL);
}

static int init_slots(struct pipe *p, struct sl_error *err)
{
    struct sl_convert *cv = p->cv;

    p->slots = sl_zalloc_array(cv->n_slots, sizeof *p->slots);
    p->scales = sl_alloc_array(cv->scale_bytes + 1, 1);
    if (p->slots == NULL || p->scales == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu bytes of scales",
                       cv->scale_bytes);
    for (size_t i = 0; i < cv->n_slots; i++) {
        p->slots[i].seq = i;
        if (sl_region_init(&p->slots[i].room, cv->slot_bytes, "rows", err) != 0)
            return -1;
    }
    return 0;
}

int sl_convert_run(struct sl_convert *cv, struct sl_partial *partial,
                   struct sl_out *out, struct sl_out *low,
                   struct sl_stage_out *stages, struct sl_error *err)
{
    struct pipe p = {
        .cv = cv,
        .partial = partial,
        .out = out,
        .low = low,
        .stages = stages,
    };
    int rc = -1;

    p.written = partial->done_bytes;
    pthread_mutex_init(&p.lock, NULL);
    pthread_cond_init(&p.changed, NULL);
    if (init_slots(&p, err) == 0) {
        sl_progress_init(&p.progress, "converting", cv->layout.file_bytes,
                         p.written, cv->o->quiet);
        run_threads(&p);
        sl_progress_fini(&p.progress);
        if (p.stop)
            *err = p.err;
        rc = p.stop ? -1 : 0;
    }
    for (size_t i = 0; p.slots != NULL && i < cv->n_slots; i++)
        sl_region_fini(&p.slots[i].room);
    free(p.slots);
    free(p.scales);
    pthread_cond_destroy(&p.changed);
    pthread_mutex_destroy(&p.lock);
    return rc;
}
