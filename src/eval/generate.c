#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/decode/batch.h"
#include "src/eval/lambada.h"
#include "src/eval/run.h"
#include "src/eval/share.h"
#include "src/exec/kvcache.h"

/* Tasks of type gen: many texts in each pass (decode/batch.h). */

struct texts {
    struct sl_eval_run *run;
    struct sl_fill_config config;
    struct sl_lambada lambada;
    struct sl_fill_text *v; /* (units of the task) */
    struct sl_prompt *prompts;
    struct sl_ids *given; /* of texts that are asked causally */
    struct sl_rng *rngs;
};

static bool is_causal(const struct sl_eval *ev, const struct sl_task *task)
{
    return ev->builder.style == SL_EVAL_CAUSAL || task->unidirectional ||
           sl_build_one_way(&ev->builder, task);
}

/* What is fed of a unit, [sop] counted. */
static uint32_t fed(const struct sl_eval *ev, const struct sl_task *task,
                    const struct sl_unit *u)
{
    return (uint32_t)u->prompt.n + (is_causal(ev, task) ? 0 : 1);
}

static uint32_t beams_of(const struct sl_task *task)
{
    return task->beams ? task->num_beams : 1;
}

static uint32_t more(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

void sl_eval_plan_texts(struct sl_eval_run *run, struct sl_workload *load)
{
    uint64_t pages = 0, n, left = 0;

    for (size_t i = 0; i < run->ev->n; i++) {
        const struct sl_eval_task *t = &run->ev->v[i];
        uint32_t beams = beams_of(t->task);

        for (size_t k = 0; k < t->n_units; k++) {
            uint32_t first = fed(run->ev, t->task, &t->units[k]);
            uint32_t longest = first + t->task->max_gen_length;

            if (!t->generates || t->units[k].done)
                continue;
            left++;
            n = sl_kv_pages_needed(beams, longest, first);
            pages = n > pages ? n : pages;
            load->n_sequences = more(load->n_sequences, beams);
            load->max_tokens = more(load->max_tokens, longest);
            load->pass_positions =
                more(load->pass_positions, more(first, run->texts * beams));
            load->pass_logits = more(load->pass_logits, run->texts * beams);
        }
    }
    if (left == 0)
        return;
    if (run->texts > left)
        run->texts = (uint32_t)left;
    load->n_texts = more(load->n_texts, more(run->texts, 2));
    pages *= run->texts;
    if (pages > load->kv_pages)
        load->kv_pages = pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
}

/* The reference generates greedily or with beams, never by chance: the seed
 * is of no use, and the same for all. */
static void configure(struct texts *x)
{
    const struct sl_task *task = x->run->task->task;

    x->config = (struct sl_fill_config){
        .strategy = task->beams ? SL_STRATEGY_BEAM : SL_STRATEGY_BASE,
        .sampler = {.temperature = 1, .top_k = 1},
        .n_beams = task->num_beams,
        .length_penalty = task->length_penalty,
        .no_repeat_ngram = task->no_repeat_ngram_size,
        .min_gen_length = task->beams ? task->min_gen_length : 0,
        .deterministic = true,
        .out_seq_length = x->run->lm->max_tokens,
    };
    if (task->class == SL_CLASS_LAMBADA && task->beams) {
        x->config.adjust = sl_lambada_adjust;
        x->config.adjust_opaque = &x->lambada;
    }
}

/* What is generated begins behind the prompt of a causal model, or in the blank
 * whose mask the prompt holds. Who is asked causally though it is not has
 * its [gMASK] for a context, and the text behind [sop] is what its answer
 * begins with. */
static int lay_text(struct sl_prompt *p, struct sl_ids *given,
                    const struct sl_unit *u, const struct sl_eval *ev,
                    const struct sl_task *task, struct sl_error *err)
{
    const struct sl_ids *ids = &u->prompt;
    bool line = ev->builder.hp->causal;
    size_t n = !line && is_causal(ev, task) ? 1 : ids->n;

    p->mask = line ? SL_PROMPT_END : n < ids->n ? ids->v[0] : ids->v[u->blank];
    p->gmask = task->use_task_mask || n < ids->n;
    if (sl_ids_append(&p->ids, ids->v, n, err) != 0 ||
        (n < ids->n && sl_ids_append(given, ids->v + 2, ids->n - 2, err) != 0))
        return -1;
    return line ? sl_ids_add(&p->ids, SL_PROMPT_END, err) : 0;
}

static int make_text(struct texts *x, struct sl_unit *u, struct sl_error *err)
{
    const struct sl_task *task = x->run->task->task;
    size_t i = (size_t)(u - x->run->task->units);
    struct sl_prompt *p = &x->prompts[i];

    *p = (struct sl_prompt){.n_masks = 1, .max_new = task->max_gen_length};
    if (lay_text(p, &x->given[i], u, x->run->ev, task, err) != 0)
        return -1;
    p->masks[0] = p->mask;
    x->v[i] = (struct sl_fill_text){.prompt = p, .rng = &x->rngs[i]};
    if (x->given[i].n > 0)
        x->v[i].given = &x->given[i];
    sl_rng_seed(&x->rngs[i], 1);
    return 0;
}

static int make_room(struct texts *x, struct sl_error *err)
{
    const struct sl_eval_task *t = x->run->task;

    x->v = sl_zalloc_array(t->n_units + 1, sizeof *x->v);
    x->prompts = sl_zalloc_array(t->n_units + 1, sizeof *x->prompts);
    x->given = sl_zalloc_array(t->n_units + 1, sizeof *x->given);
    x->rngs = sl_zalloc_array(t->n_units + 1, sizeof *x->rngs);
    if (!x->v || !x->prompts || !x->given || !x->rngs)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu texts",
                       t->n_units);
    return 0;
}

/* The first blank of an answer. */
static int take_answer(struct sl_ids *said, const struct sl_fill_answer *a,
                       struct sl_error *err)
{
    if (a->n_blanks == 0)
        return 0;
    return sl_ids_append(said, a->ids.v + a->blanks[0].begin,
                         a->blanks[0].end - a->blanks[0].begin, err);
}

/* The first text that fails ends the task: a score over the others would be
 * no score of the task. */
static int text_ended(void *opaque, struct sl_fill_text *text,
                      struct sl_error *err)
{
    struct texts *x = opaque;
    struct sl_eval_task *t = x->run->task;
    struct sl_unit *u = &t->units[text - x->v];
    int rc;

    if (text->failed) {
        *err = text->err;
        sl_error_prefix(err, "%s:%zu: ", t->files[u->file].name, u->e->line);
        return -1;
    }
    if (text->result.interrupted) {
        sl_fill_result_fini(&text->result);
        return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
    }
    u->said.n = 0;
    rc = t->task->class == SL_CLASS_LAMBADA
             ? sl_lambada_choose(&u->said, x->run->ev->builder.tokenizer,
                                 &text->result, err)
             : take_answer(&u->said, &text->result.answers[0], err);
    sl_fill_result_fini(&text->result);
    return rc == 0 ? sl_share_answer(x->run->share, t, u, err) : -1;
}

/* As many as may be under way. */
static int admit(struct texts *x, struct sl_batch *b, struct sl_error *err)
{
    size_t n;

    while ((n = sl_batch_running(b) + sl_batch_waiting(b)) < x->run->texts) {
        struct sl_unit *u;

        if (sl_share_take(x->run->share, &u, x->run->task, n == 0, err) != 0)
            return -1;
        if (u == NULL)
            break;
        if (make_text(x, u, err) != 0 ||
            sl_batch_admit(b, &x->v[u - x->run->task->units], err) != 0)
            return -1;
    }
    return 0;
}

static int step_all(struct texts *x, struct sl_batch *b, struct sl_error *err)
{
    struct sl_eval_progress *p = &x->run->progress;
    struct sl_batch_pass pass;
    bool all;
    size_t n;

    for (;;) {
        if (admit(x, b, err) != 0)
            return -1;
        n = sl_batch_running(b) + sl_batch_waiting(b);
        if (n == 0)
            return 0;
        if (sl_batch_step(b, &all, err) != 0)
            return -1;
        p->positions = p->questions; /* as far as anybody can tell */
        pass = sl_batch_last(b);
        if (pass.positions > 0 &&
            sl_eval_note_pass(x->run, pass.positions, (uint32_t)n, err) != 0)
            return -1;
    }
}

int sl_eval_generate(struct sl_eval_run *run, struct sl_error *err)
{
    struct texts x = {.run = run};
    struct sl_batch_config config = {
        .lm = run->lm,
        .hp = run->ev->builder.hp,
        .config = &x.config,
        .stops = sl_tokenizer_stops(run->ev->builder.tokenizer),
        .most = run->texts,
        .ended = text_ended,
        .opaque = &x,
    };
    struct sl_batch *b = NULL;
    int rc;

    configure(&x);
    rc = sl_lambada_init(&x.lambada, run->ev->builder.tokenizer,
                         run->ev->builder.hp->vocab, err);
    if (rc == 0)
        rc = make_room(&x, err);
    if (rc == 0)
        rc = sl_batch_create(&b, &config, err);
    if (rc == 0)
        rc = step_all(&x, b, err);
    sl_batch_close(b);
    for (size_t i = 0; x.prompts != NULL && i < run->task->n_units; i++)
        sl_ids_fini(&x.prompts[i].ids);
    for (size_t i = 0; x.given != NULL && i < run->task->n_units; i++)
        sl_ids_fini(&x.given[i]);
    free(x.v);
    free(x.prompts);
    free(x.given);
    free(x.rngs);
    sl_lambada_fini(&x.lambada);
    return rc;
}
