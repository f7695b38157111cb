/*
 * gen.h - one text that is being generated or scored
 *
 * What stands between requests and the model: a request makes one gen for each
 * text that it wants, the batcher (batcher.h) takes many of them through every
 * pass over the weights. A gen is one of two kinds:
 *
 *   fill   blanks of a text, by a model that sees its context in both
 *          directions (decode/fill.h); several blanks one after another
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
#include "src/decode/blank.h"
#include "src/decode/sampler.h"

/* Most alternatives of a token that are told. */
enum { SL_GEN_MOST_TOP = 20 };

struct sl_gen_top {
    int32_t id;
    float logprob;
};

struct sl_gen_token {
    int32_t id;
    /* natural logarithms of softmax(logits), nothing filtered; where the gen
     * has n_top >= 0 */
    float logprob;
    const struct sl_gen_top *top; /* (n_top) likeliest first; borrowed */
    unsigned n_top;
};

enum sl_gen_end {
    SL_GEN_STOP,      /* the model said one of the ends */
    SL_GEN_ENOUGH,    /* the sink had enough */
    SL_GEN_LENGTH,    /* max_new */
    SL_GEN_CANCELLED, /* on request */
    SL_GEN_FAILED,    /* err tells */
};

struct sl_gen_sink {
    /* What the model thought of the prompt's id `at`. */
    int (*scored)(void *opaque, uint32_t at, const struct sl_gen_token *token,
                  struct sl_error *err);
    /* The next blank begins (fill). */
    int (*blank)(void *opaque, struct sl_error *err);
    /* *enough set: nothing more is wanted. */
    int (*token)(void *opaque, const struct sl_gen_token *token, bool *enough,
                 struct sl_error *err);
    void (*ended)(void *opaque, enum sl_gen_end how,
                  const struct sl_error *err);
};

/* Which ids may come next, for answers of a given form. */
struct sl_gen_rule {
    /* Bans (SL_BANNED) what must not come; ends are its too. */
    void (*limit)(void *opaque, float *logits, uint32_t vocab);
    int (*accept)(void *opaque, int32_t id, struct sl_error *err);
    /* Nothing more may come. */
    bool (*over)(void *opaque);
    void *opaque;
};

struct sl_gen_bias {
    int32_t id;
    float add;
};

struct sl_gen {
    /* what to do; set by its maker, all owned but sink and rule */
    bool fill;
    struct sl_prompt prompt; /* fill */
    struct sl_ids ids;       /* line: the prompt, then what is said */
    uint32_t n_context;      /* line */
    uint32_t score_from;     /* line: ids from here on are scored, > 0;
                              * UINT32_MAX: none */
    uint32_t max_new;        /* most ids; fill: of all blanks together */
    uint32_t min_new;        /* no end before so many (of a blank) */
    struct sl_sampler_config sampler;
    double repetition_penalty; /* as causal.h's; 0 and 1: off */
    double presence_penalty, frequency_penalty; /* OpenAI's: less logit for
                                                 * what was said */
    struct sl_gen_bias *bias;                   /* (n_bias) */
    size_t n_bias;
    struct sl_rng rng;
    int n_top; /* -1: no logprobs */
    const struct sl_gen_rule *rule;
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
    struct sl_fill_common common; /* fill */
    struct sl_fill_config config;
    struct sl_fill_sink fill_sink;
    struct sl_fill_text io;
    struct sl_text text;
    bool text_open, asked; /* next has told what it wants */
    uint32_t seq;          /* line */
    bool has_seq;
    uint32_t fed;        /* of ids */
    uint32_t prompt_len; /* of ids, before anything was said */
    struct sl_ids said;  /* fill: for penalties */
    /* of the pass that is being run */
    uint32_t n_fed, n_rows;
    struct sl_gen_token token;
    struct sl_gen_top top[SL_GEN_MOST_TOP];
    bool enough;
};

void sl_gen_init(struct sl_gen *gen);
void sl_gen_fini(struct sl_gen *gen);

#endif
