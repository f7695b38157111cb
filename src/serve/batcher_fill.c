#include "config.h"

#include <stdlib.h>

#include "src/serve/batcher_impl.h"

/* What fill.h's machinery says, as the sink of a gen hears it. */
struct hearing {
    struct sl_batcher *e;
    struct sl_gen *g;
};

/* ids of a text that were given are known to whoever gave them */
static int hear(void *opaque, const int32_t *ids, size_t n, bool blank,
                struct sl_error *err)
{
    struct hearing *h = opaque;
    struct sl_gen *g = h->g;

    if (!blank)
        return 0;
    if (n == 0)
        return g->sink->blank != NULL ? g->sink->blank(g->opaque, err) : 0;
    for (size_t i = 0; i < n && !g->enough; i++) {
        sl_row_tell(h->e, g, ids[i]);
        atomic_fetch_add_explicit(&g->n_said, 1, memory_order_relaxed);
        if (sl_ids_add(&g->said, ids[i], err) != 0 ||
            (g->rule != NULL &&
             g->rule->accept(g->rule->opaque, ids[i], err) != 0) ||
            g->sink->token(g->opaque, &g->token, &g->enough, err) != 0)
            return -1;
        g->enough |= g->rule != NULL && g->rule->over(g->rule->opaque);
    }
    return 0;
}

int sl_fill_begin(struct sl_batcher *e, struct sl_gen *g, struct sl_error *err)
{
    struct hearing *h = malloc(sizeof *h);
    size_t n = g->prompt.ids.n + 1;

    if (h == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a text");
    *h = (struct hearing){e, g};
    g->fill_sink = (struct sl_fill_sink){hear, h};
    g->config = (struct sl_fill_config){
        .strategy = SL_STRATEGY_BASE,
        .sampler = g->sampler,
        .min_gen_length = g->min_new,
        .out_seq_length = (uint32_t)n + g->max_new,
        .n_beams = 1,
    };
    g->common = (struct sl_fill_common){
        .lm = e->c.lm,
        .hp = e->c.hp,
        .config = &g->config,
        .ends = e->ends.v,
        .n_ends = e->ends.n,
        .banned = e->banned.v,
        .n_banned = e->banned.n,
        .scratch = e->scratch,
    };
    g->io = (struct sl_fill_text){
        .prompt = &g->prompt,
        .rng = &g->rng,
        .sink = &g->fill_sink,
    };
    g->text_open = true;
    if (n + g->max_new > e->c.max_tokens)
        return sl_fail(err, SL_ERR_USAGE,
                       "%zu tokens and %u to come are more than the %u of a "
                       "text (--ctx)",
                       n, g->max_new, e->c.max_tokens);
    atomic_store_explicit(&g->n_prompt, (unsigned)n, memory_order_relaxed);
    return sl_text_open(&g->text, &g->common, &g->io, err);
}

int sl_fill_want(struct sl_batcher *e, struct sl_gen *g, uint32_t room,
                 struct sl_error *err)
{
    struct sl_sequence *seq = &g->text.seq;

    g->n_fed = 0;
    if (!g->asked) {
        if (seq->ops->next(seq, err) != 0)
            return -1;
        g->asked = true;
    }
    if (seq->over) {
        bool full = g->said.n > 0 && g->said.n >= g->max_new;

        sl_batcher_end(e, g, full ? SL_GEN_LENGTH : SL_GEN_STOP, NULL);
        return 1;
    }
    if (seq->n_positions > room)
        return 0;
    if (seq->ops->want(seq, &e->items[e->n_items], NULL, err) != 0)
        return -1;
    g->n_fed = seq->n_positions;
    g->n_rows = seq->n_rows;
    return 0;
}

int sl_fill_feed(struct sl_batcher *e, struct sl_gen *g, float *row,
                 struct sl_error *err)
{
    struct sl_sequence *seq = &g->text.seq;

    atomic_store_explicit(&g->n_read, atomic_load(&g->n_prompt),
                          memory_order_relaxed);
    if (sl_row_check(row, e->c.lm->vocab, err) != 0)
        return -1;
    sl_row_keep(e, g, row);
    sl_row_shape(e, g, row, g->said.v, g->said.n, 0);
    g->asked = false;
    if (seq->ops->feed(seq, row, err) != 0)
        return -1;
    if (g->enough)
        sl_batcher_end(e, g, SL_GEN_ENOUGH, NULL);
    return 0;
}

void sl_fill_close(struct sl_batcher *e, struct sl_gen *g)
{
    if (!g->text_open)
        return;
    g->text_open = false;
    sl_text_close(&g->text);
    sl_fill_result_fini(&g->io.result);
    free(g->fill_sink.opaque);
}
