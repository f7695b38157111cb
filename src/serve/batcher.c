#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/serve/batcher_impl.h"

/* Part of the newest pass in the running means. */
#define NEWEST 4u

void sl_gen_init(struct sl_gen *g)
{
    *g = (struct sl_gen){
        .score_from = UINT32_MAX,
        .sampler = {.temperature = 1},
        .n_top = -1,
    };
}

void sl_gen_fini(struct sl_gen *g)
{
    sl_prompt_fini(&g->prompt);
    sl_ids_fini(&g->ids);
    sl_ids_fini(&g->said);
    free(g->bias);
    g->bias = NULL;
}

void sl_batcher_workload(struct sl_workload *load,
                         const struct sl_batcher_config *c)
{
    *load = (struct sl_workload){
        .n_sequences = 1,
        .max_tokens = c->max_tokens,
        .pass_positions = c->pass_positions,
        .pass_logits = c->pass_logits,
        .n_texts = c->max_active,
    };
}

/* --- life -------------------------------------------------------------------
 */

static int list_ends(struct sl_batcher *e, struct sl_error *err)
{
    const struct sl_special_ids *s = &e->c.hp->text.special;

    if ((s->eop >= 0 && sl_ids_add(&e->ends, s->eop, err) != 0) ||
        (s->eos >= 0 && sl_ids_add(&e->ends, s->eos, err) != 0))
        return -1;
    if (e->c.stops == NULL)
        return 0;
    return sl_ids_append(&e->ends, e->c.stops->v, e->c.stops->n, err);
}

int sl_batcher_create(struct sl_batcher **out,
                      const struct sl_batcher_config *c, struct sl_error *err)
{
    struct sl_batcher *e = calloc(1, sizeof *e);
    uint32_t n = c->max_active, vocab = c->lm->vocab;
    size_t n_logits;

    if (e == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    e->c = *c;
    pthread_mutex_init(&e->lock, NULL);
    e->active = sl_zalloc_array(n, sizeof(void *));
    e->in_pass = sl_zalloc_array(n, sizeof(void *));
    e->left = sl_zalloc_array(n + 1, sizeof *e->left);
    e->items = sl_zalloc_array(n, sizeof *e->items);
    e->positions = sl_alloc_array(c->pass_positions, sizeof(int32_t));
    e->blocks = sl_alloc_array(c->pass_positions, sizeof(int32_t));
    if (sl_mul_size(&n_logits, c->pass_logits, vocab))
        e->logits = sl_alloc_array(n_logits, sizeof(float));
    e->raw = sl_alloc_array(vocab, sizeof(float));
    e->seen = sl_alloc_array(vocab / 8 + 1, 1);
    e->scratch = malloc(sl_sampler_scratch_bytes(vocab));
    if (!e->active || !e->in_pass || !e->left || !e->items || !e->positions ||
        !e->blocks || !e->logits || !e->raw || !e->seen || !e->scratch) {
        sl_batcher_destroy(e, NULL);
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory for %u rows of %u logits", c->pass_logits,
                       vocab);
    }
    if (sl_fill_list_banned(&e->banned, c->hp, vocab, err) != 0 ||
        list_ends(e, err) != 0) {
        sl_batcher_destroy(e, NULL);
        return -1;
    }
    *out = e;
    return 0;
}

void sl_batcher_destroy(struct sl_batcher *e, const struct sl_error *why)
{
    if (e == NULL)
        return;
    while (e->n_active > 0)
        sl_batcher_end(e, e->active[0],
                       why != NULL ? SL_GEN_FAILED : SL_GEN_CANCELLED, why);
    while (sl_line_drop_left(e))
        ;
    free(e->active);
    free(e->in_pass);
    free(e->left);
    free(e->items);
    free(e->positions);
    free(e->blocks);
    free(e->logits);
    free(e->raw);
    free(e->seen);
    free(e->scratch);
    sl_ids_fini(&e->banned);
    sl_ids_fini(&e->ends);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

/* --- who is there -----------------------------------------------------------
 */

void sl_batcher_end(struct sl_batcher *e, struct sl_gen *g, enum sl_gen_end how,
                    const struct sl_error *err)
{
    uint32_t at = 0;

    while (at < e->n_active && e->active[at] != g)
        at++;
    if (at < e->n_active) {
        e->n_active--;
        memmove(e->active + at, e->active + at + 1,
                (e->n_active - at) * sizeof(void *));
    }
    if (g->fill)
        sl_fill_close(e, g);
    else
        sl_line_close(e, g, how != SL_GEN_FAILED);
    pthread_mutex_lock(&e->lock);
    e->stats.n_active = e->n_active;
    e->stats.said_ids += atomic_load(&g->n_said);
    e->stats.prompt_ids += atomic_load(&g->n_read);
    e->stats.kept_ids += atomic_load(&g->n_kept);
    for (size_t i = 0; i < e->n_items; i++) {
        if (e->in_pass[i] == g)
            e->in_pass[i] = NULL;
    }
    pthread_mutex_unlock(&e->lock);
    g->sink->ended(g->opaque, how, err); /* the gen may be gone now */
}

static int begin(struct sl_batcher *e, struct sl_gen *g, struct sl_error *err)
{
    e->active[e->n_active++] = g;
    e->stats.n_active = e->n_active;
    atomic_store(&g->admitted, true);
    return g->fill ? sl_fill_begin(e, g, err) : sl_line_begin(e, g, err);
}

static int admit(struct sl_batcher *e, struct sl_error *err)
{
    struct sl_gen *g;

    while (e->n_active < e->c.max_active &&
           (g = e->c.next(e->c.opaque)) != NULL) {
        if (begin(e, g, err) == 0)
            continue;
        sl_batcher_end(e, g, SL_GEN_FAILED, err);
        if (err->code != SL_ERR_USAGE && err->code != SL_ERR_NOMEM)
            return -1;
    }
    return 0;
}

static void end_cancelled(struct sl_batcher *e)
{
    for (uint32_t i = e->n_active; i-- > 0;) {
        if (atomic_load_explicit(&e->active[i]->cancelled,
                                 memory_order_relaxed))
            sl_batcher_end(e, e->active[i], SL_GEN_CANCELLED, NULL);
    }
}

/* --- a pass -----------------------------------------------------------------
 */

static bool reads_prompt(const struct sl_gen *g)
{
    return g->fill ? g->text.pass.prefill != NULL || !g->text.pass.running
                   : g->fed < g->prompt_len;
}

/* Gives a text its place in the pass. Errors: of the text alone. */
static int collect_one(struct sl_batcher *e, struct sl_gen *g,
                       struct sl_error *err)
{
    uint32_t room = e->c.pass_positions - e->n_positions;
    uint32_t rows = e->c.pass_logits - e->n_rows;

    int rc = 0;

    if (g->fill)
        rc = sl_fill_want(e, g, room, err);
    else
        sl_line_want(e, g, room, rows);
    if (rc != 0)
        return rc < 0 ? -1 : 0; /* it has ended, and may be gone */
    if (g->n_fed == 0)
        return 0;
    e->in_pass[e->n_items++] = g;
    e->n_positions += g->n_fed;
    e->n_rows += g->n_rows;
    return 0;
}

/* Who generates comes first; what is left of the pass is for prompts, in the
 * order in which they came. */
static int collect(struct sl_batcher *e, struct sl_error *err)
{
    e->n_items = e->n_positions = e->n_rows = 0;
    for (int prompts = 0; prompts < 2; prompts++) {
        for (uint32_t i = 0; i < e->n_active;) {
            struct sl_gen *g = e->active[i];

            if (reads_prompt(g) == (prompts == 1) &&
                collect_one(e, g, err) != 0) {
                sl_batcher_end(e, g, SL_GEN_FAILED, err);
                if (err->code != SL_ERR_USAGE && err->code != SL_ERR_NOMEM)
                    return -1;
                continue;
            }
            i += i < e->n_active && e->active[i] == g;
        }
    }
    return 0;
}

static uint64_t mean(uint64_t so_far, uint64_t now)
{
    return so_far == 0 ? now : (so_far * (NEWEST - 1) + now) / NEWEST;
}

static void pass_begins(struct sl_batcher *e)
{
    pthread_mutex_lock(&e->lock);
    e->running = true;
    e->stats.pass_ns = sl_clock_ns();
    pthread_mutex_unlock(&e->lock);
}

static void pass_ended(struct sl_batcher *e, bool ok)
{
    struct sl_batcher_stats *s = &e->stats;
    uint64_t ns;

    pthread_mutex_lock(&e->lock);
    ns = sl_clock_ns() - s->pass_ns;
    e->running = false;
    s->pass_ns = 0;
    if (ok) {
        s->passes++;
        s->positions += e->n_positions;
        s->all_sweeps_ns += ns;
        if (e->n_positions == e->n_items)
            s->sweep_ns = mean(s->sweep_ns, ns);
        else
            s->prompt_ns = mean(s->prompt_ns, ns);
    }
    pthread_mutex_unlock(&e->lock);
}

bool sl_batcher_idle(struct sl_batcher *e)
{
    bool idle;

    pthread_mutex_lock(&e->lock);
    idle = e->running;
    for (size_t i = 0; i < e->n_items && idle; i++)
        idle = e->in_pass[i] == NULL ||
               atomic_load_explicit(&e->in_pass[i]->cancelled,
                                    memory_order_relaxed);
    pthread_mutex_unlock(&e->lock);
    return idle;
}

void sl_batcher_stats(struct sl_batcher *e, struct sl_batcher_stats *stats)
{
    pthread_mutex_lock(&e->lock);
    *stats = e->stats;
    pthread_mutex_unlock(&e->lock);
}

/* After an interrupted pass nothing of it counts: its texts end. */
static void interrupted(struct sl_batcher *e)
{
    for (size_t i = 0; i < e->n_items; i++) {
        if (e->in_pass[i] != NULL) {
            struct sl_gen *g = e->in_pass[i];

            if (!g->fill) /* keys of the pass are half there */
                e->c.lm->ops->seq_cut(e->c.lm, g->seq, g->fed);
            sl_batcher_end(e, g, SL_GEN_CANCELLED, NULL);
        }
    }
}

static int distribute(struct sl_batcher *e, struct sl_error *err)
{
    float *row = e->logits;

    for (size_t i = 0; i < e->n_items; i++) {
        struct sl_gen *g = e->in_pass[i];
        uint32_t n_rows = e->items[i].n_logits;
        int rc = 0;

        if (g != NULL)
            rc = g->fill ? sl_fill_feed(e, g, row, err)
                         : sl_line_feed(e, g, row, err);
        if (rc != 0)
            sl_batcher_end(e, g, SL_GEN_FAILED, err);
        row += (size_t)n_rows * e->c.lm->vocab;
    }
    e->n_items = 0;
    return 0;
}

int sl_batcher_step(struct sl_batcher *e, struct sl_error *err)
{
    struct sl_lm *lm = e->c.lm;
    int rc;

    end_cancelled(e);
    if (admit(e, err) != 0 || collect(e, err) != 0)
        return -1;
    if (e->n_items == 0)
        return e->n_active > 0;
    pass_begins(e);
    rc = lm->ops->forward(lm, e->items, e->n_items, e->logits, err);
    pass_ended(e, rc == 0);
    if (rc == 0) {
        distribute(e, err);
        return 1;
    }
    if (err->code != SL_ERR_INTERRUPTED)
        return -1;
    interrupted(e);
    e->n_items = 0;
    return 1;
}
