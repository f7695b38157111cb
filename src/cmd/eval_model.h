/*
 * eval_model.h - a model that commands ask questions: open it, choose how much
 * goes into a pass, start it
 */
#ifndef SL_EVAL_MODEL_H
#define SL_EVAL_MODEL_H

#include "src/arch/hparams.h"
#include "src/cmd/interrupt.h"
#include "src/eval/run.h"
#include "src/runtime/runtime.h"
#include "src/text/tokenizer.h"

#define SL_EVAL_POSITIONS_MOST 8192u /* of a pass */

struct sl_eval_model { /* zeroed to begin with, owned */
    struct sl_runtime *rt;
    struct sl_tokenizer *tokenizer;
    struct sl_interrupt *interrupt;
    struct sl_hparams hp;
    bool is_glm;             /* of THUDM/GLM: 110M to 10B */
    struct sl_workload load; /* that it was started for */
    uint64_t program_bytes;  /* counted by the first plan; 0: none was made */
    char id[24];   /* tells model files apart: of checksums and sizes */
    char name[64]; /* the model's own */
};

/* Opens the file and its vocabulary. Errors: as sl_runtime_open; SL_ERR_USAGE
 * where it has no vocabulary. */
int sl_eval_model_open(struct sl_eval_model *m,
                       const struct sl_runtime_config *config,
                       struct sl_error *err);
/* Plans for what run's evaluation needs and starts. positions: of a pass, or
 * 0: where arithmetic begins to limit, as far as the budget goes. Errors: as
 * sl_runtime_start. */
int sl_eval_model_start(struct sl_eval_model *m,
                        const struct sl_runtime_config *config,
                        struct sl_eval_run *run, uint32_t positions,
                        struct sl_error *err);
void sl_eval_model_close(struct sl_eval_model *m);

/* Positions of a pass that arithmetic takes as long for as bytes take to come,
 * and that make little of what is done once a pass; some more, as a pass is
 * seldom full. At least *positions of them. `floor` tells what a pass is
 * limited by; its errors end the search. */
typedef int sl_pass_floor_fn(struct sl_floor *floor, void *opaque,
                             struct sl_plan_pass pass, struct sl_error *err);
int sl_eval_positions_by(uint32_t *positions, sl_pass_floor_fn *floor,
                         void *opaque, struct sl_error *err);
/* The same by a runtime's plan. */
uint32_t sl_eval_positions(const struct sl_runtime *rt,
                           const struct sl_rates *rates);

/* Bytes of logits that a pass may take of a budget. */
uint64_t sl_eval_logit_bytes(const struct sl_runtime_config *config);

#endif
