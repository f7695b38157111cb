#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/eval/build_impl.h"

/* Ids in common that pay for a pass of their own. */
#define STEM_LEAST 32u

/* --- windows ------------------------------------------------------------- */

/* Ids of a window: one position is a mark's. */
static size_t window_len(const struct sl_builder *b, const struct sl_task *task)
{
    return sl_build_max_length(b, task) - 1;
}

static size_t stride(const struct sl_builder *b, const struct sl_task *task)
{
    size_t w = window_len(b, task);

    return task->generation_length < w ? task->generation_length : w;
}

size_t sl_build_n_windows(const struct sl_builder *b,
                          const struct sl_task *task, size_t n)
{
    size_t w = window_len(b, task), g = stride(b, task);

    return n == 0 ? 0 : sl_div_up(n > w ? n - w : 0, g) + 1;
}

/* A root that feeds `before` and then the text but its last id, and asks for
 * the last n_asked ids of the text. */
static int make_root(struct sl_question *q, const struct sl_ids *before,
                     const int32_t *text, size_t n, size_t n_asked,
                     struct sl_error *err)
{
    struct sl_strand *s;
    uint32_t fed = (uint32_t)(before->n + n - 1);

    if (sl_question_init(q, 1, (uint32_t)n_asked, err) != 0)
        return -1;
    s = &q->strands[0];
    if (sl_strand_init(s, fed, (uint32_t)n_asked, err) != 0) {
        sl_question_fini(q);
        return -1;
    }
    sl_build_copy_ids(s->ids, before->v, before->n);
    sl_build_copy_ids(s->ids + before->n, text, n - 1);
    for (uint32_t i = 0; i < n_asked; i++)
        s->asks[i] = (struct sl_ask){fed - (uint32_t)n_asked + i,
                                     text[n - n_asked + i], i};
    return 0;
}

/* The overlap of windows is context, and counted once. */
static int causal_window(struct sl_question *q, struct sl_builder *b,
                         const int32_t *text, size_t n, size_t n_scored,
                         bool first, struct sl_error *err)
{
    struct sl_ids lead = {0};
    int rc = 0;

    if (first)
        rc = sl_build_lead_or_end(&lead, b, err);
    else
        rc = sl_ids_append(&lead, b->lead.v, b->lead.n, err);
    if (rc == 0)
        rc = make_root(q, &lead, text, n, n_scored, err);
    if (rc == 0)
        sl_build_place_line(&q->strands[0], 0, b);
    sl_ids_fini(&lead);
    return rc;
}

/* prompt M | sop scored; GLM: [CLS] before them. */
static int prefix_window(struct sl_question *q, struct sl_builder *b,
                         const struct sl_task *task, const int32_t *text,
                         size_t n, size_t n_prompt, size_t n_scored,
                         struct sl_error *err)
{
    const struct sl_ids *cls = sl_tokenizer_prefix(b->tokenizer);
    struct sl_ids before = {0};
    uint32_t context;
    int rc = 0;

    if (b->style == SL_EVAL_GLM)
        rc = sl_ids_append(&before, cls->v, cls->n, err);
    if (rc == 0)
        rc = sl_ids_append(&before, text, n_prompt, err);
    if (rc == 0)
        rc = sl_ids_add(&before, sl_build_mark(b, task), err);
    context = (uint32_t)before.n;
    if (rc == 0)
        rc = sl_ids_add(&before, b->hp->text.special.sop, err);
    if (rc == 0)
        rc =
            make_root(q, &before, text + n_prompt, n - n_prompt, n_scored, err);
    sl_ids_fini(&before);
    if (rc != 0)
        return -1;
    q->strands[0].n_context = context;
    sl_build_place_answer(&q->strands[0], context, 0, b, context - 1u, true,
                          context);
    return 0;
}

int sl_build_window(struct sl_question *q, struct sl_builder *b,
                    const struct sl_task *task, const struct sl_ids *text,
                    size_t window, struct sl_error *err)
{
    size_t w = window_len(b, task), g = stride(b, task), at = window * g;
    size_t n = text->n - at < w ? text->n - at : w, scored = n;
    bool one;

    *q = (struct sl_question){0};
    if (b->style == SL_EVAL_CAUSAL) {
        if (window > 0)
            scored = n - (w - g);
        return causal_window(q, b, text->v + at, n, scored, window == 0, err);
    }
    /* GLM's first window has its first id for a prompt, one way all have; what
     * windows share is scored once. GLM-130B's score all, one way. */
    one = b->style == SL_EVAL_GLM && n > 1;
    if (window == 0)
        scored = one ? n - 1 : n;
    else if (b->style == SL_EVAL_GLM || !task->unidirectional)
        scored = n - (w - g);
    return prefix_window(q, b, task, text->v + at, n,
                         one && sl_build_one_way(b, task) ? 1 : n - scored,
                         scored, err);
}

/* --- prompts ------------------------------------------------------------- */

/* [gMASK] [sop] before it all: GLM-130B's unidirectional manner. */
static int lead_prompt(struct sl_ids *ids, struct sl_builder *b,
                       const struct sl_task *task, struct sl_error *err)
{
    if (b->style == SL_EVAL_CAUSAL)
        return sl_ids_append(ids, b->lead.v, b->lead.n, err);
    if (sl_ids_add(ids, sl_build_mark(b, task), err) != 0)
        return -1;
    return sl_ids_add(ids, b->hp->text.special.sop, err);
}

/* A text without ids still needs one to be computed from. */
static int causal_prompt(struct sl_ids *ids, struct sl_builder *b,
                         const struct sl_task *task, const struct sl_ids *text,
                         struct sl_error *err)
{
    int rc = 0;

    if (b->style == SL_EVAL_CAUSAL && text->n == 0)
        rc = sl_build_lead_or_end(ids, b, err);
    else
        rc = lead_prompt(ids, b, task, err);
    if (rc == 0)
        rc = sl_ids_append(ids, text->v, text->n, err);
    return rc;
}

/* text M, or the text where it has its mark; GLM: [CLS] text M </s>. */
static int prefix_prompt(struct sl_ids *ids, uint32_t *blank,
                         struct sl_builder *b, const struct sl_task *task,
                         const struct sl_ids *text, struct sl_error *err)
{
    const struct sl_ids *cls = sl_tokenizer_prefix(b->tokenizer);
    bool glm = b->style == SL_EVAL_GLM;
    int32_t mark = sl_build_mark(b, task);
    size_t at = sl_build_find(text, mark, false);

    if (at < text->n && task->use_task_mask && !glm)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "use_task_mask does not go with a mask in the text");
    if ((glm && sl_ids_append(ids, cls->v, cls->n, err) != 0) ||
        sl_ids_append(ids, text->v, text->n, err) != 0)
        return -1;
    *blank = (uint32_t)(at + (glm ? cls->n : 0));
    if (at == text->n && sl_ids_add(ids, mark, err) != 0)
        return -1;
    return glm ? sl_ids_add(ids, b->hp->text.special.eos, err) : 0;
}

int sl_build_prompt(struct sl_ids *ids, uint32_t *blank, bool *causal,
                    struct sl_builder *b, const struct sl_task *task,
                    const struct sl_example *e, struct sl_error *err)
{
    struct sl_question cut = {0};
    struct sl_ids text = {0};
    uint32_t room = sl_build_max_length(b, task);
    int rc = sl_build_ids(&text, b, &e->inputs, err);

    *causal = b->style == SL_EVAL_CAUSAL || task->unidirectional ||
              sl_build_one_way(b, task);
    *blank = 0;
    if (rc == 0 && room < task->max_gen_length + 4)
        rc = sl_fail(err, SL_ERR_CORRUPT,
                     "max_gen_length %u leaves no room for a text within %u "
                     "positions",
                     task->max_gen_length, room);
    if (rc == 0) {
        sl_build_cut_left(&text, room - task->max_gen_length - 2, &cut, b);
        rc = *causal ? causal_prompt(ids, b, task, &text, err)
                     : prefix_prompt(ids, blank, b, task, &text, err);
    }
    if (rc == 0 && *causal)
        *blank = (uint32_t)ids->n;
    sl_ids_fini(&text);
    return rc;
}

/* --- stems --------------------------------------------------------------- */

/* The first n ids are elsewhere; those behind them stand where they stood. */
static void drop_places(struct sl_strand *s, uint32_t n)
{
    uint32_t run = s->n_run < n ? s->n_run : n;
    uint32_t plain = s->block_from < n ? s->block_from : n;

    s->n -= n;
    s->start += (int32_t)run;
    s->n_run -= run;
    s->block_from -= plain;
    s->block += (int32_t)(n - plain);
}

int sl_build_stem(struct sl_stem *stem, bool *made,
                  struct sl_question *const *questions, size_t n,
                  struct sl_error *err)
{
    const struct sl_strand *first = n > 0 ? &questions[0]->strands[0] : NULL;
    uint32_t same = n > 1 ? first->n - 1 : 0;

    *made = false;
    for (size_t i = 1; i < n && same >= STEM_LEAST; i++) {
        const struct sl_strand *s = &questions[i]->strands[0];
        uint32_t k = 0;

        while (k < same && k + 1 < s->n && s->ids[k] == first->ids[k])
            k++;
        same = k;
    }
    for (size_t i = 0; i < n && same > 0; i++) {
        if (questions[i]->strands[0].n_asks > 0 &&
            questions[i]->strands[0].asks[0].at < same)
            same = questions[i]->strands[0].asks[0].at;
    }
    if (same < STEM_LEAST)
        return 0;
    if (sl_strand_init(&stem->strand, same, 0, err) != 0)
        return -1;
    sl_build_copy_ids(stem->strand.ids, first->ids, same);
    stem->strand.n_run = first->n_run < same ? first->n_run : same;
    stem->strand.held = first->held;
    stem->strand.block_from = first->block_from;
    stem->strand.block = first->block;
    for (size_t i = 0; i < n; i++) {
        struct sl_strand *s = &questions[i]->strands[0];

        memmove(s->ids, s->ids + same, (s->n - same) * sizeof *s->ids);
        drop_places(s, same);
        for (uint32_t k = 0; k < s->n_asks; k++)
            s->asks[k].at -= same;
        questions[i]->stem = stem;
    }
    *made = true;
    return 0;
}
