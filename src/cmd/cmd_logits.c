#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/cmd/interrupt.h"
#include "src/cmd/npy.h"
#include "src/cmd/opts.h"

/* Texts share passes over the weights up to this many positions. */
#define GROUP_POSITIONS 512u

struct options {
    struct sl_runtime_config run;
    const char *input;
    const char *output;
    bool step_by_step;
    bool quiet;
};

/* One object of the input: ids and positions of context and answer. */
struct sample {
    int32_t *ids, *positions, *blocks; /* (n); blocks NULL unless 2-D */
    uint32_t n, n_context;
};

struct input {
    struct sample *samples;
    size_t n;
};

/* --- input ---------------------------------------------------------------- */

static int bad(struct sl_error *err, const char *path, size_t i,
               const char *what)
{
    return sl_fail(err, SL_ERR_CORRUPT, "%s: object %zu: %s", path, i, what);
}

static int copy_ints(int32_t *to, const json_t *list)
{
    size_t i;
    json_t *v;

    json_array_foreach(list, i, v)
    {
        json_int_t n = json_integer_value(v);

        if (!json_is_integer(v) || n < 0 || n > INT32_MAX)
            return -1;
        to[i] = (int32_t)n;
    }
    return 0;
}

/* "positions": one number per id, or two such lists of a 2-D model. */
static int read_positions(struct sample *s, const json_t *positions)
{
    const json_t *rows[2] = {positions, NULL};

    if (json_is_array(json_array_get(positions, 0))) {
        if (json_array_size(positions) != 2)
            return -1;
        rows[0] = json_array_get(positions, 0);
        rows[1] = json_array_get(positions, 1);
    }
    if (!json_is_array(rows[0]) || json_array_size(rows[0]) != s->n ||
        copy_ints(s->positions, rows[0]) != 0)
        return -1;
    if (rows[1] == NULL) {
        free(s->blocks);
        s->blocks = NULL;
        return 0;
    }
    return json_is_array(rows[1]) && json_array_size(rows[1]) == s->n
               ? copy_ints(s->blocks, rows[1])
               : -1;
}

/* The context counts on; the answer does too for a [gMASK] (null), else stays
 * at the mask's index (THUDM/GLM-130B generate.py). */
static int derive_positions(struct sample *s, const json_t *mask)
{
    json_int_t at = json_integer_value(mask);

    if (mask == NULL || (!json_is_null(mask) && !json_is_integer(mask)))
        return -1;
    if (json_is_integer(mask) && (at < 0 || at >= (json_int_t)s->n_context))
        return -1;
    for (uint32_t i = 0; i < s->n; i++)
        s->positions[i] =
            i < s->n_context || json_is_null(mask) ? (int32_t)i : (int32_t)at;
    free(s->blocks);
    s->blocks = NULL;
    return 0;
}

static int read_sample(struct sample *s, const json_t *o, size_t i,
                       const char *path, struct sl_error *err)
{
    const json_t *context = json_object_get(o, "context");
    const json_t *answer = json_object_get(o, "answer");
    const json_t *positions = json_object_get(o, "positions");

    if (!json_is_array(context) || !json_is_array(answer) ||
        json_array_size(answer) == 0)
        return bad(err, path, i,
                   "needs \"context\" and \"answer\", lists of token ids; the "
                   "answer begins with the id of [sop]");
    if (json_array_size(context) + json_array_size(answer) > 1u << 20)
        return bad(err, path, i, "has more than 1048576 ids");
    s->n_context = (uint32_t)json_array_size(context);
    s->n = s->n_context + (uint32_t)json_array_size(answer);
    s->ids = sl_alloc_array(s->n, sizeof *s->ids);
    s->positions = sl_alloc_array(s->n, sizeof *s->positions);
    s->blocks = sl_alloc_array(s->n, sizeof *s->blocks);
    if (s->ids == NULL || s->positions == NULL || s->blocks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory", path);
    if (copy_ints(s->ids, context) != 0 ||
        copy_ints(s->ids + s->n_context, answer) != 0)
        return bad(err, path, i, "a token id is not a whole number");
    if (positions != NULL) {
        if (json_object_get(o, "mask_position") != NULL)
            return bad(err, path, i,
                       "has \"positions\" and \"mask_position\", which "
                       "replaces them: give one of the two");
        if (read_positions(s, positions) != 0)
            return bad(err, path, i,
                       "\"positions\" must hold one whole number for each id "
                       "of context and answer, or two such lists");
        return 0;
    }
    if (derive_positions(s, json_object_get(o, "mask_position")) != 0)
        return bad(err, path, i,
                   "needs \"positions\", or \"mask_position\": an index into "
                   "the context, or null for [gMASK]");
    return 0;
}

static void free_input(struct input *in)
{
    for (size_t i = 0; i < in->n; i++) {
        free(in->samples[i].ids);
        free(in->samples[i].positions);
        free(in->samples[i].blocks);
    }
    free(in->samples);
}

/* NULL with err set when there is none. */
static json_t *load_json(const char *path, struct sl_error *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    json_error_t je;
    json_t *root;

    if (f == NULL) {
        sl_fail_os(err, errno, "%s: cannot open the input", path);
        return NULL;
    }
    errno = 0;
    root = json_loadf(f, 0, &je);
    if (root == NULL && ferror(f))
        sl_fail_os(err, errno, "%s: cannot read the input", path);
    else if (root == NULL)
        sl_fail(err, SL_ERR_CORRUPT, "%s: line %d: not JSON: %s", path, je.line,
                je.text);
    if (f != stdin)
        fclose(f);
    return root;
}

static int read_input(struct input *in, const char *path, struct sl_error *err)
{
    json_t *root = load_json(path, err);
    int rc = 0;

    if (root == NULL)
        return -1;
    in->n = json_is_array(root) ? json_array_size(root) : 1;
    in->samples = sl_zalloc_array(in->n, sizeof *in->samples);
    if (in->samples == NULL) {
        in->n = 0;
        rc = sl_fail(err, SL_ERR_NOMEM, "%s: no memory", path);
    } else if (in->n == 0) {
        rc = sl_fail(err, SL_ERR_CORRUPT, "%s: an empty list", path);
    }
    for (size_t i = 0; rc == 0 && i < in->n; i++) {
        const json_t *o = json_is_array(root) ? json_array_get(root, i) : root;

        rc = read_sample(&in->samples[i], o, i, path, err);
    }
    json_decref(root);
    return rc;
}

/* That the model knows these ids, and positions of that kind. */
static int check_input(const struct input *in, const struct sl_hparams *hp,
                       const char *path, struct sl_error *err)
{
    for (size_t i = 0; i < in->n; i++) {
        const struct sample *s = &in->samples[i];

        if ((s->blocks != NULL) != hp->position_2d)
            return bad(err, path, i,
                       hp->position_2d
                           ? "has 1-D positions, but the model's have two "
                             "dimensions: \"positions\": [[...], [...]]"
                           : "has 2-D positions, but the model's have one "
                             "dimension");
        for (uint32_t j = 0; j < s->n; j++) {
            if ((uint32_t)s->ids[j] >= hp->vocab)
                return sl_fail(err, SL_ERR_CORRUPT,
                               "%s: object %zu: id %d at place %u is outside "
                               "the vocabulary of %u",
                               path, i, (int)s->ids[j], j, hp->vocab);
        }
    }
    return 0;
}

/* --- running ---------------------------------------------------------------
 */

/* Samples that go through the weights together: [first, first + n). */
static size_t group_at(const struct input *in, size_t first)
{
    uint64_t positions = in->samples[first].n;
    size_t n = 1;

    while (first + n < in->n &&
           positions + in->samples[first + n].n <= GROUP_POSITIONS)
        positions += in->samples[first + n++].n;
    return n;
}

static uint32_t answer_len(const struct sample *s)
{
    return s->n - s->n_context;
}

static struct sl_workload workload(const struct input *in)
{
    struct sl_workload w = {0};

    for (size_t i = 0; i < in->n; i += group_at(in, i)) {
        size_t n = group_at(in, i);
        uint32_t positions = 0, rows = 0;

        for (size_t j = i; j < i + n; j++) {
            const struct sample *s = &in->samples[j];

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
    const struct sample *samples;
    size_t n;
    uint32_t *seqs;
    struct sl_lm_item *items;
    float *logits; /* (rows of all answers, vocab) */
};

/* The item that appends ids [from, to) of a sample. */
static struct sl_lm_item item_of(const struct sample *s, uint32_t seq,
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
            const struct sample *s = &g->samples[i];

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

static int run_all(struct sl_lm *lm, const struct input *in,
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
    sl_progress_init(&progress, "logits", out->total_bytes, 0, o->quiet);
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
    }
    sl_progress_fini(&progress);
    free(rows);
    free(g.seqs);
    free(g.items);
    free(g.logits);
    return rc;
}

static int logits(struct options *o, struct sl_error *err)
{
    struct input in = {0};
    struct sl_interrupt *interrupt = NULL;
    struct sl_runtime *rt = NULL;
    struct sl_npy out = {0};
    struct sl_workload w;
    uint64_t rows = 0;
    int rc = read_input(&in, o->input, err);

    if (rc == 0)
        rc = sl_interrupt_create(&interrupt, err);
    if (rc == 0)
        rc = sl_runtime_open(&rt, &o->run, err);
    if (rc == 0)
        rc = check_input(&in, &sl_runtime_modelfile(rt)->hp, o->input, err);
    if (rc == 0) {
        w = workload(&in);
        rc = sl_runtime_start(rt, &w, err);
    }
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
    if (interrupt != NULL)
        sl_interrupt_watch(interrupt, NULL);
    sl_runtime_close(rt);
    sl_interrupt_destroy(interrupt);
    free_input(&in);
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
        o->quiet = o->run.quiet = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", arg);
        return 0;
    case ARGP_KEY_END:
        if (o->input == NULL || o->output == NULL)
            argp_error(state, "needs --input FILE.json and --output FILE.npy");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
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
    struct sl_log log = {sl_log_stderr, NULL, SL_LOG_INFO};
    struct options o = {
        .run.needs_less = "shorter samples need less",
        .run.log = &log,
    };
    struct sl_error err;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc != 0)
        return rc;
    if (o.quiet)
        o.run.log = NULL;
    if (logits(&o, &err) == 0)
        return SL_EXIT_OK;
    return sl_report(&err);
}

const struct sl_command sl_cmd_logits = {
    .name = "logits",
    .summary = "write the logits of given token ids as a NumPy file",
    .run = run,
    .argp = &argp,
};
