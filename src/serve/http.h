/*
 * http.h - a request on its connection
 *
 *   headers --guard--> body --route--> answered at once
 *                                 \--> waits for a job --> whole answer
 *                                 \--> stream of events
 *
 * While a request waits its connection is suspended, and costs no thread.
 * Whoever has news resumes it; the watch looks whether its client is there.
 *
 * What is whole and quick is answered with a length. An answer that takes long
 * is begun after some seconds, and a blank (which JSON allows before a value)
 * follows now and then, so that nobody on the way gives the connection up;
 * whatever went wrong after that is told in the JSON, the status being sent.
 */
#ifndef SL_HTTP_H
#define SL_HTTP_H

#include <microhttpd.h>

#include "src/base/str.h"
#include "src/serve/fields.h"
#include "src/serve/job.h"
#include "src/serve/refusal.h"

struct sl_req;

/* What is made of an answer at a time: a reader is handed it before there is
 * more. */
#define SL_PIECE_BYTES 16384u

/* How an API says things. */
struct sl_form {
    const char *name;
    const char *error_schema; /* JSON Schema of an error */
    /* {"error": ...}; the caller's */
    json_t *(*error)(const struct sl_refusal *why);
    /* Appends what comes next of the whole answer of a job that has ended,
     * about SL_PIECE_BYTES; sets r->stream_ended behind the last. lock is held.
     */
    int (*whole)(struct sl_req *r, struct sl_str *out, struct sl_error *err);
    /* Appends events of what is new, about SL_PIECE_BYTES at a time; sets
     * r->stream_ended behind the last. lock is held. */
    int (*events)(struct sl_req *r, struct sl_str *out, struct sl_error *err);
    /* Appends an event that tells of progress. lock is held. */
    int (*progress)(struct sl_req *r, struct sl_str *out, struct sl_error *err);
    /* Appends what tells that it has failed, and ends the stream. */
    int (*failed)(struct sl_req *r, const struct sl_refusal *why,
                  struct sl_str *out, struct sl_error *err);
};

struct sl_route {
    const char *method, *path; /* "/v1/responses/{id}": one segment for each */
    const struct sl_form *form;
    /* Answers, or sets r->job to wait for. Returns -1 for a refusal. */
    int (*handle)(struct sl_req *r, struct sl_refusal *why);
    sl_field_tables fields; /* of the body; NULL: there is none */
    const char *what;       /* in words */
    /* JSON Schema of the answer, or the type of one that is no JSON. */
    const char *answer;
    bool open;    /* needs no key */
    bool unready; /* needs no model */
};

struct sl_req {
    struct sl_server *s;
    struct sl_req *before, *after; /* of all; lock */
    struct MHD_Connection *connection;
    struct sl_conn *conn;
    const struct sl_route *route;
    const char *method;
    char *path;
    const char *argument; /* of the path: what stands for {id} */
    char id[SL_JOB_ID];
    char peer[64];
    uint64_t begun_ns;
    int key; /* index of the key; -1: none was needed */
    struct sl_str body_text;
    uint64_t declared; /* Content-Length */
    uint64_t took;     /* of the room for all bodies; lock */
    bool too_large, refused;
    struct sl_refusal why;
    json_t *body;  /* while it is being read */
    size_t n_body; /* bytes of it */
    uint64_t held; /* of the room for requests; lock */
    bool alone;    /* large_lock is held */
    json_t *asked; /* what the answer tells of it, for the job; owned */
    /* the answer */
    bool handled; /* lock */
    bool answered;
    int status;
    size_t sent;
    struct sl_job *job; /* listened to; lock */
    bool joined;        /* the job was there already */
    bool stream, stream_ended;
    bool suspended;   /* lock */
    bool gone;        /* the client is; lock */
    bool counted;     /* among the requests of its key */
    uint64_t said_ns; /* when something was sent last; lock */
    bool tick;        /* it is time for a sign of life; lock */
    bool chunked;     /* the answer was begun before it is there */
    struct sl_str out;
    size_t out_at;
    /* cursors of a stream, one a choice; owned */
    size_t *cursor;
    bool begun_stream;
    /* what the API wants to remember of the request */
    bool include_usage, echo, in_background;
    int n_logprobs;
    size_t n_answers; /* of the job's choices, best_of being more */
    size_t per_prompt;
    json_t *model;      /* as the client calls it, or NULL */
    json_t *echoes;     /* what an echo says, one text a prompt, or the history
                         * that an answer goes on with, or NULL */
    bool *cursor_ended; /* of each choice: its end was told; owned */
    unsigned state, n_blocks;
};

struct sl_conn {
    struct sl_conn *before, *after;
    int fd;
    uint64_t since_ns; /* connected, or the last request ended */
    unsigned busy;     /* requests being answered */
};

int sl_http_start(struct sl_server *s, struct sl_error *err);
void sl_http_stop(struct sl_server *s);

/* Appends a value's text; json is the callee's. Errors: SL_ERR_NOMEM, where
 * json is NULL too. */
int sl_json_add(struct sl_str *out, json_t *json, struct sl_error *err);
/* The same of a whole answer that is a piece alone. */
int sl_json_whole(struct sl_req *r, struct sl_str *out, json_t *json,
                  struct sl_error *err);

/* Answers now. json and text are moved or copied; type: of the content. */
int sl_reply_json(struct sl_req *r, int status, json_t *json);
int sl_reply_text(struct sl_req *r, int status, const char *type,
                  const char *text, size_t n);
/* response is given away. */
int sl_reply_response(struct sl_req *r, int status,
                      struct MHD_Response *response, const char *type,
                      size_t n);
int sl_reply_refusal(struct sl_req *r, const struct sl_refusal *why);

/* Its body is not needed any more (params.c). */
void sl_req_end_reading(struct sl_req *r);

/* Waits for a job that was submitted: r->job, r->form and r->stream are set.
 * Refusals: none, it answers. */
int sl_http_await(struct sl_req *r);

/* lock is held: */

/* Whoever listens to the job has news. */
void sl_http_wake(struct sl_server *s, const struct sl_job *job);
void sl_http_wake_one(struct sl_req *r);

/* -- guard.c -- */

/* Refusals: 401, 403, 404, 405, 413, 415. Sets route and key. */
int sl_guard(struct sl_req *r, struct sl_refusal *why);
int sl_guard_open(struct sl_server *s, struct sl_error *err);
/* A file of keys or a certificate, up to a zero byte; the text is the caller's.
 * what: stands behind "PATH: more than N KiB". Errors: SL_ERR_IO, SL_ERR_NOMEM,
 * SL_ERR_USAGE for more than a MiB. */
int sl_guard_read(char **text, const char *path, const char *what,
                  struct sl_error *err);
void sl_guard_close(struct sl_server *s);
/* lock is held. Refusals: 429 where a key has too many requests. */
int sl_guard_enter(struct sl_req *r, struct sl_refusal *why);
void sl_guard_leave(struct sl_req *r);
/* Adds what a browser of another origin wants to see. */
void sl_guard_headers(const struct sl_req *r, struct MHD_Response *response);

/* -- route.c -- */

extern const struct sl_route sl_routes[];
/* NULL and *known where only the method is wrong; *argument is borrowed from
 * path. */
const struct sl_route *sl_route_find(const char *method, const char *path,
                                     const char **argument, bool *known);
/* In what form somebody who asks for this path wants to hear errors. */
const struct sl_form *sl_route_form(const char *path);

/* -- log.c -- */
void sl_request_log(struct sl_req *r);

#endif
