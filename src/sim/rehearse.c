#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/exec/exec.h"
#include "src/exec/exec_cpu.h"
#include "src/exec/partition.h"
#include "src/exec/small_tensors.h"
#include "src/exec/stages.h"
#include "src/sim/rehearse.h"
#include "src/sim/sim_engine.h"

/* What the program itself takes where it was seen (`plan`, "program"). */
#define PROGRAM_BYTES (48ull << 20)
/* On the device, beside what a pass needs for each position: a matrix's tile
   expanded, and the libraries' own. */
#define DEVICE_BYTES (320ull << 20)
#define MIB          (1ull << 20)
/* Threads whose scratch memory is counted. */
#define THREADS 16u

/* Passes that fill memory and settle the rings, and those that count. */
#define WARM_PASSES 2u
#define PASSES      3u

struct rehearsal {
    const struct sl_rehearsal_config *c;
    struct sl_sim_machine machine;
    struct sl_trace *trace;
    struct sl_partition partition;
    struct sl_plan_stage *stages;
    struct sl_plan_input in;
    struct sl_plan *plan; /* the result's */
    struct sl_kv_config kv_config;
    struct sl_kv *kv;
    struct sl_device *dev;
    struct sl_stream *stream;
    struct sl_upload *upload;
    struct sl_exec_engine *engines[SL_WORKERS];
    struct sl_exec *exec;
    atomic_bool stop;
    int32_t *ids;
    struct sl_lm_item *items; /* (n_texts) */
    double guess_ns;          /* of a guess */
};

/* --- the plan ------------------------------------------------------------- */

/* Positions of a text in a decode; as many rows of logits. */
static uint32_t decoded(const struct sl_rehearsal_config *c)
{
    return 1 + c->guesses;
}

static uint32_t pass_positions(const struct sl_rehearsal_config *c)
{
    uint32_t n = decoded(c);

    if (!c->decode_only && c->prompt > n)
        n = c->prompt;
    return c->n_texts * n;
}

static uint32_t max_tokens(const struct sl_rehearsal_config *c)
{
    uint32_t n = c->context > c->prompt ? c->context : c->prompt;

    return (n > WARM_PASSES + PASSES ? n : WARM_PASSES + PASSES) + 1 +
           c->guesses;
}

static uint64_t host_bytes(const struct rehearsal *r)
{
    const struct sl_rehearsal_config *c = r->c;
    uint32_t n = pass_positions(c);

    return PROGRAM_BYTES + sl_small_tensors_bytes(c->mf) +
           sl_cpu_bytes(c->mf, n, max_tokens(c), 0, NULL, SL_ACT_INT8,
                        THREADS) +
           sl_exec_bytes(c->mf, n, c->n_texts * decoded(c), true) +
           (1ull + decoded(c)) * c->n_texts * c->mf->hp.vocab * sizeof(float) +
           sl_partition_bytes(&r->partition) +
           sl_stream_overhead_bytes(r->partition.n_slabs);
}

/* Norms and biases, and for each position x in FP32, its norm, q, k, v, what
   attention gives and the MLP's inner values in FP16; the logits. */
static uint64_t device_bytes(const struct rehearsal *r)
{
    const struct sl_hparams *hp = &r->c->mf->hp;
    uint64_t position =
        4ull * hp->hidden + 2ull * 5 * hp->hidden + 2ull * 2 * hp->inner;

    return DEVICE_BYTES + sl_small_tensors_bytes(r->c->mf) +
           pass_positions(r->c) * position +
           4ull * r->c->n_texts * decoded(r->c) * hp->vocab;
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

static bool has_gpu(const struct sl_rehearsal_config *c)
{
    return c->vram_bytes > 0 &&
           c->machine->rates.worker[SL_DEVICE].link_bps > 0 &&
           c->engine != SL_ENGINE_RULE_CPU;
}

/* Too little for the least ring is too little for any use. */
static int check_vram(const struct rehearsal *r, uint64_t device_bytes,
                      struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    uint64_t ring = SL_RING_MIN_SLOTS * sl_partition_largest(&r->partition);
    uint64_t kv = c->engine == SL_ENGINE_RULE_GPU ? device_kv_bytes(&r->in) : 0;
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
static uint64_t least_weights(const struct rehearsal *r)
{
    const struct sl_plan_input *in = &r->in;
    uint64_t ring = SL_RING_MIN_SLOTS * sl_partition_largest(&r->partition),
             kv = 0;
    uint64_t least = sl_plan_least_bytes(in->slabs, in->n_slabs, in->keep);

    for (size_t i = 0; i < in->n_stages; i++)
        kv += in->stages[i].kv_bytes[SL_HOST];
    least += kv;
    if (!has_gpu(r->c) ||
        device_kv_bytes(in) + ring > in->memory_bytes[SL_DEVICE])
        return least;
    return r->c->engine == SL_ENGINE_RULE_GPU || ring < least ? ring : least;
}

static int check_ram(const struct rehearsal *r, uint64_t host_bytes,
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
                   sl_size_format(ring, weights), pass_positions(c),
                   sl_size_format(rest, host_bytes));
}

/* The inputs of a real plan, with what the machine's model says in place of
 * what is measured, through the same sl_plan_make: so what is rehearsed is
 * what would run. */
static int make_plan(struct rehearsal *r, struct sl_rehearsal *out,
                     struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    const struct sl_hparams *hp = &c->mf->hp;
    size_t n_stages;

    r->kv_config = (struct sl_kv_config){
        .n_layers = hp->n_layers,
        .n_heads = hp->n_kv_heads,
        .head_dim = hp->head_dim,
        .n_pages = (c->prefill_only ? 2 : 1) * c->n_texts *
                   (uint32_t)sl_div_up(max_tokens(c) + 1u, SL_KV_PAGE_LEN),
        .n_sequences = 2 * c->n_texts,
        .max_tokens = max_tokens(c) + 1,
        .kind = c->kv,
    };
    if (sl_partition_make(&r->partition, c->mf, SL_PLAN_SLAB_BYTES, err) != 0 ||
        sl_stages_make(&r->stages, &n_stages, c->mf, &r->partition,
                       &r->kv_config, err) != 0)
        return -1;
    out->host_bytes = host_bytes(r);
    out->device_bytes = c->vram_bytes > 0 ? device_bytes(r) : 0;
    r->in = (struct sl_plan_input){
        .slabs = r->partition.slabs,
        .n_slabs = r->partition.n_slabs,
        .memory_bytes[SL_HOST] = minus(c->ram_bytes, out->host_bytes),
        .read_ahead_bytes = SL_PLAN_READ_AHEAD,
        .memory_bytes[SL_DEVICE] = minus(c->vram_bytes, out->device_bytes),
        .stages = r->stages,
        .n_stages = n_stages,
        .pass = {{c->n_texts, c->n_texts, c->context},
                 {c->n_texts * c->prompt, c->n_texts, c->prompt}},
        .x_bytes = 4ull * hp->hidden,
        .rates = c->machine->rates,
        .engine = c->engine,
        .keep = c->self,
    };
    if (check_vram(r, out->device_bytes, err) != 0 ||
        check_ram(r, out->host_bytes, err) != 0 ||
        sl_plan_make(r->plan, &r->in, err) != 0)
        return -1;
    for (size_t i = 0; i < n_stages; i++) {
        uint32_t e = r->plan->worker[SL_PHASE_DECODE][r->stages[i].first_slab];

        out->kv_bytes[e] += r->stages[i].kv_bytes[e];
    }
    return 0;
}

/* --- the run -------------------------------------------------------------- */

/* Addresses that the model of a device gives are never touched, but counted:
 * too much of them fails here as it would there. */
static int start_device(struct rehearsal *r, struct sl_error *err)
{
    struct sl_upload_config config = {
        .stream = r->stream,
        .slabs = r->partition.slabs,
        .plan = r->plan,
        .worker = SL_DEVICE,
        .trace = r->trace,
        .clock = r->machine.clock,
        .dev = r->dev,
    };

    if (r->plan->at[SL_DEVICE].ring_bytes > 0 &&
        r->dev->ops->alloc(r->dev, &config.ring,
                           r->plan->at[SL_DEVICE].ring_bytes, err) != 0)
        return -1;
    if (r->plan->at[SL_DEVICE].resident_bytes > 0 &&
        r->dev->ops->alloc(r->dev, &config.residents,
                           r->plan->at[SL_DEVICE].resident_bytes, err) != 0)
        return -1;
    return sl_upload_open(&r->upload, &config, err);
}

/* Stream and upload ring are those of a run; disk, device and clock are
 * models. */
static int start_transport(struct rehearsal *r, struct sl_error *err)
{
    struct sl_stream_config config = {
        .path = r->c->mf->path,
        .slabs = r->partition.slabs,
        .plan = r->plan,
        .direct = true,
        .trace = r->trace,
        .clock = r->machine.clock,
        .io_arg = &r->machine,
        .io_open = sl_io_open_sim,
    };

    if (r->plan->uses_device &&
        sl_device_open_sim(&r->dev, &r->machine, err) != 0)
        return -1;
    config.device = r->dev;
    if (sl_stream_open(&r->stream, &config, err) != 0)
        return -1;
    return r->plan->uses_device ? start_device(r, err) : 0;
}

static int start_engines(struct rehearsal *r, struct sl_error *err)
{
    struct sl_sim_config config = {
        .machine = &r->machine,
        .mf = r->c->mf,
        .partition = &r->partition,
        .stages = r->stages,
        .n_stages = r->in.n_stages,
        .plan = r->plan,
        .stream = r->stream,
        .dev = r->dev,
        .upload = r->upload,
        .trace = r->trace,
    };

    if (sl_sim_cpu_create(&r->engines[SL_HOST], &config, err) != 0)
        return -1;
    return r->plan->uses_device
               ? sl_sim_gpu_create(&r->engines[SL_DEVICE], &config, err)
               : 0;
}

static int start(struct rehearsal *r, struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    struct sl_exec_config config = {
        .mf = c->mf,
        .partition = &r->partition,
        .plan = r->plan,
        .stop = &r->stop,
        .pass_positions = pass_positions(c),
        .pass_logits = c->n_texts * decoded(c),
        .max_tokens = max_tokens(c) + 1,
        .guesses = c->self,
    };

    r->ids = sl_zalloc_array(max_tokens(c), sizeof *r->ids);
    r->items = sl_zalloc_array(c->n_texts, sizeof *r->items);
    if (r->ids == NULL || r->items == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u texts", c->n_texts);
    if (sl_kv_create(&r->kv, &r->kv_config, err) != 0 ||
        start_transport(r, err) != 0 || start_engines(r, err) != 0)
        return -1;
    config.kv = r->kv;
    memcpy(config.engines, r->engines, sizeof config.engines);
    return sl_exec_create(&r->exec, &config, err);
}

static void finish(struct rehearsal *r)
{
    sl_exec_destroy(r->exec);
    for (int e = 0; e < SL_WORKERS; e++) {
        if (r->engines[e] != NULL)
            r->engines[e]->ops->destroy(r->engines[e]);
    }
    sl_upload_close(r->upload);
    sl_stream_close(r->stream);
    sl_device_close(r->dev);
    sl_kv_destroy(r->kv);
    free(r->stages);
    free(r->ids);
    free(r->items);
    sl_partition_fini(&r->partition);
}

/* --- passes --------------------------------------------------------------- */

static double now_s(const struct rehearsal *r)
{
    return (double)sl_clock_now(r->machine.clock) * 1e-9;
}

/* New sequences, of which each holds some positions, or will begin. */
static int begin_texts(struct rehearsal *r, uint32_t held, struct sl_error *err)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);
    uint32_t n = held == 0 ? r->c->prompt : decoded(r->c);

    for (uint32_t i = 0; i < r->c->n_texts; i++) {
        r->items[i] = (struct sl_lm_item){
            .ids = r->ids,
            .positions = r->ids,
            .blocks = r->ids,
            .n = n,
            .n_context = held == 0 ? n : 0, /* all see the whole prompt */
            .n_logits = held == 0 ? 1 : n,
            .apart = held > 0 && n > 1,
            .reads = held == 0,
        };
        if (lm->ops->seq_create(lm, &r->items[i].seq, err) != 0 ||
            (held > 0 && sl_kv_extend(r->kv, r->items[i].seq, held, err) != 0))
            return -1;
    }
    return 0;
}

static void end_texts(struct rehearsal *r)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);

    for (uint32_t i = 0; i < r->c->n_texts; i++)
        lm->ops->seq_destroy(lm, r->items[i].seq);
}

/* Guesses go, and so many positions stay. */
static void cut_texts(struct rehearsal *r, uint32_t n)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);

    for (uint32_t i = 0; i < r->c->n_texts && r->c->guesses > 0; i++)
        lm->ops->seq_cut(lm, r->items[i].seq, n);
}

/* No logits come. */
static int forward(struct rehearsal *r, struct sl_error *err)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);

    return lm->ops->forward(lm, r->items, r->c->n_texts, NULL, err);
}

/* A guess between passes; they are all alike. */
static int guess(struct rehearsal *r, uint32_t held, struct sl_error *err)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);
    struct sl_lm_item item = r->items[0];
    uint64_t begin = sl_clock_now(r->machine.clock);

    if (!r->c->self)
        return 0;
    item.n = item.n_logits = 1;
    item.apart = true;
    if (lm->ops->guess(lm, &item, 1, NULL, err) < 0)
        return -1;
    lm->ops->seq_cut(lm, item.seq, held);
    r->guess_ns = (double)(sl_clock_now(r->machine.clock) - begin);
    return 0;
}

static int decode(struct rehearsal *r, double *seconds, struct sl_error *err)
{
    uint32_t passes = WARM_PASSES + PASSES;
    uint32_t held = (uint32_t)minus(r->c->context, passes);
    uint64_t took = 0;

    if (held == 0)
        held = 1;
    if (begin_texts(r, held, err) != 0)
        return -1;
    for (uint32_t i = 0; i < passes; i++) {
        uint64_t begin;

        if (guess(r, held + i, err) != 0)
            return -1;
        begin = sl_clock_now(r->machine.clock);
        if (i == WARM_PASSES)
            sl_trace_start_at(r->trace, begin);
        if (forward(r, err) != 0)
            return -1;
        cut_texts(r, held + i + 1);
        if (i >= WARM_PASSES)
            took += sl_clock_now(r->machine.clock) - begin;
    }
    *seconds = (double)took * 1e-9 / PASSES;
    end_texts(r);
    return 0;
}

static int prefill(struct rehearsal *r, double *seconds, struct sl_error *err)
{
    double begin = 0;

    for (uint32_t i = 0; i < 1 + PASSES; i++) {
        if (i == 1)
            begin = now_s(r);
        if (begin_texts(r, 0, err) != 0 || forward(r, err) != 0)
            return -1;
        end_texts(r);
    }
    *seconds = (now_s(r) - begin) / PASSES;
    return 0;
}

/* Short prompts take the engines of a decode. */
static enum sl_phase engines_of(const struct rehearsal *r, enum sl_phase phase)
{
    return r->in.pass[phase].positions < r->plan->prefill_from ? SL_PHASE_DECODE
                                                               : phase;
}

static struct sl_rehearsed judge(const struct rehearsal *r, enum sl_phase phase,
                                 double seconds)
{
    struct sl_plan_pass pass = r->in.pass[phase];
    struct sl_rehearsed j = {.seconds = seconds, .tokens = pass.positions};
    enum sl_phase engines = engines_of(r, phase);

    /* A text's keys are read once for all its positions; that the head computes
     * guesses too is not counted. */
    if (phase == SL_PHASE_DECODE)
        pass.positions *= decoded(r->c);
    j.demand = sl_plan_demand(r->plan, &r->in, engines, pass);
    j.floor = sl_floor_of(&r->in.rates, &j.demand);
    j.expected_s = sl_plan_seconds(r->plan, &r->in, engines, pass);
    j.efficiency = j.floor.seconds / seconds;
    return j;
}

static int run(struct rehearsal *r, struct sl_rehearsal *out,
               struct sl_error *err)
{
    double seconds;

    if (make_plan(r, out, err) != 0 || start(r, err) != 0)
        return -1;
    if (!r->c->prefill_only) {
        if (decode(r, &seconds, err) != 0)
            return -1;
        out->phase[SL_PHASE_DECODE] = judge(r, SL_PHASE_DECODE, seconds);
        out->guess_s = r->guess_ns * 1e-9;
    }
    if (r->c->decode_only)
        return 0;
    if (prefill(r, &seconds, err) != 0)
        return -1;
    out->phase[SL_PHASE_PREFILL] = judge(r, SL_PHASE_PREFILL, seconds);
    return 0;
}

int sl_rehearse(struct sl_rehearsal *out, const struct sl_rehearsal_config *c,
                struct sl_error *err)
{
    struct sl_rehearsal made = {.host_bytes = 0};
    struct rehearsal r = {.c = c, .plan = &made.plan};
    struct sl_error late;
    int rc = -1;

    if (c->mf->hp.n_experts > 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s is a mixture of experts: what these read depends on "
                       "their router, which no machine model rehearses",
                       c->mf->path);
    atomic_init(&r.stop, false);
    if (sl_sim_machine_init(&r.machine, c->machine, err) != 0)
        return -1;
    if (c->trace == NULL || sl_trace_open(&r.trace, c->trace, err) == 0)
        rc = run(&r, &made, err);
    finish(&r);
    sl_sim_machine_fini(&r.machine);
    if (r.trace != NULL && sl_trace_close(r.trace, rc == 0 ? err : &late) != 0)
        rc = -1;
    if (rc == 0)
        *out = made;
    else
        sl_rehearsal_fini(&made);
    return rc;
}

void sl_rehearsal_fini(struct sl_rehearsal *r)
{
    sl_plan_fini(&r->plan);
}
