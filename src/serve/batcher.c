#include "config.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/decode/batch.h"
#include "src/serve/batcher.h"

/* Part of the newest pass in the running means. */
#define NEWEST 4u

struct sl_batcher {
    struct sl_batcher_config c;
    struct sl_batch *batch;
    struct sl_fill_config config; /* that all texts have */
    struct sl_gen **active;       /* (max_active), first come first */
    uint32_t n_active;            /* changed under lock */
    pthread_mutex_t lock;         /* of the following, too */
    struct sl_batcher_stats stats;
};

void sl_gen_init(struct sl_gen *g)
{
    *g = (struct sl_gen){.sampler = {.temperature = 1}};
    sl_rules_init(&g->rules);
}

void sl_gen_fini(struct sl_gen *g)
{
    sl_prompt_fini(&g->prompt);
    sl_ids_fini(&g->ids);
    sl_ids_fini(&g->given);
    sl_ids_fini(&g->shown);
    sl_rules_fini(&g->rules);
    free(g->bias);
    g->bias = NULL;
}

void sl_batcher_workload(struct sl_workload *load,
                         const struct sl_batcher_config *c)
{
    *load = (struct sl_workload){
        .n_sequences = 1,
        .max_tokens = c->max_tokens,
        .pass_positions = c->max_active + c->part_positions,
        .pass_logits = c->max_active + c->score_rows,
        .n_texts = c->max_active,
        .beside_bytes = c->beside_bytes,
    };
}

/* --- from a gen to a text of the batch --------------------------------------
 */

static int hear(void *opaque, const int32_t *ids, size_t n, bool blank,
                struct sl_error *err)
{
    struct sl_gen *g = opaque;

    if (blank && n == 0) {
        if (!g->fill || g->sink->blank == NULL)
            return 0;
        return g->sink->blank(g->opaque, err);
    }
    if (g->fill && sl_ids_append(&g->shown, ids, n, err) != 0)
        return -1;
    if (!blank)
        return 0;
    atomic_fetch_add_explicit(&g->n_said, 1, memory_order_relaxed);
    return g->sink->token(g->opaque, &g->rules.chance, &g->rules.enough, err);
}

static int hear_score(void *opaque, uint32_t at, struct sl_error *err)
{
    struct sl_gen *g = opaque;

    return g->sink->scored(g->opaque, at, &g->rules.chance, err);
}

/* A line as a text whose end is filled: of a causal model behind its last id,
 * else behind the context, [sop] and the ids that are given. */
static int open_line(struct sl_gen *g, struct sl_error *err)
{
    struct sl_prompt *p = &g->prompt;
    size_t n = g->n_context > 0 ? g->n_context : g->ids.n;

    if (p->ids.n > 0)
        return 0;
    if (sl_ids_append(&p->ids, g->ids.v, n, err) != 0)
        return -1;
    p->mask = SL_PROMPT_END;
    if (g->n_context > 0) {
        p->mask = g->ids.v[n - 1];
        p->gmask = true;
        if (sl_ids_append(&g->given, g->ids.v + n + 1, g->ids.n - n - 1, err))
            return -1;
        g->text.given = &g->given;
    } else if (sl_ids_add(&p->ids, SL_PROMPT_END, err) != 0) {
        return -1;
    }
    p->masks[p->n_masks++] = p->mask;
    return 0;
}

static int open_text(struct sl_batcher *e, struct sl_gen *g,
                     struct sl_error *err)
{
    size_t n = g->fill ? g->prompt.ids.n + 1 : g->ids.n;

    if (n == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "an empty text: this model goes on from what it reads");
    if (n + g->max_new > e->c.max_tokens)
        return sl_fail(err, SL_ERR_USAGE,
                       "%zu tokens and %u to come are more than the %u of a "
                       "text (--ctx)",
                       n, g->max_new, e->c.max_tokens);
    g->config = e->config;
    g->config.sampler = g->sampler;
    g->config.min_gen_length = g->min_new;
    g->config.out_seq_length = (uint32_t)n + g->max_new;
    g->heard = (struct sl_fill_sink){hear, g};
    g->text = (struct sl_fill_text){
        .prompt = &g->prompt,
        .rng = &g->rng,
        .sink = &g->heard,
        .config = &g->config,
        .rules = &g->rules,
        .score_from = g->score_from,
        .scored = hear_score,
        .only_scored = g->max_new == 0,
        .cancelled = &g->cancelled,
    };
    atomic_store_explicit(&g->n_prompt, (unsigned)n, memory_order_relaxed);
    return g->fill ? 0 : open_line(g, err);
}

/* --- life -------------------------------------------------------------------
 */

static void tell_progress(struct sl_gen *g)
{
    if (g->text.n_prompt == 0) /* nothing was fed */
        return;
    atomic_store_explicit(&g->n_prompt, g->text.n_prompt, memory_order_relaxed);
    atomic_store_explicit(&g->n_read, g->text.n_read, memory_order_relaxed);
    atomic_store_explicit(&g->n_kept, g->text.n_kept, memory_order_relaxed);
}

static enum sl_gen_end how_ended(const struct sl_gen *g)
{
    if (g->text.failed)
        return g->text.err.code == SL_ERR_INTERRUPTED ? SL_GEN_CANCELLED
                                                      : SL_GEN_FAILED;
    if (g->rules.enough)
        return SL_GEN_ENOUGH;
    return g->rules.said.n >= g->max_new ? SL_GEN_LENGTH : SL_GEN_STOP;
}

/* Takes it out of the list; its sink hears. */
static void end(struct sl_batcher *e, struct sl_gen *g)
{
    struct sl_error why = g->text.err;
    uint32_t at = 0;

    while (e->active[at] != g)
        at++;
    tell_progress(g);
    sl_fill_result_fini(&g->text.result);
    pthread_mutex_lock(&e->lock);
    e->n_active--;
    memmove(e->active + at, e->active + at + 1,
            (e->n_active - at) * sizeof(void *));
    e->stats.n_active = e->n_active;
    e->stats.said_ids += atomic_load(&g->n_said);
    e->stats.prompt_ids += atomic_load(&g->n_read);
    e->stats.kept_ids += atomic_load(&g->n_kept);
    pthread_mutex_unlock(&e->lock);
    g->sink->ended(g->opaque, how_ended(g), &why); /* it may be gone now */
}

static int text_ended(void *opaque, struct sl_fill_text *text,
                      struct sl_error *err)
{
    struct sl_batcher *e = opaque;

    (void)err;
    end(e, (struct sl_gen *)((char *)text - offsetof(struct sl_gen, text)));
    return 0;
}

int sl_batcher_create(struct sl_batcher **out,
                      const struct sl_batcher_config *c, struct sl_error *err)
{
    struct sl_batcher *e = calloc(1, sizeof *e);
    struct sl_batch_config config = {
        .lm = c->lm,
        .hp = c->hp,
        .stops = c->stops,
        .most = c->max_active,
        .alone = true,
        .rules = true,
        .keeps = true,
        .part_positions = c->part_positions,
        .score_rows = c->score_rows,
        .ended = text_ended,
    };

    if (e == NULL ||
        (e->active = sl_zalloc_array(c->max_active, sizeof(void *))) == NULL) {
        free(e);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    }
    e->c = *c;
    e->config = (struct sl_fill_config){
        .strategy = SL_STRATEGY_BASE,
        .n_beams = 1,
        .drafts = c->drafts,
    };
    config.config = &e->config;
    config.opaque = e;
    pthread_mutex_init(&e->lock, NULL);
    if (sl_batch_create(&e->batch, &config, err) != 0) {
        sl_batcher_destroy(e, NULL);
        return -1;
    }
    *out = e;
    return 0;
}

void sl_batcher_destroy(struct sl_batcher *e, const struct sl_error *why)
{
    struct sl_error cancelled, ignored;

    if (e == NULL)
        return;
    sl_fail(&cancelled, SL_ERR_INTERRUPTED, "the server ends");
    if (e->batch != NULL)
        sl_batch_fail(e->batch, why != NULL ? why : &cancelled, &ignored);
    sl_batch_close(e->batch);
    free(e->active);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

/* --- passes -----------------------------------------------------------------
 */

static void admit(struct sl_batcher *e)
{
    struct sl_error *err;
    struct sl_gen *g;

    while (e->n_active < e->c.max_active &&
           (g = e->c.next(e->c.opaque)) != NULL) {
        pthread_mutex_lock(&e->lock);
        e->active[e->n_active++] = g;
        e->stats.n_active = e->n_active;
        pthread_mutex_unlock(&e->lock);
        atomic_store(&g->admitted, true);
        err = &g->text.err;
        if (open_text(e, g, err) == 0 &&
            sl_batch_admit(e->batch, &g->text, err) == 0)
            continue;
        g->text.failed = true;
        end(e, g);
    }
}

static uint64_t mean(uint64_t so_far, uint64_t now)
{
    return so_far == 0 ? now : (so_far * (NEWEST - 1) + now) / NEWEST;
}

static void pass_begins(struct sl_batcher *e)
{
    pthread_mutex_lock(&e->lock);
    e->stats.pass_ns = sl_clock_ns();
    pthread_mutex_unlock(&e->lock);
}

static void count_drafts(struct sl_batcher *e)
{
    const struct sl_gate_counts *c = &e->c.drafts->gate.counts;

    e->stats.drafted = e->stats.accepted = 0;
    for (size_t i = 0; i < SL_DRAFT_SOURCES; i++) {
        e->stats.drafted += c->drafted[i];
        e->stats.accepted += c->accepted[i];
    }
}

static void pass_ended(struct sl_batcher *e, bool ok)
{
    struct sl_batch_pass pass = sl_batch_last(e->batch);
    struct sl_batcher_stats *s = &e->stats;
    uint64_t ns;

    pthread_mutex_lock(&e->lock);
    ns = sl_clock_ns() - s->pass_ns;
    s->pass_ns = 0;
    if (ok && pass.positions > 0) {
        s->passes++;
        s->positions += pass.positions;
        s->all_sweeps_ns += ns;
        if (pass.reads)
            s->prompt_ns = mean(s->prompt_ns, ns);
        else
            s->sweep_ns = mean(s->sweep_ns, ns);
    }
    if (e->c.drafts != NULL)
        count_drafts(e);
    pthread_mutex_unlock(&e->lock);
}

bool sl_batcher_idle(struct sl_batcher *e)
{
    bool idle;

    pthread_mutex_lock(&e->lock);
    idle = e->stats.pass_ns != 0;
    for (size_t i = 0; i < e->n_active && idle; i++)
        idle = atomic_load_explicit(&e->active[i]->cancelled,
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

int sl_batcher_step(struct sl_batcher *e, struct sl_error *err)
{
    bool more;
    int rc;

    admit(e);
    if (e->n_active == 0)
        return 0;
    pass_begins(e);
    rc = sl_batch_step(e->batch, &more, err);
    pass_ended(e, rc == 0);
    for (uint32_t i = 0; i < e->n_active; i++)
        tell_progress(e->active[i]);
    return rc != 0 ? -1 : 1;
}
