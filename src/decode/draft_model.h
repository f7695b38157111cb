/*
 * draft_model.h - guesses of a smaller model that follows the text
 *
 * The smaller model reads what the text does, in its own numbers of the same
 * words, and says what it would say, greedily. Its sequence is cut back to
 * what the text has become whenever a guess was wrong, so that it reads each
 * token once. A guess costs a pass of it: the gate counts that.
 */
#ifndef SL_DRAFT_MODEL_H
#define SL_DRAFT_MODEL_H

#include "src/arch/hparams.h"
#include "src/decode/draft.h"
#include "src/exec/lm.h"

/* How a vocabulary's ids are another's: words keep their order, and marks
 * their meaning. (ChatGLM-6B left the 20000 image tokens of GLM-130B's icetk
 * out: THUDM/chatglm-6b tokenization_chatglm.py num_image_tokens) */
struct sl_vocab_shift {
    int32_t *to;   /* (n_to) a target's id as the draft's, or -1; owned */
    int32_t *from; /* (n_from) and back; -1 for what is never said */
    uint32_t n_to, n_from;
};

/* target and draft: the texts' hyper-parameters. Errors: SL_ERR_NOMEM;
 * SL_ERR_USAGE for models that read texts in other ways. */
int sl_vocab_shift_make(struct sl_vocab_shift *s,
                        const struct sl_hparams *target,
                        const struct sl_hparams *draft, struct sl_error *err);
void sl_vocab_shift_fini(struct sl_vocab_shift *s);

/* What sl_draft_model's create takes as arg; borrowed. */
struct sl_draft_model {
    struct sl_lm *lm;
    const struct sl_hparams *hp; /* the draft's */
    struct sl_vocab_shift shift;
};

extern const struct sl_draft_kind sl_draft_model_kind;

#endif
