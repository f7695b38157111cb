#include "config.h"

#include <stdlib.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/decode/blank.h"

size_t sl_blank_n_given(const struct sl_blank *p)
{
    return p->given != NULL ? p->given->n : 0;
}

size_t sl_blank_fed(const struct sl_blank *p)
{
    if (p->c->hp->causal)
        return p->mask_at;
    return p->context->n + p->pieces->ids.n + 1 + sl_blank_n_given(p);
}

uint32_t sl_blank_context(const struct sl_blank *p)
{
    return p->c->hp->causal ? 0 : (uint32_t)p->context->n;
}

int32_t sl_blank_position(const struct sl_blank *p, size_t n, int32_t *block)
{
    bool two = p->c->hp->position_2d;

    *block = 0;
    if (p->c->hp->causal)
        return (int32_t)(p->mask_at + n);
    n += sl_blank_n_given(p);
    /* 2-D: the mask's place for all that is generated, and for [gMASK] too;
     * the second position counts from 1 at [sop]. */
    if (two)
        *block = (int32_t)(n + 2);
    if (two || !p->gmask)
        return (int32_t)p->mask_at;
    return (int32_t)(p->context->n + 1 + n);
}

/* Lays out the first thing to be fed: context and [sop]. */
static int make_prefill(struct sl_blank *p, struct sl_error *err)
{
    const struct sl_hparams *hp = p->c->hp;
    const struct sl_pieces *before = p->pieces;
    size_t n = p->context->n, fed = sl_blank_fed(p);
    int32_t *ids = sl_alloc_array(fed, 3 * sizeof *ids), *positions, *blocks;

    if (ids == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu positions",
                       fed);
    positions = ids + fed;
    blocks = positions + fed;
    for (size_t i = 0; i < n && i < fed; i++) {
        ids[i] = p->context->v[i];
        positions[i] = (int32_t)i;
        blocks[i] = 0;
    }
    p->prefill = ids;
    if (hp->causal)
        return 0;
    for (size_t i = 0; i < before->ids.n; i++, n++) {
        ids[n] = before->ids.v[i];
        positions[n] = before->positions.v[i];
        blocks[n] = before->blocks.v[i];
    }
    ids[n] = hp->text.special.sop;
    positions[n] = (int32_t)(p->gmask && !hp->position_2d ? n : p->mask_at);
    blocks[n] = 1;
    for (size_t i = 0; i < sl_blank_n_given(p); i++) {
        bool on = p->gmask && !hp->position_2d;

        ids[++n] = p->given->v[i];
        positions[n] = on ? (int32_t)n : (int32_t)p->mask_at;
        blocks[n] = (int32_t)i + 2;
    }
    return 0;
}

int sl_blank_begin(struct sl_blank *p, struct sl_error *err)
{
    p->running = true;
    p->done = false;
    p->n_answers = 0;
    p->n_read = p->n_part = 0;
    for (size_t i = 0; i < p->strategy->room(p->c->config); i++)
        p->answers[i].ids.n = 0;
    if (make_prefill(p, err) != 0)
        return -1;
    return p->strategy->begin(p, err);
}

/* Row j, of the id j, tells what may be id j + 1; the last of a part is there
 * whether it is of use or not. */
static uint32_t rows_of(const struct sl_blank *p, uint32_t from, uint32_t to)
{
    uint32_t first = to - 1, scored = p->score_from;

    if (scored > 0 && scored - 1 < first)
        first = scored - 1 > from ? scored - 1 : from;
    return to - first;
}

/* How much of what is read goes into one pass is a matter of the text alone,
 * so that nothing else has a say in what it comes to. What is seen in both
 * directions goes in one piece. */
static void set_part(struct sl_blank *p)
{
    uint32_t n = (uint32_t)sl_blank_fed(p) - p->n_read;
    uint32_t most = p->c->part_positions, rows = p->c->part_rows;
    uint32_t context = sl_blank_context(p);

    if (most > 0 && n > most - p->n_read % most)
        n = most - p->n_read % most;
    while (p->score_from > 0 && rows > 0 && n > 1 &&
           rows_of(p, p->n_read, p->n_read + n) > rows)
        n--;
    if (p->n_read < context && p->n_read + n < context)
        n = context - p->n_read;
    p->n_part = n;
}

uint32_t sl_blank_part(struct sl_blank *p, uint32_t *rows)
{
    if (p->n_part == 0)
        set_part(p);
    *rows = rows_of(p, p->n_read, p->n_read + p->n_part);
    return p->n_part;
}

static void want_prefill(struct sl_blank *p, struct sl_lm_item *item)
{
    size_t n = sl_blank_fed(p), at = p->n_read;

    p->n_positions = sl_blank_part(p, &p->n_rows);
    *item = (struct sl_lm_item){
        .seq = p->first_seq,
        .ids = p->prefill + at,
        .positions = p->prefill + n + at,
        .blocks = p->c->hp->position_2d ? p->prefill + 2 * n + at : NULL,
        .n = p->n_positions,
        .n_context = sl_blank_context(p),
        .n_logits = p->n_rows,
        .reads = true,
    };
}

size_t sl_blank_n_items(const struct sl_blank *p)
{
    return p->prefill != NULL ? 1 : p->strategy->n_live(p);
}

void sl_blank_offer(struct sl_blank *p, struct sl_offer *offers, uint32_t most)
{
    if (p->prefill == NULL && p->strategy->offer != NULL)
        p->strategy->offer(p, offers, most);
}

int sl_blank_want(struct sl_blank *p, struct sl_lm_item *items,
                  const struct sl_deal *drafts, struct sl_error *err)
{
    if (p->prefill == NULL)
        return p->strategy->want(p, items, drafts, err);
    want_prefill(p, items);
    return 0;
}

int sl_blank_check(struct sl_blank *p, const float *logits, size_t n_rows,
                   struct sl_error *err)
{
    uint32_t vocab = p->c->lm->vocab;

    for (size_t i = 0; i < n_rows; i++) {
        if (sl_row_check(logits + i * vocab, vocab, err) != 0)
            return -1;
    }
    p->n_generated++;
    p->n_tokens++;
    if (p->first_token_ns == 0)
        p->first_token_ns = sl_clock_ns() - p->c->start_ns;
    return 0;
}

/* What the model thought of the ids that were read. */
static int score(struct sl_blank *p, const float *row, struct sl_error *err)
{
    const struct sl_fill_common *c = p->c;
    uint32_t at = p->n_read + p->n_part - p->n_rows;

    for (uint32_t i = 0; i < p->n_rows; i++, row += c->lm->vocab) {
        uint32_t next = at + i + 1;

        if (p->score_from == 0 || next < p->score_from ||
            next >= sl_blank_fed(p))
            continue;
        if (sl_row_check(row, c->lm->vocab, err) != 0)
            return -1;
        sl_rules_look(p->rules, c->room, row);
        sl_rules_tell(p->rules, c->room, p->prefill[next]);
        if (p->scored(p->sink->opaque, next, err) != 0)
            return -1;
    }
    return 0;
}

/* A prompt may be read in parts; the last row of the last part chooses the
 * first token. */
static int feed_prefill(struct sl_blank *p, float *logits, struct sl_error *err)
{
    size_t fed = sl_blank_fed(p);

    if (score(p, logits, err) != 0)
        return -1;
    p->n_read += p->n_part;
    p->n_part = 0;
    if (p->n_read < fed)
        return 0;
    if (p->max_new == 0)
        p->done = true;
    else if (p->strategy->feed(
                 p, logits + (size_t)(p->n_rows - 1) * p->c->lm->vocab, err))
        return -1;
    free(p->prefill);
    p->prefill = NULL;
    return 0;
}

int sl_blank_feed(struct sl_blank *p, float *logits, struct sl_error *err)
{
    p->n_tokens = 0;
    if (p->prefill != NULL)
        return feed_prefill(p, logits, err);
    return p->strategy->feed(p, logits, err);
}

int sl_blank_end(struct sl_blank *p, struct sl_error *err)
{
    return p->strategy->end(p, err);
}

void sl_blank_close(struct sl_blank *p)
{
    if (!p->running)
        return;
    p->running = false;
    free(p->prefill);
    p->prefill = NULL;
    p->strategy->close(p);
}
