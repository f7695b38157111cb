/*
 * job.h - a request as work to be done, whoever waits for it
 *
 *   request --hash--> job --> choices, one gen each --> batcher
 *      ^                \--> what they said so far, piece by piece
 *      '--- listens, with a cursor of its own
 *
 * A job belongs to the server and lives as long as a gen of it is with the
 * batcher, a request listens to it, or its answer is kept. Several requests may
 * listen to one: the same request sent again joins it and hears all of it. A
 * job to which nobody listens any more is cancelled, unless it runs in the
 * background or lingers.
 *
 * All of it is under the server's lock but what is said to be the executor's.
 */
#ifndef SL_JOB_H
#define SL_JOB_H

#include <jansson.h>

#include "src/base/str.h"
#include "src/serve/calls.h"
#include "src/serve/form_rule.h"
#include "src/serve/server.h"
#include "src/text/answer.h"
#include "src/text/stopper.h"

enum { SL_JOB_ID = 40 };

struct sl_tok_top {
    int32_t id;
    float logprob;
    uint32_t name, n_name; /* in the choice's names */
};

struct sl_tok {
    int32_t id;
    float logprob; /* NAN: none */
    uint32_t name, n_name;
    uint32_t top, n_top; /* in the choice's tops */
    uint32_t offset;     /* characters of the text before it */
};

enum sl_part_kind {
    SL_PART_TEXT,
    SL_PART_REASONING,
    SL_PART_CALLS, /* the calls of tools are known now */
};

/* What became final at a time. */
struct sl_part {
    enum sl_part_kind kind;
    uint32_t begin, end; /* of text or reasoning */
    uint32_t n_toks;     /* that are known now */
    uint32_t blank;      /* which of them, from 0 */
};

struct sl_choice {
    struct sl_job *job;
    unsigned index;
    struct sl_gen gen;
    uint64_t bytes; /* that it may take: its part of the job's */
    /* what the maker said */
    bool chat;                    /* text is an answer of the template's form */
    struct sl_call_reader reader; /* reader.tools: look for calls of these */
    struct sl_stops stops;
    struct sl_form_rule *form; /* of JSON, or NULL; owned */
    /* the executor's */
    struct sl_detok *detok, *prompt_detok;
    struct sl_stopper stopper;
    struct sl_answer answer;
    struct sl_answer_sink answer_sink;
    uint32_t n_chars;
    size_t skip; /* bytes to come that are the prompt's */
    int32_t think[2], marks[SL_CALL_MARKS];
    struct sl_str plain, plain_stop; /* scratch */
    /* what came of it */
    struct sl_str text, reasoning, names;
    struct sl_tok *toks; /* of the prompt, where it is scored, then said */
    size_t n_toks, room_toks, n_scored;
    struct sl_tok_top *tops;
    size_t n_tops, room_tops;
    struct sl_part *parts;
    size_t n_parts, room_parts;
    uint32_t blank, n_blanks;
    json_t *tool_calls; /* OpenAI's, or NULL */
    bool ended;
    enum sl_gen_end how;
    const char *stop;     /* the text that ended it, or NULL */
    uint32_t n_chars_out; /* characters of the prompt and of text */
    struct sl_error err;
};

enum sl_job_kind { SL_JOB_TEXT, SL_JOB_CHAT };

struct sl_job {
    struct sl_server *s;
    struct sl_job *before, *after;
    char id[SL_JOB_ID];            /* "cmpl-...", for people and clients */
    uint64_t hash[2];              /* of the request; 0, 0: not to be shared */
    bool repeatable;               /* the same request gives the same answer */
    bool delivered;                /* somebody has had all of it */
    int64_t created;               /* unix seconds */
    uint64_t created_ns, ended_ns; /* monotonic; 0: not yet */
    struct sl_choice *choices;     /* (n) */
    size_t n, n_ended;
    uint64_t bytes; /* that it has of the room for requests (room.h) */
    bool begun;     /* what its answers can become is among them */
    size_t n_listeners;
    uint64_t lonely_ns; /* since when nobody listens; 0: somebody does */
    bool background;    /* /v1/responses */
    bool cancelled;
    bool submitted;
    json_t *request;   /* what an answer tells of it, or NULL */
    unsigned n_prompt; /* ids of all prompts */
};

/* A job of n choices, each to be set up by the caller before it is submitted.
 * Its gens hear through the job. Refusals: 400 for more than may wait, those of
 * sl_room_ask. lock is not held. */
int sl_job_create(struct sl_job **job, struct sl_server *s, const char *prefix,
                  size_t n, struct sl_refusal *why);
/* A choice was set up: it has room for what it holds. Refusals: those of
 * sl_room_ask. lock is not held. */
int sl_choice_hold(struct sl_choice *c, struct sl_refusal *why);
/* Of a job that was never submitted. */
void sl_job_discard(struct sl_job *job);
/* Makes what turns ids into text; after chat, calls and stops were set.
 * thinks: the prompt has opened the thinking. */
int sl_choice_open(struct sl_choice *c, bool thinks, struct sl_error *err);
/* Its detokenizers, which belong to a tokenizer that may go before the job.
 * text_lock is held. */
void sl_choice_forget_text(struct sl_choice *c);

/* -- lock is held -- */

/* Refusals: 429 where the queue is full, 400 for answers that can become more
 * than there is room for, 503. */
int sl_job_submit(struct sl_job *job, struct sl_refusal *why);
/* Does a text wait, and is there room for what its job can become? */
bool sl_jobs_may_begin(const struct sl_server *s);
/* The first that waits, or NULL; its job has that room if it is there. */
struct sl_gen *sl_jobs_next(struct sl_server *s);
/* The job of the same request, running or kept; NULL. */
struct sl_job *sl_job_find(struct sl_server *s, const uint64_t hash[2]);
struct sl_job *sl_job_named(struct sl_server *s, const char *id);
void sl_job_listen(struct sl_job *job);
void sl_job_leave(struct sl_job *job); /* the job may be gone then */
void sl_job_cancel(struct sl_job *job);
/* Throws away what is old, or too much. now_ns: monotonic. */
void sl_jobs_tidy(struct sl_server *s, uint64_t now_ns);
void sl_jobs_drop_all(struct sl_server *s);
/* Answers that nobody is being given: what they take, and the oldest goes. */
uint64_t sl_jobs_kept_bytes(const struct sl_server *s);
void sl_jobs_drop_oldest(struct sl_server *s);
bool sl_job_ended(const struct sl_job *job);
/* The first error of its choices, or NULL. */
const struct sl_error *sl_job_error(const struct sl_job *job);
/* Failed, or cancelled before there was anything to tell. */
bool sl_job_lost(const struct sl_job *job);

struct sl_job_progress {
    unsigned queue; /* texts before it; 0: it runs */
    unsigned n_prompt, n_read, n_said, n_most;
    double done;         /* fraction, 0 to 1, of what there may be */
    double seconds_left; /* at most; < 0: unknown */
};
void sl_job_progress(const struct sl_job *job, struct sl_job_progress *p);
/* Seconds until a job that comes now would begin, at most; the same for a
 * header, 1 to 86400. */
double sl_jobs_wait_s(struct sl_server *s);
unsigned sl_jobs_retry_s(struct sl_server *s);
/* {"queue":, "prompt":, "read":, "said":, "most":, "done":, "seconds_left":,
 * "sweep_seconds":} */
json_t *sl_job_progress_json(const struct sl_job *job);

/* choice.c: what the batcher calls. */
extern const struct sl_gen_sink sl_choice_sink;
void sl_choice_fini(struct sl_choice *c);
/* About what it takes beside itself; what it can still come to take. */
uint64_t sl_choice_bytes(const struct sl_choice *c);
uint64_t sl_choice_to_come(const struct sl_choice *c);

/* job.c, of choice.c: something new is there, or the end. lock is held. */
void sl_job_wake(struct sl_job *job);
void sl_job_choice_ended(struct sl_job *job);

#endif
