#include "config.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/bytes.h"
#include "src/base/clock.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/serve/http.h"
#include "src/serve/job.h"
#include "src/serve/room.h"

int sl_job_create(struct sl_job **out, struct sl_server *s, const char *prefix,
                  size_t n, struct sl_refusal *why)
{
    struct sl_job *job = NULL;
    uint64_t bytes = sizeof *job + n * sizeof *job->choices, id;
    int rc;

    if (n > s->c->queue) /* before anything is made of them */
        return sl_refuse(why, 400, NULL,
                         "%zu texts at a time are more than may wait (--queue "
                         "%u)",
                         n, s->c->queue);
    pthread_mutex_lock(&s->lock);
    rc = sl_room_ask(s, bytes, why);
    id = s->next_id++;
    pthread_mutex_unlock(&s->lock);
    if (rc != 0)
        return -1;
    job = calloc(1, sizeof *job);
    if (job == NULL ||
        (job->choices = calloc(n, sizeof *job->choices)) == NULL) {
        free(job);
        pthread_mutex_lock(&s->lock);
        s->asked_bytes -= bytes;
        sl_room_give(s, bytes);
        pthread_mutex_unlock(&s->lock);
        return sl_refuse(why, 503, NULL, "out of memory for %zu texts", n);
    }
    job->s = s;
    job->n = n;
    job->bytes = bytes;
    job->created = time(NULL);
    job->created_ns = sl_clock_ns();
    snprintf(job->id, sizeof job->id, "%s-%llx%04llx", prefix,
             (unsigned long long)s->created, (unsigned long long)id);
    for (size_t i = 0; i < n; i++) {
        job->choices[i].job = job;
        job->choices[i].index = (unsigned)i;
        sl_gen_init(&job->choices[i].gen);
    }
    *out = job;
    return 0;
}

/* lock is held. */
static void destroy_job(struct sl_job *job)
{
    struct sl_server *s = job->s;
    bool large = job->bytes >= SL_ROOM_LARGE;

    if (!job->begun)
        s->asked_bytes -= job->bytes;
    sl_room_give(s, job->bytes);
    for (size_t i = 0; i < job->n; i++)
        sl_choice_fini(&job->choices[i]);
    free(job->choices);
    json_decref(job->request);
    free(job);
    if (large)
        malloc_trim(0);
}

void sl_job_discard(struct sl_job *job)
{
    struct sl_server *s = job->s;

    pthread_mutex_lock(&s->lock);
    destroy_job(job);
    pthread_mutex_unlock(&s->lock);
}

bool sl_job_ended(const struct sl_job *job)
{
    return job->n_ended == job->n;
}

const struct sl_error *sl_job_error(const struct sl_job *job)
{
    for (size_t i = 0; i < job->n; i++) {
        if (job->choices[i].ended && job->choices[i].how == SL_GEN_FAILED)
            return &job->choices[i].err;
    }
    return NULL;
}

bool sl_job_lost(const struct sl_job *job)
{
    return sl_job_error(job) != NULL || job->cancelled;
}

/* --- the list of all --------------------------------------------------------
 */

static void unlink_job(struct sl_job *job)
{
    struct sl_server *s = job->s;

    if (job->before != NULL)
        job->before->after = job->after;
    else
        s->jobs = job->after;
    if (job->after != NULL)
        job->after->before = job->before;
    else
        s->last_job = job->before;
    destroy_job(job);
}

static void link_job(struct sl_job *job)
{
    struct sl_server *s = job->s;

    job->before = s->last_job;
    if (s->last_job != NULL)
        s->last_job->after = job;
    else
        s->jobs = job;
    s->last_job = job;
}

/* Of a job that has ended: what it has come to. */
static void settle(struct sl_job *job)
{
    struct sl_server *s = job->s;
    uint64_t bytes = sizeof *job + sl_json_bytes(job->request);

    for (size_t i = 0; i < job->n; i++)
        bytes += sizeof *job->choices + sl_choice_bytes(&job->choices[i]);
    if (!job->begun)
        s->asked_bytes -= job->bytes;
    job->begun = true;
    s->room_bytes += bytes;
    sl_room_give(s, job->bytes);
    job->bytes = bytes;
    job->ended_ns = sl_clock_ns();
}

/* An answer that nobody can ask for again. */
static bool is_useless(const struct sl_job *job)
{
    bool found = job->background || job->hash[0] != 0 || job->hash[1] != 0;

    if (job->cancelled || sl_job_error(job) != NULL)
        return !job->background;
    return !found || (!job->background && job->delivered && !job->repeatable);
}

void sl_jobs_tidy(struct sl_server *s, uint64_t now_ns)
{
    uint64_t keep_ns = (uint64_t)s->c->keep_s * 1000000000u;
    uint64_t linger_ns = (uint64_t)s->c->linger_s * 1000000000u;
    struct sl_job *after;

    for (struct sl_job *job = s->jobs; job != NULL; job = after) {
        after = job->after;
        if (job->n_listeners > 0)
            continue;
        if (!sl_job_ended(job)) {
            if (!job->background && !job->cancelled &&
                now_ns - job->lonely_ns >= linger_ns)
                sl_job_cancel(job);
            continue;
        }
        if (is_useless(job) || now_ns - job->ended_ns > keep_ns ||
            s->c->keep_bytes == 0)
            unlink_job(job);
    }
}

static bool is_kept(const struct sl_job *job)
{
    return sl_job_ended(job) && job->n_listeners == 0;
}

uint64_t sl_jobs_kept_bytes(const struct sl_server *s)
{
    uint64_t n = 0;

    for (const struct sl_job *job = s->jobs; job != NULL; job = job->after)
        n += is_kept(job) ? job->bytes : 0;
    return n;
}

void sl_jobs_drop_oldest(struct sl_server *s)
{
    struct sl_job *job = s->jobs;

    while (job != NULL && !is_kept(job))
        job = job->after;
    if (job != NULL)
        unlink_job(job);
}

void sl_jobs_drop_all(struct sl_server *s)
{
    while (s->jobs != NULL)
        unlink_job(s->jobs);
}

struct sl_job *sl_job_find(struct sl_server *s, const uint64_t hash[2])
{
    for (struct sl_job *job = s->last_job; job != NULL; job = job->before) {
        if (job->hash[0] == hash[0] && job->hash[1] == hash[1] &&
            (hash[0] != 0 || hash[1] != 0) && !job->cancelled &&
            !job->background && sl_job_error(job) == NULL &&
            (job->repeatable || !job->delivered))
            return job;
    }
    return NULL;
}

struct sl_job *sl_job_named(struct sl_server *s, const char *id)
{
    for (struct sl_job *job = s->last_job; job != NULL; job = job->before) {
        if (strcmp(job->id, id) == 0)
            return job;
    }
    return NULL;
}

/* --- its way ----------------------------------------------------------------
 */

/* Room for a part of a job that has not begun. */
static int hold(struct sl_job *job, uint64_t n, struct sl_refusal *why)
{
    if (sl_room_ask(job->s, n, why) != 0)
        return -1;
    job->bytes += n;
    return 0;
}

int sl_choice_hold(struct sl_choice *c, struct sl_refusal *why)
{
    struct sl_server *s = c->job->s;
    uint64_t n = sl_choice_bytes(c);
    int rc;

    pthread_mutex_lock(&s->lock);
    rc = hold(c->job, n, why);
    pthread_mutex_unlock(&s->lock);
    if (rc == 0)
        c->bytes = n;
    return rc;
}

static uint64_t to_come(const struct sl_job *job)
{
    uint64_t n = 0;

    for (size_t i = 0; i < job->n; i++)
        n += sl_choice_to_come(&job->choices[i]);
    return n;
}

/* The job of the first text that waits. */
static struct sl_job *first_job(const struct sl_server *s)
{
    const struct sl_gen *g = s->first_waiting;

    return g != NULL ? ((struct sl_choice *)g->opaque)->job : NULL;
}

bool sl_jobs_may_begin(const struct sl_server *s)
{
    const struct sl_job *job = first_job(s);

    return job != NULL && (job->begun || sl_room_has(s, to_come(job)));
}

static void begin(struct sl_job *job)
{
    struct sl_server *s = job->s;
    uint64_t n = to_come(job);

    if (job->begun || !sl_room_take(s, n))
        return;
    s->asked_bytes -= job->bytes;
    job->bytes += n;
    job->begun = true;
    for (size_t i = 0; i < job->n; i++)
        job->choices[i].bytes += sl_choice_to_come(&job->choices[i]);
}

struct sl_gen *sl_jobs_next(struct sl_server *s)
{
    struct sl_gen *g = s->first_waiting;

    if (g == NULL)
        return NULL;
    begin(first_job(s));
    s->first_waiting = g->next;
    if (g->next == NULL)
        s->last_waiting = NULL;
    s->n_waiting--;
    return g;
}

static int check_queue(const struct sl_job *job, struct sl_refusal *why)
{
    struct sl_server *s = job->s;
    uint64_t most = sl_room_bytes(s->c) / 2, n = to_come(job);
    char all[SL_SIZE_TEXT], wanted[SL_SIZE_TEXT];

    if (s->state != SL_SERVE_READY)
        return sl_refuse(why, 503, NULL, "the server is not ready");
    if (n > most)
        return sl_refuse(why, 400, NULL,
                         "the answers could take %s of memory, and there are "
                         "%s for those of a request (half of --keep-answers): "
                         "ask for fewer, for shorter ones, or for fewer "
                         "logprobs",
                         sl_size_format(wanted, n), sl_size_format(all, most));
    if (s->n_waiting + job->n <= s->c->queue)
        return 0;
    sl_refuse(why, 429, NULL,
              "%u texts wait already and %zu more are too many (--queue %u); "
              "try again in about %.0f seconds",
              s->n_waiting, job->n, s->c->queue, sl_jobs_wait_s(s));
    why->retry_after_s = sl_jobs_retry_s(s);
    return -1;
}

int sl_job_submit(struct sl_job *job, struct sl_refusal *why)
{
    struct sl_server *s = job->s;

    if (check_queue(job, why) != 0 ||
        hold(job, sl_json_bytes(job->request), why) != 0)
        return -1;
    for (size_t i = 0; i < job->n; i++) {
        struct sl_gen *g = &job->choices[i].gen;

        job->n_prompt +=
            (unsigned)(g->fill ? g->prompt.ids.n : g->ids.n - g->n_context);
        g->next = NULL;
        if (s->last_waiting != NULL)
            s->last_waiting->next = g;
        else
            s->first_waiting = g;
        s->last_waiting = g;
        s->n_waiting++;
    }
    job->submitted = true;
    job->lonely_ns = sl_clock_ns();
    link_job(job);
    pthread_cond_broadcast(&s->work);
    return 0;
}

void sl_job_listen(struct sl_job *job)
{
    job->n_listeners++;
}

void sl_job_leave(struct sl_job *job)
{
    struct sl_server *s = job->s;

    if (--job->n_listeners > 0)
        return;
    job->lonely_ns = sl_clock_ns();
    sl_jobs_tidy(s, job->lonely_ns);
}

/* Takes a text that waits out of the queue. */
static bool take_back(struct sl_server *s, struct sl_gen *g)
{
    struct sl_gen *before = NULL, *at = s->first_waiting;

    while (at != NULL && at != g) {
        before = at;
        at = at->next;
    }
    if (at == NULL)
        return false;
    if (before != NULL)
        before->next = g->next;
    else
        s->first_waiting = g->next;
    if (s->last_waiting == g)
        s->last_waiting = before;
    s->n_waiting--;
    return true;
}

void sl_job_cancel(struct sl_job *job)
{
    struct sl_server *s = job->s;

    if (job->cancelled || sl_job_ended(job))
        return;
    job->cancelled = true;
    s->counts.jobs_cancelled++;
    for (size_t i = 0; i < job->n; i++) {
        struct sl_choice *c = &job->choices[i];

        atomic_store_explicit(&c->gen.cancelled, true, memory_order_relaxed);
        if (!c->ended && take_back(s, &c->gen)) {
            pthread_mutex_lock(&s->text_lock);
            sl_choice_forget_text(c);
            pthread_mutex_unlock(&s->text_lock);
            c->ended = true;
            c->how = SL_GEN_CANCELLED;
            job->n_ended++;
        }
    }
    if (sl_job_ended(job))
        settle(job);
    if (s->batcher != NULL && sl_batcher_idle(s->batcher) && s->rt != NULL)
        sl_runtime_interrupt(s->rt);
    sl_job_wake(job);
}

void sl_job_wake(struct sl_job *job)
{
    sl_http_wake(job->s, job);
}

void sl_job_choice_ended(struct sl_job *job)
{
    struct sl_server *s = job->s;

    job->n_ended++;
    if (sl_job_ended(job)) {
        settle(job);
        s->counts.jobs_done += !job->cancelled;
        s->counts.failed += sl_job_error(job) != NULL;
    }
    sl_job_wake(job);
}

/* --- how far it is ----------------------------------------------------------
 */

/* Ids of its prompt. */
static unsigned prompt_ids(const struct sl_gen *g)
{
    unsigned n = atomic_load(&g->n_prompt);

    return n > 0 ? n : (unsigned)(g->fill ? g->prompt.ids.n : g->ids.n);
}

/* Passes that a text still takes at most. */
static double passes_left(const struct sl_server *s, const struct sl_gen *g)
{
    unsigned prompt = prompt_ids(g), read = atomic_load(&g->n_read);
    unsigned said = atomic_load(&g->n_said);
    double left = g->max_new > said ? g->max_new - said : 0;

    if (prompt > read)
        left += (double)sl_div_up(prompt - read, s->part_positions);
    return left;
}

/* The same of texts together: how many have not ended, and their passes. */
struct load {
    unsigned n;
    double passes;
};

static void add_load(struct load *load, const struct sl_job *job)
{
    for (size_t i = 0; i < job->n && !job->cancelled; i++) {
        const struct sl_choice *c = &job->choices[i];

        load->n += !c->ended;
        load->passes += c->ended ? 0 : passes_left(job->s, &c->gen);
    }
}

/* Passes until a text of the job begins, or of one that comes now (NULL): those
 * before it, so many at a time, where they leave no place. */
static double passes_before(const struct sl_server *s, const struct sl_job *job)
{
    struct load load = {0};

    for (const struct sl_job *j = s->jobs; j != NULL && j != job; j = j->after)
        add_load(&load, j);
    return load.n < s->parallel ? 0 : load.passes / s->parallel;
}

double sl_jobs_wait_s(struct sl_server *s)
{
    return passes_before(s, NULL) * sl_server_sweep_s(s);
}

unsigned sl_jobs_retry_s(struct sl_server *s)
{
    double wait = sl_jobs_wait_s(s);

    return wait < 1 ? 1 : wait > 86400 ? 86400 : (unsigned)wait;
}

void sl_job_progress(const struct sl_job *job, struct sl_job_progress *p)
{
    struct sl_server *s = job->s;
    double sweep = sl_server_sweep_s(s), most = 0, all = 0, left_of_all = 0;
    double begun = sl_server_pass_done(s);
    bool waits = false;

    *p = (struct sl_job_progress){.seconds_left = -1};
    for (size_t i = 0; i < job->n; i++) {
        const struct sl_gen *g = &job->choices[i].gen;
        double left = job->choices[i].ended ? 0 : passes_left(s, g);

        if (left > 0 && atomic_load(&g->admitted))
            left -= begun;
        p->n_prompt += prompt_ids(g);
        p->n_read += atomic_load(&g->n_read);
        p->n_said += atomic_load(&g->n_said);
        p->n_most += g->max_new;
        all += g->max_new + (double)sl_div_up(prompt_ids(g), s->part_positions);
        left_of_all += left;
        most = left > most ? left : most;
        waits |= !atomic_load(&g->admitted) && !job->choices[i].ended;
    }
    p->done = all > 0 && !sl_job_ended(job) ? 1 - left_of_all / all : 1;
    for (const struct sl_gen *g = s->first_waiting;
         waits && g != NULL &&
         ((const struct sl_choice *)g->opaque)->job != job;
         g = g->next)
        p->queue++; /* before the first of its own */
    /* Its own texts share the places, too. */
    if (most < left_of_all / s->parallel)
        most = left_of_all / s->parallel;
    if (sweep > 0)
        p->seconds_left = (most + (waits ? passes_before(s, job) : 0)) * sweep;
}

json_t *sl_job_progress_json(const struct sl_job *job)
{
    struct sl_job_progress p;
    double sweep = sl_server_sweep_s(job->s);
    json_t *o;

    sl_job_progress(job, &p);
    o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:f}", "queue",
                  (json_int_t)p.queue, "prompt_tokens", (json_int_t)p.n_prompt,
                  "read_tokens", (json_int_t)p.n_read, "said_tokens",
                  (json_int_t)p.n_said, "most_tokens", (json_int_t)p.n_most,
                  "done", p.done);
    json_object_set_new(o, "seconds_left",
                        p.seconds_left >= 0 ? json_real(p.seconds_left)
                                            : json_null());
    json_object_set_new(o, "sweep_seconds",
                        sweep > 0 ? json_real(sweep) : json_null());
    return o;
}
