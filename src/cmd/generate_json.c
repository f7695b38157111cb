#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/cmd/generate.h"

static json_t *answer_json(struct sl_generate *g, const struct sl_work *w,
                           const struct sl_fill_answer *a, struct sl_error *err)
{
    json_t *blanks = json_array(), *o;
    char *text;
    size_t n;

    for (size_t b = 0; b < a->n_blanks; b++) {
        const struct sl_fill_span *span = &a->blanks[b];

        if (sl_tokenizer_decode_as(
                g->tokenizer, sl_generate_specials(g), a->ids.v + span->begin,
                span->end - span->begin, &text, &n, err) != 0)
            goto fail;
        n = sl_stops_cut(&g->o->text.stops, text, n);
        json_array_append_new(blanks, sl_json_textn(text, n));
        free(text);
    }
    if (sl_show_answer(&text, &n, g, &w->prompt, a, SL_TEXT_WHOLE, err) != 0)
        goto fail;
    o = json_pack("{s:o, s:o, s:I}", "text", sl_json_textn(text, n), "blanks",
                  blanks, "tokens", (json_int_t)a->ids.n);
    free(text);
    if (g->o->fill.strategy == SL_STRATEGY_BEAM)
        json_object_set_new(o, "score", json_real(a->score));
    return o;
fail:
    json_decref(blanks);
    return NULL;
}

static json_t *timing_json(const struct sl_work *w,
                           const struct sl_fill_result *r)
{
    double seconds = (double)(w->end_ns - w->start_ns) / 1e9;
    double decode = (double)(w->after.decode_ns - w->before.decode_ns) / 1e9 +
                    w->guessed_after.draft_s - w->guessed_before.draft_s;
    /* each blank's first token came of the pass that read the context */
    size_t n_first = r->n_answers > 0 ? r->answers[0].n_blanks : 0;
    uint64_t n = r->n_generated > n_first ? r->n_generated - n_first : 0;

    return json_pack("{s:f, s:f, s:f}", "seconds", seconds,
                     "first_token_seconds", (double)r->first_token_ns / 1e9,
                     "decode_tokens_per_second",
                     decode > 0 ? (double)n / decode : 0.0);
}

int sl_generate_print_json(struct sl_generate *g, const struct sl_work *w,
                           const struct sl_fill_result *r, struct sl_error *err)
{
    json_t *answers = json_array(), *o, *first;
    const struct sl_device_info *device;

    for (size_t i = 0; i < r->n_answers; i++) {
        json_t *a = answer_json(g, w, &r->answers[i], err);

        if (a == NULL) {
            json_decref(answers);
            return -1;
        }
        json_array_append_new(answers, a);
    }
    o = json_object();
    if (w->q->line >= 0)
        json_object_set_new(o, "line", json_integer(w->q->line + 1));
    if (w->q->id != NULL)
        json_object_set_new(o, "id", sl_json_textn(w->q->id, strlen(w->q->id)));
    json_object_set_new(o, "prompt", sl_json_textn(w->q->text, w->q->n_text));
    first = json_object_get(json_array_get(answers, 0), "text");
    json_object_set(o, "text", first);
    json_object_set_new(o, "answers", answers);
    json_object_set_new(o, "tokens",
                        json_pack("{s:I, s:I}", "prompt",
                                  (json_int_t)(w->prompt.ids.n - g->hp->causal),
                                  "generated", (json_int_t)r->n_generated));
    json_object_set_new(o, "interrupted", json_boolean(r->interrupted));
    json_object_set_new(o, "timing", timing_json(w, r));
    device = sl_runtime_device(g->rt, NULL);
    json_object_set_new(o, "device",
                        json_string(device != NULL ? device->name : "cpu"));
    json_object_set_new(o, "stats", sl_generate_stats_json(g, w));
    if (sl_json_print(stdout, o, JSON_COMPACT | JSON_REAL_PRECISION(9), err))
        return -1;
    return sl_show_flush(stdout, err);
}
