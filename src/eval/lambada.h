/*
 * lambada.h - how GLM-130B answers LAMBADA (tasks/lambada of THUDM/GLM-130B)
 *
 * Beams may say no punctuation mark that is one id, and their answer may not
 * begin with the ids of any mark. The answer is the first word of the first
 * beam whose second word is punctuation, or of the best beam.
 */
#ifndef SL_EVAL_LAMBADA_H
#define SL_EVAL_LAMBADA_H

#include "src/decode/fill.h"
#include "src/text/tokenizer.h"

#define SL_LAMBADA_MARKS 34

struct sl_lambada { /* zeroed to begin with, owned */
    struct sl_ids invalid;
    struct sl_ids prefixes[SL_LAMBADA_MARKS];
    size_t n_prefixes;
};

/* Three ids are banned besides in vocabularies of GLM-130B's size alone.
 * Errors: SL_ERR_NOMEM. */
int sl_lambada_init(struct sl_lambada *l, struct sl_tokenizer *t,
                    uint32_t vocab, struct sl_error *err);
void sl_lambada_fini(struct sl_lambada *l);

/* As struct sl_fill_config has it; opaque: a struct sl_lambada. */
void sl_lambada_adjust(void *opaque, const int32_t *said, size_t n_said,
                       float *logits, uint32_t vocab);

/* Appends the ids of the answer. Errors: SL_ERR_NOMEM. */
int sl_lambada_choose(struct sl_ids *said, struct sl_tokenizer *t,
                      const struct sl_fill_result *r, struct sl_error *err);

#endif
