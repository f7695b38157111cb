#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/ids.h"
#include "src/base/mem.h"
#include "src/decode/beam.h"

/* Entries of a row of logits whose probabilities are kept as one sum, so that
 * a draw looks at few of them. */
#define BLOCK 256u

struct hypothesis {
    struct sl_ids ids; /* context included */
    double score;      /* sum of log-probabilities; penalised once finished */
};

struct candidate {
    uint64_t index; /* beam * vocab + token */
    double score;
};

struct row {
    float max;    /* largest logit */
    double shift; /* score of a token = logit + shift */
    double scale; /* what exp(logit - max) counts among all rows */
};

struct sl_beam {
    struct sl_beam_config config;
    uint32_t vocab;
    size_t n_context;
    uint32_t n_generated;
    bool done;
    struct hypothesis *live, *next, *finished; /* (n_beams), finished 1 more */
    size_t n_live, n_next, n_finished;
    struct candidate *candidates; /* (room_candidates), best first */
    size_t n_candidates, room_candidates;
    struct row *rows; /* (n_beams) */
    double *sums;     /* (n_beams, n_blocks) */
    size_t n_blocks;
};

static size_t block_end(const struct sl_beam *b, size_t block)
{
    size_t end = (block + 1) * BLOCK;

    return end < b->vocab ? end : b->vocab;
}

static bool is_end(const struct sl_beam *b, int32_t id)
{
    for (size_t i = 0; i < b->config.n_end_ids; i++) {
        if (b->config.end_ids[i] == id)
            return true;
    }
    return false;
}

int sl_beam_create(struct sl_beam **out, const struct sl_beam_config *config,
                   const int32_t *context, size_t n_context, uint32_t vocab,
                   struct sl_error *err)
{
    size_t n = config->n_beams, n_sums;
    struct sl_beam *b = sl_zalloc_array(1, sizeof *b);

    if (b == NULL || n == 0 || vocab == 0)
        goto fail;
    b->config = *config;
    b->vocab = vocab;
    b->n_context = n_context;
    b->n_blocks = (size_t)sl_div_up(vocab, BLOCK);
    b->room_candidates =
        ((config->n_end_ids > 0 ? config->n_end_ids : 1) + 1) * n;
    b->live = sl_zalloc_array(n, sizeof *b->live);
    b->next = sl_zalloc_array(n, sizeof *b->next);
    b->finished = sl_zalloc_array(n + 1, sizeof *b->finished);
    b->candidates = sl_alloc_array(b->room_candidates, sizeof *b->candidates);
    b->rows = sl_alloc_array(n, sizeof *b->rows);
    b->sums = sl_mul_size(&n_sums, n, b->n_blocks)
                  ? sl_alloc_array(n_sums, sizeof *b->sums)
                  : NULL;
    if (!b->live || !b->next || !b->finished || !b->candidates || !b->rows ||
        !b->sums ||
        sl_ids_append(&b->live[0].ids, context, n_context, err) != 0)
        goto fail;
    b->n_live = 1;
    *out = b;
    return 0;
fail:
    sl_beam_destroy(b);
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu beams", n);
}

void sl_beam_destroy(struct sl_beam *b)
{
    if (b == NULL)
        return;
    for (size_t i = 0; i < b->config.n_beams; i++) {
        if (b->live != NULL)
            sl_ids_fini(&b->live[i].ids);
        if (b->next != NULL)
            sl_ids_fini(&b->next[i].ids);
    }
    for (size_t i = 0; i <= b->config.n_beams && b->finished != NULL; i++)
        sl_ids_fini(&b->finished[i].ids);
    free(b->live);
    free(b->next);
    free(b->finished);
    free(b->candidates);
    free(b->rows);
    free(b->sums);
    free(b);
}

size_t sl_beam_n_live(const struct sl_beam *b)
{
    return b->n_live;
}

static const int32_t *hypothesis_at(const struct hypothesis *h, size_t *n,
                                    double *score)
{
    *n = h->ids.n;
    if (score != NULL)
        *score = h->score;
    return h->ids.v;
}

const int32_t *sl_beam_live(const struct sl_beam *b, size_t i, size_t *n,
                            double *score)
{
    return hypothesis_at(&b->live[i], n, score);
}

size_t sl_beam_n_finished(const struct sl_beam *b)
{
    return b->n_finished;
}

const int32_t *sl_beam_finished(const struct sl_beam *b, size_t i, size_t *n,
                                double *score)
{
    return hypothesis_at(&b->finished[i], n, score);
}

/* Bans what would repeat an n-gram that was completed by a generated token
 * (its first tokens may be context). The reference keeps a map from prefixes
 * to tokens and looks into it once the beam is longer than n; with n = 1 its
 * key is the whole beam, which never occurs again. */
static void ban_repeats(const struct sl_beam *b, const struct sl_ids *ids,
                        float *logits)
{
    size_t n = b->config.no_repeat_ngram, begin;
    const int32_t *tail;

    if (n < 2 || ids->n <= n)
        return;
    tail = ids->v + ids->n - (n - 1);
    begin = b->n_context > n - 1 ? b->n_context : n - 1;
    for (size_t i = begin; i < ids->n; i++) {
        if (memcmp(ids->v + i - (n - 1), tail, (n - 1) * sizeof *tail) == 0)
            logits[ids->v[i]] = SL_BANNED;
    }
}

static void ban(const struct sl_beam *b, float *logits, const int32_t *ids,
                size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && (uint32_t)ids[i] < b->vocab)
            logits[ids[i]] = SL_BANNED;
    }
}

/* Log-softmax of a row, as what must be added to its logits; the sums of its
 * blocks on the way. */
static void prepare_row(struct sl_beam *b, size_t i, float *logits)
{
    const struct sl_beam_config *c = &b->config;
    double *sums = b->sums + i * b->n_blocks, total = 0;
    struct row *row = &b->rows[i];

    ban(b, logits, c->banned, c->n_banned);
    if (b->n_generated < c->min_gen_length)
        ban(b, logits, c->end_ids, c->n_end_ids);
    ban_repeats(b, &b->live[i].ids, logits);
    row->max = logits[sl_argmax(logits, b->vocab)];
    for (size_t k = 0; k < b->n_blocks; k++) {
        sums[k] = 0;
        for (size_t t = k * BLOCK; t < block_end(b, k); t++)
            sums[k] += expf(logits[t] - row->max);
        total += sums[k];
    }
    row->shift = b->live[i].score - row->max - log(total);
}

static bool worse(const struct candidate *a, const struct candidate *b)
{
    return a->score < b->score || (a->score == b->score && a->index > b->index);
}

static void sink_worst(struct candidate *heap, size_t n, size_t i)
{
    for (;;) {
        size_t c = 2 * i + 1;
        struct candidate x = heap[i];

        if (c >= n)
            return;
        if (c + 1 < n && worse(&heap[c + 1], &heap[c]))
            c++;
        if (!worse(&heap[c], &x))
            return;
        heap[i] = heap[c];
        heap[c] = x;
        i = c;
    }
}

static bool is_taken(const struct sl_beam *b, uint64_t index)
{
    for (size_t i = 0; i < b->n_candidates; i++) {
        if (b->candidates[i].index == index)
            return true;
    }
    return false;
}

/* Fills the candidates up with the best of all that are not taken, through a
 * heap that has the worst at its root. */
static void take_best(struct sl_beam *b, const float *logits)
{
    size_t n_taken = b->n_candidates, n = 0;
    size_t room = b->room_candidates - n_taken;
    struct candidate *heap = b->candidates + n_taken;

    for (size_t i = 0; i < b->n_live && room > 0; i++) {
        for (uint32_t t = 0; t < b->vocab; t++) {
            uint64_t index = (uint64_t)i * b->vocab + t;
            struct candidate c = {index, logits[index] + b->rows[i].shift};

            if (n == room && !worse(&heap[0], &c))
                continue;
            if (n_taken > 0 && is_taken(b, index))
                continue;
            if (n < room) {
                heap[n++] = c;
                for (size_t k = n / 2; n == room && k-- > 0;)
                    sink_worst(heap, n, k);
            } else {
                heap[0] = c;
                sink_worst(heap, n, 0);
            }
        }
    }
    b->n_candidates += n;
}

/* Mass of a block without what was taken. */
static double block_sum(const struct sl_beam *b, const float *logits, size_t i,
                        size_t block)
{
    double sum = 0;

    for (size_t t = block * BLOCK; t < block_end(b, block); t++) {
        uint64_t at = (uint64_t)i * b->vocab + t;

        if (!is_taken(b, at))
            sum += expf(logits[at] - b->rows[i].max);
    }
    return sum;
}

/* The entry of a block at which the drawn mass is used up; the last one that
 * can be drawn where rounding leaves some of it. */
static uint64_t draw_in_block(const struct sl_beam *b, const float *logits,
                              size_t i, size_t block, double left)
{
    uint64_t drawn = 0;

    for (size_t t = block * BLOCK; t < block_end(b, block); t++) {
        uint64_t at = (uint64_t)i * b->vocab + t;
        double p = expf(logits[at] - b->rows[i].max);

        if (p == 0 || is_taken(b, at))
            continue;
        drawn = at;
        left -= p * b->rows[i].scale;
        if (left < 0)
            break;
    }
    return drawn;
}

/* One draw from all that is not taken: first the block, then the entry.
 * False when no mass is left. */
static bool draw_one(struct sl_beam *b, const float *logits, struct sl_rng *rng)
{
    size_t n = b->n_live * b->n_blocks, block = n;
    double left = 0, mass, total = 0;
    uint64_t at;

    for (size_t k = 0; k < n; k++)
        total += b->sums[k] * b->rows[k / b->n_blocks].scale;
    left = sl_rng_uniform(rng) * total;
    for (size_t k = 0; k < n; k++) {
        mass = b->sums[k] * b->rows[k / b->n_blocks].scale;
        if (mass <= 0)
            continue;
        block = k;
        if (left < mass)
            break;
        left -= mass;
    }
    if (block == n)
        return false;
    at = draw_in_block(b, logits, block / b->n_blocks, block % b->n_blocks,
                       left);
    b->candidates[b->n_candidates++] =
        (struct candidate){at, logits[at] + b->rows[block / b->n_blocks].shift};
    b->sums[block] =
        block_sum(b, logits, block / b->n_blocks, block % b->n_blocks);
    return true;
}

/* Without replacement from the softmax over all live beams together, as
 * torch.multinomial does it. */
static void take_drawn(struct sl_beam *b, const float *logits,
                       struct sl_rng *rng)
{
    double top = -INFINITY;

    for (size_t i = 0; i < b->n_live; i++) {
        if (b->rows[i].max + b->rows[i].shift > top)
            top = b->rows[i].max + b->rows[i].shift;
    }
    for (size_t i = 0; i < b->n_live; i++)
        b->rows[i].scale = exp(b->rows[i].max + b->rows[i].shift - top);
    while (b->n_candidates < b->room_candidates && draw_one(b, logits, rng))
        ;
}

static int compare_candidates(const void *x, const void *y)
{
    return worse(x, y) ? 1 : worse(y, x) ? -1 : 0;
}

static double penalised(const struct sl_beam *b, double score, size_t n)
{
    return score / pow((5.0 + (double)n) / 6.0, b->config.length_penalty);
}

static int copy_beam(struct hypothesis *to, const struct hypothesis *from,
                     struct sl_error *err)
{
    to->ids.n = 0;
    return sl_ids_append(&to->ids, from->ids.v, from->ids.n, err);
}

/* Inserts beam (and token, unless negative) into the finished ones, before
 * those of equal score; the worst falls out. */
static int add_finished(struct sl_beam *b, const struct hypothesis *from,
                        int32_t token, double score, struct sl_error *err)
{
    struct hypothesis *list = b->finished, *slot = &list[b->n_finished], x;
    size_t i = b->n_finished;

    if (copy_beam(slot, from, err) != 0 ||
        (token >= 0 && sl_ids_add(&slot->ids, token, err) != 0))
        return -1;
    slot->score = penalised(b, score, slot->ids.n);
    for (x = *slot; i > 0 && x.score >= list[i - 1].score; i--)
        list[i] = list[i - 1];
    list[i] = x;
    if (b->n_finished < b->config.n_beams)
        b->n_finished++;
    return 0;
}

/* Hands the candidates out, best first: those that end are finished, others
 * live on; over at the first of the latter that finds no place. */
static int walk_candidates(struct sl_beam *b, uint32_t *parents,
                           struct sl_error *err)
{
    b->n_next = 0;
    for (size_t i = 0; i < b->n_candidates; i++) {
        const struct candidate *c = &b->candidates[i];
        const struct hypothesis *from = &b->live[c->index / b->vocab];
        int32_t token = (int32_t)(c->index % b->vocab);
        struct hypothesis *to = &b->next[b->n_next];

        if (is_end(b, token)) {
            if (add_finished(b, from, token, c->score, err) != 0)
                return -1;
            continue;
        }
        if (b->n_next == b->config.n_beams)
            break;
        if (copy_beam(to, from, err) != 0 ||
            sl_ids_add(&to->ids, token, err) != 0)
            return -1;
        to->score = c->score;
        parents[b->n_next++] = (uint32_t)(c->index / b->vocab);
    }
    return 0;
}

int sl_beam_step(struct sl_beam *b, float *logits, uint32_t *parents,
                 struct sl_rng *rng, bool *done, struct sl_error *err)
{
    struct hypothesis *old = b->live;

    for (size_t i = 0; i < b->n_live; i++)
        prepare_row(b, i, logits + i * b->vocab);
    b->n_candidates = 0;
    if (!b->config.deterministic)
        take_drawn(b, logits, rng);
    take_best(b, logits);
    qsort(b->candidates, b->n_candidates, sizeof *b->candidates,
          compare_candidates);
    if (walk_candidates(b, parents, err) != 0)
        return -1;
    b->live = b->next;
    b->next = old;
    b->n_live = b->n_next;
    b->n_generated++;
    /* Candidates come best first, so live beam 0 has the best score. */
    b->done = b->n_live == 0 ||
              (b->n_finished == b->config.n_beams &&
               b->finished[b->n_finished - 1].score >=
                   penalised(b, b->live[0].score, b->live[0].ids.n));
    *done = b->done;
    return 0;
}

int sl_beam_finish(struct sl_beam *b, struct sl_error *err)
{
    if (!b->config.consider_end) {
        for (size_t i = 0; i < b->n_live; i++) {
            if (copy_beam(&b->finished[i], &b->live[i], err) != 0)
                return -1;
            b->finished[i].score = b->live[i].score;
        }
        b->n_finished = b->n_live;
        return 0;
    }
    for (size_t i = 0; i < b->n_live && !b->done; i++) {
        if (add_finished(b, &b->live[i], -1, b->live[i].score, err) != 0)
            return -1;
    }
    return 0;
}
