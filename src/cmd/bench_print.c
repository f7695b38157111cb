#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/tame.h"
#include "src/cmd/bench.h"

static double per_second(double positions, double seconds)
{
    return seconds > 0 ? positions / seconds : 0;
}

void sl_bench_print_origin(FILE *f, const struct sl_bench_origin *origin)
{
    const struct sl_machine *m = &origin->machine;
    char file[SL_SIZE_TEXT], ram[SL_SIZE_TEXT];

    fprintf(f, "%s: %s, %s, %s\n", SL_TAMED(origin->model),
            SL_TAMED(origin->name), SL_TAMED(origin->quant),
            sl_size_format(file, origin->file_bytes));
    fprintf(f, "%s, %u CPU%s, %s, %s; sluice %s, commit %s\n\n", m->cpu,
            m->n_cpus, m->n_cpus == 1 ? "" : "s",
            sl_size_format(ram, m->ram_bytes), m->kernel, PACKAGE_VERSION,
            sl_machine_commit());
}

void sl_bench_print_head(FILE *f, const struct sl_bench_origin *origin)
{
    sl_bench_print_origin(f, origin);
    fprintf(f, "%-7s %6s %5s %3s %10s %9s %17s %9s %7s %7s %7s %9s %-7s %10s\n",
            "", "", "", "", "", "tokens/s", "", "", "disk", "memory", "stall",
            "floor", "", "efficiency");
    fprintf(f, "%-7s %6s %5s %3s %10s %9s %17s %9s %7s %7s %7s %9s %-7s %10s\n",
            "phase", "prompt", "batch", "thr", "RAM", "median", "least .. most",
            "s/pass", "GB/s", "GB/s", "s/pass", "s/pass", "limit", "median");
}

static void print_phase(FILE *f, const struct sl_bench_result *r,
                        enum sl_bench_phase phase)
{
    const struct sl_bench_phase_result *p = &r->phase[phase];
    double s = p->seconds.median;
    char ram[SL_SIZE_TEXT], range[40];

    snprintf(range, sizeof range, "%.4g .. %.4g",
             per_second(p->positions, p->seconds.most),
             per_second(p->positions, p->seconds.least));
    fprintf(f,
            "%-7s %6u %5u %3u %10s %9.4g %17s %9.4f %7.2f %7.1f %7.3f %9.4f "
            "%-7s %10.3f\n",
            sl_bench_phase_name(phase), r->run.prompt, r->run.batch,
            r->run.threads, sl_size_format(ram, r->memory.budget),
            per_second(p->positions, s), range, s, p->disk_bytes / s * 1e-9,
            p->dram_bytes / s * 1e-9, p->wait_s, p->floor.seconds,
            sl_limit_name(p->floor.limit), p->efficiency.median);
}

static void print_device(FILE *f, const struct sl_bench_result *r)
{
    char used[SL_SIZE_TEXT], budget[SL_SIZE_TEXT], weights[SL_SIZE_TEXT];

    if (r->no_device[0] != '\0')
        fprintf(f, "        no GPU is used: %s\n", r->no_device);
    if (r->device[0] == '\0')
        return;
    fprintf(f,
            "        %s: %s of a budget of %s, %s of it weights; copies to it "
            "%.1f GB/s\n",
            r->device, sl_size_format(used, r->vram.total),
            sl_size_format(budget, r->vram.budget),
            sl_size_format(weights, r->vram.residents),
            r->rates.worker[SL_DEVICE].link_bps * 1e-9);
}

static void print_drafts(FILE *f, const struct sl_bench_drafts *d)
{
    if (d->n == 0)
        return;
    fputs("        guesses:", f);
    for (uint32_t i = 0; i < d->n; i++) {
        fprintf(f, " %s: %llu made, %llu right", d->of[i].name,
                (unsigned long long)d->of[i].drafted,
                (unsigned long long)d->of[i].accepted);
        if (d->of[i].beside > 0)
            fprintf(f, " (%llu and %llu beside likelier ones)",
                    (unsigned long long)d->of[i].beside,
                    (unsigned long long)d->of[i].beside_accepted);
        if (d->of[i].ahead > 0)
            fprintf(f, " (%llu made while passes ran, %llu of no use)",
                    (unsigned long long)d->of[i].ahead,
                    (unsigned long long)d->of[i].discarded);
        fputc(';', f);
    }
    fprintf(f, " %.2f tokens a pass\n", d->tokens_per_pass);
}

static void print_experts(FILE *f, const struct sl_bench_result *r)
{
    const struct sl_bench_phase_result *p = &r->phase[SL_BENCH_DECODE];
    char demand[SL_SIZE_TEXT], hint[SL_SIZE_TEXT], wasted[SL_SIZE_TEXT];

    if (r->memory.experts == 0)
        return;
    fprintf(f,
            "        experts of a pass of decode: %s read when wanted, %s read "
            "ahead, %s of such in vain\n",
            sl_size_format(demand, (uint64_t)p->demand_bytes),
            sl_size_format(hint, (uint64_t)p->hint_bytes),
            sl_size_format(wasted, (uint64_t)p->wasted_bytes));
}

void sl_bench_print(FILE *f, const struct sl_bench_result *r)
{
    char resident[SL_SIZE_TEXT], streamed[SL_SIZE_TEXT];

    for (int p = 0; p < SL_BENCH_PHASES; p++)
        print_phase(f, r, (enum sl_bench_phase)p);
    fprintf(f,
            "        %s stay, %s stream; disk %.2f GB/s, memory %.1f "
            "GB/s%s, products %.0f GOP/s, attention %.0f; first token after "
            "%.2f s (floor %.2f s, the disk giving %.2f GB/s before)\n",
            sl_size_format(resident, r->resident_bytes),
            sl_size_format(streamed, r->streamed_bytes),
            r->rates.disk_bps * 1e-9, r->rates.dram_bps * 1e-9,
            r->dram_in_cache ? " (in cache)" : "",
            r->rates.worker[SL_HOST].ops_per_s * 1e-9,
            r->rates.worker[SL_HOST].attention_ops_per_s * 1e-9,
            r->first_token_s, r->first_token_floor_s, r->cold_disk_bps * 1e-9);
    print_experts(f, r);
    print_device(f, r);
    print_drafts(f, &r->drafts);
}

static int add(json_t *to, json_t *part)
{
    int rc = part != NULL ? json_object_update(to, part) : -1;

    json_decref(part);
    return rc;
}

static json_t *spread_json(const char *name, const struct sl_bench_spread *s)
{
    char least[64], most[64];

    snprintf(least, sizeof least, "%s_least", name);
    snprintf(most, sizeof most, "%s_most", name);
    return json_pack("{s:f, s:f, s:f}", name, s->median, least, s->least, most,
                     s->most);
}

static json_t *run_json(const struct sl_bench_result *r,
                        enum sl_bench_phase phase)
{
    const struct sl_bench_phase_result *p = &r->phase[phase];
    uint32_t passes = phase == SL_BENCH_PREFILL ? 1 : r->run.gen;

    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, "
        "s:I, s:s, s:s}",
        "phase", sl_bench_phase_name(phase), "prompt",
        (json_int_t)r->run.prompt, "batch", (json_int_t)r->run.batch, "threads",
        (json_int_t)r->run.threads, "ram_bytes", (json_int_t)r->memory.budget,
        "repeats", (json_int_t)r->run.repeat, "passes", (json_int_t)passes,
        "positions_per_pass", (json_int_t)p->positions, "resident_bytes",
        (json_int_t)r->resident_bytes, "streamed_bytes",
        (json_int_t)r->streamed_bytes, "isa", r->isa, "places",
        (json_int_t)r->reading.places, "ahead_bytes",
        (json_int_t)r->reading.ahead, "activations", r->activations, "io",
        r->io != NULL ? r->io : "none");
}

static json_t *device_json(const struct sl_bench_result *r,
                           enum sl_bench_phase phase)
{
    const struct sl_bench_phase_result *p = &r->phase[phase];

    if (r->device[0] == '\0')
        return json_pack("{s:n, s:i}", "device", "vram_bytes", 0);
    return json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f}", "device", r->device,
                     "vram_bytes", (json_int_t)r->vram.budget,
                     "vram_used_bytes", (json_int_t)r->vram.total,
                     "vram_resident_bytes", (json_int_t)r->vram.residents,
                     "floor_pcie_seconds", p->floor.link_s, "floor_gpu_seconds",
                     p->floor.worker_s[SL_DEVICE], "measured_copy_bytes_per_s",
                     r->rates.worker[SL_DEVICE].link_bps);
}

static json_t *figures_json(const struct sl_bench_result *r,
                            enum sl_bench_phase phase)
{
    const struct sl_bench_phase_result *p = &r->phase[phase];
    double s = p->seconds.median;

    return json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, "
        "s:f, s:f, s:b, s:f, s:f}",
        "tokens_per_s", per_second(p->positions, s), "tokens_per_s_least",
        per_second(p->positions, p->seconds.most), "tokens_per_s_most",
        per_second(p->positions, p->seconds.least), "disk_bytes_per_pass",
        p->disk_bytes, "disk_bytes_per_s", p->disk_bytes / s,
        "dram_bytes_per_pass", p->dram_bytes, "dram_bytes_per_s",
        p->dram_bytes / s, "stall_seconds_per_pass", p->wait_s, "floor_seconds",
        p->floor.seconds, "floor_disk_seconds", p->floor.disk_s,
        "floor_dram_seconds", p->floor.dram_s, "floor_compute_seconds",
        p->floor.worker_s[SL_HOST], "limit", sl_limit_name(p->floor.limit),
        "measured_disk_bytes_per_s", r->rates.disk_bps,
        "measured_dram_bytes_per_s", r->rates.dram_bps,
        "measured_dram_in_cache", r->dram_in_cache, "measured_operations_per_s",
        r->rates.worker[SL_HOST].ops_per_s,
        "measured_attention_operations_per_s",
        r->rates.worker[SL_HOST].attention_ops_per_s);
}

static json_t *drafts_json(const struct sl_bench_drafts *d)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < d->n; i++)
        json_array_append_new(
            list,
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "source",
                      d->of[i].name, "drafted", (json_int_t)d->of[i].drafted,
                      "accepted", (json_int_t)d->of[i].accepted, "beside",
                      (json_int_t)d->of[i].beside, "beside_accepted",
                      (json_int_t)d->of[i].beside_accepted, "ahead",
                      (json_int_t)d->of[i].ahead, "discarded",
                      (json_int_t)d->of[i].discarded));
    return json_pack("{s:f, s:o}", "tokens_per_pass", d->tokens_per_pass,
                     "drafts", list);
}

static json_t *experts_json(const struct sl_bench_result *r,
                            enum sl_bench_phase phase)
{
    const struct sl_bench_phase_result *p = &r->phase[phase];

    if (r->memory.experts == 0)
        return json_object();
    return json_pack("{s:f, s:f, s:f}", "expert_demand_bytes_per_pass",
                     p->demand_bytes, "expert_hint_bytes_per_pass",
                     p->hint_bytes, "expert_wasted_bytes_per_pass",
                     p->wasted_bytes);
}

/* Of a file and its copy on another disk. */
static json_t *files_json(const struct sl_bench_result *r,
                          enum sl_bench_phase phase)
{
    const double *bytes = r->phase[phase].file_bytes;

    if (bytes[0] + bytes[1] <= 0)
        return json_object();
    return json_pack("{s:[f, f]}", "file_bytes_per_pass", bytes[0], bytes[1]);
}

static json_t *origin_json(const struct sl_bench_origin *o)
{
    const struct sl_machine *m = &o->machine;
    char date[32];
    time_t now = time(NULL);
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_pack(
        "{s:o, s:o, s:s, s:I, s:{s:s, s:I, s:I, s:I, s:s}, s:s, "
        "s:s, s:s, s:o}",
        "model", sl_json_text(o->model), "name", sl_json_text(o->name), "quant",
        o->quant, "file_bytes", (json_int_t)o->file_bytes, "machine", "cpu",
        m->cpu, "cpus", (json_int_t)m->n_cpus, "numa_nodes",
        (json_int_t)m->n_numa, "ram_bytes", (json_int_t)m->ram_bytes, "kernel",
        m->kernel, "version", PACKAGE_VERSION, "commit", sl_machine_commit(),
        "date", date, "command", sl_json_text(o->command));
}

static int print_line(FILE *f, const struct sl_bench_result *r,
                      enum sl_bench_phase phase,
                      const struct sl_bench_origin *origin,
                      struct sl_error *err)
{
    const struct sl_bench_phase_result *p = &r->phase[phase];
    json_t *line = json_object();

    if (add(line, run_json(r, phase)) != 0 ||
        add(line, device_json(r, phase)) != 0 ||
        add(line, figures_json(r, phase)) != 0 ||
        add(line, experts_json(r, phase)) != 0 ||
        add(line, files_json(r, phase)) != 0 ||
        add(line, spread_json("seconds_per_pass", &p->seconds)) != 0 ||
        add(line, spread_json("efficiency", &p->efficiency)) != 0 ||
        (phase == SL_BENCH_PREFILL &&
         add(line, json_pack("{s:f, s:f, s:f}", "first_token_seconds",
                             r->first_token_s, "first_token_floor_seconds",
                             r->first_token_floor_s, "cold_disk_bytes_per_s",
                             r->cold_disk_bps)) != 0) ||
        (phase == SL_BENCH_DECODE && r->drafts.n > 0 &&
         add(line, drafts_json(&r->drafts)) != 0) ||
        add(line, origin_json(origin)) != 0) {
        json_decref(line);
        line = NULL;
    }
    return sl_json_print(f, line, JSON_COMPACT | JSON_REAL_PRECISION(6), err);
}

int sl_bench_print_json(FILE *f, const struct sl_bench_result *r,
                        const struct sl_bench_origin *origin,
                        struct sl_error *err)
{
    for (int p = 0; p < SL_BENCH_PHASES; p++) {
        if (print_line(f, r, (enum sl_bench_phase)p, origin, err) != 0)
            return -1;
    }
    return 0;
}
