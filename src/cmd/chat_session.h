/*
 * chat_session.h - a conversation with a model
 *
 * Keeps the messages, makes a prompt of them that leaves room for an answer
 * (the oldest turns go when there is none), has the model answer, and keeps
 * the answer. Causal models read only what is new since the turn before
 * (decode/causal.h); for the others, whose context is read in both directions,
 * every turn fills a [gMASK] behind all of it (decode/fill.h).
 */
#ifndef SL_CHAT_SESSION_H
#define SL_CHAT_SESSION_H

#include "src/decode/causal.h"
#include "src/decode/fill.h"
#include "src/text/answer.h"
#include "src/text/chat_history.h"
#include "src/text/stopper.h"

/* Ids to text while they come, as sl_detok_push and sl_detok_end do it. */
struct sl_chat_speaker {
    int (*push)(void *opaque, const int32_t *ids, size_t n, const char **text,
                size_t *n_text, struct sl_error *err);
    int (*end)(void *opaque, const char **text, size_t *n_text,
               struct sl_error *err);
    void *opaque;
};

struct sl_session_config {
    /* all borrowed for the session's life */
    struct sl_lm *lm;
    struct sl_drafts *drafts; /* or NULL */
    const struct sl_hparams *hp;
    const struct sl_chat_template *tmpl;
    const struct sl_chat_vocab *vocab;
    const struct sl_chat_speaker *speaker;
    const struct sl_ids *stops; /* of the vocabulary; NULL: the template's */
    const json_t *tools;        /* OpenAI's, or NULL */
    const struct sl_stops *stop_texts; /* that end an answer; or NULL */
    struct sl_sampler_config sampler;
    double repetition_penalty; /* causal models; 1: off */
    uint32_t max_new;          /* most ids of an answer; 0: what there is room
                                * for */
    uint32_t pass_positions;   /* causal models: of one pass */
    uint64_t seed;
    bool no_think;
};

/* What came of a question. */
struct sl_session_turn {
    enum sl_causal_end end;
    size_t n_dropped;        /* turns that went for good */
    uint32_t n_prompt;       /* ids of the prompt, */
    uint32_t n_kept;         /* of which so many were still known */
    uint32_t n_new;          /* ids of the answer */
    uint64_t first_token_ns; /* from the call; 0: there was none */
    uint64_t ns;
    bool cut_in_thought; /* the answer ended within its thinking */
};

struct sl_session {
    struct sl_session_config c;
    struct sl_chat_history history;
    size_t first;             /* message at which the prompt begins, behind
                               * the system message */
    struct sl_causal *causal; /* NULL: the context is read anew each turn */
    struct sl_ids stops;
    int32_t think[2]; /* tokens that open and close thinking; -1: none */
    struct sl_rng rng;
};

/* Memory that conversations of max_tokens ids need; drafts may be NULL. */
int sl_session_workload(struct sl_workload *load, const struct sl_hparams *hp,
                        uint32_t max_tokens, uint32_t pass_positions,
                        struct sl_drafts *drafts, struct sl_error *err);

/* Errors: SL_ERR_NOMEM. */
int sl_session_open(struct sl_session *s,
                    const struct sl_session_config *config,
                    struct sl_error *err);
void sl_session_close(struct sl_session *s);

/* Says something and hears the answer: both join the history, unless nothing
 * was answered. An interrupted answer is kept as far as it came. Errors, after
 * which the history is as it was: SL_ERR_USAGE for a text that leaves no room;
 * those of the template, the vocabulary, the model and the sink. */
int sl_session_ask(struct sl_session *s, const char *text,
                   const struct sl_answer_sink *sink,
                   struct sl_session_turn *turn, struct sl_error *err);
/* Another history, or a part of it, is the conversation from now on. */
void sl_session_restart(struct sl_session *s);

#endif
