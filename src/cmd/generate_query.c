#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/lines.h"
#include "src/base/mem.h"
#include "src/base/outfile.h"
#include "src/cmd/generate.h"

/* How the answers of a query are printed. */
enum show { SHOW_TEXT, SHOW_STYLED, SHOW_JSON };

static enum show show_of(const struct sl_generate *g)
{
    if (g->o->json)
        return SHOW_JSON;
    return g->o->prompt != NULL ? SHOW_TEXT : SHOW_STYLED;
}

/* --- before ----------------------------------------------------------------
 */

static uint32_t most_tokens(const struct sl_generate *g)
{
    const struct sl_generate_options *o = g->o;

    return o->text.most_new > 0 && !o->length_given ? g->hp->max_positions
                                                    : o->fill.out_seq_length;
}

size_t sl_generate_most_bytes(const struct sl_generate *g)
{
    return 4096 + 32 * (size_t)most_tokens(g);
}

static int make_prompt(struct sl_prompt *p, struct sl_generate *g,
                       const struct sl_query *q, struct sl_error *err)
{
    size_t most = sl_generate_most_bytes(g);
    const char *nul;

    if (q->n_text > most)
        return sl_fail(err, SL_ERR_USAGE,
                       "text too long: more than %zu bytes do not fit "
                       "--out-seq-length %u; shorten the text or raise it",
                       most, most_tokens(g));
    nul = memchr(q->text, '\0', q->n_text);
    if (nul != NULL)
        return sl_fail(err, SL_ERR_USAGE,
                       "a zero byte at byte %zu of the text: no text has one",
                       (size_t)(nul - q->text) + 1);
    if (g->hp->causal)
        return sl_prompt_open(p, g->tokenizer, g->prefix, q->text, q->n_text,
                              err);
    switch (sl_runtime_modelfile(g->rt)->arch->prompts) {
    case SL_PROMPTS_GLM:
        return sl_prompt_make_glm(p, g->tokenizer, &g->hp->text,
                                  g->o->fill.pieces ? SL_STYLE_GLM
                                                    : SL_STYLE_GLM_130B,
                                  q->text, q->n_text, err);
    case SL_PROMPTS_CHATGLM:
        return sl_prompt_make_chatglm(p, g->tokenizer, &g->hp->text, q->text,
                                      q->n_text, err);
    default:
        return sl_prompt_make(p, g->tokenizer, &g->hp->text, q->text, q->n_text,
                              err);
    }
}

/* How long a text may become: -n counts what is new of each blank. */
static struct sl_fill_config config_of(const struct sl_generate *g,
                                       struct sl_prompt *prompt)
{
    struct sl_fill_config fill = g->o->fill;
    uint32_t most = g->o->text.most_new;
    uint64_t n_marks = 0, all;

    if (most == 0)
        return fill;
    if (prompt->max_new == 0 || prompt->max_new > most)
        prompt->max_new = most;
    for (size_t i = 0; i < prompt->ids.n; i++)
        n_marks += sl_prompt_fills(prompt, prompt->ids.v[i]);
    /* a causal model's mark is none that is read, the others read [sop] */
    all = prompt->ids.n + n_marks * most;
    all = g->hp->causal ? all - 1 : all + 1;
    if (!g->o->length_given || all < fill.out_seq_length)
        fill.out_seq_length = all < UINT32_MAX ? (uint32_t)all : UINT32_MAX;
    return fill;
}

/* Finds what is wrong with a query before anything is made of it. */
static int prepare(struct sl_generate *g, struct sl_prompt *prompt,
                   struct sl_fill_config *fill, const struct sl_query *q,
                   struct sl_workload *load, struct sl_error *err)
{
    struct sl_query unsplit = *q;
    char *id;

    if (g->o->with_id && q->id == NULL)
        return sl_query_split(q->text, q->n_text, &id, &unsplit.text,
                              &unsplit.n_text, err);
    if (q->id != NULL && sl_outfile_check_id(q->id, err) != 0)
        return -1;
    if (make_prompt(prompt, g, q, err) != 0)
        return -1;
    *fill = config_of(g, prompt);
    if (sl_fill_workload_beside(load, prompt, g->hp, fill, err) == 0)
        return 0;
    sl_prompt_fini(prompt);
    return -1;
}

int sl_generate_measure(struct sl_generate *g, const struct sl_query *q,
                        struct sl_workload *load, struct sl_error *err)
{
    struct sl_fill_config fill;
    struct sl_prompt prompt;

    if (prepare(g, &prompt, &fill, q, load, err) != 0)
        return -1;
    sl_prompt_fini(&prompt);
    return 0;
}

int sl_group_init(struct sl_group *group, struct sl_generate *g, size_t room,
                  struct sl_error *err)
{
    *group = (struct sl_group){.g = g, .room = room};
    group->works = sl_zalloc_array(room, sizeof *group->works);
    group->texts = sl_zalloc_array(room, sizeof *group->texts);
    if (group->works != NULL && group->texts != NULL)
        return 0;
    sl_group_fini(group);
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu queries", room);
}

int sl_group_add(struct sl_group *group, const struct sl_query *q,
                 const struct sl_rng *rng, struct sl_error *err)
{
    struct sl_work *w = &group->works[group->n];
    struct sl_workload load = {0};
    struct sl_fill_config fill;
    struct sl_prompt prompt;

    if (prepare(group->g, &prompt, &fill, q, &load, err) != 0)
        return -1;
    *w = (struct sl_work){
        .q = q,
        .prompt = prompt,
        .fill = fill,
        .rng = *rng,
        .start_ns = sl_clock_ns(),
    };
    group->texts[group->n++] = (struct sl_fill_text){
        .prompt = &w->prompt,
        .rng = &w->rng,
        .config = &w->fill,
    };
    return sl_stop_watch_init(&w->watch, group->g, &group->texts[group->n - 1],
                              err);
}

void sl_group_clear(struct sl_group *group)
{
    for (size_t i = 0; i < group->n; i++) {
        sl_fill_result_fini(&group->texts[i].result);
        sl_prompt_fini(&group->works[i].prompt);
        sl_stop_watch_fini(&group->works[i].watch);
    }
    group->n = 0;
}

void sl_group_fini(struct sl_group *group)
{
    sl_group_clear(group);
    free(group->works);
    free(group->texts);
    *group = (struct sl_group){0};
}

/* --- filling ---------------------------------------------------------------
 */

void sl_group_ended(struct sl_group *group, size_t i)
{
    struct sl_generate *g = group->g;
    struct sl_work *w = &group->works[i];

    sl_runtime_stats(g->rt, &w->after);
    w->guessed_after = g->drafts.gate.counts;
    w->end_ns = sl_clock_ns();
    g->n_generated += group->texts[i].result.n_generated;
    if (g->first_token_ns == 0)
        g->first_token_ns = group->texts[i].result.first_token_ns;
}

void sl_group_begin(struct sl_group *group)
{
    struct sl_generate *g = group->g;
    struct sl_run_stats before;

    sl_runtime_stats(g->rt, &before);
    for (size_t i = 0; i < group->n; i++) {
        group->works[i].before = before;
        group->works[i].guessed_before = g->drafts.gate.counts;
        group->works[i].start_ns = sl_clock_ns();
    }
}

static int text_ended(void *opaque, size_t i, struct sl_error *err)
{
    sl_group_ended(opaque, i);
    return 0;
}

/* Passes behind the first that a text of a group can take: a token each. */
static uint32_t most_passes(const struct sl_group *group)
{
    uint32_t most = group->works[0].fill.out_seq_length;
    size_t n = group->works[0].prompt.ids.n;

    return n < most ? most - (uint32_t)n : 0;
}

int sl_group_fill(struct sl_group *group, struct sl_error *err)
{
    struct sl_generate *g = group->g;
    struct sl_fill_batch batch = {
        .hp = g->hp,
        .config = &g->o->fill,
        .stops = g->stops,
        .texts = group->texts,
        .n_texts = group->n,
        .ended = text_ended,
        .opaque = group,
    };
    int rc;

    if (group->n == 0) /* empty or wrong: there is no model yet */
        return 0;
    batch.lm = sl_runtime_lm(g->rt);
    sl_group_begin(group);
    sl_waiting_begin(g->waiting, "answering", most_passes(group));
    rc = sl_fill_all(&batch, err);
    sl_waiting_end(g->waiting);
    return rc;
}

/* Fills the only text, showing it on the way. */
static int fill_streaming(struct sl_group *group, bool styled,
                          struct sl_error *err)
{
    struct sl_work *w = &group->works[0];
    struct sl_shower shower = {0};
    struct sl_fill_sink sink = {sl_shower_ids, &shower};
    struct sl_error ignored;
    bool whole, open;
    int rc;

    if (sl_shower_init(&shower, stdout, group->g, &w->prompt,
                       styled ? SL_TEXT_STYLED : SL_TEXT_SHOWN, err) != 0)
        return -1;
    if (styled) {
        fputs("Output: ", stdout);
        fflush(stdout);
        sl_waiting_text(group->g->waiting, "Output: ", 8);
    }
    atomic_store(&group->g->line_open, styled);
    sl_stop_watch_read(&w->watch, group->texts, &sink);
    rc = sl_group_fill(group, err);
    sl_stop_watch_read(&w->watch, group->texts, NULL);
    whole = rc == 0 && !group->texts[0].failed;
    /* Its colour ends too where the text is cut. */
    if (sl_shower_end(&shower, whole ? err : &ignored) != 0 && whole) {
        whole = false;
        rc = -1;
    }
    open = atomic_load(&group->g->line_open);
    atomic_store(&group->g->line_open, false);
    sl_shower_fini(&shower);
    if (whole) {
        putchar('\n');
        return sl_show_flush(stdout, err);
    }
    /* What went wrong is told on a line of its own. */
    if (open && !(rc != 0 && err->os_errno == EPIPE)) {
        putchar('\n');
        fflush(stdout);
    }
    return rc;
}

/* --- after -----------------------------------------------------------------
 */

/* All answers, and not the best alone. */
static bool shows_all(const struct sl_generate *g)
{
    const struct sl_fill_config *fill = &g->o->fill;

    return fill->strategy == SL_STRATEGY_BEAM ? g->o->print_all_beams
                                              : fill->n_answers > 1;
}

/* The best answer, or all of them one after another. */
static int print_answers(struct sl_generate *g, const struct sl_work *w,
                         const struct sl_fill_result *r, bool styled,
                         struct sl_error *err)
{
    size_t n_shown = shows_all(g) ? r->n_answers : 1;
    bool beams = g->o->fill.strategy == SL_STRATEGY_BEAM;

    for (size_t i = 0; i < n_shown; i++) {
        char *text;
        size_t n;

        if (sl_show_answer(&text, &n, g, &w->prompt, &r->answers[i],
                           styled ? SL_TEXT_STYLED : SL_TEXT_SHOWN, err) != 0)
            return -1;
        if (styled && n_shown > 1)
            printf(beams ? "Output beam %zu: " : "Output %zu: ", i);
        else if (styled)
            fputs("Output: ", stdout);
        fwrite(text, 1, n, stdout);
        putchar('\n');
        if (styled && n_shown > 1 && sl_utf8_count(text, n) > 120)
            putchar('\n');
        free(text);
    }
    return sl_show_flush(stdout, err);
}

/* One line for each beam asked for, empty where there is no answer. */
static int write_answers(struct sl_generate *g, const struct sl_work *w,
                         const struct sl_fill_result *r, struct sl_error *err)
{
    const struct sl_generate_options *o = g->o;
    size_t n_lines = r->n_answers, n_all = 0, n;
    char *all = NULL, *text;
    FILE *out = open_memstream(&all, &n_all);
    int rc = 0;

    if (out == NULL)
        return sl_fail_os(err, errno, "cannot hold the answers");
    if (o->fill.strategy == SL_STRATEGY_BEAM)
        n_lines = o->fill.n_beams;
    for (size_t i = 0; i < n_lines && rc == 0; i++) {
        if (i < r->n_answers) {
            rc = sl_show_answer(&text, &n, g, &w->prompt, &r->answers[i],
                                SL_TEXT_WHOLE, err);
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
        rc = sl_keeper_write(g->keeper, w->q, all, n_all, r->interrupted, err);
    free(all);
    return rc;
}

static int announce(const struct sl_work *w, struct sl_error *err)
{
    fputs("\nInput: ", stdout);
    fwrite(w->prompt.text, 1, w->prompt.n_text, stdout);
    fputs("\n\n", stdout);
    return sl_show_flush(stdout, err);
}

int sl_group_show(struct sl_group *group, size_t i, bool *interrupted,
                  struct sl_error *err)
{
    struct sl_generate *g = group->g;
    const struct sl_generate_options *o = g->o;
    struct sl_work *w = &group->works[i];
    struct sl_fill_text *t = &group->texts[i];
    bool styled = show_of(g) == SHOW_STYLED;
    bool stream = !t->ended && !o->json && !shows_all(g);
    int rc = styled ? announce(w, err) : 0;

    if (rc == 0 && !t->ended)
        rc = stream ? fill_streaming(group, styled, err)
                    : sl_group_fill(group, err);
    if (rc != 0)
        return -1;
    if (t->failed) {
        *err = t->err;
        return -1;
    }
    *interrupted |= t->result.interrupted;
    if (o->json)
        rc = sl_generate_print_json(g, w, &t->result, err);
    else if (!stream)
        rc = print_answers(g, w, &t->result, styled, err);
    if (rc == 0 && o->output_path != NULL)
        rc = write_answers(g, w, &t->result, err);
    if (rc == 0 && styled) {
        printf("\nTaken time %.2f\n\n",
               (double)(w->end_ns - w->start_ns) / 1e9);
        rc = sl_show_flush(stdout, err);
    }
    return rc;
}
