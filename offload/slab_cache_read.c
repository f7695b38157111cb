#include "config.h"

#include <stdio.h>

#include "offload/slab_cache_impl.h"

/* What is read by a guess of less is mostly read in vain. What is not read
 * early may still be late, when more is known. */
static const double least_chance[] = {
    [SL_HINT_EARLY] = 0.9,
    [SL_HINT_LATE] = 0.5,
    [SL_HINT_SWEEP] = 0,
};

/* --- what stays ----------------------------------------------------------- */

uint32_t sl_cache_victim(const struct sl_slab_cache *s, bool ahead)
{
    uint32_t best = SL_NOWHERE;
    double longest = 0;

    for (uint32_t i = 0; i < s->c.n_places; i++) {
        const struct sl_cache_place *p = &s->places[i];
        double wait;

        if (p->state == SL_RECORD_EMPTY)
            return i;
        if (p->state == SL_RECORD_LOADING || p->wanted || p->held)
            continue;
        if (ahead && (p->likely || p->listed))
            continue;
        wait = sl_cache_policy_wait_guessed(&s->policy, p->record, p->layer,
                                            p->chance);
        if (best == SL_NOWHERE || wait > longest) {
            longest = wait;
            best = i;
        }
    }
    return best;
}

void sl_cache_judge_hint(struct sl_slab_cache *s, struct sl_cache_place *p,
                         bool used)
{
    *(used ? &s->stats.hint_used_bytes : &s->stats.hint_wasted_bytes) +=
        used ? s->c.records[p->record].bytes : p->asked;
    p->hinted = false;
}

static void evict(struct sl_slab_cache *s, struct sl_cache_place *p)
{
    if (p->state == SL_RECORD_EMPTY)
        return;
    if (p->hinted)
        sl_cache_judge_hint(s, p, false);
    s->place_of[p->record] = SL_NOWHERE;
    /* One that is wanted, and was there, has to be read after all. */
    for (uint32_t i = 0; i < s->wanted.at; i++) {
        if (s->wanted.records[i] == p->record)
            s->wanted.at = i;
    }
}

/* --- reading -------------------------------------------------------------- */

static void note_failed(struct sl_slab_cache *s,
                        const struct sl_cache_request *q)
{
    if (s->failed == SL_NOWHERE)
        s->failed = s->places[q->place].record;
}

static int submit(struct sl_slab_cache *s, struct sl_cache_request *q,
                  struct sl_error *err)
{
    const struct sl_io_request *r = &q->read;

    if (sl_io_request_submit(s->io, r, (uint64_t)(q - s->requests), err) == 0)
        return 0;
    note_failed(s, q);
    sl_error_prefix(err, "%s: %u bytes at %llu: ", s->c.path,
                    r->bytes - r->done, (unsigned long long)(r->off + r->done));
    return -1;
}

/* A record begins to be read into a place. */
void sl_cache_begin_at(struct sl_slab_cache *s, uint32_t at, uint32_t record,
                       struct sl_cache_queue *from)
{
    struct sl_cache_place *p = &s->places[at];
    bool hinted = from == &s->hinted;

    evict(s, p);
    *p = (struct sl_cache_place){
        .record = record,
        .layer = record / s->policy.per_layer,
        .missing = s->c.records[record].bytes,
        .state = SL_RECORD_LOADING,
        .wanted = !hinted,
        .listed = !hinted,
        .hinted = hinted,
        .likely = hinted,
        .chance = hinted ? sl_cache_hint_chance(s, from->at - 1) : 0,
    };
    s->place_of[record] = at;
    from->place = at;
    if (hinted)
        return;
    s->stats.demand_bytes += p->missing;
    s->n_missing++;
}

double sl_cache_hint_chance(const struct sl_slab_cache *s, uint32_t i)
{
    const struct sl_cache_guesses *g;

    if (s->hint == SL_HINT_SWEEP)
        return 1;
    g = &s->guesses[s->hint];
    return g->right[g->of[i].rank];
}

/* Whether who has the place is needed before what is hinted now. */
static bool is_needed_more(const struct sl_slab_cache *s, uint32_t at,
                           uint32_t record)
{
    const struct sl_cache_place *p = &s->places[at];
    const struct sl_cache_policy *policy = &s->policy;

    if (p->state == SL_RECORD_EMPTY || s->hint == SL_HINT_SWEEP)
        return false;
    return sl_cache_policy_wait(policy, p->record, p->layer) <
           sl_cache_policy_wait_guessed(policy, record,
                                        record / policy->per_layer,
                                        sl_cache_hint_chance(s, s->hinted.at));
}

/* The next record of a queue takes a place; false: none is missing, or no
 * place is to be had. */
static bool begin_record(struct sl_slab_cache *s, struct sl_cache_queue *from)
{
    bool hinted = from == &s->hinted;

    for (; from->at < from->n; from->at++) {
        uint32_t record = from->records[from->at], at;

        if (record == SL_NOWHERE || s->place_of[record] != SL_NOWHERE ||
            (hinted &&
             sl_cache_hint_chance(s, from->at) < least_chance[s->hint]))
            continue;
        at = sl_cache_victim(s, hinted);
        if (at == SL_NOWHERE)
            return false;
        if (hinted && is_needed_more(s, at, record))
            continue;
        from->at++;
        sl_cache_begin_at(s, at, record, from);
        return true;
    }
    return false;
}

static int issue_one(struct sl_slab_cache *s, struct sl_cache_queue *from,
                     struct sl_error *err)
{
    struct sl_cache_place *p = &s->places[from->place];
    const struct sl_extent *e = &s->c.records[p->record];
    uint64_t left = e->bytes - p->asked;
    struct sl_cache_request *q = &s->requests[s->idle[s->n_idle - 1]];

    *q = (struct sl_cache_request){
        .read.buf = sl_cache_place_base(s, from->place) + p->asked,
        .read.off = e->off + p->asked,
        .read.bytes = left < s->c.read_bytes ? (uint32_t)left : s->c.read_bytes,
        .place = from->place,
        .begin_ns = sl_clock_now(s->c.clock),
    };
    if (submit(s, q, err) != 0)
        return -1;
    s->n_idle--;
    s->n_ahead += p->hinted;
    q->ahead = p->hinted;
    q->under_way = true;
    p->asked += q->read.bytes;
    if (from == &s->hinted)
        s->stats.hint_bytes += q->read.bytes;
    if (p->asked == e->bytes)
        from->place = SL_NOWHERE;
    return 0;
}

/* What is wanted next has to wait for reads that have begun: they keep the
 * disk busy, but are not all that its queue takes. */
static unsigned most_ahead(const struct sl_slab_cache *s)
{
    return s->hint == SL_HINT_SWEEP ? s->c.depth : (s->c.depth + 1) / 2;
}

/* Whether a queue has something to ask for. */
static bool has_work(struct sl_slab_cache *s, struct sl_cache_queue *from)
{
    return from->place != SL_NOWHERE || begin_record(s, from);
}

/* What is wanted first; hints only while nothing that is wanted is missing. */
int sl_cache_issue(struct sl_slab_cache *s, struct sl_error *err)
{
    while (s->n_idle > 0) {
        struct sl_cache_queue *from = &s->wanted;

        if (!has_work(s, from)) {
            /* One that a hint began may be what is wanted now. */
            from = &s->hinted;
            if (from->place == SL_NOWHERE && s->n_missing > 0)
                return 0;
            if (s->n_ahead >= most_ahead(s))
                return 0;
            if (!has_work(s, from))
                return 0;
        }
        if (issue_one(s, from, err) != 0)
            return -1;
    }
    return 0;
}

static int fail_read(const struct sl_slab_cache *s,
                     const struct sl_io_request *r,
                     const struct sl_io_done *done, struct sl_error *err)
{
    const char *path = sl_io_path(s->c.path, s->c.mirror, done->file);
    unsigned long long at = r->off + r->done;

    if (done->result >= 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: the file ends at byte %llu, within what is read "
                       "there: it is cut short",
                       path, at + (unsigned)done->result);
    return sl_fail_os(err, -done->result,
                      "%s: reading %u bytes at %llu, %u times", path,
                      r->bytes - r->done, at, r->tries);
}

static void complete(struct sl_slab_cache *s, struct sl_cache_request *q,
                     const struct sl_io_done *done)
{
    struct sl_cache_place *p = &s->places[q->place];
    char name[SL_TRACE_NAME];

    s->stats.reads++;
    s->stats.retries += done->tries > 1 ? done->tries - 1 : 0;
    p->missing -= q->read.bytes;
    if (p->missing == 0 && !p->failed) {
        p->state = SL_RECORD_READY;
        s->n_missing -= p->wanted;
    }
    if (s->c.trace == NULL)
        return;
    snprintf(name, sizeof name, "record %u", p->record);
    sl_trace_span(s->c.trace,
                  done->file == 0 ? SL_TRACK_READS : SL_TRACK_MIRROR, name,
                  q->begin_ns, sl_clock_now(s->c.clock), q->read.bytes);
}

/* A read that nobody had asked for yet, only a hint, has failed: its record is
 * as if it had never begun, and read anew if it is wanted; that may fail. */
static void give_up(struct sl_slab_cache *s, const struct sl_cache_request *q)
{
    struct sl_cache_place *p = &s->places[q->place];

    p->failed = true;
    p->missing -= q->read.bytes;
    if (s->hinted.place == q->place)
        s->hinted.place = SL_NOWHERE;
}

void sl_cache_end_failed(struct sl_slab_cache *s, struct sl_cache_place *p)
{
    if (!p->failed || p->held ||
        p->missing != s->c.records[p->record].bytes - p->asked)
        return;
    s->n_missing -= p->wanted;
    evict(s, p);
    *p = (struct sl_cache_place){0};
}

void sl_cache_cancel_hinted(struct sl_slab_cache *s)
{
    struct sl_cache_place *p;

    if (s->hinted.place == SL_NOWHERE)
        return;
    p = &s->places[s->hinted.place];
    if (p->likely || p->listed)
        return;
    s->hinted.place = SL_NOWHERE;
    p->failed = true;
    sl_cache_end_failed(s, p);
}

static int take(struct sl_slab_cache *s, const struct sl_io_done *done,
                struct sl_error *err)
{
    struct sl_cache_request *q = &s->requests[done->tag];
    int rc = sl_io_request_take(&q->read, done);

    if (rc < 0 && q->ahead) {
        give_up(s, q);
        rc = 2;
    }
    if (rc < 0) {
        note_failed(s, q);
        fail_read(s, &q->read, done, err);
    }
    if (rc == 0) {
        s->stats.retries++;
        rc = submit(s, q, err);
        if (rc == 0)
            return 0;
    }
    if (rc == 1)
        complete(s, q, done);
    sl_cache_end_failed(s, &s->places[q->place]);
    s->n_ahead -= q->ahead;
    q->under_way = false;
    s->idle[s->n_idle++] = (unsigned)(q - s->requests);
    return rc < 0 ? -1 : 0;
}

/* Takes what reads have ended, waiting for one where wait is set, and begins
 * others. */
int sl_cache_advance(struct sl_slab_cache *s, bool wait, struct sl_error *err)
{
    struct sl_io_done done[SL_IO_DEPTH];
    struct sl_error later;
    int n = 0, rc = 0;

    if (s->n_idle < s->c.depth) {
        if (!wait)
            s->io->ops->wake(s->io);
        n = s->io->ops->wait(s->io, done, SL_IO_DEPTH, err);
        if (n < 0) {
            sl_error_prefix(err, "%s: ", s->c.path);
            return -1;
        }
    }
    for (int i = 0; i < n; i++) {
        if (take(s, &done[i], rc == 0 ? err : &later) != 0)
            rc = -1;
    }
    return rc == 0 ? sl_cache_issue(s, err) : -1;
}

int sl_cache_open_io(struct sl_slab_cache *s, struct sl_error *err)
{
    const struct sl_slab_cache_config *c = &s->c;
    /* No buffers to register: that would take all of the memory at once. */
    struct sl_io_config io = {
        .path = c->path,
        .mirror = c->mirror,
        .kind = c->io,
        .depth = c->depth,
        .direct = c->direct,
        .log = c->log,
        .arg = c->io_arg,
    };

    if (sl_io_start(&s->io, &io, c->io_open, err) != 0)
        return -1;
    if (s->io->direct)
        return 0;
    /* Little may lie in the page cache. */
    if (s->c.depth > sl_io_depth(c->mirror, false))
        s->n_idle = s->c.depth = sl_io_depth(c->mirror, false);
    if (s->c.read_bytes > SL_IO_CACHED_BYTES)
        s->c.read_bytes = SL_IO_CACHED_BYTES;
    return 0;
}
