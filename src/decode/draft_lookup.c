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
#define SOON    6u  /* ids, from where matches may differ */

/* A place of the text that ends as the text does. */
struct match {
    uint32_t from, same; /* behind it; ids in common */
    uint32_t node;       /* of a tree: its guesses lead here, */
    int32_t next;        /* and go on with this */
};

struct lookup {
    struct sl_draft draft; /* first */
    uint32_t room, n;
    uint32_t n_heads; /* a power of two */
    int32_t *ids;     /* (room) */
    /* 1 + the last position that ends in a gram of a hash (n_heads), and
     * before that one (room); 0: none */
    uint32_t *heads[N_CHAINS], *before[N_CHAINS];
    /* that were found last, the newest first, those of the long gram before
     * the others */
    struct match found[N_CHAINS * TRIES];
    uint32_t n_found;
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

/* A chain for each length of what is compared: places whose last ids have
 * the same hash, newest first. heads and before hold places + 1, so that 0
 * ends a chain; ids are compared when one is found. */
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

    l->n = l->n_found = 0;
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

static bool is_found(const struct lookup *l, uint32_t from)
{
    for (uint32_t i = 0; i < l->n_found; i++) {
        if (l->found[i].from == from)
            return true;
    }
    return false;
}

/* Of both chains, the short one for what the long one has not. */
static void search(struct lookup *l)
{
    l->n_found = 0;
    for (int c = 0; c < N_CHAINS; c++) {
        uint32_t at = l->n < gram[c] ? 0 : l->before[c][l->n - 1];

        for (uint32_t i = 0; at > 0 && i < TRIES; i++) {
            uint32_t n = same(l, at - 1);

            if (n >= gram[c] && !is_found(l, at))
                l->found[l->n_found++] =
                    (struct match){.from = at, .same = n, .next = l->ids[at]};
            at = l->before[c][at - 1];
        }
    }
}

/* Where the longest match goes on is what is offered; how long it is says
 * how much it is worth to whoever decides between kinds. */
static uint32_t lookup_offer(struct sl_draft *d, uint32_t most,
                             uint32_t *strength)
{
    static const uint32_t at_least[SL_DRAFT_CLASSES] = {2, 3, 5, 9};
    struct lookup *l = (struct lookup *)d;
    uint32_t n = 0;

    search(l);
    for (uint32_t i = 0; i < l->n_found; i++) {
        if (l->found[i].same > n) {
            n = l->found[i].same;
            l->from = l->found[i].from;
        }
    }
    *strength = 0;
    if (n == 0)
        return 0;
    while (*strength + 1 < SL_DRAFT_CLASSES && n >= at_least[*strength + 1])
        ++*strength;
    return most;
}

/* Whether two matches soon go on otherwise. */
static bool lookup_branches(struct sl_draft *d)
{
    const struct lookup *l = (struct lookup *)d;

    for (uint32_t i = 1; i < l->n_found; i++) {
        for (uint32_t k = 0; k < SOON; k++) {
            uint32_t a = l->found[0].from + k, b = l->found[i].from + k;

            if (a < l->n && b < l->n && l->ids[a] != l->ids[b])
                return true;
        }
    }
    return false;
}

/* What a match goes on with, after so many ids: a match that runs into the end
 * of the text goes on with what was guessed, of which path is the last. */
static int32_t follows(const struct lookup *l, const struct sl_tree *t,
                       uint32_t from, uint32_t after, uint32_t path)
{
    uint32_t at = from + after;

    if (at < l->n)
        return l->ids[at];
    while (t->depths[path] > at - l->n + 1)
        path = t->parents[path];
    return t->ids[path];
}

/* --- several matches -------------------------------------------------------
 */

/* The longer what a match has in common with the text, the likelier is what
 * follows it; what was guessed in accord with it counts too. Something that
 * never followed is as likely as a match of so many ids. */
#define UNKNOWN 3.0

/* Matches on their way through a tree that is made. */
struct routes {
    struct match of[N_CHAINS * TRIES];
    uint32_t n;
    /* of nodes: that the text comes by one; weight of all that came by it */
    double chance[1 + SL_DRAFT_MOST], weight[1 + SL_DRAFT_MOST];
};

static double weight(const struct sl_tree *t, const struct match *m)
{
    double n = m->same + t->depths[m->node];

    return n * n;
}

/* The likeliest guess that the tree has not: what match *best goes on with
 * behind its node. */
static double likeliest(const struct sl_tree *t, const struct routes *m,
                        uint32_t *best)
{
    double most = 0;

    for (uint32_t i = 0; i < m->n; i++) {
        const struct match *a = &m->of[i];
        double agree = 0, chance;

        for (uint32_t k = 0; k < m->n; k++) {
            if (m->of[k].node == a->node && m->of[k].next == a->next)
                agree += weight(t, &m->of[k]);
        }
        chance = m->chance[a->node] * agree / (UNKNOWN + m->weight[a->node]);
        if (chance > most && sl_tree_children(t, a->node) < t->width) {
            most = chance;
            *best = i;
        }
    }
    return most;
}

/* Takes the guess, and along it all that go on with it. Those that do not stay
 * where they are, for a brother. */
static void take(const struct lookup *l, struct sl_tree *t, struct routes *m,
                 uint32_t best, double chance)
{
    struct match took = m->of[best];
    uint32_t to = sl_tree_add(t, took.node, took.next);

    m->chance[to] = chance;
    m->weight[to] = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        struct match *o = &m->of[i];

        if (o->node != took.node || o->next != took.next)
            continue;
        o->node = to;
        o->next = follows(l, t, o->from, t->depths[to], to);
        m->weight[to] += weight(t, o);
    }
}

static void propose_all(const struct lookup *l, struct sl_tree *t, uint32_t n)
{
    struct routes m = {.n = l->n_found, .chance = {1}};
    uint32_t best;

    memcpy(m.of, l->found, l->n_found * sizeof *m.of);
    for (uint32_t i = 0; i < m.n; i++)
        m.weight[0] += weight(t, &m.of[i]);
    while (t->n < 1 + n) {
        double chance = likeliest(t, &m, &best);

        if (chance <= 0)
            break;
        take(l, t, &m, best, chance);
    }
}

static int lookup_propose(struct sl_draft *d,
                          const struct sl_draft_place *where,
                          struct sl_tree *tree, uint32_t n,
                          struct sl_error *err)
{
    const struct lookup *l = (struct lookup *)d;

    if (tree->width > 1) {
        propose_all(l, tree, n);
        return 0;
    }
    for (uint32_t i = 0; i < n; i++)
        sl_tree_add(tree, i, follows(l, tree, l->from, i, i));
    return 0;
}

static const struct sl_draft_ops lookup_ops = {
    .begin = lookup_begin,
    .add = lookup_add,
    .offer = lookup_offer,
    .branches = lookup_branches,
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
