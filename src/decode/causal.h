/*
 * causal.h - text after text from a model that looks back only
 *
 * A sequence lives from run to run: what the next prompt has in common with
 * what was read and said before is not read again (seq_cut). So each turn of
 * a conversation costs its own words.
 *
 *   held in the cache   a b c d e f g
 *   next prompt         a b c d x y z      kept: a b c d; read: x y z
 */
#ifndef SL_CAUSAL_H
#define SL_CAUSAL_H

#include "src/base/ids.h"
#include "src/decode/draft.h"
#include "src/decode/sampler.h"
#include "src/exec/lm.h"
#include "src/exec/workload.h"

struct sl_causal_config {
    struct sl_sampler_config sampler;
    /* Divides the positive logits of ids that the text has, and multiplies
     * the others (Keskar 2019, 4.1; as transformers has it); 1: off. */
    double repetition_penalty;
    uint32_t max_new;  /* most ids of an answer; 0: as far as there is room */
    uint32_t n_tokens; /* ids from here on are never said; 0: all mean
                        * something */
    const int32_t *stops; /* (n_stops) ids that end an answer; borrowed */
    size_t n_stops;
};

enum sl_causal_end {
    SL_CAUSAL_STOP,        /* the model said one of the stops */
    SL_CAUSAL_ENOUGH,      /* the listener had heard enough */
    SL_CAUSAL_LENGTH,      /* max_new */
    SL_CAUSAL_FULL,        /* the sequence holds no more */
    SL_CAUSAL_INTERRUPTED, /* on request: what there was until then */
};

/* Hears each id as it is chosen, stops left out. */
struct sl_causal_sink {
    int (*id)(void *opaque, int32_t id, bool *enough, struct sl_error *err);
    void *opaque;
};

struct sl_causal_result { /* zeroed to begin with */
    struct sl_ids ids;    /* said; owned */
    enum sl_causal_end end;
    uint32_t n_kept, n_read; /* of the prompt: still known, read now */
    uint64_t first_token_ns; /* from the call; 0: there was none */
};

/* What generation needs where prompt and answer have max_tokens ids together
 * and no pass takes more than pass_positions; drafts may be NULL. */
void sl_causal_workload(struct sl_workload *load, uint32_t max_tokens,
                        uint32_t pass_positions,
                        const struct sl_drafts *drafts);

struct sl_causal;

/* lm and drafts (or NULL) are borrowed. Errors: SL_ERR_NOMEM. */
int sl_causal_create(struct sl_causal **c, struct sl_lm *lm,
                     uint32_t pass_positions, struct sl_drafts *drafts,
                     struct sl_error *err);
void sl_causal_destroy(struct sl_causal *c); /* NULL is fine */

/* Reads a prompt (n > 0 ids) and goes on from there. sink may be NULL. An
 * interrupted run succeeds. Errors: SL_ERR_USAGE for a prompt that leaves no
 * room; SL_ERR_CORRUPT for logits that are no numbers; those of the model and
 * the sink. After any the next run begins anew. */
int sl_causal_run(struct sl_causal *c, const int32_t *prompt, size_t n,
                  const struct sl_causal_config *config, struct sl_rng *rng,
                  const struct sl_causal_sink *sink,
                  struct sl_causal_result *result, struct sl_error *err);
void sl_causal_result_fini(struct sl_causal_result *result);
/* Forgets what was read. */
void sl_causal_forget(struct sl_causal *c);

#endif
