#include "config.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/meminfo.h"
#include "src/model_meta.h"
#include "src/runtime_impl.h"
#include "src/sampler.h"

/* Where slabs are cut: from large to small. 64 MiB is milliseconds of work,
 * so hand-offs cost nothing. */
#define CAP_LARGEST (64ull << 20)
#define CAP_LEAST   (256ull << 10)
/* A file this large is not cut as finely: its list of slabs would grow to
 * tens of megabytes. */
#define BIG_FILE      (1ull << 30)
#define CAP_LEAST_BIG (1ull << 20)
/* The ring is memory that no resident has: it takes a small part of what must
 * stream anyway. Where that is not enough for all reads in flight and a slab's
 * work, it may take a part of the memory; no disk needs more than the most. */
#define RING_PART  64u
#define RING_SHARE 8u
#define RING_LEAST (24ull << 20)
#define RING_MOST  (256ull << 20)
/* One slot is computed from, some are being read into; with fewer than these
 * the reader was seen to wait for a slot in every round. */
#define SLOTS_WANTED 8u
/* Set aside for what grows after the plan is made: stacks, code pages not
 * touched yet, buffers of standard input and output. */
#define MARGIN (1536ull << 10)
/* The least budget is named in whole steps, so that a run with that budget
 * fits although a few pages more or less are resident each time. */
#define LEAST_STEP  (256ull << 10)
#define LEAST_SLACK (256ull << 10)

/* --- first step: file and tokenizer -------------------------------------- */

static int open_tokenizer(struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_modelfile *mf = &rt->mf;
    void *model;
    int rc;

    if (mf->tokenizer_bytes == 0)
        return 0;
    model = malloc(mf->tokenizer_bytes);
    if (model == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: no memory");
    rc = sl_modelfile_read(mf, model, mf->tokenizer_off, mf->tokenizer_bytes,
                           err);
    if (rc == 0)
        rc = sl_tokenizer_create(&rt->tokenizer, model, mf->tokenizer_bytes,
                                 &mf->hp, err);
    free(model);
    if (rc != 0)
        sl_error_prefix(err, "%s: ", mf->path);
    return rc;
}

static void pick_kernels(struct sl_runtime *rt)
{
    const struct sl_runtime_config *c = &rt->config;
    enum sl_isa isa = sl_cpu_best_isa();

    if (c->max_isa_set && (enum sl_isa)c->max_isa < isa)
        isa = (enum sl_isa)c->max_isa;
    sl_kernels_init(&rt->kernels, isa);
    rt->int8 = c->activations != SL_ACTIVATIONS_F32 &&
               sl_cpu_takes_int8(&rt->mf, &rt->kernels);
    if (c->activations == SL_ACTIVATIONS_INT8 && !rt->int8)
        sl_log(c->log, SL_LOG_WARN,
               "--activations int8: no matrix of this file takes INT8 inputs "
               "(they need packed weights, and columns in groups of 32); f32 "
               "is used");
}

int sl_runtime_open(struct sl_runtime **out,
                    const struct sl_runtime_config *config,
                    struct sl_error *err)
{
    struct sl_runtime *rt = calloc(1, sizeof *rt);

    if (rt == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "runtime: no memory");
    rt->config = *config;
    atomic_init(&rt->stop, false);
    if (sl_modelfile_open(&rt->mf, config->model, err) != 0)
        goto fail;
    rt->mf_open = true;
    if (config->verify && sl_modelfile_verify(&rt->mf, config->quiet, err) != 0)
        goto fail;
    if (config->trace != NULL &&
        sl_trace_open(&rt->trace, config->trace, err) != 0)
        goto fail;
    if (sl_runtime_start_threads(rt, err) != 0 || open_tokenizer(rt, err) != 0)
        goto fail;
    pick_kernels(rt);
    *out = rt;
    return 0;

fail:
    sl_runtime_close(rt);
    return -1;
}

/* --- second step: memory -------------------------------------------------- */

/* Pages of the whole cache. More than a cache can number are more than any
 * memory holds, and refused for that. */
static uint32_t kv_pages(const struct sl_workload *w)
{
    uint64_t each =
        sl_kv_pages_needed(w->n_sequences, w->max_tokens, w->shared_tokens);

    return each > UINT32_MAX / w->n_texts ? UINT32_MAX
                                          : (uint32_t)each * w->n_texts;
}

static enum sl_kv_kind kv_kind(const struct sl_runtime *rt)
{
    const struct sl_runtime_config *c = &rt->config;

    if (c->kv_set)
        return c->kv;
    return c->activations == SL_ACTIVATIONS_F32 ? SL_KV_F32 : SL_KV_F16;
}

static void count_fixed(struct sl_runtime *rt)
{
    const struct sl_hparams *hp = &rt->mf.hp;
    const struct sl_workload *w = &rt->load;
    struct sl_memory *m = &rt->memory;

    rt->kv_config = (struct sl_kv_config){
        .n_layers = hp->n_layers,
        .n_heads = hp->n_heads,
        .head_dim = hp->hidden / hp->n_heads,
        .n_pages = kv_pages(w),
        /* One more than is alive: a fork exists before its parent ends. */
        .n_sequences = 2 * w->n_sequences * w->n_texts,
        .max_tokens = w->max_tokens,
        .kind = kv_kind(rt),
    };
    *m = (struct sl_memory){
        .program = sl_meminfo_resident(),
        .vectors = sl_vectors_bytes(&rt->mf),
        .kv = sl_kv_bytes(&rt->kv_config),
        .activations =
            sl_exec_bytes(&rt->mf, w->pass_positions, w->pass_logits) +
            sl_cpu_bytes(&rt->mf, w->pass_positions, w->max_tokens, rt->int8,
                         sl_pool_threads(rt->pool)),
        .logits = 2ull * w->pass_logits * hp->vocab * sizeof(float) +
                  sl_sampler_scratch_bytes(hp->vocab),
        .other = MARGIN + (rt->trace ? sl_trace_bytes() : 0),
    };
    if (rt->config.prompt_cache != NULL)
        m->other += sl_prompt_cache_bytes(&rt->kv_config, hp->vocab);
}

static uint64_t fixed_bytes(const struct sl_memory *m)
{
    return m->program + m->vectors + m->kv + m->activations + m->logits +
           m->other;
}

static uint64_t bookkeeping(const struct sl_cut *cut)
{
    return sl_cut_bytes(cut) + sl_stream_overhead_bytes(cut->n_slabs);
}

/* Least budget with slabs cut at `cap`. */
static int least_with_cap(struct sl_runtime *rt, uint64_t cap, uint64_t *least,
                          struct sl_error *err)
{
    struct sl_cut cut;

    if (sl_cut_make(&cut, &rt->mf, cap, err) != 0)
        return -1;
    *least = fixed_bytes(&rt->memory) + bookkeeping(&cut) +
             sl_plan_least_bytes(cut.slabs, cut.n_slabs);
    sl_cut_fini(&cut);
    return 0;
}

static uint64_t least_cap(const struct sl_runtime *rt)
{
    return rt->mf.file_bytes >= BIG_FILE ? CAP_LEAST_BIG : CAP_LEAST;
}

static int find_least(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_memory *m = &rt->memory;
    uint64_t least = UINT64_MAX;

    /* A finer cut needs a smaller ring but a longer list. */
    for (uint64_t cap = CAP_LARGEST; cap >= least_cap(rt); cap /= 2) {
        uint64_t bytes;

        if (least_with_cap(rt, cap, &bytes, err) != 0)
            return -1;
        if (bytes < least)
            least = bytes;
    }
    m->least = sl_round_up(least + LEAST_SLACK, LEAST_STEP);
    return 0;
}

static int refuse(const struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_memory *m = &rt->memory;
    char budget[SL_SIZE_TEXT], least[SL_SIZE_TEXT], kv[SL_SIZE_TEXT],
        act[SL_SIZE_TEXT], prog[SL_SIZE_TEXT], rest[SL_SIZE_TEXT], texts[32];
    bool batch = rt->load.n_texts > 1;

    snprintf(texts, sizeof texts, "%u texts of ", rt->load.n_texts);
    return sl_fail(
        err, SL_ERR_BUDGET,
        "--ram %s is too small: the least that works here is %s (--ram %lluK): "
        "program and tokenizer %s, KV cache for %s%u tokens%s %s, activations "
        "and logits of %u positions %s, norms, ring and the rest %s; a "
        "smaller %s--out-seq-length or fewer beams need less",
        sl_size_format(budget, m->budget), sl_size_format(least, m->least),
        (unsigned long long)(m->least >> 10), sl_size_format(prog, m->program),
        batch ? texts : "", rt->load.max_tokens,
        rt->load.n_sequences > 1 ? " a sequence" : "",
        sl_size_format(kv, m->kv), rt->load.pass_positions,
        sl_size_format(act, m->activations + m->logits),
        sl_size_format(rest, m->least - m->program - m->kv - m->activations -
                                 m->logits),
        batch ? "--batch, a smaller " : "");
}

static int choose_budget(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_memory *m = &rt->memory;
    uint64_t available, margin;

    m->budget = rt->config.ram_bytes;
    if (m->budget == SL_RAM_LEAST) {
        m->budget = m->least;
        return 0;
    }
    if (m->budget != SL_RAM_AUTO)
        return 0;
    available = sl_meminfo_available();
    if (available == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "cannot tell how much memory is free here "
                       "(/proc/meminfo); give a budget with --ram");
    /* Leave the desktop alive: a sixteenth, at least 512 MiB, but never more
     * than half of what there is. */
    margin = available / 16;
    if (margin < 512ull << 20)
        margin = 512ull << 20;
    if (margin > available / 2)
        margin = available / 2;
    m->budget = m->program + available - margin;
    return 0;
}

static uint64_t ring_wanted(const struct sl_cut *cut, uint64_t weights_bytes)
{
    uint64_t least = weights_bytes / RING_SHARE, total = 0, wanted;

    for (size_t i = 0; i < cut->n_slabs; i++)
        total += sl_slab_load_bytes(&cut->slabs[i]);
    if (total <= weights_bytes)
        return 0;
    if (least > RING_LEAST)
        least = RING_LEAST;
    wanted = (total - weights_bytes) / RING_PART;
    if (wanted < least)
        return least;
    return wanted < RING_MOST ? wanted : RING_MOST;
}

/* The plan with slabs cut at `cap`; 1 when it does not fit. */
static int plan_with_cap(struct sl_runtime *rt, uint64_t cap,
                         struct sl_cut *cut, struct sl_plan *plan,
                         struct sl_error *err)
{
    uint64_t fixed = fixed_bytes(&rt->memory);
    struct sl_plan_input in;
    int rc;

    if (sl_cut_make(cut, &rt->mf, cap, err) != 0)
        return -1;
    fixed += bookkeeping(cut);
    in = (struct sl_plan_input){
        .slabs = cut->slabs,
        .n_slabs = cut->n_slabs,
        .weights_bytes =
            rt->memory.budget > fixed ? rt->memory.budget - fixed : 0,
    };
    in.read_ahead_bytes = ring_wanted(cut, in.weights_bytes);
    if (in.weights_bytes < sl_plan_least_bytes(cut->slabs, cut->n_slabs)) {
        sl_cut_fini(cut);
        return 1;
    }
    rc = sl_plan_make(plan, &in, err);
    if (rc != 0)
        sl_cut_fini(cut);
    return rc;
}

/* Whether the finer of two plans is worth twice the slabs: it makes the ring
 * flow, or streams less by more than one part in 200. */
static bool finer_is_better(const struct sl_plan *coarse,
                            const struct sl_plan *fine)
{
    if (coarse->n_slots < SLOTS_WANTED && fine->n_slots > coarse->n_slots)
        return true;
    return fine->streamed_bytes + coarse->streamed_bytes / 200 <
           coarse->streamed_bytes;
}

/* Of all cuts, the coarsest that streams well. */
static int choose_cut(struct sl_runtime *rt, struct sl_error *err)
{
    bool found = false;

    for (uint64_t cap = CAP_LARGEST; cap >= least_cap(rt); cap /= 2) {
        struct sl_cut cut;
        struct sl_plan plan;
        int rc = plan_with_cap(rt, cap, &cut, &plan, err);

        if (rc < 0)
            return -1;
        if (rc > 0)
            continue;
        if (found && !finer_is_better(&rt->plan, &plan)) {
            sl_plan_fini(&plan);
            sl_cut_fini(&cut);
            continue;
        }
        if (found) {
            sl_plan_fini(&rt->plan);
            sl_cut_fini(&rt->cut);
        }
        rt->cut = cut;
        rt->plan = plan;
        found = true;
        if (plan.streamed_bytes == 0)
            break;
    }
    return found ? 0 : refuse(rt, err);
}

int sl_runtime_plan(struct sl_runtime *rt, const struct sl_workload *load,
                    struct sl_error *err)
{
    struct sl_memory *m = &rt->memory;

    if (rt->plan.home != NULL)
        return sl_fail(err, SL_ERR_INTERNAL, "a plan was made already");
    rt->load = *load;
    if (load->n_texts == 0)
        rt->load.n_texts = 1;
    if (load->n_texts <= 1 && load->max_tokens < load->pass_positions)
        rt->load.max_tokens = load->pass_positions;
    count_fixed(rt);
    if (find_least(rt, err) != 0 || choose_budget(rt, err) != 0 ||
        choose_cut(rt, err) != 0)
        return -1;
    m->ring = rt->plan.ring_bytes;
    m->residents = rt->plan.resident_bytes;
    m->other += bookkeeping(&rt->cut);
    m->total = fixed_bytes(m) + m->ring + m->residents;
    return 0;
}

static int start_stream(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_stream_config config = {
        .path = rt->mf.path,
        .slabs = rt->cut.slabs,
        .plan = &rt->plan,
        .io = rt->config.io,
        .direct = true,
        .log = rt->config.log,
        .trace = rt->trace,
        .places = sl_runtime_places(rt),
    };

    return sl_stream_open(&rt->stream, &config, err);
}

static int create_engines(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_cpu_config cpu = {
        .mf = &rt->mf,
        .vectors = &rt->vectors,
        .cut = &rt->cut,
        .plan = &rt->plan,
        .kernels = &rt->kernels,
        .pool = rt->pool,
        .stream = rt->stream,
        .kv = rt->kv,
        .trace = rt->trace,
        .int8_activations = rt->int8,
        .kv_kind = rt->kv_config.kind,
        .pass_positions = rt->load.pass_positions,
        .max_tokens = rt->load.max_tokens,
    };

    return sl_cpu_create(&rt->engines[SL_ENGINE_CPU], &cpu, err);
}

static int open_prompt_cache(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_prompt_file_config config = {
        .path = rt->config.prompt_cache,
        .kv = rt->kv,
        .kv_config = &rt->kv_config,
        .model_bytes = rt->mf.file_bytes,
        .isa = rt->kernels.isa,
        .vocab = rt->mf.hp.vocab,
        .int8_activations = rt->int8,
    };

    if (config.path == NULL)
        return 0;
    if (sl_model_meta_sum(rt->mf.gguf, &config.model_sum, err) != 0)
        return -1;
    return sl_prompt_cache_create(&rt->prompt_cache, sl_exec_lm(rt->exec),
                                  &config, rt->config.log, err);
}

int sl_runtime_start(struct sl_runtime *rt, const struct sl_workload *load,
                     struct sl_error *err)
{
    struct sl_exec_config config;

    if (sl_runtime_plan(rt, load, err) != 0 ||
        sl_kv_create(&rt->kv, &rt->kv_config, err) != 0 ||
        start_stream(rt, err) != 0 ||
        sl_vectors_init(&rt->vectors, &rt->mf, err) != 0 ||
        create_engines(rt, err) != 0)
        return -1;
    config = (struct sl_exec_config){
        .mf = &rt->mf,
        .cut = &rt->cut,
        .plan = &rt->plan,
        .kv = rt->kv,
        .stop = &rt->stop,
        .engines = {[SL_ENGINE_CPU] = rt->engines[SL_ENGINE_CPU]},
        .pass_positions = rt->load.pass_positions,
        .pass_logits = rt->load.pass_logits,
        .max_tokens = rt->load.max_tokens,
    };
    if (sl_exec_create(&rt->exec, &config, err) != 0)
        return -1;
    return open_prompt_cache(rt, err);
}

void sl_runtime_close(struct sl_runtime *rt)
{
    struct sl_error err;

    if (rt == NULL)
        return;
    sl_runtime_end(rt);
    sl_plan_fini(&rt->plan);
    sl_cut_fini(&rt->cut);
    sl_pool_destroy(rt->pool);
    sl_numa_close(rt->numa);
    sl_tokenizer_destroy(rt->tokenizer);
    if (rt->trace != NULL && sl_trace_close(rt->trace, &err) != 0)
        sl_log(rt->config.log, SL_LOG_WARN, "%s", err.msg);
    if (rt->mf_open)
        sl_modelfile_close(&rt->mf);
    free(rt);
}

/* --- queries ---------------------------------------------------------------
 */

const struct sl_modelfile *sl_runtime_modelfile(const struct sl_runtime *rt)
{
    return &rt->mf;
}

struct sl_tokenizer *sl_runtime_tokenizer(struct sl_runtime *rt)
{
    return rt->tokenizer;
}

struct sl_lm *sl_runtime_lm(struct sl_runtime *rt)
{
    return rt->prompt_cache != NULL ? sl_prompt_cache_lm(rt->prompt_cache)
                                    : sl_exec_lm(rt->exec);
}

const struct sl_memory *sl_runtime_memory(const struct sl_runtime *rt)
{
    return &rt->memory;
}

const char *sl_runtime_kv_name(const struct sl_runtime *rt)
{
    return sl_kv_kind_names[kv_kind(rt)];
}

const struct sl_plan *sl_runtime_plan_made(const struct sl_runtime *rt)
{
    return &rt->plan;
}

struct sl_pool *sl_runtime_pool(const struct sl_runtime *rt)
{
    return rt->pool;
}

const char *sl_runtime_isa(const struct sl_runtime *rt)
{
    return rt->kernels.isa;
}

bool sl_runtime_int8(const struct sl_runtime *rt)
{
    return rt->int8;
}

void sl_runtime_interrupt(struct sl_runtime *rt)
{
    atomic_store_explicit(&rt->stop, true, memory_order_relaxed);
}
