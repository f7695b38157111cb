#include "config.h"

#include <unistd.h>

#include "src/base/bytes.h"
#include "src/cmd/experts_show.h"
#include "src/cmd/generate.h"
#include "src/cmd/gpu_show.h"
#include "src/cmd/run_show.h"

/* Memory that is mentioned. */
#define DRAFTS_WORTH_A_WORD (1u << 20)

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

void sl_generate_print_plan(const struct sl_generate *g)
{
    const struct sl_memory *m = sl_runtime_memory(g->rt);
    const struct sl_plan *p = sl_runtime_plan_made(g->rt);
    const struct sl_modelfile *mf = sl_runtime_modelfile(g->rt);
    char a[SL_SIZE_TEXT], b[SL_SIZE_TEXT], c[SL_SIZE_TEXT];
    struct sl_said said;
    const char *why;

    sl_said_begin(&said);
    fprintf(said.to, "sluice: %s (%s, %s): ", mf->name, mf->quant,
            sl_size_format(a, mf->file_bytes));
    if (p->at[SL_DEVICE].resident_bytes > 0)
        fprintf(said.to, "%s of its weights stay in VRAM, ",
                sl_size_format(c, p->at[SL_DEVICE].resident_bytes));
    if (p->streamed_bytes == 0)
        fprintf(said.to, "%s%s %s stay in RAM\n",
                p->at[SL_DEVICE].resident_bytes > 0 ? "" : "all ",
                sl_size_format(a, p->at[SL_HOST].resident_bytes),
                p->at[SL_DEVICE].resident_bytes > 0 ? "more"
                                                    : "of its weights");
    else
        fprintf(said.to,
                "%s of its weights stay in RAM, %s stream from disk in every "
                "pass\n",
                sl_size_format(a, p->at[SL_HOST].resident_bytes),
                sl_size_format(b, p->streamed_bytes));
    fprintf(said.to, "sluice: %s of a budget of %s, %s of it KV cache",
            sl_size_format(a, m->total), sl_size_format(b, m->budget),
            sl_size_format(c, m->kv));
    if (m->experts > 0)
        fprintf(said.to, ", %s experts", sl_size_format(a, m->experts));
    if (m->drafts >= DRAFTS_WORTH_A_WORD)
        fprintf(said.to, ", %s for guesses", sl_size_format(a, m->drafts));
    if (p->at[SL_HOST].n_slots > 0)
        fprintf(said.to, ", a ring of %u slots of %s", p->at[SL_HOST].n_slots,
                sl_size_format(a, p->at[SL_HOST].slot_bytes));
    fputc('\n', said.to);
    if (sl_runtime_device(g->rt, &why) != NULL) {
        fputs("sluice: ", said.to);
        sl_gpu_print_line(said.to, g->rt);
    } else if (why[0] != '\0' && g->o->run.vram_bytes != SL_VRAM_AUTO) {
        /* who names its memory expects one */
        fprintf(said.to, "sluice: no GPU is used: %s\n", why);
    }
    sl_said_end(&said);
}

/* A step of a text feeds one position for each of its beams, and drafts; each
 * that is right is a token more. Guessing takes time too. */
static double tokens_per_s(const struct sl_generate *g,
                           const struct sl_run_stats *s)
{
    const struct sl_fill_config *fill = &g->o->fill;
    uint32_t beams = fill->strategy == SL_STRATEGY_BEAM ? fill->n_beams : 1;
    double tokens = (double)s->decode_sequences / beams;

    for (uint32_t i = 0; i < SL_DRAFT_SOURCES; i++)
        tokens += (double)g->drafts.gate.counts.accepted[i];
    return tokens / (seconds(s->decode_ns) + g->drafts.gate.counts.draft_s);
}

static void print_speed(const struct sl_generate *g,
                        const struct sl_run_stats *s)
{
    uint64_t passes = s->passes - s->prefill_passes;
    double guessing_s = g->drafts.gate.counts.draft_s;
    char size[SL_SIZE_TEXT], guessing[48] = "";

    if (guessing_s >= 0.01)
        snprintf(guessing, sizeof guessing, " and %.2f s of guessing",
                 guessing_s);
    fprintf(stderr, "prompt       %llu positions in %llu pass%s, %.2f s\n",
            (unsigned long long)(s->positions - s->decode_positions),
            (unsigned long long)s->prefill_passes,
            s->prefill_passes == 1 ? "" : "es", seconds(s->prefill_ns));
    if (s->prompt_cache.restored > 0)
        fprintf(stderr,
                "             %llu positions from the prompt cache, %s read "
                "in %.2f s\n",
                (unsigned long long)s->prompt_cache.restored,
                sl_size_format(size, s->prompt_cache.read_bytes),
                seconds(s->prompt_cache.restored_ns));
    if (s->prompt_cache.saved_bytes > 0)
        fprintf(stderr, "             kept in the prompt cache: %s in %.2f s\n",
                sl_size_format(size, s->prompt_cache.saved_bytes),
                seconds(s->prompt_cache.saved_ns));
    fprintf(stderr, "first token  after %.2f s\n", seconds(g->first_token_ns));
    if (passes > 0)
        fprintf(stderr, "generation   %llu passes in %.2f s%s: %.2f tokens/s\n",
                (unsigned long long)passes, seconds(s->decode_ns), guessing,
                tokens_per_s(g, s));
    sl_generate_print_drafts(g);
}

static void print_threads(struct sl_generate *g)
{
    unsigned n = sl_pool_threads(sl_runtime_pool(g->rt));
    unsigned ring = sl_runtime_ring_node(g->rt);
    char text[SL_NUMA_TEXT];

    fprintf(stderr, "threads      %u on %s", n,
            sl_numa_text(text, sl_runtime_numa(g->rt)));
    if (ring != SL_NUMA_UNKNOWN)
        fprintf(stderr, ", the ring on node %u", ring);
    fputc('\n', stderr);
}

static void print_gpu(const struct sl_generate *g,
                      const struct sl_upload_stats *s)
{
    char size[SL_SIZE_TEXT];

    if (sl_runtime_device(g->rt, NULL) == NULL)
        return;
    fputs("GPU          ", stderr);
    sl_gpu_print_line(stderr, g->rt);
    fprintf(stderr, "copies       %s to the GPU",
            sl_size_format(size, s->bytes_up));
    if (s->copy_ns > 0)
        fprintf(stderr, " at %.2f GB/s",
                (double)s->bytes_up / (double)s->copy_ns);
    fprintf(stderr, ", waited for %.2f s\n", seconds(s->get_wait_ns));
}

/* What the passes of a run were, on average, and took. */
struct mean {
    struct sl_plan_pass pass;
    double seconds;
};

static uint32_t per(uint64_t sum, uint64_t n)
{
    return n > 0 ? (uint32_t)((sum + n / 2) / n) : 0;
}

/* Passes of generation between two readings, or of the prompt where nothing
 * else ran; false where nothing did. */
static bool mean_pass(struct mean *m, const struct sl_run_stats *a,
                      const struct sl_run_stats *b)
{
    uint64_t prefills = b->prefill_passes - a->prefill_passes;
    uint64_t passes = b->passes - a->passes - prefills;
    uint64_t positions = b->decode_positions - a->decode_positions;
    uint64_t sequences = b->decode_sequences - a->decode_sequences;
    uint64_t keys = b->decode_keys - a->decode_keys;
    uint64_t ns = b->decode_ns - a->decode_ns;

    if (passes == 0) {
        passes = prefills;
        positions = b->positions - a->positions;
        sequences = b->prefill_sequences - a->prefill_sequences;
        keys = b->prefill_keys - a->prefill_keys;
        ns = b->prefill_ns - a->prefill_ns;
    }
    if (passes == 0 || ns == 0)
        return false;
    m->pass = (struct sl_plan_pass){(uint32_t)(positions / passes),
                                    (uint32_t)(sequences / passes),
                                    per(keys, sequences)};
    m->seconds = seconds(ns) / (double)passes;
    return true;
}

/* What one pass took against what it must take. */
static int print_efficiency(struct sl_generate *g, const struct sl_run_stats *s,
                            struct sl_error *err)
{
    const struct sl_run_stats none = {0};
    struct sl_floor floor;
    struct sl_rates rates;
    struct mean m;

    if (!mean_pass(&m, &none, s))
        return 0;
    if (sl_runtime_floor(g->rt, m.pass, &floor, &rates, err) != 0)
        return -1;
    fprintf(stderr, "floor        %.4f s a pass (%s: ", floor.seconds,
            sl_limit_name(floor.limit));
    sl_run_show_rates(stderr, g->rt, &rates);
    fprintf(stderr, "), measured %.4f s: efficiency %.2f\n", m.seconds,
            floor.seconds / m.seconds);
    return 0;
}

int sl_generate_print_stats(struct sl_generate *g, struct sl_error *err)
{
    struct sl_run_stats s;

    sl_runtime_stats(g->rt, &s);
    print_speed(g, &s);
    print_threads(g);
    sl_run_show_disk(stderr, g->rt, &s);
    sl_experts_print_stats(stderr, g->rt, &s);
    sl_run_show_memory(stderr, g->rt, &s);
    print_gpu(g, &s.upload);
    return print_efficiency(g, &s, err);
}

/* The floor of the passes between two readings, where the machine's rates are
 * known without measuring them now. */
static bool known_floor(struct sl_floor *floor, struct mean *m,
                        const struct sl_generate *g,
                        const struct sl_run_stats *before,
                        const struct sl_run_stats *after)
{
    /* With a GPU the plan was made from rates, which count. */
    const struct sl_rates *rates = sl_runtime_rates(g->rt);

    if (rates->disk_bps <= 0 && g->rates_kept)
        rates = &g->rates;
    if (rates->disk_bps <= 0 || !mean_pass(m, before, after))
        return false;
    *floor = sl_runtime_floor_at(g->rt, rates, m->pass);
    return true;
}

bool sl_generate_wants_summary(const struct sl_generate *g)
{
    return !g->o->run.quiet && !g->o->stats && isatty(STDERR_FILENO);
}

static void print_rate(FILE *to, double tokens_per_s)
{
    if (tokens_per_s >= 1)
        fprintf(to, ", %.2f tokens/s", tokens_per_s);
    else
        fprintf(to, ", %.2f s a token", 1 / tokens_per_s);
}

void sl_generate_print_summary(const struct sl_generate *g)
{
    const struct sl_run_stats none = {0};
    struct sl_run_stats s;
    struct sl_floor floor;
    struct sl_said said;
    struct mean m;

    if (g->n_generated == 0)
        return;
    sl_runtime_stats(g->rt, &s);
    fflush(stdout); /* what it is about comes first */
    sl_said_begin(&said);
    fprintf(said.to, "sluice: %llu token%s", (unsigned long long)g->n_generated,
            g->n_generated == 1 ? "" : "s");
    if (s.decode_positions > 0 && s.decode_ns > 0)
        print_rate(said.to, tokens_per_s(g, &s));
    else if (s.prefill_ns > 0)
        fprintf(said.to, " in %.2f s", seconds(s.prefill_ns));
    if (known_floor(&floor, &m, g, &none, &s))
        fprintf(said.to, ", %.2f of the floor (%s)", floor.seconds / m.seconds,
                sl_limit_name(floor.limit));
    fputc('\n', said.to);
    sl_said_end(&said);
}

static json_t *counts_json(const struct sl_run_stats *before,
                           const struct sl_run_stats *after)
{
    const struct sl_stream_stats *a = &before->stream, *b = &after->stream;

    return json_pack(
        "{s:I, s:I, s:I, s:f, s:f, s:I, s:f, s:I, s:I}", "passes",
        (json_int_t)(after->passes - before->passes), "positions",
        (json_int_t)(after->positions - before->positions),
        "restored_positions",
        (json_int_t)(after->prompt_cache.restored -
                     before->prompt_cache.restored),
        "prefill_seconds", seconds(after->prefill_ns - before->prefill_ns),
        "decode_seconds", seconds(after->decode_ns - before->decode_ns),
        "bytes_read", (json_int_t)(b->bytes_read - a->bytes_read),
        "disk_wait_seconds", seconds(b->wait_ns - a->wait_ns), "bytes_copied",
        (json_int_t)(after->upload.bytes_up - before->upload.bytes_up),
        "peak_bytes", (json_int_t)after->peak_bytes);
}

json_t *sl_generate_stats_json(const struct sl_generate *g,
                               const struct sl_work *w)
{
    json_t *stats = counts_json(&w->before, &w->after);
    json_t *experts = sl_experts_stats_json(g->rt, &w->before, &w->after);
    json_t *disks = sl_run_disks_json(g->rt, &w->before, &w->after);
    struct sl_floor floor;
    struct mean m;

    if (experts != NULL)
        json_object_set_new(stats, "experts", experts);
    if (disks != NULL)
        json_object_set_new(stats, "disks", disks);
    if (stats == NULL)
        return NULL;
    sl_generate_drafts_json(stats, g, &w->guessed_before, &w->guessed_after);
    if (!known_floor(&floor, &m, g, &w->before, &w->after))
        return stats;
    json_object_set_new(stats, "floor_seconds", json_real(floor.seconds));
    json_object_set_new(stats, "efficiency",
                        json_real(floor.seconds / m.seconds));
    return stats;
}
