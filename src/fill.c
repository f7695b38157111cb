#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/fill_pass.h"

static size_t room_of(const struct sl_fill_config *c)
{
    return c->strategy == SL_STRATEGY_BEAM ? c->n_beams : 1;
}

/* Index of the first mark of the kind, n if there is none. */
static size_t find_mark(const struct sl_ids *ids, int32_t mark)
{
    size_t i = 0;

    while (i < ids->n && ids->v[i] != mark)
        i++;
    return i;
}

/* Does a text of n ids leave room for an answer? */
static int check_length(size_t n, const struct sl_hparams *hp,
                        const struct sl_fill_config *config,
                        struct sl_error *err)
{
    if (n > hp->max_positions)
        return sl_fail(err, SL_ERR_USAGE,
                       "text too long: %zu tokens, the model's longest "
                       "sequence is %u",
                       n, hp->max_positions);
    if (config->out_seq_length <= n + 1)
        return sl_fail(err, SL_ERR_USAGE,
                       "text too long: %zu tokens with [sop] leave no room "
                       "for an answer within --out-seq-length %u; shorten "
                       "the text or raise it to at least %zu",
                       n + 1, config->out_seq_length, n + 2);
    return 0;
}

static uint32_t largest(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

int sl_fill_workload(struct sl_workload *load, const struct sl_prompt *prompt,
                     const struct sl_hparams *hp,
                     const struct sl_fill_config *config, struct sl_error *err)
{
    uint32_t beams = (uint32_t)room_of(config), first, shared;
    size_t n_marks = 0;

    for (size_t i = 0; prompt != NULL && i < prompt->ids.n; i++)
        n_marks += prompt->ids.v[i] == prompt->mask;
    if (prompt != NULL && n_marks == 0) {
        /* nothing to generate: the least there can be */
        load->n_sequences = largest(load->n_sequences, 1);
        load->max_tokens = largest(load->max_tokens, 2);
        load->pass_positions = largest(load->pass_positions, 1);
        load->pass_logits = largest(load->pass_logits, 1);
        return 0;
    }
    /* The longest context: one token less than a pass may hold. With several
     * blanks the text grows from pass to pass, up to that at most; a blank
     * that stays empty makes it shorter by its mark. */
    first = largest(config->out_seq_length, 2) - 1;
    if (first > hp->max_positions)
        first = hp->max_positions + 1;
    shared = 2;
    if (prompt != NULL) {
        if (check_length(prompt->ids.n, hp, config, err) != 0)
            return -1;
        shared = (uint32_t)(prompt->ids.n + 1 - (n_marks - 1));
        if (n_marks == 1)
            first = (uint32_t)prompt->ids.n + 1;
    }
    if (load->shared_tokens == 0 || shared < load->shared_tokens)
        load->shared_tokens = shared;
    load->n_sequences = largest(load->n_sequences, beams);
    load->max_tokens = largest(load->max_tokens, config->out_seq_length);
    load->pass_positions = largest(load->pass_positions, largest(first, beams));
    load->pass_logits = largest(load->pass_logits, beams);
    return 0;
}

/* Everything that must not be generated: marks and other control tokens (a
 * mark would be filled again without end, the reference fails to print
 * [dBLOCK]), image codes, the padding rows of the embedding. */
static int list_banned(struct sl_ids *banned, const struct sl_hparams *hp,
                       uint32_t vocab, struct sl_error *err)
{
    const struct sl_special_ids *s = &hp->special;
    const int32_t control[] = {s->mask, s->gmask, s->smask, s->eod,
                               s->sop,  s->enc,   s->dblock};
    uint32_t end = hp->n_tokens > 0 ? hp->n_tokens : vocab;

    for (uint32_t i = 0; i < hp->n_image_tokens && i < vocab; i++) {
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

int32_t sl_pass_position(const struct sl_pass *p, size_t n, int32_t *block)
{
    *block = 0;
    /* 2-D: the mask's place for all that is generated, and for [gMASK] too;
     * the second position counts from 1 at [sop]. */
    if (p->hp->position_2d)
        *block = (int32_t)(n + 2);
    if (p->hp->position_2d || !p->gmask)
        return (int32_t)p->mask_at;
    return (int32_t)(p->context->n + 1 + n);
}

bool sl_pass_stopped(struct sl_pass *p, const struct sl_error *err)
{
    p->interrupted = err->code == SL_ERR_INTERRUPTED;
    return p->interrupted;
}

int sl_pass_check(struct sl_pass *p, size_t n_rows, struct sl_error *err)
{
    size_t n = n_rows * p->lm->vocab;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(p->logits[i]))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the model's output is not a number (logit %zu of "
                           "%zu): damaged weights? 'sluice verify' tells",
                           i, n);
    }
    p->n_generated++;
    if (p->first_token_ns == 0)
        p->first_token_ns = sl_clock_ns() - p->start_ns;
    return 0;
}

int sl_pass_prefill(struct sl_pass *p, uint32_t seq, struct sl_error *err)
{
    size_t n = p->context->n;
    int32_t *room = sl_alloc_array(n + 1, 3 * sizeof *room);
    int32_t *ids = room, *positions, *blocks;
    struct sl_lm_item item;
    int rc;

    if (room == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu positions",
                       n + 1);
    positions = ids + n + 1;
    blocks = positions + n + 1;
    for (size_t i = 0; i < n; i++) {
        ids[i] = p->context->v[i];
        positions[i] = (int32_t)i;
        blocks[i] = 0;
    }
    ids[n] = p->hp->special.sop;
    positions[n] = (int32_t)(p->gmask && !p->hp->position_2d ? n : p->mask_at);
    blocks[n] = 1;
    item = (struct sl_lm_item){
        .seq = seq,
        .ids = ids,
        .positions = positions,
        .blocks = p->hp->position_2d ? blocks : NULL,
        .n = (uint32_t)(n + 1),
        .n_context = (uint32_t)n,
        .n_logits = 1,
    };
    rc = p->lm->ops->forward(p->lm, &item, 1, p->logits, err);
    free(room);
    return rc;
}

/* What fill works with from pass to pass. */
struct state {
    struct sl_fill_result *result;
    struct sl_pass pass;
    int32_t mask;
    struct sl_ids text;          /* the best answer so far */
    struct sl_fill_span *blanks; /* of it */
    size_t n_blanks;
    size_t emitted; /* ids of text that went to the sink */
};

static int emit_until(struct state *s, size_t end, bool blank,
                      struct sl_error *err)
{
    const struct sl_fill_sink *sink = s->pass.sink;
    size_t begin = s->emitted;

    if (sink == NULL || end <= begin)
        return 0;
    s->emitted = end;
    return sink->ids(sink->opaque, s->text.v + begin, end - begin, blank, err);
}

/* text with its mark replaced by an answer of the pass */
static int make_answer(struct sl_fill_answer *a, const struct state *s,
                       const struct sl_pass_answer *from, struct sl_error *err)
{
    size_t at = s->pass.mask_at;

    a->blanks = sl_alloc_array(s->n_blanks + 1, sizeof *a->blanks);
    if (a->blanks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for an answer");
    if (s->n_blanks > 0)
        memcpy(a->blanks, s->blanks, s->n_blanks * sizeof *a->blanks);
    a->blanks[s->n_blanks] = (struct sl_fill_span){at, at + from->ids.n};
    a->n_blanks = s->n_blanks + 1;
    a->score = from->score;
    if (sl_ids_append(&a->ids, s->text.v, at, err) != 0 ||
        sl_ids_append(&a->ids, from->ids.v, from->ids.n, err) != 0)
        return -1;
    return sl_ids_append(&a->ids, s->text.v + at + 1, s->text.n - at - 1, err);
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
static int adopt_best(struct state *s, struct sl_error *err)
{
    const struct sl_fill_answer *best = &s->result->answers[0];
    struct sl_fill_span *blanks =
        sl_alloc_array(best->n_blanks, sizeof *blanks);

    if (blanks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for an answer");
    memcpy(blanks, best->blanks, best->n_blanks * sizeof *blanks);
    free(s->blanks);
    s->blanks = blanks;
    s->n_blanks = best->n_blanks;
    s->text.n = 0;
    return sl_ids_append(&s->text, best->ids.v, best->ids.n, err);
}

static int fill_one(struct state *s, struct sl_error *err)
{
    struct sl_pass *p = &s->pass;
    struct sl_fill_result *r = s->result;
    int rc;

    if (emit_until(s, p->mask_at, false, err) != 0 ||
        check_length(s->text.n, p->hp, p->config, err) != 0)
        return -1;
    if (p->sink != NULL &&
        p->sink->ids(p->sink->opaque, NULL, 0, true, err) != 0)
        return -1;
    p->context = &s->text;
    p->max_new = (uint32_t)(p->config->out_seq_length - (s->text.n + 1));
    p->n_answers = 0;
    for (size_t i = 0; i < room_of(p->config); i++)
        p->answers[i].ids.n = 0;
    rc = p->config->strategy == SL_STRATEGY_BEAM ? sl_pass_run_beam(p, err)
                                                 : sl_pass_run_base(p, err);
    if (rc != 0)
        return -1;
    drop_answers(r);
    for (size_t i = 0; i < p->n_answers; i++) {
        r->n_answers++;
        if (make_answer(&r->answers[i], s, &p->answers[i], err) != 0)
            return -1;
    }
    if (adopt_best(s, err) != 0)
        return -1;
    /* BaseStrategy has handed its tokens out one by one. */
    if (p->config->strategy == SL_STRATEGY_BASE)
        s->emitted += p->answers[0].ids.n;
    return emit_until(s, s->blanks[s->n_blanks - 1].end, true, err);
}

static void drop_last_eos(struct sl_ids *ids, const struct sl_hparams *hp)
{
    if (ids->n > 0 && ids->v[ids->n - 1] == hp->special.eos)
        ids->n--;
}

static int fill_all(struct state *s, struct sl_error *err)
{
    struct sl_fill_result *r = s->result;
    const struct sl_hparams *hp = s->pass.hp;

    while (!s->pass.interrupted) {
        s->pass.mask_at = find_mark(&s->text, s->mask);
        if (s->pass.mask_at == s->text.n)
            break;
        if (fill_one(s, err) != 0)
            return -1;
    }
    drop_last_eos(&s->text, hp);
    if (emit_until(s, s->text.n, false, err) != 0)
        return -1;
    if (r->n_answers == 0) { /* no mark at all: the text is the answer */
        r->n_answers = 1;
        if (sl_ids_append(&r->answers[0].ids, s->text.v, s->text.n, err) != 0)
            return -1;
    }
    for (size_t i = 0; i < r->n_answers; i++)
        drop_last_eos(&r->answers[i].ids, hp);
    r->n_generated = s->pass.n_generated;
    r->first_token_ns = s->pass.first_token_ns;
    r->interrupted = s->pass.interrupted;
    return 0;
}

static int open_state(struct state *s, struct sl_ids *banned,
                      const struct sl_prompt *prompt, struct sl_error *err)
{
    struct sl_pass *p = &s->pass;
    size_t n = room_of(p->config), n_logits;

    s->result->answers = sl_zalloc_array(n, sizeof *s->result->answers);
    p->answers = sl_zalloc_array(n, sizeof *p->answers);
    p->logits = sl_mul_size(&n_logits, n, p->lm->vocab)
                    ? sl_alloc_array(n_logits, sizeof *p->logits)
                    : NULL;
    p->scratch = malloc(sl_sampler_scratch_bytes(p->lm->vocab));
    if (!s->result->answers || !p->answers || !p->logits || !p->scratch)
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory for %zu rows of %u logits", n,
                       p->lm->vocab);
    if (list_banned(banned, p->hp, p->lm->vocab, err) != 0)
        return -1;
    p->banned = banned->v;
    p->n_banned = banned->n;
    return sl_ids_append(&s->text, prompt->ids.v, prompt->ids.n, err);
}

static void close_state(struct state *s)
{
    for (size_t i = 0; s->pass.answers && i < room_of(s->pass.config); i++)
        sl_ids_fini(&s->pass.answers[i].ids);
    free(s->pass.answers);
    free(s->pass.logits);
    free(s->pass.scratch);
    free(s->blanks);
    sl_ids_fini(&s->text);
}

int sl_fill(struct sl_fill_result *result, struct sl_lm *lm,
            const struct sl_prompt *prompt, const struct sl_hparams *hp,
            const struct sl_fill_config *config, struct sl_rng *rng,
            const struct sl_fill_sink *sink, struct sl_error *err)
{
    const int32_t ends[] = {hp->special.eop, hp->special.eos};
    struct sl_fill_result r = {0};
    struct sl_ids banned = {0};
    struct state s = {
        .result = &r,
        .mask = prompt->mask,
        .pass =
            {
                .lm = lm,
                .hp = hp,
                .config = config,
                .rng = rng,
                .sink = sink,
                .gmask = prompt->gmask,
                .ends = ends,
                .n_ends = hp->special.eos >= 0 ? 2 : 1,
                .start_ns = sl_clock_ns(),
            },
    };
    int rc = open_state(&s, &banned, prompt, err);

    if (rc == 0)
        rc = fill_all(&s, err);
    close_state(&s);
    sl_ids_fini(&banned);
    if (rc != 0) {
        sl_fill_result_fini(&r);
        return -1;
    }
    *result = r;
    return 0;
}
