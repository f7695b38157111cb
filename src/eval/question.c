#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/eval/question.h"
#include "src/exec/kvcache.h"

int sl_question_init(struct sl_question *q, uint32_t n_strands, uint32_t n_logp,
                     struct sl_error *err)
{
    *q = (struct sl_question){
        .strands = sl_zalloc_array(n_strands, sizeof *q->strands),
        .logp = sl_zalloc_array(n_logp + 1u, sizeof *q->logp),
        .top = sl_zalloc_array(n_logp + 1u, sizeof *q->top),
        .n_strands = n_strands,
        .n_logp = n_logp,
    };
    if (q->strands != NULL && q->logp != NULL && q->top != NULL)
        return 0;
    sl_question_fini(q);
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for a question");
}

int sl_question_init_other(struct sl_question *q, struct sl_error *err)
{
    q->other_logp = sl_zalloc_array(q->n_logp + 1u, sizeof(double));
    q->divergence = sl_zalloc_array(q->n_logp + 1u, sizeof(double));
    q->same_top = sl_zalloc_array(q->n_logp + 1u, 1);
    if (q->other_logp && q->divergence && q->same_top)
        return 0;
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for a question");
}

void sl_question_fini(struct sl_question *q)
{
    for (uint32_t i = 0; q->strands != NULL && i < q->n_strands; i++)
        sl_strand_fini(&q->strands[i]);
    free(q->strands);
    free(q->logp);
    free(q->top);
    free(q->other_logp);
    free(q->divergence);
    free(q->same_top);
    *q = (struct sl_question){0};
}

int sl_strand_init(struct sl_strand *s, uint32_t n, uint32_t n_asks,
                   struct sl_error *err)
{
    *s = (struct sl_strand){
        .ids = sl_alloc_array(n, sizeof *s->ids),
        .asks = sl_alloc_array(n_asks + 1u, sizeof *s->asks),
        .n = n,
        .n_run = n,
        .block_from = n,
        .n_asks = n_asks,
    };
    if (s->ids != NULL && s->asks != NULL)
        return 0;
    sl_strand_fini(s);
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for %u ids", n);
}

void sl_strand_fini(struct sl_strand *s)
{
    free(s->ids);
    free(s->asks);
    *s = (struct sl_strand){0};
}

uint64_t sl_question_positions(const struct sl_question *q)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < q->n_strands; i++)
        n += q->strands[i].n;
    return n;
}

uint32_t sl_question_longest(const struct sl_question *q)
{
    uint32_t branch = 0, stem = q->stem ? q->stem->strand.n : 0;

    for (uint32_t i = 1; i < q->n_strands; i++)
        branch = q->strands[i].n > branch ? q->strands[i].n : branch;
    return stem + q->strands[0].n + branch;
}

/* A fork's first page may be a copy of its parent's last. */
uint64_t sl_question_pages(const struct sl_question *q)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < q->n_strands; i++) {
        bool fork = i > 0 || q->stem != NULL;

        n += sl_div_up(q->strands[i].n, SL_KV_PAGE_LEN) + fork;
    }
    return n;
}
