#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "offload/slab_cache_impl.h"

#define READ_BYTES (2u << 20)
/* Guesses are judged by about so many of the last of their kind and rank. */
#define JUDGED_BY 64.0
/* As long as nothing is known of them. */
#define UNKNOWN_CHANCE 0.5

uint64_t sl_slab_cache_overhead_bytes(uint32_t n_records, uint32_t n_layers,
                                      uint32_t n_places,
                                      const struct sl_mirror *mirror)
{
    return (uint64_t)n_records * 3 * sizeof(uint32_t) +
           sl_cache_policy_bytes(n_records, n_layers) +
           n_places * sizeof(struct sl_cache_place) +
           (uint64_t)SL_HINT_GUESSES * (n_records / n_layers) *
               sizeof(struct sl_cache_guess) +
           sl_io_overhead_bytes(mirror);
}

void *sl_slab_cache_memory(struct sl_slab_cache *s, uint64_t *bytes)
{
    *bytes = s->c.n_places * s->c.place_bytes;
    return s->region.base;
}

struct sl_cache_policy *sl_slab_cache_policy(struct sl_slab_cache *s)
{
    return &s->policy;
}

/* --- the caller's side ---------------------------------------------------- */

/* What was wanted and not got: an interrupted pass. */
static void forget_wanted(struct sl_slab_cache *s)
{
    for (uint32_t i = 0; i < s->wanted.n; i++) {
        uint32_t of = s->wanted.records[i];
        uint32_t at = of != SL_NOWHERE ? s->place_of[of] : SL_NOWHERE;

        if (at == SL_NOWHERE)
            continue;
        s->places[at].listed = s->places[at].held = false;
        if (!s->places[at].wanted)
            continue;
        s->places[at].wanted = false;
        s->n_missing -= s->places[at].state == SL_RECORD_LOADING;
    }
    s->wanted.n = s->wanted.at = 0;
}

static bool is_wanted(const struct sl_slab_cache *s, uint32_t record)
{
    for (uint32_t i = 0; i < s->wanted.n; i++) {
        if (s->wanted.records[i] == record)
            return true;
    }
    return false;
}

/* How often guesses are right is told by all that were missing, whether they
 * were read or not: so those that are left out can win back their place. */
static void judge_guesses(struct sl_slab_cache *s, struct sl_cache_guesses *g)
{
    for (uint32_t i = 0; i < g->n; i++) {
        const struct sl_cache_guess *guess = &g->of[i];
        double right = is_wanted(s, guess->record) ? 1 : 0;
        uint32_t at = s->place_of[guess->record];

        if (guess->record / s->policy.per_layer != s->policy.layer)
            continue;
        if (guess->missing)
            g->right[guess->rank] +=
                (right - g->right[guess->rank]) / JUDGED_BY;
        if (at != SL_NOWHERE && s->places[at].hinted)
            sl_cache_judge_hint(s, &s->places[at], false);
    }
    g->n = 0;
}

static void mark_likely(struct sl_slab_cache *s, bool likely)
{
    for (uint32_t i = 0; i < s->hinted.n; i++) {
        uint32_t at = s->place_of[s->hinted.records[i]];

        if (at == SL_NOWHERE)
            continue;
        s->places[at].likely = likely;
        s->places[at].chance = likely ? sl_cache_hint_chance(s, i) : 0;
    }
}

/* The layer's turn has come for which records were hinted: those that it does
 * not want after all are worth what they were, and no more of them is read. */
static void end_hint(struct sl_slab_cache *s)
{
    mark_likely(s, false);
    for (unsigned kind = 0; kind < SL_HINT_GUESSES; kind++)
        judge_guesses(s, &s->guesses[kind]);
    for (uint32_t i = 0; i < s->hinted.n; i++) {
        uint32_t at = s->place_of[s->hinted.records[i]];

        if (at != SL_NOWHERE && s->places[at].hinted &&
            s->places[at].layer == s->policy.layer)
            sl_cache_judge_hint(s, &s->places[at], false);
    }
    s->hinted.at = s->hinted.n = 0;
    sl_cache_cancel_hinted(s);
}

int sl_slab_cache_want(struct sl_slab_cache *s, const uint32_t *records,
                       uint32_t n, struct sl_error *err)
{
    uint32_t n_kept = 0;

    forget_wanted(s);
    s->failed = SL_NOWHERE;
    if (n > 0)
        sl_cache_policy_turn(&s->policy, records[0] / s->policy.per_layer);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t record = records[i], at = s->place_of[record];
        uint64_t bytes = s->c.records[record].bytes;

        s->wanted.records[i] = record;
        s->stats.wants++;
        s->stats.wanted_bytes += bytes;
        if (at == SL_NOWHERE)
            continue;
        s->stats.hits++;
        s->places[at].listed = true;
        /* The others need places to be read into. */
        if (n_kept++ < s->c.n_places / 2 || n <= s->c.n_places / 2)
            s->places[at].wanted = true;
        s->n_missing +=
            s->places[at].wanted && s->places[at].state == SL_RECORD_LOADING;
        if (s->places[at].hinted)
            sl_cache_judge_hint(s, &s->places[at], true);
    }
    s->wanted.n = n;
    if (n > 0)
        end_hint(s);
    return sl_cache_advance(s, false, err);
}

static void note_guesses(struct sl_slab_cache *s, struct sl_cache_guesses *g,
                         const uint8_t *ranks)
{
    g->n = s->hinted.n;
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t record = s->hinted.records[i];

        g->of[i] = (struct sl_cache_guess){
            .record = record,
            .rank = ranks[i] < SL_HINT_RANKS ? ranks[i] : SL_HINT_RANKS - 1,
            .missing = s->place_of[record] == SL_NOWHERE,
        };
    }
}

int sl_slab_cache_hint(struct sl_slab_cache *s, enum sl_hint kind,
                       const uint32_t *records, const uint8_t *ranks,
                       uint32_t n, struct sl_error *err)
{
    assert(n <= s->policy.per_layer);
    mark_likely(s, false);
    memcpy(s->hinted.records, records, n * sizeof *records);
    s->hinted.n = n;
    s->hint = kind;
    s->hinted.at = 0;
    if (kind != SL_HINT_SWEEP)
        note_guesses(s, &s->guesses[kind], ranks);
    mark_likely(s, true);
    sl_cache_cancel_hinted(s);
    return sl_cache_advance(s, false, err);
}

void sl_slab_cache_go_on(struct sl_slab_cache *s)
{
    struct sl_error ignored;

    if (s->n_missing == 0 && (s->n_ahead > 0 || s->hinted.at < s->hinted.n))
        (void)sl_cache_advance(s, false, &ignored);
}

/* Nothing is read, and the record is not there: those that are wanted later
 * have all the places. One of them has to be read again. */
static int make_room(struct sl_slab_cache *s, uint32_t record,
                     struct sl_error *err)
{
    uint32_t at = sl_cache_victim(s, false);

    for (uint32_t i = s->wanted.n; i-- > 0 && at == SL_NOWHERE;) {
        uint32_t of = s->wanted.records[i];

        if (of != SL_NOWHERE && s->place_of[of] != SL_NOWHERE)
            at = s->place_of[of];
        if (at != SL_NOWHERE && s->places[at].held)
            at = SL_NOWHERE;
    }
    if (at == SL_NOWHERE)
        return sl_fail(err, SL_ERR_INTERNAL,
                       "record %u is wanted, but all %u places are held",
                       record, s->c.n_places);
    sl_cache_begin_at(s, at, record, &s->wanted);
    return 0;
}

bool sl_slab_cache_there(const struct sl_slab_cache *s, uint32_t record)
{
    uint32_t at = s->place_of[record];

    return at != SL_NOWHERE && s->places[at].state == SL_RECORD_READY;
}

/* Whether so many bytes of it are, from its first on. */
static bool begins_there(const struct sl_slab_cache *s, uint32_t record,
                         uint64_t bytes)
{
    uint32_t at = s->place_of[record];

    if (sl_slab_cache_there(s, record))
        return true;
    if (at == SL_NOWHERE || s->places[at].failed || s->places[at].asked < bytes)
        return false;
    for (unsigned i = 0; i < s->c.depth; i++) {
        const struct sl_cache_request *q = &s->requests[i];

        if (q->under_way && q->place == at &&
            q->read.off < s->c.records[record].off + bytes)
            return false;
    }
    return true;
}

static int wait_for(struct sl_slab_cache *s, uint32_t record, uint64_t bytes,
                    struct sl_error *err)
{
    uint64_t begin = sl_clock_now(s->c.clock);

    while (!begins_there(s, record, bytes)) {
        if (sl_cache_issue(s, err) != 0)
            return -1;
        if (s->n_idle < s->c.depth) {
            if (sl_cache_advance(s, true, err) != 0)
                return -1;
            continue;
        }
        if (!is_wanted(s, record))
            return sl_fail(err, SL_ERR_INTERNAL,
                           "record %u was not wanted and is not there", record);
        if (make_room(s, record, err) != 0)
            return -1;
    }
    s->stats.wait_ns += sl_clock_now(s->c.clock) - begin;
    return 0;
}

int sl_slab_cache_get_first(struct sl_slab_cache *s, uint32_t record,
                            uint64_t bytes, const uint8_t **base,
                            struct sl_error *err)
{
    if (wait_for(s, record, bytes, err) != 0)
        return -1;
    s->places[s->place_of[record]].held = true;
    *base = sl_cache_place_base(s, s->place_of[record]);
    return 0;
}

/* One that get_first holds: reads of its rest may have failed. */
static void release(struct sl_slab_cache *s, uint32_t record)
{
    uint32_t at = s->place_of[record];

    if (at == SL_NOWHERE)
        return;
    s->places[at].held = false;
    sl_cache_end_failed(s, &s->places[at]);
}

int sl_slab_cache_get(struct sl_slab_cache *s, uint32_t record,
                      const uint8_t **base, struct sl_error *err)
{
    release(s, record);
    if (wait_for(s, record, s->c.records[record].bytes, err) != 0)
        return -1;
    s->places[s->place_of[record]].held = true;
    *base = sl_cache_place_base(s, s->place_of[record]);
    return 0;
}

int sl_slab_cache_put(struct sl_slab_cache *s, uint32_t record, double part,
                      struct sl_error *err)
{
    struct sl_cache_place *p = &s->places[s->place_of[record]];

    assert(p->held && p->record == record);
    p->held = p->wanted = p->listed = false;
    for (uint32_t i = 0; i < s->wanted.n; i++) {
        if (s->wanted.records[i] == record)
            s->wanted.records[i] = SL_NOWHERE;
    }
    sl_cache_policy_use(&s->policy, record, part);
    return sl_cache_advance(s, false, err);
}

bool sl_slab_cache_failed(const struct sl_slab_cache *s, uint32_t *record)
{
    *record = s->failed;
    return s->failed != SL_NOWHERE;
}

void sl_slab_cache_count_anew(struct sl_slab_cache *s)
{
    s->stats = (struct sl_slab_cache_stats){0};
}

void sl_slab_cache_stats(const struct sl_slab_cache *s,
                         struct sl_slab_cache_stats *stats)
{
    *stats = s->stats;
    stats->io_name = s->io->ops->name;
    stats->direct = s->io->direct;
}

/* --- life ----------------------------------------------------------------- */

static int allocate(struct sl_slab_cache *s, struct sl_error *err)
{
    const struct sl_slab_cache_config *c = &s->c;

    s->places = sl_zalloc_array(c->n_places, sizeof *s->places);
    s->place_of = sl_alloc_array(c->n_records, sizeof *s->place_of);
    s->wanted.records = sl_alloc_array(c->n_records, sizeof(uint32_t));
    s->hinted.records = sl_alloc_array(c->n_records, sizeof(uint32_t));
    s->requests = sl_zalloc_array(c->depth, sizeof *s->requests);
    s->idle = sl_alloc_array(c->depth, sizeof *s->idle);
    if (s->places == NULL || s->place_of == NULL || s->wanted.records == NULL ||
        s->hinted.records == NULL || s->requests == NULL || s->idle == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to list %u records",
                       c->n_records);
    if (sl_cache_policy_init(&s->policy, c->policy, c->n_records, c->n_layers,
                             err) != 0)
        return -1;
    for (unsigned kind = 0; kind < SL_HINT_GUESSES; kind++) {
        s->guesses[kind].of =
            sl_alloc_array(s->policy.per_layer, sizeof *s->guesses[kind].of);
        if (s->guesses[kind].of == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "no memory to list guesses");
        for (unsigned rank = 0; rank < SL_HINT_RANKS; rank++)
            s->guesses[kind].right[rank] = UNKNOWN_CHANCE;
    }
    for (uint32_t i = 0; i < c->n_records; i++)
        s->place_of[i] = SL_NOWHERE;
    for (; s->n_idle < c->depth; s->n_idle++)
        s->idle[s->n_idle] = s->n_idle;
    s->wanted.place = s->hinted.place = s->failed = SL_NOWHERE;
    return sl_region_init(&s->region, c->n_places * c->place_bytes,
                          "the cache of experts", err);
}

int sl_slab_cache_open(struct sl_slab_cache **cache,
                       const struct sl_slab_cache_config *config,
                       struct sl_error *err)
{
    struct sl_slab_cache *s = calloc(1, sizeof *s);

    if (s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "the cache of experts: no memory");
    s->c = *config;
    if (s->c.depth == 0 || s->c.depth > sl_io_depth(s->c.mirror, true))
        s->c.depth = sl_io_depth(s->c.mirror, true);
    if (s->c.read_bytes == 0)
        s->c.read_bytes = READ_BYTES;
    if (s->c.n_layers == 0)
        s->c.n_layers = 1;
    if (allocate(s, err) != 0 || sl_cache_open_io(s, err) != 0) {
        sl_slab_cache_close(s);
        return -1;
    }
    sl_touch_start(&s->touch, &s->region, s->c.touch_threads);
    *cache = s;
    return 0;
}

void sl_slab_cache_close(struct sl_slab_cache *s)
{
    if (s == NULL)
        return;
    if (s->io != NULL)
        s->io->ops->close(s->io);
    sl_touch_stop(&s->touch);
    sl_region_fini(&s->region);
    free(s->places);
    free(s->place_of);
    sl_cache_policy_fini(&s->policy);
    free(s->wanted.records);
    free(s->hinted.records);
    for (unsigned kind = 0; kind < SL_HINT_GUESSES; kind++)
        free(s->guesses[kind].of);
    free(s->requests);
    free(s->idle);
    free(s);
}
