/*
 * rules.h - what one text may say, and how likely what it said was
 *
 * The rules of a text that has some of its own beside its batch's: penalties,
 * bias, a form that it keeps to. For each row of logits that a token is chosen
 * from, in this order:
 *
 *   look - shape - (ban, filter, draw) - tell - (the sink hears) - said
 *
 * One thread. A text is as it would be without rules where none is set.
 */
#ifndef SL_RULES_H
#define SL_RULES_H

#include <stdbool.h>

#include "src/base/ids.h"
#include "src/decode/row.h"

/* Most alternatives of a token that are told. */
enum { SL_MOST_TOP = 20 };

struct sl_top {
    int32_t id;
    float logprob;
};

/* How likely a token was: natural logarithms of softmax(logits), before
 * anything was changed or filtered. */
struct sl_chance {
    int32_t id;
    float logprob;
    const struct sl_top *top; /* (n_top) likeliest first; borrowed */
    unsigned n_top;
};

/* Which ids may come next, for answers of a given form. */
struct sl_rule {
    /* Bans (SL_BANNED) what must not come; ends are its too. */
    void (*limit)(void *opaque, float *logits, uint32_t vocab);
    int (*accept)(void *opaque, int32_t id, struct sl_error *err);
    /* Nothing more may come. */
    bool (*over)(void *opaque);
    void *opaque;
};

struct sl_bias {
    int32_t id;
    float add;
};

struct sl_rules {
    /* what holds; borrowed */
    double repetition; /* as causal.h's penalty, of prompt and answer; 0 and
                        * 1: off */
    double presence, frequency; /* OpenAI's: less logit for what was said */
    const struct sl_bias *bias; /* (n_bias) */
    size_t n_bias;
    const struct sl_rule *rule; /* or NULL */
    int n_top;                  /* -1: nobody asks for chances */
    /* what the text has come to */
    struct sl_ids said; /* of all blanks; owned */
    bool enough; /* nothing more is wanted: the rule's word, or a sink's */
    struct sl_chance chance; /* of the token that was told last, which may be
                              * the end */
    struct sl_top top[SL_MOST_TOP];
};

/* Room that all texts of a batch share. */
struct sl_rules_room {
    uint32_t vocab;
    float *row;    /* (vocab) as the model gave it */
    double sum;    /* its log_sum */
    uint8_t *seen; /* (vocab) bits */
};

/* Errors: SL_ERR_NOMEM. */
int sl_rules_room_init(struct sl_rules_room *room, uint32_t vocab,
                       struct sl_error *err);
void sl_rules_room_fini(struct sl_rules_room *room); /* zeroed is fine */

void sl_rules_init(struct sl_rules *r); /* none */
void sl_rules_fini(struct sl_rules *r);

/* Remembers a row as it is, where chances are asked for. */
void sl_rules_look(struct sl_rules *r, struct sl_rules_room *room,
                   const float *row);
/* Changes it. prompt: (n) ids that a penalty of repetition counts beside those
 * that were said. */
void sl_rules_shape(const struct sl_rules *r, struct sl_rules_room *room,
                    float *row, const int32_t *prompt, size_t n);
/* Makes r->chance of an id in the row that was looked at. */
void sl_rules_tell(struct sl_rules *r, const struct sl_rules_room *room,
                   int32_t id);
/* It was said. Errors: SL_ERR_NOMEM, the rule's. */
int sl_rules_said(struct sl_rules *r, int32_t id, struct sl_error *err);

#endif
