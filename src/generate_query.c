#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/generate.h"
#include "src/lines.h"
#include "src/outfile.h"

/* A query on its way. */
struct work {
    struct sl_generate *g;
    const struct sl_query *q;
    struct sl_prompt prompt;
    struct sl_fill_result result;
    struct sl_run_stats before, after;
    uint64_t start_ns;
};

int sl_generate_measure(struct sl_generate *g, const struct sl_query *q,
                        struct sl_workload *load, struct sl_error *err)
{
    struct sl_prompt p;
    int rc;

    if (sl_prompt_make(&p, g->tokenizer, g->hp, q->text, q->n_text, err) != 0)
        return -1;
    rc = sl_fill_workload(load, &p, g->hp, &g->o->fill, err);
    sl_prompt_fini(&p);
    return rc;
}

/* Fills the blanks, showing the text on the way where it can be. */
static int fill(struct work *w, enum sl_show show, bool stream,
                struct sl_error *err)
{
    struct sl_generate *g = w->g;
    struct sl_shower shower = {0};
    struct sl_fill_sink sink = {sl_shower_ids, &shower};
    bool styled = show == SL_SHOW_STYLED;
    int rc;

    if (stream &&
        sl_shower_init(&shower, stdout, g, &w->prompt, styled, err) != 0)
        return -1;
    if (stream && styled)
        fputs("Output: ", stdout);
    rc = sl_fill(&w->result, sl_runtime_lm(g->rt), &w->prompt, g->hp,
                 &g->o->fill, &g->rng, stream ? &sink : NULL, err);
    if (rc == 0 && stream)
        rc = sl_shower_end(&shower, err);
    if (stream && !(rc != 0 && err->os_errno == EPIPE))
        putchar('\n');
    sl_shower_fini(&shower);
    if (rc == 0)
        rc = sl_show_flush(stdout, err);
    return rc;
}

/* All beams, one after another. */
static int print_beams(struct work *w, bool styled, struct sl_error *err)
{
    for (size_t i = 0; i < w->result.n_answers; i++) {
        char *text;
        size_t n;

        if (sl_show_answer(&text, &n, w->g, &w->prompt, &w->result.answers[i],
                           styled, err) != 0)
            return -1;
        if (styled && w->result.n_answers > 1)
            printf("Output beam %zu: ", i);
        else if (styled)
            fputs("Output: ", stdout);
        fwrite(text, 1, n, stdout);
        putchar('\n');
        if (styled && w->result.n_answers > 1 && sl_utf8_count(text, n) > 120)
            putchar('\n');
        free(text);
    }
    return sl_show_flush(stdout, err);
}

/* One line for each beam asked for, empty where there is no answer. */
static int write_answers(struct work *w, struct sl_error *err)
{
    const struct sl_generate_options *o = w->g->o;
    size_t n_lines = w->result.n_answers, n_all = 0, n;
    char *all = NULL, *text;
    FILE *out = open_memstream(&all, &n_all);
    int rc = 0;

    if (out == NULL)
        return sl_fail_os(err, errno, "cannot hold the answers");
    if (o->fill.strategy == SL_STRATEGY_BEAM)
        n_lines = o->fill.n_beams;
    for (size_t i = 0; i < n_lines && rc == 0; i++) {
        if (i < w->result.n_answers) {
            rc = sl_show_answer(&text, &n, w->g, &w->prompt,
                                &w->result.answers[i], false, err);
            if (rc == 0) {
                fwrite(text, 1, n, out);
                free(text);
            }
        }
        putc('\n', out);
    }
    if (fclose(out) != 0 && rc == 0)
        rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for the answers");
    if (rc == 0)
        rc = sl_outfile_write(o->output_path, w->q->id, w->q->text,
                              w->q->n_text, all, n_all, err);
    free(all);
    return rc;
}

/* A JSON string needs whole characters. */
static json_t *json_text(const char *text, size_t n)
{
    json_t *s = json_stringn(text, n);

    return s != NULL ? s : json_null();
}

static json_t *answer_json(struct work *w, size_t i, struct sl_error *err)
{
    const struct sl_fill_answer *a = &w->result.answers[i];
    json_t *blanks = json_array(), *o;
    char *text;
    size_t n;

    for (size_t b = 0; b < a->n_blanks; b++) {
        const struct sl_fill_span *span = &a->blanks[b];

        if (sl_tokenizer_decode(w->g->tokenizer, a->ids.v + span->begin,
                                span->end - span->begin, &text, err) != 0)
            goto fail;
        json_array_append_new(blanks, json_string(text));
        free(text);
    }
    if (sl_show_answer(&text, &n, w->g, &w->prompt, a, false, err) != 0)
        goto fail;
    o = json_pack("{s:o, s:o, s:I}", "text", json_text(text, n), "blanks",
                  blanks, "tokens", (json_int_t)a->ids.n);
    free(text);
    if (w->g->o->fill.strategy == SL_STRATEGY_BEAM)
        json_object_set_new(o, "score", json_real(a->score));
    return o;
fail:
    json_decref(blanks);
    return NULL;
}

static json_t *timing_json(const struct work *w)
{
    double seconds = (double)(sl_clock_ns() - w->start_ns) / 1e9;
    double decode = (double)(w->after.decode_ns - w->before.decode_ns) / 1e9;
    uint64_t passes = (w->after.passes - w->after.prefill_passes) -
                      (w->before.passes - w->before.prefill_passes);

    return json_pack(
        "{s:f, s:f, s:f}", "seconds", seconds, "first_token_seconds",
        (double)w->result.first_token_ns / 1e9, "decode_tokens_per_second",
        decode > 0 ? (double)passes / decode : 0.0);
}

static int print_json(struct work *w, struct sl_error *err)
{
    json_t *answers = json_array(), *o, *first;
    int rc = 0;

    for (size_t i = 0; i < w->result.n_answers; i++) {
        json_t *a = answer_json(w, i, err);

        if (a == NULL) {
            json_decref(answers);
            return -1;
        }
        json_array_append_new(answers, a);
    }
    o = json_object();
    if (w->q->line >= 0)
        json_object_set_new(o, "line", json_integer(w->q->line));
    if (w->q->id != NULL)
        json_object_set_new(o, "id", json_text(w->q->id, strlen(w->q->id)));
    json_object_set_new(o, "prompt", json_text(w->q->text, w->q->n_text));
    first = json_object_get(json_array_get(answers, 0), "text");
    json_object_set(o, "text", first);
    json_object_set_new(o, "answers", answers);
    json_object_set_new(o, "tokens",
                        json_pack("{s:I, s:I}", "prompt",
                                  (json_int_t)w->prompt.ids.n, "generated",
                                  (json_int_t)w->result.n_generated));
    json_object_set_new(o, "interrupted", json_boolean(w->result.interrupted));
    json_object_set_new(o, "timing", timing_json(w));
    json_object_set_new(o, "stats",
                        sl_generate_stats_json(&w->before, &w->after));
    if (json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) != 0)
        rc = sl_fail_os(err, errno, "cannot write to standard output");
    json_decref(o);
    putchar('\n');
    return rc != 0 ? rc : sl_show_flush(stdout, err);
}

static int show_result(struct work *w, enum sl_show show, bool streamed,
                       struct sl_error *err)
{
    if (show == SL_SHOW_JSON)
        return print_json(w, err);
    if (!streamed)
        return print_beams(w, show == SL_SHOW_STYLED, err);
    return 0;
}

int sl_generate_query(struct sl_generate *g, const struct sl_query *q,
                      enum sl_show show, bool *interrupted,
                      struct sl_error *err)
{
    const struct sl_generate_options *o = g->o;
    struct work w = {.g = g, .q = q, .start_ns = sl_clock_ns()};
    struct sl_workload load = {0};
    bool stream;
    int rc;

    if ((q->id != NULL && sl_outfile_check_id(q->id, err) != 0) ||
        sl_prompt_make(&w.prompt, g->tokenizer, g->hp, q->text, q->n_text,
                       err) != 0)
        return -1;
    if (show == SL_SHOW_STYLED) {
        fputs("\nInput: ", stdout);
        fwrite(w.prompt.text, 1, w.prompt.n_text, stdout);
        fputs("\n\n", stdout);
    }
    stream = show != SL_SHOW_JSON &&
             !(o->print_all_beams && o->fill.strategy == SL_STRATEGY_BEAM);
    rc = sl_show_flush(stdout, err);
    if (rc == 0)
        rc = sl_fill_workload(&load, &w.prompt, g->hp, &o->fill, err);
    if (rc == 0) {
        sl_runtime_stats(g->rt, &w.before);
        rc = fill(&w, show, stream, err);
    }
    if (rc == 0) {
        sl_runtime_stats(g->rt, &w.after);
        if (g->first_token_ns == 0)
            g->first_token_ns = w.result.first_token_ns;
        *interrupted = w.result.interrupted;
        rc = show_result(&w, show, stream, err);
    }
    if (rc == 0 && o->output_path != NULL)
        rc = write_answers(&w, err);
    sl_fill_result_fini(&w.result);
    sl_prompt_fini(&w.prompt);
    return rc;
}
