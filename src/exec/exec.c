#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/exec/exec_impl.h"
#include "src/exec/rotary.h"

/* x->x is set where an engine has memory for it. */
static void carve_all(struct sl_exec *x, struct sl_carver *c,
                      const struct sl_modelfile *mf, uint64_t n, uint64_t rows,
                      bool own_x)
{
    uint64_t half = mf->hp.rope_dims / 2;

    if (own_x)
        x->x = sl_carve(c, n * mf->hp.hidden, sizeof(float));
    x->cos = sl_carve(c, n * half, sizeof(float));
    x->sin = sl_carve(c, n * half, sizeof(float));
    x->n_keys = sl_carve(c, n, sizeof(uint32_t));
    x->rows = sl_carve(c, rows, sizeof(uint32_t));
    x->run = sl_carve(c, n, sizeof *x->run);
}

uint64_t sl_exec_bytes(const struct sl_modelfile *mf, uint32_t pass_positions,
                       uint32_t pass_logits, bool own_x)
{
    struct sl_carver c = {NULL, 0};
    struct sl_exec counted;

    carve_all(&counted, &c, mf, pass_positions, pass_logits, own_x);
    return c.used;
}

/* --- the pass ---------------------------------------------------------- */

/* A position that sees others than the one before it. */
static int check_tree(const struct sl_exec *x, const struct sl_lm_item *it,
                      size_t i, struct sl_error *err)
{
    uint32_t held = sl_kv_len(x->c.kv, it->seq) - sl_kv_n_begin(x->c.kv);
    uint64_t n = (uint64_t)it->n_tree + it->n;

    if (!it->apart || n > SL_LM_TREE || it->n_tree > held ||
        it->n_context > held - it->n_tree)
        return sl_fail(
            err, SL_ERR_INTERNAL,
            "item %zu of a pass is a tree of %llu positions (at most "
            "%u), %u of them held, of a sequence of %u and a "
            "context of %u",
            i, (unsigned long long)n, SL_LM_TREE, it->n_tree, held,
            it->n_context);
    for (uint32_t k = 0; k < n; k++) {
        if (it->parents[k] != SL_LM_ROOT && it->parents[k] >= k)
            return sl_fail(err, SL_ERR_INTERNAL,
                           "item %zu of a pass: place %u of its tree has place "
                           "%u as its parent",
                           i, k, it->parents[k]);
    }
    return 0;
}

static int check_items(struct sl_exec *x, const struct sl_lm_item *items,
                       size_t n_items, struct sl_error *err)
{
    uint64_t n = 0, rows = 0;

    for (size_t i = 0; i < n_items; i++) {
        n += items[i].n;
        rows += items[i].n_logits;
        if (items[i].n == 0 || items[i].n_logits > items[i].n)
            return sl_fail(err, SL_ERR_INTERNAL,
                           "item %zu of a pass has %u ids and wants %u rows of "
                           "logits",
                           i, items[i].n, items[i].n_logits);
        if (items[i].n_context > sl_kv_len(x->c.kv, items[i].seq) -
                                     sl_kv_n_begin(x->c.kv) + items[i].n)
            return sl_fail(err, SL_ERR_INTERNAL,
                           "item %zu of a pass looks at a context of %u "
                           "positions that it does not hold",
                           i, items[i].n_context);
        if (items[i].apart &&
            items[i].n_context >
                sl_kv_len(x->c.kv, items[i].seq) - sl_kv_n_begin(x->c.kv))
            return sl_fail(err, SL_ERR_INTERNAL,
                           "item %zu of a pass has positions apart in a "
                           "context of %u that its sequence does not hold yet",
                           i, items[i].n_context);
        if (items[i].parents != NULL && check_tree(x, &items[i], i, err) != 0)
            return -1;
        for (uint32_t j = 0; j < items[i].n; j++) {
            if (items[i].ids[j] < 0 || (uint32_t)items[i].ids[j] >= x->lm.vocab)
                return sl_fail(err, SL_ERR_USAGE,
                               "token id %d at place %u is outside the "
                               "vocabulary of %u",
                               (int)items[i].ids[j], j, x->lm.vocab);
        }
    }
    if (n > x->c.pass_positions || rows > x->c.pass_logits)
        return sl_fail(err, SL_ERR_BUDGET,
                       "a pass of %llu positions and %llu rows of logits, but "
                       "memory was planned for %u and %u",
                       (unsigned long long)n, (unsigned long long)rows,
                       x->c.pass_positions, x->c.pass_logits);
    return 0;
}

static void fill_rotary(struct sl_exec *x, uint32_t row, int32_t position,
                        int32_t block)
{
    const struct sl_hparams *hp = &x->c.mf->hp;
    uint32_t half = hp->rope_dims / 2;
    float *cos_row = x->cos + (size_t)row * half;
    float *sin_row = x->sin + (size_t)row * half;

    if (!hp->position_2d) {
        sl_rotary_row(cos_row, sin_row, hp, x->c.rope_factors, hp->rope_dims,
                      position);
        return;
    }
    sl_rotary_row(cos_row, sin_row, hp, NULL, half, position);
    sl_rotary_row(cos_row + half / 2, sin_row + half / 2, hp, NULL, half,
                  block);
}

/* Position j of an item. */
static void fill_row(struct sl_exec *x, const struct sl_lm_item *it,
                     const struct sl_pass_item *r, uint32_t j)
{
    uint32_t causal = r->base + j + 1;

    if (r->parents != NULL)
        causal = r->base - r->n_tree +
                 (uint32_t)__builtin_popcountll(sl_pass_path(r, j));

    x->n_keys[r->row + j] = causal > r->n_context ? causal : r->n_context;
    fill_rotary(x, r->row + j, it->positions[j],
                it->blocks ? it->blocks[j] : 0);
}

/* A prefill is long and begins its sequences, with nothing in the cache: no
 * layer's cache need be where the engine that computes it keeps one. */
static enum sl_phase phase_of(const struct sl_exec *x)
{
    for (size_t i = 0; i < x->pass.n_items; i++) {
        if (x->run[i].base != 0)
            return SL_PHASE_DECODE;
    }
    return x->c.plan->uses_device && x->pass.n >= x->c.plan->prefill_from
               ? SL_PHASE_PREFILL
               : SL_PHASE_DECODE;
}

/* Lays the items out over the rows of the pass and makes room in the cache. */
static int lay_out(struct sl_exec *x, const struct sl_lm_item *items,
                   size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_pass *pass = &x->pass;

    *pass = (struct sl_pass){
        .items = items,
        .run = x->run,
        .cos = x->cos,
        .sin = x->sin,
        .n_keys = x->n_keys,
        .rows = x->rows,
        .x = x->x,
        .logits = logits,
    };
    for (; pass->n_items < n_items; pass->n_items++) {
        const struct sl_lm_item *it = &items[pass->n_items];
        struct sl_pass_item *r = &x->run[pass->n_items];

        *r = (struct sl_pass_item){
            .seq = it->seq,
            .row = pass->n,
            .n = it->n,
            .base = sl_kv_len(x->c.kv, it->seq),
            .n_context = it->n_context + sl_kv_n_begin(x->c.kv),
            .n_logits = it->n_logits,
            .apart = it->apart,
            .parents = it->parents,
            .n_tree = it->n_tree,
        };
        pass->reads |= it->reads;
        if (sl_kv_extend(x->c.kv, it->seq, it->n, err) != 0)
            return -1;
        for (uint32_t j = 0; j < it->n; j++)
            fill_row(x, it, r, j);
        for (uint32_t j = it->n - it->n_logits; j < it->n; j++)
            x->rows[pass->n_rows++] = r->row + j;
        pass->n += it->n;
    }
    pass->phase = phase_of(x);
    return 0;
}

/* x is where the engine `to` can use it. */
static int cross(struct sl_exec_engine *from, struct sl_exec_engine *to,
                 struct sl_error *err)
{
    if (from->ops->store != NULL && from->ops->store(from, err) != 0)
        return -1;
    return to->ops->load != NULL ? to->ops->load(to, err) : 0;
}

void sl_exec_stage_name(char name[SL_STAGE_NAME], const struct sl_exec *x,
                        size_t slab)
{
    const struct sl_partition *p = x->c.partition;
    uint32_t matrix = p->parts[p->first_part[slab]].matrix;

    sl_arch_stage_name(name, &x->c.mf->hp,
                       (uint32_t)x->c.mf->matrices[matrix].spec.stage);
}

int sl_exec_run_slab(struct sl_exec *x, size_t slab,
                     struct sl_exec_engine **now, struct sl_error *err)
{
    struct sl_exec_engine *next = sl_exec_engine_of(x, slab);
    char name[SL_STAGE_NAME];

    if (next != *now && cross(*now, next, err) != 0)
        return -1;
    *now = next;
    if (next->ops->run(next, slab, err) == 0)
        return 0;
    sl_exec_stage_name(name, x, slab);
    sl_error_prefix(err, "%s: ", name);
    return -1;
}

static int begin_engines(struct sl_exec *x, struct sl_error *err)
{
    for (unsigned i = 0; i < SL_WORKERS; i++) {
        struct sl_exec_engine *e = x->c.engines[i];

        if (e != NULL && e->ops->begin(e, &x->pass, err) != 0)
            return -1;
    }
    return 0;
}

int sl_exec_end(struct sl_exec *x, struct sl_error *err)
{
    for (unsigned i = 0; i < SL_WORKERS; i++) {
        struct sl_exec_engine *e = x->c.engines[i];

        if (e != NULL && e->ops->end != NULL && e->ops->end(e, err) != 0)
            return -1;
    }
    return 0;
}

/* By the last worker that has the matrix; the host, which comes last here,
 * always can. *now: who did it. */
static int embed(struct sl_exec *x, struct sl_exec_engine **now,
                 struct sl_error *err)
{
    bool done = false;

    for (unsigned i = SL_WORKERS; i-- > 0 && !done;) {
        *now = x->c.engines[i];
        if (*now != NULL && (*now)->ops->embed(*now, &done, err) != 0)
            return -1;
    }
    return 0;
}

int sl_exec_begin(struct sl_exec *x, const struct sl_lm_item *items,
                  size_t n_items, bool high_only, float *logits,
                  struct sl_exec_engine **now, struct sl_error *err)
{
    if (lay_out(x, items, n_items, logits, err) != 0)
        return -1;
    x->pass.high_only = high_only;
    if (begin_engines(x, err) != 0)
        return -1;
    return embed(x, now, err);
}

/* Slabs come in one order for ever: those that an interrupted pass has left
 * are taken and given back before the next pass begins, and not at once, so
 * that whoever interrupted it has no disk to wait for. */
static int skip_rest(struct sl_exec *x, struct sl_error *err)
{
    struct sl_order order = sl_plan_order(x->c.plan);

    for (; x->left_at < order.n; x->left_at++) {
        size_t slab = sl_order_slab(&order, x->left_at);
        struct sl_exec_engine *e = sl_exec_engine_of(x, slab);

        if (e->ops->skip(e, slab, err) != 0)
            return -1;
    }
    x->left = false;
    return sl_exec_end(x, err);
}

static void tell(atomic_uint *place, uint32_t value)
{
    atomic_store_explicit(place, value, memory_order_relaxed);
}

static void tell_begin(struct sl_exec *x, uint64_t begin_ns)
{
    tell(&x->place.at, 0);
    tell(&x->place.positions, x->pass.n);
    tell(&x->place.to_come, x->lm.to_come);
    atomic_store_explicit(&x->place.begin_ns, begin_ns, memory_order_relaxed);
}

static void tell_end(struct sl_exec *x, bool whole)
{
    atomic_store_explicit(&x->place.begin_ns, 0, memory_order_relaxed);
    if (whole)
        atomic_fetch_add_explicit(&x->place.passes, 1, memory_order_relaxed);
}

/* What was begun, to its end. */
static int run_pass(struct sl_exec *x, struct sl_exec_engine *now,
                    struct sl_error *err)
{
    struct sl_order order = sl_plan_order(x->c.plan);

    for (size_t at = 0; at < order.n; at++) {
        size_t slab = sl_order_slab(&order, at);
        bool low = sl_partition_of(x->c.partition, slab) == SL_PART_LOW;

        if (low && x->pass.high_only)
            continue;

        /* between pairs of planes, which are had together */
        if (atomic_load_explicit(x->c.stop, memory_order_relaxed) && !low) {
            x->left = !x->pass.high_only;
            x->left_at = at;
            return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
        }
        tell(&x->place.at, (uint32_t)at);
        if ((!x->pass.high_only &&
             sl_exec_guess_meanwhile(x, slab, err) != 0) ||
            sl_exec_run_slab(x, slab, &now, err) != 0)
            return -1;
    }
    return sl_exec_end(x, err);
}

static void count_pass(struct sl_exec *x, uint64_t ns)
{
    struct sl_exec_stats *s = &x->stats;
    uint64_t keys = 0;

    for (size_t i = 0; i < x->pass.n_items; i++)
        keys += x->run[i].base + x->run[i].n;
    if (s->passes++ == 0)
        s->first_pass_ns = ns;
    s->positions += x->pass.n;
    if (x->pass.reads) {
        s->prefill_passes++;
        s->prefill_ns += ns;
        s->prefill_sequences += x->pass.n_items;
        s->prefill_keys += keys;
    } else {
        s->decode_positions += x->pass.n;
        s->decode_sequences += x->pass.n_items;
        s->decode_ns += ns;
        s->decode_keys += keys;
    }
}

static int exec_forward(struct sl_lm *lm, const struct sl_lm_item *items,
                        size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_exec *x = (struct sl_exec *)lm;
    uint64_t begin = sl_clock_ns();
    struct sl_exec_engine *now;
    int rc;

    if (x->broken)
        return sl_fail(err, SL_ERR_INTERNAL,
                       "a pass was asked for after one had failed");
    if (check_items(x, items, n_items, err) != 0)
        return -1;
    x->broken = true;
    if (x->left && skip_rest(x, err) != 0)
        return -1;
    if (sl_exec_begin(x, items, n_items, false, logits, &now, err) != 0)
        return -1;
    tell_begin(x, begin);
    rc = run_pass(x, now, err);
    sl_exec_guess_end(x);
    tell_end(x, rc == 0);
    x->broken = rc != 0 && !x->left;
    if (rc != 0)
        return -1;
    count_pass(x, sl_clock_ns() - begin);
    return 0;
}

/* Residents are there once a pass has been through all slabs. */
static int exec_guess(struct sl_lm *lm, const struct sl_lm_item *items,
                      size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_exec *x = (struct sl_exec *)lm;
    struct sl_exec_engine *now;
    struct sl_error ignored;

    if (!x->c.guesses || x->stats.passes == 0 || x->left || x->broken)
        return 1;
    if (check_items(x, items, n_items, err) != 0)
        return -1;
    if (sl_exec_begin(x, items, n_items, true, logits, &now, err) != 0 ||
        run_pass(x, now, err) != 0) {
        /* A device may still read what the next pass writes. */
        x->broken =
            err->code != SL_ERR_INTERRUPTED || sl_exec_end(x, &ignored) != 0;
        return -1;
    }
    return 0;
}

static int exec_seq_create(struct sl_lm *lm, uint32_t *seq,
                           struct sl_error *err)
{
    return sl_kv_seq_create(((struct sl_exec *)lm)->c.kv, seq, err);
}

static int exec_seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                         struct sl_error *err)
{
    return sl_kv_seq_fork(((struct sl_exec *)lm)->c.kv, seq, from, err);
}

static void exec_seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    sl_kv_seq_destroy(((struct sl_exec *)lm)->c.kv, seq);
}

static void exec_seq_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct sl_kv *kv = ((struct sl_exec *)lm)->c.kv;

    sl_kv_seq_cut(kv, seq, n + sl_kv_n_begin(kv));
}

static int exec_seq_pick(struct sl_lm *lm, uint32_t seq, uint32_t n,
                         const uint32_t *path, uint32_t n_path,
                         struct sl_error *err)
{
    struct sl_exec *x = (struct sl_exec *)lm;
    struct sl_kv *kv = x->c.kv;

    if (sl_kv_seq_pick(kv, seq, n + sl_kv_n_begin(kv), path, n_path, err) == 0)
        return 0;
    x->broken = true;
    return -1;
}

static const struct sl_lm_ops exec_ops = {
    .seq_create = exec_seq_create,
    .seq_fork = exec_seq_fork,
    .seq_destroy = exec_seq_destroy,
    .seq_cut = exec_seq_cut,
    .seq_pick = exec_seq_pick,
    .forward = exec_forward,
    .guess = exec_guess,
    .guess_ahead = sl_exec_guess_ahead,
};

/* --- life -------------------------------------------------------------- */

/* An executor of one position, which nobody asks where it is. */
static int create_ahead(struct sl_exec *x, struct sl_error *err)
{
    struct sl_exec_config c = x->c;

    if (x->c.ahead[SL_HOST] == NULL)
        return 0;
    memcpy(c.engines, x->c.ahead, sizeof c.engines);
    memset(c.ahead, 0, sizeof c.ahead);
    c.pass_positions = c.pass_logits = 1;
    return sl_exec_create(&x->ahead, &c, err);
}

int sl_exec_create(struct sl_exec **out, const struct sl_exec_config *config,
                   struct sl_error *err)
{
    const struct sl_modelfile *mf = config->mf;
    struct sl_exec *x = calloc(1, sizeof *x);
    struct sl_carver carver = {NULL, 0};
    bool own_x;

    if (x == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "executor: no memory");
    x->c = *config;
    x->lm = (struct sl_lm){
        .vocab = mf->hp.vocab,
        .max_tokens = config->max_tokens,
        .ops = &exec_ops,
        .pass_positions = config->pass_positions,
        .pass_logits = config->pass_logits,
    };
    for (unsigned i = 0; i < SL_WORKERS; i++) {
        struct sl_exec_engine *e = config->engines[i];

        if (e != NULL && e->ops->host_x != NULL)
            x->x = e->ops->host_x(e);
    }
    own_x = x->x == NULL;
    if (sl_region_init(&x->buffers,
                       sl_exec_bytes(mf, config->pass_positions,
                                     config->pass_logits, own_x),
                       "activations", err) != 0) {
        sl_exec_destroy(x);
        return -1;
    }
    carver.base = x->buffers.base;
    carve_all(x, &carver, mf, config->pass_positions, config->pass_logits,
              own_x);
    if (create_ahead(x, err) != 0) {
        sl_exec_destroy(x);
        return -1;
    }
    *out = x;
    return 0;
}

void sl_exec_destroy(struct sl_exec *x)
{
    if (x == NULL)
        return;
    sl_exec_destroy(x->ahead);
    sl_region_fini(&x->buffers);
    free(x);
}

struct sl_lm *sl_exec_lm(struct sl_exec *x)
{
    return &x->lm;
}

struct sl_exec_place sl_exec_place(const struct sl_exec *x)
{
    struct sl_exec_place p = {
        .passes = atomic_load_explicit(&x->place.passes, memory_order_relaxed),
        .begin_ns =
            atomic_load_explicit(&x->place.begin_ns, memory_order_relaxed),
        .at = atomic_load_explicit(&x->place.at, memory_order_relaxed),
        .positions =
            atomic_load_explicit(&x->place.positions, memory_order_relaxed),
        .to_come =
            atomic_load_explicit(&x->place.to_come, memory_order_relaxed),
    };

    return p;
}

void sl_exec_stats(const struct sl_exec *x, struct sl_exec_stats *stats)
{
    *stats = x->stats;
}
