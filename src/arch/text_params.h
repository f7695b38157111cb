/*
 * text_params.h - what a model's texts are made of, beside its vocabulary
 *
 * The numbers that the tokenizer and the prompt need and no matrix does. They
 * come from a config.json, flags and the vocabulary itself when a checkpoint
 * is converted, and from the metadata of the model file ever after.
 */
#ifndef SL_TEXT_PARAMS_H
#define SL_TEXT_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sl_whitespace {
    SL_WHITESPACE_TOKENS,   /* newline, tab, runs of blanks, bytes: tokens */
    SL_WHITESPACE_COLLAPSE, /* SAT 0.2.12: newlines and runs become a blank */
};

/* Token ids of the control tokens; -1 where the model has none. */
struct sl_special_ids {
    int32_t mask, gmask, smask; /* [MASK] [gMASK] [sMASK] */
    int32_t eod, sop, eop, enc, dblock;
    int32_t eos, unk; /* </s>, <unk>: pieces of the sentencepiece model */
};

struct sl_text_params {
    enum sl_whitespace whitespace;
    /* icetk: id = sentencepiece id + n_image_tokens */
    uint32_t n_image_tokens;
    uint32_t max_blank; /* longest <|blank_N|>; 0: no whitespace tokens */
    bool byte_fallback;
    uint32_t n_tokens; /* ids below this mean something; 0: unknown */
    struct sl_special_ids special;
};

/* That every number lies within an embedding of vocab rows. Errors:
 * SL_ERR_CORRUPT naming the number. */
int sl_text_params_check(const struct sl_text_params *tp, uint32_t vocab,
                         struct sl_error *err);

/* The names the options take and the model file holds: "tokens", "collapse". */
const char *sl_whitespace_name(enum sl_whitespace whitespace);
/* False when there is none of that name. */
bool sl_whitespace_find(enum sl_whitespace *whitespace, const char *name);

#ifdef __cplusplus
}
#endif

#endif
