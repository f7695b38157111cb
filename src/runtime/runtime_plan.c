#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "offload/decompress.h"
#include "offload/upload.h"
#include "src/base/bytes.h"
#include "src/decode/sampler.h"
#include "src/runtime/runtime_impl.h"

/* Slabs are cut from SL_PLAN_SLAB_BYTES down to this. */
#define CAP_LEAST (256ull << 10)
/* A file this large is not cut as finely: its list of slabs would grow to
 * tens of megabytes. */
#define BIG_FILE      (1ull << 30)
#define CAP_LEAST_BIG (1ull << 20)
/* The ring is memory that no resident has: it takes a small part of what must
 * stream anyway. Where that is not enough for all reads in flight and a slab's
 * work, it may take a part of the memory (SL_PLAN_RING_SHARE). */
#define RING_PART  64u
#define RING_LEAST (24ull << 20)
/* Nor does it outgrow what a core brings of the last cache, as a guess: there
 * what was just read is still near, for whoever writes it and for the cores
 * (bench/RESULTS.md). Few cores bring little, and eight slots are to be slabs
 * of some size. */
#define RING_A_THREAD (4ull << 20)
#define RING_CACHED   (8ull << 20)
/* One slot is computed from, some are being read into; with fewer than these
 * the reader was seen to wait for a slot in every round. */
#define SLOTS_WANTED 8u
/* Set aside for what grows after the plan is made: stacks, code pages not
 * touched yet, buffers of standard input and output. */
#define MARGIN (512ull << 10)
/* The least budget is named in whole steps, and nothing below it is taken, so
 * that whoever asks again hears the same: paths of other lengths, or another
 * day's heap, are a page more or less. */
#define LEAST_STEP (256ull << 10)
/* Drafts that nobody asked for may make a pass read so many parts of it more:
 * less than what could be measured. */
#define DRAFT_LOSS (1.0 / 200)

/* --- second step: memory -------------------------------------------------- */

/* Those of guesses ahead begin as the text does, within a page. */
static uint32_t ahead_pages(const struct sl_workload *w)
{
    if (w->draft_ahead == 0)
        return 0;
    return (uint32_t)sl_div_up(w->draft_ahead, SL_KV_PAGE_LEN) + 1;
}

/* Pages of the whole cache. More than a cache can number are more than any
 * memory holds, and refused for that. Whole pages of the prefix are there
 * once, whatever the texts. */
static uint32_t kv_pages(const struct sl_workload *w, uint32_t prefix)
{
    uint64_t each = sl_kv_pages_needed(w->n_sequences, w->max_tokens + prefix,
                                       w->shared_tokens + prefix) -
                    prefix / SL_KV_PAGE_LEN;
    uint64_t once = sl_div_up(prefix, SL_KV_PAGE_LEN) + ahead_pages(w);

    if (w->kv_pages > 0)
        return w->kv_pages > UINT32_MAX - once ? UINT32_MAX
                                               : w->kv_pages + (uint32_t)once;
    return each > (UINT32_MAX - once) / w->n_texts
               ? UINT32_MAX
               : (uint32_t)(each * w->n_texts + once);
}

enum sl_kv_kind sl_runtime_kv_kind(const struct sl_runtime *rt)
{
    const struct sl_runtime_config *c = &rt->config;

    if (c->kv_set)
        return c->kv;
    return c->activations == SL_ACTIVATIONS_F32 ? SL_KV_F32 : SL_KV_F16;
}

/* Of the executor that makes guesses ahead, a position at a time. */
static uint64_t ahead_bytes(const struct sl_runtime *rt)
{
    if (rt->load.draft_ahead == 0)
        return 0;
    return sl_exec_bytes(&rt->mf, 1, 1, rt->device == NULL) +
           sl_cpu_bytes(&rt->mf, 1, rt->kv_config.max_tokens, 0, &rt->kernels,
                        rt->act, sl_pool_threads(rt->pool));
}

/* All that is taken whatever the plan is, each part counted by the function
 * that will carve it, so that count and use cannot differ. */
static void count_fixed(struct sl_runtime *rt)
{
    const struct sl_hparams *hp = &rt->mf.hp;
    const struct sl_workload *w = &rt->load;
    struct sl_memory *m = &rt->memory;
    uint32_t prefix = sl_prefix_positions(rt->prefix);

    rt->kv_config = (struct sl_kv_config){
        .n_layers = hp->n_layers,
        .n_heads = hp->n_kv_heads,
        .head_dim = hp->head_dim,
        .n_pages = kv_pages(w, prefix),
        /* One more than is alive: a fork exists before its parent ends. */
        .n_sequences = 2 * w->n_sequences * w->n_texts + (w->draft_ahead > 0),
        .max_tokens = w->max_tokens + prefix,
        .n_begin = prefix,
        .kind = sl_runtime_kv_kind(rt),
        .one_plane = hp->kv_lora > 0,
    };
    *m = (struct sl_memory){
        .program = rt->program_bytes,
        .small = sl_small_tensors_bytes(&rt->mf),
        .adapters = sl_adapters_bytes(rt->lora, &rt->mf, w->pass_positions),
        .kv = sl_kv_bytes(&rt->kv_config),
        .activations =
            sl_exec_bytes(&rt->mf, w->pass_positions, w->pass_logits,
                          rt->device == NULL) +
            sl_cpu_bytes(&rt->mf, w->pass_positions, rt->kv_config.max_tokens,
                         sl_workload_tree(w), &rt->kernels, rt->act,
                         sl_pool_threads(rt->pool)),
        /* Who chooses may keep as many rows as it asked for, but none of those
         * behind drafts. */
        .logits = ((uint64_t)w->pass_logits + rt->asked.pass_logits) *
                      hp->vocab * sizeof(float) +
                  sl_sampler_scratch_bytes(hp->vocab),
        .drafts = w->draft_bytes + ahead_bytes(rt),
        .other = MARGIN + w->beside_bytes + (rt->trace ? sl_trace_bytes() : 0) +
                 (rt->experts.route ? sl_route_trace_bytes() : 0) +
                 sl_prefix_bytes(rt->prefix) +
                 (rt->lora != NULL ? SL_LORA_READ_BYTES : 0),
    };
    if (rt->config.prompt_cache != NULL)
        m->other += sl_prompt_cache_bytes(&rt->kv_config, hp->vocab, 1);
    if (rt->config.prompts.dir != NULL)
        m->other += sl_prompt_cache_bytes(&rt->kv_config, hp->vocab,
                                          rt->config.prompts.rows);
}

static uint64_t fixed_bytes(const struct sl_memory *m)
{
    return m->program + m->small + m->adapters + m->kv + m->activations +
           m->logits + m->drafts + m->staging + m->other;
}

/* Lists grow with the number of slabs: a finer cut needs less ring, and more of
 * these. */
static uint64_t bookkeeping(const struct sl_runtime *rt,
                            const struct sl_partition *partition)
{
    return sl_partition_bytes(partition) +
           sl_stream_overhead_bytes(partition->n_slabs, rt->mf.mirror) +
           sl_decompress_bytes(partition->slabs, partition->n_slabs,
                               sl_pool_threads(rt->pool)) +
           (rt->device != NULL ? sl_upload_overhead_bytes(partition->n_slabs)
                               : 0);
}

/* Least budget with slabs cut at `cap`. */
static int least_with_cap(struct sl_runtime *rt, uint64_t cap, uint64_t *least,
                          struct sl_error *err)
{
    struct sl_partition partition;

    if (sl_partition_make(&partition, &rt->mf, cap, 0, err) != 0)
        return -1;
    *least = fixed_bytes(&rt->memory) + bookkeeping(rt, &partition) +
             sl_experts_least_bytes(&rt->experts) +
             (rt->config.engine == SL_ENGINE_RULE_GPU
                  ? SL_RING_MIN_SLOTS * sl_partition_largest(&partition)
                  : sl_plan_least_bytes(partition.slabs, partition.n_slabs,
                                        rt->load.draft_keeps));
    sl_partition_fini(&partition);
    return 0;
}

uint64_t sl_runtime_least_cap(const struct sl_runtime *rt)
{
    return rt->mf.file_bytes >= BIG_FILE ? CAP_LEAST_BIG : CAP_LEAST;
}

static int find_least(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_memory *m = &rt->memory;
    uint64_t least = UINT64_MAX;

    /* A finer cut needs a smaller ring but a longer list. */
    for (uint64_t cap = SL_PLAN_SLAB_BYTES; cap >= sl_runtime_least_cap(rt);
         cap /= 2) {
        uint64_t bytes;

        if (least_with_cap(rt, cap, &bytes, err) != 0)
            return -1;
        if (bytes < least)
            least = bytes;
    }
    m->least = sl_round_up(least, LEAST_STEP);
    return 0;
}

/* Whether it would fit with keys and values of half the bytes. It is said and
 * not done: texts may come out otherwise. */
static bool int8_keys_fit(const struct sl_runtime *rt)
{
    const struct sl_memory *m = &rt->memory;
    struct sl_kv_config kv = rt->kv_config;

    kv.kind = SL_KV_INT8;
    return rt->device == NULL &&
           m->least - m->kv + sl_kv_bytes(&kv) <= m->budget;
}

/* The number that works and where it goes are in the message: nobody should
 * have to search for it. */
static int refuse(const struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_memory *m = &rt->memory;
    char budget[SL_SIZE_TEXT], least[SL_SIZE_TEXT], kv[SL_SIZE_TEXT],
        act[SL_SIZE_TEXT], prog[SL_SIZE_TEXT], rest[SL_SIZE_TEXT], texts[32],
        drafts[SL_SIZE_TEXT + 32] = "", size[SL_SIZE_TEXT];
    bool batch = rt->load.n_texts > 1;
    const char *needs_less = rt->config.needs_less;

    if (needs_less == NULL)
        needs_less = batch ? "a smaller --batch, a smaller --out-seq-length or "
                             "fewer beams need less"
                           : "a smaller --out-seq-length or fewer beams need "
                             "less";
    snprintf(texts, sizeof texts, "%u texts of ", rt->load.n_texts);
    if (m->drafts > 0)
        snprintf(drafts, sizeof drafts, "guesses %s (--draft), ",
                 sl_size_format(size, m->drafts));
    return sl_fail(
        err, SL_ERR_BUDGET,
        "--ram %s is too small: the least that works here is %s (--ram %lluK): "
        "program and tokenizer %s, KV cache for %s%u tokens%s %s, activations "
        "and logits of %u positions %s, %snorms, ring and %s %s; %s%s",
        sl_size_format(budget, m->budget), sl_size_format(least, m->least),
        (unsigned long long)(m->least >> 10), sl_size_format(prog, m->program),
        batch ? texts : "", rt->load.max_tokens,
        rt->load.n_sequences > 1 ? " a sequence" : "",
        sl_size_format(kv, m->kv), rt->load.pass_positions,
        sl_size_format(act, m->activations + m->logits), drafts,
        rt->load.draft_keeps ? "the weights that --draft self keeps"
                             : "the rest",
        sl_size_format(rest, m->least - m->program - m->kv - m->activations -
                                 m->logits - m->drafts),
        int8_keys_fit(rt) ? "--kv int8 is enough, or " : "", needs_less);
}

/* Percents are of the file: what people ask is how much of the model may
 * stay. */
static int choose_budget(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_memory *m = &rt->memory;
    uint64_t available = rt->available_bytes, margin;

    m->budget = rt->config.ram_bytes;
    if (m->budget == SL_RAM_LEAST) {
        m->budget = m->least;
        return 0;
    }
    if (m->budget >= SL_RAM_PERCENT(1)) {
        m->budget = (uint64_t)((double)rt->mf.file_bytes / 100 *
                               (double)(m->budget - SL_RAM_PERCENT(0)));
        return 0;
    }
    if (m->budget != SL_RAM_AUTO)
        return 0;
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
    /* The program may be in memory already without being this group's. */
    if (m->budget > rt->granted_bytes)
        m->budget = rt->granted_bytes;
    return 0;
}

static uint64_t ring_wanted(const struct sl_runtime *rt,
                            const struct sl_partition *partition,
                            uint64_t weights_bytes)
{
    uint64_t total = sl_slabs_load_bytes(partition->slabs, partition->n_slabs);
    uint64_t least = weights_bytes / SL_PLAN_RING_SHARE, wanted;
    uint64_t cached = sl_pool_threads(rt->pool) * RING_A_THREAD;

    if (total <= weights_bytes)
        return 0;
    if (least > RING_LEAST)
        least = RING_LEAST;
    wanted = (total - weights_bytes) / RING_PART;
    wanted = wanted < least ? least : wanted;
    cached = cached < RING_CACHED ? RING_CACHED : cached;
    /* Copies to a device take slabs of any size. */
    if (rt->device == NULL && wanted > cached)
        return cached;
    return wanted < SL_PLAN_READ_AHEAD ? wanted : SL_PLAN_READ_AHEAD;
}

/* What a plan is to be judged by: seconds of a decode with a GPU, bytes read
 * in every pass without. A slab in VRAM costs a launch beside its bytes, and a
 * grid that begins and ends with idle processors; others take longer to
 * arrive. */
static double cost_of(const struct sl_plan *plan,
                      const struct sl_plan_input *in)
{
    uint32_t n = 0;

    if (in->n_stages == 0)
        return (double)plan->streamed_bytes;
    for (size_t i = 0; i < plan->n_slabs; i++)
        n += plan->tier[i] == SL_TIER_VRAM;
    return n * in->rates.worker[SL_DEVICE].stage_s / SL_STAGE_LAUNCHES +
           sl_plan_seconds(plan, in, SL_PHASE_DECODE,
                           in->pass[SL_PHASE_DECODE]);
}

/* A cut, its plan, and what this costs. */
struct attempt {
    struct sl_partition partition;
    struct sl_plan plan;
    double cost;
};

static void attempt_fini(struct attempt *a)
{
    sl_plan_fini(&a->plan);
    sl_partition_fini(&a->partition);
}

/* With slabs cut at `cap`; 1 when it does not fit. */
static int attempt_make(struct attempt *a, struct sl_runtime *rt, uint64_t cap,
                        struct sl_error *err)
{
    const struct sl_memory *m = &rt->memory;
    uint64_t fixed = fixed_bytes(m), weights, experts;
    struct sl_plan_stage *stages = NULL;
    struct sl_plan_input in;
    int rc;

    if (sl_partition_make(&a->partition, &rt->mf, cap, rt->experts.n_shared,
                          err) != 0)
        return -1;
    fixed += bookkeeping(rt, &a->partition);
    /* With a GPU the plan says where the cache lies. */
    if (rt->device != NULL)
        fixed -= m->kv;
    weights = m->budget > fixed ? m->budget - fixed : 0;
    experts = sl_experts_reserve_bytes(
        &rt->experts, weights,
        sl_plan_least_bytes(a->partition.slabs, a->partition.n_slabs,
                            rt->load.draft_keeps));
    in = (struct sl_plan_input){
        .slabs = a->partition.slabs,
        .n_slabs = a->partition.n_slabs,
        .memory_bytes[SL_HOST] = weights > experts ? weights - experts : 0,
        .keep = rt->load.draft_keeps,
    };
    in.read_ahead_bytes =
        ring_wanted(rt, &a->partition, in.memory_bytes[SL_HOST]);
    rc = sl_runtime_add_gpu(rt, &in, &a->partition, &stages, err);
    if (rc == 0)
        rc = sl_plan_make(&a->plan, &in, err);
    if (rc != 0)
        sl_partition_fini(&a->partition);
    else
        a->cost = cost_of(&a->plan, &in);
    free(stages);
    return rc != 0 && err->code == SL_ERR_BUDGET ? 1 : rc;
}

/* Whether the finer of two plans is worth twice the slabs: it makes the ring
 * flow, or costs less by more than one part in 200. */
static bool finer_is_better(const struct attempt *coarse,
                            const struct attempt *fine)
{
    if (!coarse->plan.uses_device &&
        coarse->plan.at[SL_HOST].n_slots < SLOTS_WANTED &&
        fine->plan.at[SL_HOST].n_slots > coarse->plan.at[SL_HOST].n_slots)
        return true;
    return fine->cost + coarse->cost / 200 < coarse->cost;
}

/* Of all cuts, the coarsest that streams well; 1 when none fits. */
static int best_cut(struct attempt *out, struct sl_runtime *rt,
                    struct sl_error *err)
{
    struct attempt best = {.cost = -1}, a;
    struct sl_error why;

    for (uint64_t cap = SL_PLAN_SLAB_BYTES; cap >= sl_runtime_least_cap(rt);
         cap /= 2) {
        int rc = attempt_make(&a, rt, cap, &why);

        if (rc > 0)
            continue;
        if (rc < 0) {
            attempt_fini(&best);
            *err = why;
            return -1;
        }
        if (best.cost >= 0 && !finer_is_better(&best, &a)) {
            attempt_fini(&a);
            continue;
        }
        attempt_fini(&best);
        best = a;
        if (best.cost == 0)
            break;
    }
    if (best.cost < 0)
        return 1;
    *out = best;
    return 0;
}

static int choose_cut(struct sl_runtime *rt, struct sl_error *err)
{
    struct attempt best;
    int rc = best_cut(&best, rt, err);

    if (rc < 0)
        return -1;
    if (rc > 0)
        return rt->config.engine == SL_ENGINE_RULE_GPU &&
                       rt->memory.budget >= rt->memory.least
                   ? sl_runtime_refuse_vram(rt, err)
                   : refuse(rt, err);
    rt->partition = best.partition;
    rt->plan = best.plan;
    return 0;
}

/* What the plan made of the memories. */
static void count_planned(struct sl_runtime *rt)
{
    struct sl_memory *m = &rt->memory;

    m->ring = rt->plan.at[SL_HOST].ring_bytes;
    m->residents = rt->plan.at[SL_HOST].resident_bytes;
    m->other += bookkeeping(rt, &rt->partition);
    m->kv = sl_kv_bytes(&rt->kv_config);
    if (rt->device != NULL)
        m->kv += rt->vram.kv_waiting;
    m->total = fixed_bytes(m) + m->ring + m->residents;
    m->experts = sl_experts_place(
        &rt->experts, m->budget > m->total ? m->budget - m->total : 0);
    m->total += m->experts;
}

/* What a pass of one token reads. */
static double read_by_a_token(const struct sl_runtime *rt)
{
    return (double)rt->plan.streamed_bytes +
           sl_runtime_expert_demand(rt, (struct sl_plan_pass){1, 1, 0})
               .disk_bytes;
}

/* What was asked for, and n drafts in a pass: a pass of generation has a
 * position for each row of logits. */
static void set_load(struct sl_runtime *rt, uint32_t n)
{
    struct sl_workload *w = &rt->load;

    *w = rt->asked;
    w->draft_positions = n;
    if (rt->lora != NULL) /* whose products have one place */
        w->draft_ahead = 0;
    if (n == 0) {
        w->draft_bytes = w->draft_ahead = 0;
        return;
    }
    w->pass_logits += n;
    if (w->pass_positions < w->pass_logits)
        w->pass_positions = w->pass_logits;
}

/* Lays memory out anew for n drafts in a pass; 1 when that does not fit. */
static int lay_out(struct sl_runtime *rt, uint32_t n, struct sl_error *err)
{
    struct sl_memory *m = &rt->memory, before = *m;
    struct attempt best;
    int rc;

    set_load(rt, n);
    count_fixed(rt);
    m->program = before.program; /* what was measured for the least budget */
    m->least = before.least;
    m->budget = before.budget;
    rc = best_cut(&best, rt, err);
    if (rc != 0)
        return rc;
    sl_plan_fini(&rt->plan);
    sl_partition_fini(&rt->partition);
    rt->partition = best.partition;
    rt->plan = best.plan;
    count_planned(rt);
    return 0;
}

/* Drafts that are optional: as many as take memory that no weights could use,
 * or so little of them that a pass without drafts takes no longer. */
static int take_drafts(struct sl_runtime *rt, struct sl_error *err)
{
    uint32_t taken = 0, most = rt->asked.draft_positions, n = most;
    double allowed = read_by_a_token(rt) * (1 + DRAFT_LOSS);
    int rc;

    if (!rt->asked.draft_optional || rt->device != NULL)
        return 0;
    while (taken < most) {
        rc = lay_out(rt, n, err);
        if (rc < 0)
            return -1;
        if (rc == 0 && read_by_a_token(rt) <= allowed)
            taken = n;
        else
            most = n - 1;
        n = taken + (most - taken + 1) / 2;
    }
    return rt->load.draft_positions == taken ? 0 : lay_out(rt, taken, err);
}

int sl_runtime_plan(struct sl_runtime *rt, const struct sl_workload *load,
                    struct sl_error *err)
{
    if (rt->plan.tier != NULL)
        return sl_fail(err, SL_ERR_INTERNAL, "a plan was made already");
    rt->asked = *load;
    if (load->n_texts == 0)
        rt->asked.n_texts = 1;
    if (load->n_texts <= 1 && load->max_tokens < load->pass_positions)
        rt->asked.max_tokens = load->pass_positions;
    /* one that was refused its budget may be planned again */
    if (rt->device == NULL && sl_runtime_open_device(rt, err) != 0)
        return -1;
    sl_runtime_measure_memory(rt);
    return sl_runtime_replan(rt, err);
}

/* With the device as it is; dropped: it has nothing to do, and is closed. */
static int plan_once(struct sl_runtime *rt, bool *dropped, struct sl_error *err)
{
    bool had = rt->device != NULL;

    *dropped = false;
    set_load(rt, rt->asked.draft_optional ? 0 : rt->asked.draft_positions);
    sl_plan_fini(&rt->plan);
    sl_partition_fini(&rt->partition);
    count_fixed(rt);
    if (sl_runtime_count_vram(rt, err) != 0)
        return -1;
    if (had && rt->device == NULL) /* what lay there is the CPU's now */
        count_fixed(rt);
    if (find_least(rt, err) != 0 || choose_budget(rt, err) != 0)
        return -1;
    if (rt->memory.budget < rt->memory.least)
        return refuse(rt, err);
    if (choose_cut(rt, err) != 0)
        return -1;
    return sl_runtime_count_gpu(rt, dropped, err);
}

/* What is always used saves more of a pass's time for each byte of VRAM than an
 * expert that is chosen: where a plan leaves some for these, the shared ones go
 * there, and it is made anew without them. */
int sl_runtime_replan(struct sl_runtime *rt, struct sl_error *err)
{
    struct sl_experts *e = &rt->experts;
    bool dropped;

    e->n_shared = 0;
    sl_experts_place_on_device(e, 0);
    if (plan_once(rt, &dropped, err) != 0)
        return -1;
    e->n_shared = sl_experts_shared_within(e, sl_runtime_expert_vram(rt));
    if (e->n_shared > 0 && plan_once(rt, &dropped, err) != 0)
        return -1;
    if (dropped)
        return sl_runtime_replan(rt, err);
    count_planned(rt);
    if (take_drafts(rt, err) != 0)
        return -1;
    /* No pass begins its sequences: they begin with the prefix (exec.c). */
    if (rt->prefix != NULL)
        rt->plan.prefill_from = UINT32_MAX;
    return 0;
}
