#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/serve/http.h"

/* --- waiting ----------------------------------------------------------------
 */

/* lock is held. False: the server ends, nobody will come to resume. */
static bool suspend(struct sl_req *r)
{
    if (r->s->state == SL_SERVE_ENDING || r->gone)
        return false;
    r->suspended = true;
    MHD_suspend_connection(r->connection);
    return true;
}

void sl_http_wake_one(struct sl_req *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    MHD_resume_connection(r->connection);
}

void sl_http_wake(struct sl_server *s, const struct sl_job *job)
{
    for (struct sl_req *r = s->reqs; r != NULL; r = r->after) {
        if (r->job == job && (r->stream || sl_job_ended(job)))
            sl_http_wake_one(r);
    }
}

static void job_refusal(const struct sl_job *job, struct sl_refusal *why)
{
    const struct sl_error *err = sl_job_error(job);

    if (err != NULL)
        sl_refuse_error(why, NULL, err);
    else
        sl_refuse(why, 503, NULL, "the request was cancelled");
}

static int append(const char *text, size_t n, void *out)
{
    struct sl_error ignored;

    return sl_str_append(out, text, n, &ignored);
}

int sl_json_add(struct sl_str *out, json_t *json, struct sl_error *err)
{
    int rc = json != NULL ? json_dump_callback(json, append, out,
                                               JSON_COMPACT | JSON_ENCODE_ANY |
                                                   JSON_REAL_PRECISION(12))
                          : -1;

    json_decref(json);
    return rc == 0 ? 0
                   : sl_fail(err, SL_ERR_NOMEM, "out of memory for an answer");
}

int sl_json_whole(struct sl_req *r, struct sl_str *out, json_t *json,
                  struct sl_error *err)
{
    r->stream_ended = true;
    return sl_json_add(out, json, err);
}

/* Appends what is new of a stream. lock is held. */
static int add_events(struct sl_req *r, struct sl_error *err)
{
    const struct sl_form *form = r->route->form;
    struct sl_refusal why;

    if (r->s->state == SL_SERVE_ENDING && !sl_job_ended(r->job)) {
        sl_refuse(&why, 503, NULL, "the server ends");
        r->stream_ended = true;
        return form->failed(r, &why, &r->out, err);
    }
    if (form->events(r, &r->out, err) != 0)
        return -1;
    if (sl_job_ended(r->job) && sl_job_lost(r->job) && !r->stream_ended) {
        job_refusal(r->job, &why);
        r->stream_ended = true;
        return form->failed(r, &why, &r->out, err);
    }
    if (r->out.n == 0 && r->tick && !r->stream_ended)
        return form->progress(r, &r->out, err);
    return 0;
}

/* The same of an answer that was begun before it was there. */
static int add_whole(struct sl_req *r, struct sl_error *err)
{
    struct sl_refusal why;

    if (!sl_job_ended(r->job) && r->s->state != SL_SERVE_ENDING)
        return r->tick ? sl_str_add(&r->out, " ", err) : 0;
    if (sl_job_ended(r->job) && !sl_job_lost(r->job))
        return r->route->form->whole(r, &r->out, err);
    if (!sl_job_ended(r->job))
        sl_refuse(&why, 503, NULL, "the server ends");
    else
        job_refusal(r->job, &why);
    r->stream_ended = true;
    return sl_json_add(&r->out, r->route->form->error(&why), err);
}

/* Keeps the room of pieces, not that of a long text. */
static void empty(struct sl_str *out)
{
    if (out->room > 4 * SL_PIECE_BYTES)
        sl_str_fini(out);
    else
        sl_str_clear(out);
}

static ssize_t read_on(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct sl_req *r = cls;
    struct sl_server *s = r->s;
    struct sl_error err;
    ssize_t n = 0;

    pthread_mutex_lock(&s->lock);
    if (r->out_at == r->out.n) {
        empty(&r->out);
        r->out_at = 0;
        if (r->gone ||
            (!r->stream_ended &&
             (r->stream ? add_events(r, &err) : add_whole(r, &err)) != 0))
            n = MHD_CONTENT_READER_END_WITH_ERROR;
        r->tick = false;
    }
    if (n == 0 && r->out_at < r->out.n) {
        n = (ssize_t)(r->out.n - r->out_at < max ? r->out.n - r->out_at : max);
        memcpy(buf, r->out.s + r->out_at, (size_t)n);
        r->out_at += (size_t)n;
        r->sent += (size_t)n;
        r->said_ns = sl_clock_ns();
    } else if (n == 0 && r->stream_ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (n == 0 && !suspend(r)) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* --- answers ----------------------------------------------------------------
 */

static int queue(struct sl_req *r, int status, struct MHD_Response *response,
                 const char *type)
{
    int rc;

    if (response == NULL)
        return -1;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, "X-Request-Id", r->id);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (MHD_get_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL) ==
        NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL,
                                "no-store");
    sl_guard_headers(r, response);
    r->status = status;
    r->answered = true;
    rc =
        MHD_queue_response(r->connection, (unsigned)status, response) == MHD_YES
            ? 0
            : -1;
    MHD_destroy_response(response);
    return rc;
}

int sl_reply_text(struct sl_req *r, int status, const char *type,
                  const char *text, size_t n)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n, (void *)text, MHD_RESPMEM_MUST_COPY);

    r->sent += n;
    return queue(r, status, response, type);
}

int sl_reply_response(struct sl_req *r, int status,
                      struct MHD_Response *response, const char *type, size_t n)
{
    r->sent += n;
    return queue(r, status, response, type);
}

int sl_reply_json(struct sl_req *r, int status, json_t *json)
{
    struct sl_str text = {0};
    struct sl_error err;
    int rc = sl_json_add(&text, json, &err);

    if (rc == 0)
        rc = sl_reply_text(r, status, "application/json", text.s, text.n);
    sl_str_fini(&text);
    return rc;
}

static struct MHD_Response *refusal_response(struct sl_req *r,
                                             const struct sl_refusal *why)
{
    const struct sl_form *form =
        r->route != NULL ? r->route->form : sl_route_form(r->path);
    struct sl_str text = {0};
    struct MHD_Response *response = NULL;
    struct sl_error err;

    if (sl_json_add(&text, form->error(why), &err) == 0) {
        r->sent += text.n;
        response = MHD_create_response_from_buffer(text.n, text.s,
                                                   MHD_RESPMEM_MUST_COPY);
    }
    sl_str_fini(&text);
    return response;
}

int sl_reply_refusal(struct sl_req *r, const struct sl_refusal *why)
{
    struct MHD_Response *response = refusal_response(r, why);
    char number[16];

    pthread_mutex_lock(&r->s->lock);
    r->s->counts.refused++;
    pthread_mutex_unlock(&r->s->lock);
    if (response == NULL)
        return -1;
    if (why->retry_after_s > 0) {
        snprintf(number, sizeof number, "%u", why->retry_after_s);
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, number);
    }
    if (why->status == 401)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
                                "Bearer");
    if (why->status == 405)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, why->field);
    if (r->too_large)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    return queue(r, why->status, response, "application/json");
}

/* What is expected at the most, for the header. lock is held. */
static void expect(struct sl_req *r, char *text, size_t room)
{
    struct sl_job_progress p;

    text[0] = '\0';
    sl_job_progress(r->job, &p);
    if (p.seconds_left >= 0)
        snprintf(text, room, "%.1f", p.seconds_left);
}

static int begin_chunked(struct sl_req *r)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, SL_PIECE_BYTES, read_on, r, NULL);
    char seconds[32];

    if (response == NULL)
        return -1;
    pthread_mutex_lock(&r->s->lock);
    expect(r, seconds, sizeof seconds);
    pthread_mutex_unlock(&r->s->lock);
    r->chunked = true;
    if (seconds[0] != '\0')
        MHD_add_response_header(response, "X-Expected-Seconds", seconds);
    if (r->stream)
        MHD_add_response_header(response, "X-Accel-Buffering", "no");
    return queue(r, 200, response,
                 r->stream ? "text/event-stream; charset=utf-8"
                           : "application/json");
}

/* Of a job that has ended: with its length, if it is a piece alone. */
static int answer_whole(struct sl_req *r)
{
    struct sl_refusal why = {0};
    struct sl_error err;
    int rc = 0;

    pthread_mutex_lock(&r->s->lock);
    if (!sl_job_ended(r->job))
        sl_refuse(&why, 503, NULL, "the server ends");
    else if (sl_job_lost(r->job))
        job_refusal(r->job, &why);
    else
        rc = r->route->form->whole(r, &r->out, &err);
    pthread_mutex_unlock(&r->s->lock);
    if (why.status != 0)
        return sl_reply_refusal(r, &why);
    if (rc != 0 || !r->stream_ended)
        return rc != 0 ? -1 : begin_chunked(r);
    return sl_reply_text(r, 200, "application/json", r->out.s, r->out.n);
}

int sl_http_await(struct sl_req *r)
{
    struct sl_server *s = r->s;
    /* An answer that takes longer is begun before it is there. */
    uint64_t begin_after_ns = 2000000000ull * s->c->progress_s;
    bool wait;

    if (r->stream)
        return begin_chunked(r);
    pthread_mutex_lock(&s->lock);
    if (r->gone) {
        pthread_mutex_unlock(&s->lock);
        return -1;
    }
    wait = !sl_job_ended(r->job) && s->state != SL_SERVE_ENDING;
    if (wait && sl_clock_ns() - r->begun_ns < begin_after_ns) {
        r->tick = false;
        wait = suspend(r);
        pthread_mutex_unlock(&s->lock);
        return wait ? 0 : -1;
    }
    pthread_mutex_unlock(&s->lock);
    return wait ? begin_chunked(r) : answer_whole(r);
}
