#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/model/model_meta.h"
#include "src/serve/http.h"
#include "src/serve/job.h"
#include "src/serve/server.h"
#include "src/serve/sizes.h"

/* A model that is gone is tried again after so long. */
enum { AGAIN_S = 5 };
/* What passes count is noted no more often, and before the server waits. */
#define NOTE_EVERY_NS 100000000u

void sl_serve_config_init(struct sl_serve_config *c)
{
    *c = (struct sl_serve_config){
        .host = "127.0.0.1",
        .port = 8000,
        .max_tokens = 256,
        .queue = 256,
        .body_bytes = 4 << 20,
        .header_bytes = 32 << 10,
        .connections = 256,
        .per_address = 128,
        .idle_s = 60,
        .drain_s = 30,
        .progress_s = 5,
        .keep_bytes = 32 << 20,
        .keep_s = 600,
        .run.prompts.most_bytes = 8ull << 30,
    };
}

/* --- the model --------------------------------------------------------------
 */

static void tell_sizes(struct sl_server *s, const struct sl_sizes *z)
{
    atomic_store_explicit(&s->ctx, z->ctx, memory_order_relaxed);
    atomic_store_explicit(&s->parallel, z->parallel, memory_order_relaxed);
    atomic_store_explicit(&s->part_positions, z->part_positions,
                          memory_order_relaxed);
}

static int find_template(struct sl_server *s, const struct sl_modelfile *mf,
                         struct sl_error *err)
{
    struct sl_chat_words words = {s->tokenizer, &s->hp.text.special};
    struct sl_chat_vocab vocab = sl_chat_vocab_of(&words);

    if (s->c->tmpl == NULL) {
        s->tmpl = sl_chat_find(mf->chat, mf->arch->name, mf->name, &vocab);
    } else {
        s->tmpl = sl_chat_template_named(s->c->tmpl);
    }
    if (s->tmpl != NULL)
        return 0;
    return sl_fail(err, SL_ERR_USAGE, "--template: there is no %.40s",
                   s->c->tmpl);
}

/* The publisher's own numbers, else the template's. */
static void settle_sampling(struct sl_server *s)
{
    const struct sl_sampling *by[] = {&s->hp.sampling, &s->tmpl->sampling};
    struct sl_sampling *to = &s->sampling;

    *to = (struct sl_sampling){.temperature = 1, .penalty = 1};
    for (int i = 2; i-- > 0;) {
        if (by[i]->given & SL_SAMPLING_TEMPERATURE)
            to->temperature = by[i]->temperature;
        if (by[i]->given & SL_SAMPLING_TOP_K)
            to->top_k = by[i]->top_k;
        if (by[i]->given & SL_SAMPLING_TOP_P)
            to->top_p = by[i]->top_p;
        if (by[i]->given & SL_SAMPLING_PENALTY)
            to->penalty = by[i]->penalty;
    }
}

/* Opened again: what is known of the model, and what was said of it, holds for
 * this one alone. */
static int check_same(const struct sl_server *s, uint64_t sum,
                      struct sl_error *err)
{
    if (sum == s->model_sum)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: is not %s any more, which it was: start the server "
                   "again to serve what is there now",
                   s->c->run.model, s->model);
}

/* What a model file tells; text_lock is held, or nobody else is there. */
static int describe(struct sl_server *s, struct sl_error *err)
{
    const struct sl_modelfile *mf = sl_runtime_modelfile(s->rt);
    uint64_t sum;

    if (sl_model_meta_sum(mf->gguf, &sum, err) != 0 ||
        (s->arch_name != NULL && check_same(s, sum, err) != 0))
        return -1;
    s->tokenizer = sl_runtime_tokenizer(s->rt);
    if (s->tokenizer == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: holds no tokenizer, so it knows no text; convert "
                       "the checkpoint again with its tokenizer",
                       s->c->run.model);
    if (s->arch_name != NULL)
        return 0;
    s->model_sum = sum;
    s->text_cost = sl_tokenizer_cost(s->tokenizer);
    s->hp = mf->hp;
    s->prompts = mf->arch->prompts;
    s->arch_name = mf->arch->name;
    s->arch_what = mf->arch->what;
    if (s->model[0] == '\0')
        snprintf(s->model, sizeof s->model, "%s",
                 s->c->name != NULL ? s->c->name : mf->name);
    s->prefix.n = 0;
    if (s->hp.causal &&
        sl_ids_append(&s->prefix, sl_tokenizer_prefix(s->tokenizer)->v,
                      sl_tokenizer_prefix(s->tokenizer)->n, err) != 0)
        return -1;
    if (find_template(s, mf, err) != 0)
        return -1;
    settle_sampling(s);
    return 0;
}

static struct sl_gen *next_waiting(void *opaque)
{
    struct sl_server *s = opaque;
    struct sl_gen *g;

    pthread_mutex_lock(&s->lock);
    g = sl_jobs_may_begin(s) ? sl_jobs_next(s) : NULL;
    pthread_mutex_unlock(&s->lock);
    return g;
}

static void set_sizes(struct sl_batcher_config *c, const struct sl_sizes *z)
{
    c->max_active = z->parallel;
    c->max_tokens = z->ctx;
    c->part_positions = z->part_positions;
    c->score_rows = z->score_rows;
}

/* With as many texts, and as long ones, as the budget has room for. */
static int start_runtime(struct sl_server *s, struct sl_batcher_config *c,
                         struct sl_error *err)
{
    bool guesses = s->c->drafts != NULL;
    struct sl_workload load;
    struct sl_sizes asked, z;

    if (sl_sizes_choose(&asked, s->c, &s->hp, err) != 0)
        return -1;
    for (z = asked;;) {
        set_sizes(c, &z);
        c->beside_bytes = sl_sizes_beside(s->c, z.ctx, s->text_cost);
        sl_batcher_workload(&load, c);
        if (guesses && s->c->plan_drafts(s->c->drafts_arg, &load, s->rt, err))
            return -1;
        if (sl_runtime_start(s->rt, &load, err) == 0)
            break;
        /* a plan that was made is larger than the machine */
        if (err->code != SL_ERR_BUDGET ||
            sl_runtime_plan_made(s->rt)->tier != NULL ||
            !sl_sizes_shrink(&z, s->c, &s->hp))
            return -1;
    }
    tell_sizes(s, &z);
    if (z.ctx != asked.ctx || z.parallel != asked.parallel)
        sl_log(s->c->log, SL_LOG_INFO,
               "the budget has room for %u text%s of %u tokens at a time "
               "(--parallel, --ctx)",
               z.parallel, z.parallel == 1 ? "" : "s", z.ctx);
    return guesses ? s->c->start_drafts(s->c->drafts_arg, s->rt, err) : 0;
}

/* Takes the memory, begins to read: minutes, perhaps. */
static int start_model(struct sl_server *s, struct sl_error *err)
{
    struct sl_batcher_config c = {
        .hp = &s->hp,
        .drafts = s->c->drafts,
        .next = next_waiting,
        .opaque = s,
    };
    struct sl_batcher *e;

    if (start_runtime(s, &c, err) != 0)
        return -1;
    c.lm = sl_runtime_lm(s->rt);
    c.stops = sl_tokenizer_stops(s->tokenizer);
    if (sl_batcher_create(&e, &c, err) != 0)
        return -1;
    pthread_mutex_lock(&s->lock);
    s->batcher = e;
    if (s->c->floor != NULL)
        s->floor_s = s->c->floor(s->rt);
    if (s->state != SL_SERVE_ENDING && s->state != SL_SERVE_DRAINING)
        s->state = SL_SERVE_READY;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/* All that waits has failed too: what it holds of the vocabulary goes. */
static void fail_waiting(struct sl_server *s, const struct sl_error *why)
{
    struct sl_gen *g;

    do {
        pthread_mutex_lock(&s->lock);
        g = sl_jobs_next(s);
        pthread_mutex_unlock(&s->lock);
        if (g != NULL)
            g->sink->ended(g->opaque,
                           why != NULL ? SL_GEN_FAILED : SL_GEN_CANCELLED, why);
    } while (g != NULL);
}

static void add_stats(struct sl_batcher_stats *to,
                      const struct sl_batcher_stats *e)
{
    to->passes += e->passes;
    to->positions += e->positions;
    to->prompt_ids += e->prompt_ids;
    to->said_ids += e->said_ids;
    to->kept_ids += e->kept_ids;
    to->drafted += e->drafted;
    to->accepted += e->accepted;
    to->all_sweeps_ns += e->all_sweeps_ns;
}

static void stop_model(struct sl_server *s, const struct sl_error *why)
{
    struct sl_batcher_stats stats;
    struct sl_batcher *e;
    struct sl_runtime *rt;

    pthread_mutex_lock(&s->lock);
    e = s->batcher;
    pthread_mutex_unlock(&s->lock);
    fail_waiting(s, why);
    if (e != NULL) {
        sl_batcher_stats(e, &stats);
        pthread_mutex_lock(&s->lock);
        s->batcher = NULL;
        add_stats(&s->counts.past, &stats);
        pthread_mutex_unlock(&s->lock);
    }
    sl_batcher_destroy(e, why);
    fail_waiting(s, why);
    pthread_mutex_lock(&s->lock);
    rt = s->rt;
    s->rt = NULL;
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_lock(&s->text_lock);
    s->tokenizer = NULL;
    pthread_mutex_unlock(&s->text_lock);
    sl_runtime_close(rt);
}

static int reopen_model(struct sl_server *s, struct sl_error *err)
{
    struct sl_runtime *rt = NULL;
    int rc = sl_runtime_open(&rt, &s->c->run, err);

    if (rc != 0)
        return -1;
    pthread_mutex_lock(&s->lock);
    s->rt = rt;
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_lock(&s->text_lock);
    rc = describe(s, err);
    pthread_mutex_unlock(&s->text_lock);
    return rc != 0 ? -1 : start_model(s, err);
}

/* --- the executor's thread --------------------------------------------------
 */

static bool ends(struct sl_server *s)
{
    bool yes;

    pthread_mutex_lock(&s->lock);
    yes = s->state == SL_SERVE_ENDING;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

/* For /metrics, whose thread may not look at what a pass counts. */
static void note_stats(struct sl_server *s)
{
    struct sl_run_stats run;

    sl_runtime_stats(s->rt, &run);
    pthread_mutex_lock(&s->lock);
    s->run = run;
    pthread_mutex_unlock(&s->lock);
}

/* Passes, while there is something to do. Errors: the model is gone. */
static int run_passes(struct sl_server *s, struct sl_error *err)
{
    for (uint64_t noted_ns = 0;;) {
        uint64_t now_ns = sl_clock_ns();
        int rc;

        pthread_mutex_lock(&s->lock);
        sl_runtime_resume(s->rt);
        if (s->state == SL_SERVE_ENDING) {
            pthread_mutex_unlock(&s->lock);
            return 0;
        }
        pthread_mutex_unlock(&s->lock);
        rc = sl_batcher_step(s->batcher, err);
        if (rc < 0)
            return -1;
        if (rc == 0 || now_ns - noted_ns >= NOTE_EVERY_NS) {
            note_stats(s);
            noted_ns = now_ns;
        }
        pthread_mutex_lock(&s->lock);
        while (rc == 0 && !sl_jobs_may_begin(s) && s->state != SL_SERVE_ENDING)
            pthread_cond_wait(&s->work, &s->lock);
        pthread_mutex_unlock(&s->lock);
    }
}

static void set_broken(struct sl_server *s, const struct sl_error *why)
{
    bool told;

    pthread_mutex_lock(&s->lock);
    told = s->state == SL_SERVE_BROKEN && strcmp(s->why.msg, why->msg) == 0;
    s->why = *why;
    if (s->state == SL_SERVE_READY || s->state == SL_SERVE_LOADING)
        s->state = SL_SERVE_BROKEN;
    pthread_mutex_unlock(&s->lock);
    if (!told)
        sl_log(s->c->log, SL_LOG_WARN, "the model cannot be used: %s",
               why->msg);
}

static void pause_before_again(struct sl_server *s)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += AGAIN_S;
    pthread_mutex_lock(&s->lock);
    while (s->state != SL_SERVE_ENDING &&
           pthread_cond_timedwait(&s->work, &s->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&s->lock);
}

static void *execute(void *arg)
{
    struct sl_server *s = arg;
    struct sl_error err;
    int rc = start_model(s, &err);

    if (rc != 0) {
        pthread_mutex_lock(&s->lock);
        s->loading_failed = true;
        s->why = err;
        pthread_cond_broadcast(&s->work);
        pthread_mutex_unlock(&s->lock);
        return NULL;
    }
    while (!ends(s)) {
        rc = rc == 0 ? run_passes(s, &err) : reopen_model(s, &err);
        if (rc == 0)
            continue;
        set_broken(s, &err);
        stop_model(s, &err);
        pause_before_again(s);
    }
    return NULL;
}

/* --- life -------------------------------------------------------------------
 */

static int open_log(struct sl_server *s, struct sl_error *err)
{
    if (s->c->log_file == NULL)
        return 0;
    s->log =
        strcmp(s->c->log_file, "-") == 0 ? stdout : fopen(s->c->log_file, "ae");
    if (s->log != NULL)
        return 0;
    return sl_fail_os(err, errno, "cannot write %s", s->c->log_file);
}

static int start_thread(pthread_t *thread, bool *has, void *(*run)(void *),
                        struct sl_server *s, struct sl_error *err)
{
    int rc = pthread_create(thread, NULL, run, s);

    *has = rc == 0;
    return rc == 0 ? 0 : sl_fail_os(err, rc, "cannot start a thread");
}

int sl_server_start(struct sl_server *s, const struct sl_serve_config *c,
                    struct sl_error *err)
{
    struct sl_sizes z;

    *s = (struct sl_server){.c = c, .created = time(NULL), .next_id = 1};
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->text_lock, NULL);
    pthread_mutex_init(&s->large_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    if (sl_guard_open(s, err) != 0 || open_log(s, err) != 0 ||
        sl_runtime_open(&s->rt, &c->run, err) != 0 || describe(s, err) != 0 ||
        sl_sizes_choose(&z, c, &s->hp, err) != 0)
        return -1;
    tell_sizes(s, &z);
    if (sl_http_start(s, err) != 0)
        return -1;
    if (s->tmpl->base)
        sl_log(c->log, SL_LOG_INFO,
               "%s was not trained to chat: it goes on with a talk in "
               "ChatGLM's form, 问：... 答：...",
               s->model);
    if (start_thread(&s->watch, &s->has_watch, sl_watch, s, err) != 0)
        return -1;
    return start_thread(&s->executor, &s->has_executor, execute, s, err);
}

void sl_server_address(const struct sl_server *s, char *to, size_t room)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    bool six = strchr(s->c->host, ':') != NULL;

    snprintf(to, room, "%s://%s%s%s:%u",
             s->c->tls_cert != NULL ? "https" : "http", six ? "[" : "",
             s->c->host, six ? "]" : "",
             info != NULL ? info->port : s->c->port);
}

int sl_server_loaded(struct sl_server *s, struct sl_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    while (s->state == SL_SERVE_LOADING && !s->loading_failed)
        pthread_cond_wait(&s->work, &s->lock);
    if (s->loading_failed) {
        *err = s->why;
        rc = -1;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void sl_server_drain(struct sl_server *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->state != SL_SERVE_ENDING)
        s->state = SL_SERVE_DRAINING;
    pthread_mutex_unlock(&s->lock);
}

bool sl_server_is_idle(struct sl_server *s)
{
    bool idle = true;

    pthread_mutex_lock(&s->lock);
    for (const struct sl_job *job = s->jobs; job != NULL; job = job->after)
        idle &= sl_job_ended(job);
    for (const struct sl_req *r = s->reqs; r != NULL; r = r->after)
        idle &= r->job == NULL;
    pthread_mutex_unlock(&s->lock);
    return idle;
}

void sl_server_stop(struct sl_server *s)
{
    if (s->c == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->state = SL_SERVE_ENDING;
    for (struct sl_job *job = s->jobs; job != NULL; job = job->after)
        sl_job_cancel(job);
    if (s->rt != NULL)
        sl_runtime_interrupt(s->rt);
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    if (s->has_executor)
        pthread_join(s->executor, NULL);
    if (s->has_watch)
        pthread_join(s->watch, NULL);
    sl_http_stop(s);
    stop_model(s, NULL);
    pthread_mutex_lock(&s->lock);
    sl_jobs_drop_all(s);
    pthread_mutex_unlock(&s->lock);
    sl_guard_close(s);
    sl_spellings_destroy(s->spellings);
    sl_ids_fini(&s->prefix);
    if (s->log != NULL && s->log != stdout)
        fclose(s->log);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->text_lock);
    pthread_mutex_destroy(&s->large_lock);
    *s = (struct sl_server){0};
}

/* --- what others ask --------------------------------------------------------
 */

int sl_server_ready(struct sl_server *s, struct sl_refusal *why)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    switch (s->state) {
    case SL_SERVE_READY:
        break;
    case SL_SERVE_LOADING:
        rc = sl_refuse(why, 503, NULL, "the model is being loaded");
        why->retry_after_s = 5;
        break;
    case SL_SERVE_BROKEN:
        rc = sl_refuse(why, 503, NULL, "the model cannot be used: %s",
                       s->why.msg);
        why->retry_after_s = AGAIN_S;
        break;
    default:
        rc = sl_refuse(why, 503, NULL, "the server is about to end");
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void sl_server_stats(struct sl_server *s, struct sl_batcher_stats *stats)
{
    *stats = (struct sl_batcher_stats){0};
    if (s->batcher != NULL)
        sl_batcher_stats(s->batcher, stats);
    add_stats(stats, &s->counts.past);
}

double sl_server_sweep_s(struct sl_server *s)
{
    struct sl_batcher_stats e;
    uint64_t ns;

    sl_server_stats(s, &e);
    ns = e.sweep_ns != 0 ? e.sweep_ns : e.prompt_ns;
    return ns != 0 ? (double)ns / 1e9 : s->floor_s;
}

double sl_server_pass_done(const struct sl_server *s)
{
    struct sl_run_place at;

    if (s->batcher == NULL || s->rt == NULL)
        return 0;
    at = sl_runtime_place(s->rt);
    return at.begin_ns != 0 && at.pass_bytes > 0
               ? (double)at.done_bytes / (double)at.pass_bytes
               : 0;
}
