/*
 * draft.h - tokens that a text may go on with: a table of ways to guess them
 *
 * A draft follows one text as it grows and proposes what comes next. It never
 * reaches the sampler: a pass computes the logits behind each proposed token
 * as if it had come alone, the text picks from them as it would have without,
 * and what it did not pick is cut off again. So a wrong draft costs time, and
 * the text is the same whatever is proposed.
 *
 *   draft_lookup.c   what followed the same words before
 *   draft_model.c    what a smaller model says
 *   draft_self.c     what the part of the model says that stays in memory
 */
#ifndef SL_DRAFT_H
#define SL_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/decode/gate.h"
#include "src/decode/tree.h"
#include "src/exec/workload.h"

/* Every draft embeds this first. */
struct sl_draft {
    const struct sl_draft_ops *ops;
    /* Where guesses are counted that it made while passes ran, and those of
     * them that were of no use; its owner's. */
    uint64_t *ahead, *discarded;
};

/* A text that is about to be gone on with, or whose blank is to be filled. */
struct sl_draft_text {
    /* its words, the end of which goes on: what stands behind a blank comes
     * first */
    const int32_t *ids; /* (n) */
    size_t n;
    /* as the model reads it, with its mark; of a causal model all before
     * mask_at */
    const int32_t *context; /* (n_context) */
    size_t n_context, mask_at;
    bool gmask;
    bool has_pieces; /* other blanks' answers lie behind the context */
};

/* Where a proposal begins, in the sequence of the model that it is for. */
struct sl_draft_place {
    uint32_t seq, n_held; /* positions that it holds */
    uint32_t n_context;   /* as struct sl_lm_item has it */
    /* by depth, 1 + n of them: where nodes stand; blocks NULL where the model
     * has none */
    const int32_t *positions, *blocks;
};

struct sl_draft_ops {
    /* The text is this one, whatever it was before; it goes when begin
     * returns. Errors: SL_ERR_NOMEM, those of a model that drafts. */
    int (*begin)(struct sl_draft *d, const struct sl_draft_text *t,
                 struct sl_error *err);
    /* It has grown by one. */
    void (*add)(struct sl_draft *d, int32_t id);
    /* How many tokens could be proposed now, at most `most`, and of which
     * class (below SL_DRAFT_CLASSES) they are. */
    uint32_t (*offer)(struct sl_draft *d, uint32_t most, uint32_t *strength);
    /* How many of those there are already, and cost nothing. NULL: none. */
    uint32_t (*ready)(struct sl_draft *d);
    /* Whether what was offered last has some that could stand side by side.
     * NULL: never. */
    bool (*branches)(struct sl_draft *d);
    /* Adds n that were offered, or fewer, behind the tree's first node, which
     * is its only one; brothers where its width allows. Errors: those of a
     * model that drafts. */
    int (*propose)(struct sl_draft *d, const struct sl_draft_place *at,
                   struct sl_tree *tree, uint32_t n, struct sl_error *err);
    void (*destroy)(struct sl_draft *d);
};

/* A way to guess, as --draft names it. */
struct sl_draft_kind {
    const char *name;
    double prior[SL_DRAFT_CLASSES]; /* that the first is right, by class */
    /* Memory of a text of at most max_tokens. */
    uint64_t (*bytes)(uint32_t max_tokens);
    /* Errors: SL_ERR_NOMEM. */
    int (*create)(struct sl_draft **d, uint32_t max_tokens, void *arg,
                  struct sl_error *err);
    bool costs; /* a draft takes time, which is to be measured */
};

extern const struct sl_draft_kind sl_draft_lookup;
/* Those with a name; ends in NULL. */
extern const struct sl_draft_kind *const sl_draft_kinds[];
/* NULL: none of that name. */
const struct sl_draft_kind *sl_draft_find(const char *name);

/* All ways that a run guesses in, and the gate they go through. */
struct sl_drafts {
    struct {
        const struct sl_draft_kind *kind;
        void *arg; /* of create; borrowed */
    } sources[SL_DRAFT_SOURCES];
    uint32_t n;
    bool optional;  /* as struct sl_workload has it */
    uint32_t width; /* brothers, at most; 1: chains */
    /* Time, for those who keep it otherwise; NULL: sl_clock_ns. */
    uint64_t (*now)(void *arg);
    void *now_arg;
    struct sl_gate gate;
};

/* None yet, of the usual width; most: drafts of a text in a pass; more: what a
 * position of a pass costs beside the first (pass_times.h), as far as it is
 * known. */
void sl_drafts_init(struct sl_drafts *d, uint32_t most, double more);
/* Errors: SL_ERR_USAGE for more than SL_DRAFT_SOURCES. */
int sl_drafts_add(struct sl_drafts *d, const struct sl_draft_kind *kind,
                  void *arg, struct sl_error *err);
/* Nanoseconds by its clock. */
uint64_t sl_drafts_now(const struct sl_drafts *d);
/* None any more, for texts to come; what came of drafts stays. */
void sl_drafts_stop(struct sl_drafts *d);
/* Adds to a load, whose texts and tokens are known, what its drafts need: each
 * of its sequences may have as many as a pass takes. */
void sl_drafts_workload(const struct sl_drafts *d, struct sl_workload *load);
/* Memory of n_texts texts of max_tokens. */
uint64_t sl_drafts_bytes(const struct sl_drafts *d, uint32_t n_texts,
                         uint32_t max_tokens);

/* The drafts of one text. */
struct sl_drafter {
    struct sl_drafts *all; /* borrowed; NULL: no drafts */
    struct sl_draft *sources[SL_DRAFT_SOURCES];
    struct sl_offer offer; /* what was offered last */
};

/* all may be NULL. Errors: SL_ERR_NOMEM. */
int sl_drafter_init(struct sl_drafter *d, struct sl_drafts *all,
                    uint32_t max_tokens, struct sl_error *err);
void sl_drafter_fini(struct sl_drafter *d); /* a zeroed one is fine */
int sl_drafter_begin(struct sl_drafter *d, const struct sl_draft_text *t,
                     struct sl_error *err);
void sl_drafter_add(struct sl_drafter *d, int32_t id);
/* At most `most`, of the source that is likeliest to be right. */
struct sl_offer sl_drafter_offer(struct sl_drafter *d, uint32_t most);
/* What was dealt of the last offer (NULL: nothing), or less, behind the tree's
 * first node: lm is what will check it. The tree is laid. */
int sl_drafter_propose(struct sl_drafter *d, const struct sl_lm *lm,
                       const struct sl_draft_place *at, struct sl_tree *tree,
                       const struct sl_deal *deal, struct sl_error *err);
/* The text came by the tree's path. */
void sl_drafter_note(struct sl_drafter *d, const struct sl_tree *tree);

#endif
