/*
 * bench_replay: which experts should stay, of those that a run chose?
 *
 * usage: bench_replay TRACE [PERCENT...]
 *
 * TRACE is what sluice bench --route-trace kept. For every percentage of all
 * experts that have a place (default: 14 28 50) it prints how many bytes a
 * pass would read under each policy, counted from a third of the trace on (of
 * passes of one position, where there are such: decode), in shares of what it
 * wants, of what LRU reads, and of the offline optimum, which knows what is
 * used next (L. A. Belady, A study of replacement algorithms, IBM Systems
 * Journal 5, 1966). "cache" is offload/slab_cache.c itself.
 *
 *   lru          not used for longest
 *   use H        least used, a use counting half as much after H passes
 *   turn H       the same, but whose layer's turn comes last goes first
 *   layer H      use H, every layer keeping to its share of the places
 *   known        least used in all of the trace: what a usage file could tell
 */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/slab_cache.h"
#include "src/base/mem.h"
#include "src/exec/route_trace.h"

#define NEVER UINT32_MAX

struct trace {
    struct sl_route_shape shape;
    uint32_t n_records;
    size_t n_steps, n_uses;
    struct sl_route_step *steps;
    size_t *at;       /* (n_steps + 1) a step's first use */
    uint32_t *record; /* (n_uses) */
    float *part;      /* (n_uses) of the pass's positions */
    uint32_t *next;   /* (n_uses) step that uses the record again */
    double *total;    /* (n_records) */
    size_t from;      /* the step from which on is counted */
    bool decode;      /* only passes of one position are */
};

enum kind { LRU, USE, TURN, LAYER, KNOWN, BEST };

struct policy {
    const char *name;
    enum kind kind;
    double half_life; /* passes */
};

static const struct policy policies[] = {
    {"lru", LRU, 0},           {"use 16", USE, 16},
    {"use 64", USE, 64},       {"use 256", USE, 256},
    {"use 1024", USE, 1024},   {"turn 16", TURN, 16},
    {"turn 64", TURN, 64},     {"turn 256", TURN, 256},
    {"turn 1024", TURN, 1024}, {"layer 256", LAYER, 256},
    {"known", KNOWN, 0},       {"optimum", BEST, 0},
};

/* What a policy keeps of the records. */
struct state {
    const struct trace *t;
    const struct policy *p;
    uint32_t n_places;
    uint32_t *place_of; /* (n_records) or NEVER */
    uint32_t *records;  /* (n_places) */
    uint32_t n_filled;
    double *count; /* (n_records) uses, as of `last` */
    double *last;  /* (n_records) step */
    uint32_t *next;
    bool *wanted;
    double half_life; /* steps */
};

static void *need(void *p)
{
    if (p != NULL)
        return p;
    fprintf(stderr, "bench_replay: no memory\n");
    exit(1);
}

static void add_step(struct trace *t, const struct sl_route_step *step,
                     const uint16_t *experts, const uint16_t *uses)
{
    if ((t->n_steps & (t->n_steps + 1)) == 0) { /* 0, 1, 3, 7: it is full */
        size_t room = 2 * t->n_steps + 2;

        t->steps = need(realloc(t->steps, room * sizeof *t->steps));
        t->at = need(realloc(t->at, room * sizeof *t->at));
        t->record = need(
            realloc(t->record, room * t->shape.n_experts * sizeof(uint32_t)));
        t->part =
            need(realloc(t->part, room * t->shape.n_experts * sizeof(float)));
    }
    t->at[t->n_steps] = t->n_uses;
    for (uint32_t i = 0; i < step->n; i++) {
        t->record[t->n_uses] = step->layer * t->shape.n_experts + experts[i];
        t->part[t->n_uses++] = (float)uses[i] / (float)step->n_positions;
    }
    t->steps[t->n_steps++] = *step;
    t->at[t->n_steps] = t->n_uses;
}

static int read_trace(struct trace *t, const char *path, struct sl_error *err)
{
    FILE *f = fopen(path, "rb");
    uint16_t *experts, *uses;
    int rc;

    if (f == NULL)
        return sl_fail(err, SL_ERR_IO, "%s: cannot be opened", path);
    if (sl_route_read_head(f, path, &t->shape, err) != 0) {
        fclose(f);
        return -1;
    }
    t->n_records = t->shape.n_layers * t->shape.n_experts;
    experts = need(calloc(t->shape.n_experts, sizeof *experts));
    uses = need(calloc(t->shape.n_experts, sizeof *uses));
    for (;;) {
        struct sl_route_step step;
        bool end;

        rc = sl_route_read_step(f, path, &t->shape, &step, experts, uses, &end,
                                err);
        if (rc != 0 || end)
            break;
        add_step(t, &step, experts, uses);
    }
    free(experts);
    free(uses);
    fclose(f);
    return rc;
}

/* When each is used next, and how often. */
static void look_ahead(struct trace *t)
{
    uint32_t *seen = need(sl_alloc_array(t->n_records, sizeof *seen));

    t->next = need(sl_alloc_array(t->n_uses, sizeof *t->next));
    t->total = need(sl_zalloc_array(t->n_records, sizeof *t->total));
    for (uint32_t r = 0; r < t->n_records; r++)
        seen[r] = NEVER;
    for (size_t s = t->n_steps; s-- > 0;) {
        for (size_t i = t->at[s]; i < t->at[s + 1]; i++) {
            t->next[i] = seen[t->record[i]];
            seen[t->record[i]] = (uint32_t)s;
            t->total[t->record[i]] += (double)t->part[i];
        }
    }
    free(seen);
}

static bool counts(const struct trace *t, size_t step)
{
    return step >= t->from && (!t->decode || t->steps[step].n_positions == 1);
}

static void choose_counted(struct trace *t)
{
    t->from = t->n_steps / 3;
    for (size_t s = t->from; s < t->n_steps && !t->decode; s++)
        t->decode = t->steps[s].n_positions == 1;
}

/* The smaller the sooner it goes. */
static double worth(const struct state *s, uint32_t record, double now)
{
    uint32_t n_layers = s->t->shape.n_layers;
    uint32_t layer = record / s->t->shape.n_experts;
    double count, ahead;

    switch (s->p->kind) {
    case LRU:
        return s->last[record];
    case KNOWN:
        return s->t->total[record];
    case BEST:
        return -(double)s->next[record];
    default:
        break;
    }
    count = s->count[record] * exp2((s->last[record] - now) / s->half_life);
    if (s->p->kind != TURN)
        return count;
    /* uses a pass, and passes until the next that is expected */
    count *= M_LN2 * n_layers / s->half_life;
    ahead = (double)((layer + n_layers - s->t->steps[(size_t)now].layer +
                      n_layers - 1) %
                     n_layers) /
            n_layers;
    return -(1 / (count + 1e-9) + ahead);
}

static uint32_t victim(const struct state *s, uint32_t wanted, double now)
{
    uint32_t n = s->t->shape.n_experts, best = NEVER;
    double least = INFINITY;

    for (uint32_t i = 0; i < s->n_filled; i++) {
        uint32_t r = s->records[i];
        double w;

        if (s->wanted[r] || (s->p->kind == LAYER && r / n != wanted / n))
            continue;
        w = worth(s, r, now);
        if (best == NEVER || w < least) {
            best = i;
            least = w;
        }
    }
    return best;
}

static bool is_full(const struct state *s, uint32_t record)
{
    uint32_t n = s->t->shape.n_experts, mine = 0;

    if (s->p->kind != LAYER || s->n_filled == s->n_places)
        return s->n_filled == s->n_places;
    for (uint32_t r = record / n * n; r < (record / n + 1) * n; r++)
        mine += s->place_of[r] != NEVER;
    return mine >= s->n_places / s->t->shape.n_layers;
}

static void bring(struct state *s, uint32_t record, double now)
{
    uint32_t at = is_full(s, record) ? victim(s, record, now) : NEVER;

    if (at == NEVER && s->n_filled == s->n_places)
        return; /* all of the step's have no room */
    if (at == NEVER)
        at = s->n_filled++;
    else
        s->place_of[s->records[at]] = NEVER;
    s->records[at] = record;
    s->place_of[record] = at;
}

static void note(struct state *s, size_t use, double now)
{
    uint32_t r = s->t->record[use];

    s->count[r] = s->count[r] * exp2((s->last[r] - now) / s->half_life) +
                  (double)s->t->part[use];
    s->last[r] = now;
    s->next[r] = s->t->next[use];
    s->wanted[r] = false;
}

/* Records that are read in steps that count. */
static size_t replay(const struct trace *t, const struct policy *p,
                     uint32_t n_places)
{
    struct state s = {
        .t = t,
        .p = p,
        .n_places = n_places,
        .place_of = need(sl_alloc_array(t->n_records, sizeof *s.place_of)),
        .records = need(sl_alloc_array(n_places, sizeof *s.records)),
        .count = need(sl_zalloc_array(t->n_records, sizeof *s.count)),
        .last = need(sl_zalloc_array(t->n_records, sizeof *s.last)),
        .next = need(sl_zalloc_array(t->n_records, sizeof *s.next)),
        .wanted = need(sl_zalloc_array(t->n_records, sizeof *s.wanted)),
        .half_life = fmax(1, p->half_life * t->shape.n_layers),
    };
    size_t n_read = 0;

    for (uint32_t r = 0; r < t->n_records; r++)
        s.place_of[r] = NEVER;
    for (size_t step = 0; step < t->n_steps; step++) {
        for (size_t i = t->at[step]; i < t->at[step + 1]; i++)
            s.wanted[t->record[i]] = s.place_of[t->record[i]] != NEVER;
        for (size_t i = t->at[step]; i < t->at[step + 1]; i++) {
            if (s.place_of[t->record[i]] != NEVER)
                continue;
            n_read += counts(t, step);
            s.wanted[t->record[i]] = true;
            bring(&s, t->record[i], (double)step);
        }
        for (size_t i = t->at[step]; i < t->at[step + 1]; i++)
            note(&s, i, (double)step);
    }
    free(s.place_of);
    free(s.records);
    free(s.count);
    free(s.last);
    free(s.next);
    free(s.wanted);
    return n_read;
}

/* --- the cache itself ----------------------------------------------------- */

static int use_step(struct sl_slab_cache *c, const struct trace *t, size_t step,
                    struct sl_error *err)
{
    uint32_t n = (uint32_t)(t->at[step + 1] - t->at[step]);
    const uint32_t *records = t->record + t->at[step];

    if (sl_slab_cache_want(c, records, n, err) != 0)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *base;

        if (sl_slab_cache_get(c, records[i], &base, err) != 0 ||
            sl_slab_cache_put(c, records[i], (double)t->part[t->at[step] + i],
                              err) != 0)
            return -1;
    }
    return 0;
}

/* Reads pages of an empty file, one for a record. */
static int replay_cache(size_t *n_read, const struct trace *t,
                        uint32_t n_places, struct sl_error *err)
{
    const char *tmp = getenv("TMPDIR");
    char path[1024];
    int fd, rc;
    struct sl_extent *records =
        need(sl_alloc_array(t->n_records, sizeof *records));
    struct sl_slab_cache_config config = {
        .path = path,
        .records = records,
        .n_records = t->n_records,
        .n_layers = t->shape.n_layers,
        .n_places = n_places,
        .place_bytes = SL_PAGE_BYTES,
        .io = SL_IO_PREAD,
        .depth = 8,
    };
    struct sl_slab_cache_stats before = {0}, after;
    uint64_t bytes = 0;
    struct sl_slab_cache *c = NULL;

    snprintf(path, sizeof path, "%s/bench_replay-XXXXXX", tmp ? tmp : "/tmp");
    fd = mkstemp(path);
    for (uint32_t r = 0; r < t->n_records; r++)
        records[r] =
            (struct sl_extent){r * (uint64_t)SL_PAGE_BYTES, SL_PAGE_BYTES};
    if (fd < 0 ||
        ftruncate(fd, (off_t)(t->n_records * (uint64_t)SL_PAGE_BYTES)) != 0)
        return sl_fail(err, SL_ERR_IO, "%s: cannot be made", path);
    rc = sl_slab_cache_open(&c, &config, err);
    for (size_t step = 0; rc == 0 && step < t->n_steps; step++) {
        rc = use_step(c, t, step, err);
        sl_slab_cache_stats(c, &after);
        if (counts(t, step))
            bytes += after.demand_bytes - before.demand_bytes;
        before = after;
    }
    *n_read = bytes / SL_PAGE_BYTES;
    sl_slab_cache_close(c);
    close(fd);
    unlink(path);
    free(records);
    return rc;
}

/* --- what is printed ------------------------------------------------------ */

struct row {
    const char *name;
    size_t n_read;
};

static void print_rows(const struct trace *t, const struct row *rows, size_t n)
{
    double passes = 0, wanted = 0;
    double lru = (double)rows[0].n_read, best = (double)rows[n - 1].n_read;

    for (size_t step = 0; step < t->n_steps; step++) {
        if (!counts(t, step))
            continue;
        passes += 1.0 / t->shape.n_layers;
        wanted += (double)(t->at[step + 1] - t->at[step]);
    }
    printf("  policy       MB a pass  of wanted  of LRU  of the optimum\n");
    for (size_t i = 0; i < n; i++) {
        double read = (double)rows[i].n_read;

        printf("  %-10s  %10.1f  %9.3f  %6.3f  %7.3f\n", rows[i].name,
               read * (double)t->shape.record_bytes / passes / 1e6,
               read / wanted, read / lru, read / best);
    }
}

static int compare(const struct trace *t, double percent, struct sl_error *err)
{
    enum { N = sizeof policies / sizeof *policies };
    struct row rows[N + 1];
    uint32_t n_places = (uint32_t)(percent / 100 * t->n_records);

    if (n_places < 3)
        n_places = 3;
    rows[N - 1].name = "cache";
    if (replay_cache(&rows[N - 1].n_read, t, n_places, err) != 0)
        return -1;
    for (size_t i = 0; i < N; i++) {
        struct row *row = &rows[i + (policies[i].kind == BEST)];

        row->name = policies[i].name;
        row->n_read = replay(t, &policies[i], n_places);
    }
    printf("%g %% of %u experts have a place\n", percent, t->n_records);
    print_rows(t, rows, N + 1);
    return 0;
}

int main(int argc, char **argv)
{
    static char *usual[] = {"14", "28", "50"};
    char **percents = argc > 2 ? argv + 2 : usual;
    int n = argc > 2 ? argc - 2 : 3, rc = 0;
    struct trace t = {0};
    struct sl_error err;

    if (argc < 2) {
        fprintf(stderr, "usage: bench_replay TRACE [PERCENT...]\n");
        return 2;
    }
    if (read_trace(&t, argv[1], &err) != 0) {
        fprintf(stderr, "bench_replay: %s\n", err.msg);
        return 1;
    }
    look_ahead(&t);
    choose_counted(&t);
    printf("%zu layers of passes, %zu uses\n", t.n_steps, t.n_uses);
    for (int i = 0; i < n && rc == 0; i++)
        rc = compare(&t, atof(percents[i]), &err);
    if (rc != 0)
        fprintf(stderr, "bench_replay: %s\n", err.msg);
    free(t.steps);
    free(t.at);
    free(t.record);
    free(t.part);
    free(t.next);
    free(t.total);
    return rc != 0;
}
