/*
 * tokenizer_impl.h - a tokenizer as its kinds see it
 */
#ifndef SL_TOKENIZER_IMPL_H
#define SL_TOKENIZER_IMPL_H

#include "src/text/added.h"
#include "src/text/tokenizer.h"
#include "src/text/vocab_kind.h"

struct sl_tokenizer {
    const struct sl_vocab_kind *kind;
    uint8_t *blob; /* owned */
    struct sl_vocab vocab;
    struct sl_text_params tp; /* as the vocabulary has them */
    struct sl_added added;    /* cut out of the text as it is */
    void *impl;               /* the kind's */
    struct sl_str text;       /* UTF-8, repaired */
    struct sl_ids lists[3];   /* prefix, suffix, stops */
};

#endif
