/*
 * draft_file.h - what guesses for a model: a model file (--draft FILE), or a
 * part of itself (--draft self)
 *
 * It has its place in the budget of the model it guesses for, with all its
 * weights: one that had to read them again for each guess would guess too
 * late.
 */
#ifndef SL_CMD_DRAFT_FILE_H
#define SL_CMD_DRAFT_FILE_H

#include "src/decode/draft_model.h"
#include "src/decode/draft_self.h"
#include "src/runtime/runtime.h"

/* Of a part of itself (draft_self.h) it keeps all but low planes. */
struct sl_draft_file {
    bool itself;
    uint32_t width; /* guesses side by side, > 0 */
    bool shared;    /* texts of other people are kept in the cache too: none of
                     * itself is guessed while passes run */
    struct sl_draft_self self;
    const char *path; /* NULL: none */
    struct sl_runtime *rt;
    struct sl_runtime_config config;
    struct sl_workload load;
    struct sl_draft_model model;
};

/* Before the model that it guesses for, whose options are config, starts:
 * adds what it takes to that one's load. Nothing where there is neither.
 * Errors: those of opening it, SL_ERR_USAGE where its words are others or the
 * model has no planes. */
int sl_draft_file_plan(struct sl_draft_file *f, struct sl_workload *load,
                       struct sl_runtime *target,
                       const struct sl_runtime_config *config,
                       struct sl_error *err);
/* After that. */
int sl_draft_file_start(struct sl_draft_file *f, struct sl_runtime *target,
                        struct sl_error *err);
void sl_draft_file_close(struct sl_draft_file *f); /* a zeroed one is fine */

#endif
