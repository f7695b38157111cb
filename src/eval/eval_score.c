#include "config.h"

#include <math.h>
#include <string.h>

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

/* By words of the file's only text, or as many as were asked of it. */
static double perplexity(const struct sl_eval_task *t,
                         const struct sl_eval_file *f)
{
    const struct sl_example *e = &f->data.v[0];
    double loss = 0, n = 0, words = (double)e->n_words;

    for (size_t i = f->first; i < f->first + f->n; i++) {
        for (uint32_t k = 0; k < t->units[i].q.n_logp; k++)
            loss -= t->units[i].q.logp[k];
        n += t->units[i].q.n_logp;
    }
    if (f->n < e->n_windows)
        words *= n / (double)e->n_ids;
    return sl_metric_ppl(loss, words);
}

int sl_eval_score(struct sl_eval *ev, struct sl_eval_task *t,
                  struct sl_eval_file *f, struct sl_error *err)
{
    for (size_t i = 0; i < t->task->n_metrics; i++) {
        enum sl_metric m = t->task->metrics[i];

        if (t->task->type == SL_TASK_LM)
            f->values[i] = perplexity(t, f);
        else /* of single labels all micro-averages are the accuracy */
            f->values[i] = accuracy(t, f);
        (void)m;
    }
    (void)ev;
    (void)err;
    return 0;
}
