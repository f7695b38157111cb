#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/decode/blank.h"

size_t sl_blank_fed(const struct sl_blank *p)
{
    return p->c->hp->causal ? p->mask_at : p->context->n + p->pieces->ids.n + 1;
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
    return 0;
}

int sl_blank_begin(struct sl_blank *p, struct sl_error *err)
{
    p->running = true;
    p->done = false;
    p->n_answers = 0;
    for (size_t i = 0; i < p->strategy->room(p->c->config); i++)
        p->answers[i].ids.n = 0;
    if (make_prefill(p, err) != 0)
        return -1;
    return p->strategy->begin(p, err);
}

static void want_prefill(struct sl_blank *p, struct sl_lm_item *item)
{
    size_t n = sl_blank_fed(p);

    *item = (struct sl_lm_item){
        .seq = p->first_seq,
        .ids = p->prefill,
        .positions = p->prefill + n,
        .blocks = p->c->hp->position_2d ? p->prefill + 2 * n : NULL,
        .n = (uint32_t)n,
        .n_context = sl_blank_context(p),
        .n_logits = 1,
    };
    p->n_positions = (uint32_t)n;
    p->n_rows = 1;
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
                  const uint32_t *drafts, struct sl_error *err)
{
    if (p->prefill == NULL)
        return p->strategy->want(p, items, drafts, err);
    want_prefill(p, items);
    return 0;
}

int sl_blank_check(struct sl_blank *p, const float *logits, size_t n_rows,
                   struct sl_error *err)
{
    size_t n = n_rows * p->c->lm->vocab;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(logits[i]))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the model's output is not a number (logit %zu of "
                           "%zu): damaged weights? 'sluice verify' tells",
                           i, n);
    }
    p->n_generated++;
    p->n_tokens++;
    if (p->first_token_ns == 0)
        p->first_token_ns = sl_clock_ns() - p->c->start_ns;
    return 0;
}

int sl_blank_feed(struct sl_blank *p, float *logits, struct sl_error *err)
{
    int rc;

    p->n_tokens = 0;
    rc = p->strategy->feed(p, logits, err);
    free(p->prefill);
    p->prefill = NULL;
    return rc;
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
