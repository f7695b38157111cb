#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "src/base/clock.h"
#include "src/base/links.h"
#include "src/base/mem.h"
#include "src/exec/prompt_cache.h"

/* Contexts shorter than this are as soon computed. */
enum { LEAST_STORED = 32 };
/* After a prompt could not be kept none is for so long. */
#define PAUSE_NS 60000000000u

/* What a sequence holds. */
struct held {
    bool known; /* all of it, by the following: ids one after another */
    uint32_t n;
    int32_t *ids; /* (max_tokens) */
};

struct sl_prompt_cache {
    struct sl_lm lm; /* first: it is a language model */
    struct sl_lm *inner;
    struct sl_prompt_file *file;
    struct sl_prompt_file_config c;
    const struct sl_log *log;
    struct sl_prompt_cache_stats stats;
    float *rows; /* (store.rows, vocab) logits of contexts that were read */
    bool asked;  /* the first context has come */
    bool broken; /* the file is not to be looked at again */
    /* a folder of them, where there is one */
    struct sl_prompt_store store; /* dir NULL: there is none; rows is 1 */
    char *path;                   /* of the item that is looked at */
    uint64_t resume_ns;           /* nothing is kept before */
    struct held *held;            /* (sequences), by number */
    int32_t *ids;                 /* (sequences, max_tokens) of all */
    int32_t *positions;           /* (max_tokens) 0, 1, 2 ... */
};

static struct sl_prompt_cache *cache_of(struct sl_lm *lm)
{
    return (struct sl_prompt_cache *)lm;
}

/* An item that begins a sequence, as texts do. */
static bool is_context(const struct sl_prompt_cache *pc,
                       const struct sl_lm_item *item)
{
    uint32_t begin = sl_kv_n_begin(pc->c.kv);

    return sl_kv_len(pc->c.kv, item->seq) == begin &&
           item->n <= pc->c.kv_config->max_tokens - begin &&
           item->n_logits == 1;
}

static bool load(struct sl_prompt_cache *pc, const struct sl_lm_item *item,
                 float *row)
{
    uint64_t begin = sl_clock_ns(), bytes;
    struct sl_error err;

    if (sl_prompt_file_load(pc->file, item, row, &bytes, &err) != 0) {
        sl_log(pc->log, SL_LOG_WARN,
               "%s; the prompt is computed, and kept there anew", err.msg);
        /* One of a folder is taken for whole by its key: not any more. */
        if (pc->store.dir != NULL && err.code == SL_ERR_CORRUPT)
            unlink(pc->path);
        return false;
    }
    pc->stats.restored += item->n;
    pc->stats.restored_ns += sl_clock_ns() - begin;
    pc->stats.read_bytes += bytes;
    return true;
}

/* Has the item's sequence and logits ready, or says whether to keep them once
 * they are. */
static bool restore(struct sl_prompt_cache *pc, const struct sl_lm_item *item,
                    bool *keep)
{
    bool first = !pc->asked;
    struct sl_error why;

    *keep = false;
    pc->asked = true;
    if (pc->broken)
        return false;
    switch (sl_prompt_file_find(pc->file, item, &why)) {
    case SL_PROMPT_SAME:
        if (load(pc, item, pc->rows))
            return true;
        *keep = first;
        pc->broken = !first;
        return false;
    case SL_PROMPT_OTHER:
        if (first)
            sl_log(pc->log, SL_LOG_INFO,
                   "%s: holds another prompt, or this one of another model or "
                   "with other options; it is replaced",
                   pc->c.path);
        *keep = first;
        return false;
    case SL_PROMPT_FOREIGN:
        if (first)
            sl_log(pc->log, SL_LOG_WARN,
                   "%s; it is left alone, and the prompt computed", why.msg);
        pc->broken = true;
        return false;
    default:
        *keep = first;
        return false;
    }
}

static void save(struct sl_prompt_cache *pc, const struct sl_lm_item *item,
                 const float *logits)
{
    uint64_t begin = sl_clock_ns();
    struct sl_error err;

    if (sl_prompt_file_save(pc->file, item, logits, &pc->stats.saved_bytes,
                            &err) != 0) {
        pc->stats.saved_bytes = 0;
        pc->broken = true;
        sl_log(pc->log, SL_LOG_WARN, "%s; the prompt is not kept", err.msg);
    }
    pc->stats.saved_ns = sl_clock_ns() - begin;
}

/* A pass with contexts in it. */
struct pass {
    const struct sl_lm_item *items;
    size_t n_items;
    float *logits;           /* (rows of all items, vocab) */
    bool *restored, *keep;   /* (n_items) */
    struct sl_lm_item *rest; /* (n_items) those that are to be computed */
    size_t n_rest, n_restored;
};

/* --- a folder of files ----------------------------------------------------
 *
 * Texts that look back lie there in parts of SL_PROMPT_PART ids and a rest:
 *
 *     |---- part ----|---- part ----|-- rest --|
 *
 * whatever passes they were read or said in, as none of their values depends on
 * that. A part is kept when it is full, the rest when a prompt ends with it; so
 * what begins as a kept text did reads what is behind its last full part alone.
 * Texts with a context that looks ahead are kept whole.
 */

static struct held *held_of(struct sl_prompt_cache *pc, uint32_t seq)
{
    return pc->held != NULL && seq < pc->c.kv_config->n_sequences
               ? &pc->held[seq]
               : NULL;
}

/* Does the item go on as texts do that look back? */
static bool is_plain(const struct held *h, const struct sl_lm_item *item)
{
    bool plain = item->n_context == 0 && item->blocks == NULL;

    if (item->parents != NULL) /* what is kept of a tree will be in order */
        return plain;
    for (uint32_t j = 0; j < item->n && plain; j++)
        plain = item->positions[j] == (int32_t)(h->n + j);
    return plain;
}

/* Its sequence has the item now. */
static void hold_more(struct sl_prompt_cache *pc, const struct sl_lm_item *item)
{
    struct held *h = held_of(pc, item->seq);

    if (h == NULL || !h->known)
        return;
    h->known =
        is_plain(h, item) && item->n <= pc->c.kv_config->max_tokens - h->n;
    if (!h->known)
        return;
    memcpy(h->ids + h->n, item->ids, item->n * sizeof *item->ids);
    h->n += item->n;
}

/* An item worth a file: it reads a text, or the next part of one, behind what
 * is known and fills pages. */
static bool is_stored(struct sl_prompt_cache *pc, const struct sl_lm_item *item)
{
    const struct held *h = held_of(pc, item->seq);
    uint32_t begin = sl_kv_n_begin(pc->c.kv);

    return h != NULL && h->known && item->reads && !item->apart &&
           item->n_logits == 1 && item->n >= LEAST_STORED &&
           sl_kv_len(pc->c.kv, item->seq) == begin + h->n &&
           item->n <= pc->c.kv_config->max_tokens - begin - h->n &&
           (h->n == 0 || (h->n % SL_PROMPT_PART == 0 &&
                          begin % SL_KV_PAGE_LEN == 0 && is_plain(h, item)));
}

/* The file of an item behind the first n ids of its sequence. */
static void turn_to(struct sl_prompt_cache *pc, const struct held *h,
                    uint32_t n, const struct sl_lm_item *item)
{
    sl_prompt_file_after(pc->file, n, XXH3_64bits(h->ids, n * sizeof *h->ids));
    sl_prompt_store_path(pc->path, &pc->store,
                         sl_prompt_file_sum(pc->file, item));
}

static bool fetch(struct sl_prompt_cache *pc, struct pass *p, size_t i)
{
    const struct sl_lm_item *item = &p->items[i];
    const struct held *h = held_of(pc, item->seq);
    struct sl_error why;
    enum sl_prompt_found found;

    if (!is_stored(pc, item))
        return false;
    turn_to(pc, h, h->n, item);
    found = sl_prompt_file_find(pc->file, item, &why);
    if (found == SL_PROMPT_FOREIGN ||
        (found == SL_PROMPT_SAME && p->n_restored == pc->store.rows))
        return false;
    if (found == SL_PROMPT_SAME &&
        load(pc, item, pc->rows + p->n_restored * pc->lm.vocab)) {
        sl_prompt_store_touch(pc->path);
        return true;
    }
    p->keep[i] = !is_plain(h, item);
    return false;
}

/* Of an item behind the first n ids of its sequence. */
static void store_away(struct sl_prompt_cache *pc,
                       const struct sl_lm_item *item, uint32_t n,
                       const float *logits)
{
    uint64_t before = pc->stats.saved_bytes;
    struct sl_error err;

    if (sl_clock_ns() < pc->resume_ns)
        return;
    turn_to(pc, held_of(pc, item->seq), n, item);
    if (sl_prompt_file_find(pc->file, item, &err) == SL_PROMPT_SAME) {
        sl_prompt_store_touch(pc->path);
        return;
    }
    save(pc, item, logits);
    if (pc->broken) {
        pc->broken = false;
        pc->resume_ns = sl_clock_ns() + PAUSE_NS;
        pc->stats.saved_bytes = before;
        return;
    }
    pc->stats.saved_bytes += before;
    if (sl_prompt_store_trim(&pc->store, &err) != 0)
        sl_log(pc->log, SL_LOG_WARN, "%s", err.msg);
}

/* The part of a text that ends with its first `end` ids, which have these
 * logits behind them. */
static void store_part(struct sl_prompt_cache *pc, uint32_t seq, uint32_t end,
                       const float *logits)
{
    const struct held *h = held_of(pc, seq);
    uint32_t from = (end - 1) / SL_PROMPT_PART * SL_PROMPT_PART;
    struct sl_lm_item part = {
        .seq = seq,
        .ids = h->ids + from,
        .positions = pc->positions + from,
        .n = end - from,
        .n_logits = 1,
        .reads = true,
    };

    if (part.n >= LEAST_STORED)
        store_away(pc, &part, from, logits);
}

/* What an item has filled or ended, its sequence holding it. logits: its
 * rows. */
static void store_plain(struct sl_prompt_cache *pc,
                        const struct sl_lm_item *item, const float *logits)
{
    const struct held *h = held_of(pc, item->seq);
    uint32_t vocab = pc->lm.vocab, begin = sl_kv_n_begin(pc->c.kv);
    uint32_t full;

    if (h == NULL || !h->known || item->parents != NULL ||
        begin % SL_KV_PAGE_LEN != 0 ||
        sl_kv_len(pc->c.kv, item->seq) != begin + h->n)
        return;
    full = h->n / SL_PROMPT_PART * SL_PROMPT_PART;
    if (full > h->n - item->n && h->n - full < item->n_logits)
        store_part(pc, item->seq, full,
                   logits +
                       (size_t)(item->n_logits - 1 - (h->n - full)) * vocab);
    if (item->reads && h->n > full && item->n_logits > 0)
        store_part(pc, item->seq, h->n,
                   logits + (size_t)(item->n_logits - 1) * vocab);
}

/* --- a pass with contexts in it --------------------------------------------
 */

static void look(struct sl_prompt_cache *pc, struct pass *p)
{
    for (size_t i = 0; i < p->n_items; i++) {
        const struct sl_lm_item *item = &p->items[i];

        if (pc->store.dir != NULL)
            p->restored[i] = fetch(pc, p, i);
        else if (is_context(pc, item))
            p->restored[i] = restore(pc, item, &p->keep[i]);
        if (p->restored[i])
            p->n_restored++;
        else
            p->rest[p->n_rest++] = *item;
    }
}

/* Rows lie one after another for the rest alone; each goes to its item's
 * place, from the last on. Of a file alone all that were restored are the same
 * context, and one row is there. */
static void spread(struct sl_prompt_cache *pc, const struct pass *p)
{
    size_t vocab = pc->lm.vocab, from = 0, to = 0, kept = p->n_restored;

    for (size_t i = 0; i < p->n_items; i++) {
        to += p->items[i].n_logits;
        from += p->restored[i] ? 0 : p->items[i].n_logits;
    }
    for (size_t i = p->n_items; i-- > 0;) {
        size_t n = p->items[i].n_logits, row = 0;

        to -= n;
        from -= p->restored[i] ? 0 : n;
        if (p->restored[i] && pc->store.dir != NULL)
            row = --kept;
        memmove(p->logits + to * vocab,
                p->restored[i] ? pc->rows + row * vocab
                               : p->logits + from * vocab,
                n * vocab * sizeof *p->logits);
    }
}

static int run(struct sl_prompt_cache *pc, struct pass *p, struct sl_error *err)
{
    struct sl_lm *inner = pc->inner;
    const float *row = p->logits;

    look(pc, p);
    if (p->n_rest > 0 &&
        inner->ops->forward(inner, p->rest, p->n_rest, p->logits, err) != 0)
        return -1;
    if (p->n_restored > 0)
        spread(pc, p);
    for (size_t i = 0; i < p->n_items; i++) {
        const struct sl_lm_item *item = &p->items[i];

        if (p->keep[i] && pc->store.dir != NULL)
            store_away(pc, item, 0, row);
        else if (p->keep[i])
            save(pc, item, row);
        hold_more(pc, item);
        if (pc->store.dir != NULL && !p->restored[i])
            store_plain(pc, item, row);
        row += (size_t)item->n_logits * pc->lm.vocab;
    }
    return 0;
}

static int cache_forward(struct sl_lm *lm, const struct sl_lm_item *items,
                         size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_prompt_cache *pc = cache_of(lm);
    struct pass p = {.items = items, .n_items = n_items, .logits = logits};
    bool any = pc->store.dir != NULL;
    int rc;

    pc->inner->to_come = lm->to_come;
    for (size_t i = 0; i < n_items; i++)
        any = any || is_context(pc, &items[i]);
    if (!any)
        return pc->inner->ops->forward(pc->inner, items, n_items, logits, err);
    p.restored = sl_zalloc_array(n_items, sizeof *p.restored);
    p.keep = sl_zalloc_array(n_items, sizeof *p.keep);
    p.rest = sl_alloc_array(n_items, sizeof *p.rest);
    if (p.restored != NULL && p.keep != NULL && p.rest != NULL)
        rc = run(pc, &p, err);
    else
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory for a pass of %zu items",
                     n_items);
    free(p.restored);
    free(p.keep);
    free(p.rest);
    return rc;
}

static int cache_guess(struct sl_lm *lm, const struct sl_lm_item *items,
                       size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    return inner->ops->guess(inner, items, n_items, logits, err);
}

static void cache_guess_ahead(struct sl_lm *lm, struct sl_lm_ahead *ahead)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    if (inner->ops->guess_ahead != NULL)
        inner->ops->guess_ahead(inner, ahead);
}

static int cache_seq_create(struct sl_lm *lm, uint32_t *seq,
                            struct sl_error *err)
{
    struct sl_lm *inner = cache_of(lm)->inner;
    struct held *h;

    if (inner->ops->seq_create(inner, seq, err) != 0)
        return -1;
    h = held_of(cache_of(lm), *seq);
    if (h != NULL) {
        h->known = true;
        h->n = 0;
    }
    return 0;
}

static int cache_seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                          struct sl_error *err)
{
    struct sl_prompt_cache *pc = cache_of(lm);
    const struct held *h;
    struct held *to;

    if (pc->inner->ops->seq_fork(pc->inner, seq, from, err) != 0)
        return -1;
    h = held_of(pc, from);
    to = held_of(pc, *seq);
    if (h == NULL || to == NULL)
        return 0;
    to->known = h->known;
    to->n = h->n;
    memcpy(to->ids, h->ids, h->n * sizeof *h->ids);
    return 0;
}

static void cache_seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    inner->ops->seq_destroy(inner, seq);
}

static void cache_seq_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct sl_prompt_cache *pc = cache_of(lm);
    struct held *h = held_of(pc, seq);

    pc->inner->ops->seq_cut(pc->inner, seq, n);
    if (h == NULL)
        return;
    h->known = n == 0 || (h->known && n <= h->n);
    h->n = h->known ? n : 0;
}

static int cache_seq_pick(struct sl_lm *lm, uint32_t seq, uint32_t n,
                          const uint32_t *path, uint32_t n_path,
                          struct sl_error *err)
{
    struct sl_prompt_cache *pc = cache_of(lm);
    struct held *h = held_of(pc, seq);

    if (h != NULL && h->known) {
        for (uint32_t i = 0; i < n_path; i++)
            h->ids[n + i] = h->ids[n + path[i]];
        h->n = n + n_path;
    }
    return pc->inner->ops->seq_pick(pc->inner, seq, n, path, n_path, err);
}

static const struct sl_lm_ops cache_ops = {
    .seq_create = cache_seq_create,
    .seq_fork = cache_seq_fork,
    .seq_destroy = cache_seq_destroy,
    .seq_cut = cache_seq_cut,
    .seq_pick = cache_seq_pick,
    .forward = cache_forward,
    .guess = cache_guess,
    .guess_ahead = cache_guess_ahead,
};

/* --- life -------------------------------------------------------------- */

uint64_t sl_prompt_cache_bytes(const struct sl_kv_config *kv, uint32_t vocab,
                               uint32_t rows)
{
    return sizeof(struct sl_prompt_cache) + sl_prompt_file_bytes(kv) +
           (uint64_t)rows * vocab * sizeof(float) +
           (kv->n_sequences + 1ull) * kv->max_tokens * sizeof(int32_t) +
           kv->n_sequences * sizeof(struct held);
}

static int open_store(struct sl_prompt_cache *pc,
                      const struct sl_prompt_store *store, struct sl_error *err)
{
    const struct sl_kv_config *kv = pc->c.kv_config;
    size_t n;

    pc->store = *store;
    if (sl_mul_size(&n, kv->n_sequences, kv->max_tokens))
        pc->ids = sl_alloc_array(n, sizeof *pc->ids);
    pc->held = sl_zalloc_array(kv->n_sequences, sizeof *pc->held);
    pc->positions = sl_alloc_array(kv->max_tokens, sizeof *pc->positions);
    pc->path = malloc(sl_prompt_store_path_bytes(store));
    if (pc->ids == NULL || pc->held == NULL || pc->positions == NULL ||
        pc->path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    for (uint32_t i = 0; i < kv->n_sequences; i++)
        pc->held[i].ids = pc->ids + (size_t)i * kv->max_tokens;
    for (uint32_t i = 0; i < kv->max_tokens; i++)
        pc->positions[i] = (int32_t)i;
    sl_prompt_store_path(pc->path, store, 0);
    pc->c.path = pc->path;
    return sl_prompt_store_open(store, err);
}

int sl_prompt_cache_create(struct sl_prompt_cache **out, struct sl_lm *lm,
                           const struct sl_prompt_file_config *config,
                           const struct sl_prompt_store *store,
                           const struct sl_log *log, struct sl_error *err)
{
    struct sl_prompt_cache *pc = calloc(1, sizeof *pc);
    size_t n;
    int own, rc = 0;

    if (pc == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    pc->lm = *lm;
    pc->lm.ops = &cache_ops;
    pc->inner = lm;
    pc->c = *config;
    pc->log = log;
    pc->store.rows = 1;
    if (store != NULL) {
        rc = open_store(pc, store, err);
    } else { /* links without an end are told of when it is looked at */
        pc->path = sl_link_follow(config->path, &own);
        pc->c.path = pc->path != NULL ? pc->path : config->path;
    }
    if (rc == 0 && sl_mul_size(&n, pc->store.rows, lm->vocab))
        pc->rows = sl_alloc_array(n, sizeof *pc->rows);
    if (rc == 0 && pc->rows == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    if (rc == 0)
        rc = sl_prompt_file_create(&pc->file, &pc->c, err);
    if (rc != 0) {
        sl_prompt_cache_destroy(pc);
        return -1;
    }
    *out = pc;
    return 0;
}

void sl_prompt_cache_destroy(struct sl_prompt_cache *pc)
{
    if (pc == NULL)
        return;
    sl_prompt_file_destroy(pc->file);
    free(pc->rows);
    free(pc->held);
    free(pc->ids);
    free(pc->positions);
    free(pc->path);
    free(pc);
}

struct sl_lm *sl_prompt_cache_lm(struct sl_prompt_cache *pc)
{
    return &pc->lm;
}

void sl_prompt_cache_stats(const struct sl_prompt_cache *pc,
                           struct sl_prompt_cache_stats *stats)
{
    *stats = pc->stats;
}
