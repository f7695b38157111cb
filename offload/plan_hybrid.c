#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offload/plan_impl.h"
#include "src/base/mem.h"

/* Which stages the CPU decodes is tried in these ways, each with every number
   of stages: a cache that is large beside the weights may belong all in one
   memory. */
enum way {
    WAY_NONE,                 /* the GPU decodes all that it can */
    WAY_ANY,                  /* of all stages so many, evenly */
    WAY_ATTENTION,            /* of those with a cache */
    WAY_OTHERS,               /* of those without */
    WAY_ATTENTION_AND_OTHERS, /* all of those with, so many without */
    WAY_OTHERS_AND_ATTENTION,
    WAYS,
};

static bool has_cache(const struct sl_plan_stage *s)
{
    return s->kv_bytes[SL_HOST] + s->kv_bytes[SL_DEVICE] > 0;
}

/* Marks k of the n stages of a kind, evenly. kind < 0: all are of it. */
static void mark(const struct sl_plan_input *in, uint8_t *marks, int kind,
                 size_t k)
{
    size_t n = 0, at = 0;

    for (size_t i = 0; i < in->n_stages; i++)
        n += kind < 0 || has_cache(&in->stages[i]) == kind;
    for (size_t i = 0; i < in->n_stages; i++) {
        if (kind >= 0 && has_cache(&in->stages[i]) != kind)
            continue;
        /* Bresenham's line, begun half a step in */
        marks[i] =
            (2 * at * k + n) / (2 * n) != (2 * (at + 1) * k + n) / (2 * n);
        at++;
    }
}

static void mark_all(const struct sl_plan_input *in, uint8_t *marks, int kind)
{
    for (size_t i = 0; i < in->n_stages; i++) {
        if (has_cache(&in->stages[i]) == kind)
            marks[i] = 1;
    }
}

/* Whatever else is tried. */
static void mark_host_only(const struct sl_plan_input *in, uint8_t *marks)
{
    for (size_t i = 0; i < in->n_stages; i++)
        marks[i] |= in->stages[i].host_only;
}

static size_t count(const struct sl_plan_input *in, enum way way)
{
    bool attention = way == WAY_ATTENTION || way == WAY_OTHERS_AND_ATTENTION;
    size_t n = 0;

    if (way == WAY_ANY)
        return in->n_stages;
    for (size_t i = 0; i < in->n_stages; i++)
        n += has_cache(&in->stages[i]) == attention;
    return n;
}

/* Marks in host what way has of so many stages. */
static void choose(const struct sl_plan_input *in, uint8_t *host, enum way way,
                   size_t k)
{
    memset(host, 0, in->n_stages);
    switch (way) {
    case WAY_ANY:
        mark(in, host, -1, k);
        break;
    case WAY_ATTENTION_AND_OTHERS:
        mark_all(in, host, 1);
        mark(in, host, 0, k);
        break;
    case WAY_OTHERS_AND_ATTENTION:
        mark_all(in, host, 0);
        mark(in, host, 1, k);
        break;
    case WAY_ATTENTION:
    case WAY_OTHERS:
        mark(in, host, way == WAY_ATTENTION, k);
        break;
    default:
        break;
    }
    mark_host_only(in, host);
}

/* --- the best division ---------------------------------------------------- */

/* Slabs that wait on the device for their turn: while the CPU computes a stage,
   the copies for the GPU's next ones go on. More room lets them go on for
   longer, and is missing for weights. */
#define LEAST_AHEAD (256ull << 20)
#define MOST_AHEAD  (2048ull << 20)

/* Seconds within this part are the same: then the prefill decides. */
#define SAME 0.0005

/* Where slabs stay so that what stays can guess: passes of that for each of all
 * weights. */
#define GUESSES 8.0

/* So many numbers of stages are tried before the search narrows. */
#define COARSE 16u

struct score {
    double decode_s, prefill_s;
};

/* The faster decode, as that is where most time goes; among those that are
 * alike the faster prefill. */
static bool better(struct score a, struct score b)
{
    if (a.decode_s < b.decode_s * (1 - SAME))
        return true;
    return a.decode_s < b.decode_s * (1 + SAME) &&
           a.prefill_s < b.prefill_s * (1 - SAME);
}

static struct score score_of(const struct sl_plan *plan,
                             const struct sl_plan_input *in)
{
    return (struct score){
        sl_plan_seconds(plan, in, SL_PHASE_DECODE, in->pass[SL_PHASE_DECODE]) +
            GUESSES * sl_plan_guess_seconds(plan, in),
        sl_plan_seconds(plan, in, SL_PHASE_PREFILL, in->pass[SL_PHASE_PREFILL]),
    };
}

bool sl_plan_better(const struct sl_plan *a, const struct sl_plan *b,
                    const struct sl_plan_input *in)
{
    return better(score_of(a, in), score_of(b, in));
}

/* What the stages of a pass take, by each of the workers. */
struct costs {
    struct sl_step *step[SL_PLAN_DIVIDED]; /* (n_stages) each */
    double *keys; /* (n_stages) copied of a cache that waits */
    double crossing_s;
};

struct scratch {
    uint64_t *stage_bytes;       /* (n_stages) */
    uint64_t *stage_kept;        /* (n_stages) */
    uint8_t *host, *best, *none; /* (n_stages); none: but what must be */
    uint8_t *chosen;             /* (n_stages) of the plan so far */
    uint8_t *waits;              /* (n_stages) */
    struct costs costs[SL_PHASE_COUNT];
    struct costs guess;   /* of what stays; none where nothing does */
    bool found;           /* in this way: */
    struct score score;   /* of the best */
    uint64_t ahead_bytes; /* likewise */
};

static double part(double of, double all)
{
    return all > 0 ? of / all : 0;
}

/* Of what does not stay of a worker's stages, which part is moved in a pass:
 * copied, or where some slabs stay, read. */
static void share_moved(double share[SL_PLAN_DIVIDED],
                        const struct sl_division *d)
{
    double disk = (double)d->disk_bytes, ram = (double)d->copied_bytes;
    double vram = (double)d->vram_bytes, host = (double)d->host_disk_bytes;

    share[SL_HOST] = part(host, host + (double)d->host_ram_bytes);
    share[SL_DEVICE] = part(d->in->keep ? disk : disk + ram, disk + ram + vram);
}

/* Seconds of a pass, before slabs have places. */
static double seconds_of(const struct sl_division *d, const struct costs *c)
{
    double share[SL_PLAN_DIVIDED], seconds = 0, keys = 0;
    struct sl_timeline w;

    for (size_t i = 0; i < d->in->n_stages; i++)
        keys += d->waits[i] ? c->keys[i] : 0;
    w = sl_division_timeline(d, keys);
    share_moved(share, d);

    /* The first pass only shows how far ahead the second begins: where that
       is as far as it began itself, the second is the same again. */
    for (int p = 0; p < 2; p++) {
        if (p > 0 && w.read <= 0 && w.copied <= 0)
            break;
        seconds = 0;
        for (size_t i = 0; i < d->in->n_stages; i++) {
            uint32_t e = d->host[i] ? SL_HOST : SL_DEVICE;
            struct sl_step s = c->step[e][i];

            s.moved_bytes =
                (double)(d->stage_bytes[i] - d->stage_kept[i]) * share[e] +
                (d->waits[i] ? c->keys[i] : 0);
            if (i > 0 && d->host[i] != d->host[i - 1])
                s.seconds += c->crossing_s;
            seconds += sl_timeline_step(&w, &s);
        }
    }
    return seconds;
}

/* Seconds of a pass over what stays. */
static double guess_seconds(const struct sl_division *d, const struct costs *c)
{
    double seconds = 0;

    for (size_t i = 0; i < d->in->n_stages; i++) {
        const struct sl_step *s = &c->step[d->host[i] ? SL_HOST : SL_DEVICE][i];

        if (i > 0 && d->host[i] != d->host[i - 1])
            seconds += c->crossing_s;
        seconds += s->seconds + s->kv_seconds;
    }
    return seconds;
}

/* With everything prefilled by the GPU, which is near enough. */
static double prefill_seconds(const struct sl_division *d,
                              const struct scratch *s)
{
    struct sl_division all = *d;

    if (d->in->keep)
        return seconds_of(d, &s->costs[SL_PHASE_PREFILL]);
    all.host = s->none;
    all.copied_bytes += d->host_bytes - d->host_only_bytes;
    return seconds_of(&all, &s->costs[SL_PHASE_PREFILL]);
}

/* What s->host takes, which is kept in s->best if it is the best so far. */
static struct score try_set(const struct sl_plan_input *in, uint64_t slot_bytes,
                            uint64_t ahead_bytes, struct scratch *s)
{
    struct sl_division d = {
        .in = in,
        .stage_bytes = s->stage_bytes,
        .stage_kept = s->stage_kept,
        .host = s->host,
        .slot_bytes = slot_bytes,
        .ahead_bytes = ahead_bytes,
        .waits = s->waits,
    };
    struct score score = {INFINITY, INFINITY};

    if (!sl_plan_divide(&d))
        return score;
    score.decode_s = seconds_of(&d, &s->costs[SL_PHASE_DECODE]);
    if (in->keep)
        score.decode_s += GUESSES * guess_seconds(&d, &s->guess);
    if (s->found && score.decode_s >= s->score.decode_s * (1 + SAME))
        return score;
    score.prefill_s = prefill_seconds(&d, s);
    if (s->found && !better(score, s->score))
        return score;
    memcpy(s->best, s->host, in->n_stages);
    s->score = score;
    s->ahead_bytes = ahead_bytes;
    s->found = true;
    return score;
}

/* One search for the best of the numbers from 1 to n. */
struct numbers {
    size_t n, at; /* the best so far */
    struct score score;
};

/* Takes note of number k's score. */
static void note(struct numbers *x, size_t k, struct score score)
{
    if (!better(score, x->score))
        return;
    x->score = score;
    x->at = k;
}

static void try_number(struct numbers *x, const struct sl_plan_input *in,
                       uint64_t slot_bytes, uint64_t ahead, enum way way,
                       size_t k, struct scratch *s)
{
    choose(in, s->host, way, k);
    note(x, k, try_set(in, slot_bytes, ahead, s));
}

/* The best number of stages for one ring, in a few dozen walks whatever the
   number of stages: evenly spread numbers first, then nearer and nearer to the
   best of them. What a pass takes changes slowly with the number, but for a
   part in a thousand that depends on how the stages fall. */
static void search_numbers(const struct sl_plan_input *in, uint64_t slot_bytes,
                           uint64_t ahead, enum way way, struct scratch *s)
{
    struct numbers x = {count(in, way), 0, {INFINITY, INFINITY}};
    size_t step = 1;

    while (x.n / step > COARSE && !in->every_number)
        step *= 2;
    for (size_t k = step; k <= x.n; k += step)
        try_number(&x, in, slot_bytes, ahead, way, k, s);
    if (x.n % step != 0)
        try_number(&x, in, slot_bytes, ahead, way, x.n, s);
    while (step > 1) {
        size_t from = x.at;

        step /= 2;
        for (size_t i = 0; i < 4; i++) {
            size_t k = from + 2 * i * step; /* 3 steps on */

            if (k > 3 * step && k - 3 * step <= x.n)
                try_number(&x, in, slot_bytes, ahead, way, k - 3 * step, s);
        }
    }
}

/* The best set of a way, and the best ring on the device for it. */
static void search(const struct sl_plan_input *in, uint64_t slot_bytes,
                   enum way way, struct scratch *s)
{
    s->found = false;
    for (uint64_t ahead = LEAST_AHEAD; ahead <= MOST_AHEAD; ahead *= 2) {
        if (way != WAY_NONE) {
            search_numbers(in, slot_bytes, ahead, way, s);
            continue;
        }
        choose(in, s->host, way, 0);
        try_set(in, slot_bytes, ahead, s);
    }
}

/* --- prefill -------------------------------------------------------------- */

static void set_prefill(struct sl_plan *plan, const struct sl_plan_input *in,
                        const uint8_t *host)
{
    for (size_t i = 0; i < in->n_stages; i++) {
        const struct sl_plan_stage *s = &in->stages[i];

        memset(plan->worker[SL_PHASE_PREFILL] + s->first_slab,
               host[i] ? SL_HOST : SL_DEVICE, s->n_slabs);
    }
    /* What the GPU decodes it prefills; it may have work in prefill alone. */
    plan->uses_device = memchr(plan->worker[SL_PHASE_PREFILL], SL_DEVICE,
                               plan->n_slabs) != NULL;
}

/* Of the stages that the CPU decodes, so many evenly. */
static void choose_some(const struct sl_plan_input *in, uint8_t *some,
                        const uint8_t *host, size_t k, size_t n)
{
    size_t at = 0;

    for (size_t i = 0; i < in->n_stages; i++) {
        some[i] = host[i] && (2 * at * k + n) / (2 * n) !=
                                 (2 * (at + 1) * k + n) / (2 * n);
        at += host[i];
    }
    mark_host_only(in, some);
}

/* Which of the CPU's stages the CPU prefills too. */
static void choose_prefill(struct sl_plan *plan, const struct sl_plan_input *in,
                           struct scratch *s)
{
    double best = -1;
    size_t n = 0, best_k = 0;

    for (size_t i = 0; i < in->n_stages; i++)
        n += s->chosen[i];
    for (size_t k = 0; k <= n && n > 0; k++) {
        double seconds;

        choose_some(in, s->host, s->chosen, k, n);
        set_prefill(plan, in, s->host);
        seconds = sl_plan_seconds(plan, in, SL_PHASE_PREFILL,
                                  in->pass[SL_PHASE_PREFILL]);
        if (best >= 0 && seconds >= best)
            continue;
        best = seconds;
        best_k = k;
    }
    if (n == 0)
        return;
    choose_some(in, s->host, s->chosen, best_k, n);
    set_prefill(plan, in, s->host);
}

/* Whether so many positions come through faster by the engines of prefill:
 * these copy more, and compute faster. */
static bool prefill_pays(const struct sl_plan *plan,
                         const struct sl_plan_input *in, uint32_t positions)
{
    struct sl_plan_pass pass = in->pass[SL_PHASE_PREFILL];

    pass.positions = positions;
    return sl_plan_seconds(plan, in, SL_PHASE_PREFILL, pass) <
           sl_plan_seconds(plan, in, SL_PHASE_DECODE, pass);
}

#define MOST_POSITIONS (1u << 20)

/* The fewest positions with which the engines of prefill are the faster. */
static uint32_t find_prefill_from(const struct sl_plan *plan,
                                  const struct sl_plan_input *in)
{
    uint32_t no = 0, yes = 1;

    if (memcmp(plan->worker[SL_PHASE_DECODE], plan->worker[SL_PHASE_PREFILL],
               plan->n_slabs) == 0)
        return 1;
    while (yes < MOST_POSITIONS && !prefill_pays(plan, in, yes)) {
        no = yes;
        yes *= 2;
    }
    while (yes - no > 1) {
        uint32_t middle = no + (yes - no) / 2;

        if (prefill_pays(plan, in, middle))
            yes = middle;
        else
            no = middle;
    }
    return yes;
}

/* --- the plan ------------------------------------------------------------- */

/* The plan of s->best, with everything prefilled by the GPU. */
static int build(struct sl_plan *plan, const struct sl_plan_input *in,
                 uint64_t slot_bytes, struct scratch *s, struct sl_error *err)
{
    struct sl_division d = {
        .in = in,
        .stage_bytes = s->stage_bytes,
        .stage_kept = s->stage_kept,
        .host = s->best,
        .slot_bytes = slot_bytes,
        .ahead_bytes = s->ahead_bytes,
        .waits = s->waits,
    };

    if (sl_plan_init(plan, in->n_slabs, err) != 0)
        return -1;
    sl_plan_divide(&d);
    sl_plan_place(plan, &d);
    set_prefill(plan, in, in->keep ? s->best : s->none);
    return 0;
}

/* The best of all ways, as slabs fell into their places. */
static int build_best(struct sl_plan *plan, bool *found,
                      const struct sl_plan_input *in, struct scratch *s,
                      struct sl_error *err)
{
    int ways = in->engine == SL_ENGINE_RULE_GPU ? 1 : WAYS;
    uint64_t slot_bytes = sl_slabs_largest(in->slabs, in->n_slabs);
    struct sl_plan best = {.n_slabs = 0}, made;

    *found = false;
    if (slot_bytes == 0) /* rings are divided by it */
        slot_bytes = 1;
    for (int way = 0; way < ways; way++) {
        search(in, slot_bytes, (enum way)way, s);
        if (!s->found)
            continue;
        if (build(&made, in, slot_bytes, s, err) != 0) {
            sl_plan_fini(&best);
            return -1;
        }
        if (*found && !sl_plan_better(&made, &best, in)) {
            sl_plan_fini(&made);
            continue;
        }
        sl_plan_fini(&best);
        best = made;
        memcpy(s->chosen, s->best, in->n_stages);
        *found = true;
    }
    if (*found) {
        if (!in->keep)
            choose_prefill(&best, in, s);
        best.prefill_from = find_prefill_from(&best, in);
        *plan = best;
        /* Nothing for the GPU: there is a better plan without its ring. */
        *found = best.uses_device;
        if (!best.uses_device)
            sl_plan_fini(plan);
    }
    return 0;
}

static void scratch_fini(struct scratch *s)
{
    free(s->stage_bytes);
    free(s->stage_kept);
    free(s->host);
    free(s->best);
    free(s->none);
    free(s->chosen);
    free(s->waits);
    for (int p = 0; p < SL_PHASE_COUNT; p++) {
        for (int e = 0; e < SL_PLAN_DIVIDED; e++)
            free(s->costs[p].step[e]);
        free(s->costs[p].keys);
    }
    free(s->guess.keys);
    for (int e = 0; e < SL_PLAN_DIVIDED; e++)
        free(s->guess.step[e]);
}

/* What a pass takes of each stage, of which so many bytes are used. False: no
 * memory. */
static bool cost_stages(struct costs *c, const struct sl_plan_input *in,
                        const uint64_t *bytes, enum sl_phase phase,
                        struct sl_plan_pass pass)
{
    c->keys = sl_alloc_array(in->n_stages, sizeof *c->keys);
    if (c->keys == NULL)
        return false;
    for (size_t i = 0; i < in->n_stages; i++)
        c->keys[i] = sl_plan_copied_keys(&in->stages[i], phase, pass);
    c->crossing_s = sl_plan_crossing_s(in, SL_HOST, SL_DEVICE, pass);
    for (uint32_t e = 0; e < SL_PLAN_DIVIDED; e++) {
        c->step[e] = sl_alloc_array(in->n_stages, sizeof **c->step);
        if (c->step[e] == NULL)
            return false;
        for (size_t i = 0; i < in->n_stages; i++)
            c->step[e][i] =
                sl_plan_step(in, &in->stages[i], (double)bytes[i], e, pass);
    }
    return true;
}

static bool scratch_init(struct scratch *s, const struct sl_plan_input *in)
{
    struct sl_plan_pass guess = {1, 1, in->pass[SL_PHASE_DECODE].keys};

    *s = (struct scratch){
        .stage_bytes = sl_alloc_array(in->n_stages, sizeof *s->stage_bytes),
        .stage_kept = sl_alloc_array(in->n_stages, sizeof *s->stage_kept),
        .host = sl_zalloc_array(in->n_stages, 1),
        .best = sl_zalloc_array(in->n_stages, 1),
        .none = sl_zalloc_array(in->n_stages, 1),
        .chosen = sl_zalloc_array(in->n_stages, 1),
        .waits = sl_zalloc_array(in->n_stages, 1),
    };
    if (s->stage_bytes == NULL || s->stage_kept == NULL || s->host == NULL ||
        s->best == NULL || s->none == NULL || s->chosen == NULL ||
        s->waits == NULL)
        return false;
    mark_host_only(in, s->none);
    for (size_t i = 0; i < in->n_stages; i++) {
        s->stage_bytes[i] = sl_plan_stage_bytes(in, &in->stages[i]);
        s->stage_kept[i] = sl_plan_stage_kept(in, &in->stages[i]);
    }
    if (in->keep &&
        !cost_stages(&s->guess, in, s->stage_kept, SL_PHASE_DECODE, guess))
        return false;
    for (int p = 0; p < SL_PHASE_COUNT; p++) {
        if (!cost_stages(&s->costs[p], in, s->stage_bytes, (enum sl_phase)p,
                         in->pass[p]))
            return false;
    }
    return true;
}

int sl_plan_hybrid(struct sl_plan *plan, bool *found,
                   const struct sl_plan_input *in, struct sl_error *err)
{
    struct scratch s;
    int rc = 0;

    if (!scratch_init(&s, in)) {
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory to plan %zu stages",
                     in->n_stages);
    } else {
        rc = build_best(plan, found, in, &s, err);
    }
    scratch_fini(&s);
    return rc;
}
