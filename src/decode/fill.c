#include "config.h"

#include <stdlib.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/decode/blank.h"

/* Everything that must not be generated: marks and other control tokens (a
 * mark would be filled again without end, the reference fails to print
 * [dBLOCK]), image codes, the padding rows of the embedding. */
static int list_banned(struct sl_ids *banned, const struct sl_hparams *hp,
                       uint32_t vocab, struct sl_error *err)
{
    const struct sl_special_ids *s = &hp->text.special;
    const int32_t control[] = {s->mask, s->gmask, s->smask, s->eod,
                               s->sop,  s->enc,   s->dblock};
    uint32_t end = hp->text.n_tokens > 0 ? hp->text.n_tokens : vocab;

    for (uint32_t i = 0; i < hp->text.n_image_tokens && i < vocab; i++) {
        if (sl_ids_add(banned, (int32_t)i, err) != 0)
            return -1;
    }
    for (uint32_t i = end; i < vocab; i++) {
        if (sl_ids_add(banned, (int32_t)i, err) != 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof control / sizeof *control; i++) {
        if (control[i] >= 0 && (uint32_t)control[i] < vocab &&
            sl_ids_add(banned, control[i], err) != 0)
            return -1;
    }
    return 0;
}

/* A batch on its way. */
struct run {
    const struct sl_fill_batch *b;
    struct sl_fill_common common;
    struct sl_ids banned;
    struct sl_ids ends;
    struct sl_text *texts;    /* (n_texts) */
    struct sl_lm_item *items; /* (n_texts * room) of one forward pass */
    size_t n_items;
    float *logits; /* (n_texts * room, vocab) */
};

static int list_ends(struct sl_ids *ends, const struct sl_fill_batch *b,
                     struct sl_error *err)
{
    const struct sl_special_ids *special = &b->hp->text.special;

    if ((special->eop >= 0 && sl_ids_add(ends, special->eop, err) != 0) ||
        (special->eos >= 0 && sl_ids_add(ends, special->eos, err) != 0))
        return -1;
    return b->stops == NULL
               ? 0
               : sl_ids_append(ends, b->stops->v, b->stops->n, err);
}

static int open_run(struct run *r, struct sl_error *err)
{
    const struct sl_fill_batch *b = r->b;
    uint32_t vocab = b->lm->vocab;
    size_t n_rows, n_logits;

    for (size_t i = 0; i < b->n_texts; i++)
        b->texts[i].ended = b->texts[i].failed = false;
    if (sl_mul_size(&n_rows, b->n_texts, sl_fill_room(b->config)) &&
        sl_mul_size(&n_logits, n_rows, vocab)) {
        r->logits = sl_alloc_array(n_logits, sizeof *r->logits);
        r->items = sl_alloc_array(n_rows, sizeof *r->items);
    }
    r->common.scratch = malloc(sl_sampler_scratch_bytes(vocab));
    r->texts = sl_zalloc_array(b->n_texts, sizeof *r->texts);
    if (!r->logits || !r->items || !r->common.scratch || !r->texts)
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory for %zu texts with %u logits each",
                       b->n_texts, vocab);
    if (list_banned(&r->banned, b->hp, vocab, err) != 0 ||
        list_ends(&r->ends, b, err) != 0)
        return -1;
    r->common = (struct sl_fill_common){
        .lm = b->lm,
        .hp = b->hp,
        .config = b->config,
        .ends = r->ends.v,
        .n_ends = r->ends.n,
        .banned = r->banned.v,
        .n_banned = r->banned.n,
        .scratch = r->common.scratch,
        .start_ns = sl_clock_ns(),
    };
    for (size_t i = 0; i < b->n_texts; i++) {
        if (sl_text_open(&r->texts[i], &r->common, &b->texts[i], err) != 0)
            return -1;
    }
    return 0;
}

static void close_run(struct run *r)
{
    for (size_t i = 0; r->texts != NULL && i < r->b->n_texts; i++)
        sl_text_close(&r->texts[i]);
    free(r->texts);
    free(r->items);
    free(r->logits);
    free(r->common.scratch);
    sl_ids_fini(&r->banned);
    sl_ids_fini(&r->ends);
}

/* What every text feeds next. What is wrong with one of them ends that one. */
static int collect(struct run *r, struct sl_error *err)
{
    const struct sl_fill_batch *b = r->b;

    r->n_items = 0;
    for (size_t i = 0; i < b->n_texts; i++) {
        struct sl_text *t = &r->texts[i];

        if (t->over)
            continue;
        if (sl_text_want(t, r->items + r->n_items, err) != 0) {
            if (err->code != SL_ERR_USAGE)
                return -1;
            b->texts[i].err = *err;
            b->texts[i].ended = b->texts[i].failed = t->over = true;
        }
        r->n_items += t->n_wanted;
        if (!t->over)
            continue;
        sl_text_close(t);
        if (b->ended != NULL && b->ended(b->opaque, i, err) != 0)
            return -1;
    }
    return 0;
}

static int interrupt(struct run *r, struct sl_error *err)
{
    const struct sl_fill_batch *b = r->b;

    r->n_items = 0;
    for (size_t i = 0; i < b->n_texts; i++) {
        if (r->texts[i].over)
            continue;
        if (sl_text_interrupt(&r->texts[i], err) != 0 ||
            (b->ended != NULL && b->ended(b->opaque, i, err) != 0))
            return -1;
    }
    return 0;
}

/* One pass over the weights. */
static int step(struct run *r, struct sl_error *err)
{
    struct sl_lm *lm = r->b->lm;
    float *row = r->logits;

    if (lm->ops->forward(lm, r->items, r->n_items, r->logits, err) != 0)
        return err->code == SL_ERR_INTERRUPTED ? interrupt(r, err) : -1;
    for (size_t i = 0; i < r->b->n_texts; i++) {
        struct sl_text *t = &r->texts[i];

        if (t->over)
            continue;
        if (sl_text_feed(t, row, err) != 0)
            return -1;
        row += t->n_wanted * lm->vocab;
    }
    return collect(r, err);
}

int sl_fill_all(const struct sl_fill_batch *batch, struct sl_error *err)
{
    struct run r = {.b = batch};
    int rc = open_run(&r, err);

    if (rc == 0)
        rc = collect(&r, err);
    while (rc == 0 && r.n_items > 0)
        rc = step(&r, err);
    close_run(&r);
    return rc;
}

int sl_fill(struct sl_fill_result *result, struct sl_lm *lm,
            const struct sl_prompt *prompt, const struct sl_hparams *hp,
            const struct sl_fill_config *config, struct sl_rng *rng,
            const struct sl_fill_sink *sink, struct sl_error *err)
{
    struct sl_fill_text text = {.prompt = prompt, .rng = rng, .sink = sink};
    struct sl_fill_batch batch = {
        .lm = lm,
        .hp = hp,
        .config = config,
        .texts = &text,
        .n_texts = 1,
    };

    if (sl_fill_all(&batch, err) != 0)
        return -1;
    if (text.failed) {
        *err = text.err;
        return -1;
    }
    *result = text.result;
    return 0;
}
