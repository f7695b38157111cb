/*
 * kept.h - what texts that have ended leave for those that begin as they did
 *
 * Keys and values of a causal text stay where they are until their room is
 * needed: a text that begins with the same ids takes them over, so that a
 * conversation's next turn reads its own words alone.
 */
#ifndef SL_KEPT_H
#define SL_KEPT_H

#include <stdbool.h>

#include "src/base/ids.h"
#include "src/exec/lm.h"

struct sl_left {
    uint32_t seq;
    struct sl_ids ids; /* that it holds */
    uint64_t used;     /* the higher, the later */
};

struct sl_kept {
    struct sl_lm *lm;     /* borrowed */
    struct sl_left *left; /* (room) */
    size_t n, room;
    size_t n_others; /* sequences that texts under way have: with those that
                      * are left never more than room */
    uint64_t clock;
};

/* Errors: SL_ERR_NOMEM. */
int sl_kept_init(struct sl_kept *k, struct sl_lm *lm, size_t room,
                 struct sl_error *err);
void sl_kept_fini(struct sl_kept *k); /* a zeroed one is fine */
/* A sequence for a text of n ids, of which at most `most` may be known
 * already: *held are. Errors: those of seq_create. */
int sl_kept_begin(struct sl_kept *k, uint32_t *seq, uint32_t *held,
                  const int32_t *ids, size_t n, size_t most,
                  struct sl_error *err);
/* A text's sequence, which holds these and then those ids, is left, or goes
 * where that is worth nothing. */
void sl_kept_end(struct sl_kept *k, uint32_t seq, const int32_t *ids, size_t n,
                 const int32_t *more, size_t n_more);

#endif
