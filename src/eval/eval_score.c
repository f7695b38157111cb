#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/lines.h"
#include "src/eval/eval.h"
#include "src/eval/metrics.h"

double sl_unit_choice(const struct sl_unit *u, uint32_t choice)
{
    uint32_t at = 0;
    double sum = 0;

    for (uint32_t i = 0; i < choice; i++)
        at += u->choice_len[i];
    for (uint32_t i = 0; i < u->choice_len[choice]; i++)
        sum += u->q.logp[at + i];
    return sum;
}

uint32_t sl_unit_prediction(const struct sl_unit *u, enum sl_task_class class)
{
    uint32_t best = 0;
    double most = -INFINITY;

    for (uint32_t i = 0; i < u->e->n_choices; i++) {
        double score = sl_unit_choice(u, i);

        if (class == SL_CLASS_STEREOSET)
            score /= u->choice_len[i];
        if (score > most) {
            most = score;
            best = i;
        }
    }
    return best;
}

double sl_unit_confidence(const struct sl_unit *u, uint32_t choice)
{
    double sum = 0, x = sl_unit_choice(u, choice);

    for (uint32_t i = 0; i < u->e->n_choices; i++)
        sum += exp(sl_unit_choice(u, i) - x);
    return 1 / sum;
}

static double accuracy(const struct sl_eval_task *t,
                       const struct sl_eval_file *f)
{
    size_t right = 0;

    for (size_t i = f->first; i < f->first + f->n; i++)
        right += sl_unit_prediction(&t->units[i], t->task->class) ==
                 t->units[i].e->label;
    return f->n > 0 ? 100.0 * (double)right / (double)f->n : 0;
}

/* Every id of the word that was asked for is the likeliest. */
static double cloze(const struct sl_eval_task *t, const struct sl_eval_file *f)
{
    size_t right = 0;

    for (size_t i = f->first; i < f->first + f->n; i++) {
        const struct sl_question *q = &t->units[i].q;
        bool all = true;

        for (uint32_t k = 0; k < q->n_logp; k++)
            all = all && q->top[k];
        right += all;
    }
    return f->n > 0 ? 100.0 * (double)right / (double)f->n : 0;
}

/* Words, ids and windows of the texts that were asked; those of no ids have
 * words too. */
static void count_texts(double *words, double *ids, size_t *windows,
                        const struct sl_eval_task *t,
                        const struct sl_eval_file *f)
{
    *words = *ids = 0;
    *windows = 0;
    for (size_t i = f->first; i < f->first + f->n; i++) {
        const struct sl_example *e = t->units[i].e;

        if (t->units[i].window > 0)
            continue;
        *words += (double)e->n_words;
        *ids += (double)e->n_ids;
        *windows += e->n_windows;
    }
    for (size_t i = 0; f->n_examples == f->data.n && i < f->data.n; i++)
        *words +=
            f->data.v[i].n_windows == 0 ? (double)f->data.v[i].n_words : 0;
}

struct sl_text_loss sl_eval_text_loss(const struct sl_eval *ev,
                                      const struct sl_eval_task *t,
                                      const struct sl_eval_file *f)
{
    struct sl_text_loss l = {0};
    double scored = 0;
    size_t windows;

    count_texts(&l.words, &l.ids, &windows, t, f);
    for (size_t i = f->first; i < f->first + f->n; i++) {
        for (uint32_t k = 0; k < t->units[i].q.n_logp; k++)
            l.loss -= t->units[i].q.logp[k];
        scored += t->units[i].q.n_logp;
    }
    if (f->n < windows) {
        l.words *= scored / l.ids;
        l.ids = scored;
    }
    /* THUDM/GLM's leaves out the first of both (its "adjusted ppl"). */
    if (ev->builder.style == SL_EVAL_GLM && l.words > 1)
        l.words--;
    if (ev->builder.style == SL_EVAL_GLM && l.ids > 1)
        l.ids--;
    return l;
}

static double perplexity(const struct sl_eval *ev, const struct sl_eval_task *t,
                         const struct sl_eval_file *f)
{
    struct sl_text_loss l = sl_eval_text_loss(ev, t, f);

    return sl_metric_ppl(l.loss, l.words);
}

/* --- generated answers --------------------------------------------------- */

/* What ids say, after a round through the vocabulary as the answers took. */
static int say(char **text, struct sl_eval *ev, const struct sl_ids *ids,
               struct sl_error *err)
{
    size_t n;

    return sl_tokenizer_decode_as(ev->builder.tokenizer, SL_SPECIALS_HIDDEN,
                                  ids->v, ids->n, text, &n, err);
}

/* Equal but for blanks around them: LAMBADA's rule. */
static double same_word(const char *a, const char *b)
{
    size_t n_a = strlen(a), n_b = strlen(b);

    sl_text_strip(&a, &n_a);
    sl_text_strip(&b, &n_b);
    return n_a == n_b && memcmp(a, b, n_a) == 0;
}

static int compare(double *score, enum sl_metric m, const char *said,
                   const char *target, struct sl_error *err)
{
    if (m == SL_METRIC_EM)
        return sl_metric_exact(score, said, target, err);
    if (m == SL_METRIC_F1)
        return sl_metric_f1(score, said, target, err);
    *score = same_word(said, target);
    return 0;
}

/* The best over all targets; 0 where there is none. */
static int score_text(double *best, enum sl_metric m, struct sl_eval *ev,
                      const struct sl_unit *u, struct sl_error *err)
{
    char *said = NULL;
    int rc = say(&said, ev, &u->said, err);

    *best = 0;
    for (uint32_t i = 0; rc == 0 && i < u->e->n_choices; i++) {
        struct sl_ids ids = {0};
        char *target = NULL;
        double score = 0;

        rc = sl_build_ids(&ids, &ev->builder, &u->e->choices[i], err);
        if (rc == 0)
            rc = say(&target, ev, &ids, err);
        if (rc == 0)
            rc = compare(&score, m, said, target, err);
        *best = score > *best ? score : *best;
        sl_ids_fini(&ids);
        free(target);
    }
    free(said);
    return rc;
}

static int score_texts(double *value, enum sl_metric m, struct sl_eval *ev,
                       const struct sl_eval_task *t,
                       const struct sl_eval_file *f, struct sl_error *err)
{
    double sum = 0, score;

    for (size_t i = f->first; i < f->first + f->n; i++) {
        if (score_text(&score, m, ev, &t->units[i], err) != 0)
            return -1;
        sum += score;
    }
    *value = f->n > 0 ? 100 * sum / (double)f->n : 0;
    return 0;
}

int sl_eval_score(struct sl_eval *ev, struct sl_eval_task *t,
                  struct sl_eval_file *f, struct sl_error *err)
{
    for (size_t i = 0; i < t->task->n_metrics; i++) {
        enum sl_metric m = t->task->metrics[i];

        if (t->task->type == SL_TASK_GEN && !t->generates) {
            f->values[i] = cloze(t, f);
        } else if (t->task->type == SL_TASK_GEN) {
            if (score_texts(&f->values[i], m, ev, t, f, err) != 0)
                return -1;
        } else if (t->task->type == SL_TASK_LM) {
            f->values[i] = perplexity(ev, t, f);
        } else { /* of single labels all micro-averages are the accuracy */
            f->values[i] = accuracy(t, f);
        }
    }
    return 0;
}
