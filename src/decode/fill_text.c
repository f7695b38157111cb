#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/decode/blank.h"

/* Index of the first mark from there on that is filled, n if there is none. */
static size_t find_mark(const struct sl_text *t, const struct sl_ids *ids,
                        size_t from)
{
    while (from < ids->n && !sl_prompt_fills(t->io->prompt, ids->v[from]))
        from++;
    return from;
}

/* Each id goes out once and in order: those that a strategy which speaks has
 * handed out itself lie before `emitted`. */
static int emit_until(struct sl_text *t, size_t end, bool blank,
                      struct sl_error *err)
{
    const struct sl_fill_sink *sink = t->pass.sink;
    size_t begin = t->emitted;

    if (sink == NULL || end <= begin)
        return 0;
    t->emitted = end;
    return sink->ids(sink->opaque, t->ids.v + begin, end - begin, blank, err);
}

/* text with its mark replaced by an answer of the pass */
static int make_answer(struct sl_fill_answer *a, const struct sl_text *t,
                       const struct sl_blank_answer *from, struct sl_error *err)
{
    size_t at = t->shown_at;

    a->blanks = sl_alloc_array(t->n_blanks + 1, sizeof *a->blanks);
    if (a->blanks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for an answer");
    if (t->n_blanks > 0)
        memcpy(a->blanks, t->blanks, t->n_blanks * sizeof *a->blanks);
    a->blanks[t->n_blanks] = (struct sl_fill_span){at, at + from->ids.n};
    a->n_blanks = t->n_blanks + 1;
    a->score = from->score;
    if (sl_ids_append(&a->ids, t->ids.v, at, err) != 0 ||
        sl_ids_append(&a->ids, from->ids.v, from->ids.n, err) != 0)
        return -1;
    return sl_ids_append(&a->ids, t->ids.v + at + 1, t->ids.n - at - 1, err);
}

static void drop_answers(struct sl_fill_result *r)
{
    for (size_t i = 0; i < r->n_answers; i++) {
        sl_ids_fini(&r->answers[i].ids);
        free(r->answers[i].blanks);
    }
    r->n_answers = 0;
}

void sl_fill_result_fini(struct sl_fill_result *r)
{
    drop_answers(r);
    free(r->answers);
    *r = (struct sl_fill_result){0};
}

/* Makes the first answer the text that goes on. */
static int adopt_best(struct sl_text *t, struct sl_error *err)
{
    const struct sl_fill_answer *best = &t->result.answers[0];
    struct sl_fill_span *blanks =
        sl_alloc_array(best->n_blanks, sizeof *blanks);

    if (blanks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for an answer");
    memcpy(blanks, best->blanks, best->n_blanks * sizeof *blanks);
    free(t->blanks);
    t->blanks = blanks;
    t->n_blanks = best->n_blanks;
    t->ids.n = 0;
    return sl_ids_append(&t->ids, best->ids.v, best->ids.n, err);
}

/* The next mark of the text as it is shown, and the same one of the context. */
static void find_blank(struct sl_text *t)
{
    size_t from = t->n_blanks > 0 ? t->pass.mask_at + 1 : 0;

    t->shown_at = find_mark(t, &t->ids, 0);
    t->pass.mask_at = t->pass.c->config->pieces
                          ? find_mark(t, &t->context, from)
                          : t->shown_at;
}

/* What was made stands behind the context for the blanks to come. */
static int keep_piece(struct sl_text *t, const struct sl_ids *answer,
                      struct sl_error *err)
{
    struct sl_pieces *k = &t->pieces;
    int32_t sop = t->pass.c->hp->text.special.sop;

    for (size_t i = 0; i <= answer->n; i++) {
        if (sl_ids_add(&k->ids, i == 0 ? sop : answer->v[i - 1], err) != 0 ||
            sl_ids_add(&k->positions, (int32_t)t->pass.mask_at, err) != 0 ||
            sl_ids_add(&k->blocks, (int32_t)i + 1, err) != 0)
            return -1;
    }
    return 0;
}

/* What stands before the blank goes out first, then a call without ids, which
 * says that an answer comes. */
static int begin_blank(struct sl_text *t, struct sl_error *err)
{
    const struct sl_fill_config *config = t->pass.c->config;
    struct sl_blank *p = &t->pass;

    if (emit_until(t, t->shown_at, false, err) != 0 ||
        (!t->io->only_scored &&
         sl_fill_check_length(p->context->n + t->pieces.ids.n, p->c->hp, config,
                              err) != 0))
        return -1;
    p->given = t->n_blanks == 0 ? t->io->given : NULL;
    p->score_from = t->n_blanks == 0 ? t->io->score_from : 0;
    if (p->sink != NULL &&
        p->sink->ids(p->sink->opaque, NULL, 0, true, err) != 0)
        return -1;
    p->max_new = 0;
    if (!t->io->only_scored)
        p->max_new = (uint32_t)(config->out_seq_length - sl_blank_fed(p));
    if (t->io->prompt->max_new > 0 && t->io->prompt->max_new < p->max_new)
        p->max_new = t->io->prompt->max_new;
    if (sl_blank_begin(p, err) != 0)
        return -1;
    if (t->n_blanks > 0)
        return 0;
    t->io->n_prompt = (uint32_t)sl_blank_fed(p);
    t->io->n_kept = t->io->n_read = p->n_read;
    return 0;
}

/* The text goes on with the best of the pass's answers. */
static int end_blank(struct sl_text *t, struct sl_error *err)
{
    struct sl_fill_result *r = &t->result;
    struct sl_blank *p = &t->pass;

    if (sl_blank_end(p, err) != 0)
        return -1;
    sl_blank_close(p);
    drop_answers(r);
    for (size_t i = 0; i < p->n_answers; i++) {
        r->n_answers++;
        if (make_answer(&r->answers[i], t, &p->answers[i], err) != 0)
            return -1;
    }
    if (p->c->config->pieces && keep_piece(t, &p->answers[0].ids, err) != 0)
        return -1;
    if (adopt_best(t, err) != 0)
        return -1;
    if (p->strategy->speaks) /* its tokens were handed out one by one */
        t->emitted += p->answers[0].ids.n;
    return emit_until(t, t->blanks[t->n_blanks - 1].end, true, err);
}

static void drop_last_eos(struct sl_ids *ids, const struct sl_hparams *hp)
{
    if (ids->n > 0 && ids->v[ids->n - 1] == hp->text.special.eos)
        ids->n--;
}

static int end_text(struct sl_text *t, struct sl_error *err)
{
    const struct sl_hparams *hp = t->pass.c->hp;
    struct sl_fill_result *r = &t->result;

    drop_last_eos(&t->ids, hp);
    if (emit_until(t, t->ids.n, false, err) != 0)
        return -1;
    if (r->n_answers == 0) { /* no mark at all: the text is the answer */
        r->n_answers = 1;
        if (sl_ids_append(&r->answers[0].ids, t->ids.v, t->ids.n, err) != 0)
            return -1;
    }
    for (size_t i = 0; i < r->n_answers; i++)
        drop_last_eos(&r->answers[i].ids, hp);
    r->n_generated = t->pass.n_generated;
    r->first_token_ns = t->pass.first_token_ns;
    t->io->result = *r;
    t->io->ended = true;
    *r = (struct sl_fill_result){0};
    t->seq.over = true;
    return 0;
}

static bool has_enough(const struct sl_text *t)
{
    return t->io->rules != NULL && t->io->rules->enough;
}

static int text_next(struct sl_sequence *seq, struct sl_error *err)
{
    struct sl_text *t = (struct sl_text *)seq;

    seq->n_items = 0;
    seq->n_positions = seq->n_rows = 0;
    if (!t->pass.running) {
        find_blank(t);
        if (t->shown_at == t->ids.n || has_enough(t))
            return end_text(t, err);
        if (begin_blank(t, err) != 0)
            return -1;
    }
    seq->reads = t->pass.prefill != NULL;
    seq->n_items = sl_blank_n_items(&t->pass);
    seq->n_positions = seq->n_rows = (uint32_t)seq->n_items;
    if (seq->reads)
        seq->n_positions = sl_blank_part(&t->pass, &seq->n_rows);
    return 0;
}

static void text_offer(struct sl_sequence *seq, struct sl_offer *offers,
                       uint32_t most)
{
    sl_blank_offer(&((struct sl_text *)seq)->pass, offers, most);
}

static int text_want(struct sl_sequence *seq, struct sl_lm_item *items,
                     const struct sl_deal *drafts, struct sl_error *err)
{
    struct sl_text *t = (struct sl_text *)seq;

    if (sl_blank_want(&t->pass, items, drafts, err) != 0)
        return -1;
    seq->n_positions = t->pass.n_positions;
    seq->n_rows = t->pass.n_rows;
    return 0;
}

/* Where requests stand alone in a batch a failure is this text's and not the
 * pass's. */
static int text_feed(struct sl_sequence *seq, float *logits,
                     struct sl_error *err)
{
    struct sl_text *t = (struct sl_text *)seq;
    int rc = sl_blank_feed(&t->pass, logits, err);

    seq->n_tokens = t->pass.n_tokens;
    if (t->n_blanks == 0)
        t->io->n_read = seq->reads ? t->pass.n_read : t->io->n_prompt;
    if (rc == 0 && t->pass.done)
        rc = end_blank(t, err);
    if (rc == 0 || !t->pass.c->alone)
        return rc;
    sl_text_fail(t, err);
    return 0;
}

static const struct sl_sequence_ops text_ops = {
    .next = text_next,
    .offer = text_offer,
    .want = text_want,
    .feed = text_feed,
};

int sl_text_open(struct sl_text *t, const struct sl_fill_common *c,
                 struct sl_fill_text *io, struct sl_error *err)
{
    struct sl_blank *p = &t->pass;
    size_t n = sl_strategy_of(c->config)->room(c->config);

    t->io = io;
    t->seq.ops = &text_ops;
    p->c = c;
    p->strategy = sl_strategy_of(c->config);
    p->rng = io->rng;
    p->sink = io->sink;
    p->gmask = io->prompt->gmask;
    p->rules = io->rules;
    p->scored = io->scored;
    p->context = c->config->pieces ? &t->context : &t->ids;
    p->pieces = &t->pieces;
    t->result.answers = sl_zalloc_array(n, sizeof *t->result.answers);
    p->answers = sl_zalloc_array(n, sizeof *p->answers);
    if (t->result.answers == NULL || p->answers == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu answers", n);
    if (c->config->pieces &&
        sl_ids_append(&t->context, io->prompt->ids.v, io->prompt->ids.n, err))
        return -1;
    return sl_ids_append(&t->ids, io->prompt->ids.v, io->prompt->ids.n, err);
}

void sl_text_fail(struct sl_text *t, const struct sl_error *err)
{
    t->pass.spoilt = err->code != SL_ERR_INTERRUPTED;
    t->io->err = *err;
    t->io->ended = t->io->failed = t->seq.over = true;
}

int sl_text_interrupt(struct sl_text *t, struct sl_error *err)
{
    t->result.interrupted = true;
    if (t->pass.running && end_blank(t, err) != 0)
        return -1;
    return end_text(t, err);
}

void sl_text_close(struct sl_text *t)
{
    sl_blank_close(&t->pass);
    for (size_t i = 0;
         t->pass.answers && i < t->pass.strategy->room(t->pass.c->config); i++)
        sl_ids_fini(&t->pass.answers[i].ids);
    free(t->pass.answers);
    free(t->blanks);
    sl_ids_fini(&t->ids);
    sl_ids_fini(&t->context);
    sl_ids_fini(&t->pieces.ids);
    sl_ids_fini(&t->pieces.positions);
    sl_ids_fini(&t->pieces.blocks);
    sl_fill_result_fini(&t->result);
    t->pass.answers = NULL;
    t->blanks = NULL;
}
