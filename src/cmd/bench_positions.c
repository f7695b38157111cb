#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/clock.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/cmd/bench.h"

/* What passes of several positions take, as they verify guesses: behind a
 * prompt, each position as if it had come alone, and cut off again. Sizes take
 * turns, so that a machine that drifts slows all of them. */

struct state {
    const struct sl_bench_run *run;
    const uint32_t *sizes;
    size_t n_sizes;
    uint32_t most; /* of the sizes */
    struct sl_runtime *rt;
    struct sl_lm *lm;
    uint32_t seq;
    int32_t *ids, *positions, *blocks; /* (prompt + most) */
    float *logits;                     /* (most, vocab) */
    double *seconds;                   /* (n_sizes, repeat) */
};

/* The prompt is one read; what comes behind it are positions of their own
 * that see each other through the cache, as drafts do. */
static int forward(struct state *s, uint32_t at, uint32_t n,
                   struct sl_error *err)
{
    bool prompt = at == 0;
    struct sl_lm_item item = {
        .seq = s->seq,
        .ids = s->ids + at,
        .positions = s->positions + at,
        .blocks = s->blocks != NULL ? s->blocks + at : NULL,
        .n = n,
        .n_context = s->run->prompt,
        .n_logits = prompt ? 1 : n,
        .apart = !prompt && n > 1,
        .reads = prompt,
    };

    if (sl_runtime_modelfile(s->rt)->hp.causal)
        item.n_context = 0;
    return s->lm->ops->forward(s->lm, &item, 1, s->logits, err);
}

/* Ids that differ and are spread over the vocabulary: what a mixture's
 * router sees of one id again and again would flatter the cache. */
static int allocate(struct state *s, struct sl_error *err)
{
    const struct sl_hparams *hp = &sl_runtime_modelfile(s->rt)->hp;
    uint32_t n = s->run->prompt + s->most;
    size_t n_logits;

    if (sl_mul_size(&n_logits, s->most, hp->vocab))
        s->logits = sl_alloc_array(n_logits, sizeof *s->logits);
    s->ids = sl_alloc_array(n, sizeof *s->ids);
    s->positions = sl_alloc_array(n, sizeof *s->positions);
    if (hp->position_2d)
        s->blocks = sl_zalloc_array(n, sizeof *s->blocks);
    s->seconds =
        sl_alloc_array(s->n_sizes * s->run->repeat, sizeof *s->seconds);
    if (s->logits == NULL || s->ids == NULL || s->positions == NULL ||
        s->seconds == NULL || (hp->position_2d && s->blocks == NULL))
        return sl_fail(err, SL_ERR_NOMEM, "no memory for passes of %u",
                       s->most);
    for (uint32_t i = 0; i < n; i++) {
        s->ids[i] = (int32_t)(UINT64_C(2654435761) * (i + 1) % hp->vocab);
        s->positions[i] = (int32_t)i;
    }
    return 0;
}

static int start(struct state *s, const struct sl_runtime_config *from,
                 struct sl_error *err)
{
    const struct sl_bench_run *run = s->run;
    struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = run->prompt + s->most,
        .pass_positions = run->prompt > s->most ? run->prompt : s->most,
        .pass_logits = 1,
        .n_texts = 1,
        .draft_positions = s->most - 1,
    };

    if (sl_bench_open(&s->rt, from, run, s->most - 1, err) != 0 ||
        allocate(s, err) != 0 || sl_runtime_start(s->rt, &load, err) != 0)
        return -1;
    s->lm = sl_runtime_lm(s->rt);
    if (s->lm->ops->seq_create(s->lm, &s->seq, err) != 0)
        return -1;
    return forward(s, 0, run->prompt, err);
}

/* One pass of a size that is not counted, whose predecessor was another's,
 * then some that are. */
static int time_size(struct state *s, uint32_t n, double *seconds,
                     struct sl_error *err)
{
    uint32_t passes = s->run->gen / 4 > 0 ? s->run->gen / 4 : 1;
    uint64_t begin = 0;

    for (uint32_t i = 0; i <= passes; i++) {
        if (i == 1)
            begin = sl_clock_ns();
        if (forward(s, s->run->prompt, n, err) != 0)
            return -1;
        s->lm->ops->seq_cut(s->lm, s->seq, s->run->prompt);
    }
    *seconds = (double)(sl_clock_ns() - begin) * 1e-9 / passes;
    return 0;
}

static void finish(struct state *s)
{
    sl_runtime_close(s->rt);
    free(s->ids);
    free(s->positions);
    free(s->blocks);
    free(s->logits);
    free(s->seconds);
}

int sl_bench_positions(struct sl_bench_positions *out,
                       const struct sl_runtime_config *config,
                       const struct sl_bench_run *run, const uint32_t *sizes,
                       size_t n_sizes, struct sl_error *err)
{
    struct state s = {.run = run, .sizes = sizes, .n_sizes = n_sizes};
    int rc;

    for (size_t i = 0; i < n_sizes; i++)
        s.most = sizes[i] > s.most ? sizes[i] : s.most;
    rc = start(&s, config, err);
    for (uint32_t turn = 0; turn <= run->repeat && rc == 0; turn++) {
        for (size_t i = 0; i < n_sizes && rc == 0; i++) {
            double seconds = 0;

            rc = time_size(&s, sizes[i], &seconds, err);
            if (turn > 0)
                s.seconds[i * run->repeat + turn - 1] = seconds;
        }
    }
    if (rc == 0) {
        out->memory = *sl_runtime_memory(s.rt);
        out->streamed_bytes = sl_runtime_plan_made(s.rt)->streamed_bytes;
        out->threads = sl_pool_threads(sl_runtime_pool(s.rt));
        for (size_t i = 0; i < n_sizes; i++)
            out->seconds[i] =
                sl_bench_spread_of(s.seconds + i * run->repeat, run->repeat);
    }
    finish(&s);
    return rc;
}

/* --- results -------------------------------------------------------------- */

void sl_bench_print_positions(FILE *f, const struct sl_bench_positions *p,
                              const struct sl_bench_run *run,
                              const uint32_t *sizes, size_t n_sizes)
{
    char ram[SL_SIZE_TEXT], streamed[SL_SIZE_TEXT];
    double first = p->seconds[0].median;

    fprintf(f, "prompt %u, %u thread%s, RAM %s, %s stream in every pass\n",
            run->prompt, p->threads, p->threads == 1 ? "" : "s",
            sl_size_format(ram, p->memory.budget),
            sl_size_format(streamed, p->streamed_bytes));
    fprintf(f, "%9s %9s %19s %8s %13s\n", "positions", "s/pass",
            "least .. most", "of first", "positions/s");
    for (size_t i = 0; i < n_sizes; i++) {
        const struct sl_bench_spread *s = &p->seconds[i];
        char range[40];

        snprintf(range, sizeof range, "%.4f .. %.4f", s->least, s->most);
        fprintf(f, "%9u %9.4f %19s %8.2f %13.2f\n", sizes[i], s->median, range,
                s->median / first, sizes[i] / s->median);
    }
}

int sl_bench_positions_json(FILE *f, const struct sl_bench_positions *p,
                            const struct sl_bench_run *run,
                            const uint32_t *sizes, size_t n_sizes,
                            const struct sl_bench_origin *origin,
                            struct sl_error *err)
{
    json_t *list = json_array(), *o;

    for (size_t i = 0; i < n_sizes; i++) {
        const struct sl_bench_spread *s = &p->seconds[i];

        json_array_append_new(list,
                              json_pack("{s:i, s:f, s:f, s:f}", "positions",
                                        (int)sizes[i], "seconds", s->median,
                                        "least", s->least, "most", s->most));
    }
    o = json_pack("{s:o, s:s, s:o, s:i, s:i, s:I, s:I, s:o}", "model",
                  sl_json_text(origin->model), "quant", origin->quant,
                  "command", sl_json_text(origin->command), "prompt",
                  (int)run->prompt, "threads", (int)p->threads, "ram_bytes",
                  (json_int_t)p->memory.budget, "streamed_bytes",
                  (json_int_t)p->streamed_bytes, "passes", list);
    return sl_json_print(f, o, JSON_COMPACT, err);
}

enum { LEFT = 70, TOP = 60, PLOT_W = 640, PLOT_H = 320 };

/* T(n) / T(1) of the last run over n, with the line on which n positions cost
 * n times what one does. */
int sl_bench_plot_positions(const char *path,
                            const struct sl_bench_positions *p,
                            const uint32_t *sizes, size_t n_sizes,
                            struct sl_error *err)
{
    double first = p->seconds[0].median, top = 1;
    uint32_t most = sizes[0];
    struct sl_newfile to;

    for (size_t i = 0; i < n_sizes; i++) {
        top =
            p->seconds[i].most / first > top ? p->seconds[i].most / first : top;
        most = sizes[i] > most ? sizes[i] : most;
    }
    if (sl_newfile_open(&to, path, err) != 0)
        return -1;
    fprintf(to.file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
            "height=\"%d\">\n<style>text{font:13px sans-serif}</style>\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
            "<text x=\"%d\" y=\"30\">seconds of a pass over its positions; "
            "one position: %.4g s</text>\n"
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" "
            "stroke=\"#222\"/>\n",
            LEFT + PLOT_W + 40, TOP + PLOT_H + 50, LEFT, first, LEFT, TOP,
            PLOT_W, PLOT_H);
    fprintf(to.file,
            "<text x=\"10\" y=\"%d\">%.2f</text>\n<text x=\"10\" "
            "y=\"%d\">0</text>\n<polyline fill=\"none\" stroke=\"#0072b2\" "
            "points=\"",
            TOP + 12, top, TOP + PLOT_H);
    for (size_t i = 0; i < n_sizes; i++)
        fprintf(to.file, "%.1f,%.1f ", LEFT + (double)PLOT_W * sizes[i] / most,
                TOP + PLOT_H * (1 - p->seconds[i].median / first / top));
    fputs("\"/>\n", to.file);
    for (size_t i = 0; i < n_sizes; i++) {
        double x = LEFT + (double)PLOT_W * sizes[i] / most;

        fprintf(to.file,
                "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" "
                "stroke=\"#0072b2\"/>\n<text x=\"%.1f\" y=\"%d\" "
                "text-anchor=\"middle\">%u</text>\n",
                x, x, TOP + PLOT_H * (1 - p->seconds[i].least / first / top),
                TOP + PLOT_H * (1 - p->seconds[i].most / first / top), x,
                TOP + PLOT_H + 20, sizes[i]);
    }
    fputs("</svg>\n", to.file);
    return sl_newfile_close(&to, err);
}
