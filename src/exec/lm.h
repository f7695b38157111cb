/*
 * lm.h - a language model as generation sees it
 *
 * Token ids go in, logits come out; sequences share what they have in common.
 * The executor is one (src/exec/exec.h); a test's scripted table is another.
 * All sequences of one forward pass go through each stage of the weights
 * together, which is what makes beams and batches cheap.
 */
#ifndef SL_LM_H
#define SL_LM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

/* Positions of a tree of guesses, at most. */
#define SL_LM_TREE 64u
#define SL_LM_ROOT UINT32_MAX /* a parent: what was there before the tree */

struct sl_lm_item {
    uint32_t seq;             /* whose sequence the ids are appended to */
    const int32_t *ids;       /* (n) */
    const int32_t *positions; /* (n) rotary positions */
    const int32_t *blocks;    /* (n) second positions of a 2-D model, else
                               * NULL */
    uint32_t n;               /* > 0 */
    uint32_t n_context;       /* positions of the sequence that all its
                               * positions see (the bidirectional context);
                               * a first item must hold them all */
    uint32_t n_logits;        /* logits wanted for the last n_logits ids */
    /* Each position is computed as if it had come in a pass of its own, on a
     * sequence that held those before: it sees them as they are kept, rounded,
     * where positions of one pass see each other as they were computed (those
     * of causal models never do). The sequence holds n_context already. */
    bool apart;
    /* Positions apart may be a tree, n_tree of which the sequence ends in
     * already: parents (n_tree + n) are places in it, each before its
     * children's. A position sees what was there before the tree and its own
     * ancestors, as if these alone had been fed one after another, and brings
     * the rotary position of its depth. NULL: each follows the one before. */
    const uint32_t *parents;
    uint32_t n_tree;
    /* Of a text that is read: a prompt, a question. Else what was chosen is
     * gone on with, guesses included. */
    bool reads;
};

struct sl_lm {
    uint32_t vocab;
    uint32_t max_tokens; /* most positions a sequence can hold */
    const struct sl_lm_ops *ops;
    /* Most positions and rows of logits of a pass; 0: as many as one likes. */
    uint32_t pass_positions, pass_logits;
    /* Passes that follow the next one before its reader has what it asked for:
     * those of a long prompt. For whoever tells how far a run is. */
    uint32_t to_come;
};

/* Guesses that go on, one after another, while a forward waits for the disk,
 * on a sequence that no item of it has. */
struct sl_lm_ahead {
    /* The next: one position, apart, with one row of logits. */
    struct sl_lm_item item;
    float *logits; /* (vocab) */
    /* They are there, and item becomes the next; false: it was the last. The
     * thread is the one that called forward. */
    bool (*made)(void *arg);
    void *arg;
};

struct sl_lm_ops {
    /* A new empty sequence. Errors: SL_ERR_BUDGET when the KV cache that was
     * planned has no room for another. */
    int (*seq_create)(struct sl_lm *lm, uint32_t *seq, struct sl_error *err);
    /* A sequence that continues `from`; both go their own way. */
    int (*seq_fork)(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                    struct sl_error *err);
    void (*seq_destroy)(struct sl_lm *lm, uint32_t seq);
    /* Forgets all positions of a sequence from the n-th on; n may not be more
     * than it holds. What comes next goes on from there. */
    void (*seq_cut)(struct sl_lm *lm, uint32_t seq, uint32_t n);
    /* Of all positions of a sequence from the n-th on keeps those at n +
     * path[i], as n + i, and forgets the others: (n_path) of a tree, in
     * ascending order. Errors: those of a device; the sequence must not be
     * continued after one. NULL: the model takes no trees. */
    int (*seq_pick)(struct sl_lm *lm, uint32_t seq, uint32_t n,
                    const uint32_t *path, uint32_t n_path,
                    struct sl_error *err);
    /* One pass over the weights. logits: (sum of n_logits, vocab) f32, items
     * in order. Errors: SL_ERR_IO, SL_ERR_BUDGET, SL_ERR_INTERRUPTED; the
     * sequences must not be continued after one, but after the last of these
     * they may be cut to what they held before the pass, or destroyed, and the
     * model goes on. */
    int (*forward)(struct sl_lm *lm, const struct sl_lm_item *items,
                   size_t n_items, float *logits, struct sl_error *err);
    /* The same of a model that is nearly this one and reads nothing of the
     * disk, for items that are apart: the logits are guesses, and what it adds
     * to the sequences is to be cut off again before the next forward. Returns
     * 1 when there is none, or none yet. Errors: SL_ERR_INTERRUPTED, as often
     * as one likes; as forward. NULL: there is none. */
    int (*guess)(struct sl_lm *lm, const struct sl_lm_item *items,
                 size_t n_items, float *logits, struct sl_error *err);
    /* Such guesses may be made while the next forward waits, and no longer;
     * ahead is borrowed until that returns. One that it leaves half done has
     * left its sequence as it was. Its errors are forward's. ahead NULL: none
     * any more. NULL: none are ever made. */
    void (*guess_ahead)(struct sl_lm *lm, struct sl_lm_ahead *ahead);
};

#endif
