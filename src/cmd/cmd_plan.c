#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/tame.h"
#include "src/cmd/experts_show.h"
#include "src/cmd/gpu_show.h"
#include "src/cmd/hit_curve.h"
#include "src/cmd/opts_draft.h"
#include "src/cmd/opts_run.h"
#include "src/cmd/plan_eval.h"
#include "src/cmd/plan_json.h"
#include "src/cmd/plan_machine.h"
#include "src/cmd/plan_tiers.h"
#include "src/cmd/rates_kept.h"
#include "src/convert/synth.h"

struct options {
    struct sl_runtime_config run;
    uint32_t out_seq_length;
    uint32_t prompt_length;
    uint32_t num_beams;
    uint32_t batch;
    struct sl_draft_options draft;
    uint64_t eval; /* tokens to evaluate; 0: none */
    bool measure, json;
    struct sl_machine_question machine; /* .machine NULL: this one */
};

struct report {
    const struct options *o;
    const struct sl_runtime *rt;
    const struct sl_modelfile *mf;
    const struct sl_memory *memory;
    const struct sl_plan *plan;
    const char *kv; /* how keys and values are kept */
    struct sl_floor decode, prefill;
    double decode_s, prefill_s; /* expected with a GPU; else 0 */
    struct sl_rates rates;
    double age_s; /* of the rates; 0: measured now */
    size_t n_resident;
    struct sl_plan_eval eval;
};

/* All that a step feeds. */
static uint32_t sequences(const struct options *o)
{
    return o->batch * o->num_beams;
}

static struct sl_workload workload(const struct options *o)
{
    uint32_t positions =
        o->prompt_length > o->num_beams ? o->prompt_length : o->num_beams;

    return (struct sl_workload){
        .n_sequences = o->num_beams,
        .max_tokens = o->out_seq_length,
        .shared_tokens = o->prompt_length,
        .pass_positions = o->batch * positions,
        .pass_logits = sequences(o),
        .n_texts = o->batch,
    };
}

static struct sl_plan_pass decode_pass(const struct options *o)
{
    return (struct sl_plan_pass){sequences(o), sequences(o), o->prompt_length};
}

static struct sl_plan_pass prefill_pass(const struct options *o)
{
    return (struct sl_plan_pass){o->batch * o->prompt_length, o->batch,
                                 o->prompt_length};
}

/* --- text ------------------------------------------------------------------
 */

static void line(const char *what, uint64_t bytes, const char *more)
{
    char size[SL_SIZE_TEXT];

    printf("  %-28s %10s%s%s\n", what, sl_size_format(size, bytes),
           more[0] ? "  " : "", more);
}

static void print_memory(const struct report *r)
{
    const struct sl_memory *m = r->memory;
    const struct sl_plan_memory *ram = &r->plan->at[SL_HOST];
    char more[96], prefix[32] = "", slot[SL_SIZE_TEXT];
    uint64_t ignored;

    puts("Memory");
    line("program and tokenizer", m->program, "");
    line("norms, biases, scales", m->small, "");
    if (m->adapters > 0)
        line("adapters", m->adapters, "");
    if (sl_runtime_prefix(r->rt) > 0)
        snprintf(prefix, sizeof prefix, "prefix of %u, ",
                 sl_runtime_prefix(r->rt));
    snprintf(more, sizeof more, "%s%u tokens, %u sequence%s, %s", prefix,
             r->o->out_seq_length, sequences(r->o),
             sequences(r->o) == 1 ? "" : "s", r->kv);
    line("KV cache", m->kv, more);
    snprintf(more, sizeof more, "%u positions a pass",
             workload(r->o).pass_positions);
    line("activations", m->activations, more);
    line("logits", m->logits, "");
    snprintf(more, sizeof more, "%u guesses a pass",
             sl_runtime_draft_positions(r->rt));
    if (m->drafts > 0)
        line("drafts", m->drafts, more);
    snprintf(more, sizeof more, "%u slots of %s", ram->n_slots,
             sl_size_format(slot, ram->slot_bytes));
    line("ring", m->ring, ram->n_slots ? more : "nothing streams");
    snprintf(more, sizeof more, "%zu of %zu slabs", r->n_resident,
             r->plan->n_slabs);
    line("resident weights", m->residents, more);
    sl_experts_print_memory(stdout, r->rt);
    if (m->staging > 0)
        line("to and from the GPU", m->staging, "");
    line("lists, stacks, margin", m->other, "");
    line("in all", m->total,
         sl_runtime_beyond_machine(r->rt, &ignored)
             ? "MORE than this machine has"
             : "");
    line("budget", m->budget, "");
    line("least that works", m->least, "");
}

/* Three digits that mean something, for a toy and for GLM-130B alike. */
static void print_seconds(const char *what, double seconds)
{
    if (seconds < 0.9995)
        printf("  %-28s %9.3g ms", what, seconds * 1e3);
    else if (seconds < 9.995)
        printf("  %-28s %9.2f s ", what, seconds);
    else
        printf("  %-28s %9.1f s ", what, seconds);
}

static void print_floor(const char *what, const struct sl_floor *f,
                        double expected_s, uint32_t positions)
{
    double rate = f->seconds > 0 ? positions / f->seconds : 0;

    print_seconds(what, f->seconds);
    printf("  %.*f tokens/s, limited by %s\n",
           rate >= 100 ? 0
           : rate >= 1 ? 1
                       : 4,
           rate, sl_limit_name(f->limit));
    if (expected_s <= 0)
        return;
    print_seconds("  expected", expected_s);
    puts("  with what waits and hand-overs cost");
}

static void age_text(char text[32], double seconds)
{
    if (seconds < 90)
        snprintf(text, 32, "  measured %.0f s ago", seconds);
    else if (seconds < 5400)
        snprintf(text, 32, "  measured %.0f minutes ago", seconds / 60);
    else
        snprintf(text, 32, "  measured %.0f hours ago", seconds / 3600);
}

static void print_gpu_rates(const struct report *report, const char *when)
{
    const struct sl_worker *gpu = &report->rates.worker[SL_DEVICE];

    printf("  %-28s %8.1f GB/s%s\n", "copies to the GPU (PCIe)",
           gpu->link_bps * 1e-9, when);
    printf("  %-28s %8.1f GB/s%s\n", "VRAM, read by kernels",
           gpu->memory_bps * 1e-9, when);
    if (!sl_runtime_gpu_measured(report->rt))
        when = "  by its kind";
    printf("  %-28s %8.1f TOP/s%s\n", "matrix products of the GPU",
           gpu->ops_per_s * 1e-12, when);
    printf("  %-28s %8.1f us%s\n", "launches of a stage", gpu->stage_s * 1e6,
           when);
    printf("  %-28s %8.1f us%s\n", "a hand-over", gpu->link_latency_s * 1e6,
           when);
}

static void print_text(const struct report *r)
{
    const struct sl_hparams *hp = &r->mf->hp;
    char file[SL_SIZE_TEXT], streamed[SL_SIZE_TEXT];
    char prompt[48], when[32] = "  measured now";
    const struct sl_plan_memory *at = r->plan->at;
    uint64_t all = r->plan->streamed_bytes + at[SL_HOST].resident_bytes +
                   at[SL_DEVICE].resident_bytes;

    printf("%s: %s, %u layer%s, %s\n\n", SL_TAMED(r->mf->path),
           SL_TAMED(r->mf->name), hp->n_layers, hp->n_layers == 1 ? "" : "s",
           sl_size_format(file, r->mf->file_bytes));
    print_memory(r);
    sl_gpu_print(stdout, r->rt);
    if (r->age_s > 0)
        age_text(when, r->age_s);
    puts("\nEach pass over the weights");
    printf("  %-28s %10s  %.1f %% of the weights\n", "read from disk",
           sl_size_format(streamed, r->plan->streamed_bytes),
           all ? 100.0 * (double)r->plan->streamed_bytes / (double)all : 0);
    sl_experts_print_pass(stdout, r->rt, "a step", decode_pass(r->o));
    sl_experts_print_pass(stdout, r->rt, "the prompt", prefill_pass(r->o));
    printf("  %-28s %8.2f GB/s%s\n", "disk, direct reads",
           r->rates.disk_bps * 1e-9, when);
    if (r->rates.mirror_bps > 0)
        printf("  %-28s %8.2f GB/s%s\n", "of that the mirror's",
               r->rates.mirror_bps * 1e-9, when);
    printf("  %-28s %8.1f GB/s%s\n", "memory, all threads",
           r->rates.dram_bps * 1e-9, when);
    printf("  %-28s %8.1f GOP/s%s\n", "matrix products",
           r->rates.worker[SL_HOST].ops_per_s * 1e-9, when);
    printf("  %-28s %8.1f GOP/s%s\n", "attention, cached",
           r->rates.worker[SL_HOST].attention_ops_per_s * 1e-9, when);
    if (sl_runtime_device(r->rt, NULL) != NULL)
        print_gpu_rates(r, when);
    puts("\nPredicted (the physical limit of this plan)");
    snprintf(prompt, sizeof prompt, "the prompt%s, %u tokens",
             r->o->batch > 1 ? "s" : "", r->o->batch * r->o->prompt_length);
    print_floor(prompt, &r->prefill, r->prefill_s,
                r->o->batch * r->o->prompt_length);
    print_floor(sequences(r->o) > 1 ? "one step of all sequences" : "one token",
                &r->decode, r->decode_s, sequences(r->o));
    if (r->o->eval > 0)
        sl_plan_eval_print(&r->eval);
    sl_plan_tiers_print(r->plan);
}

/* --- JSON ------------------------------------------------------------------
 */

static int print_json(const struct report *r, struct sl_error *err)
{
    const struct sl_plan_memory *ram = &r->plan->at[SL_HOST];
    const struct sl_worker *cpu = &r->rates.worker[SL_HOST];
    const struct sl_worker *gpu = &r->rates.worker[SL_DEVICE];
    json_t *root = json_pack(
        "{so sI so ss s{sI sI sI sI sI} s{sf sf sf sf sf sf sf sf sf sf sf} so so so "
        "so so}",
        "model", sl_json_text(r->mf->path), "file_bytes",
        (json_int_t)r->mf->file_bytes, "memory", sl_plan_memory_json(r->memory),
        "kv_kind", r->kv, "stream", "slabs", (json_int_t)r->plan->n_slabs,
        "slots", (json_int_t)ram->n_slots, "slot_bytes",
        (json_int_t)ram->slot_bytes, "streamed_bytes",
        (json_int_t)r->plan->streamed_bytes, "resident_bytes",
        (json_int_t)ram->resident_bytes, "rates", "disk_bytes_per_s",
        r->rates.disk_bps, "mirror_bytes_per_s", r->rates.mirror_bps,
        "dram_bytes_per_s", r->rates.dram_bps, "operations_per_s",
        cpu->ops_per_s, "attention_operations_per_s", cpu->attention_ops_per_s,
        "pcie_bytes_per_s", gpu->link_bps, "vram_bytes_per_s", gpu->memory_bps,
        "gpu_operations_per_s", gpu->ops_per_s, "pcie_latency_s",
        gpu->link_latency_s, "gpu_stage_s", gpu->stage_s, "age_seconds",
        r->age_s, "prefill",
        sl_plan_floor_json(&r->prefill, r->prefill_s,
                           r->o->batch * r->o->prompt_length),
        "decode", sl_plan_floor_json(&r->decode, r->decode_s, sequences(r->o)),
        "tiers", sl_plan_tiers_json(r->plan), "gpu", sl_gpu_json(r->rt),
        "experts", sl_experts_json(r->rt, decode_pass(r->o)));

    if (root != NULL && r->o->eval > 0)
        json_object_set_new(root, "evaluation", sl_plan_eval_json(&r->eval));
    return sl_json_print(stdout, root, JSON_INDENT(1) | JSON_REAL_PRECISION(6),
                         err);
}

/* --- command ---------------------------------------------------------------
 */

static int predict(struct report *r, struct sl_runtime *rt,
                   struct sl_error *err)
{
    const struct options *o = r->o;
    struct sl_plan_pass decode = decode_pass(o), prefill = prefill_pass(o);

    /* With a GPU the plan was made from rates, which count. */
    if (o->measure || sl_runtime_device(rt, NULL) != NULL ||
        !sl_rates_kept(&r->rates, &r->age_s, rt)) {
        r->age_s = 0;
        if (sl_runtime_floor(rt, (struct sl_plan_pass){1, 1, 0}, &r->decode,
                             &r->rates, err) != 0)
            return -1;
    }
    r->decode = sl_runtime_floor_at(rt, &r->rates, decode);
    r->prefill = sl_runtime_floor_at(rt, &r->rates, prefill);
    r->decode_s = sl_runtime_expected_at(rt, &r->rates, decode);
    r->prefill_s = sl_runtime_expected_at(rt, &r->rates, prefill);
    if (o->eval > 0)
        sl_plan_eval_make(&r->eval, rt, &r->rates, o->eval, o->prompt_length);
    return 0;
}

/* What guessing takes, as generate plans it; beams do not. */
static int add_drafts(const struct options *o, struct sl_workload *w,
                      struct sl_draft_file *file, struct sl_runtime *rt,
                      struct sl_error *err)
{
    struct sl_drafts d;

    if (sl_drafts_open(&d, file, &o->draft, err) != 0)
        return -1;
    if (o->num_beams == 1)
        sl_drafts_workload(&d, w);
    return sl_draft_file_plan(file, w, rt, &o->run, err);
}

static int plan(const struct options *o, struct sl_error *err)
{
    struct sl_workload w = workload(o);
    struct report r = {.o = o};
    struct sl_draft_file file = {0};
    struct sl_runtime *rt;
    int rc;

    if (o->prompt_length > o->out_seq_length)
        return sl_fail(err, SL_ERR_USAGE,
                       "--prompt-length %u is more than --out-seq-length %u, "
                       "which counts prompt and answer",
                       o->prompt_length, o->out_seq_length);
    if (sl_runtime_open(&rt, &o->run, err) != 0)
        return -1;
    rc = add_drafts(o, &w, &file, rt, err);
    if (rc == 0)
        rc = sl_runtime_plan(rt, &w, err);
    if (rc == 0)
        rc = predict(&r, rt, err);
    if (rc == 0) {
        r.rt = rt;
        r.mf = sl_runtime_modelfile(rt);
        r.memory = sl_runtime_memory(rt);
        r.kv = sl_runtime_kv_name(rt);
        r.plan = sl_runtime_plan_made(rt);
        for (size_t i = 0; i < r.plan->n_slabs; i++)
            r.n_resident += r.plan->tier[i] == SL_TIER_RAM;
        if (o->json)
            rc = print_json(&r, err);
        else
            print_text(&r);
    }
    sl_draft_file_close(&file);
    sl_runtime_close(rt);
    return rc;
}

enum {
    OPT_OUT = 0x200,
    OPT_PROMPT,
    OPT_BEAMS,
    OPT_BATCH,
    OPT_EVAL,
    OPT_MEASURE,
    OPT_HIT_CURVE,
    OPT_JSON,
    OPT_MACHINE,
    OPT_PRESET,
    OPT_QUANT,
    OPT_ACCEPT,
    OPT_MIRROR_RATE,
};

static const struct argp_option options[] = {
    {"out-seq-length", OPT_OUT, "N", 0,
     "Tokens of prompt and answer together (default 256)", 0},
    {"prompt-length", OPT_PROMPT, "N", 0,
     "Tokens of the prompt (default: half of --out-seq-length)", 0},
    {"num-beams", OPT_BEAMS, "N", 0, "Beams of a beam search (default 1)", 0},
    {"batch", OPT_BATCH, "N", 0,
     "Texts that go through each pass together (default 1)", 0},
    {"eval", OPT_EVAL, "TOKENS", 0,
     "Hours that an evaluation of so many tokens takes, in questions of "
     "--prompt-length",
     0},
    {"measure", OPT_MEASURE, 0, 0,
     "Measure this machine now, whatever 'sluice probe' has kept", 0},
    {"hit-curve", OPT_HIT_CURVE, "FILE", 0,
     "What a cache of experts serves, by its size, in JSON", 0},
    {"json", OPT_JSON, 0, 0, "Print JSON", 0},
    {0, 0, 0, 0, "A model, or a machine, that is not there:", 1},
    {"machine", OPT_MACHINE, "NAME|FILE", 0,
     "Rehearse on rtx3090-ddr4, rtx3090-ddr5, rtx4090-ddr5, rtx3060-ddr4-nvme "
     "or what a JSON file describes",
     1},
    {"preset", OPT_PRESET, "NAME", 0,
     SL_SYNTH_PRESETS
     ": plan for that shape instead of -m's; without --machine on this one",
     1},
    {"quant", OPT_QUANT, "KIND", 0,
     "Its format, one of convert's (default int4-g128)", 1},
    {"mirror-rate", OPT_MIRROR_RATE, "BYTES", 0,
     "With a copy on a second disk that reads so much a second, with suffixes "
     "as for --ram",
     1},
    {"accept", OPT_ACCEPT, "P", 0,
     "Rehearse guessing ahead too: the chance of each guess to be right", 1},
    {0},
};

/* Options that need --machine; what they set and nothing else. */
static error_t parse_machine(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    struct sl_machine_question *m = &o->machine;

    switch (key) {
    case OPT_MACHINE:
        m->machine = arg;
        return 0;
    case OPT_PRESET:
        if (o->run.model != NULL)
            argp_error(state, "-m or --preset, not both");
        o->run.model = m->preset = arg;
        return 0;
    case OPT_QUANT:
        m->quant = arg;
        return 0;
    case OPT_MIRROR_RATE:
        m->mirror_bps =
            (double)sl_opt_size(state, "mirror-rate", arg, 1, 1ull << 50);
        return 0;
    case OPT_ACCEPT:
        m->accept = sl_opt_f64(state, "accept", arg, 0.001, 0.999);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What of this machine, or of a text, a rehearsal does not ask for. */
static const char *ignored_by_machine(const struct options *o)
{
    if (o->num_beams > 1 || o->batch > 1)
        return o->batch > 1 ? "batch" : "num-beams";
    if (o->prompt_length > 0 && o->eval == 0)
        return "prompt-length";
    if (sl_machine_ignores(&o->run) != NULL)
        return sl_machine_ignores(&o->run);
    return o->measure && o->machine.machine != NULL ? "measure" : NULL;
}

static void check_machine(struct options *o, struct argp_state *state)
{
    const char *ignored = ignored_by_machine(o);
    struct sl_machine_question *m = &o->machine;
    bool rehearsed = m->machine != NULL || m->preset != NULL;

    if (!rehearsed && m->accept > 0)
        argp_error(state, "--accept goes with --machine or --preset");
    if (!rehearsed && m->mirror_bps > 0)
        argp_error(state, "--mirror-rate goes with --machine or --preset; a "
                          "disk that is there is measured: --mirror FILE");
    if (rehearsed && !sl_drafts_free(&o->draft))
        argp_error(state, "--machine rehearses guesses that take no time, as "
                          "--draft lookup makes them, and no other --draft");
    if (rehearsed && m->accept == 0 && (o->draft.n > 0 || o->draft.most > 0))
        argp_error(state, "--machine knows no text: --accept says how often "
                          "guesses of a --draft are right");
    if (m->quant != NULL && m->preset == NULL)
        argp_error(state, "--quant goes with --preset: a model file has its "
                          "own");
    if (m->preset != NULL && o->run.model != m->preset)
        argp_error(state, "-m or --preset, not both");
    if (rehearsed && ignored != NULL)
        argp_error(state,
                   "--machine and --preset plan one text, a prompt of 1024 "
                   "and a batch of 32; --%s does not go with them",
                   ignored);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->draft;
        state->child_inputs[1] = &o->run;
        return 0;
    case OPT_OUT:
        o->out_seq_length =
            (uint32_t)sl_opt_u64(state, "out-seq-length", arg, 2, 1u << 20);
        return 0;
    case OPT_PROMPT:
        o->prompt_length =
            (uint32_t)sl_opt_u64(state, "prompt-length", arg, 1, 1u << 20);
        return 0;
    case OPT_BEAMS:
        o->num_beams = (uint32_t)sl_opt_u64(state, "num-beams", arg, 1, 1024);
        return 0;
    case OPT_BATCH:
        o->batch = (uint32_t)sl_opt_u64(state, "batch", arg, 1, 1024);
        return 0;
    case OPT_EVAL:
        o->eval = sl_opt_u64(state, "eval", arg, 1, 1ull << 50);
        return 0;
    case OPT_MEASURE:
        o->measure = true;
        return 0;
    case OPT_HIT_CURVE:
        o->machine.hit_curve = o->run.hit_curve = sl_opt_hit_curve(state, arg);
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_END:
        check_machine(o, state);
        if (o->prompt_length == 0)
            o->prompt_length = o->out_seq_length / 2;
        return 0;
    default:
        return parse_machine(key, arg, state);
    }
}

static const struct argp_child children[] = {
    {&sl_draft_argp, 0, "Guessing ahead:", 0},
    {&sl_run_argp, 0, "Memory and threads:", 0},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    0,
    "Show where each part of a model would live under a memory budget, and "
    "how fast this machine can run it at best. Loads nothing.",
    children,
    0,
    0,
};

static int plan_machine(struct options *o, struct sl_error *err)
{
    struct sl_machine_question *m = &o->machine;

    m->model = o->run.model;
    m->ram_bytes = o->run.ram_bytes;
    m->vram_bytes = o->run.vram_bytes;
    if (o->run.device == SL_DEVICE_CPU)
        m->vram_bytes = 0;
    else if (o->run.vram_bytes == SL_VRAM_AUTO)
        m->vram_bytes = SL_MACHINE_VRAM;
    m->engine = o->run.engine;
    m->needs_gpu =
        o->run.device == SL_DEVICE_CUDA || o->run.engine == SL_ENGINE_RULE_GPU;
    m->trace = o->run.trace;
    m->tokens = o->out_seq_length;
    m->kv = o->run.kv_set ? o->run.kv : SL_KV_F16;
    m->most_guesses = sl_drafts_most(&o->draft);
    m->eval = o->eval;
    m->eval_question = o->prompt_length;
    m->json = o->json;
    m->measure = o->measure;
    m->log = o->run.log;
    return sl_plan_machine(m, err);
}

static int run(int argc, char **argv)
{
    struct sl_log log = {sl_log_stderr, NULL, SL_LOG_INFO};
    struct options o = {
        .run.log = &log,
        .out_seq_length = 256,
        .num_beams = 1,
        .batch = 1,
    };
    struct sl_error err;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc != 0)
        return rc;
    rc = o.machine.machine != NULL || o.machine.preset != NULL
             ? plan_machine(&o, &err)
             : plan(&o, &err);
    return sl_finish(rc, &err);
}

const struct sl_command sl_cmd_plan = {
    .name = "plan",
    .summary = "show what stays in memory, what streams, and how fast",
    .run = run,
    .argp = &argp,
    .tables = true,
};
