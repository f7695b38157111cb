#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/decode/draft.h"

/* What followed the same words before. The text is kept with two chains
 * through it, as a compressor of the LZ77 family has them: each position
 * knows the one before it that ends in the same long gram, and in the same
 * short gram. The longest of what the chains find counts, the newest of
 * equals, so that what was generated comes before the prompt; a repetition
 * that runs into the end of the text goes on with itself. An id costs two
 * steps, whatever the text's length. */

/* (Saxena, github.com/apoorvumang/prompt-lookup-decoding: the last few tokens
 * are looked up in the prompt; here in all of the text) */

enum { N_CHAINS = 2 };

static const uint32_t gram[N_CHAINS] = {5, 2}; /* long, short */

#define TRIES   16u /* of a chain */
#define COMPARE 32u /* ids, going backwards */

struct lookup {
    struct sl_draft draft; /* first */
    uint32_t room, n;
    uint32_t n_heads; /* a power of two */
    int32_t *ids;     /* (room) */
    /* 1 + the last position that ends in a gram of a hash (n_heads), and
     * before that one (room); 0: none */
    uint32_t *heads[N_CHAINS], *before[N_CHAINS];
    uint32_t from; /* where what is offered begins */
};

static uint32_t heads_of(uint32_t room)
{
    uint32_t n = 64;

    while (n < room && n < 1u << 20)
        n *= 2;
    return n;
}

static uint64_t lookup_bytes(uint32_t max_tokens)
{
    return sizeof(struct lookup) +
           4ull * ((1 + N_CHAINS) * (uint64_t)max_tokens +
                   N_CHAINS * (uint64_t)heads_of(max_tokens));
}

static void lookup_destroy(struct sl_draft *d)
{
    struct lookup *l = (struct lookup *)d;

    for (int c = 0; c < N_CHAINS; c++) {
        free(l->heads[c]);
        free(l->before[c]);
    }
    free(l->ids);
    free(l);
}

/* Of the gram that ends at position `at`. */
static uint32_t hash(const struct lookup *l, int chain, uint32_t at)
{
    uint32_t h = 2166136261u;

    for (uint32_t i = 0; i < gram[chain]; i++)
        h = (h ^ (uint32_t)l->ids[at - i]) * 16777619u;
    return (h ^ h >> 15) & (l->n_heads - 1);
}

static void lookup_add(struct sl_draft *d, int32_t id)
{
    struct lookup *l = (struct lookup *)d;
    uint32_t at = l->n;

    if (at == l->room)
        return;
    l->ids[l->n++] = id;
    for (int c = 0; c < N_CHAINS; c++) {
        uint32_t h;

        l->before[c][at] = 0;
        if (l->n < gram[c])
            continue;
        h = hash(l, c, at);
        l->before[c][at] = l->heads[c][h];
        l->heads[c][h] = at + 1;
    }
}

static int lookup_begin(struct sl_draft *d, const struct sl_draft_text *t,
                        struct sl_error *err)
{
    struct lookup *l = (struct lookup *)d;
    size_t first = t->n > l->room ? t->n - l->room : 0;

    l->n = 0;
    for (int c = 0; c < N_CHAINS; c++)
        memset(l->heads[c], 0, l->n_heads * sizeof *l->heads[c]);
    for (size_t i = first; i < t->n; i++)
        lookup_add(d, t->ids[i]);
    return 0;
}

/* How far what ends at `at` is what the text ends in. */
static uint32_t same(const struct lookup *l, uint32_t at)
{
    uint32_t n = 0, end = l->n - 1;

    while (n < COMPARE && n <= at && l->ids[at - n] == l->ids[end - n])
        n++;
    return n;
}

/* The best of a chain; *from: behind it. Returns its length, or 0. */
static uint32_t search(const struct lookup *l, int chain, uint32_t *from)
{
    uint32_t best = 0, at;

    if (l->n < gram[chain])
        return 0;
    at = l->before[chain][l->n - 1];
    for (uint32_t i = 0; at > 0 && i < TRIES && best < COMPARE; i++) {
        uint32_t n = same(l, at - 1);

        if (n >= gram[chain] && n > best) {
            best = n;
            *from = at;
        }
        at = l->before[chain][at - 1];
    }
    return best;
}

static uint32_t lookup_offer(struct sl_draft *d, uint32_t most,
                             uint32_t *strength)
{
    static const uint32_t at_least[SL_DRAFT_CLASSES] = {2, 3, 5, 9};
    struct lookup *l = (struct lookup *)d;
    uint32_t n = 0;

    for (int c = 0; c < N_CHAINS && n == 0; c++)
        n = search(l, c, &l->from);
    *strength = 0;
    if (n == 0)
        return 0;
    while (*strength + 1 < SL_DRAFT_CLASSES && n >= at_least[*strength + 1])
        ++*strength;
    return most;
}

static int lookup_propose(struct sl_draft *d,
                          const struct sl_draft_place *where, int32_t *ids,
                          uint32_t n, uint32_t *made, struct sl_error *err)
{
    const struct lookup *l = (struct lookup *)d;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = l->from + i;

        ids[i] = at < l->n ? l->ids[at] : ids[at - l->n];
    }
    *made = n;
    return 0;
}

static const struct sl_draft_ops lookup_ops = {
    .begin = lookup_begin,
    .add = lookup_add,
    .offer = lookup_offer,
    .propose = lookup_propose,
    .destroy = lookup_destroy,
};

static int lookup_create(struct sl_draft **d, uint32_t max_tokens, void *arg,
                         struct sl_error *err)
{
    struct lookup *l = sl_zalloc_array(1, sizeof *l);
    bool all;

    if (l == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for drafts");
    l->draft.ops = &lookup_ops;
    l->room = max_tokens;
    l->n_heads = heads_of(max_tokens);
    l->ids = sl_alloc_array(max_tokens, sizeof *l->ids);
    all = l->ids != NULL;
    for (int c = 0; c < N_CHAINS; c++) {
        l->heads[c] = sl_zalloc_array(l->n_heads, sizeof *l->heads[c]);
        l->before[c] = sl_alloc_array(max_tokens, sizeof *l->before[c]);
        all = all && l->heads[c] != NULL && l->before[c] != NULL;
    }
    if (!all) {
        lookup_destroy(&l->draft);
        return sl_fail(err, SL_ERR_NOMEM,
                       "no memory to look up %u tokens of a text", max_tokens);
    }
    *d = &l->draft;
    return 0;
}

const struct sl_draft_kind sl_draft_lookup = {
    .name = "lookup",
    .prior = {0.3, 0.4, 0.6, 0.8},
    .bytes = lookup_bytes,
    .create = lookup_create,
};
