#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/serve/batcher_impl.h"

/* Less in common is not worth a sequence that another might need. */
enum { LEAST_COMMON = 8 };

/* --- what ended texts leave -------------------------------------------------
 */

bool sl_line_drop_left(struct sl_batcher *e)
{
    uint32_t oldest = 0;

    if (e->n_left == 0)
        return false;
    for (uint32_t i = 1; i < e->n_left; i++) {
        if (e->left[i].used < e->left[oldest].used)
            oldest = i;
    }
    e->c.lm->ops->seq_destroy(e->c.lm, e->left[oldest].seq);
    sl_ids_fini(&e->left[oldest].ids);
    e->left[oldest] = e->left[--e->n_left];
    return true;
}

static uint32_t common(const struct sl_ids *a, const struct sl_ids *b)
{
    size_t n = 0;

    while (n < a->n && n < b->n && a->v[n] == b->v[n])
        n++;
    return (uint32_t)n;
}

/* Takes over the sequence that has most of these ids; the last id, and those
 * whose rows are wanted, must be fed. */
static void take_left(struct sl_batcher *e, struct sl_gen *g)
{
    uint32_t most = (uint32_t)g->ids.n - 1, best = 0, at = 0;

    if (g->score_from - 1 < most)
        most = g->score_from - 1;
    if (g->n_context > 0)
        return;
    for (uint32_t i = 0; i < e->n_left; i++) {
        uint32_t n = common(&e->left[i].ids, &g->ids);

        if (n > best) {
            best = n;
            at = i;
        }
    }
    if (best > most)
        best = most;
    if (best < LEAST_COMMON)
        return;
    g->seq = e->left[at].seq;
    g->has_seq = true;
    g->fed = best;
    e->c.lm->ops->seq_cut(e->c.lm, g->seq, best);
    sl_ids_fini(&e->left[at].ids);
    e->left[at] = e->left[--e->n_left];
}

void sl_line_close(struct sl_batcher *e, struct sl_gen *g, bool keep)
{
    struct sl_left *left = &e->left[e->n_left];

    if (!g->has_seq)
        return;
    g->has_seq = false;
    *left = (struct sl_left){.seq = g->seq, .used = e->stats.passes};
    /* Texts and what is left have one sequence each of max_active. */
    if (keep && g->n_context == 0 && g->fed >= LEAST_COMMON &&
        e->n_active + e->n_left < e->c.max_active &&
        sl_ids_append(&left->ids, g->ids.v, g->fed, NULL) == 0)
        e->n_left++;
    else
        e->c.lm->ops->seq_destroy(e->c.lm, g->seq);
}

/* --- a text -----------------------------------------------------------------
 */

int sl_line_begin(struct sl_batcher *e, struct sl_gen *g, struct sl_error *err)
{
    size_t n = g->ids.n;

    if (n == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "an empty text: this model goes on "
                       "from what it reads");
    if (n + g->max_new > e->c.max_tokens)
        return sl_fail(err, SL_ERR_USAGE,
                       "%zu tokens and %u to come are more than the %u of a "
                       "text (--ctx)",
                       n, g->max_new, e->c.max_tokens);
    for (size_t i = 0; i < n; i++) {
        if (g->ids.v[i] < 0 || (uint32_t)g->ids.v[i] >= e->c.lm->vocab)
            return sl_fail(err, SL_ERR_USAGE,
                           "token id %d is outside the vocabulary of %u",
                           (int)g->ids.v[i], e->c.lm->vocab);
    }
    g->prompt_len = (uint32_t)n;
    take_left(e, g);
    if (!g->has_seq && e->n_active + e->n_left >= e->c.max_active)
        sl_line_drop_left(e);
    if (!g->has_seq && e->c.lm->ops->seq_create(e->c.lm, &g->seq, err) != 0)
        return -1;
    g->has_seq = true;
    atomic_store_explicit(&g->n_prompt, g->prompt_len, memory_order_relaxed);
    atomic_store_explicit(&g->n_kept, g->fed, memory_order_relaxed);
    atomic_store_explicit(&g->n_read, g->fed, memory_order_relaxed);
    return 0;
}

/* Where id `at` stands: see gen.h, and sl_blank_position for GLM's. */
static void place(const struct sl_batcher *e, const struct sl_gen *g,
                  uint32_t at, int32_t *position, int32_t *block)
{
    bool two = e->c.hp->position_2d;

    *position = (int32_t)at;
    *block = 0;
    if (!two || at < g->n_context)
        return;
    *position = (int32_t)g->n_context - 1;
    *block = (int32_t)(at - g->n_context) + 1;
}

/* Row j, of the id j, tells what may be id j + 1. One at least is asked for,
 * of parts of a prompt too. */
static uint32_t rows_of(const struct sl_gen *g, uint32_t from, uint32_t to)
{
    uint32_t first = to - 1;

    if (g->score_from - 1 < first)
        first = g->score_from - 1 > from ? g->score_from - 1 : from;
    return to - first;
}

void sl_line_want(struct sl_batcher *e, struct sl_gen *g, uint32_t room,
                  uint32_t rows)
{
    uint32_t n = (uint32_t)g->ids.n - g->fed, at = e->n_positions;
    struct sl_lm_item *item = &e->items[e->n_items];

    if (n > room)
        n = room;
    while (n > 0 && rows_of(g, g->fed, g->fed + n) > rows)
        n--;
    /* The context goes in one piece. */
    if (g->fed < g->n_context && g->fed + n < g->n_context)
        n = 0;
    g->n_fed = n;
    if (n == 0)
        return;
    g->n_rows = rows_of(g, g->fed, g->fed + n);
    for (uint32_t i = 0; i < n; i++)
        place(e, g, g->fed + i, &e->positions[at + i], &e->blocks[at + i]);
    *item = (struct sl_lm_item){
        .seq = g->seq,
        .ids = g->ids.v + g->fed,
        .positions = e->positions + at,
        .blocks = e->c.hp->position_2d ? e->blocks + at : NULL,
        .n = n,
        .n_context = g->n_context,
        .n_logits = g->n_rows,
    };
}

static bool is_end(const struct sl_batcher *e, int32_t id)
{
    for (size_t i = 0; i < e->ends.n; i++) {
        if (e->ends.v[i] == id)
            return true;
    }
    return false;
}

static int choose(struct sl_batcher *e, struct sl_gen *g, float *row,
                  struct sl_error *err)
{
    uint32_t vocab = e->c.lm->vocab;
    uint32_t said = (uint32_t)g->ids.n - g->prompt_len;
    int32_t id;

    sl_row_shape(e, g, row, g->ids.v, g->ids.n, g->prompt_len);
    for (size_t i = 0; i < e->banned.n; i++)
        row[e->banned.v[i]] = SL_BANNED;
    for (size_t i = 0; i < e->ends.n && said < g->min_new; i++)
        row[e->ends.v[i]] = SL_BANNED;
    sl_sampler_filter(row, vocab, &g->sampler, e->scratch);
    id = sl_sampler_draw(row, vocab, &g->rng);
    if (is_end(e, id)) {
        sl_batcher_end(e, g, SL_GEN_STOP, NULL);
        return 0;
    }
    if (g->rule != NULL && g->rule->accept(g->rule->opaque, id, err) != 0)
        return -1;
    sl_row_tell(e, g, id);
    atomic_fetch_add_explicit(&g->n_said, 1, memory_order_relaxed);
    if (sl_ids_add(&g->ids, id, err) != 0 ||
        g->sink->token(g->opaque, &g->token, &g->enough, err) != 0)
        return -1;
    if (g->enough || (g->rule != NULL && g->rule->over(g->rule->opaque)))
        sl_batcher_end(e, g, SL_GEN_ENOUGH, NULL);
    else if (said + 1 == g->max_new)
        sl_batcher_end(e, g, SL_GEN_LENGTH, NULL);
    return 0;
}

int sl_line_feed(struct sl_batcher *e, struct sl_gen *g, float *row,
                 struct sl_error *err)
{
    uint32_t first = g->fed + g->n_fed - g->n_rows;

    g->fed += g->n_fed;
    if (g->fed <= g->prompt_len)
        atomic_store_explicit(&g->n_read, g->fed, memory_order_relaxed);
    for (uint32_t i = 0; i < g->n_rows; i++, row += e->c.lm->vocab) {
        uint32_t next = first + i + 1;

        if (next < g->prompt_len && next < g->score_from)
            continue;
        if (sl_row_check(row, e->c.lm->vocab, err) != 0)
            return -1;
        sl_row_keep(e, g, row);
        if (next < g->prompt_len) {
            sl_row_tell(e, g, g->ids.v[next]);
            if (g->sink->scored(g->opaque, next, &g->token, err) != 0)
                return -1;
        } else if (g->max_new > 0) {
            return choose(e, g, row, err);
        }
    }
    if (g->max_new == 0 && g->fed == g->prompt_len)
        sl_batcher_end(e, g, SL_GEN_LENGTH, NULL);
    return 0;
}
