#include "config.h"

#include <math.h>
#include <string.h>

#include "src/serve/batcher_impl.h"

int sl_row_check(const float *row, uint32_t vocab, struct sl_error *err)
{
    for (uint32_t i = 0; i < vocab; i++) {
        if (!isfinite(row[i]))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the model's output is not a number (logit %u of "
                           "%u): damaged weights? 'sluice verify' tells",
                           i, vocab);
    }
    return 0;
}

/* The n likeliest of a row, by insertion: n is small, and most ids are less
 * likely than all of them. */
static unsigned find_top(struct sl_gen_top *top, unsigned n, const float *row,
                         uint32_t vocab)
{
    unsigned have = 0;

    for (uint32_t i = 0; i < vocab && n > 0; i++) {
        unsigned at = have;

        if (have == n && row[i] <= top[n - 1].logprob)
            continue;
        if (have < n)
            have++;
        else
            at--;
        for (; at > 0 && row[i] > top[at - 1].logprob; at--)
            top[at] = top[at - 1];
        top[at] = (struct sl_gen_top){(int32_t)i, row[i]};
    }
    return have;
}

void sl_row_keep(struct sl_batcher *e, struct sl_gen *g, const float *row)
{
    uint32_t vocab = e->c.lm->vocab;
    double sum = 0;
    float max;

    if (g->n_top < 0)
        return;
    max = row[sl_argmax(row, vocab)];
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)row[i] - max);
    for (uint32_t i = 0; i < vocab; i++)
        e->raw[i] = (float)((double)row[i] - max - log(sum));
    g->token.top = g->top;
    g->token.n_top = find_top(g->top, (unsigned)g->n_top, e->raw, vocab);
}

void sl_row_tell(struct sl_batcher *e, struct sl_gen *g, int32_t id)
{
    g->token.id = id;
    g->token.logprob = g->n_top >= 0 ? e->raw[id] : 0;
}

static void count(struct sl_batcher *e, float *row, const struct sl_gen *g,
                  const int32_t *ids, size_t n, size_t n_prompt)
{
    float repetition = (float)g->repetition_penalty;
    float presence = (float)g->presence_penalty;
    float frequency = (float)g->frequency_penalty;
    bool repeats = repetition > 0 && repetition != 1;

    memset(e->seen, 0, e->c.lm->vocab / 8 + 1);
    for (size_t i = 0; i < n && repeats; i++) {
        int32_t id = ids[i];

        if (e->seen[id / 8] >> id % 8 & 1)
            continue;
        e->seen[id / 8] |= (uint8_t)(1u << id % 8);
        row[id] = row[id] > 0 ? row[id] / repetition : row[id] * repetition;
    }
    memset(e->seen, 0, e->c.lm->vocab / 8 + 1);
    for (size_t i = n_prompt; i < n; i++) {
        int32_t id = ids[i];

        row[id] -= frequency;
        if (!(e->seen[id / 8] >> id % 8 & 1))
            row[id] -= presence;
        e->seen[id / 8] |= (uint8_t)(1u << id % 8);
    }
}

void sl_row_shape(struct sl_batcher *e, struct sl_gen *g, float *row,
                  const int32_t *ids, size_t n, size_t n_prompt)
{
    bool counts = (g->repetition_penalty > 0 && g->repetition_penalty != 1) ||
                  g->presence_penalty != 0 || g->frequency_penalty != 0;

    if (counts)
        count(e, row, g, ids, n, n_prompt);
    for (size_t i = 0; i < g->n_bias; i++)
        row[g->bias[i].id] += g->bias[i].add;
    if (g->rule != NULL)
        g->rule->limit(g->rule->opaque, row, e->c.lm->vocab);
}
