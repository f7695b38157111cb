/*
 * prompt_cache.h - a model that remembers a context from run to run
 *
 * A language model (lm.h) over another one. The first context that a run
 * feeds is looked for in the file: if it is there its keys, values and logits
 * come from it and it takes no part in the pass, else it is computed and kept
 * there. Later contexts that are the same as that one are not computed again
 * either; others are computed and kept nowhere. Whatever is wrong with the
 * file costs a line in the log and the pass that it would have saved.
 *
 * With a folder in place of a file all contexts are kept there and come from
 * there. Those that look back lie in parts, so that a text which begins as one
 * before reads no more than what is behind its last whole part.
 */
#ifndef SL_PROMPT_CACHE_H
#define SL_PROMPT_CACHE_H

#include "src/base/log.h"
#include "src/exec/prompt_file.h"
#include "src/exec/prompt_store.h"

struct sl_prompt_cache_stats {
    uint64_t restored;    /* positions that were not computed */
    uint64_t restored_ns; /* what that took instead */
    uint64_t read_bytes;  /* of the file */
    uint64_t saved_bytes, saved_ns;
};

struct sl_prompt_cache;

/* Bytes that one takes over a cache and a model with such a vocabulary. rows:
 * of a folder (prompt_store.h), of a file 1. */
uint64_t sl_prompt_cache_bytes(const struct sl_kv_config *kv, uint32_t vocab,
                               uint32_t rows);

/* lm: the model that computes, which fills the cache of config; borrowed, as
 * is what config points to, whose path is of no use with a store. store: NULL,
 * or the folder. Errors: SL_ERR_NOMEM; SL_ERR_IO of a folder. */
int sl_prompt_cache_create(struct sl_prompt_cache **pc, struct sl_lm *lm,
                           const struct sl_prompt_file_config *config,
                           const struct sl_prompt_store *store,
                           const struct sl_log *log, struct sl_error *err);
void sl_prompt_cache_destroy(struct sl_prompt_cache *pc); /* NULL is fine */
struct sl_lm *sl_prompt_cache_lm(struct sl_prompt_cache *pc);
void sl_prompt_cache_stats(const struct sl_prompt_cache *pc,
                           struct sl_prompt_cache_stats *stats);

#endif
