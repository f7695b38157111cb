#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "src/decode/sampler.h"

struct candidate {
    float logit;
    uint32_t id;
};

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

void sl_rng_seed(struct sl_rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) { /* splitmix64 */
        uint64_t z = seed += 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        rng->s[i] = z ^ z >> 31;
    }
}

static uint64_t next(struct sl_rng *rng)
{
    uint64_t *s = rng->s, t = s[1] << 17;
    uint64_t result = rotl(s[1] * 5, 7) * 9; /* xoshiro256** */

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double sl_rng_uniform(struct sl_rng *rng)
{
    return (double)(next(rng) >> 11) * 0x1p-53;
}

static void jump_by(struct sl_rng *rng, const uint64_t jump[4])
{
    struct sl_rng to = {{0}};

    for (int i = 0; i < 256; i++) {
        for (int k = 0; k < 4 && jump[i / 64] >> i % 64 & 1; k++)
            to.s[k] ^= rng->s[k];
        next(rng);
    }
    *rng = to;
}

void sl_rng_jump(struct sl_rng *rng)
{
    static const uint64_t jump[] = {0x180ec6d33cfd0aba, 0xd5a61266f0c9392c,
                                    0xa9582618e03fc9aa, 0x39abdc4529b1661c};

    jump_by(rng, jump);
}

void sl_rng_jump_far(struct sl_rng *rng)
{
    static const uint64_t jump[] = {0x76e15d3efefdcbbf, 0xc5004e441c522fb3,
                                    0x77710069854ee241, 0x39109bb02acbe635};

    jump_by(rng, jump);
}

size_t sl_sampler_scratch_bytes(uint32_t vocab)
{
    return (size_t)vocab * sizeof(struct candidate);
}

int32_t sl_argmax(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[best])
            best = i;
    }
    return (int32_t)best;
}

/* Lets heap[i] sink in a heap whose root is the smallest. */
static void sink_small(float *heap, size_t n, size_t i)
{
    for (;;) {
        size_t c = 2 * i + 1;
        float x = heap[i];

        if (c >= n)
            return;
        if (c + 1 < n && heap[c + 1] < heap[c])
            c++;
        if (!(heap[c] < x))
            return;
        heap[i] = heap[c];
        heap[c] = x;
        i = c;
    }
}

/* The k-th largest logit: a heap of the k largest so far, which most of the
 * vocabulary never enters. */
static float kth_largest(const float *logits, uint32_t vocab, uint32_t k,
                         float *heap)
{
    for (uint32_t i = 0; i < k; i++)
        heap[i] = logits[i];
    for (size_t i = k / 2; i-- > 0;)
        sink_small(heap, k, i);
    for (uint32_t i = k; i < vocab; i++) {
        if (logits[i] > heap[0]) {
            heap[0] = logits[i];
            sink_small(heap, k, 0);
        }
    }
    return heap[0];
}

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

/* The same with the best at the root. */
static void sink_best(struct candidate *heap, size_t n, size_t i)
{
    for (;;) {
        size_t c = 2 * i + 1;
        struct candidate x = heap[i];

        if (c >= n)
            return;
        if (c + 1 < n && before(&heap[c + 1], &heap[c]))
            c++;
        if (!before(&heap[c], &x))
            return;
        heap[i] = heap[c];
        heap[c] = x;
        i = c;
    }
}

/* Keeps the likeliest tokens until their mass exceeds top_p, the one that
 * crosses included; takes them off a heap, so the rest is never sorted. */
static void keep_top_p(float *logits, uint32_t vocab, double top_p,
                       struct candidate *heap)
{
    float max = logits[sl_argmax(logits, vocab)];
    double total = 0, mass = 0;
    size_t n = 0;

    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] <= SL_BANNED)
            continue;
        total += exp((double)logits[i] - max);
        heap[n++] = (struct candidate){logits[i], i};
        logits[i] = SL_BANNED;
    }
    for (size_t i = n / 2; i-- > 0;)
        sink_best(heap, n, i);
    while (n > 0 && mass <= top_p * total) {
        logits[heap[0].id] = heap[0].logit;
        mass += exp((double)heap[0].logit - max);
        heap[0] = heap[--n];
        sink_best(heap, n, 0);
    }
}

void sl_sampler_filter(float *logits, uint32_t vocab,
                       const struct sl_sampler_config *config, void *scratch)
{
    float temperature = (float)config->temperature, least;

    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] > SL_BANNED)
            logits[i] /= temperature;
    }
    if (config->top_k > 0 && config->top_k < vocab) {
        least = kth_largest(logits, vocab, config->top_k, scratch);
        for (uint32_t i = 0; i < vocab; i++) {
            if (logits[i] < least)
                logits[i] = SL_BANNED;
        }
    }
    if (config->top_p > 0)
        keep_top_p(logits, vocab, config->top_p, scratch);
}

int32_t sl_sampler_draw(const float *logits, uint32_t vocab, struct sl_rng *rng)
{
    int32_t best = sl_argmax(logits, vocab);
    double total = 0, left;

    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] > SL_BANNED)
            total += exp((double)logits[i] - logits[best]);
    }
    left = sl_rng_uniform(rng) * total;
    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] <= SL_BANNED)
            continue;
        left -= exp((double)logits[i] - logits[best]);
        if (left < 0)
            return (int32_t)i;
    }
    return best;
}
