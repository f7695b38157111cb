#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/exec/prompt_cache.h"

/* Contexts shorter than this are as soon computed. */
enum { LEAST_STORED = 32 };
/* After a prompt could not be kept none is for so long. */
#define PAUSE_NS 60000000000u

/* What a sequence holds. */
struct held {
    bool known;   /* all of it, by the following */
    uint32_t n;   /* ids */
    uint64_t sum; /* of ids and places */
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
    struct held *held;            /* (room_held), by sequence */
    size_t room_held;
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
 */

static struct held *held_of(struct sl_prompt_cache *pc, uint32_t seq)
{
    return seq < pc->room_held ? &pc->held[seq] : NULL;
}

static void hold(struct sl_prompt_cache *pc, uint32_t seq, struct held what)
{
    size_t room = pc->room_held;
    struct held *more;

    if (pc->store.dir == NULL)
        return;
    if (seq >= room) {
        room = seq + 16;
        more = realloc(pc->held, room * sizeof *more);
        if (more == NULL)
            return; /* then it is not known */
        memset(more + pc->room_held, 0, (room - pc->room_held) * sizeof *more);
        pc->held = more;
        pc->room_held = room;
    }
    pc->held[seq] = what;
}

/* Its sequence has the item now. */
static void hold_more(struct sl_prompt_cache *pc, const struct sl_lm_item *item)
{
    struct held *h = held_of(pc, item->seq);
    size_t bytes = item->n * sizeof *item->ids;

    if (h == NULL || !h->known)
        return;
    h->sum = XXH3_64bits_withSeed(item->ids, bytes, h->sum + item->n_context);
    h->sum = XXH3_64bits_withSeed(item->positions, bytes, h->sum);
    if (item->blocks != NULL)
        h->sum = XXH3_64bits_withSeed(item->blocks, bytes, h->sum);
    h->n += item->n;
}

/* An item worth a file: it reads a text, from its beginning or behind what is
 * known and fills pages. */
static bool is_stored(struct sl_prompt_cache *pc, const struct sl_lm_item *item)
{
    const struct held *h = held_of(pc, item->seq);
    uint32_t begin = sl_kv_n_begin(pc->c.kv);

    return h != NULL && h->known && !item->apart && item->n_logits == 1 &&
           item->n >= LEAST_STORED &&
           sl_kv_len(pc->c.kv, item->seq) == begin + h->n &&
           (h->n == 0 || (begin + h->n) % SL_KV_PAGE_LEN == 0) &&
           item->n <= pc->c.kv_config->max_tokens - begin - h->n;
}

/* The file that an item has. */
static void turn_to(struct sl_prompt_cache *pc, const struct sl_lm_item *item)
{
    const struct held *h = held_of(pc, item->seq);

    sl_prompt_file_after(pc->file, h->n, h->sum);
    sl_prompt_store_path(pc->path, &pc->store,
                         sl_prompt_file_sum(pc->file, item));
}

static bool fetch(struct sl_prompt_cache *pc, struct pass *p, size_t i)
{
    const struct sl_lm_item *item = &p->items[i];
    struct sl_error why;
    enum sl_prompt_found found;

    if (!is_stored(pc, item))
        return false;
    turn_to(pc, item);
    found = sl_prompt_file_find(pc->file, item, &why);
    if (found == SL_PROMPT_FOREIGN ||
        (found == SL_PROMPT_SAME && p->n_restored == pc->store.rows))
        return false;
    if (found == SL_PROMPT_SAME &&
        load(pc, item, pc->rows + p->n_restored * pc->lm.vocab)) {
        sl_prompt_store_touch(pc->path);
        return true;
    }
    p->keep[i] = sl_clock_ns() >= pc->resume_ns;
    return false;
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

static void store_away(struct sl_prompt_cache *pc,
                       const struct sl_lm_item *item, const float *logits)
{
    struct sl_error err;
    uint64_t before = pc->stats.saved_bytes;

    turn_to(pc, item);
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

static int run(struct sl_prompt_cache *pc, struct pass *p, struct sl_error *err)
{
    struct sl_lm *inner = pc->inner;
    const float *row = p->logits;

    look(pc, p);
    if (p->n_rest > 0 &&
        inner->ops->forward(inner, p->rest, p->n_rest, p->logits, err) != 0)
        return -1;
    spread(pc, p);
    for (size_t i = 0; i < p->n_items; i++) {
        if (p->keep[i])
            (pc->store.dir != NULL ? store_away : save)(pc, &p->items[i], row);
        row += (size_t)p->items[i].n_logits * pc->lm.vocab;
        hold_more(pc, &p->items[i]);
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

static int cache_seq_create(struct sl_lm *lm, uint32_t *seq,
                            struct sl_error *err)
{
    struct sl_lm *inner = cache_of(lm)->inner;

    if (inner->ops->seq_create(inner, seq, err) != 0)
        return -1;
    hold(cache_of(lm), *seq, (struct held){.known = true});
    return 0;
}

static int cache_seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                          struct sl_error *err)
{
    struct sl_prompt_cache *pc = cache_of(lm);
    const struct held *h;

    if (pc->inner->ops->seq_fork(pc->inner, seq, from, err) != 0)
        return -1;
    h = held_of(pc, from);
    hold(pc, *seq, h != NULL ? *h : (struct held){0});
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
    if (h == NULL || n == h->n)
        return;
    *h = (struct held){.known = n == 0};
}

static int cache_seq_pick(struct sl_lm *lm, uint32_t seq, uint32_t n,
                          const uint32_t *path, uint32_t n_path,
                          struct sl_error *err)
{
    struct sl_prompt_cache *pc = cache_of(lm);
    struct held *h = held_of(pc, seq);

    if (h != NULL)
        *h = (struct held){.known = false};
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
};

/* --- life -------------------------------------------------------------- */

uint64_t sl_prompt_cache_bytes(const struct sl_kv_config *kv, uint32_t vocab,
                               uint32_t rows)
{
    return sizeof(struct sl_prompt_cache) + sl_prompt_file_bytes(kv) +
           (uint64_t)rows * vocab * sizeof(float);
}

static int open_store(struct sl_prompt_cache *pc,
                      const struct sl_prompt_store *store, struct sl_error *err)
{
    pc->store = *store;
    pc->path = malloc(sl_prompt_store_path_bytes(store));
    if (pc->path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
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

    if (pc == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    pc->lm = *lm;
    pc->lm.ops = &cache_ops;
    pc->inner = lm;
    pc->c = *config;
    pc->log = log;
    pc->store.rows = 1;
    if (store != NULL && open_store(pc, store, err) != 0) {
        sl_prompt_cache_destroy(pc);
        return -1;
    }
    if (sl_mul_size(&n, pc->store.rows, lm->vocab))
        pc->rows = sl_alloc_array(n, sizeof *pc->rows);
    if (pc->rows == NULL) {
        sl_prompt_cache_destroy(pc);
        return sl_fail(err, SL_ERR_NOMEM, "prompt cache: no memory");
    }
    if (sl_prompt_file_create(&pc->file, &pc->c, err) != 0) {
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
