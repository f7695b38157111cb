/*
 * server.h - what the files of the server share
 *
 *   server.c         life: loading, the executor's thread, draining, the end
 *   sizes.c          how many texts at a time, how long
 *   room.c           memory that requests have together
 *   http.c           connections, and requests that come in on them
 *   guard.c          who may ask: Host, Origin, keys, limits
 *   watch.c          looks after sockets while nothing is sent
 *   route.c          which function answers which path
 *   reply.c          answers: whole, streams, waiting for either
 *   job.c, choice.c  requests as jobs: texts, listeners, kept answers
 *   api_*.c          one API each
 *
 * Threads: libmicrohttpd's, which parse requests and write answers; the
 * executor, which alone uses the model; the watch. Everything of jobs and
 * requests that more than one of them sees is under `lock`; the tokenizer is
 * under `text_lock`. Who needs both takes `lock` first.
 */
#ifndef SL_SERVER_H
#define SL_SERVER_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include "src/runtime/runtime.h"
#include "src/serve/batcher.h"
#include "src/serve/refusal.h"
#include "src/text/chat.h"

enum { SL_SERVE_MOST_HOSTS = 16 };

/* Texts at a time where neither anybody says nor memory is short. */
#define SL_SERVE_USUAL_PARALLEL 8u

struct sl_serve_config {
    struct sl_runtime_config run;
    const char *host; /* address to listen at */
    uint16_t port;    /* 0: any that is free */
    const char *key_file;
    bool no_auth;
    const char *cors; /* origin that may ask, "*": any; NULL: none */
    const char *hosts[SL_SERVE_MOST_HOSTS]; /* names in Host beside addresses
                                             * and localhost */
    size_t n_hosts;
    const char *tls_cert, *tls_key; /* files */
    const char *log_file;           /* "-": standard output; NULL: none */
    bool log_json, log_text;
    const char *tmpl;     /* name; NULL: the model's */
    const char *name;     /* that the model goes by; NULL: the file's */
    uint32_t ctx;         /* tokens of a text; 0: what is usual */
    uint32_t parallel;    /* texts at a time; 0: what is usual */
    uint32_t max_tokens;  /* of an answer, where nobody says */
    uint32_t most_tokens; /* that may be asked for; 0: as --ctx allows */
    uint32_t queue;       /* texts that may wait */
    uint64_t body_bytes;
    uint32_t header_bytes;
    uint32_t connections, per_address;
    uint32_t per_key; /* requests at a time; 0: any number */
    uint32_t idle_s;  /* a connection without a whole request is closed */
    uint32_t drain_s;
    uint32_t progress_s; /* an event of progress after so much silence */
    uint32_t linger_s;   /* a job goes on for so long without listeners */
    uint64_t keep_bytes; /* of answers that are kept, */
    uint32_t keep_s;     /* for so long */
    const struct sl_log *log;
    /* What passes guess with; NULL: nothing. They are made ready whenever the
     * model is opened: before it takes its memory, what they take is added to
     * the load; then they begin. */
    struct sl_drafts *drafts; /* borrowed */
    int (*plan_drafts)(void *arg, struct sl_workload *load,
                       struct sl_runtime *rt, struct sl_error *err);
    int (*start_drafts)(void *arg, struct sl_runtime *rt, struct sl_error *err);
    void *drafts_arg;
    /* Seconds of the floor of a pass for one token, where the machine's rates
     * are known, else 0; NULL: nobody knows. */
    double (*floor)(const struct sl_runtime *rt);
};

void sl_serve_config_init(struct sl_serve_config *c);

enum sl_serve_state {
    SL_SERVE_LOADING,
    SL_SERVE_READY,
    SL_SERVE_BROKEN,   /* the model is gone (why tells); tried again */
    SL_SERVE_DRAINING, /* nothing new */
    SL_SERVE_ENDING,   /* all that waits is let go */
};

struct sl_counts {
    uint64_t requests, refused, failed, gone, joined, from_kept;
    uint64_t jobs_done, jobs_cancelled;
    struct sl_batcher_stats past; /* of batchers that are gone */
};

struct MHD_Daemon;
struct sl_job;
struct sl_req;
struct sl_conn;
struct sl_key;
struct sl_spellings;

struct sl_server {
    const struct sl_serve_config *c;
    char model[128]; /* name of it */
    int64_t created; /* unix seconds */
    struct MHD_Daemon *daemon;
    struct sl_key *keys; /* (n_keys) */
    size_t n_keys;
    FILE *log;
    pthread_t executor, watch;
    bool has_executor, has_watch;

    /* of the model; set before the first request is let in */
    uint64_t model_sum; /* of the file's header, which has all others */
    struct sl_hparams hp;
    uint32_t text_cost; /* sl_tokenizer_cost */
    enum sl_prompts prompts;
    const char *arch_name, *arch_what;
    const struct sl_chat_template *tmpl;
    struct sl_sampling sampling; /* of its chats, all given */
    /* What a budget has room for may be less when the model is opened again:
     * each is right by itself, and orders nothing. */
    atomic_uint ctx, parallel, part_positions;

    pthread_mutex_t text_lock;
    struct sl_tokenizer *tokenizer; /* NULL while there is no model */
    struct sl_ids prefix;           /* before a text of a causal model */
    struct sl_spellings *spellings; /* of its tokens, once asked for */

    pthread_mutex_t lock;
    pthread_cond_t work; /* something waits, or the state has changed */
    enum sl_serve_state state;
    struct sl_error why; /* SL_SERVE_BROKEN, or why loading failed */
    bool loading_failed;
    struct sl_runtime *rt; /* under lock where it is not the executor's */
    struct sl_batcher *batcher;
    struct sl_run_stats run; /* as a pass has left them, not long ago */
    double floor_s;          /* 0: unknown */
    struct sl_gen *first_waiting, *last_waiting;
    uint32_t n_waiting;
    struct sl_job *jobs, *last_job; /* all there are, oldest first */
    pthread_mutex_t large_lock;     /* before lock: one large body is read */
    uint64_t room_bytes;            /* that requests have taken (room.h) */
    uint64_t asked_bytes;           /* of these, jobs that have not begun */
    uint64_t bodies_bytes;          /* of requests that are there */
    uint64_t next_id;
    struct sl_req *reqs;
    struct sl_conn *conns;
    struct sl_counts counts;
};

/* Starts to listen and to load. Errors: SL_ERR_USAGE, SL_ERR_IO, the
 * runtime's. */
int sl_server_start(struct sl_server *s, const struct sl_serve_config *c,
                    struct sl_error *err);
/* "http://127.0.0.1:8000" */
void sl_server_address(const struct sl_server *s, char *to, size_t room);
/* Waits until loading is over. Errors: why it failed. */
int sl_server_loaded(struct sl_server *s, struct sl_error *err);
/* Lets nothing new in. */
void sl_server_drain(struct sl_server *s);
/* No job is left that somebody waits for. */
bool sl_server_is_idle(struct sl_server *s);
/* Ends everything. A zeroed server is fine. */
void sl_server_stop(struct sl_server *s);

/* OpenAPI's description of what can be asked; the caller's. NULL: no memory. */
json_t *sl_openapi(void);

/* -- inside -- */

/* Is there a model to ask? Refusals: 503. */
int sl_server_ready(struct sl_server *s, struct sl_refusal *why);
/* Seconds that a pass takes which reads no prompt: before one was measured the
 * plan's floor; 0: unknown. lock is held. */
double sl_server_sweep_s(struct sl_server *s);
/* How much of the pass that runs is done, 0 to 1. lock is held. */
double sl_server_pass_done(const struct sl_server *s);
/* Of all batchers there were. lock is held. */
void sl_server_stats(struct sl_server *s, struct sl_batcher_stats *stats);

/* watch.c's thread. */
void *sl_watch(void *server);

#endif
