#include "config.h"

#include <string.h>
#include <time.h>

#include "src/serve/api.h"
#include "src/serve/room.h"

int sl_api_preflight(struct sl_req *r, struct sl_refusal *why)
{
    return sl_reply_text(r, 204, "text/plain", "", 0);
}

int sl_api_health(struct sl_req *r, struct sl_refusal *why)
{
    if (sl_server_ready(r->s, why) != 0)
        return -1;
    return sl_reply_json(r, 200, json_pack("{s:s}", "status", "ok"));
}

static json_t *model_json(const struct sl_server *s)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:I}", "id", s->model, "object",
                     "model", "created", (json_int_t)s->created, "owned_by",
                     "sluice", "architecture", s->arch_name, "max_model_len",
                     (json_int_t)s->ctx);
}

int sl_api_models(struct sl_req *r, struct sl_refusal *why)
{
    json_t *o = json_pack("{s:s, s:[o], s:[o]}", "object", "list", "data",
                          model_json(r->s), "models", model_json(r->s));

    return sl_reply_json(r, 200, o);
}

int sl_api_model(struct sl_req *r, struct sl_refusal *why)
{
    if (strcmp(r->argument, r->s->model) != 0)
        return sl_refuse(why, 404, "model", "there is no model '%.80s' but %s",
                         r->argument, r->s->model);
    return sl_reply_json(r, 200, model_json(r->s));
}

int sl_api_embeddings(struct sl_req *r, struct sl_refusal *why)
{
    return sl_refuse(why, 501, NULL,
                     "embeddings are not made: these models were trained to "
                     "go on with texts, and their states are no good ones");
}

int sl_api_props(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:s, s:b, s:b, s:s, s:b, s:b, s:I, s:I, s:I, s:I}",
        "model", s->model, "model_path", s->c->run.model, "architecture",
        s->arch_name, "what", s->arch_what, "causal", s->hp.causal,
        "fills_blanks", !s->hp.causal, "chat_template", s->tmpl->name,
        "trained_to_chat", !s->tmpl->base, "tools",
        s->tmpl->tools != SL_TOOLS_NONE, "n_ctx", (json_int_t)s->ctx,
        "total_slots", (json_int_t)s->parallel, "vocab",
        (json_int_t)s->hp.vocab, "max_tokens", (json_int_t)s->c->max_tokens);
    double sweep, floor;

    pthread_mutex_lock(&s->lock);
    sweep = sl_server_sweep_s(s);
    floor = s->floor_s;
    pthread_mutex_unlock(&s->lock);
    json_object_set_new(o, "sweep_seconds",
                        sweep > 0 ? json_real(sweep) : json_null());
    json_object_set_new(o, "floor_seconds",
                        floor > 0 ? json_real(floor) : json_null());
    json_object_set_new(o, "sampling",
                        json_pack("{s:f, s:f, s:I}", "temperature",
                                  s->sampling.temperature, "top_p",
                                  s->sampling.top_p, "top_k",
                                  (json_int_t)s->sampling.top_k));
    return sl_reply_json(r, 200, o);
}

/* --- metrics ----------------------------------------------------------------
 */

struct metrics {
    struct sl_str text;
    bool failed;
};

static void add(struct metrics *m, const char *name, const char *type,
                const char *help, double value)
{
    char line[512];
    struct sl_error err;

    snprintf(line, sizeof line,
             "# HELP sluice_%s %s\n# TYPE sluice_%s %s\nsluice_%s %.17g\n",
             name, help, name, type, name, value);
    if (sl_str_add(&m->text, line, &err) != 0)
        m->failed = true;
}

static void add_requests(struct metrics *m, const struct sl_server *s)
{
    const struct sl_counts *c = &s->counts;

    add(m, "requests_total", "counter", "Requests that came in",
        (double)c->requests);
    add(m, "requests_refused_total", "counter",
        "Requests that were answered with an error", (double)c->refused);
    add(m, "requests_gone_total", "counter",
        "Requests whose client left before the end", (double)c->gone);
    add(m, "requests_joined_total", "counter",
        "Requests that joined one under way", (double)c->joined);
    add(m, "requests_kept_total", "counter",
        "Requests answered from kept answers", (double)c->from_kept);
    add(m, "jobs_done_total", "counter", "Jobs that ended",
        (double)c->jobs_done);
    add(m, "jobs_cancelled_total", "counter", "Jobs that were cancelled",
        (double)c->jobs_cancelled);
    add(m, "jobs_failed_total", "counter", "Jobs that failed",
        (double)c->failed);
    add(m, "queue_texts", "gauge", "Texts that wait", s->n_waiting);
    add(m, "kept_bytes", "gauge", "Memory of kept answers",
        (double)sl_jobs_kept_bytes(s));
    add(m, "requests_bytes", "gauge",
        "Memory that requests, answers under way and kept answers have",
        (double)s->room_bytes);
    add(m, "requests_bytes_most", "gauge", "Of so much that there is for them",
        (double)sl_room_bytes(s->c));
}

/* Counters go on where a model was closed and opened again (counts.past): one
 * that falls back means a restart to Prometheus. */
static void add_batcher(struct metrics *m, struct sl_server *s)
{
    struct sl_batcher_stats e;

    sl_server_stats(s, &e);
    add(m, "texts_active", "gauge", "Texts in every pass", e.n_active);
    add(m, "passes_total", "counter", "Passes over the weights",
        (double)e.passes);
    add(m, "positions_total", "counter", "Positions computed",
        (double)e.positions);
    add(m, "sweep_seconds", "gauge",
        "Seconds of a pass that reads no prompt, running mean",
        (double)e.sweep_ns / 1e9);
    add(m, "floor_seconds", "gauge",
        "Seconds of such a pass at the machine's limit; 0: not measured",
        s->floor_s);
    add(m, "efficiency", "gauge", "Floor by measured; 0: not known",
        e.sweep_ns > 0 ? s->floor_s / ((double)e.sweep_ns / 1e9) : 0);
    add(m, "pass_seconds_total", "counter", "Seconds spent in passes",
        (double)e.all_sweeps_ns / 1e9);
    add(m, "prompt_tokens_total", "counter", "Tokens of prompts that were read",
        (double)e.prompt_ids);
    add(m, "prompt_tokens_kept_total", "counter",
        "Tokens of prompts that were known already", (double)e.kept_ids);
    add(m, "drafts_total", "counter", "Guesses that passes checked",
        (double)e.drafted);
    add(m, "drafts_right_total", "counter", "Guesses that were right",
        (double)e.accepted);
    add(m, "generated_tokens_total", "counter", "Tokens that were said",
        (double)e.said_ids);
}

/* sluice_tier_bytes{tier="..."} */
static void add_tiers(struct metrics *m, const struct sl_server *s)
{
    const struct sl_plan *p = s->rt != NULL && s->batcher != NULL
                                  ? sl_runtime_plan_made(s->rt)
                                  : NULL;
    const struct sl_memory *mem = p != NULL ? sl_runtime_memory(s->rt) : NULL;
    const struct sl_run_stats *run = &s->run;
    char text[640];
    struct sl_error err;

    if (p == NULL)
        return;
    snprintf(text, sizeof text,
             "# HELP sluice_tier_bytes Weights by where they stay\n"
             "# TYPE sluice_tier_bytes gauge\n"
             "sluice_tier_bytes{tier=\"vram\"} %llu\n"
             "sluice_tier_bytes{tier=\"ram\"} %llu\n"
             "sluice_tier_bytes{tier=\"disk\"} %llu\n",
             (unsigned long long)p->at[SL_DEVICE].resident_bytes,
             (unsigned long long)p->at[SL_HOST].resident_bytes,
             (unsigned long long)p->streamed_bytes);
    if (sl_str_add(&m->text, text, &err) != 0)
        m->failed = true;
    add(m, "disk_bytes_read_total", "counter", "Bytes read from disk",
        (double)sl_runtime_place(s->rt).read_bytes);
    add(m, "disk_wait_seconds_total", "counter", "Seconds waited for the disk",
        (double)run->stream.wait_ns / 1e9);
    add(m, "prompt_tokens_restored_total", "counter",
        "Tokens of prompts that --keep-prompts had",
        (double)run->prompt_cache.restored);
    add(m, "prompts_saved_bytes_total", "counter", "Bytes that it has kept",
        (double)run->prompt_cache.saved_bytes);
    add(m, "memory_bytes", "gauge", "Memory that was planned",
        (double)mem->total);
    add(m, "kv_cache_bytes", "gauge", "Of it keys and values", (double)mem->kv);
    add(m, "kv_pages", "gauge", "Pages of keys and values, of 16 positions",
        run->kv_pages);
    add(m, "kv_pages_used", "gauge", "Those that texts hold",
        run->kv_pages_held);
}

int sl_api_metrics(struct sl_req *r, struct sl_refusal *why)
{
    struct metrics m = {0};
    int rc;

    pthread_mutex_lock(&r->s->lock);
    add(&m, "up", "gauge", "The model can be asked",
        r->s->state == SL_SERVE_READY);
    add_requests(&m, r->s);
    add_batcher(&m, r->s);
    add_tiers(&m, r->s);
    pthread_mutex_unlock(&r->s->lock);
    if (m.failed)
        rc = sl_refuse(why, 503, NULL, "out of memory");
    else
        rc = sl_reply_text(r, 200, "text/plain; version=0.0.4; charset=utf-8",
                           m.text.s, m.text.n);
    sl_str_fini(&m.text);
    return rc;
}
