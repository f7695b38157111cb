#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "offload/mirror.h"
#include "src/base/mem.h"
#include "src/decode/draft_self.h"
#include "src/sim/rehearse_impl.h"

/* --- the run -------------------------------------------------------------- */

/* Addresses that the model of a device gives are never touched, but counted:
 * too much of them fails here as it would there. */
static int start_device(struct sl_rehearsal_run *r, struct sl_error *err)
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
    void *experts;

    if (r->plan->at[SL_DEVICE].ring_bytes > 0 &&
        r->dev->ops->alloc(r->dev, &config.ring,
                           r->plan->at[SL_DEVICE].ring_bytes, err) != 0)
        return -1;
    if (r->plan->at[SL_DEVICE].resident_bytes > 0 &&
        r->dev->ops->alloc(r->dev, &config.residents,
                           r->plan->at[SL_DEVICE].resident_bytes, err) != 0)
        return -1;
    if (r->vram_experts > 0 &&
        r->dev->ops->alloc(r->dev, &experts, r->vram_experts, err) != 0)
        return -1;
    return sl_upload_open(&r->upload, &config, err);
}

/* Stream and upload ring are those of a run; disk, device and clock are
 * models. */
static int start_transport(struct sl_rehearsal_run *r, struct sl_error *err)
{
    struct sl_stream_config config = {
        .path = r->c->mf->path,
        .mirror = r->mirror,
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

/* Their cache is that of a run. */
static int start_experts(struct sl_rehearsal_run *r, struct sl_error *err)
{
    struct sl_slab_cache_config config = {
        .path = r->c->mf->path,
        .mirror = r->mirror,
        .records = r->experts.records,
        .n_records = r->experts.n_records,
        .n_layers = r->experts.n_layers,
        .n_places = r->experts.n_places,
        .place_bytes = r->experts.largest,
        .direct = true,
        .trace = r->trace,
        .clock = r->machine.clock,
        .io_arg = &r->machine,
        .io_open = sl_io_open_sim,
    };

    if (r->experts.n_records == 0)
        return 0;
    if (sl_slab_cache_open(&r->experts.cache, &config, err) != 0)
        return -1;
    return sl_sim_mixture_init(&r->mixture, &r->experts, &r->machine,
                               sl_rehearsed_positions(r->c), err);
}

static int create_engines(struct sl_rehearsal_run *r,
                          struct sl_exec_engine **engines,
                          struct sl_trace *trace, struct sl_error *err)
{
    struct sl_sim_config config = {
        .machine = &r->machine,
        .mf = r->c->mf,
        .partition = &r->partition,
        .stages = r->stages,
        .n_stages = r->in.n_stages,
        .plan = r->plan,
        .turn_bytes = r->in.turn_bytes,
        .stream = r->stream,
        .mixture = r->experts.n_records > 0 ? &r->mixture : NULL,
        .dev = r->dev,
        .upload = r->upload,
        .trace = trace,
    };

    if (sl_sim_cpu_create(&engines[SL_HOST], &config, err) != 0)
        return -1;
    return r->plan->uses_device
               ? sl_sim_gpu_create(&engines[SL_DEVICE], &config, err)
               : 0;
}

static int start_engines(struct sl_rehearsal_run *r, struct sl_error *err)
{
    if (create_engines(r, r->engines, r->trace, err) != 0)
        return -1;
    r->experts.device = r->engines[SL_DEVICE];
    return r->c->ahead ? create_engines(r, r->ahead, NULL, err) : 0;
}

static int start(struct sl_rehearsal_run *r, struct sl_error *err)
{
    const struct sl_rehearsal_config *c = r->c;
    struct sl_exec_config config = {
        .mf = c->mf,
        .partition = &r->partition,
        .plan = r->plan,
        .stop = &r->stop,
        .pass_positions = sl_rehearsed_positions(c),
        .pass_logits = c->n_texts * sl_rehearsed_decode(c),
        .max_tokens = sl_rehearsed_tokens(c) + 1,
        .guesses = c->self,
        .trace = r->trace,
        .clock = r->machine.clock,
    };

    r->ids = sl_zalloc_array(sl_rehearsed_tokens(c), sizeof *r->ids);
    r->items = sl_zalloc_array(c->n_texts, sizeof *r->items);
    if (r->ids == NULL || r->items == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u texts", c->n_texts);
    if (sl_kv_create(&r->kv, &r->kv_config, err) != 0 ||
        start_transport(r, err) != 0 || start_experts(r, err) != 0 ||
        start_engines(r, err) != 0)
        return -1;
    config.kv = r->kv;
    memcpy(config.engines, r->engines, sizeof config.engines);
    memcpy(config.ahead, r->ahead, sizeof config.ahead);
    return sl_exec_create(&r->exec, &config, err);
}

static void finish(struct sl_rehearsal_run *r)
{
    sl_exec_destroy(r->exec);
    for (int e = 0; e < SL_WORKERS; e++) {
        if (r->engines[e] != NULL)
            r->engines[e]->ops->destroy(r->engines[e]);
        if (r->ahead[e] != NULL)
            r->ahead[e]->ops->destroy(r->ahead[e]);
    }
    sl_upload_close(r->upload);
    sl_stream_close(r->stream);
    sl_device_close(r->dev);
    sl_experts_fini(&r->experts);
    sl_mirror_destroy(r->mirror);
    sl_sim_mixture_fini(&r->mixture);
    sl_kv_destroy(r->kv);
    free(r->stages);
    free(r->ids);
    free(r->items);
    sl_partition_fini(&r->partition);
}

/* --- passes --------------------------------------------------------------- */

static double now_s(const struct sl_rehearsal_run *r)
{
    return (double)sl_clock_now(r->machine.clock) * 1e-9;
}

/* New sequences, of which each holds some positions, or will begin. */
static int begin_texts(struct sl_rehearsal_run *r, uint32_t held,
                       struct sl_error *err)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);
    uint32_t n = held == 0 ? r->c->prompt : sl_rehearsed_decode(r->c);

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

static void end_texts(struct sl_rehearsal_run *r)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);

    for (uint32_t i = 0; i < r->c->n_texts; i++)
        lm->ops->seq_destroy(lm, r->items[i].seq);
}

/* Guesses go, and so many positions stay. */
static void cut_texts(struct sl_rehearsal_run *r, uint32_t n)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);

    for (uint32_t i = 0; i < r->c->n_texts && r->c->guesses > 0; i++)
        lm->ops->seq_cut(lm, r->items[i].seq, n);
}

/* No logits come. */
static int forward(struct sl_rehearsal_run *r, struct sl_error *err)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);

    return lm->ops->forward(lm, r->items, r->c->n_texts, NULL, err);
}

/* One position behind the text's, by high planes alone. */
static struct sl_lm_item guess_of(const struct sl_rehearsal_run *r,
                                  uint32_t seq)
{
    struct sl_lm_item item = r->items[0];

    item.seq = seq;
    item.n = item.n_logits = 1;
    item.apart = true;
    return item;
}

/* A guess between passes; they are all alike. */
static int guess(struct sl_rehearsal_run *r, uint32_t held,
                 struct sl_error *err)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);
    struct sl_lm_item item = guess_of(r, r->items[0].seq);
    uint64_t begin = sl_clock_now(r->machine.clock);

    if (!r->c->self)
        return 0;
    if (lm->ops->guess(lm, &item, 1, NULL, err) < 0)
        return -1;
    lm->ops->seq_cut(lm, item.seq, held);
    r->guess_ns = (double)(sl_clock_now(r->machine.clock) - begin);
    return 0;
}

/* What this pass will say itself, and those that the next one takes. */
static bool wish_on(void *arg)
{
    struct sl_rehearsal_run *r = arg;
    uint32_t most = r->c->guesses + 1;

    if (most > SL_DRAFT_AHEAD)
        most = SL_DRAFT_AHEAD;
    return ++r->wished < most;
}

/* A pass, while which guesses go on behind those that it takes. */
static int forward_ahead(struct sl_rehearsal_run *r, uint32_t held,
                         struct sl_error *err)
{
    struct sl_lm *lm = sl_exec_lm(r->exec);
    uint32_t seq;
    int rc;

    if (!r->c->ahead)
        return forward(r, err);
    if (lm->ops->seq_create(lm, &seq, err) != 0)
        return -1;
    r->wished = 0;
    r->wish = (struct sl_lm_ahead){
        .item = guess_of(r, seq),
        .made = wish_on,
        .arg = r,
    };
    rc = sl_kv_extend(r->kv, seq, held + r->c->guesses, err);
    if (rc == 0) {
        lm->ops->guess_ahead(lm, &r->wish);
        rc = forward(r, err);
    }
    lm->ops->seq_destroy(lm, seq);
    return rc;
}

static int decode(struct sl_rehearsal_run *r, double *seconds,
                  struct sl_error *err)
{
    uint32_t passes = sl_rehearsed_passes(r->c), n = SL_REHEARSED_WARM + passes;
    uint32_t held = r->c->context > n ? r->c->context - n : 1;
    uint64_t took = 0;

    if (begin_texts(r, held, err) != 0)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t begin;

        if (guess(r, held + i, err) != 0)
            return -1;
        begin = sl_clock_now(r->machine.clock);
        if (i == SL_REHEARSED_WARM) {
            r->experts.decode = (struct sl_expert_use){0};
            sl_trace_start_at(r->trace, begin);
        }
        if (forward_ahead(r, held + i, err) != 0)
            return -1;
        cut_texts(r, held + i + 1);
        if (i < SL_REHEARSED_WARM)
            continue;
        took += sl_clock_now(r->machine.clock) - begin;
        r->n_ahead += (double)r->wished / passes;
    }
    *seconds = (double)took * 1e-9 / passes;
    end_texts(r);
    return 0;
}

static int prefill(struct sl_rehearsal_run *r, double *seconds,
                   struct sl_error *err)
{
    double begin = 0;

    for (uint32_t i = 0; i < 1 + SL_REHEARSED_PASSES; i++) {
        if (i == 1) {
            r->experts.prefill = (struct sl_expert_use){0};
            begin = now_s(r);
        }
        if (begin_texts(r, 0, err) != 0 || forward(r, err) != 0)
            return -1;
        end_texts(r);
    }
    *seconds = (now_s(r) - begin) / SL_REHEARSED_PASSES;
    return 0;
}

/* Short prompts take the engines of a decode. */
static enum sl_phase engines_of(const struct sl_rehearsal_run *r,
                                enum sl_phase phase)
{
    return r->in.pass[phase].positions < r->plan->prefill_from ? SL_PHASE_DECODE
                                                               : phase;
}

static struct sl_rehearsed judge(const struct sl_rehearsal_run *r,
                                 enum sl_phase phase, double seconds)
{
    struct sl_plan_pass pass = r->in.pass[phase];
    struct sl_rehearsed j = {.seconds = seconds, .tokens = pass.positions};
    enum sl_phase engines = engines_of(r, phase);
    const struct sl_expert_use *use =
        phase == SL_PHASE_DECODE ? &r->experts.decode : &r->experts.prefill;

    /* A text's keys are read once for all its positions; that the head computes
     * guesses too is not counted. */
    if (phase == SL_PHASE_DECODE)
        pass.positions *= sl_rehearsed_decode(r->c);
    j.demand = sl_plan_demand(r->plan, &r->in, engines, pass);
    j.floor = sl_floor_of(&r->in.rates, &j.demand);
    sl_rehearsed_experts(&j.floor, r, phase);
    j.expected_s =
        sl_plan_seconds(r->plan, &r->in, engines, pass) + r->experts_s[phase];
    if (use->layers > 0) {
        double passes = (double)use->layers / r->experts.n_layers;

        j.expert_device_bytes = (double)use->device_bytes / passes;
        j.expert_wanted_bytes =
            (double)use->wanted_bytes / passes + j.expert_device_bytes;
        j.expert_read_bytes = (double)use->read_bytes / passes;
    }
    j.efficiency = j.floor.seconds / seconds;
    return j;
}

static int add_disk(struct sl_rehearsal_run *r, struct sl_error *err)
{
    struct sl_mirror_config config = {
        .path = {r->c->mf->path, "the second disk"},
        .clock = r->machine.clock,
    };

    if (r->c->machine->rates.mirror_bps <= 0)
        return 0;
    return sl_mirror_create(&r->mirror, &config, err);
}

static int run(struct sl_rehearsal_run *r, struct sl_rehearsal *out,
               struct sl_error *err)
{
    double seconds;

    if (add_disk(r, err) != 0 || sl_rehearse_plan(r, out, err) != 0 ||
        start(r, err) != 0)
        return -1;
    if (r->experts.n_records > 0 && sl_sim_mixture_fill(&r->mixture, err) != 0)
        return -1;
    if (!r->c->prefill_only) {
        if (decode(r, &seconds, err) != 0)
            return -1;
        out->phase[SL_PHASE_DECODE] = judge(r, SL_PHASE_DECODE, seconds);
        out->guess_s = r->guess_ns * 1e-9;
        out->ahead = r->n_ahead;
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
    struct sl_rehearsal_run r = {.c = c, .plan = &made.plan};
    struct sl_error late;
    int rc = -1;

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
