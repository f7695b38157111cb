#include "config.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/model/model_meta.h"
#include "src/probe/machine.h"
#include "src/probe/meminfo.h"
#include "src/runtime/runtime_impl.h"

/* --- first step: file and tokenizer -------------------------------------- */

/* A model without one is no error here: logits of ids need none. */
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
                                 &mf->hp.text, mf->hp.vocab, err);
    free(model);
    if (rc != 0)
        sl_error_prefix(err, "%s: ", mf->path);
    return rc;
}

/* What was asked for by name and cannot be done is said; what 'auto' would have
 * liked is not. */
static void pick_kernels(struct sl_runtime *rt)
{
    static const enum sl_act wanted[] = {
        [SL_ACTIVATIONS_AUTO] = SL_ACT_INT8,
        [SL_ACTIVATIONS_F32] = SL_ACT_F32,
        [SL_ACTIVATIONS_INT8] = SL_ACT_INT8,
        [SL_ACTIVATIONS_BF16] = SL_ACT_BF16,
    };
    const struct sl_runtime_config *c = &rt->config;
    enum sl_isa isa = sl_cpu_best_isa();

    if (c->max_isa_set && (enum sl_isa)c->max_isa < isa)
        isa = (enum sl_isa)c->max_isa;
    sl_kernels_init(&rt->kernels, isa);
    if (c->reading.places > 0)
        rt->kernels.reading = c->reading;
    rt->act = wanted[c->activations];
    if (sl_cpu_takes(&rt->mf, &rt->kernels, rt->act))
        return;
    if (c->activations != SL_ACTIVATIONS_AUTO)
        sl_log(c->log, SL_LOG_WARN,
               "--activations %s: no matrix of this file takes such inputs "
               "(they need columns in groups of 32, and int8 packed weights); "
               "f32 is used",
               sl_act_name(rt->act));
    rt->act = SL_ACT_F32;
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
    if (config->mirror != NULL &&
        sl_modelfile_add_mirror(&rt->mf, config->mirror, config->log, err) != 0)
        goto fail;
    if (config->verify && sl_modelfile_verify(&rt->mf, config->quiet, err) != 0)
        goto fail;
    if (config->trace != NULL &&
        sl_trace_open(&rt->trace, config->trace, err) != 0)
        goto fail;
    if (sl_runtime_open_experts(rt, err) != 0 ||
        sl_runtime_start_threads(rt, err) != 0 || open_tokenizer(rt, err) != 0)
        goto fail;
    if (config->n_lora > 0 &&
        sl_lora_open(&rt->lora, rt->config.lora, config->n_lora, rt->mf.arch,
                     &rt->mf.hp, rt->mf.path, config->log, err) != 0)
        goto fail;
    if (config->prefix != NULL &&
        sl_prefix_open(&rt->prefix, config->prefix, &rt->mf, config->log,
                       err) != 0)
        goto fail;
    pick_kernels(rt);
    *out = rt;
    return 0;

fail:
    sl_runtime_close(rt);
    return -1;
}

/* --- second step: start ------------------------------------------------- */

static int start_stream(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_stream_config config = {
        .path = rt->mf.path,
        .mirror = rt->mf.mirror,
        .slabs = rt->partition.slabs,
        .plan = &rt->plan,
        .io = rt->config.io,
        .direct = true,
        .log = rt->config.log,
        .trace = rt->trace,
        .places = sl_runtime_places(rt),
        .pool = rt->pool,
        .device = rt->device,
        .touch_threads = sl_pool_threads(rt->pool),
    };

    return sl_stream_open(&rt->stream, &config, err);
}

static int start_adapters(struct sl_runtime *rt, struct sl_error *err)
{
    if (rt->lora == NULL)
        return 0;
    return sl_adapters_init(&rt->adapters, rt->lora, &rt->mf,
                            rt->load.pass_positions, err);
}

/* Engines of guesses ahead, which are traced otherwise. */
static int create_ahead(struct sl_runtime *rt, struct sl_cpu_config cpu,
                        struct sl_error *err)
{
    if (rt->load.draft_ahead == 0)
        return 0;
    cpu.pass_positions = 1;
    cpu.tree_positions = 0;
    cpu.trace = NULL;
    if (sl_cpu_create(&rt->ahead[SL_HOST], &cpu, err) != 0)
        return -1;
    return sl_runtime_start_gpu_ahead(rt, err);
}

/* The one place that says which worker is what: the first is the cores, what
 * starts behind it a GPU. */
static int create_engines(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_cpu_config cpu = {
        .mf = &rt->mf,
        .small = &rt->small,
        .adapters = rt->lora != NULL ? &rt->adapters : NULL,
        .partition = &rt->partition,
        .plan = &rt->plan,
        .kernels = &rt->kernels,
        .pool = rt->pool,
        .stream = rt->stream,
        .experts = rt->experts.n_records > 0 ? &rt->experts : NULL,
        .kv = rt->kv,
        .trace = rt->trace,
        .act = rt->act,
        .kv_kind = rt->kv_config.kind,
        .pass_positions = rt->load.pass_positions,
        .max_tokens = rt->kv_config.max_tokens,
        .tree_positions = sl_workload_tree(&rt->load),
        .io = rt->config.io,
    };

    if (sl_cpu_create(&rt->engines[SL_HOST], &cpu, err) != 0 ||
        sl_runtime_start_gpu(rt, err) != 0)
        return -1;
    return create_ahead(rt, cpu, err);
}

/* What the engines compute, stage by stage and however they are cut: a GPU
 * rounds otherwise than a CPU. */
static uint64_t engines_sum(const struct sl_runtime *rt)
{
    uint64_t sum = (uint64_t)rt->experts.n_shared << 32 | rt->plan.prefill_from;
    uint32_t stage = UINT32_MAX;

    if (!rt->plan.uses_device)
        return 0;
    for (size_t slab = 0; slab < rt->plan.n_slabs; slab++) {
        const struct sl_part *p =
            &rt->partition.parts[rt->partition.first_part[slab]];
        uint32_t of = (uint32_t)rt->mf.matrices[p->matrix].spec.stage;

        if (of == stage)
            continue;
        stage = of;
        for (int phase = 0; phase < SL_PHASE_COUNT; phase++)
            sum = XXH3_64bits_withSeed(&rt->plan.worker[phase][slab],
                                       sizeof **rt->plan.worker, sum);
    }
    return XXH3_64bits_withSeed(
        rt->experts.device_place,
        rt->experts.n_records * sizeof *rt->experts.device_place, sum);
}

/* What changes logits but is no part of the model file is in more_sum: a
 * prefix, adapters. */
static int open_prompt_cache(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_prompt_file_config config = {
        .path = rt->config.prompt_cache,
        .kv = rt->kv,
        .kv_config = &rt->kv_config,
        .model_bytes = rt->mf.file_bytes,
        .isa = rt->kernels.isa,
        .vocab = rt->mf.hp.vocab,
        .act = rt->act,
        .engines = engines_sum(rt),
        .more_sum = sl_prefix_sum(rt->prefix) * 31 + rt->adapters.sum,
    };
    bool store = rt->config.prompts.dir != NULL;

    if (config.path == NULL && !store)
        return 0;
    if (sl_model_meta_sum(rt->mf.gguf, &config.model_sum, err) != 0)
        return -1;
    return sl_prompt_cache_create(&rt->prompt_cache, sl_exec_lm(rt->exec),
                                  &config, store ? &rt->config.prompts : NULL,
                                  rt->config.log, err);
}

bool sl_runtime_beyond_machine(const struct sl_runtime *rt, uint64_t *ram_bytes)
{
    uint64_t limit = sl_meminfo_limit();
    struct sl_machine m;

    sl_machine_get(&m);
    *ram_bytes = m.ram_bytes;
    if (limit < m.ram_bytes || m.ram_bytes == 0)
        *ram_bytes = limit != UINT64_MAX ? limit : 0;
    return *ram_bytes > 0 && rt->memory.total > *ram_bytes;
}

/* A budget may be too large where the plan has use for it. */
static int check_machine(const struct sl_runtime *rt, struct sl_error *err)
{
    char planned[SL_SIZE_TEXT], has[SL_SIZE_TEXT];
    uint64_t ram_bytes;

    if (!sl_runtime_beyond_machine(rt, &ram_bytes))
        return 0;
    return sl_fail(
        err, SL_ERR_BUDGET,
        "%s of memory would be taken, but this %s %s; give less with "
        "--ram, or --ram auto for what is free",
        sl_size_format(planned, rt->memory.total),
        sl_meminfo_limit() > ram_bytes ? "machine has"
                                       : "process's control group grants",
        sl_size_format(has, ram_bytes));
}

int sl_runtime_start(struct sl_runtime *rt, const struct sl_workload *load,
                     struct sl_error *err)
{
    struct sl_exec_config config;

    if (sl_runtime_plan(rt, load, err) != 0 || check_machine(rt, err) != 0 ||
        sl_runtime_take_vram(rt, err) != 0 ||
        sl_kv_create(&rt->kv, &rt->kv_config, err) != 0 ||
        start_stream(rt, err) != 0 || sl_runtime_start_experts(rt, err) != 0 ||
        sl_small_tensors_init(&rt->small, &rt->mf, err) != 0 ||
        start_adapters(rt, err) != 0 || create_engines(rt, err) != 0)
        return -1;
    config = (struct sl_exec_config){
        .mf = &rt->mf,
        .partition = &rt->partition,
        .plan = &rt->plan,
        .kv = rt->kv,
        .stop = &rt->stop,
        .rope_factors =
            rt->small.layers[rt->mf.hp.n_layers][SL_SLOT_ROPE_FACTORS],
        .pass_positions = rt->load.pass_positions,
        .pass_logits = rt->load.pass_logits,
        .max_tokens = rt->load.max_tokens,
        .guesses = rt->load.draft_keeps,
        .trace = rt->trace,
    };
    memcpy(config.engines, rt->engines, sizeof config.engines);
    memcpy(config.ahead, rt->ahead, sizeof config.ahead);
    if (sl_exec_create(&rt->exec, &config, err) != 0)
        return -1;
    if (rt->prefix != NULL &&
        sl_prefix_fill(rt->prefix, rt->kv, &rt->kernels, rt->pool, err) != 0)
        return -1;
    if (open_prompt_cache(rt, err) != 0)
        return -1;
    rt->traced = true;
    return 0;
}

void sl_runtime_spoil(struct sl_runtime *rt)
{
    if (rt != NULL)
        rt->traced = false;
}

void sl_runtime_close(struct sl_runtime *rt)
{
    struct sl_error err;

    if (rt == NULL)
        return;
    sl_runtime_end(rt);
    sl_plan_fini(&rt->plan);
    sl_partition_fini(&rt->partition);
    sl_pool_destroy(rt->pool);
    sl_numa_close(rt->numa);
    sl_runtime_close_experts(rt);
    sl_tokenizer_destroy(rt->tokenizer);
    sl_prefix_close(rt->prefix);
    sl_lora_close(rt->lora);
    if (!rt->traced)
        sl_trace_drop(rt->trace);
    else if (sl_trace_close(rt->trace, &err) != 0)
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
    return sl_kv_kind_names[sl_runtime_kv_kind(rt)];
}

uint32_t sl_runtime_draft_positions(const struct sl_runtime *rt)
{
    return rt->load.draft_positions;
}

uint32_t sl_runtime_draft_ahead(const struct sl_runtime *rt)
{
    return rt->load.draft_ahead;
}

uint32_t sl_runtime_prefix(const struct sl_runtime *rt)
{
    return sl_prefix_positions(rt->prefix);
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

struct sl_reading sl_runtime_reading(const struct sl_runtime *rt)
{
    return rt->kernels.reading;
}

const char *sl_runtime_activations(const struct sl_runtime *rt)
{
    return sl_act_name(rt->act);
}

void sl_runtime_interrupt(struct sl_runtime *rt)
{
    atomic_store_explicit(&rt->stop, true, memory_order_relaxed);
}

void sl_runtime_resume(struct sl_runtime *rt)
{
    atomic_store_explicit(&rt->stop, false, memory_order_relaxed);
}
