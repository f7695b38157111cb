/*
 * draft_file.h - a model file that guesses for another (--draft FILE)
 *
 * It has its place in the budget of the model it guesses for, with all its
 * weights: one that had to read them again for each guess would guess too
 * late.
 */
#ifndef SL_CMD_DRAFT_FILE_H
#define SL_CMD_DRAFT_FILE_H

#include "src/decode/draft_model.h"
#include "src/runtime/runtime.h"

struct sl_draft_file {
    const char *path; /* NULL: none */
    struct sl_runtime *rt;
    struct sl_runtime_config config;
    struct sl_workload load;
    struct sl_draft_model model;
};

/* Before the model that it guesses for, whose options are config, starts:
 * adds what it takes to that one's load. Errors: those of opening it, and
 * SL_ERR_USAGE where its words are others. */
int sl_draft_file_plan(struct sl_draft_file *f, struct sl_workload *load,
                       struct sl_runtime *target,
                       const struct sl_runtime_config *config,
                       struct sl_error *err);
/* After that. */
int sl_draft_file_start(struct sl_draft_file *f, struct sl_error *err);
void sl_draft_file_close(struct sl_draft_file *f); /* a zeroed one is fine */

#endif
