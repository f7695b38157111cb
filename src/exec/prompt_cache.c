#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/exec/prompt_cache.h"

struct sl_prompt_cache {
    struct sl_lm lm; /* first: it is a language model */
    struct sl_lm *inner;
    struct sl_prompt_file *file;
    struct sl_prompt_file_config c;
    const struct sl_log *log;
    struct sl_prompt_cache_stats stats;
    float *row;  /* (vocab) logits of the context that was read */
    bool asked;  /* the first context has come */
    bool broken; /* the file is not to be looked at again */
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

static bool load(struct sl_prompt_cache *pc, const struct sl_lm_item *item)
{
    uint64_t begin = sl_clock_ns(), bytes;
    struct sl_error err;

    if (sl_prompt_file_load(pc->file, item, pc->row, &bytes, &err) != 0) {
        sl_log(pc->log, SL_LOG_WARN,
               "%s; the prompt is computed, and kept there anew", err.msg);
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
        if (load(pc, item))
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
    bool *restored;          /* (n_items) */
    struct sl_lm_item *rest; /* (n_items) those that are to be computed */
    size_t n_rest;
    size_t keep; /* the item to keep; n_items: none */
};

static void look(struct sl_prompt_cache *pc, struct pass *p)
{
    p->keep = p->n_items;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct sl_lm_item *item = &p->items[i];
        bool keep = false;

        if (is_context(pc, item))
            p->restored[i] = restore(pc, item, &keep);
        if (keep)
            p->keep = i;
        if (!p->restored[i])
            p->rest[p->n_rest++] = *item;
    }
}

/* Rows lie one after another for the rest alone; each goes to its item's
 * place, from the last on. All that were restored are the same context. */
static const float *spread(struct sl_prompt_cache *pc, const struct pass *p)
{
    size_t vocab = pc->lm.vocab, from = 0, to = 0;
    const float *kept = NULL;

    for (size_t i = 0; i < p->n_items; i++) {
        to += p->items[i].n_logits;
        from += p->restored[i] ? 0 : p->items[i].n_logits;
    }
    for (size_t i = p->n_items; i-- > 0;) {
        size_t n = p->items[i].n_logits;

        to -= n;
        from -= p->restored[i] ? 0 : n;
        memmove(p->logits + to * vocab,
                p->restored[i] ? pc->row : p->logits + from * vocab,
                n * vocab * sizeof *p->logits);
        if (i == p->keep)
            kept = p->logits + to * vocab;
    }
    return kept;
}

static int run(struct sl_prompt_cache *pc, struct pass *p, struct sl_error *err)
{
    struct sl_lm *inner = pc->inner;
    const float *kept;

    look(pc, p);
    if (p->n_rest > 0 &&
        inner->ops->forward(inner, p->rest, p->n_rest, p->logits, err) != 0)
        return -1;
    kept = spread(pc, p);
    if (kept != NULL)
        save(pc, &p->items[p->keep], kept);
    return 0;
}

static int cache_forward(struct sl_lm *lm, const struct sl_lm_item *items,
                         size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_prompt_cache *pc = cache_of(lm);
    struct pass p = {.items = items, .n_items = n_items, .logits = logits};
    bool any = false;
    int rc;

    pc->inner->to_come = lm->to_come;
    for (size_t i = 0; i < n_items; i++)
        any = any || is_context(pc, &items[i]);
    if (!any)
        return pc->inner->ops->forward(pc->inner, items, n_items, logits, err);
    p.restored = sl_zalloc_array(n_items, sizeof *p.restored);
    p.rest = sl_alloc_array(n_items, sizeof *p.rest);
    if (p.restored != NULL && p.rest != NULL)
        rc = run(pc, &p, err);
    else
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory for a pass of %zu items",
                     n_items);
    free(p.restored);
    free(p.rest);
    return rc;
}

static int cache_guess(struct sl_lm *lm, const struct sl_lm_item *items,
                       size_t n_items, float *logits, struct sl_error *err)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    return inner->ops->guess(inner, items, n_items, logits, err);
}

static int cache_seq_create(struct sl_lm *lm, uint32_t *seq,
                            struct sl_error *err)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    return inner->ops->seq_create(inner, seq, err);
}

static int cache_seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                          struct sl_error *err)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    return inner->ops->seq_fork(inner, seq, from, err);
}

static void cache_seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    inner->ops->seq_destroy(inner, seq);
}

static void cache_seq_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    inner->ops->seq_cut(inner, seq, n);
}

static const struct sl_lm_ops cache_ops = {
    .seq_create = cache_seq_create,
    .seq_fork = cache_seq_fork,
    .seq_destroy = cache_seq_destroy,
    .seq_cut = cache_seq_cut,
    .forward = cache_forward,
    .guess = cache_guess,
};

/* --- life -------------------------------------------------------------- */

uint64_t sl_prompt_cache_bytes(const struct sl_kv_config *kv, uint32_t vocab)
{
    return sizeof(struct sl_prompt_cache) + sl_prompt_file_bytes(kv) +
           (uint64_t)vocab * sizeof(float);
}

int sl_prompt_cache_create(struct sl_prompt_cache **out, struct sl_lm *lm,
                           const struct sl_prompt_file_config *config,
                           const struct sl_log *log, struct sl_error *err)
{
    struct sl_prompt_cache *pc = calloc(1, sizeof *pc);

    if (pc == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    pc->lm = *lm;
    pc->lm.ops = &cache_ops;
    pc->inner = lm;
    pc->c = *config;
    pc->log = log;
    pc->row = sl_alloc_array(lm->vocab, sizeof *pc->row);
    if (pc->row == NULL) {
        sl_prompt_cache_destroy(pc);
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    }
    if (sl_prompt_file_create(&pc->file, config, err) != 0) {
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
    free(pc->row);
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
