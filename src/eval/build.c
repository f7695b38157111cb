#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/base/str.h"
#include "src/eval/build_impl.h"

int sl_builder_init(struct sl_builder *b, struct sl_tokenizer *tokenizer,
                    const struct sl_hparams *hp, bool is_glm,
                    const struct sl_builder_options *o, struct sl_error *err)
{
    const struct sl_special_ids *s = &hp->text.special;
    const struct sl_ids *prefix = sl_tokenizer_prefix(tokenizer);
    int32_t marks[2] = {s->gmask >= 0 ? s->gmask : s->mask, s->sop};

    *b = (struct sl_builder){
        .tokenizer = tokenizer,
        .hp = hp,
        .style = hp->causal ? SL_EVAL_CAUSAL
                 : is_glm   ? SL_EVAL_GLM
                            : SL_EVAL_GLM_130B,
        .max_length = hp->max_positions,
    };
    if (o->glm && !is_glm)
        return sl_fail(err, SL_ERR_USAGE,
                       "--style glm is for GLM's models (110M to 10B), which "
                       "this is not");
    if (!hp->causal && (s->sop < 0 || marks[0] < 0))
        return sl_fail(err, SL_ERR_USAGE,
                       "the model knows no [MASK], [gMASK] or [sop] to ask "
                       "with");
    b->unidirectional = o->unidirectional;
    if (!hp->causal && !is_glm && o->unidirectional) {
        b->style = SL_EVAL_CAUSAL;
        return sl_ids_append(&b->lead, marks, 2, err);
    }
    if (hp->causal && o->lead)
        return sl_ids_append(&b->lead, prefix->v, prefix->n, err);
    return 0;
}

void sl_builder_fini(struct sl_builder *b)
{
    sl_ids_fini(&b->lead);
}

int sl_build_ids(struct sl_ids *ids, struct sl_builder *b,
                 const struct sl_passage *p, struct sl_error *err)
{
    if (p->text != NULL)
        return sl_tokenizer_encode(b->tokenizer, ids, p->text, p->n_text, err);
    return sl_ids_append(ids, p->ids.v, p->ids.n, err);
}

uint32_t sl_build_max_length(const struct sl_builder *b,
                             const struct sl_task *task)
{
    return task->max_seq_length < b->max_length ? task->max_seq_length
                                                : b->max_length;
}

/* Index of an id, the last of several if so asked; n if there is none. */
size_t sl_build_find(const struct sl_ids *ids, int32_t id, bool last)
{
    size_t at = ids->n;

    for (size_t i = 0; i < ids->n; i++) {
        if (ids->v[i] == id && (last || at == ids->n))
            at = i;
    }
    return at;
}

int32_t sl_build_mark(const struct sl_builder *b, const struct sl_task *task)
{
    const struct sl_special_ids *s = &b->hp->text.special;
    bool gmask = task->use_task_mask || sl_build_one_way(b, task) ||
                 (b->style == SL_EVAL_GLM && task->type != SL_TASK_MUL);
    int32_t first = gmask ? s->gmask : s->mask;

    if (first >= 0)
        return first;
    return gmask ? s->mask : s->gmask;
}

bool sl_build_one_way(const struct sl_builder *b, const struct sl_task *task)
{
    return b->style == SL_EVAL_GLM &&
           (b->unidirectional || task->unidirectional);
}

/* --- choices of prefix models -------------------------------------------- */

/* Being built of one example. */
struct choices {
    struct sl_ids text;   /* the context as it is fed, without [sop] */
    struct sl_ids behind; /* [sop]: what of the text is read causally */
    size_t mark;          /* position of the mark */
    struct sl_ids *v;     /* (n) ids of each choice */
    uint32_t n;
    bool one; /* all have one id: one [sop] does for all */
    size_t total, longest;
};

static void choices_fini(struct choices *c)
{
    for (uint32_t i = 0; c->v != NULL && i < c->n; i++)
        sl_ids_fini(&c->v[i]);
    free(c->v);
    sl_ids_fini(&c->text);
    sl_ids_fini(&c->behind);
}

/* Where each choice is a single id the row behind the text has the chances
 * of all (one). */
static int count_choices(struct choices *c, struct sl_error *err)
{
    c->total = c->longest = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->v[i].n == 0)
            return sl_fail(err, SL_ERR_CORRUPT, "choice %u is empty", i);
        c->total += c->v[i].n;
        if (c->v[i].n > c->longest)
            c->longest = c->v[i].n;
    }
    c->one = c->total == c->n;
    return 0;
}

/* Keeps the last `room` ids of a text. */
void sl_build_cut_left(struct sl_ids *ids, size_t room, struct sl_question *q,
                       struct sl_builder *b)
{
    if (ids->n <= room)
        return;
    memmove(ids->v, ids->v + ids->n - room, room * sizeof *ids->v);
    ids->n = room;
    q->truncated = true;
    b->n_truncated++;
}

/* Context ids with their mark: cut, then the mark found or appended; GLM has
 * [CLS] before the text and </s> behind it. */
static int lay_context(struct choices *c, struct sl_question *q,
                       struct sl_builder *b, const struct sl_task *task,
                       struct sl_error *err)
{
    const struct sl_ids *prefix = sl_tokenizer_prefix(b->tokenizer);
    bool glm = b->style == SL_EVAL_GLM;
    size_t need = (glm ? c->longest : c->one ? 1 : c->total) + 2;
    size_t around = glm ? prefix->n + 1 : 0;
    int32_t mark = sl_build_mark(b, task);

    if (need + around >= sl_build_max_length(b, task))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "choices of %zu ids leave no room for a text within "
                       "%u positions",
                       need - 2, sl_build_max_length(b, task));
    sl_build_cut_left(&c->text, sl_build_max_length(b, task) - need - around, q,
                      b);
    c->mark = sl_build_find(&c->text, mark, glm);
    if (c->mark < c->text.n && task->use_multitask_encoding)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "use_multitask_encoding does not go with a mask in the "
                       "text");
    if (c->mark == c->text.n && sl_ids_add(&c->text, mark, err) != 0)
        return -1;
    if (!glm)
        return 0;
    if (sl_ids_add(&c->text, b->hp->text.special.eos, err) != 0)
        return -1;
    for (size_t i = 0; i < prefix->n; i++) {
        if (sl_ids_add(&c->text, 0, err) != 0)
            return -1;
    }
    memmove(c->text.v + prefix->n, c->text.v,
            (c->text.n - prefix->n) * sizeof *c->text.v);
    sl_build_copy_ids(c->text.v, prefix->v, prefix->n);
    c->mark += prefix->n;
    return 0;
}

/* One way: [CLS] M | sop text of choices, of LAMBADA [CLS] t M </s> | sop text,
 * t its first id (THUDM/GLM tasks/language_model/dataset.py). */
static int lay_one_way(struct choices *c, struct sl_question *q,
                       struct sl_builder *b, const struct sl_task *task,
                       struct sl_error *err)
{
    const struct sl_ids *prefix = sl_tokenizer_prefix(b->tokenizer);
    bool cloze = task->type == SL_TASK_GEN;
    size_t need = prefix->n + c->longest + 2 + cloze;
    struct sl_ids text = c->text;
    size_t n_first;
    int rc = 0;

    c->text = (struct sl_ids){0};
    if (need >= sl_build_max_length(b, task))
        rc = sl_fail(err, SL_ERR_CORRUPT,
                     "a choice of %zu ids leaves no room for a text within %u "
                     "positions",
                     c->longest, sl_build_max_length(b, task));
    else
        sl_build_cut_left(&text, sl_build_max_length(b, task) - need, q, b);
    n_first = cloze && text.n > 0;
    c->mark = prefix->n + n_first;
    if (rc == 0)
        rc = sl_ids_append(&c->text, prefix->v, prefix->n, err);
    if (rc == 0)
        rc = sl_ids_append(&c->text, text.v, n_first, err);
    if (rc == 0)
        rc = sl_ids_add(&c->text, sl_build_mark(b, task), err);
    if (rc == 0 && cloze)
        rc = sl_ids_add(&c->text, b->hp->text.special.eos, err);
    if (rc == 0 && text.n > n_first)
        rc = sl_ids_append(&c->behind, text.v + n_first, text.n - n_first, err);
    sl_ids_fini(&text);
    return rc;
}

/* Positions of [sop] and what follows it in a strand, from its `first`-th
 * place on, which is the n-th generated. */
void sl_build_place_answer(struct sl_strand *s, uint32_t first, uint32_t nth,
                           const struct sl_builder *b, size_t mark, bool run_on,
                           uint32_t context)
{
    if (b->hp->position_2d) {
        s->n_run = first;
        s->held = (int32_t)mark;
        s->block_from = first;
        s->block = (int32_t)nth + 1;
    } else if (run_on) {
        s->start = (int32_t)(context + nth) - (int32_t)first;
        s->n_run = s->n;
    } else {
        s->n_run = first;
        s->held = (int32_t)mark;
    }
}

void sl_build_place_line(struct sl_strand *s, uint32_t before,
                         const struct sl_builder *b)
{
    if (b->hp->position_2d) /* [sop] is the second */
        sl_build_place_answer(s, before == 0, before > 0 ? before - 1 : 0, b, 0,
                              false, 1);
    else
        s->start = (int32_t)before;
}

/* The ids of a choice but the first, which the root asks, and the last, which
 * nobody looks behind. */
static int make_branch(struct sl_strand *s, const struct sl_ids *choice,
                       uint32_t to, struct sl_error *err)
{
    uint32_t n = (uint32_t)choice->n - 1;

    if (sl_strand_init(s, n, n, err) != 0)
        return -1;
    sl_build_copy_ids(s->ids, choice->v, n);
    for (uint32_t i = 0; i < n; i++)
        s->asks[i] = (struct sl_ask){i, choice->v[i + 1], to + 1 + i};
    return 0;
}

/* Root and branches of a context whose last position everything follows. */
static int make_strands(struct sl_question *q, const struct choices *c,
                        uint32_t *choice_len, const int32_t *root, uint32_t n,
                        struct sl_error *err)
{
    uint32_t n_branches = 0, to = 0, branch = 1;
    bool truncated = q->truncated;

    for (uint32_t i = 0; i < c->n; i++)
        n_branches += c->v[i].n > 1;
    if (sl_question_init(q, 1 + n_branches, (uint32_t)c->total, err) != 0)
        return -1;
    q->truncated = truncated;
    if (sl_strand_init(&q->strands[0], n, c->n, err) != 0)
        return -1;
    sl_build_copy_ids(q->strands[0].ids, root, n);
    for (uint32_t i = 0; i < c->n; i++) {
        choice_len[i] = (uint32_t)c->v[i].n;
        q->strands[0].asks[i] = (struct sl_ask){n - 1, c->v[i].v[0], to};
        if (c->v[i].n > 1 &&
            make_branch(&q->strands[branch++], &c->v[i], to, err) != 0)
            return -1;
        to += choice_len[i];
    }
    return 0;
}

/* Models that see their whole context at once: the context is read in the
 * first strand, whose positions the others, a choice each, see. run_on:
 * GLM-130B's tasks with a mask number the answer's positions on from the
 * context instead of standing at the mask. */
static int prefix_choices(struct sl_question *q, uint32_t *choice_len,
                          struct choices *c, struct sl_builder *b,
                          const struct sl_task *task,
                          const struct sl_example *e, struct sl_error *err)
{
    bool run_on = task->use_task_mask && b->style == SL_EVAL_GLM_130B;
    uint32_t context, said;

    if (sl_build_ids(&c->text, b, &e->inputs, err) != 0)
        return -1;
    for (uint32_t i = 0; i < c->n; i++) {
        if (sl_build_ids(&c->v[i], b, &e->choices[i], err) != 0)
            return -1;
    }
    if (count_choices(c, err) != 0 ||
        (sl_build_one_way(b, task) ? lay_one_way(c, q, b, task, err)
                                   : lay_context(c, q, b, task, err)) != 0)
        return -1;
    context = (uint32_t)c->text.n;
    said = 1 + (uint32_t)c->behind.n;
    if (sl_ids_add(&c->text, b->hp->text.special.sop, err) != 0 ||
        sl_ids_append(&c->text, c->behind.v, c->behind.n, err) != 0 ||
        make_strands(q, c, choice_len, c->text.v, context + said, err) != 0)
        return -1;
    q->strands[0].n_context = context;
    sl_build_place_answer(&q->strands[0], context, 0, b, c->mark, run_on,
                          context);
    for (uint32_t i = 1; i < q->n_strands; i++)
        sl_build_place_answer(&q->strands[i], 0, said, b, c->mark, run_on,
                              context);
    return 0;
}

/* --- choices of causal models -------------------------------------------- */

/* Blanks at a context's end are said with the choice. */
static size_t without_blanks(const struct sl_passage *p)
{
    size_t n = p->n_text;

    while (n > 0 && strchr(" \t\r\n\v\f", p->text[n - 1]) != NULL)
        n--;
    return n;
}

/* The ids that a choice adds to its context, encoded as one text. */
static int encode_behind(struct sl_ids *choice, const struct sl_ids *context,
                         struct sl_builder *b, const struct sl_example *e,
                         const struct sl_passage *p, struct sl_error *err)
{
    struct sl_ids whole = {0};
    struct sl_str text = {0};
    int rc = sl_str_append(&text, e->inputs.text, e->inputs.n_text, err);

    if (rc == 0)
        rc = sl_str_append(&text, p->text, p->n_text, err);
    if (rc == 0)
        rc = sl_tokenizer_encode(b->tokenizer, &whole, sl_str_text(&text),
                                 text.n, err);
    if (rc == 0 && whole.n > context->n)
        rc = sl_ids_append(choice, whole.v + context->n, whole.n - context->n,
                           err);
    sl_ids_fini(&whole);
    sl_str_fini(&text);
    return rc;
}

/* What a context without ids is: the model must read something. */
int sl_build_lead_or_end(struct sl_ids *ids, const struct sl_builder *b,
                         struct sl_error *err)
{
    const struct sl_ids *prefix = sl_tokenizer_prefix(b->tokenizer);
    const struct sl_ids *stops = sl_tokenizer_stops(b->tokenizer);

    if (b->lead.n > 0)
        return sl_ids_append(ids, b->lead.v, b->lead.n, err);
    if (prefix->n > 0)
        return sl_ids_append(ids, prefix->v, prefix->n, err);
    if (stops->n > 0)
        return sl_ids_add(ids, stops->v[0], err);
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "an empty context, and the vocabulary has nothing that a "
                   "text begins with");
}

/* A text that is too long loses its beginning, as the published harnesses
 * cut it: the end is what is asked about. Where everything is text, choices
 * are encoded together with what stands before them, since a token may reach
 * across. */
static int causal_choices(struct sl_question *q, uint32_t *choice_len,
                          struct choices *c, struct sl_builder *b,
                          const struct sl_task *task,
                          const struct sl_example *e, struct sl_error *err)
{
    struct sl_ids root = {0};
    bool texts = e->inputs.text != NULL;
    size_t room = sl_build_max_length(b, task), n;
    int rc;

    for (uint32_t i = 0; i < c->n; i++)
        texts = texts && e->choices[i].text != NULL;
    if (texts) {
        n = without_blanks(&e->inputs);
        rc =
            sl_tokenizer_encode(b->tokenizer, &c->text, e->inputs.text, n, err);
    } else {
        rc = sl_build_ids(&c->text, b, &e->inputs, err);
    }
    for (uint32_t i = 0; rc == 0 && i < c->n; i++)
        rc = texts
                 ? encode_behind(&c->v[i], &c->text, b, e, &e->choices[i], err)
                 : sl_build_ids(&c->v[i], b, &e->choices[i], err);
    if (rc == 0)
        rc = count_choices(c, err);
    if (rc == 0 && c->longest + b->lead.n >= room)
        rc = sl_fail(err, SL_ERR_CORRUPT,
                     "a choice of %zu ids leaves no room for a text within %zu "
                     "positions",
                     c->longest, room);
    if (rc == 0)
        sl_build_cut_left(&c->text, room - c->longest - b->lead.n, q, b);
    if (rc == 0)
        rc = c->text.n == 0 ? sl_build_lead_or_end(&root, b, err)
                            : sl_ids_append(&root, b->lead.v, b->lead.n, err);
    if (rc == 0)
        rc = sl_ids_append(&root, c->text.v, c->text.n, err);
    if (rc == 0)
        rc = make_strands(q, c, choice_len, root.v, (uint32_t)root.n, err);
    for (uint32_t i = 0; rc == 0 && i < q->n_strands; i++)
        sl_build_place_line(&q->strands[i], i > 0 ? (uint32_t)root.n : 0, b);
    sl_ids_fini(&root);
    return rc;
}

int sl_build_choices(struct sl_question *q, uint32_t *choice_len,
                     struct sl_builder *b, const struct sl_task *task,
                     const struct sl_example *e, struct sl_error *err)
{
    struct choices c = {
        .v = sl_zalloc_array(e->n_choices + 1u, sizeof *c.v),
        .n = e->n_choices,
    };
    int rc;

    *q = (struct sl_question){0};
    if (c.v == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %u choices", c.n);
    rc = b->style == SL_EVAL_CAUSAL
             ? causal_choices(q, choice_len, &c, b, task, e, err)
             : prefix_choices(q, choice_len, &c, b, task, e, err);
    choices_fini(&c);
    if (rc != 0)
        sl_question_fini(q);
    return rc;
}
