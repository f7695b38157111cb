#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/tame.h"
#include "src/cmd/plan_advice.h"
#include "src/cmd/plan_eval.h"
#include "src/cmd/plan_machine.h"
#include "src/cmd/survey_here.h"
#include "src/convert/synth.h"
#include "src/probe/machine_file.h"
#include "src/sim/rehearse.h"

#define PROMPT       1024u
#define BATCH        32u
#define LEAST_TOKENS 16u

/* What the system and other programs keep of RAM. */
#define OTHERS_BYTES 5500000000u

/* So many sizes of a pass in a row that are worse than the best: larger ones
 * are no better. */
#define WORSE 2u

enum row { DECODE, PREFILL, BATCHED };

struct answer {
    const struct sl_machine_question *q;
    struct sl_machine_spec spec;
    struct sl_modelfile mf;
    uint64_t ram_bytes, vram_bytes;
    struct sl_rehearsal alone, batched;
    /* with as many guesses as are best; of its own, that go on while a pass
     * waits; n_guesses 0: there are none */
    struct guessed {
        struct sl_rehearsal r;
        struct sl_rehearsed row; /* a pass, and the guesses that it waits for */
        uint32_t n_guesses;
        double discarded; /* of those that were made meanwhile */
    } guessed, ahead;
    struct sl_plan_eval eval;
    struct sl_rehearsed eval_pass;
    uint32_t batch_tokens; /* of a text: what the memory holds of so many */
};

static const struct sl_rehearsed *row_of(const struct answer *a, int row)
{
    return row == BATCHED  ? &a->batched.phase[SL_PHASE_DECODE]
           : row == DECODE ? &a->alone.phase[SL_PHASE_DECODE]
                           : &a->alone.phase[SL_PHASE_PREFILL];
}

/* --- asking --------------------------------------------------------------- */

const char *sl_machine_ignores(const struct sl_runtime_config *run)
{
    if (run->threads > 0)
        return "threads";
    if (run->activations != SL_ACTIVATIONS_AUTO)
        return "activations";
    if (run->numa_off)
        return "numa";
    if (run->io != SL_IO_AUTO)
        return "io";
    if (run->max_isa_set)
        return "isa";
    if (run->mirror != NULL)
        return "mirror";
    if (run->prefix != NULL)
        return "prefix";
    if (run->n_lora > 0)
        return "lora";
    return run->device == SL_DEVICE_CUDA && run->device_ordinal > 0
               ? "device cuda:N"
               : NULL;
}

/* By what is kept of it, or measured now. */
static int this_machine(struct sl_machine_spec *spec,
                        const struct sl_machine_question *q,
                        struct sl_error *err)
{
    json_t *survey;
    char *kept;
    int rc = sl_survey_here(&survey, &kept, ".", NULL, q->measure, q->log, err);

    if (rc == 0)
        rc = sl_machine_of_survey(spec, survey, ".", err);
    json_decref(survey);
    free(kept);
    return rc;
}

static int find_machine(struct answer *a, struct sl_error *err)
{
    struct sl_rates *r = &a->spec.rates;
    int rc = a->q->machine == NULL
                 ? this_machine(&a->spec, a->q, err)
                 : sl_machine_load(&a->spec, a->q->machine, err);

    if (rc != 0 || a->q->mirror_bps <= 0)
        return rc;
    r->disk_bps += a->q->mirror_bps - r->mirror_bps;
    r->mirror_bps = a->q->mirror_bps;
    return 0;
}

static int open_model(struct answer *a, struct sl_error *err)
{
    const struct sl_machine_question *q = a->q;

    if (q->preset == NULL) {
        if (sl_modelfile_open(&a->mf, q->model, err) != 0)
            return -1;
        if (a->mf.compressed == NULL)
            return 0;
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s has compressed stages, which no modelled machine "
                       "decompresses: convert again with --compress none",
                       q->model);
    }
    return sl_synth_imagine(&a->mf, q->preset,
                            q->quant != NULL ? q->quant : "int4-g128", err);
}

static int choose_memory(struct answer *a, struct sl_error *err)
{
    const struct sl_machine_question *q = a->q;
    char want[SL_SIZE_TEXT], have[SL_SIZE_TEXT];

    a->ram_bytes = q->ram_bytes;
    if (q->ram_bytes >= SL_RAM_PERCENT(1))
        return sl_fail(
            err, SL_ERR_USAGE,
            "--ram least and percents are of a file here; give bytes "
            "with --machine");
    if (q->ram_bytes == SL_RAM_AUTO)
        a->ram_bytes = a->spec.memory_bytes[SL_HOST] > 2ull * OTHERS_BYTES
                           ? a->spec.memory_bytes[SL_HOST] - OTHERS_BYTES
                           : a->spec.memory_bytes[SL_HOST] / 2;
    a->vram_bytes = q->vram_bytes == SL_MACHINE_VRAM
                        ? a->spec.memory_bytes[SL_DEVICE]
                        : q->vram_bytes;
    if (a->ram_bytes > a->spec.memory_bytes[SL_HOST])
        return sl_fail(err, SL_ERR_USAGE, "--ram %s: %s has %s",
                       sl_size_format(want, a->ram_bytes), a->spec.name,
                       sl_size_format(have, a->spec.memory_bytes[SL_HOST]));
    if ((q->needs_gpu || a->vram_bytes > 0) &&
        a->spec.rates.worker[SL_DEVICE].link_bps <= 0)
        return sl_fail(err, SL_ERR_USAGE, "%s has no GPU: leave %s out",
                       a->spec.name,
                       q->needs_gpu ? "--device and --engine" : "--vram");
    if (a->vram_bytes > a->spec.memory_bytes[SL_DEVICE])
        return sl_fail(err, SL_ERR_USAGE, "--vram %s: a driver leaves %s on %s",
                       sl_size_format(want, a->vram_bytes),
                       sl_size_format(have, a->spec.memory_bytes[SL_DEVICE]),
                       a->spec.name);
    return 0;
}

/* Tokens of a pass with n guesses: the first that is wrong ends it. */
static double tokens_of(double accept, uint32_t n)
{
    double tokens = 1, chance = 1;

    for (uint32_t i = 0; i < n; i++)
        tokens += chance *= accept;
    return tokens;
}

static double rate_of(const struct sl_rehearsed *row)
{
    return row->tokens / row->seconds;
}

/* What a pass with guesses takes, them included, and gives. Those that go on
 * meanwhile begin with what the pass itself will say last: they are of use,
 * but for that one, where it and all that the pass took are right. Then the
 * text's new keys are to be had, which takes a guess. */
static void count_cycle(const struct answer *a, struct guessed *g)
{
    double right = pow(a->q->accept, g->n_guesses + 1.0), made = g->n_guesses;
    struct sl_rehearsed *row = &g->row;
    double before;

    *row = g->r.phase[SL_PHASE_DECODE];
    if (g->r.ahead > 1)
        made -= right * (g->r.ahead - 2);
    g->discarded = (1 - right) * g->r.ahead;
    before = made * g->r.guess_s;
    row->tokens = tokens_of(a->q->accept, g->n_guesses);
    row->seconds += before;
    row->expected_s += before;
    row->efficiency = row->floor.seconds / row->seconds;
}

/* As many guesses in a pass as give most tokens a second. */
static int ask_guessed(const struct answer *a, struct guessed *best,
                       struct sl_rehearsal_config c, struct sl_error *err)
{
    uint32_t worse = 0;

    c.trace = NULL;
    for (uint32_t n = 1; n <= a->q->most_guesses && worse < WORSE; n++) {
        struct guessed g = {.n_guesses = n};

        c.guesses = n;
        if (sl_rehearse(&g.r, &c, err) != 0)
            return -1;
        count_cycle(a, &g);
        if (n > 1 && rate_of(&g.row) <= rate_of(&best->row)) {
            worse++;
            sl_rehearsal_fini(&g.r);
            continue;
        }
        worse = 0;
        sl_rehearsal_fini(&best->r);
        *best = g;
    }
    return 0;
}

/* The best once more, to be seen. */
static int trace_guessed(const struct answer *a, const struct guessed *best,
                         struct sl_rehearsal_config c, struct sl_error *err)
{
    struct sl_rehearsal r;

    c.guesses = best->n_guesses;
    c.decode_only = true;
    c.trace = a->q->trace;
    if (c.trace == NULL)
        return 0;
    if (sl_rehearse(&r, &c, err) != 0)
        return -1;
    sl_rehearsal_fini(&r);
    return 0;
}

static int ask_all_guesses(struct answer *a, struct sl_rehearsal_config c,
                           struct sl_error *err)
{
    if (ask_guessed(a, &a->guessed, c, err) != 0)
        return -1;
    if (!c.self)
        return 0;
    c.ahead = true;
    if (ask_guessed(a, &a->ahead, c, err) != 0)
        return -1;
    return trace_guessed(a, &a->ahead, c, err);
}

static int ask(struct answer *a, struct sl_error *err)
{
    const struct sl_machine_question *q = a->q;
    bool planes = q->accept > 0 && sl_modelfile_has_planes(&a->mf);
    struct sl_rehearsal_config c = {
        .mf = &a->mf,
        .machine = &a->spec,
        .ram_bytes = a->ram_bytes,
        .vram_bytes = a->vram_bytes,
        .engine = q->engine,
        .n_texts = 1,
        .context = q->tokens,
        .prompt = PROMPT,
        /* of guesses that go on meanwhile, where there are any */
        .trace = planes ? NULL : q->trace,
        .kv = q->kv,
        .hit_curve = q->hit_curve,
        .self = planes,
    };

    if (sl_rehearse(&a->alone, &c, err) != 0)
        return -1;
    if (q->accept > 0 && ask_all_guesses(a, c, err) != 0)
        return -1;
    c.self = false;
    if (q->eval > 0 && sl_plan_eval_rehearse(&a->eval, &a->eval_pass, c,
                                             q->eval, q->eval_question, err))
        return -1;
    c.n_texts = BATCH;
    c.decode_only = true;
    c.trace = NULL;
    /* Where the cache of so many texts does not fit, half of it may. */
    for (;;) {
        c.context = c.prompt = a->batch_tokens;
        if (sl_rehearse(&a->batched, &c, err) == 0)
            return 0;
        if (err->code != SL_ERR_BUDGET || a->batch_tokens < LEAST_TOKENS)
            break;
        a->batch_tokens /= 2;
    }
    sl_error_prefix(err, "%u texts of %u tokens: ", BATCH, a->batch_tokens);
    return -1;
}

/* --- text ----------------------------------------------------------------- */

static void print_memory(const char *what, uint64_t weights, uint64_t ring,
                         uint64_t kv, uint64_t rest)
{
    char w[SL_SIZE_TEXT], r[SL_SIZE_TEXT], k[SL_SIZE_TEXT], o[SL_SIZE_TEXT];

    printf("  %-6s %10s  %10s  %10s  %10s\n", what, sl_size_format(w, weights),
           sl_size_format(r, ring), sl_size_format(k, kv),
           sl_size_format(o, rest));
}

static void print_experts(const struct answer *a)
{
    const struct sl_rehearsal *r = &a->alone;
    const struct sl_rehearsed *token = row_of(a, DECODE);
    char size[SL_SIZE_TEXT], vram[SL_SIZE_TEXT], wanted[SL_SIZE_TEXT],
        read[SL_SIZE_TEXT];

    if (r->n_experts == 0)
        return;
    printf("Of %u experts %u have a place in RAM, %s, and %u in VRAM, %s; a "
           "token wants %s of them, and reads %s %s.\n",
           r->n_experts, r->n_expert_places,
           sl_size_format(size, r->expert_bytes), r->n_device_experts,
           sl_size_format(vram, r->device_expert_bytes),
           sl_size_format(wanted, (uint64_t)token->expert_wanted_bytes),
           sl_size_format(read, (uint64_t)token->expert_read_bytes),
           a->q->hit_curve.n > 0 ? "by the hit curve"
                                 : "where all are chosen alike");
}

static void print_plan(const struct answer *a)
{
    const struct sl_plan *p = &a->alone.plan;
    uint64_t left = (uint64_t)row_of(a, DECODE)->demand.by[SL_HOST].bytes;
    char disk[SL_SIZE_TEXT], cpu[SL_SIZE_TEXT];

    puts("Plan             weights        ring    KV cache    the rest");
    if (p->uses_device)
        print_memory("VRAM", p->at[SL_DEVICE].resident_bytes,
                     p->at[SL_DEVICE].ring_bytes, a->alone.kv_bytes[SL_DEVICE],
                     a->alone.device_bytes);
    print_memory("RAM", p->at[SL_HOST].resident_bytes,
                 p->at[SL_HOST].ring_bytes, a->alone.kv_bytes[SL_HOST],
                 a->alone.host_bytes);
    printf("  %-6s %10s\n", "disk", sl_size_format(disk, p->streamed_bytes));
    print_experts(a);
    if (a->alone.n_waiting > 0)
        printf(
            "The KV cache of %u layers waits in RAM: each pass copies what it "
            "holds to the GPU.\n",
            a->alone.n_waiting);
    if (a->alone.n_device_shared > 0)
        printf("The expert that all positions use lies in VRAM in %u layers, "
               "%s.\n",
               a->alone.n_device_shared,
               sl_size_format(cpu, a->alone.device_shared_bytes));
    if (p->uses_device && left > 0)
        printf("A decode leaves %s of it to the CPU.\n",
               sl_size_format(cpu, left));
    if (p->uses_device && p->prefill_from > 1)
        printf("Prompts of %u tokens and more take the engines of prefill.\n",
               p->prefill_from);
}

/* In the same width for a toy and for GLM-130B. */
static const char *time_text(char text[24], double seconds)
{
    if (seconds < 0.1)
        snprintf(text, 24, "%8.3f ms", seconds * 1e3);
    else
        snprintf(text, 24, "%9.3f s", seconds);
    return text;
}

static void print_row(const char *what, const struct sl_rehearsed *r)
{
    double rate = r->tokens / r->seconds;
    char takes[24], floor[24], planned[24];

    /* A clock of whole nanoseconds may round to less than the floor. */
    printf("  %-26s %s  %8.*f  %s  %s  %5.1f %%  %s\n", what,
           time_text(takes, r->seconds), rate >= 100 ? 0 : 2, rate,
           time_text(floor, r->floor.seconds),
           time_text(planned, r->expected_s),
           r->efficiency < 1 ? 100 * r->efficiency : 100,
           sl_limit_name(r->floor.limit));
}

/* Can it be done, and how fast: what is asked first is said first. */
static void print_answer(const struct answer *a)
{
    const struct sl_rehearsed *decode = row_of(a, DECODE);
    const struct sl_rehearsed *prefill = row_of(a, PREFILL);

    printf("A token takes %.3g s (%.2g a second), a prompt of %u %.3g s.\n",
           decode->seconds, decode->tokens / decode->seconds, PROMPT,
           prefill->seconds);
    sl_plan_advise(&a->alone, &a->q->hit_curve, a->spec.rates.disk_bps);
    putchar('\n');
}

static void print_guessed(const struct guessed *g, const char *how)
{
    char what[48];

    if (g->n_guesses == 0)
        return;
    snprintf(what, sizeof what, "%u %s, %.2f tokens", g->n_guesses, how,
             g->row.tokens);
    print_row(what, &g->row);
}

static void print_text(const struct answer *a)
{
    char file[SL_SIZE_TEXT], ram[SL_SIZE_TEXT], vram[SL_SIZE_TEXT], what[48];

    printf("%s, %s, %s on %s with %s of RAM and %s of VRAM",
           SL_TAMED(a->mf.name), SL_TAMED(a->mf.quant),
           sl_size_format(file, a->mf.file_bytes), SL_TAMED(a->spec.name),
           sl_size_format(ram, a->ram_bytes),
           sl_size_format(vram, a->vram_bytes));
    if (a->spec.rates.mirror_bps > 0)
        printf(" and disks of %.2f and %.2f GB/s",
               (a->spec.rates.disk_bps - a->spec.rates.mirror_bps) * 1e-9,
               a->spec.rates.mirror_bps * 1e-9);
    puts("\n");
    print_answer(a);
    print_plan(a);
    puts("\nPasses                          takes    tokens/s        floor  "
         "     planned  efficiency, limit");
    print_row("one token", row_of(a, DECODE));
    print_guessed(&a->guessed, a->guessed.n_guesses > 1 ? "guesses" : "guess");
    print_guessed(&a->ahead, "ahead");
    snprintf(what, sizeof what, "a prompt of %u", PROMPT);
    print_row(what, row_of(a, PREFILL));
    snprintf(what, sizeof what, "%u texts of %u", BATCH, a->batch_tokens);
    print_row(what, row_of(a, BATCHED));
    if (a->q->eval == 0)
        return;
    snprintf(what, sizeof what, "%.0f question%s of %u",
             a->eval_pass.tokens / a->eval.question,
             a->eval_pass.tokens > a->eval.question ? "s" : "",
             a->eval.question);
    print_row(what, &a->eval_pass);
    puts("\nAn evaluation");
    sl_plan_eval_print(&a->eval);
}

/* --- JSON ----------------------------------------------------------------- */

static json_t *row_json(const struct sl_rehearsed *r)
{
    return json_pack("{sf sf sf sf ss sf sf sf sf sf sf}", "seconds_per_pass",
                     r->seconds, "tokens_per_s", r->tokens / r->seconds,
                     "floor_seconds", r->floor.seconds, "expected_seconds",
                     r->expected_s, "limit", sl_limit_name(r->floor.limit),
                     "efficiency", r->efficiency, "disk_seconds",
                     r->floor.disk_s, "pcie_seconds", r->floor.link_s,
                     "dram_seconds", r->floor.dram_s, "gpu_seconds",
                     r->floor.worker_s[SL_DEVICE], "cpu_seconds",
                     r->floor.worker_s[SL_HOST]);
}

static json_t *plan_json(const struct sl_rehearsal *r)
{
    const struct sl_plan *p = &r->plan;

    return json_pack(
        "{sI sI sI sI sI sI sI sI sI sI sI sI}", "vram_bytes",
        (json_int_t)p->at[SL_DEVICE].resident_bytes, "resident_bytes",
        (json_int_t)p->at[SL_HOST].resident_bytes, "streamed_bytes",
        (json_int_t)p->streamed_bytes, "ring_bytes",
        (json_int_t)p->at[SL_HOST].ring_bytes, "device_ring_bytes",
        (json_int_t)p->at[SL_DEVICE].ring_bytes, "kv_host_bytes",
        (json_int_t)r->kv_bytes[SL_HOST], "kv_device_bytes",
        (json_int_t)r->kv_bytes[SL_DEVICE], "kv_waiting_layers",
        (json_int_t)r->n_waiting, "decode_cpu_bytes",
        (json_int_t)r->phase[SL_PHASE_DECODE].demand.by[SL_HOST].bytes,
        "decode_copied_bytes",
        (json_int_t)r->phase[SL_PHASE_DECODE].demand.by[SL_DEVICE].copy_bytes,
        "prefill_from", (json_int_t)p->prefill_from, "slabs",
        (json_int_t)p->n_slabs);
}

static json_t *experts_json(const struct answer *a)
{
    const struct sl_rehearsal *r = &a->alone;
    const struct sl_rehearsed *token = row_of(a, DECODE);

    if (r->n_experts == 0)
        return json_null();
    return json_pack("{sI sI sI sI sI sI sI sf sf sf}", "places",
                     (json_int_t)r->n_expert_places, "experts",
                     (json_int_t)r->n_experts, "bytes",
                     (json_int_t)r->expert_bytes, "vram_places",
                     (json_int_t)r->n_device_experts, "vram_bytes",
                     (json_int_t)r->device_expert_bytes, "vram_shared",
                     (json_int_t)r->n_device_shared, "vram_shared_bytes",
                     (json_int_t)r->device_shared_bytes, "vram_bytes_per_pass",
                     token->expert_device_bytes, "wanted_bytes_per_pass",
                     token->expert_wanted_bytes, "read_bytes_per_pass",
                     token->expert_read_bytes);
}

static json_t *guessed_json(const struct answer *a, const struct guessed *g)
{
    json_t *o = row_json(&g->row);

    json_object_set_new(o, "accept", json_real(a->q->accept));
    json_object_set_new(o, "guesses", json_integer(g->n_guesses));
    json_object_set_new(o, "tokens_per_pass", json_real(g->row.tokens));
    json_object_set_new(o, "guess_seconds", json_real(g->r.guess_s));
    if (g == &a->ahead) {
        json_object_set_new(o, "ahead", json_real(g->r.ahead));
        json_object_set_new(o, "discarded", json_real(g->discarded));
    }
    return o;
}

static int print_json(const struct answer *a, struct sl_error *err)
{
    json_t *root = json_pack(
        "{so so sI sI sI so so so so so sI so}", "machine",
        sl_json_text(a->spec.name), "model", sl_json_text(a->mf.name),
        "file_bytes", (json_int_t)a->mf.file_bytes, "ram_bytes",
        (json_int_t)a->ram_bytes, "vram_bytes", (json_int_t)a->vram_bytes,
        "decode", row_json(row_of(a, DECODE)), "prefill_1024",
        row_json(row_of(a, PREFILL)), "batch_32", row_json(row_of(a, BATCHED)),
        "plan", plan_json(&a->alone), "batch_plan", plan_json(&a->batched),
        "batch_tokens", (json_int_t)a->batch_tokens, "experts",
        experts_json(a));

    if (root != NULL && a->guessed.n_guesses > 0)
        json_object_set_new(root, "guessed", guessed_json(a, &a->guessed));
    if (root != NULL && a->ahead.n_guesses > 0)
        json_object_set_new(root, "guessed_ahead", guessed_json(a, &a->ahead));
    if (root != NULL && a->q->eval > 0) {
        json_object_set_new(root, "eval_pass", row_json(&a->eval_pass));
        json_object_set_new(root, "evaluation", sl_plan_eval_json(&a->eval));
    }
    return sl_json_print(stdout, root, JSON_INDENT(1) | JSON_REAL_PRECISION(6),
                         err);
}

/* --- command -------------------------------------------------------------- */

int sl_plan_machine(const struct sl_machine_question *q, struct sl_error *err)
{
    struct answer a = {
        .q = q,
        .mf = {.fd = -1},
        .batch_tokens = q->tokens,
    };
    int rc = -1;

    if (find_machine(&a, err) == 0 && choose_memory(&a, err) == 0 &&
        open_model(&a, err) == 0)
        rc = ask(&a, err);
    if (rc == 0) {
        if (q->json)
            rc = print_json(&a, err);
        else
            print_text(&a);
        if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout)))
            rc = sl_fail_os(err, errno, "cannot write to standard output");
    }
    sl_rehearsal_fini(&a.alone);
    sl_rehearsal_fini(&a.batched);
    sl_rehearsal_fini(&a.guessed.r);
    sl_rehearsal_fini(&a.ahead.r);
    sl_modelfile_close(&a.mf);
    return rc;
}
