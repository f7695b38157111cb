#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/mem.h"
#include "src/eval/metrics.h"
#include "src/eval/perplexity.h"

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sums over all that was asked. */
struct sums {
    double loss, squares, other, divergence, same;
    double *divergences; /* (n) */
    size_t n;
};

static void add_unit(struct sums *s, const struct sl_question *q)
{
    for (uint32_t k = 0; k < q->n_logp; k++) {
        s->loss -= q->logp[k];
        s->squares += q->logp[k] * q->logp[k];
        if (q->divergence != NULL) {
            s->other -= q->other_logp[k];
            s->divergence += q->divergence[k];
            s->same += q->same_top[k];
            s->divergences[s->n] = q->divergence[k];
        }
        s->n++;
    }
}

static void finish(struct sl_perplexity *p, struct sums *s)
{
    double n = (double)s->n, mean = s->loss / n;
    double variance = s->squares / n - mean * mean;
    double words = (double)p->n_words, tokens = (double)p->n_tokens;

    p->n_scored = s->n;
    p->loss = s->loss;
    p->per_token = exp(mean);
    p->error = s->n > 1 ? p->per_token * sqrt(variance / (n - 1)) : 0;
    p->per_word = sl_metric_ppl(s->loss, words);
    p->bits_per_byte = s->loss / (double)p->n_bytes / log(2);
    if (tokens > 1 && words > 1)
        p->adjusted = sl_metric_ppl(
            s->loss / (tokens - 1) * ((tokens - 1) / (words - 1)), 1);
    if (!p->against)
        return;
    qsort(s->divergences, s->n, sizeof(double), ascending);
    p->other_per_token = exp(s->other / n);
    p->divergence = s->divergence / n;
    p->divergence_median = s->divergences[s->n / 2];
    p->divergence_99 = s->divergences[(size_t)ceil(0.99 * n) - 1];
    p->divergence_most = s->divergences[s->n - 1];
    p->same_top = s->same / n;
}

int sl_perplexity_of(struct sl_perplexity *p, const struct sl_eval_task *t,
                     size_t first_file, size_t n_files, struct sl_error *err)
{
    struct sums sums = {0};
    size_t n = 0;

    *p = (struct sl_perplexity){0};
    for (size_t i = first_file; i < first_file + n_files; i++) {
        const struct sl_eval_file *f = &t->files[i];

        for (size_t k = f->first; k < f->first + f->n; k++) {
            n += t->units[k].q.n_logp;
            p->against = t->units[k].q.divergence != NULL;
        }
        p->n_tokens += f->data.v[0].n_ids;
        p->n_words += f->data.v[0].n_words;
        p->n_bytes += f->data.v[0].n_bytes;
    }
    sums.divergences = sl_alloc_array(n + 1, sizeof(double));
    if (sums.divergences == NULL || n == 0) {
        free(sums.divergences);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for results");
    }
    for (size_t i = first_file; i < first_file + n_files; i++) {
        const struct sl_eval_file *f = &t->files[i];

        for (size_t k = f->first; k < f->first + f->n; k++)
            add_unit(&sums, &t->units[k].q);
    }
    finish(p, &sums);
    free(sums.divergences);
    return 0;
}
