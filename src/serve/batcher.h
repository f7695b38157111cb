/*
 * batcher.h - the executor's side: gens through the batch of texts
 *
 *   waiting --next--> admitted --pass, pass, ...--> ended
 *
 * Before each pass those that wait are admitted while there is room; what a
 * pass is, and who takes part in it, is the batch's (decode/batch.h).
 *
 * One thread calls; cancelling is an atomic of the gen. When every text under
 * way has been cancelled, somebody should interrupt the model (sl_batcher_idle
 * tells); the batcher goes on after that.
 */
#ifndef SL_BATCHER_ROOM_H
#define SL_BATCHER_ROOM_H

#include "src/decode/draft.h"
#include "src/serve/gen.h"

struct sl_batcher_config {
    struct sl_lm *lm;            /* borrowed */
    const struct sl_hparams *hp; /* borrowed */
    const struct sl_ids *stops;  /* that end an answer beside those of hp, or
                                  * NULL; borrowed */
    struct sl_drafts *drafts;    /* or NULL; borrowed */
    uint32_t max_active;         /* texts at a time */
    uint32_t max_tokens;         /* of one */
    uint32_t part_positions;     /* of a prompt in a pass, where the model only
                                  * looks back; at most max_tokens */
    uint32_t score_rows;         /* of logits in a pass, for scores */
    uint64_t beside_bytes;       /* of memory that the caller takes */
    /* The next text that waits, or NULL. */
    struct sl_gen *(*next)(void *opaque);
    void *opaque;
};

/* What passes took; read from any thread. */
struct sl_batcher_stats {
    uint64_t passes, positions;
    uint64_t prompt_ids, said_ids, kept_ids;
    uint64_t drafted, accepted; /* guesses */
    uint32_t n_active;
    uint64_t pass_ns;       /* when the one that runs began; 0: none runs */
    uint64_t sweep_ns;      /* running mean of passes that read no prompt */
    uint64_t prompt_ns;     /* the same of those that do */
    uint64_t all_sweeps_ns; /* sum of all passes */
};

struct sl_batcher;

/* Errors: SL_ERR_NOMEM. */
int sl_batcher_create(struct sl_batcher **e,
                      const struct sl_batcher_config *config,
                      struct sl_error *err);
/* Ends what is there as failed for this reason (NULL: cancelled). */
void sl_batcher_destroy(struct sl_batcher *e, const struct sl_error *why);
/* One pass. Returns 1; 0 where there was nothing to do. Errors, after which
 * the model cannot be used any more: the model's. What is wrong with one text
 * alone ends that one. */
int sl_batcher_step(struct sl_batcher *e, struct sl_error *err);
/* A pass runs, and every text under way has been cancelled. From any thread. */
bool sl_batcher_idle(struct sl_batcher *e);
void sl_batcher_stats(struct sl_batcher *e, struct sl_batcher_stats *stats);
/* Memory that generating needs, drafts left out. */
void sl_batcher_workload(struct sl_workload *load,
                         const struct sl_batcher_config *config);

#endif
