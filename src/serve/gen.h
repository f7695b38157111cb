/*
 * gen.h - one text that is being generated or scored
 *
 * What stands between requests and the model: a request makes one gen for each
 * text that it wants, the batcher (batcher.h) makes a text of the batch of it
 * (decode/batch.h). A gen is one of two kinds:
 *
 *   fill   blanks of a text, by a model that sees its context in both
 *          directions; several blanks one after another
 *   line   ids that only look back: all of a causal model's, and for the
 *          others a text behind [gMASK] [sop], which is how GLM scores one
 *          (unidirectional in THUDM/GLM-130B's evaluation)
 *
 *   line, with n_context 1:   [gMASK] [sop] i0 i1 i2 ... said said ...
 *                             context       <- scored -> <- chosen ->
 *
 * Whoever makes a gen owns it and frees it after `ended`, which comes exactly
 * once. All functions of the sink are called by the batcher's thread.
 */
#ifndef SL_GEN_H
#define SL_GEN_H

#include <stdatomic.h>
#include <stdbool.h>

#include "src/base/ids.h"
#include "src/decode/fill.h"

enum sl_gen_end {
    SL_GEN_STOP,      /* the model said one of the ends */
    SL_GEN_ENOUGH,    /* the sink had enough */
    SL_GEN_LENGTH,    /* max_new */
    SL_GEN_CANCELLED, /* on request */
    SL_GEN_FAILED,    /* err tells */
};

struct sl_gen_sink {
    /* What the model thought of the prompt's id `at`. */
    int (*scored)(void *opaque, uint32_t at, const struct sl_chance *chance,
                  struct sl_error *err);
    /* The next blank begins (fill). */
    int (*blank)(void *opaque, struct sl_error *err);
    /* *enough set: nothing more is wanted. */
    int (*token)(void *opaque, const struct sl_chance *chance, bool *enough,
                 struct sl_error *err);
    void (*ended)(void *opaque, enum sl_gen_end how,
                  const struct sl_error *err);
};

struct sl_gen {
    /* what to do; set by its maker, all owned but sink and rule */
    bool fill;
    struct sl_prompt prompt; /* fill */
    struct sl_ids ids;       /* line: the prompt */
    uint32_t n_context;      /* line: of a causal model 0 */
    uint32_t score_from;     /* line: ids from here on are scored; 0: none */
    uint32_t max_new;        /* most ids; fill: of all blanks together */
    uint32_t min_new;        /* no end before so many (of a blank) */
    struct sl_sampler_config sampler;
    struct sl_rules rules;
    struct sl_bias *bias; /* that the rules have */
    struct sl_rng rng;
    const struct sl_gen_sink *sink;
    void *opaque;

    /* what others may look at; relaxed: they order nothing */
    atomic_bool cancelled; /* set it to have it ended */
    atomic_uint n_prompt;  /* ids to be read before the first is said */
    atomic_uint n_read;    /* of which so many are */
    atomic_uint n_kept;    /* of which so many were known before */
    atomic_uint n_said;
    atomic_bool admitted;

    /* the batcher's */
    struct sl_gen *next;
    struct sl_ids given; /* line: behind [sop] */
    struct sl_ids shown; /* fill: the text up to where it is being filled */
    struct sl_fill_config config;
    struct sl_fill_sink heard;
    struct sl_fill_text text;
};

void sl_gen_init(struct sl_gen *gen);
void sl_gen_fini(struct sl_gen *gen);

#endif
