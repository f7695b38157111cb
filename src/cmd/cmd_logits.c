#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/cmd/interrupt.h"
#include "src/cmd/logits_input.h"
#include "src/cmd/npy.h"
#include "src/cmd/opts_run.h"
#include "src/cmd/waiting.h"

/* Texts share passes over the weights up to this many positions. */
#define GROUP_POSITIONS 512u

struct options {
    struct sl_runtime_config run;
    const char *input;
    const char *output;
    bool step_by_step;
    enum sl_progress_kind progress;
    struct sl_waiting *waiting;
};

/* --- running ---------------------------------------------------------------
 */

/* Samples that go through the weights together: [first, first + n). */
static size_t group_at(const struct sl_logits_input *in, size_t first)
{
    uint64_t positions = in->samples[first].n;
    size_t n = 1;

    while (first + n < in->n &&
           positions + in->samples[first + n].n <= GROUP_POSITIONS)
        positions += in->samples[first + n++].n;
    return n;
}

static uint32_t answer_len(const struct sl_logits_sample *s)
{
    return s->n - s->n_context;
}

static struct sl_workload workload(const struct sl_logits_input *in)
{
    struct sl_workload w = {0};

    for (size_t i = 0; i < in->n; i += group_at(in, i)) {
        size_t n = group_at(in, i);
        uint32_t positions = 0, rows = 0;

        for (size_t j = i; j < i + n; j++) {
            const struct sl_logits_sample *s = &in->samples[j];

            positions += s->n;
            rows += answer_len(s);
            if (s->n > w.max_tokens)
                w.max_tokens = s->n;
        }
        if (n > w.n_sequences)
            w.n_sequences = (uint32_t)n;
        if (positions > w.pass_positions)
            w.pass_positions = positions;
        if (rows > w.pass_logits)
            w.pass_logits = rows;
    }
    return w;
}

struct group {
    struct sl_lm *lm;
    const struct sl_logits_sample *samples;
    size_t n;
    uint32_t *seqs;
    struct sl_lm_item *items;
    float *logits; /* (rows of all answers, vocab) */
};

/* The item that appends ids [from, to) of a sample. */
static struct sl_lm_item item_of(const struct sl_logits_sample *s, uint32_t seq,
                                 uint32_t from, uint32_t to)
{
    uint32_t first_row = from > s->n_context ? from : s->n_context;

    return (struct sl_lm_item){
        .seq = seq,
        .ids = s->ids + from,
        .positions = s->positions + from,
        .blocks = s->blocks ? s->blocks + from : NULL,
        .n = to - from,
        .n_context = s->n_context,
        .n_logits = to - first_row,
        .reads = from == 0,
    };
}

static int one_pass(struct group *g, struct sl_error *err)
{
    for (size_t i = 0; i < g->n; i++)
        g->items[i] = item_of(&g->samples[i], g->seqs[i], 0, g->samples[i].n);
    return g->lm->ops->forward(g->lm, g->items, g->n, g->logits, err);
}

/* Where the row of answer id `at` of sample i goes. */
static float *row_of(const struct group *g, size_t i, uint32_t at)
{
    size_t row = at;

    for (size_t j = 0; j < i; j++)
        row += answer_len(&g->samples[j]);
    return g->logits + row * g->lm->vocab;
}

/* Context and first answer id in one pass, then an id at a time: through the
 * KV cache, as generation does. rows: scratch for one row a sequence. */
static int step_by_step(struct group *g, float *rows, struct sl_error *err)
{
    size_t row_bytes = g->lm->vocab * sizeof(float);

    for (uint32_t at = 0;; at++) {
        size_t n_items = 0;

        for (size_t i = 0; i < g->n; i++) {
            const struct sl_logits_sample *s = &g->samples[i];

            if (at < answer_len(s))
                g->items[n_items++] =
                    item_of(s, g->seqs[i], at ? s->n_context + at : 0,
                            s->n_context + at + 1);
        }
        if (n_items == 0)
            return 0;
        if (g->lm->ops->forward(g->lm, g->items, n_items, rows, err) != 0)
            return -1;
        n_items = 0;
        for (size_t i = 0; i < g->n; i++) {
            if (at < answer_len(&g->samples[i]))
                memcpy(row_of(g, i, at), rows + n_items++ * g->lm->vocab,
                       row_bytes);
        }
    }
}

static int run_group(struct group *g, const struct options *o, float *rows,
                     struct sl_error *err)
{
    size_t alive = 0;
    int rc = 0;

    while (rc == 0 && alive < g->n) {
        rc = g->lm->ops->seq_create(g->lm, &g->seqs[alive], err);
        alive += rc == 0;
    }
    if (rc == 0)
        rc = o->step_by_step ? step_by_step(g, rows, err) : one_pass(g, err);
    while (alive > 0)
        g->lm->ops->seq_destroy(g->lm, g->seqs[--alive]);
    return rc;
}

static int run_all(struct sl_lm *lm, const struct sl_logits_input *in,
                   const struct sl_workload *w, const struct options *o,
                   struct sl_npy *out, struct sl_error *err)
{
    struct group g = {.lm = lm};
    float *rows = sl_alloc_array(w->n_sequences, lm->vocab * sizeof(float));
    struct sl_progress progress;
    int rc = 0;

    g.seqs = sl_alloc_array(w->n_sequences, sizeof *g.seqs);
    g.items = sl_alloc_array(w->n_sequences, sizeof *g.items);
    g.logits = sl_alloc_array(w->pass_logits, lm->vocab * sizeof(float));
    if (rows == NULL || g.seqs == NULL || g.items == NULL || g.logits == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory for %u rows of logits",
                     w->pass_logits);
    sl_progress_init(&progress, "logits", out->total_bytes, 0,
                     o->run.quiet || o->waiting != NULL);
    sl_waiting_begin(o->waiting, "computing", 0);
    for (size_t i = 0; rc == 0 && i < in->n; i += g.n) {
        size_t n_rows = 0;

        g.samples = &in->samples[i];
        g.n = group_at(in, i);
        for (size_t j = 0; j < g.n; j++)
            n_rows += answer_len(&g.samples[j]);
        rc = run_group(&g, o, rows, err);
        if (rc == 0)
            rc = sl_npy_write(out, g.logits, n_rows * lm->vocab, err);
        sl_progress_update(&progress, out->written_bytes);
        sl_waiting_count(o->waiting, "samples", i + g.n, in->n);
    }
    sl_progress_fini(&progress);
    sl_waiting_end(o->waiting);
    free(rows);
    free(g.seqs);
    free(g.items);
    free(g.logits);
    return rc;
}

static int check_paths(const struct options *o, struct sl_error *err)
{
    struct sl_paths paths = {0};

    sl_run_paths(&paths, &o->run);
    sl_paths_read(&paths, "--input", o->input);
    sl_paths_write(&paths, "--output", o->output);
    return sl_paths_end(&paths, err);
}

static int logits(struct options *o, struct sl_error *err)
{
    struct sl_logits_input in = {0};
    struct sl_interrupt *interrupt = NULL;
    struct sl_runtime *rt = NULL;
    struct sl_npy out = {0};
    struct sl_workload w;
    uint64_t rows = 0;
    int rc = check_paths(o, err);

    if (rc == 0)
        rc = sl_logits_input_read(&in, o->input, err);
    if (rc == 0)
        rc = sl_interrupt_create(&interrupt, err);
    if (rc == 0)
        rc = sl_waiting_create(&o->waiting, o->progress, o->run.quiet, err);
    if (rc == 0) {
        if (!o->run.verify)
            sl_waiting_begin(o->waiting, "opening the model", 0);
        rc = sl_runtime_open(&rt, &o->run, err);
    }
    if (rc == 0)
        rc = sl_logits_input_check(&in, &sl_runtime_modelfile(rt)->hp, o->input,
                                   err);
    if (rc == 0) {
        w = workload(&in);
        rc = sl_runtime_start(rt, &w, err);
    }
    sl_waiting_end(o->waiting);
    if (rc == 0)
        sl_waiting_watch(o->waiting, rt);
    for (size_t i = 0; i < in.n && rc == 0; i++)
        rows += answer_len(&in.samples[i]);
    if (rc == 0)
        rc = sl_npy_open(&out, o->output,
                         (uint64_t[]){rows, sl_runtime_lm(rt)->vocab}, 2, err);
    if (rc == 0)
        sl_interrupt_watch(interrupt, rt);
    if (rc == 0)
        rc = run_all(sl_runtime_lm(rt), &in, &w, o, &out, err);
    if (rc == 0)
        rc = sl_npy_close(&out, err);
    else
        sl_npy_abort(&out);
    if (rc != 0)
        sl_runtime_spoil(rt);
    if (interrupt != NULL)
        sl_interrupt_watch(interrupt, NULL);
    sl_waiting_destroy(o->waiting);
    sl_runtime_close(rt);
    sl_interrupt_destroy(interrupt);
    sl_logits_input_fini(&in);
    return rc;
}

/* --- command ---------------------------------------------------------------
 */

static const struct argp_option options[] = {
    {"input", 'i', "FILE", 0,
     "JSON: an object or a list of objects with \"context\" (ids without "
     "[sop]), \"answer\" (ids, beginning with [sop]) and \"positions\" or "
     "\"mask_position\"; - reads standard input (required)",
     0},
    {"output", 'o', "FILE", 0,
     "NumPy file to write: float32 (answer positions, vocabulary) (required)",
     0},
    {"step-by-step", 's', 0, 0,
     "One answer id at a time through the KV cache instead of one pass", 0},
    SL_PROGRESS_ROW(0),
    {"quiet", 'q', 0, 0, "No progress and no notices", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->run;
        return 0;
    case 'i':
        o->input = arg;
        return 0;
    case 'o':
        o->output = arg;
        return 0;
    case 's':
        o->step_by_step = true;
        return 0;
    case 'q':
        o->run.quiet = true;
        return 0;
    case ARGP_KEY_END:
        if (o->input == NULL || o->output == NULL)
            argp_error(state, "needs --input FILE.json and --output FILE.npy");
        return 0;
    default:
        return sl_opt_progress(&o->progress, key, arg, state)
                   ? 0
                   : ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&sl_run_argp, 0, "Memory and threads:", 0},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    0,
    "Write the logits of given token ids, teacher-forced, to check this "
    "program against another.",
    children,
    0,
    0,
};

static int run(int argc, char **argv)
{
    struct options o = {.run.needs_less = "shorter samples need less"};
    struct sl_log log = {sl_waiting_log, &o.waiting, SL_LOG_INFO};
    struct sl_error err;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc != 0)
        return rc;
    o.run.log = o.run.quiet ? NULL : &log;
    return sl_finish(logits(&o, &err), &err);
}

const struct sl_command sl_cmd_logits = {
    .name = "logits",
    .summary = "write the logits of given token ids as a NumPy file",
    .run = run,
    .argp = &argp,
};
