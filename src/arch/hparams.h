/*
 * hparams.h - what makes a model this model
 *
 * Everything the forward pass and the tokenizer must know beside weights. It
 * comes from a preset, a config.json or flags when a checkpoint is converted,
 * and from the metadata of the model file ever after.
 */
#ifndef SL_HPARAMS_H
#define SL_HPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/error.h"

/* How the rotary table was rounded when the model was trained
 * (docs: SAT model/position_embedding/rotary_embeddings.py; a GLM-130B half
 * run rounds inv_freq, position, their product and cos/sin to FP16). */
enum sl_rotary {
    SL_ROTARY_EXACT,        /* nothing rounded */
    SL_ROTARY_INV_FREQ_F16, /* inv_freq rounded to FP16, the rest FP32 */
    SL_ROTARY_F16,          /* position, inv_freq, product, cos, sin: FP16 */
};

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

struct sl_hparams {
    uint32_t n_layers;
    uint32_t hidden;
    uint32_t inner; /* of the MLP; a GLU has 2 * inner rows going in */
    uint32_t n_heads;
    uint32_t vocab; /* rows of the embedding, padding included */
    uint32_t max_positions;
    float norm_eps;
    bool position_2d; /* SAT --position-encoding-2d */
    bool glu;         /* false: SAT --no-glu, tanh GELU */
    enum sl_rotary rotary;
    enum sl_whitespace whitespace;
    /* tokenizer: id = sentencepiece id + n_image_tokens */
    uint32_t n_image_tokens;
    uint32_t max_blank; /* longest <|blank_N|>; 0: no whitespace tokens */
    bool byte_fallback;
    uint32_t n_tokens; /* ids below this mean something; 0: unknown */
    struct sl_special_ids special;
};

/* That the numbers can be a model and that no size made of them overflows.
 * Errors: SL_ERR_CORRUPT naming the number. */
int sl_hparams_check(const struct sl_hparams *hp, struct sl_error *err);

/* The names the options take and the model file holds: "exact",
 * "inv-freq-f16", "f16"; "tokens", "collapse". */
const char *sl_rotary_name(enum sl_rotary rotary);
const char *sl_whitespace_name(enum sl_whitespace whitespace);
/* False when there is none of that name. */
bool sl_rotary_find(enum sl_rotary *rotary, const char *name);
bool sl_whitespace_find(enum sl_whitespace *whitespace, const char *name);

#endif
