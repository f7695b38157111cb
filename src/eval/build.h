/*
 * build.h - from examples to questions: which ids at which positions
 *
 * Prefix models (GLM-130B, ChatGLM-6B, GLM) are asked as their reference does
 * it (THUDM/GLM-130B evaluation/dataset.py; THUDM/GLM tasks/data_utils.py):
 *
 *   choices   text M | sop c c c | sop c c      M [gMASK] or [MASK], unless
 *                                               it stands in the text
 *   text      prompt M | sop t t t              windows that overlap
 *
 * Of GLM's models, unidirectionally, one id is the prompt of a text.
 *
 * Causal models see neither mark: context and choice are encoded together and
 * cut at the length of the encoded context (EleutherAI/lm-evaluation-harness
 * lm_eval/api/model.py).
 */
#ifndef SL_EVAL_BUILD_H
#define SL_EVAL_BUILD_H

#include "src/arch/hparams.h"
#include "src/eval/data.h"
#include "src/eval/question.h"
#include "src/text/tokenizer.h"

enum sl_eval_style {
    SL_EVAL_GLM_130B,
    SL_EVAL_GLM, /* of THUDM/GLM: [CLS] first, </s> behind the text, the last
                  * mark counts */
    SL_EVAL_CAUSAL,
};

struct sl_builder {
    /* borrowed */
    struct sl_tokenizer *tokenizer;
    const struct sl_hparams *hp;
    enum sl_eval_style style;
    bool unidirectional; /* of GLM: everything but its mark is read causally */
    struct sl_ids lead;  /* of causal questions: before everything; owned */
    uint32_t max_length; /* of the model */
    uint64_t n_truncated;
};

/* The way that a model is asked. style GLM: by --style; unidirectional: prefix
 * models as [gMASK] sop and then causal, GLM's as its own evaluation has it
 * ([CLS] [gMASK] | sop text, all of it at the mask's position); lead: causal
 * models with what their texts begin with. Errors: SL_ERR_USAGE for what the
 * model cannot; SL_ERR_ NOMEM. */
struct sl_builder_options {
    bool glm, unidirectional, lead;
};
int sl_builder_init(struct sl_builder *b, struct sl_tokenizer *tokenizer,
                    const struct sl_hparams *hp, bool is_glm,
                    const struct sl_builder_options *o, struct sl_error *err);
void sl_builder_fini(struct sl_builder *b);

/* Whether a GLM is asked as a causal model. */
bool sl_build_one_way(const struct sl_builder *b, const struct sl_task *task);

/* Ids of a passage, appended. Errors: SL_ERR_NOMEM. */
int sl_build_ids(struct sl_ids *ids, struct sl_builder *b,
                 const struct sl_passage *p, struct sl_error *err);

/* A question for all choices: logp has theirs one after another. choice_len:
 * (n_choices) how many each has. Errors: SL_ERR_CORRUPT for a choice without
 * ids, choices that leave no room for a text; SL_ERR_NOMEM. */
int sl_build_choices(struct sl_question *q, uint32_t *choice_len,
                     struct sl_builder *b, const struct sl_task *task,
                     const struct sl_example *e, struct sl_error *err);

/* Windows over a text of n ids, and one of them. */
size_t sl_build_n_windows(const struct sl_builder *b,
                          const struct sl_task *task, size_t n);
int sl_build_window(struct sl_question *q, struct sl_builder *b,
                    const struct sl_task *task, const struct sl_ids *text,
                    size_t window, struct sl_error *err);

/* What is gone on with, without [sop] (the mark of a causal model's end is no
 * id); *blank: where the mark stands; *causal: whether it is fed as to a causal
 * model. Errors: SL_ERR_CORRUPT; SL_ERR_NOMEM. */
int sl_build_prompt(struct sl_ids *ids, uint32_t *blank, bool *causal,
                    struct sl_builder *b, const struct sl_task *task,
                    const struct sl_example *e, struct sl_error *err);

/* Moves what n questions' roots have in common, if it is long enough to pay,
 * into a stem. False: it is not. Errors: SL_ERR_NOMEM. */
int sl_build_stem(struct sl_stem *stem, bool *made,
                  struct sl_question *const *questions, size_t n,
                  struct sl_error *err);

#endif
