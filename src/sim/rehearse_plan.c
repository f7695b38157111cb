#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/decode/draft_self.h"
#include "src/exec/exec_cpu.h"
#include "src/exec/exec_experts.h"
#include "src/exec/kv_turns.h"
#include "src/exec/small_tensors.h"
#include "src/sim/rehearse_impl.h"

/* What the program itself takes where it was seen (`plan`, "program"). */
#define PROGRAM_BYTES (48ull << 20)
/* On the device, beside what a pass needs for each position: a matrix's tile
   expanded, and the libraries' own. */
#define DEVICE_BYTES (320ull << 20)
#define MIB          (1ull << 20)
/* Threads whose scratch memory is counted. */
#define THREADS 16u

uint32_t sl_rehearsed_positions(const struct sl_rehearsal_config *c)
{
    uint32_t n = sl_rehearsed_decode(c);

    if (!c->decode_only && c->prompt > n)
        n = c->prompt;
    return c->n_texts * n;
}

uint32_t sl_rehearsed_tokens(const struct sl_rehearsal_config *c)
{
    uint32_t n = c->context > c->prompt ? c->context : c->prompt;
    uint32_t passes = SL_REHEARSED_WARM + sl_rehearsed_passes(c);

    return (n > passes ? n : passes) +
           (c->ahead ? sl_draft_self_span(c->guesses) : 1 + c->guesses);
}

/* As the runtime counts what guesses ahead take. */
static uint64_t ahead_bytes(const struct sl_rehearsal_config *c)
{
    if (!c->ahead)
        return 0;
    return sl_exec_bytes(c->mf, 1, 1, true) +
           sl_cpu_bytes(c->mf, 1, sl_rehearsed_tokens(c), 0, NULL, SL_ACT_INT8,
                        THREADS) +
           c->mf->hp.vocab * sizeof(float);
}

static uint32_t ahead_pages(const struct sl_rehearsal_config *c)
{
    if (!c->ahead)
        return 0;
    return (uint32_t)sl_div_up(sl_draft_self_span(c->guesses), SL_KV_PAGE_LEN) +
           1;
}

static bool has_gpu(const struct sl_rehearsal_config *c)
{
    return c->vram_bytes > 0 &&
           c->machine->rates.worker[SL_DEVICE].link_bps > 0 &&
           c->engine != SL_ENGINE_RULE_CPU;
}

/* Experts of RAM, to a GPU. */
static bool lends(const struct sl_rehearsal_run *r)
{
    return r->experts.n_records > 0 && has_gpu(r->c) &&
           sl_experts_lend_rows(&r->experts, &r->c->machine->rates) > 0;
}

static uint64_t host_bytes(const struct sl_rehearsal_run *r)
{
    const struct sl_rehearsal_config *c = r->c;
    uint32_t n = sl_rehearsed_positions(c);

    return PROGRAM_BYTES + sl_small_tensors_bytes(c->mf) + ahead_bytes(c) +
           (lends(r)
                ? (uint64_t)(SL_LENT * SL_LENT_ROW_BYTES) * n * c->mf->hp.hidden
                : 0) +
           sl_cpu_bytes(c->mf, n, sl_rehearsed_tokens(c), 0, NULL, SL_ACT_INT8,
                        THREADS) +
           sl_exec_bytes(c->mf, n, c->n_texts * sl_rehearsed_decode(c), true) +
           (1ull + sl_rehearsed_decode(c)) * c->n_texts * c->mf->hp.vocab *
               sizeof(float) +
           sl_partition_bytes(&r->partition) +
           sl_stream_overhead_bytes(r->partition.n_slabs, r->mirror);
}

/* Norms and biases, and for each position x in FP32, its norm, q, k, v, what
   attention gives and the MLP's inner values in FP16; the logits. */
static uint64_t device_bytes(const struct sl_rehearsal_run *r)
{
    const struct sl_hparams *hp = &r->c->mf->hp;
    uint64_t position =
        4ull * hp->hidden + 2ull * 5 * hp->hidden + 2ull * 2 * hp->inner;
    uint64_t mixed = 0; /* of experts: rows in FP16, inner values, FP32 */

    for (enum sl_buf b = SL_BUF_LATENT; b <= SL_BUF_VALUES; b++)
        position += 2ull * sl_arch_buf_width(r->c->mf->arch, hp, b);
    if (hp->kv_lora > 0) /* heads are wider than the rest */
        position += 2ull * 3 * sl_dim_size(hp, SL_DIM_ATT);
    if (hp->n_experts > 0)
        mixed = sl_mixture_pairs(hp, sl_rehearsed_positions(r->c)) *
                    (6ull * hp->hidden + 2ull * hp->expert_inner) +
                (lends(r) ? SL_LENT * r->experts.loan_bytes : 0);
    return DEVICE_BYTES + mixed + sl_small_tensors_bytes(r->c->mf) +
           (sl_rehearsed_positions(r->c) + r->c->ahead) * position +
           4ull * hp->vocab *
               (r->c->n_texts * sl_rehearsed_decode(r->c) + r->c->ahead);
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* What the GPU's caches take. */
static uint64_t device_kv_bytes(const struct sl_plan_input *in)
{
    uint64_t kv = 0;

    for (size_t i = 0; i < in->n_stages; i++)
        kv += in->stages[i].kv_bytes[SL_DEVICE];
    return kv;
}

/* At least: all of them, or the buffers that they come to in turns. */
static uint64_t least_device_kv(const struct sl_plan_input *in)
{
    return sl_plan_least_kv(device_kv_bytes(in), in->turn_bytes);
}

/* Not for a model that guesses for itself, as in a run. */
static uint64_t turn_bytes(const struct sl_rehearsal_run *r,
                           uint64_t device_bytes)
{
    const struct sl_rehearsal_config *c = r->c;
    uint64_t least;

    if (c->self || c->mf->hp.kv_lora > 0)
        return 0;
    least = device_bytes +
            SL_RING_MIN_SLOTS * sl_partition_largest(&r->partition) +
            sl_kv_turn_bytes(&r->kv_config, c->n_texts, 0);
    return sl_kv_turn_bytes(
        &r->kv_config, c->n_texts,
        c->vram_bytes > least ? sl_kv_turn_most(c->vram_bytes - least) : 0);
}

/* Too little for the least ring is too little for any use. */
static int check_vram(const struct sl_rehearsal_run *r, uint64_t device_bytes,
                      struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    uint64_t ring = SL_RING_MIN_SLOTS * sl_partition_largest(&r->partition);
    uint64_t kv = c->engine == SL_ENGINE_RULE_GPU ? least_device_kv(&r->in) : 0;
    uint64_t least = sl_round_up(device_bytes + ring + kv, MIB);
    char have[SL_SIZE_TEXT], need[SL_SIZE_TEXT], slots[SL_SIZE_TEXT];

    if (!has_gpu(c) || c->vram_bytes >= device_bytes + ring + kv)
        return 0;
    return sl_fail(err, SL_ERR_BUDGET,
                   "--vram %s is too small for %s: the least that works is %s "
                   "(--vram %lluM), of it %s for the ring; or use --device cpu",
                   sl_size_format(have, c->vram_bytes), c->machine->name,
                   sl_size_format(need, least),
                   (unsigned long long)(least / MIB),
                   sl_size_format(slots, ring));
}

/* Without weights that stay: either the GPU decodes everything, with its rings
 * and no cache in RAM, or the CPU does. */
static uint64_t least_weights(const struct sl_rehearsal_run *r)
{
    const struct sl_plan_input *in = &r->in;
    uint64_t ring = SL_RING_MIN_SLOTS * sl_partition_largest(&r->partition),
             kv = 0;
    uint64_t least = sl_plan_least_bytes(in->slabs, in->n_slabs, in->keep);

    for (size_t i = 0; i < in->n_stages; i++)
        kv += in->stages[i].kv_bytes[SL_HOST];
    least += kv + sl_experts_least_bytes(&r->experts);
    if (!has_gpu(r->c) ||
        least_device_kv(in) + ring > in->memory_bytes[SL_DEVICE])
        return least;
    return r->c->engine == SL_ENGINE_RULE_GPU || ring < least ? ring : least;
}

static int check_ram(const struct sl_rehearsal_run *r, uint64_t host_bytes,
                     struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    uint64_t weights = least_weights(r);
    uint64_t least = sl_round_up(host_bytes + weights, MIB);
    char have[SL_SIZE_TEXT], need[SL_SIZE_TEXT], rest[SL_SIZE_TEXT],
        ring[SL_SIZE_TEXT];

    /* With a GPU what is to stay may do so there: the plan says. */
    if (c->ram_bytes >= host_bytes + weights || (c->self && has_gpu(c)))
        return 0;
    return sl_fail(err, SL_ERR_BUDGET,
                   "--ram %s is too small for %s: the least that works is %s "
                   "(--ram %lluM): ring and KV cache %s, program, activations "
                   "and logits of %u positions %s",
                   sl_size_format(have, c->ram_bytes), c->machine->name,
                   sl_size_format(need, least),
                   (unsigned long long)(least / MIB),
                   sl_size_format(ring, weights), sl_rehearsed_positions(c),
                   sl_size_format(rest, host_bytes));
}

/* What weights, ring and caches may take of RAM: experts have places in what is
 * left of it. */
static uint64_t weights_bytes(const struct sl_rehearsal_run *r,
                              uint64_t host_bytes)
{
    uint64_t bytes = minus(r->c->ram_bytes, host_bytes);
    uint64_t least = sl_plan_least_bytes(r->partition.slabs,
                                         r->partition.n_slabs, r->c->self);

    return minus(bytes, sl_experts_reserve_bytes(&r->experts, bytes, least));
}

/* The inputs of a real plan, with what the machine's model says in place of
 * what is measured. */
static struct sl_plan_input plan_input(const struct sl_rehearsal_run *r,
                                       const struct sl_rehearsal *out,
                                       size_t n_stages)
{
    const struct sl_rehearsal_config *c = r->c;

    return (struct sl_plan_input){
        .slabs = r->partition.slabs,
        .n_slabs = r->partition.n_slabs,
        .memory_bytes[SL_HOST] = weights_bytes(r, out->host_bytes),
        .read_ahead_bytes = SL_PLAN_READ_AHEAD,
        .memory_bytes[SL_DEVICE] =
            has_gpu(c)
                ? minus(c->vram_bytes, out->device_bytes +
                                           sl_experts_shared_bytes(&r->experts))
                : 0,
        .stages = r->stages,
        .n_stages = n_stages,
        .pass = {{c->n_texts, c->n_texts, c->context},
                 {c->n_texts * c->prompt, c->n_texts, c->prompt}},
        .x_bytes = 4ull * c->mf->hp.hidden,
        .turn_bytes = turn_bytes(r, out->device_bytes),
        .rates = c->machine->rates,
        .engine = c->engine,
        .keep = c->self,
    };
}

void sl_rehearsed_experts(struct sl_floor *floor,
                          const struct sl_rehearsal_run *r, enum sl_phase phase)
{
    struct sl_plan_pass pass = r->in.pass[phase];

    /* Guesses are positions, but nothing that is read. */
    if (phase == SL_PHASE_DECODE)
        pass.positions = pass.logits =
            pass.positions * sl_rehearsed_decode(r->c);
    sl_experts_add_floor(floor, &r->experts, &r->in.rates, pass);
}

/* What is left of VRAM for experts. */
static uint64_t expert_vram(const struct sl_rehearsal_run *r,
                            const struct sl_rehearsal *out)
{
    const struct sl_plan_memory *device = &r->plan->at[SL_DEVICE];

    if (!r->plan->uses_device)
        return 0;
    return minus(r->c->vram_bytes, out->device_bytes + device->ring_bytes +
                                       device->resident_bytes +
                                       out->kv_bytes[SL_DEVICE]);
}

/* Experts have what is left of VRAM and RAM. */
static int place_experts(struct sl_rehearsal_run *r, struct sl_rehearsal *out,
                         struct sl_error *err)
{
    const struct sl_plan_memory *host = &r->plan->at[SL_HOST];
    const struct sl_rehearsal_config *c = r->c;
    uint64_t taken = out->host_bytes + host->ring_bytes + host->resident_bytes +
                     out->kv_bytes[SL_HOST];

    if (r->experts.n_records == 0)
        return 0;
    if (r->plan->uses_device)
        r->vram_experts =
            sl_experts_place_on_device(&r->experts, expert_vram(r, out));
    out->n_device_shared = r->experts.n_shared;
    out->device_shared_bytes = sl_experts_shared_bytes(&r->experts);
    out->device_expert_bytes = r->vram_experts - out->device_shared_bytes;
    if (r->plan->uses_device)
        r->experts.lend_rows =
            sl_experts_lend_rows(&r->experts, &c->machine->rates);
    out->n_device_experts = r->experts.n_device;
    out->expert_bytes =
        sl_experts_place(&r->experts, minus(r->c->ram_bytes, taken));
    out->n_experts = r->experts.n_records;
    out->n_expert_places = r->experts.n_places;
    if (r->experts.n_places == 0)
        return sl_fail(err, SL_ERR_BUDGET,
                       "%s: the plan leaves no place for an expert in RAM",
                       r->c->machine->name);
    for (int p = 0; p < SL_PHASE_COUNT; p++) {
        struct sl_floor floor = {.seconds = 0};

        sl_rehearsed_experts(&floor, r, (enum sl_phase)p);
        r->experts_s[p] =
            floor.seconds +
            sl_experts_wait_seconds(&r->experts, &r->in.rates, r->in.pass[p]) -
            sl_experts_shared_seconds(&r->experts, &r->in.rates, r->in.pass[p]);
    }
    return 0;
}

/* A plan with what is shared of so many layers in VRAM. */
static int plan_once(struct sl_rehearsal_run *r, struct sl_rehearsal *out,
                     struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    size_t n_stages;

    sl_plan_fini(r->plan);
    sl_partition_fini(&r->partition);
    free(r->stages);
    r->stages = NULL;
    if (sl_partition_make(&r->partition, c->mf, SL_PLAN_SLAB_BYTES,
                          r->experts.n_shared, err) != 0 ||
        sl_stages_make(&r->stages, &n_stages, c->mf, &r->partition,
                       &r->kv_config, err) != 0)
        return -1;
    out->host_bytes = host_bytes(r);
    out->device_bytes = c->vram_bytes > 0 ? device_bytes(r) : 0;
    r->in = plan_input(r, out, n_stages);
    if (check_vram(r, out->device_bytes, err) != 0 ||
        check_ram(r, out->host_bytes, err) != 0 ||
        sl_plan_make(r->plan, &r->in, err) != 0)
        return -1;
    memset(out->kv_bytes, 0, sizeof out->kv_bytes);
    out->n_waiting = 0;
    for (size_t i = 0; i < n_stages; i++) {
        const struct sl_plan_stage *s = &r->stages[i];
        uint32_t e = r->plan->worker[SL_PHASE_DECODE][s->first_slab];
        bool waits = r->plan->waits[s->first_slab];

        out->kv_bytes[waits ? SL_HOST : e] += s->kv_bytes[e];
        out->n_waiting += waits;
    }
    if (out->n_waiting > 0)
        out->kv_bytes[SL_DEVICE] += r->in.turn_bytes;
    return 0;
}

/* Through the same sl_plan_make as a run's, and as often: so what is rehearsed
 * is what would run. */
int sl_rehearse_plan(struct sl_rehearsal_run *r, struct sl_rehearsal *out,
                     struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    const struct sl_hparams *hp = &c->mf->hp;

    r->kv_config = (struct sl_kv_config){
        .n_layers = hp->n_layers,
        .n_heads = hp->n_kv_heads,
        .head_dim = hp->head_dim,
        .n_pages = (c->prefill_only ? 2 : 1) * c->n_texts *
                       (uint32_t)sl_div_up(sl_rehearsed_tokens(c) + 1u,
                                           SL_KV_PAGE_LEN) +
                   ahead_pages(c),
        .n_sequences = 2 * c->n_texts + c->ahead,
        .max_tokens = sl_rehearsed_tokens(c) + 1,
        .kind = c->kv,
        .one_plane = hp->kv_lora > 0,
    };
    if (sl_experts_init(&r->experts, c->mf, err) != 0)
        return -1;
    r->experts.curve = c->hit_curve;
    if (plan_once(r, out, err) != 0)
        return -1;
    r->experts.n_shared =
        sl_experts_shared_within(&r->experts, expert_vram(r, out));
    if (r->experts.n_shared > 0 && plan_once(r, out, err) != 0)
        return -1;
    return place_experts(r, out, err);
}
